//! Law: no two replicas apply different entries at the same index (Raft, Figure 3; TLA+ `StateMachineSafety`), and
//! replicas that applied the same entries have equal states.
//!
//! Compares applied entries with the committed log, and digests of the state at some indexes. It does not judge what a
//! command should do (`strong`, `session_applied_once`).

use continuum_core::id::{GroupId, Index};
use continuum_core::state::StateMachine;

use super::Watched;
use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "state-machine-safety";
/// States are compared at indexes that are multiples of this, because a digest reads the whole state.
const COMPARED_EVERY: u64 = 16;

/// Judges a replica that applied all entries up to `index`.
pub(crate) fn check_applied(watched: &Watched, ledger: &mut GroupLedger, index: Index) -> Verdict {
    let mut at = watched.applied;
    while at < index {
        at = at.next();
        let Some(term) = watched.view.term_at(at).filter(|_| at > watched.view.base.index) else {
            continue;
        };
        match ledger.committed_at(at) {
            None => ledger.commit_next(term),
            Some(known) if known == term => {}
            Some(known) => {
                let what = format!(
                    "an entry of term {term} is applied at {at}, where term {known} is committed"
                );
                return Err(Broken::new(NAME, what));
            }
        }
    }
    Ok(())
}

/// Judges that the state after the same entries is the same on all replicas.
pub(crate) fn check_state(
    me: usize,
    state: &StateMachine,
    ledger: &mut GroupLedger,
    group: GroupId,
) -> Verdict {
    let index = state.applied();
    if !index.0.is_multiple_of(COMPARED_EVERY) {
        return Ok(());
    }
    let digest = state.digest();
    let (first, known) = *ledger.states.entry(index).or_insert((me, digest));
    if known != digest {
        let what =
            format!("the state of group {group} at {index} differs from the state on node {first}");
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
    fn a_different_applied_entry_is_seen() {
        let entry = |term: u64| Entry { term: Term(term), time_ms: 0, payload: Payload::Noop };
        let mut ledger = GroupLedger::default();
        let mut one = Watched::default();
        one.view.append(Index(0), &[entry(1), entry(2)]);
        assert_eq!(check_applied(&one, &mut ledger, Index(2)), Ok(()));
        let mut other = Watched::default();
        other.view.append(Index(0), &[entry(1), entry(3)]);
        assert!(check_applied(&other, &mut ledger, Index(2)).is_err());
    }
}
