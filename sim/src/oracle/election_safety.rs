//! Election safety: at most one leader in a term (Raft, Figure 3; TLA+ `ElectionSafety`).

use continuum_core::id::Term;
use continuum_core::raft;

use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

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
