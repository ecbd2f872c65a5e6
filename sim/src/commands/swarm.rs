//! `sim swarm`: runs many seeds, until all are done or the time is over.
//!
//! With `--report` a campaign keeps a file of its progress, from which an interrupted campaign continues.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use continuum_sim::campaign::Campaign;
use continuum_sim::campaign::file::Report;
use continuum_sim::campaign::ranges::{Ranges, share, show, stretches};
use continuum_sim::report::{Record, explain};
use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};

use super::mutants::searched;
use super::{aftermath, bar, campaign, conclude, cores, mutants, program, say};
use crate::cli::Swarm;
use crate::stopwatch::Stopwatch;

/// Seeds that one worker takes at a time; an interruption loses at most this many for each worker.
const STRETCH: u64 = 8;
/// The default seeds.
const SEEDS: Range<u64> = 0..500;
/// One seed of this many formats its steps as text: it adds a sixth to a campaign's time and still covers thousands of
/// seeds in a night.
const OBSERVE_EVERY: u64 = 8;
/// Violations that are printed in full.
const SHOWN_MAX: u64 = 5;
/// Seconds between two writes of a running campaign's file.
const SAVE_SECONDS: f64 = 2.0;

/// Runs seeds.
pub(crate) fn swarm(args: &Swarm) -> Result<bool, String> {
    let jobs = args.jobs.unwrap_or_else(cores);
    if let Some(name) = &args.mutant {
        return mutants::hunt(name, jobs, searched(args.seeds.clone())?, args.shrink.as_deref());
    }
    let (report, file) = begin(args)?;
    let campaign = Campaign { observe_every: OBSERVE_EVERY, ..campaign(None, report.once, jobs)? };
    let left = report.left();
    let mut progress = ReportFile::new(report, file);
    let end_s = progress.report.minutes.map(|minutes| minutes * 60.0);
    let watch = Stopwatch::start();
    let before = progress.report.seconds;
    let save_failed = AtomicBool::new(false);
    // Called when a worker is free, so a stretch that was started is finished.
    let continues = |_: &Range<u64>| {
        let is_over = end_s.is_some_and(|end_s| before + watch.seconds() >= end_s);
        !is_over && !save_failed.load(Ordering::SeqCst)
    };
    campaign.run(stretches(left, STRETCH).take_while(continues), |record| {
        let saved = progress.add(&record, before + watch.seconds());
        save_failed.fetch_or(saved.is_err(), Ordering::SeqCst);
    })?;
    progress.bar.finish_and_clear();
    progress.save(before + watch.seconds())?;
    let summary = &progress.report.summary;
    say(&summary.to_table());
    if let Some(out) = &args.shrink {
        aftermath::all(&campaign, summary, out)?;
    }
    Ok(conclude("swarm", summary, progress.report.seconds, false))
}

/// The report that this campaign starts or continues, and its file.
fn begin(args: &Swarm) -> Result<(Report, Option<PathBuf>), String> {
    let build = build()?;
    let known = args.report.as_ref().filter(|file| args.or_resume && file.exists());
    if let Some(file) = args.resume.as_ref().or(known) {
        let mut report = Report::load(file)?;
        report.check_build(&build)?;
        check_flags(args, &report)?;
        if args.resume.is_some()
            && let Some(more) = args.minutes
        {
            report.minutes = Some(report.seconds / 60.0 + more);
        }
        return Ok((report, Some(file.clone())));
    }
    let report = Report {
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        build,
        asked: Ranges::from(seeds(args)?),
        once: args.once,
        minutes: args.minutes,
        ..Report::default()
    };
    Ok((report, args.report.clone()))
}

/// Checks that `--or-resume` is given the flags of the report's campaign.
fn check_flags(args: &Swarm, report: &Report) -> Result<(), String> {
    let same = args.resume.is_some()
        || (Ranges::from(seeds(args)?) == report.asked && args.once == report.once);
    let asked = || report.asked.iter().map(|range| show(&range)).collect::<Vec<_>>().join(", ");
    same.then_some(()).ok_or_else(|| {
        let command = &report.command;
        format!(
            "the report is of other seeds or flags, {} (`sim {command}`): give the same, or another --report",
            asked()
        )
    })
}

