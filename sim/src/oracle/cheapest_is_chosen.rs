//! Law: of the healthy members a node chooses the cheapest; cost is reported load, plus the node's own requests under
//! way there, plus its charge for failures (contract of `core::coordinator`; the node's own share keeps all nodes from
//! choosing the same reported minimum).
//!
//! Compares the choices of a copy of each node's coordinator with the costs that it reports, with each digest of the
//! trace, so that the rule is tested even when no request needs a choice. The parts of a cost are judged by what the
//! simulator itself counts: a load is one that the member reported, the node's own requests to members are no more than
//! the requests that it has, and only a member that it sent a request to is charged for failures. It does not judge
//! choices among unhealthy members, nor how fast a charge falls.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::Health;
use continuum_core::coordinator::{Choice, Coordinator};
use continuum_core::gossip;
use continuum_core::id::NodeId;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "cheapest-is-chosen";
/// Consecutive choices per candidate.
const ROUNDS: usize = 3;

/// The loads that members report.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    reported: BTreeMap<NodeId, BTreeSet<u32>>,
}

impl Loads {
    /// Notes the load that a node reports of itself in a message.
    pub(crate) fn reports(&mut self, from: NodeId, message: &gossip::Message) {
        for load in message.loads.iter().filter(|load| load.node == from) {
            self.reported.entry(from).or_default().insert(load.requests);
        }
    }

    fn has(&self, node: NodeId, load: u32) -> bool {
        load == 0 || self.reported.get(&node).is_some_and(|loads| loads.contains(&load))
    }
}

/// The requests of one node, as the simulator counts them.
pub(crate) struct Asked<F: Fn(NodeId) -> bool> {
    /// All that wait for an answer.
    pub(crate) open: usize,
    /// Whether the node's process ever sent one to a member.
    pub(crate) asked: F,
}

/// Judges the parts of the costs that a node reports now. `loads` is `None` if somebody may have forged one.
pub(crate) fn check_costs(
    coordinator: &Coordinator,
    loads: Option<&Loads>,
    asked: &Asked<impl Fn(NodeId) -> bool>,
) -> Verdict {
    let mut under_way = 0;
    for (node, _) in coordinator.registered() {
        let load = coordinator.load(node);
        if loads.is_some_and(|loads| !loads.has(node, load)) {
            return Err(Broken::new(NAME, format!("{node} never reported the load {load}")));
        }
        let charge = coordinator.charge(node);
        if charge > 0 && !(asked.asked)(node) {
            let what = format!("{node} is charged {charge}, and was never asked");
            return Err(Broken::new(NAME, what));
        }
        under_way += coordinator.under_way(node) as usize;
    }
    if under_way <= asked.open {
        return Ok(());
    }
    let what = format!("{under_way} requests are under way, and {} wait for answers", asked.open);
    Err(Broken::new(NAME, what))
}

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
