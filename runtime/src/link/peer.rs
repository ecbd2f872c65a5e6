//! What is known of one peer's connections, and which of them count. Pure: nothing is dialled or closed here.
//!
//! A *life* is one process of the peer, told apart by its boot. It is whole when both of its planes are up; then the
//! core is asked whether it is the process that should be there. Until the core has answered, the life before it stays.

use continuum_core::id::{Address, Boot, NodeId, StoreId};
use continuum_core::node::Plane;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::connection::Queue;

/// Lives of one peer whose connections are kept at once: the linked one, one that comes, and one more.
const LIVES_MAX: usize = 3;

/// Both planes, in the order in which arrays hold them.
pub(super) const PLANES: [Plane; 2] = [Plane::Control, Plane::Bulk];

/// The place of a plane in an array.
pub(super) const fn at(plane: Plane) -> usize {
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
    /// Which end dialled.
    pub(super) dialled_by: NodeId,
    /// The protocol version that both ends speak.
    pub(super) version: u16,
    pub(super) outgoing: Queue,
    /// Lets its reading half begin.
    pub(super) go: Option<oneshot::Sender<()>>,
}

impl Connection {
    pub(super) fn begin(&mut self) {
        if let Some(go) = self.go.take() {
            // A connection that ended meanwhile says so on its own.
            let _ = go.send(());
        }
    }
}

/// The connections of one process of the peer.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) store: StoreId,
    pub(super) boot: Boot,
    pub(super) planes: [Option<Connection>; 2],
}

impl Life {
    const fn is_whole(&self) -> bool {
        self.planes[0].is_some() && self.planes[1].is_some()
    }
}

/// What became of a connection that came up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It is kept, and its life is not linked yet.
    Waiting,
    /// It makes a life whole: the core is to be asked.
    Whole,
    /// It joined the linked life.
    Joined,
    /// Another one counts; it is closed.
    Dropped,
}

/// One peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Where a link to it is kept.
    pub(super) route: Option<Address>,
    /// Oldest first.
    pub(super) lives: Vec<Life>,
    /// The life that the core takes for connected.
    pub(super) linked: Option<Boot>,
    /// Dials under way or due.
    pub(super) dials: [Option<AbortHandle>; 2],
    /// Dials that failed in a row.
    pub(super) failures: u32,
    /// Links in a row that the peer ended with a refusal.
    pub(super) refusals: u32,
}

impl Peer {
    /// Takes a connection that came up. Of two connections of one life and plane both ends keep the same one: that of
    /// the smaller dialler; of two by the same dialler, the newer.
    pub(super) fn place(
        &mut self,
        (me, peer): (NodeId, NodeId),
        (store, boot): (StoreId, Boot),
        plane: Plane,
        connection: Connection,
    ) -> Placed {
        let is_linked = self.linked == Some(boot);
        let life = self.life_or_new(store, boot);
        let slot = &mut life.planes[at(plane)];
        let keeps_old = slot.as_ref().is_some_and(|old| {
            old.dialled_by != connection.dialled_by && connection.dialled_by != me.min(peer)
        });
        if keeps_old {
            return Placed::Dropped;
        }
        let is_new = slot.is_none();
        let connection = slot.insert(connection);
        if is_linked {
            connection.begin();
            return Placed::Joined;
        }
        if is_new && life.is_whole() { Placed::Whole } else { Placed::Waiting }
    }

    fn life_or_new(&mut self, store: StoreId, boot: Boot) -> &mut Life {
        let found = self.lives.iter().position(|life| (life.store, life.boot) == (store, boot));
        let index = found.unwrap_or_else(|| {
            if self.lives.len() >= LIVES_MAX {
                let linked = self.linked;
                let oldest = self.lives.iter().position(|life| Some(life.boot) != linked);
                self.lives.remove(oldest.unwrap_or(0));
            }
            self.lives.push(Life { store, boot, planes: [None, None] });
            self.lives.len() - 1
        });
        &mut self.lives[index]
    }

    /// The life that is linked.
    pub(super) fn linked_life(&mut self) -> Option<&mut Life> {
        let linked = self.linked?;
        self.lives.iter_mut().find(|life| life.boot == linked)
    }

    /// The core takes this life: all others end, and its connections begin to read.
    pub(super) fn promote(&mut self, boot: Boot) {
        self.lives.retain(|life| life.boot == boot);
        self.linked = Some(boot);
        self.failures = 0;
        for life in &mut self.lives {
            life.planes.iter_mut().flatten().for_each(Connection::begin);
        }
    }

