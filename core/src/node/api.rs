//! What clients ask and what they are told: requests, outcomes, values, notices.
//!
//! These types are the contract of the HTTP API, of forwarding between nodes and of the simulator's clients. Names of
//! namespaces are resolved by the node, so a client needs to know no number.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::discovery::Address;
use crate::id::{
    Boot, Dot, GroupId, Index, NamespaceId, NodeId, Replica, SessionId, StoreId, Term,
};

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Found a federation with this node and the named ones as first voters. Once, on one node.
    Init {
        /// Addresses of the other first voters; each must run, verified and without a federation.
        voters: Vec<Address>,
    },
    /// A node that was verified asks to be a member. Answered with [`Value::Joined`].
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
    /// Delete a namespace and all in it.
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

/// The answer to a request. Every request gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The write happened, and this much was reached.
    Committed {
        /// The level reached.
        level: Level,
        /// What the writer may want to know.
        receipt: Receipt,
    },
    /// What was asked for.
    Value(Value),
    /// Nothing happened, and nothing will.
    Rejected(Reason),
    /// The write may have happened, or may still happen.
    Unknown {
        /// The level that is certain, if any.
        reached: Option<Level>,
    },
}

/// What a writer may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Strong: the index of the command, which is the revision of every key that it wrote.
    pub revision: Option<Index>,
    /// Eventual: the context to carry in a later write, so that it supersedes this one.
    pub context: Option<Context>,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A register.
    Register(Register),
    /// The members of a set, in order.
    Set {
        /// The members.
        members: Vec<Bytes>,
        /// What was read.
        context: Context,
    },
    /// A counter.
    Counter(i128),
    /// A record, or a row of one field.
    Record {
        /// The fields, in order.
        fields: Vec<Field>,
        /// What was read.
        context: Context,
    },
    /// A page of keys.
    Keys {
        /// The keys, in order.
        keys: Vec<Bytes>,
        /// Whether there are more.
        more: bool,
    },
    /// A page of rows.
    Rows {
        /// The rows, in order of their keys.
        rows: Vec<Row>,
        /// Whether there are more.
        more: bool,
    },
    /// What the node knows.
    Status(Status),
    /// The members.
    Members(Vec<Member>),
    /// The namespaces, in order of their names.
    Namespaces(Vec<Namespace>),
    /// The node is a member now.
    Joined(Founding),
    /// The federation is founded.
    Initialized,
}

/// A register as read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The value under the namespace's strategy; `None` when there is none.
    pub value: Option<Bytes>,
    /// All values, when concurrent writes left more than one; the first is `value`.
    pub siblings: Vec<Bytes>,
    /// Strong: the revision of the value.
    pub revision: Option<Index>,
    /// Eventual: what was read.
    pub context: Context,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name; empty for the key's own value.
    pub field: Bytes,
    /// What it holds.
    pub content: Content,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Content {
    /// Values of a register; the first is the one under the namespace's strategy.
    Register(Vec<Bytes>),
    /// Members of a set, in order.
    Set(Vec<Bytes>),
    /// A counter's value.
    Counter(i128),
}

/// All fields of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: Bytes,
    /// Its fields, in order of name and kind.
    pub fields: Vec<Field>,
}

/// Why nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The node is in no federation: it waits for `init` or for a peer that lets it join.
    NotFormed,
    /// The node is in a federation already.
    AlreadyFormed,
    /// A named first voter could not be reached or is in a federation already.
    VoterUnavailable {
        /// Where it should have been.
        address: Address,
    },
    /// The federation has no such namespace.
    UnknownNamespace,
    /// A namespace of that name exists.
    NamespaceExists,
    /// Not a name: 1 to 64 bytes of a-z, 0-9, `-`, `_`, `.`, beginning with a letter.
    InvalidName,
    /// The change needs a namespace of the other consistency.
    WrongConsistency,
    /// A key, field, value, batch or number is outside its bound.
    OutOfBounds {
        /// What is.
        what: Bound,
        /// The bound.
        limit: u64,
    },
    /// The compare-and-set found something else.
    Conflict {
        /// The revision found; `None` when there is no value.
        revision: Option<Index>,
    },
    /// The register has as many siblings as it may have: read it and write with its context.
    TooManySiblings,
    /// The session is not known: it is too old, or began elsewhere.
    SessionExpired,
    /// No leader is known, and none was found in time. Nothing was logged.
    NoLeader,
    /// The node has too much to do: come back in a moment.
    Busy,
    /// The disk, the memory or a table is full.
    Full {
        /// What is.
        what: Resource,
    },
    /// The node is stopping or fenced.
    Stopping,
}

/// What was outside its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// A key's length in bytes.
    Key,
    /// A field's length in bytes.
    Field,
    /// A value's or member's length in bytes.
    Value,
    /// Edits of one mutation.
    Edits,
    /// Mutations of one request.
    Mutations,
    /// Encoded bytes of one request.
    Request,
    /// Slots of a namespace.
    Slots,
    /// An address's length in bytes.
    Address,
    /// A counter's range.
    Counter,
    /// First voters.
    Voters,
}

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// The disk.
    Disk,
    /// Memory for keys and values.
    Memory,
    /// Sessions.
    Sessions,
    /// Namespaces.
    Namespaces,
    /// Members.
    Members,
}

