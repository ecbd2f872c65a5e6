//! The log in memory: entries with shared payloads, and an index of their terms.
//!
//! The entries up to `offset` were dropped. The log keeps the position of the last dropped one for the match check
//! (§5.3). This module does not know which entries are committed, durable or sent.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::types::{Entry, Position};
use crate::id::{Index, Term};

/// The bytes that an entry takes besides its payload, in a message and in memory.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 32;

/// The entries of a group from `offset` on.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The last dropped entry, or zero.
    offset: Position,
    /// Group time at `offset`, in milliseconds.
    offset_time_ms: u64,
    /// The entries after `offset`.
    entries: VecDeque<Entry>,
    /// Each term in `entries` with the index of its first entry. Terms never decrease along a log, so a search takes
    /// the logarithm of the number of terms, not of entries.
    runs: VecDeque<Position>,
}

/// The bytes that an entry counts against budgets.
pub(super) const fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES + entry.payload_bytes()
}

impl Log {
    pub(super) fn new(offset: Position, offset_time_ms: u64, entries: Vec<Entry>) -> Self {
        let (queue, runs) = (VecDeque::with_capacity(entries.len()), VecDeque::new());
        let mut log = Self { offset, offset_time_ms, entries: queue, runs };
        entries.into_iter().for_each(|entry| log.push(entry));
        log
    }

    /// The last dropped entry, or zero.
    pub(super) const fn offset(&self) -> Position {
        self.offset
    }

    /// The index of the first entry; one past the last index if the log is empty.
    pub(super) const fn first(&self) -> Index {
        self.offset.index.next()
    }

    pub(super) fn last(&self) -> Position {
        match self.entries.back() {
            None => self.offset,
            Some(entry) => Position { term: entry.term, index: self.last_index() },
        }
    }

    pub(super) fn last_index(&self) -> Index {
        Index(self.offset.index.0 + self.entries.len() as u64)
    }

    /// Group time at the last entry, in milliseconds.
    pub(super) fn last_time_ms(&self) -> u64 {
        self.entries.back().map_or(self.offset_time_ms, |entry| entry.time_ms)
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.first().0)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term at an index from `offset` on; `None` before it and after the last entry.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.offset.index {
            return Some(self.offset.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// Whether the log has this entry. False for entries before `offset`.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The last entry whose index and term are both at most those of `bound`; `offset` if there is none.
    pub(super) fn last_within(&self, bound: Position) -> Position {
        let by_term = self.runs.partition_point(|run| run.term <= bound.term);
        let end =
            self.runs.get(by_term).map_or_else(|| self.last_index(), |next| next.index.prev());
        let index = end.min(bound.index);
        match self.get(index) {
            None => self.offset,
            Some(entry) => Position { term: entry.term, index },
        }
    }

    /// Entries from `first` on: as many as fit into `bytes`, but at least one if there is one.
    pub(super) fn slice(&self, first: Index, bytes: usize) -> Vec<Entry> {
        let Some(start) = first.0.checked_sub(self.first().0) else { return Vec::new() };
        let start = (start as usize).min(self.entries.len());
        let mut spent = 0;
        let fits = |entry: &&Entry| {
            let first = spent == 0;
            spent += entry_bytes(entry);
            first || spent <= bytes
        };
        let count = self.entries.range(start..).take_while(fits).count();
        self.entries.range(start..start + count).cloned().collect()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.term >= last.term, "terms never decrease along a log");
        if entry.term > last.term || self.entries.is_empty() {
            self.runs.push_back(Position { term: entry.term, index: last.index.next() });
        }
        self.entries.push_back(entry);
    }

    /// Drops all entries after `last`.
    pub(super) fn truncate(&mut self, last: Index) {
        assert!(last >= self.offset.index, "a cut keeps entries that were dropped");
        self.entries.truncate((last.0 - self.offset.index.0) as usize);
        while self.runs.back().is_some_and(|run| run.index > last) {
            self.runs.pop_back();
        }
    }

    /// Drops all entries up to `offset`, which the log must have.
    pub(super) fn compact(&mut self, offset: Position) {
        assert!(self.holds(offset), "a log is compacted up to an entry of its own");
        if let Some(entry) = self.get(offset.index) {
            self.offset_time_ms = entry.time_ms;
        }
        self.entries.drain(..(offset.index.0 - self.offset.index.0) as usize);
        self.offset = offset;
        while self.runs.get(1).is_some_and(|next| next.index <= self.first()) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if self.entries.is_empty() => self.runs.clear(),
            Some(run) => run.index = run.index.max(offset.index.next()),
            None => {}
        }
    }

