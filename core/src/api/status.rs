//! What a node says of itself.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Address, Boot, GroupId, Index, NamespaceId, NodeId, Replica, Term};

/// What a node knows of itself and the federation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub replica: Replica,
    /// This process.
    pub boot: Boot,
    /// The operator's name for this node.
    pub name: String,
    /// Where it says that others reach it.
    pub address: Address,
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
    pub role: crate::id::Role,
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
