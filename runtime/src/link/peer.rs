//! One peer's connections, and which of them form the link. Pure: this module dials and closes
//! nothing.
//!
//! A peer restarts, so it can have connections of several processes, told apart by their boot. A process is complete
//! when both of its planes are up. Then the core is asked whether to link it. Until the core answers, the process that
//! was linked before stays.

use continuum_core::id::{Address, Boot, NodeId, StoreId};
use continuum_core::node::Plane;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::connection::SendQueue;

/// Processes of one peer whose connections are kept at once: the linked one, its successor, and one more.
const PROCESSES_MAX: usize = 3;

/// Both planes, in the order of the arrays.
pub(super) const PLANES: [Plane; 2] = [Plane::Control, Plane::Bulk];

/// The index of a plane in the arrays.
pub(super) const fn plane_index(plane: Plane) -> usize {
    match plane {
        Plane::Control => 0,
        Plane::Bulk => 1,
    }
}

/// One connection that is up. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Unique in this process.
    pub(super) id: u64,
    /// The node that dialled.
    pub(super) dialled_by: NodeId,
    /// The protocol version of this connection.
    pub(super) version: u16,
    pub(super) outgoing: SendQueue,
    /// Lets the reading half begin, once.
    pub(super) start_reading: Option<oneshot::Sender<()>>,
}

impl Connection {
    pub(super) fn start_reading(&mut self) {
        if let Some(start_reading) = self.start_reading.take() {
            // A connection that has ended reports that itself.
            let _ = start_reading.send(());
        }
    }
}

/// The connections of one process of the peer.
#[derive(Debug)]
pub(super) struct PeerProcess {
    pub(super) store: StoreId,
    pub(super) boot: Boot,
    pub(super) planes: [Option<Connection>; 2],
}

impl PeerProcess {
    const fn is_complete(&self) -> bool {
        self.planes[0].is_some() && self.planes[1].is_some()
    }
}

/// The fate of a connection that came up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// It is kept. Its process is not linked yet.
    Waiting,
    /// It completes its process: the core must be asked.
    Complete,
    /// Its process is linked already.
    Joined,
    /// The other connection of this plane is kept; this one is closed.
    Dropped,
}

/// One peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The address at which a link is kept.
    pub(super) route: Option<Address>,
    /// Oldest first.
    pub(super) processes: Vec<PeerProcess>,
    /// The process that the core counts as connected.
    pub(super) linked: Option<Boot>,
    /// Dials under way, or waiting for their pause to end.
    pub(super) dials: [Option<AbortHandle>; 2],
    /// Dials that failed in a row.
    pub(super) failures: u32,
    /// Links in a row that the peer ended with a refusal.
    pub(super) refusals: u32,
}

impl Peer {
    /// Adds a connection that came up. Of two connections of the same process and plane, both ends keep the one that
    /// the smaller node id dialled; if one end dialled both, they keep the newer.
    pub(super) fn add(
        &mut self,
        (me, peer): (NodeId, NodeId),
        (store, boot): (StoreId, Boot),
        plane: Plane,
        connection: Connection,
    ) -> Placement {
        let is_linked = self.linked == Some(boot);
        let process = self.process_or_new(store, boot);
        let slot = &mut process.planes[plane_index(plane)];
        let keeps_old = slot.as_ref().is_some_and(|old| {
            old.dialled_by != connection.dialled_by && connection.dialled_by != me.min(peer)
        });
        if keeps_old {
            return Placement::Dropped;
        }
        let is_new = slot.is_none();
        let connection = slot.insert(connection);
        if is_linked {
            connection.start_reading();
            return Placement::Joined;
        }
        if is_new && process.is_complete() { Placement::Complete } else { Placement::Waiting }
    }

    fn process_or_new(&mut self, store: StoreId, boot: Boot) -> &mut PeerProcess {
        let found = self
            .processes
            .iter()
            .position(|process| (process.store, process.boot) == (store, boot));
        let index = found.unwrap_or_else(|| {
            if self.processes.len() >= PROCESSES_MAX {
                let linked = self.linked;
                let oldest = self.processes.iter().position(|process| Some(process.boot) != linked);
                self.processes.remove(oldest.unwrap_or(0));
            }
            self.processes.push(PeerProcess { store, boot, planes: [None, None] });
            self.processes.len() - 1
        });
        &mut self.processes[index]
    }

    /// The process that is linked.
    pub(super) fn linked_process(&mut self) -> Option<&mut PeerProcess> {
        let linked = self.linked?;
        self.processes.iter_mut().find(|process| process.boot == linked)
    }

    /// The core accepted this process: all others end, and its connections begin to read.
    pub(super) fn promote(&mut self, boot: Boot) {
        self.processes.retain(|process| process.boot == boot);
        self.linked = Some(boot);
        self.failures = 0;
        for process in &mut self.processes {
            process.planes.iter_mut().flatten().for_each(Connection::start_reading);
        }
    }

    /// Removes a process. Dropping the result closes its connections.
    pub(super) fn end(&mut self, boot: Boot) -> Option<PeerProcess> {
        if self.linked == Some(boot) {
            self.linked = None;
        }
        let index = self.processes.iter().position(|process| process.boot == boot)?;
        Some(self.processes.remove(index))
    }

