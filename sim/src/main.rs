//! The simulator's command line: `sim run`, `swarm`, `mutants`, `replay`, `shrink`, `bench`.
//!
//! Tables go to standard error and the last line of standard output is JSON with each figure, so that a script reads
//! one line. Every command fails when a law was broken, or when a fault that was planned never struck.

mod cli;
mod commands;
mod stopwatch;

use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::process::ExitCode;

use clap::Parser as _;
use continuum_core::mark::instrument;
use continuum_sim::campaign::Campaign;
use continuum_sim::mutant;
use continuum_sim::plan::Plan;
use continuum_sim::report::{Record, Summary, explain};
use continuum_sim::run;
use indicatif::{ProgressBar, ProgressStyle};

use cli::{Cli, Command};
use stopwatch::Stopwatch;

/// The plan of `sim bench`.
const BENCH: &str = include_str!("../plans/bench.toml");
/// CPU time that a bench takes at least.
const BENCH_SECONDS: f64 = 3.0;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run { seed, mutant, tell_ms: Some(stretch), .. } => {
            tell(seed, mutant.as_deref(), stretch)
        }
        Command::Run { seed, once, mutant, tell_ms: None } => {
            let replay = format!("sim run --seed {seed}{}", flag("--mutant", mutant.as_deref()));
            swarm("run", seed..seed + 1, once, 1, mutant, Some(&replay))
        }
        Command::Swarm { seeds, once, jobs, mutant } => {
            swarm("swarm", seeds, once, jobs.unwrap_or_else(cores), mutant, None)
        }
        Command::Mutants { machine, jobs } => {
            mutants(machine.as_deref(), jobs.unwrap_or_else(cores))
        }
        Command::Replay { file, once, mutant } => replay(&file, once, mutant),
        Command::Shrink(args) => commands::shrink::run(&args),
        Command::Plan { seed } => plan(seed),
        Command::Bench { plan } => bench(plan.as_deref()),
        Command::Worker { seeds, plan, mutant, stop_early, tell_steps } => {
            worker(seeds, plan.as_deref(), mutant.as_deref(), (stop_early, tell_steps))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("sim: {error}"));
            ExitCode::from(2)
        }
    }
}

