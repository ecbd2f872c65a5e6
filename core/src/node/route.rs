//! Which machine's action becomes which machine's event. This is the one place where the machines meet.
//!
//! This module decides nothing. It passes a machine's report to every machine that needs it, and hands a request for
//! the driver to the driver, or to the durability gate ([`crate::hold`]) when it promises something.

use core::time::Duration;

use crate::discovery::{Identity, Unverified};
use crate::id::{Address, AskId, Boot, GroupId, Lineage, NodeId, Owner, Replica, Role, Writer};
use crate::wal::Write;
use crate::{coordinator, discovery, gossip, mutant, raft, reach, replication};

use super::machine::{Node, Task, Timer};
use super::peers::Verdict;
use super::{Action, Message, Notice, Refusal};

impl Node {
    /// Handles an action of a group's Raft.
    pub(super) fn on_raft(&mut self, group: GroupId, action: raft::Action) {
        match action {
            raft::Action::Send { to, message, promise } => {
                let Some(genesis) = self.genesis.id else { return };
                let message = Message::Raft { genesis, group, message };
                if promise {
                    self.promise(Writer::Group(group), to, message);
                } else {
                    self.send(to, message);
                }
            }
            raft::Action::Persist { write } => {
                self.persist(true, Write::Group { group, write });
            }
            raft::Action::WriteFile { piece } => self.write_file(Owner::Group(group), piece),
            raft::Action::DropFile { id } => self.drop_file(id),
            raft::Action::Committed { .. } => self.enqueue(Task::Apply(group)),
            raft::Action::Proposed { ticket, position } => {
                self.on_proposed(group, ticket, position);
            }
            raft::Action::Refused { ticket, why } => self.on_refused(group, ticket, why),
            raft::Action::Readable { ticket, index } => self.on_readable(group, ticket, index),
            raft::Action::Capture => self.on_capture(group),
            raft::Action::Check { id, snapshot } => self.check_snapshot(group, id, &snapshot),
            raft::Action::Install { snapshot } => self.install(group, &snapshot),
            raft::Action::Role { role, term, leader } => self.on_role(group, role, term, leader),
            raft::Action::Rejected { from, why } => self.rejected(from.node, why),
        }
    }

    fn on_role(
        &mut self,
        group: GroupId,
        role: Role,
        term: crate::id::Term,
        leader: Option<Replica>,
    ) {
        if let Some(known) = self.groups.get_mut(&group) {
            let since = known.leaderless_since.unwrap_or(self.now.mono);
            known.leaderless_since = Some(since).filter(|_| leader.is_none());
        }
        let leader = leader.map(|leader| leader.node);
        self.enqueue(Task::Coordinator(coordinator::Event::LeaderChanged { group, leader }));
        self.notify(Notice::Role { group, term, role, leader });
        if leader.is_some() {
            self.enqueue(Task::Wake(group));
        }
        if role == Role::Leader {
            self.enqueue(Task::Align(group));
            self.leave_office(group);
            if self.declines_leadership() {
                self.enqueue(Task::Raft(group, raft::Event::TransferLeadership));
            }
        }
    }

    /// Handles an action of the replicator.
    pub(super) fn on_replication(&mut self, action: replication::Action) {
        use replication::Action as Asked;
        match action {
            Asked::Send { to, message, promise } => {
                let Some(genesis) = self.genesis.id else { return };
                let message = Message::Replication { genesis, message };
                if promise {
                    self.promise(Writer::Shards, to, message);
                } else {
                    self.send(to, message);
                }
            }
            Asked::Persist { shard, write } => {
                self.persist(true, Write::Shard { shard, write });
            }
            Asked::WriteFile { shard, piece } => {
                if piece.is_last {
                    self.checkpoints.file_ends(Owner::Shard(shard), self.gate.next());
                }
                self.write_file(Owner::Shard(shard), piece);
            }
            Asked::Accepted { ticket, context, before, .. } => {
                self.on_accepted(ticket, context, before);
            }
            Asked::Refused { ticket, reason } => self.on_mutation_refused(ticket, reason),
            Asked::Replicated { ticket } => self.on_replicated(ticket),
            Asked::Checkpointed { shard, bytes } => {
                self.notify(Notice::Checkpointed { owner: Owner::Shard(shard), bytes });
            }
            Asked::Equivocation { dot } => self.notify(Notice::Equivocation { dot }),
            Asked::Rejected { from, why } => self.rejected(from.node, why),
        }
    }

    /// Handles an action of gossip.
    pub(super) fn on_gossip(&mut self, action: gossip::Action) {
        match action {
            gossip::Action::Send { to, message } => {
                let Some(genesis) = self.genesis.id else { return };
                self.send_to_node(to, Message::Gossip { genesis, message });
            }
            gossip::Action::Changed { member } => {
                let node = member.replica.node;
                let (liveness, load) = (liveness(member.state), member.load);
                self.enqueue(Task::Coordinator(coordinator::Event::LivenessChanged {
                    node,
                    liveness,
                    load,
                }));
                if node != self.me.node && self.registry_view.is_member(member.replica) {
                    self.located(node, member.address);
                }
            }
            gossip::Action::Rejected { from, why } => self.rejected(from, why),
        }
    }

    /// The registry or gossip says that a member is at this address.
    pub(super) fn located(&mut self, node: NodeId, address: Address) {
        if self.registry_view.routed(node, &address) {
            let event = discovery::Event::Located { node, address: address.clone() };
            self.enqueue(Task::Discovery(event));
            self.emit(Action::Route { peer: node, address: Some(address) });
        }
    }

