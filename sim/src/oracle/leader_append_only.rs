//! Law: a leader never overwrites or removes entries of its log (Raft, Figure 3; TLA+ `LeaderAppendOnly`).
//!
//! Compares the entries that a leader writes with those of its log. A follower may replace entries; this is judged by
//! `committed_entry_replaced` and `log_matching`.

use continuum_core::id::Index;
use continuum_core::raft::Entry;

use super::Watched;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "leader-append-only";

/// Judges a replica that writes entries after `prev`. Writing the same entries again is allowed: a checkpoint copies
/// them forward.
pub(crate) fn check(watched: &Watched, prev: Index, entries: &[Entry]) -> Verdict {
    let view = &watched.view;
    let last = view.last().index;
    let leads = watched.leads.is_some() && watched.leads == Some(view.term);
    if !leads || prev >= last {
        return Ok(());
    }
    let mut index = prev;
    let changed = entries.iter().find(|entry| {
        index = index.next();
        index <= last && view.term_at(index) != Some(entry.term)
    });
    if changed.is_none() && !entries.is_empty() {
        return Ok(());
    }
    let what =
        format!("the leader of term {} replaces its entries after {prev}, up to {last}", view.term);
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Term;
    use continuum_core::raft::Payload;

    use super::*;

    #[test]
    fn a_leader_that_cuts_is_seen_and_a_follower_may() {
        let mut watched = Watched::default();
        let entry = |term: u64| Entry { term: Term(term), time_ms: 0, payload: Payload::Noop };
        watched.view.append(Index(0), &[entry(1), entry(1)]);
        watched.view.term = Term(1);
        assert_eq!(check(&watched, Index(1), &[]), Ok(()));
        watched.leads = Some(Term(1));
        assert_eq!(check(&watched, Index(2), &[entry(1)]), Ok(()));
        assert_eq!(check(&watched, Index(1), &[entry(1)]), Ok(()));
        assert!(check(&watched, Index(1), &[]).is_err());
        assert_eq!(check(&watched, Index(0), &[entry(1)]), Ok(()), "a copy in several records");
        assert!(check(&watched, Index(1), &[entry(2)]).is_err());
    }
}
