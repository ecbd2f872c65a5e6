//! The bytes of a log: blocks, segment headers, batches.
//!
//! A log is a row of segments (files). A segment is a row of 4 KiB blocks. A batch takes whole blocks, so each batch
//! begins at a block, and zeros fill the rest of its last block:
//!
//! ```text
//! segment 1   | segment header | batch 1: head | batch 1: body | batch 2: head | zeros (preallocated) ...
//! segment 2   | segment header | batch 3: head | ...
//!
//! every block                       segment header, after the prefix     batch head, after the prefix
//!   0  magic "CWAL"          4       48  digest of this block    32       48  digest of this batch    32
//!   4  version               2       80  federation              16       80  digest of the previous  32
//!   6  kind                  1       96  node                    16      112  first token              8
//!   7  zero                  1      112  store                   16      120  bytes of the records     4
//!   8  log                   8      128  lane                     2      124  number of records        4
//!  16  segment               8      130  first token              8      128  records ...
//!  24  block                 8      138  digest of the previous  32
//!  32  batch                 8      170  zeros                          batch body, after the prefix
//!  40  check of 0..40        8                                           48  records, continued
//!  48  content ...
//!
//! a record:  length 4 | postcard bytes      a seal:  a batch of 0 records
//! ```
//!
//! Numbers are little-endian; the columns are offset, meaning and length in bytes. "Previous" is the batch before, so
//! that the batches form a chain. Kind is 0 for a segment header, 1 for a head, 2 for a body. `log` is a short hash of
//! the log's header, `block` counts from the segment's start, and in a segment header `batch` is the first one after
//! it.
//!
//! Every block begins with a prefix that names its position, so no payload byte is ever where a block begins: nothing
//! that a client writes can pass for a batch. The prefix has its own check, so one sector of a batch proves that the
//! batch was begun. A batch's digest covers its head's prefix and all of its content, and with them its position and
//! its predecessor. Nothing covers the zeros after the content: damage there does no harm.
//!
//! # Tear, hole and rot
//!
//! * A *tear* is a last batch that is incomplete, because a crash interrupted its write. It was never durable, and
//!   recovery cuts it.
//! * A *hole* is a segment that is missing between two others.
//! * *Rot* is damage to a batch that was durable. The store is void, because it can no longer keep its promises.
//!
//! This module does not decide which batch follows which (`recover`) or where the next one goes (`writer`).

use alloc::vec::Vec;

use super::{Header, Write};
use crate::digest::{Digest, Hasher};
use crate::id::{FederationId, NodeId, StoreId};
use crate::limits::BLOCK_BYTES;
use crate::{codec, mutant};

/// The format that this build writes, and the only one that it reads. The prefix has the same layout and check in all
/// versions, so that recovery distinguishes a later version from damage.
pub const VERSION: u16 = 6;

const MAGIC: [u8; 4] = *b"CWAL";
/// The bytes of a block before its content.
pub(super) const PREFIX_BYTES: usize = 48;
/// The bytes of content in one block.
const ROOM_BYTES: usize = BLOCK_BYTES - PREFIX_BYTES;
/// The bytes of a batch's content before its first record.
const HEAD_BYTES: usize = 32 + 32 + 8 + 4 + 4;
/// The bytes of a segment header's content.
const SEGMENT_HEADER_BYTES: usize = 32 + 3 * 16 + 2 + 8 + 32;
/// A block as preallocation leaves it.
pub(super) static ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// The kind of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Segment = 0,
    Head = 1,
    Body = 2,
}

/// The address of a block: its log, its segment, its position there, and its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockAddress {
    /// [`Header::log`].
    pub(super) log: u64,
    pub(super) segment: u64,
    /// Counted in blocks from the segment's start.
    pub(super) block: u64,
    /// The batch; for a segment header the first batch after it.
    pub(super) seq: u64,
}

