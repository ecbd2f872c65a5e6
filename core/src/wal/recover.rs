//! Recovery: reads the records of a log from its bytes, and distinguishes a tear, a hole and rot.
//!
//! # How recovery distinguishes a tear from rot
//!
//! A batch is written only after the fdatasync of the previous one returned. So a crash leaves at most one batch
//! incomplete, the last one. If batch `e` is next and cannot be read, recovery looks at the prefix of every block from
//! there to the end of the newest segment:
//!
//! * A prefix of this log with a batch after `e`: a later batch was begun, so `e` was durable and is damaged now. This
//!   is rot. Recovery returns an error and cuts nothing. One sector of the later batch is enough.
//! * A prefix of this log with batch `e` or a later one, but at an address that is not its own: a disk wrote a block to
//!   the wrong address. This is an error, too.
//! * Only prefixes of `e` itself, or bytes that are no block: batch `e` is a tear and is cut.
//! * Only prefixes of earlier batches or other logs: remains of an earlier use of the file. The log ends here.
//! * Zeros: the log ends here.
//!
//! The blocks behind the last batch of every earlier segment are looked at, too: a block of batch `e` or a later one
//! there went astray.
//!
//! A segment's header names the batch before it by digest. If the next segment's sound header continues the chain, the
//! log goes on there, and the rest of this segment does not matter. A sound header that does not continue it is rot
//! before that segment.
//!
//! # Limits
//!
//! * Rot in the last batch looks like a tear. An empty batch seals an idle log, so that the last batch with content is
//!   not the last one.
//! * Rot that also destroys the prefix of every later block looks like a tear.
//! * A log that lost its newest segments looks like an older log. Peers notice that by the count of starts.
//! * Recovery does not know which segment is the oldest one needed. The readers of the records do.
//!
//! # What the driver does
//!
//! The driver syncs a segment before it reads it for recovery: after a crash of only the process, it may read bytes
//! from memory that no disk has. It writes the last batch again and syncs it, see [`LastBatch`]. After a cut it makes
//! the cut durable before it writes the first batch, see [`Torn`]. If nothing was ever durable, it deletes all files
//! before it begins a new log. So a batch need not name the boot: nothing of a boot is visible outside before its first
//! batch is durable, and after that the chain includes it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use super::error::RecoverError;
use super::frame::{self, BlockAddress, Prefix, SegmentHeader, SegmentStart};
use super::writer::{FIRST_BATCH, FIRST_SEGMENT, LogWriter};
use super::{Header, Write};
use crate::digest::Digest;
use crate::id::Token;
use crate::limits::BLOCK_BYTES;
use crate::{mutant, reach};

/// The result of recovery.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The header of the log.
    pub header: Header,
    /// All records of the given segments, in order. Their tokens have no gaps.
    pub writes: Vec<(Token, Write)>,
    /// The writer that continues the log. Its next batch overwrites the cut.
    pub writer: LogWriter,
    /// The cut, if the log did not end with zeros.
    pub torn: Option<Torn>,
    /// The last batch of the log, which the driver writes again before it uses the log.
    pub last: Option<LastBatch>,
}

/// The last batch of a log.
///
/// The sync of this batch may have failed. Then an operating system may hold its bytes in memory alone, count them as
/// written, and return from a later sync without writing them. Only bytes that are written again are written by the
/// next sync. An earlier batch needs none of that: a batch is begun only when the sync of the one before has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastBatch {
    /// The segment of the batch.
    pub segment: u64,
    /// The position of `bytes`, in bytes; 0 where the batch opened its segment.
    pub offset: u64,
    /// The bytes of the batch, with those of the segment's header where it opened its segment.
    pub bytes: Bytes,
}

/// The end of a log where there were bytes other than zeros.
///
/// Before the first batch after a recovery, the driver deletes the segments after this one, newest first, fills this
/// one with zeros from the offset to its end, and syncs both. Otherwise a batch that was cut could become whole again,
/// from its own sectors and equal ones that a later process writes over the missing ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment of the next batch.
    pub segment: u64,
    /// The position of the next batch, in bytes.
    pub offset: u64,
    /// The kind of bytes that are there.
    pub what: Tear,
}

/// The kind of bytes at the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// An incomplete last batch, which was never durable.
    Batch,
    /// Remains of an earlier use of the file: earlier batches, or another log.
    Stale,
}

