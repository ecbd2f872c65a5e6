//! PN-counters: for each actor one live pair of running totals; the value is the sum over actors of plus minus minus.
//!
//! A new count carries the actor's new totals and supersedes its earlier pair, so neither a lost nor a repeated message
//! changes the sum. An actor sees all its own writes, so its latest totals contain or supersede each earlier pair: the
//! latest counts alone even where the writes between the two are late, or lost. A delete supersedes the pairs that its
//! author had seen. **The reset anomaly** (known from Riak's maps): a count concurrent with the delete carries totals
//! that contain what was deleted, so that actor's earlier counts come back with it. An exact reset needs every count
//! kept apart; this type does not.

use crate::api::{Bound, Reason};

use crate::{mutant, reach};

use super::live_edits::Mask;
use super::{At, Element, Shard};
use crate::replication::write::{self, Act, Author, Deed};

/// The totals of one element.
pub(crate) fn totals(shard: &Shard, element: &Element) -> (u64, u64) {
    let author = write::reopen(&shard.write(element).sealed);
    match author.edits[usize::from(element.edit)].act {
        Act::Count { plus, minus } => (plus, minus),
        _ => (0, 0),
    }
}

/// Of the totals of one actor at one place the latest alone lives, in whatever order they come: those of the write that
/// comes now, or later ones that are here.
pub(crate) fn keep_latest(shard: &mut Shard, at: At, author: &Author<'_>, mask: &mut Mask) {
    if mutant!("replication.counter.sums_twice") {
        return;
    }
    let counts = |(_, deed): &(u16, &Deed<'_>)| matches!(deed.act, Act::Count { .. });
    for (edit, deed) in (0_u16..).zip(&author.edits).filter(counts) {
        let place = deed.place(author.key.0).unwrap_or_default();
        let other = |element: &&Element| element.actor == at.0 && element.seq != at.1;
        while let Some(other) = shard.at(&place).iter().find(other).copied() {
            if other.seq > at.1 {
                reach!("replication.counter.late");
                mask.remove(edit);
                break;
            }
            shard.kill(other, Some(&place));
        }
    }
}

/// The value of a counter.
pub(crate) fn read(shard: &Shard, elements: &[Element]) -> i128 {
    let pairs = elements.iter().map(|element| totals(shard, element));
    pairs.map(|(plus, minus)| i128::from(plus) - i128::from(minus)).sum()
}

/// New totals.
///
/// # Errors
///
/// Past 64 bits either way.
pub(crate) fn count((plus, minus): (u64, u64), by: i64) -> Result<(u64, u64), Reason> {
    let amount = by.unsigned_abs();
    let totals = if by < 0 {
        minus.checked_add(amount).map(|minus| (plus, minus))
    } else {
        plus.checked_add(amount).map(|plus| (plus, minus))
    };
    totals.ok_or(Reason::OutOfBounds { what: Bound::Counter, limit: u64::MAX })
}
