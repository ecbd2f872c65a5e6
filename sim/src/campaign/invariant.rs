//! Violations grouped by cause: a thousand seeds that fail in the same way are one entry.
//!
//! Two violations are the same if the oracle is the same and its text is, apart from numbers and names. This module
//! does not find the cause in the code.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::report::Record;
use crate::transcript::cut;

/// Characters of an oracle's text that are compared; the text after them is mostly values.
const COMPARED_MAX: usize = 160;
/// Characters of an example that are kept.
const EXAMPLE_MAX: usize = 1_000;

/// All violations of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// The law that was broken.
    pub oracle: String,
    /// The number of seeds that broke it.
    pub count: u64,
    /// The lowest of these seeds.
    pub first_seed: u64,
    /// The seed that broke it in the fewest events.
    pub shortest_seed: u64,
    /// The number of these events.
    pub shortest_events: u64,
    /// The text of that violation.
    pub example: String,
    /// The command that replays it.
    pub replay: String,
}

/// Violations by their normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Invariants {
    by_law: BTreeMap<String, Invariant>,
}

impl Invariants {
    /// Adds a run, if it broke a law.
    pub fn add(&mut self, record: &Record) {
        let Some(violation) = &record.violation else { return };
        let key = format!("{}: {}", violation.oracle, normal(&violation.what));
        let found = Invariant {
            oracle: violation.oracle.clone(),
            count: 1,
            first_seed: record.seed,
            shortest_seed: record.seed,
            shortest_events: record.events,
            example: cut(&violation.what, EXAMPLE_MAX),
            replay: format!("sim run --seed {}", record.seed),
        };
        self.put(key, found);
    }

    /// Adds another campaign's.
    pub fn merge(&mut self, other: &Self) {
        for (key, found) in &other.by_law {
            self.put(key.clone(), found.clone());
        }
    }

    fn put(&mut self, key: String, found: Invariant) {
        let Some(known) = self.by_law.get_mut(&key) else {
            self.by_law.insert(key, found);
            return;
        };
        let count = known.count + found.count;
        let first_seed = known.first_seed.min(found.first_seed);
        let length = |of: &Invariant| (of.shortest_events, of.shortest_seed);
        let shortest = if length(&found) < length(known) { found } else { known.clone() };
        *known = Invariant { count, first_seed, ..shortest };
    }

    /// All kinds of violation, each with its normal form.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Invariant)> {
        self.by_law.iter().map(|(key, found)| (key.as_str(), found))
    }

    /// The violations as a table for people.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = String::new();
        for found in self.by_law.values() {
            let Invariant { oracle, count, first_seed, replay, example, .. } = found;
            let _ = writeln!(table, "{oracle}: {count} seeds, the first is {first_seed}; {replay}");
            let _ = writeln!(table, "  {}", cut(example, 300));
        }
        table
    }
}

/// A text without what differs between seeds: each word with a digit becomes `#`, and so does a row of such words.
fn normal(text: &str) -> String {
    let mut normal = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if word.chars().any(|c| c.is_ascii_digit()) {
            word = "#".to_owned();
        }
        normal.push_str(&word);
        word.clear();
        normal.push(c);
    }
    for row in ["#, #", "#:#", "#.#", "#-#"] {
        while normal.contains(row) {
            normal = normal.replace(row, "#");
        }
    }
    normal.trim().chars().take(COMPARED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Finding;

    fn failed(seed: u64, events: u64, what: &str) -> Record {
        let (oracle, what) = ("commit".to_owned(), what.to_owned());
        let finding = Finding { oracle, what, at_ns: 1, node: 0, steps: Vec::new() };
        Record { seed, events, violation: Some(finding), ..Record::default() }
    }

    #[test]
    fn numbers_and_names_make_no_difference() {
        let one = normal("group g12: node 3 lost [0xab12, 17, 9] at 1.25s, not b");
        assert_eq!(one, normal("group g7: node 1 lost [0x99, 1] at 64.5s, not b"));
        assert_ne!(one, normal("group g7: node 1 lost [0x99, 1] at 64.5s, not c"));
        assert_eq!(normal("no digits: here"), "no digits: here");
    }

    #[test]
    fn one_law_is_one_entry_with_its_shortest_run() {
        let mut all = Invariants::default();
        all.add(&failed(9, 500, "entry 7 is lost"));
        all.add(&failed(12, 200, "entry 81 is lost"));
        all.add(&failed(3, 900, "entry 5 is lost"));
        all.add(&failed(4, 100, "entry 5 is there twice"));
        all.add(&Record::default());
        let mut merged = all.clone();
        let mut other = Invariants::default();
        other.add(&failed(1, 150, "entry 6 is lost"));
        merged.merge(&other);
        let of = |all: &Invariants| {
            let lost = all.iter().find(|(key, _)| *key == "commit: entry # is lost");
            lost.map(|(_, it)| (it.count, it.first_seed, it.shortest_seed, it.example.clone()))
        };
        assert_eq!(of(&all), Some((3, 3, 12, "entry 81 is lost".to_owned())));
        assert_eq!(of(&merged), Some((4, 1, 1, "entry 6 is lost".to_owned())));
        assert_eq!(all.iter().count(), 2);
    }
}
