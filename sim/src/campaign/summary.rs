//! The sums over many runs. The order of addition makes no difference: the sums of two machines are those of all their
//! seeds.
//!
//! This module does not judge anything, and keeps nothing about single machines: their seeds and times are in `file`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use continuum_core::mark::instrument::MARKS;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::invariant::Invariants;
use super::pairs::Pairs;
use super::reach::Reach;
use crate::plan::fault::Kind;
use crate::report::Record;

/// Each pair of faults should meet in one seed of this many.
const PAIR_BOUND: u64 = 100;

/// The sums of one kind of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Struck {
    /// How often it was planned.
    pub planned: u64,
    /// How often it had an effect.
    pub fired: u64,
    /// Seeds in which it had an effect.
    pub seeds: u64,
}

/// The sums over many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The number of runs.
    pub seeds: u64,
    /// Runs that broke a law.
    pub violations: u64,
    /// Steps of nodes.
    pub events: u64,
    /// Virtual time, in nanoseconds.
    pub virtual_ns: u64,
    /// Acknowledged operations.
    pub operations: u64,
    /// The fewest acknowledged operations of a run.
    pub operations_min: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// The sums of each kind of fault.
    pub faults: BTreeMap<String, Struck>,
    /// The number of seeds in which two kinds met.
    pub pairs: Pairs,
    /// The number of seeds that hit each mark.
    pub marks: Reach,
    /// The longest of each of the three liveness figures, in nanoseconds.
    pub liveness_ns: [u64; 3],
    /// The most work of one step: allocations and frees, and bytes allocated.
    #[serde(default)]
    pub work_max: (u64, u64),
    /// CPU time of the runs, in microseconds.
    pub cpu_us: u64,
    /// The slowest run: CPU microseconds, and its seed.
    pub slowest: (u64, u64),
    /// The broken laws.
    pub invariants: Invariants,
}

impl Summary {
    /// Adds one run.
    pub fn add(&mut self, record: &Record) {
        let mut one = Self {
            seeds: 1,
            violations: u64::from(record.violation.is_some()),
            events: record.events,
            virtual_ns: record.virtual_ns,
            operations: record.operations,
            operations_min: record.operations,
            unknown: record.unknown,
            liveness_ns: record.liveness_ns.map(|found| found.unwrap_or(0)),
            work_max: record.work_max,
            cpu_us: record.cpu_us,
            slowest: (record.cpu_us, record.seed),
            ..Self::default()
        };
        for (kind, (planned, fired)) in &record.faults {
            let (planned, fired) = (*planned, *fired);
            let struck = Struck { planned, fired, seeds: u64::from(fired > 0) };
            one.faults.insert(kind.clone(), struck);
        }
        let struck =
            |kind: Kind| record.faults.get(kind.name()).is_some_and(|(_, fired)| *fired > 0);
        one.pairs.add(struck);
        one.marks.add(&record.marks);
        one.invariants.add(record);
        self.merge(&one);
    }

    /// Adds another campaign's sums.
    pub fn merge(&mut self, other: &Self) {
        if other.seeds == 0 {
            return;
        }
        let fewest = if self.seeds == 0 { u64::MAX } else { self.operations_min };
        self.operations_min = fewest.min(other.operations_min);
        self.seeds += other.seeds;
        self.violations += other.violations;
        self.events += other.events;
        self.virtual_ns += other.virtual_ns;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.cpu_us += other.cpu_us;
        self.slowest = self.slowest.max(other.slowest);
        for (kind, struck) in &other.faults {
            let sum = self.faults.entry(kind.clone()).or_default();
            sum.planned += struck.planned;
            sum.fired += struck.fired;
            sum.seeds += struck.seeds;
        }
        for (most, found) in self.liveness_ns.iter_mut().zip(other.liveness_ns) {
            *most = (*most).max(found);
        }
        let (calls, bytes) = other.work_max;
        self.work_max = (self.work_max.0.max(calls), self.work_max.1.max(bytes));
        self.pairs.merge(&other.pairs);
        self.marks.merge(&other.marks);
        self.invariants.merge(&other.invariants);
    }

    /// Kinds of fault that were planned and never struck.
    #[must_use]
    pub fn silent_faults(&self) -> Vec<&str> {
        let silent =
            self.faults.iter().filter(|(_, struck)| struck.planned > 0 && struck.fired == 0);
        silent.map(|(kind, _)| kind.as_str()).collect()
    }

    /// The number of seeds in which each pair of faults should meet.
    #[must_use]
    pub const fn pair_bound(&self) -> u64 {
        self.seeds.div_ceil(PAIR_BOUND)
    }

