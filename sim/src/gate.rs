//! The gate before a process: a stopped one takes no step, a slow one takes one at a time.
//!
//! While the gate is open an event is a step at once, which is all that a run without these faults ever sees. Else it
//! waits in a queue, first-in, first-out, whatever it is: a message, an answer of the disk, a tick. Messages beyond the
//! queue's bound are lost, as a full queue of a link loses them. What stops a process is not here (`strike`).

use std::collections::VecDeque;

use continuum_core::node::Event;

use crate::draw::stream;
use crate::fault::Kind;
use crate::oracle::Verdict;
use crate::world::{Happening, World};

/// Messages that wait for a process, at most: what a driver's queue takes.
const MESSAGES_MAX: usize = 1024;
/// What waits when the fault is over is worked off at this pace.
const STEP_NS: (u64, u64) = (5_000, 50_000);

/// An event that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    event: Event,
    tag: u8,
    print: u64,
}

/// What waits before one process, and why.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The process is stopped.
    pub(crate) stopped: bool,
    /// Up to how long a step takes; 0 when it takes no time.
    pub(crate) slow_ns: u64,
    waiting: VecDeque<Waiting>,
    /// How many of them are messages, and whether one is a tick.
    messages: usize,
    ticks: bool,
    /// When the step under way has ended.
    free_at: u64,
    /// Whether the next turn is planned.
    planned: bool,
    /// Steps that were waited for in this life.
    turns: u64,
}

impl Gate {
    /// Whether an event is a step at once.
    pub(crate) fn is_open(&self) -> bool {
        !self.stopped && self.slow_ns == 0 && self.waiting.is_empty()
    }

    /// The process ended: nothing waits for the next one, which is not stopped.
    pub(crate) fn reset(&mut self) {
        *self = Self { slow_ns: self.slow_ns, ..Self::default() };
    }

    /// Puts an event into the queue, if it has room. A second tick says nothing that the first does not.
    fn push(&mut self, event: Event, tag: u8, print: u64) {
        match &event {
            Event::Tick if std::mem::replace(&mut self.ticks, true) => return,
            Event::Received { .. } if self.messages == MESSAGES_MAX => return,
            Event::Received { .. } => self.messages += 1,
            _ => {}
        }
        self.waiting.push_back(Waiting { event, tag, print });
    }

    fn pop(&mut self) -> Option<Waiting> {
        let next = self.waiting.pop_front()?;
        match &next.event {
            Event::Tick => self.ticks = false,
            Event::Received { .. } => self.messages -= 1,
            _ => {}
        }
        Some(next)
    }
}

impl World {
    /// An event waits for its turn.
    pub(crate) fn wait(&mut self, me: usize, event: Event, tag: u8, print: u64) -> Verdict {
        let process = &mut self.processes[me];
        if !process.is_up() {
            return Ok(());
        }
        if matches!(event, Event::Tick) {
            process.due = u64::MAX;
        }
        if process.gate.slow_ns > 0 && process.gate.free_at > self.now {
            self.fired.count(Kind::Slow);
        }
        process.gate.push(event, tag, print);
        self.plan_turn(me);
        Ok(())
    }

    /// Plans the next turn of a process, if something waits for one.
    pub(crate) fn plan_turn(&mut self, me: usize) {
        let process = &mut self.processes[me];
        let gate = &mut process.gate;
        if gate.stopped || gate.planned || gate.waiting.is_empty() {
            return;
        }
        gate.planned = true;
        let (at, life) = (gate.free_at, process.life);
        self.plan_at(at, Happening::Turn { node: me, life });
    }

    /// What waits first has its turn.
    pub(crate) fn turn(&mut self, me: usize, life: u64) -> Verdict {
        let process = &mut self.processes[me];
        if process.life != life {
            return Ok(());
        }
        let gate = &mut process.gate;
        gate.planned = false;
        let Some(next) = (if gate.stopped { None } else { gate.pop() }) else { return Ok(()) };
        gate.turns += 1;
        let name = stream("process.step", me as u64) ^ life;
        let takes = if gate.slow_ns > 0 {
            self.draws.below(name, gate.turns, gate.slow_ns)
        } else {
            self.draws.between(name, gate.turns, STEP_NS.0, STEP_NS.1)
        };
        gate.free_at = self.now + takes;
        self.take_step(me, next.event, next.tag, next.print)?;
        self.plan_turn(me);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{NodeId, Token};
    use continuum_core::node::Message;

    use super::*;
    use crate::plan::Plan;

    fn message() -> Event {
        Event::Received { from: NodeId([1; 16]), message: Message::Founded }
    }

    #[test]
    fn what_waits_is_bounded_but_for_what_is_no_message() {
        let mut gate = Gate { stopped: true, ..Gate::default() };
        (0..2 * MESSAGES_MAX).for_each(|_| gate.push(message(), 0, 0));
        gate.push(Event::Tick, 0, 0);
        gate.push(Event::Tick, 0, 0);
        gate.push(Event::Persisted { token: Token { lane: 0, seq: 1 } }, 0, 0);
        assert_eq!(gate.waiting.len(), MESSAGES_MAX + 2);
        while gate.pop().is_some() {}
        assert_eq!((gate.messages, gate.ticks), (0, false));
        gate.stopped = false;
        assert!(gate.is_open());
    }

    /// A world whose first node has just started.
    fn world() -> World {
        let mut plan = Plan::from_seed(1);
        plan.faults.clear();
        let mut world = World::new(plan);
        world.start(0).expect("an empty disk is no violation");
        world
    }

    #[test]
    fn a_stopped_process_takes_no_step_until_it_goes_on() {
        let mut world = world();
        world.processes[0].gate.stopped = true;
        let before = world.steps;
        for _ in 0..3 {
            world.step(0, message(), 0, 0).expect("no violation");
        }
        world.step(0, Event::Tick, 0, 0).expect("no violation");
        assert_eq!(world.steps, before);
        assert_eq!(world.processes[0].due, u64::MAX, "no tick comes of itself");
        world.processes[0].gate.stopped = false;
        let life = world.processes[0].life;
        world.turn(0, life + 1).expect("no violation");
        assert_eq!(world.steps, before, "another life's turn");
        for turns in 1..=4 {
            world.turn(0, life).expect("no violation");
            assert_eq!(world.steps, before + turns);
        }
        assert!(world.processes[0].gate.is_open());
    }

    #[test]
    fn a_slow_process_takes_one_step_at_a_time() {
        let mut world = world();
        world.processes[0].gate.slow_ns = 1_000_000;
        world.step(0, message(), 0, 0).expect("no violation");
        let life = world.processes[0].life;
        world.turn(0, life).expect("no violation");
        let free_at = world.processes[0].gate.free_at;
        assert!(free_at > world.now && free_at < world.now + 1_000_000);
        assert_eq!(world.fired.of(Kind::Slow), 0);
        world.step(0, message(), 0, 0).expect("no violation");
        assert_eq!(world.fired.of(Kind::Slow), 1);
        world.crash(0, Kind::Crash);
        assert!(world.processes[0].gate.waiting.is_empty());
    }
}
