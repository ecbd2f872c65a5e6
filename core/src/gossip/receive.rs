//! Receiving: which of a message's updates count, and what they change.
//!
//! A message is checked in full before any part of it counts. Only an update that changed a record may cause an action,
//! so a refuted, outdated or repeated one has no effect. `member` says which update beats which, `suspicion` when a
//! suspicion ends.

use alloc::string::String;
use alloc::vec::Vec;

use super::member::{self, beats};
use super::message::{Body, HEARSAY_REFUTATIONS_MAX, Load, Message, REFUTATIONS_MAX, Update};
use super::suspicion::Suspicion;
use super::{Action, Gossip, State};
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::{mutant, reach};

/// The largest federation in which each member that hears of a suspicion tells the suspect of it.
const ALL_ASK_MEMBERS: usize = 16;

/// Whether an update changed a record.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merged {
    Changed,
    Unchanged,
}

impl Gossip {
    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        message: &Message,
        out: &mut Outbox<Action>,
    ) {
        if let Err(why) = self.check(now, from, message) {
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
            Body::Ack { number } => self.on_ack(now, from, number, out),
            Body::Nack { number } => self.on_nack(from, number),
            Body::Updates => {}
            Body::Push { after, upto } => self.on_push(from, (after, upto), &message.updates, out),
            Body::Pull { after, upto } => self.on_pull(from, (after, upto), out),
        }
    }

    /// Checks the bounds of a message and that its sender is a member. An open machine makes the sender one.
    fn check(&mut self, now: Instant, from: NodeId, message: &Message) -> Result<(), &'static str> {
        if self.is_open && message.check(from).is_ok() {
            self.learn_sender(now, &message.sender);
        }
        match self.table.get(from).map(|record| record.member.replica) {
            None => Err("gossip from a node that is not a member"),
            Some(replica) if replica != message.sender.replica => {
                message.check(from).and(Err("gossip from a disk that is not the member's"))
            }
            Some(_) => message.check(from),
        }
    }

    /// Makes an authenticated sender a member, if it is not one. The node's own word also replaces the disk that it had
    /// before.
    fn learn_sender(&mut self, now: Instant, update: &Update) {
        let known = self.table.get(update.replica.node).map(|record| record.member.replica);
        if known != Some(update.replica) {
            self.learn(now, update);
        }
    }

    /// Makes a live node a member. One that the driver removed comes back only with a newer incarnation.
    fn learn(&mut self, now: Instant, update: &Update) {
        let is_self = update.replica.node == self.me.replica.node;
        if is_self || update.state > State::Suspect || !self.table.may_return(update) {
            return;
        }
        self.add(now, update.replica, String::new(), update.address.clone());
    }

    /// Applies all updates of a message: the sender's own first, then those of other members.
    fn apply_message(&mut self, now: Instant, message: &Message, out: &mut Outbox<Action>) {
        let from = message.sender.replica.node;
        self.apply_self_update(now, &message.sender, out);
        let is_page = matches!(message.body, Body::Push { .. } | Body::Pull { .. });
        for update in &message.updates {
            if is_page && update.state == State::Dead {
                self.apply_as_suspicion(now, from, update, out);
            } else {
                self.apply_update(now, from, update, out);
            }
        }
        for load in &message.loads {
            self.apply_load(from, load, out);
        }
    }

    /// Applies a member's update of itself. A member may change its address within an incarnation.
    fn apply_self_update(&mut self, now: Instant, update: &Update, out: &mut Outbox<Action>) {
        let node = update.replica.node;
        let Some(record) = self.table.get_mut(node) else { return };
        let replaces = record.told(update.incarnation);
        if replaces {
            reach!("gossip.hearsay.replaced");
        }
        let merged = self.merge(now, (node, replaces), update, out);
        let Some(record) = self.table.get_mut(node) else { return };
        let same_boot = record.member.incarnation.boot == update.incarnation.boot;
        if merged == Merged::Unchanged && same_boot && record.member.address != update.address {
            record.member.address.clone_from(&update.address);
            out.push(Action::Changed { member: record.member.clone() });
        }
    }

    /// Applies an update that `from` sent of another node.
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
        if self.is_open && self.table.get(node).is_none() {
            self.learn(now, update);
        }
        let Some(record) = self.table.get(node).filter(|r| r.member.replica == update.replica)
        else {
            reach!("gossip.update.unknown");
            self.counters.unknown += 1;
            return;
        };
        if !record.believes(update.incarnation) {
            reach!("gossip.hearsay.disbelieved");
            self.counters.disbelieved += 1;
            return;
        }
        let _ = self.merge(now, (from, false), update, out);
    }

    /// Applies a death that a push-pull tells of, as a suspicion. It may be one side's view of a partition that healed,
    /// so the member gets the chance to refute it. The suspicion names the member as its only accuser. That confirms
    /// nothing, because no probe failed now: the suspicion lasts the longest time, however many peers tell of the
    /// death.
    fn apply_as_suspicion(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        out: &mut Outbox<Action>,
    ) {
        let is_live = |r: &member::Record| r.member.state <= State::Suspect && r.is_heard();
        let softer = if self.table.get(update.replica.node).is_some_and(is_live) {
            reach!("gossip.sync.death_softened");
            let confirmations = alloc::vec![update.replica.node];
            Update { state: State::Suspect, confirmations, ..update.clone() }
        } else {
            update.clone()
        };
        self.apply_update(now, from, &softer, out);
    }

    /// Merges an update of a known member: it replaces what it beats, and an equal suspicion adds its confirmations.
    /// With `replaces` it replaces whatever is held.
    fn merge(
        &mut self,
        now: Instant,
        (from, replaces): (NodeId, bool),
        update: &Update,
        out: &mut Outbox<Action>,
    ) -> Merged {
        let node = update.replica.node;
        let Some(record) = self.table.get_mut(node) else { return Merged::Unchanged };
        let (held, is_first) = (record.held(), !record.is_heard());
        let new = (update.incarnation, update.state);
        if new == held && update.state == State::Suspect {
            self.confirm(node, &update.confirmations);
            return Merged::Unchanged;
        }
        if !replaces && !beats(new, held) {
            return Merged::Unchanged;
        }
        let restarted = held.0.boot != update.incarnation.boot;
        let moved = record.adopt(update);
        if restarted && !is_first {
            reach!("gossip.member.restarted");
        }
        // Forwarding a suspicion is not a confirmation, unless the update names no accuser.
        let accuser = update.confirmations.first().copied().unwrap_or(from);
        self.change_state(now, node, update.state, accuser, out, restarted || moved);
        self.confirm(node, &update.confirmations);
        if update.state == State::Suspect {
            self.tell_suspect(node, out);
        }
        let revived = held.1 == State::Dead && update.state == State::Alive && !restarted;
        if revived && !self.is_leaving() {
            reach!("gossip.member.back_from_death");
            self.begin_push_pull(now, node, out);
        }
        Merged::Changed
    }

    /// Gives a member a new state and queues it for broadcast. Tells the driver if the state changed, or if
    /// `is_visible` says that something else did.
    fn change_state(
        &mut self,
        now: Instant,
        node: NodeId,
        to: State,
        accuser: NodeId,
        out: &mut Outbox<Action>,
        is_visible: bool,
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
        let Some(record) = self.table.get(node).filter(|_| is_visible || from != Some(to)) else {
            return;
        };
        out.push(Action::Changed { member: record.member.clone() });
    }

    /// Adds confirmations to the suspicion of a member. New ones are broadcast, so that other members count them too.
    fn confirm(&mut self, node: NodeId, confirmations: &[NodeId]) {
        let table = &self.table;
        let me = self.me.replica.node;
        // Only other members can confirm, so a list of invented nodes confirms nothing.
        let counts = |n: &NodeId| *n != node && (*n == me || table.get(*n).is_some());
        let known: Vec<NodeId> = confirmations.iter().filter(|n| counts(n)).copied().collect();
        let added = self.table.reschedule(node, |suspicion| {
            known.iter().filter(|accuser| suspicion.confirm(**accuser)).count()
        });
        if added.is_some_and(|count| count > 0) {
            reach!("gossip.suspicion.confirmed");
            self.updates.add(node);
        }
    }

    /// Suspects a member because this node's own probe of it failed.
    pub(super) fn suspect(&mut self, now: Instant, node: NodeId, out: &mut Outbox<Action>) {
        let me = self.me.replica.node;
        match self.table.get(node).map(|record| record.member.state) {
            Some(State::Alive) if mutant!("gossip.suspect.at_once") => {
                self.change_state(now, node, State::Dead, me, out, false);
            }
            Some(State::Alive) => {
                reach!("gossip.suspicion.begun");
                self.change_state(now, node, State::Suspect, me, out, false);
                // The next probe of it may come after the timeout: a bad local health slows probes, not suspicions. A
                // suspect that has refuted another's suspicion already answers a ping alone.
                self.ping_once(node, out);
            }
            Some(State::Suspect) => self.confirm(node, &[me]),
            Some(State::Dead | State::Left) | None => {}
        }
    }

    /// Tells a member of a suspicion that another member raised, so that this node hears the refutation in time. The
    /// accuser may stop before it passes the refutation on. This node's own probe of the member may come after the
    /// timeout, if a bad local health slows its probes. In a small federation nobody else may be left to pass the
    /// refutation on, so every member asks. In a large one only members that probe slowly do, so that a suspect does
    /// not hear from all members at once.
    fn tell_suspect(&mut self, node: NodeId, out: &mut Outbox<Action>) {
        if mutant!("gossip.suspicion.not_asked") {
            return;
        }
        if self.live_members() <= ALL_ASK_MEMBERS || self.prober.local_health() > 0 {
            reach!("gossip.suspicion.asked");
            // A suspect that has refuted the suspicion already answers a ping alone.
            self.ping_once(node, out);
        }
    }

    /// Declares a member dead because its suspicion timed out.
    pub(super) fn declare_dead(&mut self, node: NodeId, out: &mut Outbox<Action>) {
        reach!("gossip.suspicion.ran_out");
        self.counters.deaths += 1;
        let me = self.me.replica.node;
        self.change_state(Instant::ZERO, node, State::Dead, me, out, false);
    }

    /// Refutes a suspicion or death of this node with a higher incarnation, which only this node may create (SWIM 4.2).
    fn refute(&mut self, from: NodeId, update: &Update, out: &mut Outbox<Action>) {
        let (mine, theirs) = (self.me.incarnation, update.incarnation);
        if update.replica != self.me.replica || theirs.boot != mine.boot {
            // An earlier boot, or a clone's. The transport's handshake decides which boot may run.
            reach!("gossip.self.other_life");
            return;
        }
        if (theirs, update.state) <= (mine, self.me.state) {
            return;
        }
        if theirs.refutations > mine.refutations.saturating_add(HEARSAY_REFUTATIONS_MAX) {
            // Nobody believes it, and refuting it would use up the refutations that there are.
            reach!("gossip.hearsay.of_self");
            self.counters.disbelieved += 1;
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
        // Every message carries the new incarnation. The accusers get it at once, because their timeouts are running.
        let accusers = update.confirmations.iter().filter(|accuser| **accuser != from);
        for accuser in accusers.chain(Some(&from)) {
            if self.table.get(*accuser).is_some() {
                self.send(*accuser, Body::Updates, out);
            }
        }
    }

    /// Applies a load report if it is of the member's known boot and newer than the report held. The member's own
    /// report counts whatever others claimed that it said.
    fn apply_load(&mut self, from: NodeId, load: &Load, out: &mut Outbox<Action>) {
        if load.node == self.me.replica.node {
            return;
        }
        let Some(record) = self.table.get_mut(load.node) else {
            self.counters.unknown += 1;
            return;
        };
        let is_old = load.version <= record.load_version && from != load.node;
        if load.boot != record.member.incarnation.boot || is_old {
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
