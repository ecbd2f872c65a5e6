//! Reads a log back: writes from bytes, and a tear, a hole and rot told apart.
//!
//! # How a tear is told from rot
//!
//! A batch is written only after the fdatasync of the one before returned. So a crash leaves at most one batch undone,
//! the last. When the batch that is due (number `e`) cannot be read, recovery looks at the prefix of every block from
//! there to the end of the newest segment:
//!
//! * A prefix of this log with a number above `e`: a later batch was begun, so batch `e` was durable and is damaged
//!   now. That is rot, a typed error; nothing is cut. One sector of the later batch is enough, it need not be whole.
//! * A prefix of this log, numbered `e` or later, that names another place: a write went astray. Also an error.
//! * Only prefixes of `e` itself, or bytes that are no block: batch `e` is a tear and is cut.
//! * Only prefixes of earlier batches or of other logs: what an earlier life of the file left. The log ends here.
//! * Zeros: the log ends here.
//!
//! A segment's header names the batch before it by digest. So the rest of a segment is left behind, torn bytes and all,
//! exactly when the next segment's sound header continues the chain; a sound header that does not is rot before it.
//!
//! # Limits
//!
//! Rot in the very last batch looks like a tear. The seal of an idle log makes the last batch with content a last but
//! one. Rot that also destroys the prefix of every later block looks like a tear. A log whose newest segments are gone
//! is an older log: peers catch that by the boot count. Whether the oldest segment is the oldest one needed is known to
//! those who read the writes.
//!
//! # What the driver does
//!
//! Before it reads a segment for recovery it syncs it: after a crash of the process alone, bytes may be read from
//! memory that no disk holds. After a cut it makes the cut durable before it writes the first batch: see [`Torn`].
//! When nothing was ever durable it deletes what is there before it begins a new log. With that, batches need not name
//! the boot: nothing of a boot is visible outside before its first batch is durable, and from then on the chain names
//! it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use super::frame::{self, Opening, Place, Prefix, SegmentHeader};
use super::writer::{FIRST_BATCH, FIRST_SEGMENT, LogWriter};
use super::{Header, Write};
use crate::digest::Digest;
use crate::id::Token;
use crate::limits::BLOCK_BYTES;
use crate::{mutant, reach};

/// A log, read back.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whose log it is.
    pub header: Header,
    /// All writes of the segments given, in order; their tokens have no holes.
    pub writes: Vec<(Token, Write)>,
    /// Continues the log: its next batch overwrites what was cut.
    pub writer: LogWriter,
    /// What was cut, if anything was.
    pub torn: Option<Torn>,
}

/// The end of a log that was not zeros.
///
/// Before the first batch after a recovery, the driver deletes the segments after this one, newest first, fills this
/// one with zeros from the offset to its end, and syncs both. Otherwise a batch that was cut could come back whole:
/// from its own sectors, and equal ones that a later life wrote over the missing ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment where the next batch is due.
    pub segment: u64,
    /// Where it is due, in bytes.
    pub offset: u64,
    /// What is there instead.
    pub what: Tear,
}

/// What stands at the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// The last batch, unfinished: it was never durable.
    Batch,
    /// Remains of an earlier life of the file: earlier batches, or another log.
    Stale,
}

