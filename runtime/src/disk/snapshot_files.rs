//! Snapshot files: written in pieces beside the log, by a thread of their own.
//!
//! A file is a `.part` until its last piece is written. Then it is synced and renamed to `.snap`, and only then it is
//! reported, so a record that names it finds it. A restart deletes all files that no record of the log names.
//!
//! A file that finds no room is deleted, and its later pieces are ignored until the core discards it: the room that is
//! left is for the log. This module does not look at what the files hold.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;
use continuum_core::files::Piece;
use continuum_core::id::{SnapshotId, Token};
use continuum_core::wal::Write;
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::mpsc::WeakUnboundedSender;

use super::directory::{Directory, unusable};
use super::segment::{is_full, remove};
use super::{DiskEvent, OpenError};
use crate::regular;

/// Bytes that one sync covers at most, but for the last piece: a long sync delays what is said of each piece.
const SYNC_BYTES: usize = 4 << 20;

/// A request to the thread.
#[derive(Clone, Debug)]
pub(super) enum FileRequest {
    /// Write the piece with this number.
    Write(u64, Piece),
    /// Delete a file, complete or not.
    Discard(SnapshotId),
}

/// The bytes of all files, for the thread that watches the room on the disk.
#[derive(Debug, Default)]
pub(super) struct Usage {
    whole: AtomicU64,
    parts: AtomicU64,
}

impl Usage {
    /// Bytes that the files use.
    pub(super) fn bytes(&self) -> u64 {
        self.whole.load(Ordering::Relaxed) + self.parts.load(Ordering::Relaxed)
    }

    /// Bytes that the next checkpoint of everything still has to write: as many as the last one wrote, without those
    /// that are written.
    pub(super) fn due_bytes(&self) -> u64 {
        let parts = self.parts.load(Ordering::Relaxed);
        self.whole.load(Ordering::Relaxed).saturating_sub(parts)
    }
}

/// The snapshot files of one store.
#[derive(Debug)]
pub(super) struct SnapshotFiles {
    path: PathBuf,
    parts: BTreeMap<SnapshotId, Part>,
    /// Complete files, each with its length.
    whole: BTreeMap<SnapshotId, u64>,
    usage: Arc<Usage>,
}

/// A file that is not complete.
#[derive(Debug)]
struct Part {
    file: File,
    length: u64,
    is_synced: bool,
}

impl SnapshotFiles {
    /// Reads all files that the log names, and deletes all others.
    pub(super) fn open(
        path: PathBuf,
        writes: &[(Token, Write)],
    ) -> Result<(Self, BTreeMap<SnapshotId, Bytes>), OpenError> {
        let delete = |entry: &DirEntry| remove(&entry.path());
        let found = look(&path, writes, delete)?;
        let whole = found.iter().map(|(id, data)| (*id, data.len() as u64)).collect();
        let files = Self { path, parts: BTreeMap::new(), whole, usage: Arc::default() };
        files.count();
        Ok((files, found))
    }

    /// The bytes of the files, kept current.
    pub(super) fn usage(&self) -> Arc<Usage> {
        Arc::clone(&self.usage)
    }

    /// Writes one piece. The first one of a file begins it anew.
    fn write(&mut self, piece: &Piece) -> io::Result<()> {
        if !self.parts.contains_key(&piece.snapshot) {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let file = options.open(self.part(piece.snapshot))?;
            self.parts.insert(piece.snapshot, Part { file, length: 0, is_synced: true });
        }
        let Some(part) = self.parts.get_mut(&piece.snapshot) else { return Ok(()) };
        part.length = piece.end();
        part.is_synced = false;
        part.file.write_all_at(&piece.data, piece.offset)?;
        self.count();
        if piece.is_last { self.complete(piece.snapshot) } else { Ok(()) }
    }

    /// All pieces are written: the file becomes durable under its name.
    fn complete(&mut self, snapshot: SnapshotId) -> io::Result<()> {
        let Some(part) = self.parts.get(&snapshot) else { return Ok(()) };
        part.file.sync_all()?;
        let length = part.length;
        fs::rename(self.part(snapshot), self.whole(snapshot))?;
        File::open(&self.path)?.sync_all()?;
        self.parts.remove(&snapshot);
        self.whole.insert(snapshot, length);
        self.count();
        Ok(())
    }

