//! Deferred removals: a write arrived before the elements that it supersedes.
//!
//! The dot of such an element is not in the context, because its write was not seen here. When the write arrives, the
//! deferred removals apply to it at once. This
//! module does not decide what supersedes what; the shard does.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::Dot;
use crate::limits::DEFERRED_MAX;
use crate::reach;
use crate::replication::write::{self, WriteBody};

use super::live_edits::LiveEdits;
use super::{LocalDot, Shard};

/// A removal that waits for a write to arrive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Deferred {
    /// Removes the element of one edit, by its index.
    Edit(u16),
    /// Removes all elements of the write at a path, or below a prefix.
    Scope {
        /// The path, or the prefix.
        path: Vec<u8>,
        /// Whether `path` is a prefix.
        is_prefix: bool,
    },
}

impl Deferred {
    fn removes(&self, edit: u16, path: &[u8]) -> bool {
        match self {
            Self::Edit(removed) => *removed == edit,
            Self::Scope { path: prefix, is_prefix: true } => path.starts_with(prefix),
            Self::Scope { path: exact, is_prefix: false } => path == exact,
        }
    }
}

impl Shard {
    /// All deferred removals, in canonical order within each dot.
    pub(crate) fn deferred(&self) -> impl Iterator<Item = (Dot, &Deferred)> {
        let each = |(dot, removals): (&LocalDot, _)| (self.dot(*dot), removals);
        self.deferred.iter().map(each).flat_map(|(dot, removals): (Dot, &BTreeSet<Deferred>)| {
            removals.iter().map(move |removal| (dot, removal))
        })
    }

    /// The number of writes with deferred removals.
    pub(crate) fn deferred_writes(&self) -> usize {
        self.deferred.len()
    }

    /// Whether this removal is deferred already.
    pub(crate) fn is_deferred(&self, dot: &Dot, removal: &Deferred) -> bool {
        let Some(actor) = self.number(&dot.actor) else { return false };
        self.deferred.get(&(actor, dot.seq)).is_some_and(|removals| removals.contains(removal))
    }

    /// Takes the deferred removals of a write that arrives out of `live`.
    pub(super) fn apply_deferred(
        &mut self,
        dot: LocalDot,
        body: &WriteBody<'_>,
        live: &mut LiveEdits,
    ) {
        let Some(removals) = self.deferred.remove(&dot) else { return };
        reach!("replication.deferred.applied");
        for (index, edit) in (0_u16..).zip(&body.edits) {
            let path = edit.path(body.key.0).unwrap_or_default();
            if removals.iter().any(|removal| removal.removes(index, &path)) {
                live.remove(index);
            }
        }
    }

    /// Removes elements of a write: now if its dot is in the context, else when it arrives.
    pub(super) fn remove_or_defer(&mut self, dot: LocalDot, removal: Deferred) {
        if !self.seen(dot.0).contains(dot.1) {
            return self.defer(dot, removal);
        }
        let Some(left) = self.edits_after(dot, &removal) else { return };
        self.retain_edits(dot, &left);
    }

    /// Remembers a removal until its write arrives.
    pub(super) fn defer(&mut self, dot: LocalDot, removal: Deferred) {
        reach!("replication.deferred.added");
        // Past the bound, the superseded element will come back as a sibling until a session removes it. No write is
        // lost by that.
        if self.deferred.len() < DEFERRED_MAX || self.deferred.contains_key(&dot) {
            self.deferred.entry(dot).or_default().insert(removal);
        } else {
            reach!("replication.deferred.full");
        }
    }

    /// Drops the deferred removals of a range of dots that entered the context.
    pub(super) fn forget_deferred(&mut self, actor: u32, low: u64, high: u64) {
        let range = self.deferred.range((actor, low)..=(actor, high));
        let covered: Vec<LocalDot> = range.map(|(dot, _)| *dot).collect();
        covered.iter().for_each(|dot| drop(self.deferred.remove(dot)));
    }

    /// Whether a removal would remove a live element now.
    pub(crate) fn would_remove(&self, dot: &Dot, removal: &Deferred) -> bool {
        let number = self.number(&dot.actor);
        number.is_some_and(|number| self.edits_after((number, dot.seq), removal).is_some())
    }

    /// The edits of a live write that stay live after a removal; `None` when it changes nothing.
    fn edits_after(&self, dot: LocalDot, removal: &Deferred) -> Option<LiveEdits> {
        let live = self.live.get(&dot)?;
        let body = write::reopen(&live.sealed);
        let mut left = live.edits.clone();
        for index in live.edits.edits() {
            let path = body.edits[usize::from(index)].path(body.key.0).unwrap_or_default();
            if removal.removes(index, &path) {
                left.remove(index);
            }
        }
        (left != live.edits).then_some(left)
    }
}
