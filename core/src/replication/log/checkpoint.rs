//! Checkpoints: the capture of a shard's state in a snapshot file, in slices, while the shard is written to.
//!
//! The file has a header, and the context and deferred removals as of the beginning, in parts; then the live writes in
//! the order of their dots, each as it is when the cursor passes it, except those that arrived after the beginning;
//! then every record that was issued meanwhile, the *tail*.
//!
//! # Why it restores the state of its end
//!
//! Let S be the state at the beginning. The live writes of the file differ from those of S only in elements that were
//! removed before the cursor came. A record of the tail caused each such removal. Replaying the tail causes it again,
//! which changes nothing: removals are idempotent, and nothing else is taken from S. All new elements are in the tail,
//! because their dots are not in the context at the beginning. One thing can differ: in a discarding shard, a new
//! element may have lost to a sibling that was removed before the cursor came; a replay would keep the new element. But
//! the record of its write carries the live edits, so the replay removes it as well. No capture begins while a removal
//! is being swept, because S would have its dot and what it has yet to remove.
//!
//! A record names the file once all of it is durable. Records that were issued since the tail ended stand before it in
//! the log: it says how many, and a restart replays them after the file.
//!
//! This module does not decide about files, their names, or when to checkpoint.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::files::WINDOW_PIECES;
use crate::limits::CHUNK_BYTES_MAX;
use crate::{mutant, reach};

use super::{Header, Record, encode};
use crate::id::Dot;
use crate::replication::shard::{Cover, Deferred, Dots, Join, LocalDot, Shard};

/// Ranges or deferred removals in one part of the head.
const PART_ENTRIES: usize = 2048;
/// The budget that visiting a write takes beside its bytes.
const VISIT_BYTES: usize = 32;

/// A checkpoint under way.
#[derive(Debug)]
pub(crate) struct Capture {
    /// All dots seen when the capture began.
    context: Dots,
    /// Where the next part of the context begins; `None` after the last part.
    next_part: Option<(usize, usize)>,
    /// Deferred removals that are not in the file yet.
    deferred: Vec<(Dot, Deferred)>,
    /// Covers that are not in the file yet.
    covers: Vec<Cover>,
    /// The bound below the next live write; `None` after the last write.
    cursor: Option<Bound<LocalDot>>,
    /// Records issued since the beginning that are not in the file yet.
    tail: VecDeque<Bytes>,
    /// Bytes of the file that fill no chunk yet.
    buffer: Vec<u8>,
    /// The offset of the next piece.
    offset: u64,
    hash: Sha256,
    /// Bytes of the file that are durable.
    durable: u64,
    /// The number of records issued since the last piece, once there is one.
    since: Option<u64>,
}

/// A file that is complete and durable.
pub(crate) struct Done {
    pub(crate) length: u64,
    pub(crate) digest: Digest,
    /// The number of records that were issued since its end.
    pub(crate) since: u64,
}

impl Capture {
    /// Begins a capture. The shard is not being swept: the file would have the context of a removal, and what that
    /// removal has yet to remove.
    pub(crate) fn new(shard: &Shard) -> Self {
        let header = Header { shard: shard.id, stamp: shard.stamp, discard: shard.discard };
        let mut capture = Self {
            context: shard.dots(),
            next_part: Some((0, 0)),
            deferred: shard.deferred().map(|(dot, deferred)| (dot, *deferred)).collect(),
            covers: shard.waiting_covers().collect(),
            cursor: Some(Bound::Unbounded),
            tail: VecDeque::new(),
            buffer: Vec::new(),
            offset: 0,
            hash: Sha256::new(),
            durable: 0,
            since: None,
        };
        capture.push(&encode(&Record::Header(header)));
        capture
    }

    /// Adds records that were issued during the capture.
    pub(crate) fn add_records(&mut self, records: &[Bytes]) {
        match &mut self.since {
            Some(since) => *since += records.len() as u64,
            None => self.tail.extend(records.iter().cloned()),
        }
    }

    /// Whether it has nothing to do until more of the file is durable.
    pub(crate) const fn waits(&self) -> bool {
        self.since.is_some()
            || self.offset - self.durable >= (WINDOW_PIECES * CHUNK_BYTES_MAX) as u64
    }

    /// The first `bytes` bytes of the file are durable. Returns the result once that is all of it.
    pub(crate) fn written(&mut self, bytes: u64) -> Option<Done> {
        self.durable = bytes;
        let since = self.since.take_if(|_| bytes == self.offset)?;
        let since = if mutant!("replication.checkpoint.since_lost") { 0 } else { since };
        let digest = Digest(self.hash.clone().finalize().into());
        Some(Done { length: self.offset, digest, since })
    }

    /// Captures about `bytes` more bytes: pieces of the file, each with its offset and whether it is the last. The
    /// budget grows with the tail, so that the checkpoint of a busy shard ends.
    pub(crate) fn slice(&mut self, shard: &Shard, bytes: usize) -> Vec<(u64, Bytes, bool)> {
        let mut budget = bytes + self.tail.iter().map(Bytes::len).sum::<usize>() / 4;
        self.copy_head(&mut budget);
        self.copy_live_writes(shard, &mut budget);
        while self.cursor.is_none() && budget > 0 {
            let Some(record) = self.tail.pop_front() else { break };
            budget = budget.saturating_sub(record.len() + VISIT_BYTES);
            self.push(&record);
        }
        let complete = self.cursor.is_none() && self.tail.is_empty();
        if complete {
            self.since = Some(0);
        }
        self.take_pieces(complete)
    }

