//! Checkpoints: which log records are still needed, so that old ones can go. They bound the disk and the time to
//! restart.
//!
//! Each owner of records needs all of them from its oldest needed one on. When too much of the log follows the oldest
//! needed record of all, its owner is checkpointed: everything that it needs is written again, its state as a snapshot
//! file. Once that is durable, the older records of the owner are not needed, and the log before the oldest needed
//! record is released. An owner whose state did not change since its last snapshot file repeats the record that names
//! the file, not the file.
//!
//! Too much is `checkpoint_bytes` plus twice what one checkpoint of all owners writes. Checkpoints write to the log as
//! well. Without that allowance a node that holds more than `checkpoint_bytes` would checkpoint without end; with it, a
//! round of checkpoints writes no more than clients wrote since the round before.
//!
//! This module does not handle files, and does not choose which ones a driver deletes.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::time::Duration;

use bytes::Bytes;

use crate::digest::Hasher;
use crate::id::{GroupId, Owner, ShardId, SnapshotFile, SnapshotId, Token};
use crate::limits::BLOCK_BYTES;
use crate::raft::{self, Position, Snapshot};
use crate::wal::Write;
use crate::{mutant, reach, replication};

use super::machine::{Node, Task, Timer};
use super::{Action, Notice};

/// Entries per record when a checkpoint copies a group's log.
const COPIED_ENTRIES: usize = 256;

/// Milliseconds from a change of the registry to its checkpoint, so that many changes share one.
const REGISTRY_MS: u64 = 1000;

/// The newest snapshot file of an owner, and the record that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotRecord {
    pub(super) file: SnapshotFile,
    /// The last entry that a group's snapshot contains; zero for a shard.
    pub(super) position: Position,
    /// The log record itself, so that a checkpoint can repeat it.
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

/// The records that one owner needs.
#[derive(Debug)]
struct Account {
    /// The token of the oldest record that it needs.
    oldest: u64,
    /// Where in the log that record stands, in estimated bytes from the log's beginning.
    at: u64,
    record: Option<SnapshotRecord>,
    /// Estimated bytes that a checkpoint of it writes.
    live: u64,
    /// Whether a shard was written to since `record`.
    changed: bool,
    /// Whether a checkpoint of it is in progress.
    in_progress: bool,
}

/// A checkpoint that is complete once its last record is durable.
#[derive(Debug)]
struct PendingCheckpoint {
    owner: Owner,
    /// The tokens of its first and last record.
    oldest: u64,
    last: u64,
    /// The owner's `at` and `live` once it is complete.
    at: u64,
    live: u64,
    /// A group's log is compacted up to here once it is complete.
    position: Option<Position>,
}

/// A snapshot file that no record names yet. A driver keeps it as long as the token of its newest piece is needed.
#[derive(Clone, Copy, Debug)]
struct UnfinishedFile {
    owner: Owner,
    /// The token of the newest piece.
    newest: u64,
    /// Where in the log that token stands, in estimated bytes from the log's beginning.
    at: u64,
    /// Bytes written so far.
    length: u64,
}

/// The accounts of all owners.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// `checkpoint_bytes` of the configuration.
    bytes_max: u64,
    /// Estimated bytes of the log so far. Durable batches count as whole blocks, as the disk has them.
    log_bytes: u64,
    /// Estimated bytes of all writes that were issued, durable or not.
    issued_bytes: u64,
    /// Estimated bytes that a checkpoint of all owners writes.
    live: u64,
    accounts: BTreeMap<Owner, Account>,
    /// All owners by the token of their oldest needed record.
    by_age: BTreeSet<(u64, Owner)>,
    /// Checkpoints in progress, in the order of their last records.
    pending: VecDeque<PendingCheckpoint>,
    unfinished: BTreeMap<SnapshotId, UnfinishedFile>,
    /// Snapshot files that no record needs once this token is durable, in the order of the tokens.
    replaced: VecDeque<(u64, SnapshotId)>,
    /// The greatest file number used.
    last_snapshot: u64,
    /// The token up to which the log was released.
    released: u64,
    /// Whether an owner or an unfinished file is due.
    due: bool,
    /// Whether the timer of the registry's checkpoint is armed.
    registry_armed: bool,
}

impl Checkpoints {
    /// No accounts yet, for a recovered log of `log_bytes` bytes whose files are numbered up to `last_snapshot`.
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

