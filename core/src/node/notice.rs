//! Notices: reports that a node makes unasked, for operators, metrics and oracles. No machine depends on a notice.

use crate::api::Health;
use crate::id::{
    Boot, Dot, GenesisId, GroupId, Index, NodeId, Owner, Replica, Role, StoreId, Term,
};
use crate::node::Refusal;

/// A report for operators, metrics and oracles.
#[expect(missing_docs, reason = "the names of the other fields say it")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer sent something that it must not send; it was dropped.
    Rejected { from: NodeId, why: &'static str },
    /// This node's role in a group, the group's term or its known leader changed.
    Role { group: GroupId, term: Term, role: Role, leader: Option<NodeId> },
    /// A member's health changed.
    Health { node: NodeId, from: Health, to: Health },
    /// This node became a member of its federation.
    Formed,
    /// A group applied its entries up to this index.
    Applied { group: GroupId, index: Index },
    /// The disk has taken no write for longer than an election timeout; or it takes them again.
    DiskStalled { stalled: bool },
    /// An owner's state was written to a snapshot file of this many bytes.
    Checkpointed { owner: Owner, bytes: u64 },
    /// A leader's snapshot replaced the state of a lagging replica.
    Installed { owner: Owner },
    /// Two writes have one dot and different content: their author was forged or cloned.
    Equivocation { dot: Dot },
    /// This node refused the link of a peer's process.
    Refused { peer: NodeId, reason: Refusal },
    /// A peer connected with a store other than the one that the registry names.
    WrongStore { peer: NodeId, store: StoreId },
    /// A group stopped at an entry that this build cannot apply. It goes on under a build that can.
    GroupHalted { group: GroupId, index: Index },
    /// A leader's snapshot of a group does not restore here. The group keeps its state.
    SnapshotRefused { group: GroupId, index: Index, leader: Option<NodeId> },
    /// A linked peer is formed with another genesis: two federations have one id.
    RivalFederation { peer: NodeId, genesis: GenesisId },
    /// A message of another genesis was dropped.
    OtherGenesis { from: NodeId, genesis: GenesisId },
    /// This node accepted a founding, or learned that it will never be.
    Founding { founder: Replica, genesis: GenesisId, accepted: bool },
    /// The node went silent for good and must exit.
    Fenced { why: &'static str },
    /// A peer refuses this process.
    RefusedBy {
        /// The peer.
        peer: NodeId,
        /// The reason that it gives.
        reason: Refusal,
        /// The boot of this store that it knows.
        known: Boot,
    },
    /// A voter refused this process with evidence, so it promises nothing until a majority of the other voters decided;
    /// or they decided that it goes on.
    Suspended {
        /// Whether it promises nothing now.
        suspended: bool,
    },
}
