//! Causal contexts: the dots that a replica has seen, with their gaps.
//!
//! A context that kept only the greatest sequence number of an actor would claim writes that a lost message carried,
//! and the loss would be permanent. So each actor has ranges; in most cases one. This module does not know what a dot
//! means, or whether its write is still live.

use alloc::vec::Vec;

use core::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{Actor, Dot};
use crate::limits::{SEQ_MAX, SHARD_ACTORS_HELD_MAX};
use crate::mutant;

/// Ranges that are added one by one; more are merged with all others in one pass.
const FEW: usize = 4;

/// Sequence numbers of one actor, as inclusive ranges. They ascend and neither overlap nor touch, so equal sets have
/// equal bytes.
///
/// In bytes a range is two numbers: how far its first number is above the least one that it may have, and how many
/// numbers follow its first one. So scattered numbers take two bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

/// The least number that a range after this one may begin with, so that the two do not touch.
const fn apart((_, high): (u64, u64)) -> u64 {
    high.wrapping_add(2)
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        let mut least = 0;
        for &(low, high) in &self.0 {
            list.serialize_element(&(low.wrapping_sub(least), high.wrapping_sub(low)))?;
            least = apart((low, high));
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RangesVisitor)
    }
}

struct RangesVisitor;

impl<'de> Visitor<'de> for RangesVisitor {
    type Value = Ranges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ranges of sequence numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ranges, A::Error> {
        // Each range is at least two bytes of input, so a length that is not there reserves nothing.
        let mut ranges = Vec::with_capacity(list.size_hint().unwrap_or(0).min(64));
        let mut least = Some(0_u64);
        while let Some((gap, more)) = list.next_element::<(u64, u64)>()? {
            let low = least.and_then(|least| least.checked_add(gap));
            let range = low.and_then(|low| Some((low, low.checked_add(more)?)));
            let range = range.ok_or_else(|| A::Error::custom("a range ends beyond all numbers"))?;
            least = range.1.checked_add(2);
            ranges.push(range);
        }
        Ok(Ranges(ranges))
    }
}

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

    /// Adds all numbers of `other`. The cost is linear in the ranges of both.
    pub fn union(&mut self, other: &Self) {
        if other.0.len() <= FEW {
            return other.0.iter().for_each(|&(low, high)| self.insert_span(low, high));
        }
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.0.len().max(other.0.len()));
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(mine), Some(theirs)) if mine <= theirs => left.next(),
                (_, Some(_)) => right.next(),
                (_, None) => left.next(),
            };
            let Some(&(low, high)) = next else { break };
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = high.max(last.1),
                _ => merged.push((low, high)),
            }
        }
        self.0 = merged;
    }

    /// The numbers from `low` to `high`, both included.
    #[must_use]
    pub fn within(&self, low: u64, high: u64) -> Self {
        if low > high {
            return Self::default();
        }
        let first = self.0.partition_point(|&(_, end)| end < low);
        let last = self.0.partition_point(|&(start, _)| start <= high);
        let mut part = self.0[first..last].to_vec();
        part.first_mut().into_iter().for_each(|range| range.0 = low.max(range.0));
        part.last_mut().into_iter().for_each(|range| range.1 = high.min(range.1));
        Self(part)
    }

    /// The numbers that `other` does not have. The cost is linear in the ranges of this set, and in those of `other`
    /// between its ends.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let begin = self.0.first().map_or(0, |range| range.0);
        let mut at = other.0.partition_point(|&(_, end)| end < begin);
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

    /// Adds all dots of `other`. The cost is linear in both.
    pub fn union(&mut self, other: &Self) {
        let known = self.0.len();
        for (actor, ranges) in &other.0 {
            match self.0[..known].binary_search_by_key(actor, |(known, _)| *known) {
                Ok(at) => self.0[at].1.union(ranges),
                Err(_) => self.0.push((*actor, ranges.clone())),
            }
        }
        if self.0.len() > known {
            // Two sorted runs: this sort merges them.
            self.0.sort_by_key(|(actor, _)| *actor);
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
    use crate::codec;
    use crate::id::Boot;

    fn dot(actor: u8, seq: u64) -> Dot {
        let boot = Boot { count: u64::from(actor), nonce: 0 };
        Dot { actor: Actor { boot, ..Actor::default() }, seq }
    }

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
            let bytes = codec::encode(&left);
            prop_assert_eq!(codec::decode::<Ranges>(&bytes, bytes.len()), Ok(left.clone()));
            for (low, high) in [(0, 9), (3, 3), (7, 31), (9, 5)] {
                let part = a.iter().copied().filter(|n| (low..=high).contains(n)).collect();
                prop_assert_eq!(left.within(low, high), ranges(&part));
            }
        }

        #[test]
        fn dots_behave_as_a_set(a: BTreeSet<(u8, u8)>, b: BTreeSet<(u8, u8)>) {
            let dots = |set: &BTreeSet<(u8, u8)>| {
                let mut dots = Dots::default();
                set.iter().for_each(|(actor, seq)| {
                    dots.insert(&dot(*actor % 16, u64::from(*seq % 16) + 1));
                });
                dots
            };
            let mut both = dots(&a);
            both.union(&dots(&b));
            prop_assert_eq!(both.clone(), dots(&a.union(&b).copied().collect()));
            prop_assert!(both.is_empty() || both.is_valid());
        }
    }

    #[test]
    fn ranges_that_are_not_canonical_are_invalid() {
        let bad: [&[(u64, u64)]; 6] =
            [&[], &[(0, 1)], &[(3, 2)], &[(1, 2), (3, 4)], &[(5, 6), (1, 2)], &[(1, SEQ_MAX + 1)]];
        for ranges in bad.map(|ranges| Ranges(ranges.to_vec())) {
            assert!(!ranges.is_valid());
            // Bytes cannot say that ranges overlap, touch or descend.
            let bytes = codec::encode(&ranges);
            let read = codec::decode::<Ranges>(&bytes, bytes.len());
            assert!(read.is_err() || read.is_ok_and(|read| read == ranges && !read.is_valid()));
        }
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

    /// Every second number, in both halves of a shuffle: as many ranges as a large scattered shard has.
    #[test]
    fn scattered_ranges_are_joined_in_one_pass_and_take_two_bytes_each() {
        let every = |step: u64, from: u64| {
            Ranges((0..200_000).map(|n| (from + n * step, from + n * step)).collect())
        };
        let mut all = every(4, 1);
        all.union(&every(4, 3));
        assert_eq!(all, Ranges((0..400_000).map(|n| (1 + 2 * n, 1 + 2 * n)).collect()));
        assert!(codec::encoded_len(&all) < 2 * 400_000 + 8);
        all.union(&Ranges((1..=400_000).map(|n| (2 * n, 2 * n)).collect()));
        assert_eq!(all, Ranges::span(1, 800_000));
    }

    #[test]
    fn a_gap_is_not_covered() {
        let mut dots = Dots::default();
        let dot = |seq| dot(0, seq);
        assert!(dots.insert(&dot(2)));
        assert!(!dots.contains(&dot(1)));
        assert!(dots.insert(&dot(1)));
        assert_eq!(dots.ranges(&Actor::default()), Some(&Ranges::span(1, 2)));
    }
}