/// The part of a block that says what the block is and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) version: u16,
    pub(super) kind: u8,
    pub(super) address: BlockAddress,
}

impl Prefix {
    fn new(kind: Kind, address: BlockAddress) -> Self {
        Self { version: VERSION, kind: kind as u8, address }
    }

    pub(super) fn encode(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        bytes[6] = self.kind;
        let BlockAddress { log, segment, block, seq } = self.address;
        for (at, number) in [log, segment, block, seq].into_iter().enumerate() {
            bytes[8 + 8 * at..16 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        let check = Digest::of(&bytes[..40]).short();
        bytes[40..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads a block's prefix. `None` if it is damaged or the block has none.
    pub(super) fn parse(block: &[u8]) -> Option<Self> {
        let bytes = block.get(..PREFIX_BYTES)?;
        if bytes[..4] != MAGIC {
            return None;
        }
        let number = |at: usize| read_u64(bytes, 8 + 8 * at);
        let address =
            BlockAddress { log: number(0), segment: number(1), block: number(2), seq: number(3) };
        let prefix =
            Self { version: u16::from_le_bytes([bytes[4], bytes[5]]), kind: bytes[6], address };
        (prefix.encode() == bytes).then_some(prefix)
    }
}

impl Header {
    /// A short hash of the header, in every block, so that recovery never takes another log's blocks for its own.
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

/// The content of a segment's first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) header: Header,
    pub(super) address: BlockAddress,
    /// The number of the first token in the segment.
    pub(super) first: u64,
    /// The digest of the batch before the segment; zero in the log's first one.
    pub(super) chain: Digest,
}

/// The result of reading a segment's first block.
pub(super) enum SegmentStart {
    /// A header of this version.
    Header(SegmentHeader),
    /// A header of a version that this build cannot read.
    Version(u16),
    /// No sound header: it is torn, damaged, or not written yet.
    None,
}

/// Appends a segment's header block.
pub(super) fn encode_segment(out: &mut Vec<u8>, segment: &SegmentHeader) {
    let start = out.len();
    let prefix = Prefix::new(Kind::Segment, segment.address).encode();
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
pub(super) fn read_segment(segment: &[u8]) -> SegmentStart {
    let Some(prefix) = segment.get(..BLOCK_BYTES).and_then(Prefix::parse) else {
        return SegmentStart::None;
    };
    if prefix.kind != Kind::Segment as u8 {
        return SegmentStart::None;
    }
    if prefix.version != VERSION {
        return SegmentStart::Version(prefix.version);
    }
    let content = &segment[PREFIX_BYTES..PREFIX_BYTES + SEGMENT_HEADER_BYTES];
    if content_digest(&segment[..PREFIX_BYTES], content).0 != content[..32] {
        return SegmentStart::None;
    }
    let header = Header {
        federation: FederationId(read_array(content, 32)),
        node: NodeId(read_array(content, 48)),
        store: StoreId(read_array(content, 64)),
        lane: u16::from_le_bytes([content[80], content[81]]),
    };
    let chain = Digest(read_array(content, 90));
    let address = prefix.address;
    // The prefix of a sound header matches its content.
    if address.log != header.log() {
        return SegmentStart::None;
    }
    SegmentStart::Header(SegmentHeader { header, address, first: read_u64(content, 82), chain })
}

/// Starts a batch's content with room for its head. The records follow.
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

/// The number of blocks that a batch with this content takes.
pub(super) const fn blocks(content_bytes: usize) -> usize {
    content_bytes.div_ceil(ROOM_BYTES)
}

/// Fills in the head of a batch's content, appends its blocks to `out`, and returns its digest.
pub(super) fn encode_batch(
    out: &mut Vec<u8>,
    content: &mut [u8],
    address: BlockAddress,
    chain: &Digest,
    tokens: (u64, usize),
) -> Digest {
    let length = u32::try_from(content.len() - HEAD_BYTES).expect("a batch is below 4 GiB");
    let records = u32::try_from(tokens.1).expect("a batch has fewer than 2^32 records");
    content[32..64].copy_from_slice(&chain.0);
    content[64..72].copy_from_slice(&tokens.0.to_le_bytes());
    content[72..76].copy_from_slice(&length.to_le_bytes());
    content[76..80].copy_from_slice(&records.to_le_bytes());
    let digest = content_digest(&Prefix::new(Kind::Head, address).encode(), content);
    content[..32].copy_from_slice(&digest.0);
    for (at, piece) in content.chunks(ROOM_BYTES).enumerate() {
        let end = out.len() + BLOCK_BYTES;
        out.extend_from_slice(&nth_prefix(address, at));
        out.extend_from_slice(piece);
        out.resize(end, 0);
    }
    digest
}

/// A batch that was read and whose digest matches.
pub(super) struct ReadBatch {
    pub(super) digest: Digest,
    /// The digest of the batch before it.
    pub(super) chain: Digest,
    /// The number of the batch's first token.
    pub(super) first: u64,
    pub(super) records: u32,
    pub(super) blocks: usize,
    content: Vec<u8>,
}

impl ReadBatch {
    /// The records, in order. `None` if this build cannot decode one.
    pub(super) fn writes(&self) -> Option<Vec<Write>> {
        let mut rest = &self.content[HEAD_BYTES..];
        let mut writes = Vec::new();
        for _ in 0..self.records {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let write: Write = codec::decode(record, record.len()).ok()?;
            writes.push(write);
            rest = after;
        }
        rest.is_empty().then_some(writes)
    }
}

/// Reads the batch at an address. `None` if one of its blocks is absent, misplaced or damaged.
pub(super) fn read_batch(segment: &[u8], address: BlockAddress) -> Option<ReadBatch> {
    let start = usize::try_from(address.block).ok()?.checked_mul(BLOCK_BYTES)?;
    let bytes = segment.get(start..)?;
    let head = content_of(bytes, address, 0)?;
    let length = u32::from_le_bytes(read_array(head, 72)) as usize;
    let content_bytes = HEAD_BYTES.checked_add(length)?;
    let count = blocks(content_bytes);
    // The segment bounds the length before it is used to allocate memory.
    if count > bytes.len() / BLOCK_BYTES {
        return None;
    }
    let mut content = Vec::with_capacity(count * ROOM_BYTES);
    for at in 0..count {
        content.extend_from_slice(content_of(bytes, address, at)?);
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

/// The readable records of an unfinished batch, for the planted bug that accepts a torn batch.
pub(super) fn read_torn(segment: &[u8], address: BlockAddress) -> Vec<Write> {
    let blocks = segment.chunks_exact(BLOCK_BYTES).skip(address.block as usize);
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

/// The content of a batch's n-th block, if the block is there and its prefix matches.
fn content_of(bytes: &[u8], address: BlockAddress, at: usize) -> Option<&[u8]> {
    let block = bytes.get(at * BLOCK_BYTES..)?.get(..BLOCK_BYTES)?;
    let (prefix, content) = block.split_at(PREFIX_BYTES);
    (prefix == nth_prefix(address, at)).then_some(content)
}

/// The prefix of a batch's n-th block.
fn nth_prefix(address: BlockAddress, at: usize) -> [u8; PREFIX_BYTES] {
    let kind = if at == 0 { Kind::Head } else { Kind::Body };
    Prefix::new(kind, BlockAddress { block: address.block + at as u64, ..address }).encode()
}

/// SHA-256 over a prefix and the content after the content's own digest.
fn content_digest(prefix: &[u8], content: &[u8]) -> Digest {
    let mut hash = Hasher::new();
    hash.bytes(prefix);
    hash.bytes(&content[32..]);
    hash.finish()
}

/// `N` bytes from `at` on. The caller has checked the length.
fn read_array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(read_array(bytes, at))
}
