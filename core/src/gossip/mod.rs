//! Gossip: failure detection and dissemination (SWIM, Das and others 2002; Lifeguard, Dadgar and others 2018).
//!
//! Each member probes one other member a period. A failed probe makes a suspect, and a suspicion that nobody refutes
//! makes a dead member. Every message carries updates: the state, address and load of members. Now and then two members
//! compare their whole tables (push-pull).
//!
//! Membership is closed or open. A closed machine ([`Gossip::new`]) takes members from its driver alone
//! ([`Event::Add`], [`Event::Remove`]), and rejects messages from anybody else. An open machine ([`Gossip::open`])
//! joins through one contact ([`Event::Join`]) and learns all other members by gossip.
//!
//! This module does not authenticate senders (the transport does), dial addresses (discovery), decide which member
//! serves a request (the coordinator) or write to a disk: the driver keeps the boot counter that makes incarnations
//! unique.

mod broadcast;
mod member;
mod message;
mod probe;
mod receive;
mod suspicion;
mod sync;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::GossipConfig;
use crate::digest::Hasher;
use crate::id::{Address, Boot, NodeId, Replica};
use crate::machine::{Machine, Now, Outbox};
use crate::seed::Seed;
use crate::time::{Instant, earlier};
use crate::{mutant, reach};

use broadcast::Broadcast;
use member::Table;
use probe::Prober;
use suspicion::Rule;
use sync::Syncer;

pub use message::{
    Body, CONFIRMATIONS_MAX, HEARSAY_REFUTATIONS_MAX, Load, Message, REFUTATIONS_MAX, UPDATES_MAX,
    Update,
};
pub use probe::ProbeInfo;

/// The version of a member's state. Only the member itself raises it: with each start and with each refutation.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation {
    /// The start of the process. A later boot beats any number of refutations of an earlier one.
    pub boot: Boot,
    /// Refutations since that start, at most [`REFUTATIONS_MAX`].
    pub refutations: u64,
}

/// The state of a member. At equal incarnations a later variant beats an earlier one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum State {
    /// The member answers probes.
    #[default]
    Alive,
    /// A probe of the member failed, and the member has not refuted the suspicion yet.
    Suspect,
    /// The suspicion timed out.
    Dead,
    /// The member said goodbye before it stopped.
    Left,
}

/// One member, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node and its disk: the same node with a new disk is another member.
    pub replica: Replica,
    /// The operator's name for the node. Gossip does not carry it; empty for members that an open machine learned.
    pub name: String,
    /// The address at which other members reach it.
    pub address: Address,
    /// The latest known incarnation. The default stands for a member that was never heard of.
    pub incarnation: Incarnation,
    /// The state in that incarnation.
    pub state: State,
    /// Requests in progress on the member, as it last reported.
    pub load: u32,
}

/// The inputs of the machine.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The registry names this member: it may be probed, and its messages count. Repeats are harmless. A member that
    /// was heard of keeps the address that it gossiped.
    Add { replica: Replica, name: String, address: Address },
    /// The registry no longer names this member, or the driver of an open machine wants a dead one forgotten.
    Remove { node: NodeId },
    /// Join through this member: add it, and start a push-pull with it at once. For open machines.
    Join { contact: Replica, address: Address },
    /// A link to a member is up, and the handshake proved this boot.
    Connected { peer: NodeId, boot: Boot },
    /// A message arrived. `from` is the identity that the transport authenticated.
    Received { from: NodeId, message: Message },
    /// This node's own load, in requests in progress. The other members are told.
    Load { requests: u32 },
    /// The process is about to stop: say goodbye. The machine still answers, but probes no more.
    Leave,
}

/// Requests to the driver.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a member. The driver may drop, delay, repeat or reorder it: SWIM expects loss.
    Send { to: NodeId, message: Message },
    /// The state, address or load of a member changed. The driver must not drop it, and must keep the order per member.
    Changed { member: Member },
    /// A member sent a message that breaks the protocol; the message was ignored. The driver may drop this.
    Rejected { from: NodeId, why: &'static str },
}

