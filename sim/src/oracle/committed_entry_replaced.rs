//! Committed entries stay: nobody replaces an entry that it knows to be committed (Raft, §5.4; a consequence of log
//! matching and leader completeness that shows the step that goes wrong).

use continuum_core::id::Index;
use continuum_core::raft::Entry;

use super::Watched;
use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "committed-entry-replaced";

/// A replica replaces what follows `prev`: nothing of it may be committed, unless the same entries stand there again.
pub(crate) fn check(
    watched: &Watched,
    ledger: &GroupLedger,
    prev: Index,
    entries: &[Entry],
) -> Verdict {
    let committed = watched.commit;
    if prev < committed && entries.is_empty() {
        let what = format!("the log is cut to {prev}, and {committed} is committed here");
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
        let looks = |prev, entries: &[Entry]| check(&watched, &ledger, Index(prev), entries);
        assert_eq!(looks(2, &[entry(2)]), Ok(()));
        assert_eq!(looks(0, &[entry(1), entry(1)]), Ok(()));
        assert!(looks(1, &[entry(2)]).is_err());
        assert!(looks(1, &[]).is_err());
    }
}
