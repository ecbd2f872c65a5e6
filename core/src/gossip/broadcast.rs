//! The broadcast queue: members whose updates are piggybacked on messages, and how often each was sent (SWIM 4.1).
//!
//! The queue holds node ids, not updates. A message takes what the table holds when it is sent, so a newer state
//! replaces an older one without a search, and the number of members bounds the queue.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::digest::Hasher;
use crate::fixed::Fixed;
use crate::id::NodeId;
use crate::reach;

/// A member's position in the queue: how often it was sent, then the order of arrival.
type Position = (u32, u64);

/// A queue of members, the least often sent first.
#[derive(Clone, Debug, Default)]
pub(super) struct Broadcast {
    positions: BTreeMap<NodeId, Position>,
    /// Equally often sent members leave in the order of arrival, so none starves.
    order: BTreeMap<Position, NodeId>,
    arrivals: u64,
}

impl Broadcast {
    /// Queues a member's new update, as never sent before.
    pub(super) fn add(&mut self, node: NodeId) {
        self.remove(node);
        self.insert(node, 0);
    }

    /// Takes a member out of the queue.
    pub(super) fn remove(&mut self, node: NodeId) {
        if let Some(position) = self.positions.remove(&node) {
            self.order.remove(&position);
        }
    }

    /// Takes up to `room` members to send, `except` not among them. Each counts as sent once more, and leaves the queue
    /// after `limit` times.
    pub(super) fn take(&mut self, room: usize, limit: u32, except: NodeId) -> Vec<NodeId> {
        let chosen: Vec<NodeId> =
            self.order.values().filter(|node| **node != except).take(room).copied().collect();
        for node in &chosen {
            let sent = self.positions.get(node).map_or(0, |(sent, _)| *sent);
            self.remove(*node);
            if sent.saturating_add(1) < limit {
                self.insert(*node, sent + 1);
            } else {
                reach!("gossip.broadcast.sent_enough");
            }
        }
        chosen
    }

    /// Members in the queue.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.positions.len()
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.arrivals);
        hash.value(&self.order);
    }

    fn insert(&mut self, node: NodeId, sent: u32) {
        self.arrivals += 1;
        self.positions.insert(node, (sent, self.arrivals));
        self.order.insert((sent, self.arrivals), node);
    }
}

/// How often one update is sent among `members`: multiplier * log10(members + 1), rounded up, at least once.
pub(super) fn limit(multiplier: u32, members: usize) -> u32 {
    let log = Fixed::log10(members as u64 + 1);
    let times = Fixed::from_bits(log.to_bits().saturating_mul(u64::from(multiplier))).ceil();
    u32::try_from(times).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);
    const C: NodeId = NodeId([3; 16]);

    fn take(queue: &mut Broadcast, room: usize, limit: u32) -> Vec<NodeId> {
        queue.take(room, limit, NodeId::default())
    }

    #[test]
    fn the_least_often_sent_goes_first_and_leaves_at_the_limit() {
        let mut queue = Broadcast::default();
        queue.add(A);
        queue.add(B);
        assert_eq!(take(&mut queue, 1, 2), vec![A]);
        queue.add(C);
        assert_eq!(take(&mut queue, 2, 2), vec![B, C]);
        assert_eq!(take(&mut queue, 9, 2), vec![A, B, C]);
        assert_eq!(take(&mut queue, 9, 2), vec![]);
    }

    #[test]
    fn a_new_update_starts_over_and_is_queued_once() {
        let mut queue = Broadcast::default();
        queue.add(A);
        take(&mut queue, 1, 2);
        queue.add(A);
        assert_eq!((queue.len(), queue.order.len()), (1, 1));
        take(&mut queue, 1, 2);
        assert_eq!(take(&mut queue, 1, 2), vec![A]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn the_limit_follows_the_logarithm() {
        assert_eq!([0, 1, 9, 10, 99, 1023].map(|n| limit(4, n)), [1, 2, 4, 5, 8, 13]);
        assert_eq!(limit(u32::MAX, usize::MAX >> 1), u32::MAX);
    }
}
