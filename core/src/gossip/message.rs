//! What members say to each other, and the bounds of it.
//!
//! Every message carries the sender's own card and piggybacked news (SWIM 4.1: dissemination costs no messages of its
//! own). Bounds are checked here, before anything else looks at a message; authenticity is the transport's.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Incarnation, State};
use crate::id::{Address, Boot, NodeId, Replica};
use crate::limits::ADDRESS_BYTES_MAX;

/// Claims in one message, a page of a full sync included. With the longest addresses a message stays below 64 KiB.
pub const UPDATES_MAX: usize = 64;

/// Accusers named in one update.
pub const CONFIRMATIONS_MAX: usize = 8;

/// Refutations in one boot. A node that is wrongly suspected every second needs over a century for it.
pub const REFUTATIONS_MAX: u64 = u32::MAX as u64;

/// A message between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it is for.
    pub body: Body,
    /// The sender, as it sees itself.
    pub sender: Update,
    /// News of members; in a full sync, the page.
    pub updates: Vec<Update>,
    /// News of members' load.
    pub loads: Vec<Load>,
}

/// What a message is for. Numbers are the sender's own and come back in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Answer at once (SWIM 3.1).
    Ping {
        /// The probe's number.
        number: u64,
    },
    /// Ping that member in the sender's stead (SWIM 3.1).
    PingRequest {
        /// The probe's number.
        number: u64,
        /// Whom to ping.
        target: NodeId,
    },
    /// The target answered.
    Ack {
        /// The number in the ping or ping request.
        number: u64,
    },
    /// The helper is well and did ping; the target did not answer (Lifeguard IV-A).
    Nack {
        /// The number in the ping request.
        number: u64,
    },
    /// Nothing but news.
    Updates,
    /// The sender's part of a full sync; the receiver answers with what it knows better.
    Push {
        /// The page holds members behind this one.
        after: Option<NodeId>,
        /// The page ends with this member; without it, it is the last one.
        upto: Option<NodeId>,
    },
    /// The receiver's part of a full sync.
    Pull {
        /// As in the push.
        after: Option<NodeId>,
        /// As in the push.
        upto: Option<NodeId>,
    },
}

/// What the sender holds of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Of whom.
    pub replica: Replica,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// What.
    pub state: State,
    /// Where it is in this incarnation's boot.
    pub address: Address,
    /// Who suspects it, when suspected: independent accusations shorten the suspicion (Lifeguard IV-B).
    pub confirmations: Vec<NodeId>,
}

/// The load of a member, as it said itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Whose.
    pub node: NodeId,
    /// In which life.
    pub boot: Boot,
    /// The how-manieth report of that life.
    pub version: u64,
    /// Requests under way.
    pub requests: u32,
}

impl Message {
    /// Checks every bound, and that the card is the sender's.
    ///
    /// # Errors
    ///
    /// What is wrong, for the log.
    pub fn check(&self, from: NodeId) -> Result<(), &'static str> {
        if self.sender.replica.node != from {
            return Err("the sender's card is another node's");
        }
        if self.updates.len() > UPDATES_MAX || self.loads.len() > UPDATES_MAX {
            return Err("more news than a message may carry");
        }
        if matches!(self.sender.state, State::Suspect | State::Dead) {
            return Err("a sender cannot be dead in its own eyes");
        }
        core::iter::once(&self.sender).chain(&self.updates).try_for_each(Update::check)
    }
}

impl Update {
    fn check(&self) -> Result<(), &'static str> {
        if self.confirmations.len() > CONFIRMATIONS_MAX {
            return Err("more confirmations than a update may name");
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
            sender: update(),
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
