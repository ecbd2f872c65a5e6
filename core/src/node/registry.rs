//! Reacts to a changed registry: tells gossip, the coordinator and the replicator about members, opens and closes
//! shards and groups for namespaces, and brings the learners of the groups that this node leads in line.
//!
//! The registry itself is the state of group 0 (`state::registry`). [`RegistryView`] is what the other machines were
//! last told of it, so that a change costs a comparison and not a restart.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{ContextKeys, MemberInfo, Namespace, Policy};
use crate::id::{Address, GroupId, NamespaceId, NodeId, Replica, Writer};
use crate::raft::{Configuration, Reconfiguration};
use crate::state::registry::NamespaceRecord;
use crate::{coordinator, gossip, mutant, raft, reach, replication, state};

use super::Notice;
use super::group::Group;
use super::machine::{Node, Task, Timer};
use super::standing::Standing;

/// Milliseconds between two tries to bring a group's learners in line.
const ALIGN_MS: u64 = 200;

/// The namespace that a name resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) id: NamespaceId,
    /// The group of a strong namespace.
    pub(super) group: Option<GroupId>,
    pub(super) policy: Policy,
}

/// A member as the other machines were last told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MemberView {
    replica: Replica,
    address: Address,
}

/// The registry as the other machines were last told of it.
#[derive(Debug, Default)]
pub(super) struct RegistryView {
    members: BTreeMap<NodeId, MemberView>,
    namespaces: BTreeMap<NamespaceId, Target>,
    names: BTreeMap<String, Target>,
    /// The keys that seal contexts.
    keys: Option<ContextKeys>,
    /// The address of each link that the driver was last asked to keep.
    routes: BTreeMap<NodeId, Address>,
    /// The members of the bootstrap or join list, until the registry is applied.
    pub(super) first_members: Vec<MemberInfo>,
    /// Deleted groups whose records are still needed, with the last index of group 0 that was applied at the deletion.
    closed: BTreeMap<GroupId, u64>,
    /// Whether the registry has named this node.
    formed: bool,
}

impl RegistryView {
    /// Whether the registry names this node with this store.
    pub(super) fn is_member(&self, replica: Replica) -> bool {
        self.members.get(&replica.node).is_some_and(|view| view.replica == replica)
    }

    /// Whether the registry names this node with another store.
    pub(super) fn is_impostor(&self, replica: Replica) -> bool {
        self.members.get(&replica.node).is_some_and(|view| view.replica != replica)
    }

    /// Notes a route. Returns false when the driver was already asked for it.
    pub(super) fn routed(&mut self, node: NodeId, address: &Address) -> bool {
        if self.routes.get(&node) == Some(address) {
            return false;
        }
        self.routes.insert(node, address.clone());
        true
    }

    /// Notes that no link is kept. Returns whether the driver was asked for one.
    pub(super) fn unrouted(&mut self, node: NodeId) -> bool {
        self.routes.remove(&node).is_some()
    }

    fn replicas(&self) -> impl Iterator<Item = Replica> + '_ {
        self.members.values().map(|view| view.replica)
    }
}

impl Node {
    /// Whether this node is in a federation, which means that it holds group 0.
    pub(super) fn is_formed(&self) -> bool {
        self.groups.contains_key(&GroupId::REGISTRY)
    }

    /// The registry as applied here.
    pub(super) fn registry(&self) -> Option<&state::Registry> {
        self.groups.get(&GroupId::REGISTRY).map(|group| group.state.registry())
    }

    /// Whether a peer takes part in the protocols of this node's federation.
    pub(super) fn may_speak(&self, peer: Replica) -> bool {
        self.is_formed() && self.standing(peer) > Standing::Stranger
    }

    /// The namespace that a name resolves to on this node.
    pub(super) fn namespace(&self, name: &str) -> Option<Target> {
        self.registry_view.names.get(name).copied()
    }

    /// The registry changed: tells the other machines what is new.
    pub(super) fn on_registry_changed(&mut self) {
        let Some(registry) = self.registry() else { return };
        let members: Vec<MemberInfo> = registry.members_by_node();
        let namespaces: Vec<NamespaceRecord> = registry.namespaces().cloned().collect();
        // This comes before the namespaces: a client that can read one must be given contexts.
        let keys =
            registry.context_keys().copied().filter(|keys| self.registry_view.keys != Some(*keys));
        if let Some(keys) = keys {
            self.registry_view.keys = Some(keys);
            self.enqueue(Task::Replication(replication::Event::Keys { keys }));
        }
        self.tell_members(members);
        self.tell_namespaces(namespaces);
        let led = self.groups.iter().filter(|(_, group)| group.leads()).map(|(id, _)| *id);
        for group in led.collect::<Vec<GroupId>>() {
            self.enqueue(Task::Align(group));
        }
        if !self.registry_view.formed && self.registry_view.is_member(self.me) {
            self.registry_view.formed = true;
            reach!("node.formed");
            self.notify(Notice::Formed);
            self.bootstrapped();
        }
        self.check_own_entry();
        self.arm_registry_checkpoint();
    }

