//! The records that a group writes to the log, and what a restart makes of them.
//!
//! A group's records carry neither the group nor the lane: the owner of the log adds both. This module folds records
//! into [`Restored`] in the order in which they were written. It does not read the log's bytes (`wal` does), and it
//! does not load snapshot files: it only says which file is the newest.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::types::{Configuration, Entry, Position};
use crate::id::{GenesisId, Index, Replica, SnapshotFile, Term};

/// One record of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// The group exists on this replica, from this configuration on.
    Genesis {
        /// The beginning of the federation that the group is a part of.
        id: GenesisId,
        /// The first configuration.
        configuration: Configuration,
    },
    /// The replica's term and vote in one record, so that no crash separates them (Raft §5.2).
    Hard {
        /// The current term.
        term: Term,
        /// The replica that got this replica's vote in that term.
        vote: Option<Replica>,
    },
    /// Entries right after `prev`. The log is cut at the first entry that contradicts it; a record without entries cuts
    /// it after `prev`. Entries that the log holds already change nothing, so that a checkpoint can copy a long log in
    /// several records.
    Append {
        /// The index that the entries follow.
        prev: Index,
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// A snapshot file is complete and durable, and covers the log up to `position`.
    Snapshot {
        /// The file.
        file: SnapshotFile,
        /// The last entry that the snapshot contains.
        position: Position,
        /// Group time at that entry in milliseconds. No later entry is older.
        time_ms: u64,
        /// The configuration as of that entry.
        configuration: Configuration,
    },
    /// The group was deleted: no older record is needed.
    Forget,
    /// All entries up to `index`, which the log holds, are committed. A replica that restarts alone may apply them
    /// before it hears of a leader. Nothing depends on this record.
    Commit {
        /// The last of them.
        index: Index,
    },
}

impl Write {
    /// About how many bytes the record takes in the log.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// The bytes of an entry besides its payload.
        const ENTRY_BYTES: usize = 16;
        match self {
            Self::Append { entries, .. } => {
                entries.iter().map(|entry| ENTRY_BYTES + entry.payload_bytes()).sum()
            }
            Self::Genesis { configuration, .. } | Self::Snapshot { configuration, .. } => {
                configuration.payload_bytes()
            }
            Self::Hard { .. } | Self::Forget | Self::Commit { .. } => 0,
        }
    }
}

/// The sum of a group's records: the state that [`crate::raft::Raft::new`] starts from.
///
/// ```
/// use continuum_core::id::Term;
/// use continuum_core::raft::{Restored, Write};
///
/// let mut restored = Restored::default();
/// for write in [Write::Hard { term: Term(3), vote: None }] {
///     restored.apply(write).expect("records of this group, in the order of the log");
/// }
/// assert_eq!(restored.term, Term(3));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The beginning that the group's [`Write::Genesis`] names.
    pub genesis_id: GenesisId,
    /// The configuration of the group's [`Write::Genesis`].
    pub genesis: Configuration,
    /// The term of the last [`Write::Hard`].
    pub term: Term,
    /// The vote of the last [`Write::Hard`].
    pub vote: Option<Replica>,
    /// The last entry that the newest durable snapshot covers, or zero.
    pub base: Position,
    /// Group time at `base`, in milliseconds.
    pub base_time_ms: u64,
    /// The configuration as of `base`, if there is a snapshot.
    pub base_configuration: Option<Configuration>,
    /// The newest snapshot file; the state machine starts from it.
    pub snapshot: Option<SnapshotFile>,
    /// The index of the last [`Write::Commit`].
    pub commit: Index,
    /// The entries after `base`. [`crate::raft::Raft::new`] drops entries up to `base`.
    pub entries: Vec<Entry>,
}

