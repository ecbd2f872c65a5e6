//! Law: the operations on a register have a sequential order that respects real time and explains every answer (Herlihy
//! and Wing 1990). This file searches for that order: Wing and Gong 1993, with Lowe's memo (2017), per key as Horn and
//! Kroening 2015 allow.
//!
//! The search uses calls, returns and answers alone; it trusts no log and no index. Every write has a version of its
//! own, so an operation that found a version comes between that version's write and the next write. That leaves few
//! orders to try (Gibbons and Korach 1997 explain why such histories are easy). This file does not resolve operations
//! of unknown outcome (`strong` does).

use std::collections::{BTreeMap, BTreeSet};

/// A version of a register, unique per write; 0 means no value.
pub(crate) type Version = u64;

/// The effect of an operation, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Wrote this version; version 0 removes the value.
    Wrote(Version),
    /// Read this version.
    Read(Version),
    /// Found the first version and wrote the second.
    Swapped(Version, Version),
    /// Expected the first version and found the second instead.
    Refused(Version, Version),
}

/// One operation, with its times in virtual nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) called: u64,
    /// `u64::MAX` if the operation took place but never returned.
    pub(crate) returned: u64,
    pub(crate) seen: Seen,
}

/// The search's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An order exists.
    Linearizable,
    /// No order exists.
    Not,
    /// The search exceeded its budget: the workload is too concurrent, which is a failure of the workload.
    TooHard,
}

impl Seen {
    /// The version that the operation must find; `None` if it may follow any version.
    const fn finds(self) -> Option<Version> {
        match self {
            Self::Wrote(_) => None,
            Self::Read(found) | Self::Swapped(found, _) | Self::Refused(_, found) => Some(found),
        }
    }

    /// The register's version afterwards; `None` if the operation cannot happen to a register at `version`.
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

/// A call or a return, in the order of time.
#[derive(Clone, Copy, Debug)]
struct Entry {
    operation: usize,
    /// The node of the return, for a call; `None` for a return.
    returns: Option<usize>,
}

/// The entries that are not yet ordered, as a doubly linked list. Node `i` is entry `i - 1`; node 0 is the head.
struct Pending {
    next: Vec<usize>,
    prev: Vec<usize>,
}

impl Pending {
    fn new(entries: usize) -> Self {
        let nodes = entries + 2;
        Self {
            next: (1..=nodes).collect(),
            prev: (0..nodes).map(|node: usize| node.saturating_sub(1)).collect(),
        }
    }

    fn unlink(&mut self, node: usize) {
        let (before, after) = (self.prev[node], self.next[node]);
        self.next[before] = after;
        self.prev[after] = before;
    }

