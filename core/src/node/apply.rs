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
use crate::files::Piece;
use crate::id::{GroupId, Index, Owner, SnapshotFile, SnapshotId};
use crate::raft::{self, Configuration, Payload, Position, Snapshot};
use crate::state::{self, Applied, Reply, Slice};
use crate::wal::Write;
use crate::{mutant, reach};

use super::Notice;
use super::checkpoint::SnapshotRecord;
use super::group::Group;
use super::machine::{Node, Task};

/// Entries of one group applied in one step, and about their bytes. The rest follows in the next step, which is due at
/// once.
const APPLY_MAX: usize = 256;
const APPLY_BYTES: usize = 1 << 20;

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
    /// The file that it is written to, when a checkpoint asked for it.
    pub(super) file: Option<SnapshotId>,
    /// Bytes captured so far.
    length: u64,
    /// The chunks so far, when Raft asked for them.
    chunks: Option<Vec<Bytes>>,
    sha: Sha256,
}

impl Capture {
    /// Takes the next chunk; without bytes the capture is complete. Returns the piece of its file, if it has one.
    fn take(&mut self, data: Bytes) -> Option<Piece> {
        self.sha.update(&data);
        let (offset, is_last) = (self.length, data.is_empty());
        self.length += data.len() as u64;
        if let Some(chunks) = self.chunks.as_mut().filter(|_| !is_last) {
            chunks.push(data.clone());
        }
        self.file.map(|snapshot| Piece { snapshot, offset, data, is_last })
    }

    /// The record that names the complete capture's file, and the snapshot for Raft, as far as each was asked for.
    fn finish(self, group: GroupId) -> (Option<SnapshotRecord>, Option<Arc<Snapshot>>) {
        let Self { position, time_ms, configuration, file, length, chunks, sha } = self;
        let digest = Digest(sha.finalize().into());
        let record = file.map(|id| {
            let file = SnapshotFile { id, length, digest };
            let configuration = configuration.clone();
            let write = raft::Write::Snapshot { file, position, time_ms, configuration };
            SnapshotRecord { file, position, write: Write::Group { group, write } }
        });
        let snapshot = chunks
            .map(|chunks| Snapshot { position, time_ms, configuration, digest, chunks })
            .map(Arc::new);
        (record, snapshot)
    }
}

/// The result of applying an entry.
enum Entry {
    Nothing,
    Command(Applied),
    Configuration,
}

impl Group {
    /// Applies the next committed entry, if there is one, and takes its bytes from the room.
    fn apply_next(&mut self, room: &mut usize) -> Option<(Position, Entry)> {
        let index = self.applied.next();
        let early = mutant!("node.apply.uncommitted");
        let most = if early { self.raft.last().index } else { self.raft.commit() };
        if index > most || self.state.halted().is_some() {
            return None;
        }
        let entry = self.raft.entry(index)?;
        *room = room.saturating_sub(entry.payload_bytes());
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

    /// Gives up the capture in progress.
    pub(super) fn end_capture(&mut self) {
        self.capture = None;
        self.state.cancel_capture();
    }

    /// Freezes the state for a capture, once the changes made during the last capture are merged back.
    fn begin_capture(&mut self, file: Option<SnapshotId>) {
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
            file,
            length: 0,
            chunks: self.raft_wants_capture.then(Vec::new),
            sha: Sha256::new(),
        });
    }
}

impl Node {
    /// Applies committed entries of a group, at most [`APPLY_MAX`] of them, until they have [`APPLY_BYTES`] bytes.
    pub(super) fn apply(&mut self, id: GroupId) {
        let Some(known) = self.groups.get(&id) else { return };
        let before = known.applied;
        self.record_commit(id);
        let mut room = APPLY_BYTES;
        for _ in 0..APPLY_MAX {
            if room == 0 {
                break;
            }
            let Some(known) = self.groups.get_mut(&id) else { return };
            let was_halted = known.state.halted().is_some();
            let Some((at, entry)) = known.apply_next(&mut room) else {
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

    /// Notes durably how far the registry is committed, before its entries have effects. So a node that restarts alone
    /// knows the namespaces that it has served.
    fn record_commit(&mut self, id: GroupId) {
        let Some(known) = self.groups.get_mut(&id).filter(|_| id == GroupId::REGISTRY) else {
            return;
        };
        let index = known.raft.commit();
        if index > known.recorded && !mutant!("node.apply.commit_unrecorded") {
            known.recorded = index;
            self.persist_for_group(id, raft::Write::Commit { index });
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
        let file = known.capture.take().and_then(|capture| capture.file);
        known.applied = snapshot.position.index;
        known.time_ms = snapshot.time_ms;
        if let Some(file) = file {
            reach!("node.apply.capture_replaced");
            self.drop_file(file);
        }
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

    /// Takes the next slice of every capture in progress, while the disk keeps up with their files.
    pub(super) fn continue_captures(&mut self) {
        for id in self.capturing.clone() {
            if !self.files.has_room() && !mutant!("node.capture.ignores_the_window") {
                reach!("node.capture.waits");
                return;
            }
            self.continue_capture(id);
        }
    }

    fn continue_capture(&mut self, id: GroupId) {
        let Some(known) = self.groups.get_mut(&id) else {
            self.capturing.remove(&id);
            return;
        };
        let Some(capture) = &mut known.capture else {
            let file = known.disk_wants_capture.then(|| self.checkpoints.next_snapshot());
            return known.begin_capture(file);
        };
        let piece = match known.state.next_slice(CAPTURE_BYTES) {
            Slice::More => return,
            Slice::Chunk(chunk) => capture.take(chunk),
            Slice::Done => {
                let last = capture.take(Bytes::new());
                self.captured(id);
                last
            }
        };
        if let Some(piece) = piece {
            self.write_file(Owner::Group(id), piece);
        }
    }

    /// A capture is complete: those who asked for it get it. One of them may have asked after it began, and gets the
    /// next one.
    fn captured(&mut self, id: GroupId) {
        let Some(known) = self.groups.get_mut(&id) else { return };
        let Some(capture) = known.capture.take() else { return };
        let (record, snapshot) = capture.finish(id);
        if record.is_some() {
            known.disk_wants_capture = false;
            known.captured = record;
        }
        if snapshot.is_some() {
            known.raft_wants_capture = false;
        }
        if !known.raft_wants_capture && !known.disk_wants_capture {
            self.capturing.remove(&id);
        }
        if let Some(snapshot) = snapshot {
            reach!("node.apply.captured");
            self.enqueue(Task::Raft(id, raft::Event::Captured { snapshot }));
        }
    }
}
