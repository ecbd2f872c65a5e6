//! Bootstrap: how a federation begins. An operator tells one node to start it and names the other first voters.
//!
//! The node dials the named addresses and asks each whether it is free. Once all are, it makes group 0 durable here.
//! From that record on the bootstrap is irrevocable: every voter that has it sends it to the others until the registry
//! is bootstrapped, across restarts. A voter accepts one bootstrap only and acknowledges a repeat of the same one
//! again. The first command of group 0 is the bootstrap list itself.
//!
//! A node with an empty store does not form a group by itself. This module does not let later nodes in (`join`).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{Bootstrap, Bound, MemberInfo, Outcome, Reason, Request, Status, Value};
use crate::discovery::{Identity, Unverified};
use crate::id::{Address, Contact, GroupId, Replica, RequestId, Writer};
use crate::limits::{ADDRESS_BYTES_MAX, NAMESPACE_NAME_BYTES_MAX, VOTERS_MAX};
use crate::raft::{self, Configuration};
use crate::reach;
use crate::state::{Command, Operation};
use crate::wal::Write;

use super::machine::{Node, Task, Timer};
use super::request::{Origin, Stage};
use super::{Action, Message};

/// Milliseconds between two tries of every step that a bootstrap repeats.
const BOOTSTRAP_MS: u64 = 200;

/// A named first voter and what this node knows of it.
#[derive(Debug)]
struct Candidate {
    address: Address,
    replica: Option<Replica>,
    /// The entry that it reported of itself.
    info: Option<MemberInfo>,
    /// It is in a federation already, or it is this very node.
    unfit: bool,
}

/// A bootstrap that is not decided yet, on the node that an operator asked.
#[derive(Debug)]
struct Init {
    /// The key of the client's request.
    key: u64,
    candidates: Vec<Candidate>,
}

/// The progress of a bootstrap on this node.
#[derive(Debug, Default)]
pub(super) struct BootstrapState {
    init: Option<Init>,
    /// The key of the client's request, which waits until the bootstrap command is applied.
    waiting: Option<u64>,
    /// Voters that acknowledged that the bootstrap is durable on their disks.
    acknowledged: BTreeSet<Replica>,
    armed: bool,
}

impl Node {
    /// A client asks this node to create a federation.
    pub(super) fn on_init(&mut self, id: RequestId, voters: Vec<Address>) {
        let origin = Origin::Client(id);
        if let Err(reason) = self.check_init(&voters) {
            return self.answer(origin, Outcome::Rejected(reason));
        }
        let candidate = |address: &Address| Candidate {
            address: address.clone(),
            replica: None,
            info: None,
            unfit: false,
        };
        let candidates = voters.iter().map(candidate).collect();
        let key = self.add(origin, Request::Init { voters }, Stage::Bootstrap);
        self.bootstrap.init = Some(Init { key, candidates });
        self.on_bootstrap_due();
    }

    fn check_init(&self, voters: &[Address]) -> Result<(), Reason> {
        if self.phase.stopping {
            return Err(Reason::Stopping);
        }
        if self.is_formed() {
            return Err(Reason::AlreadyFormed);
        }
        if self.bootstrap.init.is_some() {
            return Err(Reason::Busy);
        }
        let limit = VOTERS_MAX as u64;
        if voters.len() >= VOTERS_MAX {
            return Err(Reason::OutOfBounds { what: Bound::Voters, limit });
        }
        let fits = |address: &Address| (1..=ADDRESS_BYTES_MAX).contains(&address.0.len());
        let limit = ADDRESS_BYTES_MAX as u64;
        let bound = Reason::OutOfBounds { what: Bound::Address, limit };
        voters.iter().all(fits).then_some(()).ok_or(bound)
    }

    /// The timer: repeats the questions to candidates and the bootstrap list to voters.
    pub(super) fn on_bootstrap_due(&mut self) {
        self.bootstrap.armed = false;
        if self.bootstrap.init.is_some() {
            self.ask_candidates();
            self.try_bootstrap();
        }
        self.send_bootstrap();
        if self.bootstrap.init.is_some() || self.unacknowledged().next().is_some() {
            self.arm_bootstrap();
        }
    }

