//! From the writes of a recovered log to what each machine starts from.
//!
//! Total: any sequence of writes gives either a start or a typed error. The log may begin in the middle of an owner's
//! records, since old segments are deleted once a checkpoint repeats what is still needed: records of an owner before
//! its first [`Write::Genesis`] are such leftovers.
//!
//! Not here: bytes and tears (`wal`), and what the machines do with their starts.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::digest::Digest;
use crate::id::{Boot, Contact, GroupId, Index, Owner, Replica, ShardId, SnapshotId, Term, Token};
use crate::raft::{self, Configuration, Entry, Position};
use crate::reach;
use crate::replication::{self, RestoredShard};
use crate::wal::Write;

use super::checkpoint::Record;
use super::{Start, hold};

/// Why a log is not one that this node can go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The log belongs to another federation, node or store: the data directory is not this node's.
    Foreign {
        /// Which of the three differs.
        what: &'static str,
    },
    /// A later boot than this one is in the log already: the driver must start with [`last_boot`] plus one.
    StaleBoot {
        /// The boot in the log.
        found: Boot,
    },
    /// A record names a side file that is not there.
    SnapshotMissing {
        /// The file.
        snapshot: SnapshotId,
    },
    /// A side file is not what its record says.
    SnapshotDamaged {
        /// The file.
        snapshot: SnapshotId,
    },
    /// A record stands where it cannot: its predecessors are missing.
    Order {
        /// Whose record.
        owner: Owner,
        /// Its token.
        token: Token,
        /// What was expected.
        expected: &'static str,
    },
    /// A state or a record inside of one does not decode.
    Undecodable {
        /// Whose.
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
            Self::SnapshotMissing { snapshot } => write!(f, "side file {} is missing", snapshot.0),
            Self::SnapshotDamaged { snapshot } => write!(f, "side file {} is damaged", snapshot.0),
            Self::Order { owner, token, expected } => {
                write!(f, "record {} of {owner:?} is out of order: {expected}", token.seq)
            }
            Self::Undecodable { owner } => write!(f, "a record of {owner:?} does not decode"),
            Self::Replication(error) => write!(f, "the shards do not restore: {error:?}"),
        }
    }
}

impl core::error::Error for RestoreError {}

/// The last boot in a log: a driver starts with its count plus one and a fresh nonce, or with 1 when there is none.
#[must_use]
pub fn last_boot(writes: &[(Token, Write)]) -> Option<Boot> {
    let boots = writes.iter().filter_map(|(_, write)| match write {
        Write::Boot { boot, .. } => Some(*boot),
        _ => None,
    });
    boots.max()
}

/// A group as the log has it.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) genesis: Configuration,
    term: Term,
    vote: Option<Replica>,
    base: Position,
    base_time_ms: u64,
    base_configuration: Option<Configuration>,
    entries: Vec<Entry>,
    /// The newest side file, and what the log says of it.
    pub(super) snapshot: Option<Record>,
}

/// All that a log says.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) shards: BTreeMap<ShardId, Shard>,
    pub(super) contacts: Vec<Contact>,
    /// The greatest token and side file number found.
    pub(super) last: u64,
    pub(super) last_snapshot: SnapshotId,
    /// Oldest needed record of each owner, and where in the log it stands, in estimated bytes.
    pub(super) oldest: BTreeMap<Owner, (u64, u64)>,
    pub(super) log_bytes: u64,
    boot: Option<Boot>,
    /// Groups of which only leftovers were found so far.
    orphans: BTreeMap<GroupId, Token>,
}

/// A shard as the log has it.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) snapshot: Option<Record>,
    records: Vec<Bytes>,
}

/// Replays a recovered log.
pub(super) fn replay(start: &Start, writes: Vec<(Token, Write)>) -> Result<Replayed, RestoreError> {
    let mut replayed = Replayed::default();
    for (token, write) in writes {
        replayed.last = replayed.last.max(token.seq);
        replayed.log_bytes += hold::cost(&write) as u64;
        replayed.take(start, token, write)?;
    }
    match replayed.orphans.pop_first() {
        None => Ok(replayed),
        Some((group, token)) => {
            Err(RestoreError::Order { owner: Owner::Group(group), token, expected: "a genesis" })
        }
    }
}

