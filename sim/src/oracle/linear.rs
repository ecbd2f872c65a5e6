//! Linearizability of one register by search: Wing and Gong 1993, with Lowe's memo (2017), per key as Horn and Kroening
//! 2015 allow.
//!
//! The search knows calls, returns and what was seen; it trusts no log and no index order. Not here: how operations of
//! unknown outcome are resolved (`oracle/strong.rs`).

use std::collections::BTreeSet;

/// A version of a register: unique per write; 0 when there is no value.
pub(crate) type Version = u64;

/// What an operation did, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It wrote this version, or removed the value.
    Wrote(Version),
    /// It read this version.
    Read(Version),
    /// It found the first and wrote the second.
    Swapped(Version, Version),
    /// It wanted the first, and found the second instead.
    Refused(Version, Version),
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) called: u64,
    /// `u64::MAX` when it never returned but took place.
    pub(crate) returned: u64,
    pub(crate) seen: Seen,
}

/// The search's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Not,
    /// The search was cut: the workload is too concurrent for it, which is a failure of the workload.
    TooHard,
}

impl Seen {
    /// The register afterwards, if this can happen to a register at `version`.
    const fn apply(self, version: Version) -> Option<Version> {
        match self {
            Self::Wrote(new) => Some(new),
            Self::Read(seen) if seen == version => Some(version),
            Self::Swapped(expected, new) if expected == version => Some(new),
            Self::Refused(expected, found) if found == version && expected != version => {
                Some(version)
            }
            _ => None,
        }
    }
}

/// A call or a return in the order of time.
#[derive(Clone, Copy, Debug)]
struct Entry {
    operation: usize,
    /// For a call the place of its return; none for a return.
    returns: Option<usize>,
}

/// The entries that are not yet placed, as a doubly linked list over their places; place 0 is the head.
struct Pending {
    next: Vec<usize>,
    prev: Vec<usize>,
}

impl Pending {
    fn new(entries: usize) -> Self {
        let places = entries + 2;
        Self {
            next: (1..=places).collect(),
            prev: (0..places).map(|place: usize| place.saturating_sub(1)).collect(),
        }
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.prev[place], self.next[place]);
        self.next[before] = after;
        self.prev[after] = before;
    }

    fn relink(&mut self, place: usize) {
        let (before, after) = (self.prev[place], self.next[place]);
        self.next[before] = place;
        self.prev[after] = place;
    }
}

/// Whether the operations have an order that respects time and explains all that was seen. `budget` bounds the
/// configurations that are tried.
pub(crate) fn check(calls: &[Call], budget: usize) -> Verdict {
    let entries = entries_of(calls);
    let end = entries.len() + 1;
    let mut pending = Pending::new(entries.len());
    let mut placed = vec![0_u64; calls.len().div_ceil(64)];
    let mut tried: BTreeSet<(Vec<u64>, Version)> = BTreeSet::new();
    let mut path: Vec<(usize, Version)> = Vec::new();
    let mut version = 0;
    let mut at = pending.next[0];
    while pending.next[0] != end {
        let Entry { operation, returns } = entries[at - 1];
        let Some(returns) = returns else {
            // An operation returned that fits nowhere: take the last choice back.
            let Some((place, before)) = path.pop() else { return Verdict::Not };
            let Entry { operation, returns } = entries[place - 1];
            version = before;
            placed[operation / 64] &= !(1 << (operation % 64));
            pending.relink(returns.unwrap_or(place));
            pending.relink(place);
            at = pending.next[place];
            continue;
        };
        if let Some(after) = calls[operation].seen.apply(version) {
            placed[operation / 64] |= 1 << (operation % 64);
            if tried.insert((placed.clone(), after)) {
                if tried.len() > budget {
                    return Verdict::TooHard;
                }
                path.push((at, version));
                version = after;
                pending.unlink(at);
                pending.unlink(returns);
                at = pending.next[0];
                continue;
            }
            placed[operation / 64] &= !(1 << (operation % 64));
        }
        at = pending.next[at];
    }
    Verdict::Linearizable
}

