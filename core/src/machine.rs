//! The contract of every machine in this crate.
//!
//! There are no poll functions, timer handles or callbacks. When a step returns, the outbox holds all that it wants
//! done, and the deadline says when it wants the next tick. This module knows no protocol.

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
    /// The inputs of the machine.
    type Event;
    /// Requests to the driver.
    type Action;

    /// Consumes one event and appends the actions that follow to `out`.
    fn step(&mut self, now: Now, event: Self::Event, out: &mut Outbox<Self::Action>);

    /// When the next tick is due; `None`: no tick is needed. Early, late and repeated ticks are harmless: every step
    /// first does all that is due by `now`.
    fn deadline(&self) -> Option<Instant>;

    /// Feeds the canonical form of the whole state to `hash`, for checks of determinism and convergence.
    fn digest(&self, hash: &mut Hasher);
}

/// The actions of a step, in the order in which the machine decided them.
///
/// A driver keeps one outbox and drains it after each step, so that a step in the steady state allocates nothing for
/// it.
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

    /// Takes all actions out, oldest first, and keeps the memory for the next ones.
    pub fn drain(&mut self) -> Drain<'_, A> {
        self.actions.drain(..)
    }

    /// The actions not yet drained, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[A] {
        &self.actions
    }

    /// The number of actions not yet drained.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.actions.len()
    }

    /// Whether all actions were drained.
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