    /// Takes a life away, and closes its connections when the result is dropped.
    pub(super) fn end(&mut self, boot: Boot) -> Option<Life> {
        if self.linked == Some(boot) {
            self.linked = None;
        }
        let index = self.lives.iter().position(|life| life.boot == boot)?;
        Some(self.lives.remove(index))
    }

    /// A connection ended. Whether the link is down with it: the control plane of the linked life carries it.
    pub(super) fn lost(&mut self, id: u64, plane: Plane) -> bool {
        let is_it = |life: &Life| life.planes[at(plane)].as_ref().is_some_and(|held| held.id == id);
        let Some(index) = self.lives.iter().position(is_it) else { return false };
        let boot = self.lives[index].boot;
        if self.linked == Some(boot) && plane == Plane::Control {
            self.end(boot);
            return true;
        }
        let life = &mut self.lives[index];
        life.planes[at(plane)] = None;
        if life.planes.iter().all(Option::is_none) {
            self.lives.remove(index);
        }
        false
    }

    /// Whether a plane has to be dialled.
    pub(super) fn needs(&self, plane: Plane) -> bool {
        let has = |life: &Life| life.planes[at(plane)].is_some();
        self.route.is_some() && self.dials[at(plane)].is_none() && !self.lives.iter().any(has)
    }

    /// Whether nothing is known of it that is worth keeping.
    pub(super) fn is_idle(&self) -> bool {
        self.route.is_none() && self.lives.is_empty() && self.dials.iter().all(Option::is_none)
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
        let (outgoing, _) = Queue::new(1);
        Connection { id, dialled_by, version: 1, outgoing, go: Some(oneshot::channel().0) }
    }

    fn kept(peer: &Peer, plane: Plane) -> Vec<u64> {
        peer.lives.iter().filter_map(|life| life.planes[at(plane)].as_ref()).map(|c| c.id).collect()
    }

    #[test]
    fn both_ends_keep_the_same_one_of_two_simultaneous_connections_in_any_order() {
        for (me, other) in [(ANN, BEN), (BEN, ANN)] {
            for order in [[1, 2], [2, 1]] {
                let mut peer = Peer::default();
                for id in order {
                    let dialler = if id == 1 { ANN } else { BEN };
                    let placed = connection(id, dialler);
                    peer.place((me, other), boot(1), Plane::Control, placed);
                }
                assert_eq!(kept(&peer, Plane::Control), [1], "the smaller node's");
            }
        }
    }

    #[test]
    fn a_redial_by_the_same_end_replaces_the_one_that_it_gave_up() {
        let mut peer = Peer::default();
        peer.place((ANN, BEN), boot(1), Plane::Bulk, connection(1, BEN));
        peer.place((ANN, BEN), boot(1), Plane::Bulk, connection(2, BEN));
        assert_eq!(kept(&peer, Plane::Bulk), [2]);
    }

    #[test]
    fn a_life_is_whole_with_both_planes_and_a_later_one_waits_for_the_core() {
        let mut peer = Peer::default();
        let ends = (ANN, BEN);
        let placed = peer.place(ends, boot(1), Plane::Bulk, connection(1, ANN));
        assert_eq!(placed, Placed::Waiting);
        let placed = peer.place(ends, boot(1), Plane::Control, connection(2, ANN));
        assert_eq!(placed, Placed::Whole);
        peer.promote(boot(1).1);
        let placed = peer.place(ends, boot(1), Plane::Control, connection(3, ANN));
        assert_eq!(placed, Placed::Joined);

        peer.place(ends, boot(2), Plane::Control, connection(4, BEN));
        let placed = peer.place(ends, boot(2), Plane::Bulk, connection(5, BEN));
        assert_eq!((placed, peer.linked), (Placed::Whole, Some(boot(1).1)));
        assert!(peer.end(boot(2).1).is_some(), "refused by the core");
        assert_eq!((kept(&peer, Plane::Control), peer.linked), (vec![3], Some(boot(1).1)));
    }

    #[test]
    fn the_control_plane_carries_the_link() {
        let mut peer = Peer::default();
        peer.place((ANN, BEN), boot(1), Plane::Bulk, connection(1, ANN));
        peer.place((ANN, BEN), boot(1), Plane::Control, connection(2, ANN));
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
    fn lives_are_bounded_and_the_linked_one_stays() {
        let mut peer = Peer::default();
        peer.place((ANN, BEN), boot(1), Plane::Control, connection(1, ANN));
        peer.place((ANN, BEN), boot(1), Plane::Bulk, connection(2, ANN));
        peer.promote(boot(1).1);
        for count in 2..20 {
            peer.place((ANN, BEN), boot(count), Plane::Control, connection(count * 10, BEN));
        }
        assert_eq!(kept(&peer, Plane::Control), [1, 180, 190]);
    }
}
