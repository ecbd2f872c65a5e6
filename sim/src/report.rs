//! What is said of a run: its record, and a violation in words.
//!
//! Records are JSON, since workers hand them to the campaign as lines. The sums of many are in `campaign::summary`.
//! Nothing is judged here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::plan::fault::Tally;
use crate::run::{Outcome, Violation};
use crate::transcript::{cut, seconds};

/// One run, as a worker tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The seed; of a plan from a file the plan's.
    pub seed: u64,
    /// The SHA-256 chain.
    pub chain: String,
    /// Links of the chain.
    pub links: Vec<u64>,
    /// Steps of nodes.
    pub events: u64,
    /// Virtual time, in nanoseconds.
    pub virtual_ns: u64,
    /// Acknowledged operations.
    pub operations: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// Each kind of fault: times planned and times struck.
    pub faults: BTreeMap<String, (u64, u64)>,
    /// Nanoseconds from healing to a leader, to all nodes serving, and from the last write to equal replicas.
    pub liveness_ns: [Option<u64>; 3],
    /// The marks that it hit, a bit each as hexadecimal digits.
    #[serde(default)]
    pub marks: String,
    /// CPU time that it took, in microseconds; of another run of the same seed it is another.
    #[serde(default)]
    pub cpu_us: u64,
    /// The violation, if there was one.
    pub violation: Option<Finding>,
}

/// A violation in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The law.
    pub oracle: String,
    /// By what it was broken.
    pub what: String,
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
    /// Whose step.
    pub node: usize,
    /// The last steps.
    pub steps: Vec<String>,
}

impl From<Violation> for Finding {
    fn from(violation: Violation) -> Self {
        let Violation { oracle, what, at_ns, node, steps } = violation;
        Self { oracle, what, at_ns, node, steps }
    }
}

impl Record {
    /// The record of a run.
    #[must_use]
    pub fn new(seed: u64, outcome: Outcome) -> Self {
        let faults = faults_of(&outcome.planned, &outcome.fired);
        let live = outcome.liveness;
        Self {
            seed,
            chain: outcome.chain,
            links: outcome.links,
            events: outcome.events,
            virtual_ns: outcome.virtual_ns,
            operations: outcome.operations,
            unknown: outcome.unknown,
            faults,
            liveness_ns: [live.leader_ns, live.served_ns, live.equal_ns],
            marks: String::new(),
            cpu_us: 0,
            violation: outcome.violation.map(Finding::from),
        }
    }
}

fn faults_of(planned: &Tally, fired: &Tally) -> BTreeMap<String, (u64, u64)> {
    let both = planned.iter().map(|(kind, count)| (kind, count, fired.of(kind)));
    let some = both.filter(|(_, planned, fired)| planned + fired > 0);
    some.map(|(kind, planned, fired)| (kind.name().to_owned(), (planned, fired))).collect()
}

/// A violation for people, with the command that replays it.
#[must_use]
pub fn explain(record: &Record, replay: &str) -> String {
    let Some(violation) = &record.violation else { return String::new() };
    let mut text = String::new();
    for step in &violation.steps {
        let _ = writeln!(text, "{step}");
    }
    let _ = writeln!(
        text,
        "\nviolation of {} by node {} in seed {} at {}",
        violation.oracle,
        violation.node,
        record.seed,
        seconds(violation.at_ns)
    );
    let _ = writeln!(text, "  {}", cut(&violation.what, 2000));
    let _ = writeln!(text, "replay: {replay}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_line() {
        let mut record = Record { seed: 3, chain: "ab".to_owned(), ..Record::default() };
        record.faults.insert("drop".to_owned(), (1, 0));
        let line = serde_json::to_string(&record).expect("a record serializes");
        assert_eq!(serde_json::from_str::<Record>(&line).ok(), Some(record));
    }
}
