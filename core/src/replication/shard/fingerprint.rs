//! Fingerprints of a shard's live writes: of all writes, of each actor's, and of each run of 256 dots. Every write
//! that comes or goes updates them.
//!
//! The fingerprint of all writes is a 256-bit sum; it decides whether two replicas are equal. The others are 64-bit
//! sums that only lead a session to the runs that differ, so a collision there costs a round, not correctness.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, SetSum};
use crate::id::Actor;
use crate::limits::SEQ_MAX;

/// A run, which has a sum of its own, is `2^8` dots.
pub(crate) const RUN_BITS: u8 = 8;
/// A span of at most `2^10` dots is listed instead of split.
pub(crate) const LIST_BITS: u8 = 10;
/// A span is split into at most `2^6` parts.
pub(crate) const SPLIT_BITS: u8 = 6;

/// An aligned span of one actor's dots: from `base`, `2^bits` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The author of the dots.
    pub actor: Actor,
    /// The first sequence number.
    pub base: u64,
    /// The base-2 logarithm of the number of dots.
    pub bits: u8,
}

impl Span {
    /// The smallest span from 0 that has all numbers up to `last`.
    pub(crate) fn whole(actor: Actor, last: u64) -> Self {
        let bits = (u64::BITS - last.leading_zeros()) as u8;
        Self { actor, base: 0, bits: bits.max(LIST_BITS) }
    }

    /// The last sequence number.
    pub(crate) const fn last(&self) -> u64 {
        self.base + ((1 << self.bits) - 1)
    }

    /// The base-2 logarithm of a part's size.
    pub(crate) fn part_bits(&self) -> u8 {
        self.bits.saturating_sub(SPLIT_BITS).max(RUN_BITS)
    }

    /// One part of the span.
    pub(crate) fn part(&self, index: u8) -> Self {
        let bits = self.part_bits();
        Self { actor: self.actor, base: self.base + (u64::from(index) << bits), bits }
    }

    /// The number of parts.
    pub(crate) fn parts(&self) -> u8 {
        1 << (self.bits - self.part_bits())
    }

    /// Whether the span is aligned and within bounds. To be asked of what a peer sent.
    pub(crate) fn is_valid(&self) -> bool {
        (LIST_BITS.min(RUN_BITS)..=49).contains(&self.bits)
            && self.base <= SEQ_MAX
            && self.base & ((1 << self.bits) - 1) == 0
    }
}

/// The sums of one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fingerprints {
    whole: SetSum,
    actors: Vec<u64>,
    runs: BTreeMap<(u32, u64), Run>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    sum: u64,
    writes: u32,
}

impl Fingerprints {
    /// Adds a live write's leaf.
    pub(crate) fn add(&mut self, (actor, seq): (u32, u64), leaf: &Digest) {
        self.whole.add(leaf);
        let total = self.actor_mut(actor);
        *total = total.wrapping_add(leaf.short());
        let run = self.runs.entry((actor, seq >> RUN_BITS)).or_default();
        run.sum = run.sum.wrapping_add(leaf.short());
        run.writes += 1;
    }

    /// Removes a leaf that was added.
    pub(crate) fn remove(&mut self, (actor, seq): (u32, u64), leaf: &Digest) {
        self.whole.remove(leaf);
        let total = self.actor_mut(actor);
        *total = total.wrapping_sub(leaf.short());
        let key = (actor, seq >> RUN_BITS);
        let run =
            self.runs.get_mut(&key).expect("a leaf is removed from the run that it was added to");
        run.sum = run.sum.wrapping_sub(leaf.short());
        run.writes -= 1;
        if run.writes == 0 {
            self.runs.remove(&key);
        }
    }

    /// Frees about `entries` entries of a shard that is gone. True when nothing is left.
    pub(crate) fn free(&mut self, entries: usize) -> bool {
        (0..entries).take_while(|_| self.runs.pop_first().is_some()).for_each(drop);
        self.runs.is_empty()
    }

    /// The sum over all live writes.
    pub(crate) const fn whole(&self) -> &SetSum {
        &self.whole
    }

    /// The sum over one actor's live writes.
    pub(crate) fn actor(&self, actor: u32) -> u64 {
        self.actors.get(actor as usize).copied().unwrap_or(0)
    }

    /// The sum over a span of one actor's live writes. The cost is linear in the runs of the span.
    pub(crate) fn span(&self, actor: u32, span: &Span) -> u64 {
        let runs = (actor, span.base >> RUN_BITS)..=(actor, span.last() >> RUN_BITS);
        self.runs.range(runs).fold(0, |sum, (_, run)| sum.wrapping_add(run.sum))
    }

    fn actor_mut(&mut self, actor: u32) -> &mut u64 {
        let at = actor as usize;
        if self.actors.len() <= at {
            self.actors.resize(at + 1, 0);
        }
        &mut self.actors[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_span_add_up() {
        let mut fingerprints = Fingerprints::default();
        for seq in (1..100_000).step_by(37) {
            fingerprints.add((0, seq), &Digest::of(&seq.to_be_bytes()));
        }
        let whole = Span::whole(Actor::default(), 100_000);
        assert!(whole.is_valid() && whole.parts() == 64);
        let parts = (0..whole.parts()).map(|index| whole.part(index));
        let sum = parts.fold(0u64, |sum, part| {
            assert!(part.is_valid());
            sum.wrapping_add(fingerprints.span(0, &part))
        });
        assert_eq!(sum, fingerprints.actor(0));
        for seq in (1..100_000).step_by(37) {
            fingerprints.remove((0, seq), &Digest::of(&seq.to_be_bytes()));
        }
        assert!(
            fingerprints.whole().is_zero()
                && fingerprints.runs.is_empty()
                && fingerprints.actor(0) == 0
        );
    }

    #[test]
    fn hostile_spans_are_invalid() {
        let span = |base, bits| Span { actor: Actor::default(), base, bits };
        for bad in [span(0, 0), span(0, 64), span(0, 255), span(1, 10), span(u64::MAX, 10)] {
            assert!(!bad.is_valid());
        }
        assert!(Span::whole(Actor::default(), SEQ_MAX).is_valid());
    }
}
