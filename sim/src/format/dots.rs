//! Sets of dots, with code of their own.
//!
//! The core keeps the numbers of an author as ranges, and joins, subtracts and searches them. An oracle that did the
//! same with the core's code would share its mistakes. So the oracles take from the core only the plain pairs of
//! numbers, and this module does the rest, simply: it inserts, looks up, and finds the first dot that a set lacks. It
//! states no law.

use std::collections::BTreeMap;

use continuum_core::id::{Actor, Dot};
use continuum_core::replication::{Dots, Ranges};

/// The numbers of each author: inclusive spans that ascend and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExactDots(BTreeMap<Actor, Vec<(u64, u64)>>);

impl ExactDots {
    pub(crate) fn of(dots: &Dots) -> Self {
        let mut exact = Self::default();
        for (actor, ranges) in dots.iter() {
            ranges.iter().for_each(|(low, high)| exact.insert_span(*actor, low, high));
        }
        exact
    }

    pub(crate) fn insert(&mut self, dot: &Dot) {
        self.insert_span(dot.actor, dot.seq, dot.seq);
    }

    /// Adds all numbers of an author from `low` to `high`, both included.
    pub(crate) fn insert_span(&mut self, actor: Actor, mut low: u64, mut high: u64) {
        if low > high {
            return;
        }
        let spans = self.0.entry(actor).or_default();
        // The spans from `from` up to `to` overlap the new one or touch it. They become one with it.
        let from = spans.partition_point(|(_, end)| end.saturating_add(1) < low);
        let mut to = from;
        while let Some((begin, end)) =
            spans.get(to).filter(|(begin, _)| *begin <= high.saturating_add(1))
        {
            (low, high) = (low.min(*begin), high.max(*end));
            to += 1;
        }
        spans.splice(from..to, [(low, high)]);
    }

    pub(crate) fn contains(&self, dot: &Dot) -> bool {
        self.lacking_from(&dot.actor, dot.seq, dot.seq).is_none()
    }

    /// The first dot of this set for which `wanted` holds.
    pub(crate) fn find(&self, mut wanted: impl FnMut(&Dot) -> bool) -> Option<Dot> {
        self.0.iter().find_map(|(actor, spans)| {
            let mut numbers = spans.iter().flat_map(|(low, high)| *low..=*high);
            numbers.find_map(|seq| Some(Dot { actor: *actor, seq }).filter(&mut wanted))
        })
    }

    /// Whether an author's ranges are these numbers, as spans that ascend and do not touch.
    pub(crate) fn is_of(&self, actor: &Actor, ranges: Option<&Ranges>) -> bool {
        let known = self.0.get(actor).map_or(&[][..], Vec::as_slice);
        ranges.into_iter().flat_map(Ranges::iter).eq(known.iter().copied())
    }

    /// The first dot of `part` that this set lacks.
    pub(crate) fn lacking(&self, part: &Dots) -> Option<Dot> {
        part.iter().find_map(|(actor, ranges)| {
            let seq = ranges.iter().find_map(|(low, high)| self.lacking_from(actor, low, high))?;
            Some(Dot { actor: *actor, seq })
        })
    }

    /// The first dot of this set that `whole` lacks.
    pub(crate) fn beyond(&self, whole: &Self) -> Option<Dot> {
        self.0.iter().find_map(|(actor, spans)| {
            let lacking = |(low, high): &(u64, u64)| whole.lacking_from(actor, *low, *high);
            let seq = spans.iter().find_map(lacking)?;
            Some(Dot { actor: *actor, seq })
        })
    }

    /// The first number of an author from `low` to `high` that this set lacks.
    fn lacking_from(&self, actor: &Actor, low: u64, high: u64) -> Option<u64> {
        let spans = self.0.get(actor).map_or(&[][..], Vec::as_slice);
        let at = spans.partition_point(|(_, end)| *end < low);
        match spans.get(at).filter(|(begin, _)| *begin <= low) {
            None => Some(low),
            // Spans do not touch, so the number after the span is not in the set.
            Some((_, end)) => (*end < high).then(|| end + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MOST: u64 = 6;

    fn dot(seq: u64) -> Dot {
        Dot { actor: Actor::default(), seq }
    }

    fn members(mask: u64) -> BTreeSet<u64> {
        (1..=MOST).filter(|seq| mask >> seq & 1 == 1).collect()
    }

    fn exact(mask: u64) -> ExactDots {
        let mut exact = ExactDots::default();
        members(mask).iter().for_each(|seq| exact.insert(&dot(*seq)));
        exact
    }

    fn dots(mask: u64) -> Dots {
        let mut ranges = Ranges::default();
        members(mask).iter().for_each(|seq| assert!(ranges.insert(*seq)));
        Dots::new(vec![(Actor::default(), ranges)])
    }

    /// Compares all sets of the numbers 1 to 6 with each other, and with a plain set.
    #[test]
    fn the_first_dot_that_is_missing_is_found() {
        for part in (0..128).step_by(2) {
            assert_eq!(ExactDots::of(&dots(part)).beyond(&exact(part)), None);
            for whole in (0..128).step_by(2) {
                let expected = (1..=MOST).find(|seq| (part & !whole) >> seq & 1 == 1).map(dot);
                assert_eq!(exact(whole).lacking(&dots(part)), expected, "{part:b} {whole:b}");
                assert_eq!(exact(part).beyond(&exact(whole)), expected, "{part:b} {whole:b}");
                let found = exact(part).find(|dot| !exact(whole).contains(dot));
                assert_eq!(found, expected, "{part:b} {whole:b}");
            }
        }
    }

    /// Adds each span of 1 to 6 to each set.
    #[test]
    fn a_span_is_added_whole_and_adds_nothing_else() {
        for before in (0..128).step_by(2) {
            for (low, high) in (1..=MOST).flat_map(|low| (low..=MOST).map(move |high| (low, high)))
            {
                let mut grown = exact(before);
                grown.insert_span(Actor::default(), low, high);
                let expected: BTreeSet<u64> =
                    members(before).into_iter().chain(low..=high).collect();
                let found: BTreeSet<u64> =
                    (0..=MOST + 1).filter(|seq| grown.contains(&dot(*seq))).collect();
                assert_eq!(found, expected, "{before:b} {low} {high}");
                let mask = expected.iter().map(|seq| 1 << seq).sum();
                assert_eq!(grown, exact(mask), "equal sets are equal, {before:b} {low} {high}");
                assert!(grown.is_of(&Actor::default(), dots(mask).ranges(&Actor::default())));
                let other = dots(mask ^ 2);
                assert!(!grown.is_of(&Actor::default(), other.ranges(&Actor::default())));
            }
        }
        let mut grown = exact(0);
        grown.insert_span(Actor::default(), 9, 3);
        assert_eq!(grown.find(|_| true), None, "an empty span adds nothing");
        grown.insert_span(Actor::default(), 2, u64::MAX);
        grown.insert_span(Actor::default(), u64::MAX, u64::MAX);
        assert!(grown.contains(&dot(u64::MAX)) && !grown.contains(&dot(1)));
    }
}
