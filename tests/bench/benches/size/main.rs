//! Any size: what a step, a record and a copy cost where there is much of something.
//!
//! Each row drives whole nodes of the core step by step, in a process of its own with virtual time, and measures every
//! step: the CPU time of its thread and the bytes that it allocates. Files and frames are real, and their cost is not
//! counted, because it is the driver's. `cold` rows drive replicators.
//!
//! `cargo bench --bench size` runs everything; `-- --only keys.strong` one row; `-- --scale 0.01` small. Progress goes
//! to standard error. Standard output has a line of JSON for each row and the totals last: `longest_step_ms_max` and
//! `rss_over_counted_max`, which is resident memory divided by the counted bytes and 32 MB a node: at 2 a process takes
//! all that it may.
//!
//! A row that cannot reach its end says `"ended": false`, and the phase says how far it came. The bound is CPU time.
//!
//! This bench measures what is there. It has no opinion on what is enough.

mod disk;
mod names;
mod rows;
mod world;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use continuum_bench::allocator::Counting;
use continuum_bench::steps;
use serde_json::{Value, json};

use rows::{ROWS, Row};
use world::World;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measures the core at any size.
#[derive(Debug, Parser)]
struct Cli {
    /// Run only this row, or only the rows whose name begins with it and a dot. Repeat it for several.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// The size of each row, as a part of the full one.
    #[arg(long, value_name = "PART", default_value_t = 1.0, value_parser = part)]
    scale: f64,
    /// CPU seconds after which a row ends wherever it is.
    #[arg(long, value_name = "N", default_value_t = 300)]
    bound: u64,
    /// Print when each step of at least this many milliseconds ran, so that samples of `perf` can be found.
    #[arg(long, value_name = "MS")]
    trace: Option<u64>,
    /// Print the rows, and run nothing.
    #[arg(long)]
    list: bool,
    /// Run this row in this process.
    #[arg(long, hide = true)]
    row: Option<String>,
    /// `cargo bench` says it to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().map_err(|_| "not a number".to_owned())?;
    if part > 0.0 && part <= 100.0 { Ok(part) } else { Err("not above 0 and at most 100".into()) }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(name) = &cli.row {
        let row = ROWS.iter().find(|row| row.name == name).expect("the parent names a row");
        println!("{}", perform(row, &cli));
        return ExitCode::SUCCESS;
    }
    let is_named = |row: &Row, name: &str| {
        row.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if let Some(name) = cli.only.iter().find(|name| !ROWS.iter().any(|row| is_named(row, name))) {
        eprintln!("error: there is no row `{name}`\n  hint: see all rows with --list");
        return ExitCode::from(2);
    }
    let is_chosen = |row: &&Row| cli.only.is_empty() || cli.only.iter().any(|n| is_named(row, n));
    let chosen: Vec<&Row> = ROWS.iter().filter(is_chosen).collect();
    let mut done = Vec::new();
    for (number, row) in chosen.iter().enumerate() {
        if cli.list {
            println!("{:18} {}", row.name, row.what);
            continue;
        }
        eprintln!("[{}/{}] {}: {}", number + 1, chosen.len(), row.name, row.what);
        let result = apart(row, &cli);
        println!("{result}");
        eprintln!("  longest step {} ms: {}", result["longest_step_ms"], result["longest_step"]);
        done.push(result);
    }
    if !cli.list {
        let mut last = steps::totals(&done);
        last["command"] = json!("size");
        last["scale"] = json!(cli.scale);
        println!("{last}");
    }
    ExitCode::SUCCESS
}

/// Runs a row in a process of its own, so that its memory is its own.
fn apart(row: &Row, cli: &Cli) -> Value {
    let me = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(me);
    command.args(["--row", row.name, "--scale", &cli.scale.to_string()]);
    command.args(["--bound", &cli.bound.to_string()]).stdout(Stdio::piped());
    command.args(cli.trace.map(|trace| format!("--trace={trace}")));
    let broken = |why: String| json!({ "row": row.name, "ended": false, "stopped": why });
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return broken(error.to_string()),
    };
    // A step that is longer than the bound cannot be stopped from within. The kernel's bound on CPU time ends it.
    limit(child.id(), cli.bound * 2 + 60);
    let mut text = String::new();
    let read = child.stdout.take().expect("a piped output").read_to_string(&mut text);
    let ended = child.wait().expect("a child to wait for");
    match (read, serde_json::from_str(text.trim())) {
        (Ok(_), Ok(row)) => row,
        _ => broken(format!("its process ended: {ended}")),
    }
}

/// Gives a process a bound on its CPU seconds.
fn limit(process: u32, seconds: u64) {
    let limit = libc::rlimit { rlim_cur: seconds, rlim_max: seconds };
    let process = libc::pid_t::try_from(process).expect("a process id");
    // SAFETY: `limit` lives for the call, and the kernel writes nothing to a null pointer.
    let set =
        unsafe { libc::prlimit(process, libc::RLIMIT_CPU, &raw const limit, std::ptr::null_mut()) };
    // A process that has ended already needs none.
    let _ = set;
}

fn perform(row: &Row, cli: &Cli) -> Value {
    let folder = Folder::new();
    let mut world = World::new(folder.0.clone(), Duration::from_secs(cli.bound));
    world.trace_ns = cli.trace.map_or(u64::MAX, |trace| trace.saturating_mul(1_000_000));
    let ended = (row.run)(&mut world, cli.scale);
    let mut result = world.meter.row(row.name);
    if let Err(world::Stop(why)) = ended {
        result["ended"] = json!(false);
        result["stopped"] = json!(why);
    }
    result
}

/// A folder for disks that goes with the row.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("size-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("a folder for disks");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The rest of it stays in cargo's own folder of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
