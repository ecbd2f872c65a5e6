//! Sets of dots, compared one number after another.
//!
//! The core keeps the numbers of an author as ranges, and joins, subtracts and searches them. An oracle that did the
//! same with the core's code would share its mistakes. So the oracles take from the core only the plain pairs of
//! numbers, and this module does the rest, slowly and simply. It states no law.

use std::collections::BTreeMap;

use continuum_core::id::{Actor, Dot};
use continuum_core::replication::{Dots, Ranges};

/// The numbers of each author, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExactDots(BTreeMap<Actor, Vec<u64>>);

impl ExactDots {
    pub(crate) fn of(dots: &Dots) -> Self {
        Self(dots.iter().map(|(actor, ranges)| (*actor, numbers(ranges).collect())).collect())
    }

    pub(crate) fn insert(&mut self, dot: &Dot) {
        let numbers = self.0.entry(dot.actor).or_default();
        if let Err(at) = numbers.binary_search(&dot.seq) {
            numbers.insert(at, dot.seq);
        }
    }

    pub(crate) fn contains(&self, dot: &Dot) -> bool {
        self.0.get(&dot.actor).is_some_and(|numbers| numbers.binary_search(&dot.seq).is_ok())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().flat_map(|(actor, numbers)| {
            let actor = *actor;
            numbers.iter().map(move |seq| Dot { actor, seq: *seq })
        })
    }

    /// Whether an author's ranges are these numbers, each once and in order.
    pub(crate) fn is_of(&self, actor: &Actor, ranges: Option<&Ranges>) -> bool {
        let known = self.0.get(actor).map_or(&[][..], Vec::as_slice);
        ranges.into_iter().flat_map(numbers).eq(known.iter().copied())
    }
}

fn numbers(ranges: &Ranges) -> impl Iterator<Item = u64> + '_ {
    ranges.iter().flat_map(|(low, high)| low..=high)
}

/// The first dot of `part` that `whole` lacks.
pub(crate) fn lacking(part: &Dots, whole: &Dots) -> Option<Dot> {
    part.iter().find_map(|(actor, ranges)| {
        let mut known = whole.iter().filter(|(other, _)| *other == *actor);
        let known: Vec<(u64, u64)> = known.next().into_iter().flat_map(|(_, r)| r.iter()).collect();
        let missing = |(low, high): (u64, u64)| {
            let mut next = low;
            for (from, to) in known.iter().filter(|(_, to)| *to >= low) {
                if *from > next || next > high {
                    break;
                }
                next = to + 1;
            }
            (next <= high).then_some(Dot { actor: *actor, seq: next })
        };
        ranges.iter().find_map(missing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dots(spans: &[(u64, u64)]) -> Dots {
        let mut ranges = Ranges::default();
        spans.iter().for_each(|(low, high)| ranges.insert_span(*low, *high));
        Dots::new(vec![(Actor::default(), ranges)])
    }

    /// Compares all sets of the numbers 1 to 6 with each other.
    #[test]
    fn the_first_dot_that_is_missing_is_found() {
        let set = |mask: u64| -> Vec<(u64, u64)> {
            (1..=6).filter(|seq| mask >> seq & 1 == 1).map(|seq| (seq, seq)).collect()
        };
        for part in (0..128).step_by(2) {
            for whole in (0..128).step_by(2) {
                let expected = (1..=6).find(|seq| (part & !whole) >> seq & 1 == 1);
                let found = lacking(&dots(&set(part)), &dots(&set(whole))).map(|dot| dot.seq);
                assert_eq!(found, expected, "{part:b} {whole:b}");
            }
        }
    }

    #[test]
    fn an_exact_set_is_what_was_inserted() {
        let mut exact = ExactDots::of(&dots(&[(1, 2)]));
        let dot = |seq| Dot { actor: Actor::default(), seq };
        exact.insert(&dot(4));
        assert!(exact.contains(&dot(2)) && !exact.contains(&dot(3)));
        let mut ranges = Ranges::span(1, 2);
        assert!(!exact.is_of(&Actor::default(), Some(&ranges)));
        ranges.insert(4);
        assert!(exact.is_of(&Actor::default(), Some(&ranges)));
        assert_eq!(exact.iter().map(|dot| dot.seq).collect::<Vec<_>>(), [1, 2, 4]);
    }
}
