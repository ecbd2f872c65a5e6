//! The coordinator: the health of each member, and the choice of the member that serves a request.
//!
//! `members` keeps the observations of each member in separate accounts. `health` derives one word of health from all
//! of them, with hysteresis. `balance` chooses by health and load. The coordinator also keeps the table of group
//! leaders, for the status.
//!
//! This module does not act on health (failover is a change of the registry, by its leader), probe (gossip does) or
//! handle requests (the node does). It imports no failure detector: [`Event::LivenessChanged`] takes the word of any.

mod balance;
mod health;
mod members;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::Health;
use crate::config::CoordinatorConfig;
use crate::digest::Hasher;
use crate::id::{GroupId, NodeId};
use crate::limits::NAMESPACES_MAX;
use crate::machine::{Machine, Now, Outbox};
use crate::reach;
use crate::time::Instant;

use balance::Rotation;
use members::{Members, Observations};

/// A failure detector's word on a member, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It was silent, and may still answer.
    Suspect,
    /// It was silent for too long.
    Dead,
    /// It said goodbye.
    Left,
}

/// The inputs of the machine.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The registry names this member. Repeats are harmless.
    Add { node: NodeId },
    /// The registry no longer names this member.
    Remove { node: NodeId },
    /// The failure detector's word on a member, and the load that the member reported, in requests in progress.
    LivenessChanged { node: NodeId, liveness: Liveness, load: u32 },
    /// A request to a member, chosen or begun, ended: with an answer in time, or without one.
    RequestEnded { node: NodeId, answered: bool },
    /// A link to a member came up, went down or failed to come up.
    LinkChanged { node: NodeId, up: bool },
    /// The leader of a group became known, or unknown (`None`).
    LeaderChanged { group: GroupId, leader: Option<NodeId> },
}

/// Requests to the driver.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug)]
pub enum Action {
    /// The health of a member changed. Choices already follow it, so the driver may drop, delay or reorder this.
    Health { node: NodeId, from: Health, to: Health },
}

/// The rule by which one of several members is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The member with the lowest cost: load, this node's own requests to it, and a charge for failures.
    #[default]
    LeastLoaded,
    /// Each member in turn.
    RoundRobin,
}

/// The machine of one node.
#[derive(Clone, Debug)]
pub struct Coordinator {
    me: NodeId,
    config: CoordinatorConfig,
    members: Members,
    /// When the health of each member is due for review, because a dwell or an ejection ends.
    reviews: BTreeSet<(Instant, NodeId)>,
    leaders: BTreeMap<GroupId, NodeId>,
    rotation: Rotation,
    /// The time of the last step. A choice has no time of its own.
    now: Instant,
}

impl Coordinator {
    /// A coordinator that knows no member but its own node, `me`.
    #[must_use]
    pub fn new(me: NodeId, config: CoordinatorConfig) -> Self {
        Self {
            me,
            config,
            members: Members::default(),
            reviews: BTreeSet::new(),
            leaders: BTreeMap::new(),
            rotation: Rotation::default(),
            now: Instant::ZERO,
        }
    }

    /// The health of a member. This node itself is always healthy, and a non-member is unknown.
    #[must_use]
    pub fn health(&self, node: NodeId) -> Health {
        if node == self.me {
            return Health::Healthy;
        }
        self.members.get(node).map_or(Health::Unknown, |entry| entry.health)
    }

    /// Requests in progress on a member, as it last reported; 0 before its first report.
    #[must_use]
    pub fn load(&self, node: NodeId) -> u32 {
        self.members.get(node).map_or(0, |entry| entry.load)
    }

    /// This node's own requests in progress on a member.
    #[must_use]
    pub fn under_way(&self, node: NodeId) -> u32 {
        self.members.get(node).map_or(0, |entry| entry.under_way)
    }