/// Reads a log from its segments, given in any order. The length of a file need not be a multiple of a block.
///
/// It returns for any bytes, reads each block a bounded number of times, and takes memory for a small multiple of the
/// bytes. It changes nothing.
///
/// # Errors
///
/// [`RecoverError`] if the log cannot be used.
pub fn recover(mut segments: Vec<(u64, Bytes)>) -> Result<Recovered, RecoverError> {
    segments.sort_by_key(|(number, _)| *number);
    check_numbers(&segments)?;
    let mut walk = Walk::begin(segments)?;
    let torn = loop {
        while walk.batch()? {}
        match walk.next_segment()? {
            Next::Segment => {}
            Next::End(torn) => break torn,
        }
    };
    Ok(walk.finish(torn))
}

fn check_numbers(segments: &[(u64, Bytes)]) -> Result<(), RecoverError> {
    for pair in segments.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        if before == after {
            return Err(RecoverError::Repeated { segment: after });
        }
        if before + 1 != after {
            reach!("wal.recover.hole");
            return Err(RecoverError::Hole { segment: before + 1 });
        }
    }
    Ok(())
}

/// The continuation after the last readable batch of a segment.
enum Next {
    /// The next segment continues the chain.
    Segment,
    /// The log ends.
    End(Option<Torn>),
}

/// A walk along the chain of batches.
struct Walk {
    segments: Vec<(u64, Bytes)>,
    /// The index of the current segment in `segments`.
    at: usize,
    /// The position in it, in blocks.
    block: u64,
    header: Header,
    log: u64,
    /// The number of the next batch.
    seq: u64,
    /// The digest of the last batch.
    chain: Digest,
    /// The number of the next token.
    next: u64,
    sealed: bool,
    firsts: VecDeque<(u64, u64)>,
    /// The position behind the last batch of each segment before the current one, in blocks.
    ends: Vec<u64>,
    /// The last batch: its segment's index, and its first block.
    last: Option<(usize, u64)>,
    writes: Vec<(Token, Write)>,
}

impl Walk {
    /// Begins at the oldest segment. Its header is trusted for the batches before it.
    fn begin(segments: Vec<(u64, Bytes)>) -> Result<Self, RecoverError> {
        let (number, bytes) = segments.first().ok_or(RecoverError::Empty)?;
        let segment = *number;
        let found = match frame::read_segment(bytes) {
            SegmentStart::Header(found) => found,
            SegmentStart::Version(found) => return Err(RecoverError::Version { segment, found }),
            SegmentStart::None => return Err(without_beginning(&segments)),
        };
        if found.address.segment != segment || found.address.block != 0 {
            return Err(misdirected(segment, 0, &found.address));
        }
        Ok(Self {
            at: 0,
            block: 1,
            header: found.header,
            log: found.address.log,
            seq: found.address.seq,
            chain: found.chain,
            next: found.first,
            sealed: true,
            firsts: VecDeque::from([(segment, found.first)]),
            ends: Vec::new(),
            last: None,
            writes: Vec::new(),
            segments,
        })
    }

    fn segment(&self) -> u64 {
        self.segments[self.at].0
    }

    fn offset(&self) -> u64 {
        self.block * BLOCK_BYTES as u64
    }

    /// Reads the next batch. Returns false if it cannot be read.
    fn batch(&mut self) -> Result<bool, RecoverError> {
        let (segment, offset) = (self.segment(), self.offset());
        let address = BlockAddress { log: self.log, segment, block: self.block, seq: self.seq };
        let Some(batch) = frame::read_batch(&self.segments[self.at].1, address) else {
            return Ok(false);
        };
        if batch.chain != self.chain {
            reach!("wal.recover.forked");
            return Err(RecoverError::Forked { segment, offset });
        }
        if batch.first != self.next || self.next.checked_add(u64::from(batch.records)).is_none() {
            return Err(RecoverError::TokenGap { segment, offset });
        }
        let writes = batch.writes().ok_or(RecoverError::Undecodable { segment, offset })?;
        self.sealed = writes.is_empty();
        self.take(writes);
        self.last = Some((self.at, self.block));
        self.block += batch.blocks as u64;
        self.seq = self.seq.saturating_add(1);
        self.chain = batch.digest;
        Ok(true)
    }

    fn take(&mut self, writes: Vec<Write>) {
        for write in writes {
            self.writes.push((Token { lane: self.header.lane, seq: self.next }, write));
            self.next += 1;
        }
    }

