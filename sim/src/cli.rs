//! The arguments of `sim`. This module only parses them.

use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use continuum_sim::campaign::ranges;

/// The seeded simulator of Continuum.
///
/// A seed decides everything: cluster, workload, faults, schedule. Unless --once is given, every seed runs in two
/// processes, whose runs must be equal event for event. The last line of standard output is JSON.
#[derive(Debug, Parser)]
#[command(name = "sim", version, about, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  sim run --seed 7                      one seed, in two processes
  sim swarm --seeds 0..2000             a campaign; the end is excluded
  sim swarm --seeds 0..100000 --once    every seed in one process
  sim swarm --minutes 480 --report night.json
  sim swarm --resume night.json         continues an interrupted campaign
  sim swarm --seeds 0..1000000 --index 3 --of 50 --report 3.json
  sim report *.json                     the sum of all machines: faults, pairs of faults, marks, broken laws
  sim swarm --mutant raft.vote.not_persisted --seeds 5000..7000
  sim mutants --machine raft            every planted bug of a machine, and the law that detects it
  sim plan --seed 7 > plan.toml; sim replay plan.toml
  sim shrink --seed 7 --mutant raft.vote.twice --out repro
  sim bench                             events per second of CPU time: five nodes, all faults and laws";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one seed.
    Run {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Run in one process, without the comparison.
        #[arg(long)]
        once: bool,
        /// Activate this planted bug.
        #[arg(long, value_name = "NAME")]
        mutant: Option<String>,
        /// Only print the steps between these virtual milliseconds.
        #[arg(long, value_name = "A..B", value_parser = range)]
        print_ms: Option<Range<u64>>,
    },
    /// Run many seeds, or search for one that detects a planted bug.
    Swarm(Swarm),
    /// Add up the reports of several machines.
    Report {
        /// The reports of `sim swarm --report`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Also write the sum as a report.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// For every planted bug, search for a seed that detects it.
    Mutants {
        /// Only the planted bugs of this machine (raft, replication, gossip, state, wal, node), or of a part of it, as
        /// raft.vote.
        #[arg(long)]
        machine: Option<String>,
        /// The seeds to search. Default: 0..2000.
        #[arg(long, value_name = "A..B", value_parser = range)]
        seeds: Option<Range<u64>>,
        /// Number of worker processes; the number of cores by default.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Run a plan from a file.
    Replay {
        /// The plan, as TOML.
        file: PathBuf,
        /// Run in one process, without the comparison.
        #[arg(long)]
        once: bool,
        /// Activate this planted bug.
        #[arg(long, value_name = "NAME")]
        mutant: Option<String>,
        /// Only print the steps between these virtual milliseconds.
        #[arg(long, value_name = "A..B", value_parser = range)]
        print_ms: Option<Range<u64>>,
    },
    /// Shrink a failing plan, and write the small plan and a picture of its run.
    Shrink(ShrinkArgs),
    /// Print the plan of a seed as TOML.
    Plan {
        /// The seed.
        #[arg(long)]
        seed: u64,
    },
    /// Measure events per second of CPU time.
    Bench {
        /// Use this plan instead of sim/plans/bench.toml.
        #[arg(long)]
        plan: Option<PathBuf>,
    },
    /// Run seeds for a campaign, and print one record per line.
    #[command(hide = true)]
    Worker(Worker),
}

#[derive(Debug, Default, Args)]
pub(crate) struct Swarm {
    /// The seeds, without B; `A..` has no end. Default: 0..500, or 0.. with --minutes, or 0..2000 with --mutant.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    pub(crate) seeds: Option<Range<u64>>,
    /// Run for this many minutes.
    #[arg(long, value_name = "M")]
    pub(crate) minutes: Option<f64>,
    /// Run the share of machine I, counted from 0.
    #[arg(long, requires = "of", value_name = "I")]
    pub(crate) index: Option<u64>,
    /// Number of machines that share the seeds.
    #[arg(long, requires = "index", value_name = "N")]
    pub(crate) of: Option<u64>,
    /// Run every seed in one process, without the comparison.
    #[arg(long)]
    pub(crate) once: bool,
    /// Number of worker processes; the number of cores by default.
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    /// Keep a report in this file, for `sim report` and --resume.
    #[arg(long, value_name = "FILE", conflicts_with = "mutant")]
    pub(crate) report: Option<PathBuf>,
    /// Continue the campaign of this report with the same seeds and flags; --minutes counts anew.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "index", "once", "report", "mutant"])]
    pub(crate) resume: Option<PathBuf>,
    /// Continue the campaign of --report if that file exists.
    #[arg(long, requires = "report")]
    pub(crate) or_resume: bool,
    /// Shrink the shortest run of each broken law into this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) shrink: Option<PathBuf>,
    /// Search for a seed that detects this planted bug, and fail if there is none.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["minutes", "index"])]
    pub(crate) mutant: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[arg(long, value_parser = range)]
    pub(crate) seeds: Option<Range<u64>>,
    #[arg(long)]
    pub(crate) plan: Option<PathBuf>,
    #[arg(long)]
    pub(crate) mutant: Option<String>,
    #[arg(long)]
    pub(crate) stop_early: bool,
    /// In one seed of this many, describe every step and throw the text away.
    #[arg(long)]
    pub(crate) observe_every: Option<u64>,
    /// Allocate this many bytes first, to move the heap.
    #[arg(long, default_value_t = 0)]
    pub(crate) heap_shift: usize,
    /// From this step on, depend on a memory address (for tests).
    #[arg(long)]
    pub(crate) slip_at: Option<u64>,
    /// Instead, print these steps of the first run in full.
    #[arg(long, value_parser = range)]
    pub(crate) print_steps: Option<Range<u64>>,
}

/// The failure to shrink, and where to write the result.
#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    /// Shrink the swarm's plan of this seed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Shrink a plan from a file.
    #[arg(long, conflicts_with = "seed")]
    pub(crate) plan: Option<PathBuf>,
    /// Activate this planted bug.
    #[arg(long, value_name = "NAME")]
    pub(crate) mutant: Option<String>,
    /// Shrink the first failure of every planted bug, or of the one that --mutant names.
    #[arg(long, conflicts_with_all = ["seed", "plan"])]
    pub(crate) mutants: bool,
    /// Only the planted bugs of this machine.
    #[arg(long, requires = "mutants")]
    pub(crate) machine: Option<String>,
    /// Number of worker processes that search for the first failure.
    #[arg(long, requires = "mutants")]
    pub(crate) jobs: Option<usize>,
    /// Directory for the plan and the picture.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// CPU seconds for each failure.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
}

/// Parses `A..B`.
fn range(text: &str) -> Result<Range<u64>, String> {
    let range = ranges::parse(text).filter(|range| range.end < u64::MAX);
    range.ok_or_else(|| format!("{text:?} is no range: write 0..2000; the end is excluded"))
}

/// Parses `A..B` or `A..`.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    ranges::parse(text).map_or_else(|| range(text), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_not_empty() {
        assert_eq!(range("0..3"), Ok(0..3));
        for wrong in ["3", "3..3", "5..2", "a..b", "1..", ".."] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        assert_eq!(seeds("7.."), Ok(7..u64::MAX));
        assert!(seeds("..7").is_err());
    }
}
