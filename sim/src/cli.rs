//! The arguments of `sim`. No work is done here.

use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use continuum_sim::campaign::ranges;

/// The seeded simulator of Continuum.
///
/// A seed decides everything: cluster, workload, faults, schedule. Every seed runs in two processes, which must see the
/// same run event for event, unless --once is given. The last line of standard output is JSON.
#[derive(Debug, Parser)]
#[command(name = "sim", version, about, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  sim run --seed 7                      one seed, twice
  sim swarm --seeds 0..2000             a campaign; the end is not included
  sim swarm --seeds 0..100000 --once    every seed in one process only
  sim swarm --minutes 480 --report night.json
  sim swarm --resume night.json         goes on after a cut
  sim swarm --seeds 0..1000000 --index 3 --of 50 --report 3.json
  sim report *.json                     what all machines found: faults, pairs of them, marks, broken laws
  sim swarm --mutant raft.vote.not_persisted
  sim mutants --machine raft            every planted bug of a machine, and which oracle saw it first
  sim plan --seed 7 > plan.toml; sim replay plan.toml
  sim shrink --seed 7 --mutant raft.vote.twice --out /tmp
  sim bench                             events a second of CPU time, five nodes, all oracles";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one seed.
    Run {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// In one process only.
        #[arg(long)]
        once: bool,
        /// With a planted bug.
        #[arg(long, value_name = "NAME")]
        mutant: Option<String>,
        /// Only tell the steps between these virtual milliseconds, in words.
        #[arg(long, value_name = "A..B", value_parser = range)]
        print_ms: Option<Range<u64>>,
    },
    /// Run many seeds, or hunt a planted bug with them.
    Swarm(Swarm),
    /// Add up the reports of several machines.
    Report {
        /// The reports that `sim swarm --report` left.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Write the sum as a report as well.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Hunt every planted bug.
    Mutants {
        /// Only those of this machine: raft, replication, gossip, state, wal, node.
        #[arg(long)]
        machine: Option<String>,
        /// Worker processes at a time; as many as there are cores by default.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Run a plan from a file.
    Replay {
        /// The plan, as TOML.
        file: PathBuf,
        /// In one process only.
        #[arg(long)]
        once: bool,
        /// With a planted bug.
        #[arg(long, value_name = "NAME")]
        mutant: Option<String>,
        /// Only tell the steps between these virtual milliseconds, in words.
        #[arg(long, value_name = "A..B", value_parser = range)]
        print_ms: Option<Range<u64>>,
    },
    /// Make a failing plan small: as a file that replays it, and as a picture.
    Shrink(ShrinkArgs),
    /// Print the plan of a seed as TOML.
    Plan {
        /// The seed.
        #[arg(long)]
        seed: u64,
    },
    /// Measure events a second of CPU time.
    Bench {
        /// Another plan than the committed one.
        #[arg(long)]
        plan: Option<PathBuf>,
    },
    /// Run seeds for a campaign, and print one record a line.
    #[command(hide = true)]
    Worker(Worker),
}

#[derive(Debug, Default, Args)]
pub(crate) struct Swarm {
    /// First seed, and the first one not run; 0..500, or with --minutes all from 0 on. `A..` has no end.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    pub(crate) seeds: Option<Range<u64>>,
    /// Run until so many minutes have passed.
    #[arg(long, value_name = "M")]
    pub(crate) minutes: Option<f64>,
    /// Run the share of this machine, from 0 on.
    #[arg(long, requires = "of", value_name = "I")]
    pub(crate) index: Option<u64>,
    /// So many machines share the seeds.
    #[arg(long, requires = "index", value_name = "N")]
    pub(crate) of: Option<u64>,
    /// Every seed in one process only.
    #[arg(long)]
    pub(crate) once: bool,
    /// Worker processes at a time; as many as there are cores by default.
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    /// Keep a report in this file, for `sim report` and for --resume.
    #[arg(long, value_name = "FILE", conflicts_with = "mutant")]
    pub(crate) report: Option<PathBuf>,
    /// Go on with the campaign of this report, with the same seeds and flags; --minutes are so many more.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "index", "once", "report", "mutant"])]
    pub(crate) resume: Option<PathBuf>,
    /// Go on with the campaign of --report where that is there already.
    #[arg(long, requires = "report")]
    pub(crate) or_resume: bool,
    /// Shrink the shortest run of each law that was broken, into this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) shrink: Option<PathBuf>,
    /// Hunt this planted bug instead: success is that a seed sees it.
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
    /// Tell every step in words to nobody, in one seed of so many.
    #[arg(long)]
    pub(crate) observe_every: Option<u64>,
    /// Take so much memory first.
    #[arg(long, default_value_t = 0)]
    pub(crate) heap_shift: usize,
    /// Depend on where memory lies from this step on.
    #[arg(long)]
    pub(crate) slip_at: Option<u64>,
    /// Print these steps of the first run in all words instead.
    #[arg(long, value_parser = range)]
    pub(crate) print_steps: Option<Range<u64>>,
}

/// What to shrink, and where to.
#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    /// The swarm's plan of this seed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A plan from a file.
    #[arg(long, conflicts_with = "seed")]
    pub(crate) plan: Option<PathBuf>,
    /// With a planted bug.
    #[arg(long, value_name = "NAME")]
    pub(crate) mutant: Option<String>,
    /// The first failure of every planted bug, or of the one that is named.
    #[arg(long, conflicts_with_all = ["seed", "plan"])]
    pub(crate) mutants: bool,
    /// Only planted bugs of this machine.
    #[arg(long, requires = "mutants")]
    pub(crate) machine: Option<String>,
    /// Worker processes at a time that look for the first failure.
    #[arg(long, requires = "mutants")]
    pub(crate) jobs: Option<usize>,
    /// Folder for what is made.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Seconds of CPU time for each failure.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
}

/// Parses `A..B`.
fn range(text: &str) -> Result<Range<u64>, String> {
    let range = ranges::parse(text).filter(|range| range.end < u64::MAX);
    range.ok_or_else(|| {
        format!("{text:?} is no range of seeds: write 0..2000; the end is not included")
    })
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
