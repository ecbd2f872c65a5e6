//! Snapshot files on their way to the disk: beside the log, and not in its order.
//!
//! A file is written in pieces. A driver takes the pieces of all files in one order of their own, so that a large file
//! delays no vote and no acknowledgement, and reports how many pieces are durable. A record of the log may name a file
//! only once its last piece is durable; until then no restart needs the file. On a full disk the driver gives the file
//! up and says so, and the log keeps what room there is.
//!
//! [`Files`] counts the pieces and knows the files that no record names yet. It decides neither when a file is written
//! nor when it is dropped.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::digest::Hasher;
use crate::id::{Owner, SnapshotId};
use crate::mutant;

/// Full pieces on their way to the disk past which a checkpoint waits: enough to keep a disk busy.
pub const WINDOW_PIECES: usize = 4;

/// A piece of a snapshot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub snapshot: SnapshotId,
    /// The piece's first byte in the file. The first piece of a file has 0 and begins it anew; each other one follows
    /// the piece before.
    pub offset: u64,
    /// At most [`crate::limits::CHUNK_BYTES_MAX`] bytes; none in a last piece that only ends the file.
    pub data: Bytes,
    /// Whether the file is complete with this piece.
    pub is_last: bool,
}

impl Piece {
    /// The length of the file with this piece.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// How much of a file is durable now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The owner of the file.
    pub owner: Owner,
    /// The file.
    pub snapshot: SnapshotId,
    /// Its first N bytes are durable.
    pub bytes: u64,
    /// Whether that is the whole file.
    pub is_whole: bool,
}

/// A piece on its way.
#[derive(Clone, Copy, Debug)]
struct Issued {
    number: u64,
    bytes: usize,
    written: Written,
}

/// The snapshot files that no record names yet, and their pieces on the way to the disk.
#[derive(Debug)]
pub struct Files {
    /// The bytes of a full piece.
    piece_bytes: usize,
    /// Pieces so far.
    issued: u64,
    /// In the order of their numbers.
    waiting: VecDeque<Issued>,
    /// Bytes of the pieces in `waiting`.
    bytes: usize,
    open: BTreeMap<SnapshotId, Owner>,
}

impl Files {
    /// No files, whose full pieces will have this many bytes.
    #[must_use]
    pub const fn new(piece_bytes: usize) -> Self {
        Self { piece_bytes, issued: 0, waiting: VecDeque::new(), bytes: 0, open: BTreeMap::new() }
    }

    /// Gives a piece its number: pieces are numbered from 1.
    pub fn issue(&mut self, owner: Owner, piece: &Piece) -> u64 {
        self.issued += 1;
        self.open.insert(piece.snapshot, owner);
        let (number, bytes) = (self.issued, piece.data.len());
        let (snapshot, end, is_whole) = (piece.snapshot, piece.end(), piece.is_last);
        let written = Written { owner, snapshot, bytes: end, is_whole };
        self.waiting.push_back(Issued { number, bytes, written });
        self.bytes += bytes;
        number
    }

    /// All pieces up to this number are durable, but for those of files that were given up. Adds what that means for
    /// each file, in the order of the pieces. A number that was never issued means nothing more than the newest one.
    pub fn written(&mut self, number: u64, into: &mut Vec<Written>) {
        while let Some(piece) = self.waiting.pop_front_if(|piece| piece.number <= number) {
            self.bytes -= piece.bytes;
            match into.last_mut().filter(|last| last.snapshot == piece.written.snapshot) {
                Some(last) => *last = piece.written,
                None => into.push(piece.written),
            }
        }
    }

    /// Takes out a file that is not wanted any more, or that the disk gave up: reports about its pieces mean nothing
    /// from now on. Returns its owner, if no record names it.
    pub fn drop_file(&mut self, snapshot: SnapshotId) -> Option<Owner> {
        let owner = self.open.remove(&snapshot)?;
        if !mutant!("files.dropped_pieces_count") {
            self.waiting.retain(|piece| piece.written.snapshot != snapshot);
            self.bytes = self.waiting.iter().map(|piece| piece.bytes).sum();
        }
        Some(owner)
    }

