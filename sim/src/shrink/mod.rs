//! Shrinking: turns a plan that breaks a law into a smaller one that breaks the same law.
//!
//! A round cuts off the time after the violation, then leaves out faults, clients and operations by delta debugging,
//! then makes numbers smaller. Rounds repeat until one takes nothing away or the budget is spent. Random numbers are
//! drawn by position, so the rest of a plan behaves as before until it misses something that was left out. If too much
//! remains (when a fault strikes one message in a thousand, a thousand are needed), parts of the plan are tried with
//! other seeds and stronger faults. Large parts are tried first, because a run of a small plan is short.
//!
//! Two runs fail alike if they break the same law; panics must also be at the same place in the code. This module does
//! not write plans or pictures.

mod ddmin;
mod numbers;

use crate::env::clock::MS;
use crate::plan::Plan;
use crate::plan::fault::{Fault, Kind};
use crate::plan::selected_ops::SelectedOps;
use crate::rng::{Draws, stream};
use crate::run::{self, Failure};

use ddmin::ddmin;

/// A plan with more faults than this is tried with other seeds.
pub const FAULTS_GOAL: usize = 10;
/// A plan with more operations than this is tried with other seeds.
pub const OPERATIONS_GOAL: usize = 30;
/// A plan above a goal is first searched in parts of at least one eighth: if its failure depends on many random draws,
/// a finer search finds nothing more and takes most of the time.
const COARSE_PARTS: usize = 8;
/// Seeds that are tried in a row before the finer search.
const SEEDS_BEFORE: u64 = 200;
/// Seeds that are tried in a row after the finer search.
const SEEDS_AFTER: u64 = 500;
/// While parts are left out, the violation may come this much later than before.
const SLACK_MS: u64 = 3_000;
/// The highest rate of a fault: some messages must get through.
const RATE_PPM_MAX: u64 = 600_000;

/// The progress of a shrinking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Runs so far.
    pub runs: u64,
    /// Faults that are left.
    pub faults: usize,
    /// Operations that are left.
    pub operations: usize,
}

/// The result of a shrinking.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The shrunk plan.
    pub plan: Plan,
    /// The law that it breaks.
    pub oracle: String,
    /// The size of the original plan.
    pub before: Progress,
    /// The size of the shrunk plan, and the runs that it took.
    pub after: Progress,
}

/// Shrinks a plan. `continues` is called before each run and returns whether one more run is allowed. `None` if the
/// plan breaks no law.
pub fn shrink(plan: &Plan, mut continues: impl FnMut(Progress) -> bool) -> Option<Shrunk> {
    let mut shrinker = Shrinker::new(plan, &mut continues)?;
    let before = shrinker.progress();
    shrinker.shrink();
    let after = shrinker.progress();
    let Shrinker { plan, failure, .. } = shrinker;
    Some(Shrunk { plan, oracle: failure.oracle.to_owned(), before, after })
}

struct Shrinker<'a> {
    /// The smallest failing plan so far.
    plan: Plan,
    /// How this plan fails.
    failure: Failure,
    /// The key that a failure must have.
    wanted: String,
    /// The failure comes before healing, so runs end at healing.
    is_early: bool,
    runs: u64,
    spent: bool,
    continues: &'a mut dyn FnMut(Progress) -> bool,
}

impl<'a> Shrinker<'a> {
    fn new(plan: &Plan, continues: &'a mut dyn FnMut(Progress) -> bool) -> Option<Self> {
        let failure = run::fail(plan, u64::MAX)?;
        let mut shrinker = Self {
            plan: plan.clone(),
            wanted: key(&failure),
            is_early: failure.at_ns < plan.heal_ms() * MS,
            failure,
            runs: 1,
            spent: false,
            continues,
        };
        shrinker.name_operations();
        Some(shrinker)
    }

    fn progress(&self) -> Progress {
        let operations = self.plan.workload.only.as_ref().map_or(0, SelectedOps::len);
        Progress { runs: self.runs, faults: self.plan.faults.len(), operations }
    }

