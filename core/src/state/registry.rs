//! The registry, which group 0 agrees on: members, namespaces, and the group of each strong namespace.
//!
//! Numbers of namespaces and groups only go up, so that a late message about a deleted namespace never reaches a new
//! one. The registry does not hold health and load, which differ from node to node, nor group 0's own configuration,
//! which is Raft's; the voter flags follow it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::command::{Operation, Reply};
use super::snapshot_map::SnapshotMap;
use crate::api::{
    Bootstrap, Bound, ContextKeys, MemberInfo, Namespace, Policy, Reason, Resource, Secret,
};
use crate::id::{Address, GenesisId, GroupId, Index, NamespaceId, NodeId, Replica, StoreId};
use crate::limits::{
    ADDRESS_BYTES_MAX, MEMBERS_MAX, NAMESPACE_NAME_BYTES_MAX, NAMESPACES_MAX, SLOTS_MAX, VOTERS_MAX,
};
use crate::raft::Configuration;
use crate::{mutant, reach};

/// A member as all nodes agree on it. Its key is its [`Replica`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The operator's name for it; may be empty.
    pub name: String,
    /// The address at which other members reach it.
    pub address: Address,
    /// Whether it votes in group 0.
    pub voter: bool,
    /// The index of the command that let it in.
    pub joined: Index,
}

/// A namespace, and the configuration from which its group begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// The namespace as clients see it.
    pub namespace: Namespace,
    /// The first configuration of a strong namespace's group: group 0's voters at creation, all others learners. It is
    /// recorded so that replicas that apply the command at different times begin alike. Empty for an eventual
    /// namespace.
    pub configuration: Configuration,
    /// The index of the command that created it.
    pub created: Index,
}

/// The members and the namespaces of a federation.
#[derive(Clone, Debug)]
pub struct Registry {
    pub(super) members: SnapshotMap<Replica, MemberRecord>,
    pub(super) namespaces: SnapshotMap<String, NamespaceRecord>,
    /// The number of the next namespace, from 1.
    pub(super) next_namespace: u32,
    /// The number of the next group, from 1: group 0 is the registry's own.
    pub(super) next_group: u32,
    /// The keys that seal contexts, from the bootstrap on.
    pub(super) keys: Option<ContextKeys>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            members: SnapshotMap::default(),
            namespaces: SnapshotMap::default(),
            next_namespace: 1,
            next_group: 1,
            keys: None,
        }
    }
}

impl Registry {
    /// Whether the federation has begun: it then has members.
    #[must_use]
    pub const fn is_bootstrapped(&self) -> bool {
        !self.members.is_empty()
    }

    /// All members, in the order of node and store. A node with a replaced disk is there twice until its old vote is
    /// removed.
    pub fn members(&self) -> impl Iterator<Item = (&Replica, &MemberRecord)> {
        self.members.iter()
    }