    fn relink(&mut self, node: usize) {
        let (before, after) = (self.prev[node], self.next[node]);
        self.next[before] = node;
        self.prev[after] = node;
    }
}

/// Whether the operations have an order that respects real time and explains every answer. `budget` bounds the number
/// of configurations that the search tries.
pub(crate) fn check(calls: &[Call], budget: usize) -> Verdict {
    let mut search = Search::new(calls);
    let mut tried: BTreeSet<(Vec<u64>, Version)> = BTreeSet::new();
    // Each step taken: the call, the version before it, and the calls that remain to be tried instead.
    let mut path: Vec<(usize, Version, Vec<usize>)> = Vec::new();
    let mut choices = search.choices();
    while !search.is_done() {
        let Some(node) = choices.pop() else {
            // No call fits: undo the last step.
            let Some((node, before, others)) = path.pop() else { return Verdict::Not };
            search.undo(node, before);
            choices = others;
            continue;
        };
        let before = search.version;
        search.linearize(node);
        let is_choice = !choices.is_empty();
        if is_choice && !tried.insert((search.linearized.clone(), search.version)) {
            search.undo(node, before);
            continue;
        }
        if tried.len() > budget {
            return Verdict::TooHard;
        }
        path.push((node, before, choices));
        choices = search.choices();
    }
    Verdict::Linearizable
}

/// The state of the search.
struct Search<'a> {
    calls: &'a [Call],
    entries: Vec<Entry>,
    pending: Pending,
    /// A bit set of the operations that are in the order so far.
    linearized: Vec<u64>,
    version: Version,
    /// By version: how many pending operations must find it.
    needed: BTreeMap<Version, usize>,
    /// Pending removals; only version 0 can come a second time.
    removals: usize,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call]) -> Self {
        let entries = entries_of(calls);
        let mut search = Self {
            calls,
            pending: Pending::new(entries.len()),
            entries,
            linearized: vec![0; calls.len().div_ceil(64)],
            version: 0,
            needed: BTreeMap::new(),
            removals: 0,
        };
        calls.iter().for_each(|call| search.count(call.seen, true));
        search
    }

    fn is_done(&self) -> bool {
        self.pending.next[0] > self.entries.len()
    }

    fn count(&mut self, seen: Seen, pending: bool) {
        if let Some(version) = seen.finds() {
            let needed = self.needed.entry(version).or_default();
            *needed = if pending { *needed + 1 } else { *needed - 1 };
        }
        if matches!(seen, Seen::Wrote(0) | Seen::Swapped(_, 0)) {
            self.removals = if pending { self.removals + 1 } else { self.removals - 1 };
        }
    }

    fn needed(&self, version: Version) -> usize {
        self.needed.get(&version).copied().unwrap_or_default()
    }

    /// The calls that real time allows next: those before the first pending return.
    fn enabled(&self) -> impl Iterator<Item = (usize, Seen)> + '_ {
        let from = |node: usize| self.pending.next[node];
        let nodes = std::iter::successors(Some(from(0)), move |node| Some(from(*node)));
        nodes.map_while(|node| {
            let entry = self.entries.get(node - 1)?;
            entry.returns?;
            Some((node, self.calls[entry.operation].seen))
        })
    }

    /// The calls worth trying next, the best last. When one call explains all that any alternative explains, only this
    /// call is tried. A choice remains among writes whose versions pending operations must find.
    fn choices(&self) -> Vec<usize> {
        let version = self.version;
        // A read of the current version can come now: it never constrains a later operation.
        let reads = |(_, seen): &(usize, Seen)| {
            seen.finds() == Some(version) && seen.apply(version) == Some(version)
        };
        if let Some((node, _)) = self.enabled().find(reads) {
            return vec![node];
        }
        let fits = |(node, seen): (usize, Seen)| seen.apply(version).map(|_| node);
        let needed = self.needed(version);
        if needed == 0 {
            // The next operation overwrites this version. A write whose own version no pending operation must find can
            // come before it.
            let unread =
                |(_, seen): &(usize, Seen)| matches!(seen, Seen::Wrote(v) if self.needed(*v) == 0);
            if let Some((node, _)) = self.enabled().find(unread) {
                return vec![node];
            }
        } else if version != 0 || self.removals == 0 {
            // This version cannot come again, so only the last operation that must find it may overwrite it.
            let last = |(_, seen): &(usize, Seen)| needed == 1 && seen.finds() == Some(version);
            return self.enabled().filter(last).filter_map(fits).collect();
        }
        let mut choices: Vec<usize> = self.enabled().filter_map(fits).collect();
        choices.reverse();
        choices
    }

    fn linearize(&mut self, node: usize) {
        let Entry { operation, returns } = self.entries[node - 1];
        let seen = self.calls[operation].seen;
        self.linearized[operation / 64] |= 1 << (operation % 64);
        self.version = seen.apply(self.version).unwrap_or(self.version);
        self.count(seen, false);
        self.pending.unlink(node);
        self.pending.unlink(returns.unwrap_or(node));
    }

    fn undo(&mut self, node: usize, before: Version) {
        let Entry { operation, returns } = self.entries[node - 1];
        self.linearized[operation / 64] &= !(1 << (operation % 64));
        self.version = before;
        self.count(self.calls[operation].seen, true);
        self.pending.relink(returns.unwrap_or(node));
        self.pending.relink(node);
    }
}

