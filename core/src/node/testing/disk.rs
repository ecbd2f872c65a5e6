//! A disk of the small world: real log bytes in segments, and snapshot files. A crash loses what was not synced.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use crate::id::{FederationId, Replica, SnapshotId, Token};
use crate::node::Condemned;
use crate::wal::{self, Batch, Chunk, Header, LogWriter, RecoverError, Write};

/// The disk as a restart finds it: the log's writes and the snapshot files.
pub(in crate::node) type Found = (Vec<(Token, Write)>, BTreeMap<SnapshotId, Bytes>);

type Flight = (Vec<(Token, Write)>, Option<Batch>);

pub(in crate::node) struct Disk {
    header: Header,
    writer: LogWriter,
    segments: BTreeMap<u64, Vec<u8>>,
    /// Bytes, and the newest token that wrote or named the file.
    files: BTreeMap<SnapshotId, (Vec<u8>, u64)>,
    queue: Vec<(Token, Write)>,
    /// The batch that is being synced, and its bytes in the log.
    flight: Option<Flight>,
    pub(in crate::node) sync_ns: u64,
    /// Whether no sync returns.
    pub(in crate::node) hangs: bool,
    /// The log was released up to this token.
    pub(in crate::node) released: u64,
    /// Bytes of log ever written, released or not.
    pub(in crate::node) written: usize,
    /// Why no process may start from it again.
    pub(in crate::node) condemned: Option<Condemned>,
}

impl Disk {
    pub(super) fn new(federation: FederationId, replica: Replica) -> Self {
        let header = Header { federation, node: replica.node, store: replica.store, lane: 0 };
        Self {
            header,
            writer: LogWriter::new(header),
            segments: BTreeMap::new(),
            files: BTreeMap::new(),
            queue: Vec::new(),
            flight: None,
            sync_ns: 1_000_000,
            hangs: false,
            released: 0,
            written: 0,
            condemned: None,
        }
    }

    pub(super) fn persist(&mut self, token: Token, write: Write) {
        self.queue.push((token, write));
    }

    /// Begins a batch unless one is being synced. Returns whether it began one.
    pub(super) fn begin(&mut self) -> bool {
        if self.flight.is_some() || self.queue.is_empty() {
            return false;
        }
        let writes = mem::take(&mut self.queue);
        let is_record = |(_, write): &&(Token, Write)| write.chunk().is_none();
        let records: Vec<_> = writes.iter().filter(is_record).cloned().collect();
        let batch = (!records.is_empty()).then(|| self.writer.encode(&records));
        self.flight = Some((writes, batch));
        true
    }

    /// The batch is synced. Returns its newest token.
    pub(super) fn finish(&mut self) -> Token {
        let (writes, batch) = self.flight.take().expect("a batch is under way");
        for (token, write) in &writes {
            if let Some(Chunk { snapshot, offset, data }) = write.chunk() {
                let (bytes, newest) = self.files.entry(snapshot).or_default();
                bytes.truncate(offset as usize);
                assert_eq!(bytes.len() as u64, offset, "a snapshot file has no hole");
                bytes.extend_from_slice(data);
                *newest = token.seq;
            } else if let Some(file) = write.snapshot() {
                let file = self.files.get_mut(&file.id);
                file.expect("a named file exists").1 = token.seq;
            }
        }
        if let Some(batch) = batch {
            self.write(&batch);
        }
        writes.last().expect("a batch is not empty").0
    }

    fn write(&mut self, batch: &Batch) {
        self.written += batch.bytes.len();
        let segment = self.segments.entry(batch.segment).or_default();
        if batch.opens_segment {
            segment.clear();
        }
        let end = batch.offset as usize + batch.bytes.len();
        segment.resize(segment.len().max(end), 0);
        segment[batch.offset as usize..end].copy_from_slice(&batch.bytes);
    }

    /// The number of snapshot files.
    pub(in crate::node) fn snapshot_files(&self) -> usize {
        self.files.len()
    }

    /// Leaves an empty file behind, as when a crash undid a deletion.
    pub(in crate::node) fn leave_file(&mut self, snapshot: SnapshotId) {
        self.files.insert(snapshot, (Vec::new(), 0));
    }

    pub(super) fn discard(&mut self, snapshot: SnapshotId) {
        self.files.remove(&snapshot);
    }

    pub(super) fn release(&mut self, before: Token) {
        self.released = before.seq;
        for segment in self.writer.releasable(before) {
            self.segments.remove(&segment);
        }
        self.files.retain(|_, (_, newest)| *newest >= before.seq);
    }

    pub(super) fn crash(&mut self) {
        self.queue.clear();
        self.flight = None;
    }

    pub(in crate::node) fn recover(&mut self) -> Found {
        let (writes, files) = self.content();
        self.writer = match wal::recover(self.padded()) {
            Ok(recovered) => recovered.writer,
            Err(_) => LogWriter::new(self.header),
        };
        (writes, files)
    }

    fn padded(&self) -> Vec<(u64, Bytes)> {
        let padded = |bytes: &Vec<u8>| {
            let mut bytes = bytes.clone();
            bytes.resize(bytes.len() + 8192, 0);
            Bytes::from(bytes)
        };
        self.segments.iter().map(|(id, bytes)| (*id, padded(bytes))).collect()
    }

    /// The writes of the log, and the snapshot files: what a copy of the disk has.
    pub(in crate::node) fn content(&self) -> Found {
        let files = self.files.iter();
        let files = files.map(|(id, (bytes, _))| (*id, Bytes::from(bytes.clone()))).collect();
        match wal::recover(self.padded()) {
            Ok(recovered) => (recovered.writes, files),
            Err(RecoverError::Empty) => (Vec::new(), files),
            Err(error) => panic!("the log recovers: {error:?}"),
        }
    }

    /// The bytes of the log, and those of the snapshot files.
    pub(in crate::node) fn bytes(&self) -> (usize, usize) {
        let files = self.files.values().map(|(bytes, _)| bytes.len()).sum();
        (self.segments.values().map(Vec::len).sum(), files)
    }
}
