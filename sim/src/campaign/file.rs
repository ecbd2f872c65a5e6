//! The report of a campaign as a file: the command, the build, the seeds asked for and done, and the sums.
//!
//! A report is written to a new file that then replaces the old one, so that a reader always finds a whole report, also
//! after a crash. Reports of several machines are merged only if they have the same build and disjoint seeds.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ranges::{self, Ranges};
use super::summary::Summary;

/// The report of a campaign.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The arguments of the command.
    pub command: String,
    /// SHA-256 of the executable.
    pub build: String,
    /// The seeds that were asked for.
    pub asked: Ranges,
    /// The seeds that are done.
    pub done: Ranges,
    /// Whether each seed ran in one process only.
    pub once: bool,
    /// The time limit in minutes, if one was given.
    pub minutes: Option<f64>,
    /// The real seconds that the campaign has run, summed over all machines.
    pub seconds: f64,
    /// The sums over all done seeds.
    pub summary: Summary,
}

impl Report {
    /// The seeds that were asked for and are not done.
    #[must_use]
    pub fn left(&self) -> Vec<Range<u64>> {
        self.asked.iter().flat_map(|range| self.done.missing(range)).collect()
    }

    /// Reads a report.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no report.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file)
            .map_err(|error| format!("cannot read the report {}: {error}", file.display()))?;
        serde_json::from_str(&text).map_err(|error| {
            let file = file.display();
            format!("{file} is not a report of this version of `sim swarm --report`: {error}")
        })
    }

    /// Writes the report: a reader sees the report before or this one, never a part.
    ///
    /// # Errors
    ///
    /// The directory does not exist, or the disk is full.
    pub fn save(&self, file: &Path) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("cannot write the report {}: {error}", file.display())
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        let mut new = file.as_os_str().to_owned();
        new.push(".new");
        fs::write(&new, text + "\n").map_err(|error| failed(&error))?;
        fs::rename(&new, file).map_err(|error| failed(&error))
    }

    /// Refuses to continue with another build: a seed may run differently, so these would be two campaigns.
    ///
    /// # Errors
    ///
    /// The builds differ; the text names both and says what to do.
    pub fn check_build(&self, build: &str) -> Result<(), String> {
        if self.build == build {
            return Ok(());
        }
        Err(format!(
            "the report is of build {:.12} and this is build {build:.12}, in which a seed may run differently. \
             Build the commit of the report again, or start a new campaign with --report",
            self.build
        ))
    }

    /// Whether the report of another machine can be added to this one.
    ///
    /// # Errors
    ///
    /// The builds differ, or both reports have done the same seeds.
    pub fn check_apart(&self, other: &Self) -> Result<(), String> {
        if self.build != other.build {
            let (one, two) = (&self.build, &other.build);
            return Err(format!(
                "builds {one:.12} and {two:.12} differ, so their sums cannot be added: report each build on its own"
            ));
        }
        self.done.overlap(&other.done).map_or(Ok(()), |both| {
            let both = ranges::show(&both);
            Err(format!("both have done seeds {both}: give every machine its own --index"))
        })
    }

    fn merge(&mut self, other: &Self) {
        self.asked.merge(&other.asked);
        self.done.merge(&other.done);
        self.once |= other.once;
        self.seconds += other.seconds;
        self.summary.merge(&other.summary);
    }
}

/// Adds up the reports of several machines; each has a name for error texts.
///
/// # Errors
///
/// Two reports cannot be added; the text names them and says why.
pub fn merge_all(reports: &[(String, Report)]) -> Result<Report, String> {
    for (at, (name, report)) in reports.iter().enumerate() {
        for (other, known) in &reports[..at] {
            let apart = known.check_apart(report);
            apart.map_err(|error| format!("{other} and {name}: {error}"))?;
        }
    }
    let mut all = reports.iter().map(|(_, report)| report);
    let mut sum = all.next().cloned().ok_or("no report is given")?;
    all.for_each(|report| sum.merge(report));
    sum.command = format!("report of {} reports", reports.len());
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Record;

    fn report(seeds: &str) -> Report {
        let mut report = Report {
            command: "swarm".to_owned(),
            build: "ab".to_owned(),
            asked: Ranges::from(0..20),
            done: Ranges::default(),
            once: false,
            minutes: None,
            seconds: 1.5,
            summary: Summary::default(),
        };
        for seed in seeds.split(' ').filter_map(ranges::parse).flatten() {
            report.done.insert(seed);
            report.summary.add(&Record { seed, events: seed, ..Record::default() });
        }
        report
    }

    #[test]
    fn a_campaign_continues_where_its_file_says() {
        let file = std::env::temp_dir().join(format!("sim-report-{}.json", std::process::id()));
        let cut = report("0..3 8..12");
        cut.save(&file).and_then(|()| cut.save(&file)).expect("a report is written twice");
        let found = Report::load(&file).expect("a report is read");
        fs::remove_file(&file).expect("the report exists");
        assert_eq!(found, cut);
        assert_eq!(found.left(), [3..8, 12..20]);
        let mut on = found;
        for seed in on.left().into_iter().flatten() {
            on.done.insert(seed);
            on.summary.add(&Record { seed, events: seed, ..Record::default() });
        }
        let whole = report("0..20");
        assert_eq!((on.done, on.summary), (whole.done, whole.summary));
        assert!(Report::load(&file).is_err());
    }

    #[test]
    fn each_machine_is_added_once() {
        let named = |name: &str, seeds| (name.to_owned(), report(seeds));
        let (a, b, c) = (named("a", "0..5"), named("b", "5..9"), named("c", "20..30 7..8"));
        let sum = merge_all(&[b.clone(), a.clone()]).expect("their seeds are disjoint");
        assert_eq!((sum.summary, sum.done), (report("0..9").summary, report("0..9").done));
        assert_eq!(sum.seconds, 3.0);
        let error = merge_all(&[a.clone(), b, c]).expect_err("seed 7 is in both");
        assert!(error.starts_with("b and c: both have done seeds 7..8:"), "{error}");
        let mut other = named("d", "90..91");
        other.1.build = "cd".to_owned();
        let error = merge_all(&[a, other]).expect_err("two builds");
        assert!(error.starts_with("a and d: builds ab and cd "), "{error}");
    }

    #[test]
    fn another_build_is_refused() {
        let report = report("0..1");
        assert_eq!(report.check_build("ab"), Ok(()));
        assert!(report.check_build("cd").is_err_and(|error| error.contains("Build the commit")));
    }
}