    /// Continues in the next segment, or decides how the log ends.
    fn next_segment(&mut self) -> Result<Next, RecoverError> {
        let following = self.segments.get(self.at + 1);
        let opening = following.map(|(number, bytes)| (*number, frame::read_segment(bytes)));
        match opening {
            Some((segment, SegmentStart::Version(found))) => {
                Err(RecoverError::Version { segment, found })
            }
            Some((segment, SegmentStart::Header(found))) if found.address.segment == segment => {
                self.enter(&found)
            }
            _ => self.end(false),
        }
    }

    /// Enters a segment with a sound header, if it continues the chain.
    fn enter(&mut self, found: &SegmentHeader) -> Result<Next, RecoverError> {
        let segment = found.address.segment;
        if found.header != self.header {
            reach!("wal.recover.foreign");
            let (expected, found) = (self.header, found.header);
            return Err(RecoverError::Foreign { segment, expected, found });
        }
        if (found.address.seq, found.chain) != (self.seq, self.chain) {
            reach!("wal.recover.rot_before_segment");
            // A misplaced block is a more precise error than the broken chain.
            self.end(true)?;
            return self.rot(self.segment(), self.offset());
        }
        if found.first != self.next {
            return Err(RecoverError::TokenGap { segment, offset: 0 });
        }
        self.at += 1;
        self.ends.push(self.block);
        self.block = 1;
        self.firsts.push_back((segment, found.first));
        Ok(Next::Segment)
    }

    /// The next batch cannot be read, and no segment header continues the chain: looks at all blocks from here on to
    /// distinguish a tear from rot. `is_entered`: the next segment's header is sound.
    fn end(&mut self, is_entered: bool) -> Result<Next, RecoverError> {
        if let Some((segment, block, address)) = self.astray() {
            reach!("wal.recover.astray");
            return self.void(misdirected(segment, block, &address));
        }
        let mut tear: Option<Tear> = None;
        let mut torn_here = false;
        for at in self.at..self.segments.len() {
            let (segment, bytes) = &self.segments[at];
            let skip = if at == self.at { self.block } else { 0 };
            let blocks = bytes.chunks(BLOCK_BYTES).enumerate().skip(skip as usize);
            for (block, bytes) in blocks {
                match self.classify(*segment, block as u64, bytes) {
                    Evidence::Nothing => {}
                    Evidence::Stale => tear = tear.or(Some(Tear::Stale)),
                    Evidence::Tear => {
                        torn_here |= at == self.at;
                        tear = Some(Tear::Batch);
                    }
                    Evidence::Misplaced(address) => {
                        reach!("wal.recover.misdirected");
                        return self.void(misdirected(*segment, block as u64, &address));
                    }
                    Evidence::Later => {
                        return self.rot_at(at > self.at && !torn_here && !is_entered);
                    }
                }
            }
        }
        Ok(Next::End(self.cut(tear)))
    }

    /// A block of the next batch, or of a later one, behind the last batch of an earlier segment.
    fn astray(&self) -> Option<(u64, u64, BlockAddress)> {
        if mutant!("wal.recover.skips_earlier_tails") {
            return None;
        }
        let tails = self.segments.iter().zip(&self.ends);
        let mut blocks = tails.flat_map(|((segment, bytes), end)| {
            let blocks = (0..).zip(bytes.chunks(BLOCK_BYTES)).skip(*end as usize);
            blocks.map(|(block, bytes)| (*segment, block, bytes))
        });
        blocks.find_map(|(segment, block, bytes)| match self.classify(segment, block, bytes) {
            Evidence::Misplaced(address) => Some((segment, block, address)),
            _ => None,
        })
    }

    fn classify(&self, segment: u64, block: u64, bytes: &[u8]) -> Evidence {
        let Some(Prefix { address, .. }) = Prefix::parse(bytes) else {
            let is_zero = *bytes == frame::ZERO_BLOCK[..bytes.len()];
            return if is_zero { Evidence::Nothing } else { Evidence::Tear };
        };
        if address.log != self.log || address.seq < self.seq {
            return Evidence::Stale;
        }
        if (address.segment, address.block) != (segment, block) {
            return Evidence::Misplaced(address);
        }
        if address.seq > self.seq { Evidence::Later } else { Evidence::Tear }
    }