    /// The figures as JSON; `seconds` is the campaign's duration.
    #[must_use]
    pub fn to_json(&self, command: &str, seconds: f64) -> Value {
        let virtual_s = self.virtual_ns as f64 / 1e9;
        let per_s = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let ms = |ns: u64| ns / 1_000_000;
        let pairs = self.pairs.figures(self.pair_bound());
        json!({
            "command": command,
            "violations": self.violations,
            "seeds": self.seeds,
            "virtual_s": virtual_s.round(),
            "operations": self.operations,
            "operations_min": self.operations_min,
            "unknown": self.unknown,
            "events": self.events,
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "cpu_seconds": (self.cpu_us as f64 / 1e3).round() / 1e3,
            "slowest_seed": self.slowest.1,
            "slowest_ms": self.slowest.0 / 1_000,
            "events_per_s": per_s(self.events as f64).round(),
            "times_real": per_s(virtual_s).round(),
            "leader_ms_max": ms(self.liveness_ns[0]),
            "served_ms_max": ms(self.liveness_ns[1]),
            "equal_ms_max": ms(self.liveness_ns[2]),
            "step_calls_max": self.work_max.0,
            "step_bytes_max": self.work_max.1,
            "faults": self.faults,
            "silent_faults": self.silent_faults(),
            "pairs": pairs.pairs,
            "pairs_fewest": pairs.fewest,
            "pairs_median": pairs.median,
            "pairs_bound": pairs.bound,
            "pairs_below": pairs.below,
            "marks": self.marks.count(),
            "marks_reachable": Reach::reachable(),
            "marks_rare": self.marks.rare(self.seeds).len(),
            "marks_never": self.marks.never().len(),
            "invariants": self.invariants,
        })
    }

    /// The names behind the figures: pairs that never met, marks that are rare, marks that were never hit.
    #[must_use]
    pub fn names_json(&self) -> Value {
        json!({
            "pairs_never": self.pairs.figures(self.pair_bound()).never,
            "marks_rare": self.marks.rare(self.seeds),
            "marks_never": self.marks.never(),
        })
    }

    /// The figures as a table for people: faults, pairs, marks, broken laws.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = String::new();
        let _ =
            writeln!(table, "{:<18} {:>12} {:>14} {:>9}", "fault", "planned", "struck", "seeds");
        for kind in Kind::ALL {
            let Struck { planned, fired, seeds } =
                self.faults.get(kind.name()).copied().unwrap_or_default();
            let _ = writeln!(table, "{:<18} {planned:>12} {fired:>14} {seeds:>9}", kind.name());
        }
        let pairs = self.pairs.figures(self.pair_bound());
        let _ = writeln!(
            table,
            "{} pairs of faults: the rarest met in {} seeds, the median in {}, {} pairs in fewer than {}",
            pairs.pairs, pairs.fewest, pairs.median, pairs.below, pairs.bound
        );
        let (rare, never) = (self.marks.rare(self.seeds).len(), self.marks.never().len());
        let (hit, reachable, all) = (self.marks.within_reach(), Reach::reachable(), MARKS.len());
        let share = hit * 100 / reachable.max(1);
        let _ = writeln!(
            table,
            "{hit}/{reachable} marks within reach hit ({share} %), {rare} of them rarely; {never} of all {all} never"
        );
        table + &self.invariants.to_table()
    }

    /// The names of the marks that are hit rarely or never, as a table.
    #[must_use]
    pub fn marks_table(&self) -> String {
        let mut table = String::new();
        for (mark, seeds) in self.marks.rare(self.seeds) {
            let _ = writeln!(table, "rare  {mark} ({seeds} seeds)");
        }
        for mark in self.marks.never() {
            let _ = writeln!(table, "never {mark}");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Finding;

    #[test]
    fn a_fault_that_never_struck_is_named() {
        let mut summary = Summary::default();
        let mut record = Record::default();
        record.faults.insert("drop".to_owned(), (1, 0));
        record.faults.insert("crash".to_owned(), (2, 2));
        summary.add(&record);
        assert_eq!(summary.silent_faults(), ["drop"]);
        record.faults.insert("drop".to_owned(), (1, 9));
        summary.add(&record);
        assert_eq!(summary.silent_faults(), Vec::<&str>::new());
        assert_eq!(summary.faults["drop"], Struck { planned: 2, fired: 9, seeds: 1 });
    }

    #[test]
    fn sums_do_not_depend_on_how_seeds_are_divided() {
        let record = |seed: u64| {
            let mut record = Record {
                seed,
                events: 100 + seed * 31 % 17,
                operations: 50 - seed,
                liveness_ns: [Some(seed), None, Some(9 - seed)],
                work_max: (seed, 9 - seed),
                marks: format!("{:x}", seed % 16),
                ..Record::default()
            };
            let kinds = [Kind::Drop, Kind::Crash, Kind::Rot];
            kinds.iter().enumerate().filter(|(at, _)| seed >> at & 1 == 1).for_each(|(_, kind)| {
                record.faults.insert(kind.name().to_owned(), (1, 1 + seed));
            });
            record.violation = seed.is_multiple_of(3).then(|| Finding {
                oracle: "commit".to_owned(),
                what: format!("entry {seed}"),
                ..Finding::default()
            });
            record
        };
        let sum = |seeds: &mut dyn Iterator<Item = u64>| {
            let mut sum = Summary::default();
            seeds.for_each(|seed| sum.add(&record(seed)));
            sum
        };
        let all = sum(&mut (0..9));
        let mut parts = sum(&mut (4..9).rev());
        parts.merge(&Summary::default());
        parts.merge(&sum(&mut (0..4)));
        assert_eq!(parts, all);
        assert_eq!((all.seeds, all.violations, all.operations_min), (9, 3, 42));
        let text = serde_json::to_string(&all).expect("sums serialize");
        assert_eq!(serde_json::from_str::<Summary>(&text).ok(), Some(all));
    }
}
