//! A row: one question about real processes, run in a folder of its own.
//!
//! A row that panics has failed like any other; its guards still end what it started.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;
use tempfile::TempDir;

use crate::args::Live;
use crate::report::Failure;
use crate::size::Sizes;
use crate::{BROKEN, USAGE};

/// The result of a step: a value, or the observation that contradicts what was expected.
pub(crate) type Check<T = ()> = Result<T, String>;

/// A question with its expected answer.
#[derive(Debug)]
pub(crate) struct Row {
    /// `theme.subject`.
    pub(crate) name: &'static str,
    pub(crate) expected: &'static str,
    /// Returns what was observed.
    pub(crate) run: fn(&Bench) -> Check<String>,
}

impl Row {
    pub(crate) const fn new(
        name: &'static str,
        expected: &'static str,
        run: fn(&Bench) -> Check<String>,
    ) -> Self {
        Self { name, expected, run }
    }
}

/// How a row ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ok: bool,
    pub(crate) observed: String,
    pub(crate) seconds: f64,
    pub(crate) lost: u64,
    /// Whether the machine lacks what the row needs. Such a row has not passed.
    pub(crate) is_skipped: bool,
}

/// The parts that all rows share.
#[derive(Debug)]
pub(crate) struct Place {
    binary: PathBuf,
    rounds: u32,
    writes: u64,
    sizes: Sizes,
    keep: bool,
}

/// The surroundings of one row.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) binary: PathBuf,
    /// How often a race is repeated.
    pub(crate) rounds: u32,
    /// Writes of a row that writes many.
    pub(crate) writes: u64,
    /// How large the data of rows on size is.
    pub(crate) sizes: Sizes,
    folder: PathBuf,
    folders: Cell<u32>,
    lost: Cell<u64>,
    is_skipped: Cell<bool>,
}

impl Place {
    /// Builds the binary, unless one is given.
    pub(crate) fn prepare(live: &Live) -> Result<Self, Failure> {
        let binary = match &live.binary {
            Some(given) => given.canonicalize().map_err(|error| Failure {
                code: USAGE,
                what: format!("the binary {} cannot be used: {error}", given.display()),
                hint: "name a file that exists, or leave --binary out",
            })?,
            None => build()?,
        };
        let sizes = Sizes { mb: live.mb, keys: live.keys, members: live.members };
        Ok(Self { binary, rounds: live.rounds, writes: live.writes, sizes, keep: live.keep })
    }
}

/// Builds the shipped binary as `cargo build` at the root does, in the profile of this program.
fn build() -> Result<PathBuf, Failure> {
    let broken = |what: String| Failure {
        code: BROKEN,
        what,
        hint: "run `cargo build` at the root and read its errors, or name a binary with --binary",
    };
    let me = std::env::current_exe().map_err(|error| broken(error.to_string()))?;
    let profile = me.parent().unwrap_or_else(|| Path::new("."));
    eprintln!("building the binary");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--bin", "continuum"]).current_dir(continuum_tests::root());
    command.env("CARGO_TARGET_DIR", profile.parent().unwrap_or(profile));
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let built = command.status().map_err(|error| broken(format!("cargo does not run: {error}")))?;
    if !built.success() {
        return Err(broken("the binary does not build".into()));
    }
    Ok(profile.join("continuum"))
}

/// The rows that the arguments name, in the suite's order; all when they name none.
pub(crate) fn choose<'a>(all: &[&'a Row], only: &[String]) -> Result<Vec<&'a Row>, Failure> {
    let is_named = |row: &Row, name: &str| {
        row.name == name || row.name.split_once('.').is_some_and(|(theme, _)| theme == name)
    };
    for name in only {
        if !all.iter().any(|row| is_named(row, name)) {
            return Err(Failure {
                code: USAGE,
                what: format!("there is no row or theme `{name}`"),
                hint: "see all rows with --list",
            });
        }
    }
    let chosen = |row: &&&Row| only.is_empty() || only.iter().any(|name| is_named(row, name));
    Ok(all.iter().filter(chosen).copied().collect())
}

/// Runs a row.
pub(crate) fn perform(row: &Row, place: &Place) -> Outcome {
    let watch = Stopwatch::start();
    let ended = |ok, observed, lost| {
        let seconds = watch.elapsed().as_secs_f64();
        Outcome { ok, observed, seconds, lost, is_skipped: false }
    };
    let folder = match TempDir::with_prefix("continuum-live-") {
        Ok(folder) => folder,
        Err(error) => return ended(false, format!("no folder can be made: {error}"), 0),
    };
    let bench = Bench {
        binary: place.binary.clone(),
        rounds: place.rounds,
        writes: place.writes,
        sizes: place.sizes,
        folder: folder.path().into(),
        folders: Cell::new(0),
        lost: Cell::new(0),
        is_skipped: Cell::new(false),
    };
    let ran = catch_unwind(AssertUnwindSafe(|| (row.run)(&bench)));
    if place.keep {
        eprintln!("{}: its folder is {}", row.name, folder.keep().display());
    }
    let lost = bench.lost.get();
    match ran {
        Ok(Ok(observed)) => ended(lost == 0, observed, lost),
        Ok(Err(observed)) => {
            let is_skipped = bench.is_skipped.get();
            Outcome { is_skipped, ..ended(false, observed, lost) }
        }
        Err(_) => ended(false, "the row broke: its panic is on standard error".into(), lost),
    }
}

