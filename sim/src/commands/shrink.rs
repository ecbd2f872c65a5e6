//! `sim shrink`: shrinks a failing plan, or one for every mutant, into a file that replays it and a picture.
//!
//! The library shrinks. This module reads the plan, limits the time and writes the files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use continuum_core::mark::instrument;
use continuum_sim::plan::Plan;
use continuum_sim::shrink::{self, Progress, Shrunk};
use continuum_sim::{diagram, mutant, run};
use sha2::{Digest as _, Sha256};

use super::{bar, campaign, cores, flag, print, read_plan, say};
use crate::cli::ShrinkArgs;
use crate::stopwatch::Stopwatch;

/// Runs the command.
pub(crate) fn run(args: &ShrinkArgs) -> Result<bool, String> {
    if args.mutants { shrink_mutants(args) } else { shrink_one(args) }
}

fn shrink_one(args: &ShrinkArgs) -> Result<bool, String> {
    let mutant = args.mutant.as_deref();
    run::hush_panics();
    if !instrument::activate(mutant) {
        return Err(format!(
            "no mutant is called {}; `sim mutants` lists them",
            mutant.unwrap_or_default()
        ));
    }
    let plan = match (&args.plan, args.seed) {
        (Some(file), _) => read_plan(file)?,
        (None, Some(seed)) => Plan::from_seed(seed),
        (None, None) => {
            return Err("nothing to shrink: give --seed N, --plan FILE or --mutants".to_owned());
        }
    };
    let watch = Stopwatch::start();
    let bar = bar(args.seconds, "shrink");
    let shrunk = shrink::shrink(&plan, |progress| {
        let seconds = watch.cpu_seconds();
        bar.set_position((seconds as u64).min(args.seconds));
        let Progress { faults, operations, .. } = progress;
        bar.set_message(format!("{faults} faults, {operations} ops"));
        seconds < args.seconds as f64
    });
    bar.finish_and_clear();
    let shrunk = shrunk.ok_or_else(|| {
        let mutant = flag("with", mutant);
        format!(
            "the plan of seed {} breaks no law{mutant}, so there is nothing to shrink",
            plan.seed
        )
    })?;
    let made = write(&shrunk, mutant, &args.out)?;
    say(&format!(
        "{}: {} faults of {}, {} operations of {}, {} bytes\nreplay: {}\npicture: {}",
        shrunk.oracle,
        shrunk.after.faults,
        shrunk.before.faults,
        shrunk.after.operations,
        shrunk.before.operations,
        made.bytes,
        made.replay,
        made.html.display()
    ));
    let mut json = to_json(&shrunk, mutant, &made, watch.cpu_seconds());
    json["seed"] = plan.seed.into();
    print(&json.to_string());
    Ok(true)
}

/// The files that were written.
struct Written {
    file: PathBuf,
    html: PathBuf,
    bytes: usize,
    html_bytes: usize,
    replay: String,
}

fn to_json(
    shrunk: &Shrunk,
    mutant: Option<&str>,
    made: &Written,
    seconds: f64,
) -> serde_json::Value {
    serde_json::json!({
        "command": "shrink",
        "mutant": mutant,
        "oracle": shrunk.oracle,
        "faults_before": shrunk.before.faults,
        "faults_after": shrunk.after.faults,
        "operations_before": shrunk.before.operations,
        "operations_after": shrunk.after.operations,
        "bytes": made.bytes,
        "html_bytes": made.html_bytes,
        "runs": shrunk.after.runs,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "file": made.file.display().to_string(),
        "html": made.html.display().to_string(),
    })
}

/// Writes the plan and its picture, named by the digest of the plan.
fn write(shrunk: &Shrunk, mutant: Option<&str>, folder: &Path) -> Result<Written, String> {
    let toml = shrunk.plan.to_toml();
    let digest: [u8; 32] = Sha256::digest(&toml).into();
    let mut name = "repro-".to_owned();
    digest[..4].iter().for_each(|byte| {
        let _ = write!(name, "{byte:02x}");
    });
    let (file, html) = (folder.join(format!("{name}.toml")), folder.join(format!("{name}.html")));
    let replay = format!("sim replay {}{}", file.display(), flag("--mutant", mutant));
    let picture = diagram::draw(&shrunk.plan, mutant, &replay)
        .ok_or("the shrunk plan breaks no law when it runs again for the picture")?;
    let text = format!("{}\n{toml}", header(&picture, mutant, &replay));
    let store = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    };
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    store(&file, &text)?;
    store(&html, &picture.html)?;
    let (bytes, html_bytes) = (text.len(), picture.html.len());
    Ok(Written { file, html, bytes, html_bytes, replay })
}

