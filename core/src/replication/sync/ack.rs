//! Acknowledgements: the clients that wait until other replicas hold their writes durably.
//!
//! A replica's promise counts in whatever message it comes: an acknowledgement, or the context of a question or view.
//! This module does not decide how long a client waits.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::id::{Replica, ShardId};
use crate::replication::shard::Ranges;
use crate::{mutant, reach};

/// A request's number, chosen by the node.
pub type Ticket = u64;

#[derive(Debug)]
struct Waiter {
    write: (ShardId, u64),
    replicas: usize,
    held_by: BTreeSet<Replica>,
}

/// The waiting clients, by ticket and by the shard and sequence number of this node's write that they wait for.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    tickets: BTreeMap<Ticket, Waiter>,
    writes: BTreeMap<(ShardId, u64), Ticket>,
}

impl Waiters {
    /// Adds a client that waits until this many replicas hold this node's write.
    pub(crate) fn add(&mut self, ticket: Ticket, shard: ShardId, seq: u64, replicas: u8) {
        let write = (shard, seq);
        let waiter = Waiter { write, replicas: usize::from(replicas), held_by: BTreeSet::new() };
        self.tickets.insert(ticket, waiter);
        self.writes.insert(write, ticket);
    }

    /// Removes a client that no longer waits.
    pub(crate) fn remove(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.tickets.remove(&ticket) {
            self.writes.remove(&waiter.write);
        }
    }

    /// Notes that a replica holds these writes of this node durably. Returns the tickets that are done.
    pub(crate) fn credit(&mut self, shard: ShardId, from: Replica, held: &Ranges) -> Vec<Ticket> {
        let mut done = Vec::new();
        for (low, high) in held.iter() {
            for ticket in self.writes.range((shard, low)..=(shard, high)).map(|(_, ticket)| *ticket)
            {
                let Some(waiter) = self.tickets.get_mut(&ticket) else { continue };
                waiter.held_by.retain(|held| held.node != from.node);
                waiter.held_by.insert(from);
                let early = usize::from(mutant!("replication.replicated.counts_itself"));
                if waiter.held_by.len() + early >= waiter.replicas {
                    reach!("replication.ack.enough");
                    done.push(ticket);
                }
            }
        }
        done.iter().for_each(|ticket| self.remove(*ticket));
        done
    }

    /// A node has this store now: what another store of it held is gone, and an acknowledgement does not outlive it.
    pub(crate) fn replaced(&mut self, by: Replica) {
        for waiter in self.tickets.values_mut() {
            let gone = |held: &Replica| held.node == by.node && held.store != by.store;
            if waiter.held_by.iter().any(gone) && !mutant!("replication.replicated.outlives_store")
            {
                reach!("replication.ack.of_a_lost_store");
                waiter.held_by.retain(|held| !gone(held));
            }
        }
    }

    /// Removes all clients of a shard that is gone.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        self.tickets.retain(|_, waiter| waiter.write.0 != shard);
        self.writes.retain(|write, _| write.0 != shard);
    }

    /// The number of waiting clients.
    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }
}
