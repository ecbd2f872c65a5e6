//! Leader append-only: a leader never overwrites or removes entries of its log (Raft, Figure 3; TLA+
//! `LeaderAppendOnly`).

use continuum_core::id::Index;

use super::{Broken, Verdict, Watched};

pub(crate) const NAME: &str = "leader-append-only";

/// A replica appends after `prev`.
pub(crate) fn check(watched: &Watched, prev: Index) -> Verdict {
    let last = watched.view.last().index;
    let leads = watched.leads.is_some() && watched.leads == Some(watched.view.term);
    if leads && prev < last {
        let what = format!("the leader of term {} cuts its log from {last} to {prev}", watched.view.term);
        return Err(Broken::new(NAME, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Term;
    use continuum_core::raft::{Entry, Payload};

    use super::*;

    #[test]
    fn a_leader_that_cuts_is_seen_and_a_follower_may() {
        let mut watched = Watched::default();
        let entry = Entry { term: Term(1), time_ms: 0, payload: Payload::Noop };
        watched.view.append(Index(0), &[entry.clone(), entry]);
        watched.view.term = Term(1);
        assert_eq!(check(&watched, Index(1)), Ok(()));
        watched.leads = Some(Term(1));
        assert_eq!(check(&watched, Index(2)), Ok(()));
        assert!(check(&watched, Index(1)).is_err());
    }
}