/// Totals since the machine was created, for metrics and tests. None ever decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Probes begun.
    pub probes: u64,
    /// Probes that neither the target nor a helper answered.
    pub failed_probes: u64,
    /// Suspicions begun, whether by this node's probes or by gossip.
    pub suspicions: u64,
    /// Members that this node declared dead because a suspicion timed out.
    pub deaths: u64,
    /// Suspicions and deaths of this node that it refuted.
    pub refutations: u64,
    /// Updates and loads ignored because they were about non-members.
    pub unknown: u64,
    /// Updates ignored because they claimed more of a member than its own word allows.
    pub disbelieved: u64,
    /// Messages rejected.
    pub rejected: u64,
}

/// Loads of other members piggybacked on one message. They have a queue of their own, so that busy nodes never crowd
/// out a death.
const LOADS_PER_MESSAGE: usize = 8;

/// Members told at once when this node leaves: a leaving node sends no later message that could carry its goodbye.
const LEAVE_FANOUT: usize = 16;

/// The gossip machine of one node.
#[derive(Clone, Debug)]
pub struct Gossip {
    me: Member,
    load_version: u64,
    config: GossipConfig,
    /// Whether members are learned from gossip.
    is_open: bool,
    table: Table,
    updates: Broadcast,
    load_updates: Broadcast,
    prober: Prober,
    syncer: Syncer,
    counters: Counters,
}

impl Gossip {
    /// A machine with closed membership: members are those that [`Event::Add`] names. `me.incarnation.boot` must be
    /// this process's durable boot.
    #[must_use]
    pub fn new(me: Member, config: GossipConfig, seed: &Seed) -> Self {
        Self {
            me,
            load_version: 0,
            config,
            is_open: false,
            table: Table::default(),
            updates: Broadcast::default(),
            load_updates: Broadcast::default(),
            prober: Prober::new(seed),
            syncer: Syncer::new(seed),
            counters: Counters::default(),
        }
    }

    /// A machine with open membership: every authenticated sender is a member, and so is every live node that a member
    /// tells of, up to [`crate::limits::MEMBERS_MAX`]. It suits meshes whose transport already decides who may connect.
    ///
    /// Dead members stay in the table until the driver sends [`Event::Remove`].
    ///
    /// ```
    /// use continuum_core::config::GossipConfig;
    /// use continuum_core::gossip::{Action, Event, Gossip, Incarnation, Member, State};
    /// use continuum_core::id::{Address, Boot, NodeId, Replica, StoreId};
    /// use continuum_core::machine::{Machine, Now, Outbox};
    /// use continuum_core::seed::Seed;
    /// use continuum_core::time::{Instant, WallTime};
    ///
    /// let node = |n: u8| {
    ///     let me = Member {
    ///         replica: Replica { node: NodeId([n; 16]), store: StoreId([n; 16]) },
    ///         name: format!("node-{n}"),
    ///         address: Address(format!("host-{n}:7000")),
    ///         incarnation: Incarnation { boot: Boot { count: 1, nonce: 7 }, refutations: 0 },
    ///         state: State::Alive,
    ///         load: 0,
    ///     };
    ///     Gossip::open(me, GossipConfig::default(), &Seed::from_number(n.into()))
    /// };
    /// let mut nodes = [node(0), node(1)];
    /// let contact = nodes[0].own().clone();
    ///
    /// // Node 1 knows only node 0. A real driver sends each message over a link that authenticates both ends.
    /// let join = Event::Join { contact: contact.replica, address: contact.address };
    /// let mut inbox = vec![(1, join)];
    /// let now = Now { mono: Instant::from_millis(1), wall: WallTime(0) };
    /// while let Some((at, event)) = inbox.pop() {
    ///     let mut out = Outbox::new();
    ///     nodes[at].step(now, event, &mut out);
    ///     for action in out.drain() {
    ///         if let Action::Send { to, message } = action {
    ///             let from = nodes[at].own().replica.node;
    ///             inbox.push((usize::from(to.0[0]), Event::Received { from, message }));
    ///         }
    ///     }
    /// }
    /// assert!(nodes.iter().all(|node| node.members().count() == 2));
    /// ```
    #[must_use]
    pub fn open(me: Member, config: GossipConfig, seed: &Seed) -> Self {
        Self { is_open: true, ..Self::new(me, config, seed) }
    }