/// Calls and returns in the order of time; at one moment calls come first, so that they overlap.
fn entries_of(calls: &[Call]) -> Vec<Entry> {
    let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(calls.len() * 2);
    for (operation, call) in calls.iter().enumerate() {
        order.push((call.called, false, operation));
        order.push((call.returned, true, operation));
    }
    order.sort_unstable();
    let mut returns = vec![0; calls.len()];
    for (place, (_, is_return, operation)) in order.iter().enumerate() {
        if *is_return {
            returns[*operation] = place + 1;
        }
    }
    let entry = |(_, is_return, operation): &(u64, bool, usize)| Entry {
        operation: *operation,
        returns: (!is_return).then(|| returns[*operation]),
    };
    order.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::Seen::{Read, Refused, Swapped, Wrote};
    use super::*;

    const BUDGET: usize = 100_000;

    fn verdict(history: &[(u64, u64, Seen)]) -> Verdict {
        let call = |(called, returned, seen): &(u64, u64, Seen)| Call {
            called: *called,
            returned: *returned,
            seen: *seen,
        };
        check(&history.iter().map(call).collect::<Vec<_>>(), BUDGET)
    }

    fn good(history: &[(u64, u64, Seen)]) {
        assert_eq!(verdict(history), Verdict::Linearizable, "{history:?}");
    }

    fn bad(history: &[(u64, u64, Seen)]) {
        assert_eq!(verdict(history), Verdict::Not, "{history:?}");
    }

    #[test]
    fn planted_good_histories() {
        good(&[]);
        good(&[(0, 1, Read(0))]);
        good(&[(0, 1, Wrote(1)), (2, 3, Read(1))]);
        // A read beside a write sees either state.
        good(&[(0, 9, Wrote(1)), (1, 2, Read(0)), (3, 4, Read(1))]);
        good(&[(0, 9, Wrote(1)), (1, 2, Read(1)), (3, 4, Read(1))]);
        // Two writes side by side, seen in the order of neither call.
        good(&[(0, 9, Wrote(1)), (1, 9, Wrote(2)), (2, 3, Read(2)), (4, 5, Read(1))]);
        // A write that never returned is seen long after.
        good(&[(0, u64::MAX, Wrote(1)), (5, 6, Read(0)), (7, 8, Read(1))]);
        good(&[(0, 1, Wrote(1)), (2, 3, Swapped(1, 2)), (4, 5, Read(2))]);
        good(&[(0, 1, Wrote(1)), (2, 3, Refused(5, 1)), (4, 5, Read(1))]);
        // A removal, and a swap that expects nothing.
        good(&[(0, 1, Wrote(1)), (2, 3, Wrote(0)), (4, 5, Swapped(0, 2)), (6, 7, Read(2))]);
        // Of two swaps side by side from one state, one is refused.
        good(&[(0, 5, Swapped(0, 1)), (1, 6, Refused(0, 1))]);
        good(&[(0, 5, Refused(0, 2)), (1, 6, Swapped(0, 2))]);
        // Touching intervals overlap.
        good(&[(0, 5, Wrote(1)), (5, 6, Read(0))]);
    }

    #[test]
    fn planted_bad_histories() {
        // A stale read.
        bad(&[(0, 1, Wrote(1)), (2, 3, Read(0))]);
        // A read of what nobody wrote.
        bad(&[(0, 1, Wrote(1)), (2, 3, Read(7))]);
        // A read before its write was called.
        bad(&[(0, 1, Read(1)), (2, 3, Wrote(1))]);
        // New, then old again.
        bad(&[(0, 9, Wrote(1)), (1, 2, Read(1)), (3, 4, Read(0))]);
        bad(&[
            (0, 9, Wrote(1)),
            (1, 9, Wrote(2)),
            (2, 3, Read(1)),
            (4, 5, Read(2)),
            (6, 7, Read(1)),
        ]);
        // A lost update: both swaps from one state succeed.
        bad(&[(0, 1, Wrote(1)), (2, 9, Swapped(1, 2)), (3, 9, Swapped(1, 3))]);
        // A swap that succeeds from a state long gone.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(2)), (4, 5, Swapped(1, 3))]);
        // A swap refused although it expected what was there.
        bad(&[(0, 1, Wrote(1)), (2, 3, Refused(1, 1))]);
        // A swap refused by something that was not there.
        bad(&[(0, 1, Wrote(1)), (2, 3, Refused(7, 2)), (4, 5, Wrote(2))]);
        // A removed value comes back.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(0)), (4, 5, Read(1))]);
        // A write that returned is lost.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(2)), (4, 5, Read(1))]);
        // A write applied twice, around another.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(2)), (4, 5, Read(2)), (6, 7, Read(1))]);
        // An unknown write that was seen, then was not.
        bad(&[(0, u64::MAX, Wrote(1)), (5, 6, Read(1)), (7, 8, Read(0))]);
        // Two readers disagree on the order of two writes.
        bad(&[
            (0, 1, Wrote(1)),
            (2, 20, Wrote(2)),
            (2, 20, Wrote(3)),
            (3, 4, Read(2)),
            (5, 6, Read(3)),
            (7, 8, Read(2)),
        ]);
    }

    #[test]
    fn many_operations_are_placed_and_one_stale_read_among_them_is_found() {
        let mut history: Vec<(u64, u64, Seen)> = Vec::new();
        for round in 0..200 {
            let at = round * 10;
            history.push((at, at + 9, Wrote(round * 2 + 1)));
            history.push((at + 1, at + 8, Wrote(round * 2 + 2)));
            history.push((at + 2, at + 7, Read(round * 2 + 1 + round % 2)));
        }
        good(&history);
        history.push((1_905, 1_906, Read(1)));
        bad(&history);
    }

    #[test]
    fn a_search_without_end_is_cut() {
        let mut history: Vec<(u64, u64, Seen)> = (1..=24).map(|v| (0, 1000, Wrote(v))).collect();
        history.push((1, 999, Read(77)));
        assert_eq!(verdict(&history), Verdict::TooHard);
    }
}
