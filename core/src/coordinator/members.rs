//! The members, and the observations of each in separate accounts.
//!
//! The failure detector's word, this node's link and the outcome of its own requests are three witnesses that fail in
//! three ways. `health` decides what they mean together. The registry alone names members; an observation of any other
//! node is dropped.

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

/// Requests that one failure adds to a member's cost. A member that fails at once has the fewest requests in progress,
/// and must not attract more by that.
const FAILURE_CHARGE: u32 = 16;

/// The highest charge for failures, in requests.
const CHARGE_MAX: u32 = 1024;

/// This node's link to a member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    /// `None` before the first event of the link.
    pub(super) up: Option<bool>,
    pub(super) since: Instant,
    /// Failures in a row. A link that was up for less than a dwell does not end the row.
    pub(super) downs: u32,
}

/// The outcome of this node's requests to a member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requests {
    /// Failures in a row.
    pub(super) bad: u32,
    /// Answers in a row.
    pub(super) good: u32,
    /// Since when the failures in a row are too many; enough answers clear it.
    pub(super) failing_since: Option<Instant>,
}

/// The observations of one member, and the health derived from them.
#[derive(Clone, Debug, Default)]
pub(super) struct Observations {
    pub(super) liveness: Option<Liveness>,
    pub(super) link: Link,
    pub(super) requests: Requests,
    pub(super) load: u32,
    /// Requests chosen for it that did not end yet.
    pub(super) under_way: u32,
    /// Whether it was skipped as a suspect when its turn came last.
    pub(super) passed_over: bool,
    charge: u32,
    charged: Instant,
    pub(super) health: Health,
    /// When the health last changed; `None` if it never did.
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
            // Each failed attempt counts, but `since` stays at the first one.
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
        self.ends();
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

    /// A request to it is no longer under way.
    pub(super) fn ends(&mut self) {
        if !mutant!("coordinator.choice.leaks") {
            self.under_way = self.under_way.saturating_sub(1);
        }
    }

    /// Whether the failure detector, a link or an answer ever showed that it lives.
    pub(super) fn is_heard(&self) -> bool {
        let by_us = self.link.up == Some(true) || self.requests.good > 0;
        self.liveness.is_some() || by_us || self.since.is_some()
    }

    /// The charge for failures, which halves with each dwell.
    pub(super) fn charge(&self, now: Instant, config: &CoordinatorConfig) -> u32 {
        let passed = now.since(self.charged).as_millis() / u128::from(config.dwell_ms.max(1));
        self.charge >> passed.min(31)
    }
}

/// All members that the registry names, this node excluded.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    entries: BTreeMap<NodeId, Observations>,
}

impl Members {
    /// Adds a member, once. Returns false when the table is full.
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

    /// Counts a request that goes to a member.
    pub(super) fn count(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.under_way = entry.under_way.saturating_add(1);
        }
    }

    /// Changes the observations of a member, if it is one.
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
