//! Law: a snapshot holds only committed entries, and a received snapshot replaces the log only if it goes beyond the
//! receiver's commit index (Raft, §7 and Figure 13, 6).
//!
//! Compares a snapshot's position with the committed log and with the receiver's commit index. It does not judge the
//! snapshot's content (`state_machine_safety`).

use continuum_core::id::Index;
use continuum_core::raft::Position;

use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "snapshot-of-committed";

/// Judges the position of a snapshot that a replica names.
pub(crate) fn check(ledger: &GroupLedger, position: Position) -> Verdict {
    match ledger.committed_at(position.index) {
        Some(term) if term == position.term => Ok(()),
        known => {
            let what =
                format!("a snapshot ends at {position:?}, where the committed term is {known:?}");
            Err(Broken::new(NAME, what))
        }
    }
}

/// Judges a snapshot that a replica installs; `received` says whether it came from a leader.
pub(crate) fn check_install(commit: Index, position: Position, received: bool) -> Verdict {
    if !received || position.index > commit {
        return Ok(());
    }
    let what =
        format!("a snapshot at {position:?} is installed, but {commit} is already committed here");
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