    /// Counts a request that goes to this member without a choice, as [`Coordinator::choose`] counts its own.
    pub fn begin(&mut self, node: NodeId) {
        self.members.count(node);
    }

    /// Ends a request to this member that waits for no answer any more. It says nothing of the member.
    pub fn withdraw(&mut self, node: NodeId) {
        self.members.change(node, Observations::ends);
    }

    /// The charge for a member's failed requests now, in requests.
    #[must_use]
    pub fn charge(&self, node: NodeId) -> u32 {
        self.members.get(node).map_or(0, |entry| entry.charge(self.now, &self.config))
    }

    /// The leader of a group, if this node knows it.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.leaders.get(&group).copied()
    }

    /// All known leaders, in the order of their groups.
    pub fn leaders(&self) -> impl Iterator<Item = (GroupId, NodeId)> {
        self.leaders.iter().map(|(group, leader)| (*group, *leader))
    }

    /// All members and their health, in the order of their nodes.
    pub fn registered(&self) -> impl Iterator<Item = (NodeId, Health)> {
        self.members.iter().map(|(node, entry)| (node, entry.health))
    }
}

impl Machine for Coordinator {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, now: Now, event: Event, out: &mut Outbox<Action>) {
        let mono = now.mono;
        self.now = mono;
        self.catch_up(mono, out);
        let config = &self.config;
        let node = match event {
            Event::Tick => return,
            Event::LeaderChanged { group, leader } => return self.set_leader(group, leader),
            Event::Remove { node } => return self.remove(node),
            Event::Add { node } => {
                if node != self.me && !self.members.add(node) {
                    reach!("coordinator.members.full");
                }
                return;
            }
            Event::LivenessChanged { node, liveness, load } => {
                self.members.change(node, |entry| entry.on_liveness(liveness, load));
                node
            }
            Event::RequestEnded { node, answered } => {
                self.members.change(node, |entry| entry.on_request_ended(mono, answered, config));
                node
            }
            Event::LinkChanged { node, up } => {
                self.members.change(node, |entry| entry.on_link(mono, up, config));
                node
            }
        };
        self.review(mono, node, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.reviews.first().map(|(at, _)| *at)
    }

    fn digest(&self, hash: &mut Hasher) {
        self.members.digest(hash);
        hash.value(&self.leaders);
        hash.value(&self.reviews);
        self.rotation.digest(hash);
    }
}

impl Coordinator {
    fn set_leader(&mut self, group: GroupId, leader: Option<NodeId>) {
        let room = self.leaders.len() <= NAMESPACES_MAX || self.leaders.contains_key(&group);
        match leader {
            Some(leader) if room => {
                self.leaders.insert(group, leader);
            }
            Some(_) => reach!("coordinator.leaders.full"),
            None => {
                self.leaders.remove(&group);
            }
        }
    }

    fn remove(&mut self, node: NodeId) {
        if let Some(entry) = self.members.remove(node)
            && let Some(at) = entry.review
        {
            self.reviews.remove(&(at, node));
        }
    }

    /// Derives the health of a member again, because an observation arrived or its review is due.
    fn review(&mut self, now: Instant, node: NodeId, out: &mut Outbox<Action>) {
        let Some(entry) = self.members.get_mut(node) else { return };
        let from = entry.health;
        let (to, again) = health::review(entry, now, &self.config);
        if let Some(old) = core::mem::replace(&mut entry.review, again) {
            self.reviews.remove(&(old, node));
        }
        self.reviews.extend(again.map(|at| (at, node)));
        if from != to {
            entry.health = to;
            entry.since = Some(now);
            out.push(Action::Health { node, from, to });
            // From the new health the next change may be due later, or now.
            self.review(now, node, out);
        }
    }

    fn catch_up(&mut self, now: Instant, out: &mut Outbox<Action>) {
        while let Some((at, node)) = self.reviews.first().copied()
            && at <= now
        {
            self.review(now, node, out);
        }
    }
}