    /// Drops everything: the log begins after `offset`.
    pub(super) fn reset(&mut self, offset: Position, offset_time_ms: u64) {
        self.entries.clear();
        self.runs.clear();
        (self.offset, self.offset_time_ms) = (offset, offset_time_ms);
    }

    /// All entries, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The last index that may be dropped, if the entries after it up to `end` shall take at most `bytes`. It is not
    /// before `floor`.
    pub(super) fn retain(&self, end: Index, floor: Index, bytes: usize) -> Index {
        let (mut keep_after, mut spent) = (end, 0);
        while keep_after > floor {
            let Some(entry) = self.get(keep_after) else { break };
            spent += entry_bytes(entry);
            if spent > bytes {
                break;
            }
            keep_after = keep_after.prev();
        }
        keep_after
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::raft::Payload;

    fn entry(term: u64, bytes: usize) -> Entry {
        let command = Bytes::from(alloc::vec![0; bytes]);
        Entry { term: Term(term), time_ms: 0, payload: Payload::Command(command) }
    }

    fn at(term: u64, index: u64) -> Position {
        Position { term: Term(term), index: Index(index) }
    }

    fn log(offset: Position, terms: &[u64]) -> Log {
        Log::new(offset, 0, terms.iter().map(|term| entry(*term, 1)).collect())
    }

    #[test]
    fn a_log_knows_its_positions_when_full_compacted_and_empty() {
        let mut log = log(at(0, 0), &[1, 1, 3]);
        assert_eq!((log.first(), log.last()), (Index(1), at(3, 3)));
        log.compact(at(1, 2));
        assert_eq!(
            (log.first(), log.last(), log.term_at(Index(2))),
            (Index(3), at(3, 3), Some(Term(1)))
        );
        assert_eq!(log.term_at(Index(1)), None);
        log.reset(at(7, 9), 0);
        assert_eq!((log.first(), log.last()), (Index(10), at(7, 9)));
    }

    #[test]
    fn a_slice_has_at_least_one_entry() {
        let log = Log::new(at(0, 0), 0, alloc::vec![entry(1, 100), entry(1, 10), entry(1, 10)]);
        assert_eq!(log.slice(Index(1), 1).len(), 1);
        assert_eq!(log.slice(Index(2), 84).len(), 2);
        assert_eq!(log.slice(Index(2), 83).len(), 1);
        assert_eq!(log.slice(Index(9), 84).len(), 0);
    }

    #[test]
    fn retention_stops_at_its_budget_and_at_its_floor() {
        let log = log(at(0, 0), &[1; 10]);
        assert_eq!(log.retain(Index(8), Index(0), 33 * 3), Index(5));
        assert_eq!(log.retain(Index(8), Index(6), 33 * 3), Index(6));
        assert_eq!(log.retain(Index(8), Index(0), 33 * 300), Index(0));
    }

    proptest! {
        /// The runs give the same answer as a scan of all entries, after any cuts at both ends.
        #[test]
        fn runs_agree_with_a_scan(
            steps in proptest::collection::vec(0_u64..3, 1..30),
            cut in 0_usize..30, keep in 0_usize..30, bound_term in 0_u64..40, bound_index in 0_u64..40,
        ) {
            let terms: Vec<u64> = steps.iter().scan(1, |term, step| { *term += step; Some(*term) }).collect();
            let mut log = log(at(0, 0), &terms);
            let keep = keep.min(terms.len());
            log.truncate(Index(keep as u64));
            let cut = cut.min(keep);
            let offset = if cut == 0 { at(0, 0) } else { at(terms[cut - 1], cut as u64) };
            log.compact(offset);
            log.push(entry(50, 1));
            let scan = (cut..keep)
                .map(|i| at(terms[i], i as u64 + 1))
                .rfind(|p| p.term.0 <= bound_term && p.index.0 <= bound_index);
            let found = log.last_within(at(bound_term, bound_index));
            prop_assert_eq!(found, scan.unwrap_or(offset));
            let expected_runs: Vec<Position> = (cut..keep)
                .map(|i| at(terms[i], i as u64 + 1))
                .chain([at(50, keep as u64 + 1)])
                .fold(Vec::new(), |mut runs: Vec<Position>, p| {
                    if runs.last().is_none_or(|run| run.term != p.term) { runs.push(p); }
                    runs
                });
            prop_assert_eq!(log.runs.iter().copied().collect::<Vec<_>>(), expected_runs);
        }
    }
}
