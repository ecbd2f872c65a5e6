//! The summary of all open shards of a replica: sums over the roots of the shards, in blocks.
//!
//! Two replicas compare the digest of all blocks first. If it differs, one of them tells its blocks, and the other one
//! tells the roots of its shards in those that differ. So quiet shards cost one small message, whatever their number,
//! and a difference costs what differs. The order of shards plays no part: a sum is the same in every order.
//!
//! This module sends nothing, and does not know when to compare.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::id::ShardId;
use crate::mutant;

/// Blocks of a summary. A block of 10,000 shards has 40.
pub(crate) const BLOCKS: usize = 256;
/// Roots in one message.
pub(crate) const ROOTS_MAX: usize = 512;

/// A message between two replicas about all their shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Summary {
    /// Asks whether the receiver's shards have the same roots as all of the sender's.
    Whole(Digest),
    /// Answers that they have.
    Equal(Digest),
    /// Answers that they have not, with the sums of the sender's blocks.
    Blocks(Vec<u64>),
    /// Roots of the sender's shards in blocks that differ.
    Roots(Vec<(ShardId, Digest)>),
}

/// The sums over the roots of all open shards.
#[derive(Debug)]
pub(crate) struct Sums(Box<[u64]>);

impl Default for Sums {
    fn default() -> Self {
        Self(vec![0; BLOCKS].into())
    }
}

impl Sums {
    /// Replaces what a shard adds to its block.
    pub(crate) fn replace(&mut self, shard: ShardId, old: u64, new: u64) {
        let sum = &mut self.0[block(shard)];
        *sum = sum.wrapping_sub(old).wrapping_add(new);
    }

    /// The digest of all blocks.
    pub(crate) fn whole(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.0.iter().for_each(|sum| hasher.number(*sum));
        hasher.finish()
    }

    /// The sums, to be told.
    pub(crate) fn blocks(&self) -> Vec<u64> {
        self.0.to_vec()
    }

    /// Whether a shard is in a block that differs from a peer's.
    pub(crate) fn differs(&self, theirs: &[u64], shard: ShardId) -> bool {
        let at = block(shard);
        let skipped = mutant!("replication.summary.block_skipped") && at.is_multiple_of(2);
        theirs.get(at) != Some(&self.0[at]) && !skipped
    }
}

/// The part of a shard with this root in the sum of its block. It is never 0: a shard
/// that a peer lacks is a difference.
pub(crate) fn leaf(shard: ShardId, root: Digest) -> u64 {
    let mut hasher = Hasher::new();
    hasher.value(&shard);
    hasher.value(&root);
    hasher.finish().short().max(1)
}

/// The block of a shard. Shards of one namespace are in different ones.
fn block(shard: ShardId) -> usize {
    let number = u64::from(shard.namespace.0) << 16 | u64::from(shard.slot);
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NamespaceId;

    fn shard(namespace: u32, slot: u16) -> ShardId {
        ShardId { namespace: NamespaceId(namespace), slot }
    }

    fn sums(roots: impl Iterator<Item = (ShardId, Digest)>) -> Sums {
        let mut sums = Sums::default();
        roots.for_each(|(shard, root)| sums.replace(shard, 0, leaf(shard, root)));
        sums
    }

    #[test]
    fn equal_shards_have_equal_sums_in_every_order_and_one_other_root_differs_in_its_block_alone() {
        let all: Vec<_> = (0..40).flat_map(|ns| (0..64).map(move |slot| shard(ns, slot))).collect();
        let root = |shard: &ShardId| Digest::of(&shard.slot.to_le_bytes());
        let mine = sums(all.iter().map(|shard| (*shard, root(shard))));
        let theirs = sums(all.iter().rev().map(|shard| (*shard, root(shard))));
        assert_eq!(mine.whole(), theirs.whole());
        for changed in &all {
            let mut theirs = sums(all.iter().map(|shard| (*shard, root(shard))));
            let other = leaf(*changed, Digest::of(b"another"));
            theirs.replace(*changed, leaf(*changed, root(changed)), other);
            assert_ne!(mine.whole(), theirs.whole());
            let blocks = theirs.blocks();
            let differ = all.iter().filter(|shard| mine.differs(&blocks, **shard));
            let differ: Vec<_> = differ.collect();
            assert!(differ.contains(&changed) && differ.len() < 64, "{}", differ.len());
        }
    }

    #[test]
    fn shards_are_spread_over_the_blocks() {
        let mut counts = [0_u32; BLOCKS];
        (0..40).for_each(|ns| (0..256).for_each(|slot| counts[block(shard(ns, slot))] += 1));
        assert!(counts.iter().all(|count| (20..=64).contains(count)), "{counts:?}");
    }
}
