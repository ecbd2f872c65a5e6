//! Law: a record names a snapshot file only once the disk holds all of it (README, Guarantees: a promise). A restart
//! that finds the record needs the file.
//!
//! Compares the length that a record says with that of the file on the simulated disk. It does not judge the content
//! (`recovery`, `state_machine_safety`).

use continuum_core::id::SnapshotFile;

use crate::env::durable::Durable;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "file-before-record";

/// Judges a record that names a file.
pub(crate) fn check(durable: &Durable, file: &SnapshotFile) -> Verdict {
    let held = durable.file_bytes(file.id);
    if held == Some(file.length) {
        return Ok(());
    }
    let SnapshotFile { id, length, .. } = file;
    let what = format!("a record names file {id:?} of {length} bytes, and the disk holds {held:?}");
    Err(Broken::new(NAME, what))
}
