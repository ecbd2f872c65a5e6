//! What a node says unasked: for operators, metrics and oracles.

use crate::api::Health;
use crate::id::{Dot, GroupId, Index, NodeId, Owner, Role, StoreId, Term};
use crate::node::Refusal;

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
        role: Role,
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
        owner: Owner,
        /// The file's length in bytes.
        bytes: u64,
    },
    /// A lagging replica was caught up by a snapshot.
    Installed {
        /// Whose.
        owner: Owner,
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
        reason: Refusal,
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
