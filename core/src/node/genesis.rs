//! Genesis: the one beginning of a federation that this node accepts, is formed with, and hears of from others.
//!
//! A first voter makes its acceptance of a founding durable before it tells the founder, and takes part in no other
//! until it knows the end of this one. The founder decides: it is formed once all first voters accepted, and keeps no
//! record before that. So a founder that knows nothing of a founding says that it is aborted, and only this word, or a
//! first voter that is formed with another genesis, releases a voter. A voter asks until it knows, across restarts.
//! Each first voter that is formed tells the others until each has the genesis on its disk.
//!
//! Every message of the protocols names the sender's genesis, and a node drops those of another one.
//!
//! This module does not begin foundings (`bootstrap`).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{Bootstrap, FormedPeer, MemberInfo, Reason, Request};
use crate::digest::Hasher;
use crate::id::{GenesisId, GroupId, NodeId, Replica, Writer};
use crate::time::Instant;
use crate::wal::Write;
use crate::{mutant, reach};

use super::bootstrap::check_founding;
use super::machine::Node;
use super::restore::Replay;
use super::{Action, Founding, Message, Notice};

/// Milliseconds until a voter asks for the first time how a founding ended; the pause doubles up to [`ASK_MS_MAX`].
const ASK_MS: u64 = 200;
const ASK_MS_MAX: u64 = 2000;

/// An unformed node first looks for its federation at the addresses that it was given, for at most this many
/// milliseconds.
const LOOK_MS: u64 = 1500;

/// Formed peers that a status lists.
const FORMED_PEERS_LISTED: usize = 8;

/// A founding that this node accepted, and whose end it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acceptance {
    /// The node that decides.
    pub(super) founder: Replica,
    /// The list that it offered.
    pub(super) bootstrap: Bootstrap,
}

impl Acceptance {
    /// The record that makes it durable.
    pub(super) fn record(&self) -> Write {
        Write::Accepted { founder: self.founder, bootstrap: self.bootstrap.clone() }
    }

    fn names(&self, replica: Replica) -> bool {
        self.bootstrap.members.iter().any(|member| member.replica == replica)
    }

    fn founder_info(&self) -> Option<MemberInfo> {
        self.bootstrap.members.iter().find(|member| member.replica == self.founder).cloned()
    }

    /// Why the node takes part in no other founding.
    pub(super) fn reason(&self) -> Reason {
        let address = self.founder_info().map(|info| info.address).unwrap_or_default();
        Reason::FoundingUndecided { founder: self.founder.node, address }
    }
}

/// The genesis of this node, and what it knows of those of others.
#[derive(Debug, Default)]
pub(super) struct GenesisState {
    /// The genesis that this node is formed with.
    pub(super) id: Option<GenesisId>,
    /// The write that made it durable in this process; 0 when the disk had it at the start.
    pub(super) written: u64,
    /// At most one: a voter accepts no second founding before it knows how the first ended.
    pub(super) acceptance: Option<Acceptance>,
    /// First voters that have this node's genesis on their disks.
    acknowledged: BTreeSet<Replica>,
    /// By linked node: the genesis that it is formed with; `None` when it said that it is in no federation.
    linked: BTreeMap<NodeId, Option<GenesisId>>,
    /// When this node next asks how its founding ended, and the pause after that in milliseconds.
    ask_at: Instant,
    ask_ms: u64,
    /// When this process began, and whether it has looked for a federation since.
    began: Instant,
    has_looked: bool,
}

impl GenesisState {
    /// Reads a log. The genesis of group 0 ends an accepted founding.
    pub(super) fn restored(replay: &mut Replay) -> Self {
        let id = replay.groups.get(&GroupId::REGISTRY).map(|group| group.raft.genesis_id);
        let is_open = id.is_none() && !mutant!("node.founding.forgotten");
        let acceptance = replay.acceptance.take().filter(|_| is_open);
        Self { id, acceptance, ..Self::default() }
    }

