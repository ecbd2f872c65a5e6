//! `sim run`, `sim replay` and `sim plan`: one run or its plan.

use std::ops::Range;
use std::path::Path;

use continuum_core::mark::instrument;
use continuum_sim::campaign::summary::Summary;
use continuum_sim::plan::Plan;
use continuum_sim::report::explain;
use continuum_sim::run;

use super::{campaign, conclude, flag, print, read_plan, say};
use crate::stopwatch::Stopwatch;

/// Runs one seed.
pub(crate) fn run(seed: u64, once: bool, mutant: Option<String>) -> Result<bool, String> {
    let replay = format!("sim run --seed {seed}{}", flag("--mutant", mutant.as_deref()));
    let campaign = campaign(mutant, once, 1)?;
    let watch = Stopwatch::start();
    let mut summary = Summary::default();
    campaign.run(std::iter::once(seed..seed + 1), |record| {
        summary.add(&record);
        if record.violation.is_some() {
            say(&explain(&record, &replay));
        }
    })?;
    say(&summary.to_table());
    Ok(conclude("run", &summary, watch.seconds(), true))
}

/// Prints the steps in a range of virtual time as text.
pub(crate) fn print_steps(
    plan: &Plan,
    mutant: Option<&str>,
    stretch_ms: Range<u64>,
) -> Result<bool, String> {
    run::hush_panics();
    if !instrument::activate(mutant) {
        return Err(format!(
            "no mutant is called {}; `sim mutants` lists them",
            mutant.unwrap_or_default()
        ));
    }
    run::describe(plan, stretch_ms).iter().for_each(|step| print(step));
    Ok(true)
}

/// Runs a plan from a file.
pub(crate) fn replay(file: &Path, once: bool, mutant: Option<String>) -> Result<bool, String> {
    read_plan(file)?;
    let replay = format!("sim replay {}{}", file.display(), flag("--mutant", mutant.as_deref()));
    let campaign = campaign(mutant, once, 1)?;
    let watch = Stopwatch::start();
    let record = campaign.replay(file)?;
    let mut summary = Summary::default();
    summary.add(&record);
    if record.violation.is_some() {
        say(&explain(&record, &replay));
    }
    say(&summary.to_table());
    Ok(conclude("replay", &summary, watch.seconds(), true))
}

/// Prints the plan of a seed.
pub(crate) fn plan(seed: u64) -> Result<bool, String> {
    let text = Plan::from_seed(seed).to_toml();
    Plan::parse(&text)?;
    print(&text);
    Ok(true)
}
