//! Peers: which disk and which life each came with, and whether the process behind a link is the one that it should be.
//!
//! A boot is durable before its first send, so two boots of one store that contradict each other mean that a disk was
//! copied or rolled back. The later word wins, the other process is refused, and a process that is refused
//! persistently fences itself: two of them must never promise with one identity.
//!
//! Not here: who is a member (`route`).

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::digest::Hasher;
use crate::id::{Boot, NodeId, Replica, StoreId};
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;
use crate::{mutant, reach};

use super::Refusal;

/// Peers remembered. Certificates bound who may connect; this bounds what they cost.
const PEERS_MAX: usize = 2 * MEMBERS_MAX;

/// Refusals within [`REFUSED_WINDOW`], and their least ticket_count, after which a node believes its peers. Above the clone
/// window, so that a quick restart, which is refused until the old process is forgotten, never fences.
const REFUSALS_MIN: u32 = 5;
const REFUSED_SPAN: Duration = Duration::from_secs(8);
const REFUSED_WINDOW: Duration = Duration::from_secs(30);

/// Forwarded requests of one peer whose numbers are remembered, so that a duplicate on the wire is not a second
/// request. Numbers below the oldest of them count as seen.
const FORWARDS_KEPT: usize = 1024;

/// Numbers of requests of one boot: 2^40 a boot, so that numbers of a later boot are greater.
pub(super) const fn first_request_of(boot: Boot) -> u64 {
    boot.count << 40
}

/// A peer as its last handshake proved it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) store: StoreId,
    pub(super) boot: Boot,
    /// Whether its link is up.
    pub(super) up: bool,
    heard: Instant,
    /// Forwarded requests seen: everything below `floor`, and these.
    floor: u64,
    forwards: BTreeSet<u64>,
}

/// What a handshake means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The process that should be there.
    Welcome,
    /// An old or copied one.
    Refuse(Refusal),
    /// One too many.
    Full,
}

/// All peers ever linked in this process life.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    refused: Refused,
}

/// How often this process was refused by others.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    count: u32,
    first: Instant,
    last: Instant,
}

impl Peers {
    /// Judges a handshake and remembers the peer if it is welcome.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        who: Replica,
        boot: Boot,
        clone_window: Duration,
    ) -> Verdict {
        let full = self.peers.len() >= PEERS_MAX;
        match self.peers.get_mut(&who.node) {
            Some(known) if known.store == who.store => {
                if let Some(refusal) = known.refusal(now, boot, clone_window) {
                    return Verdict::Refuse(refusal);
                }
                known.welcome(now, boot);
            }
            None if full => return Verdict::Full,
            _ => {
                self.peers.insert(who.node, Peer::new(now, who.store, boot));
            }
        }
        Verdict::Welcome
    }

    /// Notes that a peer was heard; the replica that the transport authenticated, `None` for a peer that has no link.
    pub(super) fn heard(&mut self, now: Instant, peer: NodeId) -> Option<Replica> {
        let known = self.peers.get_mut(&peer).filter(|known| known.up)?;
        known.heard = now;
        Some(Replica { node: peer, store: known.store })
    }

    /// Notes that a link is down; whether it was up.
    pub(super) fn unreachable(&mut self, peer: NodeId) -> bool {
        self.peers.get_mut(&peer).is_some_and(|known| core::mem::replace(&mut known.up, false))
    }

    /// A peer, whether its link is up or not.
    pub(super) fn get(&self, peer: NodeId) -> Option<&Peer> {
        self.peers.get(&peer)
    }

    /// Whether a link to this very replica is up.
    pub(super) fn is_linked(&self, to: Replica) -> bool {
        self.peers.get(&to.node).is_some_and(|known| known.up && known.store == to.store)
    }

    /// All peers with a link, in order.
    pub(super) fn linked(&self) -> impl Iterator<Item = Replica> + '_ {
        let up = self.peers.iter().filter(|(_, peer)| peer.up);
        up.map(|(node, peer)| Replica { node: *node, store: peer.store })
    }

    /// Whether this forwarded request is new: a number is taken once.
    pub(super) fn is_new_forward(&mut self, peer: NodeId, id: u64) -> bool {
        self.peers.get_mut(&peer).is_some_and(|known| known.take_forward(id))
    }

    /// Counts a refusal of this process; whether it is persistent.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        let refused = &mut self.refused;
        if refused.count == 0 || now.since(refused.last) > REFUSED_WINDOW {
            *refused = Refused { count: 0, first: now, last: now };
        }
        refused.count += 1;
        refused.last = now;
        refused.count >= REFUSALS_MIN && now.since(refused.first) >= REFUSED_SPAN
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(u64::from(self.refused.count));
        for (node, peer) in &self.peers {
            hash.value(&(node, peer.store, peer.boot, peer.up, peer.heard));
        }
    }
}

