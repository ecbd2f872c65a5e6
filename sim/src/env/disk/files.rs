//! Snapshot files on a disk: written in pieces beside the log, and synced on their own.
//!
//! No record names a file before its last piece is durable, and a restart deletes files that no record names. So a
//! crash needs no fate for pieces under way: nothing depends on them.
//!
//! A disk without room gives a file up and ignores its later pieces until it is told to delete it.

use std::collections::BTreeSet;

use continuum_core::files::Piece;
use continuum_core::id::{SnapshotId, Token};
use continuum_core::wal::Write;

use super::Disk;

/// Pieces that are not durable yet.
#[derive(Debug, Default)]
pub(super) struct FileLane {
    queue: Vec<Piece>,
    /// The newest number that was queued.
    queued: u64,
    in_flight: Vec<Piece>,
    /// The newest number in flight, if a sync is under way.
    syncing: Option<u64>,
    /// Files that were given up.
    failed: BTreeSet<SnapshotId>,
    /// Whether the disk takes no pieces.
    has_no_room: bool,
}

impl FileLane {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The pieces that a sync of the files covered.
#[derive(Debug, Default)]
pub(crate) struct FilesDone {
    /// The newest number.
    pub(crate) number: u64,
    /// The files that had no room.
    pub(crate) failed: Vec<SnapshotId>,
}

impl Disk {
    /// Queues a piece of a snapshot file.
    pub(crate) fn write_file(&mut self, number: u64, piece: Piece) {
        self.files.queue.push(piece);
        self.files.queued = number;
    }

    /// Says whether pieces find room from now on.
    pub(crate) fn refuse_files(&mut self, has_no_room: bool) {
        self.files.has_no_room = has_no_room;
    }

    /// Begins to write the queued pieces, unless some are in flight.
    pub(crate) fn begin_files(&mut self) -> bool {
        let lane = &mut self.files;
        if lane.syncing.is_some() || lane.queue.is_empty() || self.has_failed {
            return false;
        }
        lane.in_flight = std::mem::take(&mut lane.queue);
        lane.syncing = Some(lane.queued);
        true
    }

    /// The pieces in flight are durable, or the drive `lies` that they are; or they had no room.
    pub(crate) fn finish_files(&mut self, lies: bool) -> FilesDone {
        self.before_sync(lies);
        let number = self.files.syncing.take().unwrap_or_default();
        let mut done = FilesDone { number, failed: Vec::new() };
        for piece in std::mem::take(&mut self.files.in_flight) {
            let Piece { snapshot, offset, ref data, .. } = piece;
            if self.files.failed.contains(&snapshot) {
                continue;
            }
            if self.files.has_no_room {
                self.files.failed.insert(snapshot);
                self.remove_file(snapshot);
                done.failed.push(snapshot);
                continue;
            }
            let file = self.media.files.entry(snapshot).or_default();
            if offset == 0 {
                file.clear();
            }
            assert_eq!(file.len() as u64, offset, "a piece follows the one before");
            file.extend_from_slice(data);
            self.durable.hold_file(snapshot, piece.end());
        }
        done
    }

    /// Deletes a snapshot file. Pieces that were handed over before this are not written any more.
    pub(crate) fn discard(&mut self, snapshot: SnapshotId) {
        self.files.failed.remove(&snapshot);
        self.files.queue.retain(|piece| piece.snapshot != snapshot);
        self.files.in_flight.retain(|piece| piece.snapshot != snapshot);
        self.remove_file(snapshot);
    }

    fn remove_file(&mut self, snapshot: SnapshotId) {
        self.media.files.remove(&snapshot);
        self.durable.forget_file(snapshot);
    }

    /// Number of snapshot files, complete or not.
    pub(crate) fn snapshot_files(&self) -> usize {
        self.media.files.len()
    }

    /// The number of pieces of one file that are not durable yet, for the file with the most.
    pub(crate) fn pieces_of_a_file(&self) -> usize {
        let pieces = || self.files.queue.iter().chain(&self.files.in_flight);
        let of = |snapshot| pieces().filter(|piece| piece.snapshot == snapshot).count();
        pieces().map(|piece| of(piece.snapshot)).max().unwrap_or_default()
    }