    /// Handles an action of discovery.
    pub(super) fn on_discovery(&mut self, action: discovery::Action) {
        match action {
            discovery::Action::Resolve { source } => self.emit(Action::Resolve { source }),
            discovery::Action::Verify { address } => self.emit(Action::Verify { address }),
            discovery::Action::Connect { identity, address } => {
                if identity.node != self.me.node
                    && self.registry_view.routed(identity.node, &address)
                {
                    self.emit(Action::Route { peer: identity.node, address: Some(address) });
                }
            }
            discovery::Action::SendContacts { to, contacts } => {
                self.send_to_node(to, Message::Contacts(contacts));
            }
            discovery::Action::SaveContacts { contacts } => self.remember(contacts),
        }
    }

    /// Handles an action of the coordinator.
    pub(super) fn on_coordinator(&mut self, action: &coordinator::Action) {
        let coordinator::Action::Health { node, from, to } = *action;
        self.notify(Notice::Health { node, from, to });
    }

    /// A handshake succeeded. The link counts if the process behind it is the one that should be there.
    pub(super) fn on_connected(&mut self, who: Replica, boot: Boot, lineage: &Lineage) {
        let peer = who.node;
        let before = self.peers.get(peer).map(|known| known.boot);
        let window = Duration::from_millis(self.config.node.clone_window_ms);
        match self.peers.connected(self.now.mono, who, (boot, lineage), window) {
            Verdict::Welcome => {
                if before.is_some_and(|before| before != boot) {
                    // The new process does not know what the old one was asked.
                    self.fail_forwards(peer);
                }
                self.welcome(who, boot);
            }
            Verdict::Refuse(reason, known) => {
                self.emit(Action::Refuse { peer, boot, reason, known });
                self.notify(Notice::Refused { peer, reason });
            }
            Verdict::Ask(known, number) => {
                reach!("node.peers.linked_still");
                let id = AskId { nonce: self.boot.nonce, number };
                self.send(who, Message::Confirm(id));
                self.emit(Action::Refuse { peer, boot, reason: Refusal::Linked, known });
            }
            Verdict::Full => self.rejected(peer, "one peer too many"),
        }
    }

    fn welcome(&mut self, who: Replica, boot: Boot) {
        let peer = who.node;
        if self.registry_view.is_impostor(who) {
            reach!("node.peers.wrong_store");
            self.notify(Notice::WrongStore { peer, store: who.store });
        }
        self.enqueue(Task::Discovery(discovery::Event::Connected { peer }));
        if self.may_speak(who) {
            self.enqueue(Task::Gossip(gossip::Event::Connected { peer, boot }));
            self.enqueue(Task::Coordinator(coordinator::Event::LinkChanged {
                node: peer,
                up: true,
            }));
            self.enqueue(Task::Replication(replication::Event::Connected { peer: who }));
        }
        self.on_doubt_connected(who);
        self.on_founding_connected(who);
        self.on_join_connected();
        self.record_welcomed();
    }

    /// Makes the boots of linked members durable that are not yet.
    pub(super) fn record_welcomed(&mut self) {
        if mutant!("node.peers.forgets_boots") {
            return;
        }
        let (view, group) = (&self.registry_view, self.groups.get(&GroupId::REGISTRY));
        let is_member = |replica| {
            let configured =
                group.is_some_and(|known| known.raft.configuration().is_member(replica));
            configured || view.is_member(replica)
        };
        let boots = self.peers.unrecorded(is_member);
        if !boots.is_empty() {
            self.persist_own(Write::Welcomed { boots });
        }
    }

    /// Makes the boots of members durable once more.
    pub(super) fn remember_welcomed(&mut self) {
        let boots = self.peers.welcomed();
        if !boots.is_empty() {
            self.persist_own(Write::Welcomed { boots });
        }
    }

    /// A number that no question to a peer has.
    pub(super) const fn ask_number(&mut self) -> u64 {
        self.peers.ask_number()
    }

    /// The link to a peer is down.
    pub(super) fn on_unreachable(&mut self, peer: NodeId) {
        self.enqueue(Task::Discovery(discovery::Event::Unreachable { peer }));
        if !self.peers.unreachable(peer) {
            return;
        }
        self.fail_forwards(peer);
        self.genesis.unlinked(peer);
        self.enqueue(Task::Coordinator(coordinator::Event::LinkChanged { node: peer, up: false }));
        self.enqueue(Task::Replication(replication::Event::Unreachable { peer }));
        let groups: alloc::vec::Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            self.enqueue(Task::Raft(group, raft::Event::Unreachable { peer }));
        }
    }

    /// Dialling an address ended.
    pub(super) fn on_verified(&mut self, address: Address, outcome: Result<Identity, Unverified>) {
        self.on_bootstrap_verified(&address, outcome);
        self.enqueue(Task::Discovery(discovery::Event::Verified { address, outcome }));
    }

    pub(super) fn arm_report(&mut self) {
        self.arm(Duration::from_millis(self.config.coordinator.report_ms), Timer::Report);
    }

    /// Reports this node's load, which gossip spreads.
    pub(super) fn on_report_due(&mut self) {
        let requests = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        self.enqueue(Task::Gossip(gossip::Event::Load { requests }));
        self.arm_report();
    }
}

/// Gossip's state of a member, in the coordinator's words.
const fn liveness(state: gossip::State) -> coordinator::Liveness {
    match state {
        gossip::State::Alive => coordinator::Liveness::Alive,
        gossip::State::Suspect => coordinator::Liveness::Suspect,
        gossip::State::Dead => coordinator::Liveness::Dead,
        gossip::State::Left => coordinator::Liveness::Left,
    }
}
