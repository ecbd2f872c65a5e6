//! Registers: siblings, and the strategies that order them.
//!
//! A register keeps every value that no other superseded. Which of them is *the* value is decided when it is read, by a
//! pure function over the siblings, so the strategy can change at any time. Nothing is pruned here.

use alloc::vec::Vec;
use core::cmp::Reverse;

use bytes::Bytes;

use crate::api::{Context, Register, Strategy};
use crate::digest::Digest;
use crate::id::NodeId;
use crate::mutant;

use super::{Element, Shard};
use crate::replication::write::{self, Act, hlc};

/// The LWW order: stamp, then node, then hash. Two writes of one node in one stamp cannot be, so hashes decide only
/// between a node's lives.
pub(crate) fn rank(shard: &Shard, element: &Element) -> (u64, NodeId, Digest) {
    let live = shard.write(element);
    if mutant!("replication.lww.wall_clock") {
        return (hlc::millis(live.stamp), NodeId::default(), Digest::default());
    }
    (live.stamp, shard.actor(element.actor).replica.node, write::hash_of(&live.sealed))
}

/// The values of a register, the one under the strategy first.
pub(crate) fn values(shard: &Shard, elements: &[Element], strategy: Strategy) -> Vec<Bytes> {
    let mut siblings = elements.to_vec();
    if mutant!("replication.read.by_arrival") {
        siblings.sort_by_key(|element| Reverse(element.actor));
    } else {
        siblings.sort_by_cached_key(|element| {
            let rank = rank(shard, element);
            let node = match strategy {
                Strategy::LastWriterWins => NodeId::default(),
                Strategy::HighestNodeWins => rank.1,
            };
            Reverse((node, rank))
        });
    }
    siblings.iter().map(|element| value(shard, element)).collect()
}

fn value(shard: &Shard, element: &Element) -> Bytes {
    let sealed = &shard.write(element).sealed;
    let author = write::reopen(sealed);
    match author.edits[usize::from(element.edit)].act {
        Act::Put(value) => sealed.slice_ref(value.0),
        _ => Bytes::new(),
    }
}

/// What a reader of these elements has seen.
pub(crate) fn context<'a>(shard: &Shard, elements: impl Iterator<Item = &'a Element>) -> Context {
    let mut context = Context::default();
    for element in elements {
        context.stamp = context.stamp.max(shard.write(element).stamp);
        context.dots.push(shard.dot(element.at()));
    }
    context.dots.sort_unstable();
    context.dots.dedup();
    context
}

/// A register as read.
pub(crate) fn read(shard: &Shard, elements: &[Element], strategy: Strategy) -> Register {
    let siblings = values(shard, elements, strategy);
    Register {
        value: siblings.first().cloned(),
        siblings: if siblings.len() > 1 { siblings } else { Vec::new() },
        revision: None,
        context: context(shard, elements.iter()),
    }
}
