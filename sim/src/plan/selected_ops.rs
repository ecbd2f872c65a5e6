//! A selection of a workload's operations: only these run.
//!
//! An operation is named by its client and by its index among that client's operations. Each is drawn from its index
//! alone (`client`), so removing one from the list changes no other. In a file each client is one line of text, such as
//! `"2: 0, 4..7"`; the end of a range is excluded.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Operations, by client and index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct SelectedOps {
    indices: BTreeMap<usize, BTreeSet<u64>>,
}

impl SelectedOps {
    /// Whether this operation is selected.
    #[must_use]
    pub fn holds(&self, client: usize, index: u64) -> bool {
        self.indices.get(&client).is_some_and(|indices| indices.contains(&index))
    }

    /// How many operations are selected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indices.values().map(BTreeSet::len).sum()
    }

    /// Whether no operation is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let clients = self.indices.iter();
        clients.flat_map(|(client, indices)| indices.iter().map(|index| (*client, *index)))
    }

    /// The number of clients that is needed to run them all.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.indices.keys().next_back().map_or(0, |client| client + 1)
    }
}

impl FromIterator<(usize, u64)> for SelectedOps {
    fn from_iter<I: IntoIterator<Item = (usize, u64)>>(operations: I) -> Self {
        let mut selected = Self::default();
        for (client, index) in operations {
            selected.indices.entry(client).or_default().insert(index);
        }
        selected
    }
}

impl From<SelectedOps> for Vec<String> {
    fn from(selected: SelectedOps) -> Self {
        selected
            .indices
            .iter()
            .map(|(client, indices)| format!("{client}: {}", spans(indices).join(", ")))
            .collect()
    }
}

/// Runs of consecutive indices, each as a number or a range.
fn spans(indices: &BTreeSet<u64>) -> Vec<String> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some((_, end)) if *end == *index => *end += 1,
            _ => runs.push((*index, index + 1)),
        }
    }
    let text = |(start, end): &(u64, u64)| match end - start {
        1 => start.to_string(),
        _ => format!("{start}..{end}"),
    };
    runs.iter().map(text).collect()
}

impl TryFrom<Vec<String>> for SelectedOps {
    type Error = String;

    fn try_from(lines: Vec<String>) -> Result<Self, String> {
        let mut selected = Self::default();
        for line in &lines {
            let wrong = || format!("{line:?} is no list of operations: write \"2: 0, 4..7\"");
            let (client, indices) = line.split_once(':').ok_or_else(wrong)?;
            let client = client.trim().parse().map_err(|_| wrong())?;
            let of_client = selected.indices.entry(client).or_default();
            for span in indices.split(',').map(str::trim).filter(|span| !span.is_empty()) {
                of_client.extend(parse_span(span).ok_or_else(wrong)?);
            }
        }
        selected.indices.retain(|_, indices| !indices.is_empty());
        Ok(selected)
    }
}

/// Most indices in one range of a file: a typing error must not use up all memory.
const SPAN_MAX: u64 = 100_000;

fn parse_span(span: &str) -> Option<std::ops::Range<u64>> {
    let (start, end) = match span.split_once("..") {
        Some((start, end)) => (start.trim().parse().ok()?, end.trim().parse().ok()?),
        None => {
            let index: u64 = span.parse().ok()?;
            (index, index.checked_add(1)?)
        }
    };
    (start < end && end - start <= SPAN_MAX).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_equal_after_a_round_trip_through_text() {
        let selected: SelectedOps = [(2, 0), (2, 4), (2, 5), (2, 6), (0, 9)].into_iter().collect();
        let lines: Vec<String> = selected.clone().into();
        assert_eq!(lines, ["0: 9", "2: 0, 4..7"]);
        assert_eq!(SelectedOps::try_from(lines), Ok(selected.clone()));
        assert_eq!((selected.len(), selected.clients()), (5, 3));
        assert!(selected.holds(2, 5) && !selected.holds(2, 7) && !selected.holds(1, 0));
        assert_eq!(selected.iter().next(), Some((0, 9)));
    }

    #[test]
    fn invalid_lists_are_refused() {
        for wrong in ["1", "x: 1", "1: x", "1: 3..2", "1: 0..999999999", "1: 18446744073709551615"]
        {
            assert!(SelectedOps::try_from(vec![wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert_eq!(SelectedOps::try_from(vec!["1:".to_owned()]), Ok(SelectedOps::default()));
    }
}