    /// All members: this node first, then the others in the order of their node ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        core::iter::once(&self.me).chain(self.table.iter().map(|record| &record.member))
    }

    /// One member, this node included. A member that was never heard of has the default incarnation.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        if node == self.me.replica.node {
            return Some(&self.me);
        }
        self.table.get(node).map(|record| &record.member)
    }

    /// The time from the first ping to a member's own ack, of the last probe that it answered itself.
    #[must_use]
    pub fn round_trip(&self, node: NodeId) -> Option<Duration> {
        self.table.get(node)?.round_trip
    }

    /// This node, as it tells others.
    #[must_use]
    pub const fn own(&self) -> &Member {
        &self.me
    }

    /// Totals since the machine was created.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Lifeguard's local health multiplier: 0 when this node is well, at most 8. Its probes are slower by this factor
    /// plus one.
    #[must_use]
    pub const fn local_health(&self) -> u32 {
        self.prober.local_health()
    }
}

impl Machine for Gossip {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, now: Now, event: Event, out: &mut Outbox<Action>) {
        let mono = now.mono;
        self.catch_up(mono, out);
        match event {
            Event::Tick => {}
            Event::Add { replica, name, address } => self.add(mono, replica, name, address),
            Event::Remove { node } => self.remove(mono, node),
            Event::Join { contact, address } => self.join(mono, contact, address, out),
            Event::Connected { peer, boot } => self.connected(mono, peer, boot, out),
            Event::Received { from, message } => self.receive(mono, from, &message, out),
            Event::Load { requests } => self.set_load(requests),
            Event::Leave => self.leave(out),
        }
        // A confirmation may have shortened a suspicion so far that it is over by now.
        self.end_suspicions(mono, out);
    }

    fn deadline(&self) -> Option<Instant> {
        let probe = self.prober.deadline(&self.config);
        let suspicion = self.table.next_timeout().map(|(ends, _)| ends);
        let first = earlier(earlier(probe, suspicion), self.syncer.deadline());
        earlier(first, self.table.next_forget())
    }

    fn digest(&self, hash: &mut Hasher) {
        hash.value(&self.me);
        hash.value(&self.counters);
        hash.number(self.load_version);
        self.prober.digest(hash);
        self.table.digest(hash);
        self.updates.digest(hash);
        self.load_updates.digest(hash);
        self.syncer.digest(hash);
    }
}

impl Gossip {
    /// Does everything that is due by `now`.
    fn catch_up(&mut self, now: Instant, out: &mut Outbox<Action>) {
        let Some(due) = self.deadline().filter(|due| *due <= now) else { return };
        if now.since(due) > self.period() {
            self.reset_after_pause(now);
        }
        self.advance_probes(now, out);
        self.end_suspicions(now, out);
        self.advance_sync(now, out);
        self.table.forget(now);
    }

    /// Restarts every probe and suspicion after a pause. This node was stopped for longer than a period (a suspended
    /// machine, a stalled process) and received nothing, so the silence was its own (Lifeguard's premise).
    fn reset_after_pause(&mut self, now: Instant) {
        reach!("gossip.pause.reset");
        self.prober.worsen_health();
        self.prober.abandon(now);
        while let Some((ends, node)) = self.table.next_timeout()
            && ends <= now
        {
            let _ = self.table.reschedule(node, |suspicion| suspicion.restart(now));
        }
    }

    /// Declares dead every member whose suspicion timed out by `now`.
    fn end_suspicions(&mut self, now: Instant, out: &mut Outbox<Action>) {
        while let Some((ends, node)) = self.table.next_timeout()
            && ends <= now
        {
            self.declare_dead(node, out);
        }
    }

    fn add(&mut self, now: Instant, replica: Replica, name: String, address: Address) {
        let node = replica.node;
        if node == self.me.replica.node {
            self.me.name = name;
            return;
        }
        if !self.table.add(replica, name, address) || self.is_leaving() {
            return;
        }
        self.add_to_ring(node);
        let period = self.period();
        self.prober.start(now, period);
        self.syncer.start(now, period);
    }

    fn join(&mut self, now: Instant, contact: Replica, address: Address, out: &mut Outbox<Action>) {
        if contact.node == self.me.replica.node || self.is_leaving() {
            return;
        }
        self.add(now, contact, String::new(), address);
        if self.table.get(contact.node).is_some() {
            self.begin_push_pull(now, contact.node, out);
        }
    }

    /// Puts a live member into the probe ring, once.
    fn add_to_ring(&mut self, node: NodeId) {
        if let Some(record) = self.table.get_mut(node)
            && !record.in_ring
        {
            record.in_ring = true;
            self.prober.insert(node);
        }
    }

