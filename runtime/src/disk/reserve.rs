//! The reserve: room that is kept back, and given up when the disk is full, so that what was taken can be made durable.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use continuum_core::wal::SEGMENT_BYTES;
use rustix::fs::statvfs;

use super::segment::{remove, reserve};

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

    /// Takes the room; false when the disk has not so much.
    pub(super) fn keep(&mut self) -> io::Result<bool> {
        if self.is_kept {
            return Ok(true);
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

    /// Takes the room again once the disk has enough for it and for the next segment.
    pub(super) fn keep_when_free(&mut self) -> io::Result<bool> {
        if !self.is_kept && self.free() < self.length + 2 * SEGMENT_BYTES {
            return Ok(false);
        }
        self.keep()
    }

    /// Gives the room up.
    pub(super) fn give_up(&mut self) -> io::Result<()> {
        self.is_kept = false;
        remove(&self.path)
    }

    /// Bytes free on the disk for this user; the reserve is not.
    pub(super) fn free(&self) -> u64 {
        let directory = self.path.parent().unwrap_or(&self.path);
        statvfs(directory).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    fn take(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file: File =
            options.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        file.set_len(self.length)?;
        reserve(&file, self.length)
    }
}
