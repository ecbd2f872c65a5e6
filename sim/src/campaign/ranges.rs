//! Sets of seeds as half-open ranges: the seeds that a campaign has done, those that are left, a machine's share.
//!
//! The ranges are sorted, disjoint and not adjacent, so a set has only one form. As text a range is `A..B`, as on the
//! command line.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: Vec<Range<u64>>,
}

impl From<Range<u64>> for Ranges {
    fn from(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        ranges.add(range);
        ranges
    }
}

impl Ranges {
    /// Adds one seed.
    pub fn insert(&mut self, seed: u64) {
        self.add(seed..seed.saturating_add(1));
    }

    /// Adds a range; ranges that overlap or touch become one.
    pub fn add(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|known| known.end < range.start);
        let to = self.ranges.partition_point(|known| known.start <= range.end);
        for known in &self.ranges[from..to] {
            range = known.start.min(range.start)..known.end.max(range.end);
        }
        self.ranges.splice(from..to, [range]);
    }

    /// Adds another set.
    pub fn merge(&mut self, other: &Self) {
        other.ranges.iter().for_each(|range| self.add(range.clone()));
    }

    /// A range that both sets hold, if there is one.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> Option<Range<u64>> {
        let pairs = self.ranges.iter().flat_map(|a| other.ranges.iter().map(move |b| (a, b)));
        let mut common = pairs.map(|(a, b)| a.start.max(b.start)..a.end.min(b.end));
        common.find(|range| !range.is_empty())
    }

    /// The parts of a range that are not in the set.
    #[must_use]
    pub fn missing(&self, from: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut start = from.start;
        for known in &self.ranges {
            let gap = start..known.start.min(from.end);
            if !gap.is_empty() {
                missing.push(gap);
            }
            start = start.max(known.end);
        }
        if start < from.end {
            missing.push(start..from.end);
        }
        missing
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// The number of seeds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// Cuts ranges into stretches of at most `most` seeds, in order.
pub fn stretches(
    ranges: impl IntoIterator<Item = Range<u64>>,
    most: u64,
) -> impl Iterator<Item = Range<u64>> {
    let most = most.max(1);
    ranges.into_iter().flat_map(move |range| {
        let starts = std::iter::successors(Some(range.start), move |at| at.checked_add(most));
        let end = range.end;
        starts.take_while(move |at| *at < end).map(move |at| at..at.saturating_add(most).min(end))
    })
}

/// The share of machine `index` of `of` in a range. The shares of all machines are disjoint, cover the range, and their
/// sizes differ by one seed at most.
#[must_use]
pub fn share(range: &Range<u64>, index: u64, of: u64) -> Range<u64> {
    let length = u128::from(range.end - range.start);
    let at = |index: u64| {
        let part = length * u128::from(index.min(of)) / u128::from(of.max(1));
        range.start + part as u64
    };
    at(index)..at(index.saturating_add(1))
}

/// Reads `A..B`, or `A..` as all seeds from A on.
#[must_use]
pub fn parse(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once("..")?;
    let (start, end) = (start.trim().parse().ok()?, end.trim());
    let end = if end.is_empty() { u64::MAX } else { end.parse().ok()? };
    (start < end).then_some(start..end)
}

/// Writes `A..B`, or `A..`.
#[must_use]
pub fn show(range: &Range<u64>) -> String {
    let end = if range.end == u64::MAX { String::new() } else { range.end.to_string() };
    format!("{}..{end}", range.start)
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.ranges.iter().map(show))
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ranges = Self::default();
        for text in Vec::<String>::deserialize(deserializer)? {
            let range = parse(&text);
            ranges.add(range.ok_or_else(|| {
                serde::de::Error::custom(format!("{text:?} is not a range of seeds: write A..B"))
            })?);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ranges: &str) -> Ranges {
        let mut all = Ranges::default();
        ranges.split(' ').for_each(|text| all.add(parse(text).unwrap_or(0..0)));
        all
    }

    fn text(ranges: &Ranges) -> String {
        ranges.iter().map(|range| show(&range)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(text(&of("0..3 5..8 3..5")), "0..8");
        assert_eq!(text(&of("5..8 0..3")), "0..3 5..8");
        assert_eq!(text(&of("0..3 5..8 10..12 2..11")), "0..12");
        assert_eq!(text(&of("0..9 2..4")), "0..9");
        assert_eq!(text(&of("4..4")), "");
    }

    #[test]
    fn the_order_of_insertion_makes_no_difference() {
        for order in 0..50_u64 {
            let mut seeds: Vec<u64> = (0..60).filter(|seed| seed % 7 != order % 7).collect();
            seeds.sort_by_key(|seed| crate::rng::mix(seed ^ order << 32));
            let mut ranges = Ranges::default();
            seeds.iter().for_each(|seed| ranges.insert(*seed));
            let mut sorted = seeds.clone();
            sorted.sort_unstable();
            let back: Vec<u64> = ranges.ranges.iter().cloned().flatten().collect();
            assert_eq!(back, sorted);
            assert_eq!(ranges.count(), sorted.len() as u64);
            assert!(ranges.ranges.windows(2).all(|two| two[0].end < two[1].start));
            let left: Vec<u64> = ranges.missing(0..60).into_iter().flatten().collect();
            assert!(left.iter().all(|seed| !seeds.contains(seed)));
            assert_eq!(left.len() + seeds.len(), 60);
        }
    }

    #[test]
    fn overlaps_are_found() {
        let ranges = of("0..10 20..30");
        assert_eq!(ranges.overlap(&of("10..20 30..40")), None);
        assert_eq!(ranges.overlap(&of("12..15 28..40")), Some(28..30));
    }

    #[test]
    fn shares_are_disjoint_and_cover() {
        for (range, of) in [(0..1_000_000, 7), (5..8, 5), (3..103, 100), (0..u64::MAX, 3)] {
            let shares: Vec<_> = (0..of).map(|index| share(&range, index, of)).collect();
            assert_eq!((shares[0].start, shares[of as usize - 1].end), (range.start, range.end));
            assert!(shares.windows(2).all(|two| two[0].end == two[1].start));
            let sizes = shares.iter().map(|share| share.end - share.start);
            let (least, most) = (sizes.clone().min(), sizes.max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1));
        }
    }

    #[test]
    fn stretches_cover_and_end() {
        assert_eq!(stretches([0..5, 9..10], 2).collect::<Vec<_>>(), [0..2, 2..4, 4..5, 9..10]);
        let end = u64::MAX;
        let last = std::iter::once(end - 3..end);
        assert_eq!(stretches(last, 2).collect::<Vec<_>>(), [end - 3..end - 1, end - 1..end]);
        assert_eq!(stretches([], 2).count(), 0);
    }

    #[test]
    fn a_set_survives_its_text() {
        let ranges = of("0..10 20..");
        let text = serde_json::to_string(&ranges).expect("ranges serialize");
        assert_eq!(text, r#"["0..10","20.."]"#);
        assert_eq!(serde_json::from_str::<Ranges>(&text).ok(), Some(ranges));
        assert!(serde_json::from_str::<Ranges>(r#"["9..3"]"#).is_err());
    }
}