    /// The link to a node is down: what it said of itself may change now.
    pub(super) fn unlinked(&mut self, node: NodeId) {
        self.linked.remove(&node);
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        let accepted = self.acceptance.as_ref().map(|known| (known.founder, &known.bootstrap));
        hash.value(&(self.id, accepted, self.ask_at, self.ask_ms));
        self.acknowledged.iter().for_each(|replica| hash.value(replica));
        self.linked.iter().for_each(|entry| hash.value(&entry));
    }
}

impl Node {
    /// A message of a founding.
    pub(super) fn on_founding(&mut self, from: Replica, message: Founding) {
        match message {
            Founding::Offer(bootstrap) => self.on_offer(from, bootstrap),
            Founding::Accepted(genesis) => self.on_accepted_by(from, genesis),
            Founding::Declined { genesis, reason } => self.on_declined(from, genesis, reason),
            Founding::Asked { genesis, founder } => self.on_asked(from, genesis, founder),
            Founding::Aborted(genesis) => self.on_aborted(from, genesis),
            Founding::Formed(bootstrap) => self.on_formed(from, &bootstrap),
            Founding::Acknowledged(genesis) => {
                if self.genesis.id == Some(genesis) && self.first_voters().contains(&from) {
                    self.genesis.acknowledged.insert(from);
                }
            }
        }
    }

    /// A founder offers a founding that names this node.
    fn on_offer(&mut self, from: Replica, bootstrap: Bootstrap) {
        if let Err(why) = check_founding(&bootstrap, from, self.me) {
            return self.rejected(from.node, why);
        }
        let genesis = bootstrap.genesis;
        if self.genesis.id == Some(genesis) {
            let acknowledged = Message::Founding(Founding::Acknowledged(genesis));
            return self.promise(Writer::Group(GroupId::REGISTRY), from, acknowledged);
        }
        let repeated = self
            .genesis
            .acceptance
            .as_ref()
            .is_some_and(|known| known.founder == from && known.bootstrap.genesis == genesis);
        if !repeated {
            if let Some(reason) = self.decline(from) {
                reach!("node.founding.declined");
                let declined = Founding::Declined { genesis, reason };
                return self.send(from, Message::Founding(declined));
            }
            self.accept_founding(Acceptance { founder: from, bootstrap });
        }
        let accepted = Message::Founding(Founding::Accepted(genesis));
        if mutant!("node.founding.acceptance_not_durable") {
            return self.send(from, accepted);
        }
        self.promise(Writer::Node, from, accepted);
    }

    /// Why this node cannot accept a founding now. Of two founders that name each other, the one with the smaller
    /// replica goes on, so that they do not both wait for nothing.
    fn decline(&mut self, founder: Replica) -> Option<Reason> {
        if self.phase.stopping {
            return Some(Reason::Stopping);
        }
        if self.is_formed() {
            let address = self.address.clone();
            return Some(Reason::FederationExists { node: self.me.node, address });
        }
        if let Some(acceptance) = &self.genesis.acceptance
            && !mutant!("node.founding.accepts_twice")
        {
            return Some(acceptance.reason());
        }
        if let Some(reason) = self.formed_neighbour() {
            return Some(reason);
        }
        if self.is_founding() && self.me < founder {
            let address = self.address.clone();
            return Some(Reason::FoundingUndecided { founder: self.me.node, address });
        }
        // Each acceptance takes a record, and its voters are dialled. A founder repeats an offer that was declined.
        (!self.admission.admits(founder.node, self.now.mono)).then_some(Reason::Busy)
    }

    fn accept_founding(&mut self, acceptance: Acceptance) {
        reach!("node.founding.accepted");
        self.abort_founding(acceptance.reason());
        self.persist_own(acceptance.record());
        let (founder, genesis) = (acceptance.founder, acceptance.bootstrap.genesis);
        self.notify(Notice::Founding { founder, genesis, accepted: true });
        self.genesis.acceptance = Some(acceptance);
        self.follow_founding();
    }

