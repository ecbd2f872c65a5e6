//! How a node comes into a federation that exists: it asks, again and again, until a member lets it in.
//!
//! Asking is a forwarded [`Request::Join`]; the answer is the list of members. With it the node creates group 0 without
//! a configuration and waits to be told by its leader, by entries or by a snapshot. A member that has a new name or
//! address tells the registry in the same way, and so does a learner to which no leader speaks any more: it may have
//! been taken out for an earlier store of its node, and would never hear of it.

use core::time::Duration;

use crate::id::{GroupId, NodeId, Replica, RequestId, Role};
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;
use crate::{mutant, reach};

use super::Message;
use super::bootstrap::is_bounded;
use super::machine::{Node, Timer};
use crate::api::{Bootstrap, MemberInfo, Outcome, Reason, Request, Value};

/// Milliseconds until the first question, between questions while peers are there, and at most.
const JOIN_MS: u64 = 250;
const JOIN_MS_MAX: u64 = 2000;

/// How far the way in is.
#[derive(Debug, Default)]
pub(super) struct JoinState {
    /// Who was asked last; the next one is after it.
    last: NodeId,
    backoff_ms: u64,
    /// When the next question is due.
    armed: Option<Instant>,
}

impl Node {
    /// A process starts: without a federation it asks to be let in; with one whose bootstrap is unfinished it goes on
    /// telling.
    pub(super) fn begin_membership(&mut self) {
        if self.is_formed() {
            self.on_bootstrap_due();
            self.watch_for_leader();
        } else {
            self.arm_join(JOIN_MS);
        }
    }

    /// A learner looks now and then whether a leader speaks to it.
    fn watch_for_leader(&mut self) {
        let group = self.groups.get(&GroupId::REGISTRY);
        if group.is_some_and(|group| group.raft.role() == Role::Learner) {
            self.arm_join(JOIN_MS_MAX);
        }
    }

    fn arm_join(&mut self, after_ms: u64) {
        let at = self.now.mono + Duration::from_millis(after_ms);
        if self.join.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        if let Some(later) = self.join.armed.replace(at) {
            self.disarm(later, Timer::Join);
        }
        self.arm_at(at, Timer::Join);
    }

    /// A new peer may be the one that lets this node in.
    pub(super) fn on_join_connected(&mut self) {
        if !self.is_formed() {
            self.join.backoff_ms = 0;
            self.arm_join(JOIN_MS);
        }
    }

    /// Asks the next peer.
    pub(super) fn on_join_due(&mut self) {
        self.join.armed = None;
        if self.is_forgotten() {
            reach!("node.join.forgotten");
        } else if self.is_formed() && self.own_entry_is_right() {
            return self.watch_for_leader();
        }
        let next = self.join.backoff_ms.saturating_mul(2).clamp(JOIN_MS, JOIN_MS_MAX);
        self.join.backoff_ms = next;
        if let Some(peer) = self.next_to_ask() {
            reach!("node.join.asked");
            let id = RequestId(self.requests.number());
            self.join.last = peer.node;
            let MemberInfo { replica, address, name } = self.own_entry();
            let request = Request::Join { replica, address, name };
            self.send(peer, Message::Forward { id, request });
        }
        self.arm_join(next);
    }

    /// Whether this is a learner to which no leader of group 0 has spoken for a while. It may be one no more: a late
    /// question of an earlier store of its node takes it out, and who is out is not told. To ask again puts this store
    /// back in its place, and changes nothing if it is there and the federation has no leader.
    fn is_forgotten(&self) -> bool {
        let Some(group) = self.groups.get(&GroupId::REGISTRY) else { return false };
        let silence_ms = (2 * self.config.raft.election_timeout_ms).max(JOIN_MS_MAX);
        let silence = self.now.mono.since(group.raft.heard_leader());
        group.raft.role() == Role::Learner && silence >= Duration::from_millis(silence_ms)
    }

    /// The leader of group 0 if it is known, else each peer in turn. Whom a leader forgot may know an old one.
    fn next_to_ask(&self) -> Option<Replica> {
        let group = self.groups.get(&GroupId::REGISTRY).filter(|_| !self.is_forgotten());
        let leader = group.and_then(|group| group.raft.leader());
        let leader = leader.filter(|leader| self.peers.is_linked(*leader));
        let after = || self.peers.linked().find(|peer| peer.node > self.join.last);
        leader.or_else(after).or_else(|| self.peers.linked().next())
    }

    /// A peer answers. True when the answer lets this node in.
    pub(super) fn on_join_answer(&mut self, from: Replica, outcome: &Outcome) -> bool {
        let Outcome::Value(Value::Joined(bootstrap)) = outcome else { return false };
        if self.is_formed() {
            return false;
        }
        match check_joined(bootstrap, self.me) {
            Ok(()) => self.join(bootstrap.clone()),
            Err(why) => self.rejected(from.node, why),
        }
        true
    }

    fn join(&mut self, bootstrap: Bootstrap) {
        reach!("node.join.in");
        self.cancel_init();
        self.form(bootstrap);
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

    /// Why this replica may not be let in: its node votes with another disk, whose vote would count twice; or is here
    /// with another disk, so that the question is an old one that was long under way, or waited for a leader.
    pub(super) fn check_join(&self, replica: Replica) -> Result<(), Reason> {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.raft.configuration().voters);
        let votes = voters.iter().any(|voter| voter.node == replica.node && *voter != replica);
        if votes {
            reach!("node.join.wiped_voter");
        }
        let peer = self.peers.get(replica.node).filter(|peer| peer.up);
        let replaced = peer.is_some_and(|peer| peer.store != replica.store);
        if replaced {
            reach!("node.join.of_earlier_store");
        }
        let welcome = votes && mutant!("node.join.wiped_voter_welcome");
        if votes && !welcome || replaced { Err(Reason::StoreReplaced) } else { Ok(()) }
    }

    /// The members as a joiner is told.
    pub(super) fn welcome_list(&self) -> Bootstrap {
        let members = self.registry().map(|registry| registry.membership().members);
        Bootstrap { members: members.unwrap_or_default(), voters: 0 }
    }
}

/// A list of members must name this node and stay within all bounds.
fn check_joined(bootstrap: &Bootstrap, me: Replica) -> Result<(), &'static str> {
    if bootstrap.voters != 0 || bootstrap.members.len() > MEMBERS_MAX {
        return Err("an impossible list of members");
    }
    if !bootstrap.members.iter().any(|member| member.replica == me) {
        return Err("a list of members without this node");
    }
    if !bootstrap.members.iter().all(is_bounded) {
        return Err("a list of members with an oversized name or address");
    }
    Ok(())
}
