//! Join: how a node enters a federation that exists. It asks one peer after another until a member lets it in.
//!
//! The question is a forwarded [`Request::Join`]; the answer is the list of members, voters first. With that list the
//! node creates group 0 and waits until the leader sends it entries or a snapshot. A member with a new name
//! or address sends the same request to update the registry. So does a learner that no leader has contacted for a
//! while: an earlier store of its node may have replaced it, and nothing would tell it so.
//!
//! A node asks for itself alone, and nobody relays its question: a member that does not lead group 0 answers with the
//! leader and its address, and the node dials that. A node outside any federation asks nodes that it looked for itself,
//! so that no stranger that dials it can take it in.
//!
//! This module does not create federations (`bootstrap`).

use core::time::Duration;

use crate::api::{Bootstrap, MemberInfo, Outcome, Reason, Request, Value};
use crate::id::{Address, GenesisId, GroupId, NodeId, Replica, Role, StoreId};
use crate::limits::{MEMBERS_MAX, VOTERS_MAX};
use crate::time::Instant;
use crate::{mutant, reach};

use super::bootstrap::is_bounded;
use super::group::Group;
use super::machine::{Node, Timer};
use super::request::Origin;

/// Milliseconds until the first question; the pause between questions doubles from here up to [`JOIN_MS_MAX`].
const JOIN_MS: u64 = 250;
const JOIN_MS_MAX: u64 = 2000;

/// The progress of this node's attempt to join.
#[derive(Debug, Default)]
pub(super) struct JoinState {
    /// The peer that was asked last; the next question goes to the one after it.
    last: NodeId,
    backoff_ms: u64,
    /// The leader of group 0, as the peer that was asked last said.
    leader: Option<Replica>,
    /// When the next question is due.
    armed: Option<Instant>,
    /// The formed node that said last that its federation knows this node with another store, and its address. Its
    /// link may end; what it said stays true while this process runs.
    replaced_says: Option<(NodeId, Address)>,
}

