//! Smaller numbers: simplifies a plan from which nothing more can be left out.
//!
//! A simplification makes a plan from another and changes one thing; `None` if there is nothing to change. This module
//! does not know whether the simpler plan still fails: the shrinker runs it.

use crate::plan::fault::Fault;
use crate::plan::fault_budget;
use crate::plan::{Heal, Plan};

/// Makes a simpler plan.
pub(crate) type Simplify = fn(&Plan) -> Option<Plan>;

/// Simplifications of cluster and workload, the largest first.
pub(crate) const OF_PLAN: [Simplify; 12] = [
    |plan| changed(plan, |plan| plan.heal = Heal::default()),
    |plan| nodes(plan, 3),
    |plan| nodes(plan, plan.cluster.nodes - 1),
    few_clients,
    |plan| changed(plan, |plan| plan.workload.slots = 1),
    |plan| changed(plan, |plan| plan.workload.large_ppm = 0),
    |plan| changed(plan, |plan| plan.workload.eventual_keys = 4),
    |plan| changed(plan, |plan| plan.cluster.checkpoint_bytes = 1 << 20),
    |plan| changed(plan, |plan| plan.cluster.retained_bytes_max = 1 << 20),
    |plan| changed(plan, |plan| plan.cluster.append_bytes_max = 256 << 10),
    |plan| changed(plan, |plan| plan.cluster.delta_bytes_max = 256 << 10),
    |plan| changed(plan, |plan| plan.cluster.latency_us_max = plan.cluster.latency_us_min),
];

/// Simplifications of one fault.
pub(crate) const OF_FAULT: [fn(&Fault) -> Option<Fault>; 7] = [
    |fault| smaller(fault, |fault| fault.for_ms /= 4),
    |fault| smaller(fault, |fault| fault.for_ms = fault.for_ms * 3 / 4),
    |fault| smaller(fault, |fault| fault.nodes.truncate(1)),
    |fault| smaller(fault, |fault| fault.amount = fault.amount.signum()),
    |fault| smaller(fault, |fault| fault.amount /= 2),
    |fault| smaller(fault, |fault| fault.rate_ppm = (fault.rate_ppm / 4).max(1_000)),
    |fault| smaller(fault, |fault| fault.rate_ppm = fault.rate_ppm * 3 / 4),
];

fn changed(plan: &Plan, change: impl Fn(&mut Plan)) -> Option<Plan> {
    let mut other = plan.clone();
    change(&mut other);
    (other != *plan).then_some(other)
}

/// A fault with a change. A fault that names no node strikes all, so a change never removes the last name.
fn smaller(fault: &Fault, change: impl Fn(&mut Fault)) -> Option<Fault> {
    let mut other = fault.clone();
    change(&mut other);
    let is_stronger = other.rate_ppm > fault.rate_ppm;
    (other != *fault && !is_stronger).then_some(other)
}

fn few_clients(plan: &Plan) -> Option<Plan> {
    let clients = plan.workload.only.as_ref()?.clients();
    changed(plan, |plan| plan.workload.clients = clients)
}

/// A cluster of `nodes` nodes, if the fault budget allows it. Faults that named only removed nodes are removed.
fn nodes(plan: &Plan, nodes: usize) -> Option<Plan> {
    if nodes == 0 || nodes >= plan.cluster.nodes {
        return None;
    }
    let mut plan = plan.clone();
    plan.cluster.nodes = nodes;
    plan.cluster.voters = plan.cluster.voters.min(nodes);
    plan.heal.core.retain(|node| *node < nodes);
    plan.faults.retain_mut(|fault| {
        let struck_all = fault.nodes.is_empty();
        fault.nodes.retain(|node| *node < nodes);
        struck_all || !fault.nodes.is_empty()
    });
    fault_budget::check(&plan).is_ok().then_some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_simplification_ends_with_a_valid_plan() {
        for seed in 0..20 {
            let mut plan = Plan::from_seed(seed);
            plan.workload.only = Some([(0, 1), (2, 5)].into_iter().collect());
            for (number, simplify) in OF_PLAN.iter().enumerate() {
                let mut steps = 0;
                while let Some(smaller) = simplify(&plan) {
                    assert_eq!(Plan::parse(&smaller.to_toml()), Ok(smaller.clone()));
                    (plan, steps) = (smaller, steps + 1);
                    assert!(steps < 20, "simplification {number} of seed {seed}");
                }
            }
            let breaks = plan.faults.iter().any(|fault| fault.kind.breaks_model());
            assert!(plan.cluster.nodes == 1 || breaks, "seed {seed}");
            assert_eq!(plan.heal, Heal::default());
            assert_eq!(plan.workload.clients, 3);
        }
    }

    #[test]
    fn every_simplification_of_a_fault_ends() {
        for fault in (0..50).flat_map(|seed| Plan::from_seed(seed).faults) {
            for (number, simplify) in OF_FAULT.iter().enumerate() {
                let (mut fault, mut steps) = (fault.clone(), 0);
                while let Some(smaller) = simplify(&fault) {
                    (fault, steps) = (smaller, steps + 1);
                    assert!(steps < 100, "simplification {number} of {fault:?}");
                }
            }
        }
    }
}
