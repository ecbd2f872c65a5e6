//! What is still to be told, and how often it was told: the piggyback queue (SWIM 4.1).
//!
//! The queue names members and holds no news: what is sent is what the table holds at that moment, so a newer state
//! replaces an older one without a search, and the queue is bounded by the number of members.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::digest::Hasher;
use crate::fixed::Fixed;
use crate::id::NodeId;
use crate::reach;

/// A queue of members whose news is to be told, the least told first.
#[derive(Clone, Debug, Default)]
pub(super) struct Broadcast {
    /// Each member's place in `order`.
    places: BTreeMap<NodeId, (u32, u64)>,
    /// (times told, arrival) -> member. Among the equally often told the oldest goes first, so none starves.
    order: BTreeMap<(u32, u64), NodeId>,
    arrivals: u64,
}

impl Broadcast {
    /// There is news of this member: tell it, as if never told before.
    pub(super) fn add(&mut self, node: NodeId) {
        self.remove(node);
        self.place(node, 0);
    }

    /// There is nothing to tell of this member any more.
    pub(super) fn remove(&mut self, node: NodeId) {
        if let Some(place) = self.places.remove(&node) {
            self.order.remove(&place);
        }
    }

    /// Up to `room` members to tell of, except of `but`; each is told once more by this call, and dropped once told
    /// `limit` times.
    pub(super) fn take(&mut self, room: usize, limit: u32, but: NodeId) -> Vec<NodeId> {
        let chosen: Vec<NodeId> =
            self.order.values().filter(|node| **node != but).take(room).copied().collect();
        for node in &chosen {
            let told = self.places.get(node).map_or(0, |(told, _)| *told);
            self.remove(*node);
            if told.saturating_add(1) < limit {
                self.place(*node, told + 1);
            } else {
                reach!("gossip.broadcast.sent_enough");
            }
        }
        chosen
    }

    /// How many members wait to be told of.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.arrivals);
        hash.value(&self.order);
    }

    fn place(&mut self, node: NodeId, told: u32) {
        self.arrivals += 1;
        self.places.insert(node, (told, self.arrivals));
        self.order.insert((told, self.arrivals), node);
    }
}

/// How often one piece of news is told among `members`: multiplier * log10(members + 1), rounded up, at least once.
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
    fn the_least_told_goes_first_and_the_told_out_goes_away() {
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
    fn fresh_news_starts_over_and_takes_no_second_place() {
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
