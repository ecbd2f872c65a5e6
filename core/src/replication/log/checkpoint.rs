//! Checkpoints: the capture of a shard's state in a snapshot file, in slices, while the shard is written to.
//!
//! The file has the context and deferred removals as of the beginning; then the live writes in the
//! order of their dots, each as it is when the cursor passes it, except those that arrived after the beginning; then
//! every record that was issued meanwhile, the *tail*.
//!
//! # Why it restores the state of its end
//!
//! Let S be the state at the beginning. The live writes of the file differ from those of S only in elements that were
//! removed before the cursor came. A record of the tail caused each such removal. Replaying the tail causes it again,
//! which changes nothing: removals are idempotent, and nothing else is taken from S. All new elements are in the tail,
//! because their dots are not in the context of the header. One thing can differ: in a discarding shard, a new element
//! may have lost to a sibling that was removed before the cursor came; a replay would keep the new element. But the
//! record of its write carries the live edits, so the replay removes it as well. The tail ends in the step that names
//! the file, so no record falls between the file and the log.
//!
//! This module does not decide about files, their names, or when to checkpoint.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::limits::CHUNK_BYTES_MAX;
use crate::reach;

use super::{Header, Record, encode};
use crate::replication::shard::{Dots, LocalDot, Shard};

/// The budget that visiting a write takes beside its bytes.
const VISIT_BYTES: usize = 32;

/// A checkpoint under way.
#[derive(Debug)]
pub(crate) struct Capture {
    /// All dots seen when the capture began.
    context: Dots,
    /// The bound below the next live write; `None` after the last write.
    cursor: Option<Bound<LocalDot>>,
    /// Records issued since the beginning that are not in the file yet.
    tail: VecDeque<Bytes>,
    /// Bytes of the file that fill no chunk yet.
    buffer: Vec<u8>,
    /// The offset of the next chunk.
    offset: u64,
    hash: Sha256,
}

/// The output of one slice of a capture.
pub(crate) struct Slice {
    /// Chunks of the file with their offsets.
    pub(crate) chunks: Vec<(u64, Bytes)>,
    /// The file's length and digest, once it is complete.
    pub(crate) done: Option<(u64, Digest)>,
}

impl Capture {
    /// Begins a capture.
    pub(crate) fn new(shard: &Shard) -> Self {
        let context = shard.dots();
        let header = Header {
            shard: shard.id,
            context: context.clone(),
            deferred: shard.deferred().map(|(dot, deferred)| (dot, deferred.clone())).collect(),
            stamp: shard.stamp,
            discard: shard.discard,
        };
        let mut capture = Self {
            context,
            cursor: Some(Bound::Unbounded),
            tail: VecDeque::new(),
            buffer: Vec::new(),
            offset: 0,
            hash: Sha256::new(),
        };
        capture.push(&encode(&Record::Header(header)));
        capture
    }

    /// Adds records that were issued during the capture.
    pub(crate) fn add_records(&mut self, records: &[Bytes]) {
        self.tail.extend(records.iter().cloned());
    }

    /// Captures about `bytes` more bytes. The budget grows with the tail, so that the checkpoint of a busy shard ends.
    pub(crate) fn slice(&mut self, shard: &Shard, bytes: usize) -> Slice {
        let mut budget = bytes + self.tail.iter().map(Bytes::len).sum::<usize>() / 4;
        self.copy_live_writes(shard, &mut budget);
        while self.cursor.is_none() && budget > 0 {
            let Some(record) = self.tail.pop_front() else { break };
            budget = budget.saturating_sub(record.len() + VISIT_BYTES);
            self.push(&record);
        }
        let complete = self.cursor.is_none() && self.tail.is_empty();
        let chunks = self.take_chunks(complete);
        let digest = || Digest(self.hash.clone().finalize().into());
        Slice { chunks, done: complete.then(|| (self.offset, digest())) }
    }

    fn copy_live_writes(&mut self, shard: &Shard, budget: &mut usize) {
        let Some(cursor) = self.cursor else { return };
        for (dot, live) in shard.live.range((cursor, Bound::Unbounded)) {
            if *budget == 0 {
                reach!("replication.checkpoint.sliced");
                return;
            }
            *budget = budget.saturating_sub(VISIT_BYTES);
            if self.context.contains(&shard.dot(*dot)) {
                *budget = budget.saturating_sub(live.sealed.len());
                match live.partial_edits() {
                    None => self.push(&live.sealed),
                    Some(edits) => {
                        self.push(&encode(&Record::Partial(live.sealed.clone(), edits)));
                    }
                }
            }
            self.cursor = Some(Bound::Excluded(*dot));
        }
        self.cursor = None;
        self.push(&encode(&Record::EndOfWrites));
    }

    fn push(&mut self, record: &[u8]) {
        self.buffer.extend_from_slice(&(record.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(record);
    }

    /// Takes full chunks from the front of the buffer, and the rest when the file is complete.
    fn take_chunks(&mut self, complete: bool) -> Vec<(u64, Bytes)> {
        let mut chunks = Vec::new();
        let mut rest = core::mem::take(&mut self.buffer);
        while rest.len() >= CHUNK_BYTES_MAX || (complete && !rest.is_empty()) {
            let after = rest.split_off(rest.len().min(CHUNK_BYTES_MAX));
            self.hash.update(&rest);
            let length = rest.len() as u64;
            chunks.push((self.offset, rest.into()));
            self.offset += length;
            rest = after;
        }
        self.buffer = rest;
        chunks
    }
}