    /// Makes the plan list its operations: those that began before it failed.
    fn name_operations(&mut self) {
        let mut plan = self.plan.clone();
        plan.workload.only = Some(self.failure.asked.clone());
        if !self.is_early {
            // The run continued until enough operations were done: let it heal after the last that began.
            let last_ms = self.failure.asked_at_ns / MS + 1;
            plan.fault_ms = plan.fault_ms.max(last_ms.saturating_sub(plan.calm_ms));
        }
        plan.workload.operations_min = 0;
        if !self.takes(plan.clone()) {
            plan.workload.operations_min = self.plan.workload.operations_min;
            plan.fault_ms = self.plan.fault_ms;
            self.takes(plan);
        }
    }

    /// Runs a plan, and takes it if it fails with the wanted key.
    fn takes(&mut self, plan: Plan) -> bool {
        let progress = self.progress();
        self.spent = self.spent || !(self.continues)(progress);
        if self.spent {
            return false;
        }
        self.runs += 1;
        let until_ns = if self.is_early { plan.heal_ms() * MS } else { u64::MAX };
        let Some(failure) = run::fail(&plan, until_ns) else { return false };
        if key(&failure) != self.wanted {
            return false;
        }
        self.plan = plan;
        if self.plan.workload.only.is_some() {
            // An operation that never began is not part of the plan.
            self.plan.workload.only = Some(failure.asked.clone());
        }
        self.failure = failure;
        true
    }

    fn shrink(&mut self) {
        loop {
            let before = self.plan.clone();
            self.cut_time(SLACK_MS);
            if self.is_large() {
                self.leave_out(COARSE_PARTS);
                if self.try_other_seeds(SEEDS_BEFORE) {
                    continue;
                }
            }
            self.leave_out(usize::MAX);
            self.simplify();
            self.shrink_faults();
            self.cut_time(0);
            if self.spent || self.plan == before && !self.try_other_seeds(SEEDS_AFTER) {
                return;
            }
        }
    }

    fn leave_out(&mut self, parts: usize) {
        self.leave_out_faults(parts);
        self.leave_out_clients(parts);
        self.leave_out_operations(parts);
    }

    fn is_large(&self) -> bool {
        let Progress { faults, operations, .. } = self.progress();
        faults > FAULTS_GOAL || operations > OPERATIONS_GOAL
    }

    /// Tries parts of a plan above its goals with other seeds and stronger faults; true if one fails.
    fn try_other_seeds(&mut self, seeds: u64) -> bool {
        if !self.is_large() {
            return false;
        }
        let Progress { faults, operations, .. } = self.progress();
        (1..=seeds).any(|salt| {
            let plan = self.part(salt, faults > FAULTS_GOAL, operations > OPERATIONS_GOAL);
            let left = plan.workload.only.as_ref().map_or(0, SelectedOps::len) + plan.faults.len();
            left < faults + operations && self.takes(plan)
        })
    }

    fn part(&self, salt: u64, of_faults: bool, of_operations: bool) -> Plan {
        let mut plan = self.plan.clone();
        let seed = plan.seed.wrapping_add(salt);
        let draws = Draws::new(seed);
        let mut k = 0;
        let share_ppm = [500_000, 250_000, 750_000][salt as usize % 3];
        let mut keeps = |label, all: bool| {
            k += 1;
            all || draws.chance(stream(label, 0), k, share_ppm)
        };
        plan.faults.retain(|_| keeps("shrink.fault", !of_faults));
        let only = plan.workload.only.iter().flat_map(SelectedOps::iter);
        let only = only.filter(|_| keeps("shrink.operation", !of_operations)).collect();
        plan.workload.only = Some(only);
        plan.seed = seed;
        plan.fault_ms += if self.is_early { SLACK_MS } else { 0 };
        if salt % 2 == 1 {
            for fault in plan.faults.iter_mut().filter(|fault| fault.rate_ppm > 0) {
                fault.rate_ppm = (fault.rate_ppm * 4).min(RATE_PPM_MAX);
            }
        }
        plan
    }