    fn arm_bootstrap(&mut self) {
        if !core::mem::replace(&mut self.bootstrap.armed, true) {
            self.arm(Duration::from_millis(BOOTSTRAP_MS), Timer::Bootstrap);
        }
    }

    /// Dials the named addresses, and asks each node that answers for its status.
    fn ask_candidates(&mut self) {
        let Some(mut init) = self.bootstrap.init.take() else { return };
        for candidate in &mut init.candidates {
            match candidate.replica {
                None => self.emit(Action::Verify { address: candidate.address.clone() }),
                Some(replica) if candidate.info.is_none() => {
                    let question = self.requests.question(replica, Request::Status);
                    self.send(replica, question);
                }
                Some(_) => {}
            }
        }
        self.bootstrap.init = Some(init);
    }

    /// Dialling an address ended: a named voter may have answered there.
    pub(super) fn on_bootstrap_verified(
        &mut self,
        address: &Address,
        outcome: Result<Identity, Unverified>,
    ) {
        let (Some(init), Ok(identity)) = (&mut self.bootstrap.init, outcome) else { return };
        let named = init.candidates.iter_mut().find(|candidate| candidate.address == *address);
        let Some(candidate) = named else { return };
        let replica = Replica { node: identity.node, store: identity.store };
        candidate.replica = Some(replica);
        // The operator named this node itself under another address.
        candidate.unfit = replica.node == self.me.node;
        if !candidate.unfit && self.registry_view.routed(replica.node, address) {
            self.emit(Action::Route { peer: replica.node, address: Some(address.clone()) });
        }
    }

    /// A candidate reports its status. Returns whether the answer belongs to a bootstrap.
    pub(super) fn on_bootstrap_answer(&mut self, from: Replica, outcome: &Outcome) -> bool {
        let (Some(init), Outcome::Value(Value::Status(status))) =
            (&mut self.bootstrap.init, outcome)
        else {
            return false;
        };
        let named = init.candidates.iter_mut().find(|c| c.replica == Some(from));
        let Some(candidate) = named else { return false };
        candidate.unfit = status.formed || status.replica != from;
        candidate.info = Some(info_of(status, &candidate.address));
        self.try_bootstrap();
        true
    }

    /// Decides the bootstrap when all named voters are known and free; gives up when one is unfit.
    fn try_bootstrap(&mut self) {
        let Some(init) = &self.bootstrap.init else { return };
        if let Some(unfit) = init.candidates.iter().find(|candidate| candidate.unfit) {
            reach!("node.bootstrap.unfit");
            let (key, address) = (init.key, unfit.address.clone());
            self.bootstrap.init = None;
            let reason = Reason::VoterUnavailable { address };
            return self.finish(key, Outcome::Rejected(reason));
        }
        let known: Option<Vec<MemberInfo>> =
            init.candidates.iter().map(|candidate| candidate.info.clone()).collect();
        let Some(mut members) = known else { return };
        let key = init.key;
        members.push(self.own_info());
        members.sort_by_key(|member| member.replica);
        members.dedup_by_key(|member| member.replica.node);
        let voters = members.len() as u8;
        reach!("node.bootstrap.decided");
        self.bootstrap.init = None;
        self.bootstrap.waiting = Some(key);
        self.adopt_bootstrap(Bootstrap { members, voters });
        self.arm_bootstrap();
    }

    /// This node's own entry in a list of members.
    pub(super) fn own_info(&self) -> MemberInfo {
        MemberInfo { replica: self.me, address: self.address.clone(), name: self.name.clone() }
    }

