//! Reports that a node makes when asked: status for operators, accessors for drivers, metrics and oracles. They do not
//! change the node.

use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{
    FormedPeer, GroupStatus, Member, Namespace, Outcome, Status, Unready, Value, Warning,
};
use crate::id::{Boot, FederationId, GenesisId, GroupId, Index, Lineage, NodeId, Replica};
use crate::{coordinator, discovery, gossip, mutant, raft, replication, state};

use super::group::Group;
use super::machine::Node;

/// Groups named among the reasons of a node that is not ready, and among its warnings.
const HALTED_MAX: usize = 16;

impl Node {
    /// This node's Raft machine of a group.
    #[must_use]
    pub fn raft(&self, group: GroupId) -> Option<&raft::Raft> {
        self.groups.get(&group).map(|group| &group.raft)
    }

    /// The Raft machines of all groups on this node, in order.
    pub fn rafts(&self) -> impl Iterator<Item = (GroupId, &raft::Raft)> {
        self.groups.iter().map(|(id, group)| (*id, &group.raft))
    }

    /// The groups on this node, in order.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// This node's applied state of a group.
    #[must_use]
    pub fn state(&self, group: GroupId) -> Option<&state::StateMachine> {
        self.groups.get(&group).map(|group| &group.state)
    }

    /// The machine that holds the shards.
    #[must_use]
    pub const fn replicator(&self) -> &replication::Replicator {
        &self.replication.machine
    }

    /// The machine of membership and failure detection.
    #[must_use]
    pub const fn gossip(&self) -> &gossip::Gossip {
        &self.gossip.machine
    }

    /// The machine that finds the addresses of nodes.
    #[must_use]
    pub const fn discovery(&self) -> &discovery::Discovery {
        &self.discovery.machine
    }

    /// The machine that judges the health of members.
    #[must_use]
    pub const fn coordinator(&self) -> &coordinator::Coordinator {
        &self.coordinator.machine
    }

