//! Law: the term that a replica writes never goes back, and a vote once written for a term never changes (Raft, §5.2
//! and Figure 2, RequestVote 1 and 2).
//!
//! Compares each term and vote that a replica writes with those before. It does not judge whether the candidate
//! deserves the vote (`vote_for_up_to_date_log`), nor whether the vote is durable in time (`durability_at_send`).

use continuum_core::id::{Replica, Term};

use crate::env::durable::LogView;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "one-vote-per-term";

/// Judges a term and a vote that a replica writes.
pub(crate) fn check(view: &LogView, term: Term, vote: Option<Replica>) -> Verdict {
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
    use continuum_core::id::NodeId;

    use super::*;

    #[test]
    #[allow(clippy::field_reassign_with_default, reason = "the other fields are private")]
    fn a_second_vote_and_an_older_term_are_seen() {
        let replica = |node: u8| Replica { node: NodeId([node; 16]), ..Replica::default() };
        let mut view = LogView::default();
        view.term = Term(5);
        assert_eq!(check(&view, Term(5), Some(replica(1))), Ok(()));
        view.vote = Some(replica(1));
        assert!(check(&view, Term(5), Some(replica(2))).is_err());
        assert!(check(&view, Term(5), None).is_err());
        assert!(check(&view, Term(4), Some(replica(1))).is_err());
        assert_eq!(check(&view, Term(6), None), Ok(()));
    }
}
