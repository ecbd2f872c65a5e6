//! Peers: the store and boot of each linked node, and whether its process is the one that should be there.
//!
//! A boot is durable before its first send. So two boots of one store that contradict each other mean that a disk was
//! copied or rolled back. One of the two processes is refused. A process that is refused persistently fences
//! itself, because two processes must never promise with one identity.
//!
//! This module does not decide who is a member (`registry`).

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::digest::Hasher;
use crate::id::{AskId, Boot, NodeId, Replica, StoreId};
use crate::limits::{MEMBERS_MAX, REQUESTS_PENDING_MAX};
use crate::time::Instant;
use crate::{mutant, reach};

use super::Refusal;

/// Peers remembered. Certificates bound which nodes may connect; this bounds their cost.
const PEERS_MAX: usize = 2 * MEMBERS_MAX;

/// A node fences itself after this many refusals over at least [`REFUSED_SPAN`], with no gap above [`REFUSED_WINDOW`].
/// The span exceeds the clone window, so a quick restart, which is refused until its old process is forgotten, does not
/// fence.
const REFUSALS_MIN: u32 = 5;
const REFUSED_SPAN: Duration = Duration::from_secs(8);
const REFUSED_WINDOW: Duration = Duration::from_secs(30);

/// Numbers of forwarded requests remembered per peer, so that a duplicate on the wire is no second request. The peer
/// names its lowest open number, and no number below that is remembered. So the bound is reached only while one request
/// stays open and this many later ones arrive.
const FORWARDS_KEPT: usize = REQUESTS_PENDING_MAX;

/// What the number of a forwarded request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    /// It is a new request.
    New,
    /// It was taken before, the peer gave it up, or another process of the peer sent it.
    Old,
    /// It may have been taken before: it was forgotten, see [`FORWARDS_KEPT`].
    Forgotten,
}

/// A peer as its last handshake proved it. `forwards` holds seen numbers of forwarded requests from `floor` on; numbers
/// below `floor` are forgotten, and the peer gave up those below `open`.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) store: StoreId,
    pub(super) boot: Boot,
    /// Whether its link is up.
    pub(super) up: bool,
    /// When the last message or handshake arrived.
    heard: Instant,
    open: u64,
    floor: u64,
    forwards: BTreeSet<u64>,
}

/// The judgement of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The process is the one that should be there.
    Welcome,
    /// The process is an old one, or runs on a copied disk.
    Refuse(Refusal),
    /// The table is full, see [`PEERS_MAX`].
    Full,
}

/// All peers that were ever linked to this process.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    refused: RefusalCount,
}

/// How often other nodes refused this process, without a gap above [`REFUSED_WINDOW`].
#[derive(Clone, Copy, Debug, Default)]
struct RefusalCount {
    count: u32,
    first: Instant,
    last: Instant,
}

