//! How a federation begins: one node is told to, and names the first voters.
//!
//! The founder verifies the named addresses, asks who is there and whether they are free, and only then makes group 0
//! durable here. From that record on the founding is irrevocable: every voter that has it tells the others until the
//! registry is founded, whatever restarts in between. A voter accepts one founding only; a repeat of the same one is
//! acknowledged again. The first command of group 0 is the founding itself.
//!
//! An empty store never forms a group by itself.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{Address, Contact, GroupId, Replica, RequestId};
use crate::limits::{ADDRESS_BYTES_MAX, NAMESPACE_NAME_BYTES_MAX, VOTERS_MAX};
use crate::raft::{self, Configuration};
use crate::reach;
use crate::state::{Command, Operation};
use crate::wal::Write;

use super::hold::Keeper;
use super::machine::{Node, Timer, Work};
use super::request::{Origin, Stage};
use super::{Action, Message};
use crate::api::{Bootstrap, Bound, MemberInfo, Outcome, Reason, Request, Status, Value};
use crate::discovery::{Identity, Unverified};

/// Milliseconds between two tries of all that a founding repeats.
const BOOTSTRAP_MS: u64 = 200;

/// A named first voter, as far as it is known.
#[derive(Debug)]
struct Candidate {
    address: Address,
    replica: Option<Replica>,
    /// What it says of itself, when it is free.
    founder: Option<MemberInfo>,
    /// It is in a federation already, or cannot be a voter.
    unfit: bool,
}

/// A founding under way on this node.
#[derive(Debug)]
struct Init {
    /// The client's request.
    key: u64,
    candidates: Vec<Candidate>,
}

/// How far the founding is.
#[derive(Debug, Default)]
pub(super) struct BootstrapState {
    init: Option<Init>,
    /// The client's request that waits until the founding is applied.
    waiting: Option<u64>,
    /// Voters that said that they have the founding.
    acknowledged: BTreeSet<Replica>,
    armed: bool,
}

impl Node {
    /// A client asks this node to found a federation.
    pub(super) fn on_init(&mut self, id: RequestId, voters: Vec<Address>) {
        let origin = Origin::Client(id);
        if let Err(reason) = self.check_init(&voters) {
            return self.answer(origin, Outcome::Rejected(reason));
        }
        let candidate = |address: &Address| Candidate {
            address: address.clone(),
            replica: None,
            founder: None,
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

    /// Time to ask or to tell again.
    pub(super) fn on_bootstrap_due(&mut self) {
        self.bootstrap.armed = false;
        if self.bootstrap.init.is_some() {
            self.ask_candidates();
            self.try_bootstrap();
        }
        self.tell_voters();
        if self.bootstrap.init.is_some() || self.untold().next().is_some() {
            self.arm_bootstrap();
        }
    }

    fn arm_bootstrap(&mut self) {
        if !core::mem::replace(&mut self.bootstrap.armed, true) {
            self.arm(Duration::from_millis(BOOTSTRAP_MS), Timer::Bootstrap);
        }
    }

    /// Dials the named addresses, and asks who is there whether it is free.
    fn ask_candidates(&mut self) {
        let Some(mut init) = self.bootstrap.init.take() else { return };
        for candidate in &mut init.candidates {
            match candidate.replica {
                None => self.act(Action::Verify { address: candidate.address.clone() }),
                Some(replica) if candidate.founder.is_none() => {
                    let id = RequestId(self.requests.number());
                    self.send(replica, Message::Forward { id, request: Request::Status });
                }
                Some(_) => {}
            }
        }
        self.bootstrap.init = Some(init);
    }

    /// An address was dialled: a named voter may be there.
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
        // Bootstrap with oneself under another address is a mistake of the operator.
        candidate.unfit = replica.node == self.me.node;
        if !candidate.unfit && self.known.routed(replica.node, address) {
            self.act(Action::Route { peer: replica.node, address: Some(address.clone()) });
        }
    }

    /// A candidate says what it is. True when the answer belongs to a founding.
    pub(super) fn on_bootstrap_answer(&mut self, from: Replica, outcome: &Outcome) -> bool {
        let (Some(init), Outcome::Value(Value::Status(status))) =
            (&mut self.bootstrap.init, outcome)
        else {
            return false;
        };
        let named = init.candidates.iter_mut().find(|c| c.replica == Some(from));
        let Some(candidate) = named else { return false };
        candidate.unfit = status.formed || status.replica != from;
        candidate.founder = Some(founder(status, &candidate.address));
        self.try_bootstrap();
        true
    }

    /// Founds when all named voters are known and free; gives up when one cannot be one.
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
            init.candidates.iter().map(|candidate| candidate.founder.clone()).collect();
        let Some(mut members) = known else { return };
        let key = init.key;
        members.push(self.own_entry());
        members.sort_by_key(|member| member.replica);
        members.dedup_by_key(|member| member.replica.node);
        let voters = members.len() as u8;
        reach!("node.bootstrap.decided");
        self.bootstrap.init = None;
        self.bootstrap.waiting = Some(key);
        self.form(Bootstrap { members, voters });
        self.arm_bootstrap();
    }

