//! Law: a process sends nothing before its boot is durable, and a node refuses a process whose boot it has seen
//! overtaken by a later boot of the same store, or by one with the same count and another nonce (README, Guarantees: an
//! identity is one disk). A store is condemned by a majority of the other voters, and by nobody else. A copy that a
//! voter knows promises nothing (`world::clones`).
//!
//! Compares the boot of each process that a node admits with the boot of that store which it admitted last, and the
//! boot of each sender with the one on its disk. It does not judge other stores of the same node (`fencing`).

use std::collections::BTreeMap;

use continuum_core::id::{Boot, NodeId, StoreId};
use continuum_core::node::Condemned;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "one-process-per-identity";

/// The process at the other end of a link, as its handshake proved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) peer: NodeId,
    pub(crate) store: StoreId,
    pub(crate) boot: Boot,
}

/// The processes that one node admitted last, by node.
#[derive(Debug, Default)]
pub(crate) struct AdmittedPeers {
    peers: BTreeMap<NodeId, Identified>,
}

impl AdmittedPeers {
    /// Judges the end of a handshake; `refused` says whether the node refuses the process.
    pub(crate) fn check(&mut self, process: Identified, refused: bool) -> Verdict {
        if refused {
            return Ok(());
        }
        let same = |known: &&Identified| known.store == process.store;
        let known = self.peers.get(&process.peer).filter(same).copied();
        if let Some(known) = known.filter(|known| is_overtaken(process.boot, known.boot)) {
            let what = format!("{process:?} is admitted after {:?}", known.boot);
            return Err(Broken::new(NAME, what));
        }
        self.peers.insert(process.peer, process);
        Ok(())
    }

    /// The boot of a peer that was admitted last.
    pub(crate) fn boot(&self, peer: NodeId) -> Option<Boot> {
        self.peers.get(&peer).map(|known| known.boot)
    }
}

fn is_overtaken(boot: Boot, by: Boot) -> bool {
    boot.count < by.count || (boot.count == by.count && boot.nonce != by.nonce)
}

/// Judges a message that leaves; `durable` is the boot on the sender's disk.
pub(crate) fn check_sent(boot: Boot, durable: Boot) -> Verdict {
    if boot == durable {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{boot:?} sends a message, and the disk holds {durable:?}")))
}

/// Judges the end of a store: `voters` are all voters, and the store is that of the node with this number.
pub(crate) fn check_condemned(condemned: &Condemned, number: usize, voters: &[NodeId]) -> Verdict {
    let others = voters.len() - usize::from(number < voters.len());
    let mut by: Vec<_> = condemned.by.iter().filter(|voter| voters.contains(voter)).collect();
    by.sort_unstable();
    by.dedup();
    if by.len() > others / 2 {
        return Ok(());
    }
    let what =
        format!("the store of node {number} is condemned by {by:?}, of {others} other voters");
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use continuum_core::node::Refusal;

    #[test]
    fn a_store_that_less_than_a_majority_of_the_other_voters_condemned_is_seen() {
        let voters: Vec<NodeId> = (0..5).map(|number| NodeId([number; 16])).collect();
        let check = |number: usize, by: &[u8]| {
            let by = by.iter().map(|voter| NodeId([*voter; 16])).collect();
            let boot = Boot { count: 3, nonce: 1 };
            let condemned = Condemned { boot, reason: Refusal::Cloned, known: boot, by };
            check_condemned(&condemned, number, &voters).is_ok()
        };
        assert!(check(0, &[1, 2, 3]) && check(7, &[0, 1, 2]));
        assert!(!check(0, &[1, 2]) && !check(7, &[0, 1]) && !check(0, &[1, 1, 1]));
        assert!(!check(0, &[1, 2, 9]), "a learner's word");
    }

    #[test]
    fn an_older_or_copied_boot_that_is_admitted_is_seen() {
        let (peer, store, other) = (NodeId([3; 16]), StoreId([1; 16]), StoreId([2; 16]));
        let process = |store, count, nonce| {
            let boot = Boot { count, nonce };
            Identified { peer, store, boot }
        };
        let first = process(store, 5, 1);
        let check = |process, refused| {
            let mut admitted = AdmittedPeers::default();
            assert_eq!(admitted.check(first, false), Ok(()));
            admitted.check(process, refused).is_ok()
        };
        assert!(check(process(store, 5, 1), false) && check(process(store, 6, 9), false));
        assert!(!check(process(store, 4, 1), false) && !check(process(store, 5, 2), false));
        assert!(check(process(store, 4, 1), true) && check(process(other, 1, 1), false));
    }
}
