//! Which operations of a workload take place: all, or those that are listed.
//!
//! An operation is named by its client and its place among that client's operations. Each is drawn by its place alone
//! (`client`), so a list cut anywhere leaves the others as they were. In a file a client is one line of text, such as
//! `"2: 0, 4..7"`; the end of a range is not included.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Operations, by client and place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Kept {
    places: BTreeMap<usize, BTreeSet<u64>>,
}

impl Kept {
    /// Whether this operation takes place.
    #[must_use]
    pub fn holds(&self, client: usize, place: u64) -> bool {
        self.places.get(&client).is_some_and(|places| places.contains(&place))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.values().map(BTreeSet::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let clients = self.places.iter();
        clients.flat_map(|(client, places)| places.iter().map(|place| (*client, *place)))
    }

    /// How many clients it takes to have them all.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.places.keys().next_back().map_or(0, |client| client + 1)
    }
}

impl FromIterator<(usize, u64)> for Kept {
    fn from_iter<I: IntoIterator<Item = (usize, u64)>>(operations: I) -> Self {
        let mut kept = Self::default();
        for (client, place) in operations {
            kept.places.entry(client).or_default().insert(place);
        }
        kept
    }
}

impl From<Kept> for Vec<String> {
    fn from(kept: Kept) -> Self {
        kept.places
            .iter()
            .map(|(client, places)| format!("{client}: {}", spans(places).join(", ")))
            .collect()
    }
}

/// Runs of places that follow each other, each as a number or a range.
fn spans(places: &BTreeSet<u64>) -> Vec<String> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for place in places {
        match runs.last_mut() {
            Some((_, end)) if *end == *place => *end += 1,
            _ => runs.push((*place, place + 1)),
        }
    }
    let text = |(start, end): &(u64, u64)| match end - start {
        1 => start.to_string(),
        _ => format!("{start}..{end}"),
    };
    runs.iter().map(text).collect()
}

impl TryFrom<Vec<String>> for Kept {
    type Error = String;

    fn try_from(lines: Vec<String>) -> Result<Self, String> {
        let mut kept = Self::default();
        for line in &lines {
            let wrong = || format!("{line:?} lists no operations: write \"2: 0, 4..7\"");
            let (client, places) = line.split_once(':').ok_or_else(wrong)?;
            let client = client.trim().parse().map_err(|_| wrong())?;
            let of_client = kept.places.entry(client).or_default();
            for span in places.split(',').map(str::trim).filter(|span| !span.is_empty()) {
                of_client.extend(parse_span(span).ok_or_else(wrong)?);
            }
        }
        kept.places.retain(|_, places| !places.is_empty());
        Ok(kept)
    }
}

/// The most places that one range in a file may have: a typing error must not eat all memory.
const SPAN_MAX: u64 = 100_000;

fn parse_span(span: &str) -> Option<std::ops::Range<u64>> {
    let (start, end) = match span.split_once("..") {
        Some((start, end)) => (start.trim().parse().ok()?, end.trim().parse().ok()?),
        None => {
            let place: u64 = span.parse().ok()?;
            (place, place.checked_add(1)?)
        }
    };
    (start < end && end - start <= SPAN_MAX).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_its_text() {
        let kept: Kept = [(2, 0), (2, 4), (2, 5), (2, 6), (0, 9)].into_iter().collect();
        let lines: Vec<String> = kept.clone().into();
        assert_eq!(lines, ["0: 9", "2: 0, 4..7"]);
        assert_eq!(Kept::try_from(lines), Ok(kept.clone()));
        assert_eq!((kept.len(), kept.clients()), (5, 3));
        assert!(kept.holds(2, 5) && !kept.holds(2, 7) && !kept.holds(1, 0));
        assert_eq!(kept.iter().next(), Some((0, 9)));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["1", "x: 1", "1: x", "1: 3..2", "1: 0..999999999", "1: 18446744073709551615"]
        {
            assert!(Kept::try_from(vec![wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert_eq!(Kept::try_from(vec!["1:".to_owned()]), Ok(Kept::default()));
    }
}
