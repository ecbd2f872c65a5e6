//! The arguments of `sim`. No work is done here.

use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
        tell_ms: Option<Range<u64>>,
    },
    /// Run many seeds, or hunt a planted bug with them.
    Swarm {
        /// First seed, and the first one not run.
        #[arg(long, value_name = "A..B", default_value = "0..500", value_parser = range)]
        seeds: Range<u64>,
        /// Every seed in one process only.
        #[arg(long)]
        once: bool,
        /// Worker processes at a time; as many as there are cores by default.
        #[arg(long)]
        jobs: Option<usize>,
        /// Hunt this planted bug instead: success is that a seed sees it.
        #[arg(long, value_name = "NAME")]
        mutant: Option<String>,
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
    Worker {
        #[arg(long, value_parser = range)]
        seeds: Option<Range<u64>>,
        #[arg(long)]
        plan: Option<PathBuf>,
        #[arg(long)]
        mutant: Option<String>,
        #[arg(long)]
        stop_early: bool,
        /// Print these steps of the first run in all words instead.
        #[arg(long, value_parser = range)]
        tell_steps: Option<Range<u64>>,
    },
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
    let parse = || {
        let (start, end) = text.split_once("..")?;
        Some(start.trim().parse().ok()?..end.trim().parse().ok()?)
    };
    match parse() {
        Some(range) if range.start < range.end => Ok(range),
        _ => Err(format!("{text:?} is no range of seeds: write 0..2000; the end is not included")),
    }
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
    }
}