impl Restored {
    /// Applies the next record of the log.
    ///
    /// # Errors
    ///
    /// The records that are missing before this one: the log has lost records or is not in order.
    pub fn apply(&mut self, write: Write) -> Result<(), &'static str> {
        match write {
            // A second genesis is a checkpoint's copy of the first.
            Write::Genesis { id, configuration } => {
                (self.genesis_id, self.genesis) = (id, configuration);
            }
            Write::Hard { term, vote } => (self.term, self.vote) = (term, vote),
            Write::Append { prev, entries } => return self.append(prev, entries),
            Write::Snapshot { file, position, time_ms, configuration } => {
                self.cover(file, position, time_ms, configuration);
            }
            Write::Forget => *self = Self::default(),
            Write::Commit { index } => self.commit = self.commit.max(index),
        }
        Ok(())
    }

    fn last(&self) -> u64 {
        self.base.index.0 + self.entries.len() as u64
    }

    /// Appends entries right after `prev`. The first entry that contradicts the log cuts it there (Figure 2), and a
    /// record without entries cuts it after `prev`. Entries that agree cut nothing: a checkpoint copies a long log in
    /// several records, and a crash between two of them must not lose what only the later one repeats.
    fn append(&mut self, prev: Index, mut entries: Vec<Entry>) -> Result<(), &'static str> {
        if prev.0 > self.last() {
            return Err("entries right after those that the log holds");
        }
        // Entries that the snapshot covers are committed: the record repeats them.
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

    /// A snapshot covers the log up to `position`. The entries after it stay if the log agrees with the snapshot there.
    fn cover(
        &mut self,
        file: SnapshotFile,
        position: Position,
        time_ms: u64,
        configuration: Configuration,
    ) {
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
        (self.base, self.base_time_ms) = (position, time_ms);
        (self.base_configuration, self.snapshot) = (Some(configuration), Some(file));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::raft::Payload;

    fn terms(restored: &Restored) -> Vec<u64> {
        restored.entries.iter().map(|entry| entry.term.0).collect()
    }

    fn entries(terms: &[u64]) -> Vec<Entry> {
        let entry = |term: &u64| Entry { term: Term(*term), time_ms: 0, payload: Payload::Noop };
        terms.iter().map(entry).collect()
    }

    fn append(restored: &mut Restored, prev: u64, terms: &[u64]) -> Result<(), &'static str> {
        restored.apply(Write::Append { prev: Index(prev), entries: entries(terms) })
    }

    #[test]
    fn only_a_contradiction_cuts_the_log() {
        let mut restored = Restored::default();
        assert_eq!(append(&mut restored, 0, &[1, 1, 2, 2]), Ok(()));
        // The first of two records of a copy: the crash came before the second.
        assert_eq!(append(&mut restored, 0, &[1, 1]), Ok(()));
        assert_eq!(terms(&restored), vec![1, 1, 2, 2]);
        assert_eq!(append(&mut restored, 2, &[2, 2, 2]), Ok(()));
        assert_eq!(terms(&restored), vec![1, 1, 2, 2, 2]);
        assert_eq!(append(&mut restored, 1, &[1, 3]), Ok(()));
        assert_eq!(terms(&restored), vec![1, 1, 3]);
        assert_eq!(append(&mut restored, 1, &[]), Ok(()));
        assert_eq!(terms(&restored), vec![1]);
        assert!(append(&mut restored, 2, &[3]).is_err());
    }

    #[test]
    fn a_record_that_begins_before_the_base_is_compared_from_there() {
        let base = Position { term: Term(1), index: Index(2) };
        let mut restored = Restored { base, entries: entries(&[2, 2]), ..Restored::default() };
        assert_eq!(append(&mut restored, 0, &[1, 1, 2]), Ok(()));
        assert_eq!(terms(&restored), vec![2, 2]);
        assert_eq!(append(&mut restored, 0, &[1, 1, 2, 3]), Ok(()));
        assert_eq!(terms(&restored), vec![2, 3]);
        assert_eq!(append(&mut restored, 0, &[1]), Ok(()));
        assert_eq!(terms(&restored), vec![2, 3]);
    }

    #[test]
    fn a_snapshot_keeps_the_entries_after_it_only_if_the_log_agrees_there() {
        let snapshot = |term, index| Write::Snapshot {
            file: SnapshotFile::default(),
            position: Position { term: Term(term), index: Index(index) },
            time_ms: 7,
            configuration: Configuration::default(),
        };
        let mut restored = Restored { entries: entries(&[1, 1, 2]), ..Restored::default() };
        assert_eq!(restored.apply(snapshot(1, 2)), Ok(()));
        assert_eq!((terms(&restored), restored.base_time_ms), (vec![2], 7));
        assert_eq!(restored.apply(snapshot(3, 3)), Ok(()));
        assert_eq!((terms(&restored), restored.base.index), (vec![], Index(3)));
        assert_eq!(restored.apply(snapshot(1, 1)), Ok(()), "an older snapshot changes nothing");
        assert_eq!(restored.base.index, Index(3));
    }

    #[test]
    fn a_forgotten_group_leaves_nothing() {
        let mut restored = Restored { entries: entries(&[1]), ..Restored::default() };
        assert_eq!(restored.apply(Write::Forget), Ok(()));
        assert_eq!((terms(&restored), restored.last()), (vec![], 0));
    }
}
