//! `sim worker`: what a campaign starts of itself. Not for people.

use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use continuum_core::mark::instrument;
use continuum_sim::plan::Plan;
use continuum_sim::report::Record;
use continuum_sim::run;

use super::{print, read_plan};

/// Runs seeds or a plan in this process, and prints one record a line.
pub(crate) fn worker(
    seeds: Option<Range<u64>>,
    file: Option<&Path>,
    mutant: Option<&str>,
    (stop_early, tell_steps): (bool, Option<Range<u64>>),
) -> Result<bool, String> {
    run::hush_panics();
    if !instrument::activate(mutant) {
        return Err(format!("there is no mutant {}", mutant.unwrap_or_default()));
    }
    let from_file = file.map(read_plan).transpose()?;
    let plans = from_file.into_iter().chain(seeds.into_iter().flatten().map(Plan::from_seed));
    for plan in plans {
        if let Some(steps) = tell_steps {
            run::tell_steps(&plan, steps).iter().for_each(|step| print(step));
            break;
        }
        let record = Record::new(plan.seed, run::run(&plan));
        let line = serde_json::to_string(&record).map_err(|error| error.to_string())?;
        if writeln!(std::io::stdout().lock(), "{line}").is_err() {
            // Nobody listens any more.
            break;
        }
        if stop_early && record.violation.is_some() {
            break;
        }
    }
    Ok(true)
}
