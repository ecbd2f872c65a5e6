//! The replicated state that Raft's entries drive: the registry of group 0, the keys of strong namespaces, client
//! sessions.
//!
//! Each group has one [`StateMachine`]. It is deterministic: the same entries give the same state and the same replies
//! on every replica, whether or not captures are taken meanwhile. It knows no terms, votes or leaders, reads no clock,
//! and enforces no memory limit: the node refuses such commands before it proposes them.

pub mod capture;
pub mod command;
pub mod export;
pub mod kv;
pub mod registry;
pub mod session;
pub mod snapshot_map;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::api::{ExportPage, Query, Reason, Value};
use crate::codec::DecodeError;
use crate::config::Bounds;
use crate::digest::{Digest, Hasher};
use crate::id::{ExportId, Index};
use crate::limits::CHUNK_BYTES_MAX;
use crate::time::Instant;
use crate::{mutant, reach};

pub use capture::{RestoreError, Slice};
pub use command::{Command, Operation, Reply};
pub use export::{Asked, Exports};
pub use registry::Registry;

use capture::Capture;
use kv::Keys;
use session::{Admission, Sessions};

/// The kind of state that a group agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Members and namespaces: group 0.
    Registry,
    /// The keys of a strong namespace.
    Keys,
}

/// The result of applying an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The command was executed or rejected. All replicas agree on that.
    Reply(Reply),
    /// This build does not know the command. The group halts on this replica, because skipping the entry would fork the
    /// state.
    Halted(Halt),
}

/// Why a group halted on this replica. It goes on under a build that knows the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The entry that was not applied.
    pub index: Index,
    /// Why its command could not be decoded.
    pub why: DecodeError,
}

/// The applied state of one group.
#[derive(Debug)]
pub struct StateMachine {
    kind: Kind,
    applied: Index,
    registry: Registry,
    keys: Keys,
    sessions: Sessions,
    exports: Exports,
    halted: Option<Halt>,
    capture: Option<Capture>,
    /// The length of a full chunk of a capture.
    chunk_bytes: usize,
}

/// Copies the whole state, without a capture or an export in progress.
impl Clone for StateMachine {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind,
            applied: self.applied,
            registry: self.registry.clone(),
            keys: self.keys.clone(),
            sessions: self.sessions.clone(),
            exports: Exports::default(),
            halted: self.halted,
            capture: None,
            chunk_bytes: self.chunk_bytes,
        }
    }
}

