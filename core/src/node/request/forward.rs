//! Forwarding: a request that this node cannot serve goes to another node, and only that node's answer counts.
//!
//! A forwarded request is not forwarded again.

use alloc::boxed::Box;

use crate::api::{Outcome, Reason, Request, Value};
use crate::coordinator::{self, Choice};
use crate::id::{AskId, GroupId, NodeId, Replica};
use crate::{mutant, reach};

use super::super::machine::{Node, Task};
use super::super::peers::Forwarded;
use super::super::standing::Standing;
use super::{Origin, Stage};

impl Node {
    /// Forwards a request to the leader of its group, or lets it wait when no link to the leader is up.
    pub(super) fn forward_to_leader(&mut self, key: u64, group: GroupId, leader: Replica) {
        if self.is_forwarded_here(key) {
            return self.refuse(key, Reason::NoLeader);
        }
        if !self.peers.is_linked(leader) {
            reach!("node.forward.no_link");
            return self.wait_for_leader(key, group);
        }
        self.coordinator.machine.begin(leader.node);
        self.forward(key, leader);
    }

    /// Whether a peer forwarded this request to this node.
    fn is_forwarded_here(&self, key: u64) -> bool {
        let pending = self.requests.pending.get(&key);
        pending.is_some_and(|pending| matches!(pending.origin, Origin::Peer(..)))
    }

    /// Sends a request to `to`, which is linked. The coordinator counts it already.
    fn forward(&mut self, key: u64, to: Replica) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        reach!("node.forward.sent");
        pending.stage = Stage::Forwarded(to);
        let request = pending.request.clone();
        self.requests.forwarded.insert((to.node, key));
        let message = self.requests.forwarding(to, key, request);
        self.send(to, message);
        self.schedule_retry(key);
    }

    /// Forwards a request to the least loaded voter of group 0 that is linked. Voters of group 0 hold every group.
    pub(super) fn forward_to_voter(&mut self, key: u64, group: GroupId) {
        if self.is_forwarded_here(key) {
            return self.refuse(key, Reason::NoLeader);
        }
        let Some(registry) = self.groups.get(&GroupId::REGISTRY) else {
            return self.refuse(key, Reason::NotFormed);
        };
        let (me, peers) = (self.me, &self.peers);
        let voters = registry.raft.configuration().voters.iter();
        let linked = voters.filter(|voter| **voter != me && peers.is_linked(**voter));
        let nodes = linked.clone().map(|voter| voter.node);
        let chosen = self.coordinator.machine.choose(Choice::LeastLoaded, nodes);
        let to = linked.copied().find(|voter| Some(voter.node) == chosen);
        match to {
            Some(to) => self.forward(key, to),
            None => self.wait_for_leader(key, group),
        }
    }

    /// A peer forwards a request to this node. `open` is the lowest number that the peer still waits for.
    pub(in crate::node) fn on_forward(
        &mut self,
        from: Replica,
        (id, open): (AskId, u64),
        request: Request,
    ) {
        let origin = Origin::Peer(from, id);
        match self.peers.take_forward(from.node, id, open) {
            Forwarded::New => {}
            Forwarded::Old => return,
            Forwarded::Forgotten => {
                return self.answer(origin, Outcome::Unknown { reached: None });
            }
        }
        match &request {
            Request::Init { .. } => self.answer(origin, Outcome::Rejected(Reason::AlreadyFormed)),
            Request::Join { replica, .. } if *replica != from && !mutant!("node.join.relayed") => {
                reach!("node.join.in_anothers_name");
                self.rejected(from.node, "a join in another's name");
            }
            Request::Join { .. } => self.on_join_request(from, origin, request),
            Request::Status if self.standing(from) == Standing::Stranger => {
                let status = self.own_status();
                self.answer(origin, Outcome::Value(Value::Status(Box::new(status))));
            }
            _ => self.accept(origin, request),
        }
    }

    /// A peer answers a forwarded request.
    pub(in crate::node) fn on_answer(&mut self, from: Replica, id: AskId, outcome: Outcome) {
        if self.requests.take_question(from, id) {
            let _ = self.on_bootstrap_answer(from, &outcome) || self.on_join_answer(from, &outcome);
            return;
        }
        let of_other = id.nonce != self.requests.nonce && !mutant!("node.forward.of_other_boot");
        let asked = self.requests.pending.get(&id.number).map(|pending| pending.stage);
        if of_other || asked != Some(Stage::Forwarded(from)) {
            // Another process asked, the request was answered before, or it is tried on another node now.
            reach!("node.forward.late_answer");
            return;
        }
        let key = id.number;
        self.forward_ended(key, from.node, true);
        match outcome {
            Outcome::Rejected(reason) if concerns_node(&reason) => {
                self.on_turned_away(key, reason);
            }
            // They tell of the namespace as it is now, and not of an earlier try.
            Outcome::Rejected(reason @ (Reason::UnknownNamespace | Reason::WrongConsistency)) => {
                self.refuse(key, reason);
            }
            outcome => self.finish(key, outcome),
        }
    }

    /// The peer could not serve the request. This try logged nothing.
    fn on_turned_away(&mut self, key: u64, reason: Reason) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        reach!("node.forward.turned_away");
        match reason {
            Reason::NoLeader | Reason::NotFormed | Reason::Stopping => {
                let group = self.group_of(&pending.request);
                if let Some(key) = self.rekey(key) {
                    self.wait_for_leader(key, group);
                }
            }
            reason => self.refuse(key, reason),
        }
    }

    /// The group that serves a request; group 0 when its namespace is not known.
    fn group_of(&self, request: &Request) -> GroupId {
        let (Request::Read { namespace, .. } | Request::Write { namespace, .. }) = request else {
            return GroupId::REGISTRY;
        };
        let found = self.namespace(namespace).and_then(|target| target.group);
        found.unwrap_or(GroupId::REGISTRY)
    }

    /// The link to a peer is down: retries what was forwarded to it, or answers unknown where a retry could do harm.
    pub(in crate::node) fn fail_forwards(&mut self, peer: NodeId) {
        let to_peer = (peer, 0)..=(peer, u64::MAX);
        while let Some(&(_, key)) = self.requests.forwarded.range(to_peer.clone()).next() {
            reach!("node.forward.link_lost");
            self.forward_ended(key, peer, false);
            self.lost(key);
        }
    }

    /// A forwarded request waits for `peer` no longer: it was answered, or nothing is to be hoped for.
    pub(super) fn forward_ended(&mut self, key: u64, peer: NodeId, answered: bool) {
        self.requests.forwarded.remove(&(peer, key));
        self.set_stage(key, Stage::New);
        let ended = coordinator::Event::RequestEnded { node: peer, answered };
        self.enqueue(Task::Coordinator(ended));
    }
}

/// Whether a refusal concerns the node that was asked, and not the request.
fn concerns_node(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::NoLeader
            | Reason::NotFormed
            | Reason::Stopping
            | Reason::Busy
            | Reason::Full { .. }
            | Reason::SessionExpired
            | Reason::DiskStalled
            | Reason::GroupHalted { .. }
    )
}
