//! Pauses: a stopped process takes no step, and a slow one takes one step at a time.
//!
//! An event for such a process waits in its queue (`env::step_queue`). This module does not decide when a process stops
//! or becomes slow: that is in `faults`.

use continuum_core::node::Event;

use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::verdict::Verdict;

use crate::world::{Happening, World};

/// What waits when the fault is over is worked off at this pace.
const STEP_NS: (u64, u64) = (5_000, 50_000);

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
    use continuum_core::id::NodeId;
    use continuum_core::node::Message;

    use super::*;
    use crate::plan::Plan;

    fn message() -> Event {
        Event::Received { from: NodeId([1; 16]), message: Message::BootstrapAck }
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
