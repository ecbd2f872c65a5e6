//! The coordinator: who is registered, how well each is, and who should serve.

use crate::gossip;
use crate::id::{GroupId, NodeId};
use crate::node::api::Health;

/// What the machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The registry names this member.
    Registered {
        /// Who.
        node: NodeId,
    },
    /// The registry no longer names it.
    Deregistered {
        /// Who.
        node: NodeId,
    },
    /// Gossip's verdict and the member's own report.
    Gossiped {
        /// Who.
        node: NodeId,
        /// The verdict.
        state: gossip::State,
        /// Requests under way on it.
        load: u32,
    },
    /// A request that was forwarded to a member ended, well or not.
    Served {
        /// Who.
        node: NodeId,
        /// Whether it answered in time.
        answered: bool,
    },
    /// A link came up or went down.
    Linked {
        /// Who.
        node: NodeId,
        /// Whether it is up.
        up: bool,
    },
    /// A group's leader became known, or unknown.
    Led {
        /// The group.
        group: GroupId,
        /// Who leads.
        leader: Option<NodeId>,
    },
}

/// What the machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// A member's health changed.
    Health {
        /// Who.
        node: NodeId,
        /// From.
        from: Health,
        /// To.
        to: Health,
    },
}

/// How one of several members is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one with the fewest requests under way, ours included.
    #[default]
    LeastLoaded,
    /// Each in turn.
    RoundRobin,
}