impl Replayed {
    fn take(&mut self, start: &Start, token: Token, write: Write) -> Result<(), RestoreError> {
        match write {
            Write::Boot { federation, node, store, boot } => {
                self.need(Owner::Node, token);
                check_boot(start, (federation, Replica { node, store }), boot)?;
                self.boot = Some(boot);
            }
            Write::Contacts { contacts } => {
                self.need(Owner::Node, token);
                self.contacts = contacts;
            }
            Write::Genesis { group, configuration } => self.genesis(token, group, configuration),
            Write::Hard { group, term, vote } => self.hard(token, group, term, vote),
            Write::Append { group, prev, entries } => self.append(token, group, prev, entries)?,
            Write::Snapshot {
                owner,
                snapshot,
                length,
                position,
                time_ms,
                configuration,
                digest,
            } => {
                let record = Record { snapshot, length, position, time_ms, configuration, digest };
                self.snapshot(token, owner, record);
            }
            Write::Dots { shard, records } => {
                self.need(Owner::Shard(shard), token);
                self.shards.entry(shard).or_default().records.extend(records);
            }
            Write::Forget { owner } => self.forget(owner),
            // Pieces of side files are never in the log; one that is says nothing by itself.
            Write::Chunk { .. } => {}
        }
        Ok(())
    }

    /// The side file that an owner's newest record names.
    pub(super) fn record(&self, owner: Owner) -> Option<Record> {
        match owner {
            Owner::Node => None,
            Owner::Group(group) => self.groups.get(&group)?.snapshot.clone(),
            Owner::Shard(shard) => self.shards.get(&shard)?.snapshot.clone(),
        }
    }

    /// Notes that the owner needs this record, unless it needs an older one.
    fn need(&mut self, owner: Owner, token: Token) {
        self.oldest.entry(owner).or_insert((token.seq, self.log_bytes));
    }

    fn genesis(&mut self, token: Token, group: GroupId, genesis: Configuration) {
        self.need(Owner::Group(group), token);
        self.orphans.remove(&group);
        // A repeat is a checkpoint's copy.
        self.groups.entry(group).or_insert_with(|| Group { genesis, ..Group::default() });
    }

    fn hard(&mut self, token: Token, group: GroupId, term: Term, vote: Option<Replica>) {
        match self.groups.get_mut(&group) {
            Some(known) => (known.term, known.vote) = (term, vote),
            None => self.orphan(group, token),
        }
    }

    fn orphan(&mut self, group: GroupId, token: Token) {
        reach!("node.restore.leftover");
        self.orphans.entry(group).or_insert(token);
    }

    fn append(
        &mut self,
        token: Token,
        group: GroupId,
        prev: Index,
        entries: Vec<Entry>,
    ) -> Result<(), RestoreError> {
        match self.groups.get_mut(&group) {
            Some(known) => known.append(prev, entries).map_err(|expected| RestoreError::Order {
                owner: Owner::Group(group),
                token,
                expected,
            }),
            None => {
                self.orphan(group, token);
                Ok(())
            }
        }
    }

    fn snapshot(&mut self, token: Token, owner: Owner, record: Record) {
        self.last_snapshot = self.last_snapshot.max(record.snapshot);
        match owner {
            Owner::Node => {}
            Owner::Group(group) => match self.groups.get_mut(&group) {
                Some(known) => known.covered(record),
                None => self.orphan(group, token),
            },
            Owner::Shard(shard) => {
                // Older records of the shard are inside of the file.
                self.oldest.insert(owner, (token.seq, self.log_bytes));
                let known = self.shards.entry(shard).or_default();
                known.records.clear();
                known.snapshot = Some(record);
            }
        }
    }

    fn forget(&mut self, owner: Owner) {
        self.oldest.remove(&owner);
        match owner {
            Owner::Node => {}
            Owner::Group(group) => {
                self.groups.remove(&group);
                self.orphans.remove(&group);
            }
            Owner::Shard(shard) => {
                self.shards.remove(&shard);
            }
        }
    }
}

/// The log must be this node's, and its last boot before this one.
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

impl Group {
    fn last(&self) -> u64 {
        self.base.index.0 + self.entries.len() as u64
    }

