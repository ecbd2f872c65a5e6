//! The log: the records that a node makes durable, and the bytes that hold them.
//!
//! | module | contents |
//! |---|---|
//! | `frame` | the layout of the bytes, with a picture; what a tear, a hole and rot are |
//! | `writer` | batches from records |
//! | `recover` | records from bytes |
//!
//! This module is pure. It does not keep, sync or delete files, which is the driver's part, and it does not interpret
//! records.
//!
//! # Duties of a driver
//!
//! * It writes a batch only after the fdatasync of the previous one returned. A batch that opens a segment is durable
//!   once the file and its directory entry are.
//! * It fills a new segment with zeros before the segment's first batch.
//! * Before recovery it syncs every segment. After recovery, and before the first batch, it erases and syncs what was
//!   cut (see [`Torn`]).
//! * After [`RecoverError::Empty`] it deletes all files, durably, before it begins a new log.

mod error;
mod frame;
mod recover;
mod writer;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::api::{Bootstrap, MemberInfo};
use crate::id::{
    Boot, Contact, FederationId, GenesisId, GroupId, Lineage, NodeId, Owner, Replica, ShardId,
    SnapshotFile, StoreId,
};
use crate::{raft, replication};

pub use error::RecoverError;
pub use frame::VERSION;
pub use recover::{LastBatch, Recovered, Tear, Torn, recover};
pub use writer::{Batch, LogWriter};

/// The length of a segment in bytes. A segment with a larger batch is as long as that batch needs. The length is a
/// compromise: a longer segment is opened less often, a shorter one keeps fewer bytes for one old record.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// The identity of a log, in the first block of every segment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Header {
    /// The federation of the node.
    pub federation: FederationId,
    /// The node that writes the log.
    pub node: NodeId,
    /// The data directory that the log is in.
    pub store: StoreId,
    /// The lane of which the log has the records.
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
        /// The starts before it.
        lineage: Lineage,
    },
    /// All peers that were verified, so that a restart finds them again.
    Contacts {
        /// The peers; they replace those of the record before.
        contacts: Vec<Contact>,
    },
    /// The newest boots of members that this node welcomed. They are added to those of the records before, so that a
    /// restart still knows which process of a member is an old one.
    Welcomed {
        /// The members, each with its boot.
        boots: Vec<(Replica, Boot)>,
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
    /// This node takes part in a founding, and in no other until it knows how this one ended. The genesis of group 0
    /// ends it, and so does [`Self::Released`].
    Accepted {
        /// The node that decides.
        founder: Replica,
        /// The list that it offered.
        bootstrap: Bootstrap,
    },
    /// The accepted founding will never be: the node is free again.
    Released {
        /// The genesis that it had accepted.
        genesis: GenesisId,
    },
}

impl Write {
    /// The owner of the record.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        match self {
            Self::Boot { .. }
            | Self::Contacts { .. }
            | Self::Welcomed { .. }
            | Self::Accepted { .. }
            | Self::Released { .. } => Owner::Node,
            Self::Group { group, .. } => Owner::Group(*group),
            Self::Shard { shard, .. } => Owner::Shard(*shard),
        }
    }

    /// Whether the owner of the record is gone: no older record of it is needed.
    #[must_use]
    pub const fn forgets(&self) -> bool {
        matches!(
            self,
            Self::Group { write: raft::Write::Forget, .. }
                | Self::Shard { write: replication::Write::Forget, .. }
        )
    }

    /// The snapshot file that this record names, if it names one.
    #[must_use]
    pub const fn snapshot(&self) -> Option<SnapshotFile> {
        match self {
            Self::Group { write: raft::Write::Snapshot { file, .. }, .. }
            | Self::Shard { write: replication::Write::Snapshot { file, .. }, .. } => Some(*file),
            _ => None,
        }
    }

    /// For a record that names a shard's snapshot file, the number of records before it that the file lacks; 0 for any
    /// other record.
    #[must_use]
    pub const fn written_since(&self) -> u64 {
        match self {
            Self::Shard { write: replication::Write::Snapshot { since, .. }, .. } => *since,
            _ => 0,
        }
    }

    /// About how many bytes the record takes in the log. Exact enough to decide when to
    /// refuse writes and when to take a checkpoint.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// The bytes of a record besides its payload.
        const RECORD_BYTES: usize = 48;
        /// The bytes of a contact besides its address.
        const CONTACT_BYTES: usize = 24;
        /// The bytes of a nonce, and those of a welcomed boot.
        const NONCE_BYTES: usize = 10;
        const WELCOMED_BYTES: usize = 48;
        /// The bytes of a member besides its address and its name.
        const MEMBER_BYTES: usize = 40;
        RECORD_BYTES
            + match self {
                Self::Boot { lineage, .. } => NONCE_BYTES * lineage.len(),
                Self::Welcomed { boots } => WELCOMED_BYTES * boots.len(),
                Self::Released { .. } => 0,
                Self::Contacts { contacts } => {
                    contacts.iter().map(|contact| CONTACT_BYTES + contact.address.0.len()).sum()
                }
                Self::Accepted { bootstrap, .. } => {
                    let bytes = |of: &MemberInfo| MEMBER_BYTES + of.address.0.len() + of.name.len();
                    bootstrap.members.iter().map(bytes).sum()
                }
                Self::Group { write, .. } => write.payload_bytes(),
                Self::Shard { write, .. } => write.payload_bytes(),
            }
    }
}
