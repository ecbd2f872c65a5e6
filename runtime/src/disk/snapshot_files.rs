//! Snapshot files: written in chunks next to the log, and named by a record of the log.
//!
//! A file is a `.part` until the record that names it is about to be written. Then it is synced and renamed to `.snap`.
//! A restart deletes all parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use bytes::Bytes;
use continuum_core::id::{SnapshotId, Token};
use continuum_core::wal::Write;

use super::segment::{directory_bytes, remove};

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
    ) -> io::Result<(Self, BTreeMap<SnapshotId, Bytes>)> {
        let mut named = BTreeMap::new();
        for (token, write) in writes {
            named.extend(write.snapshot().map(|file| (file.id, token.seq)));
        }
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let known = entry.file_name().to_str().and_then(number);
            match known.filter(|snapshot| named.contains_key(snapshot)) {
                Some(snapshot) => {
                    found.insert(snapshot, Bytes::from(fs::read(entry.path())?));
                }
                None => remove(&entry.path())?,
            }
        }
        let there: BTreeSet<SnapshotId> = found.keys().copied().collect();
        named.retain(|snapshot, _| there.contains(snapshot));
        Ok((Self { path, parts: BTreeMap::new(), whole: named }, found))
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

fn number(name: &str) -> Option<SnapshotId> {
    let digits = name.strip_suffix(".snap")?;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16).map(SnapshotId)
}
