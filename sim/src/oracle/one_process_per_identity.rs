//! Identity: nothing leaves a process before its boot is on its disk, and a process that was overtaken by a later boot
//! of the same store, or that has its count with another nonce, is refused (this project's design, section 3,
//! identity).

use std::collections::BTreeMap;

use continuum_core::id::{Boot, NodeId, StoreId};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "one-process-per-identity";

/// A process at the other end of a link, as its handshake proved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) peer: NodeId,
    pub(crate) store: StoreId,
    pub(crate) boot: Boot,
}

/// The processes that one node let in.
#[derive(Debug, Default)]
pub(crate) struct LetIn {
    peers: BTreeMap<NodeId, Identified>,
}

impl LetIn {
    /// A handshake ended; `refused` tells whether the node refuses who was there.
    pub(crate) fn check(&mut self, there: Identified, refused: bool) -> Verdict {
        if refused {
            return Ok(());
        }
        let same = |known: &&Identified| known.store == there.store;
        let known = self.peers.get(&there.peer).filter(same).copied();
        if let Some(known) = known.filter(|known| is_overtaken(there.boot, known.boot)) {
            let what = format!("{there:?} is let in after {:?}", known.boot);
            return Err(Broken::new(NAME, what));
        }
        self.peers.insert(there.peer, there);
        Ok(())
    }

    /// The boot of a peer that was let in last.
    pub(crate) fn boot(&self, peer: NodeId) -> Option<Boot> {
        self.peers.get(&peer).map(|known| known.boot)
    }
}

fn is_overtaken(boot: Boot, by: Boot) -> bool {
    boot.count < by.count || (boot.count == by.count && boot.nonce != by.nonce)
}

/// A message leaves; `durable` is the boot on the disk.
pub(crate) fn check_sent(boot: Boot, durable: Boot) -> Verdict {
    if boot == durable {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{boot:?} sends, and the disk holds {durable:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_or_copied_boot_that_is_let_in_is_seen() {
        let (peer, store, other) = (NodeId([3; 16]), StoreId([1; 16]), StoreId([2; 16]));
        let there = |store, count, nonce| {
            let boot = Boot { count, nonce };
            Identified { peer, store, boot }
        };
        let first = there(store, 5, 1);
        let check = |there, refused| {
            let mut let_in = LetIn::default();
            assert_eq!(let_in.check(first, false), Ok(()));
            let_in.check(there, refused).is_ok()
        };
        assert!(check(there(store, 5, 1), false) && check(there(store, 6, 9), false));
        assert!(!check(there(store, 4, 1), false) && !check(there(store, 5, 2), false));
        assert!(check(there(store, 4, 1), true) && check(there(other, 1, 1), false));
    }
}
