//! How many connections are taken: before anything is proved, by address and in all; afterwards, by peer and in all.
//!
//! Past a bound a connection is closed at once. Places are given back when their guard is dropped.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use continuum_core::id::NodeId;
use continuum_core::limits::MEMBERS_MAX;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Handshakes under way.
    pub strangers_max: usize,
    /// Handshakes under way from one address.
    pub strangers_per_address_max: usize,
    /// Connections that proved who they are.
    pub connections_max: usize,
    /// Connections of one peer: two planes, twice while simultaneous dials are sorted out, and a life that is ending.
    pub connections_per_peer_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strangers_max: 256,
            strangers_per_address_max: 64,
            connections_max: 4 * MEMBERS_MAX,
            connections_per_peer_max: 12,
        }
    }
}

/// Counts connections.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    strangers: Count<IpAddr>,
    connections: Count<NodeId>,
}

/// A count in all and by key.
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

/// The place of a connection that proved nothing yet.
#[derive(Debug)]
pub struct Stranger {
    gate: Arc<Gate>,
    address: IpAddr,
}

/// The place of a connection that proved who it is.
#[derive(Debug)]
pub struct Known {
    gate: Arc<Gate>,
    peer: NodeId,
}

impl Gate {
    /// A gate that nobody went through.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// A place for a stranger; `None` past the bounds.
    #[must_use]
    pub fn stranger(self: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let Limits { strangers_max, strangers_per_address_max, .. } = self.limits;
        let entered =
            self.lock().strangers.enter(address, strangers_max, strangers_per_address_max);
        entered.then(|| Stranger { gate: Arc::clone(self), address })
    }

    /// A place for a peer; `None` past the bounds.
    #[must_use]
    pub fn known(self: &Arc<Self>, peer: NodeId) -> Option<Known> {
        let Limits { connections_max, connections_per_peer_max, .. } = self.limits;
        let entered =
            self.lock().connections.enter(peer, connections_max, connections_per_peer_max);
        entered.then(|| Known { gate: Arc::clone(self), peer })
    }

    /// Connections that proved who they are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections.total
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.gate.lock().strangers.leave(self.address);
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.gate.lock().connections.leave(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let limits = Limits {
            strangers_max: 3,
            strangers_per_address_max: 2,
            connections_max: 2,
            connections_per_peer_max: 1,
        };
        let gate = Gate::new(limits);
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let first = gate.stranger(address(1)).unwrap();
        let _second = gate.stranger(address(1)).unwrap();
        assert!(gate.stranger(address(1)).is_none(), "two from one address");
        let _third = gate.stranger(address(2)).unwrap();
        assert!(gate.stranger(address(3)).is_none(), "three in all");
        drop(first);
        assert!(gate.stranger(address(1)).is_some());

        let ann = gate.known(NodeId([1; 16])).unwrap();
        assert!(gate.known(NodeId([1; 16])).is_none());
        let _ben = gate.known(NodeId([2; 16])).unwrap();
        assert!(gate.known(NodeId([3; 16])).is_none());
        drop(ann);
        assert!(gate.known(NodeId([3; 16])).is_some());
        assert_eq!(gate.connections(), 1);
    }
}