    /// Why the node went silent for good, if it did.
    #[must_use]
    pub const fn fenced(&self) -> Option<&'static str> {
        self.phase.fenced
    }

    /// Whether the node went silent for good.
    #[must_use]
    pub const fn is_fenced(&self) -> bool {
        self.phase.fenced.is_some()
    }

    /// This node, and the store that its promises are on.
    #[must_use]
    pub const fn replica(&self) -> Replica {
        self.me
    }

    /// The current start of this process.
    #[must_use]
    pub const fn boot(&self) -> Boot {
        self.boot
    }

    /// The boots of this store before this one, which its handshakes name.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Whether this boot is durable. Until then a driver begins no handshake, because a handshake names the boot. A
    /// process that crashed before that point would start again with the same count and another nonce, and peers would
    /// take it for a copy of its disk.
    #[must_use]
    pub const fn is_booted(&self) -> bool {
        self.gate.is_booted()
    }

    /// The beginning of the federation that this node is in.
    #[must_use]
    pub const fn genesis(&self) -> Option<GenesisId> {
        self.genesis.id
    }

    /// The federation that this node's certificate names.
    #[must_use]
    pub const fn federation(&self) -> FederationId {
        self.federation
    }

    /// Whether this node leads a group that another voter could lead. A process that stops should not end before that
    /// one does.
    #[must_use]
    pub fn leads_others(&self) -> bool {
        let has_heir = |group: &Group| group.raft.configuration().voters.len() > 1;
        self.groups.values().any(|group| group.leads() && has_heir(group))
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Messages and replies that wait for the disk.
    #[must_use]
    pub fn held(&self) -> usize {
        self.gate.len()
    }

    /// Bytes of writes that were handed to the disk and are not durable yet.
    #[must_use]
    pub const fn unpersisted_bytes(&self) -> usize {
        self.gate.unpersisted_bytes()
    }

    /// The other nodes that may lack eventual writes of this process, and for how long the oldest one has waited.
    pub fn replication_lags(&self) -> impl Iterator<Item = (NodeId, Duration)> {
        let now = self.now.mono;
        let lags = self.replication.machine.lags().into_iter();
        lags.map(move |(replica, since)| (replica.node, now.since(since)))
    }

    /// The snapshot files that are being written: own checkpoints, and what leaders send.
    #[must_use]
    pub fn unfinished_files(&self) -> usize {
        self.files.len()
    }

    /// Bytes of keys, values, sessions and remembered answers in memory, of what exports keep, and of pieces of files
    /// on their way to the disk.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let files = self.files.bytes() as u64;
        self.groups.bytes()
            + self.replication.machine.bytes()
            + self.requests.answer_bytes()
            + files
    }

    /// The same by a sum over all groups and shards: what [`Self::memory_bytes`] must say.
    #[must_use]
    pub fn recounted_memory_bytes(&self) -> u64 {
        let kept = self.groups.bytes() + self.replication.machine.bytes();
        let summed = self.groups.recounted() + self.replication.machine.recounted_bytes();
        self.memory_bytes() - kept + summed
    }

    /// The answer to [`crate::api::Request::Status`].
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            groups: self.groups.iter().map(|(id, group)| self.group_status(*id, group)).collect(),
            shards: self.replication.machine.status().collect(),
            memory_bytes: self.memory_bytes(),
            requests: u32::try_from(self.requests.len()).unwrap_or(u32::MAX),
            ..self.own_status()
        }
    }

    /// The part of the status that a node tells a stranger: who it is, and whether it is free.
    pub(super) fn own_status(&self) -> Status {
        Status {
            replica: self.me,
            boot: self.boot,
            name: self.name.clone(),
            address: self.address.clone(),
            formed: self.is_formed(),
            genesis: self.genesis.id,
            undecided: self.undecided(),
            formed_peers: self.formed_peers(),
            unready: self.unready(),
            warnings: self.warnings(),
            groups: Vec::new(),
            shards: Vec::new(),
            memory_bytes: 0,
            requests: 0,
        }
    }

    /// Why this node is not ready to serve; empty when it is.
    #[must_use]
    pub fn unready(&self) -> Vec<Unready> {
        let registry = self.groups.get(&GroupId::REGISTRY);
        let leaderless = |group: &Group| {
            let is_silent = self.hears_no_leader(group) && !mutant!("node.learner.ready_alone");
            group.raft.leader().is_none() || is_silent
        };
        let behind = |group: &Group| {
            let is_late = group.applied < group.raft.commit();
            is_late && group.state.halted().is_none() || !group.state.registry().is_bootstrapped()
        };
        let halted = |(group, known): (&GroupId, &Group)| {
            let halt = known.state.halted()?;
            Some(Unready::GroupHalted { group: *group, index: halt.index })
        };
        let (is_bound, is_replaced) = (self.undecided().is_some(), self.is_store_replaced());
        let is_outside = registry.is_none() && !is_bound && !is_replaced;
        // It may turn out to be a member whose store was replaced.
        let looks = is_outside && !self.has_looked();
        let reasons = [
            (is_bound, Unready::FoundingUndecided),
            (registry.is_none() && is_replaced && !is_bound, Unready::StoreReplaced),
            (is_outside && !looks, Unready::NotFormed),
            (looks, Unready::CatchingUp),
            (self.is_unconfirmed() && !self.is_fenced(), Unready::Unconfirmed),
            (
                self.is_suspended() && !self.is_unconfirmed() && !self.is_fenced(),
                Unready::Suspended,
            ),
            (self.groups.values().any(leaderless), Unready::NoLeader),
            (registry.is_some_and(behind), Unready::CatchingUp),
            (self.phase.disk_full, Unready::DiskFull),
            (self.phase.disk_stalled, Unready::DiskStalled),
            (self.phase.stopping, Unready::Stopping),
            (self.is_fenced(), Unready::Fenced),
        ];
        let reasons = reasons.into_iter().filter_map(|(holds, reason)| holds.then_some(reason));
        // A node may hold thousands of groups, and the first few say enough.
        let halted = self.groups.iter().filter_map(halted).take(HALTED_MAX);
        let halted = halted.filter(|_| !mutant!("node.halted.ready"));
        reasons.chain(halted).collect()
    }

    /// Matters for an operator to look at, although this node serves.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let refused = |(group, known): (&GroupId, &Group)| {
            let index = known.refused_snapshot.filter(|index| *index > known.applied)?;
            Some(Warning::SnapshotRefused { group: *group, index })
        };
        let replicator = &self.replication.machine;
        let ahead = Some(replicator.clock_lead_ms()).filter(|by_ms| *by_ms > 0);
        let peers = replicator.peer_leads().take(HALTED_MAX);
        let clocks = ahead.map(|by_ms| Warning::ClockAhead { by_ms }).into_iter();
        let clocks =
            clocks.chain(peers.map(|(node, by_ms)| Warning::ClockBehindPeers { node, by_ms }));
        let refused = self.groups.iter().filter_map(refused).take(HALTED_MAX);
        let rivals = self.formed_peers().into_iter().filter(|_| self.is_formed());
        let rivals = rivals.map(|peer| {
            let FormedPeer { node, genesis, .. } = peer;
            Warning::RivalFederation { node, genesis }
        });
        let replaced = self.replaced_store().map(|store| Warning::StoreReplaced { store });
        refused.chain(clocks).chain(rivals).chain(replaced).collect()
    }

    /// The members as this node sees them.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let Some(registry) = self.registry() else { return Vec::new() };
        registry.members().map(|(replica, record)| self.member(replica, record)).collect()
    }

    /// One member, from the registry's record, gossip and the coordinator.
    fn member(&self, replica: &Replica, record: &state::registry::MemberRecord) -> Member {
        let node: NodeId = replica.node;
        let gossiped = self.gossip.machine.member(node).filter(|m| m.replica == *replica);
        let mine = node == self.me.node;
        let boot = gossiped.map_or(0, |member| member.incarnation.boot.count);
        Member {
            replica: *replica,
            name: record.name.clone(),
            address: gossiped.map_or_else(|| record.address.clone(), |m| m.address.clone()),
            voter: record.voter,
            health: if mine {
                crate::api::Health::Healthy
            } else {
                self.coordinator.machine.health(node)
            },
            boot: if mine { self.boot.count } else { boot },
            load: gossiped.map_or(0, |member| member.load),
        }
    }

    fn group_status(&self, id: GroupId, group: &Group) -> GroupStatus {
        let mut status = group.status(id);
        // A learner goes on naming the leader that it knew last.
        status.leader = status.leader.filter(|_| !self.hears_no_leader(group));
        status
    }

    /// The namespaces as this node has applied them, in order of their names, with the last applied entry of group 0;
    /// `None` in no federation. They may be older than what the federation has agreed on.
    #[must_use]
    pub fn local_namespaces(&self) -> Option<(Vec<Namespace>, Index)> {
        let group = self.groups.get(&GroupId::REGISTRY)?;
        let all = group.state.registry().namespaces().map(|record| record.namespace.clone());
        Some((all.collect(), group.applied))
    }

    /// All namespaces in order of their names.
    pub(super) fn namespaces(&self) -> Outcome {
        let registry = self.registry();
        let all: Vec<Namespace> = registry
            .map(|registry| registry.namespaces().map(|record| record.namespace.clone()).collect())
            .unwrap_or_default();
        Outcome::Value(Value::Namespaces(all))
    }
}

impl Group {
    fn status(&self, group: GroupId) -> GroupStatus {
        GroupStatus {
            group,
            term: self.raft.term(),
            leader: self.raft.leader().map(|leader| leader.node),
            role: self.raft.role(),
            commit: self.raft.commit(),
            applied: self.applied,
            last: self.raft.last().index,
            halted: self.state.halted().map(|halt| halt.index),
        }
    }
}