    /// Makes a bootstrap durable here. Contacts come first, so that a node that has the group can reach its members.
    pub(super) fn adopt_bootstrap(&mut self, bootstrap: Bootstrap) {
        let replicas = |members: &[MemberInfo]| {
            let mut replicas: Vec<Replica> = members.iter().map(|f| f.replica).collect();
            replicas.sort_unstable();
            replicas
        };
        let voters = replicas(&bootstrap.members[..usize::from(bootstrap.voters)]);
        let contact =
            |f: &MemberInfo| Contact { node: Some(f.replica.node), address: f.address.clone() };
        let others = bootstrap.members.iter().filter(|member| member.replica != self.me);
        let contacts: Vec<Contact> = others.map(contact).collect();
        self.remember(contacts);
        for member in &bootstrap.members {
            if member.replica != self.me {
                self.located(member.replica.node, member.address.clone());
            }
        }
        self.registry_view.first_members = bootstrap.members;
        // A learner begins with an empty configuration; a leader sends it the real one.
        let genesis = Configuration { voters, learners: Vec::new() };
        self.open_group(GroupId::REGISTRY, genesis);
    }

    /// Voters of group 0 that have not acknowledged the bootstrap; none once the registry is bootstrapped.
    fn unacknowledged(&self) -> impl Iterator<Item = Replica> + '_ {
        let group = self.groups.get(&GroupId::REGISTRY).filter(|_| self.registry_is_empty());
        let voters = group.map_or(&[][..], |group| &group.raft.configuration().voters);
        let voters = if voters.contains(&self.me) { voters } else { &[] };
        let told =
            |voter: &&Replica| **voter != self.me && !self.bootstrap.acknowledged.contains(*voter);
        voters.iter().filter(told).copied()
    }

    pub(super) fn registry_is_empty(&self) -> bool {
        self.registry().is_none_or(|registry| !registry.is_bootstrapped())
    }

    /// Sends the bootstrap list to voters that lack it, once it is durable here.
    fn send_bootstrap(&mut self) {
        let unacknowledged: Vec<Replica> = self.unacknowledged().collect();
        if unacknowledged.is_empty() {
            return;
        }
        let bootstrap = self.bootstrap_list();
        for voter in unacknowledged {
            let message = Message::Bootstrap(bootstrap.clone());
            self.promise(Writer::Group(GroupId::REGISTRY), voter, message);
        }
    }

    /// The bootstrap list as this node knows it. A restart loses the names; each member reports its own later.
    fn bootstrap_list(&self) -> Bootstrap {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.raft.configuration().voters);
        let member = |voter: &Replica| {
            let known = self.registry_view.first_members.iter().find(|info| info.replica == *voter);
            known.cloned().unwrap_or_else(|| self.guess_info(*voter))
        };
        Bootstrap { members: voters.iter().map(member).collect(), voters: voters.len() as u8 }
    }

    fn guess_info(&self, replica: Replica) -> MemberInfo {
        if replica == self.me {
            return self.own_info();
        }
        let contacts = self.discovery.machine.contacts();
        let contact = contacts.iter().find(|contact| contact.node == Some(replica.node)).cloned();
        let address = contact.map_or_else(Address::default, |contact| contact.address);
        MemberInfo { replica, address, name: alloc::format!("{}", replica.node) }
    }

    /// A peer sends a bootstrap list that names this node.
    pub(super) fn on_bootstrap(&mut self, from: Replica, bootstrap: Bootstrap) {
        if let Err(why) = check_bootstrap(&bootstrap, from, self.me) {
            return self.rejected(from.node, why);
        }
        if self.is_formed() {
            let same = self.groups.get(&GroupId::REGISTRY).is_some_and(|group| {
                let ours = &group.genesis.voters;
                let theirs = &bootstrap.members;
                ours.len() == theirs.len() && theirs.iter().all(|m| ours.contains(&m.replica))
            });
            if same {
                reach!("node.bootstrap.repeated");
                self.promise(Writer::Group(GroupId::REGISTRY), from, Message::BootstrapAck);
            } else {
                self.rejected(from.node, "a bootstrap list after another one");
            }
            return;
        }
        reach!("node.bootstrap.accepted");
        // Two bootstraps at once: this node takes the other's list, and its own undecided one ends.
        self.cancel_init();
        self.adopt_bootstrap(bootstrap);
        self.promise(Writer::Group(GroupId::REGISTRY), from, Message::BootstrapAck);
        self.arm_bootstrap();
    }

    /// A voter acknowledges that the bootstrap is durable on its disk.
    pub(super) fn on_bootstrap_ack(&mut self, from: Replica) {
        if self.unacknowledged().any(|voter| voter == from) {
            self.bootstrap.acknowledged.insert(from);
        }
    }

    /// The leader of an empty group 0 proposes its first command.
    pub(super) fn propose_bootstrap(&mut self) {
        if !self.registry_is_empty() {
            return;
        }
        // Requests are numbered from 1.
        let operation = Operation::Bootstrap(self.bootstrap_list(), self.draw_secret(0));
        // At most seven members with bounded names and addresses always fit into a command.
        let Ok(command) = (Command { session: None, operation }).encode() else { return };
        let event = raft::Event::Propose { ticket: 0, command };
        self.enqueue(Task::Raft(GroupId::REGISTRY, event));
        // The proposal may be lost with its term. Repeating it is harmless: the registry refuses a second bootstrap.
        self.arm_align(GroupId::REGISTRY, 2000);
    }

    /// The bootstrap command is applied here.
    pub(super) fn bootstrapped(&mut self) {
        self.registry_view.first_members.clear();
        self.bootstrap.acknowledged.clear();
        if let Some(key) = self.bootstrap.waiting.take() {
            self.finish(key, Outcome::Value(Value::Initialized));
        }
    }

    /// The client's request timed out. Before the decision nothing happened; after it the bootstrap goes on.
    pub(super) fn bootstrap_expired(&mut self) -> Outcome {
        let Some(init) = self.bootstrap.init.take() else {
            self.bootstrap.waiting = None;
            return Outcome::Unknown { reached: None };
        };
        reach!("node.bootstrap.expired");
        let missing = init.candidates.into_iter().find(|candidate| candidate.info.is_none());
        let address = missing.map_or_else(Address::default, |candidate| candidate.address);
        Outcome::Rejected(Reason::VoterUnavailable { address })
    }

    /// Ends an undecided bootstrap, because the node is in a federation now.
    pub(super) fn cancel_init(&mut self) {
        if let Some(init) = self.bootstrap.init.take() {
            self.finish(init.key, Outcome::Rejected(Reason::AlreadyFormed));
        }
    }

    /// Makes this list of contacts durable; it replaces the one before.
    pub(super) fn remember(&mut self, contacts: Vec<Contact>) {
        self.persist_own(Write::Contacts { contacts });
    }
}