    /// Entries right after `prev`. The first that contradicts the log cuts it there, as it does in Raft (Figure 2),
    /// and a record without entries cuts it after `prev`. What agrees cuts nothing: a checkpoint copies a long log in
    /// several records, and a crash between two of them must not lose what only the later one repeats.
    fn append(&mut self, prev: Index, mut entries: Vec<Entry>) -> Result<(), &'static str> {
        if prev.0 > self.last() {
            return Err("entries right after those that the log holds");
        }
        // What the snapshot covers is committed: the record repeats it.
        let covered = self.base.index.0.saturating_sub(prev.0) as usize;
        let copies = !entries.is_empty();
        entries.drain(..covered.min(entries.len()));
        let from = prev.0.saturating_sub(self.base.index.0) as usize;
        let held = self.entries.get(from..).unwrap_or_default().iter();
        let known = held.zip(&entries).take_while(|(held, new)| held.term == new.term).count();
        entries.drain(..known);
        if !entries.is_empty() || !copies {
            self.entries.truncate(from + known);
        }
        self.entries.append(&mut entries);
        Ok(())
    }

    /// A snapshot covers the log up to its position. What follows it stays if the log agrees with the snapshot there.
    fn covered(&mut self, record: Record) {
        let position = record.position;
        if position.index < self.base.index {
            return;
        }
        let covered = (position.index.0 - self.base.index.0) as usize;
        let agrees = match covered.checked_sub(1) {
            None => position.term == self.base.term,
            Some(at) => self.entries.get(at).is_some_and(|entry| entry.term == position.term),
        };
        if agrees {
            self.entries.drain(..covered);
        } else {
            self.entries.clear();
        }
        (self.base, self.base_time_ms) = (position, record.time_ms);
        self.base_configuration = Some(record.configuration.clone());
        self.snapshot = Some(record);
    }

    /// What Raft starts from.
    pub(super) fn into_raft(self) -> raft::Restored {
        raft::Restored {
            genesis: self.genesis,
            term: self.term,
            vote: self.vote,
            base: self.base,
            base_time_ms: self.base_time_ms,
            base_configuration: self.base_configuration,
            entries: self.entries,
        }
    }
}

impl Shard {
    /// What the replicator starts from.
    pub(super) fn into_restored(
        self,
        snapshots: &mut BTreeMap<SnapshotId, Bytes>,
    ) -> Result<RestoredShard, RestoreError> {
        let snapshot = self.snapshot.as_ref().map(|record| side_file(snapshots, record));
        Ok(RestoredShard { snapshot: snapshot.transpose()?, records: self.records })
    }
}

/// Takes out a side file, which must be as its record describes it.
pub(super) fn side_file(
    snapshots: &mut BTreeMap<SnapshotId, Bytes>,
    record: &Record,
) -> Result<Bytes, RestoreError> {
    let snapshot = record.snapshot;
    let file = snapshots.remove(&snapshot).ok_or(RestoreError::SnapshotMissing { snapshot })?;
    if file.len() as u64 != record.length || Digest::of(&file) != record.digest {
        return Err(RestoreError::SnapshotDamaged { snapshot });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::raft::Payload;

    fn terms(group: &Group) -> Vec<u64> {
        group.entries.iter().map(|entry| entry.term.0).collect()
    }

    fn entries(terms: &[u64]) -> Vec<Entry> {
        let entry = |term: &u64| Entry { term: Term(*term), time_ms: 0, payload: Payload::Noop };
        terms.iter().map(entry).collect()
    }

    #[test]
    fn only_a_contradiction_cuts_the_log() {
        let mut group = Group::default();
        assert_eq!(group.append(Index(0), entries(&[1, 1, 2, 2])), Ok(()));
        // The first of two records of a copy: the crash came before the second.
        assert_eq!(group.append(Index(0), entries(&[1, 1])), Ok(()));
        assert_eq!(terms(&group), vec![1, 1, 2, 2]);
        assert_eq!(group.append(Index(2), entries(&[2, 2, 2])), Ok(()));
        assert_eq!(terms(&group), vec![1, 1, 2, 2, 2]);
        assert_eq!(group.append(Index(1), entries(&[1, 3])), Ok(()));
        assert_eq!(terms(&group), vec![1, 1, 3]);
        assert_eq!(group.append(Index(1), Vec::new()), Ok(()));
        assert_eq!(terms(&group), vec![1]);
        assert!(group.append(Index(2), entries(&[3])).is_err());
    }

    #[test]
    fn a_record_that_begins_before_the_base_is_compared_from_there() {
        let base = Position { term: Term(1), index: Index(2) };
        let mut group = Group { base, entries: entries(&[2, 2]), ..Group::default() };
        assert_eq!(group.append(Index(0), entries(&[1, 1, 2])), Ok(()));
        assert_eq!(terms(&group), vec![2, 2]);
        assert_eq!(group.append(Index(0), entries(&[1, 1, 2, 3])), Ok(()));
        assert_eq!(terms(&group), vec![2, 3]);
        assert_eq!(group.append(Index(0), entries(&[1])), Ok(()));
        assert_eq!(terms(&group), vec![2, 3]);
    }
}
