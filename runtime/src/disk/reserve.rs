//! The reserve: space that is kept back, and given up on a full disk, so that accepted writes can still become durable.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use continuum_core::wal::SEGMENT_BYTES;
use rustix::fs::{OFlags, statvfs};

use super::segment::{remove, reserve};
use crate::regular;

/// The disk is full when fewer bytes than these are free beside the reserve and a checkpoint: the next two segments.
const FULL_BELOW: u64 = 2 * SEGMENT_BYTES;

/// It has room again when these are free: a segment more, so that it does not change at once.
const ROOM_AT: u64 = 3 * SEGMENT_BYTES;

/// The reserve file of one store.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    length: u64,
    is_kept: bool,
}

impl Reserve {
    pub(super) fn new(path: PathBuf, length: u64) -> Self {
        Self { path, length, is_kept: false }
    }

    /// Allocates the reserve; false when the disk has too little space. Space is compared before it is allocated: a
    /// reserve that does not fit must not fill the disk for everybody else, not even for a moment.
    pub(super) fn keep(&mut self) -> io::Result<bool> {
        if self.is_kept {
            return Ok(true);
        }
        if self.free().saturating_add(self.allocated()) < self.length {
            self.give_up()?;
            return Ok(false);
        }
        match self.take() {
            Ok(()) => {
                self.is_kept = true;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.give_up()?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether so little is free beside the reserve and a checkpoint of `checkpoint` bytes that new writes must end:
    /// all that was taken already still fits, and the reserve is left for deletions.
    pub(super) fn is_low(&self, checkpoint: u64) -> bool {
        self.free() < FULL_BELOW.saturating_add(checkpoint)
    }

    /// Allocates the reserve again once the disk has room for it and for a checkpoint of `checkpoint` bytes.
    pub(super) fn keep_when_free(&mut self, checkpoint: u64) -> io::Result<bool> {
        let given_up = if self.is_kept { 0 } else { self.length };
        if self.free() < ROOM_AT.saturating_add(checkpoint).saturating_add(given_up) {
            return Ok(false);
        }
        self.keep()
    }

    /// Whether the space is kept back.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Bytes that can still be written, the kept-back space with them.
    pub(super) fn room(&self) -> u64 {
        self.free().saturating_add(if self.is_kept { self.length } else { 0 })
    }

    /// Frees the space.
    pub(super) fn give_up(&mut self) -> io::Result<()> {
        self.is_kept = false;
        remove(&self.path)
    }

    /// Bytes free for this user on the file system, without the reserve.
    pub(super) fn free(&self) -> u64 {
        let directory = self.path.parent().unwrap_or(&self.path);
        statvfs(directory).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    /// Bytes that the reserve of an earlier process still holds.
    fn allocated(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.blocks().saturating_mul(512))
    }

    fn take(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = regular::open(&self.path, &options, OFlags::empty())?;
        file.set_len(self.length)?;
        reserve(&file, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_that_does_not_fit_is_not_even_opened() {
        let dir = tempfile::tempdir().unwrap();
        // No byte is free in a folder that is missing, and a file there cannot be opened.
        let mut reserve = Reserve::new(dir.path().join("missing/reserve"), 1);
        assert!(!reserve.keep().unwrap());
    }
}
