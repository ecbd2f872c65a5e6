//! The events of the world, ordered by (time, number).
//!
//! This module does not handle events; `dispatch` does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use continuum_core::api::{Outcome, Request};
use continuum_core::node::{Event, Message};

use crate::env::requester::{Attempt, ChurnRequest, Requester};
use crate::workload::history::Responder;
use crate::world::CloneEvent;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum WorldEvent {
    /// A message arrives on the link of this epoch; 0 means any link.
    Deliver { from: usize, to: usize, epoch: u32, print: u64, message: Message },
    /// A node dials a peer.
    Dial { from: usize, to: usize, generation: u64 },
    /// A handshake succeeds.
    LinkUp { from: usize, to: usize, epoch: u32 },
    /// A link breaks.
    Break { from: usize, to: usize, epoch: u32 },
    /// A node notices that its link is gone.
    LinkLost { node: usize, peer: usize, generation: u64 },
    /// A link may have been silent for too long.
    Keepalive { from: usize, to: usize, epoch: u32 },
    /// A batch is durable.
    Synced { node: usize, generation: u64 },
    /// The pieces of snapshot files in flight are durable.
    FilesSynced { node: usize, generation: u64 },
    /// The log has been idle for a while.
    Seal { node: usize, generation: u64, syncs: u64 },
    /// The driver tells its node something.
    Inform { node: usize, generation: u64, event: Event },
    /// A request reaches a node.
    Request { node: usize, requester: Requester, request: Request },
    /// A reply reaches the one who asked.
    Reply { requester: Requester, by: Responder, outcome: Outcome },
    /// A request's connection was refused, or, when `tainted`, broke.
    Lost { requester: Requester, tainted: bool },
    /// A client has waited long for an attempt.
    Timeout { attempt: Attempt },
    /// A client begins its next operation.
    Wake { client: usize },
    /// A fault begins.
    Begin { fault: usize },
    /// A fault ends.
    End { fault: usize },
    /// A process crashes in the middle of a sync.
    Crash { node: usize, generation: u64 },
    /// A process starts.
    Start { node: usize },
    /// A process in a crash loop crashes or starts.
    Loop { node: usize, fault: usize },
    /// A process takes the next event from its queue.
    RunQueued { node: usize, generation: u64 },
    /// A fenced process exits.
    Exit { node: usize, generation: u64 },
    /// A process that was asked to stop may exit.
    Leave { node: usize, generation: u64, since: u64 },
    /// An operator notices an older store.
    OldStoreNoticed { node: usize, losses: u64 },
    /// The process of another operator's founder ends.
    EndFounder { node: usize, generation: u64 },
    /// Something happens to a live clone.
    Clone { fault: usize, event: CloneEvent },
    /// The operator looks at the federation.
    Operate,
    /// A hostile node sends its next message.
    Hostile { fault: usize, k: u64 },
    /// A churn client sends its next request, or its present one timed out.
    Churn { id: ChurnRequest },
}

/// Bits of a key that name the event's slot, and those that hold its number.
const SLOT_BITS: u32 = 24;
const NUMBER_BITS: u32 = 40;

/// Events ordered by time; events of the same time in the order in which they were scheduled.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    /// Time, number and slot of each event in one key, which is compared at once.
    heap: BinaryHeap<Reverse<u128>>,
    slots: Vec<Option<WorldEvent>>,
    free: Vec<u32>,
    planned: u64,
}

impl EventQueue {
    pub(crate) fn plan(&mut self, at: u64, event: WorldEvent) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            assert!(self.slots.len() <= 1 << SLOT_BITS, "the queue has a slot for each event");
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(event);
        self.planned += 1;
        let number = u128::from(self.planned) << SLOT_BITS;
        let key = u128::from(at) << (NUMBER_BITS + SLOT_BITS) | number | u128::from(slot);
        self.heap.push(Reverse(key));
    }

    /// The number of events that wait.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn next_at(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |Reverse(key)| (key >> (NUMBER_BITS + SLOT_BITS)) as u64)
    }

    pub(crate) fn take(&mut self) -> Option<WorldEvent> {
        let Reverse(key) = self.heap.pop()?;
        let slot = key as u32 & ((1 << SLOT_BITS) - 1);
        self.free.push(slot);
        self.slots[slot as usize].take()
    }
}
