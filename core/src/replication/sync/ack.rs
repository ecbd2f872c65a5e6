//! Who has what durably: the clients that wait for other replicas.
//!
//! A replica's word counts when it is in a promise, whatever message that came in: an acknowledgement, or the context
//! of a question. How long a client waits is not decided here.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::id::{Replica, ShardId};
use crate::reach;

use crate::replication::shard::Ranges;

/// A request's number, chosen by the node.
pub type Ticket = u64;

#[derive(Debug)]
struct Waiter {
    write: (ShardId, u64),
    replicas: usize,
    by: BTreeSet<Replica>,
}

/// The clients that wait, by ticket and by the write of this node that they wait for.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    tickets: BTreeMap<Ticket, Waiter>,
    writes: BTreeMap<(ShardId, u64), Ticket>,
}

impl Waiters {
    /// A client waits until so many replicas have this node's write.
    pub(crate) fn add(&mut self, ticket: Ticket, shard: ShardId, seq: u64, replicas: u8) {
        let write = (shard, seq);
        let waiter = Waiter { write, replicas: usize::from(replicas), by: BTreeSet::new() };
        self.tickets.insert(ticket, waiter);
        self.writes.insert(write, ticket);
    }

    /// A client no longer waits.
    pub(crate) fn remove(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.tickets.remove(&ticket) {
            self.writes.remove(&waiter.write);
        }
    }

    /// A replica has these writes of this node durably. Returns the tickets that are done.
    pub(crate) fn credit(&mut self, shard: ShardId, from: Replica, held: &Ranges) -> Vec<Ticket> {
        let mut done = Vec::new();
        for (low, high) in held.iter() {
            for ticket in self.writes.range((shard, low)..=(shard, high)).map(|(_, ticket)| *ticket)
            {
                let Some(waiter) = self.tickets.get_mut(&ticket) else { continue };
                waiter.by.insert(from);
                if waiter.by.len() >= waiter.replicas {
                    reach!("replication.ack.enough");
                    done.push(ticket);
                }
            }
        }
        done.iter().for_each(|ticket| self.remove(*ticket));
        done
    }

    /// The shard is gone.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        let gone = |_: &Ticket, waiter: &mut Waiter| waiter.write.0 != shard;
        self.tickets.retain(gone);
        self.writes.retain(|write, _| write.0 != shard);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }
}