    /// Copies the context and the deferred removals, in parts.
    fn copy_head(&mut self, budget: &mut usize) {
        while *budget > 0 {
            let mut part = Join::default();
            if let Some(from) = self.next_part {
                (part.context, self.next_part) = self.context.part(from, PART_ENTRIES);
            } else if !self.deferred.is_empty() {
                let rest = self.deferred.len().saturating_sub(PART_ENTRIES);
                part.deferred = self.deferred.split_off(rest);
            } else if let Some(cover) = self.covers.pop() {
                part.covers.push(cover);
            } else {
                return;
            }
            let is_lost = self.next_part.is_none() && mutant!("replication.checkpoint.short");
            if !part.is_empty() && !is_lost {
                let record = encode(&Record::Join(part));
                *budget = budget.saturating_sub(record.len());
                self.push(&record);
            }
        }
    }

    fn copy_live_writes(&mut self, shard: &Shard, budget: &mut usize) {
        let Some(cursor) = self.cursor else { return };
        if self.next_part.is_some() || !self.deferred.is_empty() || !self.covers.is_empty() {
            return;
        }
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

    /// Takes full pieces from the front of the buffer, and the rest when the file is complete. Each byte is copied
    /// once.
    fn take_pieces(&mut self, complete: bool) -> Vec<(u64, Bytes, bool)> {
        let rest = if complete { 0 } else { self.buffer.len() % CHUNK_BYTES_MAX };
        let whole = self.buffer.len() - rest;
        let mut pieces = Vec::new();
        for piece in self.buffer[..whole].chunks(CHUNK_BYTES_MAX) {
            self.hash.update(piece);
            pieces.push((self.offset, Bytes::copy_from_slice(piece), false));
            self.offset += piece.len() as u64;
        }
        match pieces.last_mut() {
            Some((_, _, is_last)) => *is_last = complete,
            None if complete => pieces.push((self.offset, Bytes::new(), true)),
            None => {}
        }
        self.buffer.drain(..whole);
        self.buffer.shrink_to(CHUNK_BYTES_MAX);
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Actor, Boot, NamespaceId, ShardId};
    use crate::replication::log::{RestoredShard, restore};
    use crate::replication::shard::Ranges;

    const SHARD: ShardId = ShardId { namespace: NamespaceId(7), slot: 0 };

    fn capture(shard: &Shard) -> (Bytes, usize) {
        let (mut capture, mut file, mut slices) = (Capture::new(shard), Vec::new(), 0);
        loop {
            slices += 1;
            let pieces = capture.slice(shard, 64 << 10);
            let bytes: usize = pieces.iter().map(|(_, piece, _)| piece.len()).sum();
            assert!(bytes <= 2 * CHUNK_BYTES_MAX, "a slice has a bound");
            let is_complete = pieces.last().is_some_and(|(_, _, is_last)| *is_last);
            for (offset, piece, _) in pieces {
                assert!(offset == file.len() as u64 && piece.len() <= CHUNK_BYTES_MAX);
                file.extend_from_slice(&piece);
            }
            if is_complete {
                assert!(capture.written(file.len() as u64 - 1).is_none());
                let done = capture.written(file.len() as u64).expect("all of it is durable");
                assert_eq!((done.length, done.digest), (file.len() as u64, Digest::of(&file)));
                return (file.into(), slices);
            }
        }
    }

    /// A head that is longer than any record may be.
    #[test]
    fn a_head_of_any_size_is_captured_in_slices_and_restores() {
        let actor = |count| Actor { boot: Boot { count, nonce: 0 }, ..Actor::default() };
        let (mut ranges, mut deferred) = (Ranges::default(), Vec::new());
        for at in 0..2_000_000 {
            ranges.insert_span((1 << 42) + 2 * at, (1 << 42) + 2 * at);
        }
        for seq in 1..=crate::limits::DEFERRED_MAX as u64 {
            let digest = Digest::of(&seq.to_be_bytes());
            let level = crate::replication::shard::Level::Path;
            deferred.push((Dot { actor: actor(2), seq }, Deferred::Scope { level, digest }));
        }
        let context = Dots::new([(actor(1), ranges)].into());
        let mut shard = Shard::new(SHARD);
        shard.join(&Join { context, deferred, stamp: 99, ..Join::default() });
        let counted = shard.bytes();
        assert!(counted > 16 * 2_000_000 + 100 * crate::limits::DEFERRED_MAX as u64);
        let (file, slices) = capture(&shard);
        assert!(file.len() > crate::limits::LOG_BATCH_BYTES_MAX && slices > 80);
        let restored = RestoredShard { snapshot: Some(file), ..RestoredShard::default() };
        let again = restore(SHARD, &restored).expect("what was written restores");
        assert_eq!((again.root(), again.stamp, again.bytes()), (shard.root(), 99, counted));
        assert!(again.deferred().eq(shard.deferred()));
    }
}
