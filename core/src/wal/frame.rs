//! The bytes of a log: blocks, segment headers, batches.
//!
//! A segment is a row of 4 KiB blocks, and every block begins with a [`Prefix`] that says what it is and where it
//! belongs. So no payload byte ever stands where a block begins: nothing that a client writes can pass for a batch. A
//! prefix carries its own check, so that one sector of a batch is enough to prove that the batch was begun.
//!
//! | block | after the prefix |
//! |---|---|
//! | segment | SHA-256 of the block, federation, node, store, lane, first token, digest of the batch before |
//! | head | SHA-256 of the batch, digest of the batch before, first token, length, records, then the first records |
//! | body | more records of the same batch; zeros fill the last block |
//!
//! Numbers are little-endian. A batch's digest covers its head's prefix and all of its content, and so names its place
//! and its predecessor. Padding carries nothing and is covered by nothing: damage there harms nobody.
//!
//! Not here: which batch follows which (`recover`), where the next one goes (`writer`).

use alloc::vec::Vec;

use super::{Header, Write};
use crate::digest::{Digest, Hasher};
use crate::id::{FederationId, NodeId, StoreId};
use crate::limits::BLOCK_BYTES;
use crate::{codec, mutant};

/// The format that this build writes, and the only one that it reads. The prefix keeps its layout and its check in all
/// versions, so that a later one is told from damage.
pub const VERSION: u16 = 2;

const MAGIC: [u8; 4] = *b"CWAL";
/// Bytes of a block before its content.
pub(super) const PREFIX_BYTES: usize = 48;
/// Bytes of content in one block.
const ROOM_BYTES: usize = BLOCK_BYTES - PREFIX_BYTES;
/// Bytes of a batch's content before its first record.
const HEAD_BYTES: usize = 32 + 32 + 8 + 4 + 4;
/// Bytes of a segment header's content.
const SEGMENT_HEADER_BYTES: usize = 32 + 3 * 16 + 2 + 8 + 32;
/// A block as preallocation leaves it.
pub(super) static ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Segment = 0,
    Head = 1,
    Body = 2,
}

/// The place of a block: in which log, in which segment, where, and of which batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// [`Header::log`].
    pub(super) log: u64,
    pub(super) segment: u64,
    /// Counted in blocks from the segment's start.
    pub(super) block: u64,
    /// The batch; for a segment header the first batch after it.
    pub(super) seq: u64,
}

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) version: u16,
    pub(super) kind: u8,
    pub(super) place: Place,
}

impl Prefix {
    fn new(kind: Kind, place: Place) -> Self {
        Self { version: VERSION, kind: kind as u8, place }
    }

