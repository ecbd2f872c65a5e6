//! Outcomes: the answers to requests, and the reasons of refusals.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Context, Level, Value};
use crate::id::{Address, GenesisId, GroupId, Index, NodeId, Replica};

/// The answer to a request. Every request gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The write happened and reached `level`.
    Committed {
        /// The durability level that was reached, at least the one that the request named.
        level: Level,
        /// Helps the writer with its next write of the same key.
        receipt: Receipt,
    },
    /// The answer to a read.
    Value(Value),
    /// Nothing happened, and nothing will.
    Rejected(Reason),
    /// The write may have happened, or may still happen.
    Unknown {
        /// The highest level that is certain; `None` when not even [`Level::Applied`] is.
        reached: Option<Level>,
    },
    /// A part of the writes of an eventual request happened, and is on this node's disk. The one after them was
    /// refused, and those after it were not tried.
    Partial {
        /// The writes that happened: the first ones of the request.
        happened: u32,
        /// Why the next one did not.
        reason: Reason,
    },
}

/// The version of a write, for the writer's next write of the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Strong namespaces: the log index of the command, which is the revision of every key that it wrote.
    pub revision: Option<Index>,
    /// Eventual namespaces: the context that a later write carries in order to supersede this one.
    pub context: Option<Context>,
    /// Whether something was there before: of a write that removes, something that it removed; of a write of one
    /// register, the value that it replaced. Other writes do not say.
    pub existed: bool,
}

/// The effect of a change on what was there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Before {
    /// Nothing was there, or it stays.
    #[default]
    Nothing,
    /// The change replaced a register's value.
    Replaced,
    /// The change removed something.
    Removed,
}

impl Before {
    /// Whether a write says that something was there; `is_alone` if it has no other change.
    #[must_use]
    pub fn existed(self, is_alone: bool) -> bool {
        self == Self::Removed || self == Self::Replaced && is_alone
    }
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
        /// The address that the request named.
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
        /// The bound that was exceeded.
        what: Bound,
        /// The greatest permitted value, in the unit of `what`.
        limit: u64,
    },
    /// A compare-and-set did not find what it expected.
    Conflict {
        /// The revision that the key has now; `None` when it has no value.
        revision: Option<Index>,
        /// The place in the request of the mutation that was refused, from 0.
        at: u32,
    },
    /// The context is not one that this federation gave out for this key's shard, or it is too old: read the key again.
    ForeignContext,
    /// The register has as many siblings as it may have: read it and write with its context.
    TooManySiblings,
    /// The joining node already votes with another disk, whose vote must be removed first; or it is linked with another
    /// disk right now.
    StoreReplaced,
    /// The session is not known any more, or had a later write since. This try did nothing; an earlier one may have
    /// happened.
    SessionExpired,
    /// No leader was found in time. Nothing was logged.
    NoLeader,
    /// The node is overloaded. A retry after a moment may succeed.
    Busy,
    /// The disk, the memory or a table is full.
    Full {
        /// The resource that ran out.
        what: Resource,
    },
    /// The node is stopping or fenced.
    Stopping,
    /// On this node the group stopped at an entry that this build cannot apply.
    GroupHalted {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
    },
    /// The node takes part in a founding whose founder has not decided it yet, so it takes part in no other.
    FoundingUndecided {
        /// The node that an operator told to found the federation.
        founder: NodeId,
        /// Its address.
        address: Address,
    },
    /// A node of this federation id is formed already, so no second federation begins.
    FederationExists {
        /// The formed node.
        node: NodeId,
        /// Its address; empty when it is not known.
        address: Address,
    },
    /// The number of this write in its session was given to another request, which happened or may happen.
    SessionReused,
    /// The node's disk takes no write, and this one must be durable there.
    DiskStalled,
    /// This process of the node does not have the export: it ended, or another process began it.
    ExportExpired,
    /// As many exports of the namespace are under way on the node as it keeps.
    ExportsBusy,
}

/// A bound that a request exceeded, with the unit that its limit is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// A key's length in bytes.
    Key,
    /// A field's length in bytes.
    Field,
    /// The length in bytes of a value or of a set's member.
    Value,
    /// The number of edits in one mutation.
    Edits,
    /// The number of mutations in one request.
    Mutations,
    /// The encoded bytes of one request.
    Request,
    /// The number of slots of a namespace.
    Slots,
    /// An address's length in bytes.
    Address,
    /// The magnitude of a counter.
    Counter,
    /// The stamp of a value that is to be overwritten: no stamp is above it. Delete the value first.
    Stamp,
    /// The number of first voters.
    Voters,
    /// The number of other replicas that a write is to be durable on: there are no more.
    Replicas,
}

/// A resource that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Disk space: the reserve is reached.
    Disk,
    /// Memory for keys and values.
    Memory,
    /// The registry's table of namespaces.
    Namespaces,
    /// The registry's table of members.
    Members,
}

/// The member list that a federation begins with, or that a joining node receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The beginning that the list belongs to.
    pub genesis: GenesisId,
    /// The members, voters first.
    pub members: Vec<MemberInfo>,
    /// How many of `members` vote in group 0: the first ones.
    pub voters: u8,
}

impl Bootstrap {
    /// The replicas that vote in group 0, sorted.
    #[must_use]
    pub fn voting(&self) -> Vec<Replica> {
        let voting = self.members.iter().take(usize::from(self.voters));
        let mut voters: Vec<Replica> = voting.map(|member| member.replica).collect();
        voters.sort_unstable();
        voters
    }
}

/// One member of a [`Bootstrap`] list, or of a request to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// The node and the store that its promises are on.
    pub replica: Replica,
    /// The address at which other nodes reach it.
    pub address: Address,
    /// The operator's name for it, at most [`crate::limits::NAMESPACE_NAME_BYTES_MAX`] bytes.
    pub name: String,
}