    /// Cuts off the time after the violation: what begins later cannot have caused it.
    fn cut_time(&mut self, slack_ms: u64) {
        if !self.is_early {
            return self.heal_earlier();
        }
        let end_ms = self.failure.at_ns / MS + 1 + slack_ms;
        let mut plan = self.plan.clone();
        plan.fault_ms = end_ms.saturating_sub(plan.calm_ms);
        let heal_ms = plan.heal_ms();
        plan.faults.retain(|fault| fault.at_ms < heal_ms);
        plan.faults.iter_mut().for_each(|fault| clip(fault, heal_ms));
        if plan != self.plan {
            self.takes(plan);
        }
    }

    /// Makes healing earlier, because a violation after healing then comes earlier too.
    fn heal_earlier(&mut self) {
        for numerator in [1, 2, 3] {
            loop {
                let mut plan = self.plan.clone();
                plan.fault_ms = plan.fault_ms * numerator / 4;
                let heal_ms = plan.heal_ms();
                plan.faults.retain(|fault| fault.at_ms < heal_ms);
                plan.faults.iter_mut().for_each(|fault| clip(fault, heal_ms));
                if plan == self.plan || !self.takes(plan) {
                    break;
                }
            }
        }
    }

    fn leave_out_faults(&mut self, parts: usize) {
        let faults = self.plan.faults.clone();
        let mut kinds: Vec<Kind> = faults.iter().map(|fault| fault.kind).collect();
        kinds.sort();
        kinds.dedup();
        ddmin(kinds, parts, |kinds| {
            let of_kinds = faults.iter().filter(|fault| kinds.contains(&fault.kind));
            let plan = Plan { faults: of_kinds.cloned().collect(), ..self.plan.clone() };
            self.takes(plan)
        });
        let mut faults = self.plan.faults.clone();
        faults.sort_by_key(|fault| fault.at_ms);
        ddmin(faults, parts, |faults| {
            let plan = Plan { faults: faults.to_vec(), ..self.plan.clone() };
            self.takes(plan)
        });
    }

    fn leave_out_clients(&mut self, parts: usize) {
        let Some(only) = self.plan.workload.only.clone() else { return };
        let mut clients: Vec<usize> = only.iter().map(|(client, _)| client).collect();
        clients.dedup();
        ddmin(clients, parts, |clients| {
            self.keeps(only.iter().filter(|(client, _)| clients.contains(client)).collect())
        });
    }

    fn leave_out_operations(&mut self, parts: usize) {
        let Some(only) = &self.plan.workload.only else { return };
        let mut operations: Vec<(usize, u64)> = only.iter().collect();
        // All clients call at about the same rate, so this is nearly the order of the calls.
        operations.sort_by_key(|(client, index)| (*index, *client));
        ddmin(operations, parts, |operations| self.keeps(operations.iter().copied().collect()));
    }

    fn keeps(&mut self, only: SelectedOps) -> bool {
        let mut plan = self.plan.clone();
        plan.workload.only = Some(only);
        self.takes(plan)
    }

    fn simplify(&mut self) {
        for step in numbers::OF_PLAN {
            while let Some(plan) = step(&self.plan) {
                if !self.takes(plan) {
                    break;
                }
            }
        }
    }

    fn shrink_faults(&mut self) {
        for step in numbers::OF_FAULT {
            for at in 0..self.plan.faults.len() {
                while let Some(smaller) = step(&self.plan.faults[at]) {
                    let mut plan = self.plan.clone();
                    plan.faults[at] = smaller;
                    if !self.takes(plan) {
                        break;
                    }
                }
            }
        }
    }
}

/// Ends a fault at healing.
fn clip(fault: &mut Fault, heal_ms: u64) {
    fault.for_ms = fault.for_ms.min(heal_ms - fault.at_ms);
}

/// The key of a failure; equal keys mean the same failure.
fn key(failure: &Failure) -> String {
    // "panicked at core/src/raft/mod.rs:1:2: ..."
    let place = failure.what.split_whitespace().nth(2).unwrap_or_default();
    match failure.oracle {
        run::NO_PANIC => format!("{} {place}", failure.oracle),
        oracle => oracle.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_breaks_no_law_is_not_shrunk() {
        let mut plan = Plan::from_seed(1);
        (plan.fault_ms, plan.workload.operations_min) = (0, 0);
        plan.faults.clear();
        assert!(shrink(&plan, |_| true).is_none());
    }
}
