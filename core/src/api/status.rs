//! The status that a node reports of itself.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::MemberInfo;
use crate::id::{
    Address, Boot, GenesisId, GroupId, Index, NamespaceId, NodeId, Replica, StoreId, Term,
};

/// A node's knowledge of itself, its groups and its shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node, and the store that its promises are on.
    pub replica: Replica,
    /// The current start of its process.
    pub boot: Boot,
    /// The operator's name for this node.
    pub name: String,
    /// The address at which it says that others reach it.
    pub address: Address,
    /// Whether it is in a federation.
    pub formed: bool,
    /// The beginning of that federation.
    pub genesis: Option<GenesisId>,
    /// The founder of a founding that this node accepted and whose end it does not know.
    pub undecided: Option<MemberInfo>,
    /// Linked nodes that are formed with another genesis, or with any while this node is in no federation.
    pub formed_peers: Vec<FormedPeer>,
    /// Why it does not serve everything; empty when it does.
    pub unready: Vec<Unready>,
    /// Matters for an operator to look at, although the node serves.
    pub warnings: Vec<Warning>,
    /// The Raft groups that it holds a replica of, in order.
    pub groups: Vec<GroupStatus>,
    /// The shards that it holds a replica of, in order.
    pub shards: Vec<ShardStatus>,
    /// Bytes of keys and values in memory.
    pub memory_bytes: u64,
    /// Requests that are not answered yet.
    pub requests: u32,
}

/// A linked node that is formed, and not together with the node that reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormedPeer {
    /// The formed node.
    pub node: NodeId,
    /// Its address; empty when it is not known.
    pub address: Address,
    /// Its genesis.
    pub genesis: GenesisId,
}

/// Why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unready {
    /// It is in no federation.
    NotFormed,
    /// A group that it holds has no leader that this node knows.
    NoLeader,
    /// It has not applied all entries of group 0 that it knows to be committed, or it has just started and still looks
    /// for its federation.
    CatchingUp,
    /// Its disk is full.
    DiskFull,
    /// It is stopping.
    Stopping,
    /// It is fenced: its storage failed, or another process has its identity.
    Fenced,
    /// A voter knows another process of its store, and the others have not decided. It promises nothing meanwhile.
    Suspended,
    /// A group stopped at an entry that this build cannot apply.
    GroupHalted {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
    },
    /// It accepted a founding, and its founder has not told how that ended.
    FoundingUndecided,
    /// A federation knows its node with another store, and has not let this one in.
    StoreReplaced,
    /// It has just started, and the voters have not confirmed yet that it is the process that should be there. It
    /// promises nothing meanwhile.
    Unconfirmed,
    /// Its disk has taken no write for longer than an election timeout, though writes wait.
    DiskStalled,
}

impl Unready {
    /// Whether it also stops eventual memory, which waits for no other node. Any reason stops strong memory.
    #[must_use]
    pub const fn stops_eventual(&self) -> bool {
        !matches!(self, Self::NoLeader | Self::GroupHalted { .. })
    }
}

/// Something that an operator should look at although the node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Warning {
    /// A leader's snapshot of a group does not restore here, so the group stays behind.
    SnapshotRefused {
        /// The group.
        group: GroupId,
        /// The last entry that the snapshot covers.
        index: Index,
    },
    /// Stamps that this node issued are ahead of its wall clock: the clock was ahead and went back, or is behind now.
    ClockAhead {
        /// By how many milliseconds.
        by_ms: u64,
    },
    /// Another node's stamps are ahead of this node's wall clock: one of the two clocks is wrong.
    ClockBehindPeers {
        /// The node whose stamps are ahead.
        node: NodeId,
        /// By how many milliseconds.
        by_ms: u64,
    },
    /// A linked node is in another federation of this id.
    RivalFederation {
        /// The linked node.
        node: NodeId,
        /// The beginning of its federation.
        genesis: GenesisId,
    },
    /// An earlier store of this node is a voter. This store is a learner and has no vote.
    StoreReplaced {
        /// The earlier store.
        store: StoreId,
    },
}

impl Warning {
    /// The codes of all kinds.
    pub const CODES: &[&str] = &[
        "snapshot_refused",
        "clock_ahead",
        "clock_behind_peers",
        "rival_federation",
        "store_replaced",
    ];

    /// The kind as programs match on it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SnapshotRefused { .. } => "snapshot_refused",
            Self::ClockAhead { .. } => "clock_ahead",
            Self::ClockBehindPeers { .. } => "clock_behind_peers",
            Self::RivalFederation { .. } => "rival_federation",
            Self::StoreReplaced { .. } => "store_replaced",
        }
    }
}

/// One group, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group; 0 is the registry.
    pub group: GroupId,
    /// The latest term that this node has seen.
    pub term: Term,
    /// The leader of `term`, if this node knows it.
    pub leader: Option<NodeId>,
    /// This node's role in the group.
    pub role: crate::id::Role,
    /// The last entry that this node knows to be committed.
    pub commit: Index,
    /// The last entry that this node has applied.
    pub applied: Index,
    /// The last entry of this node's log.
    pub last: Index,
    /// The entry that this build cannot apply, if the group stopped at one.
    pub halted: Option<Index>,
}

/// One shard, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The namespace that the shard is a part of.
    pub namespace: NamespaceId,
    /// Its number within the namespace, from 0.
    pub slot: u16,
    /// The first 8 bytes of its root hash, which is equal on converged replicas.
    pub root: u64,
    /// The number of live writes.
    pub writes: u64,
    /// The number of peers whose root was equal when last compared.
    pub in_sync: u32,
    /// The number of peers that replicate the shard.
    pub peers: u32,
}
