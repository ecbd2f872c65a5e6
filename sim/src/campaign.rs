//! Many runs: seeds in blocks, blocks in worker processes, each block twice unless told otherwise.
//!
//! Counters and the active mutant are of a whole process, and determinism is worth something only between two
//! processes, so a campaign starts itself again as its workers. A worker prints one record a line. No timing here.

use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::report::Record;
use crate::trace::LINK_EVENTS;

/// What workers run.
#[derive(Clone, Debug)]
pub enum Work {
    /// The swarm's plans of these seeds.
    Seeds(Range<u64>),
    /// A plan from a file.
    File(PathBuf),
}

/// How a campaign is run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The program that is its own worker.
    pub program: PathBuf,
    /// The planted bug, if any.
    pub mutant: Option<String>,
    /// Every seed in one process only.
    pub once: bool,
    /// Workers at a time.
    pub jobs: usize,
    /// Seeds that one worker takes.
    pub block: u64,
    /// Nothing after the first violation is begun.
    pub stop_early: bool,
}

impl Campaign {
    /// Runs all seeds; each record is handed to `each` as it comes, in no particular order.
    ///
    /// # Errors
    ///
    /// A worker that could not be started or that ended early, and why.
    pub fn run(&self, seeds: Range<u64>, each: impl FnMut(Record) + Send) -> Result<(), String> {
        let next = AtomicU64::new(seeds.start);
        // Seeds from here on are of no interest.
        let stop = AtomicU64::new(seeds.end);
        let each = Mutex::new(each);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let start = next.fetch_add(self.block, Ordering::SeqCst);
                        let end = (start + self.block).min(seeds.end);
                        if start >= stop.load(Ordering::SeqCst) {
                            break;
                        }
                        let done = self.run_block(start..end, |record| {
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
                });
            }
        });
        failure.into_inner().ok().flatten().map_or(Ok(()), Err)
    }

    fn run_block(&self, seeds: Range<u64>, mut each: impl FnMut(Record)) -> Result<(), String> {
        let work = Work::Seeds(seeds);
        let first = self.work(&work, 1)?;
        if self.once {
            first.into_iter().for_each(each);
            return Ok(());
        }
        let second = self.work(&work, 2)?;
        for (record, again) in first.into_iter().zip(&second) {
            let work = Work::Seeds(record.seed..record.seed + 1);
            each(self.compared(&work, record, again));
        }
        Ok(())
    }

    /// Runs a plan from a file, twice unless told otherwise.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn replay(&self, file: &Path) -> Result<Record, String> {
        let work = Work::File(file.to_owned());
        let mut first = self.work(&work, 1)?;
        let record = first.pop().ok_or("the worker said nothing")?;
        if self.once {
            return Ok(record);
        }
        let again = self.work(&work, 2)?.pop().ok_or("the second worker said nothing")?;
        Ok(self.compared(&work, record, &again))
    }

    /// A record, with a violation when another process saw another run.
    fn compared(&self, work: &Work, record: Record, again: &Record) -> Record {
        let Some(same) = same_links(&record, again) else { return record };
        let steps = same * LINK_EVENTS..(same + 1) * LINK_EVENTS;
        let told = |pass| self.tell_steps(work, pass, &steps);
        let first = match (told(1), told(2)) {
            (Ok(one), Ok(other)) => first_difference(&one, &other),
            (one, other) => format!("cannot tell: {:?}, {:?}", one.err(), other.err()),
        };
        apart(record, again, &steps, &first)
    }

    /// A worker's own words for some steps of one run.
    fn tell_steps(&self, work: &Work, pass: u32, steps: &Range<u64>) -> Result<String, String> {
        let mut command = self.command(work, pass);
        command.arg("--tell-steps").arg(format!("{}..{}", steps.start, steps.end));
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot start a worker: {error}"))?;
        String::from_utf8(output.stdout).map_err(|error| error.to_string())
    }

    /// One worker's command. The passes differ in their environment, which must make no difference.
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
        if pass > 1 {
            command.env("CONTINUUM_SIM_PASS", "x".repeat(1000));
        }
        command
    }

    /// One worker's records.
    fn work(&self, work: &Work, pass: u32) -> Result<Vec<Record>, String> {
        let expected = match work {
            Work::Seeds(seeds) => seeds.end - seeds.start,
            Work::File(_) => 1,
        };
        let mut command = self.command(work, pass);
        let start = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = start.map_err(|error| format!("cannot start a worker: {error}"))?;
        let mut records = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line.map_err(|error| format!("cannot read from a worker: {error}"))?;
                let record = serde_json::from_str(&line);
                records.push(record.map_err(|error| format!("a worker said {line:?}: {error}"))?);
            }
        }
        let status = child.wait().map_err(|error| format!("cannot wait for a worker: {error}"))?;
        let early = self.stop_early && records.iter().any(|r: &Record| r.violation.is_some());
        if status.success() && (early || records.len() as u64 == expected) {
            return Ok(records);
        }
        Err(format!("a worker for {work:?} ended early, after {} runs: {status}", records.len()))
    }
}

/// How many links of two chains are the same; none when the runs are.
fn same_links(record: &Record, again: &Record) -> Option<u64> {
    if record.chain == again.chain && record.violation == again.violation {
        return None;
    }
    let links = record.links.iter().zip(&again.links);
    Some(links.take_while(|(one, other)| one == other).count() as u64)
}

/// The first line that two texts do not share.
fn first_difference(one: &str, other: &str) -> String {
    let (mut ones, mut others) = (one.lines(), other.lines());
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return "the same events, and another state".to_owned(),
            (one, other) if one == other => {}
            (one, other) => {
                let end = "the end";
                return format!("{} against {}", one.unwrap_or(end), other.unwrap_or(end));
            }
        }
    }
}

/// The record of a run that another process saw differently.
fn apart(mut record: Record, again: &Record, steps: &Range<u64>, first: &str) -> Record {
    let what = format!(
        "two processes saw two runs: chains {} and {} differ after event {} and by event {}; \
         {} and {} events; first: {first}",
        record.chain, again.chain, steps.start, steps.end, record.events, again.events
    );
    let steps = record.violation.take().map_or_else(Vec::new, |violation| violation.steps);
    record.violation = Some(crate::report::Finding {
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
    fn another_chain_is_a_violation_that_names_the_event() {
        let one = Record { chain: "a".to_owned(), links: vec![1, 2, 3], ..Record::default() };
        assert_eq!(same_links(&one, &one), None);
        let other = Record { chain: "b".to_owned(), links: vec![1, 5, 6], ..Record::default() };
        assert_eq!(same_links(&one, &other), Some(1));
        let violation = apart(one, &other, &(1024..2048), "x against y").violation;
        let violation = violation.expect("two chains differ");
        assert_eq!(violation.oracle, "determinism");
        assert!(violation.what.contains("after event 1024 "), "{}", violation.what);
        assert!(violation.what.ends_with("x against y"), "{}", violation.what);
    }

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(first_difference("a\nb\nc", "a\nx\nc"), "b against x");
        assert_eq!(first_difference("a", "a\nb"), "the end against b");
        assert_eq!(first_difference("a", "a"), "the same events, and another state");
    }
}
