//! The other replicas, the links to them, each replica's push window (the bytes pushed and not yet acknowledged), and
//! what was compared with it.
//!
//! This module sends nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use crate::digest::Hasher;
use crate::id::{NodeId, Replica, ShardId};
use crate::reach;
use crate::time::Instant;

/// Another replica.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) replica: Replica,
    /// Bytes pushed and not yet acknowledged.
    unacknowledged: u64,
    /// When it last acknowledged, or when the first push left after everything was acknowledged.
    acknowledged_at: Instant,
    /// The last change that was compared with it.
    pub(crate) compared: u64,
    /// When it was last asked about all shards.
    pub(crate) asked_at: Instant,
    /// The last change when all shards were equal to its own.
    pub(crate) equal_at: Option<u64>,
    /// The first shard whose root it is told when blocks differ; then its next turn comes soon.
    pub(crate) resumes: Option<ShardId>,
    /// When its next turn is.
    due: Option<Instant>,
}

/// All other replicas, and all links.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    replicas: BTreeMap<NodeId, Peer>,
    /// The other end of each link, replica or not: a link may be up before the registry names its other end.
    links: BTreeMap<NodeId, Replica>,
    /// The turns of the connected replicas.
    turns: BTreeSet<(Instant, NodeId)>,
}

impl Peer {
    const fn new(replica: Replica) -> Self {
        Self {
            replica,
            unacknowledged: 0,
            acknowledged_at: Instant::ZERO,
            compared: 0,
            asked_at: Instant::ZERO,
            equal_at: None,
            resumes: None,
            due: None,
        }
    }

    /// A link begins: all is compared by a summary, and changes from now on one by one.
    pub(crate) const fn begin(&mut self, newest: u64) {
        (self.compared, self.equal_at, self.resumes) = (newest, None, None);
    }

    /// Frees `bytes` of the push window.
    pub(crate) const fn acknowledge(&mut self, now: Instant, bytes: u64) {
        self.unacknowledged = self.unacknowledged.saturating_sub(bytes);
        self.acknowledged_at = now;
    }

    /// Reserves `bytes` of the push window; false when it is full. Lost bytes are never acknowledged, so the window
    /// resets after a silence of `patience`.
    pub(crate) fn reserve(
        &mut self,
        now: Instant,
        bytes: u64,
        bytes_max: u64,
        patience: Duration,
    ) -> bool {
        if self.unacknowledged == 0 {
            self.acknowledged_at = now;
        } else if self.unacknowledged.saturating_add(bytes) > bytes_max {
            if now.since(self.acknowledged_at) < patience {
                return false;
            }
            reach!("replication.push.resumed");
            self.unacknowledged = 0;
            self.acknowledged_at = now;
        }
        self.unacknowledged += bytes;
        true
    }
}

impl Peers {
    /// Replaces the set of replicas. Returns those that are new in it.
    pub(crate) fn set_replicas(&mut self, replicas: impl Iterator<Item = Replica>) -> Vec<Replica> {
        let mut old = core::mem::take(&mut self.replicas);
        let mut added = Vec::new();
        for replica in replicas {
            let known = old.remove(&replica.node).filter(|peer| peer.replica == replica);
            if known.is_none() {
                added.push(replica);
            }
            self.replicas.insert(replica.node, known.unwrap_or_else(|| Peer::new(replica)));
        }
        let (turns, replicas) = (&mut self.turns, &self.replicas);
        turns.retain(|(due, node)| replicas.get(node).is_some_and(|peer| peer.due == Some(*due)));
        added
    }

    /// Notes that a link is up.
    pub(crate) fn connect(&mut self, replica: Replica) {
        self.links.insert(replica.node, replica);
    }

    /// Notes that the link to a node is down.
    pub(crate) fn disconnect(&mut self, node: NodeId) {
        self.links.remove(&node);
        if let Some(due) = self.replicas.get_mut(&node).and_then(|peer| peer.due.take()) {
            self.turns.remove(&(due, node));
        }
    }

    /// Sets when a connected replica has its next turn.
    pub(crate) fn schedule(&mut self, node: NodeId, at: Instant) {
        let Some(peer) = self.replicas.get_mut(&node) else { return };
        if let Some(before) = peer.due.replace(at) {
            self.turns.remove(&(before, node));
        }
        self.turns.insert((at, node));
    }

    /// When the next turn is.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        self.turns.first().map(|(at, _)| *at)
    }

    /// A replica whose turn it is.
    pub(crate) fn due(&self, now: Instant) -> Option<NodeId> {
        self.turns.first().filter(|(at, _)| *at <= now).map(|(_, node)| *node)
    }

    /// Whether a replica's shards were all equal to those here, and none of these changed after this change.
    pub(crate) fn equal_since(&self) -> impl Iterator<Item = (Replica, u64)> + '_ {
        self.replicas.values().filter_map(|peer| Some((peer.replica, peer.equal_at?)))
    }

    /// Whether this exact replica, node and store, is in the set.
    pub(crate) fn is_replica(&self, replica: &Replica) -> bool {
        self.replicas.get(&replica.node).is_some_and(|peer| peer.replica == *replica)
    }

    /// Empties the push window of a replica: what was pushed over an earlier link is not acknowledged over this one.
    /// False when it is no replica, or is not connected.
    pub(crate) fn reset_window(&mut self, replica: &Replica) -> bool {
        let connected = self.links.get(&replica.node) == Some(replica);
        match self.replicas.get_mut(&replica.node) {
            Some(peer) if connected && peer.replica == *replica => {
                peer.unacknowledged = 0;
                true
            }
            _ => false,
        }
    }

    /// The replica of a node.
    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.replicas.get_mut(&node)
    }

    /// The number of other replicas, connected or not.
    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    /// All other replicas, connected or not.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = Replica> + '_ {
        self.replicas.values().map(|peer| peer.replica)
    }

    /// The connected replicas, in the order of their nodes.
    pub(crate) fn connected(&self) -> impl Iterator<Item = Replica> + Clone {
        let linked = |peer: &&Peer| self.links.get(&peer.replica.node) == Some(&peer.replica);
        self.replicas.values().filter(linked).map(|peer| peer.replica)
    }

    /// The connected replicas, to push to.
    pub(crate) fn connected_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        let links = &self.links;
        let linked = |peer: &&mut Peer| links.get(&peer.replica.node) == Some(&peer.replica);
        self.replicas.values_mut().filter(linked)
    }

    /// Feeds the whole state to `hash`.
    pub(crate) fn digest(&self, hash: &mut Hasher) {
        for (node, peer) in &self.replicas {
            let pushed = (peer.unacknowledged, peer.acknowledged_at);
            hash.value(&(node, peer.replica, self.links.get(node), pushed));
            hash.value(&(peer.compared, peer.asked_at, peer.equal_at, peer.resumes, peer.due));
        }
    }
}