impl Peer {
    const fn new(now: Instant, store: StoreId, boot: Boot) -> Self {
        let floor = first_request_of(boot);
        Self { store, boot, up: true, heard: now, floor, forwards: BTreeSet::new() }
    }

    fn refusal(&self, now: Instant, boot: Boot, clone_window: Duration) -> Option<Refusal> {
        if mutant!("node.peers.old_welcome") {
            return None;
        }
        if boot.count < self.boot.count {
            reach!("node.peers.stale");
            return Some(Refusal::StaleBoot);
        }
        if boot.count == self.boot.count {
            return (boot.nonce != self.boot.nonce).then_some(Refusal::Cloned);
        }
        // A process that was heard a moment ago, and whose link nobody reported down, is alive: the later boot runs on
        // a copy of its disk.
        let alive = self.up && now.since(self.heard) < clone_window;
        if alive {
            reach!("node.peers.cloned_alive");
        }
        alive.then_some(Refusal::Cloned)
    }

    fn welcome(&mut self, now: Instant, boot: Boot) {
        if boot.count > self.boot.count {
            reach!("node.peers.restarted");
            self.floor = first_request_of(boot);
            self.forwards.clear();
        }
        self.boot = boot;
        self.up = true;
        self.heard = now;
    }

    fn take_forward(&mut self, id: u64) -> bool {
        if mutant!("node.forward.duplicated") {
            return true;
        }
        if id < self.floor || !self.forwards.insert(id) {
            reach!("node.forward.repeated");
            return false;
        }
        if self.forwards.len() > FORWARDS_KEPT {
            self.floor = self.forwards.pop_first().map_or(self.floor, |oldest| oldest + 1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);
    const WHO: Replica = Replica { node: NodeId([1; 16]), store: StoreId([2; 16]) };

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn boot(count: u64, nonce: u64) -> Boot {
        Boot { count, nonce }
    }

    #[test]
    fn contradicting_boots_are_told_apart() {
        let mut peers = Peers::default();
        let mut meet = |ms, boot| peers.connected(at(ms), WHO, boot, WINDOW);
        assert_eq!(meet(0, boot(5, 1)), Verdict::Welcome);
        assert_eq!(meet(10, boot(5, 1)), Verdict::Welcome);
        assert_eq!(meet(10, boot(4, 9)), Verdict::Refuse(Refusal::StaleBoot));
        assert_eq!(meet(10, boot(5, 2)), Verdict::Refuse(Refusal::Cloned));
        assert_eq!(meet(20, boot(6, 3)), Verdict::Refuse(Refusal::Cloned));
        assert_eq!(meet(1011, boot(6, 3)), Verdict::Welcome);
        assert_eq!(meet(1012, boot(5, 1)), Verdict::Refuse(Refusal::StaleBoot));
    }

    #[test]
    fn a_restart_whose_old_link_went_down_is_welcome_at_once() {
        let mut peers = Peers::default();
        peers.connected(at(0), WHO, boot(1, 1), WINDOW);
        assert!(peers.unreachable(WHO.node));
        assert_eq!(peers.connected(at(1), WHO, boot(2, 7), WINDOW), Verdict::Welcome);
    }

    #[test]
    fn a_single_refusal_or_a_burst_of_them_does_not_fence() {
        let mut peers = Peers::default();
        assert!((0..20).all(|ms| !peers.refused(at(ms))));
        assert!(!peers.refused(at(60_000)));
        assert!((1..8).all(|step| !peers.refused(at(60_000 + step * 1000))));
        assert!(peers.refused(at(68_000)));
    }

    #[test]
    fn a_forwarded_request_is_taken_once_and_an_old_boots_never() {
        let mut peers = Peers::default();
        peers.connected(at(0), WHO, boot(1, 1), WINDOW);
        let base = first_request_of(boot(1, 1));
        assert!(peers.is_new_forward(WHO.node, base + 3));
        assert!(peers.is_new_forward(WHO.node, base + 2));
        assert!(!peers.is_new_forward(WHO.node, base + 3));
        for id in 0..=FORWARDS_KEPT as u64 {
            peers.is_new_forward(WHO.node, base + 10 + id);
        }
        assert!(
            !peers.is_new_forward(WHO.node, base + 1),
            "below the window everything counts as seen"
        );
        peers.unreachable(WHO.node);
        peers.connected(at(9), WHO, boot(2, 1), WINDOW);
        assert!(!peers.is_new_forward(WHO.node, base + 5000));
        assert!(peers.is_new_forward(WHO.node, first_request_of(boot(2, 1))));
    }
}
