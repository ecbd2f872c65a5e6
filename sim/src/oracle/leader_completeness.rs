//! Law: an entry committed in a term is in the log of the leader of every later term (Raft, Figure 3; TLA+
//! `LeaderCompleteness`).
//!
//! Compares a new leader's log with the last entry known to be committed; by log matching that entry stands for all
//! before it. It does not judge entries that no replica is known to have committed.

use continuum_core::id::Term;

use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

use crate::env::durable::LogView;

pub(crate) const NAME: &str = "leader-completeness";

/// Judges a replica that begins to lead a term.
pub(crate) fn check(view: &LogView, ledger: &GroupLedger, term: Term) -> Verdict {
    let committed = ledger.last_committed();
    if committed.term >= term || view.holds(committed) {
        return Ok(());
    }
    let what = format!(
        "the leader of term {term} has {:?} at index {}, where term {} is committed",
        view.term_at(committed.index),
        committed.index,
        committed.term
    );
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Index;
    use continuum_core::raft::{Entry, Payload};

    use super::*;

    #[test]
    fn a_leader_without_a_committed_entry_is_seen() {
        let entry = |term: u64| Entry { term: Term(term), time_ms: 0, payload: Payload::Noop };
        let mut ledger = GroupLedger::default();
        ledger.commit_next(Term(1));
        ledger.commit_next(Term(2));
        let mut view = LogView::default();
        view.append(Index(0), &[entry(1)]);
        assert!(check(&view, &ledger, Term(3)).is_err());
        view.append(Index(1), &[entry(1)]);
        assert!(check(&view, &ledger, Term(3)).is_err());
        view.append(Index(1), &[entry(2)]);
        assert_eq!(check(&view, &ledger, Term(3)), Ok(()));
    }
}
