//! From the writes of a recovered log to what each machine starts from.
//!
//! Every sequence of writes gives either a start or a typed error. The log may begin in the middle of an owner's
//! records, because old segments are deleted once a checkpoint repeats what is still needed. So records of a group
//! before its first [`raft::Write::Genesis`] are leftovers. They are ignored, and a genesis must follow them.
//!
//! This module does not read bytes and does not detect tears (`wal`). Each machine folds its own records.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::id::{
    Boot, Contact, GroupId, Lineage, Owner, Replica, ShardId, SnapshotFile, SnapshotId, Token,
};
use crate::replication::{self, FileError};
use crate::wal::Write;
use crate::{raft, reach};

use super::Start;
use super::checkpoint::SnapshotRecord;
use super::genesis::Acceptance;

/// Why a node cannot start from a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The log belongs to another federation, node or store: the data directory is not this node's.
    Foreign {
        /// `federation`, `node` or `store`: the one that differs.
        what: &'static str,
    },
    /// The log holds this boot or a later one already: the driver must start with [`last_boot`] plus one.
    StaleBoot {
        /// The latest boot in the log.
        found: Boot,
    },
    /// A record names a snapshot file that does not exist.
    SnapshotMissing {
        /// The file's name.
        snapshot: SnapshotId,
    },
    /// A snapshot file has another length or digest than its record says.
    SnapshotDamaged {
        /// The file's name.
        snapshot: SnapshotId,
    },
    /// A record is out of order: its predecessors are missing.
    Order {
        /// The group or shard that the record belongs to.
        owner: Owner,
        /// The record's number in the log.
        token: Token,
        /// The record that had to come before it.
        expected: &'static str,
    },
    /// A state, or a record within a state, does not decode.
    Undecodable {
        /// The group or shard that it belongs to.
        owner: Owner,
    },
    /// The replicator refuses its records.
    Replication(replication::RestoreError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { what } => write!(f, "the log belongs to another {what}"),
            Self::StaleBoot { found } => write!(f, "the log holds boot {} already", found.count),
            Self::SnapshotMissing { snapshot } => {
                write!(f, "snapshot file {} is missing", snapshot.0)
            }
            Self::SnapshotDamaged { snapshot } => {
                write!(f, "snapshot file {} is damaged", snapshot.0)
            }
            Self::Order { owner, token, expected } => {
                write!(f, "record {} of {owner:?} is out of order: {expected}", token.seq)
            }
            Self::Undecodable { owner } => write!(f, "a record of {owner:?} does not decode"),
            Self::Replication(error) => write!(f, "the shards do not restore: {error:?}"),
        }
    }
}

impl core::error::Error for RestoreError {}

/// The last boot in a log. A driver starts with its count plus one and a fresh nonce, or with count 1 without one.
#[must_use]
pub fn last_boot(writes: &[(Token, Write)]) -> Option<Boot> {
    let boots = writes.iter().filter_map(|(_, write)| match write {
        Write::Boot { boot, .. } => Some(*boot),
        _ => None,
    });
    boots.max()
}

/// A group as the log has it: what Raft starts from, and the record that names its newest snapshot file.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) raft: raft::Restored,
    record: Option<SnapshotRecord>,
}

/// Everything that a log says.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) shards: replication::Restored,
    pub(super) contacts: Vec<Contact>,
    /// The greatest token found.
    pub(super) last: u64,
    /// The greatest name of a snapshot file found.
    pub(super) last_snapshot: SnapshotId,
    /// The token of each owner's oldest needed record, and where in the log that stands, in estimated bytes.
    pub(super) oldest: BTreeMap<Owner, (u64, u64)>,
    /// Estimated bytes of the log.
    pub(super) log_bytes: u64,
    /// The founding that this node accepted last and was not released from.
    pub(super) acceptance: Option<Acceptance>,
    /// The boots of members that this node welcomed.
    pub(super) welcomed: BTreeMap<Replica, Boot>,
    boot: Option<(Boot, Lineage)>,
    /// The records that name the newest snapshot files of shards.
    records: BTreeMap<ShardId, SnapshotRecord>,
    /// Groups of which only leftovers were found so far, with the first leftover's token.
    orphans: BTreeMap<GroupId, Token>,
}

/// Replays a recovered log.
pub(super) fn replay(start: &Start, writes: Vec<(Token, Write)>) -> Result<Replay, RestoreError> {
    let mut replay = Replay::default();
    for (token, write) in writes {
        replay.last = replay.last.max(token.seq);
        replay.log_bytes += write.payload_bytes() as u64;
        replay.apply(start, token, write)?;
    }
    match replay.orphans.pop_first() {
        None => Ok(replay),
        Some((group, token)) => {
            Err(RestoreError::Order { owner: Owner::Group(group), token, expected: "a genesis" })
        }
    }
}

