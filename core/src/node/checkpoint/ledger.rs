//! The ledger of checkpoints: the oldest record that each owner needs, the snapshot files, and the bytes of the log.
//!
//! It decides when an owner is due and what may be released. It does not issue writes (the module above does).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::digest::Hasher;
use crate::id::{Owner, SnapshotFile, SnapshotId};
use crate::limits::BLOCK_BYTES;
use crate::raft::{self, Position};
use crate::wal::{SEGMENT_BYTES, Write};
use crate::{mutant, replication};

/// The newest snapshot file of an owner, and the record that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct SnapshotRecord {
    pub(in crate::node) file: SnapshotFile,
    /// The last entry that a group's snapshot contains; zero for a shard.
    pub(in crate::node) position: Position,
    /// The log record itself, so that a checkpoint can repeat it.
    pub(in crate::node) write: Write,
}

impl SnapshotRecord {
    /// The record, if it names a snapshot file.
    pub(in crate::node) fn of(write: &Write) -> Option<Self> {
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
pub(super) struct Account {
    /// The token of the oldest record that it needs.
    oldest: u64,
    /// Where in the log that record stands, in estimated bytes from the log's beginning.
    at: u64,
    pub(super) record: Option<SnapshotRecord>,
    /// Estimated bytes that a checkpoint of it writes.
    live: u64,
    /// Whether a shard was written to since `record`.
    pub(super) changed: bool,
    /// Whether a checkpoint of it is in progress.
    pub(super) in_progress: bool,
    /// The token after the newest record that the file under way contains, and its `at`.
    ends: Option<(u64, u64)>,
}

/// A checkpoint that is complete once its last record is durable.
#[derive(Debug)]
pub(super) struct PendingCheckpoint {
    pub(super) owner: Owner,
    /// The tokens of its first and last record.
    pub(super) oldest: u64,
    pub(super) last: u64,
    /// The owner's `at` and `live` once it is complete.
    pub(super) at: u64,
    pub(super) live: u64,
    /// A group's log is compacted up to here once it is complete.
    pub(super) position: Option<Position>,
}

/// The accounts of all owners.
#[derive(Debug)]
pub(in crate::node) struct Checkpoints {
    /// `checkpoint_bytes` of the configuration.
    bytes_max: u64,
    /// The bytes of the node's whole state while its disk is full and still has room for a checkpoint of it.
    full_with: Option<u64>,
    /// Owners whose files are far larger than their state, while the disk is full.
    shrunk: BTreeSet<Owner>,
    /// Estimated bytes of the log so far. Durable batches count as whole blocks, as the disk has them.
    pub(super) log_bytes: u64,
    /// Estimated bytes of all writes that were issued, durable or not.
    pub(super) issued_bytes: u64,
    /// Estimated bytes that a checkpoint of all owners writes.
    live: u64,
    pub(super) accounts: BTreeMap<Owner, Account>,
    /// All owners by the token of their oldest needed record.
    by_age: BTreeSet<(u64, Owner)>,
    /// Checkpoints in progress, in the order of their last records.
    pub(super) pending: VecDeque<PendingCheckpoint>,
    /// Snapshot files that no record needs once this token is durable, in the order of the tokens.
    replaced: VecDeque<(u64, SnapshotId)>,
    /// The greatest file number used.
    last_snapshot: u64,
    /// The token up to which the log was released.
    released: u64,
    /// Whether an owner is due.
    due: bool,
    /// Whether the disk had no room for the last file.
    has_no_room: bool,
    /// Whether the timer of the registry's checkpoint is armed.
    pub(super) registry_armed: bool,
}

impl Checkpoints {
    /// No accounts yet, for a recovered log of `log_bytes` bytes whose files are numbered up to `last_snapshot`.
    pub(in crate::node) fn new(bytes_max: u64, log_bytes: u64, last_snapshot: SnapshotId) -> Self {
        Self {
            bytes_max,
            full_with: None,
            shrunk: BTreeSet::new(),
            log_bytes,
            issued_bytes: 0,
            live: 0,
            accounts: BTreeMap::new(),
            by_age: BTreeSet::new(),
            pending: VecDeque::new(),
            replaced: VecDeque::new(),
            last_snapshot: last_snapshot.0,
            released: 0,
            due: false,
            has_no_room: false,
            registry_armed: false,
        }
    }

    /// Adds the account of an owner: its oldest needed record, where in the log that is, and its snapshot file.
    pub(in crate::node) fn restore_account(
        &mut self,
        owner: Owner,
        oldest: u64,
        at: u64,
        record: Option<SnapshotRecord>,
    ) {
        let live = record.as_ref().map_or(0, |record| record.file.length);
        let account =
            Account { oldest, at, record, live, changed: true, in_progress: false, ends: None };
        self.live += live;
        self.accounts.insert(owner, account);
        self.by_age.insert((oldest, owner));
    }

    /// Discards a snapshot file that the restart found and no record needs.
    pub(in crate::node) fn discard_later(&mut self, snapshot: SnapshotId) {
        self.replaced.push_back((0, snapshot));
    }

    /// Whether the next step has a checkpoint to continue.
    pub(in crate::node) const fn is_running(&self) -> bool {
        self.due
    }

    /// The name of a new file. Raft names the files that it receives itself, with the highest bit set, see
    /// [`raft::snapshot_id`].
    pub(in crate::node) fn next_snapshot(&mut self) -> SnapshotId {
        self.last_snapshot += 1;
        SnapshotId(self.last_snapshot)
    }

    /// Notes a write that was handed to the disk.
    pub(in crate::node) fn issued(&mut self, seq: u64, bytes: usize, write: &Write) {
        self.issued_bytes += bytes as u64;
        let owner = write.owner();
        if let Some(record) = SnapshotRecord::of(write) {
            return self.on_snapshot_named(seq, owner, record);
        }
        match write {
            Write::Boot { .. } => self.restart(seq),
            Write::Group { write: raft::Write::Forget, .. }
            | Write::Shard { write: replication::Write::Forget, .. } => self.forget(seq, owner),
            Write::Contacts { .. }
            | Write::Welcomed { .. }
            | Write::Accepted { .. }
            | Write::Released { .. }
            | Write::Group { .. } => self.need(owner, seq),
            Write::Shard { .. } => {
                self.need(owner, seq);
                if let Some(account) = self.account(owner) {
                    account.changed = true;
                }
            }
        }
    }

    pub(super) fn account(&mut self, owner: Owner) -> Option<&mut Account> {
        self.accounts.get_mut(&owner)
    }

    /// Notes that the owner needs this record, unless it needs an older one.
    fn need(&mut self, owner: Owner, seq: u64) {
        if !self.accounts.contains_key(&owner) {
            self.restore_account(owner, seq, self.log_bytes, None);
        }
    }

    /// A process's boot record replaces that of the process before. The node repeats its other records after it. In a
    /// checkpoint the older records are needed until the last of the new ones is durable.
    fn restart(&mut self, seq: u64) {
        let checkpoint = self.account(Owner::Node).is_some_and(|account| account.in_progress);
        if checkpoint {
            return;
        }
        self.forget(seq, Owner::Node);
        self.restore_account(Owner::Node, seq, self.log_bytes, None);
    }

    /// A record names a complete snapshot file. It completes a shard's checkpoint; a group's needs further records.
    fn on_snapshot_named(&mut self, seq: u64, owner: Owner, record: SnapshotRecord) {
        self.need(owner, seq);
        let (now, live, snapshot) = ((seq, self.log_bytes), record.file.length, record.file.id);
        let since = record.write.written_since();
        self.replaced.retain(|(_, replaced)| *replaced != snapshot);
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        let before = account.record.replace(record).filter(|before| before.file.id != snapshot);
        if let Some(before) = before {
            self.replaced.push_back((seq, before.file.id));
        }
        account.changed = since > 0;
        // The records since the file's end are needed as well.
        let (oldest, at) = account.ends.take().filter(|_| since > 0).unwrap_or(now);
        if matches!(owner, Owner::Shard(_)) {
            account.in_progress = true;
            self.pending.push_back(PendingCheckpoint {
                last: seq,
                owner,
                oldest,
                at,
                live,
                position: None,
            });
        }
    }

    /// The last piece of a shard's file was issued: records from token `seq` on are not in it.
    pub(in crate::node) fn file_ends(&mut self, owner: Owner, seq: u64) {
        let at = self.log_bytes;
        if let Some(account) = self.account(owner) {
            account.ends = Some((seq, at));
        }
    }

    fn forget(&mut self, seq: u64, owner: Owner) {
        if let Some(gone) = self.accounts.remove(&owner) {
            self.by_age.remove(&(gone.oldest, owner));
            self.live -= gone.live;
            self.replaced.extend(gone.record.map(|record| (seq, record.file.id)));
        }
        self.pending.retain(|known| known.owner != owner);
        self.shrunk.remove(&owner);
    }

    /// The owner with the oldest needed record, if that is overdue and no checkpoint of it is in progress. Marks it as
    /// in progress.
    pub(super) fn next_due(&mut self) -> Option<Owner> {
        self.look_for_due();
        let owner = self.overdue().filter(|_| self.due)?;
        self.shrunk.remove(&owner);
        self.account(owner)?.in_progress = true;
        Some(owner)
    }

    fn oldest_idle(&self) -> Option<Owner> {
        let idle = |owner: &Owner| self.accounts.get(owner).is_some_and(|known| !known.in_progress);
        self.by_age.iter().map(|(_, owner)| *owner).find(idle)
    }

    /// The owner that is checkpointed next: the oldest one, if it is overdue, or one whose file can become far smaller.
    fn overdue(&self) -> Option<Owner> {
        let is_idle =
            |owner: &&Owner| self.accounts.get(owner).is_some_and(|known| !known.in_progress);
        let oldest = self.oldest_idle().filter(|owner| self.is_overdue(*owner));
        oldest.or_else(|| self.shrunk.iter().find(is_idle).copied())
    }

    fn is_overdue(&self, owner: Owner) -> bool {
        let at = self.accounts.get(&owner).map_or(u64::MAX, |account| account.at);
        self.log_bytes.saturating_sub(at) > self.allowance()
    }

    /// How many bytes of log may follow a record that is needed. On a full disk that is as little as pays: a segment,
    /// since no less is ever released, and twice what a checkpoint writes now. Deletions may have made that far less
    /// than the last one wrote.
    fn allowance(&self) -> u64 {
        let with = |bytes_max: u64, live: u64| bytes_max.saturating_add(live.saturating_mul(2));
        let usual = with(self.bytes_max, self.live);
        let full = self.full_with.map(|bytes| with(SEGMENT_BYTES, bytes));
        full.map_or(usual, |full| full.min(usual))
    }

    /// The disk is full, and the node's state has this many bytes; `None` when it has room again. Half of the room that
    /// is left is for deletions, and for the log that the checkpoint copies.
    pub(in crate::node) fn disk_is_full(&mut self, with: Option<u64>, room: u64) {
        let fits = |bytes: &u64| *bytes <= room / 2;
        self.full_with =
            with.filter(|bytes| fits(bytes) && !mutant!("node.checkpoint.never_when_full"));
        self.shrunk.clear();
        self.look_again();
    }

    /// The owners with a file that a checkpoint makes smaller by a segment at least, where `bytes` says how many bytes
    /// an owner's state has now.
    pub(in crate::node) fn shrink(&mut self, bytes: impl Fn(Owner) -> u64) {
        let gains = |(owner, account): &(&Owner, &Account)| {
            let file = account.record.as_ref().map_or(0, |record| record.file.length);
            // The count of a state may be less than its file has.
            file > SEGMENT_BYTES && file - SEGMENT_BYTES > bytes(**owner).saturating_mul(2)
        };
        let shrunk = self.accounts.iter().filter(gains).map(|(owner, _)| *owner);
        self.shrunk = if mutant!("node.checkpoint.keeps_large_files") {
            BTreeSet::new()
        } else {
            shrunk.collect()
        };
        self.look_for_due();
    }

    fn look_for_due(&mut self) {
        self.due = !self.has_no_room && self.overdue().is_some();
    }

    /// The disk had no room for the file of an owner's checkpoint. None begins until [`Self::look_again`].
    pub(in crate::node) fn no_room_for(&mut self, owner: Owner) {
        if let Some(account) = self.account(owner) {
            account.in_progress = false;
        }
        self.has_no_room = true;
        self.due = false;
    }

    /// Checkpoints may begin again.
    pub(in crate::node) fn look_again(&mut self) {
        self.has_no_room = false;
        self.look_for_due();
    }

    /// Notes that one batch of `bytes` bytes became durable.
    pub(super) fn on_bytes_durable(&mut self, bytes: usize) {
        self.log_bytes += bytes.next_multiple_of(BLOCK_BYTES) as u64;
        self.look_for_due();
    }

    /// Takes out the next checkpoint that is complete with `seq` durable. Its owner no longer needs its older records.
    pub(super) fn complete(&mut self, seq: u64) -> Option<PendingCheckpoint> {
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
    pub(super) fn next_unneeded(&mut self, seq: u64) -> Option<SnapshotId> {
        let early = mutant!("node.checkpoint.discards_early");
        self.replaced.pop_front_if(|(after, _)| *after <= seq || early).map(|(_, file)| file)
    }

    /// The oldest token that an owner needs, if it moved since the last call.
    pub(super) fn releasable(&mut self) -> Option<u64> {
        let oldest = self.by_age.first().map(|(oldest, _)| *oldest)?;
        let moved = oldest > self.released;
        self.released = self.released.max(oldest);
        moved.then_some(oldest)
    }

    pub(in crate::node) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.log_bytes, self.live, self.last_snapshot, self.released, self.due));
        self.by_age.iter().for_each(|entry| hash.value(entry));
        self.replaced.iter().for_each(|entry| hash.value(entry));
    }
}