/// Why a log cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoverError {
    /// No batch of a log was ever durable here: create a new log.
    Empty,
    /// A batch that was durable is damaged. The store is void: its promises cannot be kept.
    Rot {
        /// The segment.
        segment: u64,
        /// Where the chain breaks, in bytes.
        offset: u64,
    },
    /// A block stands where it does not belong: a write went astray. The store is void.
    Misdirected {
        /// Where it stands.
        segment: u64,
        /// Where it stands, in bytes.
        offset: u64,
        /// Where it belongs.
        belongs_segment: u64,
        /// Where it belongs, in bytes.
        belongs_offset: u64,
    },
    /// A sound batch in its place follows another predecessor: parts of two states of one store were mixed. The store
    /// is void.
    Forked {
        /// The segment.
        segment: u64,
        /// The batch, in bytes.
        offset: u64,
    },
    /// A segment between two others is missing.
    Hole {
        /// The first one missing.
        segment: u64,
    },
    /// Two segments with one number were given.
    Repeated {
        /// The number.
        segment: u64,
    },
    /// A segment of another log.
    Foreign {
        /// The segment.
        segment: u64,
        /// Whose log was expected.
        expected: Header,
        /// Whose it is.
        found: Header,
    },
    /// A segment of a version that this build does not read.
    Version {
        /// The segment.
        segment: u64,
        /// Its version.
        found: u16,
    },
    /// A sound batch whose records this build does not understand: a later build wrote them.
    Undecodable {
        /// The segment.
        segment: u64,
        /// The batch, in bytes.
        offset: u64,
    },
    /// A sound batch whose tokens do not follow the last one.
    TokenGap {
        /// The segment.
        segment: u64,
        /// The batch, in bytes.
        offset: u64,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const VOID: &str = "the store is void; hint: move it away, and join as a new store";
        match self {
            Self::Empty => f.write_str("the log holds nothing durable; hint: create a new one"),
            Self::Rot { segment, offset } => {
                write!(
                    f,
                    "log segment {segment} is damaged at byte {offset}, before its end; {VOID}"
                )
            }
            Self::Misdirected { segment, offset, belongs_segment, belongs_offset } => write!(
                f,
                "log segment {segment} holds at byte {offset} a block of segment {belongs_segment}, byte \
                 {belongs_offset}; {VOID}"
            ),
            Self::Forked { segment, offset } => write!(
                f,
                "log segment {segment} holds at byte {offset} a batch of another history; {VOID}"
            ),
            Self::Hole { segment } => {
                write!(
                    f,
                    "log segment {segment} is missing; hint: put it back, or join as a new store"
                )
            }
            Self::Repeated { segment } => write!(f, "log segment {segment} was given twice"),
            Self::Foreign { segment, expected, found } => write!(
                f,
                "log segment {segment} belongs to federation {}, node {}, store {}, lane {}, and not to federation \
                 {}, node {}, store {}, lane {}; hint: use that node's own directory",
                found.federation,
                found.node,
                found.store,
                found.lane,
                expected.federation,
                expected.node,
                expected.store,
                expected.lane
            ),
            Self::Version { segment, found } => write!(
                f,
                "log segment {segment} has version {found}, and this build reads version {}; hint: use the build \
                 that wrote it",
                frame::VERSION
            ),
            Self::Undecodable { segment, offset } => write!(
                f,
                "log segment {segment} holds at byte {offset} records of a later build; hint: use that build"
            ),
            Self::TokenGap { segment, offset } => write!(
                f,
                "log segment {segment} does not continue the count of writes at byte {offset}; {VOID}"
            ),
        }
    }
}

impl core::error::Error for RecoverError {}

/// Reads a log from its segments, in any order; the files' lengths need not be whole blocks.
///
/// Total for all bytes; reads each block a bounded number of times, and keeps no more than a small multiple of them.
///
/// # Errors
///
/// [`RecoverError`]; nothing was changed.
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

/// What follows the last readable batch of a segment.
enum Next {
    /// The next segment, which continues the chain.
    Segment,
    /// Nothing.
    End(Option<Torn>),
}

/// A walk along the chain.
struct Walk {
    segments: Vec<(u64, Bytes)>,
    /// Which of them.
    at: usize,
    /// Where in it, in blocks.
    block: u64,
    header: Header,
    log: u64,
    /// The number of the batch that is due.
    seq: u64,
    /// The digest of the batch before it.
    chain: Digest,
    /// The number of the next token.
    next: u64,
    sealed: bool,
    firsts: VecDeque<(u64, u64)>,
    writes: Vec<(Token, Write)>,
}

