//! What clients ask.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Address, Dot, Replica, SessionId};

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Found a federation with this node and the named ones as first voters. Once, on one node.
    Init {
        /// Addresses of the other first voters; each must run, verified and without a federation.
        voters: Vec<Address>,
    },
    /// A node that was verified asks to be a member. Answered with [`super::Value::Joined`].
    Join {
        /// Who and on which disk.
        replica: Replica,
        /// Where others reach it.
        address: Address,
        /// The operator's name for it.
        name: String,
    },
    /// What this node knows of itself and the federation.
    Status,
    /// The members of the federation.
    Members,
    /// All namespaces.
    Namespaces,
    /// Create a namespace.
    CreateNamespace {
        /// What it is called.
        name: String,
        /// How it is replicated.
        policy: Policy,
        /// Makes a retry harmless.
        session: Option<Session>,
    },
    /// Delete a namespace and all in it. A node serves it until it has learnt of that: its name must not be used again
    /// at once.
    DeleteNamespace {
        /// Which.
        name: String,
        /// Makes a retry harmless.
        session: Option<Session>,
    },
    /// Read.
    Read {
        /// The namespace's name.
        namespace: String,
        /// What.
        query: Query,
    },
    /// Write. In a strong namespace all mutations are one command: all happen, or none. In an eventual one each is an
    /// atomic write of its own.
    Write {
        /// The namespace's name.
        namespace: String,
        /// What, at most [`crate::limits::BATCH_WRITES_MAX`].
        mutations: Vec<Mutation>,
        /// When to answer.
        level: Level,
        /// Makes a retry harmless; needed for exactly-once.
        session: Option<Session>,
    },
}

/// A client session: the write with the same session and sequence number happens once, however often it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    /// Chosen by the client, at random.
    pub id: SessionId,
    /// Counts the session's writes from 0. The next number says that the answer to the last one arrived.
    pub seq: u64,
}

/// How a namespace is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Linearizable, by Raft.
    Strong,
    /// Multi-master, as CRDTs.
    Eventual {
        /// How a register with siblings is read.
        strategy: Strategy,
        /// Shards, fixed at creation; from 1 to [`crate::limits::SLOTS_MAX`].
        slots: u16,
        /// Whether losers of the LWW order are dropped for good.
        discard: bool,
    },
}

/// How a register with siblings is read. A pure function over the siblings, so it may change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// The greatest of (hybrid logical clock, node, hash).
    #[default]
    LastWriterWins,
    /// The sibling of the highest node.
    HighestNodeWins,
}

/// When a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// In this node's memory.
    Applied,
    /// On this node's disk; in a strong namespace on a quorum's.
    #[default]
    Durable,
    /// On this node's disk and on those of so many other replicas.
    Replicated(u8),
}

/// One atomic change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation {
    /// The key, at most [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// What is changed, at most [`crate::limits::EDITS_MAX`].
    pub edits: Vec<Edit>,
    /// What the client had read; `None` observes what this replica holds.
    pub context: Option<Context>,
}

/// A change of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The field; empty for the key's own value. A key whose fields are named is a record.
    pub field: Bytes,
    /// The change.
    pub change: Change,
}

/// What happens to a field. A field holds a register, a set and a counter side by side, each changed by its own kinds
/// of change; so that two nodes that use one field in two ways lose nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Set the register.
    Put(Bytes),
    /// Remove all that was observed: the register, or with an empty field the whole record.
    Delete,
    /// Set or remove the register if it is as expected. Strong namespaces only.
    Cas {
        /// What it must be.
        expected: Expected,
        /// What it becomes; `None` removes it.
        value: Option<Bytes>,
    },
    /// Add a member to the set. Eventual namespaces only, as are all below.
    Add(Bytes),
    /// Remove the observed occurrences of a member from the set.
    Remove(Bytes),
    /// Add to the counter.
    Count(i64),
}

/// What a register must be for a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Without a value.
    Absent,
    /// At this revision.
    Revision(u64),
    /// With this value.
    Value(Bytes),
}

/// What was read, so that a later write supersedes just that. Opaque to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The dots that were seen.
    pub dots: Vec<Dot>,
    /// The greatest stamp that was seen, as the hybrid logical clock's 64 bits; merged before the write is stamped.
    pub stamp: u64,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The register of a field.
    Get {
        /// The key.
        key: Bytes,
        /// The field; empty for the key's own.
        field: Bytes,
    },
    /// The members of a set.
    Members {
        /// The key.
        key: Bytes,
        /// The field; empty for the key's own.
        field: Bytes,
    },
    /// The value of a counter.
    Count {
        /// The key.
        key: Bytes,
        /// The field; empty for the key's own.
        field: Bytes,
    },
    /// All fields of one key.
    Record {
        /// The key.
        key: Bytes,
    },
    /// Keys in order, a page at a time.
    Keys {
        /// Only keys that begin with this.
        prefix: Bytes,
        /// Only keys after this one.
        after: Option<Bytes>,
        /// At most so many; bounded by [`crate::limits::PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// Whole rows in order of their keys, a page at a time.
    Rows {
        /// Only keys after this one.
        after: Option<Bytes>,
        /// At most so many; bounded by [`crate::limits::PAGE_ROWS_MAX`] and by a frame.
        limit: u32,
    },
}