fn flag(name: &str, value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" {name} {value}"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// To people. A closed pipe is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// To scripts.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn bar(length: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:20} {wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

fn campaign(
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
fn conclude(command: &str, summary: &Summary, watch: &Stopwatch, of_one: bool) -> bool {
    let silent = if of_one { Vec::new() } else { summary.silent_faults() };
    if !silent.is_empty() {
        say(&format!("planned and never struck: {}", silent.join(", ")));
    }
    let mut json = summary.to_json(command, watch.seconds());
    json["silent_faults"] = serde_json::json!(silent);
    print(&json.to_string());
    summary.violations == 0 && silent.is_empty()
}

fn swarm(
    command: &str,
    seeds: Range<u64>,
    once: bool,
    jobs: usize,
    mutant: Option<String>,
    replay: Option<&str>,
) -> Result<bool, String> {
    if let Some(name) = mutant.clone().filter(|_| command == "swarm") {
        return swarm_mutant(&name, jobs);
    }
    let campaign = campaign(mutant, once, jobs, 8)?;
    let watch = Stopwatch::start();
    let bar = bar(seeds.end - seeds.start, command);
    let mut summary = Summary::default();
    let mut shown = 0;
    campaign.run(seeds, |record| {
        bar.inc(1);
        summary.add(&record);
        if record.violation.is_some() && shown < 5 {
            shown += 1;
            let seed = format!("sim run --seed {}", record.seed);
            bar.suspend(|| say(&explain(&record, replay.unwrap_or(&seed))));
        }
    })?;
    bar.finish_and_clear();
    say(&summary.to_table());
    Ok(conclude(command, &summary, &watch, command == "run"))
}

/// Prints what happened in a stretch of virtual time.
fn tell(seed: u64, mutant: Option<&str>, stretch_ms: Range<u64>) -> Result<bool, String> {
    run::hush_panics();
    if !instrument::activate(mutant) {
        return Err(format!("there is no mutant {}", mutant.unwrap_or_default()));
    }
    run::tell(&Plan::from_seed(seed), stretch_ms).iter().for_each(|step| print(step));
    Ok(true)
}

/// Hunts one planted bug: here a violation is what is wanted.
fn swarm_mutant(name: &str, jobs: usize) -> Result<bool, String> {
    let campaign = campaign(Some(name.to_owned()), true, jobs, 4)?;
    let bar = bar(mutant::SEEDS_MAX, name);
    let kill = mutant::hunt(&campaign, name, |seeds| bar.inc(seeds))?;
    bar.finish_and_clear();
    let killed = u32::from(kill.is_some());
    match &kill {
        Some(kill) => say(&format!("{name}: seed {} by {}: {}", kill.seed, kill.oracle, kill.what)),
        None => say(&format!("{name}: not seen in {} seeds", mutant::SEEDS_MAX)),
    }
    let seeds = kill.as_ref().map_or(mutant::SEEDS_MAX, |kill| kill.seed + 1);
    print(
        &serde_json::json!({
            "command": "swarm", "mutant": name, "mutants": 1, "killed": killed, "seeds": seeds,
            "violations": killed, "oracle": kill.map(|kill| kill.oracle),
        })
        .to_string(),
    );
    Ok(killed == 1)
}

fn mutants(machine: Option<&str>, jobs: usize) -> Result<bool, String> {
    let campaign = campaign(None, true, jobs, 4)?;
    let all: Vec<_> = mutant::of_machine(machine).collect();
    let bar = bar(all.len() as u64, "mutants");
    let (mut killed, mut rows) = (0, Vec::new());
    say(&format!("{:<34} {:>6}  {:<24} breaks", "mutant", "seeds", "oracle"));
    for (name, meaning) in &all {
        let kill = mutant::hunt(&campaign, name, |_| {})?;
        bar.inc(1);
        killed += u64::from(kill.is_some());
        let (seeds, oracle) = match &kill {
            Some(kill) => ((kill.seed + 1).to_string(), kill.oracle.clone()),
            None => ("-".to_owned(), unseen(name)),
        };
        bar.suspend(|| say(&format!("{name:<34} {seeds:>6}  {oracle:<24} {meaning}")));
        rows.push(serde_json::json!({
            "mutant": name, "seeds": kill.as_ref().map(|kill| kill.seed + 1), "oracle": oracle,
        }));
    }
    bar.finish_and_clear();
    print(
        &serde_json::json!({
            "command": "mutants", "mutants": all.len(), "killed": killed, "table": rows,
        })
        .to_string(),
    );
    Ok(killed == all.len() as u64)
}

/// What is said of a planted bug that no seed saw.
fn unseen(name: &str) -> String {
    let law = mutant::SEEN_BY_LAWS.iter().find(|(known, _)| *known == name);
    law.map_or_else(|| "none".to_owned(), |(_, test)| format!("none; {test}"))
}

fn replay(file: &std::path::Path, once: bool, mutant: Option<String>) -> Result<bool, String> {
    read_plan(file)?;
    let flags = flag("--mutant", mutant.as_deref());
    let campaign = campaign(mutant, once, 1, 1)?;
    let watch = Stopwatch::start();
    let record = campaign.replay(file)?;
    let mut summary = Summary::default();
    summary.add(&record);
    if record.violation.is_some() {
        say(&explain(&record, &format!("sim replay {}{flags}", file.display())));
    }
    say(&summary.to_table());
    Ok(conclude("replay", &summary, &watch, true))
}

fn plan(seed: u64) -> Result<bool, String> {
    let text = Plan::from_seed(seed).to_toml();
    Plan::parse(&text)?;
    print(&text);
    Ok(true)
}

fn read_plan(file: &std::path::Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the plan {}: {error}", file.display()))?;
    Plan::parse(&text).map_err(|error| format!("the plan {} is wrong: {error}", file.display()))
}

fn bench(file: Option<&std::path::Path>) -> Result<bool, String> {
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

/// Runs seeds or a plan in this process, and prints one record a line.
fn worker(
    seeds: Option<Range<u64>>,
    file: Option<&std::path::Path>,
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
