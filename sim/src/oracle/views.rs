//! The observed view that one node has of the other members, step by step, and the comparison of all views at the end.
//!
//! A view only remembers, and passes each change to the laws that concern it: `incarnation_precedence`,
//! `suspicion_before_death`, `suspicion_refuted`, `suspect_is_told`, `ack_from_pinged_member`.

use std::collections::BTreeMap;

use continuum_core::gossip::{self, Body, Counters, Incarnation, State};
use continuum_core::id::{GroupId, Index, NodeId, Replica, StoreId};
use continuum_core::node::Node;
use continuum_core::state::StateMachine;

use super::ack_from_pinged_member::Probes;
use super::false_death::Deaths;
use super::{incarnation_precedence, suspect_is_told, suspicion_before_death, suspicion_refuted};
use crate::verdict::Verdict;

/// A member's state as a node knows it, in the order in which updates beat each other.
pub(crate) type Held = (Incarnation, State);

/// A node's store, and the index of the registry's entry that admitted it, as the observer's registry has them. The
/// same node admitted with another store, or admitted again, is another member.
type Admission = (StoreId, Option<Index>);

/// The observed view of one node.
#[derive(Debug, Default)]
pub(crate) struct View {
    members: BTreeMap<NodeId, (Admission, Held)>,
    /// The counters of gossip after the last step: if no gossip arrives and they are equal, the view did not change.
    counted: Counters,
    pub(crate) probes: Probes,
    pub(crate) deaths: Deaths,
}

/// The gossip that a step received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// The step received gossip.
    pub(crate) gossip: bool,
    /// Its sender.
    pub(crate) from: Option<NodeId>,
    /// The greatest update about the receiver.
    pub(crate) about_me: Option<Held>,
    /// The sender and the ping number of an ack.
    pub(crate) ack: Option<(NodeId, u64)>,
}

impl Heard {
    pub(crate) fn of(me: Replica, from: NodeId, message: &gossip::Message) -> Self {
        let ack = match message.body {
            Body::Ack { number } => Some((from, number)),
            _ => None,
        };
        Self { gossip: true, from: Some(from), about_me: greatest_update(me, message), ack }
    }
}

/// The greatest update about the receiver in a message of gossip. An update about another store of the node is about
/// another member.
pub(crate) fn greatest_update(me: Replica, message: &gossip::Message) -> Option<Held> {
    let updates = message.updates.iter().filter(|update| update.replica == me);
    updates.map(|update| (update.incarnation, update.state)).max()
}

fn admission(node: &Node, replica: Replica) -> Admission {
    let registry = node.state(GroupId::REGISTRY).map(StateMachine::registry);
    let member = registry.and_then(|registry| registry.member(replica.node));
    let joined = member.filter(|(known, _)| **known == replica).map(|(_, record)| record.joined);
    (replica.store, joined)
}

impl View {
    /// Judges a step that may have changed the view: it received gossip, or time passed.
    pub(crate) fn check_step(&mut self, node: &Node, at: u64, heard: Heard) -> Verdict {
        let gossip = node.gossip();
        self.probes.check(gossip, heard.ack)?;
        let counted = gossip.counters();
        if !heard.gossip && counted == self.counted {
            return Ok(());
        }
        let by_itself = counted.deaths > self.counted.deaths;
        self.counted = counted;
        suspicion_refuted::check(gossip.own(), heard.about_me)?;
        for member in gossip.members().skip(1) {
            let now = (member.incarnation, member.state);
            let admission = admission(node, member.replica);
            let held = self.members.entry(member.replica.node).or_insert((admission, now));
            let before = if held.0 == admission { held.1 } else { now };
            *held = (admission, now);
            if before == now {
                continue;
            }
            self.deaths.turns(at, member.replica.node, now.1, by_itself);
            let is_own_word = heard.from == Some(member.replica.node);
            incarnation_precedence::check(member.replica.node, before, now, is_own_word)?;
            suspicion_before_death::check(member.replica.node, before, now, heard.gossip)?;
        }
        Ok(())
    }

    /// Judges gossip that leaves.
    pub(crate) fn check_sent(&self, node: &Node, to: NodeId, message: &gossip::Message) -> Verdict {
        let member = node.gossip().member(to);
        let held = member
            .map(|m| (m.replica, (admission(node, m.replica), (m.incarnation, m.state))))
            // If the view changed in this step, the message may have been made before the change.
            .filter(|(_, held)| self.members.get(&to) == Some(held));
        held.map_or(Ok(()), |(replica, (_, held))| suspect_is_told::check(replica, held, message))
    }
}

/// The first flaw in the final views, as a sentence; `None` if every node sees every other alive, with the incarnation
/// that the other has.
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
                return Some(format!("{observer:?} sees {own:?} as {held:?}"));
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
    fn replica(node: u8) -> Replica {
        Replica { node: NodeId([node; 16]), ..Replica::default() }
    }

    fn update(node: u8, refutations: u64, state: State) -> Update {
        let incarnation = Incarnation { refutations, ..Incarnation::default() };
        Update {
            replica: replica(node),
            incarnation,
            state,
            address: Address::default(),
            confirmations: Vec::new(),
        }
    }

    #[test]
    fn the_greatest_update_counts() {
        let updates = vec![
            update(1, 5, State::Alive),
            update(1, 4, State::Dead),
            update(1, 5, State::Suspect),
            update(2, 9, State::Dead),
        ];
        let sender = update(3, 0, State::Alive);
        let message =
            Message { body: Body::Updates, sender: sender.into(), updates, loads: Vec::new() };
        let found = greatest_update(replica(1), &message).expect("an update is about it");
        assert_eq!((found.0.refutations, found.1), (5, State::Suspect));
        assert_eq!(greatest_update(replica(9), &message), None);
        let other_store = Replica { store: StoreId([7; 16]), ..replica(1) };
        assert_eq!(greatest_update(other_store, &message), None);
    }
}