    /// Seeks the voters of the accepted founding, and asks them how it ended, from now on.
    pub(super) fn follow_founding(&mut self) {
        let Some(acceptance) = &self.genesis.acceptance else { return };
        for member in acceptance.bootstrap.members.clone() {
            if member.replica.node != self.me.node {
                self.located(member.replica.node, member.address);
            }
        }
        self.genesis.ask_ms = ASK_MS;
        self.genesis.ask_at = self.now.mono + Duration::from_millis(ASK_MS);
        self.arm_bootstrap();
    }

    /// Asks all voters of the accepted founding how it ended, when that is due.
    pub(super) fn ask_founding(&mut self) {
        let Some(acceptance) = &self.genesis.acceptance else { return };
        if self.now.mono < self.genesis.ask_at {
            return;
        }
        let (genesis, founder) = (acceptance.bootstrap.genesis, acceptance.founder);
        for voter in acceptance.bootstrap.voting() {
            reach!("node.founding.asked");
            self.send(voter, Message::Founding(Founding::Asked { genesis, founder }));
        }
        self.genesis.ask_at = self.now.mono + Duration::from_millis(self.genesis.ask_ms);
        self.genesis.ask_ms = (2 * self.genesis.ask_ms).min(ASK_MS_MAX);
        if mutant!("node.founding.released_unasked") && self.genesis.ask_ms == ASK_MS_MAX {
            self.release();
        }
    }

    /// A voter asks how a founding ended. Only its founder may say that it is aborted: it keeps no record of what it
    /// did not decide, so what it does not know will never be.
    fn on_asked(&mut self, from: Replica, genesis: GenesisId, founder: Replica) {
        let registry = Writer::Group(GroupId::REGISTRY);
        if self.genesis.id == Some(genesis) && !mutant!("node.founding.aborted_although_formed") {
            reach!("node.founding.told_on_request");
            let formed = Founding::Formed(self.bootstrap_list());
            self.promise(registry, from, Message::Founding(formed));
        } else if founder == self.me && self.offered() != Some(genesis) {
            reach!("node.founding.aborted");
            self.send(from, Message::Founding(Founding::Aborted(genesis)));
        } else if self.is_formed() {
            self.tell_genesis(from);
        }
    }

    fn on_aborted(&mut self, from: Replica, genesis: GenesisId) {
        let is_known =
            |known: &Acceptance| known.founder == from && known.bootstrap.genesis == genesis;
        if self.genesis.acceptance.as_ref().is_some_and(is_known) {
            self.release();
        }
    }

    /// The accepted founding will never be.
    fn release(&mut self) {
        let Some(acceptance) = self.genesis.acceptance.take() else { return };
        reach!("node.founding.released");
        let (founder, genesis) = (acceptance.founder, acceptance.bootstrap.genesis);
        self.persist_own(Write::Released { genesis });
        self.notify(Notice::Founding { founder, genesis, accepted: false });
        for member in acceptance.bootstrap.members {
            if member.replica.node != self.me.node && !self.is_sought(member.replica) {
                self.unlocated(member.replica.node);
            }
        }
        self.on_join_connected();
    }

    /// Nothing but an aborted founding named this node's address: nobody dials it any more, unless it is linked.
    fn unlocated(&mut self, node: NodeId) {
        let is_linked = self.peers.get(node).is_some_and(|peer| peer.up);
        if !is_linked && self.registry_view.unrouted(node) && !mutant!("node.founding.dials_on") {
            self.emit(Action::Route { peer: node, address: None });
        }
    }

