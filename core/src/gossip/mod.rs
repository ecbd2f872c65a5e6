//! Gossip: who is there (SWIM, Das and others 2002; Lifeguard, Dadgar and others 2018).

mod message;

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::discovery::Address;
use crate::id::{Boot, NodeId, Replica};

pub use message::Message;

/// How often a member refuted its death: a later boot beats any count of an earlier one. Volatile.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation {
    /// The process life.
    pub boot: Boot,
    /// Refutations in it.
    pub refutations: u64,
}

/// What members hold of a member.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum State {
    /// Answers.
    #[default]
    Alive,
    /// Was silent, and has not refuted it yet.
    Suspect,
    /// Was suspected for too long.
    Dead,
    /// Said goodbye.
    Left,
}

/// A member as gossiped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who and on which disk.
    pub replica: Replica,
    /// The operator's name for it.
    pub name: String,
    /// Where.
    pub address: Address,
    /// Its latest known incarnation.
    pub incarnation: Incarnation,
    /// What is held of it.
    pub state: State,
    /// Requests under way on it, as it last said.
    pub load: u32,
}

/// What the machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The registry names this member: it may be probed and heard. Repeats are harmless.
    Join {
        /// Who, on which disk.
        replica: Replica,
        /// The operator's name for it.
        name: String,
        /// Where, as the registry has it; gossip may know better.
        address: Address,
    },
    /// The registry no longer names this member.
    Remove {
        /// Who.
        node: NodeId,
    },
    /// A link to a member is up: proof of life.
    Connected {
        /// Who.
        peer: NodeId,
        /// In which life.
        boot: Boot,
    },
    /// A message from an authenticated member.
    Received {
        /// Who sent it.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// This node's own load, to be told to the others.
    Load {
        /// Requests under way.
        requests: u32,
    },
    /// The process is stopping: say goodbye.
    Leave,
}

/// What the machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a member.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// What is held of a member changed: its state, address or load.
    Changed {
        /// The member as now held.
        member: Member,
    },
    /// A member sent something that it must not send; it was dropped.
    Rejected {
        /// Who.
        from: NodeId,
        /// What was wrong.
        why: &'static str,
    },
}