    /// Rot, proved by a block of a later batch. If that block is in a later segment and only zeros end this one, the
    /// damage is in the next segment's header.
    fn rot_at(&self, is_in_header: bool) -> Result<Next, RecoverError> {
        if is_in_header {
            reach!("wal.recover.rot_in_header");
            return self.rot(self.segment() + 1, 0);
        }
        reach!("wal.recover.rot");
        self.rot(self.segment(), self.offset())
    }

    fn rot(&self, segment: u64, offset: u64) -> Result<Next, RecoverError> {
        self.void(RecoverError::Rot { segment, offset })
    }

    fn void(&self, error: RecoverError) -> Result<Next, RecoverError> {
        if mutant!("wal.middle.accepted") {
            return Ok(Next::End(None));
        }
        Err(error)
    }

    fn cut(&mut self, tear: Option<Tear>) -> Option<Torn> {
        match tear {
            None => reach!("wal.recover.clean"),
            Some(Tear::Stale) => reach!("wal.recover.stale"),
            Some(Tear::Batch) => {
                reach!("wal.recover.torn");
                if mutant!("wal.torn.accepted") {
                    self.take_torn();
                }
            }
        }
        tear.map(|what| Torn { segment: self.segment(), offset: self.offset(), what })
    }

    /// The planted bug: accepts the readable records of an unfinished batch.
    fn take_torn(&mut self) {
        let address = BlockAddress {
            log: self.log,
            segment: self.segment(),
            block: self.block,
            seq: self.seq,
        };
        let writes = frame::read_torn(&self.segments[self.at].1, address);
        self.take(writes);
    }

    fn finish(self, torn: Option<Torn>) -> Recovered {
        if self.block == 1 {
            reach!("wal.recover.empty_segment");
        }
        let mut writer = LogWriter::new(self.header);
        writer.segment = self.segment();
        writer.offset = self.offset();
        writer.seq = self.seq;
        writer.chain = self.chain;
        writer.next = self.next;
        writer.sealed = self.sealed;
        // The driver synced all files before it read them: even an empty segment is durable.
        writer.opening = false;
        let last = self.last_batch();
        writer.firsts = self.firsts;
        Recovered { header: self.header, writes: self.writes, writer, torn, last }
    }

    /// The last batch; of a segment without one, its header.
    fn last_batch(&self) -> Option<LastBatch> {
        if mutant!("wal.recover.trusts_the_cache") {
            return None;
        }
        let (at, first) = self.last.filter(|(at, _)| *at == self.at).unwrap_or((self.at, 0));
        let (segment, bytes) = self.segments.get(at)?;
        // The batch that opens a segment was written with the segment's header.
        let from = if first == 1 { 0 } else { first } as usize * BLOCK_BYTES;
        let to = bytes.len().min(self.block as usize * BLOCK_BYTES);
        let bytes = bytes.slice(from..to);
        Some(LastBatch { segment: *segment, offset: from as u64, bytes })
    }
}

/// The evidence of one block about the end of a log.
enum Evidence {
    /// A block of zeros.
    Nothing,
    /// A block of an earlier batch or of another log.
    Stale,
    /// A block of the next batch, or bytes that are no block.
    Tear,
    /// A block of a later batch.
    Later,
    /// A block of this log that belongs to another address.
    Misplaced(BlockAddress),
}

/// The error for an oldest segment without a sound header. The first batch of a log's first segment may never have been
/// durable; before any other segment there was a durable batch.
fn without_beginning(segments: &[(u64, Bytes)]) -> RecoverError {
    let segment = segments[0].0;
    let later = |(number, bytes): &(u64, Bytes)| {
        let is_later = |(block, bytes): (usize, &[u8])| {
            Prefix::parse(bytes).is_some_and(|Prefix { address, .. }| {
                (address.segment, address.block) == (*number, block as u64)
                    && address.seq > FIRST_BATCH
            })
        };
        bytes.chunks(BLOCK_BYTES).enumerate().any(is_later)
    };
    if segment == FIRST_SEGMENT && !segments.iter().any(later) {
        reach!("wal.recover.empty");
        return RecoverError::Empty;
    }
    reach!("wal.recover.rot_at_beginning");
    RecoverError::Rot { segment, offset: 0 }
}

fn misdirected(segment: u64, block: u64, belongs: &BlockAddress) -> RecoverError {
    RecoverError::Misdirected {
        segment,
        offset: block * BLOCK_BYTES as u64,
        belongs_segment: belongs.segment,
        belongs_offset: belongs.block.saturating_mul(BLOCK_BYTES as u64),
    }
}
