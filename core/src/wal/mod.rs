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

use crate::digest::Digest;
use crate::id::{
    Boot, Contact, FederationId, GroupId, Index, NodeId, Owner, Replica, ShardId, SnapshotId,
    StoreId, Term,
};
use crate::raft::{Configuration, Entry, Position};

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

/// One thing to make durable. A lane's log keeps them in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// A process started: durable before its first send.
    Boot {
        /// Whose log this is.
        federation: FederationId,
        /// Whose log this is.
        node: NodeId,
        /// Whose log this is.
        store: StoreId,
        /// The start.
        boot: Boot,
    },
    /// A group exists here, from this configuration on.
    Genesis {
        /// The group.
        group: GroupId,
        /// Its first configuration; empty for a learner that will be told by a leader.
        configuration: Configuration,
    },
    /// A group's term and vote: one record, so that no crash parts them (Raft §5.2).
    Hard {
        /// The group.
        group: GroupId,
        /// Its current term here.
        term: Term,
        /// Who got this node's vote in that term.
        vote: Option<Replica>,
    },
    /// Entries right after `prev`. From the first that contradicts the log on, whatever the log held is gone; without
    /// entries all after `prev` is. Entries that the log holds already change nothing, so that a long log can be copied
    /// forward in several records.
    Append {
        /// The group.
        group: GroupId,
        /// The position that the entries follow.
        prev: Index,
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// A piece of a side file. The file is synced before the record that names it is written.
    Chunk {
        /// The file.
        snapshot: SnapshotId,
        /// Where in the file.
        offset: u64,
        /// The bytes, at most [`crate::limits::CHUNK_BYTES_MAX`].
        data: Bytes,
    },
    /// A side file is complete and replaces all that its owner wrote before `position`.
    Snapshot {
        /// A group or a shard.
        owner: Owner,
        /// The file.
        snapshot: SnapshotId,
        /// The file's length in bytes.
        length: u64,
        /// The last entry that it contains; zero for a shard.
        position: Position,
        /// Group time at that entry in milliseconds, which no later entry goes behind; zero for a shard.
        time_ms: u64,
        /// The group's configuration as of `position`; empty for a shard.
        configuration: Configuration,
        /// SHA-256 of the file.
        digest: Digest,
    },
    /// CRDT writes of one shard, each as its author's bytes.
    Dots {
        /// The shard.
        shard: ShardId,
        /// What to remember, in the shard's own encoding.
        records: Vec<Bytes>,
    },
    /// The owner's records are no longer needed: its namespace was deleted.
    Forget {
        /// Whose records.
        owner: Owner,
    },
    /// Peers that were verified, so that a restart finds them again.
    Contacts {
        /// All of them.
        contacts: Vec<Contact>,
    },
}
