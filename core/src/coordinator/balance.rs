//! Balancing: the choice of one of several members.
//!
//! The cost of a member is its reported load, this node's own requests in progress on it, and a charge for failures.
//! The own part counts because reports are a second old and all nodes see the same minimum: without it all would run to
//! that one member. Equal costs take turns.
//!
//! Health is a weight, not a wall. When fewer than half of the candidates are healthy, the fault is likelier here or
//! everywhere, and the load would fell the few that look well; health is then ignored, but for members that left.

use alloc::vec::Vec;

use super::{Choice, Coordinator};
use crate::api::Health;
use crate::digest::Hasher;
use crate::id::NodeId;
use crate::{mutant, reach};

/// The turn among members of equal cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Rotation {
    last: NodeId,
    /// A buffer for the candidates of a choice, kept to reuse its memory.
    room: Vec<(NodeId, Health)>,
}

impl Rotation {
    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&self.last);
    }
}

impl Coordinator {
    /// Chooses one of `candidates` for a request; `None` when none may serve. The request counts as in progress on that
    /// member, unless it is this node, until [`super::Event::RequestEnded`] or [`Coordinator::withdraw`].
    pub fn choose(
        &mut self,
        how: Choice,
        candidates: impl Iterator<Item = NodeId>,
    ) -> Option<NodeId> {
        let mut room = core::mem::take(&mut self.rotation.room);
        room.clear();
        // A member that left never serves, however unwell the others are.
        let present = candidates.map(|node| (node, self.health(node)));
        room.extend(present.filter(|(_, health)| *health != Health::Left));
        let healthy = room.iter().filter(|(_, health)| *health == Health::Healthy).count();
        if healthy * 2 < room.len() {
            reach!("coordinator.balance.panic");
            room.iter_mut().for_each(|(_, health)| *health = Health::Healthy);
        }
        room.retain(|(_, health)| matches!(health, Health::Healthy | Health::Suspect));
        let chosen = match how {
            Choice::LeastLoaded => self.least_loaded(&room),
            Choice::RoundRobin => self.next_in_turn(&mut room),
        };
        self.rotation.room = room;
        if let Some(node) = chosen {
            self.rotation.last = node;
            self.members.count(node);
        }
        chosen
    }

    /// The member of lowest cost. Among equals it is the next one after the last chosen, in a circle.
    fn least_loaded(&self, room: &[(NodeId, Health)]) -> Option<NodeId> {
        let last = self.rotation.last;
        let cheapest = room
            .iter()
            .min_by_key(|(node, health)| (self.cost(*node, *health), *node <= last, *node));
        cheapest.map(|(node, _)| *node)
    }

    fn cost(&self, node: NodeId, health: Health) -> u64 {
        let Some(entry) = self.members.get(node) else { return 1 };
        // The request itself counts as one: twice zero would make an idle suspect as cheap as an idle healthy member.
        let charge = entry.charge(self.now, &self.config);
        let own = if mutant!("coordinator.choice.herds") { 0 } else { u64::from(entry.under_way) };
        let requests = u64::from(entry.load) + own + u64::from(charge) + 1;
        if health == Health::Suspect {
            reach!("coordinator.balance.suspect");
            return requests * 2;
        }
        requests
    }

    /// The next member after the last chosen, in a circle. A suspect is skipped every second time.
    fn next_in_turn(&mut self, room: &mut [(NodeId, Health)]) -> Option<NodeId> {
        let last = self.rotation.last;
        room.sort_unstable_by_key(|(node, _)| (*node <= last, *node));
        for (node, health) in room.iter() {
            let suspect = *health == Health::Suspect;
            let Some(entry) = self.members.get_mut(*node).filter(|_| suspect) else {
                return Some(*node);
            };
            entry.passed_over = !entry.passed_over;
            if !entry.passed_over {
                return Some(*node);
            }
            reach!("coordinator.balance.passed_over");
        }
        room.first().map(|(node, _)| *node)
    }
}
