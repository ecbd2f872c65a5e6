//! A disk of the small world: real log bytes in segments, and snapshot files beside them. A crash loses what was not
//! synced, and all files that are not complete.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use crate::files::Piece;
use crate::id::{FederationId, Replica, SnapshotId, Token};
use crate::node::Condemned;
use crate::wal::{self, Batch, Header, LogWriter, RecoverError, Write};

/// The disk as a restart finds it: the log's writes and the snapshot files.
pub(in crate::node) type Found = (Vec<(Token, Write)>, BTreeMap<SnapshotId, Bytes>);

type Flight = (Vec<(Token, Write)>, Batch);

pub(in crate::node) struct Disk {
    header: Header,
    writer: LogWriter,
    segments: BTreeMap<u64, Vec<u8>>,
    /// The complete files.
    files: BTreeMap<SnapshotId, Vec<u8>>,
    /// The files that are being written.
    parts: BTreeMap<SnapshotId, Vec<u8>>,
    pieces: Vec<(u64, Piece)>,
    /// The pieces that are being synced.
    writing: Vec<(u64, Piece)>,
    /// Whether it takes no pieces for want of room.
    pub(in crate::node) has_no_room: bool,
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
            parts: BTreeMap::new(),
            pieces: Vec::new(),
            writing: Vec::new(),
            has_no_room: false,
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
        for file in writes.iter().filter_map(|(_, write)| write.snapshot()) {
            assert!(self.files.contains_key(&file.id), "a named file is complete and durable");
        }
        let batch = self.writer.encode(&writes);
        self.flight = Some((writes, batch));
        true
    }

    pub(super) fn write_file(&mut self, number: u64, piece: Piece) {
        self.pieces.push((number, piece));
    }

    /// Begins to write pieces unless some are being synced. Returns whether it began.
    pub(super) fn begin_files(&mut self) -> bool {
        if !self.writing.is_empty() || self.pieces.is_empty() {
            return false;
        }
        self.writing = mem::take(&mut self.pieces);
        true
    }

    /// Pieces are synced. Returns the newest number, and the files that had no room.
    pub(super) fn finish_files(&mut self) -> (u64, Vec<SnapshotId>) {
        let (mut newest, mut failed) = (0, Vec::new());
        for (number, piece) in mem::take(&mut self.writing) {
            newest = number;
            if self.has_no_room {
                self.parts.remove(&piece.snapshot);
                failed.push(piece.snapshot);
                continue;
            }
            let part = self.parts.entry(piece.snapshot).or_default();
            part.truncate(piece.offset as usize);
            assert_eq!(part.len() as u64, piece.offset, "a snapshot file has no hole");
            part.extend_from_slice(&piece.data);
            if piece.is_last
                && let Some(whole) = self.parts.remove(&piece.snapshot)
            {
                self.files.insert(piece.snapshot, whole);
            }
        }
        failed.dedup();
        (newest, failed)
    }

    /// The batch is synced. Returns its newest token.
    pub(super) fn finish(&mut self) -> Token {
        let (writes, batch) = self.flight.take().expect("a batch is under way");
        self.write(&batch);
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

    /// The number of snapshot files, complete or not.
    pub(in crate::node) fn snapshot_files(&self) -> usize {
        self.files.len() + self.parts.len()
    }

    /// Leaves an empty file behind, as when a crash undid a deletion.
    pub(in crate::node) fn leave_file(&mut self, snapshot: SnapshotId) {
        self.files.insert(snapshot, Vec::new());
    }

    pub(super) fn discard(&mut self, snapshot: SnapshotId) {
        self.files.remove(&snapshot);
        self.parts.remove(&snapshot);
        let is_other = |(_, piece): &(u64, Piece)| piece.snapshot != snapshot;
        self.pieces.retain(is_other);
        self.writing.retain(is_other);
    }

    pub(super) fn release(&mut self, before: Token) {
        self.released = before.seq;
        for segment in self.writer.releasable(before) {
            self.segments.remove(&segment);
        }
    }

    pub(super) fn crash(&mut self) {
        self.queue.clear();
        self.flight = None;
        self.pieces.clear();
        self.writing.clear();
        self.parts.clear();
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
        let files = files.map(|(id, bytes)| (*id, Bytes::from(bytes.clone()))).collect();
        match wal::recover(self.padded()) {
            Ok(recovered) => (recovered.writes, files),
            Err(RecoverError::Empty) => (Vec::new(), files),
            Err(error) => panic!("the log recovers: {error:?}"),
        }
    }

    /// The bytes of the log, and those of the snapshot files.
    pub(in crate::node) fn bytes(&self) -> (usize, usize) {
        let files = self.files.values().chain(self.parts.values()).map(Vec::len).sum();
        (self.segments.values().map(Vec::len).sum(), files)
    }
}
