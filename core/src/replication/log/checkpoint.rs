//! Checkpoints: a shard's state goes into a side file in slices, while the shard is written to.
//!
//! The file has the context, doomed parts and waiting writes as of the beginning; then the live writes in the order of
//! their dots, each as it is when the cursor passes it, without those that are younger than the beginning; then every
//! record that was issued meanwhile.
//!
//! # Why it restores the state of its end
//!
//! Let S be the state at the beginning. The live writes of the file differ from those of S only in elements that died
//! before the cursor came. Each such death was caused by a record of the tail, and replaying the tail causes it again,
//! which changes nothing: deaths are idempotent and nothing else is taken from S. Births all are in the tail, for their
//! dots are not in the context of the head. One thing can differ: in a discarding shard a birth may have lost to a
//! sibling that died before the cursor came, and would live when replayed. Such a birth's record carries what lived of
//! it, so it does not. The tail ends in the step that names the file, so nothing falls between it and the log.
//!
//! Files, their names and when to checkpoint are not decided here.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::limits::CHUNK_BYTES_MAX;
use crate::reach;

use super::{Head, Record, encode};
use crate::replication::shard::{At, Dots, Shard};

/// What passing over a write costs in bytes of the same budget.
const PASS_BYTES: usize = 32;

/// A checkpoint under way.
#[derive(Debug)]
pub(crate) struct Capture {
    /// All dots seen when it began.
    context: Dots,
    /// The last write that it passed; `None` once it passed all.
    cursor: Option<Bound<At>>,
    tail: VecDeque<Bytes>,
    buffer: Vec<u8>,
    offset: u64,
    hash: Sha256,
}

/// What a slice gave.
pub(crate) struct Slice {
    /// Pieces of the file with their offsets.
    pub(crate) chunks: Vec<(u64, Bytes)>,
    /// The file's length and digest, once it is complete.
    pub(crate) done: Option<(u64, Digest)>,
}

impl Capture {
    /// Begins.
    pub(crate) fn new(shard: &Shard) -> Self {
        let context = shard.dots();
        let head = Head {
            shard: shard.id,
            context: context.clone(),
            doomed: shard.doomed().map(|(dot, doom)| (dot, doom.clone())).collect(),
            waiting: shard.waiting.values().cloned().collect(),
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
        capture.push(&encode(&Record::Head(head)));
        capture
    }

    /// Takes note of records that are issued meanwhile.
    pub(crate) fn note(&mut self, records: &[Bytes]) {
        self.tail.extend(records.iter().cloned());
    }

    /// Captures some more, about so many bytes. The budget grows with the tail, so that a busy shard's checkpoint ends
    /// as well.
    pub(crate) fn slice(&mut self, shard: &Shard, bytes: usize) -> Slice {
        let mut budget = bytes + self.tail.iter().map(Bytes::len).sum::<usize>() / 4;
        self.pass(shard, &mut budget);
        while self.cursor.is_none() && budget > 0 {
            let Some(record) = self.tail.pop_front() else { break };
            budget = budget.saturating_sub(record.len() + PASS_BYTES);
            self.push(&record);
        }
        let complete = self.cursor.is_none() && self.tail.is_empty();
        let chunks = self.cut(complete);
        let digest = || Digest(self.hash.clone().finalize().into());
        Slice { chunks, done: complete.then(|| (self.offset, digest())) }
    }

    fn pass(&mut self, shard: &Shard, budget: &mut usize) {
        let Some(cursor) = self.cursor else { return };
        for (at, live) in shard.live.range((cursor, Bound::Unbounded)) {
            if *budget == 0 {
                reach!("replication.checkpoint.sliced");
                return;
            }
            *budget = budget.saturating_sub(PASS_BYTES);
            if self.context.contains(&shard.dot(*at)) {
                *budget = budget.saturating_sub(live.sealed.len());
                if live.whole {
                    self.push(&live.sealed);
                } else {
                    let record = Record::Masked(live.sealed.clone(), live.mask.clone());
                    self.push(&encode(&record));
                }
            }
            self.cursor = Some(Bound::Excluded(*at));
        }
        self.cursor = None;
        self.push(&encode(&Record::Tail));
    }

    fn push(&mut self, record: &[u8]) {
        self.buffer.extend_from_slice(&(record.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(record);
    }

    /// Whole chunks off the buffer's front; the rest too when the file is complete.
    fn cut(&mut self, complete: bool) -> Vec<(u64, Bytes)> {
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
