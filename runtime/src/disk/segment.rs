//! The log's segments as files, zero-filled before use, so that a sync of a batch writes no metadata.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use continuum_core::wal::{
    Batch, Header, LastBatch, LogWriter, RecoverError, Recovered, SEGMENT_BYTES, Torn, recover,
};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use super::OpenError;
use super::directory::{Directory, unusable};
use crate::regular;
use crate::tls::secret;

/// The name of a segment that is made ahead of its use.
const SPARE: &str = "spare";
/// No segment is longer: it ends with the batch that passes [`SEGMENT_BYTES`].
const FILE_BYTES_MAX: u64 = 64 * SEGMENT_BYTES;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The segment files of one lane.
#[derive(Debug)]
pub(super) struct Segments {
    path: PathBuf,
    current: Option<File>,
    has_spare: bool,
}

impl Segments {
    /// Reads the log of this lane. A log that never held a durable write starts anew.
    pub(super) fn open(
        directory: &Directory,
        header: Header,
    ) -> Result<(Self, Recovered), OpenError> {
        let path = directory.lane();
        let failed = |error| unusable(&path, error);
        remove(&path.join(SPARE)).map_err(|error| unusable(&path.join(SPARE), error))?;
        sync_all(&path)?;
        let recovered = match look(&path, header, directory.has_begun())? {
            Some(recovered) => recovered,
            None => {
                clear(&path).map_err(failed)?;
                let writer = LogWriter::new(header);
                Recovered { header, writes: Vec::new(), writer, torn: None, last: None }
            }
        };
        if let Some(torn) = &recovered.torn {
            cut(&path, torn).map_err(failed)?;
        }
        if let Some(last) = &recovered.last {
            rewrite(&path, last).map_err(failed)?;
        }
        let current = newest(&path).map_err(failed)?;
        Ok((Self { path, current, has_spare: false }, recovered))
    }

    /// Writes a batch at its offset. Not durable before [`Segments::sync`]; harmless to repeat.
    pub(super) fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.opens_segment {
            self.prepare()?;
            let name = self.path.join(name(batch.segment));
            fs::rename(self.path.join(SPARE), &name)?;
            self.has_spare = false;
            self.current = Some(OpenOptions::new().write(true).open(&name)?);
        }
        let file = self.current.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.write_all_at(&batch.bytes, batch.offset)
    }

    /// Makes the last written batch durable, and with it the name of a segment that it opened.
    pub(super) fn sync(&self, batch: &Batch) -> io::Result<()> {
        let file = self.current.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.sync_data()?;
        if batch.opens_segment {
            File::open(&self.path)?.sync_all()?;
        }
        Ok(())
    }

    /// Makes the next segment ahead of its use: that takes milliseconds, for which no batch should wait.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if self.has_spare {
            return Ok(());
        }
        let path = self.path.join(SPARE);
        let made = zero_filled(&path, SEGMENT_BYTES);
        if made.is_err() {
            // Half a spare would take space that others may need now.
            let _ = fs::remove_file(&path);
        }
        made?;
        self.has_spare = true;
        Ok(())
    }

    /// Deletes segments, oldest first.
    pub(super) fn delete(&self, segments: &[u64]) -> io::Result<()> {
        for segment in segments {
            remove(&self.path.join(name(*segment)))?;
        }
        if !segments.is_empty() {
            File::open(&self.path)?.sync_all()?;
        }
        Ok(())
    }

    /// Bytes that the segments use.
    pub(super) fn bytes(&self) -> u64 {
        directory_bytes(&self.path)
    }
}

/// Whether all files of a lane can be used as an opening uses them.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    // An opening removes it.
    if fs::symlink_metadata(path.join(SPARE)).is_ok_and(|found| found.is_dir()) {
        return Err(unusable(&path.join(SPARE), Errno::ISDIR.into()));
    }
    // An opening writes the end of the log again.
    let newest = numbers(path).map_err(|error| unusable(path, error))?.last().copied();
    let newest = newest.map(|segment| path.join(name(segment)));
    newest.map_or(Ok(()), |newest| to_write(&newest).map(drop).map_err(|e| unusable(&newest, e)))
}