impl Peers {
    /// Judges a handshake, and remembers the peer if it is welcome.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        replica: Replica,
        boot: Boot,
        clone_window: Duration,
    ) -> Verdict {
        let full = self.peers.len() >= PEERS_MAX;
        match self.peers.get_mut(&replica.node) {
            Some(known) if known.store == replica.store => {
                if let Some(refusal) = known.refusal(now, boot, clone_window) {
                    return Verdict::Refuse(refusal);
                }
                known.welcome(now, boot);
            }
            None if full => return Verdict::Full,
            _ => {
                self.peers.insert(replica.node, Peer::new(now, replica.store, boot));
            }
        }
        Verdict::Welcome
    }

    /// Notes that a message arrived. Returns the replica that the transport authenticated; `None` without a link.
    pub(super) fn heard(&mut self, now: Instant, peer: NodeId) -> Option<Replica> {
        let known = self.peers.get_mut(&peer).filter(|known| known.up)?;
        known.heard = now;
        Some(Replica { node: peer, store: known.store })
    }

    /// Notes that a link is down. Returns whether it was up.
    pub(super) fn unreachable(&mut self, peer: NodeId) -> bool {
        self.peers.get_mut(&peer).is_some_and(|known| core::mem::replace(&mut known.up, false))
    }

    /// A known peer, whether its link is up or not.
    pub(super) fn get(&self, peer: NodeId) -> Option<&Peer> {
        self.peers.get(&peer)
    }

    /// Whether a link to this very replica is up.
    pub(super) fn is_linked(&self, to: Replica) -> bool {
        self.peers.get(&to.node).is_some_and(|known| known.up && known.store == to.store)
    }

    /// All peers with a link, in order of their node ids.
    pub(super) fn linked(&self) -> impl Iterator<Item = Replica> + '_ {
        let up = self.peers.iter().filter(|(_, peer)| peer.up);
        up.map(|(node, peer)| Replica { node: *node, store: peer.store })
    }

    /// Takes the number of a forwarded request. `open` is the lowest number that the peer still waits for.
    pub(super) fn take_forward(&mut self, peer: NodeId, id: AskId, open: u64) -> Forwarded {
        let known = self.peers.get_mut(&peer);
        known.map_or(Forwarded::Old, |known| known.take_forward(id, open))
    }

    /// Counts a refusal of this process. Returns whether refusals are persistent by now.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        let refused = &mut self.refused;
        if refused.count == 0 || now.since(refused.last) > REFUSED_WINDOW {
            *refused = RefusalCount { count: 0, first: now, last: now };
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
        Self { store, boot, up: true, heard: now, open: 0, floor: 0, forwards: BTreeSet::new() }
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
        // A process that sent something a moment ago, and whose link is still up, is alive. So the later boot runs on
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
            (self.open, self.floor) = (0, 0);
            self.forwards.clear();
        }
        self.boot = boot;
        self.up = true;
        self.heard = now;
    }

    fn take_forward(&mut self, id: AskId, open: u64) -> Forwarded {
        if mutant!("node.forward.duplicated") {
            return Forwarded::New;
        }
        if id.nonce != self.boot.nonce {
            reach!("node.forward.of_other_boot");
            return Forwarded::Old;
        }
        // A number cannot be lower than the lowest open one: such a claim says nothing.
        self.open = self.open.max(open.min(id.number));
        while self.forwards.first().is_some_and(|seen| *seen < self.open) {
            self.forwards.pop_first();
        }
        if id.number < self.open || self.forwards.contains(&id.number) {
            reach!("node.forward.repeated");
            return Forwarded::Old;
        }
        if id.number < self.floor {
            reach!("node.forward.forgotten");
            return Forwarded::Forgotten;
        }
        self.forwards.insert(id.number);
        if self.forwards.len() > FORWARDS_KEPT {
            self.floor = self.forwards.pop_first().map_or(self.floor, |oldest| oldest + 1);
        }
        Forwarded::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);
    const PEER: Replica = Replica { node: NodeId([1; 16]), store: StoreId([2; 16]) };

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn boot(count: u64, nonce: u64) -> Boot {
        Boot { count, nonce }
    }

    #[test]
    fn an_old_boot_is_stale_and_a_contradicting_one_is_a_clone() {
        let mut peers = Peers::default();
        let mut connect = |ms, boot| peers.connected(at(ms), PEER, boot, WINDOW);
        assert_eq!(connect(0, boot(5, 1)), Verdict::Welcome);
        assert_eq!(connect(10, boot(5, 1)), Verdict::Welcome);
        assert_eq!(connect(10, boot(4, 9)), Verdict::Refuse(Refusal::StaleBoot));
        assert_eq!(connect(10, boot(5, 2)), Verdict::Refuse(Refusal::Cloned));
        assert_eq!(connect(20, boot(6, 3)), Verdict::Refuse(Refusal::Cloned));
        assert_eq!(connect(1011, boot(6, 3)), Verdict::Welcome);
        assert_eq!(connect(1012, boot(5, 1)), Verdict::Refuse(Refusal::StaleBoot));
    }

    #[test]
    fn a_restart_whose_old_link_went_down_is_welcome_at_once() {
        let mut peers = Peers::default();
        peers.connected(at(0), PEER, boot(1, 1), WINDOW);
        assert!(peers.unreachable(PEER.node));
        assert_eq!(peers.connected(at(1), PEER, boot(2, 7), WINDOW), Verdict::Welcome);
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
    fn a_forwarded_request_is_taken_once_and_one_of_another_boot_never() {
        use Forwarded::{New, Old};
        let mut peers = Peers::default();
        peers.connected(at(0), PEER, boot(1, 1), WINDOW);
        let take = |peers: &mut Peers, nonce, number, open| {
            peers.take_forward(PEER.node, AskId { nonce, number }, open)
        };
        assert_eq!(take(&mut peers, 1, 3, 2), New);
        assert_eq!(take(&mut peers, 1, 2, 2), New, "it was overtaken");
        assert_eq!(take(&mut peers, 1, 3, 2), Old);
        assert_eq!(take(&mut peers, 7, 4, 2), Old, "an earlier boot sent it");
        for number in 10..5000 {
            assert_eq!(take(&mut peers, 1, number, 4), New);
        }
        assert_eq!(take(&mut peers, 1, 4, 4), New, "however many overtook it");
        assert_eq!(take(&mut peers, 1, 5000, 5000), New);
        assert_eq!(take(&mut peers, 1, 6, 4), Old, "the peer gave it up");
        assert_eq!(peers.peers[&PEER.node].forwards.len(), 1);
        peers.unreachable(PEER.node);
        peers.connected(at(9), PEER, boot(2, 2), WINDOW);
        assert_eq!(take(&mut peers, 1, 6000, 0), Old);
        assert_eq!(take(&mut peers, 2, 1, 1), New);
    }

    #[test]
    fn a_number_that_was_forgotten_is_said_to_be_so() {
        let mut peers = Peers::default();
        peers.connected(at(0), PEER, boot(1, 1), WINDOW);
        let mut take = |number| peers.take_forward(PEER.node, AskId { nonce: 1, number }, 1);
        assert!((2..FORWARDS_KEPT as u64 + 4).all(|number| take(number) == Forwarded::New));
        assert_eq!(take(1), Forwarded::Forgotten);
        assert_eq!(take(2), Forwarded::Forgotten);
        assert_eq!(take(9), Forwarded::Old);
    }
}
