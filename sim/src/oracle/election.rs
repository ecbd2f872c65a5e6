//! Election safety: at most one leader in a term (Raft, Figure 3; TLA+ `ElectionSafety`), and at most one vote of a
//! replica in a term (§5.2).

use continuum_core::id::{Replica, Term};
use continuum_core::raft;

use super::ledger::GroupLedger;
use super::{Broken, Verdict};
use crate::durable::LogView;

pub(crate) const NAME: &str = "election-safety";

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

#[cfg(test)]
mod tests {
    use super::*;

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
        let replica = |node: u8| Replica {
            node: continuum_core::id::NodeId([node; 16]),
            ..Replica::default()
        };
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
