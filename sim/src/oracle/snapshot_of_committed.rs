//! Snapshots hold what is committed, and one that is received replaces the log only where it goes beyond what is
//! committed here (Raft, §7 and Figure 13, 6).

use continuum_core::id::Index;
use continuum_core::raft::Position;

use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "snapshot-of-committed";

/// A snapshot holds only what is committed.
pub(crate) fn check(ledger: &GroupLedger, position: Position) -> Verdict {
    match ledger.committed_at(position.index) {
        Some(term) if term == position.term => Ok(()),
        known => {
            let what = format!("a snapshot at {position:?}, where {known:?} is committed");
            Err(Broken::new(NAME, what))
        }
    }
}

/// A snapshot from a leader replaces the log only where it goes beyond what is committed here (Raft, Figure 13, 6).
pub(crate) fn check_install(commit: Index, position: Position, received: bool) -> Verdict {
    if !received || position.index > commit {
        return Ok(());
    }
    let what = format!("a snapshot of {position:?} is installed, and {commit} is committed here");
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Term;

    use super::*;

    #[test]
    fn an_uncommitted_and_a_stale_snapshot_are_seen() {
        let mut ledger = GroupLedger::default();
        ledger.commit_next(Term(1));
        ledger.commit_next(Term(2));
        let at = |term, index| Position { term: Term(term), index: Index(index) };
        assert_eq!(check(&ledger, at(2, 2)), Ok(()));
        assert!(check(&ledger, at(3, 2)).is_err());
        assert!(check(&ledger, at(2, 3)).is_err());
        assert_eq!(check_install(Index(1), at(2, 2), true), Ok(()));
        assert_eq!(check_install(Index(2), at(2, 2), false), Ok(()));
        assert!(check_install(Index(2), at(2, 2), true).is_err());
    }
}
