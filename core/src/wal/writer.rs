//! The writing end of a log: batches, their positions, and the segments that can be deleted.
//!
//! This module makes bytes and keeps count. It does not write or sync anything: the driver does, and writes a batch
//! only after the fdatasync of the previous one returned. With a segment's first batch the driver syncs the directory
//! entry, and that batch replaces the bytes that an unfinished opening left under the segment's number.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::frame::{self, BlockAddress, SegmentHeader};
use super::{Header, SEGMENT_BYTES, Write};
use crate::digest::Digest;
use crate::id::Token;
use crate::limits::BLOCK_BYTES;
use crate::reach;

/// The number of a log's first segment.
pub(super) const FIRST_SEGMENT: u64 = 1;
/// The number of a log's first batch.
pub(super) const FIRST_BATCH: u64 = 1;

/// Bytes to write in one piece and to sync before the next batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The number of the segment to write to.
    pub segment: u64,
    /// Whether this batch begins the segment. Then `offset` is 0 and the first block is the segment's header.
    pub opens_segment: bool,
    /// The position in the segment, in bytes: a multiple of a block.
    pub offset: u64,
    /// The bytes: whole blocks.
    pub bytes: Vec<u8>,
    /// The newest token that is durable once these bytes are. A seal repeats the last one.
    pub last: Token,
}

/// The writing end of a log: turns writes into batches.
#[derive(Clone, Debug)]
pub struct LogWriter {
    pub(super) header: Header,
    /// The current segment; 0 before the first one.
    pub(super) segment: u64,
    /// The position of the next batch in it, in bytes; `u64::MAX` before the first segment.
    pub(super) offset: u64,
    /// The next batch's number.
    pub(super) seq: u64,
    /// The last batch's digest.
    pub(super) chain: Digest,
    /// The next token's number.
    pub(super) next: u64,
    /// Whether the last batch needs no seal, because it is one or there is no batch.
    pub(super) sealed: bool,
    /// Whether the last batch opened the current segment. That batch may not be durable yet.
    pub(super) opening: bool,
    /// Each segment that is not released, with the number of its first token.
    pub(super) firsts: VecDeque<(u64, u64)>,
    /// [`SEGMENT_BYTES`]; less in a simulator and in tests that damage every byte.
    pub(super) segment_bytes: u64,
    /// The buffer for a batch's content, kept between batches.
    pub(super) scratch: Vec<u8>,
}

impl LogWriter {
    /// The writer of a log that does not exist yet. Its first batch opens segment 1.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            header,
            segment: FIRST_SEGMENT - 1,
            offset: u64::MAX,
            seq: FIRST_BATCH,
            chain: Digest::default(),
            next: 1,
            sealed: true,
            opening: false,
            firsts: VecDeque::new(),
            segment_bytes: SEGMENT_BYTES,
            scratch: Vec::new(),
        }
    }

    /// The same writer with shorter segments, for a simulator: a short run then fills several. Recovery reads segments
    /// of any length.
    #[must_use]
    pub fn with_segment_bytes(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// The header that every segment of this log repeats.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The token that the next write must have.
    #[must_use]
    pub const fn next_token(&self) -> Token {
        Token { lane: self.header.lane, seq: self.next }
    }

    /// Encodes one batch. A batch that does not fit into the rest of the segment opens the next one.
    ///
    /// # Panics
    ///
    /// On a broken invariant of the caller: no writes, or tokens that do not follow the last one.
    #[must_use]
    pub fn encode(&mut self, writes: &[(Token, Write)]) -> Batch {
        assert!(!writes.is_empty(), "an empty batch is a seal");
        let mut content = core::mem::take(&mut self.scratch);
        frame::begin_content(&mut content);
        for (at, (token, write)) in writes.iter().enumerate() {
            let expected = Token { lane: self.header.lane, seq: self.next + at as u64 };
            assert_eq!(*token, expected, "tokens follow each other");
            frame::push_record(&mut content, write);
        }
        self.sealed = false;
        self.batch(content, writes.len())
    }

    /// An empty batch after the last one. Once it is durable, damage in the last one cannot pass for a tear. `None` if
    /// the last batch is a seal or there is no batch.
    #[must_use]
    pub fn seal(&mut self) -> Option<Batch> {
        if self.sealed {
            return None;
        }
        let mut content = core::mem::take(&mut self.scratch);
        frame::begin_content(&mut content);
        self.sealed = true;
        Some(self.batch(content, 0))
    }

    /// The segments with only writes older than `before`. Each is returned once and may be deleted, oldest first. The
    /// current segment stays, and so does the one before it while the current one's first batch may not be durable: a
    /// log always begins with a sound segment.
    #[must_use]
    pub fn releasable(&mut self, before: Token) -> Vec<u64> {
        let mut released = Vec::new();
        let kept = if self.opening { 2 } else { 1 };
        while self.firsts.len() > kept && self.firsts[1].1 <= before.seq {
            released.extend(self.firsts.pop_front().map(|(segment, _)| segment));
        }
        released
    }

    fn batch(&mut self, mut content: Vec<u8>, records: usize) -> Batch {
        let length = (frame::blocks(content.len()) * BLOCK_BYTES) as u64;
        let mut bytes = Vec::with_capacity(length as usize + BLOCK_BYTES);
        // An empty segment takes a batch of any size: another segment would have no more room.
        let is_empty = self.offset == BLOCK_BYTES as u64;
        self.opening = !is_empty && self.offset.saturating_add(length) > self.segment_bytes;
        if self.opening {
            self.open(&mut bytes);
        }
        let start = if self.opening { 0 } else { self.offset };
        let address = self.address(self.offset / BLOCK_BYTES as u64);
        let tokens = (self.next, records);
        self.chain = frame::encode_batch(&mut bytes, &mut content, address, &self.chain, tokens);
        self.scratch = content;
        self.offset += length;
        self.seq += 1;
        self.next += records as u64;
        let last = Token { lane: self.header.lane, seq: self.next - 1 };
        let (segment, opens_segment) = (self.segment, self.opening);
        Batch { segment, opens_segment, offset: start, bytes, last }
    }

    fn open(&mut self, bytes: &mut Vec<u8>) {
        self.segment += 1;
        self.offset = BLOCK_BYTES as u64;
        self.firsts.push_back((self.segment, self.next));
        let (header, chain, first) = (self.header, self.chain, self.next);
        frame::encode_segment(
            bytes,
            &SegmentHeader { header, address: self.address(0), first, chain },
        );
        reach!("wal.segment.opened");
    }

    fn address(&self, block: u64) -> BlockAddress {
        BlockAddress { log: self.header.log(), segment: self.segment, block, seq: self.seq }
    }
}
