//! Which log records are still needed, so that old ones can go: the disk and the time to restart stay bounded.
//!
//! Each owner of records needs its oldest one. When too much of the log lies behind the oldest of all, its owner is
//! checkpointed: all that it needs is written again, a state as a side file. Once that is durable its older records are
//! not needed, and the log before the oldest needed record is released. An owner whose state did not change since its
//! last side file repeats the record that names the file, not the file.
//!
//! Too much is `checkpoint_bytes` and twice what one checkpoint of all owners writes. What checkpoints write lies in
//! the log as well: without that allowance a node that holds more than `checkpoint_bytes` would checkpoint for ever.
//! With it, a round of checkpoints writes no more than clients wrote since the one before.
//!
//! Not here: files, and which of them a driver deletes.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::time::Duration;

use bytes::Bytes;

use crate::digest::Hasher;
use crate::id::{GroupId, Owner, ShardId, SnapshotFile, SnapshotId, Token};
use crate::limits::BLOCK_BYTES;
use crate::raft::{self, Position, Snapshot};
use crate::wal::Write;
use crate::{mutant, reach, replication};

use super::Action;
use super::machine::{Node, Task, Timer};
use crate::node::Notice;

/// Entries of one record of a copied log.
const COPIED_ENTRIES: usize = 256;

/// Milliseconds after which a changed registry is checkpointed: many changes share one.
const REGISTRY_MS: u64 = 1000;

/// The newest snapshot file of an owner, and the record that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotRecord {
    pub(super) file: SnapshotFile,
    /// The last entry that a group's snapshot contains; zero for a shard.
    pub(super) position: Position,
    write: Write,
}

impl SnapshotRecord {
    /// The record, if it names a snapshot file.
    pub(super) fn of(write: &Write) -> Option<Self> {
        let file = write.snapshot()?;
        let position = match write {
            Write::Group { write: raft::Write::Snapshot { position, .. }, .. } => *position,
            _ => Position::default(),
        };
        Some(Self { file, position, write: write.clone() })
    }
}

/// What is known of one owner's records.
#[derive(Debug)]
struct Account {
    /// The token of the oldest record that it needs, and where in the log that is, in estimated bytes.
    oldest: u64,
    at: u64,
    record: Option<SnapshotRecord>,
    /// About what its checkpoint writes, in bytes.
    live: u64,
    /// Whether a shard was written to since `record`.
    changed: bool,
    /// A checkpoint is under way.
    in_progress: bool,
}

/// A checkpoint that becomes one when its last record is durable.
#[derive(Debug)]
struct PendingCheckpoint {
    last: u64,
    owner: Owner,
    oldest: u64,
    at: u64,
    live: u64,
    /// A group's log is compacted up to here then.
    position: Option<Position>,
}

/// A side file that no record names yet: a driver keeps it for its newest piece.
#[derive(Clone, Copy, Debug)]
struct UnfinishedFile {
    owner: Owner,
    newest: u64,
    at: u64,
    length: u64,
}

/// The accounts of all owners.
#[derive(Debug)]
pub(super) struct Checkpoints {
    bytes_max: u64,
    /// Estimated bytes of the log so far. What was durable is counted in whole blocks, as the disk has it.
    log_bytes: u64,
    /// Estimated bytes of all writes that were issued, durable or not.
    issued_bytes: u64,
    /// About what a checkpoint of all owners writes, in bytes.
    live: u64,
    accounts: BTreeMap<Owner, Account>,
    by_age: BTreeSet<(u64, Owner)>,
    pending: VecDeque<PendingCheckpoint>,
    unfinished: BTreeMap<SnapshotId, UnfinishedFile>,
    /// Side files that no record names any more once a token is durable, in the order of those.
    replaced: VecDeque<(u64, SnapshotId)>,
    last_snapshot: u64,
    released: u64,
    /// An owner is due.
    due: bool,
    /// The registry's timer is armed.
    registry_armed: bool,
}

impl Checkpoints {
    /// The accounts as a log was found: `log_bytes` long, its files numbered up to `last_snapshot`.
    pub(super) fn new(bytes_max: u64, log_bytes: u64, last_snapshot: SnapshotId) -> Self {
        Self {
            bytes_max,
            log_bytes,
            issued_bytes: 0,
            live: 0,
            accounts: BTreeMap::new(),
            by_age: BTreeSet::new(),
            pending: VecDeque::new(),
            unfinished: BTreeMap::new(),
            replaced: VecDeque::new(),
            last_snapshot: last_snapshot.0,
            released: 0,
            due: false,
            registry_armed: false,
        }
    }

