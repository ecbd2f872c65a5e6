//! Connected peers, and how often each was told and told us something.
//!
//! Where nodes are is not here but in `candidate`: a node may be at several addresses, and an address may pass from one
//! node to another.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::digest::Hasher;
use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// When it was last told.
    last_sent: Option<Instant>,
    /// When it last told us.
    last_received: Option<Instant>,
}

/// All connected peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    connected: BTreeMap<NodeId, Peer>,
}

impl Peers {
    /// The link is up. False when it was already, or there are as many peers as there may be members.
    pub(super) fn connect(&mut self, node: NodeId) -> bool {
        if self.is_connected(node) || self.connected.len() >= MEMBERS_MAX {
            return false;
        }
        self.connected.insert(node, Peer::default());
        true
    }

    /// The link is down. False when it was already.
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

    /// Whether a peer may be told something now; if so, it counts as told.
    pub(super) fn may_send(&mut self, node: NodeId, now: Instant, gap: Duration) -> bool {
        self.connected.get_mut(&node).is_some_and(|peer| rate_limit(&mut peer.last_sent, now, gap))
    }

    /// Whether a peer may tell something now; if so, it counts as having told. Only who is connected may.
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

fn rate_limit(last: &mut Option<Instant>, now: Instant, gap: Duration) -> bool {
    let may = last.is_none_or(|last| now >= last + gap);
    if may {
        *last = Some(now);
    }
    may
}
