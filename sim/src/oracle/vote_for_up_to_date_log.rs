//! Up-to-date votes: who gets a vote has a log that ends no earlier than the voter's own, by term and then by index
//! (Raft, §5.4.1).

use continuum_core::id::{GroupId, NodeId, Replica};
use continuum_core::raft::Position;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "vote-for-up-to-date-log";

/// A vote is written; `asks` is who asked for one in this step, and where its log ends.
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
    let what = format!("{vote:?} gets a vote, and its log ends at {theirs:?} before {last:?}");
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{Index, Term};

    use super::*;

    #[test]
    fn a_vote_for_a_log_that_lacks_something_is_seen() {
        let at = |term, index| Position { term: Term(term), index: Index(index) };
        let from = Replica::default();
        let gets =
            |mine, theirs| check(mine, Some(from), Some((GroupId(1), from.node, theirs))).is_ok();
        assert!(gets(at(2, 5), at(2, 5)) && gets(at(2, 5), at(3, 1)));
        assert!(!gets(at(2, 5), at(2, 4)) && !gets(at(2, 5), at(1, 9)));
    }
}