    /// This node as a member.
    pub(super) fn own_entry(&self) -> MemberInfo {
        MemberInfo { replica: self.me, address: self.address.clone(), name: self.name.clone() }
    }

    /// Makes a founding durable here: contacts first, so that whoever has the group can reach its members.
    pub(super) fn form(&mut self, founding: Bootstrap) {
        let replicas = |founders: &[MemberInfo]| {
            let mut replicas: Vec<Replica> = founders.iter().map(|f| f.replica).collect();
            replicas.sort_unstable();
            replicas
        };
        let voters = replicas(&founding.members[..usize::from(founding.voters)]);
        let contact =
            |f: &MemberInfo| Contact { node: Some(f.replica.node), address: f.address.clone() };
        let others = founding.members.iter().filter(|member| member.replica != self.me);
        let contacts: Vec<Contact> = others.map(contact).collect();
        self.remember(contacts);
        for member in &founding.members {
            if member.replica != self.me {
                self.located(member.replica.node, member.address.clone());
            }
        }
        self.known.first_members = founding.members;
        // A learner begins without a configuration: a leader tells it.
        let genesis = Configuration { voters, learners: Vec::new() };
        self.create_group(GroupId::REGISTRY, genesis);
    }

    /// Voters of group 0 that did not say yet that they have the founding; none once the registry is founded.
    fn untold(&self) -> impl Iterator<Item = Replica> + '_ {
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

    /// Tells the other voters, once the founding is durable here.
    fn tell_voters(&mut self) {
        let untold: Vec<Replica> = self.untold().collect();
        if untold.is_empty() {
            return;
        }
        let founding = self.bootstrap_message();
        for voter in untold {
            let message = Message::Bootstrap(founding.clone());
            self.promise(Keeper::Group(GroupId::REGISTRY), voter, message);
        }
    }

