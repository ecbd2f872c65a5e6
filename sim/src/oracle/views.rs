//! What one observer was seen to hold of the others, step by step; and what all views come to at the end.
//!
//! The view only remembers and hands each change to the laws that concern it: `precedence`, `suspicion`, `refutation`,
//! `buddy`, `vouched`.

use std::collections::BTreeMap;

use continuum_core::gossip::{self, Body, Counters, Incarnation, State};
use continuum_core::id::{GroupId, Index, NodeId, Replica, StoreId};
use continuum_core::node::Node;
use continuum_core::state::StateMachine;

use super::ack_from_pinged_member::Probes;
use super::{incarnation_precedence, suspect_is_told, suspicion_before_death, suspicion_refuted};
use crate::verdict::Verdict;

/// What is held of a member, in the order in which updates beat each other.
pub(crate) type Held = (Incarnation, State);

/// With which store a node is a member, and the entry that let it in, as the observer's registry has it. Who is let in
/// with another store is another member, and so is who was let in again after another store was.
type Admission = (StoreId, Option<Index>);

/// What one node was seen to hold.
#[derive(Debug, Default)]
pub(crate) struct View {
    members: BTreeMap<NodeId, (Admission, Held)>,
    /// What gossip had counted: without news and without a new count nothing changed.
    counted: Counters,
    pub(crate) probes: Probes,
}

/// What of a step concerns gossip.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// Gossip was received.
    pub(crate) gossip: bool,
    /// What it said of the receiver, at worst.
    pub(crate) accused: Option<Held>,
    /// Who acknowledged which ping by it.
    pub(crate) ack: Option<(NodeId, u64)>,
}

impl Heard {
    pub(crate) fn of(me: NodeId, from: NodeId, message: &gossip::Message) -> Self {
        let ack = match message.body {
            Body::Ack { number } => Some((from, number)),
            _ => None,
        };
        Self { gossip: true, accused: accusation(me, message), ack }
    }
}

/// The greatest update about the receiver in a message of gossip.
pub(crate) fn accusation(me: NodeId, message: &gossip::Message) -> Option<Held> {
    let updates = message.updates.iter().filter(|update| update.replica.node == me);
    updates.map(|update| (update.incarnation, update.state)).max()
}

fn admission(node: &Node, replica: Replica) -> Admission {
    let registry = node.state(GroupId::REGISTRY).map(StateMachine::registry);
    let member = registry.and_then(|registry| registry.member(replica.node));
    let joined = member.filter(|(known, _)| **known == replica).map(|(_, record)| record.joined);
    (replica.store, joined)
}

impl View {
    /// A step in which gossip may have changed: it heard something, or time passed.
    pub(crate) fn check_step(&mut self, node: &Node, heard: Heard) -> Verdict {
        let gossip = node.gossip();
        self.probes.check(gossip, heard.ack)?;
        let counted = gossip.counters();
        if !heard.gossip && counted == self.counted {
            return Ok(());
        }
        self.counted = counted;
        suspicion_refuted::check(gossip.own(), heard.accused)?;
        for member in gossip.members().skip(1) {
            let now = (member.incarnation, member.state);
            let admission = admission(node, member.replica);
            let held = self.members.entry(member.replica.node).or_insert((admission, now));
            let before = if held.0 == admission { held.1 } else { now };
            *held = (admission, now);
            if before == now {
                continue;
            }
            incarnation_precedence::check(member.replica.node, before, now)?;
            suspicion_before_death::check(member.replica.node, before, now, heard.gossip)?;
        }
        Ok(())
    }

    /// Gossip leaves.
    pub(crate) fn check_sent(&self, node: &Node, to: NodeId, message: &gossip::Message) -> Verdict {
        let member = node.gossip().member(to);
        let held = member
            .map(|m| (admission(node, m.replica), (m.incarnation, m.state)))
            // Who was held otherwise before the step may not be known as a suspect yet where the message was made.
            .filter(|held| self.members.get(&to) == Some(held));
        held.map_or(Ok(()), |(_, held)| suspect_is_told::check(to, held, message))
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
    use continuum_core::gossip::{Message, Update};
    use continuum_core::id::Address;

    use super::*;
    fn update(node: u8, refutations: u64, state: State) -> Update {
        let incarnation = Incarnation { refutations, ..Incarnation::default() };
        let replica = Replica { node: NodeId([node; 16]), ..Replica::default() };
        Update {
            replica,
            incarnation,
            state,
            address: Address::default(),
            confirmations: Vec::new(),
        }
    }

    #[test]
    fn the_gravest_accusation_counts() {
        let updates = vec![
            update(1, 5, State::Alive),
            update(1, 4, State::Dead),
            update(1, 5, State::Suspect),
            update(2, 9, State::Dead),
        ];
        let sender = update(3, 0, State::Alive);
        let message = Message { body: Body::Updates, sender, updates, loads: Vec::new() };
        let accused = accusation(NodeId([1; 16]), &message).expect("it is accused");
        assert_eq!((accused.0.refutations, accused.1), (5, State::Suspect));
        assert_eq!(accusation(NodeId([9; 16]), &message), None);
    }
}
