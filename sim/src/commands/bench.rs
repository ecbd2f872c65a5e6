//! `sim bench`: events per second of CPU time, with all oracles on.

use std::path::Path;

use continuum_sim::campaign::summary::Summary;
use continuum_sim::plan::Plan;
use continuum_sim::report::{Record, explain};
use continuum_sim::run;

use super::{print, read_plan, say};
use crate::stopwatch::Stopwatch;

/// The plan of `sim bench`.
const BENCH: &str = include_str!("../../plans/bench.toml");
/// The least CPU seconds of a bench.
const BENCH_SECONDS: f64 = 3.0;

/// Runs one plan again and again.
pub(crate) fn bench(file: Option<&Path>) -> Result<bool, String> {
    run::hush_panics();
    let plan = match file {
        Some(file) => read_plan(file)?,
        None => Plan::parse(BENCH)?,
    };
    let watch = Stopwatch::start();
    let mut summary = Summary::default();
    while watch.cpu_seconds() < BENCH_SECONDS {
        let record = Record::new(plan.seed, run::run(&plan));
        summary.add(&record);
        if record.violation.is_some() {
            say(&explain(&record, "sim bench"));
            break;
        }
    }
    let seconds = watch.cpu_seconds();
    let json = summary.to_json("bench", seconds);
    say(&format!(
        "{} events/s of CPU time, {} times real time, {} runs of {} nodes",
        json["events_per_s"], json["times_real"], summary.seeds, plan.cluster.nodes
    ));
    let silent = summary.silent_faults();
    if !silent.is_empty() {
        say(&format!("planned and never struck: {}", silent.join(", ")));
    }
    print(&json.to_string());
    Ok(summary.violations == 0 && silent.is_empty())
}
