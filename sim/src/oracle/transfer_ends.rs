//! Law: a leader never transfers leadership to a voter that gave it away before (thesis §3.10).
//!
//! Otherwise two voters that both want to give up leadership would depose each other for ever, and the group would
//! serve nobody. Compares the target of a transfer with the excluded voters that the message names; the sender must be
//! one of them. It does not judge when a leader may transfer leadership, nor which target is best.

use continuum_core::id::Replica;
use continuum_core::raft;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "transfer-ends";

/// Judges a leader's message that tells the target to campaign.
pub(crate) fn check(by: Replica, target: Replica, message: &raft::Message) -> Verdict {
    let raft::Message::TimeoutNow { transfer_excluded: excluded, .. } = message else {
        return Ok(());
    };
    if excluded.contains(&target) {
        let what =
            format!("{by:?} transfers leadership to {target:?}, which gave it away: {excluded:?}");
        return Err(Broken::new(NAME, what));
    }
    if !excluded.contains(&by) {
        return Err(Broken::new(
            NAME,
            format!("{by:?} transfers leadership and does not exclude itself: {excluded:?}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{NodeId, StoreId, Term};

    use super::*;

    #[test]
    fn a_transfer_back_or_without_the_sender_excluded_is_seen() {
        let replica = |n| Replica { node: NodeId([n; 16]), store: StoreId([n; 16]) };
        let transfers = |target, excluded: &[u8]| {
            let excluded = excluded.iter().map(|n| replica(*n)).collect();
            let message = raft::Message::TimeoutNow { term: Term(2), transfer_excluded: excluded };
            check(replica(1), replica(target), &message)
        };
        assert!(transfers(2, &[1]).is_ok() && transfers(3, &[1, 2]).is_ok());
        assert!(
            transfers(2, &[1, 2]).is_err()
                && transfers(2, &[]).is_err()
                && transfers(2, &[3]).is_err()
        );
    }
}