/// The log of this lane; `None` when it never held a durable write. Changes nothing.
pub(super) fn look(
    path: &Path,
    header: Header,
    has_begun: bool,
) -> Result<Option<Recovered>, OpenError> {
    let path = path.to_owned();
    match recover(read(&path)?) {
        Ok(recovered) if recovered.header != header => {
            let error = foreign(&path, header, recovered.header).into();
            Err(OpenError::Log { path, error })
        }
        Ok(recovered) => Ok(Some(recovered)),
        Err(RecoverError::Empty) if has_begun => Err(OpenError::LogMissing { path }),
        Err(RecoverError::Empty) => Ok(None),
        Err(error) => Err(OpenError::Log { path, error: error.into() }),
    }
}

/// Makes a file of zeros. Overwriting it needs no further space or metadata.
pub(super) fn zero_filled(path: &Path, length: u64) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    reserve(&file, length)?;
    let mut left = length;
    while left > 0 {
        let part = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}

/// Allocates space at once where the file system supports it; elsewhere writing the zeros does.
pub(super) fn reserve(file: &File, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(error) if error != Errno::OPNOTSUPP => Err(error.into()),
        _ => Ok(()),
    }
}

/// Deletes a file. A missing file is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether an operation failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Bytes of the files in a directory.
pub(super) fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

fn name(segment: u64) -> String {
    format!("{segment:016x}.log")
}

fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// The numbers of all segments, in order.
fn numbers(path: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        found.extend(entry?.file_name().to_str().and_then(number));
    }
    found.sort_unstable();
    Ok(found)
}

/// The bytes of all segments. None, when the directory is missing.
fn read(path: &Path) -> Result<Vec<(u64, Bytes)>, OpenError> {
    let found = match numbers(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(|error| unusable(path, error))?,
    };
    let mut segments = Vec::new();
    for segment in found {
        let name = path.join(name(segment));
        let bytes = regular::read(&name, FILE_BYTES_MAX).map_err(|error| unusable(&name, error))?;
        segments.push((segment, Bytes::from(bytes)));
    }
    Ok(segments)
}

/// A process that died may have left bytes in the page cache only. They must be durable before use.
fn sync_all(path: &Path) -> Result<(), OpenError> {
    for segment in numbers(path).map_err(|error| unusable(path, error))? {
        let name = path.join(name(segment));
        let file = regular::open(&name, OpenOptions::new().read(true), OFlags::empty());
        file.and_then(|file| file.sync_all()).map_err(|error| unusable(&name, error))?;
    }
    Ok(())
}

fn newest(path: &Path) -> io::Result<Option<File>> {
    numbers(path)?.last().map(|segment| to_write(&path.join(name(*segment)))).transpose()
}

fn to_write(path: &Path) -> io::Result<File> {
    regular::open(path, OpenOptions::new().write(true), OFlags::empty())
}

/// Makes a cut durable before the log continues. Otherwise the cut batch could come back whole: from its own sectors
/// that were written, and equal ones that a later process wrote over the missing ones.
fn cut(path: &Path, torn: &Torn) -> io::Result<()> {
    let mut later = numbers(path)?;
    later.retain(|segment| *segment > torn.segment);
    for segment in later.iter().rev() {
        remove(&path.join(name(*segment)))?;
    }
    File::open(path)?.sync_all()?;
    let file = to_write(&path.join(name(torn.segment)))?;
    let length = file.metadata()?.len();
    let mut at = torn.offset;
    while at < length {
        let part = (length - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..part as usize], at)?;
        at += part;
    }
    file.sync_all()
}

/// Makes the last batch durable for certain. If its sync failed, the process that read it back may have read it from
/// memory, and no sync writes it unless it is written again.
fn rewrite(path: &Path, last: &LastBatch) -> io::Result<()> {
    let file = to_write(&path.join(name(last.segment)))?;
    file.write_all_at(&last.bytes, last.offset)?;
    file.sync_all()
}

/// Removes what an unfinished first batch left.
fn clear(path: &Path) -> io::Result<()> {
    for segment in numbers(path)? {
        remove(&path.join(name(segment)))?;
    }
    secret::sync_directory(&path.join(SPARE))
}

fn foreign(path: &Path, expected: Header, found: Header) -> RecoverError {
    let segment = numbers(path).ok().and_then(|all| all.first().copied()).unwrap_or(0);
    RecoverError::Foreign { segment, expected, found }
}
