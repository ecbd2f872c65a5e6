//! Gossip, health and discovery: what one observer holds of others, step by step.
//!
//! * *Precedence*: what is held of a member never goes back in the order of (incarnation, state) (SWIM, 4.2).
//! * *Suspicion first*: no probe of one's own makes a living member dead at once (SWIM, 4.2).
//! * *Refutation*: who hears that it is suspected is above that when the step ends (SWIM, 4.2).
//! * *Buddy*: whoever pings a suspect says so (Lifeguard, IV-C).
//! * *Hysteresis*: health gets better by one step at a time, and turns once in a dwell unless gossip has the last word
//!   (this project's own).
//! * *Hearsay*: contacts are told on only when verified (this project's own).
//!
//! Not here: what all views come to at the end, which is a matter of liveness.

use std::collections::BTreeMap;

use continuum_core::discovery::Contact;
use continuum_core::gossip::{self, Body, Counters, Incarnation, State};
use continuum_core::id::{NodeId, StoreId};
use continuum_core::node::Node;
use continuum_core::node::api::Health;
use continuum_core::time::Instant;

use super::{Broken, Verdict};

pub(crate) const PRECEDENCE: &str = "incarnation-precedence";
pub(crate) const SUSPICION: &str = "suspicion-before-death";
pub(crate) const REFUTATION: &str = "suspicion-refuted";
pub(crate) const BUDDY: &str = "suspect-is-told";
pub(crate) const HYSTERESIS: &str = "health-hysteresis";
pub(crate) const HEARSAY: &str = "verified-contacts-only";

type Held = (Incarnation, State);
/// On which disk: another one is another member.
type OnDisk = (StoreId, Held);

/// What one node was seen to hold.
#[derive(Debug, Default)]
pub(crate) struct View {
    members: BTreeMap<NodeId, OnDisk>,
    /// What gossip had counted: without news and without a new count nothing changed.
    counted: Counters,
    /// When the health of a member last changed here.
    turned: BTreeMap<NodeId, Instant>,
}

/// The greatest claim about the receiver in a message of gossip.
pub(crate) fn accusation(me: NodeId, message: &gossip::Message) -> Option<Held> {
    let claims = message.claims.iter().filter(|claim| claim.replica.node == me);
    claims.map(|claim| (claim.incarnation, claim.state)).max()
}

impl View {
    /// A step in which gossip may have changed: it heard something, or time passed.
    pub(crate) fn check_step(
        &mut self,
        node: &Node,
        hears: bool,
        accused: Option<Held>,
    ) -> Verdict {
        let gossip = node.gossip();
        let counted = gossip.counters();
        if !hears && counted == self.counted {
            return Ok(());
        }
        self.counted = counted;
        let own = gossip.own();
        let mine = (own.incarnation, own.state);
        if let Some(accused) = accused.filter(|a| a.0.boot == own.incarnation.boot && *a > mine) {
            let what = format!("told that it is {accused:?}, it goes on as {mine:?}");
            return Err(Broken::new(REFUTATION, what));
        }
        for member in gossip.members().skip(1) {
            let now = (member.incarnation, member.state);
            let store = member.replica.store;
            let held = self.members.entry(member.replica.node).or_insert((store, now));
            if held.0 != store {
                *held = (store, now);
            }
            let before = held.1;
            if before == now {
                continue;
            }
            if now < before {
                let what = format!("{:?} was {before:?} and is {now:?}", member.replica.node);
                return Err(Broken::new(PRECEDENCE, what));
            }
            if !hears && before.1 == State::Alive && now.1 >= State::Dead {
                let what = format!("{:?} was alive, and is {now:?} at once", member.replica.node);
                return Err(Broken::new(SUSPICION, what));
            }
            self.members.insert(member.replica.node, (store, now));
        }
        Ok(())
    }

