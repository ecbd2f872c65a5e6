//! Smaller numbers: what of a plan is made plainer once nothing more can be left out of it.
//!
//! A move is one plan made from another, with one thing less in it; `None` when there is nothing to take. Whether the
//! smaller plan still fails is for the shrinker to find out.

use crate::plan::fault::Fault;
use crate::plan::fault_budget;
use crate::plan::{Heal, Plan};

/// What makes a plan plainer, the boldest first.
pub(crate) type Move = fn(&Plan) -> Option<Plan>;

/// Moves of cluster and workload.
pub(crate) const OF_PLAN: [Move; 12] = [
    |plan| plainer(plan, |plan| plan.heal = Heal::default()),
    |plan| nodes(plan, 3),
    |plan| nodes(plan, plan.cluster.nodes - 1),
    few_clients,
    |plan| plainer(plan, |plan| plan.workload.slots = 1),
    |plan| plainer(plan, |plan| plan.workload.large_ppm = 0),
    |plan| plainer(plan, |plan| plan.workload.eventual_keys = 4),
    |plan| plainer(plan, |plan| plan.cluster.checkpoint_bytes = 1 << 20),
    |plan| plainer(plan, |plan| plan.cluster.retained_bytes_max = 1 << 20),
    |plan| plainer(plan, |plan| plan.cluster.append_bytes_max = 256 << 10),
    |plan| plainer(plan, |plan| plan.cluster.delta_bytes_max = 256 << 10),
    |plan| plainer(plan, |plan| plan.cluster.latency_us_max = plan.cluster.latency_us_min),
];

/// Moves of one fault.
pub(crate) const OF_FAULT: [fn(&Fault) -> Option<Fault>; 7] = [
    |fault| smaller(fault, |fault| fault.for_ms /= 4),
    |fault| smaller(fault, |fault| fault.for_ms = fault.for_ms * 3 / 4),
    |fault| smaller(fault, |fault| fault.nodes.truncate(1)),
    |fault| smaller(fault, |fault| fault.amount = fault.amount.signum()),
    |fault| smaller(fault, |fault| fault.amount /= 2),
    |fault| smaller(fault, |fault| fault.rate_ppm = (fault.rate_ppm / 4).max(1_000)),
    |fault| smaller(fault, |fault| fault.rate_ppm = fault.rate_ppm * 3 / 4),
];

fn plainer(plan: &Plan, change: impl Fn(&mut Plan)) -> Option<Plan> {
    let mut other = plan.clone();
    change(&mut other);
    (other != *plan).then_some(other)
}

/// A fault that strikes nobody by name strikes everybody, so the last name stays.
fn smaller(fault: &Fault, change: impl Fn(&mut Fault)) -> Option<Fault> {
    let mut other = fault.clone();
    change(&mut other);
    let lost = other.rate_ppm > fault.rate_ppm;
    (other != *fault && !lost).then_some(other)
}

fn few_clients(plan: &Plan) -> Option<Plan> {
    let clients = plan.workload.only.as_ref()?.clients();
    plainer(plan, |plan| plan.workload.clients = clients)
}

/// A cluster of so many nodes, if fewer can bear what strikes them. What struck only nodes that are gone is gone.
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
    fn every_move_ends_and_leaves_a_plan_that_can_be_read() {
        for seed in 0..20 {
            let mut plan = Plan::from_seed(seed);
            plan.workload.only = Some([(0, 1), (2, 5)].into_iter().collect());
            for (number, make) in OF_PLAN.iter().enumerate() {
                let mut steps = 0;
                while let Some(smaller) = make(&plan) {
                    assert_eq!(Plan::parse(&smaller.to_toml()), Ok(smaller.clone()));
                    (plan, steps) = (smaller, steps + 1);
                    assert!(steps < 20, "move {number} of seed {seed}");
                }
            }
            let breaks = plan.faults.iter().any(|fault| fault.kind.breaks_model());
            assert!(plan.cluster.nodes == 1 || breaks, "seed {seed}");
            assert_eq!(plan.heal, Heal::default());
            assert_eq!(plan.workload.clients, 3);
        }
    }

    #[test]
    fn every_move_of_a_fault_ends() {
        for fault in (0..50).flat_map(|seed| Plan::from_seed(seed).faults) {
            for (number, make) in OF_FAULT.iter().enumerate() {
                let (mut fault, mut steps) = (fault.clone(), 0);
                while let Some(smaller) = make(&fault) {
                    (fault, steps) = (smaller, steps + 1);
                    assert!(steps < 100, "move {number} of {fault:?}");
                }
            }
        }
    }
}
