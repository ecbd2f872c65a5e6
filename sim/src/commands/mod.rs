//! The commands of `sim`, one module each, and what they share: how a campaign is set up and how its outcome is told.
//!
//! A command returns whether all is well, or what kept it from its work. No argument is parsed here.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use continuum_sim::campaign::Campaign;
use continuum_sim::mutant;
use continuum_sim::plan::Plan;
use continuum_sim::report::Summary;
use indicatif::{ProgressBar, ProgressStyle};

use crate::stopwatch::Stopwatch;

pub(crate) mod bench;
pub(crate) mod mutants;
pub(crate) mod run;
pub(crate) mod swarm;
pub(crate) mod worker;

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// To people. A closed pipe is no reason to stop.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// To scripts.
pub(super) fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

pub(super) fn bar(length: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:20} {wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

pub(super) fn campaign(
    mutant: Option<String>,
    once: bool,
    jobs: usize,
    block: u64,
) -> Result<Campaign, String> {
    if let Some(name) = mutant.as_deref().filter(|name| !mutant::is_known(name)) {
        return Err(format!("there is no mutant {name}; `sim mutants` lists them"));
    }
    let program = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    Ok(Campaign { program, mutant, once, jobs, block, stop_early: false })
}

/// Says what a campaign came to. False when it failed.
pub(super) fn conclude(command: &str, summary: &Summary, watch: &Stopwatch, of_one: bool) -> bool {
    let silent = if of_one { Vec::new() } else { summary.silent_faults() };
    if !silent.is_empty() {
        say(&format!("planned and never struck: {}", silent.join(", ")));
    }
    let mut json = summary.to_json(command, watch.seconds());
    json["silent_faults"] = serde_json::json!(silent);
    print(&json.to_string());
    summary.violations == 0 && silent.is_empty()
}

pub(super) fn read_plan(file: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the plan {}: {error}", file.display()))?;
    Plan::parse(&text).map_err(|error| format!("the plan {} is wrong: {error}", file.display()))
}
