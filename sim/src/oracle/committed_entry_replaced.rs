//! Law: a replica never replaces or removes an entry that it knows to be committed (Raft, §5.4).
//!
//! Compares entries that are written with the replica's commit index and the committed log. The law follows from log
//! matching and leader completeness; it names the step that goes wrong. It does not judge entries beyond the commit
//! index.

use continuum_core::id::Index;
use continuum_core::raft::Entry;

use super::Watched;
use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "committed-entry-replaced";

/// Judges a replica that replaces what follows `prev`: no committed entry may change; writing the same one is allowed.
pub(crate) fn check(
    watched: &Watched,
    ledger: &GroupLedger,
    prev: Index,
    entries: &[Entry],
) -> Verdict {
    let committed = watched.commit;
    if prev < committed && entries.is_empty() {
        let what =
            format!("the log is cut after {prev}, and this replica committed up to {committed}");
        return Err(Broken::new(NAME, what));
    }
    let known = ledger.last_committed().index;
    let mut index = prev;
    for entry in entries {
        index = index.next();
        if index > known || index > committed {
            break;
        }
        if ledger.committed_at(index) != Some(entry.term) {
            let what =
                format!("an entry of term {} replaces the committed one at {index}", entry.term);
            return Err(Broken::new(NAME, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Term;
    use continuum_core::raft::Payload;

    use super::*;

    #[test]
    fn replacing_a_committed_entry_is_seen() {
        let entry = |term: u64| Entry { term: Term(term), time_ms: 0, payload: Payload::Noop };
        let mut ledger = GroupLedger::default();
        ledger.commit_next(Term(1));
        ledger.commit_next(Term(1));
        let watched = Watched { commit: Index(2), ..Watched::default() };
        let replaces = |prev, entries: &[Entry]| check(&watched, &ledger, Index(prev), entries);
        assert_eq!(replaces(2, &[entry(2)]), Ok(()));
        assert_eq!(replaces(0, &[entry(1), entry(1)]), Ok(()));
        assert!(replaces(1, &[entry(2)]).is_err());
        assert!(replaces(1, &[]).is_err());
    }
}
