//! Gossip: who is there (SWIM, Das and others 2002; Lifeguard, Dadgar and others 2018).
//!
//! Members come from the registry; what is gossiped is whether and where they live, and their load. The machine is the
//! table of [`Member`]s, a prober that asks one of them a period, suspicions that end in death unless refuted, and a
//! queue of news that rides on every message.
//!
//! Deliberately not here: who may be a member (the registry), links and addresses to dial (discovery), what a verdict
//! means for requests (the coordinator), persistence (a boot counter that the node holds makes incarnations unique).

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

pub use message::{Body, CONFIRMATIONS_MAX, Load, Message, REFUTATIONS_MAX, UPDATES_MAX, Update};
pub use probe::ProbeInfo;

/// How often a member refuted its death: a later boot beats any count of an earlier one. Volatile.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation {
    /// The process life.
    pub boot: Boot,
    /// Refutations in it.
    pub refutations: u64,
}

/// What members hold of a member.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum State {
    /// Answers.
    #[default]
    Alive,
    /// Was silent, and has not refuted it yet.
    Suspect,
    /// Was suspected for too long.
    Dead,
    /// Said goodbye.
    Left,
}

/// A member as gossiped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who and on which disk.
    pub replica: Replica,
    /// The operator's name for it.
    pub name: String,
    /// Where.
    pub address: Address,
    /// Its latest known incarnation.
    pub incarnation: Incarnation,
    /// What is held of it.
    pub state: State,
    /// Requests under way on it, as it last said.
    pub load: u32,
}

/// What the machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The registry names this member: it may be probed and heard. Repeats are harmless.
    Add {
        /// Who, on which disk.
        replica: Replica,
        /// The operator's name for it.
        name: String,
        /// Where, as the registry has it; gossip may know better.
        address: Address,
    },
    /// The registry no longer names this member.
    Remove {
        /// Who.
        node: NodeId,
    },
    /// A link to a member is up: proof of life.
    Connected {
        /// Who.
        peer: NodeId,
        /// In which life.
        boot: Boot,
    },
    /// A message from an authenticated member.
    Received {
        /// Who sent it.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// This node's own load, to be told to the others.
    Load {
        /// Requests under way.
        requests: u32,
    },
    /// The process is stopping: say goodbye.
    Leave,
}

/// What the machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a member.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// What is held of a member changed: its state, address or load.
    Changed {
        /// The member as now held.
        member: Member,
    },
    /// A member sent something that it must not send; it was dropped.
    Rejected {
        /// Who.
        from: NodeId,
        /// What was wrong.
        why: &'static str,
    },
}

/// What happened so far, for metrics and tests. Each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Probes begun.
    pub probes: u64,
    /// Probes that neither the target nor a helper answered.
    pub failed_probes: u64,
    /// Suspicions begun, of any origin.
    pub suspicions: u64,
    /// Suspicions that ended here in a verdict of death.
    pub deaths: u64,
    /// Times that this node refuted what was said of it.
    pub refutations: u64,
    /// Claims and loads of nodes that are no members, ignored.
    pub unknown: u64,
    /// Messages refused.
    pub rejected: u64,
}

/// Loads piggybacked on one message: they have a lane of their own, so that busy nodes never crowd out a death.
const LOADS_PER_MESSAGE: usize = 8;

/// Members that are told at once of a goodbye: the piggyback of a node that is going away carries nothing further.
const LEAVE_FANOUT: usize = 16;

/// The machine of one node.
#[derive(Clone, Debug)]
pub struct Gossip {
    me: Member,
    load_version: u64,
    config: GossipConfig,
    table: Table,
    updates: Broadcast,
    load_updates: Broadcast,
    prober: Prober,
    syncer: Syncer,
    counters: Counters,
}

impl Gossip {
    /// A node that knows only itself. `me.incarnation.boot` must be this process's durable boot.
    #[must_use]
    pub fn new(me: Member, config: GossipConfig, seed: &Seed) -> Self {
        Self {
            me,
            load_version: 0,
            config,
            table: Table::default(),
            updates: Broadcast::default(),
            load_updates: Broadcast::default(),
            prober: Prober::new(seed),
            syncer: Syncer::new(seed),
            counters: Counters::default(),
        }
    }