    /// The registry was replaced as a whole, from the disk or from a leader's snapshot.
    pub(super) fn on_registry_read(&mut self) {
        self.on_registry_changed();
        self.close_unnamed();
    }

    fn tell_members(&mut self, members: Vec<MemberInfo>) {
        let mut before = core::mem::take(&mut self.registry_view.members);
        let mut changed = false;
        for member in members {
            let node = member.replica.node;
            let view = MemberView { replica: member.replica, address: member.address.clone() };
            if before.remove(&node).as_ref() != Some(&view) {
                changed = true;
                self.tell_member(member);
            }
            self.registry_view.members.insert(node, view);
        }
        for node in before.into_keys() {
            changed = true;
            self.tell_gone(node);
        }
        if changed {
            let me = self.me;
            let replicas = self.registry_view.replicas().filter(|replica| *replica != me).collect();
            self.enqueue(Task::Replication(replication::Event::Peers { replicas }));
            self.tell_links();
            self.record_welcomed();
        }
    }

    fn tell_member(&mut self, member: MemberInfo) {
        let MemberInfo { replica, address, name } = member;
        self.enqueue(Task::Coordinator(coordinator::Event::Add { node: replica.node }));
        if replica.node == self.me.node {
            return;
        }
        self.located(replica.node, address.clone());
        self.enqueue(Task::Gossip(gossip::Event::Add { replica, name, address }));
    }

    fn tell_gone(&mut self, node: NodeId) {
        self.enqueue(Task::Gossip(gossip::Event::Remove { node }));
        self.enqueue(Task::Coordinator(coordinator::Event::Remove { node }));
        if self.registry_view.unrouted(node) {
            self.emit(super::Action::Route { peer: node, address: None });
        }
    }

    /// Announces the links of members that came up before the registry named them, or while this process was silent.
    pub(super) fn tell_links(&mut self) {
        let linked: Vec<Replica> =
            self.peers.linked().filter(|peer| self.registry_view.is_member(*peer)).collect();
        for peer in linked {
            let Some(boot) = self.peers.get(peer.node).map(|known| known.boot) else { continue };
            self.enqueue(Task::Gossip(gossip::Event::Connected { peer: peer.node, boot }));
            self.enqueue(Task::Coordinator(coordinator::Event::LinkChanged {
                node: peer.node,
                up: true,
            }));
            self.enqueue(Task::Replication(replication::Event::Connected { peer }));
        }
    }

    fn tell_namespaces(&mut self, namespaces: Vec<NamespaceRecord>) {
        let mut before = core::mem::take(&mut self.registry_view.namespaces);
        self.registry_view.names.clear();
        for NamespaceRecord { namespace, configuration, .. } in namespaces {
            let Namespace { id, name, policy, group } = namespace;
            let target = Target { id, group, policy };
            if before.remove(&id) != Some(target) {
                self.open(target, configuration);
            }
            self.registry_view.namespaces.insert(id, target);
            self.registry_view.names.insert(name, target);
        }
        for target in before.into_values() {
            self.close(target);
        }
    }

    /// Opens a namespace that is new to this node.
    fn open(&mut self, target: Target, genesis: Configuration) {
        match (target.policy, target.group) {
            (Policy::Eventual { strategy, slots, discard }, _) => {
                let namespace = target.id;
                let event = replication::Event::Open { namespace, slots, strategy, discard };
                self.enqueue(Task::Replication(event));
            }
            (Policy::Strong, Some(group)) if !self.groups.contains_key(&group) => {
                reach!("node.group.opened");
                self.open_group(group, genesis);
            }
            (Policy::Strong, _) => {}
        }
    }

    /// Creates the machine of a group and makes its genesis durable. The machine's promises wait for that record.
    pub(super) fn open_group(&mut self, group: GroupId, genesis: Configuration) {
        let (id, configuration) = (self.genesis.id.unwrap_or_default(), genesis.clone());
        self.persist_for_group(group, raft::Write::Genesis { id, configuration });
        let restored = raft::Restored { genesis: genesis.clone(), ..raft::Restored::default() };
        let raft = raft::Raft::new(group, self.me, self.config.raft.clone(), &self.seed, restored);
        let mut state = state::StateMachine::new(kind(group));
        state.limit(self.config.bounds);
        self.add_group(group, Group::new(raft, state, genesis, 0));
    }

    /// Closes a deleted namespace and drops everything in it.
    fn close(&mut self, target: Target) {
        let Some(group) = target.group else {
            let namespace = target.id;
            return self.enqueue(Task::Replication(replication::Event::Close { namespace }));
        };
        self.close_group(group);
    }

