//! Leadership that is given away is not given back (design §4: "the node hands over leadership"; thesis §3.10).
//!
//! Two that both want rid of it would else depose each other without end, and the group would serve nobody. When a node
//! may hand over at all is not judged here, nor who is the best target.

use continuum_core::id::Replica;
use continuum_core::raft;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "transfer-ends";

/// A leader tells its transfer target to campaign: the target is not excluded, and the leader excludes itself.
pub(crate) fn check(by: Replica, target: Replica, message: &raft::Message) -> Verdict {
    let raft::Message::TimeoutNow { transfer_excluded: excluded, .. } = message else {
        return Ok(());
    };
    if excluded.contains(&target) {
        let what = format!("{by:?} hands over to {target:?}, which gave it away: {excluded:?}");
        return Err(Broken::new(NAME, what));
    }
    if !excluded.contains(&by) {
        return Err(Broken::new(
            NAME,
            format!("{by:?} hands over, and does not say so: {excluded:?}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{NodeId, StoreId, Term};

    use super::*;

    #[test]
    fn a_hand_over_back_or_by_nobody_is_seen() {
        let replica = |n| Replica { node: NodeId([n; 16]), store: StoreId([n; 16]) };
        let told = |target, excluded: &[u8]| {
            let excluded = excluded.iter().map(|n| replica(*n)).collect();
            let message = raft::Message::TimeoutNow { term: Term(2), transfer_excluded: excluded };
            check(replica(1), replica(target), &message)
        };
        assert!(told(2, &[1]).is_ok() && told(3, &[1, 2]).is_ok());
        assert!(told(2, &[1, 2]).is_err() && told(2, &[]).is_err() && told(2, &[3]).is_err());
    }
}
