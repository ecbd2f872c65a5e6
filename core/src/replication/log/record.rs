//! The writes of a shard to the log.
//!
//! A write carries neither the shard nor the lane: the owner of the log adds both. This module does not restore a
//! shard from its writes; [`super::restore`] does.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{SnapshotFile, SnapshotId};

/// One write of a shard to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Adds records of the shard: sealed writes, and other changes in the shard's own encoding.
    Dots {
        /// The records, in order.
        records: Vec<Bytes>,
    },
    /// A piece of a snapshot file. The driver writes it into the file, not into the log, and syncs the file before it
    /// makes the write that names the file.
    Chunk {
        /// The file's name.
        snapshot: SnapshotId,
        /// The offset of the piece in the file, in bytes.
        offset: u64,
        /// At most [`crate::limits::CHUNK_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// Completes a snapshot file, which replaces all older records of the shard.
    Snapshot {
        /// The file's name, length and digest.
        file: SnapshotFile,
    },
    /// The shard's namespace was deleted: no older record is needed.
    Forget,
}

impl Write {
    /// About the number of bytes that the write takes in the log; for a chunk, in its file.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// The bytes of a record beside its encoding.
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
