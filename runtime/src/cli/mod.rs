//! The command line: one binary that runs nodes and asks them.
//!
//! A verb parses its arguments, asks a node and prints. Data goes to stdout through one checked writer, messages to
//! stderr, and the result to the exit code. This module decides nothing that a node decides.

mod args;
mod batch;
mod bench;
mod client;
mod cluster;
mod data;
mod dev;
mod exit;
mod files;
mod list;
mod local;
mod output;
mod parse;
mod start;
mod stop;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde_json::json;

use args::{Cli, DevVerb, Format, Global, Node, Verb};
use client::Client;
use exit::Failure;
use files::{export, import};
use output::Screen;

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse::parse(&words) {
        Ok(cli) => cli,
        Err(error) if error.exit_code() != 0 && wants_json(&words) => {
            let text = error.to_string();
            let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let failure = Failure::usage(what, "", "see `continuum help` for verbs and options");
            output::say_failure(&failure, Format::Json);
            return exit::USAGE.into();
        }
        Err(error) => {
            // The terminal may be closed; the exit code still gives the result.
            drop(error.print());
            let is_help =
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if is_help { ExitCode::SUCCESS } else { exit::USAGE.into() };
        }
    };
    let format = cli.global.output;
    let mut screen = Screen::new(format);
    let ended = run(cli, &mut screen);
    // A command may have printed data before it failed.
    let ended = ended.and_then(|code| screen.finish().map(|()| code));
    match ended {
        Ok(code) => code.into(),
        Err(failure) => {
            drop(screen.finish());
            output::say_failure(&failure, format);
            failure.exit.into()
        }
    }
}

/// Whether arguments that cannot be parsed ask for JSON.
fn wants_json(words: &[OsString]) -> bool {
    let is_pair =
        |pair: &[OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    words.windows(2).any(is_pair)
        || words.iter().any(|word| word == "--output=json" || word == "-ojson")
}

/// Performs the verb and returns the exit code.
fn run(cli: Cli, screen: &mut Screen) -> Result<u8, Failure> {
    let Cli { global, verb } = cli;
    match verb {
        Verb::Pki(verb) => local::pki(verb, screen)?,
        Verb::Config(verb) => local::config(verb, screen)?,
        Verb::Node(Node::Start(start)) => return start::start(&start),
        Verb::Completions { shell } => local::completions(shell, screen)?,
        Verb::Version => version(screen)?,
        Verb::Dev(dev) => match dev.verb {
            Some(DevVerb::Restart { number }) => return wait(dev::restart(number, screen)),
            None => return dev::run(&dev, screen),
        },
        // It ends itself, because it removes what it made.
        Verb::Bench(bench) => wait(bench::run(&bench, Client::all(&global)?, screen))?,
        other => return wait(interruptible(ask(other, &global, screen))),
    }
    Ok(0)
}

/// Performs a verb that asks nodes.
async fn ask(verb: Verb, global: &Global, screen: &mut Screen) -> Result<u8, Failure> {
    match verb {
        Verb::Import(import) => import::run(&import, Client::of(global)?, screen).await?,
        Verb::Export(export) => export::run(&export, Client::of(global)?, screen).await?,
        Verb::Ns(verb) => cluster::namespaces(verb, &mut Client::of(global)?, screen).await?,
        Verb::Cluster(verb) => cluster::cluster(verb, &mut Client::of(global)?, screen).await?,
        Verb::Kv(verb) => data::kv(verb, &mut Client::of(global)?, screen).await?,
        Verb::Set(verb) => data::set(verb, &mut Client::of(global)?, screen).await?,
        Verb::Counter(verb) => data::counter(verb, &mut Client::of(global)?, screen).await?,
        Verb::Record(verb) => data::record(verb, &mut Client::of(global)?, screen).await?,
        Verb::Dev(_)
        | Verb::Bench(_)
        | Verb::Pki(_)
        | Verb::Node(_)
        | Verb::Config(_)
        | Verb::Completions { .. }
        | Verb::Version => {}
    }
    Ok(0)
}

/// Ends a command at SIGINT or SIGTERM.
async fn interruptible<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut stop = stop::signals()?;
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Err(stop::interrupted()),
        ended = command => ended,
    }
}

/// Runs a future to its end on a small runtime.
fn wait<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::local("no threads can be started", &error, "see `ulimit -u`"))?;
    let ended = runtime.block_on(future);
    // A name that is being looked up must not delay the end, as it would if the runtime were dropped.
    std::mem::forget(runtime);
    ended
}

fn version(screen: &mut Screen) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if screen.is_json() {
        return screen.json(&json!({ "version": version }));
    }
    screen.line(format!("continuum {version}"))
}
