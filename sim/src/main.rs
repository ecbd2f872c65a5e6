//! The simulator's command line.
//!
//! Tables go to standard error. The last line of standard output is JSON with every figure, so a script reads one line.
//! A command fails when a law was broken, or when a planned fault never took effect. It exits with code 2 when it could
//! not do its work.

mod cli;
mod commands;
mod stopwatch;

use std::process::ExitCode;

use clap::Parser as _;
use continuum_sim::plan::Plan;

use cli::{Cli, Command};
use commands::{bench, cores, mutants, read_plan, report, run, say, shrink, swarm, worker};

fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("sim: {error}"));
            ExitCode::from(2)
        }
    }
}

fn perform(command: Command) -> Result<bool, String> {
    match command {
        Command::Run { seed, mutant, print_ms: Some(stretch), .. } => {
            run::print_steps(&Plan::from_seed(seed), mutant.as_deref(), stretch)
        }
        Command::Run { seed, once, mutant, print_ms: None } => run::run(seed, once, mutant),
        Command::Swarm(args) => swarm::swarm(&args),
        Command::Report { files, out } => report::report(&files, out.as_deref()),
        Command::Mutants { machine, seeds, jobs } => {
            mutants::mutants(machine.as_deref(), jobs.unwrap_or_else(cores), seeds)
        }
        Command::Replay { file, mutant, print_ms: Some(stretch), .. } => {
            run::print_steps(&read_plan(&file)?, mutant.as_deref(), stretch)
        }
        Command::Replay { file, once, mutant, print_ms: None } => run::replay(&file, once, mutant),
        Command::Shrink(args) => shrink::run(&args),
        Command::Plan { seed } => run::plan(seed),
        Command::Bench { plan } => bench::bench(plan.as_deref()),
        Command::Worker(args) => worker::worker(args),
    }
}
