//! The records that a shard writes to the log.
//!
//! A record carries neither the shard nor the lane: the owner of the log adds both. What a restart makes of the records
//! is in `restore`.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{SnapshotFile, SnapshotId};

/// One record of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// What changed, in the shard's own encoding: writes as their authors' bytes, and what peers taught.
    Dots {
        /// The changes, in order.
        records: Vec<Bytes>,
    },
    /// A piece of a snapshot file. It goes into the file, not into the log, and the file is synced before the record
    /// that names it is written.
    Chunk {
        /// The file.
        snapshot: SnapshotId,
        /// The piece's first byte in the file.
        offset: u64,
        /// At most [`crate::limits::CHUNK_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// A snapshot file is complete and replaces all older records of the shard.
    Snapshot {
        /// The file.
        file: SnapshotFile,
    },
    /// The shard's namespace was deleted: no older record is needed.
    Forget,
}

impl Write {
    /// About how many bytes the record takes in the log; for a chunk, in its file.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// What a record takes beside its bytes.
        const RECORD_BYTES: usize = 4;
        match self {
            Self::Dots { records } => {
                records.iter().map(|record| RECORD_BYTES + record.len()).sum()
            }
            Self::Chunk { data, .. } => data.len(),
            Self::Snapshot { .. } | Self::Forget => 0,
        }
    }
}
