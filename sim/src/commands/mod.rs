//! The commands of `sim`, one module each, and what they share: the settings of a campaign and the report of its
//! outcome.
//!
//! A command returns whether it succeeded, or the error that kept it from its work. Arguments are parsed in `cli`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use continuum_sim::campaign::Campaign;
use continuum_sim::campaign::summary::Summary;
use continuum_sim::mutant;
use continuum_sim::plan::Plan;
use indicatif::{ProgressBar, ProgressStyle};

mod aftermath;
pub(crate) mod bench;
pub(crate) mod mutants;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod swarm;
pub(crate) mod worker;

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Prints to standard error, for people. A closed pipe does not stop the command.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints to standard output, for scripts.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A progress bar on a terminal; hidden on a pipe.
fn bar(length: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:20} {wide_bar} {percent:>3}% {eta}");
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

/// The path of this executable. On Linux it is the file that runs now, even if another build has replaced it since, so
/// that all workers of a campaign are of one build.
fn program() -> Result<PathBuf, String> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() {
        return Ok(own);
    }
    std::env::current_exe().map_err(|error| format!("cannot find this executable: {error}"))
}

fn campaign(mutant: Option<String>, once: bool, jobs: usize) -> Result<Campaign, String> {
    if let Some(name) = mutant.as_deref().filter(|name| !mutant::is_known(name)) {
        return Err(format!("no mutant is called {name}; `sim mutants` lists them"));
    }
    Ok(Campaign {
        program: program()?,
        mutant,
        once,
        jobs,
        stop_early: false,
        observe_every: 1,
        slip_at: None,
    })
}

/// A flag with its value, for the text of a command.
fn flag(name: &str, value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" {name} {value}"))
}

/// Prints the outcome of a campaign; false if the campaign failed.
fn conclude(command: &str, summary: &Summary, seconds: f64, of_one: bool) -> bool {
    let silent = if of_one { Vec::new() } else { summary.silent_faults() };
    if !silent.is_empty() {
        say(&format!("planned and never struck: {}", silent.join(", ")));
    }
    let mut json = summary.to_json(command, seconds);
    json["silent_faults"] = serde_json::json!(silent);
    print(&json.to_string());
    summary.violations == 0 && silent.is_empty()
}

pub(crate) fn read_plan(file: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the plan {}: {error}", file.display()))?;
    Plan::parse(&text).map_err(|error| format!("the plan {} is not valid: {error}", file.display()))
}
