//! Law: a replica votes only for a candidate whose log is at least as up to date as its own, compared by last term and
//! then by last index (Raft, §5.4.1).
//!
//! Compares the candidate's last entry, as its request names it, with the voter's. It does not judge votes that a
//! checkpoint writes again.

use continuum_core::id::{GroupId, NodeId, Replica};
use continuum_core::raft::Position;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "vote-for-up-to-date-log";

/// Judges a vote that is written; `asks` is the request for a vote in this step: group, candidate, last entry.
pub(crate) fn check(
    last: Position,
    vote: Option<Replica>,
    asks: Option<(GroupId, NodeId, Position)>,
) -> Verdict {
    let Some((_, _, theirs)) =
        asks.filter(|(_, from, _)| vote.map(|vote| vote.node) == Some(*from))
    else {
        return Ok(());
    };
    if theirs >= last {
        return Ok(());
    }
    let what = format!(
        "{vote:?} gets a vote, but its log ends at {theirs:?}, before the voter's {last:?}"
    );
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{Index, Term};

    use super::*;

    #[test]
    fn a_vote_for_an_outdated_log_is_seen() {
        let at = |term, index| Position { term: Term(term), index: Index(index) };
        let from = Replica::default();
        let gets =
            |mine, theirs| check(mine, Some(from), Some((GroupId(1), from.node, theirs))).is_ok();
        assert!(gets(at(2, 5), at(2, 5)) && gets(at(2, 5), at(3, 1)));
        assert!(!gets(at(2, 5), at(2, 4)) && !gets(at(2, 5), at(1, 9)));
    }
}
