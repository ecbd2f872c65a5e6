//! Applied, commit, last: a state machine has applied no more than is committed, and no more is committed than the log
//! holds (Raft, Figure 2: `lastApplied`, `commitIndex`, and the log).

use continuum_core::id::Index;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "applied-commit-last";

/// A replica of a group after a step in which one of the three moved.
pub(crate) fn check(applied: Index, commit: Index, last: Index) -> Verdict {
    if applied <= commit && commit <= last {
        return Ok(());
    }
    Err(Broken::new(
        NAME,
        format!("applied {applied}, committed {commit}, and the log ends at {last}"),
    ))
}