impl StateMachine {
    /// The state before the first entry.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            applied: Index(0),
            registry: Registry::default(),
            keys: Keys::default(),
            sessions: Sessions::default(),
            exports: Exports::default(),
            halted: None,
            capture: None,
            chunk_bytes: CHUNK_BYTES_MAX,
        }
    }

    /// Restores a state from the chunks of a capture, in order, however they are cut. The caller has checked their
    /// SHA-256.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] when the chunks are not a capture of this kind.
    pub fn restore(kind: Kind, chunks: &[Bytes]) -> Result<Self, RestoreError> {
        capture::restore(kind, chunks)
    }

    /// Applies the command of an entry, at the entry's group time in milliseconds.
    ///
    /// # Panics
    ///
    /// If `index` does not follow [`Self::applied`]: a broken invariant of the caller.
    pub fn apply(&mut self, index: Index, time_ms: u64, command: &Bytes) -> Applied {
        if let Some(halt) = self.halted {
            return Applied::Halted(halt);
        }
        assert_eq!(index, self.applied.next(), "entries are applied in order, each once");
        match Command::decode(command) {
            Err(why) => {
                reach!("state.halted");
                let halt = Halt { index, why };
                self.halted = Some(halt);
                Applied::Halted(halt)
            }
            Ok(command) => {
                self.applied = index;
                Applied::Reply(self.execute(index, time_ms, command))
            }
        }
    }

    /// Advances past an entry that carries no command.
    ///
    /// # Panics
    ///
    /// As [`Self::apply`].
    pub fn advance(&mut self, index: Index) {
        if self.halted.is_none() {
            assert_eq!(index, self.applied.next(), "entries are applied in order, each once");
            self.applied = index;
        }
    }

    fn execute(&mut self, index: Index, time_ms: u64, command: Command) -> Reply {
        let Some(session) = command.session else { return self.operate(index, command.operation) };
        match self.sessions.admit(&session, (index, time_ms)) {
            Admission::Repeated(reply) => reply,
            Admission::Refused(reason) => Reply::Rejected(reason),
            Admission::New => {
                let reply = self.operate(index, command.operation);
                self.sessions.record(&session, (index, time_ms), &reply);
                reply
            }
        }
    }

    fn operate(&mut self, index: Index, operation: Operation) -> Reply {
        match (self.kind, operation) {
            (Kind::Registry, operation) => self.registry.execute(index, operation),
            (Kind::Keys, Operation::Write { mutations }) => {
                self.keys.write(index, mutations, &mut self.exports)
            }
            (Kind::Keys, _) => Reply::Rejected(Reason::WrongConsistency),
        }
    }

    /// Answers a read of keys.
    ///
    /// # Errors
    ///
    /// [`Reason::WrongConsistency`] for what only eventual namespaces hold, and for any read of a registry.
    pub fn query(&self, query: &Query) -> Result<Value, Reason> {
        match self.kind {
            Kind::Keys => self.keys.query(query),
            Kind::Registry => Err(Reason::WrongConsistency),
        }
    }

    /// A page of an export. `id` names the export if this is its first page, and `now` is the present moment.
    ///
    /// # Errors
    ///
    /// [`Reason::ExportExpired`] when the export ended, [`Reason::ExportsBusy`] when there is no room for another, and
    /// [`Reason::WrongConsistency`] in a registry.
    pub fn export(
        &mut self,
        asked: Asked<'_>,
        id: ExportId,
        now: Instant,
    ) -> Result<ExportPage, Reason> {
        match self.kind {
            Kind::Keys => self.exports.page(&self.keys, self.applied, asked, (id, now)),
            Kind::Registry => Err(Reason::WrongConsistency),
        }
    }

    /// The exports that are under way here.
    #[must_use]
    pub const fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Ends the exports whose time is up, and returns how many did not come to their last page.
    pub fn end_idle_exports(&mut self, now: Instant) -> usize {
        self.exports.end_idle(now)
    }

    /// Ends the export that keeps most. Returns false when none is under way.
    pub fn end_largest_export(&mut self) -> bool {
        self.exports.end_largest()
    }

    /// How many exports ended because they kept too much, since this was asked last.
    pub const fn take_too_large_exports(&mut self) -> u64 {
        self.exports.take_too_large()
    }

    /// Drops at most this many slots that exports kept and need no more. Returns whether none are left. Each change
    /// drops a few as well.
    pub fn sweep_exports(&mut self, slots_max: usize) -> bool {
        self.exports.sweep(slots_max);
        !self.exports.has_unneeded()
    }

    /// The index of the last applied entry.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// The entry at which this group halted, if it did.
    #[must_use]
    pub const fn halted(&self) -> Option<Halt> {
        self.halted
    }

    /// The kind of state that the group agrees on.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The members and namespaces; empty in a group of keys.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The keys; none in the registry.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The client sessions of this group.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Bytes of keys, values and sessions held, and of what exports keep.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let kept = if mutant!("state.export.uncounted") { 0 } else { self.exports.bytes() };
        self.keys.bytes() + self.sessions.bytes() + kept
    }

    /// Sets the bounds of this state. Every replica of a group must have the same.
    pub fn limit(&mut self, bounds: Bounds) {
        self.chunk_bytes = bounds.chunk_bytes;
        if self.kind == Kind::Keys {
            self.sessions.limit(bounds.sessions, bounds.session_idle_ms);
            self.exports.limit(bounds.export_bytes);
        }
    }

    /// Begins a capture of the state as it is now, at position [`Self::applied`]. Returns false while another capture
    /// is in progress, or while changes made during the last one are not merged: see [`Self::merge_overlay`].
    pub fn begin_capture(&mut self) -> bool {
        if self.capture.is_some() {
            return false;
        }
        self.capture = Capture::begin(self);
        if self.capture.is_none() {
            reach!("state.capture.waits");
        }
        self.capture.is_some()
    }

    /// Encodes about `budget_bytes` more of the capture. [`Slice::Done`] ends it; without a capture the result is the
    /// same.
    pub fn next_slice(&mut self, budget_bytes: usize) -> Slice {
        let Some(capture) = &mut self.capture else { return Slice::Done };
        let slice = capture.slice(budget_bytes);
        if slice == Slice::Done {
            self.capture = None;
        }
        slice
    }

    /// Cancels the capture, if there is one.
    pub fn cancel_capture(&mut self) {
        self.capture = None;
    }

    /// Whether a capture is in progress.
    #[must_use]
    pub const fn is_capturing(&self) -> bool {
        self.capture.is_some()
    }

    /// Merges at most `entries_max` entries per table of the changes made during the last capture. Returns true when
    /// none are left, and a capture can begin. Each write merges a few as well, so a busy group gets there by itself.
    pub fn merge_overlay(&mut self, entries_max: usize) -> bool {
        // `&` and not `&&`, so that each table gets its turn.
        self.sessions.table.merge_overlay(entries_max)
            & self.registry.members.merge_overlay(entries_max)
            & self.registry.namespaces.merge_overlay(entries_max)
            & self.keys.map.merge_overlay(entries_max)
    }

    /// Feeds the whole state to `hash`, in order: replicas that applied the same entries feed the same bytes. It costs
    /// O(n), so it is for checks, not for every step.
    pub fn feed(&self, hash: &mut Hasher) {
        hash.value(&(self.kind, self.applied, self.halted.map(|halt| halt.index)));
        hash.value(&(self.registry.next_namespace, self.registry.next_group, self.registry.keys));
        hash.number(self.sessions.len() as u64);
        self.sessions.table.iter().for_each(|record| hash.value(&record));
        hash.number(self.registry.members.len() as u64);
        self.registry.members.iter().for_each(|record| hash.value(&record));
        hash.number(self.registry.namespaces.len() as u64);
        self.registry.namespaces.iter().for_each(|record| hash.value(&record));
        hash.number(self.keys.len() as u64);
        self.keys.map.iter().for_each(|record| hash.value(&record));
    }

    /// The digest of the whole state, as [`Self::feed`] hashes it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Hasher::new();
        self.feed(&mut hash);
        hash.finish()
    }
}
