//! A disk of Raft's writes. It keeps them in order and loses those that were not synced.
//!
//! It folds the writes into the state that a restart would recover. It keeps no bytes: the tests of `core/src/wal`
//! cover the log's encoding.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use continuum_core::codec;
use continuum_core::id::{Index, SnapshotId, Term};
use continuum_core::raft::{Configuration, Entry, Payload, Position, Restored, Write};

use super::State;

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The state that a restart would recover now.
    durable: Restored,
    /// The state of the newest durable snapshot.
    state: Vec<Bytes>,
    /// Side files.
    files: BTreeMap<SnapshotId, Vec<u8>>,
    outstanding: VecDeque<Write>,
    synced: u64,
}

impl Disk {
    /// A disk that holds nothing but a group's genesis.
    #[must_use]
    pub fn new(genesis: Configuration) -> Self {
        Self {
            durable: Restored { genesis, ..Restored::default() },
            state: Vec::new(),
            files: BTreeMap::new(),
            outstanding: VecDeque::new(),
            synced: 0,
        }
    }

    /// Writes issued since the last restart.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.synced + self.outstanding.len() as u64
    }

    /// Writes since the last restart that are durable.
    #[must_use]
    pub const fn synced(&self) -> u64 {
        self.synced
    }

    /// Writes that are not durable yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// The state that a restart would recover now.
    #[must_use]
    pub const fn durable(&self) -> &Restored {
        &self.durable
    }

    /// Whether a restart would recover this entry, or a snapshot that covers it.
    #[must_use]
    pub fn holds(&self, position: Position) -> bool {
        let Restored { base, entries, .. } = &self.durable;
        match position.index.0.checked_sub(base.index.0 + 1) {
            None => true,
            Some(place) => entries.get(place as usize).is_some_and(|e| e.term == position.term),
        }
    }

    /// The length of the longest side file.
    #[must_use]
    pub fn longest_file(&self) -> u64 {
        self.files.values().map(|file| file.len() as u64).max().unwrap_or(0)
    }

    /// Puts a term and a log of empty entries with these terms on the disk, as the paper's figures show logs.
    pub fn preset(&mut self, term: u64, terms: &[u64]) {
        let entry = |term: &u64| Entry { term: Term(*term), time_ms: 0, payload: Payload::Noop };
        self.durable.term = Term(term);
        self.durable.entries = terms.iter().map(entry).collect();
    }

    pub(super) fn write(&mut self, write: Write) {
        self.outstanding.push_back(write);
    }

    pub(super) fn sync(&mut self, writes: usize) {
        for _ in 0..writes.min(self.outstanding.len()) {
            let write = self.outstanding.pop_front().expect("counted");
            self.keep(write);
            self.synced += 1;
        }
    }

    pub(super) fn crash(&mut self, kept: usize) {
        self.sync(kept);
        self.outstanding.clear();
        self.synced = 0;
    }

    /// Writes a snapshot that this replica took, as the node does: it is durable before the log is cut.
    pub(super) fn checkpoint(&mut self, record: Write, bytes: &[u8]) {
        if let Write::Snapshot { file, .. } = &record {
            self.files.insert(file.id, bytes.to_vec());
        }
        self.keep(record);
    }

    /// Makes a piece of a snapshot file durable.
    pub(super) fn write_file(&mut self, id: SnapshotId, offset: u64, data: &[u8]) {
        let file = self.files.entry(id).or_default();
        assert!(offset as usize <= file.len(), "a snapshot file has no hole");
        file.truncate(offset as usize);
        file.extend_from_slice(data);
    }

    pub(super) fn drop_file(&mut self, id: SnapshotId) {
        self.files.remove(&id);
    }

    pub(super) fn restore(&self) -> (Restored, Vec<Bytes>) {
        (self.durable.clone(), self.state.clone())
    }

    fn keep(&mut self, write: Write) {
        let durable = &mut self.durable;
        match write {
            Write::Hard { term, vote, .. } => {
                assert!(term >= durable.term, "a durable term never goes back");
                (durable.term, durable.vote) = (term, vote);
            }
            Write::Append { prev, entries, .. } => {
                assert!(prev >= durable.base.index, "no append goes below the snapshot");
                let kept = (prev.0 - durable.base.index.0) as usize;
                assert!(kept <= durable.entries.len(), "the log on disk has no hole");
                assert!(
                    entries.iter().all(|entry| entry.term <= durable.term),
                    "a term is on disk before its entries"
                );
                durable.entries.truncate(kept);
                durable.entries.extend(entries);
            }
            Write::Snapshot { file: named, position, configuration, .. } => {
                let file = &self.files[&named.id];
                assert_eq!(
                    file.len() as u64,
                    named.length,
                    "a snapshot is complete before a record names it"
                );
                let State { time_ms, commands } =
                    codec::decode(file, usize::MAX).expect("our own encoding");
                let covered = position.index.0.saturating_sub(durable.base.index.0) as usize;
                durable.entries.drain(..covered.min(durable.entries.len()));
                durable.base = position;
                (durable.base_time_ms, self.state) = (time_ms, commands);
                durable.base_configuration = Some(configuration);
            }
            Write::Genesis { .. } | Write::Forget | Write::Commit { .. } => {
                panic!("the node alone writes these")
            }
        }
    }

    /// The last index that a restart would recover.
    #[must_use]
    pub fn last(&self) -> Index {
        Index(self.durable.base.index.0 + self.durable.entries.len() as u64)
    }
}