impl Bench {
    /// A new folder.
    pub(crate) fn folder(&self) -> PathBuf {
        let number = self.folders.replace(self.folders.get() + 1);
        self.folder.join(number.to_string())
    }

    /// Counts acknowledged writes that a node does not have.
    pub(crate) fn lose(&self, writes: u64) {
        self.lost.set(self.lost.get() + writes);
    }

    /// The end of a row whose question cannot be asked on this machine.
    pub(crate) fn skip<T>(&self, lacks: impl std::fmt::Display) -> Check<T> {
        self.is_skipped.set(true);
        Err(format!("skipped: {lacks}"))
    }

    /// Says on standard error how far the row is.
    pub(crate) fn progress(&self, text: &str) {
        eprintln!("    {text}");
    }
}

/// The observation as an error, unless the condition holds.
pub(crate) fn holds(condition: bool, otherwise: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(otherwise()) }
}

/// Lets real time pass.
pub(crate) fn pause(span: Duration) {
    let watch = Stopwatch::start();
    while watch.elapsed() < span {
        // A wake-up without a reason only makes one more turn.
        std::thread::park_timeout(span.saturating_sub(watch.elapsed()));
    }
}

/// Polls until the question has an answer, and returns it with the seconds that it took. `None` once the patience is
/// over.
pub(crate) fn wait_for<T>(
    patience: Duration,
    mut question: impl FnMut() -> Option<T>,
) -> Option<(T, f64)> {
    let watch = Stopwatch::start();
    loop {
        if let Some(answer) = question() {
            return Some((answer, watch.elapsed().as_secs_f64()));
        }
        if watch.elapsed() >= patience {
            return None;
        }
        pause(Duration::from_millis(50));
    }
}

/// As [`wait_for`], for a condition. The error is `otherwise`.
pub(crate) fn wait_until(
    patience: Duration,
    mut condition: impl FnMut() -> bool,
    otherwise: impl FnOnce() -> String,
) -> Check<f64> {
    match wait_for(patience, || condition().then_some(())) {
        Some(((), seconds)) => Ok(seconds),
        None => Err(otherwise()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Row = Row { name: "x.a", expected: "", run: |_| Ok("seen".into()) };
    const B: Row = Row { name: "x.b", expected: "", run: |_| Err("other".into()) };
    const C: Row = Row { name: "y.c", expected: "", run: |_| panic!("planted") };
    const D: Row = Row {
        name: "y.d",
        expected: "",
        run: |bench| {
            bench.lose(3);
            Ok("all seems well".into())
        },
    };

    const E: Row = Row { name: "y.e", expected: "", run: |bench| bench.skip("no such thing") };

    fn names(only: &[&str]) -> Option<Vec<&'static str>> {
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        let chosen = choose(&[&A, &B, &C], &only).ok()?;
        Some(chosen.iter().map(|row| row.name).collect())
    }

    #[test]
    fn rows_are_chosen_by_name_or_theme() {
        assert_eq!(names(&[]).unwrap(), ["x.a", "x.b", "y.c"]);
        assert_eq!(names(&["y.c", "x.a"]).unwrap(), ["x.a", "y.c"]);
        assert_eq!(names(&["x"]).unwrap(), ["x.a", "x.b"]);
        assert_eq!(names(&["x.a", "z"]), None);
        assert_eq!(names(&["x.c"]), None);
    }

    #[test]
    fn a_row_fails_by_an_error_by_a_panic_and_by_a_loss() {
        let sizes = Sizes { mb: 1, keys: 1, members: 1 };
        let place = Place { binary: PathBuf::new(), rounds: 1, writes: 1, sizes, keep: false };
        let run = |row| {
            let Outcome { ok, lost, is_skipped, .. } = perform(row, &place);
            (ok, lost, is_skipped)
        };
        assert_eq!(
            [run(&A), run(&B), run(&C), run(&D), run(&E)],
            [
                (true, 0, false),
                (false, 0, false),
                (false, 0, false),
                (false, 3, false),
                (false, 0, true)
            ]
        );
    }

    #[test]
    fn patience_ends() {
        assert!(wait_for(Duration::ZERO, || None::<()>).is_none());
        assert!(wait_until(Duration::ZERO, || true, String::new).is_ok());
    }
}
