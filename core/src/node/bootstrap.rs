//! Bootstrap: how a founder begins a federation. An operator tells one node to found it and names the other first
//! voters.
//!
//! The founder dials the named addresses and asks each whether it is free. Then it offers the founding to all of them,
//! and once each has accepted durably it makes group 0 durable here. Before that record nothing is decided, and nothing
//! of the founding is on the founder's disk: a restart, an expired request or a voter that cannot take part aborts it.
//! After it the founding goes on whatever happens to the client. The first command of group 0 is the bootstrap list.
//!
//! A node with an empty store does not form a group by itself. This module does not accept foundings (`genesis`), and
//! does not let later nodes in (`join`).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{Bootstrap, Bound, MemberInfo, Outcome, Reason, Request, Status, Value};
use crate::discovery::{Identity, Unverified};
use crate::id::{Address, Contact, GenesisId, GroupId, NodeId, Replica, RequestId, Writer};
use crate::limits::{ADDRESS_BYTES_MAX, NAMESPACE_NAME_BYTES_MAX, VOTERS_MAX};
use crate::raft::{self, Configuration};
use crate::state::{Command, Operation};
use crate::wal::Write;
use crate::{mutant, reach};

use super::machine::{Node, Task, Timer};
use super::request::{Origin, Stage};
use super::{Action, Founding, Message};

/// Milliseconds between two tries of every step that a founding repeats.
const BOOTSTRAP_MS: u64 = 200;

/// A named first voter and what this node knows of it.
#[derive(Debug)]
struct Candidate {
    address: Address,
    replica: Option<Replica>,
    /// The entry that it reported of itself.
    info: Option<MemberInfo>,
    /// Why it cannot take part.
    unfit: Option<Reason>,
}

/// The list that a founder offered to all first voters, and their answers.
#[derive(Debug)]
struct Offer {
    bootstrap: Bootstrap,
    /// The voters whose acceptance is durable.
    accepted: BTreeSet<Replica>,
    /// The last reason of a voter that did not accept.
    declined: Option<Reason>,
}

/// A founding that is not decided yet, on the node that an operator asked.
#[derive(Debug)]
struct Init {
    /// The key of the client's request.
    key: u64,
    candidates: Vec<Candidate>,
    offer: Option<Offer>,
}

