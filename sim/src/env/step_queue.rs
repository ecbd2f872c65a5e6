//! The queue before a process: events wait here while the process is stopped or slow.
//!
//! While the queue is open an event is a step at once, which is all that a run without these faults ever sees. Else the
//! event waits, first-in, first-out, whatever it is: a message, an answer of the disk, a tick. Messages beyond the
//! bound are lost, as a full queue of a link loses them. This module does not decide when a process stops.

use std::collections::VecDeque;

use continuum_core::node::Event;

/// Messages that wait for a process, at most: what a driver's queue takes.
const MESSAGES_MAX: usize = 1024;

/// An event that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) event: Event,
    pub(crate) tag: u8,
    pub(crate) print: u64,
}

/// What waits before one process, and why.
#[derive(Debug, Default)]
pub(crate) struct StepQueue {
    /// The process is stopped.
    pub(crate) stopped: bool,
    /// Up to how long a step takes; 0 when it takes no time.
    pub(crate) slow_ns: u64,
    pub(crate) waiting: VecDeque<Waiting>,
    /// How many of them are messages, and whether one is a tick.
    messages: usize,
    ticks: bool,
    /// When the step under way has ended.
    pub(crate) free_at: u64,
    /// Whether the next turn is planned.
    pub(crate) planned: bool,
    /// Steps that were waited for in this life.
    pub(crate) turns: u64,
}

impl StepQueue {
    /// Whether an event is a step at once.
    pub(crate) fn is_open(&self) -> bool {
        !self.stopped && self.slow_ns == 0 && self.waiting.is_empty()
    }

    /// The process ended: nothing waits for the next one, which is not stopped.
    pub(crate) fn reset(&mut self) {
        *self = Self { slow_ns: self.slow_ns, ..Self::default() };
    }

    /// Puts an event into the queue, if it has room. A second tick says nothing that the first does not.
    pub(crate) fn push(&mut self, event: Event, tag: u8, print: u64) {
        match &event {
            Event::Tick if std::mem::replace(&mut self.ticks, true) => return,
            Event::Received { .. } if self.messages == MESSAGES_MAX => return,
            Event::Received { .. } => self.messages += 1,
            _ => {}
        }
        self.waiting.push_back(Waiting { event, tag, print });
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let next = self.waiting.pop_front()?;
        match &next.event {
            Event::Tick => self.ticks = false,
            Event::Received { .. } => self.messages -= 1,
            _ => {}
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{NodeId, Token};
    use continuum_core::node::Message;

    use super::*;

    fn message() -> Event {
        Event::Received { from: NodeId([1; 16]), message: Message::BootstrapAck }
    }

    #[test]
    fn what_waits_is_bounded_but_for_what_is_no_message() {
        let mut step_queue = StepQueue { stopped: true, ..StepQueue::default() };
        (0..2 * MESSAGES_MAX).for_each(|_| step_queue.push(message(), 0, 0));
        step_queue.push(Event::Tick, 0, 0);
        step_queue.push(Event::Tick, 0, 0);
        step_queue.push(Event::Persisted { token: Token { lane: 0, seq: 1 } }, 0, 0);
        assert_eq!(step_queue.waiting.len(), MESSAGES_MAX + 2);
        while step_queue.pop().is_some() {}
        assert_eq!((step_queue.messages, step_queue.ticks), (0, false));
        step_queue.stopped = false;
        assert!(step_queue.is_open());
    }
}
