//! Snapshot files: written in chunks next to the log, and named by a record of the log.
//!
//! A file is a `.part` until the record that names it is about to be written. Then it is synced and renamed to `.snap`.
//! A restart deletes all parts.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use continuum_core::id::{SnapshotId, Token};
use continuum_core::wal::Write;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::OpenError;
use super::directory::unusable;
use super::segment::{directory_bytes, remove};
use crate::regular;

/// The snapshot files of one store.
#[derive(Debug)]
pub(super) struct SnapshotFiles {
    path: PathBuf,
    parts: BTreeMap<SnapshotId, Part>,
    /// Complete files, each with the newest token that names it.
    whole: BTreeMap<SnapshotId, u64>,
}

/// A file that no record names yet.
#[derive(Debug)]
struct Part {
    file: File,
    newest: u64,
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
        let mut whole = BTreeMap::new();
        for (token, write) in writes {
            let file = write.snapshot().filter(|file| found.contains_key(&file.id));
            whole.extend(file.map(|file| (file.id, token.seq)));
        }
        Ok((Self { path, parts: BTreeMap::new(), whole }, found))
    }

    /// Writes one chunk. Harmless to repeat.
    pub(super) fn write(
        &mut self,
        token: Token,
        snapshot: SnapshotId,
        offset: u64,
        data: &[u8],
    ) -> io::Result<()> {
        if !self.parts.contains_key(&snapshot) {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(self.part(snapshot))?;
            self.parts.insert(snapshot, Part { file, newest: token.seq, is_synced: true });
        }
        let Some(part) = self.parts.get_mut(&snapshot) else { return Ok(()) };
        part.newest = token.seq;
        part.is_synced = false;
        part.file.write_all_at(data, offset)
    }

    /// Makes all chunks written so far durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let mut dirty = false;
        for part in self.parts.values_mut().filter(|part| !part.is_synced) {
            part.file.sync_all()?;
            part.is_synced = true;
            dirty = true;
        }
        if dirty { self.sync_names() } else { Ok(()) }
    }

    /// The log is about to name this file: completes it. A file that is complete already only gets the newer token.
    pub(super) fn name(&mut self, token: Token, snapshot: SnapshotId) -> io::Result<()> {
        if let Some(part) = self.parts.get_mut(&snapshot) {
            if !part.is_synced {
                part.file.sync_all()?;
                part.is_synced = true;
            }
            fs::rename(self.part(snapshot), self.whole(snapshot))?;
            self.parts.remove(&snapshot);
            self.sync_names()?;
        }
        self.whole.insert(snapshot, token.seq);
        Ok(())
    }

    /// Deletes a file. If a crash brings it back, it is deleted when its last name is released.
    pub(super) fn discard(&mut self, snapshot: SnapshotId) -> io::Result<()> {
        if self.whole.remove(&snapshot).is_some() {
            remove(&self.whole(snapshot))?;
        }
        Ok(())
    }

    /// Deletes files that neither this token nor a later one names or continues.
    pub(super) fn release(&mut self, before: Token) -> io::Result<()> {
        let old = |newest: &u64| *newest < before.seq;
        let whole: Vec<_> = self.whole.iter().filter(|(_, newest)| old(newest)).collect();
        let parts: Vec<_> = self.parts.iter().filter(|(_, part)| old(&part.newest)).collect();
        let mut paths: Vec<PathBuf> = whole.iter().map(|(id, _)| self.whole(**id)).collect();
        paths.extend(parts.iter().map(|(id, _)| self.part(**id)));
        for path in &paths {
            remove(path)?;
        }
        self.whole.retain(|_, newest| !old(newest));
        self.parts.retain(|_, part| !old(&part.newest));
        if paths.is_empty() { Ok(()) } else { self.sync_names() }
    }

    /// Bytes that the files use.
    pub(super) fn bytes(&self) -> u64 {
        directory_bytes(&self.path)
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn part(&self, snapshot: SnapshotId) -> PathBuf {
        self.path.join(format!("{:016x}.part", snapshot.0))
    }

    fn whole(&self, snapshot: SnapshotId) -> PathBuf {
        self.path.join(format!("{:016x}.snap", snapshot.0))
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