    /// A ping to a member that was suspect before the step, and is after it.
    pub(crate) fn check_buddy(
        &self,
        node: &Node,
        to: NodeId,
        message: &gossip::Message,
    ) -> Verdict {
        let Body::Ping { .. } = message.body else { return Ok(()) };
        let Some(member) = node.gossip().member(to) else { return Ok(()) };
        let held = (member.incarnation, member.state);
        let on_disk = (member.replica.store, held);
        if member.state == State::Alive || self.members.get(&to) != Some(&on_disk) {
            return Ok(());
        }
        if accusation(to, message).is_some_and(|told| told >= held) {
            return Ok(());
        }
        let what = format!("{to:?} is held {held:?} and is not told: {message:?}");
        Err(Broken::new(BUDDY, what))
    }

    /// The health of a member turns.
    pub(crate) fn check_health(
        &mut self,
        node: &Node,
        now: Instant,
        dwell_ms: u64,
        member: NodeId,
        (from, to): (Health, Health),
    ) -> Verdict {
        let last = self.turned.insert(member, now);
        let broken = |what: &str| {
            Err(Broken::new(HYSTERESIS, format!("{member:?} turns from {from:?} to {to:?} {what}")))
        };
        if matches!(from, Health::Unhealthy | Health::Left) && to == Health::Healthy {
            return broken("in one step");
        }
        let state = node.gossip().member(member).map(|member| member.state);
        let is_final = matches!(state, Some(State::Dead | State::Left));
        let early = last.is_some_and(|last| now.since(last).as_millis() < u128::from(dwell_ms));
        if early && !is_final && from != Health::Unknown {
            return broken("within a dwell of its last turn");
        }
        Ok(())
    }
}

/// Contacts leave.
pub(crate) fn check_contacts(node: &Node, contacts: &[Contact]) -> Verdict {
    let known = |contact: &Contact| node.discovery().verified().any(|known| known == *contact);
    match contacts.iter().find(|contact| !known(contact)) {
        None => Ok(()),
        Some(contact) => {
            Err(Broken::new(HEARSAY, format!("{contact:?} is told on and was never verified")))
        }
    }
}

/// What is not as it should be in the views of members at the end: every node knows every other as that one knows
/// itself, alive.
pub(crate) fn difference<'a>(nodes: &(impl Iterator<Item = &'a Node> + Clone)) -> Option<String> {
    for node in nodes.clone() {
        let own = node.gossip().own();
        for other in nodes.clone().filter(|other| other.gossip().own().replica != own.replica) {
            let held = other.gossip().member(own.replica.node);
            let agrees = |held: &gossip::Member| {
                held.incarnation == own.incarnation && held.state == State::Alive
            };
            if !held.is_some_and(agrees) {
                let observer = other.gossip().own().replica.node;
                return Some(format!("{observer:?} holds {held:?}, which is {own:?}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use continuum_core::discovery::Address;
    use continuum_core::gossip::{Claim, Message};
    use continuum_core::id::Replica;

    use super::*;

    fn claim(node: u8, refutations: u64, state: State) -> Claim {
        let incarnation = Incarnation { refutations, ..Incarnation::default() };
        let replica = Replica { node: NodeId([node; 16]), ..Replica::default() };
        Claim { replica, incarnation, state, address: Address::default(), accusers: Vec::new() }
    }

    #[test]
    fn the_gravest_accusation_counts() {
        let claims = vec![
            claim(1, 5, State::Alive),
            claim(1, 4, State::Dead),
            claim(1, 5, State::Suspect),
            claim(2, 9, State::Dead),
        ];
        let me = claim(3, 0, State::Alive);
        let message = Message { body: Body::News, me, claims, loads: Vec::new() };
        let accused = accusation(NodeId([1; 16]), &message).expect("it is accused");
        assert_eq!((accused.0.refutations, accused.1), (5, State::Suspect));
        assert_eq!(accusation(NodeId([9; 16]), &message), None);
    }
}