/// Comment lines that say which law the plan breaks, when and how.
fn header(picture: &diagram::Picture, mutant: Option<&str>, replay: &str) -> String {
    let what: String = picture.what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let short: String = what.chars().take(400).collect();
    let planted = mutant.map_or_else(String::new, |name| format!(", with the mutant {name}"));
    format!(
        "# Breaks {} at {} ms{planted}:\n#   {short}\n# {replay}\n",
        picture.oracle,
        picture.at_ns / 1_000_000
    )
}

/// Shrinks one failure of every mutant.
fn shrink_mutants(args: &ShrinkArgs) -> Result<bool, String> {
    let jobs = args.jobs.unwrap_or_else(cores);
    let campaign = campaign(None, true, jobs)?;
    let all: Vec<_> = mutant::of_machine(args.machine.as_deref())
        .filter(|(name, _)| args.mutant.as_deref().is_none_or(|one| one == *name))
        .collect();
    let bar = bar(all.len() as u64, "shrink");
    say(&format!(
        "{:<34} {:>5}  {:<24} {:>9} {:>12} {:>6} {:>6}",
        "mutant", "seed", "oracle", "faults", "operations", "bytes", "s"
    ));
    let (mut small, mut rows) = (0, Vec::new());
    for (name, _) in &all {
        let kill = mutant::hunt(&campaign, name, mutant::SEEDS, |_| {})?;
        let row = match kill {
            Some(kill) => {
                let kill = mutant::soonest(&campaign, name, kill)?;
                shrink_in_child(args, &campaign.program, name, kill.seed)?
            }
            None => serde_json::json!({ "mutant": name, "oracle": "none" }),
        };
        bar.inc(1);
        bar.suspend(|| say(&table_row(name, &row)));
        small += usize::from(is_small(&row));
        rows.push(row);
    }
    bar.finish_and_clear();
    let share = 100.0 * small as f64 / all.len().max(1) as f64;
    print(
        &serde_json::json!({
            "command": "shrink", "mutants": all.len(), "small": small,
            "share_percent": (share * 10.0).round() / 10.0, "table": rows,
        })
        .to_string(),
    );
    Ok(small == all.len())
}

fn is_small(row: &serde_json::Value) -> bool {
    let at_most =
        |field: &str, most: usize| row[field].as_u64().is_some_and(|count| count <= most as u64);
    at_most("faults_after", shrink::FAULTS_GOAL)
        && at_most("operations_after", shrink::OPERATIONS_GOAL)
}

fn table_row(name: &str, row: &serde_json::Value) -> String {
    let number =
        |field: &str| row[field].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
    let pair = |what: &str| {
        format!("{}/{}", number(&format!("{what}_after")), number(&format!("{what}_before")))
    };
    format!(
        "{name:<34} {:>5}  {:<24} {:>9} {:>12} {:>6} {:>6.1}{}",
        number("seed"),
        row["oracle"].as_str().unwrap_or_default(),
        pair("faults"),
        pair("operations"),
        number("bytes"),
        row["seconds"].as_f64().unwrap_or_default(),
        if is_small(row) { "" } else { "  !" }
    )
}

/// Shrinks a mutant's failure in a child process, because a mutant is active in a whole process.
fn shrink_in_child(
    args: &ShrinkArgs,
    program: &Path,
    mutant: &str,
    seed: u64,
) -> Result<serde_json::Value, String> {
    let mut command = Command::new(program);
    command.arg("shrink").arg("--seed").arg(seed.to_string()).arg("--mutant").arg(mutant);
    command.arg("--seconds").arg(args.seconds.to_string()).arg("--out").arg(&args.out);
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("cannot start a worker: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("the process that shrinks {mutant} printed no JSON: {}", error.trim())
    })
}