    fn close_group(&mut self, group: GroupId) {
        if mutant!("node.group.left_open") {
            return;
        }
        let Some(gone) = self.remove_group(group) else { return };
        reach!("node.group.closed");
        self.release_requests(gone);
        self.enqueue(Task::Coordinator(coordinator::Event::LeaderChanged { group, leader: None }));
        let deleted_by =
            self.groups.get(&GroupId::REGISTRY).map_or(0, |registry| registry.applied.0);
        self.registry_view.closed.insert(group, deleted_by);
        self.forget_closed();
    }

    /// Forgets the records of deleted groups whose deletion is in the registry's snapshot file, so that no restart can
    /// undo it. Until then a restarted node may have to open the group again before it learns of the deletion once
    /// more, and then it must know how it voted.
    pub(super) fn forget_closed(&mut self) {
        let covered = self.covered(GroupId::REGISTRY);
        let early = mutant!("node.group.forgotten_early");
        let is_covered = |_: &GroupId, deleted_by: &mut u64| *deleted_by <= covered || early;
        let buried = self.registry_view.closed.extract_if(.., is_covered);
        for (group, _) in buried.collect::<Vec<_>>() {
            reach!("node.group.forgotten");
            self.persist_for_group(group, raft::Write::Forget);
            self.gate.forget(Writer::Group(group));
        }
    }

    /// Moves on the requests that wait for a closed group: logged writes are lost, the rest is submitted again.
    fn release_requests(&mut self, gone: Group) {
        for key in gone.proposals.into_values() {
            self.lost(key);
        }
        let reads = gone.reads.into_iter().map(|(_, key)| key);
        for key in reads.chain(gone.waiting) {
            self.enqueue(Task::Submit(key));
        }
    }

    /// The leader of a group adds members that its configuration lacks as learners, and removes learners that are no
    /// longer members. It makes one change at a time, each after the previous one is committed.
    pub(super) fn align(&mut self, group: GroupId) {
        let Some(known) = self.groups.get(&group).filter(|known| known.leads()) else { return };
        if known.state.halted().is_some() {
            return;
        }
        if group == GroupId::REGISTRY && self.registry_view.members.is_empty() {
            return self.propose_bootstrap();
        }
        let configuration = known.raft.configuration();
        let is_in = |replica: &Replica| {
            configuration.voters.contains(replica) || configuration.learners.contains(replica)
        };
        let missing = self.registry_view.replicas().find(|member| !is_in(member));
        let gone = || {
            configuration.learners.iter().find(|learner| !self.registry_view.is_member(**learner))
        };
        let change = missing
            .map(Reconfiguration::AddLearner)
            .or_else(|| gone().copied().map(Reconfiguration::RemoveLearner));
        if let Some(change) = change {
            reach!("node.group.aligned");
            self.enqueue(Task::Raft(group, raft::Event::Reconfigure { ticket: 0, change }));
            // The next change follows when this one is applied. The timer covers a change that Raft refuses for now.
            self.arm_align(group, ALIGN_MS);
        }
    }

    pub(super) fn arm_align(&mut self, group: GroupId, after_ms: u64) {
        let Some(known) = self.groups.get_mut(&group) else { return };
        if !core::mem::replace(&mut known.aligning, true) {
            self.arm(Duration::from_millis(after_ms), Timer::Align(group));
        }
    }

    pub(super) fn on_align_due(&mut self, group: GroupId) {
        if let Some(known) = self.groups.get_mut(&group) {
            known.aligning = false;
            self.enqueue(Task::Align(group));
        }
    }

    /// Closes groups and namespaces that a replaced registry has numbered and does not name: they were deleted. It
    /// keeps those that the registry has not numbered yet, because entries that are not applied yet create them.
    fn close_unnamed(&mut self) {
        let Some(registry) = self.registry() else { return };
        let named = |group: GroupId| {
            group == GroupId::REGISTRY
                || self.registry_view.namespaces.values().any(|target| target.group == Some(group))
        };
        let groups = self.groups.keys().copied();
        let groups: Vec<GroupId> =
            groups.filter(|group| registry.numbered_group(*group) && !named(*group)).collect();
        let namespaces = self.replication.machine.shards().map(|shard| shard.namespace);
        let is_gone = |namespace: &NamespaceId| {
            registry.numbered_namespace(*namespace)
                && !self.registry_view.namespaces.contains_key(namespace)
        };
        let namespaces: BTreeSet<NamespaceId> = namespaces.filter(is_gone).collect();
        groups.into_iter().for_each(|group| self.close_group(group));
        for namespace in namespaces {
            self.enqueue(Task::Replication(replication::Event::Close { namespace }));
        }
    }
}

/// The kind of a group's entries: group 0 holds the registry, every other group holds keys.
pub(super) const fn kind(group: GroupId) -> state::Kind {
    if group.0 == GroupId::REGISTRY.0 { state::Kind::Registry } else { state::Kind::Keys }
}
