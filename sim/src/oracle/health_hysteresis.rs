//! Law: a member's health improves one step at a time, and changes at most once in a dwell, unless gossip calls the
//! member dead or left (contract of `core::coordinator`).
//!
//! Compares each change of health with the one before it, per observer and member. It does not judge whether the health
//! fits the observations.

use std::collections::BTreeMap;

use continuum_core::api::Health;
use continuum_core::gossip::State;
use continuum_core::id::NodeId;
use continuum_core::time::Instant;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "health-hysteresis";

/// When one node last changed its verdict on the health of each member.
#[derive(Debug, Default)]
pub(crate) struct HealthChanges {
    changed: BTreeMap<NodeId, Instant>,
}

impl HealthChanges {
    /// Judges a change of a member's health; `state` is the member's state in gossip.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        dwell_ms: u64,
        (member, state): (NodeId, Option<State>),
        (from, to): (Health, Health),
    ) -> Verdict {
        let last = self.changed.insert(member, now);
        let broken = |what: &str| {
            Err(Broken::new(NAME, format!("{member:?} changes from {from:?} to {to:?} {what}")))
        };
        if matches!(from, Health::Unhealthy | Health::Left) && to == Health::Healthy {
            return broken("in one step");
        }
        let is_final = matches!(state, Some(State::Dead | State::Left));
        let early = last.is_some_and(|last| now.since(last).as_millis() < u128::from(dwell_ms));
        if early && !is_final && from != Health::Unknown {
            return broken("within a dwell of its last change");
        }
        Ok(())
    }
}