    /// Adds the account of an owner: its oldest needed record, where in the log that is, and its snapshot file.
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

    /// Discards a snapshot file that the restart found and no record needs.
    pub(super) fn discard_later(&mut self, snapshot: SnapshotId) {
        self.replaced.push_back((0, snapshot));
    }

    /// Whether the next step has a checkpoint to continue.
    pub(super) const fn is_running(&self) -> bool {
        self.due
    }

    /// The name of a new file. Raft names the files that it receives itself, with the highest bit set, see
    /// [`raft::snapshot_id`].
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

    /// Notes that the owner needs this record, unless it needs an older one.
    fn need(&mut self, owner: Owner, seq: u64) {
        if !self.accounts.contains_key(&owner) {
            self.restore_account(owner, seq, self.log_bytes, None);
        }
    }

    /// A boot record replaces the one before. The node repeats its contacts after it.
    fn restart(&mut self, seq: u64) {
        self.forget(seq, Owner::Node);
        self.restore_account(Owner::Node, seq, self.log_bytes, None);
    }

    /// A record names a complete snapshot file. It completes a shard's checkpoint; a group's needs further records.
    fn on_snapshot_named(&mut self, seq: u64, owner: Owner, record: SnapshotRecord) {
        self.need(owner, seq);
        // From now on the record that names the file keeps it.
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

    /// The owner with the oldest needed record, if that is overdue and no checkpoint of it is in progress. Marks it as
    /// in progress.
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

    /// How many bytes of log may follow a record that is needed.
    const fn allowance(&self) -> u64 {
        self.bytes_max.saturating_add(self.live.saturating_mul(2))
    }

    /// An unfinished snapshot file whose newest piece is so old that it keeps the log from being released.
    fn stale_file(&self) -> Option<(SnapshotId, UnfinishedFile)> {
        let stale =
            |file: &UnfinishedFile| self.log_bytes.saturating_sub(file.at) > self.allowance();
        let found = self.unfinished.iter().find(|(_, file)| stale(file));
        found.map(|(snapshot, file)| (*snapshot, *file))
    }

    /// Notes that one batch of `bytes` bytes became durable.
    fn on_bytes_durable(&mut self, bytes: usize) {
        self.log_bytes += bytes.next_multiple_of(BLOCK_BYTES) as u64;
        let overdue = self.oldest_idle().is_some_and(|owner| self.is_overdue(owner));
        self.due = overdue || self.stale_file().is_some();
    }

    /// Takes out the next checkpoint that is complete with `seq` durable. Its owner no longer needs its older records.
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

    /// The next snapshot file that nothing needs with `seq` durable.
    fn next_unneeded(&mut self, seq: u64) -> Option<SnapshotId> {
        let early = mutant!("node.checkpoint.discards_early");
        self.replaced.pop_front_if(|(after, _)| *after <= seq || early).map(|(_, file)| file)
    }

    /// The oldest token that an owner or an unfinished file needs, if it moved since the last call.
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

    /// A paused snapshot transfer must not keep the log from being released, so an empty piece makes its file young. A
    /// file that Raft gave up is forgotten, and the driver deletes it with the log.
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

    /// Writes the node's own records again. [`Checkpoints::issued`] takes the boot record for a new beginning.
    fn checkpoint_node(&mut self) {
        reach!("node.checkpoint.node");
        let first = self.gate.next();
        self.persist_own(self.boot_record());
        self.remember_contacts();
        self.begin_checkpoint(Owner::Node, first, 0, None);
    }

    /// This process's boot record.
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

    /// Checkpoints the registry soon after each change. So a node that restarts without reaching the others knows the
    /// eventual namespaces at once, and takes their writes.
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

    /// Writes all that a group needs: its genesis, its state, its term and vote, and the entries after the state.
    pub(super) fn checkpoint_group(&mut self, id: GroupId, snapshot: Option<&Snapshot>) {
        let covered = self.covered(id);
        let Some(group) = self.groups.get(&id) else { return };
        let (term, vote) = (group.raft.term(), group.raft.vote());
        let configuration = group.genesis.clone();
        let first = self.gate.next();
        self.persist_for_group(id, raft::Write::Genesis { configuration });
        // A snapshot that the leader sent meanwhile may be newer than the captured one.
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
