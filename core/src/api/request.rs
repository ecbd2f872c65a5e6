//! Requests of clients, and the reads and writes that they carry.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::id::{Address, ExportId, GenesisId, Replica, SessionId};

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Create a federation whose first voters are this node and the named ones. Only the first such request counts.
    Init {
        /// Addresses of the other first voters; each must run, be verified and be in no federation.
        voters: Vec<Address>,
    },
    /// A verified node asks to become a member. The answer is [`super::Value::Joined`].
    Join {
        /// The node, and the store that its promises are on.
        replica: Replica,
        /// The address at which other nodes reach it.
        address: Address,
        /// The operator's name for it.
        name: String,
        /// The genesis that it is formed with; `None` while it is in no federation.
        genesis: Option<GenesisId>,
    },
    /// Read the status of the node that is asked.
    Status,
    /// List the members of the federation.
    Members,
    /// List all namespaces.
    Namespaces,
    /// Create a namespace.
    CreateNamespace {
        /// Its name: 1 to 64 bytes, see [`super::Reason::InvalidName`].
        name: String,
        /// How it is replicated.
        policy: Policy,
        /// Makes a retry harmless.
        session: Option<Session>,
    },
    /// Delete a namespace and everything in it. A node that has not heard of the deletion still serves it, so do not
    /// reuse its name at once.
    DeleteNamespace {
        /// The namespace's name.
        name: String,
        /// Makes a retry harmless.
        session: Option<Session>,
    },
    /// Read keys of a namespace.
    Read {
        /// The namespace's name.
        namespace: String,
        /// The keys to read, and how.
        query: Query,
    },
    /// Write keys of a namespace. In a strong namespace all mutations are one command: all happen, or none. In an
    /// eventual one each mutation is an atomic write of its own.
    Write {
        /// The namespace's name.
        namespace: String,
        /// The changes, at most [`crate::limits::BATCH_WRITES_MAX`].
        mutations: Vec<Mutation>,
        /// The durability to reach before the answer.
        level: Level,
        /// Makes a retry harmless; exactly-once needs it.
        session: Option<Session>,
    },
    /// Replace the key that seals contexts. Those of the key before the present one are no longer valid.
    RotateKey {
        /// Makes a retry harmless.
        session: Option<Session>,
    },
}

/// A client session: a write with the same session and sequence number happens once, however often it is sent.
///
/// A group remembers the last write of each of [`crate::limits::SESSIONS_MAX`] sessions, and forgets the longest unused
/// one for a new one. After that a repeat of a session's first write happens again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    /// 128 bits that the client draws at random.
    pub id: SessionId,
    /// Counts the session's writes from 0. A client uses the next number once it has the answer to the last one.
    pub seq: u64,
    /// The request that this number was given to. Another request under the same number is refused.
    pub request: Fingerprint,
}

/// A digest of a request as its client made it, by which a repeat is told from another request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

/// How a namespace is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Linearizable, by Raft.
    Strong,
    /// Multi-master, as CRDTs.
    Eventual {
        /// Which sibling of a register a read returns.
        strategy: Strategy,
        /// The number of shards, fixed at creation, from 1 to [`crate::limits::SLOTS_MAX`].
        slots: u16,
        /// Whether siblings that lose in the last-writer-wins order are dropped for good.
        discard: bool,
    },
}

/// Which sibling of a register a read returns. It is a pure function over the siblings, so it may change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// The greatest of (hybrid logical clock, node, hash).
    #[default]
    LastWriterWins,
    /// The sibling of the highest node.
    HighestNodeWins,
}

/// The durability that a write reaches before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// The write is in this node's memory.
    Applied,
    /// The write is on this node's disk; in a strong namespace on the disks of a quorum.
    #[default]
    Durable,
    /// The write is on this node's disk and on the disks of this many other replicas.
    Replicated(u8),
}

/// One atomic change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation {
    /// The key, at most [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// The changes of its fields, at most [`crate::limits::EDITS_MAX`].
    pub edits: Vec<Edit>,
    /// The context of the client's read; with `None` the write observes all that this replica holds.
    pub context: Option<Context>,
}

impl Mutation {
    /// The bytes of the key and of the values that are set, about as many as the mutation takes in a message.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let edits = self.edits.iter().map(|edit| match &edit.change {
            Change::Put(value) | Change::Add(value) | Change::Remove(value) => value.len(),
            Change::Cas { value, .. } => value.as_ref().map_or(0, Bytes::len),
            Change::Delete | Change::Count(_) => 0,
        });
        self.key.len() + edits.sum::<usize>()
    }
}

/// A change of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The field's name; empty for the key's own value. A key with named fields is a record.
    pub field: Bytes,
    /// The change itself.
    pub change: Change,
}

/// A change of a field. A field holds a register, a set and a counter side by side, and each change touches one of
/// them. So two nodes that use one field in two ways lose nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Set the register.
    Put(Bytes),
    /// Remove all that the write observed: the register, or with an empty field the whole record.
    Delete,
    /// Set or remove the register if it is as expected. Strong namespaces only.
    Cas {
        /// The condition on the register.
        expected: Expected,
        /// The new value; `None` removes the register.
        value: Option<Bytes>,
    },
    /// Add a member to the set. Eventual namespaces only, as are the two changes below.
    Add(Bytes),
    /// Remove the observed occurrences of a member from the set.
    Remove(Bytes),
    /// Add this number, which may be negative, to the counter.
    Count(i64),
}

impl Change {
    /// Whether the change only takes something away.
    #[must_use]
    pub const fn removes(&self) -> bool {
        matches!(self, Self::Delete | Self::Remove(_) | Self::Cas { value: None, .. })
    }
}

/// The condition of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// No value.
    Absent,
    /// A value that was written at this log index.
    Revision(u64),
    /// This value.
    Value(Bytes),
}

/// A read. In every variant an empty `field` names the key's own value.
#[expect(missing_docs, reason = "`key` and `field` say all there is to say")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The register of a field.
    Get { key: Bytes, field: Bytes },
    /// The members of a set.
    Members { key: Bytes, field: Bytes },
    /// The value of a counter.
    Count { key: Bytes, field: Bytes },
    /// All fields of one key.
    Record { key: Bytes },
    /// One page of keys, in order.
    Keys {
        /// Only keys that begin with these bytes.
        prefix: Bytes,
        /// Only keys after this one.
        after: Option<Bytes>,
        /// At most this many keys, and at most [`crate::limits::PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// One page of whole rows, in order of their keys.
    Rows {
        /// Only keys after this one.
        after: Option<Bytes>,
        /// At most this many rows, at most [`crate::limits::PAGE_ROWS_MAX`], and at most one frame of bytes.
        limit: u32,
    },
    /// One page of a strong namespace as it was when its export began, whatever is written meanwhile. All pages of an
    /// export are asked of one node.
    Export {
        /// Where the export goes on, as the page before says; `None` begins one.
        from: Option<ExportCursor>,
        /// Only keys that begin with these bytes, the same for all pages.
        prefix: Bytes,
        /// At most this many rows, at most [`crate::limits::PAGE_ROWS_MAX`], and at most one frame of bytes.
        limit: u32,
        /// Whether the page has whole rows. If not, its rows are without fields.
        values: bool,
    },
}

/// Where an export goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportCursor {
    /// The export.
    pub export: ExportId,
    /// The page has only keys after this one. It says that all pages up to here have arrived.
    pub after: Bytes,
}
