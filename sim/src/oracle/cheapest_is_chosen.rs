//! Law: of the healthy members a node chooses the cheapest; cost is reported load, plus the node's own requests under
//! way there, plus its charge for failures (contract of `core::coordinator`; the node's own share keeps all nodes from
//! choosing the same reported minimum).
//!
//! Compares the choices of a copy of each node's coordinator with the costs that it reports, with each digest of the
//! trace, so that the rule is tested even when no request needs a choice. It does not judge how a cost comes about, nor
//! choices among unhealthy members.

use continuum_core::api::Health;
use continuum_core::coordinator::{Choice, Coordinator};
use continuum_core::id::NodeId;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "cheapest-is-chosen";
/// Consecutive choices per candidate.
const ROUNDS: usize = 3;

/// Judges the choices that a node would make now.
pub(crate) fn check(coordinator: &Coordinator) -> Verdict {
    let registered = coordinator.registered();
    let healthy: Vec<NodeId> =
        registered.filter(|(_, health)| *health == Health::Healthy).map(|(node, _)| node).collect();
    let mut copy = coordinator.clone();
    for _ in 0..healthy.len() * ROUNDS {
        let costs: Vec<(u64, NodeId)> = healthy.iter().map(|n| (cost(&copy, *n), *n)).collect();
        let chosen = copy.choose(Choice::LeastLoaded, healthy.iter().copied());
        check_chosen(&costs, chosen)?;
    }
    Ok(())
}

fn cost(of: &Coordinator, node: NodeId) -> u64 {
    u64::from(of.load(node)) + u64::from(of.under_way(node)) + u64::from(of.charge(node))
}

pub(crate) fn check_chosen(costs: &[(u64, NodeId)], chosen: Option<NodeId>) -> Verdict {
    let least = costs.iter().map(|(cost, _)| *cost).min();
    let cost = costs.iter().find(|(_, node)| Some(*node) == chosen).map(|(cost, _)| *cost);
    if cost == least {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{chosen:?} is chosen, and the costs are {costs:?}")))
}
