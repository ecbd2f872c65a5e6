//! Deferred removals: a write arrived before the elements that it supersedes.
//!
//! The dot of such an element is not in the context, because its write was not seen here. When the write arrives, the
//! deferred removals apply to it at once. A removal holds a digest of its scope instead of the scope itself, so every
//! one takes the same few bytes.
//!
//! # When there is no room
//!
//! An author refuses a write whose removals have no room, so those of an authored write have room on one replica at
//! least. A replica that has no room for the removals of a received write drops them, and takes the write. When the
//! superseded element arrives there, it lives, as a sibling; where the removal was kept, it is dead. Then both replicas
//! have seen the element, and an element lives only if it lives in both: the next session removes it everywhere. So all
//! replicas agree in the end, and no write is lost.
//!
//! This module does not decide what supersedes what; the shard does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::Dot;
use crate::limits::DEFERRED_MAX;
use crate::replication::write::path;
use crate::replication::write::{self, EditOp, EditRecord, WriteBody};
use crate::{mutant, reach};

use super::live_edits::LiveEdits;
use super::{LocalDot, Shard};

/// The memory of one removal, its share of the tables included.
const REMOVAL_BYTES: u64 = 112;

/// A removal that waits for a write to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Deferred {
    /// Removes the element of one edit, by its index.
    Edit(u16),
    /// Removes all elements of the write in a scope.
    Scope {
        /// How much of an element's path counts.
        level: Level,
        /// The digest of that much of the path.
        digest: Digest,
    },
}

/// How much of an element's path a scope fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// The key.
    Key,
    /// The key and the field.
    Field,
    /// All of it.
    Path,
}

/// The deferred removals of a shard, by the dot of the write that they wait for.
#[derive(Clone, Debug, Default)]
pub(super) struct Deferrals {
    dots: BTreeMap<LocalDot, BTreeSet<Deferred>>,
    removals: usize,
}

impl Deferrals {
    /// Whether a removal waits for this write.
    pub(super) fn has(&self, dot: LocalDot) -> bool {
        self.dots.contains_key(&dot)
    }

    /// Frees about `entries` entries of a shard that is gone. True when nothing is left.
    pub(super) fn free(&mut self, entries: usize) -> bool {
        (0..entries).take_while(|_| self.dots.pop_first().is_some()).for_each(drop);
        self.dots.is_empty()
    }

    /// Takes out the removals of a write.
    fn take(&mut self, dot: LocalDot) -> Option<BTreeSet<Deferred>> {
        let removals = self.dots.remove(&dot)?;
        self.removals -= removals.len();
        Some(removals)
    }
}

impl Deferred {
    /// The removal of all that an edit supersedes in another write.
    pub(super) fn scope(edit: &EditRecord<'_>, key: &[u8]) -> Self {
        let level = match edit.op {
            EditOp::Delete if edit.field.0.is_empty() => Level::Key,
            EditOp::Delete => Level::Field,
            _ => Level::Path,
        };
        Self::Scope { level, digest: Digest::of(&edit.scope(key).path) }
    }
}

/// Whether one of the removals removes this edit's element.
fn removes(removals: &BTreeSet<Deferred>, index: u16, edit: &EditRecord<'_>, key: &[u8]) -> bool {
    let by = |level, path: &[u8]| {
        removals.contains(&Deferred::Scope { level, digest: Digest::of(path) })
    };
    removals.contains(&Deferred::Edit(index))
        || by(Level::Key, &path::of_key(key))
        || by(Level::Field, &path::of_field(key, edit.field.0))
        || edit.path(key).is_some_and(|path| by(Level::Path, &path))
}

impl Shard {
    /// All deferred removals, in canonical order within each dot.
    pub(crate) fn deferred(&self) -> impl Iterator<Item = (Dot, &Deferred)> {
        let each = |(dot, removals): (&LocalDot, _)| (self.dot(*dot), removals);
        let dots = self.deferred.dots.iter().map(each);
        dots.flat_map(|(dot, removals): (Dot, &BTreeSet<Deferred>)| {
            removals.iter().map(move |removal| (dot, removal))
        })
    }

    /// The number of deferred removals.
    pub(crate) const fn deferred_removals(&self) -> usize {
        self.deferred.removals
    }

    /// The bytes that the deferred removals take.
    pub(super) const fn deferred_bytes(&self) -> u64 {
        self.deferred.removals as u64 * REMOVAL_BYTES
    }

    /// Whether this many more removals may be deferred.
    pub(crate) const fn has_deferred_room(&self, removals: usize) -> bool {
        self.deferred.removals + removals <= DEFERRED_MAX
    }

    /// Whether this removal is deferred already.
    pub(crate) fn is_deferred(&self, dot: &Dot, removal: &Deferred) -> bool {
        let Some(actor) = self.number(&dot.actor) else { return false };
        self.deferred.dots.get(&(actor, dot.seq)).is_some_and(|known| known.contains(removal))
    }

    /// Takes the deferred removals of a write that arrives out of `live`.
    pub(super) fn apply_deferred(
        &mut self,
        dot: LocalDot,
        body: &WriteBody<'_>,
        live: &mut LiveEdits,
    ) {
        let Some(removals) = self.deferred.take(dot) else { return };
        reach!("replication.deferred.applied");
        for (index, edit) in (0_u16..).zip(&body.edits) {
            if removes(&removals, index, edit, body.key.0) {
                live.remove(index);
            }
        }
    }

    /// Removes elements of a write: now if its dot is in the context, else when it arrives.
    pub(super) fn remove_or_defer(&mut self, dot: LocalDot, removal: Deferred) {
        if !self.seen(dot.0).contains(dot.1) {
            return self.defer(dot, removal);
        }
        let Some(left) = self.edits_after(dot, removal) else { return };
        self.retain_edits(dot, &left);
    }

    /// Remembers a removal until its write arrives, if there is room.
    pub(super) fn defer(&mut self, dot: LocalDot, removal: Deferred) {
        reach!("replication.deferred.added");
        if !self.has_deferred_room(1) && !mutant!("replication.deferred.unbounded") {
            reach!("replication.deferred.full");
            return;
        }
        let is_new = self.deferred.dots.entry(dot).or_default().insert(removal);
        self.deferred.removals += usize::from(is_new);
    }

    /// Drops the deferred removals of a range of dots that entered the context.
    pub(super) fn forget_deferred(&mut self, actor: u32, low: u64, high: u64) {
        let range = self.deferred.dots.range((actor, low)..=(actor, high));
        let covered: Vec<LocalDot> = range.map(|(dot, _)| *dot).collect();
        covered.iter().for_each(|dot| drop(self.deferred.take(*dot)));
    }

    /// The edits of a live write that stay live after a removal; `None` when it changes nothing.
    pub(crate) fn edits_without(&self, dot: &Dot, removal: Deferred) -> Option<LiveEdits> {
        self.edits_after((self.number(&dot.actor)?, dot.seq), removal)
    }

    /// The edits of a live write that stay live after a removal; `None` when it changes nothing.
    fn edits_after(&self, dot: LocalDot, removal: Deferred) -> Option<LiveEdits> {
        let live = self.live.get(&dot)?;
        let body = write::reopen(&live.sealed);
        let removals = BTreeSet::from([removal]);
        let mut left = live.edits.clone();
        for index in live.edits.edits() {
            if removes(&removals, index, &body.edits[usize::from(index)], body.key.0) {
                left.remove(index);
            }
        }
        (left != live.edits).then_some(left)
    }
}
