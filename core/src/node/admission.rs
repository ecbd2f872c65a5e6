//! Admission: how often peers may ask to be let in, to change their entries, or to accept a founding.
//!
//! Each such request can become an entry of group 0 or a record. So both all peers together and each peer alone have a
//! bucket of tokens, and a request without a token is refused. This module does not decide who may join (`join`) or
//! found (`genesis`).

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::digest::Hasher;
use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;
use crate::mutant;
use crate::time::Instant;

/// Requests in a row, and the time after which one more is allowed: of one peer, and of all.
const PEER: (u64, Duration) = (4, Duration::from_millis(500));
const ALL: (u64, Duration) = (64, Duration::from_millis(20));

/// Peers remembered. A peer whose bucket is full again is forgotten.
const PEERS_MAX: usize = 2 * MEMBERS_MAX;

/// The moment until which a bucket is in debt: each request moves it on by the time that it costs.
type Debt = Instant;

/// The buckets of one node.
#[derive(Debug, Default)]
pub(super) struct Admission {
    all: Debt,
    peers: BTreeMap<NodeId, Debt>,
}

/// Takes a token. Returns the new debt, or `None` when the bucket is empty.
fn take(debt: Debt, now: Instant, (burst, pause): (u64, Duration)) -> Option<Debt> {
    let next = debt.max(now) + pause;
    let most = now + pause.saturating_mul(u32::try_from(burst).unwrap_or(u32::MAX));
    (next <= most).then_some(next)
}

impl Admission {
    /// Whether the request of a peer is taken now. If so, it counts.
    pub(super) fn admits(&mut self, peer: NodeId, now: Instant) -> bool {
        if mutant!("node.join.unbounded") {
            return true;
        }
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, debt| *debt > now);
        }
        let known = self.peers.get(&peer).copied();
        if known.is_none() && self.peers.len() >= PEERS_MAX {
            return false;
        }
        let own = take(known.unwrap_or_default(), now, PEER);
        let (Some(own), Some(all)) = (own, take(self.all, now, ALL)) else { return false };
        self.peers.insert(peer, own);
        self.all = all;
        true
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.all, &self.peers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> NodeId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        NodeId(bytes)
    }

    #[test]
    fn a_peer_and_all_peers_are_bounded_and_none_stays_locked_out() {
        let mut admission = Admission::default();
        let at = Instant::from_millis;
        let one = (0..100).filter(|_| admission.admits(peer(1), at(5))).count();
        assert_eq!(one as u64, PEER.0);
        let all = (2..5000).filter(|n| admission.admits(peer(*n), at(5))).count();
        assert_eq!(all as u64, ALL.0 - PEER.0);
        let second = (0..5000).filter(|n| admission.admits(peer(*n), at(1005))).count();
        assert!(second as u64 <= ALL.0, "{second} in the next second");
        assert!(admission.admits(peer(1), at(60_000)));
        assert!(admission.peers.len() <= PEERS_MAX);
    }
}
