//! A campaign: many seeds in worker processes, each seed in two of them unless `once` is set.
//!
//! Mark counters and the active mutant belong to a whole process, and only two processes can prove determinism, so a
//! campaign starts its own executable as its workers. A worker prints one record per line. The modules below sum up the
//! records. This module has no time limit: a caller that wants an end hands over fewer ranges of seeds.

pub mod file;
pub mod invariant;
pub mod pairs;
pub mod ranges;
pub mod reach;
pub mod summary;

use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::report::{Finding, Record};
use crate::rng::{Draws, stream};
use crate::trace::LINK_EVENTS;

/// The work of one worker.
#[derive(Clone, Debug)]
pub enum Work {
    /// The plans of these seeds.
    Seeds(Range<u64>),
    /// A plan from a file.
    File(PathBuf),
}

/// The settings of a campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The executable of the workers; it is this program.
    pub program: PathBuf,
    /// The active mutant, if any.
    pub mutant: Option<String>,
    /// Run each seed in one process only.
    pub once: bool,
    /// Workers at a time.
    pub jobs: usize,
    /// Start no further seeds after the first violation.
    pub stop_early: bool,
    /// In the second process, one seed of this many formats every step as text: text costs three times a run.
    pub observe_every: u64,
    /// A step at which every run is made to depend on memory addresses. It proves that the comparison of two processes
    /// detects a difference.
    pub slip_at: Option<u64>,
}

impl Campaign {
    /// Runs seeds, one worker for each stretch of them. `each` receives every record as it comes, in no particular
    /// order. The next stretch is taken from the iterator when a worker is free.
    ///
    /// # Errors
    ///
    /// A worker could not be started or refused its work, and why.
    pub fn run(
        &self,
        stretches: impl Iterator<Item = Range<u64>> + Send,
        each: impl FnMut(Record) + Send,
    ) -> Result<(), String> {
        let stretches = Mutex::new(stretches);
        let next = || stretches.lock().ok().and_then(|mut stretches| stretches.next());
        // Seeds from this one on are not needed.
        let stop = AtomicU64::new(u64::MAX);
        let each = Mutex::new(each);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(seeds) = next().filter(|s| s.start < stop.load(Ordering::SeqCst)) {
                let done = self.run_stretch(seeds, |record| {
                    if self.stop_early && record.violation.is_some() {
                        stop.fetch_min(record.seed, Ordering::SeqCst);
                    }
                    if let Ok(mut each) = each.lock() {
                        each(record);
                    }
                });
                if let Err(error) = done {
                    stop.store(0, Ordering::SeqCst);
                    if let Ok(mut failure) = failure.lock() {
                        *failure = Some(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| (0..self.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
        failure.into_inner().ok().flatten().map_or(Ok(()), Err)
    }

    fn run_stretch(&self, seeds: Range<u64>, mut each: impl FnMut(Record)) -> Result<(), String> {
        let first = self.seeds(seeds.clone(), 1)?;
        if self.once {
            first.into_iter().for_each(each);
            return Ok(());
        }
        let second = self.seeds(seeds, 2)?;
        for (record, again) in first.into_iter().zip(&second) {
            let work = Work::Seeds(record.seed..record.seed + 1);
            each(self.compared(&work, record, again));
        }
        Ok(())
    }

    /// Runs a plan from a file, in two processes unless `once` is set.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn replay(&self, file: &Path) -> Result<Record, String> {
        let file = std::path::absolute(file)
            .map_err(|error| format!("cannot find the directory of {}: {error}", file.display()))?;
        let work = Work::File(file);
        let record = |pass| {
            let (mut records, end) = self.work(&work, pass)?;
            let end = end.map(|end| died(0, &end));
            records.pop().or(end).ok_or_else(|| "the worker printed no record".to_owned())
        };
        let first = record(1)?;
        if self.once {
            return Ok(first);
        }
        let again = record(2)?;
        Ok(self.compared(&work, first, &again))
    }

    /// The record, with a violation of determinism if the other process had another run.
    fn compared(&self, work: &Work, record: Record, again: &Record) -> Record {
        let Some(same) = same_links(&record, again) else { return record };
        let steps = same * LINK_EVENTS..(same + 1) * LINK_EVENTS;
        let text = |pass| self.print_steps(work, pass, &steps);
        let first = match (text(1), text(2)) {
            (Ok(one), Ok(other)) => first_difference(&one, &other),
            (one, other) => {
                format!("the steps cannot be read again: {:?}, {:?}", one.err(), other.err())
            }
        };
        nondeterministic(record, again, &steps, &first)
    }

    /// Some steps of one run as text, from a worker.
    fn print_steps(&self, work: &Work, pass: u32, steps: &Range<u64>) -> Result<String, String> {
        let mut command = self.command(work, pass);
        command.arg("--print-steps").arg(format!("{}..{}", steps.start, steps.end));
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot start a worker: {error}"))?;
        String::from_utf8(output.stdout).map_err(|error| error.to_string())
    }

    /// The command of one worker. The second pass differs in what must make no difference: environment, locale, time
    /// zone, directory, memory addresses, and steps formatted as text.
    fn command(&self, work: &Work, pass: u32) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("worker");
        match work {
            Work::Seeds(seeds) => {
                command.arg("--seeds").arg(format!("{}..{}", seeds.start, seeds.end));
            }
            Work::File(file) => {
                command.arg("--plan").arg(file);
            }
        }
        if let Some(mutant) = &self.mutant {
            command.arg("--mutant").arg(mutant);
        }
        if self.stop_early {
            command.arg("--stop-early");
        }
        if let Some(step) = self.slip_at {
            command.arg("--slip-at").arg(step.to_string());
        }
        if pass > 1 {
            let every = if let Work::File(_) = work { 1 } else { self.observe_every };
            command.arg("--observe-every").arg(every.to_string());
            command.arg("--heap-shift").arg(heap_shift(work).to_string());
            command.env("CONTINUUM_SIM_PASS", "x".repeat(1000));
            command
                .env("TZ", "Pacific/Apia")
                .env("LC_ALL", "tr_TR.UTF-8")
                .env("LANG", "tr_TR.UTF-8");
            command.current_dir("/");
        }
        command
    }

    /// The records of some seeds. If a worker dies, the seed that it ran has broken a law.
    fn seeds(&self, seeds: Range<u64>, pass: u32) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        let mut left = seeds;
        while !left.is_empty() {
            let (found, end) = self.work(&Work::Seeds(left.clone()), pass)?;
            left.start += found.len() as u64;
            records.extend(found);
            if self.stop_early && records.iter().any(|record| record.violation.is_some()) {
                break;
            }
            match end {
                Some(end) => {
                    records.push(died(left.start, &end));
                    left.start += 1;
                }
                None if left.is_empty() => {}
                None => {
                    return Err(format!("a worker ended without the records of seeds {left:?}"));
                }
            }
        }
        Ok(records)
    }

    /// The records of one worker, and the signal that ended it, if one did.
    fn work(&self, work: &Work, pass: u32) -> Result<(Vec<Record>, Option<String>), String> {
        let mut command = self.command(work, pass);
        let start = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = start.map_err(|error| format!("cannot start a worker: {error}"))?;
        let mut records = Vec::new();
        let mut last = None;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line.map_err(|error| format!("cannot read from a worker: {error}"))?;
                match serde_json::from_str(&line) {
                    Ok(record) => records.push(record),
                    Err(error) => last = Some(format!("a worker printed {line:?}: {error}")),
                }
            }
        }
        let status = child.wait().map_err(|error| format!("cannot wait for a worker: {error}"))?;
        match (status.code(), last) {
            (Some(0), None) => Ok((records, None)),
            // A dying worker may leave a line that is cut off.
            (None, _) => Ok((records, Some(status.to_string()))),
            (_, last) => Err(last.unwrap_or_else(|| format!("a worker for {work:?}: {status}"))),
        }
    }
}

