//! The coordinator: who is registered, how well each is, and who should serve.
//!
//! What is observed of a member stays in separate accounts (`registry`), health is a function of all of them with
//! hysteresis (`health`), and a choice weighs health and load (`balance`). Also the table of leaders, for the status.
//!
//! Deliberately not here: acting on health (fail-over is a change of the registry, by its leader), probing (gossip),
//! the requests themselves (the node).

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
use members::Members;

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

/// What the machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The registry names this member.
    Add {
        /// Who.
        node: NodeId,
    },
    /// The registry no longer names it.
    Remove {
        /// Who.
        node: NodeId,
    },
    /// Gossip's liveness and the member's own report.
    LivenessChanged {
        /// Who.
        node: NodeId,
        /// The liveness.
        liveness: Liveness,
        /// Requests under way on it.
        load: u32,
    },
    /// A request that was forwarded to a member ended, well or not.
    RequestEnded {
        /// Who.
        node: NodeId,
        /// Whether it answered in time.
        answered: bool,
    },
    /// A link came up or went down.
    LinkChanged {
        /// Who.
        node: NodeId,
        /// Whether it is up.
        up: bool,
    },
    /// A group's leader became known, or unknown.
    LeaderChanged {
        /// The group.
        group: GroupId,
        /// Who leads.
        leader: Option<NodeId>,
    },
}

/// What the machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// A member's health changed.
    Health {
        /// Who.
        node: NodeId,
        /// From.
        from: Health,
        /// To.
        to: Health,
    },
}

/// How one of several members is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one with the fewest requests under way, ours included.
    #[default]
    LeastLoaded,
    /// Each in turn.
    RoundRobin,
}

/// The machine of one node.
#[derive(Clone, Debug)]
pub struct Coordinator {
    me: NodeId,
    config: CoordinatorConfig,
    members: Members,
    /// When each member is to be looked at again: a dwell or an ejection ends.
    reviews: BTreeSet<(Instant, NodeId)>,
    leaders: BTreeMap<GroupId, NodeId>,
    rotation: Rotation,
    /// The last moment that this machine was told of; a choice has none of its own.
    now: Instant,
}

impl Coordinator {
    /// A node that knows of nobody.
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

    /// How well a member is; this node is well in its own eyes, and who is not registered is unknown.
    #[must_use]
    pub fn health(&self, node: NodeId) -> Health {
        if node == self.me {
            return Health::Healthy;
        }
        self.members.get(node).map_or(Health::Unknown, |entry| entry.health)
    }

    /// Requests under way on a member, as it last reported; 0 when it did not.
    #[must_use]
    pub fn load(&self, node: NodeId) -> u32 {
        self.members.get(node).map_or(0, |entry| entry.load)
    }

    /// Requests that this node chose a member for and that did not end yet.
    #[must_use]
    pub fn under_way(&self, node: NodeId) -> u32 {
        self.members.get(node).map_or(0, |entry| entry.under_way)
    }

    /// What a member's failures weigh in a choice by now.
    #[must_use]
    pub fn charge(&self, node: NodeId) -> u32 {
        self.members.get(node).map_or(0, |entry| entry.charge(self.now, &self.config))
    }

    /// Who leads a group, as far as this node knows.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.leaders.get(&group).copied()
    }

    /// All known leaders, by group.
    pub fn leaders(&self) -> impl Iterator<Item = (GroupId, NodeId)> {
        self.leaders.iter().map(|(group, leader)| (*group, *leader))
    }

    /// All registered members and their health, by node.
    pub fn registered(&self) -> impl Iterator<Item = (NodeId, Health)> {
        self.members.iter().map(|(node, entry)| (node, entry.health))
    }

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

    /// Looks at a member whose accounts changed, or whose time has come.
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
            // The new liveness may itself be on its way to another.
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
