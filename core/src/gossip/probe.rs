//! Probing: one member a period is asked whether it lives (SWIM 3.1 and 4.3; Lifeguard IV-A, LHA-Probe).
//!
//! Targets come in a shuffled circle, so each is probed at least once in 2N - 1 periods. A silent target gets further
//! direct pings before helpers are asked, because the loss of one ping is far likelier than the death of the target. A
//! node with a bad local health (nacks missed, suspicions refuted) probes slower.
//!
//! This module does not decide what a failed probe means for the target: `receive` and `suspicion` do.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::message::Body;
use super::{Action, Gossip, State};
use crate::config::GossipConfig;
use crate::digest::Hasher;
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::seed::{Seed, Stream};
use crate::time::{Instant, earlier};
use crate::{mutant, reach};

/// The worst local health (Lifeguard's S). A period is then nine times the configured one.
const LOCAL_HEALTH_MAX: u32 = 8;

/// Members of the ring searched for helpers: enough to find them unless most members are dead.
const WALK_MAX: usize = 64;

/// Indirect pings in flight. Each member probes one target at a time, so more than the member count is abuse.
const RELAYS_MAX: usize = 1024;

/// Periods between two pings of a dead member, which notice a healed partition without an operator.
const DEAD_PERIODS: u32 = 5;

/// A probe in progress.
#[derive(Clone, Debug)]
struct Probe {
    target: NodeId,
    number: u64,
    started: Instant,
    /// Time from the start until helpers are asked.
    ping_timeout: Duration,
    ends: Instant,
    pings: u32,
    /// The helpers asked; `None` until then.
    helpers: Option<Vec<NodeId>>,
    nacked: BTreeSet<NodeId>,
    acked: bool,
}

/// The probe in progress, for drivers and tests.
#[derive(Clone, Copy, Debug)]
pub struct ProbeInfo<'a> {
    /// The member probed.
    pub target: NodeId,
    /// The number that its pings carry.
    pub number: u64,
    /// Whether an ack arrived that counts.
    pub acked: bool,
    /// The helpers asked so far.
    pub helpers: &'a [NodeId],
}

/// A ping for another member.
#[derive(Clone, Debug)]
struct Relay {
    asker: NodeId,
    asked_number: u64,
    target: NodeId,
    until: Instant,
}

/// The probe ring, the probe in progress and the pings for other members.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    /// The members in the order of this round. A member that died is dropped when its turn comes.
    ring: Vec<NodeId>,
    /// The index in the ring of the next target.
    position: usize,
    probe: Option<Probe>,
    /// When the next probe begins, while none is in progress.
    idle_until: Option<Instant>,
    relays: BTreeMap<u64, Relay>,
    relay_ends: BTreeSet<(Instant, u64)>,
    number: u64,
    /// Lifeguard's local health multiplier: 0 is well.
    local_health: u32,
    /// The dead member pinged last, and the periods since then.
    dead: NodeId,
    dead_periods: u32,
    random: Stream,
}

impl Prober {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            ring: Vec::new(),
            position: 0,
            probe: None,
            idle_until: None,
            relays: BTreeMap::new(),
            relay_ends: BTreeSet::new(),
            // A random start keeps the numbers of two boots apart: an ack to the earlier boot may arrive in this one.
            number: seed.derive("gossip.number", 0).draw() >> 16,
            local_health: 0,
            dead: NodeId::default(),
            dead_periods: 0,
            random: seed.derive("gossip.probe", 0),
        }
    }

    /// Inserts a member at a random position among those not yet probed in this round (SWIM 4.3).
    pub(super) fn insert(&mut self, node: NodeId) {
        self.ring.push(node);
        let last = self.ring.len() - 1;
        let at = self.random.between(self.position.min(last) as u64, last as u64);
        self.ring.swap(last, at as usize);
    }

    /// Starts probing, at a random moment of the first period, so that nodes that started together do not probe in
    /// step.
    pub(super) fn start(&mut self, now: Instant, period: Duration) {
        if self.probe.is_none() && self.idle_until.is_none() {
            let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
            self.idle_until = Some(now + Duration::from_nanos(self.random.below(nanos)));
        }
    }

    /// Stops probing. The node still answers.
    pub(super) fn stop(&mut self) {
        self.probe = None;
        self.idle_until = None;
    }

    pub(super) fn deadline(&self, config: &GossipConfig) -> Option<Instant> {
        let probe = self.probe.as_ref().map(|probe| probe.due(config)).or(self.idle_until);
        earlier(probe, self.relay_ends.first().map(|(until, _)| *until))
    }

    /// The local health multiplier, 0 (well) to 8.
    pub(super) const fn local_health(&self) -> u32 {
        self.local_health
    }

    pub(super) fn worsen_health(&mut self) {
        self.local_health = (self.local_health + 1).min(LOCAL_HEALTH_MAX);
    }

    fn improve_health(&mut self) {
        self.local_health = self.local_health.saturating_sub(1);
    }

    /// Gives up the probe in progress without a verdict.
    pub(super) fn abandon(&mut self, now: Instant) {
        if self.probe.take().is_some() {
            self.idle_until = Some(now);
        }
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&self.ring);
        hash.value(&(self.position as u64, self.idle_until, self.number, self.local_health));
        hash.value(&(self.dead, self.dead_periods, self.random.clone().draw()));
        let probe = self.probe.as_ref();
        hash.value(&probe.map(|p| (p.target, p.number, p.started, p.ends, p.pings)));
        hash.value(&probe.map(|p| (&p.helpers, &p.nacked, p.acked)));
        for (number, relay) in &self.relays {
            hash.value(&(number, relay.asker, relay.asked_number, relay.target, relay.until));
        }
    }

    /// A number that no ping of this boot carried, nor one of an earlier boot, but for a chance of 2^-48 each.
    pub(super) fn fresh_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Up to `count` members of the ring that fit, from a random position on.
    pub(super) fn pick(&mut self, count: usize, fits: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let start = self.random.below(self.ring.len() as u64) as usize;
        let walk = self.ring.iter().cycle().skip(start).take(self.ring.len().min(WALK_MAX));
        walk.filter(|node| fits(**node)).take(count).copied().collect()
    }
}

