//! Bounds on connections: during the handshake, by address and in total; after it, by peer and in total.
//!
//! A stranger can begin handshakes and end none. So past a bound of handshakes the oldest one of the address that has
//! most gives way to a newcomer from an address that has less; to one from that address itself only after a moment, so
//! that handshakes still come to an end there. Past any other bound a connection is closed at once. Dropping a slot
//! returns it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use continuum_core::id::NodeId;
use continuum_core::limits::MEMBERS_MAX;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::network::network;

/// A handshake has this long before it gives way to another one from its address.
const GIVES_WAY: Duration = Duration::from_millis(100);

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Handshakes under way.
    pub pending_max: usize,
    /// Handshakes under way from one address; from one network of 64 bits with IPv6.
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
    pending: Pending,
    connections: Count<NodeId>,
}

/// The handshakes under way.
#[derive(Debug, Default)]
struct Pending {
    next: u64,
    /// Oldest first.
    open: BTreeMap<u64, Handshake>,
    by_network: BTreeMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Handshake {
    network: IpAddr,
    since: Instant,
    gone: Arc<Notify>,
}

impl Pending {
    /// Makes room for one more handshake from a network. False when none gives way.
    fn make_room(&mut self, from: IpAddr, limits: Limits) -> bool {
        let own = self.by_network.get(&from).copied().unwrap_or(0);
        let (busiest, most) = if own >= limits.pending_per_address_max {
            (from, own)
        } else if self.open.len() >= limits.pending_max {
            let most = self.by_network.iter().max_by_key(|(_, count)| **count);
            most.map_or((from, own), |(busiest, most)| (*busiest, *most))
        } else {
            return true;
        };
        let oldest = self.open.iter().find(|(_, handshake)| handshake.network == busiest);
        match oldest.map(|(number, handshake)| (*number, handshake.since.elapsed())) {
            Some((number, age)) if own + 1 < most || age >= GIVES_WAY => {
                self.open[&number].gone.notify_one();
                self.leave(number);
                true
            }
            _ => false,
        }
    }

    fn enter(&mut self, network: IpAddr) -> (u64, Arc<Notify>) {
        let (number, gone) = (self.next, Arc::<Notify>::default());
        self.next += 1;
        *self.by_network.entry(network).or_default() += 1;
        let handshake = Handshake { network, since: Instant::now(), gone: Arc::clone(&gone) };
        self.open.insert(number, handshake);
        (number, gone)
    }

    fn leave(&mut self, number: u64) {
        let Some(handshake) = self.open.remove(&number) else { return };
        if let Some(count) = self.by_network.get_mut(&handshake.network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&handshake.network);
            }
        }
    }
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
    number: u64,
    gone: Arc<Notify>,
}

impl PendingSlot {
    /// Waits until the handshake must give way.
    pub async fn gives_way(&self) {
        self.gone.notified().await;
    }
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

    /// A slot for a handshake; `None` past the bounds, when no other handshake gives way.
    #[must_use]
    pub fn pending(self: &Arc<Self>, address: IpAddr) -> Option<PendingSlot> {
        let from = network(address);
        let mut counts = self.lock();
        if !counts.pending.make_room(from, self.limits) {
            return None;
        }
        let (number, gone) = counts.pending.enter(from);
        drop(counts);
        Some(PendingSlot { limiter: Arc::clone(self), number, gone })
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
        self.limiter.lock().pending.leave(self.number);
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

    const LIMITS: Limits = Limits {
        pending_max: 4,
        pending_per_address_max: 3,
        connections_max: 2,
        connections_per_peer_max: 1,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    async fn is_told(slot: &PendingSlot) -> bool {
        tokio::select! {
            biased;
            () = slot.gives_way() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_crowd_of_one_address_gives_way_to_others_at_once() {
        let limiter = Limiter::new(LIMITS);
        let crowd: Vec<_> = (0..3).map(|_| limiter.pending(address(1)).unwrap()).collect();
        assert!(limiter.pending(address(1)).is_none(), "three from one address");
        let second = limiter.pending(address(2)).unwrap();
        let third = limiter.pending(address(3)).expect("of the crowd the oldest gives way");
        assert!(is_told(&crowd[0]).await);
        let told = [&crowd[1], &crowd[2], &second, &third].map(is_told);
        for told in told {
            assert!(!told.await);
        }
        drop(crowd);
        drop((second, third));
        assert!(limiter.lock().pending.open.is_empty());
        assert!(limiter.lock().pending.by_network.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_a_moment_before_it_gives_way_to_its_own_address() {
        let limiter = Limiter::new(LIMITS);
        let first = limiter.pending(address(1)).unwrap();
        let all: Vec<_> = (0..2).map(|_| limiter.pending(address(1)).unwrap()).collect();
        tokio::time::advance(GIVES_WAY - Duration::from_millis(1)).await;
        assert!(limiter.pending(address(1)).is_none());
        assert!(!is_told(&first).await);
        tokio::time::advance(Duration::from_millis(1)).await;
        let newcomer = limiter.pending(address(1)).unwrap();
        assert!(is_told(&first).await);
        // Its slot is another's by now.
        drop(first);
        assert_eq!(limiter.lock().pending.open.len(), 3);
        drop((all, newcomer));
        // Many addresses with one handshake each: the same moment.
        let _many: Vec<_> = (1..5).map(|last| limiter.pending(address(last)).unwrap()).collect();
        assert!(limiter.pending(address(9)).is_none());
        tokio::time::advance(GIVES_WAY).await;
        assert!(limiter.pending(address(9)).is_some());
    }

    #[test]
    fn connections_are_bounded_and_returned() {
        let limiter = Limiter::new(LIMITS);
        let ann = limiter.established(NodeId([1; 16])).unwrap();
        assert!(limiter.established(NodeId([1; 16])).is_none());
        let _ben = limiter.established(NodeId([2; 16])).unwrap();
        assert!(limiter.established(NodeId([3; 16])).is_none());
        drop(ann);
        assert!(limiter.established(NodeId([3; 16])).is_some());
        assert_eq!(limiter.connections(), 1);
    }
}