impl Walk {
    /// Begins at the oldest segment's header, which is trusted for what came before it.
    fn begin(segments: Vec<(u64, Bytes)>) -> Result<Self, RecoverError> {
        let (number, bytes) = segments.first().ok_or(RecoverError::Empty)?;
        let segment = *number;
        let found = match frame::read_segment(bytes) {
            Opening::Header(found) => found,
            Opening::Version(found) => return Err(RecoverError::Version { segment, found }),
            Opening::None => return Err(without_beginning(&segments)),
        };
        if found.place.segment != segment || found.place.block != 0 {
            return Err(misdirected(segment, 0, &found.place));
        }
        Ok(Self {
            at: 0,
            block: 1,
            header: found.header,
            log: found.place.log,
            seq: found.place.seq,
            chain: found.chain,
            next: found.first,
            sealed: true,
            firsts: VecDeque::from([(segment, found.first)]),
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

    /// Takes the batch that is due; false when it cannot be read.
    fn batch(&mut self) -> Result<bool, RecoverError> {
        let (segment, offset) = (self.segment(), self.offset());
        let place = Place { log: self.log, segment, block: self.block, seq: self.seq };
        let Some(batch) = frame::read_batch(&self.segments[self.at].1, place) else {
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

    /// Goes on in the next segment, or decides what the end is.
    fn next_segment(&mut self) -> Result<Next, RecoverError> {
        let following = self.segments.get(self.at + 1);
        let opening = following.map(|(number, bytes)| (*number, frame::read_segment(bytes)));
        match opening {
            Some((segment, Opening::Version(found))) => {
                Err(RecoverError::Version { segment, found })
            }
            Some((segment, Opening::Header(found))) if found.place.segment == segment => {
                self.enter(&found)
            }
            _ => self.end(false),
        }
    }

    /// Enters a segment whose header is sound, if it continues the chain.
    fn enter(&mut self, found: &SegmentHeader) -> Result<Next, RecoverError> {
        let segment = found.place.segment;
        if found.header != self.header {
            reach!("wal.recover.foreign");
            let (expected, found) = (self.header, found.header);
            return Err(RecoverError::Foreign { segment, expected, found });
        }
        if (found.place.seq, found.chain) != (self.seq, self.chain) {
            reach!("wal.recover.rot_before_segment");
            // A block that went astray says more than the broken chain.
            self.end(true)?;
            return self.rot(self.segment(), self.offset());
        }
        if found.first != self.next {
            return Err(RecoverError::TokenGap { segment, offset: 0 });
        }
        self.at += 1;
        self.block = 1;
        self.firsts.push_back((segment, found.first));
        Ok(Next::Segment)
    }

    /// The batch that is due cannot be read, and no header continues the chain: looks at all blocks from here on for
    /// what tells a tear from rot. `is_entered`: the next segment's header is sound.
    fn end(&mut self, is_entered: bool) -> Result<Next, RecoverError> {
        let mut tear: Option<Tear> = None;
        let mut torn_here = false;
        for at in self.at..self.segments.len() {
            let (segment, bytes) = &self.segments[at];
            let skip = if at == self.at { self.block } else { 0 };
            let blocks = bytes.chunks(BLOCK_BYTES).enumerate().skip(skip as usize);
            for (block, bytes) in blocks {
                match self.judge(*segment, block as u64, bytes) {
                    Evidence::Nothing => {}
                    Evidence::Stale => tear = tear.or(Some(Tear::Stale)),
                    Evidence::Tear => {
                        torn_here |= at == self.at;
                        tear = Some(Tear::Batch);
                    }
                    Evidence::Astray(place) => {
                        reach!("wal.recover.misdirected");
                        return self.void(misdirected(*segment, block as u64, &place));
                    }
                    Evidence::Later => {
                        return self.rot_at(at > self.at && !torn_here && !is_entered);
                    }
                }
            }
        }
        Ok(Next::End(self.cut(tear)))
    }

    fn judge(&self, segment: u64, block: u64, bytes: &[u8]) -> Evidence {
        let Some(Prefix { place, .. }) = Prefix::parse(bytes) else {
            let is_zero = *bytes == frame::ZERO_BLOCK[..bytes.len()];
            return if is_zero { Evidence::Nothing } else { Evidence::Tear };
        };
        if place.log != self.log || place.seq < self.seq {
            return Evidence::Stale;
        }
        if (place.segment, place.block) != (segment, block) {
            return Evidence::Astray(place);
        }
        if place.seq > self.seq { Evidence::Later } else { Evidence::Tear }
    }

    /// Rot, proved by a block of a later batch. When that is in a later segment and this one ends in nothing, the
    /// damage is in the header of the next.
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

    /// The planted bug: takes what can be read of an unfinished batch.
    fn take_torn(&mut self) {
        let place =
            Place { log: self.log, segment: self.segment(), block: self.block, seq: self.seq };
        let writes = frame::read_torn(&self.segments[self.at].1, place);
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
        // The driver synced what was read here: even an empty segment is durable.
        writer.opening = false;
        writer.firsts = self.firsts;
        Recovered { header: self.header, writes: self.writes, writer, torn }
    }
}

/// What one block says about the end of a log.
enum Evidence {
    /// Zeros.
    Nothing,
    /// An earlier batch, or another log.
    Stale,
    /// A piece of the batch that is due, or bytes that are no block.
    Tear,
    /// A later batch.
    Later,
    /// A block of this log that belongs elsewhere.
    Astray(Place),
}

/// The oldest segment has no sound header. The first segment of a log may be one whose first batch was never durable;
/// any other had a durable batch before it.
fn without_beginning(segments: &[(u64, Bytes)]) -> RecoverError {
    let segment = segments[0].0;
    let later = |(number, bytes): &(u64, Bytes)| {
        let is_later = |(block, bytes): (usize, &[u8])| {
            Prefix::parse(bytes).is_some_and(|Prefix { place, .. }| {
                (place.segment, place.block) == (*number, block as u64) && place.seq > FIRST_BATCH
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

fn misdirected(segment: u64, block: u64, belongs: &Place) -> RecoverError {
    RecoverError::Misdirected {
        segment,
        offset: block * BLOCK_BYTES as u64,
        belongs_segment: belongs.segment,
        belongs_offset: belongs.block.saturating_mul(BLOCK_BYTES as u64),
    }
}
