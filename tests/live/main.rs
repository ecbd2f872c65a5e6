//! The command line of suites that run real processes: `continuum-tests live SUITE`.
//!
//! A suite is a list of rows, and a row is one question about nodes that run as processes on loopback, with TLS on.
//! Each row starts what it needs in its own folder and ends it. Progress goes to standard error and the result of each
//! row to standard output. No row is part of `cargo test`: the tests of this program itself are.

mod answers;
mod args;
mod attack;
mod book;
mod clocked;
mod faulty;
mod federation;
mod honest;
mod http;
mod report;
mod row;
mod size;
mod truth;
mod writers;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command, Live, Suite};
use report::Report;
use row::Row;

/// Every row passed.
const PASSED: u8 = 0;
/// A row failed or was skipped, or acknowledged data was lost.
const FAILED: u8 = 1;
/// The arguments are wrong. It is also the code that `clap` ends with.
const USAGE: u8 = 2;
/// The program could not do its work: no binary, no folder.
const BROKEN: u8 = 3;

/// The rows of a suite.
const fn rows(suite: Suite) -> &'static [&'static [Row]] {
    match suite {
        Suite::Truth => truth::THEMES,
        Suite::Answers => answers::THEMES,
        Suite::Size => size::THEMES,
    }
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Live(live) => perform(&live),
        Command::Node(node) => clocked::run(&node),
    };
    ExitCode::from(ended.unwrap_or_else(|failure| {
        let report::Failure { code, what, hint } = failure;
        eprintln!("error: {what}\n  hint: {hint}");
        code
    }))
}

fn perform(live: &Live) -> Result<u8, report::Failure> {
    let all: Vec<&Row> = rows(live.suite).iter().copied().flatten().collect();
    let chosen = row::choose(&all, &live.only)?;
    let mut report = Report::new(live.json || live.output == args::Output::Json);
    if live.list {
        chosen.iter().for_each(|row| report.describe(row));
        return Ok(PASSED);
    }
    let place = row::Place::prepare(live)?;
    for (number, row) in chosen.iter().enumerate() {
        report.begin(number, chosen.len(), row);
        let outcome = row::perform(row, &place);
        report.end(row, &outcome);
    }
    Ok(if report.finish() { PASSED } else { FAILED })
}