    fn remove(&mut self, now: Instant, node: NodeId) {
        self.table.remove(node, now + Duration::from_millis(self.config.dead_kept_ms));
        self.updates.remove(node);
        self.load_updates.remove(node);
    }

    /// A link to a member is up. The link alone proves nothing to other members, so the member is pinged: its ack
    /// carries its own update. A member that was dead or gone also gets a push-pull, because it knows what it missed.
    fn connected(&mut self, now: Instant, peer: NodeId, boot: Boot, out: &mut Outbox<Action>) {
        let Some(record) = self.table.get_mut(peer) else { return };
        record.proves(boot);
        let known = record.member.incarnation.boot == boot;
        let is_live = record.member.state <= State::Suspect;
        if known && record.member.state == State::Alive {
            return;
        }
        reach!("gossip.connected.asked");
        self.ping_once(peer, out);
        if !is_live && !self.is_leaving() {
            self.begin_push_pull(now, peer, out);
        }
    }

    fn set_load(&mut self, requests: u32) {
        if self.me.load != requests {
            self.me.load = requests;
            self.load_version = self.load_version.saturating_add(1);
        }
    }

    /// Says goodbye, so that no member is suspected and declared dead for a planned stop.
    fn leave(&mut self, out: &mut Outbox<Action>) {
        if self.is_leaving() {
            return;
        }
        reach!("gossip.self.left");
        self.me.state = State::Left;
        self.prober.stop();
        self.syncer.stop();
        let table = &self.table;
        let is_live = |n: NodeId| table.get(n).is_some_and(|r| r.member.state <= State::Suspect);
        for node in self.prober.pick(LEAVE_FANOUT, is_live) {
            self.send(node, Body::Updates, out);
        }
    }

    /// Sends a message. It carries this node's own update, the suspicion of the receiver if there is one, and queued
    /// updates and loads.
    fn send(&mut self, to: NodeId, body: Body, out: &mut Outbox<Action>) {
        let members = self.live_members();
        // The buddy system (Lifeguard IV-C): every message to a suspect tells it of the suspicion.
        let silent = mutant!("gossip.buddy.silent");
        // So is a member of which others claim more than it said itself: only it can outdo a false claim.
        let is_told =
            |r: &&member::Record| (r.member.state != State::Alive || r.exceeds_word()) && !silent;
        let receiver = self.table.get(to).filter(is_told);
        let mut updates: Vec<Update> = receiver.map(member::Record::update).into_iter().collect();
        let room = self.config.updates_max.min(UPDATES_MAX).saturating_sub(updates.len());
        let limit = broadcast::limit(self.config.retransmit_multiplier, members);
        for node in self.updates.take(room, limit, to) {
            updates.extend(self.table.get(node).map(member::Record::update));
        }
        // The next report replaces a load within seconds, so it is sent less often than a death.
        let load_limit = broadcast::limit(1, members);
        let mut loads = alloc::vec![self.own_load()];
        for node in self.load_updates.take(LOADS_PER_MESSAGE, load_limit, to) {
            loads.extend(self.table.get(node).map(member::Record::load));
        }
        let sender = self.self_update();
        out.push(Action::Send {
            to,
            message: Message { body, sender: sender.into(), updates, loads },
        });
    }

    /// This node's own update, which every message carries.
    fn self_update(&self) -> Update {
        Update {
            replica: self.me.replica,
            incarnation: self.me.incarnation,
            state: self.me.state,
            address: self.me.address.clone(),
            confirmations: Vec::new(),
        }
    }

    fn own_load(&self) -> Load {
        Load {
            node: self.me.replica.node,
            boot: self.me.incarnation.boot,
            version: self.load_version,
            requests: self.me.load,
        }
    }

    fn period(&self) -> Duration {
        Duration::from_millis(self.config.period_ms.max(1))
    }

    fn is_leaving(&self) -> bool {
        self.me.state == State::Left
    }

    /// Members that are alive or suspected, this node included.
    fn live_members(&self) -> usize {
        self.table.live() + 1
    }

    /// The suspicion timeouts of a federation of this size.
    fn rule(&self) -> Rule {
        Rule::new(self.period(), self.config.suspicion_multiplier, self.live_members())
    }
}