/// Calls and returns in the order of time. Calls come before returns of the same instant, so that these overlap.
fn entries_of(calls: &[Call]) -> Vec<Entry> {
    let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(calls.len() * 2);
    for (operation, call) in calls.iter().enumerate() {
        order.push((call.called, false, operation));
        order.push((call.returned, true, operation));
    }
    order.sort_unstable();
    let mut returns = vec![0; calls.len()];
    for (at, (_, is_return, operation)) in order.iter().enumerate() {
        if *is_return {
            returns[*operation] = at + 1;
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
    use proptest::prelude::*;

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
        // Two concurrent writes, read in the opposite order of their calls.
        good(&[(0, 9, Wrote(1)), (1, 9, Wrote(2)), (2, 3, Read(2)), (4, 5, Read(1))]);
        // A write that never returned is seen long after.
        good(&[(0, u64::MAX, Wrote(1)), (5, 6, Read(0)), (7, 8, Read(1))]);
        good(&[(0, 1, Wrote(1)), (2, 3, Swapped(1, 2)), (4, 5, Read(2))]);
        good(&[(0, 1, Wrote(1)), (2, 3, Refused(5, 1)), (4, 5, Read(1))]);
        // A removal, and a swap that expects nothing.
        good(&[(0, 1, Wrote(1)), (2, 3, Wrote(0)), (4, 5, Swapped(0, 2)), (6, 7, Read(2))]);
        // Of two concurrent swaps from one state, one is refused.
        good(&[(0, 5, Swapped(0, 1)), (1, 6, Refused(0, 1))]);
        good(&[(0, 5, Refused(0, 2)), (1, 6, Swapped(0, 2))]);
        // Touching intervals overlap.
        good(&[(0, 5, Wrote(1)), (5, 6, Read(0))]);
    }

    #[test]
    fn planted_bad_histories() {
        // A stale read.
        bad(&[(0, 1, Wrote(1)), (2, 3, Read(0))]);
        // A read of a version that nobody wrote.
        bad(&[(0, 1, Wrote(1)), (2, 3, Read(7))]);
        // A read before its write was called.
        bad(&[(0, 1, Read(1)), (2, 3, Wrote(1))]);
        // A new version, then the old one again.
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
        // A swap that succeeds from a state that was overwritten before.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(2)), (4, 5, Swapped(1, 3))]);
        // A swap refused although it expected the current version.
        bad(&[(0, 1, Wrote(1)), (2, 3, Refused(1, 1))]);
        // A swap refused by a version that did not exist yet.
        bad(&[(0, 1, Wrote(1)), (2, 3, Refused(7, 2)), (4, 5, Wrote(2))]);
        // A removed value comes back.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(0)), (4, 5, Read(1))]);
        // A write that returned is lost.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(2)), (4, 5, Read(1))]);
        // A write applied twice, around another.
        bad(&[(0, 1, Wrote(1)), (2, 3, Wrote(2)), (4, 5, Read(2)), (6, 7, Read(1))]);
        // A write of unknown outcome that was read, and then not.
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
    fn one_stale_read_among_many_operations_is_found() {
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

    /// Many concurrent writes, each read by somebody, so that the search must try every order.
    fn crowd(writes: u64) -> Vec<(u64, u64, Seen)> {
        (1..=writes).flat_map(|v| [(0, 1000, Wrote(v)), (0, 1000, Read(v))]).collect()
    }

    #[test]
    fn a_search_over_its_budget_is_cut() {
        let mut history = crowd(24);
        good(&history);
        history.push((1, 999, Read(77)));
        assert_eq!(verdict(&history), Verdict::TooHard);
    }

    #[test]
    fn unread_writes_and_concurrent_reads_cost_nothing() {
        let mut history: Vec<(u64, u64, Seen)> =
            (1..=60).map(|v| (0, u64::MAX, Wrote(v))).collect();
        history.extend((0..60).map(|_| (0, 1000, Read(0))));
        history.extend([(2000, 2001, Wrote(100)), (2002, 2003, Read(100))]);
        good(&history);
        history.push((2004, 2005, Read(0)));
        bad(&history);
    }

    /// The search by brute force.
    fn has_order(calls: &[Call], linearized: u32, version: Version) -> bool {
        let pending = || (0..calls.len()).filter(|at| linearized >> at & 1 == 0);
        let Some(first) = pending().map(|at| calls[at].returned).min() else { return true };
        pending().filter(|at| calls[*at].called <= first).any(|at| {
            let after = calls[at].seen.apply(version);
            after.is_some_and(|after| has_order(calls, linearized | 1 << at, after))
        })
    }

    fn any_history() -> impl Strategy<Value = Vec<Call>> {
        let one = (0..4_u8, 0..6_u64, 0..6_u64, 0..12_u64, 0..12_u64);
        proptest::collection::vec(one, 0..8).prop_map(|drawn| {
            let call = |(at, (kind, a, b, called, span)): (usize, (u8, u64, u64, u64, u64))| {
                // Each write has a version of its own, except removals.
                let own = if b == 0 { 0 } else { at as u64 + 1 };
                let seen = match kind {
                    0 => Wrote(own),
                    1 => Read(a),
                    2 => Swapped(a, own),
                    _ => Refused(b, a),
                };
                let returned = if span == 11 { u64::MAX } else { called + span };
                Call { called, returned, seen }
            };
            drawn.into_iter().enumerate().map(call).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn the_search_finds_an_order_where_there_is_one(calls in any_history()) {
            let expected =
                if has_order(&calls, 0, 0) { Verdict::Linearizable } else { Verdict::Not };
            prop_assert_eq!(check(&calls, BUDGET), expected);
        }
    }
}
