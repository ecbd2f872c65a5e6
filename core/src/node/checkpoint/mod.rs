//! Checkpoints: which log records are still needed, so that old ones can go. They bound the disk and the time to
//! restart.
//!
//! Each owner of records needs all of them from its oldest needed one on. When too much of the log follows the oldest
//! needed record of all, its owner is checkpointed: everything that it needs is written again, its state as a snapshot
//! file. Once that is durable, the older records of the owner are not needed, and the log before the oldest needed
//! record is released. An owner whose state did not change since its last snapshot file repeats the record that names
//! the file, not the file. A file is written beside the log, and its record is issued once the file is durable.
//!
//! Too much is `checkpoint_bytes` plus twice what one checkpoint of all owners writes. Checkpoints write to the log as
//! well. Without that allowance a node that holds more than `checkpoint_bytes` would checkpoint without end; with it, a
//! round of checkpoints writes no more than clients wrote since the round before.
//!
//! `ledger` keeps the accounts. This module does not handle files, and does not choose which ones a driver deletes.

mod ledger;

use core::time::Duration;

use crate::id::{GroupId, Index, Owner, ShardId, SnapshotId, Token};
use crate::raft::{self, Position};
use crate::wal::Write;
use crate::{mutant, reach, replication};

use super::machine::{Node, Task, Timer};
use super::{Action, Notice};
use ledger::{Account, PendingCheckpoint};

pub(super) use ledger::{Checkpoints, SnapshotRecord};

/// Entries per record when a checkpoint copies a group's log.
const COPIED_ENTRIES: usize = 256;

/// Milliseconds from a change of the registry to its checkpoint, so that many changes share one.
const REGISTRY_MS: u64 = 1000;

impl Node {
    /// The log is durable up to `seq`, by `bytes` bytes more.
    pub(super) fn checkpoints_durable(&mut self, seq: u64, bytes: usize) {
        self.checkpoints.on_bytes_durable(bytes);
        while let Some(snapshot) = self.checkpoints.next_unneeded(seq) {
            reach!("node.checkpoint.discarded");
            self.emit(Action::Discard { snapshot });
        }
        let mut moved = false;
        while let Some(done) = self.checkpoints.complete(seq) {
            moved = true;
            if let (Owner::Group(group), Some(position)) = (done.owner, done.position) {
                self.enqueue(Task::Raft(group, raft::Event::Compact { position }));
            }
        }
        if moved && let Some(seq) = self.checkpoints.releasable() {
            reach!("node.checkpoint.released");
            self.emit(Action::Release { before: Token { lane: 0, seq } });
        }
    }

    /// Begins the checkpoint of the next owner that is due.
    pub(super) fn continue_checkpoint(&mut self) {
        if !self.checkpoints.is_running() {
            return;
        }
        match self.checkpoints.next_due() {
            None => {}
            Some(Owner::Node) => self.checkpoint_node(),
            Some(Owner::Group(group)) => self.begin_group_checkpoint(group),
            Some(Owner::Shard(shard)) => self.checkpoint_shard(shard),
        }
    }

    /// Writes the node's own records again. They replace the older ones once the last one is durable.
    fn checkpoint_node(&mut self) {
        reach!("node.checkpoint.node");
        let first = self.gate.next();
        self.persist_own(self.boot_record());
        self.repeat_own_records();
        self.begin_checkpoint(Owner::Node, first, 0, None);
    }

    /// This process's boot record.
    pub(super) fn boot_record(&self) -> Write {
        let (federation, boot) = (self.federation, self.boot);
        let lineage = self.lineage.clone();
        Write::Boot { federation, node: self.me.node, store: self.me.store, boot, lineage }
    }

    /// Writes the node's own records after a boot record once more: the contacts, the welcomed boots
    /// and the accepted founding.
    pub(super) fn repeat_own_records(&mut self) {
        let contacts = self.discovery.machine.contacts();
        if !contacts.is_empty() {
            self.remember(contacts);
        }
        self.remember_welcomed();
        if let Some(acceptance) = self.genesis.acceptance.clone() {
            self.persist_own(acceptance.record());
        }
    }

    /// Notes a checkpoint whose records were issued, from token `first` to the newest one, with `live` bytes. They
    /// replace the owner's older records once the last one is durable.
    fn begin_checkpoint(
        &mut self,
        owner: Owner,
        first: u64,
        live: u64,
        position: Option<Position>,
    ) {
        let at = self.checkpoints.log_bytes;
        let last = self.gate.next() - 1;
        if let Some(account) = self.checkpoints.account(owner) {
            account.in_progress = true;
        }
        self.checkpoints.pending.push_back(PendingCheckpoint {
            last,
            owner,
            oldest: first,
            at,
            live,
            position,
        });
    }

    /// Checkpoints the registry soon after each change: the records of a deleted group are needed until the registry's
    /// snapshot file contains the deletion.
    pub(super) fn arm_registry_checkpoint(&mut self) {
        let applied = self.groups.get(&GroupId::REGISTRY).map_or(0, |group| group.applied.0);
        let behind = applied > self.covered(GroupId::REGISTRY);
        if behind && !core::mem::replace(&mut self.checkpoints.registry_armed, true) {
            self.arm(Duration::from_millis(REGISTRY_MS), Timer::Registry);
        }
    }

