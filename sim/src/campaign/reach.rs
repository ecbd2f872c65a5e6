//! Marks: which places of the core a run reached, and in how many seeds each was.
//!
//! A seed that reaches nothing new proves nothing new. What is reached too rarely to break is named, so that the
//! workload can be mended. The marks themselves are in `core::mark`.

use std::collections::BTreeMap;

use continuum_core::mark::instrument::{MARKS, hits};
use serde::{Deserialize, Serialize};

/// A mark is rare below one seed in so many.
const RARE: u64 = 1_000;

/// Runs something, and says which marks it hit: a bit for each in the order of the table, as hexadecimal digits.
///
/// Counters are of the whole process: one run at a time.
pub fn watch<T>(run: impl FnOnce() -> T) -> (T, String) {
    let before: Vec<u64> = hits().map(|(_, hits)| hits).collect();
    let outcome = run();
    let hit: Vec<bool> = hits().zip(before).map(|((_, now), before)| now > before).collect();
    (outcome, encode(&hit))
}

fn encode(bits: &[bool]) -> String {
    let digit = |four: &[bool]| {
        let value = four.iter().rev().fold(0, |value, bit| value << 1 | u32::from(*bit));
        char::from_digit(value, 16).unwrap_or('0')
    };
    bits.chunks(4).map(digit).collect()
}

/// The places of the bits that are set.
fn decode(digits: &str) -> impl Iterator<Item = usize> + '_ {
    digits.chars().enumerate().flat_map(|(at, digit)| {
        let value = digit.to_digit(16).unwrap_or(0);
        (0..4).filter(move |bit| value >> bit & 1 == 1).map(move |bit| at * 4 + bit)
    })
}

/// In how many seeds each mark was hit; those that never were are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reach {
    seeds: BTreeMap<String, u64>,
}

impl Reach {
    /// Adds the marks of a seed.
    pub fn add(&mut self, digits: &str) {
        for mark in decode(digits).filter_map(|at| MARKS.get(at)) {
            *self.seeds.entry((*mark).to_owned()).or_default() += 1;
        }
    }

    /// Adds another campaign's.
    pub fn merge(&mut self, other: &Self) {
        for (mark, seeds) in &other.seeds {
            *self.seeds.entry(mark.clone()).or_default() += seeds;
        }
    }

    /// How many marks were hit at all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seeds.len()
    }

    /// Marks that were hit in fewer than 0.1 % of so many seeds, with the seeds in which they were.
    #[must_use]
    pub fn rare(&self, seeds: u64) -> Vec<(&str, u64)> {
        let rare = self.seeds.iter().filter(|(_, hit)| **hit * RARE < seeds);
        rare.map(|(mark, hit)| (mark.as_str(), *hit)).collect()
    }

    /// Marks that were never hit.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        MARKS.iter().copied().filter(|mark| !self.seeds.contains_key(*mark)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_their_digits() {
        for length in [0, 1, 3, 4, 5, 251] {
            let bits: Vec<bool> = (0..length).map(|at| at % 3 == 0 || at % 7 == 1).collect();
            let set: Vec<usize> = (0..length).filter(|at| bits[*at]).collect();
            assert_eq!(decode(&encode(&bits)).collect::<Vec<_>>(), set);
        }
    }

    #[test]
    fn rare_marks_and_those_never_hit_are_named() {
        let only =
            |place: usize| encode(&(0..MARKS.len()).map(|at| at == place).collect::<Vec<_>>());
        let mut reach = Reach::default();
        reach.add(&only(0));
        (0..2).for_each(|_| reach.add(&only(MARKS.len() - 1)));
        assert_eq!(reach.count(), 2);
        assert_eq!(reach.rare(1_000), []);
        assert_eq!(reach.rare(1_001), [(MARKS[0], 1)]);
        let never = reach.never();
        assert_eq!(never.len(), MARKS.len() - 2);
        assert!(!never.contains(&MARKS[0]));
        let mut twice = reach.clone();
        twice.merge(&reach);
        assert_eq!(twice.rare(2_001), [(MARKS[0], 2)]);
    }

    #[test]
    fn a_run_says_what_it_hit_and_not_what_was_hit_before() {
        let place = |name| continuum_core::mark::instrument::mark(name);
        continuum_core::mark::instrument::hit(place("node.start"));
        // Other tests of this process run nodes: what they hit may be there as well.
        let ((), digits) =
            watch(|| continuum_core::mark::instrument::hit(place("wal.recover.rot")));
        assert!(decode(&digits).any(|at| at == place("wal.recover.rot")));
    }
}
