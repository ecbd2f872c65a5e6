//! The pair matrix: the number of seeds in which two kinds of fault both struck.
//!
//! Most bugs of a federation need two things to go wrong at once. A swarm in which two kinds of fault never meet has
//! not searched for the bugs that need both. This module counts kinds, not single faults.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::plan::fault::Kind;

/// Seeds of each pair, by the names of both kinds in the order of `Kind::ALL`; pairs that never met are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pairs {
    seeds: BTreeMap<String, u64>,
}

/// The summary of a matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// The number of pairs.
    pub pairs: usize,
    /// Seeds of the pair that met in the fewest.
    pub fewest: u64,
    /// Seeds of the median pair.
    pub median: u64,
    /// Seeds in which each pair should meet.
    pub bound: u64,
    /// The number of pairs below the bound.
    pub below: usize,
    /// The pairs that never met, by name.
    pub never: Vec<String>,
}

fn name(one: Kind, other: Kind) -> String {
    let (one, other) = if one <= other { (one, other) } else { (other, one) };
    format!("{}+{}", one.name(), other.name())
}

/// All pairs, in order.
fn all() -> impl Iterator<Item = (Kind, Kind)> {
    let kinds = Kind::ALL.iter().enumerate();
    kinds.flat_map(|(at, one)| Kind::ALL[at + 1..].iter().map(|other| (*one, *other)))
}

impl Pairs {
    /// Adds a seed in which these kinds struck.
    pub fn add(&mut self, struck: impl Fn(Kind) -> bool) {
        for (one, other) in all().filter(|(one, other)| struck(*one) && struck(*other)) {
            *self.seeds.entry(name(one, other)).or_default() += 1;
        }
    }

    /// Adds another matrix.
    pub fn merge(&mut self, other: &Self) {
        for (pair, seeds) in &other.seeds {
            *self.seeds.entry(pair.clone()).or_default() += seeds;
        }
    }

    /// The number of seeds in which both kinds struck.
    #[must_use]
    pub fn of(&self, one: Kind, other: Kind) -> u64 {
        self.seeds.get(&name(one, other)).copied().unwrap_or(0)
    }

    /// The summary of the matrix; `bound` is the number of seeds in which each pair should meet.
    #[must_use]
    pub fn figures(&self, bound: u64) -> Figures {
        let mut counts: Vec<u64> = all().map(|(one, other)| self.of(one, other)).collect();
        counts.sort_unstable();
        let never = all().filter(|(one, other)| self.of(*one, *other) == 0);
        Figures {
            pairs: counts.len(),
            fewest: counts.first().copied().unwrap_or(0),
            median: counts.get(counts.len() / 2).copied().unwrap_or(0),
            bound,
            below: counts.iter().filter(|count| **count < bound).count(),
            never: never.map(|(one, other)| name(one, other)).collect(),
        }
    }

    /// The matrix as a triangular table: a row and a column for each kind, columns by number.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = format!("{:>20}", "");
        (0..Kind::ALL.len()).for_each(|number| {
            let _ = write!(table, " {number:>3}");
        });
        for (number, row) in Kind::ALL.iter().enumerate() {
            let _ = write!(table, "\n{number:>2} {:<17}", row.name());
            for column in &Kind::ALL[..number] {
                let _ = write!(table, " {:>3}", short(self.of(*row, *column)));
            }
        }
        table
    }
}

/// A count in at most three characters.
fn short(count: u64) -> String {
    match count {
        0 => "-".to_owned(),
        1..1_000 => count.to_string(),
        1_000..100_000 => format!("{}k", count / 1_000),
        100_000..1_000_000 => format!(".{}M", count / 100_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_and_added() {
        let mut pairs = Pairs::default();
        pairs.add(|kind| matches!(kind, Kind::Drop | Kind::Crash | Kind::Rot));
        pairs.add(|kind| matches!(kind, Kind::Drop | Kind::Crash));
        pairs.add(|kind| kind == Kind::Skew);
        let mut twice = pairs.clone();
        twice.merge(&pairs);
        for (matrix, times) in [(&pairs, 1), (&twice, 2)] {
            assert_eq!(matrix.of(Kind::Drop, Kind::Crash), 2 * times);
            assert_eq!(matrix.of(Kind::Crash, Kind::Drop), 2 * times);
            assert_eq!(matrix.of(Kind::Rot, Kind::Drop), times);
            assert_eq!(matrix.of(Kind::Skew, Kind::Drop), 0);
        }
    }

    #[test]
    fn the_summary_names_pairs_that_never_met() {
        let mut pairs = Pairs::default();
        pairs.add(|kind| kind != Kind::Drop);
        let figures = pairs.figures(2);
        let kinds = Kind::ALL.len();
        assert_eq!((figures.pairs, figures.fewest), (kinds * (kinds - 1) / 2, 0));
        assert_eq!((figures.median, figures.below), (1, figures.pairs));
        assert_eq!(figures.never.len(), kinds - 1);
        assert!(figures.never.contains(&"drop+crash".to_owned()));
        assert_eq!(pairs.figures(1).below, kinds - 1);
    }

    #[test]
    fn the_table_has_each_pair_once() {
        let mut pairs = Pairs::default();
        pairs.add(|_| true);
        let table = pairs.to_table();
        assert_eq!(table.lines().count(), Kind::ALL.len() + 1);
        let ones = table.lines().skip(1).flat_map(|line| line.split_whitespace().skip(2));
        assert_eq!(ones.filter(|word| *word == "1").count(), pairs.figures(1).pairs);
        assert_eq!(
            [short(0), short(999), short(12_345), short(250_000)],
            ["-", "999", "12k", ".2M"]
        );
    }
}
