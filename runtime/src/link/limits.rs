//! Bounds on connections: during the handshake, by address and in total; after it, by peer and in total.
//!
//! Past a bound a connection is closed at once. Dropping a slot returns it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use continuum_core::id::NodeId;
use continuum_core::limits::MEMBERS_MAX;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Handshakes under way.
    pub pending_max: usize,
    /// Handshakes under way from one address.
    pub pending_per_address_max: usize,
    /// Connections whose handshake succeeded.
    pub connections_max: usize,
    /// Connections of one peer: two planes, each twice while simultaneous dials are resolved, and a process that is
    /// ending.
    pub connections_per_peer_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending_max: 256,
            pending_per_address_max: 64,
            connections_max: 4 * MEMBERS_MAX,
            connections_per_peer_max: 12,
        }
    }
}

/// Counts connections against the limits.
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    pending: Count<IpAddr>,
    connections: Count<NodeId>,
}

/// A total, and a count for each key.
#[derive(Debug)]
struct Count<K> {
    total: usize,
    each: BTreeMap<K, usize>,
}

impl<K> Default for Count<K> {
    fn default() -> Self {
        Self { total: 0, each: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Count<K> {
    fn enter(&mut self, key: K, total_max: usize, each_max: usize) -> bool {
        let each = self.each.get(&key).copied().unwrap_or(0);
        if self.total >= total_max || each >= each_max {
            return false;
        }
        self.total += 1;
        self.each.insert(key, each + 1);
        true
    }

    fn leave(&mut self, key: K) {
        self.total -= 1;
        if let Some(each) = self.each.get_mut(&key) {
            *each -= 1;
            if *each == 0 {
                self.each.remove(&key);
            }
        }
    }
}

/// The slot of a connection during its handshake.
#[derive(Debug)]
pub struct PendingSlot {
    limiter: Arc<Limiter>,
    address: IpAddr,
}

/// The slot of a connection whose handshake succeeded.
#[derive(Debug)]
pub struct PeerSlot {
    limiter: Arc<Limiter>,
    peer: NodeId,
}

impl Limiter {
    /// A limiter without connections.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// A slot for a handshake; `None` past the bounds.
    #[must_use]
    pub fn pending(self: &Arc<Self>, address: IpAddr) -> Option<PendingSlot> {
        let Limits { pending_max, pending_per_address_max, .. } = self.limits;
        let entered = self.lock().pending.enter(address, pending_max, pending_per_address_max);
        entered.then(|| PendingSlot { limiter: Arc::clone(self), address })
    }

    /// A slot for a connection of a peer; `None` past the bounds.
    #[must_use]
    pub fn established(self: &Arc<Self>, peer: NodeId) -> Option<PeerSlot> {
        let Limits { connections_max, connections_per_peer_max, .. } = self.limits;
        let entered =
            self.lock().connections.enter(peer, connections_max, connections_per_peer_max);
        entered.then(|| PeerSlot { limiter: Arc::clone(self), peer })
    }

    /// Connections whose handshake succeeded.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections.total
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.limiter.lock().pending.leave(self.address);
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        self.limiter.lock().connections.leave(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_returned() {
        let limits = Limits {
            pending_max: 3,
            pending_per_address_max: 2,
            connections_max: 2,
            connections_per_peer_max: 1,
        };
        let limiter = Limiter::new(limits);
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let first = limiter.pending(address(1)).unwrap();
        let _second = limiter.pending(address(1)).unwrap();
        assert!(limiter.pending(address(1)).is_none(), "two from one address");
        let _third = limiter.pending(address(2)).unwrap();
        assert!(limiter.pending(address(3)).is_none(), "three in all");
        drop(first);
        assert!(limiter.pending(address(1)).is_some());

        let ann = limiter.established(NodeId([1; 16])).unwrap();
        assert!(limiter.established(NodeId([1; 16])).is_none());
        let _ben = limiter.established(NodeId([2; 16])).unwrap();
        assert!(limiter.established(NodeId([3; 16])).is_none());
        drop(ann);
        assert!(limiter.established(NodeId([3; 16])).is_some());
        assert_eq!(limiter.connections(), 1);
    }
}
