//! Law: two logs that hold an entry with the same index and term are identical up to that entry (Raft, Figure 3; TLA+
//! `LogMatching`).
//!
//! Compares each written entry with the first that any log held at its index and term: the content and the term of the
//! entry before it must be equal. By induction the logs are equal up to there. It does not compare a predecessor whose
//! term is unknown because a log begins behind it.

use continuum_core::id::Index;
use continuum_core::raft::Entry;

use super::ledger::{GroupLedger, Known};
use crate::verdict::{Broken, Verdict};

use crate::env::durable::LogView;

pub(crate) const NAME: &str = "log-matching";

/// Judges a replica that writes entries after `prev`.
pub(crate) fn check(
    view: &LogView,
    ledger: &mut GroupLedger,
    prev: Index,
    entries: &[Entry],
) -> Verdict {
    if prev > view.last().index {
        let what =
            format!("a hole: entries follow {prev} in a log that ends at {}", view.last().index);
        return Err(Broken::new(NAME, what));
    }
    let mut before = view.term_at(prev);
    let mut index = prev;
    for entry in entries {
        index = index.next();
        match ledger.known(index, entry.term) {
            None => ledger.remember(index, Known { entry: entry.clone(), prev: before }),
            Some(known) if known.entry != *entry => {
                let what = format!("two different entries of term {} at index {index}", entry.term);
                return Err(Broken::new(NAME, what));
            }
            Some(known) if before.is_some() && known.prev.is_some() && known.prev != before => {
                let what = format!(
                    "the entry of term {} at index {index} follows term {:?} here and term {:?} elsewhere",
                    entry.term, before, known.prev
                );
                return Err(Broken::new(NAME, what));
            }
            Some(_) => {}
        }
        before = Some(entry.term);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Term;
    use continuum_core::raft::Payload;

    use super::*;

    fn entry(term: u64, time_ms: u64) -> Entry {
        Entry { term: Term(term), time_ms, payload: Payload::Noop }
    }

    #[test]
    fn different_content_a_different_predecessor_and_a_hole_are_seen() {
        let mut ledger = GroupLedger::default();
        let empty = LogView::default();
        let log = [entry(1, 0), entry(2, 0)];
        assert_eq!(check(&empty, &mut ledger, Index(0), &log), Ok(()));
        assert_eq!(check(&empty, &mut ledger, Index(0), &log), Ok(()));
        assert!(check(&empty, &mut ledger, Index(0), &[entry(1, 9)]).is_err());
        assert!(check(&empty, &mut ledger, Index(1), &[entry(2, 0)]).is_err());
        let mut other = LogView::default();
        other.append(Index(0), &[entry(2, 5)]);
        assert!(check(&other, &mut ledger, Index(1), &[entry(2, 0)]).is_err());
    }
}