    /// An owner as it was found in the log.
    pub(super) fn restore_account(
        &mut self,
        owner: Owner,
        oldest: u64,
        at: u64,
        record: Option<SnapshotRecord>,
    ) {
        let live = record.as_ref().map_or(0, |record| record.file.length);
        let account = Account { oldest, at, record, live, changed: true, in_progress: false };
        self.live += live;
        self.accounts.insert(owner, account);
        self.by_age.insert((oldest, owner));
    }

    /// A side file was found that nothing needs.
    pub(super) fn discard_later(&mut self, snapshot: SnapshotId) {
        self.replaced.push_back((0, snapshot));
    }

    /// Whether the next step has work here.
    pub(super) const fn is_running(&self) -> bool {
        self.due
    }

    /// A name that no file of this store has. Names with the highest bit are Raft's, see [`raft::snapshot_id`].
    fn next_snapshot(&mut self) -> SnapshotId {
        self.last_snapshot += 1;
        SnapshotId(self.last_snapshot)
    }

    /// Notes a write that was handed to the disk.
    pub(super) fn issued(&mut self, seq: u64, bytes: usize, write: &Write) {
        self.issued_bytes += bytes as u64;
        let owner = write.owner();
        if let Some(chunk) = write.chunk() {
            let length = chunk.offset + chunk.data.len() as u64;
            let file = UnfinishedFile { owner, newest: seq, at: self.log_bytes, length };
            self.unfinished.insert(chunk.snapshot, file);
            return;
        }
        if let Some(record) = SnapshotRecord::of(write) {
            return self.on_snapshot_named(seq, owner, record);
        }
        match write {
            Write::Boot { .. } => self.restart(seq),
            Write::Group { write: raft::Write::Forget, .. }
            | Write::Shard { write: replication::Write::Forget, .. } => self.forget(seq, owner),
            Write::Contacts { .. } | Write::Group { .. } => self.need(owner, seq),
            Write::Shard { .. } => {
                self.need(owner, seq);
                if let Some(account) = self.account(owner) {
                    account.changed = true;
                }
            }
        }
    }

    fn account(&mut self, owner: Owner) -> Option<&mut Account> {
        self.accounts.get_mut(&owner)
    }

    /// The owner needs this record, unless it needs an older one.
    fn need(&mut self, owner: Owner, seq: u64) {
        if !self.accounts.contains_key(&owner) {
            self.restore_account(owner, seq, self.log_bytes, None);
        }
    }

    /// A boot replaces the one before, and the node repeats its contacts with it.
    fn restart(&mut self, seq: u64) {
        self.forget(seq, Owner::Node);
        self.restore_account(Owner::Node, seq, self.log_bytes, None);
    }

    /// A side file is complete. A shard needs nothing older; a group's older records go with its whole checkpoint.
    fn on_snapshot_named(&mut self, seq: u64, owner: Owner, record: SnapshotRecord) {
        self.need(owner, seq);
        // From now on the record that names it keeps the file.
        self.unfinished.remove(&record.file.id);
        let (at, live, snapshot) = (self.log_bytes, record.file.length, record.file.id);
        self.replaced.retain(|(_, replaced)| *replaced != snapshot);
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        let before = account.record.replace(record).filter(|before| before.file.id != snapshot);
        if let Some(before) = before {
            self.replaced.push_back((seq, before.file.id));
        }
        account.changed = false;
        if matches!(owner, Owner::Shard(_)) {
            account.in_progress = true;
            self.pending.push_back(PendingCheckpoint {
                last: seq,
                owner,
                oldest: seq,
                at,
                live,
                position: None,
            });
        }
    }

    fn forget(&mut self, seq: u64, owner: Owner) {
        if let Some(gone) = self.accounts.remove(&owner) {
            self.by_age.remove(&(gone.oldest, owner));
            self.live -= gone.live;
            self.replaced.extend(gone.record.map(|record| (seq, record.file.id)));
        }
        self.pending.retain(|known| known.owner != owner);
    }

    /// The oldest owner that is due and not under way, which is under way from now on.
    fn next_due(&mut self) -> Option<Owner> {
        let owner = self.oldest_idle().filter(|owner| self.is_overdue(*owner));
        self.due = owner.is_some() || self.stale_file().is_some();
        let owner = owner?;
        self.account(owner)?.in_progress = true;
        Some(owner)
    }