    pub(super) fn on_registry_due(&mut self) {
        self.checkpoints.registry_armed = false;
        let idle = |account: &&mut Account| !account.in_progress;
        match self.checkpoints.account(Owner::Group(GroupId::REGISTRY)).filter(idle) {
            Some(account) => {
                reach!("node.checkpoint.registry");
                account.in_progress = true;
                self.begin_group_checkpoint(GroupId::REGISTRY);
            }
            None => self.arm_registry_checkpoint(),
        }
    }

    /// Captures the group's state first, if it changed since the last snapshot file.
    fn begin_group_checkpoint(&mut self, id: GroupId) {
        let covered = self.covered(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.applied.0 > covered && group.state.halted().is_none() {
            group.disk_wants_capture = true;
            self.capturing.insert(id);
        } else {
            self.checkpoint_group(id, None);
        }
    }

    /// The last entry that the group's newest snapshot file contains.
    pub(super) fn covered(&self, id: GroupId) -> u64 {
        let account = self.checkpoints.accounts.get(&Owner::Group(id));
        let record = account.and_then(|account| account.record.as_ref());
        record.map_or(0, |record| record.position.index.0)
    }

    /// A captured state is durable in its file. A snapshot that the leader sent meanwhile may be newer; then nothing
    /// needs the file.
    pub(super) fn on_captured_file(&mut self, id: GroupId, snapshot: SnapshotId) {
        let covered = self.covered(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let is_it = |record: &mut SnapshotRecord| record.file.id == snapshot;
        let Some(record) = group.captured.take_if(is_it) else { return };
        if record.position.index.0 <= covered {
            reach!("node.checkpoint.overtaken");
            self.drop_file(snapshot);
            return self.checkpoint_group(id, None);
        }
        reach!("node.checkpoint.group");
        let bytes = record.file.length;
        self.notify(Notice::Checkpointed { owner: Owner::Group(id), bytes });
        self.checkpoint_group(id, Some(record));
    }

    /// The disk gave up a file in which a group's state was being captured.
    pub(super) fn end_capture_in(&mut self, id: GroupId, snapshot: SnapshotId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.captured.take_if(|record| record.file.id == snapshot);
        if group.capture.as_ref().is_some_and(|capture| capture.file == Some(snapshot)) {
            group.end_capture();
            group.disk_wants_capture = false;
            if !group.raft_wants_capture {
                self.capturing.remove(&id);
            }
        }
    }

    /// Writes all that a group needs: its genesis, its state, its term and vote, and the entries after the state.
    pub(super) fn checkpoint_group(&mut self, id: GroupId, captured: Option<SnapshotRecord>) {
        let Some(group) = self.groups.get(&id) else { return };
        let (term, vote) = (group.raft.term(), group.raft.vote());
        let genesis = raft::Write::Genesis {
            id: self.genesis.id.unwrap_or_default(),
            configuration: group.genesis.clone(),
        };
        let first = self.gate.next();
        self.persist_for_group(id, genesis);
        let record = captured
            .or_else(|| self.checkpoints.account(Owner::Group(id)).and_then(|a| a.record.clone()));
        let position = record.as_ref().map(|record| record.position);
        let length = record.as_ref().map_or(0, |record| record.file.length);
        let before = self.checkpoints.issued_bytes;
        if let Some(record) = record {
            self.persist_own(record.write);
        }
        self.persist_for_group(id, raft::Write::Hard { term, vote });
        self.copy_entries(id, position.unwrap_or_default());
        if let Some(index) = self.groups.get(&id).map(|group| group.recorded).filter(|at| at.0 > 0)
        {
            self.persist_for_group(id, raft::Write::Commit { index });
        }
        let live = length + self.checkpoints.issued_bytes - before;
        self.begin_checkpoint(Owner::Group(id), first, live, position);
        if id == GroupId::REGISTRY {
            self.forget_closed();
        }
    }

    /// Writes the entries after `from` again.
    fn copy_entries(&mut self, id: GroupId, from: Position) {
        let mut prev = from.index;
        while let Some(group) = self.groups.get(&id) {
            let at = |ahead: usize| Index(prev.0 + 1 + ahead as u64);
            let entries: alloc::vec::Vec<_> = (0..COPIED_ENTRIES)
                .map_while(|ahead| group.raft.entry(at(ahead)).cloned())
                .collect();
            if entries.is_empty() {
                if mutant!("node.checkpoint.copy_cuts") {
                    let prev = from.index;
                    self.persist_for_group(id, raft::Write::Append { prev, entries });
                }
                return;
            }
            let next = Index(prev.0 + entries.len() as u64);
            self.persist_for_group(id, raft::Write::Append { prev, entries });
            prev = next;
        }
    }

    /// Lets the replicator write the shard's snapshot file. For an unchanged shard the record that names the file is
    /// written again instead.
    fn checkpoint_shard(&mut self, shard: ShardId) {
        let owner = Owner::Shard(shard);
        let Some(account) = self.checkpoints.account(owner) else { return };
        if let Some(record) = account.record.clone().filter(|_| !account.changed) {
            reach!("node.checkpoint.named_again");
            self.persist_own(record.write);
            return;
        }
        reach!("node.checkpoint.shard");
        let snapshot = self.checkpoints.next_snapshot();
        let event = replication::Event::Checkpoint { shard, snapshot };
        self.enqueue(Task::Replication(event));
    }
}
