//! Law: a term has at most one leader (Raft, Figure 3; TLA+ `ElectionSafety`).
//!
//! Compares the nodes that take the role of leader, or send a message that only a leader sends, in each term. It does
//! not judge how the leader was elected (`one_vote_per_term`, `vote_for_up_to_date_log`).

use continuum_core::id::Term;
use continuum_core::raft;

use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "election-safety";

/// Judges a node that leads a term.
pub(crate) fn check_leader(ledger: &mut GroupLedger, node: usize, term: Term) -> Verdict {
    match ledger.leaders.insert(term, node) {
        Some(other) if other != node => {
            Err(Broken::new(NAME, format!("nodes {other} and {node} both lead term {term}")))
        }
        _ => Ok(()),
    }
}

/// Judges a message that only the leader of its term may send.
pub(crate) fn check_message(
    ledger: &mut GroupLedger,
    node: usize,
    message: &raft::Message,
) -> Verdict {
    match message {
        raft::Message::Append { term, .. }
        | raft::Message::Heartbeat { term, .. }
        | raft::Message::SnapshotOffer { term, .. }
        | raft::Message::SnapshotChunk { term, .. }
        | raft::Message::TimeoutNow { term, .. } => check_leader(ledger, node, *term),
        _ => Ok(()),
    }
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
        let message = raft::Message::TimeoutNow { term: Term(4), transfer_excluded: Vec::new() };
        assert!(check_message(&mut ledger, 0, &message).is_err());
    }
}