    /// All members, this node first, then by node.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        core::iter::once(&self.me).chain(self.table.iter().map(|record| &record.member))
    }

    /// One member. One that was never heard of has the default incarnation.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        if node == self.me.replica.node {
            return Some(&self.me);
        }
        self.table.get(node).map(|record| &record.member)
    }

    /// This node, as it tells others.
    #[must_use]
    pub const fn own(&self) -> &Member {
        &self.me
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Lifeguard's local health: 0 when this node trusts itself, up to 8. Its probes are that many times slower, plus
    /// one.
    #[must_use]
    pub const fn local_health(&self) -> u32 {
        self.prober.local_health()
    }

    fn period(&self) -> Duration {
        Duration::from_millis(self.config.period_ms.max(1))
    }

    fn is_leaving(&self) -> bool {
        self.me.state == State::Left
    }

    /// Members that live, this node included.
    fn living(&self) -> usize {
        self.table.living() + 1
    }

    /// How long suspicions last in a federation of this size.
    fn rule(&self) -> Rule {
        Rule::new(self.period(), self.config.suspicion_multiplier, self.living())
    }

    /// This node, as it tells others.
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

    /// Sends a message with this node's card, what the receiver must know of itself, and news.
    fn send(&mut self, to: NodeId, body: Body, out: &mut Outbox<Action>) {
        let members = self.living();
        // The buddy system (Lifeguard IV-C): whoever is suspected hears of it from everybody who talks to it.
        let silent = mutant!("gossip.buddy.silent");
        let accused = |r: &&member::Record| r.member.state != State::Alive && !silent;
        let accusation = self.table.get(to).filter(accused);
        let mut updates: Vec<Update> = accusation.map(member::Record::update).into_iter().collect();
        let room = self.config.updates_max.min(UPDATES_MAX).saturating_sub(updates.len());
        let limit = broadcast::limit(self.config.retransmit_multiplier, members);
        for node in self.updates.take(room, limit, to) {
            updates.extend(self.table.get(node).map(member::Record::update));
        }
        // A load is stale after a second: telling it as often as a death would be waste.
        let load_limit = broadcast::limit(1, members);
        let mut loads = alloc::vec![self.own_load()];
        for node in self.load_updates.take(LOADS_PER_MESSAGE, load_limit, to) {
            loads.extend(self.table.get(node).map(member::Record::load));
        }
        out.push(Action::Send {
            to,
            message: Message { body, sender: self.self_update(), updates, loads },
        });
    }

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

    /// Declares dead whose suspicion is over.
    fn end_suspicions(&mut self, now: Instant, out: &mut Outbox<Action>) {
        while let Some((ends, node)) = self.table.ending()
            && ends <= now
        {
            self.declare_dead(node, out);
        }
    }

    /// This node was stopped for longer than a period (a suspended machine, a stalled process) and could hear nothing:
    /// its silence is its own fault (Lifeguard's premise), so nobody is judged by it.
    fn reset_after_pause(&mut self, now: Instant) {
        reach!("gossip.pause.reset");
        self.prober.worsen_health();
        self.prober.abandon(now);
        while let Some((ends, node)) = self.table.ending()
            && ends <= now
        {
            let _ = self.table.reschedule(node, |suspicion| suspicion.restart(now));
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

    /// Puts a living member into the probe ring, once.
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

    /// A link is up. That alone proves nothing to others, so the peer is asked for its card; who was given up is also
    /// compared with, since it knows what was missed.
    fn connected(&mut self, now: Instant, peer: NodeId, boot: Boot, out: &mut Outbox<Action>) {
        let Some(record) = self.table.get(peer) else { return };
        let known = record.member.incarnation.boot == boot;
        let living = record.member.state <= State::Suspect;
        if known && record.member.state == State::Alive {
            return;
        }
        reach!("gossip.connected.asked");
        self.ping_once(peer, out);
        if !living && !self.is_leaving() {
            self.begin_sync(now, peer, out);
        }
    }

    fn set_load(&mut self, requests: u32) {
        if self.me.load != requests {
            self.me.load = requests;
            self.load_version = self.load_version.saturating_add(1);
        }
    }

    /// Says goodbye, which no suspicion can: who left is not mourned.
    fn leave(&mut self, out: &mut Outbox<Action>) {
        if self.is_leaving() {
            return;
        }
        reach!("gossip.self.left");
        self.me.state = State::Left;
        self.prober.stop();
        self.syncer.stop();
        let table = &self.table;
        let lives = |n: NodeId| table.get(n).is_some_and(|r| r.member.state <= State::Suspect);
        for node in self.prober.pick(LEAVE_FANOUT, lives) {
            self.send(node, Body::Updates, out);
        }
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
            Event::Connected { peer, boot } => self.connected(mono, peer, boot, out),
            Event::Received { from, message } => self.receive(mono, from, &message, out),
            Event::Load { requests } => self.set_load(requests),
            Event::Leave => self.leave(out),
        }
        // A confirmation may have cut a suspicion to less than what has passed of it.
        self.end_suspicions(mono, out);
    }

    fn deadline(&self) -> Option<Instant> {
        let probe = self.prober.deadline(&self.config);
        let suspicion = self.table.ending().map(|(ends, _)| ends);
        let first = earlier(earlier(probe, suspicion), self.syncer.deadline());
        earlier(first, self.table.forgetting())
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