    /// Makes all pieces written so far durable. An error names its file.
    fn sync(&mut self) -> Result<(), (SnapshotId, io::Error)> {
        for (snapshot, part) in self.parts.iter_mut().filter(|(_, part)| !part.is_synced) {
            part.file.sync_all().map_err(|error| (*snapshot, error))?;
            part.is_synced = true;
        }
        Ok(())
    }

    /// Deletes a file. If a crash brings it back although the log names it, the next start discards it again.
    fn discard(&mut self, snapshot: SnapshotId) -> io::Result<()> {
        if self.whole.remove(&snapshot).is_some() {
            remove(&self.whole(snapshot))?;
        }
        if self.parts.remove(&snapshot).is_some() {
            remove(&self.part(snapshot))?;
        }
        self.count();
        Ok(())
    }

    fn count(&self) {
        let parts = self.parts.values().map(|part| part.length).sum();
        self.usage.whole.store(self.whole.values().sum(), Ordering::Relaxed);
        self.usage.parts.store(parts, Ordering::Relaxed);
    }

    fn part(&self, snapshot: SnapshotId) -> PathBuf {
        self.path.join(format!("{:016x}.part", snapshot.0))
    }

    fn whole(&self, snapshot: SnapshotId) -> PathBuf {
        self.path.join(format!("{:016x}.snap", snapshot.0))
    }
}

/// The thread's state.
pub(super) struct FileWorker {
    pub(super) files: SnapshotFiles,
    pub(super) queue: Receiver<FileRequest>,
    /// Weak, so that the driver hears of the end of the log's thread.
    pub(super) events: WeakUnboundedSender<DiskEvent>,
    /// Files that were given up.
    pub(super) failed: BTreeSet<SnapshotId>,
    /// Keeps the store locked.
    pub(super) _directory: Arc<Directory>,
    /// Closed when the thread has ended.
    pub(super) _running: Sender<Infallible>,
}

impl FileWorker {
    /// Serves requests until their sender is gone, or the disk fails.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.queue.recv() {
            if let Err(error) = self.serve(first) {
                return self.report_failure(error.to_string());
            }
        }
    }

    fn report(&self, event: DiskEvent) {
        if let Some(events) = self.events.upgrade() {
            // A driver that has ended needs no report.
            let _ = events.send(event);
        }
    }

    fn report_failure(&self, why: String) {
        self.report(DiskEvent::Failed { token: Token::default(), why });
    }

    /// Performs a request and those behind it, syncs the files and reports the pieces.
    fn serve(&mut self, first: FileRequest) -> io::Result<()> {
        let (mut newest, mut bytes, mut next) = (None, 0, Some(first));
        while let Some(request) = next {
            match request {
                FileRequest::Write(number, piece) => {
                    newest = Some(number);
                    bytes += piece.data.len();
                    self.write(&piece)?;
                }
                FileRequest::Discard(snapshot) => {
                    self.failed.remove(&snapshot);
                    self.files.discard(snapshot)?;
                }
            }
            next = if bytes < SYNC_BYTES { self.queue.try_recv().ok() } else { None };
        }
        while let Err((snapshot, error)) = self.files.sync() {
            self.give_up(snapshot, error)?;
        }
        if let Some(number) = newest {
            self.report(DiskEvent::FilesWritten { number });
        }
        Ok(())
    }

    fn write(&mut self, piece: &Piece) -> io::Result<()> {
        if self.failed.contains(&piece.snapshot) {
            return Ok(());
        }
        match self.files.write(piece) {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(piece.snapshot, error),
        }
    }

    /// Deletes a file that found no room. Any other error is the disk's.
    fn give_up(&mut self, snapshot: SnapshotId, error: io::Error) -> io::Result<()> {
        if !is_full(&error) {
            return Err(error);
        }
        self.files.discard(snapshot)?;
        self.failed.insert(snapshot);
        self.report(DiskEvent::FileFailed { snapshot });
        Ok(())
    }
}

impl Drop for FileWorker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report_failure("the thread of the snapshot files ended".to_owned());
        }
    }
}

