//! Applies committed entries to the states of groups, in order and a bounded number per step. Captures states as
//! snapshots, one slice per step.
//!
//! This module does not know what a command means (`state`) and does not decide when the log needs a capture
//! (`checkpoint`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::api::{Level, Outcome, Query, Receipt, Value};
use crate::digest::Digest;
use crate::id::{GroupId, Index, Owner, SnapshotId};
use crate::raft::{self, Configuration, Payload, Position, Snapshot};
use crate::state::{self, Applied, Reply, Slice};
use crate::{mutant, reach};

use super::Notice;
use super::group::Group;
use super::machine::{Node, Task};

/// Entries of one group applied in one step. The rest follows in the next step, which is due at once.
const APPLY_MAX: usize = 256;

/// Bytes of a state captured in one step.
const CAPTURE_BYTES: usize = 128 << 10;

/// Changes of the last capture's overlay that one step merges back. A capture begins once none is left.
const SETTLE_MAX: usize = 1024;

/// A capture in progress.
#[derive(Debug)]
pub(super) struct Capture {
    position: Position,
    time_ms: u64,
    configuration: Configuration,
    chunks: Vec<Bytes>,
    sha: Sha256,
}

/// The result of applying an entry.
enum Entry {
    Nothing,
    Command(Applied),
    Configuration,
}

impl Group {
    /// Applies the next committed entry, if there is one.
    fn apply_next(&mut self) -> Option<(Position, Entry)> {
        let index = self.applied.next();
        let early = mutant!("node.apply.uncommitted");
        let most = if early { self.raft.last().index } else { self.raft.commit() };
        if index > most || self.state.halted().is_some() {
            return None;
        }
        let entry = self.raft.entry(index)?;
        let applied = match &entry.payload {
            Payload::Command(command) => {
                Entry::Command(self.state.apply(index, entry.time_ms, command))
            }
            Payload::Noop => Entry::Nothing,
            Payload::Configuration(_) => Entry::Configuration,
        };
        if matches!(applied, Entry::Nothing | Entry::Configuration) {
            self.state.advance(index);
        }
        if matches!(applied, Entry::Command(Applied::Halted(_))) {
            reach!("node.apply.halted");
            return None;
        }
        self.applied = index;
        self.time_ms = entry.time_ms;
        Some((Position { term: entry.term, index }, applied))
    }

    /// Answers a read from the group's applied state.
    pub(super) fn read(&self, query: &Query) -> Outcome {
        match self.state.query(query) {
            Ok(value) => Outcome::Value(value),
            Err(reason) => Outcome::Rejected(reason),
        }
    }

    /// Takes the next slice of the capture, beginning one if needed. Returns the snapshot once it is complete.
    fn capture_slice(&mut self) -> Option<Arc<Snapshot>> {
        let Some(capture) = &mut self.capture else {
            self.begin_capture();
            return None;
        };
        match self.state.next_slice(CAPTURE_BYTES) {
            Slice::More => None,
            Slice::Chunk(chunk) => {
                capture.sha.update(&chunk);
                capture.chunks.push(chunk);
                None
            }
            Slice::Done => {
                let Capture { position, time_ms, configuration, chunks, sha } =
                    self.capture.take()?;
                let digest = Digest(sha.finalize().into());
                Some(Arc::new(Snapshot { position, time_ms, configuration, digest, chunks }))
            }
        }
    }

    /// Freezes the state for a capture, once the changes made during the last capture are merged back.
    fn begin_capture(&mut self) {
        let Some(term) = self.raft.term_at(self.applied) else { return };
        if !self.state.merge_overlay(SETTLE_MAX) || !self.state.begin_capture() {
            return;
        }
        let ahead = mutant!("node.capture.claims_too_much");
        let index = if ahead { self.raft.last().index } else { self.applied };
        self.capture = Some(Capture {
            position: Position { term, index },
            time_ms: self.time_ms,
            configuration: self.raft.configuration_at(self.applied).clone(),
            chunks: Vec::new(),
            sha: Sha256::new(),
        });
    }
}

impl Node {
    /// Applies committed entries of a group, at most [`APPLY_MAX`] of them.
    pub(super) fn apply(&mut self, id: GroupId) {
        let Some(known) = self.groups.get(&id) else { return };
        let before = known.applied;
        for _ in 0..APPLY_MAX {
            let Some(known) = self.groups.get_mut(&id) else { return };
            let was_halted = known.state.halted().is_some();
            let Some((at, entry)) = known.apply_next() else {
                let halted = known.state.halted().filter(|_| !was_halted);
                if let Some(halt) = halted {
                    self.on_halted(id, halt);
                }
                break;
            };
            let waits = !known.proposals.is_empty();
            self.on_applied(id, at, entry, waits);
        }
        let Some(known) = self.groups.get(&id) else { return };
        let (applied, commit) = (known.applied, known.raft.commit());
        if applied < commit && known.state.halted().is_none() && applied > before {
            reach!("node.apply.continued");
            self.unapplied.insert(id);
        }
        if applied > before {
            self.notify(Notice::Applied { group: id, index: applied });
            self.bound_exports();
            self.serve_reads(id);
        }
    }

    fn on_applied(&mut self, id: GroupId, at: Position, entry: Entry, waits: bool) {
        let outcome = match entry {
            Entry::Command(Applied::Reply(reply)) => {
                if id == GroupId::REGISTRY {
                    // This comes before any reply: a client that learns of a namespace may use it here at once.
                    self.on_registry_changed();
                }
                if !waits {
                    return;
                }
                self.outcome(at.index, reply)
            }
            Entry::Configuration => {
                self.enqueue(Task::Align(id));
                Outcome::Unknown { reached: None }
            }
            Entry::Nothing | Entry::Command(Applied::Halted(_)) => {
                Outcome::Unknown { reached: None }
            }
        };
        if waits {
            self.decide(id, at, outcome);
        }
    }

