//! How a node comes into a federation that exists: it asks, again and again, until a member lets it in.
//!
//! Asking is a forwarded [`Request::Join`]; the answer is the list of members. With it the node creates group 0 without
//! a configuration and waits to be told by its leader, by entries or by a snapshot. A member that has a new name or
//! address tells the registry in the same way.

use core::time::Duration;

use crate::id::{GroupId, NodeId, Replica, RequestId};
use crate::limits::MEMBERS_MAX;
use crate::reach;

use super::Message;
use super::api::{Founder, Founding, Outcome, Reason, Request, Value};
use super::founding::is_bounded;
use super::machine::{Node, Timer};

/// Milliseconds until the first question, between questions while peers are there, and at most.
const JOIN_MS: u64 = 250;
const JOIN_MS_MAX: u64 = 2000;

/// How far the way in is.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// Who was asked last; the next one is after it.
    last: NodeId,
    backoff_ms: u64,
    armed: bool,
}

impl Node {
    /// A process starts: without a federation it asks to be let in; with one whose founding is unfinished it goes on
    /// telling.
    pub(super) fn begin_forming(&mut self) {
        if self.is_formed() {
            self.on_founding_due();
        } else {
            self.arm_join(JOIN_MS);
        }
    }

    fn arm_join(&mut self, after_ms: u64) {
        if !core::mem::replace(&mut self.joining.armed, true) {
            self.arm(Duration::from_millis(after_ms), Timer::Join);
        }
    }

    /// A new peer may be the one that lets this node in.
    pub(super) fn on_forming_connected(&mut self) {
        if !self.is_formed() {
            self.joining.backoff_ms = 0;
        }
    }

    /// Asks the next peer.
    pub(super) fn on_join_due(&mut self) {
        self.joining.armed = false;
        if self.is_formed() && self.own_entry_is_right() {
            return;
        }
        let next = self.joining.backoff_ms.saturating_mul(2).clamp(JOIN_MS, JOIN_MS_MAX);
        self.joining.backoff_ms = next;
        if let Some(peer) = self.next_to_ask() {
            reach!("node.join.asked");
            let id = RequestId(self.requests.number());
            self.joining.last = peer.node;
            let Founder { replica, address, name } = self.own_entry();
            let request = Request::Join { replica, address, name };
            self.send(peer, Message::Forward { id, request });
        }
        self.arm_join(next);
    }

    /// The leader of group 0 if it is known, else each peer in turn.
    fn next_to_ask(&self) -> Option<Replica> {
        let group = self.groups.get(&GroupId::REGISTRY);
        let leader = group.and_then(|group| group.raft.leader());
        let leader = leader.filter(|leader| self.peers.is_linked(*leader));
        let after = || self.peers.linked().find(|peer| peer.node > self.joining.last);
        leader.or_else(after).or_else(|| self.peers.linked().next())
    }

    /// A peer answers. True when the answer lets this node in.
    pub(super) fn on_join_answer(&mut self, from: Replica, outcome: &Outcome) -> bool {
        let Outcome::Value(Value::Joined(founding)) = outcome else { return false };
        if self.is_formed() {
            return false;
        }
        match check_joined(founding, self.me) {
            Ok(()) => self.join(founding.clone()),
            Err(why) => self.rejected(from.node, why),
        }
        true
    }

    fn join(&mut self, founding: Founding) {
        reach!("node.join.in");
        self.cancel_init();
        self.form(founding);
    }

    /// The registry's entry of this node is another one than it should be: tell it.
    pub(super) fn check_own_entry(&mut self) {
        if !self.own_entry_is_right() {
            reach!("node.join.entry_changed");
            self.arm_join(JOIN_MS);
        }
    }

    /// Whether the registry, once it names this node, has its name and address.
    fn own_entry_is_right(&self) -> bool {
        let entry = self.registry().and_then(|registry| registry.member(self.me.node));
        entry.is_none_or(|(replica, record)| {
            *replica != self.me || (record.name == self.name && record.address == self.address)
        })
    }

    /// Why this replica may not be let in: its node votes with another disk, whose vote would count twice.
    pub(super) fn check_join(&self, replica: Replica) -> Result<(), Reason> {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.raft.configuration().voters);
        let votes = voters.iter().any(|voter| voter.node == replica.node && *voter != replica);
        if votes {
            reach!("node.join.wiped_voter");
        }
        if votes { Err(Reason::StoreReplaced) } else { Ok(()) }
    }

    /// The members as a joiner is told.
    pub(super) fn welcome_list(&self) -> Founding {
        let members = self.registry().map(|registry| registry.founding().members);
        Founding { members: members.unwrap_or_default(), voters: 0 }
    }
}

/// A list of members must name this node and stay within all bounds.
fn check_joined(founding: &Founding, me: Replica) -> Result<(), &'static str> {
    if founding.voters != 0 || founding.members.len() > MEMBERS_MAX {
        return Err("an impossible list of members");
    }
    if !founding.members.iter().any(|member| member.replica == me) {
        return Err("a list of members without this node");
    }
    if !founding.members.iter().all(is_bounded) {
        return Err("a list of members with an oversized name or address");
    }
    Ok(())
}
