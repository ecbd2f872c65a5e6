//! Election safety: at most one leader in a term (Raft, Figure 3; TLA+ `ElectionSafety`), and at most one vote of a
//! replica in a term (§5.2).

use continuum_core::id::{GroupId, NodeId, Replica, Term};
use continuum_core::raft::{self, Position};

use super::ledger::GroupLedger;
use super::{Broken, Verdict};
use crate::durable::LogView;

pub(crate) const NAME: &str = "election-safety";
pub(crate) const VOTE: &str = "vote-for-up-to-date-log";

/// A node leads a term.
pub(crate) fn check_leader(ledger: &mut GroupLedger, node: usize, term: Term) -> Verdict {
    match ledger.leaders.insert(term, node) {
        Some(other) if other != node => {
            Err(Broken::new(NAME, format!("nodes {other} and {node} both lead term {term}")))
        }
        _ => Ok(()),
    }
}

/// What only the leader of a term says, the leader of that term says.
pub(crate) fn check_message(
    ledger: &mut GroupLedger,
    node: usize,
    message: &raft::Message,
) -> Verdict {
    match message {
        raft::Message::Append { term, .. }
        | raft::Message::Heartbeat { term, .. }
        | raft::Message::Offer { term, .. }
        | raft::Message::Chunk { term, .. }
        | raft::Message::TimeoutNow { term } => check_leader(ledger, node, *term),
        _ => Ok(()),
    }
}

/// Terms do not go back, and a vote once given in a term stays.
pub(crate) fn check_hard(view: &LogView, term: Term, vote: Option<Replica>) -> Verdict {
    if term < view.term {
        return Err(Broken::new(NAME, format!("term {} becomes {term}", view.term)));
    }
    let changed = view.vote.is_some() && vote != view.vote;
    if term == view.term && changed {
        return Err(Broken::new(NAME, format!("a second vote in term {term}")));
    }
    Ok(())
}

/// Who gets a vote has a log that ends no earlier than the voter's own, by term and then by index (Raft, §5.4.1).
pub(crate) fn check_up_to_date(
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
    Err(Broken::new(VOTE, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Index;

    use super::*;

    #[test]
    fn a_vote_for_a_log_that_lacks_something_is_seen() {
        let at = |term, index| Position { term: Term(term), index: Index(index) };
        let from = Replica::default();
        let check = |mine, theirs| {
            check_up_to_date(mine, Some(from), Some((GroupId(1), from.node, theirs))).is_ok()
        };
        assert!(check(at(2, 5), at(2, 5)) && check(at(2, 5), at(3, 1)));
        assert!(!check(at(2, 5), at(2, 4)) && !check(at(2, 5), at(1, 9)));
    }

    #[test]
    fn a_second_leader_of_a_term_is_seen() {
        let mut ledger = GroupLedger::default();
        assert_eq!(check_leader(&mut ledger, 1, Term(3)), Ok(()));
        assert_eq!(check_leader(&mut ledger, 1, Term(3)), Ok(()));
        assert_eq!(check_leader(&mut ledger, 2, Term(4)), Ok(()));
        assert!(check_leader(&mut ledger, 2, Term(3)).is_err());
        let message = raft::Message::TimeoutNow { term: Term(4) };
        assert!(check_message(&mut ledger, 0, &message).is_err());
    }

    #[test]
    #[allow(clippy::field_reassign_with_default, reason = "the other fields are private")]
    fn a_second_vote_and_an_older_term_are_seen() {
        let replica = |node: u8| Replica { node: NodeId([node; 16]), ..Replica::default() };
        let mut view = LogView::default();
        view.term = Term(5);
        assert_eq!(check_hard(&view, Term(5), Some(replica(1))), Ok(()));
        view.vote = Some(replica(1));
        assert!(check_hard(&view, Term(5), Some(replica(2))).is_err());
        assert!(check_hard(&view, Term(5), None).is_err());
        assert!(check_hard(&view, Term(4), Some(replica(1))).is_err());
        assert_eq!(check_hard(&view, Term(6), None), Ok(()));
    }
}
