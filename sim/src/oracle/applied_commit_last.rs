//! Law: a replica applies no entry beyond its commit index and commits no entry beyond the end of its log (Raft, Figure
//! 2: `lastApplied`, `commitIndex`, and the log).
//!
//! Compares the three indexes of one replica. It does not judge whether an entry may be committed (`commit_rule`).

use continuum_core::id::Index;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "applied-commit-last";

/// Judges a replica after a step that moved one of the three.
pub(crate) fn check(applied: Index, commit: Index, last: Index) -> Verdict {
    if applied <= commit && commit <= last {
        return Ok(());
    }
    Err(Broken::new(
        NAME,
        format!("applied up to {applied}, committed up to {commit}, and the log ends at {last}"),
    ))
}
