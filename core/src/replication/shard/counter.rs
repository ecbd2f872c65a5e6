//! PN-counters: one live pair of running totals per actor. The value is the sum over actors of plus less minus.
//!
//! A count carries the actor's new totals and supersedes its earlier pair, so neither a lost nor a repeated message
//! changes the sum. An actor sees all its own writes, so its latest totals contain or supersede each earlier pair: only
//! the latest counts, even where the writes between the two are late or lost. A delete supersedes the pairs that its
//! author had seen.
//!
//! **The reset anomaly** (known from Riak's maps): a count concurrent with the delete carries totals that contain what
//! was deleted, so that actor's earlier counts come back with it. An exact reset would keep every count apart; this
//! type does not.

use crate::api::{Bound, Reason};
use crate::replication::write::{self, EditOp, EditRecord, WriteBody};
use crate::{mutant, reach};

use super::live_edits::LiveEdits;
use super::{Element, LocalDot, Shard};

/// The value of a counter.
pub(crate) fn read(shard: &Shard, elements: &[Element]) -> i128 {
    let pairs = elements.iter().map(|element| totals(shard, element));
    pairs.map(|(plus, minus)| i128::from(plus) - i128::from(minus)).sum()
}

/// The totals of one element: (plus, minus).
pub(crate) fn totals(shard: &Shard, element: &Element) -> (u64, u64) {
    let body = write::reopen(&shard.write(element).sealed);
    match body.edits[usize::from(element.edit)].op {
        EditOp::Count { plus, minus } => (plus, minus),
        _ => (0, 0),
    }
}

/// Adds `by` to totals.
///
/// # Errors
///
/// [`Reason::OutOfBounds`] when a total leaves 64 bits.
pub(crate) fn add((plus, minus): (u64, u64), by: i64) -> Result<(u64, u64), Reason> {
    let amount = by.unsigned_abs();
    let totals = if by < 0 {
        minus.checked_add(amount).map(|minus| (plus, minus))
    } else {
        plus.checked_add(amount).map(|plus| (plus, minus))
    };
    totals.ok_or(Reason::OutOfBounds { what: Bound::Counter, limit: u64::MAX })
}

/// Keeps only the latest totals of one actor at one path: those of the arriving write, or later ones that are here.
pub(super) fn keep_latest(
    shard: &mut Shard,
    dot: LocalDot,
    body: &WriteBody<'_>,
    live: &mut LiveEdits,
) {
    if mutant!("replication.counter.sums_twice") {
        return;
    }
    let counts = |(_, edit): &(u16, &EditRecord<'_>)| matches!(edit.op, EditOp::Count { .. });
    for (index, edit) in (0_u16..).zip(&body.edits).filter(counts) {
        let path = edit.path(body.key.0).unwrap_or_default();
        let other = |element: &&Element| element.actor == dot.0 && element.seq != dot.1;
        loop {
            let found = shard.elements_at(&path).iter().find(other).copied();
            let Some(other) = found else { break };
            if other.seq > dot.1 {
                reach!("replication.counter.late");
                live.remove(index);
                break;
            }
            shard.remove_element(other, Some(&path));
        }
    }
}
