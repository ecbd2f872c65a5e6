//! The state that a sequence of writes amounts to: hard states, logs as lists of terms, snapshot files, dots.
//!
//! One such state follows the writes that a node has issued, another those that its disk has synced. The oracles
//! compare both with what the node says and with what it recovers. The content of entries is not here; see
//! `oracle/ledger.rs`. `format` reads what a record of a shard says, not the core.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::id::{Boot, GenesisId, GroupId, Index, Replica, ShardId, SnapshotId, Term};
use continuum_core::raft::{self, Entry, Position};
use continuum_core::replication;
use continuum_core::wal::Write;

use crate::format::dots::ExactDots;
use crate::format::shard;

/// One group's hard state, and its log as a list of terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogView {
    pub(crate) term: Term,
    pub(crate) vote: Option<Replica>,
    /// The last entry that the newest snapshot contains.
    pub(crate) base: Position,
    /// The index of the first of `terms`; 0 while nothing is known.
    first: u64,
    terms: Vec<Term>,
}

impl LogView {
    /// The term of the entry at `index`, if the log holds it.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let offset = index.0.checked_sub(self.first)?;
        if self.first == 0 { None } else { self.terms.get(offset as usize).copied() }
    }

    /// The position of the last entry.
    pub(crate) fn last(&self) -> Position {
        match self.terms.last() {
            Some(term) if self.last_index() >= self.base.index.0 => {
                Position { term: *term, index: Index(self.last_index()) }
            }
            _ => self.base,
        }
    }

    const fn last_index(&self) -> u64 {
        self.first + self.terms.len() as u64 - 1
    }

    /// Whether the log or the snapshot holds the entry, and so all entries before it.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.index < self.base.index || self.term_at(position.index) == Some(position.term)
    }

    /// Appends entries after `prev`. The first that contradicts the log truncates it; so does a record without entries.
    pub(crate) fn append(&mut self, prev: Index, entries: &[Entry]) {
        let terms = entries.iter().map(|entry| entry.term);
        let kept = (prev.0 + 1).checked_sub(self.first).filter(|_| self.first > 0);
        match kept.filter(|kept| *kept <= self.terms.len() as u64) {
            Some(kept) => {
                let held = self.terms[kept as usize..].iter();
                let known = held.zip(entries).take_while(|(held, new)| **held == new.term).count();
                if known < entries.len() || entries.is_empty() {
                    self.terms.truncate(kept as usize + known);
                    self.terms.extend(terms.skip(known));
                }
            }
            None => {
                self.terms = terms.collect();
                self.first = prev.0 + 1;
            }
        }
    }

    /// A snapshot contains everything up to `position`; a log that differs there is dropped.
    pub(crate) fn install(&mut self, position: Position) {
        if position.index <= self.base.index {
            return;
        }
        if self.term_at(position.index) != Some(position.term) {
            self.terms.clear();
            self.first = position.index.0 + 1;
        }
        self.base = position;
    }

    /// The log that a machine holds after a restart.
    pub(crate) fn restored(
        (term, vote): (Term, Option<Replica>),
        base: Position,
        first: Index,
        terms: Vec<Term>,
    ) -> Self {
        Self { term, vote, base, first: first.0, terms }
    }

    /// The first difference from another view of the same group, where both know something.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        if (self.term, self.vote) != (other.term, other.vote) {
            return Some(format!(
                "term {} vote {:?} against term {} vote {:?}",
                self.term, self.vote, other.term, other.vote
            ));
        }
        if self.base != other.base || self.last() != other.last() {
            return Some(format!(
                "base {:?} last {:?} against base {:?} last {:?}",
                self.base,
                self.last(),
                other.base,
                other.last()
            ));
        }
        let from = self.base.index.0 + 1;
        (from..=self.last().index.0)
            .map(Index)
            .find(|index| self.term_at(*index) != other.term_at(*index))
            .map(|index| format!("different terms at index {index}"))
    }
}