    /// The client's answer to an applied command.
    fn outcome(&self, index: Index, reply: Reply) -> Outcome {
        let (revision, existed) = match reply {
            Reply::Rejected(reason) => return Outcome::Rejected(reason),
            Reply::Joined { .. } => return Outcome::Value(Value::Joined(self.member_list())),
            // A repeat within a session has the revision of the first write, not the index of the repeat.
            Reply::Written { revision, existed } => (revision, existed),
            Reply::Bootstrapped
            | Reply::Created { .. }
            | Reply::Deleted { .. }
            | Reply::KeyRotated { .. } => (index, false),
        };
        let receipt = Receipt { revision: Some(revision), context: None, existed };
        Outcome::Committed { level: Level::Durable, receipt }
    }

    /// The group stopped at an entry that this build cannot apply. Another voter may run a build that can, so a leader
    /// gives its office away, once. Requests that wait for the group get their answer now.
    fn on_halted(&mut self, id: GroupId, halt: state::Halt) {
        self.notify(Notice::GroupHalted { group: id, index: halt.index });
        let Some(known) = self.groups.get_mut(&id) else { return };
        let logged = core::mem::take(&mut known.proposals).into_values();
        let reads = core::mem::take(&mut known.reads).into_iter().map(|(_, key)| key);
        let keys: Vec<u64> = logged.collect();
        let waiting = core::mem::take(&mut known.waiting);
        let unlogged: Vec<u64> = reads.chain(waiting).collect();
        keys.into_iter().for_each(|key| self.finish(key, Outcome::Unknown { reached: None }));
        unlogged.into_iter().for_each(|key| self.enqueue(Task::Submit(key)));
        self.leave_office(id);
    }

    /// A leader whose replica halted gives its office away. Each voter that gave it away is left out from then on, so
    /// when all are halted the last one keeps it.
    pub(super) fn leave_office(&mut self, id: GroupId) {
        let halted = self.groups.get(&id).filter(|known| known.state.halted().is_some());
        if halted.is_some_and(Group::leads) {
            reach!("node.apply.halted_leader");
            self.enqueue(Task::Raft(id, raft::Event::TransferLeadership));
        }
    }

    /// Restores a leader's snapshot beside the state, so that nothing durable names one that a restart cannot read.
    pub(super) fn check_snapshot(&mut self, id: GroupId, file: SnapshotId, snapshot: &Snapshot) {
        let Some(known) = self.groups.get_mut(&id) else { return };
        let index = snapshot.position.index;
        let restored = state::StateMachine::restore(super::registry::kind(id), &snapshot.chunks);
        let state = restored.ok().filter(|state| state.applied() == index);
        let restores = state.is_some();
        known.checked = state;
        if !restores {
            reach!("node.apply.snapshot_refused");
            known.refused_snapshot = Some(index);
            let leader = known.raft.leader().map(|leader| leader.node);
            self.notify(Notice::SnapshotRefused { group: id, index, leader });
        }
        self.enqueue(Task::Raft(id, raft::Event::Checked { id: file, restores }));
    }

    /// A snapshot of the leader replaces the state.
    pub(super) fn install(&mut self, id: GroupId, snapshot: &Snapshot) {
        let Some(known) = self.groups.get_mut(&id) else { return };
        let checked = known.checked.take().filter(|s| s.applied() == snapshot.position.index);
        let mut state = checked.expect("a snapshot is checked before it is installed");
        reach!("node.apply.installed");
        state.limit(self.config.bounds);
        known.state = state;
        known.capture = None;
        known.applied = snapshot.position.index;
        known.time_ms = snapshot.time_ms;
        self.notify(Notice::Installed { owner: Owner::Group(id) });
        self.enqueue(Task::Installed(id));
    }

    /// Handles an installed snapshot after the Raft step that installed it.
    pub(super) fn installed(&mut self, id: GroupId) {
        let Some(known) = self.groups.get(&id) else { return };
        let (applied, at) = (known.applied, known.raft.base().index);
        if id == GroupId::REGISTRY {
            self.on_registry_read();
        }
        self.skip(id, at);
        self.notify(Notice::Applied { group: id, index: applied });
        self.serve_reads(id);
        self.enqueue(Task::Apply(id));
    }

    /// Raft asks for a snapshot, because a follower needs entries that the log no longer has.
    pub(super) fn on_capture(&mut self, id: GroupId) {
        if let Some(known) = self.groups.get_mut(&id) {
            known.raft_wants_capture = true;
            self.capturing.insert(id);
        }
    }

    /// Takes the next slice of every capture in progress.
    pub(super) fn continue_captures(&mut self) {
        for id in self.capturing.clone() {
            let Some(known) = self.groups.get_mut(&id) else {
                self.capturing.remove(&id);
                continue;
            };
            let Some(snapshot) = known.capture_slice() else { continue };
            let to_raft = core::mem::take(&mut known.raft_wants_capture);
            let to_disk = core::mem::take(&mut known.disk_wants_capture);
            self.capturing.remove(&id);
            if to_disk {
                self.checkpoint_group(id, Some(&snapshot));
            }
            if to_raft {
                reach!("node.apply.captured");
                self.enqueue(Task::Raft(id, raft::Event::Captured { snapshot }));
            }
        }
    }
}
