//! The connected peers, and when contacts were last exchanged with each.
//!
//! Addresses are in `candidate`, not here: a node may have several addresses, and an address may pass to another node.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::digest::Hasher;
use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// When contacts were last sent to it.
    last_sent: Option<Instant>,
    /// When contacts last came from it.
    last_received: Option<Instant>,
}

/// All connected peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    connected: BTreeMap<NodeId, Peer>,
}

impl Peers {
    /// Adds a peer whose link is up. Returns false when it was there already, or when the table is full.
    pub(super) fn connect(&mut self, node: NodeId) -> bool {
        if self.is_connected(node) || self.connected.len() >= MEMBERS_MAX {
            return false;
        }
        self.connected.insert(node, Peer::default());
        true
    }

    /// Removes a peer whose link is down. Returns false when it was not there.
    pub(super) fn disconnect(&mut self, node: NodeId) -> bool {
        self.connected.remove(&node).is_some()
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.connected.contains_key(&node)
    }

    pub(super) fn is_any_connected(&self) -> bool {
        !self.connected.is_empty()
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = NodeId> {
        self.connected.keys().copied()
    }

    /// Whether contacts may be sent to a peer now. If so, they count as sent.
    pub(super) fn may_send(&mut self, node: NodeId, now: Instant, gap: Duration) -> bool {
        self.connected.get_mut(&node).is_some_and(|peer| rate_limit(&mut peer.last_sent, now, gap))
    }

    /// Whether contacts from a peer may be taken now. If so, they count as taken. Only a connected peer may send some.
    pub(super) fn may_receive(&mut self, node: NodeId, now: Instant, gap: Duration) -> bool {
        self.connected
            .get_mut(&node)
            .is_some_and(|peer| rate_limit(&mut peer.last_received, now, gap))
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.connected.len() as u64);
        for (node, peer) in &self.connected {
            hash.value(&(node, peer.last_sent, peer.last_received));
        }
    }
}

/// Whether `gap` passed since `last`. If so, `last` becomes `now`.
fn rate_limit(last: &mut Option<Instant>, now: Instant, gap: Duration) -> bool {
    let may = last.is_none_or(|last| now >= last + gap);
    if may {
        *last = Some(now);
    }
    may
}