/// The state that all writes of a node amount to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    /// The last boot.
    pub(crate) boot: Boot,
    /// The newest boots of members that the node welcomed.
    welcomed: BTreeMap<Replica, Boot>,
    groups: BTreeMap<GroupId, LogView>,
    /// Groups that were deleted, as they were when the deletion became durable.
    deleted_groups: BTreeMap<GroupId, LogView>,
    /// Length of each snapshot file, counted from its start up to the first hole.
    files: BTreeMap<SnapshotId, u64>,
    /// The records of each shard since its newest snapshot file, and those that this file lacks.
    records: BTreeMap<ShardId, Vec<Bytes>>,
    /// The dots of each shard, as its records and its snapshot file say.
    shards: BTreeMap<ShardId, ExactDots>,
    /// Shards that were deleted and not created again since.
    forgotten: BTreeSet<ShardId>,
    /// The genesis that the node is formed with.
    pub(crate) genesis: Option<GenesisId>,
    /// The founding that the node accepted and was not released from.
    pub(crate) accepted: Option<GenesisId>,
    /// The founder of the last one that it accepted.
    founder: Option<Replica>,
    /// All foundings that it ever accepted.
    accepted_ever: BTreeSet<GenesisId>,
}

impl Durable {
    /// The newest boot of a member that the node welcomed.
    pub(crate) fn welcomed(&self, member: Replica) -> Option<Boot> {
        self.welcomed.get(&member).copied()
    }

    /// One group's state.
    pub(crate) fn group(&self, group: GroupId) -> Option<&LogView> {
        self.groups.get(&group)
    }

    /// One group's state, or, if it was deleted, its last state. Promises that it made may still leave and still count:
    /// they were true, and the node that counts them deletes the group too.
    pub(crate) fn group_ever(&self, group: GroupId) -> Option<&LogView> {
        self.groups.get(&group).or_else(|| self.deleted_groups.get(&group))
    }

    /// Whether the deletion of a group is durable.
    pub(crate) fn is_deleted(&self, group: GroupId) -> bool {
        self.deleted_groups.contains_key(&group)
    }

    /// Whether a shard was deleted. Earlier messages about it may still leave: the peers delete it too.
    pub(crate) fn is_forgotten(&self, shard: ShardId) -> bool {
        self.forgotten.contains(&shard)
    }

    /// The founder whose word the node waits for.
    pub(crate) fn awaited_founder(&self) -> Option<Replica> {
        self.founder.filter(|_| self.accepted.is_some())
    }

    /// Whether the node accepted this founding at any time.
    pub(crate) fn has_accepted(&self, genesis: GenesisId) -> bool {
        self.accepted_ever.contains(&genesis)
    }

    /// One group's state, created if new.
    pub(crate) fn group_mut(&mut self, group: GroupId) -> &mut LogView {
        self.deleted_groups.remove(&group);
        self.groups.entry(group).or_default()
    }

    /// Whether some snapshot file holds this many bytes from its start.
    pub(crate) fn has_file_of(&self, bytes: u64) -> bool {
        self.files.values().any(|length| *length >= bytes)
    }

    /// Bytes of a snapshot file.
    pub(crate) fn file_bytes(&self, snapshot: SnapshotId) -> Option<u64> {
        self.files.get(&snapshot).copied()
    }

    /// The dots of a shard.
    pub(crate) fn shard(&self, shard: ShardId) -> Option<&ExactDots> {
        self.shards.get(&shard)
    }

