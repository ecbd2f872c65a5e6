//! The record of a run, and a violation as text.
//!
//! Workers hand records to the campaign as lines of JSON. `campaign::summary` adds up many of them. This module does
//! not judge.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::plan::fault::Tally;
use crate::run::{Outcome, Violation};
use crate::transcript::{cut, seconds};

/// One run, as a worker reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The seed of the run, or of the plan from a file.
    pub seed: u64,
    /// The SHA-256 chain of the trace.
    pub chain: String,
    /// Links of the chain.
    pub links: Vec<u64>,
    /// Number of steps that nodes took.
    pub events: u64,
    /// Virtual time, in nanoseconds.
    pub virtual_ns: u64,
    /// Number of acknowledged operations.
    pub operations: u64,
    /// Number of operations with an unknown outcome.
    pub unknown: u64,
    /// For each kind of fault: how often it was planned, and how often it took effect.
    pub faults: BTreeMap<String, (u64, u64)>,
    /// Nanoseconds from healing to a leader in every group, from healing to all nodes serving, and from the last write
    /// to equal replicas.
    pub liveness_ns: [Option<u64>; 3],
    /// The most work of one step: allocations and frees, and bytes allocated.
    #[serde(default)]
    pub work_max: (u64, u64),
    /// The marks that the run hit: one bit each, as hexadecimal digits.
    #[serde(default)]
    pub marks: String,
    /// CPU time in microseconds; it differs between runs of the same seed.
    #[serde(default)]
    pub cpu_us: u64,
    /// The violation, if there was one.
    pub violation: Option<Finding>,
}

/// A violation in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The law that was broken.
    pub oracle: String,
    /// How it was broken.
    pub what: String,
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
    /// The node that took the step.
    pub node: usize,
    /// The last steps, as text.
    pub steps: Vec<String>,
}

impl From<Violation> for Finding {
    fn from(violation: Violation) -> Self {
        let Violation { oracle, what, at_ns, node, steps } = violation;
        Self { oracle, what, at_ns, node, steps }
    }
}

impl Record {
    /// The record of a run.
    #[must_use]
    pub fn new(seed: u64, outcome: Outcome) -> Self {
        let faults = faults_of(&outcome.planned, &outcome.fired);
        let live = outcome.liveness;
        Self {
            seed,
            chain: outcome.chain,
            links: outcome.links,
            events: outcome.events,
            virtual_ns: outcome.virtual_ns,
            operations: outcome.operations,
            unknown: outcome.unknown,
            faults,
            liveness_ns: [live.leader_ns, live.served_ns, live.equal_ns],
            work_max: (outcome.work_max.calls, outcome.work_max.bytes),
            marks: String::new(),
            cpu_us: 0,
            violation: outcome.violation.map(Finding::from),
        }
    }
}

fn faults_of(planned: &Tally, fired: &Tally) -> BTreeMap<String, (u64, u64)> {
    let both = planned.iter().map(|(kind, count)| (kind, count, fired.of(kind)));
    let some = both.filter(|(_, planned, fired)| planned + fired > 0);
    some.map(|(kind, planned, fired)| (kind.name().to_owned(), (planned, fired))).collect()
}

/// A violation as text, with the command that replays it.
#[must_use]
pub fn explain(record: &Record, replay: &str) -> String {
    let Some(violation) = &record.violation else { return String::new() };
    let mut text = String::new();
    for step in &violation.steps {
        let _ = writeln!(text, "{step}");
    }
    let _ = writeln!(
        text,
        "\nviolation of {} by node {} in seed {} at {}",
        violation.oracle,
        violation.node,
        record.seed,
        seconds(violation.at_ns)
    );
    let _ = writeln!(text, "  {}", cut(&violation.what, 2000));
    let _ = writeln!(text, "replay: {replay}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_equal_after_a_round_trip_through_json() {
        let mut record = Record { seed: 3, chain: "ab".to_owned(), ..Record::default() };
        record.faults.insert("drop".to_owned(), (1, 0));
        let line = serde_json::to_string(&record).expect("a record serializes");
        assert_eq!(serde_json::from_str::<Record>(&line).ok(), Some(record));
    }
}
