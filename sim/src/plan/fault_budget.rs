//! The fault budget: which nodes may suffer faults that break the model, so that the federation must recover.
//!
//! # The budget
//!
//! Raft promises nothing once a voter forgets what it promised. So a voter that may have forgotten counts as lost for
//! good. All groups have the same voters. Of `2f + 1` voters at most `f` are ever struck, whatever the faults and
//! however often: the others are a quorum of voters whose disks kept every promise. Nobody counts the promises of
//! learners, so all learners may be struck.
//!
//! The nodes that may be struck are drawn once per seed, and each fault draws among those. So removing a fault from a
//! plan changes no other fault, and each part of a plan keeps the budget of the whole.
//!
//! # The healed core
//!
//! When faults are over, some nodes (the core) are healthy for good, and nothing more is asked of the rest. The core
//! holds a quorum of voters that no such fault may strike. A bridged rest exchanges messages with one node of the core
//! only. Then the voters of the rest and that bridge must not be a quorum: they could elect a leader that the rest of
//! the core does not hear, and the bridge, which does hear it, would keep the core from electing another. Raft would
//! serve the outside.

use crate::plan::fault::{Fault, Kind};
use crate::plan::{Cluster, Heal, Plan, Rest};
use crate::rng::Dice;

/// The nodes that may suffer faults which break the model.
#[derive(Clone, Debug)]
pub(crate) struct FaultBudget {
    victims: Vec<usize>,
}

/// The number of voters that may be struck.
const fn struck_max(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
}

const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

impl FaultBudget {
    pub(crate) fn draw(cluster: &Cluster, dice: &mut Dice) -> Self {
        let mut voters: Vec<usize> = (0..cluster.voters).collect();
        let mut victims: Vec<usize> = (cluster.voters..cluster.nodes).collect();
        for _ in 0..struck_max(cluster.voters) {
            victims.push(voters.swap_remove(dice.below(voters.len() as u64) as usize));
        }
        Self { victims }
    }

    /// One of the nodes that may be struck; empty when there is none.
    pub(crate) fn victim(&self, dice: &mut Dice) -> Vec<usize> {
        if self.victims.is_empty() { Vec::new() } else { vec![*dice.pick(&self.victims)] }
    }

    /// Which nodes are healed at the end, and the state of the rest.
    pub(crate) fn heal(&self, cluster: &Cluster, dice: &mut Dice) -> Heal {
        let Cluster { nodes, voters, .. } = *cluster;
        let mut core: Vec<usize> = (0..voters).filter(|v| !self.victims.contains(v)).collect();
        let everybody = dice.chance(500_000);
        let joins = dice.bits();
        core.extend(self.victims.iter().filter(|node| everybody || joins >> **node & 1 == 1));
        core.sort_unstable();
        let outside = (0..voters).filter(|voter| !core.contains(voter)).count();
        let rest = *dice.pick(&[Rest::Dead, Rest::Isolated, Rest::OneWay, Rest::Bridged]);
        let too_many = rest == Rest::Bridged && outside + 1 >= quorum(voters);
        let rest = if too_many { Rest::Isolated } else { rest };
        if core.len() == nodes { Heal::default() } else { Heal { core, rest } }
    }
}

/// Checks that a plan keeps the budget and that its core can make progress.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    let Cluster { nodes, voters, .. } = plan.cluster;
    let breaking = || plan.faults.iter().filter(|fault| fault.kind.breaks_model());
    if let Some(fault) = breaking().find(|fault| fault.nodes.is_empty()) {
        return Err(format!("a {} fault must name the nodes that it strikes", fault.kind.name()));
    }
    let struck = |node: &usize| breaking().any(|fault| fault.nodes.contains(node));
    let lost = (0..voters).filter(struck).count();
    if lost > struck_max(voters) {
        return Err(format!(
            "{lost} of {voters} voters may lose what they promised: at most {} may",
            struck_max(voters)
        ));
    }
    let votes = |fault: &&Fault| fault.kind == Kind::Add && fault.nodes.iter().any(|n| *n < voters);
    if let Some(fault) = plan.faults.iter().find(votes) {
        return Err(format!("an `add` fault must name learners only, not {:?}", fault.nodes));
    }
    let core = plan.heal.members(nodes);
    if let Some(node) = core.iter().find(|node| **node >= nodes) {
        return Err(format!(
            "the core names node {node}, which does not exist: there are {nodes} nodes"
        ));
    }
    let sound = core.iter().filter(|node| **node < voters && !struck(node)).count();
    if sound < quorum(voters) {
        return Err(format!("the core has {sound} sound voters of {voters}, which is no quorum"));
    }
    let outside = (0..voters).filter(|voter| !core.contains(voter)).count();
    if plan.heal.rest == Rest::Bridged && core.len() < nodes && outside + 1 >= quorum(voters) {
        return Err(format!(
            "{outside} voters outside the core and the bridge are a quorum: they could elect a leader"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_and_each_part_of_it_keeps_the_budget() {
        for seed in 0..3_000 {
            let mut plan = Plan::from_seed(seed);
            assert_eq!(check(&plan), Ok(()), "seed {seed}");
            while plan.faults.len() > 1 {
                let half = plan.faults.len() / 2;
                plan.faults.drain(..half);
                assert_eq!(check(&plan), Ok(()), "seed {seed}, the last {}", plan.faults.len());
            }
        }
    }

    #[test]
    fn some_cores_are_whole_and_each_state_of_the_rest_occurs() {
        let heals: Vec<Heal> = (0..1_000).map(|seed| Plan::from_seed(seed).heal).collect();
        let whole = heals.iter().filter(|heal| heal.core.is_empty()).count();
        assert!((500..800).contains(&whole), "{whole}");
        for rest in [Rest::Dead, Rest::Isolated, Rest::OneWay, Rest::Bridged] {
            let some = heals.iter().filter(|heal| !heal.core.is_empty() && heal.rest == rest);
            assert!(some.count() > 30, "{rest:?}");
        }
    }

    #[test]
    fn a_plan_past_the_budget_is_refused() {
        let mut plan = Plan::from_seed(1);
        (plan.cluster.nodes, plan.cluster.voters) = (4, 3);
        (plan.faults, plan.heal) = (Vec::new(), Heal::default());
        assert_eq!(check(&plan), Ok(()));
        let wipe = |node: usize| Fault {
            kind: Kind::Wipe,
            at_ms: 1,
            for_ms: 1,
            nodes: vec![node],
            rate_ppm: 0,
            amount: 0,
        };
        plan.faults = vec![wipe(0), wipe(0), wipe(3)];
        assert_eq!(check(&plan), Ok(()));
        plan.heal = Heal { core: vec![0, 1], rest: Rest::Dead };
        assert!(check(&plan).is_err(), "one of the two voters may be lost");
        plan.heal = Heal { core: vec![1, 2], rest: Rest::Bridged };
        assert!(check(&plan).is_err(), "the bridge and the voter outside are a quorum");
        plan.heal = Heal::default();
        plan.faults.push(wipe(1));
        assert!(check(&plan).is_err(), "two of three voters");
        plan.faults = vec![Fault { nodes: Vec::new(), ..wipe(0) }];
        assert!(check(&plan).is_err(), "no node is named");
        plan.faults = vec![Fault { kind: Kind::Add, ..wipe(2) }];
        assert!(check(&plan).is_err(), "a voter joins");
    }
}