/// The progress of a founding on its founder.
#[derive(Debug, Default)]
pub(super) struct BootstrapState {
    init: Option<Init>,
    /// The key of the client's request, which waits until the bootstrap command is applied.
    waiting: Option<u64>,
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
            unfit: None,
        };
        let candidates = voters.iter().map(candidate).collect();
        let key = self.add(origin, Request::Init { voters }, Stage::Bootstrap);
        self.bootstrap.init = Some(Init { key, candidates, offer: None });
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
        if let Some(acceptance) = &self.genesis.acceptance {
            return Err(acceptance.reason());
        }
        if let Some(reason) = self.formed_neighbour() {
            return Err(reason);
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

    /// The timer: repeats every message of a founding that was not answered yet.
    pub(super) fn on_bootstrap_due(&mut self) {
        self.bootstrap.armed = false;
        if self.bootstrap.init.is_some() {
            self.ask_candidates();
            self.try_offer();
            self.send_offers();
        }
        self.ask_founding();
        self.tell_formed();
        let accepted = self.genesis.acceptance.is_some();
        if accepted || self.bootstrap.init.is_some() || self.is_any_untold() {
            self.arm_bootstrap();
        }
    }

    pub(super) fn arm_bootstrap(&mut self) {
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
        if replica.node == self.me.node {
            // The operator named this node itself under another address.
            candidate.unfit = Some(Reason::VoterUnavailable { address: address.clone() });
        } else if self.registry_view.routed(replica.node, address) {
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
        candidate.unfit = unfit(status, from, &candidate.address);
        candidate.info = Some(info_of(status, &candidate.address));
        self.try_offer();
        true
    }

    /// Offers the founding when all named voters are known and free; gives up when one is unfit.
    fn try_offer(&mut self) {
        let Some(init) = self.bootstrap.init.as_ref().filter(|init| init.offer.is_none()) else {
            return;
        };
        let unfit = init.candidates.iter().find_map(|candidate| candidate.unfit.clone());
        if let Some(reason) = unfit {
            reach!("node.bootstrap.unfit");
            return self.abort_founding(reason);
        }
        let known: Option<Vec<MemberInfo>> =
            init.candidates.iter().map(|candidate| candidate.info.clone()).collect();
        let Some(mut members) = known else { return };
        // A node whose disk was lost must not begin anew beside its federation. So it looks around first.
        if !self.has_looked() {
            return;
        }
        let key = init.key;
        members.push(self.own_info());
        members.sort_by_key(|member| member.replica);
        members.dedup_by_key(|member| member.replica.node);
        let voters: Vec<Replica> = members.iter().map(|member| member.replica).collect();
        let salt = self.seed.derive("genesis", key).draw();
        let genesis = GenesisId::of(self.federation, self.me, salt, &voters);
        let bootstrap = Bootstrap { genesis, members, voters: voters.len() as u8 };
        reach!("node.bootstrap.offered");
        let offer = Offer { bootstrap, accepted: [self.me].into(), declined: None };
        if let Some(init) = &mut self.bootstrap.init {
            init.offer = Some(offer);
        }
        self.send_offers();
        self.try_decide();
    }

    /// Sends the offer to each voter that has not accepted it.
    fn send_offers(&mut self) {
        let Some(offer) = self.bootstrap.init.as_ref().and_then(|init| init.offer.as_ref()) else {
            return;
        };
        let bootstrap = offer.bootstrap.clone();
        let waits = |voter: &Replica| !offer.accepted.contains(voter);
        for voter in bootstrap.voting().into_iter().filter(waits).collect::<Vec<_>>() {
            self.send(voter, Message::Founding(Founding::Offer(bootstrap.clone())));
        }
    }

    /// A voter's acceptance of this node's founding is durable.
    pub(super) fn on_accepted_by(&mut self, from: Replica, genesis: GenesisId) {
        let offer = self.bootstrap.init.as_mut().and_then(|init| init.offer.as_mut());
        let Some(offer) = offer.filter(|offer| offer.bootstrap.genesis == genesis) else {
            reach!("node.bootstrap.late_acceptance");
            return;
        };
        if offer.bootstrap.members.iter().any(|member| member.replica == from) {
            offer.accepted.insert(from);
            self.try_decide();
        }
    }

    /// A voter does not accept this node's founding. Only a federation that exists is a reason to give up at once.
    pub(super) fn on_declined(&mut self, from: Replica, genesis: GenesisId, reason: Reason) {
        let offer = self.bootstrap.init.as_mut().and_then(|init| init.offer.as_mut());
        let Some(offer) = offer.filter(|offer| offer.bootstrap.genesis == genesis) else { return };
        if !offer.bootstrap.members.iter().any(|member| member.replica == from) {
            return;
        }
        reach!("node.bootstrap.declined");
        offer.declined = Some(reason.clone());
        if matches!(reason, Reason::FederationExists { .. }) {
            self.abort_founding(reason);
        }
    }

    /// Decides the founding once all first voters accepted it.
    fn try_decide(&mut self) {
        let offer = self.bootstrap.init.as_ref().and_then(|init| init.offer.as_ref());
        let Some(offer) = offer else { return };
        let voters = offer.bootstrap.members.len();
        let enough =
            if mutant!("node.founding.majority_decides") { voters / 2 + 1 } else { voters };
        if offer.accepted.len() < enough {
            return;
        }
        let Some(Init { key, offer: Some(offer), .. }) = self.bootstrap.init.take() else { return };
        reach!("node.bootstrap.decided");
        self.bootstrap.waiting = Some(key);
        self.adopt_bootstrap(offer.bootstrap);
        self.arm_bootstrap();
    }

    /// Ends an undecided founding of this node: nobody will ever be formed by it.
    pub(super) fn abort_founding(&mut self, reason: Reason) {
        let Some(init) = self.bootstrap.init.take() else { return };
        self.finish(init.key, Outcome::Rejected(reason));
        self.tell_aborted(init.offer);
    }

    /// Tells the voters that the founding is aborted. They would ask; this spares them the wait.
    fn tell_aborted(&mut self, offer: Option<Offer>) {
        let Some(Offer { bootstrap, .. }) = offer else { return };
        reach!("node.bootstrap.aborted");
        for voter in bootstrap.voting() {
            self.send(voter, Message::Founding(Founding::Aborted(bootstrap.genesis)));
        }
    }

    /// Whether an operator's request to found a federation is under way here.
    pub(super) const fn is_founding(&self) -> bool {
        self.bootstrap.init.is_some()
    }

    /// The genesis that this node has offered and not decided.
    pub(super) fn offered(&self) -> Option<GenesisId> {
        let offer = self.bootstrap.init.as_ref().and_then(|init| init.offer.as_ref());
        offer.map(|offer| offer.bootstrap.genesis)
    }

    /// This node's own entry in a list of members.
    pub(super) fn own_info(&self) -> MemberInfo {
        MemberInfo { replica: self.me, address: self.address.clone(), name: self.name.clone() }
    }

    /// Makes a genesis durable here. Contacts come first, so that a node that has the group can reach its members.
    pub(super) fn adopt_bootstrap(&mut self, bootstrap: Bootstrap) {
        let mut voters = bootstrap.voting();
        if mutant!("node.join.without_voters") && self.bootstrap.waiting.is_none() {
            voters.clear();
        }
        let contact =
            |f: &MemberInfo| Contact { node: Some(f.replica.node), address: f.address.clone() };
        let me = self.me.node;
        let others = || bootstrap.members.iter().filter(|member| member.replica.node != me);
        self.remember(others().map(contact).collect());
        for member in others().cloned().collect::<Vec<_>>() {
            self.located(member.replica.node, member.address);
        }
        self.genesis.id = Some(bootstrap.genesis);
        self.genesis.acceptance = None;
        self.registry_view.first_members = bootstrap.members;
        self.open_group(GroupId::REGISTRY, Configuration { voters, learners: Vec::new() });
        self.genesis.written = self.gate.newest(Writer::Group(GroupId::REGISTRY));
        self.announce_genesis();
        self.arm_bootstrap();
    }

    pub(super) fn registry_is_empty(&self) -> bool {
        self.registry().is_none_or(|registry| !registry.is_bootstrapped())
    }

    /// The list of the first voters as this node knows it. A restart loses names until the registry is applied.
    pub(super) fn bootstrap_list(&self) -> Bootstrap {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.genesis.voters);
        let member = |voter: &Replica| {
            let known = self.registry_view.first_members.iter().find(|info| info.replica == *voter);
            known.cloned().unwrap_or_else(|| self.guess_info(*voter))
        };
        let genesis = self.genesis.id.unwrap_or_default();
        let members = voters.iter().map(member).collect();
        Bootstrap { genesis, members, voters: voters.len() as u8 }
    }

    fn guess_info(&self, replica: Replica) -> MemberInfo {
        if replica == self.me {
            return self.own_info();
        }
        let address = self.address_of(replica.node);
        MemberInfo { replica, address, name: alloc::format!("{}", replica.node) }
    }

    /// The address of a node as discovery knows it; empty when it does not.
    pub(super) fn address_of(&self, node: NodeId) -> Address {
        let contacts = self.discovery.machine.contacts();
        let contact = contacts.into_iter().find(|contact| contact.node == Some(node));
        contact.map(|contact| contact.address).unwrap_or_default()
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
        if let Some(key) = self.bootstrap.waiting.take() {
            self.finish(key, Outcome::Value(Value::Initialized));
        }
    }

    /// The client's request expired. Before the decision that aborts the founding. After it the federation is created
    /// once the genesis is durable here, also while most voters are away.
    pub(super) fn bootstrap_expired(&mut self, key: u64) {
        let Some(init) = self.bootstrap.init.take() else {
            self.bootstrap.waiting = None;
            let durable = self.gate.newest(Writer::Group(GroupId::REGISTRY));
            return self.finish_after(key, Outcome::Value(Value::Initialized), durable);
        };
        reach!("node.bootstrap.expired");
        let reason = init.why_expired();
        if mutant!("node.founding.goes_on") {
            self.finish(key, Outcome::Rejected(reason));
            self.bootstrap.init = Some(init);
            return;
        }
        self.bootstrap.init = Some(init);
        self.abort_founding(reason);
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

impl Init {
    /// Why the founding was not decided in time: the first voter that has no part in it, or what one of them said.
    fn why_expired(&self) -> Reason {
        let accepted = |replica: &Replica| {
            self.offer.as_ref().is_some_and(|offer| offer.accepted.contains(replica))
        };
        if let Some(declined) = self.offer.as_ref().and_then(|offer| offer.declined.clone()) {
            return declined;
        }
        let is_missing =
            |c: &&Candidate| c.info.is_none() || !c.replica.as_ref().is_some_and(accepted);
        let unknown = self.candidates.iter().find(|candidate| candidate.info.is_none());
        let missing = unknown.or_else(|| self.candidates.iter().find(is_missing));
        let address = missing.map_or_else(Address::default, |missing| missing.address.clone());
        Reason::VoterUnavailable { address }
    }
}

/// Why a candidate cannot be a first voter: it is formed, or it knows a node that is, or it waits for another founding.
fn unfit(status: &Status, from: Replica, named: &Address) -> Option<Reason> {
    if mutant!("node.founding.beside_formed") {
        return status.formed.then(|| Reason::VoterUnavailable { address: named.clone() });
    }
    if status.formed {
        let address = named.clone();
        return Some(Reason::FederationExists { node: status.replica.node, address });
    }
    if let Some(peer) = status.formed_peers.first() {
        let address = peer.address.clone();
        return Some(Reason::FederationExists { node: peer.node, address });
    }
    let other = status.replica != from;
    other.then(|| Reason::VoterUnavailable { address: named.clone() })
}

/// Checks that a bootstrap list is within all bounds and that its sender and this node are voters of it.
pub(super) fn check_founding(
    bootstrap: &Bootstrap,
    from: Replica,
    me: Replica,
) -> Result<(), &'static str> {
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