    fn oldest_idle(&self) -> Option<Owner> {
        let idle = |owner: &Owner| self.accounts.get(owner).is_some_and(|known| !known.in_progress);
        self.by_age.iter().map(|(_, owner)| *owner).find(idle)
    }

    fn is_overdue(&self, owner: Owner) -> bool {
        let at = self.accounts.get(&owner).map_or(u64::MAX, |account| account.at);
        self.log_bytes.saturating_sub(at) > self.allowance()
    }

    /// How much of the log may lie behind a record that is needed.
    const fn allowance(&self) -> u64 {
        self.bytes_max.saturating_add(self.live.saturating_mul(2))
    }

    /// An unfinished side file whose last piece is so old that it holds the log back.
    fn stale_file(&self) -> Option<(SnapshotId, UnfinishedFile)> {
        let stale =
            |file: &UnfinishedFile| self.log_bytes.saturating_sub(file.at) > self.allowance();
        let found = self.unfinished.iter().find(|(_, file)| stale(file));
        found.map(|(snapshot, file)| (*snapshot, *file))
    }

    /// So many bytes became durable, in one batch.
    fn on_bytes_durable(&mut self, bytes: usize) {
        self.log_bytes += bytes.next_multiple_of(BLOCK_BYTES) as u64;
        let overdue = self.oldest_idle().is_some_and(|owner| self.is_overdue(owner));
        self.due = overdue || self.stale_file().is_some();
    }

    /// The next checkpoint that is complete with `seq` durable: its owner's older records are not needed any more.
    fn complete(&mut self, seq: u64) -> Option<PendingCheckpoint> {
        let done = self
            .pending
            .pop_front_if(|known| known.last <= seq || mutant!("node.checkpoint.released_early"))?;
        if let Some(account) = self.accounts.get_mut(&done.owner) {
            self.by_age.remove(&(account.oldest, done.owner));
            self.by_age.insert((done.oldest, done.owner));
            self.live = self.live - account.live + done.live;
            (account.oldest, account.at, account.in_progress) = (done.oldest, done.at, false);
            account.live = done.live;
        }
        Some(done)
    }

    /// The next side file that nothing needs, with `seq` durable.
    fn next_unneeded(&mut self, seq: u64) -> Option<SnapshotId> {
        let early = mutant!("node.checkpoint.discards_early");
        self.replaced.pop_front_if(|(after, _)| *after <= seq || early).map(|(_, file)| file)
    }

    /// The oldest record that anybody needs, when that moved.
    fn releasable(&mut self) -> Option<u64> {
        let records = self.by_age.first().map(|(oldest, _)| *oldest)?;
        let files = self.unfinished.values().map(|file| file.newest).min();
        let oldest = files.map_or(records, |newest| newest.min(records));
        let moved = oldest > self.released;
        self.released = self.released.max(oldest);
        moved.then_some(oldest)
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.log_bytes, self.live, self.last_snapshot, self.released, self.due));
        self.by_age.iter().for_each(|entry| hash.value(entry));
        self.replaced.iter().for_each(|entry| hash.value(entry));
    }
}

impl Node {
    /// The log is durable up to `seq`, by so many bytes more.
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

    /// Checkpoints the next owner that is due.
    pub(super) fn continue_checkpoint(&mut self) {
        if !self.checkpoints.is_running() {
            return;
        }
        if let Some((snapshot, file)) = self.checkpoints.stale_file() {
            self.keep_or_drop(snapshot, file);
        }
        match self.checkpoints.next_due() {
            None => {}
            Some(Owner::Node) => self.checkpoint_node(),
            Some(Owner::Group(group)) => self.begin_group_checkpoint(group),
            Some(Owner::Shard(shard)) => self.checkpoint_shard(shard),
        }
    }

    /// A transfer that rests must not hold the log back: an empty piece makes its file young. A file that Raft gave up
    /// is left to the driver.
    fn keep_or_drop(&mut self, snapshot: SnapshotId, file: UnfinishedFile) {
        let wanted = match file.owner {
            Owner::Group(id) => {
                self.raft(id).is_some_and(|raft| raft.incoming_file() == Some(snapshot))
            }
            Owner::Shard(_) | Owner::Node => true,
        };
        self.checkpoints.unfinished.remove(&snapshot);
        if wanted {
            reach!("node.checkpoint.file_kept");
            let (offset, data) = (file.length, Bytes::new());
            match file.owner {
                Owner::Group(group) => {
                    self.persist_for_group(group, raft::Write::Chunk { snapshot, offset, data });
                }
                Owner::Shard(shard) => {
                    let write = replication::Write::Chunk { snapshot, offset, data };
                    self.persist_own(Write::Shard { shard, write });
                }
                Owner::Node => {}
            }
        }
    }