/// The first state of a federation, or the way into one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Its members, voters first.
    pub members: Vec<Founder>,
    /// How many of them vote in group 0 from the start; 0 for a learner that is let in.
    pub voters: u8,
}

/// A member as founded or let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Who and on which disk.
    pub replica: Replica,
    /// Where.
    pub address: Address,
    /// The operator's name for it.
    pub name: String,
}

/// A member as seen by the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who and on which disk.
    pub replica: Replica,
    /// The operator's name for it.
    pub name: String,
    /// Where.
    pub address: Address,
    /// Whether it votes in group 0.
    pub voter: bool,
    /// Its health, as this node sees it.
    pub health: Health,
    /// Its boot count as last heard; 0 when never.
    pub boot: u64,
    /// Requests under way on it, as it last reported.
    pub load: u32,
}

/// How well a member is, as one node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// Not heard of yet.
    #[default]
    Unknown,
    /// Answers.
    Healthy,
    /// Suspected, or failing some observations.
    Suspect,
    /// Dead, or failing most observations.
    Unhealthy,
    /// Left on its own.
    Left,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its number.
    pub id: NamespaceId,
    /// Its name.
    pub name: String,
    /// How it is replicated.
    pub policy: Policy,
    /// The group of a strong namespace.
    pub group: Option<GroupId>,
}

/// What a node knows of itself and the federation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub replica: Replica,
    /// This process.
    pub boot: Boot,
    /// Whether it is in a federation.
    pub formed: bool,
    /// Why it is not ready to serve, if it is not; empty when ready.
    pub unready: Vec<Unready>,
    /// Its groups.
    pub groups: Vec<GroupStatus>,
    /// Its shards.
    pub shards: Vec<ShardStatus>,
    /// Bytes of keys and values held.
    pub memory_bytes: u64,
    /// Requests under way.
    pub requests: u32,
}

/// Why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unready {
    /// It is in no federation.
    NotFormed,
    /// Group 0 has no leader that this node knows.
    NoLeader,
    /// Its registry is behind what it knows to be committed.
    CatchingUp,
    /// Its disk is full.
    DiskFull,
    /// It is stopping.
    Stopping,
    /// It is fenced: its storage failed, or another process has its identity.
    Fenced,
}

/// One group, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Which.
    pub group: GroupId,
    /// Its term here.
    pub term: Term,
    /// Its leader, if known.
    pub leader: Option<NodeId>,
    /// What this node is in it.
    pub role: crate::raft::Role,
    /// The last committed entry known here.
    pub commit: Index,
    /// The last applied one.
    pub applied: Index,
    /// The last one in the log.
    pub last: Index,
}

/// One shard, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its slot.
    pub slot: u16,
    /// The first 8 bytes of its root: equal on converged replicas.
    pub root: u64,
    /// Live writes.
    pub writes: u64,
    /// Peers whose root equals ours, as last compared.
    pub in_sync: u32,
    /// Peers that replicate it.
    pub peers: u32,
}

/// Something that an operator, a metric or an oracle wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer sent something that it must not send; it was dropped.
    Rejected {
        /// Who.
        from: NodeId,
        /// What was wrong.
        why: &'static str,
    },
    /// A node's role in a group changed.
    Role {
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
        /// The new role.
        role: crate::raft::Role,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// A member's health changed.
    Health {
        /// Who.
        node: NodeId,
        /// From.
        from: Health,
        /// To.
        to: Health,
    },
    /// This node became a member of its federation.
    Formed,
    /// A group applied entries up to here.
    Applied {
        /// The group.
        group: GroupId,
        /// The last one.
        index: Index,
    },
    /// An owner's state went into a side file.
    Checkpointed {
        /// Whose.
        owner: crate::id::Owner,
        /// The file's length in bytes.
        bytes: u64,
    },
    /// A lagging replica was caught up by a snapshot.
    Installed {
        /// Whose.
        owner: crate::id::Owner,
    },
    /// Two writes with one dot and different content: a forged or cloned author.
    Equivocation {
        /// The dot.
        dot: Dot,
    },
    /// A write is stamped too far ahead, and waits.
    Ahead {
        /// The author.
        node: NodeId,
        /// By how many milliseconds.
        by_ms: u64,
    },
    /// A peer's link was refused.
    Refused {
        /// Who.
        peer: NodeId,
        /// Why.
        reason: super::Refusal,
    },
    /// A peer came with a store that its membership does not name.
    WrongStore {
        /// Who.
        peer: NodeId,
        /// Its store.
        store: StoreId,
    },
    /// The node went silent for good and must exit.
    Fenced {
        /// Why.
        why: &'static str,
    },
}
