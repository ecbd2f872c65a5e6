//! The one contract of every machine in this crate.
//!
//! This module knows no protocol. It deliberately has no poll functions, no timer handles and no callbacks: whatever a
//! step wants done is in the outbox when the step returns, and when it next wants to be woken is its deadline.

use alloc::vec::{Drain, Vec};

use crate::digest::Hasher;
use crate::time::{Instant, WallTime};

/// The time of an event, sampled by the driver after it dequeued the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since boot, counting suspend; never goes back. Every timeout uses it.
    pub mono: Instant,
    /// Milliseconds since the Unix epoch; may jump either way. Only the hybrid logical clock reads it.
    pub wall: WallTime,
}

/// A pure state machine: events in, actions out.
///
/// # Contract
///
/// * `step` never blocks, never does IO, reads no clock, and never panics on anything that a peer, a disk or a client
///   can produce. It panics only on a broken internal invariant.
/// * Same initial state and same sequence of `(now, event)`: same actions, byte for byte.
/// * Every action is complete when returned. None waits for another to be performed.
pub trait Machine {
    /// What the machine consumes.
    type Event;
    /// What the machine asks of its driver.
    type Action;

    /// Consumes one event and appends what it wants done to `out`.
    fn step(&mut self, now: Now, event: Self::Event, out: &mut Outbox<Self::Action>);

    /// When a tick is next due; `None` when nothing is. Early, late and repeated ticks are harmless: every step first
    /// does what is due by `now`.
    fn deadline(&self) -> Option<Instant>;

    /// Feeds the canonical form of the whole state to `hash`: for determinism and convergence checks.
    fn digest(&self, hash: &mut Hasher);
}

/// The actions of a step, in the order in which they were decided.
///
/// A driver keeps one and drains it after each step, so that steady-state steps allocate nothing for it.
#[derive(Debug)]
pub struct Outbox<A> {
    actions: Vec<A>,
}

impl<A> Outbox<A> {
    /// An empty outbox.
    #[must_use]
    pub const fn new() -> Self {
        Self { actions: Vec::new() }
    }

    /// Appends one action.
    pub fn push(&mut self, action: A) {
        self.actions.push(action);
    }

    /// Takes all actions out, oldest first, and keeps the room that they used.
    pub fn drain(&mut self) -> Drain<'_, A> {
        self.actions.drain(..)
    }

    /// The actions not yet drained, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[A] {
        &self.actions
    }

    /// How many actions wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.actions.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

impl<A> Default for Outbox<A> {
    fn default() -> Self {
        Self::new()
    }
}