/// The seeds of this machine.
fn seeds(args: &Swarm) -> Result<Range<u64>, String> {
    let all = match (&args.seeds, args.minutes) {
        (Some(seeds), None) if seeds.end == u64::MAX => {
            return Err("seeds without an end need --minutes: add it, or write A..B".to_owned());
        }
        (Some(seeds), _) => seeds.clone(),
        (None, Some(_)) => 0..u64::MAX,
        (None, None) => SEEDS,
    };
    let Some((index, of)) = args.index.zip(args.of) else { return Ok(all) };
    if index >= of {
        return Err(format!(
            "--index {index} is too large: {of} machines are counted from 0 to {}",
            of.saturating_sub(1)
        ));
    }
    Ok(share(&all, index, of))
}

/// SHA-256 of this executable, because the run of a seed depends on the build.
fn build() -> Result<String, String> {
    let bytes = std::fs::read(program()?)
        .map_err(|error| format!("cannot read this executable: {error}"))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The report of a running campaign with its file and its progress bar.
struct ReportFile {
    report: Report,
    file: Option<PathBuf>,
    bar: ProgressBar,
    saved_at: f64,
}

impl ReportFile {
    fn new(report: Report, file: Option<PathBuf>) -> Self {
        let left = report.left().iter().map(|range| range.end - range.start).sum();
        let length = report.minutes.map_or(left, |minutes| (minutes * 60.0) as u64);
        let bar = bar(length, "swarm");
        Self { report, file, bar, saved_at: f64::NEG_INFINITY }
    }

    /// Adds the record of a seed, and writes the file if it is old.
    fn add(&mut self, record: &Record, seconds: f64) -> Result<(), String> {
        self.report.done.insert(record.seed);
        let summary = &mut self.report.summary;
        summary.add(record);
        if record.violation.is_some() && summary.violations <= SHOWN_MAX {
            let replay = format!("sim run --seed {}", record.seed);
            self.bar.suspend(|| say(&explain(record, &replay)));
        }
        if self.report.minutes.is_some() {
            self.bar.set_position(seconds as u64);
        } else {
            self.bar.inc(1);
        }
        self.bar.set_message(format!(
            "{} seeds, {} violations, {:.1} virtual hours, {:.1} seeds/s",
            summary.seeds,
            summary.violations,
            summary.virtual_ns as f64 / 3.6e12,
            summary.seeds as f64 / seconds.max(0.001),
        ));
        if seconds - self.saved_at < SAVE_SECONDS { Ok(()) } else { self.save(seconds) }
    }

    fn save(&mut self, seconds: f64) -> Result<(), String> {
        self.report.seconds = seconds;
        self.saved_at = seconds;
        self.file.as_deref().map_or(Ok(()), |file: &Path| self.report.save(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(seeds: Option<Range<u64>>, minutes: Option<f64>, index: Option<(u64, u64)>) -> Swarm {
        let (index, of) = (index.map(|(index, _)| index), index.map(|(_, of)| of));
        Swarm { seeds, minutes, index, of, ..Swarm::default() }
    }

    #[test]
    fn seeds_end_if_no_time_limit_ends_them() {
        assert_eq!(seeds(&args(None, None, None)), Ok(0..500));
        assert_eq!(seeds(&args(None, Some(1.0), None)), Ok(0..u64::MAX));
        assert_eq!(seeds(&args(Some(5..9), Some(1.0), None)), Ok(5..9));
        assert_eq!(seeds(&args(Some(5..u64::MAX), Some(1.0), None)), Ok(5..u64::MAX));
        assert!(seeds(&args(Some(5..u64::MAX), None, None)).is_err());
    }

    #[test]
    fn machines_share_the_seeds() {
        assert_eq!(seeds(&args(Some(0..100), None, Some((0, 3)))), Ok(0..33));
        assert_eq!(seeds(&args(Some(0..100), None, Some((2, 3)))), Ok(66..100));
        assert!(seeds(&args(Some(0..100), None, Some((3, 3)))).is_err());
    }

    #[test]
    fn a_report_of_other_seeds_is_not_continued() {
        let report = Report { asked: Ranges::from(0..100), ..Report::default() };
        assert_eq!(check_flags(&args(Some(0..100), None, None), &report), Ok(()));
        let error = check_flags(&args(Some(0..101), None, None), &report);
        assert!(error.is_err_and(|error| error.contains("0..100 (`sim ")));
    }
}