/// A candidate's entry, from its status. Without a usable address of its own it gets the one that the operator named.
fn info_of(status: &Status, named: &Address) -> MemberInfo {
    let own = !status.address.0.is_empty() && status.address.0.len() <= ADDRESS_BYTES_MAX;
    let address = if own { status.address.clone() } else { named.clone() };
    let mut name = status.name.clone();
    if name.len() > NAMESPACE_NAME_BYTES_MAX {
        name = alloc::format!("{}", status.replica.node);
    }
    MemberInfo { replica: status.replica, address, name }
}

/// Checks that a bootstrap list is within all bounds and that its sender and this node are voters of it.
fn check_bootstrap(bootstrap: &Bootstrap, from: Replica, me: Replica) -> Result<(), &'static str> {
    let members = &bootstrap.members;
    if members.len() != usize::from(bootstrap.voters) || members.len() > VOTERS_MAX {
        return Err("a bootstrap list with an impossible number of voters");
    }
    let nodes: BTreeSet<_> = members.iter().map(|member| member.replica.node).collect();
    if nodes.len() != members.len() {
        return Err("a bootstrap list that names a node twice");
    }
    let names = |replica: Replica| members.iter().any(|member| member.replica == replica);
    if !names(from) || !names(me) {
        return Err("a bootstrap list that does not name both ends");
    }
    if !members.iter().all(is_bounded) {
        return Err("a bootstrap list with an oversized name or address");
    }
    Ok(())
}

/// Whether a member's name and address are within their bounds.
pub(super) fn is_bounded(member: &MemberInfo) -> bool {
    member.address.0.len() <= ADDRESS_BYTES_MAX && member.name.len() <= NAMESPACE_NAME_BYTES_MAX
}
