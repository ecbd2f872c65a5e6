//! Hysteresis: a member's health gets better by one step at a time, and turns once in a dwell unless gossip has the
//! last word (this project's design, section 5, coordinator).

use std::collections::BTreeMap;

use continuum_core::api::Health;
use continuum_core::gossip::State;
use continuum_core::id::NodeId;
use continuum_core::time::Instant;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "health-hysteresis";

/// When the health of each member last changed in one node's eyes.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    turned: BTreeMap<NodeId, Instant>,
}

impl Turns {
    /// The health of a member turns; `state` is what gossip holds of it.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        dwell_ms: u64,
        (member, state): (NodeId, Option<State>),
        (from, to): (Health, Health),
    ) -> Verdict {
        let last = self.turned.insert(member, now);
        let broken = |what: &str| {
            Err(Broken::new(NAME, format!("{member:?} turns from {from:?} to {to:?} {what}")))
        };
        if matches!(from, Health::Unhealthy | Health::Left) && to == Health::Healthy {
            return broken("in one step");
        }
        let is_final = matches!(state, Some(State::Dead | State::Left));
        let early = last.is_some_and(|last| now.since(last).as_millis() < u128::from(dwell_ms));
        if early && !is_final && from != Health::Unknown {
            return broken("within a dwell of its last turn");
        }
        Ok(())
    }
}
