//! Causal contexts: the dots that a replica has seen, with their gaps.
//!
//! A context that kept only the greatest sequence number of an actor would claim writes that a lost message carried,
//! and the loss would be permanent. So each actor has ranges; in most cases one. This module does not know what a dot
//! means, or whether its write is still live.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Actor, Dot};
use crate::limits::{SEQ_MAX, SHARD_ACTORS_HELD_MAX};
use crate::mutant;

/// Sequence numbers of one actor, as inclusive ranges. They ascend and neither overlap nor touch, so equal sets have
/// equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// All numbers from `low` to `high`, both included.
    #[must_use]
    pub fn span(low: u64, high: u64) -> Self {
        Self([(low, high)].into())
    }

    /// Whether `seq` is in the set.
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        let after = self.0.partition_point(|&(low, _)| low <= seq);
        after > 0 && self.0[after - 1].1 >= seq
    }

    /// Adds one number. False when it was there already.
    pub fn insert(&mut self, seq: u64) -> bool {
        if mutant!("replication.context.without_gaps") {
            let is_new = self.last() < seq;
            self.insert_span(1, seq.max(self.last()));
            return is_new;
        }
        // The most frequent case: the actor's next write.
        if let Some(last) = self.0.last_mut()
            && last.1.checked_add(1) == Some(seq)
        {
            last.1 = seq;
            return true;
        }
        if self.contains(seq) {
            return false;
        }
        self.insert_span(seq, seq);
        true
    }

    /// Adds all numbers from `low` to `high`, and joins the ranges that then touch.
    pub fn insert_span(&mut self, low: u64, high: u64) {
        let first = self.0.partition_point(|&(_, end)| end.saturating_add(1) < low);
        let last = self.0.partition_point(|&(start, _)| start <= high.saturating_add(1));
        let mut whole = (low, high);
        if first < last {
            whole = (low.min(self.0[first].0), high.max(self.0[last - 1].1));
        }
        self.0.splice(first..last, [whole]);
    }

    /// Adds all numbers of `other`.
    pub fn union(&mut self, other: &Self) {
        other.0.iter().for_each(|&(low, high)| self.insert_span(low, high));
    }

    /// The numbers that `other` does not have. The cost is linear in the ranges of both.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut at = 0;
        'ranges: for &(mut low, high) in &self.0 {
            while at < other.0.len() && other.0[at].1 < low {
                at += 1;
            }
            let mut hole = at;
            while hole < other.0.len() && other.0[hole].0 <= high && low <= high {
                if other.0[hole].0 > low {
                    rest.push((low, other.0[hole].0 - 1));
                }
                let end = other.0[hole].1;
                // Nothing follows a hole that reaches the end, also when no number is greater.
                if end >= high {
                    continue 'ranges;
                }
                low = end + 1;
                hole += 1;
            }
            if low <= high {
                rest.push((low, high));
            }
        }
        Self(rest)
    }

    /// The greatest number; 0 when empty.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.0.last().map_or(0, |range| range.1)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of ranges.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether the ranges are canonical, not empty and within bounds. To be asked of what a peer or a disk produced.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let bounded = |&(low, high): &(u64, u64)| 1 <= low && low <= high && high <= SEQ_MAX;
        // The numbers are bounded before anything is reckoned with them.
        let apart = |pair: &[(u64, u64)]| pair[0].1 + 1 < pair[1].0;
        !self.0.is_empty() && self.0.iter().all(bounded) && self.0.windows(2).all(apart)
    }
}

/// A set of dots in its canonical form: actors ascending, each with at least one dot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dots(Vec<(Actor, Ranges)>);

impl Dots {
    /// Builds the set from actors with their ranges, in any order; each actor at most once.
    #[must_use]
    pub fn new(mut actors: Vec<(Actor, Ranges)>) -> Self {
        actors.retain(|(_, ranges)| !ranges.is_empty());
        actors.sort_unstable_by_key(|(actor, _)| *actor);
        Self(actors)
    }

    /// Whether the dot is in the set.
    #[must_use]
    pub fn contains(&self, dot: &Dot) -> bool {
        self.ranges(&dot.actor).is_some_and(|ranges| ranges.contains(dot.seq))
    }

    /// The sequence numbers of one actor.
    #[must_use]
    pub fn ranges(&self, actor: &Actor) -> Option<&Ranges> {
        let at = self.0.binary_search_by_key(actor, |(known, _)| *known).ok()?;
        Some(&self.0[at].1)
    }

    /// Adds one dot. False when it was there already.
    pub fn insert(&mut self, dot: &Dot) -> bool {
        match self.0.binary_search_by_key(&dot.actor, |(known, _)| *known) {
            Ok(at) => self.0[at].1.insert(dot.seq),
            Err(at) => {
                self.0.insert(at, (dot.actor, Ranges::span(dot.seq, dot.seq)));
                true
            }
        }
    }