    /// A first voter is formed, and this node may be one that accepted the same founding.
    fn on_formed(&mut self, from: Replica, bootstrap: &Bootstrap) {
        let genesis = bootstrap.genesis;
        let acceptance = self.genesis.acceptance.as_ref();
        let is_known =
            acceptance.is_some_and(|known| known.bootstrap.genesis == genesis && known.names(from));
        if is_known && let Some(known) = self.genesis.acceptance.take() {
            reach!("node.founding.formed");
            // The names and addresses may be newer than those of the offer; the voters are those that were accepted.
            self.adopt_bootstrap(known.bootstrap);
        }
        if self.genesis.id == Some(genesis) {
            let acknowledged = Message::Founding(Founding::Acknowledged(genesis));
            self.promise(Writer::Group(GroupId::REGISTRY), from, acknowledged);
        } else {
            self.rejected(from.node, "the end of a founding that this node did not accept");
        }
    }

    /// The voters that group 0 began with; empty on a node that is no voter.
    fn first_voters(&self) -> &[Replica] {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.genesis.voters);
        if voters.contains(&self.me) { voters } else { &[] }
    }

    /// First voters with a link that may lack the genesis.
    fn untold(&self) -> Vec<Replica> {
        let told = |voter: &Replica| *voter == self.me || self.genesis.acknowledged.contains(voter);
        let voters = self.first_voters().iter().copied();
        voters.filter(|voter| !told(voter) && self.peers.is_linked(*voter)).collect()
    }

    pub(super) fn is_any_untold(&self) -> bool {
        !self.untold().is_empty()
    }

    /// Tells first voters that the founding is decided, once it is durable here.
    pub(super) fn tell_formed(&mut self) {
        let untold = self.untold();
        if untold.is_empty() {
            return;
        }
        let list = self.bootstrap_list();
        for voter in untold {
            reach!("node.founding.told");
            let formed = Message::Founding(Founding::Formed(list.clone()));
            self.promise(Writer::Group(GroupId::REGISTRY), voter, formed);
        }
    }

    /// This node is formed now: it tells its peers, once that is durable.
    pub(super) fn announce_genesis(&mut self) {
        for peer in self.peers.linked().collect::<Vec<_>>() {
            self.tell_genesis(peer);
        }
    }

    fn tell_genesis(&mut self, peer: Replica) {
        let known = self.registry().and_then(|registry| registry.member(peer.node));
        let other = known.filter(|(replica, _)| **replica != peer);
        let replaced = other.map(|(replica, _)| replica.store);
        let message = Message::Genesis { genesis: self.genesis.id, replaced };
        let durable = self.genesis.written.max(self.gate.boot());
        self.send_after(peer, message, durable);
    }

    /// A peer's link is up.
    pub(super) fn on_founding_connected(&mut self, peer: Replica) {
        self.genesis.unlinked(peer.node);
        self.tell_genesis(peer);
        if let Some(acceptance) = &self.genesis.acceptance
            && acceptance.names(peer)
        {
            self.follow_founding();
        }
        if self.is_any_untold() {
            self.arm_bootstrap();
        }
    }

    /// Notes which genesis the sender of a message is formed with. Returns whether the message must be dropped, because
    /// it comes from another federation than this node's.
    pub(super) fn is_of_another_genesis(&mut self, from: Replica, message: &Message) -> bool {
        match message.genesis() {
            Some(genesis) => {
                self.saw_genesis(from, genesis, matches!(message, Message::Genesis { .. }));
            }
            None if matches!(message, Message::Genesis { .. }) => {
                // It says so now, whatever was said in its name before.
                self.genesis.linked.insert(from.node, None);
            }
            None => {}
        }
        let Some(mine) = self.genesis.id else { return false };
        let differs = match message {
            Message::Raft { genesis, .. } => {
                *genesis != mine && !mutant!("node.genesis.unchecked_in_raft")
            }
            Message::Replication { genesis, .. } => {
                *genesis != mine && !mutant!("node.genesis.unchecked_in_replication")
            }
            Message::Gossip { genesis, .. } => {
                *genesis != mine && !mutant!("node.genesis.unchecked_in_gossip")
            }
            // Only a node in no federation asks to join, and `join` judges it. An earlier word of another genesis must
            // not keep it out for as long as its link lasts.
            Message::Forward { request: Request::Join { .. }, .. }
                if !mutant!("node.genesis.rival_for_good") =>
            {
                false
            }
            Message::Forward { request: Request::Status, .. } => false,
            Message::Forward { .. } => self.is_rival(from.node),
            _ => false,
        };
        if differs {
            reach!("node.genesis.other");
            let genesis = self.genesis.linked.get(&from.node).copied().flatten();
            let genesis = genesis.unwrap_or_default();
            self.notify(Notice::OtherGenesis { from: from.node, genesis });
        }
        differs
    }

    fn is_rival(&self, node: NodeId) -> bool {
        let said = self.genesis.linked.get(&node).copied().flatten();
        said.is_some_and(|genesis| self.genesis.id != Some(genesis))
    }

    /// A linked node names the genesis that it is formed with. That is a promise only in a message of its own kind,
    /// which leaves after its disk has the genesis.
    fn saw_genesis(&mut self, from: Replica, genesis: GenesisId, is_promise: bool) {
        let said = self.genesis.linked.insert(from.node, Some(genesis)).flatten();
        let is_new = said != Some(genesis);
        if self.genesis.id == Some(genesis) {
            if is_promise && self.first_voters().contains(&from) {
                self.genesis.acknowledged.insert(from);
            }
            return;
        }
        if self.is_formed() {
            if is_new {
                reach!("node.genesis.rival");
                self.notify(Notice::RivalFederation { peer: from.node, genesis });
            }
            return;
        }
        // A first voter that is formed with another genesis accepted this one never, or was released from it. So this
        // one will never be.
        let outlived = |known: &Acceptance| known.bootstrap.genesis != genesis && known.names(from);
        if is_promise && self.genesis.acceptance.as_ref().is_some_and(outlived) {
            reach!("node.founding.outlived");
            self.release();
        }
        if let Some(reason) = self.formed_neighbour() {
            self.abort_founding(reason);
        }
    }

    /// Linked nodes that are formed, and not with this node.
    pub(super) fn formed_peers(&self) -> Vec<FormedPeer> {
        let said = self.genesis.linked.iter().filter_map(|(node, said)| Some((*node, (*said)?)));
        let others = said.filter(|(_, genesis)| self.genesis.id != Some(*genesis));
        let formed = |(node, genesis)| FormedPeer { node, address: self.address_of(node), genesis };
        others.take(FORMED_PEERS_LISTED).map(formed).collect()
    }

    /// Why no federation may begin here: a linked node is in one, or this node was with an earlier store.
    pub(super) fn formed_neighbour(&self) -> Option<Reason> {
        if mutant!("node.founding.beside_formed") {
            return None;
        }
        let linked = self.formed_peers().into_iter().next();
        let reason =
            |peer: FormedPeer| Reason::FederationExists { node: peer.node, address: peer.address };
        linked.map(reason).or_else(|| self.earlier_federation())
    }

    /// A process begins to look for its federation.
    pub(super) fn begin_to_look(&mut self) {
        self.genesis.began = self.now.mono;
    }

    /// Notes for good that this process has looked.
    pub(super) fn note_look(&mut self) {
        self.genesis.has_looked |= self.has_looked();
    }

    /// Whether this node has looked for a federation wherever it was told to, or for long enough: its addresses are
    /// dialled, and each linked node has said whether it is formed.
    pub(super) fn has_looked(&self) -> bool {
        let looked_ms = Duration::from_millis(LOOK_MS);
        if self.genesis.has_looked || self.now.mono.since(self.genesis.began) >= looked_ms {
            return true;
        }
        let said = |peer: Replica| self.genesis.linked.contains_key(&peer.node);
        self.discovery.machine.has_looked() && self.peers.linked().all(said)
    }

    /// The founder of the founding that this node waits for.
    pub(super) fn undecided(&self) -> Option<MemberInfo> {
        self.genesis.acceptance.as_ref().and_then(Acceptance::founder_info)
    }
}
