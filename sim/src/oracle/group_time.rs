//! Law: group time never falls along a log: each entry has at least the time of the entry before it (contract of
//! `raft::Entry`). Sessions expire by it, so a fall would keep some of them and drop others.
//!
//! Compares each entry that a replica writes with the entry before it in the same log. It does not judge how fast group
//! time passes.

use continuum_core::id::Index;
use continuum_core::raft::Entry;

use super::ledger::GroupLedger;
use crate::env::durable::LogView;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "group-time";

/// Judges entries that a replica writes after `prev`. Its log is `view` before the write.
pub(crate) fn check(
    view: &LogView,
    ledger: &GroupLedger,
    prev: Index,
    entries: &[Entry],
) -> Verdict {
    let before = view.term_at(prev).and_then(|term| ledger.known(prev, term));
    let mut time_ms = before.map_or(0, |known| known.entry.time_ms);
    for (index, entry) in (prev.0 + 1..).zip(entries) {
        if entry.time_ms < time_ms {
            let what = format!(
                "the entry at {index} has the group time {} ms, and the one before it has {time_ms} ms",
                entry.time_ms
            );
            return Err(Broken::new(NAME, what));
        }
        time_ms = entry.time_ms;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Term;
    use continuum_core::raft::Payload;

    use super::super::ledger::Known;
    use super::*;

    #[test]
    fn a_fall_is_seen_within_a_write_and_across_two() {
        let entry = |time_ms| Entry { term: Term(1), time_ms, payload: Payload::Noop };
        let (mut view, mut ledger) = (LogView::default(), GroupLedger::default());
        let judge = |view: &LogView, ledger: &GroupLedger, prev, times: &[u64]| {
            let entries: Vec<Entry> = times.iter().map(|time_ms| entry(*time_ms)).collect();
            check(view, ledger, Index(prev), &entries)
        };
        assert!(judge(&view, &ledger, 0, &[3, 3, 7]).is_ok());
        assert!(judge(&view, &ledger, 0, &[3, 7, 6]).is_err());
        view.append(Index(0), &[entry(9)]);
        ledger.remember(Index(1), Known { entry: entry(9), prev: None });
        assert!(judge(&view, &ledger, 1, &[9]).is_ok() && judge(&view, &ledger, 1, &[8]).is_err());
    }
}
