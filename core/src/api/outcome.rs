//! What clients are told.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Context, Level, Value};
use crate::id::{Address, Index, Replica};

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
    /// The node votes with another disk, so its new one cannot be let in: remove the old vote first. Or it is here with
    /// another disk at this moment.
    StoreReplaced,
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
pub struct Bootstrap {
    /// Its members, voters first.
    pub members: Vec<MemberInfo>,
    /// How many of them vote in group 0 from the start; 0 for a learner that is let in.
    pub voters: u8,
}

/// A member as founded or let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Who and on which disk.
    pub replica: Replica,
    /// Where.
    pub address: Address,
    /// The operator's name for it.
    pub name: String,
}