/// Bytes that the second pass allocates first, drawn from the seed so that memory addresses differ in every stretch.
fn heap_shift(work: &Work) -> u64 {
    let seed = match work {
        Work::Seeds(seeds) => seeds.start,
        Work::File(_) => 0,
    };
    Draws::new(seed).between(stream("heap", 0), 0, 1 << 10, 1 << 22)
}

/// The record of a seed whose worker died.
fn died(seed: u64, how: &str) -> Record {
    let violation = Finding {
        oracle: "no-abort".to_owned(),
        what: format!("the process died during the run: {how}"),
        ..Finding::default()
    };
    Record { seed, violation: Some(violation), ..Record::default() }
}

/// The number of equal links at the beginning of two chains; `None` if the runs are equal.
fn same_links(record: &Record, again: &Record) -> Option<u64> {
    if record.chain == again.chain && record.violation == again.violation {
        return None;
    }
    let links = record.links.iter().zip(&again.links);
    Some(links.take_while(|(one, other)| one == other).count() as u64)
}

/// The first pair of lines in which two texts differ.
fn first_difference(one: &str, other: &str) -> String {
    let (mut ones, mut others) = (one.lines(), other.lines());
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return "the events are equal, and a state differs".to_owned(),
            (one, other) if one == other => {}
            (one, other) => {
                let end = "the end";
                return format!("{} against {}", one.unwrap_or(end), other.unwrap_or(end));
            }
        }
    }
}

/// The record of a run that was different in another process.
fn nondeterministic(mut record: Record, again: &Record, steps: &Range<u64>, first: &str) -> Record {
    let what = format!(
        "two processes made different runs: chains {} and {} differ after event {} and by event {}; \
         {} and {} events; the first difference: {first}",
        record.chain, again.chain, steps.start, steps.end, record.events, again.events
    );
    let steps = record.violation.take().map_or_else(Vec::new, |violation| violation.steps);
    record.violation = Some(Finding {
        oracle: "determinism".to_owned(),
        what,
        at_ns: record.virtual_ns,
        node: 0,
        steps,
    });
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_different_chain_is_a_violation_that_names_the_event() {
        let one = Record { chain: "a".to_owned(), links: vec![1, 2, 3], ..Record::default() };
        assert_eq!(same_links(&one, &one), None);
        let other = Record { chain: "b".to_owned(), links: vec![1, 5, 6], ..Record::default() };
        assert_eq!(same_links(&one, &other), Some(1));
        let violation = nondeterministic(one, &other, &(1024..2048), "x against y").violation;
        let violation = violation.expect("two chains differ");
        assert_eq!(violation.oracle, "determinism");
        assert!(violation.what.contains("after event 1024 "), "{}", violation.what);
        assert!(violation.what.ends_with("x against y"), "{}", violation.what);
    }

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(first_difference("a\nb\nc", "a\nx\nc"), "b against x");
        assert_eq!(first_difference("a", "a\nb"), "the end against b");
        assert_eq!(first_difference("a", "a"), "the events are equal, and a state differs");
    }
}
