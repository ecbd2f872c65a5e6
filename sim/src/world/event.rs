//! What will happen in the world, ordered by (time, number).
//!
//! This module does not carry anything out: `dispatch` does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use continuum_core::api::{Outcome, Request};
use continuum_core::node::{Event, Message};

use crate::env::requester::{Attempt, ChurnRequest, Requester};
use crate::workload::history::Responder;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum WorldEvent {
    /// A message arrives on a link of this epoch; on any link when 0.
    Deliver { from: usize, to: usize, epoch: u32, print: u64, message: Message },
    /// A node tries to make a link.
    Dial { from: usize, to: usize, generation: u64 },
    /// A handshake ends well.
    LinkUp { from: usize, to: usize, epoch: u32 },
    /// A link breaks.
    Break { from: usize, to: usize, epoch: u32 },
    /// A node notices that its link is gone.
    LinkLost { node: usize, peer: usize, generation: u64 },
    /// A link has been silent for long.
    Keepalive { from: usize, to: usize, epoch: u32 },
    /// A batch is durable.
    Synced { node: usize, generation: u64 },
    /// The log has been idle for a while.
    Seal { node: usize, generation: u64, syncs: u64 },
    /// An answer of the driver to its node.
    Inform { node: usize, generation: u64, event: Event },
    /// A request reaches a node.
    Request { node: usize, requester: Requester, request: Request },
    /// A reply reaches who asked.
    Reply { requester: Requester, by: Responder, outcome: Outcome },
    /// A connection was refused, or broke.
    Lost { requester: Requester, tainted: bool },
    /// A client has waited for long.
    Timeout { attempt: Attempt },
    /// A client begins its next operation.
    Wake { client: usize },
    /// A fault begins.
    Begin { fault: usize },
    /// A fault ends.
    End { fault: usize },
    /// A process ends, in the middle of a sync.
    Crash { node: usize, generation: u64 },
    /// A process starts.
    Start { node: usize },
    /// A process that crashes again and again does, or starts.
    Loop { node: usize, fault: usize },
    /// What waits first for a process has its turn.
    RunQueued { node: usize, generation: u64 },
    /// A process ends by itself.
    Exit { node: usize, generation: u64 },
    /// A process that was asked to stop may end.
    Leave { node: usize, generation: u64, since: u64 },
    /// An operator notices an older store.
    Mend { node: usize, losses: u64 },
    /// The operator looks at the federation.
    Operate,
    /// A tenant has rested, or waited, for long enough.
    Churn { id: ChurnRequest },
}

/// Happenings ordered by time, and at one time by the order in which they were planned.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<WorldEvent>>,
    free: Vec<u32>,
    planned: u64,
}

impl EventQueue {
    pub(crate) fn plan(&mut self, at: u64, event: WorldEvent) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(event);
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, slot)));
    }

    /// How many happenings wait.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn next_at(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |Reverse((at, _, _))| *at)
    }

    pub(crate) fn take(&mut self) -> Option<WorldEvent> {
        let Reverse((_, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        self.slots[slot as usize].take()
    }
}