    /// Whether `other` has all dots of this set.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().all(|(actor, ranges)| match other.ranges(actor) {
            None => false,
            Some(theirs) => ranges.minus(theirs).is_empty(),
        })
    }

    /// Removes all dots of `other`.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (actor, ranges) in &other.0 {
            if let Ok(at) = self.0.binary_search_by_key(actor, |(known, _)| *known) {
                self.0[at].1 = self.0[at].1.minus(ranges);
            }
        }
        self.0.retain(|(_, ranges)| !ranges.is_empty());
    }

    /// Adds all dots of `other`.
    pub fn union(&mut self, other: &Self) {
        for (actor, ranges) in &other.0 {
            match self.0.binary_search_by_key(actor, |(known, _)| *known) {
                Ok(at) => self.0[at].1.union(ranges),
                Err(at) => self.0.insert(at, (*actor, ranges.clone())),
            }
        }
    }

    /// At most `ranges` ranges from an actor's range on, both by their positions, and where the next part begins.
    pub(crate) fn part(
        &self,
        (mut actor, mut range): (usize, usize),
        mut ranges: usize,
    ) -> (Self, Option<(usize, usize)>) {
        let mut part = Vec::new();
        while let Some((name, whole)) = self.0.get(actor) {
            let rest = &whole.0[range.min(whole.0.len())..];
            let taken = &rest[..rest.len().min(ranges)];
            if !taken.is_empty() {
                part.push((*name, Ranges(taken.to_vec())));
            }
            if taken.len() < rest.len() {
                return (Self(part), Some((actor, range + taken.len())));
            }
            ranges -= taken.len();
            (actor, range) = (actor + 1, 0);
        }
        (Self(part), None)
    }

    /// The actors with their sequence numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &(Actor, Ranges)> {
        self.0.iter()
    }

    /// The number of actors.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set has no dot.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set is canonical and within bounds. To be asked of what a peer or a disk produced.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.len() <= SHARD_ACTORS_HELD_MAX
            && self.0.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.0.iter().all(|(_, ranges)| ranges.is_valid())
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges(numbers: &BTreeSet<u64>) -> Ranges {
        let mut ranges = Ranges::default();
        numbers.iter().rev().for_each(|seq| assert!(ranges.insert(*seq)));
        ranges
    }

    proptest! {
        #[test]
        fn ranges_behave_as_a_set(a: BTreeSet<u8>, b: BTreeSet<u8>) {
            let a: BTreeSet<u64> = a.into_iter().map(|n| u64::from(n % 40) + 1).collect();
            let b: BTreeSet<u64> = b.into_iter().map(|n| u64::from(n % 40) + 1).collect();
            let (left, right) = (ranges(&a), ranges(&b));
            prop_assert!(a.is_empty() || left.is_valid());
            let mut both = left.clone();
            both.union(&right);
            prop_assert_eq!(both, ranges(&a.union(&b).copied().collect()));
            prop_assert_eq!(left.minus(&right), ranges(&a.difference(&b).copied().collect()));
            prop_assert_eq!(left.last(), a.last().copied().unwrap_or(0));
            (0..45).for_each(|n| assert_eq!(left.contains(n), a.contains(&n)));
        }
    }

    #[test]
    fn ranges_that_are_not_canonical_are_invalid() {
        let bad: [&[(u64, u64)]; 6] =
            [&[], &[(0, 1)], &[(3, 2)], &[(1, 2), (3, 4)], &[(5, 6), (1, 2)], &[(1, SEQ_MAX + 1)]];
        bad.iter().for_each(|ranges| assert!(!Ranges(ranges.to_vec()).is_valid()));
        assert!(Ranges::span(1, SEQ_MAX).is_valid());
    }

    #[test]
    fn numbers_at_the_very_end_are_reckoned_with_and_invalid() {
        let top = Ranges::span(5, u64::MAX);
        assert!(!top.is_valid() && !Ranges([(1, u64::MAX), (7, 9)].into()).is_valid());
        assert!(!Ranges([(u64::MAX, u64::MAX), (0, u64::MAX)].into()).is_valid());
        assert_eq!(Ranges::span(1, u64::MAX).minus(&top), Ranges::span(1, 4));
        assert_eq!(top.minus(&Ranges::span(1, 9)), Ranges::span(10, u64::MAX));
        assert!(top.minus(&Ranges::span(1, u64::MAX)).is_empty());
        let mut all = Ranges::span(1, 3);
        all.union(&top);
        assert!(all.insert(4) && !all.insert(u64::MAX) && all.len() == 1);
    }

    #[test]
    fn a_gap_is_not_covered() {
        let mut dots = Dots::default();
        let dot = |seq| Dot { actor: Actor::default(), seq };
        assert!(dots.insert(&dot(2)));
        assert!(!dots.contains(&dot(1)));
        assert!(dots.insert(&dot(1)));
        assert_eq!(dots.ranges(&Actor::default()), Some(&Ranges::span(1, 2)));
    }
}