impl Probe {
    /// When the next step of the probe is due.
    fn due(&self, config: &GossipConfig) -> Instant {
        if self.acked || self.helpers.is_some() {
            self.ends
        } else if self.pings < config.pings {
            self.started + self.ping_timeout / config.pings * self.pings
        } else {
            self.started + self.ping_timeout
        }
    }
}

impl Gossip {
    /// The probe in progress, if there is one.
    #[must_use]
    pub fn probe(&self) -> Option<ProbeInfo<'_>> {
        let Probe { target, number, acked, helpers, .. } = self.prober.probe.as_ref()?;
        let helpers = helpers.as_deref().unwrap_or_default();
        Some(ProbeInfo { target: *target, number: *number, acked: *acked, helpers })
    }

    /// Does what is due by `now` for the probe and for pings sent for other members.
    pub(super) fn advance_probes(&mut self, now: Instant, out: &mut Outbox<Action>) {
        while let Some((until, number)) = self.prober.relay_ends.first().copied()
            && until <= now
        {
            self.give_up_relay(number, out);
        }
        if self.prober.idle_until.is_some_and(|at| at <= now) {
            self.begin_probe(now, out);
        }
        while self.prober.probe.as_ref().is_some_and(|probe| probe.due(&self.config) <= now) {
            self.advance_probe(now, out);
        }
    }

    fn advance_probe(&mut self, now: Instant, out: &mut Outbox<Action>) {
        let pings = self.config.pings;
        let Some(probe) = self.prober.probe.as_mut() else { return };
        if probe.acked || probe.helpers.is_some() {
            self.conclude_probe(now, out);
            self.begin_probe(now, out);
        } else if probe.pings < pings {
            probe.pings += 1;
            let (target, number) = (probe.target, probe.number);
            self.send(target, Body::Ping { number }, out);
        } else {
            self.ask_helpers(out);
        }
    }

    fn begin_probe(&mut self, now: Instant, out: &mut Outbox<Action>) {
        let slowdown = self.prober.local_health + 1;
        let period = self.period().saturating_mul(slowdown);
        self.ping_dead(slowdown, out);
        let Some(target) = self.next_target() else {
            self.prober.idle_until = (self.table.len() > 0).then_some(now + period);
            return;
        };
        reach!("gossip.probe.begun");
        self.counters.probes += 1;
        self.prober.idle_until = None;
        let number = self.prober.fresh_number();
        let ping_timeout = Duration::from_millis(self.config.ping_timeout_ms.max(1));
        self.prober.probe = Some(Probe {
            target,
            number,
            started: now,
            ping_timeout: ping_timeout.saturating_mul(slowdown),
            ends: now + period,
            pings: 0,
            helpers: None,
            nacked: BTreeSet::new(),
            acked: false,
        });
    }

    /// The next live member of the ring. The ring is shuffled after each round.
    fn next_target(&mut self) -> Option<NodeId> {
        let prober = &mut self.prober;
        while !prober.ring.is_empty() {
            if prober.position >= prober.ring.len() {
                prober.position = 0;
                prober.random.shuffle(&mut prober.ring);
            }
            let node = prober.ring[prober.position];
            let record = self.table.get_mut(node);
            if let Some(record) = record {
                if record.member.state <= State::Suspect {
                    prober.position += 1;
                    return Some(node);
                }
                record.in_ring = false;
            }
            // The last member of the ring takes its position: it was not probed yet in this round.
            prober.ring.swap_remove(prober.position);
        }
        None
    }

    /// Asks members that are alive to ping the target: a suspect would be a poor witness.
    fn ask_helpers(&mut self, out: &mut Outbox<Action>) {
        let Some(probe) = self.prober.probe.as_ref() else { return };
        let (target, number) = (probe.target, probe.number);
        let table = &self.table;
        let is_fit = |node: NodeId| {
            node != target && table.get(node).is_some_and(|r| r.member.state == State::Alive)
        };
        let helpers = self.prober.pick(self.config.helpers, is_fit);
        for helper in &helpers {
            reach!("gossip.probe.helper_asked");
            self.send(*helper, Body::PingRequest { number, target }, out);
        }
        if let Some(probe) = self.prober.probe.as_mut() {
            probe.helpers = Some(helpers);
        }
    }

    fn conclude_probe(&mut self, now: Instant, out: &mut Outbox<Action>) {
        let Some(probe) = self.prober.probe.take() else { return };
        if probe.acked {
            self.prober.improve_health();
            return;
        }
        reach!("gossip.probe.failed");
        self.counters.failed_probes += 1;
        // A nack from every helper means that this node receives well, so the target is the sick one.
        let helpers = probe.helpers.map_or(0, |helpers| helpers.len());
        if helpers == 0 || probe.nacked.len() < helpers {
            reach!("gossip.probe.nack_missing");
            self.prober.worsen_health();
        }
        self.suspect(now, probe.target, out);
    }

    /// Pings one dead member every few periods. The ping tells it that it is held dead, so that it can refute. The
    /// periods are configured ones: a node that probes slower has more reason to ask.
    fn ping_dead(&mut self, periods: u32, out: &mut Outbox<Action>) {
        self.prober.dead_periods += periods;
        if self.prober.dead_periods < DEAD_PERIODS {
            return;
        }
        self.prober.dead_periods = 0;
        if let Some(node) = self.table.next_dead(self.prober.dead) {
            reach!("gossip.probe.dead_pinged");
            self.prober.dead = node;
            self.ping_once(node, out);
        }
    }

    /// Sends a ping outside any probe. The ack carries the member's own update.
    pub(super) fn ping_once(&mut self, node: NodeId, out: &mut Outbox<Action>) {
        let number = self.prober.fresh_number();
        self.send(node, Body::Ping { number }, out);
    }

    /// Pings `target` for `asker`. The asker gets the ack, or a nack early enough to count.
    pub(super) fn relay_ping(
        &mut self,
        now: Instant,
        asker: NodeId,
        asked_number: u64,
        target: NodeId,
        out: &mut Outbox<Action>,
    ) {
        if target == self.me.replica.node {
            return self.send(asker, Body::Ack { number: asked_number }, out);
        }
        if self.table.get(target).is_none() || self.prober.relays.len() >= RELAYS_MAX {
            reach!("gossip.relay.refused");
            return;
        }
        // The asker decides at the end of its period. Waiting four fifths of what its pings left of it leaves time for
        // the nack's way back.
        let left = self.config.period_ms.saturating_sub(self.config.ping_timeout_ms);
        let wait_ms = self.config.ping_timeout_ms.min(left) * 4 / 5;
        let until = now + Duration::from_millis(wait_ms.max(1));
        let number = self.prober.fresh_number();
        self.prober.relays.insert(number, Relay { asker, asked_number, target, until });
        self.prober.relay_ends.insert((until, number));
        self.send(target, Body::Ping { number }, out);
    }

    fn give_up_relay(&mut self, number: u64, out: &mut Outbox<Action>) {
        if let Some(relay) = self.end_relay(number) {
            reach!("gossip.relay.nack");
            self.send(relay.asker, Body::Nack { number: relay.asked_number }, out);
        }
    }

    fn end_relay(&mut self, number: u64) -> Option<Relay> {
        let relay = self.prober.relays.remove(&number)?;
        self.prober.relay_ends.remove(&(relay.until, number));
        Some(relay)
    }

    /// Only an ack from the target or from a helper that was asked counts, so no other member can answer for the
    /// target.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        from: NodeId,
        number: u64,
        out: &mut Outbox<Action>,
    ) {
        if self.prober.relays.get(&number).is_some_and(|relay| relay.target == from) {
            if let Some(relay) = self.end_relay(number) {
                reach!("gossip.relay.ack");
                self.send(relay.asker, Body::Ack { number: relay.asked_number }, out);
            }
            return;
        }
        let Some(probe) = self.prober.probe.as_mut() else { return };
        let is_helper = probe.helpers.as_ref().is_some_and(|helpers| helpers.contains(&from));
        let asked = probe.target == from || is_helper || mutant!("gossip.ack.of_anybody");
        if probe.number == number && asked {
            if probe.target != from {
                reach!("gossip.probe.saved_by_helper");
            } else if !probe.acked {
                let took = now.since(probe.started);
                self.table.get_mut(from).into_iter().for_each(|r| r.round_trip = Some(took));
            }
            probe.acked = true;
        }
    }

    pub(super) fn on_nack(&mut self, from: NodeId, number: u64) {
        let Some(probe) = self.prober.probe.as_mut() else { return };
        let asked = probe.helpers.as_ref().is_some_and(|helpers| helpers.contains(&from));
        if probe.number == number && asked {
            probe.nacked.insert(from);
        }
    }
}
