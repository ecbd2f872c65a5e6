//! Hearing: what a message says of members, what of it to believe, and what follows.
//!
//! Every action leaves from the branch that changed state, so a claim that was refuted, outdated or heard before has no
//! effect at all. Which claim beats which is in `member`; when a suspicion ends is in `suspicion`.

use alloc::vec::Vec;

use super::member::{self, beats};
use super::message::{Body, Claim, Load, Message, REFUTATIONS_MAX};
use super::suspicion::Suspicion;
use super::{Action, Gossip, State};
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::{mutant, reach};

/// Whether a claim changed anything. Only where it did may anything be sent or told.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Changed,
    Nothing,
}

impl Gossip {
    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        message: &Message,
        out: &mut Outbox<Action>,
    ) {
        let sender = self.table.get(from).map(|record| record.member.replica);
        let verdict = match sender {
            None => Err("gossip from a node that is no member"),
            Some(replica) if replica != message.me.replica => {
                message.check(from).and(Err("gossip from another store than the member's"))
            }
            Some(_) => message.check(from),
        };
        if let Err(why) = verdict {
            reach!("gossip.message.rejected");
            self.counters.rejected += 1;
            return out.push(Action::Rejected { from, why });
        }
        self.hear(now, message, out);
        match message.body {
            Body::Ping { number } => self.send(from, Body::Ack { number }, out),
            Body::PingRequest { number, target } => {
                self.relay_ping(now, from, number, target, out);
            }
            Body::Ack { number } => self.on_ack(from, number, out),
            Body::Nack { number } => self.on_nack(from, number),
            Body::News => {}
            Body::Push { after, upto } => self.on_push(from, (after, upto), &message.claims, out),
            Body::Pull { after, upto } => self.on_pull(from, (after, upto), out),
        }
    }

    /// Takes in all news of a message: the sender's own card first, then what it tells of others.
    fn hear(&mut self, now: Instant, message: &Message, out: &mut Outbox<Action>) {
        let from = message.me.replica.node;
        self.hear_card(now, &message.me, out);
        let compared = matches!(message.body, Body::Push { .. } | Body::Pull { .. });
        for claim in &message.claims {
            if compared && claim.state == State::Dead {
                self.hear_softened(now, from, claim, out);
            } else {
                self.hear_claim(now, from, claim, out);
            }
        }
        for load in &message.loads {
            self.hear_load(load, out);
        }
    }

    /// A member's own word. Its address is its own to say, even within an incarnation that was known before.
    fn hear_card(&mut self, now: Instant, card: &Claim, out: &mut Outbox<Action>) {
        let node = card.replica.node;
        let applied = self.apply(now, node, card, out);
        let Some(record) = self.table.get_mut(node) else { return };
        let same_life = record.member.incarnation.boot == card.incarnation.boot;
        if applied == Applied::Nothing && same_life && record.member.address != card.address {
            record.member.address.clone_from(&card.address);
            out.push(Action::Changed { member: record.member.clone() });
        }
    }

    fn hear_claim(&mut self, now: Instant, from: NodeId, claim: &Claim, out: &mut Outbox<Action>) {
        let node = claim.replica.node;
        if node == self.me.replica.node {
            return self.hear_of_self(from, claim, out);
        }
        if self.table.get(node).is_none_or(|r| r.member.replica != claim.replica) {
            reach!("gossip.claim.unknown");
            self.counters.unknown += 1;
            return;
        }
        let _ = self.apply(now, from, claim, out);
    }

    /// A death told in a full sync may be one side's view of a partition that healed: the member gets its chance to
    /// refute before it is dead here too. It stands as its own accuser, which confirms nothing: nobody probed it now,
    /// so it gets the longest time, however many tell the same old story.
    fn hear_softened(
        &mut self,
        now: Instant,
        from: NodeId,
        claim: &Claim,
        out: &mut Outbox<Action>,
    ) {
        let lives = |r: &member::Record| r.member.state <= State::Suspect && r.is_heard();
        let softer = if self.table.get(claim.replica.node).is_some_and(lives) {
            reach!("gossip.sync.death_softened");
            let accusers = alloc::vec![claim.replica.node];
            Claim { state: State::Suspect, accusers, ..claim.clone() }
        } else {
            claim.clone()
        };
        self.hear_claim(now, from, &softer, out);
    }

    /// Applies a claim of a known member if it beats what is held, or counts its accusers if it equals it.
    fn apply(
        &mut self,
        now: Instant,
        from: NodeId,
        claim: &Claim,
        out: &mut Outbox<Action>,
    ) -> Applied {
        let node = claim.replica.node;
        let Some(record) = self.table.get_mut(node) else { return Applied::Nothing };
        let (held, fresh) = (record.held(), !record.is_heard());
        // An equal suspicion changes no state, but who else accuses may cut its time.
        let new = (claim.incarnation, claim.state);
        if new == held && claim.state == State::Suspect {
            self.confirm(node, &claim.accusers);
            return Applied::Nothing;
        }
        if !beats(new, held) {
            return Applied::Nothing;
        }
        let reborn = held.0.boot != claim.incarnation.boot;
        let moved = record.adopt(claim);
        if reborn && !fresh {
            reach!("gossip.member.restarted");
        }
        // Who passes a claim on accuses nobody by that, unless nobody else is named.
        let accuser = claim.accusers.first().copied().unwrap_or(from);
        self.turn(now, node, claim.state, accuser, out, reborn || moved);
        self.confirm(node, &claim.accusers);
        if held.1 == State::Dead && claim.state == State::Alive && !reborn && !self.is_leaving() {
            reach!("gossip.member.back_from_death");
            self.begin_sync(now, node, out);
        }
        Applied::Changed
    }

    /// Gives a member its new state, tells the driver if that shows, and has it spread.
    fn turn(
        &mut self,
        now: Instant,
        node: NodeId,
        to: State,
        accuser: NodeId,
        out: &mut Outbox<Action>,
        shows: bool,
    ) {
        let suspicion = (to == State::Suspect).then(|| {
            self.counters.suspicions += 1;
            Suspicion::new(self.rule(), now, accuser)
        });
        let from = self.table.get(node).map(|record| record.member.state);
        self.table.transition(node, to, suspicion);
        self.news.add(node);
        if to <= State::Suspect && !self.is_leaving() {
            self.enlist(node);
        }
        let Some(record) = self.table.get(node).filter(|_| shows || from != Some(to)) else {
            return;
        };
        out.push(Action::Changed { member: record.member.clone() });
    }

    /// Counts accusers of a suspect that is held suspect at the same incarnation. New ones are told on, so that the
    /// others confirm too.
    fn confirm(&mut self, node: NodeId, accusers: &[NodeId]) {
        let table = &self.table;
        let me = self.me.replica.node;
        // Only members can accuse, so that a made-up list confirms nothing.
        let counts = |n: &NodeId| *n != node && (*n == me || table.get(*n).is_some());
        let known: Vec<NodeId> = accusers.iter().filter(|n| counts(n)).copied().collect();
        let confirmed = self.table.reschedule(node, |suspicion| {
            known.iter().filter(|accuser| suspicion.confirm(**accuser)).count()
        });
        if confirmed.is_some_and(|count| count > 0) {
            reach!("gossip.suspicion.confirmed");
            self.news.add(node);
        }
    }

    /// This node's own probe of a member failed.
    pub(super) fn accuse(&mut self, now: Instant, node: NodeId, out: &mut Outbox<Action>) {
        let me = self.me.replica.node;
        match self.table.get(node).map(|record| record.member.state) {
            Some(State::Alive) if mutant!("gossip.suspect.at_once") => {
                self.turn(now, node, State::Dead, me, out, false);
            }
            Some(State::Alive) => {
                reach!("gossip.suspicion.begun");
                self.turn(now, node, State::Suspect, me, out, false);
                // Its next turn may come when the suspicion is over: distrust slows the circle, not the suspicion.
                self.send(node, Body::News, out);
            }
            Some(State::Suspect) => self.confirm(node, &[me]),
            Some(State::Dead | State::Left) | None => {}
        }
    }

    /// A suspicion ran out.
    pub(super) fn bury(&mut self, node: NodeId, out: &mut Outbox<Action>) {
        reach!("gossip.suspicion.ran_out");
        self.counters.deaths += 1;
        let me = self.me.replica.node;
        self.turn(Instant::ZERO, node, State::Dead, me, out, false);
    }

    /// Somebody says something of this node. What is wrong is refuted by a higher incarnation, which only this node may
    /// make (SWIM 4.2).
    fn hear_of_self(&mut self, from: NodeId, claim: &Claim, out: &mut Outbox<Action>) {
        let (mine, theirs) = (self.me.incarnation, claim.incarnation);
        if claim.replica != self.me.replica || theirs.boot != mine.boot {
            // An earlier life, or a clone's: the transport's handshake tells which boot may live.
            reach!("gossip.self.other_life");
            return;
        }
        if (theirs, claim.state) <= (mine, self.me.state) {
            return;
        }
        if mutant!("gossip.refute.dropped") {
            return;
        }
        reach!("gossip.self.refuted");
        self.counters.refutations += 1;
        let raised = mine.refutations.max(theirs.refutations).saturating_add(1);
        self.me.incarnation.refutations = raised.min(REFUTATIONS_MAX);
        self.prober.worsen();
        // The card on every message tells it to all in time. Whoever accuses counts the seconds: it hears first.
        for accuser in claim.accusers.iter().filter(|accuser| **accuser != from).chain(Some(&from))
        {
            if self.table.get(*accuser).is_some() {
                self.send(*accuser, Body::News, out);
            }
        }
    }

    /// A load counts if it is of the life that is known and newer than what is held.
    pub(super) fn hear_load(&mut self, load: &Load, out: &mut Outbox<Action>) {
        if load.node == self.me.replica.node {
            return;
        }
        let Some(record) = self.table.get_mut(load.node) else {
            self.counters.unknown += 1;
            return;
        };
        if load.boot != record.member.incarnation.boot || load.version <= record.load_version {
            reach!("gossip.load.old");
            return;
        }
        record.load_version = load.version;
        if record.member.load == load.requests {
            return;
        }
        record.member.load = load.requests;
        out.push(Action::Changed { member: record.member.clone() });
        self.load_news.add(load.node);
    }
}
