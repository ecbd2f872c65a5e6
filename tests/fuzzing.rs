//! The bodies of the fuzz targets: each feeds hostile bytes to a decoder and checks its answer.
//!
//! The targets under `fuzz/` only call these functions. `tests/corpora.rs` runs the committed corpora through them too.

use std::sync::OnceLock;

use bytes::Bytes;
use continuum_core::id::{FederationId, GroupId, Index, NodeId, StoreId, Term, Token};
use continuum_core::limits::BLOCK_BYTES;
use continuum_core::node::Message;
use continuum_core::raft;
use continuum_core::raft::{Entry, Payload};
use continuum_core::wal::{Header, LogWriter, Write, recover};
use continuum_runtime::link::frame::{Decoded, HEADER_BYTES, decode, encode};

const BATCHES: u64 = 8;

/// A sound log of several batches in one segment: its bytes, and the offset of each batch.
fn log() -> &'static (Vec<u8>, Vec<u64>) {
    static LOG: OnceLock<(Vec<u8>, Vec<u64>)> = OnceLock::new();
    LOG.get_or_init(|| {
        let header = Header {
            federation: FederationId([1; 16]),
            node: NodeId([2; 16]),
            store: StoreId([3; 16]),
            lane: 0,
        };
        let mut writer = LogWriter::new(header);
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for seq in 1..=BATCHES {
            let batch = writer.encode(&[(Token { lane: 0, seq }, write(seq))]);
            // The segment's header precedes its first batch.
            let header = if batch.opens_segment { BLOCK_BYTES as u64 } else { 0 };
            starts.push(batch.offset + header);
            bytes.extend_from_slice(&batch.bytes);
        }
        bytes.extend_from_slice(&[0; 4 * BLOCK_BYTES]);
        (bytes, starts)
    })
}

/// The write of one batch. Every third one takes several blocks.
fn write(seq: u64) -> Write {
    let length = if seq.is_multiple_of(3) { 9000 } else { 40 };
    let payload = Payload::Command(Bytes::from(vec![seq as u8; length]));
    let entry = Entry { term: Term(1), time_ms: seq, payload };
    let write = raft::Write::Append { prev: Index(seq - 1), entries: vec![entry] };
    Write::Group { group: GroupId(1), write }
}

/// Recovers a log from arbitrary bytes, and from a sound log after arbitrary edits.
///
/// # Panics
///
/// If recovery panics; if it returns writes that were never written, or returns them out of order; if it drops a batch
/// although a later one is intact, which proves that the batch was durable.
pub fn recovery(input: &[u8]) {
    // Any answer is right, as long as there is no panic.
    let _ = recover(vec![(1, Bytes::copy_from_slice(input))]);
    let (sound, starts) = log();
    let mut bytes = sound.clone();
    for edit in input.chunks_exact(4).take(64) {
        let block = usize::from(edit[0]) % (bytes.len() / BLOCK_BYTES);
        let offset = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % BLOCK_BYTES;
        bytes[block * BLOCK_BYTES + offset] ^= edit[3];
    }
    let Ok(recovered) = recover(vec![(1, Bytes::from(bytes.clone()))]) else { return };
    for (at, (token, found)) in recovered.writes.iter().enumerate() {
        let seq = at as u64 + 1;
        assert_eq!((token.seq, found), (seq, &write(seq)), "a write that was never written");
    }
    for start in starts.iter().skip(recovered.writes.len() + 1) {
        let head = *start as usize..*start as usize + BLOCK_BYTES;
        assert_ne!(bytes[head.clone()], sound[head], "recovery cut a durable batch as a tear");
    }
}

/// Decodes frames from arbitrary bytes, one after another, as a link does.
///
/// # Panics
///
/// If decoding panics, accepts a message whose encoding differs from its bytes, or consumes nothing.
pub fn frame(input: &[u8]) {
    let mut rest = input;
    loop {
        let used = match decode(rest) {
            Ok(Decoded::Keepalive(used)) => {
                assert_eq!(used, HEADER_BYTES, "a keepalive is only a header");
                used
            }
            Ok(Decoded::Message(message, used)) => {
                let again =
                    encode(message.as_ref()).expect("a message from a frame fits into a frame");
                assert_eq!(again, rest[..used], "a message with two encodings");
                used
            }
            Ok(Decoded::Unknown(kind, used)) => {
                assert!(kind >= Message::KINDS, "a kind that this build knows");
                used
            }
            Ok(Decoded::Incomplete) | Err(_) => return,
        };
        rest = &rest[used..];
    }
}
