//! The log: what is made durable, and the bytes that it is made of.
//!
//! This module is pure: it encodes batches and recovers writes from bytes. Where the bytes are kept, when they are
//! synced and which segments are deleted is the driver's business. It deliberately knows no protocol: it does not look
//! inside a write.
//!
//! `frame` is the layout of the bytes, `writer` makes batches, `recover` reads a log back.
//!
//! # What a driver owes the log
//!
//! * A batch is written only after the fdatasync of the one before returned. A batch that opens a segment is durable
//!   once the file and its directory entry are.
//! * A new segment is zeros throughout before its first batch.
//! * Before recovery every segment is synced; after it, what was cut is erased and synced (see [`Torn`]); both before
//!   the first batch.
//! * [`RecoverError::Empty`]: all files go, and that is durable, before a new log begins.

mod frame;
mod recover;
mod writer;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{
    Boot, Contact, FederationId, GroupId, NodeId, Owner, ShardId, SnapshotFile, SnapshotId, StoreId,
};
use crate::{raft, replication};

pub use frame::VERSION;
pub use recover::{RecoverError, Recovered, Tear, Torn, recover};
pub use writer::{Batch, LogWriter};

/// The length of a segment in bytes, but for one with a larger batch, which is as long as that needs. Long enough that
/// opening one is rare, short enough that little is kept for one old record.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// Whose log it is: in the first block of every segment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Header {
    /// The federation.
    pub federation: FederationId,
    /// The node.
    pub node: NodeId,
    /// The data directory.
    pub store: StoreId,
    /// The lane that the log is of.
    pub lane: u16,
}

/// One record to make durable. A lane's log keeps its records in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// A process started: durable before its first send.
    Boot {
        /// The federation that the log belongs to.
        federation: FederationId,
        /// The node that the log belongs to.
        node: NodeId,
        /// The data directory that the log belongs to.
        store: StoreId,
        /// This start of the store.
        boot: Boot,
    },
    /// All peers that were verified, so that a restart finds them again.
    Contacts {
        /// The peers; they replace those of the record before.
        contacts: Vec<Contact>,
    },
    /// A record of a group.
    Group {
        /// The group.
        group: GroupId,
        /// Its record.
        write: raft::Write,
    },
    /// A record of a shard.
    Shard {
        /// The shard.
        shard: ShardId,
        /// Its record.
        write: replication::Write,
    },
}

/// A piece of a snapshot file: the bytes and where they go.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The file.
    pub snapshot: SnapshotId,
    /// The piece's first byte in the file.
    pub offset: u64,
    /// The bytes.
    pub data: &'a Bytes,
}

impl Write {
    /// The owner of the record.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        match self {
            Self::Boot { .. } | Self::Contacts { .. } => Owner::Node,
            Self::Group { group, .. } => Owner::Group(*group),
            Self::Shard { shard, .. } => Owner::Shard(*shard),
        }
    }

    /// The piece of a snapshot file that this is, if it is one. Pieces go into files beside the log.
    #[must_use]
    pub const fn chunk(&self) -> Option<Chunk<'_>> {
        match self {
            Self::Group { write: raft::Write::Chunk { snapshot, offset, data }, .. }
            | Self::Shard { write: replication::Write::Chunk { snapshot, offset, data }, .. } => {
                Some(Chunk { snapshot: *snapshot, offset: *offset, data })
            }
            _ => None,
        }
    }

    /// The snapshot file that this record names, if it names one.
    #[must_use]
    pub const fn snapshot(&self) -> Option<SnapshotFile> {
        match self {
            Self::Group { write: raft::Write::Snapshot { file, .. }, .. }
            | Self::Shard { write: replication::Write::Snapshot { file }, .. } => Some(*file),
            _ => None,
        }
    }

    /// About how many bytes the record takes in the log; for a chunk, in its file. Exact enough to decide when to
    /// refuse writes and when to take a checkpoint.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// What a record takes beside its payload.
        const RECORD_BYTES: usize = 48;
        /// What a contact takes beside its address.
        const CONTACT_BYTES: usize = 24;
        RECORD_BYTES
            + match self {
                Self::Boot { .. } => 0,
                Self::Contacts { contacts } => {
                    contacts.iter().map(|contact| CONTACT_BYTES + contact.address.0.len()).sum()
                }
                Self::Group { write, .. } => write.payload_bytes(),
                Self::Shard { write, .. } => write.payload_bytes(),
            }
    }
}
