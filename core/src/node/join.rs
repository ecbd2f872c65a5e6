//! Join: how a node enters a federation that exists. It asks one peer after another until a member lets it in.
//!
//! The question is a forwarded [`Request::Join`]; the answer is the list of members. With that list the node creates
//! group 0 without a configuration and waits until the leader sends it entries or a snapshot. A member with a new name
//! or address sends the same request to update the registry. So does a learner that no leader has contacted for a
//! while: an earlier store of its node may have replaced it, and nothing would tell it so.
//!
//! This module does not create federations (`bootstrap`).

use core::time::Duration;

use crate::api::{Bootstrap, MemberInfo, Outcome, Reason, Request, Value};
use crate::id::{GroupId, NodeId, Replica, Role};
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;
use crate::{mutant, reach};

use super::bootstrap::is_bounded;
use super::machine::{Node, Timer};

/// Milliseconds until the first question; the pause between questions doubles from here up to [`JOIN_MS_MAX`].
const JOIN_MS: u64 = 250;
const JOIN_MS_MAX: u64 = 2000;

/// The progress of this node's attempt to join.
#[derive(Debug, Default)]
pub(super) struct JoinState {
    /// The peer that was asked last; the next question goes to the one after it.
    last: NodeId,
    backoff_ms: u64,
    /// When the next question is due.
    armed: Option<Instant>,
}

impl Node {
    /// A process starts. Without a federation it asks to be let in; with an unfinished bootstrap it continues that.
    pub(super) fn begin_membership(&mut self) {
        if self.is_formed() {
            self.on_bootstrap_due();
            self.watch_for_leader();
        } else {
            self.arm_join(JOIN_MS);
        }
    }

    /// Arms the timer at which a learner checks whether a leader still contacts it.
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
        } else if self.is_formed() && self.own_entry_is_current() {
            return self.watch_for_leader();
        }
        let next = self.join.backoff_ms.saturating_mul(2).clamp(JOIN_MS, JOIN_MS_MAX);
        self.join.backoff_ms = next;
        if let Some(peer) = self.next_to_ask() {
            reach!("node.join.asked");
            self.join.last = peer.node;
            let MemberInfo { replica, address, name } = self.own_info();
            let request = Request::Join { replica, address, name };
            let question = self.requests.question(peer, request);
            self.send(peer, question);
        }
        self.arm_join(next);
    }

    /// Whether this node is a learner that no leader of group 0 has contacted for a while. It may be a learner no
    /// longer: a late request of an earlier store of its node replaces it, and a replaced store is not told. Asking
    /// again puts this store back; when it was not replaced and the federation only lacks a leader, asking changes
    /// nothing.
    fn is_forgotten(&self) -> bool {
        let Some(group) = self.groups.get(&GroupId::REGISTRY) else { return false };
        let silence_ms = (2 * self.config.raft.election_timeout_ms).max(JOIN_MS_MAX);
        let silence = self.now.mono.since(group.raft.leader_contact());
        group.raft.role() == Role::Learner && silence >= Duration::from_millis(silence_ms)
    }

    /// The leader of group 0 if it is known, else each peer in turn. A forgotten learner ignores the leader that it
    /// knows, because that one may have been deposed.
    fn next_to_ask(&self) -> Option<Replica> {
        let group = self.groups.get(&GroupId::REGISTRY).filter(|_| !self.is_forgotten());
        let leader = group.and_then(|group| group.raft.leader());
        let leader = leader.filter(|leader| self.peers.is_linked(*leader));
        let after = || self.peers.linked().find(|peer| peer.node > self.join.last);
        leader.or_else(after).or_else(|| self.peers.linked().next())
    }

    /// A peer answers. Returns whether it answers this node's request to join.
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
        self.adopt_bootstrap(bootstrap);
    }

    /// Asks for a new entry when the registry holds another name or address for this node.
    pub(super) fn check_own_entry(&mut self) {
        if !self.own_entry_is_current() {
            reach!("node.join.entry_changed");
            self.arm_join(JOIN_MS);
        }
    }

    /// Whether the registry has this node's name and address, or does not list this store at all.
    fn own_entry_is_current(&self) -> bool {
        let entry = self.registry().and_then(|registry| registry.member(self.me.node));
        entry.is_none_or(|(replica, record)| {
            *replica != self.me || (record.name == self.name && record.address == self.address)
        })
    }

    /// Refuses a replica whose node votes with another disk, since that node would then vote twice. Refuses it as well
    /// when its node is linked here with another disk: then the request is an old one that was delayed.
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

    /// The member list that a joining node receives.
    pub(super) fn member_list(&self) -> Bootstrap {
        let members = self.registry().map(|registry| registry.membership().members);
        Bootstrap { members: members.unwrap_or_default(), voters: 0 }
    }
}

/// Checks that a list of members names this node and is within all bounds.
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
