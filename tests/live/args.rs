//! The arguments of the command line, and its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "Examples:
    cargo run --release -p continuum-tests -- live truth --json
    cargo run --release -p continuum-tests -- live answers --json --rounds 100
    cargo run --release -p continuum-tests -- live size --json --mb 1024 --keys 1000000
    cargo run --release -p continuum-tests -- live truth --list
    cargo run -p continuum-tests -- live truth --only clock.hour-ahead --only copies
    cargo run -p continuum-tests -- live truth --binary ./continuum --keep

Exit codes:
    0  every row passed and nothing acknowledged was lost
    1  a row failed or was skipped, or acknowledged data was lost
    2  wrong arguments, or no such row
    3  the rows could not be run: the binary does not build, or a folder cannot be made

With --json each row is one line:
    {\"row\":NAME,\"expected\":TEXT,\"observed\":TEXT,\"ok\":BOOL,\"seconds\":N}
and the last line is
    {\"rows\":N,\"failed\":N,\"lost\":N}
`lost` counts acknowledged writes that a node did not have at the end, over all rows. A row that needs what this
machine lacks has not passed: it is counted as `skipped`.";

/// Writes of a row that writes many. A debug build is some ten times slower.
const WRITES: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
/// The sizes of rows on size. All rows together take about a minute in a debug build.
const MB: u64 = if cfg!(debug_assertions) { 32 } else { 1024 };
const KEYS: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
const MEMBERS: u64 = if cfg!(debug_assertions) { 5_000 } else { 100_000 };

/// Suites of rows on real processes.
#[derive(Debug, Parser)]
#[command(name = "continuum-tests", about, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a suite on real processes of the shipped binary, on loopback, with TLS on.
    #[command(after_help = EXAMPLES)]
    Live(Live),
    /// Run one node whose wall clock a file sets. Rows on clocks start it.
    #[command(hide = true)]
    Node(Node),
}

#[derive(Debug, Args)]
pub(crate) struct Live {
    /// The suite to run.
    pub(crate) suite: Suite,
    /// Run only this row, or only the rows of this theme (the part of a name before its dot). Repeat it for several.
    #[arg(long, value_name = "ROW")]
    pub(crate) only: Vec<String>,
    /// Print the rows and what they expect, and run nothing.
    #[arg(long)]
    pub(crate) list: bool,
    /// The format of the results on standard output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// The same as `--output json`.
    #[arg(long)]
    pub(crate) json: bool,
    /// Test this binary instead of the one that is built from the sources.
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// How often each race is repeated.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Writes of a row that writes many.
    #[arg(long, value_name = "N", default_value_t = WRITES, value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) writes: u64,
    /// Megabytes of strong state in rows on size.
    #[arg(long, value_name = "N", default_value_t = MB, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(crate) mb: u64,
    /// Eventual keys in rows on size.
    #[arg(long, value_name = "N", default_value_t = KEYS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// Members of a set in rows on size.
    #[arg(long, value_name = "N", default_value_t = MEMBERS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) members: u64,
    /// Leave the folders of the nodes in place, with their logs, and print where they are.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// One federation, one truth: founding races, copies, forgeries, floods, tokens and clocks.
    Truth,
    /// True answers: to clients that repeat, misuse or attack, to files, and to operators of bad disks.
    Answers,
    /// Any size: checkpoints, restarts, a new member, deletions and memory with much data.
    Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A line for people.
    Text,
    /// A line of JSON.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Node {
    /// The node's settings.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// The file with the clock's offset in milliseconds and its speed in thousandths.
    #[arg(long)]
    pub(crate) clock: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(words: &[&str]) -> Result<Live, clap::error::ErrorKind> {
        let words = ["continuum-tests", "live"].iter().chain(words);
        match Cli::try_parse_from(words).map_err(|error| error.kind())?.command {
            Command::Live(live) => Ok(live),
            Command::Node(_) => unreachable!("the verb is live"),
        }
    }

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
        let live = parse(&["truth", "--json", "--only", "a.b", "--only", "c"]).unwrap();
        assert!(live.json && !live.list && live.only == ["a.b", "c"] && live.rounds == 20);
        assert_eq!(parse(&["truth", "-o", "json"]).unwrap().output, Output::Json);
        let size = parse(&["size", "--mb", "7", "--keys", "8", "--members", "9"]).unwrap();
        assert_eq!((size.mb, size.keys, size.members), (7, 8, 9));
    }

    #[test]
    fn a_wrong_argument_is_refused() {
        use clap::error::ErrorKind;
        assert_eq!(parse(&["truths"]).unwrap_err(), ErrorKind::InvalidValue);
        assert_eq!(parse(&[]).unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse(&["truth", "--rounds", "0"]).unwrap_err(), ErrorKind::ValueValidation);
        assert_eq!(parse(&["size", "--mb", "0"]).unwrap_err(), ErrorKind::ValueValidation);
        assert_eq!(parse(&["truth", "--all"]).unwrap_err(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn the_help_has_examples_and_hides_the_node() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("live truth --json") && help.contains("Exit codes:"));
        assert!(!help.contains("wall clock a file sets"), "{help}");
    }
}
