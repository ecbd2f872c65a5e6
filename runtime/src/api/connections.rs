//! The places for connections: how many there are, how many one address has, and who gives way.
//!
//! When all places are taken, a newcomer takes one from the address that has most: that of the connection whose client
//! the node has waited for longest. A client that waits for the node never gives way. When nobody gives way,
//! the newcomer comes into the reserve, where only probes are answered, so that no supervisor takes a busy node for a
//! dead one. This module opens and closes no socket.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::guard::Progress;
use crate::network::network;

/// A connection gives way only when the node has waited this long for its client: longer than most networks take for a
/// greeting. The longer it is, the fewer new connections a second keep all others of an address out.
const GIVES_WAY_MS: u64 = 100;

/// Places in the reserve. The oldest gives way to the newest.
const RESERVE: usize = 64;

/// Bounds on open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub all: usize,
    /// Of one address.
    pub of_address: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { all: 2048, of_address: 512 }
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Entry>,
    reserve: BTreeMap<u64, Arc<Notify>>,
    by_address: BTreeMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    progress: Arc<Progress>,
    gone: Arc<Notify>,
}

/// A place, given back at its end.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    pub(super) progress: Arc<Progress>,
    /// Only probes are answered here.
    pub(super) is_reserve: bool,
    gone: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Place {
        let address = network(from);
        let (progress, gone) = (Progress::new(), Arc::<Notify>::default());
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        let is_reserve = !table.make_room(address, self.bounds);
        if is_reserve {
            if table.reserve.len() >= RESERVE
                && let Some((_, oldest)) = table.reserve.pop_first()
            {
                oldest.notify_one();
            }
            table.reserve.insert(number, Arc::clone(&gone));
        } else {
            *table.by_address.entry(address).or_default() += 1;
            let (progress, gone) = (Arc::clone(&progress), Arc::clone(&gone));
            table.open.insert(number, Entry { address, progress, gone });
        }
        drop(table);
        Place { connections: Arc::clone(self), number, progress, is_reserve, gone }
    }

    /// Whether no connection is open.
    pub(super) fn is_empty(&self) -> bool {
        let table = self.table();
        table.open.is_empty() && table.reserve.is_empty()
    }
}

impl Table {
    /// Makes room for one more connection of an address. False when nobody gives way.
    fn make_room(&mut self, address: IpAddr, bounds: Bounds) -> bool {
        let own = self.by_address.get(&address).copied().unwrap_or(0);
        let busiest = if own >= bounds.of_address {
            address
        } else if self.open.len() >= bounds.all {
            let most = self.by_address.iter().max_by_key(|(_, count)| **count);
            most.map_or(address, |(most, _)| *most)
        } else {
            return true;
        };
        let waiting = self.open.iter().filter(|(_, entry)| entry.address == busiest);
        let waited =
            waiting.filter_map(|(number, entry)| Some((entry.progress.waited_ms()?, *number)));
        match waited.max_by_key(|(ms, number)| (*ms, Reverse(*number))) {
            Some((ms, number)) if ms >= GIVES_WAY_MS => {
                self.close(number);
                true
            }
            _ => false,
        }
    }

    /// Tells a connection to end, and counts it no longer.
    fn close(&mut self, number: u64) {
        if let Some(entry) = self.open.get(&number) {
            entry.gone.notify_one();
        }
        self.remove(number);
    }

    fn remove(&mut self, number: u64) {
        self.reserve.remove(&number);
        let Some(entry) = self.open.remove(&number) else { return };
        if let Some(count) = self.by_address.get_mut(&entry.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&entry.address);
            }
        }
    }
}

impl Place {
    /// Waits until the connection must give way.
    pub(super) async fn gives_way(&self) {
        self.gone.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { all: 4, of_address: 3 };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    async fn later() {
        tokio::time::advance(std::time::Duration::from_millis(GIVES_WAY_MS)).await;
    }

    async fn is_told(place: &Place) -> bool {
        tokio::select! {
            biased;
            () = place.gives_way() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_take_all_places() {
        let connections = Connections::new(BOUNDS);
        let of_one: Vec<Place> = (0..4).map(|_| connections.admit(address(1))).collect();
        assert!(of_one[3].is_reserve && !of_one[2].is_reserve);
        let other = connections.admit(address(2));
        assert!(!other.is_reserve);
        assert!(connections.admit(address(3)).is_reserve, "nobody has waited long enough");
        later().await;
        of_one[0].progress.read(true);
        let newcomer = connections.admit(address(3));
        assert!(!newcomer.is_reserve);
        assert!(!is_told(&of_one[0]).await, "its client waits for the node");
        assert!(is_told(&of_one[1]).await, "of the busiest address");
        assert!(!is_told(&other).await);
        drop((of_one, other, newcomer));
        assert!(connections.is_empty());
        assert!(connections.table().by_address.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_probe_is_always_let_in() {
        let connections = Connections::new(Bounds { all: 0, of_address: 0 });
        let probes: Vec<Place> = (0..=RESERVE).map(|_| connections.admit(address(1))).collect();
        assert!(probes.iter().all(|place| place.is_reserve));
        assert!(is_told(&probes[0]).await);
        assert!(!is_told(&probes[1]).await);
        assert_eq!(connections.table().reserve.len(), RESERVE);
    }
}
