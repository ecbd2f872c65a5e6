//! The writes of a shard to the log.
//!
//! A write carries neither the shard nor the lane: the owner of the log adds both. This module does not restore a
//! shard from its writes; [`super::restore`] does.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::SnapshotFile;

/// One write of a shard to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Adds records of the shard: sealed writes, and other changes in the shard's own encoding.
    Dots {
        /// The records, in order.
        records: Vec<Bytes>,
    },
    /// A snapshot file is complete and durable. It replaces all older records of the shard but for the last ones.
    Snapshot {
        /// The file's name, length and digest.
        file: SnapshotFile,
        /// The number of records that were issued after the file's end and before this write: the file lacks them.
        since: u64,
    },
    /// The shard's namespace was deleted: no older record is needed.
    Forget,
}

impl Write {
    /// About the number of bytes that the write takes in the log.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// The bytes of a record beside its encoding.
        const RECORD_BYTES: usize = 4;
        match self {
            Self::Dots { records } => {
                records.iter().map(|record| RECORD_BYTES + record.len()).sum()
            }
            Self::Snapshot { .. } | Self::Forget => 0,
        }
    }
}
