//! Health: one word for all observations of a member, with hysteresis.
//!
//! Health falls once enough bad observations arrived, and rises one step at a time, after a dwell each. An observation
//! of this node alone never makes a member dead, because a node with broken links would otherwise give up all others.
//! It can make the member unhealthy for this node, for a while; then some requests try it again.

use core::time::Duration;

use super::Liveness;
use super::members::Observations;
use crate::api::Health;
use crate::config::CoordinatorConfig;
use crate::time::{Instant, earlier};
use crate::{mutant, reach};

/// Dwells that an ejection for failed requests lasts. Then the member is a suspect, and is tried with half the weight.
const EJECTION_DWELLS: u32 = 10;

/// The health that the observations amount to now, and when that may change without a further observation.
struct Evidence {
    health: Health,
    changes: Option<Instant>,
}

/// The health of a member now, and when to review it again.
pub(super) fn review(
    entry: &Observations,
    now: Instant,
    config: &CoordinatorConfig,
) -> (Health, Option<Instant>) {
    let dwell = Duration::from_millis(config.dwell_ms);
    let evidence = weigh(entry, now, config);
    let (from, to) = (entry.health, evidence.health);
    if from == to || mutant!("coordinator.health.no_hysteresis") {
        return (to, evidence.changes);
    }
    // Dead and Left already waited for the failure detector, and leaving Unknown ends nothing: neither waits a dwell.
    let rested = entry.since.map_or(now, |since| since + dwell);
    let at_once = from == Health::Unknown || is_final(entry);
    if !at_once && now < rested {
        reach!("coordinator.health.dwells");
        return (from, earlier(Some(rested), evidence.changes));
    }
    let next = if to < from { step_up(from, to) } else { to };
    (next, evidence.changes)
}

fn is_final(entry: &Observations) -> bool {
    matches!(entry.liveness, Some(Liveness::Dead | Liveness::Left))
}

/// One step towards better health: an unhealthy member serves as a suspect first (slow start).
fn step_up(from: Health, to: Health) -> Health {
    match from {
        Health::Unhealthy | Health::Left if to == Health::Healthy => {
            reach!("coordinator.health.slow_start");
            Health::Suspect
        }
        _ => to,
    }
}

fn weigh(entry: &Observations, now: Instant, config: &CoordinatorConfig) -> Evidence {
    let steady = |health| Evidence { health, changes: None };
    match entry.liveness {
        Some(Liveness::Left) => return steady(Health::Left),
        Some(Liveness::Dead) => return steady(Health::Unhealthy),
        None if !entry.is_heard() => return steady(Health::Unknown),
        _ => {}
    }
    let link = judge_link(entry, now, config);
    let requests = judge_requests(entry, now, config);
    let mut health = link.health.max(requests.health);
    if entry.liveness == Some(Liveness::Suspect) {
        health = health.max(Health::Suspect);
    }
    Evidence { health, changes: earlier(link.changes, requests.changes) }
}

/// A link that is down too often or too long makes a suspect, no worse: other nodes may still reach the member.
fn judge_link(entry: &Observations, now: Instant, config: &CoordinatorConfig) -> Evidence {
    if entry.link.up != Some(false) {
        return Evidence { health: Health::Healthy, changes: None };
    }
    let patience = Duration::from_millis(config.dwell_ms).saturating_mul(config.fall);
    let until = entry.link.since + patience;
    if entry.link.downs >= config.fall || now >= until {
        reach!("coordinator.link.bad");
        return Evidence { health: Health::Suspect, changes: None };
    }
    Evidence { health: Health::Healthy, changes: Some(until) }
}

/// Failed requests make a member unhealthy for a while, then suspect until it answered often enough.
fn judge_requests(entry: &Observations, now: Instant, config: &CoordinatorConfig) -> Evidence {
    let Some(since) = entry.requests.failing_since else {
        return Evidence { health: Health::Healthy, changes: None };
    };
    let ejection = Duration::from_millis(config.dwell_ms).saturating_mul(EJECTION_DWELLS);
    let until = since + ejection;
    if now < until {
        reach!("coordinator.requests.ejected");
        return Evidence { health: Health::Unhealthy, changes: Some(until) };
    }
    reach!("coordinator.requests.half_open");
    Evidence { health: Health::Suspect, changes: None }
}