    /// All shards with their dots.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (ShardId, &ExactDots)> {
        self.shards.iter().map(|(shard, dots)| (*shard, dots))
    }

    /// A snapshot file with these dots replaces a shard's records, but for the last `since` ones.
    pub(crate) fn replace_shard(&mut self, shard: ShardId, mut dots: ExactDots, since: u64) {
        let records = self.records.entry(shard).or_default();
        let kept = records.split_off(records.len().saturating_sub(since as usize));
        kept.iter().for_each(|record| shard::add_seen(record, &mut dots));
        *records = kept;
        self.set_shard(shard, dots);
    }

    /// Sets the dots of a shard.
    pub(crate) fn set_shard(&mut self, shard: ShardId, dots: ExactDots) {
        self.forgotten.remove(&shard);
        self.shards.insert(shard, dots);
    }

    /// A snapshot file holds this many bytes from its start.
    pub(crate) fn hold_file(&mut self, snapshot: SnapshotId, bytes: u64) {
        self.files.insert(snapshot, bytes);
    }

    /// A snapshot file was deleted.
    pub(crate) fn forget_file(&mut self, snapshot: SnapshotId) {
        self.files.remove(&snapshot);
    }

    /// Applies one write.
    pub(crate) fn apply(&mut self, write: &Write) {
        match write {
            Write::Boot { boot, .. } => self.boot = *boot,
            Write::Contacts { .. } => {}
            Write::Welcomed { boots } => self.welcomed.extend(boots.iter().copied()),
            Write::Accepted { founder, bootstrap } => {
                (self.accepted, self.founder) = (Some(bootstrap.genesis), Some(*founder));
                self.accepted_ever.insert(bootstrap.genesis);
            }
            Write::Released { .. } => self.accepted = None,
            Write::Group { group, write } => self.apply_group(*group, write),
            Write::Shard { shard, write: replication::Write::Forget } => {
                self.shards.remove(shard);
                self.records.remove(shard);
                self.forgotten.insert(*shard);
            }
            Write::Shard { shard, write: replication::Write::Dots { records } } => {
                self.forgotten.remove(shard);
                let seen = self.shards.entry(*shard).or_default();
                records.iter().for_each(|record| shard::add_seen(record, seen));
                self.records.entry(*shard).or_default().extend(records.iter().cloned());
            }
            // The disk has the file, and says which dots are in it.
            Write::Shard { .. } => {}
        }
    }

    fn apply_group(&mut self, group: GroupId, write: &raft::Write) {
        match write {
            raft::Write::Hard { term, vote } => {
                let view = self.group_mut(group);
                (view.term, view.vote) = (*term, *vote);
            }
            raft::Write::Append { prev, entries } => self.group_mut(group).append(*prev, entries),
            raft::Write::Snapshot { position, .. } => self.group_mut(group).install(*position),
            raft::Write::Forget => {
                let last = self.groups.remove(&group).unwrap_or_default();
                self.deleted_groups.insert(group, last);
            }
            raft::Write::Commit { .. } => {}
            raft::Write::Genesis { id, .. } => (self.genesis, self.accepted) = (Some(*id), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::raft::Payload;

    use super::*;

    fn entries(terms: &[u64]) -> Vec<Entry> {
        let entry = |term: &u64| Entry { term: Term(*term), time_ms: 0, payload: Payload::Noop };
        terms.iter().map(entry).collect()
    }

    const fn position(term: u64, index: u64) -> Position {
        Position { term: Term(term), index: Index(index) }
    }

    #[test]
    fn an_append_replaces_what_followed() {
        let mut view = LogView::default();
        view.append(Index(0), &entries(&[1, 1, 1]));
        view.append(Index(0), &entries(&[1]));
        assert_eq!(view.last(), position(1, 3), "a copy of a part truncates nothing");
        view.append(Index(1), &entries(&[2]));
        assert_eq!(view.last(), position(2, 2));
        assert_eq!(view.term_at(Index(1)), Some(Term(1)));
        assert_eq!(view.term_at(Index(3)), None);
        assert!(view.holds(position(0, 0)) && !view.holds(position(1, 2)));
    }

    #[test]
    fn a_deleted_group_is_remembered_as_it_was() {
        let group = GroupId(4);
        let of_group = |write| Write::Group { group, write };
        let mut durable = Durable::default();
        durable.apply(&of_group(raft::Write::Append { prev: Index(0), entries: entries(&[1, 1]) }));
        assert!(!durable.is_deleted(group));
        durable.apply(&of_group(raft::Write::Forget));
        assert!(durable.is_deleted(group) && durable.group(group).is_none());
        let last = durable.group_ever(group).expect("its last state");
        assert!(last.holds(position(1, 2)) && !last.holds(position(1, 3)), "no more than it held");
        durable.apply(&of_group(raft::Write::Append { prev: Index(0), entries: entries(&[2]) }));
        assert!(!durable.is_deleted(group), "it was created again");
        assert_eq!(durable.group_ever(group).map(LogView::last), Some(position(2, 1)));
    }

    #[test]
    fn a_snapshot_keeps_only_a_log_that_agrees() {
        let mut agrees = LogView::default();
        agrees.append(Index(0), &entries(&[1, 1, 2]));
        let mut differs = agrees.clone();
        agrees.install(position(1, 2));
        assert_eq!((agrees.base, agrees.last()), (position(1, 2), position(2, 3)));
        assert!(agrees.holds(position(1, 1)));
        differs.install(position(3, 3));
        assert_eq!(differs.last(), position(3, 3));
        assert_eq!(differs.term_at(Index(2)), None);
    }

    #[test]
    fn a_log_read_from_its_middle_is_the_same_log() {
        let mut whole = LogView::default();
        whole.append(Index(0), &entries(&[1, 1]));
        whole.append(Index(2), &entries(&[1, 2]));
        whole.install(position(1, 3));
        let mut rest = LogView::default();
        rest.append(Index(2), &entries(&[1, 2]));
        rest.install(position(1, 3));
        assert_eq!(whole.difference(&rest), None);
        rest.append(Index(3), &entries(&[3]));
        assert!(whole.difference(&rest).is_some());
    }
}
