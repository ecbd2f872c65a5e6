//! Times and sizes of snapshot files: this node's checkpoints, and the snapshots that leaders send to it.
//!
//! A file's time runs from its first piece, when it is handed to the disk, until the record that names it is durable. A
//! record that names an older file again has no time. A file that is given up has none either.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use continuum_core::id::{SnapshotId, Token};
use continuum_core::time::Instant;
use continuum_core::wal::Write;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Files whose times run at once. Past it the oldest one is forgotten: it was given up, or many owners are captured.
const RUNNING_MAX: usize = 1024;

/// Raft names the files that it receives with this bit, see [`continuum_core::raft::snapshot_id`].
const RECEIVED_BIT: u64 = 1 << 63;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// Metrics of snapshot files.
#[derive(Debug)]
pub(super) struct FileMetrics {
    seconds: Family<OfKind, Histogram, fn() -> Histogram>,
    bytes: Family<OfKind, Histogram, fn() -> Histogram>,
    open: Mutex<Open>,
}

/// The files under way.
#[derive(Debug, Default)]
struct Open {
    /// Files whose record was not issued.
    running: BTreeMap<SnapshotId, Instant>,
    /// Files whose record is not durable, by its token.
    named: BTreeMap<Token, (SnapshotId, Instant, u64)>,
}

impl Default for FileMetrics {
    fn default() -> Self {
        // 1 ms to 65 s, and 1 KiB to 1 GiB.
        let seconds = || Histogram::new(exponential_buckets(0.001, 4.0, 9));
        let bytes = || Histogram::new(exponential_buckets(1024.0, 4.0, 11));
        Self {
            seconds: Family::new_with_constructor(seconds),
            bytes: Family::new_with_constructor(bytes),
            open: Mutex::default(),
        }
    }
}

impl FileMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        let help = "Time from the first piece of a snapshot file to its being durable";
        r.register_with_unit("snapshot_file_duration", help, Unit::Seconds, self.seconds.clone());
        let help = "Sizes of snapshot files";
        r.register_with_unit("snapshot_file_size", help, Unit::Bytes, self.bytes.clone());
        for kind in ["checkpoint", "received"] {
            drop(self.seconds.get_or_create(&OfKind { kind }));
            drop(self.bytes.get_or_create(&OfKind { kind }));
        }
    }

    /// A piece of a file was handed to the disk.
    pub(super) fn wrote(&self, now: Instant, snapshot: SnapshotId) {
        let running = &mut self.open().running;
        running.entry(snapshot).or_insert(now);
        if running.len() > RUNNING_MAX {
            let oldest = running.iter().min_by_key(|(_, since)| **since);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.map(|id| running.remove(&id));
        }
    }

    /// A write was handed to the disk.
    pub(super) fn issued(&self, token: Token, write: &Write) {
        let Some(file) = write.snapshot() else { return };
        let mut open = self.open();
        if let Some(since) = open.running.remove(&file.id) {
            open.named.insert(token, (file.id, since, file.length));
        }
    }

    /// All writes up to this one are durable.
    pub(super) fn durable(&self, now: Instant, token: Token) {
        let mut open = self.open();
        while let Some(entry) = open.named.first_entry().filter(|entry| *entry.key() <= token) {
            let (id, since, bytes) = entry.remove();
            self.completed(id, now.since(since), bytes);
        }
    }

    fn completed(&self, id: SnapshotId, took: Duration, bytes: u64) {
        let kind = if id.0 & RECEIVED_BIT == 0 { "checkpoint" } else { "received" };
        self.seconds.get_or_create(&OfKind { kind }).observe(took.as_secs_f64());
        self.bytes.get_or_create(&OfKind { kind }).observe(bytes as f64);
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::digest::Digest;
    use continuum_core::id::{ShardId, SnapshotFile};
    use continuum_core::replication;
    use prometheus_client::encoding::text::encode;

    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn of_shard(write: replication::Write) -> Write {
        Write::Shard { shard: ShardId::default(), write }
    }

    fn named(id: u64) -> Write {
        let file = SnapshotFile { id: SnapshotId(id), length: 10, digest: Digest::default() };
        of_shard(replication::Write::Snapshot { file, since: 0 })
    }

    fn token(seq: u64) -> Token {
        Token { lane: 0, seq }
    }

    #[test]
    fn a_file_counts_once_it_is_durable_and_only_if_it_was_written() {
        let (metrics, mut registry) = (FileMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let count = |kind: &str| {
            let mut page = String::new();
            encode(&mut page, &registry).expect("a page");
            let line = format!("snapshot_file_size_bytes_count{{kind=\"{kind}\"}} ");
            let line = page.lines().find_map(|l| l.strip_prefix(&line)).expect("a count");
            line.parse::<u64>().expect("a number")
        };
        for id in [7, 7, RECEIVED_BIT | 1] {
            metrics.wrote(NOW, SnapshotId(id));
        }
        metrics.issued(token(4), &named(7));
        metrics.durable(NOW, token(3));
        assert_eq!((count("checkpoint"), count("received")), (0, 0), "its record is not durable");
        metrics.durable(NOW, token(4));
        assert_eq!((count("checkpoint"), count("received")), (1, 0));
        metrics.issued(token(5), &named(RECEIVED_BIT | 1));
        metrics.issued(token(6), &named(7));
        metrics.durable(NOW, token(6));
        assert_eq!((count("checkpoint"), count("received")), (1, 1), "the same file, named again");
    }

    #[test]
    fn files_that_are_given_up_are_forgotten() {
        let metrics = FileMetrics::default();
        for id in 0..2 * RUNNING_MAX as u64 {
            metrics.wrote(NOW, SnapshotId(id));
        }
        assert_eq!(metrics.open().running.len(), RUNNING_MAX);
    }
}
