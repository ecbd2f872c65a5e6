//! The registered members, and what is observed of each, in accounts that are never mixed.
//!
//! Gossip's liveness, this node's link and the outcome of its own requests are three witnesses with three failure modes;
//! what they mean together is decided in `health`. Members come from the registry alone: an observation of anybody else
//! is dropped.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::Liveness;
use crate::api::Health;
use crate::config::CoordinatorConfig;
use crate::digest::Hasher;
use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;
use crate::{mutant, reach};

/// What a failed request adds to a member's load when it is compared: a member that fails at once has the fewest
/// requests under way, and must not attract more by that.
const FAILURE_CHARGE: u32 = 16;

/// The most that failures may weigh.
const CHARGE_MAX: u32 = 1024;

/// This node's link to a member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    /// `None` before the first word of it.
    pub(super) up: Option<bool>,
    pub(super) since: Instant,
    /// Failures in a row, a short time up in between not counted.
    pub(super) downs: u32,
}

/// How this node's requests to a member ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requests {
    /// Failures in a row.
    pub(super) bad: u32,
    /// Answers in a row.
    pub(super) good: u32,
    /// Whether the failures were too many, and since when; answers end it.
    pub(super) failing_since: Option<Instant>,
}

/// All that is known of one member.
#[derive(Clone, Debug, Default)]
pub(super) struct Observations {
    pub(super) liveness: Option<Liveness>,
    pub(super) link: Link,
    pub(super) requests: Requests,
    pub(super) load: u32,
    /// Chosen, and not ended.
    pub(super) under_way: u32,
    /// Whether it was passed over as a suspect when its turn came last.
    pub(super) passed_over: bool,
    charge: u32,
    charged: Instant,
    pub(super) health: Health,
    /// When the health last changed; `None` while it never did.
    pub(super) since: Option<Instant>,
    pub(super) review: Option<Instant>,
}

impl Observations {
    pub(super) fn on_liveness(&mut self, liveness: Liveness, load: u32) {
        self.liveness = Some(liveness);
        self.load = load;
    }

    pub(super) fn on_link(&mut self, now: Instant, up: bool, config: &CoordinatorConfig) {
        let link = &mut self.link;
        let stood = now.since(link.since) >= Duration::from_millis(config.dwell_ms);
        match (link.up, up) {
            (Some(true), true) => return,
            // Every further failed attempt counts, but what began the silence is not forgotten.
            (Some(false), false) => {
                link.downs = link.downs.saturating_add(1);
                return;
            }
            (None, false) => link.downs = 1,
            (Some(true), false) if stood => link.downs = 1,
            (Some(true), false) => {
                reach!("coordinator.link.flapped");
                link.downs = link.downs.saturating_add(1);
            }
            (_, true) => {}
        }
        link.up = Some(up);
        link.since = now;
    }

    pub(super) fn on_request_ended(
        &mut self,
        now: Instant,
        answered: bool,
        config: &CoordinatorConfig,
    ) {
        let charge = self.charge(now, config);
        self.under_way = self.under_way.saturating_sub(1);
        self.charged = now;
        let requests = &mut self.requests;
        if answered {
            self.charge = charge / 2;
            requests.bad = 0;
            requests.good = requests.good.saturating_add(1);
            if requests.good >= config.rise {
                requests.failing_since = None;
            }
        } else {
            self.charge = charge.saturating_add(FAILURE_CHARGE).min(CHARGE_MAX);
            requests.good = 0;
            requests.bad = requests.bad.saturating_add(1);
            let enough = if mutant!("coordinator.health.no_hysteresis") { 1 } else { config.fall };
            if requests.bad >= enough {
                requests.failing_since = Some(now);
            }
        }
    }

    /// Whether anything good was ever known of it.
    pub(super) fn is_heard(&self) -> bool {
        let by_us = self.link.up == Some(true) || self.requests.good > 0;
        self.liveness.is_some() || by_us || self.since.is_some()
    }

    /// What failures weigh by now: half as much after each dwell.
    pub(super) fn charge(&self, now: Instant, config: &CoordinatorConfig) -> u32 {
        let passed = now.since(self.charged).as_millis() / u128::from(config.dwell_ms.max(1));
        self.charge >> passed.min(31)
    }
}

/// All registered members.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    entries: BTreeMap<NodeId, Observations>,
}

impl Members {
    /// Adds a member, once. False when there is no room.
    #[must_use]
    pub(super) fn add(&mut self, node: NodeId) -> bool {
        let known = self.entries.contains_key(&node);
        if !known && self.entries.len() < MEMBERS_MAX {
            self.entries.insert(node, Observations::default());
            return true;
        }
        known
    }

    pub(super) fn remove(&mut self, node: NodeId) -> Option<Observations> {
        self.entries.remove(&node)
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Observations> {
        self.entries.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Observations> {
        self.entries.get_mut(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Observations)> {
        self.entries.iter().map(|(node, entry)| (*node, entry))
    }

    /// A request goes to a member.
    pub(super) fn count(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.under_way = entry.under_way.saturating_add(1);
        }
    }

    /// Changes a member's accounts; who is not registered has none.
    pub(super) fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Observations)) {
        let Some(entry) = self.entries.get_mut(&node) else {
            reach!("coordinator.members.unknown");
            return;
        };
        change(entry);
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.entries.len() as u64);
        for (node, entry) in &self.entries {
            hash.value(&(node, entry.liveness, entry.health, entry.since, entry.review));
            hash.value(&(entry.link.up, entry.link.since, entry.link.downs));
            let requests = &entry.requests;
            hash.value(&(requests.bad, requests.good, requests.failing_since));
            hash.value(&(entry.load, entry.under_way, entry.passed_over));
            hash.value(&(entry.charge, entry.charged));
        }
    }
}
