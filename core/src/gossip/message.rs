//! The messages between members, and their bounds.
//!
//! Every message carries the sender's own update and piggybacked updates of other members (SWIM 4.1: dissemination
//! costs no messages of its own). [`Message::check`] checks all bounds before anything else reads a message. This
//! module does not authenticate: the transport does.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Incarnation, State};
use crate::id::{Address, Boot, NodeId, Replica};
use crate::limits::ADDRESS_BYTES_MAX;

/// Updates in one message, piggybacked or as a page of a push-pull. With the longest addresses a message stays below
/// 64 KiB.
pub const UPDATES_MAX: usize = 64;

/// Confirmations in one update.
pub const CONFIRMATIONS_MAX: usize = 8;

/// Refutations in one boot. No node that is wrongly suspected gets there, and with [`HEARSAY_REFUTATIONS_MAX`] no liar
/// brings it there.
pub const REFUTATIONS_MAX: u64 = 1 << 62;

/// How many refutations beyond a member's own word others may claim of it. A member refutes a false claim with one
/// more; if a claim could be as high as it likes, one lie would leave the member nothing to refute with.
pub const HEARSAY_REFUTATIONS_MAX: u64 = 1 << 16;

/// A message between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The purpose of the message.
    pub body: Body,
    /// The sender's update of itself. It is in a box because each node moves messages of all machines through one
    /// queue, and each takes the room of the largest.
    pub sender: Box<Update>,
    /// Updates of other members: piggybacked, or the page of a push-pull. At most [`UPDATES_MAX`].
    pub updates: Vec<Update>,
    /// Load reports, the sender's own among them. At most [`UPDATES_MAX`].
    pub loads: Vec<Load>,
}

/// The purpose of a message. The sender of a question chooses its number, and the answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Asks for an ack at once (SWIM 3.1).
    Ping {
        /// The number of the probe.
        number: u64,
    },
    /// Asks a helper to ping the target for the sender (SWIM 3.1).
    PingRequest {
        /// The number of the probe.
        number: u64,
        /// The member to ping.
        target: NodeId,
    },
    /// The target answered.
    Ack {
        /// The number in the ping or ping request.
        number: u64,
    },
    /// The helper is well and pinged the target, but got no ack (Lifeguard IV-A).
    Nack {
        /// The number in the ping request.
        number: u64,
    },
    /// Carries updates only.
    Updates,
    /// The sender's page of a push-pull. The receiver answers with a pull.
    Push {
        /// The page holds members after this one; `None`: from the first.
        after: Option<NodeId>,
        /// The page ends with this member; `None`: it is the last page.
        upto: Option<NodeId>,
    },
    /// The receiver's answer to a push: what it knows better about the same range.
    Pull {
        /// As in the push.
        after: Option<NodeId>,
        /// As in the push, or an earlier member when the answer did not fit into one page.
        upto: Option<NodeId>,
    },
}

/// The sender's view of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The member: a node and its disk.
    pub replica: Replica,
    /// The member's latest incarnation that the sender knows.
    pub incarnation: Incarnation,
    /// Its state in that incarnation.
    pub state: State,
    /// Its address in that incarnation.
    pub address: Address,
    /// The members whose own probes failed, if it is suspected: independent ones shorten the suspicion (Lifeguard
    /// IV-B). At most [`CONFIRMATIONS_MAX`].
    pub confirmations: Vec<NodeId>,
}

/// A member's own report of its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The member that reports.
    pub node: NodeId,
    /// The boot that counts the versions.
    pub boot: Boot,
    /// The number of the report in that boot: a higher one is newer.
    pub version: u64,
    /// Requests in progress.
    pub requests: u32,
}

impl Message {
    /// Checks all bounds, and that the sender's update is about `from`, the authenticated sender.
    ///
    /// # Errors
    ///
    /// The rule that the message breaks, for the log.
    pub fn check(&self, from: NodeId) -> Result<(), &'static str> {
        if self.sender.replica.node != from {
            return Err("the sender's update is about another node");
        }
        if self.updates.len() > UPDATES_MAX || self.loads.len() > UPDATES_MAX {
            return Err("more updates or loads than a message may carry");
        }
        if matches!(self.sender.state, State::Suspect | State::Dead) {
            return Err("the sender calls itself suspect or dead");
        }
        core::iter::once(&*self.sender).chain(&self.updates).try_for_each(Update::check)
    }
}

impl Update {
    fn check(&self) -> Result<(), &'static str> {
        if self.confirmations.len() > CONFIRMATIONS_MAX {
            return Err("more confirmations than an update may carry");
        }
        if self.address.0.len() > ADDRESS_BYTES_MAX {
            return Err("an address that is too long");
        }
        if self.incarnation.refutations > REFUTATIONS_MAX {
            return Err("more refutations than a boot may have");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use super::*;
    use crate::codec;
    use crate::limits::FRAME_BYTES_MAX;

    fn update() -> Update {
        let boot = Boot { count: u64::MAX, nonce: u64::MAX };
        Update {
            replica: Replica::default(),
            incarnation: Incarnation { boot, refutations: REFUTATIONS_MAX },
            state: State::Alive,
            address: Address(String::from_utf8(vec![b'a'; ADDRESS_BYTES_MAX]).unwrap()),
            confirmations: vec![NodeId::default(); CONFIRMATIONS_MAX],
        }
    }

    fn largest() -> Message {
        let boot = Boot { count: u64::MAX, nonce: u64::MAX };
        let load = Load { node: NodeId::default(), boot, version: u64::MAX, requests: u32::MAX };
        let target = Some(NodeId::default());
        Message {
            body: Body::Push { after: target, upto: target },
            sender: update().into(),
            updates: vec![update(); UPDATES_MAX],
            loads: vec![load; UPDATES_MAX],
        }
    }

    #[test]
    fn the_largest_message_is_far_below_a_frame() {
        assert_eq!(largest().check(NodeId::default()), Ok(()));
        let length = codec::encoded_len(&largest());
        assert!(length < FRAME_BYTES_MAX / 16, "{length} bytes");
    }

    #[test]
    fn each_bound_is_checked() {
        let spoils: [fn(&mut Message); 7] = [
            |m| m.updates.push(update()),
            |m| m.loads.push(m.loads[0]),
            |m| m.updates[9].confirmations.push(NodeId::default()),
            |m| m.updates[9].address.0.push('a'),
            |m| m.updates[63].incarnation.refutations += 1,
            |m| m.sender.state = State::Dead,
            |m| m.sender.replica.node = NodeId([1; 16]),
        ];
        for (at, spoil) in spoils.iter().enumerate() {
            let mut message = largest();
            spoil(&mut message);
            assert!(message.check(NodeId::default()).is_err(), "spoil {at}");
        }
    }
}