    /// The newest member of a node, and its record.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<(&Replica, &MemberRecord)> {
        self.stores(node).max_by_key(|(_, record)| record.joined)
    }

    /// The newest member of each node, in order of the nodes.
    #[must_use]
    pub fn members_by_node(&self) -> Vec<MemberInfo> {
        let is_newest = |replica: &Replica| {
            self.member(replica.node).is_some_and(|(newest, _)| newest == replica)
        };
        let newest = self.members.iter().filter(|(replica, _)| is_newest(replica));
        newest.map(|(replica, record)| member_info(replica, record)).collect()
    }

    /// Whether this node is a member with this disk.
    #[must_use]
    pub fn is_member(&self, replica: &Replica) -> bool {
        self.members.get(replica).is_some()
    }

    /// The keys that seal contexts; `None` before the federation has begun.
    #[must_use]
    pub const fn context_keys(&self) -> Option<&ContextKeys> {
        self.keys.as_ref()
    }

    /// All namespaces, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceRecord> {
        self.namespaces.iter().map(|(_, record)| record)
    }

    /// A namespace by name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&NamespaceRecord> {
        self.namespaces.get(&String::from(name))
    }

    /// Whether a group ever had this number. The group may be deleted by now.
    #[must_use]
    pub const fn numbered_group(&self, group: GroupId) -> bool {
        group.0 < self.next_group
    }

    /// Whether a namespace ever had this number. The namespace may be deleted by now.
    #[must_use]
    pub const fn numbered_namespace(&self, namespace: NamespaceId) -> bool {
        namespace.0 < self.next_namespace
    }

    /// Voters and learners of group 0 as the registry knows them. A strong namespace's group begins with these.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        let of = |votes: bool| -> Vec<Replica> {
            let members = self.members.iter().filter(|(_, record)| record.voter == votes);
            members.map(|(replica, _)| *replica).collect()
        };
        Configuration { voters: of(true), learners: of(false) }
    }

    /// The membership for a node that is let in: all members of this genesis, voters first.
    #[must_use]
    pub fn membership(&self, genesis: GenesisId) -> Bootstrap {
        let of = |votes: bool| {
            let members = self.members.iter().filter(move |(_, record)| record.voter == votes);
            members.map(|(replica, record)| member_info(replica, record))
        };
        let voters = of(true).count() as u8;
        Bootstrap { genesis, members: of(true).chain(of(false)).collect(), voters }
    }

    /// Executes an operation, or rejects it. Never panics: an operation may come from any client.
    pub(super) fn execute(&mut self, index: Index, operation: Operation) -> Reply {
        if !self.is_bootstrapped() && !matches!(operation, Operation::Bootstrap(..)) {
            reach!("state.registry.not_bootstrapped");
            return Reply::Rejected(Reason::NotFormed);
        }
        let done = match operation {
            Operation::Bootstrap(bootstrap, secret) => {
                self.apply_bootstrap(index, bootstrap, secret)
            }
            Operation::Join(member) => self.join(index, member),
            Operation::CreateNamespace { name, policy } => self.create(index, name, policy),
            Operation::DeleteNamespace { name } => self.delete(&name),
            Operation::RotateKey { secret } => Ok(self.rotate_key(secret)),
            Operation::Write { .. } => Err(Reason::WrongConsistency),
        };
        done.unwrap_or_else(Reply::Rejected)
    }

    fn rotate_key(&mut self, secret: Secret) -> Reply {
        reach!("state.registry.key_rotated");
        let first = || ContextKeys::new(secret);
        let keys = self.keys.map_or_else(first, |keys| keys.rotate(secret));
        self.keys = Some(keys);
        Reply::KeyRotated { number: keys.number() }
    }

    fn apply_bootstrap(
        &mut self,
        index: Index,
        bootstrap: Bootstrap,
        secret: Secret,
    ) -> Result<Reply, Reason> {
        if self.is_bootstrapped() {
            reach!("state.registry.bootstrapped_twice");
            return Err(Reason::AlreadyFormed);
        }
        check_bootstrap(&bootstrap)?;
        let voters = usize::from(bootstrap.voters);
        for (at, member) in bootstrap.members.into_iter().enumerate() {
            self.admit(index, member, at < voters);
        }
        self.keys = Some(ContextKeys::new(secret));
        reach!("state.registry.bootstrapped");
        Ok(Reply::Bootstrapped)
    }

    fn join(&mut self, index: Index, member: MemberInfo) -> Result<Reply, Reason> {
        check_member_info(&member)?;
        let replica = member.replica;
        let known = self.members.get(&replica).cloned();
        // A wiped disk: the old store is replaced, but its vote counts until Raft removes it. The same holds the other
        // way round when the old store returns and the new one is gone.
        let old: Vec<Replica> = self
            .stores(replica.node)
            .filter(|(other, record)| **other != replica && !record.voter)
            .map(|(replica, _)| *replica)
            .collect();
        let is_newest = self.member(replica.node).is_some_and(|(newest, _)| *newest == replica);
        if let Some(known) = known {
            reach!("state.registry.rejoined");
            old.iter().for_each(|replica| drop(self.members.remove(replica)));
            let joined = if is_newest { known.joined } else { index };
            let (name, address) = (member.name, member.address);
            self.members.insert(replica, MemberRecord { name, address, joined, ..known });
            return Ok(Reply::Joined { node: replica.node });
        }
        if self.members.len() - old.len() >= MEMBERS_MAX {
            reach!("state.registry.members_full");
            return Err(Reason::Full { what: Resource::Members });
        }
        for replica in &old {
            reach!("state.registry.store_replaced");
            self.members.remove(replica);
        }
        self.admit(index, member, false);
        Ok(Reply::Joined { node: replica.node })
    }

    fn admit(&mut self, joined: Index, member: MemberInfo, voter: bool) {
        let MemberInfo { replica, address, name } = member;
        self.members.insert(replica, MemberRecord { name, address, voter, joined });
    }

    fn stores(&self, node: NodeId) -> impl Iterator<Item = (&Replica, &MemberRecord)> {
        let from = Replica { node, store: StoreId([0; 16]) };
        let members = self.members.iter_from(core::ops::Bound::Included(&from));
        members.take_while(move |(replica, _)| replica.node == node)
    }

    fn create(&mut self, index: Index, name: String, policy: Policy) -> Result<Reply, Reason> {
        if !is_name(&name) {
            reach!("state.registry.bad_name");
            return Err(Reason::InvalidName);
        }
        if let Policy::Eventual { slots, .. } = policy
            && !(1..=SLOTS_MAX).contains(&slots)
        {
            let limit = u64::from(SLOTS_MAX);
            return Err(Reason::OutOfBounds { what: Bound::Slots, limit });
        }
        if self.namespaces.get(&name).is_some() {
            reach!("state.registry.namespace_exists");
            return Err(Reason::NamespaceExists);
        }
        // Numbers are never reused, so they may run out as the table may.
        if self.namespaces.len() >= NAMESPACES_MAX || self.next_namespace == u32::MAX {
            reach!("state.registry.namespaces_full");
            return Err(Reason::Full { what: Resource::Namespaces });
        }
        let record = self.number(index, name.clone(), policy);
        let namespace = record.namespace.clone();
        self.namespaces.insert(name, record);
        reach!("state.registry.created");
        Ok(Reply::Created { namespace })
    }

    /// The record of a new namespace, under numbers never used before.
    fn number(&mut self, created: Index, name: String, policy: Policy) -> NamespaceRecord {
        let id = NamespaceId(self.next_namespace);
        self.next_namespace += 1;
        let (group, configuration) = match policy {
            Policy::Eventual { .. } => (None, Configuration::default()),
            Policy::Strong => (Some(GroupId(self.next_group)), self.configuration()),
        };
        // There are at most as many groups as namespaces, so this cannot overflow first.
        self.next_group += u32::from(group.is_some());
        let namespace = Namespace { id, name, policy, group };
        NamespaceRecord { namespace, configuration, created }
    }

    fn delete(&mut self, name: &str) -> Result<Reply, Reason> {
        let removed = self.namespaces.remove(&String::from(name));
        let record = removed.ok_or(Reason::UnknownNamespace)?;
        if mutant!("state.registry.keeps_deleted") {
            self.namespaces.insert(String::from(name), record.clone());
        }
        reach!("state.registry.deleted");
        Ok(Reply::Deleted { namespace: record.namespace.id })
    }
}

