//! Exports of strong namespaces: their pages, and when they end.
//!
//! An export begins as a linearizable read, and its further pages are read from the same process, at the same moment
//! (`state::export`). It ends when nobody asks for its next page, when exports keep too much, when memory is short,
//! when a snapshot replaces the state, and with the process. A page that is asked for afterwards is refused.
//!
//! Writes come first: memory that exports keep never makes this node refuse a write. This module does not keep slots.

use alloc::collections::BTreeSet;
use core::time::Duration;

use crate::api::{Outcome, Query, Reason, Request, Value};
use crate::id::{ExportId, GroupId};
use crate::mutant;
use crate::state::Asked;

use super::super::group::Group;
use super::super::machine::{Node, Timer};

/// Milliseconds between two looks at the exports.
const LOOK_MS: u64 = 1000;

/// Milliseconds until the next look while there are kept slots to drop.
const SWEEP_MS: u64 = 1;

/// Kept slots of a group that one look drops.
const SWEEP_MAX: usize = 4096;

/// The exports of this process.
#[derive(Debug, Default)]
pub(in crate::node) struct ExportState {
    /// The groups that have one.
    groups: BTreeSet<GroupId>,
    /// How many names were drawn for them.
    drawn: u64,
    /// Whether the timer to look at them is armed.
    armed: bool,
    /// How many ended because nobody read on.
    idle: u64,
    /// How many ended because exports kept too much, or memory was short.
    too_large: u64,
}

/// The exports of strong namespaces on a node, for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportFigures {
    /// How many are under way.
    pub open: usize,
    /// Bytes that they keep.
    pub bytes: u64,
    /// How many ended because nobody read on.
    pub idle: u64,
    /// How many ended because exports kept too much, or memory was short.
    pub too_large: u64,
}

/// A page of an export that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Export {
    Begins,
    GoesOn,
}

impl Node {
    /// Which page of an export a pending request asks for, if it does.
    pub(super) fn asked_export(&self, key: u64) -> Option<Export> {
        match &self.requests.pending.get(&key)?.request {
            Request::Read { query: Query::Export { from, .. }, .. } => {
                Some(if from.is_none() { Export::Begins } else { Export::GoesOn })
            }
            _ => None,
        }
    }

    /// Why this node cannot read a page of an export here. Another node cannot for it, because that one would not be
    /// asked for the next page.
    pub(super) fn keeps_from_export(&self, group: GroupId, export: Export) -> Option<Reason> {
        match export {
            Export::GoesOn if !self.groups.contains_key(&group) => Some(Reason::ExportExpired),
            // Entries that are not durable here are not applied here.
            Export::Begins if self.phase.disk_stalled => Some(Reason::DiskStalled),
            _ => None,
        }
    }

    /// Reads a page of an export.
    pub(super) fn export_page(&mut self, group: GroupId, query: &Query) -> Outcome {
        let Query::Export { from, prefix, limit, values } = query else {
            return Outcome::Rejected(Reason::ExportExpired);
        };
        let id = if from.is_none() { self.draw_export() } else { ExportId::default() };
        let Some(known) = self.groups.get_mut(&group) else {
            return Outcome::Rejected(Reason::UnknownNamespace);
        };
        let asked = Asked { from: from.as_ref(), prefix, limit: *limit, values: *values };
        let page = known.state.export(asked, id, self.now.mono);
        if !known.state.exports().is_empty() {
            self.exports.groups.insert(group);
            self.arm_exports(LOOK_MS);
        }
        page.map_or_else(Outcome::Rejected, |page| Outcome::Value(Value::Export(page)))
    }

    /// Draws the name of an export, which nobody guesses and no other process gives.
    fn draw_export(&mut self) -> ExportId {
        self.exports.drawn += 1;
        let mut stream = self.seed.derive("node.export", self.exports.drawn);
        let mut id = ExportId::default();
        id.0.chunks_mut(8).for_each(|part| part.copy_from_slice(&stream.draw().to_be_bytes()));
        id
    }

    fn arm_exports(&mut self, after_ms: u64) {
        if !core::mem::replace(&mut self.exports.armed, true) {
            self.arm(Duration::from_millis(after_ms), Timer::Exports);
        }
    }

    /// Ends the exports that nobody reads, and drops what ended ones kept.
    pub(in crate::node) fn on_exports_due(&mut self) {
        self.exports.armed = false;
        self.bound_exports();
        let (now, mut is_swept) = (self.now.mono, true);
        for group in self.exports.groups.clone() {
            let Some(known) = self.groups.get_mut(&group) else {
                self.exports.groups.remove(&group);
                continue;
            };
            self.exports.idle += known.state.end_idle_exports(now) as u64;
            is_swept &= known.state.sweep_exports(SWEEP_MAX);
            if known.state.exports().is_empty() {
                self.exports.groups.remove(&group);
            }
        }
        if !self.exports.groups.is_empty() {
            self.arm_exports(if is_swept { LOOK_MS } else { SWEEP_MS });
        }
    }

    /// Ends the largest exports while those of all groups keep too much or memory is short.
    pub(in crate::node) fn bound_exports(&mut self) {
        let memory_max = self.config.node.memory_bytes_max;
        while self.exports_keep_too_much(memory_max) {
            let largest = self.exporting().max_by_key(|(_, group)| group.state.exports().largest());
            let Some(largest) = largest.map(|(id, _)| id) else { break };
            if let Some(known) = self.groups.get_mut(&largest) {
                known.state.end_largest_export();
            }
        }
        for id in &self.exports.groups {
            let ended = self.groups.get_mut(id).map(|known| known.state.take_too_large_exports());
            self.exports.too_large += ended.unwrap_or(0);
        }
    }

    fn exports_keep_too_much(&self, memory_max: u64) -> bool {
        let open: u64 = self.exporting().map(|(_, group)| group.state.exports().open_bytes()).sum();
        let is_short = || self.own_memory_bytes() + open >= memory_max;
        let is_bounded = !mutant!("state.export.unbounded");
        open > 0 && is_bounded && (open > self.config.bounds.export_bytes || is_short())
    }

    fn exporting(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        let groups = self.exports.groups.iter();
        groups.filter_map(|id| Some((*id, self.groups.get(id)?)))
    }

    /// Bytes of memory without what exports keep.
    pub(super) fn own_memory_bytes(&self) -> u64 {
        let kept: u64 = self.exporting().map(|(_, group)| group.state.exports().bytes()).sum();
        self.memory_bytes().saturating_sub(kept)
    }

    /// The exports of strong namespaces on this node.
    #[must_use]
    pub fn exports(&self) -> ExportFigures {
        let (mut open, mut bytes) = (0, 0);
        for (_, group) in self.exporting() {
            open += group.state.exports().len();
            bytes += group.state.exports().bytes();
        }
        let ExportState { idle, too_large, .. } = self.exports;
        ExportFigures { open, bytes, idle, too_large }
    }
}
