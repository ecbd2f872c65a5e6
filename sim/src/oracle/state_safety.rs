//! State-machine safety: no two replicas apply different entries at one index (Raft, Figure 3; TLA+
//! `StateMachineSafety`), and equal prefixes make equal states.

use continuum_core::id::{GroupId, Index};
use continuum_core::raft::Position;

use super::ledger::GroupLedger;
use super::{Broken, Step, Verdict, Watched};

pub(crate) const NAME: &str = "state-machine-safety";
/// States are compared at indexes that are multiples of this: a digest costs the whole state.
const COMPARED_EVERY: u64 = 16;

/// A replica applied all entries up to `index`.
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
                let what =
                    format!("applies term {term} at index {at}, where term {known} is committed");
                return Err(Broken::new(NAME, what));
            }
        }
    }
    Ok(())
}

/// A snapshot holds only what is committed.
pub(crate) fn check_snapshot(ledger: &GroupLedger, position: Position) -> Verdict {
    match ledger.committed_at(position.index) {
        Some(term) if term == position.term => Ok(()),
        known => {
            let what = format!("a snapshot at {position:?}, where {known:?} is committed");
            Err(Broken::new(NAME, what))
        }
    }
}

/// The state after the same entries is the same on all replicas.
pub(crate) fn check_state(
    step: &Step<'_>,
    ledger: &mut GroupLedger,
    group: GroupId,
    index: Index,
) -> Verdict {
    if !index.0.is_multiple_of(COMPARED_EVERY) {
        return Ok(());
    }
    // A step may apply twice, and only the state that it leaves can be looked at.
    let applied = step.node.state(group).filter(|state| state.applied() == index);
    let Some(state) = applied else { return Ok(()) };
    let digest = state.digest();
    let (first, known) = *ledger.states.entry(index).or_insert((step.me, digest));
    if known != digest {
        let what = format!("group {group} at {index} differs from the state of node {first}");
        return Err(Broken::new(NAME, what));
    }
    Ok(())
}

/// A snapshot from a leader replaces the log only where it goes beyond what is committed here (Raft, Figure 13, 6).
pub(crate) fn check_install(commit: Index, position: Position, received: bool) -> Verdict {
    if !received || position.index > commit {
        return Ok(());
    }
    let what = format!("a snapshot of {position:?} is installed, and {commit} is committed here");
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Term;
    use continuum_core::raft::{Entry, Payload};

    use super::*;

    #[test]
    fn another_entry_and_an_uncommitted_snapshot_are_seen() {
        let entry = |term: u64| Entry { term: Term(term), time_ms: 0, payload: Payload::Noop };
        let mut ledger = GroupLedger::default();
        let mut one = Watched::default();
        one.view.append(Index(0), &[entry(1), entry(2)]);
        assert_eq!(check_applied(&one, &mut ledger, Index(2)), Ok(()));
        let mut other = Watched::default();
        other.view.append(Index(0), &[entry(1), entry(3)]);
        assert!(check_applied(&other, &mut ledger, Index(2)).is_err());
        let at = |term, index| Position { term: Term(term), index: Index(index) };
        assert_eq!(check_snapshot(&ledger, at(2, 2)), Ok(()));
        assert!(check_snapshot(&ledger, at(3, 2)).is_err());
        assert!(check_snapshot(&ledger, at(2, 3)).is_err());
    }
}
