//! Shrinking: of a plan that breaks a law, a smaller one that breaks the same law.
//!
//! First the time after the violation is cut off, then delta debugging leaves out faults, clients and operations, then
//! numbers become smaller; again and again, until a round takes nothing away or the budget is spent. Chance is by
//! position, so what is left behaves as before until something that was left out is missed. Where that leaves too much
//! (one message in a thousand is struck, so a thousand are needed), parts of it are tried with other chances and
//! stronger faults: first in large pieces, while much is left, since each run of little is soon over. A run is judged
//! by the name of the law alone; a panic by its place as well. How a plan is told is not here.

mod ddmin;
mod numbers;

use crate::env::clock::MS;
use crate::plan::Plan;
use crate::plan::fault::{Fault, Kind};
use crate::plan::selected_ops::SelectedOps;
use crate::rng::{Draws, stream};
use crate::run::{self, Failure};

use ddmin::ddmin;

/// What a shrunk plan has at most, or other chances are tried.
pub const FAULTS_GOAL: usize = 10;
/// As [`FAULTS_GOAL`], for operations.
pub const OPERATIONS_GOAL: usize = 30;
/// A plan with more than that first loses parts of this fraction, at least: one that hangs on much chance loses nothing
/// to a finer search either, and most of the time to it.
const COARSE_PARTS: usize = 8;
/// Other chances that are tried in a row before a finer search ..
const CHANCES_FEW: u64 = 200;
/// .. and after it.
const CHANCES_MAX: u64 = 500;
/// While things are left out a violation may come so much later than before.
const SLACK_MS: u64 = 3_000;
/// No fault strikes more often: some messages have to get through.
const RATE_PPM_MAX: u64 = 600_000;

/// How far a shrinking is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Runs so far.
    pub runs: u64,
    /// Faults that are left.
    pub faults: usize,
    /// Operations that are left.
    pub operations: usize,
}

/// What a plan was shrunk to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// The law.
    pub oracle: String,
    /// Before and after.
    pub before: Progress,
    /// Before and after.
    pub after: Progress,
}

/// Shrinks a plan. Before each run `goes_on` is asked whether there may be one more. `None` when the plan breaks no
/// law.
pub fn shrink(plan: &Plan, mut goes_on: impl FnMut(Progress) -> bool) -> Option<Shrunk> {
    let mut shrinker = Shrinker::new(plan, &mut goes_on)?;
    let before = shrinker.progress();
    shrinker.shrink();
    let after = shrinker.progress();
    let Shrinker { plan, failure, .. } = shrinker;
    Some(Shrunk { plan, oracle: failure.oracle.to_owned(), before, after })
}

struct Shrinker<'a> {
    /// The smallest plan so far that fails.
    plan: Plan,
    /// How it fails.
    failure: Failure,
    /// What is wanted of a failure.
    wanted: String,
    /// Whether it has to fail before healing: then no run is longer than that.
    is_early: bool,
    runs: u64,
    spent: bool,
    goes_on: &'a mut dyn FnMut(Progress) -> bool,
}

impl<'a> Shrinker<'a> {
    fn new(plan: &Plan, goes_on: &'a mut dyn FnMut(Progress) -> bool) -> Option<Self> {
        let failure = run::fail(plan, u64::MAX)?;
        let mut shrinker = Self {
            plan: plan.clone(),
            wanted: key(&failure),
            is_early: failure.at_ns < plan.heal_ms() * MS,
            failure,
            runs: 1,
            spent: false,
            goes_on,
        };
        shrinker.name_operations();
        Some(shrinker)
    }

    fn progress(&self) -> Progress {
        let operations = self.plan.workload.only.as_ref().map_or(0, SelectedOps::len);
        Progress { runs: self.runs, faults: self.plan.faults.len(), operations }
    }

    /// From here on the plan lists its operations: those that began before it failed.
    fn name_operations(&mut self) {
        let mut plan = self.plan.clone();
        plan.workload.only = Some(self.failure.asked.clone());
        if !self.is_early {
            // The run went on until there were enough of them: let it heal after those that there were.
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

    /// Runs a plan, and takes it when it fails as it should.
    fn takes(&mut self, plan: Plan) -> bool {
        let progress = self.progress();
        self.spent = self.spent || !(self.goes_on)(progress);
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
            // An operation that was missed, or never came, is none.
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
                if self.halve(CHANCES_FEW) {
                    continue;
                }
            }
            self.leave_out(usize::MAX);
            self.make_plainer();
            self.shrink_faults();
            self.cut_time(0);
            if self.spent || self.plan == before && !self.halve(CHANCES_MAX) {
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

    /// While too much is left: some part of it, with other chances and stronger faults.
    fn halve(&mut self, chances: u64) -> bool {
        if !self.is_large() {
            return false;
        }
        let Progress { faults, operations, .. } = self.progress();
        (1..=chances).any(|salt| {
            let plan = self.part(salt, faults > FAULTS_GOAL, operations > OPERATIONS_GOAL);
            let left = plan.workload.only.as_ref().map_or(0, SelectedOps::len) + plan.faults.len();
            left < faults + operations && self.takes(plan)
        })
    }

    fn part(&self, salt: u64, of_faults: bool, of_operations: bool) -> Plan {
        let mut plan = self.plan.clone();
        let seed = plan.seed.wrapping_add(salt);
        let draws = Draws::new(seed);
        let mut place = 0;
        let share_ppm = [500_000, 250_000, 750_000][salt as usize % 3];
        let mut keeps = |label, all: bool| {
            place += 1;
            all || draws.chance(stream(label, 0), place, share_ppm)
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

    /// Nothing that begins later can have had a part in it.
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

    /// What is found after healing is found sooner when healing comes sooner.
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
        // Places of all clients are about as far apart in time: this is nearly the order of the calls.
        operations.sort_by_key(|(client, place)| (*place, *client));
        ddmin(operations, parts, |operations| self.keeps(operations.iter().copied().collect()));
    }

    fn keeps(&mut self, only: SelectedOps) -> bool {
        let mut plan = self.plan.clone();
        plan.workload.only = Some(only);
        self.takes(plan)
    }

    fn make_plainer(&mut self) {
        for make in numbers::OF_PLAN {
            while let Some(plan) = make(&self.plan) {
                if !self.takes(plan) {
                    break;
                }
            }
        }
    }

    fn shrink_faults(&mut self) {
        for make in numbers::OF_FAULT {
            for at in 0..self.plan.faults.len() {
                while let Some(smaller) = make(&self.plan.faults[at]) {
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

/// No fault lasts beyond healing.
fn clip(fault: &mut Fault, heal_ms: u64) {
    fault.for_ms = fault.for_ms.min(heal_ms - fault.at_ms);
}

/// What two failures have in common when they are the same.
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
    fn what_holds_is_not_shrunk() {
        let mut plan = Plan::from_seed(1);
        (plan.fault_ms, plan.workload.operations_min) = (0, 0);
        plan.faults.clear();
        assert!(shrink(&plan, |_| true).is_none());
    }
}