impl Node {
    /// A process starts. Without a federation it asks to be let in, or how the founding ended that it accepted.
    pub(super) fn begin_membership(&mut self) {
        if self.is_formed() {
            self.watch_for_leader();
        } else {
            self.begin_to_look();
            self.follow_founding();
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
        self.note_look();
        if self.genesis.acceptance.is_some() {
            // A voter that is bound by a founding joins no other federation.
            return;
        }
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
            self.join.leader = None;
            let MemberInfo { replica, address, name } = self.own_info();
            let genesis = self.genesis.id;
            let request = Request::Join { replica, address, name, genesis };
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
        self.groups.get(&GroupId::REGISTRY).is_some_and(|group| self.hears_no_leader(group))
    }

    /// Whether this node is a learner of the group that no leader has contacted for a while. A learner does not
    /// campaign, so it goes on naming the leader that it knew last.
    pub(super) fn hears_no_leader(&self, group: &Group) -> bool {
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
        let told = self.join.leader.filter(|leader| self.peers.is_linked(*leader));
        let may_ask = |peer: &Replica| self.is_formed() || self.is_sought(*peer);
        let linked = || self.peers.linked().filter(may_ask);
        let after = || linked().find(|peer| peer.node > self.join.last);
        leader.or(told).or_else(after).or_else(|| linked().next())
    }

    /// A peer asks to be let in, or to change its entry. Only the leader of group 0 does that.
    pub(super) fn on_join_request(&mut self, from: Replica, origin: Origin, request: Request) {
        let answer = match self.groups.get(&GroupId::REGISTRY) {
            Some(group) if group.leads() => {
                // Also a list costs much more than the question.
                if !self.admission.admits(from.node, self.now.mono) {
                    reach!("node.join.too_often");
                    Outcome::Rejected(Reason::Busy)
                } else if self.has_entry(&request) {
                    Outcome::Value(Value::Joined(self.member_list()))
                } else {
                    return self.accept(origin, request);
                }
            }
            Some(group) => {
                let known = group.raft.leader().and_then(|leader| {
                    let (replica, record) = group.state.registry().member(leader.node)?;
                    let (address, name) = (record.address.clone(), record.name.clone());
                    (*replica == leader).then_some(MemberInfo { replica: leader, address, name })
                });
                known.map_or(Outcome::Rejected(Reason::NoLeader), |leader| {
                    reach!("node.join.sent_to_leader");
                    Outcome::Value(Value::Leader(leader))
                })
            }
            None => Outcome::Rejected(Reason::NotFormed),
        };
        self.answer(origin, answer);
    }

    /// Whether the registry has exactly the entry that a request to join asks for. Then nothing is logged.
    fn has_entry(&self, request: &Request) -> bool {
        let Request::Join { replica, address, name, genesis } = request else { return false };
        if genesis.is_some() && *genesis != self.genesis.id {
            return false;
        }
        let entry = self.registry().and_then(|registry| registry.member(replica.node));
        entry.is_some_and(|(known, record)| {
            known == replica && record.address == *address && record.name == *name
        })
    }

    /// The peer that was asked does not lead: asks the leader that it names, once there is a link to it.
    fn on_join_elsewhere(&mut self, leader: &MemberInfo) {
        if leader.replica.node == self.me.node || !is_bounded(leader) {
            return;
        }
        self.join.leader = Some(leader.replica);
        if self.peers.is_linked(leader.replica) {
            self.arm_join(JOIN_MS / 5);
        } else if !leader.address.0.is_empty() {
            self.located(leader.replica.node, leader.address.clone());
        }
    }

    /// A peer answers. Returns whether it answers this node's request to join.
    pub(super) fn on_join_answer(&mut self, from: Replica, outcome: &Outcome) -> bool {
        if let Outcome::Value(Value::Leader(leader)) = outcome {
            self.on_join_elsewhere(leader);
            return true;
        }
        self.join.leader = self.join.leader.filter(|leader| *leader != from);
        if self.is_formed() {
            return false;
        }
        match outcome {
            Outcome::Rejected(Reason::StoreReplaced) => self.told_replaced(from.node),
            Outcome::Value(Value::Joined(bootstrap)) => self.on_joined(from, bootstrap),
            _ => return false,
        }
        true
    }

    fn on_joined(&mut self, from: Replica, bootstrap: &Bootstrap) {
        let bound = self.genesis.acceptance.as_ref().map(|known| known.bootstrap.genesis);
        if bound.is_some_and(|genesis| genesis != bootstrap.genesis) {
            reach!("node.join.bound");
            return;
        }
        match check_joined(bootstrap, self.me) {
            Ok(()) => {
                reach!("node.join.in");
                let (node, address) = (from.node, self.address_of(from.node));
                self.abort_founding(Reason::FederationExists { node, address });
                self.adopt_bootstrap(bootstrap.clone());
            }
            Err(why) => self.rejected(from.node, why),
        }
    }

    /// The earlier store of this node that votes in group 0, if this one does not.
    pub(super) fn replaced_store(&self) -> Option<StoreId> {
        let configuration = self.groups.get(&GroupId::REGISTRY)?.raft.configuration();
        let own = |voter: &&Replica| voter.node == self.me.node && **voter != self.me;
        configuration.voters.iter().find(own).map(|voter| voter.store)
    }

    /// A formed node says with which store its federation knows this node, if with another one than this.
    pub(super) fn on_replaced(&mut self, from: NodeId, store: Option<StoreId>) {
        if store.is_some() && !self.is_formed() {
            self.told_replaced(from);
        }
    }

    fn told_replaced(&mut self, from: NodeId) {
        self.join.replaced_says = Some((from, self.address_of(from)));
    }

    /// Whether the federation knows this node with another store.
    pub(super) const fn is_store_replaced(&self) -> bool {
        self.join.replaced_says.is_some()
    }

    /// Why no federation may begin here: this node's earlier store is in one.
    pub(super) fn earlier_federation(&self) -> Option<Reason> {
        let (node, address) = self.join.replaced_says.clone()?;
        let is_barred = !mutant!("node.founding.beside_earlier");
        is_barred.then_some(Reason::FederationExists { node, address })
    }

    /// Asks for a new entry when the registry holds another name or address for this node.
    pub(super) fn check_own_entry(&mut self) {
        if !self.own_entry_is_current() {
            reach!("node.join.entry_changed");
            self.arm_join(JOIN_MS);
        }
    }

    /// Whether the registry has this store with this node's name and address, or does not list the node at all. Where
    /// it lists another store, that one replaced this one while it was away.
    fn own_entry_is_current(&self) -> bool {
        let entry = self.registry().and_then(|registry| registry.member(self.me.node));
        entry.is_none_or(|(replica, record)| {
            *replica == self.me && record.name == self.name && record.address == self.address
        })
    }

    /// Refuses a replica whose node is linked here with another store, since two stores of one node must not take each
    /// other's place in turn. Refuses a replica of another federation as well.
    ///
    /// A node whose voting store is gone may come in with a new one. The new store is a learner and never votes, and
    /// the old one stays a voter, so the node has one vote.
    pub(super) fn check_join(
        &self,
        replica: Replica,
        genesis: Option<GenesisId>,
    ) -> Result<(), Reason> {
        if genesis.is_some_and(|genesis| self.genesis.id != Some(genesis)) {
            reach!("node.join.of_rival");
            let (node, address) = (self.me.node, self.address.clone());
            return Err(Reason::FederationExists { node, address });
        }
        let peer = self.peers.get(replica.node).filter(|peer| peer.up);
        let is_alive = peer.is_some_and(|peer| peer.store != replica.store);
        if is_alive {
            reach!("node.join.of_earlier_store");
            return Err(Reason::StoreReplaced);
        }
        Ok(())
    }

    /// The member list that a joining node receives.
    pub(super) fn member_list(&self) -> Bootstrap {
        let genesis = self.genesis.id.unwrap_or_default();
        let list = self.registry().map(|registry| registry.membership(genesis));
        list.unwrap_or_else(|| self.bootstrap_list())
    }
}

/// Checks that a list of members names this node and is within all bounds.
fn check_joined(bootstrap: &Bootstrap, me: Replica) -> Result<(), &'static str> {
    let voters = usize::from(bootstrap.voters);
    let is_possible = (1..=VOTERS_MAX).contains(&voters) && voters <= bootstrap.members.len();
    if !is_possible || bootstrap.members.len() > MEMBERS_MAX {
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