    /// A record names the file: it is no longer this list's.
    pub fn named(&mut self, snapshot: SnapshotId) {
        self.open.remove(&snapshot);
    }

    /// The files of an owner that no record names.
    pub fn of(&self, owner: Owner) -> impl Iterator<Item = SnapshotId> + '_ {
        self.open.iter().filter(move |(_, of)| **of == owner).map(|(snapshot, _)| *snapshot)
    }

    /// The number of files that no record names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether each file has its record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Bytes on their way to the disk.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a checkpoint may hand out another piece now.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.bytes < WINDOW_PIECES * self.piece_bytes
    }

    /// Feeds the state into a hash.
    pub fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.issued, self.waiting.len() as u64, self.bytes as u64));
        self.open.iter().for_each(|entry| hash.value(&entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, ShardId};

    const GROUP: Owner = Owner::Group(GroupId(1));
    const SHARD: Owner = Owner::Shard(ShardId { namespace: crate::id::NamespaceId(1), slot: 0 });

    fn piece(snapshot: u64, offset: u64, length: usize, is_last: bool) -> Piece {
        let data = alloc::vec![7; length].into();
        Piece { snapshot: SnapshotId(snapshot), offset, data, is_last }
    }

    fn written(files: &mut Files, number: u64) -> Vec<Written> {
        let mut all = Vec::new();
        files.written(number, &mut all);
        all
    }

    #[test]
    fn pieces_of_two_files_are_counted_in_one_order() {
        let mut files = Files::new(64);
        assert_eq!(files.issue(GROUP, &piece(1, 0, 10, false)), 1);
        assert_eq!(files.issue(GROUP, &piece(1, 10, 10, false)), 2);
        assert_eq!(files.issue(SHARD, &piece(2, 0, 5, true)), 3);
        assert_eq!(files.issue(GROUP, &piece(1, 20, 0, true)), 4);
        assert_eq!((files.bytes(), files.len()), (25, 2));
        let of = |owner, snapshot, bytes, is_whole| Written {
            owner,
            snapshot: SnapshotId(snapshot),
            bytes,
            is_whole,
        };
        let first = of(GROUP, 1, 20, false);
        assert_eq!(written(&mut files, 3), [first, of(SHARD, 2, 5, true)]);
        assert_eq!(written(&mut files, u64::MAX), [of(GROUP, 1, 20, true)]);
        assert_eq!((files.bytes(), files.len()), (0, 2), "no record names them yet");
        files.named(SnapshotId(1));
        assert_eq!(files.of(SHARD).collect::<Vec<_>>(), [SnapshotId(2)]);
        assert_eq!(files.of(GROUP).count(), 0);
    }

    /// A file that was dropped and begun again is another file, though its name is the same.
    #[test]
    fn a_report_about_a_dropped_file_says_nothing_of_its_successor() {
        let mut files = Files::new(64);
        files.issue(GROUP, &piece(1, 0, 10, false));
        assert_eq!(files.drop_file(SnapshotId(1)), Some(GROUP));
        assert_eq!(files.drop_file(SnapshotId(1)), None);
        let again = files.issue(GROUP, &piece(1, 0, 10, false));
        assert_eq!(written(&mut files, again - 1), []);
        assert_eq!(files.bytes(), 10);
        assert_eq!(written(&mut files, again).len(), 1);
    }

    #[test]
    fn a_full_window_has_no_room() {
        let mut files = Files::new(64);
        files.issue(GROUP, &piece(1, 0, WINDOW_PIECES * 64 - 1, false));
        assert!(files.has_room());
        files.issue(GROUP, &piece(1, 0, 1, true));
        assert!(!files.has_room());
        written(&mut files, 1);
        assert!(files.has_room() && !files.is_empty());
    }
}