    /// The node's own records, again: `issued` takes the boot for a new beginning.
    fn checkpoint_node(&mut self) {
        reach!("node.checkpoint.node");
        let first = self.gate.next();
        self.persist_own(self.boot_record());
        self.remember_contacts();
        self.begin_checkpoint(Owner::Node, first, 0, None);
    }

    /// This process's boot.
    pub(super) fn boot_record(&self) -> Write {
        let (federation, boot) = (self.federation, self.boot);
        Write::Boot { federation, node: self.me.node, store: self.me.store, boot }
    }

    /// Makes the contacts durable once more.
    pub(super) fn remember_contacts(&mut self) {
        let contacts = self.discovery.machine.contacts();
        if !contacts.is_empty() {
            self.remember(contacts);
        }
    }

    /// Everything from `first` on, `live` bytes, replaces what the owner wrote before, once the last of it is durable.
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

    /// The registry is checkpointed soon after each change: a node that restarts alone then knows the eventual
    /// namespaces at once, and goes on taking their writes.
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

    /// A state that moved on since its last side file is captured first.
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

    /// The last entry that the group's newest side file contains.
    pub(super) fn covered(&self, id: GroupId) -> u64 {
        let account = self.checkpoints.accounts.get(&Owner::Group(id));
        let record = account.and_then(|account| account.record.as_ref());
        record.map_or(0, |record| record.position.index.0)
    }

    /// Writes all that a group needs: its beginning, its state, its term and vote, the entries after the state.
    pub(super) fn checkpoint_group(&mut self, id: GroupId, snapshot: Option<&Snapshot>) {
        let covered = self.covered(id);
        let Some(group) = self.groups.get(&id) else { return };
        let (term, vote) = (group.raft.term(), group.raft.vote());
        let configuration = group.genesis.clone();
        let first = self.gate.next();
        self.persist_for_group(id, raft::Write::Genesis { configuration });
        // A leader's snapshot may have overtaken the captured one.
        let record = match snapshot.filter(|snapshot| snapshot.position.index.0 > covered) {
            Some(snapshot) => Some(self.write_snapshot_file(id, snapshot)),
            None => self.checkpoints.account(Owner::Group(id)).and_then(|a| a.record.clone()),
        };
        let position = record.as_ref().map(|record| record.position);
        let length = record.as_ref().map_or(0, |record| record.file.length);
        let before = self.checkpoints.issued_bytes;
        if let Some(record) = record {
            self.persist_own(record.write);
        }
        self.persist_for_group(id, raft::Write::Hard { term, vote });
        self.copy_entries(id, position.unwrap_or_default());
        let live = length + self.checkpoints.issued_bytes - before;
        self.begin_checkpoint(Owner::Group(id), first, live, position);
        if id == GroupId::REGISTRY {
            self.forget_closed();
        }
    }

    fn write_snapshot_file(&mut self, id: GroupId, taken: &Snapshot) -> SnapshotRecord {
        reach!("node.checkpoint.group");
        let snapshot = self.checkpoints.next_snapshot();
        let mut length = 0;
        for chunk in &taken.chunks {
            let write = raft::Write::Chunk { snapshot, offset: length, data: chunk.clone() };
            self.persist_for_group(id, write);
            length += chunk.len() as u64;
        }
        self.notify(Notice::Checkpointed { owner: Owner::Group(id), bytes: length });
        let file = SnapshotFile { id: snapshot, length, digest: taken.digest };
        let position = taken.position;
        let write = raft::Write::Snapshot {
            file,
            position,
            time_ms: taken.time_ms,
            configuration: taken.configuration.clone(),
        };
        SnapshotRecord { file, position, write: Write::Group { group: id, write } }
    }

    /// Writes the entries after `from` again.
    fn copy_entries(&mut self, id: GroupId, from: Position) {
        let mut prev = from.index;
        while let Some(group) = self.groups.get(&id) {
            let at = |ahead: usize| crate::id::Index(prev.0 + 1 + ahead as u64);
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
            let next = crate::id::Index(prev.0 + entries.len() as u64);
            self.persist_for_group(id, raft::Write::Append { prev, entries });
            prev = next;
        }
    }

    /// The replicator writes the shard's side file; an unchanged one is only named again.
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