    pub(super) fn encode(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        bytes[6] = self.kind;
        let Place { log, segment, block, seq } = self.place;
        for (at, number) in [log, segment, block, seq].into_iter().enumerate() {
            bytes[8 + 8 * at..16 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        let check = Digest::of(&bytes[..40]).short();
        bytes[40..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// What a block says of itself, if it says so soundly.
    pub(super) fn parse(block: &[u8]) -> Option<Self> {
        let bytes = block.get(..PREFIX_BYTES)?;
        if bytes[..4] != MAGIC {
            return None;
        }
        let number = |at: usize| read_u64(bytes, 8 + 8 * at);
        let place = Place { log: number(0), segment: number(1), block: number(2), seq: number(3) };
        let prefix =
            Self { version: u16::from_le_bytes([bytes[4], bytes[5]]), kind: bytes[6], place };
        (prefix.encode() == bytes).then_some(prefix)
    }
}

impl Header {
    /// A short name of the log, in every block: bytes of another log are never taken for its own.
    pub(super) fn log(&self) -> u64 {
        let mut hash = Hasher::new();
        hash.bytes(b"continuum.wal.log");
        hash.bytes(&self.federation.0);
        hash.bytes(&self.node.0);
        hash.bytes(&self.store.0);
        hash.number(u64::from(self.lane));
        hash.finish().short()
    }
}

/// A segment's first block, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) header: Header,
    pub(super) place: Place,
    /// The number of the first token after it.
    pub(super) first: u64,
    /// The digest of the batch before it; zero at the log's beginning.
    pub(super) chain: Digest,
}

/// What a segment's first block turned out to be.
pub(super) enum Opening {
    /// A header of this version.
    Header(SegmentHeader),
    /// A header of a version that this build does not read.
    Version(u16),
    /// No header: torn, damaged, or not written yet.
    None,
}

/// Appends a segment's header block.
pub(super) fn encode_segment(out: &mut Vec<u8>, segment: &SegmentHeader) {
    let start = out.len();
    let prefix = Prefix::new(Kind::Segment, segment.place).encode();
    out.extend_from_slice(&prefix);
    out.extend_from_slice(&[0; 32]);
    out.extend_from_slice(&segment.header.federation.0);
    out.extend_from_slice(&segment.header.node.0);
    out.extend_from_slice(&segment.header.store.0);
    out.extend_from_slice(&segment.header.lane.to_le_bytes());
    out.extend_from_slice(&segment.first.to_le_bytes());
    out.extend_from_slice(&segment.chain.0);
    let digest = content_digest(&prefix, &out[start + PREFIX_BYTES..]);
    out[start + PREFIX_BYTES..start + PREFIX_BYTES + 32].copy_from_slice(&digest.0);
    out.resize(start + BLOCK_BYTES, 0);
}

/// Reads a segment's first block.
pub(super) fn read_segment(segment: &[u8]) -> Opening {
    let Some(prefix) = segment.get(..BLOCK_BYTES).and_then(Prefix::parse) else {
        return Opening::None;
    };
    if prefix.kind != Kind::Segment as u8 {
        return Opening::None;
    }
    if prefix.version != VERSION {
        return Opening::Version(prefix.version);
    }
    let content = &segment[PREFIX_BYTES..PREFIX_BYTES + SEGMENT_HEADER_BYTES];
    if content_digest(&segment[..PREFIX_BYTES], content).0 != content[..32] {
        return Opening::None;
    }
    let header = Header {
        federation: FederationId(read_array(content, 32)),
        node: NodeId(read_array(content, 48)),
        store: StoreId(read_array(content, 64)),
        lane: u16::from_le_bytes([content[80], content[81]]),
    };
    let chain = Digest(read_array(content, 90));
    let place = prefix.place;
    // A sound header names its own log: another name was not written by this code.
    if place.log != header.log() {
        return Opening::None;
    }
    Opening::Header(SegmentHeader { header, place, first: read_u64(content, 82), chain })
}

/// Starts a batch's content: room for its head, then the records.
pub(super) fn begin_content(content: &mut Vec<u8>) {
    content.clear();
    content.resize(HEAD_BYTES, 0);
}

/// Appends one record to a batch's content.
pub(super) fn push_record(content: &mut Vec<u8>, write: &Write) {
    let start = content.len();
    content.extend_from_slice(&[0; 4]);
    codec::encode_into(write, content);
    let length = u32::try_from(content.len() - start - 4).expect("a record is below 4 GiB");
    content[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// How many blocks a batch of this content takes.
pub(super) const fn blocks(content_bytes: usize) -> usize {
    content_bytes.div_ceil(ROOM_BYTES)
}

/// Fills in the head of a batch's content, appends its blocks to `out`, and returns its digest.
pub(super) fn encode_batch(
    out: &mut Vec<u8>,
    content: &mut [u8],
    place: Place,
    chain: &Digest,
    tokens: (u64, usize),
) -> Digest {
    let length = u32::try_from(content.len() - HEAD_BYTES).expect("a batch is below 4 GiB");
    let records = u32::try_from(tokens.1).expect("a batch has fewer than 2^32 records");
    content[32..64].copy_from_slice(&chain.0);
    content[64..72].copy_from_slice(&tokens.0.to_le_bytes());
    content[72..76].copy_from_slice(&length.to_le_bytes());
    content[76..80].copy_from_slice(&records.to_le_bytes());
    let digest = content_digest(&Prefix::new(Kind::Head, place).encode(), content);
    content[..32].copy_from_slice(&digest.0);
    for (at, piece) in content.chunks(ROOM_BYTES).enumerate() {
        let end = out.len() + BLOCK_BYTES;
        out.extend_from_slice(&nth_prefix(place, at));
        out.extend_from_slice(piece);
        out.resize(end, 0);
    }
    digest
}

/// A whole and sound batch, as read.
pub(super) struct ReadBatch {
    pub(super) digest: Digest,
    /// The digest of the batch before it.
    pub(super) chain: Digest,
    /// The number of its first token.
    pub(super) first: u64,
    pub(super) records: u32,
    pub(super) blocks: usize,
    content: Vec<u8>,
}

impl ReadBatch {
    /// Its writes, in order; `None` when the records are not what this build writes.
    pub(super) fn writes(&self) -> Option<Vec<Write>> {
        let mut rest = &self.content[HEAD_BYTES..];
        let mut writes = Vec::new();
        for _ in 0..self.records {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let write: Write = codec::decode(record, record.len()).ok()?;
            // Pieces of side files have their own files.
            if write.chunk().is_some() {
                return None;
            }
            writes.push(write);
            rest = after;
        }
        rest.is_empty().then_some(writes)
    }
}

/// Reads the batch at a place: `None` when any block of it is absent, elsewhere, or damaged.
pub(super) fn read_batch(segment: &[u8], place: Place) -> Option<ReadBatch> {
    let start = usize::try_from(place.block).ok()?.checked_mul(BLOCK_BYTES)?;
    let bytes = segment.get(start..)?;
    let head = content_of(bytes, place, 0)?;
    let length = u32::from_le_bytes(read_array(head, 72)) as usize;
    let content_bytes = HEAD_BYTES.checked_add(length)?;
    let count = blocks(content_bytes);
    // Bounded by what is there, before anything is allocated.
    if count > bytes.len() / BLOCK_BYTES {
        return None;
    }
    let mut content = Vec::with_capacity(count * ROOM_BYTES);
    for at in 0..count {
        content.extend_from_slice(content_of(bytes, place, at)?);
    }
    content.truncate(content_bytes);
    let digest = content_digest(&bytes[..PREFIX_BYTES], &content);
    if digest.0 != content[..32] && !mutant!("wal.checksum.skipped") {
        return None;
    }
    Some(ReadBatch {
        digest,
        chain: Digest(read_array(&content, 32)),
        first: read_u64(&content, 64),
        records: u32::from_le_bytes(read_array(&content, 76)),
        blocks: count,
        content,
    })
}

/// What can be read of an unfinished batch: for the planted bug that takes it for whole.
pub(super) fn read_torn(segment: &[u8], place: Place) -> Vec<Write> {
    let blocks = segment.chunks_exact(BLOCK_BYTES).skip(place.block as usize);
    let content: Vec<u8> = blocks.flat_map(|block| &block[PREFIX_BYTES..]).copied().collect();
    let mut rest = content.get(HEAD_BYTES..).unwrap_or_default();
    let mut writes = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((record, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize)
        else {
            break;
        };
        let Ok(write) = codec::decode(record, record.len()) else { break };
        writes.push(write);
        rest = after;
    }
    writes
}

/// The content of a batch's n-th block, if the block is there and says that it is that.
fn content_of(bytes: &[u8], place: Place, at: usize) -> Option<&[u8]> {
    let block = bytes.get(at * BLOCK_BYTES..)?.get(..BLOCK_BYTES)?;
    let (prefix, content) = block.split_at(PREFIX_BYTES);
    (prefix == nth_prefix(place, at)).then_some(content)
}

/// The prefix of a batch's n-th block.
fn nth_prefix(place: Place, at: usize) -> [u8; PREFIX_BYTES] {
    let kind = if at == 0 { Kind::Head } else { Kind::Body };
    Prefix::new(kind, Place { block: place.block + at as u64, ..place }).encode()
}

/// SHA-256 over a prefix and the content behind its own digest.
fn content_digest(prefix: &[u8], content: &[u8]) -> Digest {
    let mut hash = Hasher::new();
    hash.bytes(prefix);
    hash.bytes(&content[32..]);
    hash.finish()
}

/// A fixed number of bytes; callers have checked that they are there.
fn read_array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(read_array(bytes, at))
}