/// The snapshot files that the log names. Each other entry is given to `other`.
pub(super) fn look(
    path: &Path,
    writes: &[(Token, Write)],
    other: impl Fn(&DirEntry) -> io::Result<()>,
) -> Result<BTreeMap<SnapshotId, Bytes>, OpenError> {
    let named = writes.iter().filter_map(|(_, write)| write.snapshot());
    let lengths: BTreeMap<SnapshotId, u64> = named.map(|file| (file.id, file.length)).collect();
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(|error| unusable(path, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| unusable(path, error))?;
        let snapshot = entry.file_name().to_str().and_then(number);
        let length = snapshot.and_then(|snapshot| lengths.get_key_value(&snapshot));
        let done = match length {
            Some((snapshot, length)) => {
                read(&entry.path(), *length).map(|bytes| drop(found.insert(*snapshot, bytes)))
            }
            None => other(&entry),
        };
        done.map_err(|error| unusable(&entry.path(), error))?;
    }
    Ok(found)
}

/// Refuses an entry that an opening could not delete.
pub(super) fn deletable(entry: &DirEntry) -> io::Result<()> {
    if entry.file_type()?.is_dir() { Err(Errno::ISDIR.into()) } else { Ok(()) }
}

/// At most one byte more than the file should have: a longer file is as damaged as a shorter one.
fn read(path: &Path, length: u64) -> io::Result<Bytes> {
    let file = regular::open(path, OpenOptions::new().read(true), OFlags::empty())?;
    let mut bytes = Vec::new();
    file.take(length.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn number(name: &str) -> Option<SnapshotId> {
    let digits = name.strip_suffix(".snap")?;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16).map(SnapshotId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, data: &'static [u8], is_last: bool) -> Piece {
        Piece { snapshot: SnapshotId(7), offset, data: Bytes::from_static(data), is_last }
    }

    fn files() -> (tempfile::TempDir, SnapshotFiles) {
        let dir = tempfile::tempdir().unwrap();
        let (files, found) = SnapshotFiles::open(dir.path().to_owned(), &[]).unwrap();
        assert!(found.is_empty());
        (dir, files)
    }

    #[test]
    fn the_next_checkpoint_needs_what_the_last_one_wrote_without_what_is_written() {
        let (_dir, mut files) = files();
        files.write(&piece(0, b"0123456789", true)).unwrap();
        let usage = files.usage();
        assert_eq!((usage.bytes(), usage.due_bytes()), (10, 10));
        let next = Piece { snapshot: SnapshotId(8), ..piece(0, b"0123", false) };
        files.write(&next).unwrap();
        assert_eq!((usage.bytes(), usage.due_bytes()), (14, 6));
        files.discard(SnapshotId(7)).unwrap();
        assert_eq!((usage.bytes(), usage.due_bytes()), (4, 0));
    }

    #[test]
    fn a_file_without_room_is_given_up_and_the_disk_goes_on() {
        let (dir, mut files) = files();
        let path = dir.path().join("store");
        let owner =
            crate::disk::StoreOwner { federation: Default::default(), node: Default::default() };
        let directory = Directory::open(&path, owner, Default::default()).unwrap();
        files.write(&piece(0, b"0123", false)).unwrap();
        let (_requests, queue) = std::sync::mpsc::channel();
        let (events, mut reported) = tokio::sync::mpsc::unbounded_channel();
        let mut worker = FileWorker {
            files,
            queue,
            events: events.downgrade(),
            failed: BTreeSet::new(),
            _directory: Arc::new(directory),
            _running: std::sync::mpsc::channel().0,
        };
        worker.give_up(SnapshotId(7), io::ErrorKind::StorageFull.into()).unwrap();
        let failed = DiskEvent::FileFailed { snapshot: SnapshotId(7) };
        assert_eq!(reported.try_recv(), Ok(failed));
        // Its later pieces are taken and mean nothing, and one after the discard begins it anew.
        worker.serve(FileRequest::Write(2, piece(4, b"45", true))).unwrap();
        assert_eq!(reported.try_recv(), Ok(DiskEvent::FilesWritten { number: 2 }));
        assert_eq!(worker.files.usage.bytes(), 0);
        worker.serve(FileRequest::Discard(SnapshotId(7))).unwrap();
        worker.serve(FileRequest::Write(3, piece(0, b"anew", true))).unwrap();
        assert_eq!(worker.files.usage.bytes(), 4);
        let other = worker.give_up(SnapshotId(7), io::ErrorKind::InvalidInput.into());
        assert!(other.is_err(), "another error is the disk's");
    }
}