    /// Deletes snapshot files that no record names, as a driver does when it opens a store. Otherwise a process in a
    /// crash loop would leave one more each time.
    pub(super) fn drop_unnamed_files(&mut self, writes: &[(Token, Write)]) {
        let name = |(_, write): &(Token, Write)| write.snapshot().map(|file| file.id);
        let named: BTreeSet<SnapshotId> = writes.iter().filter_map(name).collect();
        let durable = &mut self.durable;
        self.media.files.retain(|snapshot, _| {
            let is_named = named.contains(snapshot);
            if !is_named {
                durable.forget_file(*snapshot);
            }
            is_named
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use continuum_core::id::{GroupId, SnapshotFile};
    use continuum_core::raft::{self, Configuration, Position};
    use continuum_core::wal::{Header, SEGMENT_BYTES};

    use super::*;
    use crate::env::disk::Fate;
    use crate::rng::Draws;

    const SNAPSHOT: SnapshotId = SnapshotId(7);

    fn piece(offset: u64, data: &'static [u8], is_last: bool) -> Piece {
        Piece { snapshot: SNAPSHOT, offset, data: Bytes::from_static(data), is_last }
    }

    fn disk() -> Disk {
        Disk::new(0, Draws::new(1), Header::default(), SEGMENT_BYTES)
    }

    fn synced(disk: &mut Disk) -> FilesDone {
        assert!(disk.begin_files());
        disk.finish_files(false)
    }

    #[test]
    fn a_file_stays_as_long_as_a_record_names_it() {
        let mut disk = disk();
        disk.write_file(1, piece(0, b"st", false));
        disk.write_file(2, piece(2, b"ate", true));
        assert_eq!(disk.pieces_of_a_file(), 2);
        assert_eq!(synced(&mut disk).number, 2);
        assert_eq!((disk.pieces_of_a_file(), disk.durable.file_bytes(SNAPSHOT)), (0, Some(5)));
        let file = SnapshotFile::of(SNAPSHOT, &Bytes::from_static(b"state"));
        let write = raft::Write::Snapshot {
            file,
            position: Position::default(),
            time_ms: 0,
            configuration: Configuration::default(),
        };
        disk.persist(Token { lane: 0, seq: 1 }, Write::Group { group: GroupId(1), write });
        disk.begin(0, 100);
        disk.finish(false);
        let unnamed = Piece { snapshot: SnapshotId(8), ..piece(0, b"unfinished", false) };
        disk.write_file(3, unnamed);
        synced(&mut disk);
        assert_eq!(disk.snapshot_files(), 2);
        disk.crash(Fate::Kept);
        let found = disk.recover().expect("a tear is no damage").expect("one was durable");
        assert_eq!(
            found.snapshots.into_iter().collect::<Vec<_>>(),
            [(SNAPSHOT, b"state"[..].into())]
        );
        disk.discard(SNAPSHOT);
        assert_eq!((disk.snapshot_files(), disk.durable.file_bytes(SNAPSHOT)), (0, None));
    }

    #[test]
    fn a_disk_without_room_gives_a_file_up_until_it_is_told_to_delete_it() {
        let mut disk = disk();
        disk.write_file(1, piece(0, b"st", false));
        synced(&mut disk);
        disk.refuse_files(true);
        disk.write_file(2, piece(2, b"a", false));
        disk.write_file(3, piece(3, b"t", false));
        let done = synced(&mut disk);
        assert_eq!((done.number, done.failed), (3, vec![SNAPSHOT]));
        disk.refuse_files(false);
        disk.write_file(4, piece(4, b"e", true));
        let done = synced(&mut disk);
        assert!(done.failed.is_empty() && disk.snapshot_files() == 0, "said once, and ignored");
        disk.discard(SNAPSHOT);
        disk.write_file(5, piece(0, b"state", true));
        synced(&mut disk);
        assert_eq!(disk.durable.file_bytes(SNAPSHOT), Some(5));
    }

    #[test]
    fn a_file_that_is_deleted_takes_its_pieces_along() {
        let mut disk = disk();
        disk.write_file(1, piece(0, b"st", false));
        assert!(disk.begin_files());
        disk.write_file(2, piece(2, b"ate", true));
        disk.discard(SNAPSHOT);
        assert_eq!((disk.finish_files(false).number, disk.snapshot_files()), (1, 0));
        assert!(!disk.begin_files());
        disk.write_file(3, piece(0, b"anew", true));
        assert_eq!(synced(&mut disk).number, 3);
    }
}