impl Replay {
    fn apply(&mut self, start: &Start, token: Token, write: Write) -> Result<(), RestoreError> {
        let record = SnapshotRecord::of(&write);
        if let Some(record) = &record {
            self.last_snapshot = self.last_snapshot.max(record.file.id);
        }
        match write {
            Write::Boot { federation, node, store, boot, lineage } => {
                self.need(Owner::Node, token);
                check_boot(start, (federation, Replica { node, store }), boot)?;
                self.boot = Some((boot, lineage));
                Ok(())
            }
            Write::Contacts { contacts } => {
                self.need(Owner::Node, token);
                self.contacts = contacts;
                Ok(())
            }
            Write::Welcomed { boots } => {
                self.need(Owner::Node, token);
                self.welcomed.extend(boots);
                Ok(())
            }
            Write::Accepted { founder, bootstrap } => {
                self.need(Owner::Node, token);
                self.acceptance = Some(Acceptance { founder, bootstrap });
                Ok(())
            }
            Write::Released { genesis } => {
                self.acceptance.take_if(|known| known.bootstrap.genesis == genesis);
                Ok(())
            }
            Write::Group { group, write } => self.of_group(token, group, write, record),
            Write::Shard { shard, write } => {
                self.of_shard(token, shard, write, record);
                Ok(())
            }
        }
    }

    /// The lineage of this boot. A boot that does not follow the log's last one names none.
    pub(super) fn lineage(&self, boot: Boot) -> Lineage {
        let before = self.boot.as_ref().filter(|(before, _)| before.count + 1 == boot.count);
        before.map_or_else(Lineage::default, |(before, lineage)| lineage.after(*before))
    }

    /// The record that names an owner's newest snapshot file.
    pub(super) fn record(&self, owner: Owner) -> Option<SnapshotRecord> {
        match owner {
            Owner::Node => None,
            Owner::Group(group) => self.groups.get(&group)?.record.clone(),
            Owner::Shard(shard) => self.records.get(&shard).cloned(),
        }
    }

    /// Notes that the owner needs this record, unless it needs an older one.
    fn need(&mut self, owner: Owner, token: Token) {
        self.oldest.entry(owner).or_insert((token.seq, self.log_bytes));
    }

    fn of_group(
        &mut self,
        token: Token,
        group: GroupId,
        write: raft::Write,
        record: Option<SnapshotRecord>,
    ) -> Result<(), RestoreError> {
        let owner = Owner::Group(group);
        match write {
            raft::Write::Genesis { .. } => {
                self.need(owner, token);
                self.orphans.remove(&group);
                self.groups.entry(group).or_default();
            }
            raft::Write::Forget => {
                self.oldest.remove(&owner);
                self.orphans.remove(&group);
                self.groups.remove(&group);
                return Ok(());
            }
            raft::Write::Commit { .. }
            | raft::Write::Hard { .. }
            | raft::Write::Append { .. }
            | raft::Write::Snapshot { .. } => {}
        }
        let Some(known) = self.groups.get_mut(&group) else {
            reach!("node.restore.leftover");
            self.orphans.entry(group).or_insert(token);
            return Ok(());
        };
        let order = |expected| RestoreError::Order { owner, token, expected };
        known.raft.apply(write).map_err(order)?;
        if let Some(record) = record.filter(|record| known.raft.snapshot == Some(record.file)) {
            known.record = Some(record);
        }
        Ok(())
    }

    fn of_shard(
        &mut self,
        token: Token,
        shard: ShardId,
        write: replication::Write,
        record: Option<SnapshotRecord>,
    ) {
        let owner = Owner::Shard(shard);
        match &write {
            replication::Write::Dots { .. } => self.need(owner, token),
            replication::Write::Snapshot { since, .. } => {
                // The file contains the shard's older records, unless the record says that some came after it.
                if *since == 0 {
                    self.oldest.insert(owner, (token.seq, self.log_bytes));
                }
                self.need(owner, token);
                self.records.extend(record.map(|record| (shard, record)));
            }
            replication::Write::Forget => {
                self.oldest.remove(&owner);
                self.records.remove(&shard);
            }
        }
        self.shards.apply(shard, write);
    }
}

/// Checks that the log is this node's, and that its boots come before this one.
fn check_boot(
    start: &Start,
    (federation, replica): (crate::id::FederationId, Replica),
    boot: Boot,
) -> Result<(), RestoreError> {
    let foreign = |what| Err(RestoreError::Foreign { what });
    if federation != start.federation {
        return foreign("federation");
    }
    if replica.node != start.replica.node {
        return foreign("node");
    }
    if replica.store != start.replica.store {
        return foreign("store");
    }
    if boot.count >= start.boot.count {
        return Err(RestoreError::StaleBoot { found: boot });
    }
    Ok(())
}

/// Takes out a snapshot file, and checks its length and digest against its record.
pub(super) fn snapshot_file(
    snapshots: &mut BTreeMap<SnapshotId, Bytes>,
    file: SnapshotFile,
) -> Result<Bytes, RestoreError> {
    let snapshot = file.id;
    let bytes = snapshots.remove(&snapshot).ok_or(RestoreError::SnapshotMissing { snapshot })?;
    if file.matches(&bytes) { Ok(bytes) } else { Err(RestoreError::SnapshotDamaged { snapshot }) }
}

impl From<FileError> for RestoreError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Missing(snapshot) => Self::SnapshotMissing { snapshot },
            FileError::Damaged(snapshot) => Self::SnapshotDamaged { snapshot },
        }
    }
}