    /// A connection ended. True if that ends the link, which the control connection of the linked process carries.
    pub(super) fn lost(&mut self, id: u64, plane: Plane) -> bool {
        let is_it = |process: &PeerProcess| {
            process.planes[plane_index(plane)].as_ref().is_some_and(|held| held.id == id)
        };
        let Some(index) = self.processes.iter().position(is_it) else { return false };
        let boot = self.processes[index].boot;
        if self.linked == Some(boot) && plane == Plane::Control {
            self.end(boot);
            return true;
        }
        let process = &mut self.processes[index];
        process.planes[plane_index(plane)] = None;
        if process.planes.iter().all(Option::is_none) {
            self.processes.remove(index);
        }
        false
    }

    /// Whether a plane must be dialled.
    pub(super) fn needs(&self, plane: Plane) -> bool {
        let has = |process: &PeerProcess| process.planes[plane_index(plane)].is_some();
        self.route.is_some()
            && self.dials[plane_index(plane)].is_none()
            && !self.processes.iter().any(has)
    }

    /// Whether the peer can be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.route.is_none() && self.processes.is_empty() && self.dials.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId([1; 16]);
    const BEN: NodeId = NodeId([2; 16]);
    const STORE: StoreId = StoreId([5; 16]);

    fn boot(count: u64) -> (StoreId, Boot) {
        (STORE, Boot { count, nonce: 0 })
    }

    fn connection(id: u64, dialled_by: NodeId) -> Connection {
        let (outgoing, _) = SendQueue::new(1);
        Connection {
            id,
            dialled_by,
            version: 1,
            outgoing,
            start_reading: Some(oneshot::channel().0),
        }
    }

    fn kept(peer: &Peer, plane: Plane) -> Vec<u64> {
        peer.processes
            .iter()
            .filter_map(|process| process.planes[plane_index(plane)].as_ref())
            .map(|c| c.id)
            .collect()
    }

    #[test]
    fn both_ends_keep_the_same_one_of_two_simultaneous_connections_in_any_order() {
        for (me, other) in [(ANN, BEN), (BEN, ANN)] {
            for order in [[1, 2], [2, 1]] {
                let mut peer = Peer::default();
                for id in order {
                    let dialler = if id == 1 { ANN } else { BEN };
                    let placed = connection(id, dialler);
                    peer.add((me, other), boot(1), Plane::Control, placed);
                }
                assert_eq!(kept(&peer, Plane::Control), [1], "the smaller node's");
            }
        }
    }

    #[test]
    fn a_redial_by_the_same_end_replaces_its_earlier_connection() {
        let mut peer = Peer::default();
        peer.add((ANN, BEN), boot(1), Plane::Bulk, connection(1, BEN));
        peer.add((ANN, BEN), boot(1), Plane::Bulk, connection(2, BEN));
        assert_eq!(kept(&peer, Plane::Bulk), [2]);
    }

    #[test]
    fn a_process_is_complete_with_both_planes_and_a_later_one_waits_for_the_core() {
        let mut peer = Peer::default();
        let ends = (ANN, BEN);
        let placed = peer.add(ends, boot(1), Plane::Bulk, connection(1, ANN));
        assert_eq!(placed, Placement::Waiting);
        let placed = peer.add(ends, boot(1), Plane::Control, connection(2, ANN));
        assert_eq!(placed, Placement::Complete);
        peer.promote(boot(1).1);
        let placed = peer.add(ends, boot(1), Plane::Control, connection(3, ANN));
        assert_eq!(placed, Placement::Joined);

        peer.add(ends, boot(2), Plane::Control, connection(4, BEN));
        let placed = peer.add(ends, boot(2), Plane::Bulk, connection(5, BEN));
        assert_eq!((placed, peer.linked), (Placement::Complete, Some(boot(1).1)));
        assert!(peer.end(boot(2).1).is_some(), "refused by the core");
        assert_eq!((kept(&peer, Plane::Control), peer.linked), (vec![3], Some(boot(1).1)));
    }

    #[test]
    fn the_control_plane_carries_the_link() {
        let mut peer = Peer::default();
        peer.add((ANN, BEN), boot(1), Plane::Bulk, connection(1, ANN));
        peer.add((ANN, BEN), boot(1), Plane::Control, connection(2, ANN));
        peer.promote(boot(1).1);
        peer.route = Some(Address("a:1".to_owned()));
        assert!(!peer.lost(9, Plane::Control), "a connection that does not count");
        assert!(!peer.lost(1, Plane::Bulk));
        assert!(peer.needs(Plane::Bulk) && !peer.needs(Plane::Control));
        assert!(peer.lost(2, Plane::Control));
        assert_eq!(peer.linked, None);
        assert!(peer.needs(Plane::Bulk) && peer.needs(Plane::Control));
    }

    #[test]
    fn processes_are_bounded_and_the_linked_one_stays() {
        let mut peer = Peer::default();
        peer.add((ANN, BEN), boot(1), Plane::Control, connection(1, ANN));
        peer.add((ANN, BEN), boot(1), Plane::Bulk, connection(2, ANN));
        peer.promote(boot(1).1);
        for count in 2..20 {
            peer.add((ANN, BEN), boot(count), Plane::Control, connection(count * 10, BEN));
        }
        assert_eq!(kept(&peer, Plane::Control), [1, 180, 190]);
    }
}