fn member_info(replica: &Replica, record: &MemberRecord) -> MemberInfo {
    let MemberRecord { name, address, .. } = record.clone();
    MemberInfo { replica: *replica, address, name }
}

/// Whether this is a valid namespace name: 1 to 64 bytes of a-z, 0-9, `-`, `_`, `.`, beginning with a letter.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_letter = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    is_letter && name.len() <= NAMESPACE_NAME_BYTES_MAX && name.bytes().all(allowed)
}

fn check_bootstrap(bootstrap: &Bootstrap) -> Result<(), Reason> {
    let voters = usize::from(bootstrap.voters);
    if !(1..=VOTERS_MAX).contains(&voters) || voters > bootstrap.members.len() {
        let limit = VOTERS_MAX as u64;
        return Err(Reason::OutOfBounds { what: Bound::Voters, limit });
    }
    if bootstrap.members.len() > MEMBERS_MAX {
        return Err(Reason::Full { what: Resource::Members });
    }
    let mut nodes: Vec<NodeId> = bootstrap.members.iter().map(|m| m.replica.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    // A node that votes twice would break every quorum.
    if nodes.len() != bootstrap.members.len() {
        reach!("state.registry.repeated_member");
        let limit = nodes.len() as u64;
        return Err(Reason::OutOfBounds { what: Bound::Voters, limit });
    }
    bootstrap.members.iter().try_for_each(check_member_info)
}

fn check_member_info(member: &MemberInfo) -> Result<(), Reason> {
    if member.address.0.len() > ADDRESS_BYTES_MAX {
        let limit = ADDRESS_BYTES_MAX as u64;
        return Err(Reason::OutOfBounds { what: Bound::Address, limit });
    }
    if member.name.len() > NAMESPACE_NAME_BYTES_MAX {
        return Err(Reason::InvalidName);
    }
    Ok(())
}
