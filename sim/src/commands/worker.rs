//! `sim worker`: the process that a campaign starts for its runs. It is not for people.

use std::io::Write as _;

use continuum_core::mark::instrument;
use continuum_sim::campaign::reach;
use continuum_sim::plan::Plan;
use continuum_sim::report::Record;
use continuum_sim::run::{self, Setting};

use super::{print, read_plan};
use crate::cli::Worker;
use crate::stopwatch::Stopwatch;

/// Runs seeds or a plan in this process, and prints one record per line.
pub(crate) fn worker(args: Worker) -> Result<bool, String> {
    run::hush_panics();
    if !instrument::activate(args.mutant.as_deref()) {
        return Err(format!("no mutant is called {}", args.mutant.unwrap_or_default()));
    }
    let _shifted = shift_heap(args.heap_shift);
    let observes = |seed: u64| args.observe_every.is_some_and(|every| seed.is_multiple_of(every));
    let from_file = args.plan.as_deref().map(read_plan).transpose()?;
    let plans = from_file.into_iter().chain(args.seeds.into_iter().flatten().map(Plan::from_seed));
    for plan in plans {
        let setting = Setting { observes: observes(plan.seed), slip_at: args.slip_at };
        if let Some(steps) = args.print_steps {
            run::describe_steps(&plan, steps, setting).iter().for_each(|step| print(step));
            break;
        }
        let record = record(&plan, setting);
        let line = serde_json::to_string(&record).map_err(|error| error.to_string())?;
        if writeln!(std::io::stdout().lock(), "{line}").is_err() {
            // The campaign closed the pipe.
            break;
        }
        if args.stop_early && record.violation.is_some() {
            break;
        }
    }
    Ok(true)
}

fn record(plan: &Plan, setting: Setting) -> Record {
    let watch = Stopwatch::start();
    let (outcome, marks) = reach::watch(|| run::run_in(plan, setting));
    let cpu_us = (watch.cpu_seconds() * 1e6) as u64;
    Record { marks, cpu_us, ..Record::new(plan.seed, outcome) }
}

/// Allocates memory and frees half of it in holes of many sizes, so that later allocations have other addresses.
fn shift_heap(bytes: usize) -> Vec<Vec<u8>> {
    let mut blocks: Vec<Vec<u8>> = vec![vec![1; bytes]];
    blocks.extend((0..bytes % 1024).map(|block| vec![1; 16 + block * 7 % 2048]));
    let mut number = 0;
    blocks.retain(|_| {
        number += 1;
        number % 2 == 1
    });
    blocks
}
