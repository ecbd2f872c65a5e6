//! Pauses: a stopped process takes no step, and a slow one takes one step at a time.
//!
//! An event for such a process waits in its queue (`env::step_queue`). This module does not decide when a process stops
//! or becomes slow: that is in `faults`.

use continuum_core::node::Event;

use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::verdict::Verdict;

use crate::world::{World, WorldEvent};

/// Duration of a step while events that waited are caught up after the fault.
const STEP_NS: (u64, u64) = (5_000, 50_000);

impl World {
    /// Puts an event into the queue of a process.
    pub(crate) fn wait(&mut self, me: usize, event: Event, tag: u8, print: u64) -> Verdict {
        let process = &mut self.processes[me];
        if !process.is_up() {
            return Ok(());
        }
        if matches!(event, Event::Tick) {
            process.due = u64::MAX;
        }
        if process.step_queue.slow_ns > 0 && process.step_queue.free_at > self.now {
            self.fired.count(Kind::Slow);
        }
        process.step_queue.push(event, tag, print);
        self.schedule_queued(me);
        Ok(())
    }

    /// Schedules the next step from the queue, if events wait.
    pub(crate) fn schedule_queued(&mut self, me: usize) {
        let process = &mut self.processes[me];
        let step_queue = &mut process.step_queue;
        if step_queue.stopped || step_queue.planned || step_queue.waiting.is_empty() {
            return;
        }
        step_queue.planned = true;
        let (at, generation) = (step_queue.free_at, process.generation);
        self.schedule_at(at, WorldEvent::RunQueued { node: me, generation });
    }

    /// Takes the first event from the queue.
    pub(crate) fn run_queued(&mut self, me: usize, generation: u64) -> Verdict {
        let process = &mut self.processes[me];
        if process.generation != generation {
            return Ok(());
        }
        let step_queue = &mut process.step_queue;
        step_queue.planned = false;
        let Some(next) = (if step_queue.stopped { None } else { step_queue.pop() }) else {
            return Ok(());
        };
        step_queue.steps += 1;
        let name = stream("process.step", me as u64) ^ generation;
        let takes = if step_queue.slow_ns > 0 {
            self.draws.below(name, step_queue.steps, step_queue.slow_ns)
        } else {
            self.draws.between(name, step_queue.steps, STEP_NS.0, STEP_NS.1)
        };
        step_queue.free_at = self.now + takes;
        self.take_step(me, next.event, next.tag, next.print)?;
        self.schedule_queued(me);
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
        Event::Received {
            from: NodeId([1; 16]),
            message: Message::Genesis { genesis: None, replaced: None },
        }
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
    fn a_stopped_process_takes_no_step_until_it_continues() {
        let mut world = world();
        world.processes[0].step_queue.stopped = true;
        let before = world.steps;
        for _ in 0..3 {
            world.step(0, message(), 0, 0).expect("no violation");
        }
        world.step(0, Event::Tick, 0, 0).expect("no violation");
        assert_eq!(world.steps, before);
        assert_eq!(world.processes[0].due, u64::MAX, "no tick is scheduled");
        world.processes[0].step_queue.stopped = false;
        let generation = world.processes[0].generation;
        world.run_queued(0, generation + 1).expect("no violation");
        assert_eq!(world.steps, before, "an event of another generation");
        for steps in 1..=4 {
            world.run_queued(0, generation).expect("no violation");
            assert_eq!(world.steps, before + steps);
        }
        assert!(world.processes[0].step_queue.is_open());
    }

    #[test]
    fn a_slow_process_takes_one_step_at_a_time() {
        let mut world = world();
        world.processes[0].step_queue.slow_ns = 1_000_000;
        world.step(0, message(), 0, 0).expect("no violation");
        let generation = world.processes[0].generation;
        world.run_queued(0, generation).expect("no violation");
        let free_at = world.processes[0].step_queue.free_at;
        assert!(free_at > world.now && free_at < world.now + 1_000_000);
        assert_eq!(world.fired.of(Kind::Slow), 0);
        world.step(0, message(), 0, 0).expect("no violation");
        assert_eq!(world.fired.of(Kind::Slow), 1);
        world.crash(0, Kind::Crash);
        assert!(world.processes[0].step_queue.waiting.is_empty());
    }
}
