//! Registers: siblings, and the strategies that order them.
//!
//! A register keeps every value that no other superseded. A pure function over the siblings chooses *the* value when
//! the register is read, so the strategy can change at any time. This module prunes nothing.

use alloc::vec::Vec;
use core::cmp::Reverse;

use bytes::Bytes;

use crate::api::{Context, Observed, Register, Strategy};
use crate::digest::Digest;
use crate::id::NodeId;
use crate::mutant;
use crate::replication::write::{self, EditOp, hlc};

use super::{Element, Shard};

/// Reads a register.
pub(super) fn read(
    shard: &Shard,
    elements: &[Element],
    strategy: Strategy,
    seal: &dyn Fn(&Observed) -> Context,
) -> Register {
    let siblings = values(shard, elements, strategy);
    Register {
        value: siblings.first().cloned(),
        siblings: if siblings.len() > 1 { siblings } else { Vec::new() },
        revision: None,
        context: seal(&observed(shard, elements.iter())),
    }
}

/// The values of a register; the strategy's choice comes first.
pub(super) fn values(shard: &Shard, elements: &[Element], strategy: Strategy) -> Vec<Bytes> {
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

/// The LWW order: stamp, then node, then hash. One node never issues a stamp twice in one boot, so hashes decide only
/// between two boots of a node.
pub(super) fn rank(shard: &Shard, element: &Element) -> (u64, NodeId, Digest) {
    let live = shard.write(element);
    if mutant!("replication.lww.wall_clock") {
        return (hlc::millis(live.stamp), NodeId::default(), Digest::default());
    }
    (live.stamp, shard.actor(element.actor).replica.node, write::hash_of(&live.sealed))
}

fn value(shard: &Shard, element: &Element) -> Bytes {
    let sealed = &shard.write(element).sealed;
    let body = write::reopen(sealed);
    match body.edits[usize::from(element.edit)].op {
        EditOp::Put(value) => sealed.slice_ref(value.0),
        _ => Bytes::new(),
    }
}

/// The content of the context of a reader that saw these elements.
pub(super) fn observed<'a>(shard: &Shard, elements: impl Iterator<Item = &'a Element>) -> Observed {
    let mut context = Observed::default();
    let hidden = usize::from(mutant!("replication.read.names_too_little"));
    for element in elements.skip(hidden) {
        context.stamp = context.stamp.max(shard.write(element).stamp);
        context.dots.push(shard.dot(element.dot()));
    }
    context.dots.sort_unstable();
    context.dots.dedup();
    context
}
