//! Choice: of members that are well, a node chooses the cheapest by reported load, own requests under way and failures
//! (this project's design, section 5, coordinator; the own part is what keeps all from running to one reported
//! minimum).
//!
//! Asked of a copy of each node's coordinator with each link of the trace: the rule binds whether or not a request
//! happens to need it.

use continuum_core::api::Health;
use continuum_core::coordinator::{Choice, Coordinator};
use continuum_core::id::NodeId;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "cheapest-is-chosen";
/// Choices in a row, for each candidate.
const ROUNDS: usize = 3;

/// Looks at the choices that a node would make now.
pub(crate) fn check(coordinator: &Coordinator) -> Verdict {
    let registered = coordinator.registered();
    let well: Vec<NodeId> =
        registered.filter(|(_, health)| *health == Health::Healthy).map(|(node, _)| node).collect();
    let mut asked = coordinator.clone();
    for _ in 0..well.len() * ROUNDS {
        let costs: Vec<(u64, NodeId)> = well.iter().map(|n| (cost(&asked, *n), *n)).collect();
        let chosen = asked.choose(Choice::LeastLoaded, well.iter().copied());
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
    Err(Broken::new(NAME, format!("of {costs:?} {chosen:?} is chosen")))
}
