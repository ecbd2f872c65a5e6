//! Hearing: what a message says of members, what of it to believe, and what follows.
//!
//! Every action leaves from the branch that changed state, so a update that was refuted, outdated or heard before has no
//! effect at all. Which update beats which is in `member`; when a suspicion ends is in `suspicion`.

use alloc::vec::Vec;

use super::member::{self, beats};
use super::message::{Body, Load, Message, REFUTATIONS_MAX, Update};
use super::suspicion::Suspicion;
use super::{Action, Gossip, State};
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::{mutant, reach};

/// Whether a update changed anything. Only where it did may anything be sent or told.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merged {
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
            Some(replica) if replica != message.sender.replica => {
                message.check(from).and(Err("gossip from another store than the member's"))
            }
            Some(_) => message.check(from),
        };
        if let Err(why) = verdict {
            reach!("gossip.message.rejected");
            self.counters.rejected += 1;
            return out.push(Action::Rejected { from, why });
        }
        self.apply_message(now, message, out);
        match message.body {
            Body::Ping { number } => self.send(from, Body::Ack { number }, out),
            Body::PingRequest { number, target } => {
                self.relay_ping(now, from, number, target, out);
            }
            Body::Ack { number } => self.on_ack(from, number, out),
            Body::Nack { number } => self.on_nack(from, number),
            Body::Updates => {}
            Body::Push { after, upto } => self.on_push(from, (after, upto), &message.updates, out),
            Body::Pull { after, upto } => self.on_pull(from, (after, upto), out),
        }
    }

    /// Takes in all news of a message: the sender's own card first, then what it tells of others.
    fn apply_message(&mut self, now: Instant, message: &Message, out: &mut Outbox<Action>) {
        let from = message.sender.replica.node;
        self.apply_self_update(now, &message.sender, out);
        let compared = matches!(message.body, Body::Push { .. } | Body::Pull { .. });
        for update in &message.updates {
            if compared && update.state == State::Dead {
                self.apply_as_suspicion(now, from, update, out);
            } else {
                self.apply_update(now, from, update, out);
            }
        }
        for load in &message.loads {
            self.apply_load(load, out);
        }
    }

    /// A member's own word. Its address is its own to say, even within an incarnation that was known before.
    fn apply_self_update(&mut self, now: Instant, card: &Update, out: &mut Outbox<Action>) {
        let node = card.replica.node;
        let merged = self.merge(now, node, card, out);
        let Some(record) = self.table.get_mut(node) else { return };
        let same_life = record.member.incarnation.boot == card.incarnation.boot;
        if merged == Merged::Nothing && same_life && record.member.address != card.address {
            record.member.address.clone_from(&card.address);
            out.push(Action::Changed { member: record.member.clone() });
        }
    }

    fn apply_update(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        out: &mut Outbox<Action>,
    ) {
        let node = update.replica.node;
        if node == self.me.replica.node {
            return self.refute(from, update, out);
        }
        if self.table.get(node).is_none_or(|r| r.member.replica != update.replica) {
            reach!("gossip.update.unknown");
            self.counters.unknown += 1;
            return;
        }
        let _ = self.merge(now, from, update, out);
    }

    /// A death told in a full sync may be one side's view of a partition that healed: the member gets its chance to
    /// refute before it is dead here too. It stands as its own accuser, which confirms nothing: nobody probed it now,
    /// so it gets the longest time, however many tell the same old story.
    fn apply_as_suspicion(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        out: &mut Outbox<Action>,
    ) {
        let lives = |r: &member::Record| r.member.state <= State::Suspect && r.is_heard();
        let softer = if self.table.get(update.replica.node).is_some_and(lives) {
            reach!("gossip.sync.death_softened");
            let confirmations = alloc::vec![update.replica.node];
            Update { state: State::Suspect, confirmations, ..update.clone() }
        } else {
            update.clone()
        };
        self.apply_update(now, from, &softer, out);
    }

    /// Applies a update of a known member if it beats what is held, or counts its confirmations if it equals it.
    fn merge(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        out: &mut Outbox<Action>,
    ) -> Merged {
        let node = update.replica.node;
        let Some(record) = self.table.get_mut(node) else { return Merged::Nothing };
        let (held, fresh) = (record.held(), !record.is_heard());
        // An equal suspicion changes no state, but who else accuses may cut its time.
        let new = (update.incarnation, update.state);
        if new == held && update.state == State::Suspect {
            self.confirm(node, &update.confirmations);
            return Merged::Nothing;
        }
        if !beats(new, held) {
            return Merged::Nothing;
        }
        let reborn = held.0.boot != update.incarnation.boot;
        let moved = record.adopt(update);
        if reborn && !fresh {
            reach!("gossip.member.restarted");
        }
        // Who passes a update on accuses nobody by that, unless nobody else is named.
        let accuser = update.confirmations.first().copied().unwrap_or(from);
        self.change_state(now, node, update.state, accuser, out, reborn || moved);
        self.confirm(node, &update.confirmations);
        if held.1 == State::Dead && update.state == State::Alive && !reborn && !self.is_leaving() {
            reach!("gossip.member.back_from_death");
            self.begin_sync(now, node, out);
        }
        Merged::Changed
    }

    /// Gives a member its new state, tells the driver if that shows, and has it queue.
    fn change_state(
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
        self.updates.add(node);
        if to <= State::Suspect && !self.is_leaving() {
            self.add_to_ring(node);
        }
        let Some(record) = self.table.get(node).filter(|_| shows || from != Some(to)) else {
            return;
        };
        out.push(Action::Changed { member: record.member.clone() });
    }

    /// Counts confirmations of a suspect that is held suspect at the same incarnation. New ones are told on, so that the
    /// others confirm too.
    fn confirm(&mut self, node: NodeId, confirmations: &[NodeId]) {
        let table = &self.table;
        let me = self.me.replica.node;
        // Only members can accuse, so that a made-up list confirms nothing.
        let counts = |n: &NodeId| *n != node && (*n == me || table.get(*n).is_some());
        let known: Vec<NodeId> = confirmations.iter().filter(|n| counts(n)).copied().collect();
        let confirmed = self.table.reschedule(node, |suspicion| {
            known.iter().filter(|accuser| suspicion.confirm(**accuser)).count()
        });
        if confirmed.is_some_and(|count| count > 0) {
            reach!("gossip.suspicion.confirmed");
            self.updates.add(node);
        }
    }

    /// This node's own probe of a member failed.
    pub(super) fn suspect(&mut self, now: Instant, node: NodeId, out: &mut Outbox<Action>) {
        let me = self.me.replica.node;
        match self.table.get(node).map(|record| record.member.state) {
            Some(State::Alive) if mutant!("gossip.suspect.at_once") => {
                self.change_state(now, node, State::Dead, me, out, false);
            }
            Some(State::Alive) => {
                reach!("gossip.suspicion.begun");
                self.change_state(now, node, State::Suspect, me, out, false);
                // Its next turn may come when the suspicion is over: local_health slows the circle, not the suspicion.
                self.send(node, Body::Updates, out);
            }
            Some(State::Suspect) => self.confirm(node, &[me]),
            Some(State::Dead | State::Left) | None => {}
        }
    }

    /// A suspicion ran out.
    pub(super) fn declare_dead(&mut self, node: NodeId, out: &mut Outbox<Action>) {
        reach!("gossip.suspicion.ran_out");
        self.counters.deaths += 1;
        let me = self.me.replica.node;
        self.change_state(Instant::ZERO, node, State::Dead, me, out, false);
    }

    /// Somebody says something of this node. What is wrong is refuted by a higher incarnation, which only this node may
    /// make (SWIM 4.2).
    fn refute(&mut self, from: NodeId, update: &Update, out: &mut Outbox<Action>) {
        let (mine, theirs) = (self.me.incarnation, update.incarnation);
        if update.replica != self.me.replica || theirs.boot != mine.boot {
            // An earlier life, or a clone's: the transport's handshake tells which boot may live.
            reach!("gossip.self.other_life");
            return;
        }
        if (theirs, update.state) <= (mine, self.me.state) {
            return;
        }
        if mutant!("gossip.refute.dropped") {
            return;
        }
        reach!("gossip.self.refuted");
        self.counters.refutations += 1;
        let raised = mine.refutations.max(theirs.refutations).saturating_add(1);
        self.me.incarnation.refutations = raised.min(REFUTATIONS_MAX);
        self.prober.worsen_health();
        // The card on every message tells it to all in time. Whoever accuses counts the seconds: it hears first.
        for accuser in
            update.confirmations.iter().filter(|accuser| **accuser != from).chain(Some(&from))
        {
            if self.table.get(*accuser).is_some() {
                self.send(*accuser, Body::Updates, out);
            }
        }
    }

    /// A load counts if it is of the life that is known and newer than what is held.
    pub(super) fn apply_load(&mut self, load: &Load, out: &mut Outbox<Action>) {
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
        self.load_updates.add(load.node);
    }
}
