//! The queue in front of a process: events wait here while the process is stopped or slow.
//!
//! While the queue is open, an event is a step at once; without pause and slow faults it is always open. Otherwise
//! every event waits, first-in, first-out: messages, disk completions, ticks. Messages beyond the bound are lost, as a
//! full link queue loses them. This module does not decide when a process stops.

use std::collections::VecDeque;

use continuum_core::node::Event;

/// Most messages that wait for a process; a driver's queue has the same bound.
const MESSAGES_MAX: usize = 1024;

/// An event that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) event: Event,
    pub(crate) tag: u8,
    pub(crate) print: u64,
}

/// The events that wait for one process, and why they wait.
#[derive(Debug, Default)]
pub(crate) struct StepQueue {
    /// The process is stopped.
    pub(crate) stopped: bool,
    /// The longest time that a step takes; 0 when steps take no time.
    pub(crate) slow_ns: u64,
    pub(crate) waiting: VecDeque<Waiting>,
    /// How many of the waiting events are messages, and whether one is a tick.
    messages: usize,
    ticks: bool,
    /// When the present step ends.
    pub(crate) free_at: u64,
    /// Whether the next step from the queue is scheduled.
    pub(crate) planned: bool,
    /// Number of steps that were taken from the queue since the process started.
    pub(crate) steps: u64,
}

impl StepQueue {
    /// Whether an event becomes a step at once.
    pub(crate) fn is_open(&self) -> bool {
        !self.stopped && self.slow_ns == 0 && self.waiting.is_empty()
    }

    /// The process ended: the next one has an empty queue and is not stopped.
    pub(crate) fn reset(&mut self) {
        *self = Self { slow_ns: self.slow_ns, ..Self::default() };
    }

    /// Adds an event if there is room. A second tick adds nothing to the first.
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
        Event::Received {
            from: NodeId([1; 16]),
            message: Message::Genesis { genesis: None, replaced: None },
        }
    }

    #[test]
    fn waiting_messages_are_bounded_and_other_events_are_not() {
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