    /// The founding as this node knows it. After a restart names are gone, and each member tells its own again.
    fn bootstrap_message(&self) -> Bootstrap {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.raft.configuration().voters);
        let member = |voter: &Replica| {
            let known = self.known.first_members.iter().find(|founder| founder.replica == *voter);
            known.cloned().unwrap_or_else(|| self.guess(*voter))
        };
        Bootstrap { members: voters.iter().map(member).collect(), voters: voters.len() as u8 }
    }

    fn guess(&self, replica: Replica) -> MemberInfo {
        if replica == self.me {
            return self.own_entry();
        }
        let contacts = self.discovery.machine.contacts();
        let contact = contacts.iter().find(|contact| contact.node == Some(replica.node)).cloned();
        let address = contact.map_or_else(Address::default, |contact| contact.address);
        MemberInfo { replica, address, name: alloc::format!("{}", replica.node) }
    }

    /// A peer tells of a founding that names this node.
    pub(super) fn on_bootstrap(&mut self, from: Replica, founding: Bootstrap) {
        if let Err(why) = check_bootstrap(&founding, from, self.me) {
            return self.rejected(from.node, why);
        }
        if self.is_formed() {
            let same = self.groups.get(&GroupId::REGISTRY).is_some_and(|group| {
                let ours = &group.genesis.voters;
                let theirs = &founding.members;
                ours.len() == theirs.len() && theirs.iter().all(|m| ours.contains(&m.replica))
            });
            if same {
                reach!("node.bootstrap.repeated");
                self.promise(Keeper::Group(GroupId::REGISTRY), from, Message::BootstrapAck);
            } else {
                self.rejected(from.node, "a founding after another one");
            }
            return;
        }
        reach!("node.bootstrap.accepted");
        // Two founders at once: this node takes the other's founding, and its own never began.
        self.cancel_init();
        self.form(founding);
        self.promise(Keeper::Group(GroupId::REGISTRY), from, Message::BootstrapAck);
        self.arm_bootstrap();
    }

    /// A voter has the founding, durably.
    pub(super) fn on_bootstrap_ack(&mut self, from: Replica) {
        if self.untold().any(|voter| voter == from) {
            self.bootstrap.acknowledged.insert(from);
        }
    }

    /// The leader of an empty group 0 proposes its first command.
    pub(super) fn propose_bootstrap(&mut self) {
        if !self.registry_is_empty() {
            return;
        }
        let operation = Operation::Bootstrap(self.bootstrap_message());
        // Seven members of bounded names and addresses fit into a command.
        let Ok(command) = (Command { session: None, operation }).encode() else { return };
        let event = raft::Event::Propose { ticket: 0, command };
        self.then(Work::Raft(GroupId::REGISTRY, event));
        // A proposal may be lost with its term; a second one that is applied is refused by the registry.
        self.arm_align(GroupId::REGISTRY, 2000);
    }

    /// The founding is applied here.
    pub(super) fn bootstrapped(&mut self) {
        self.known.first_members.clear();
        self.bootstrap.acknowledged.clear();
        if let Some(key) = self.bootstrap.waiting.take() {
            self.finish(key, Outcome::Value(Value::Initialized));
        }
    }

    /// The client's time is over: before the founding is decided nothing happened, afterwards it goes on.
    pub(super) fn bootstrap_expired(&mut self) -> Outcome {
        let Some(init) = self.bootstrap.init.take() else {
            self.bootstrap.waiting = None;
            return Outcome::Unknown { reached: None };
        };
        reach!("node.bootstrap.expired");
        let missing = init.candidates.into_iter().find(|candidate| candidate.founder.is_none());
        let address = missing.map_or_else(Address::default, |candidate| candidate.address);
        Outcome::Rejected(Reason::VoterUnavailable { address })
    }

    /// Gives up a founding that is not decided: the node is in a federation now.
    pub(super) fn cancel_init(&mut self) {
        if let Some(init) = self.bootstrap.init.take() {
            self.finish(init.key, Outcome::Rejected(Reason::AlreadyFormed));
        }
    }

    /// Makes contacts durable.
    pub(super) fn remember(&mut self, contacts: Vec<Contact>) {
        self.persist_own(Keeper::Node, Write::Contacts { contacts });
    }
}

/// A candidate as it describes itself; without an address of its own, the one that it was named by.
fn founder(status: &Status, named: &Address) -> MemberInfo {
    let own = !status.address.0.is_empty() && status.address.0.len() <= ADDRESS_BYTES_MAX;
    let address = if own { status.address.clone() } else { named.clone() };
    let mut name = status.name.clone();
    if name.len() > NAMESPACE_NAME_BYTES_MAX {
        name = alloc::format!("{}", status.replica.node);
    }
    MemberInfo { replica: status.replica, address, name }
}

/// A founding must be one that its sender and this node are voters of, within all bounds.
fn check_bootstrap(founding: &Bootstrap, from: Replica, me: Replica) -> Result<(), &'static str> {
    let members = &founding.members;
    if members.len() != usize::from(founding.voters) || members.len() > VOTERS_MAX {
        return Err("a founding with an impossible number of voters");
    }
    let nodes: BTreeSet<_> = members.iter().map(|member| member.replica.node).collect();
    if nodes.len() != members.len() {
        return Err("a founding that names a node twice");
    }
    let names = |replica: Replica| members.iter().any(|member| member.replica == replica);
    if !names(from) || !names(me) {
        return Err("a founding that does not name both ends");
    }
    if !members.iter().all(is_bounded) {
        return Err("a founding with an oversized name or address");
    }
    Ok(())
}

/// Whether a member's name and address are within their bounds.
pub(super) fn is_bounded(member: &MemberInfo) -> bool {
    member.address.0.len() <= ADDRESS_BYTES_MAX && member.name.len() <= NAMESPACE_NAME_BYTES_MAX
}
