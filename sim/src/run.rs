//! One run of one plan: setup, faults, healing, judgement.
//!
//! A run that breaks a law is run again from the start to describe its last steps in words. So runs that break none do
//! not pay for words.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use bytes::Bytes;
use continuum_core::api::{Content, Query, Row, Value};
use continuum_core::id::{Dot, GroupId, ShardId};
use continuum_core::node::Node;
use continuum_core::replication::{Dots, Replicator};
use continuum_core::state;

use crate::env::clock::MS;
use crate::oracle::bounded_step::Work;
use crate::oracle::liveness::Liveness;
use crate::oracle::witness::{SessionRules, Witness};
use crate::oracle::{bounded_memory, eventual, one_reply, read_then_overwritten, strong};
use crate::plan::Plan;
use crate::plan::fault::Tally;
use crate::plan::selected_ops::SelectedOps;
use crate::scene::Scene;
use crate::verdict::{Broken, Verdict};
use crate::workload::history::Space;
pub use crate::world::Setting;
use crate::world::World;

/// Number of steps that are described before a violation.
const STEPS_DESCRIBED: u64 = 40;
/// The law that no assertion of the core fails.
pub(crate) const NO_PANIC: &str = "no-panic";
/// How often liveness is checked, in virtual time.
const LOOK_NS: u64 = 250 * MS;

/// A law was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The law.
    pub oracle: String,
    /// How it was broken.
    pub what: String,
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
    /// The node that took the step.
    pub node: usize,
    /// The last steps, as text.
    pub steps: Vec<String>,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The law that was broken, if one was.
    pub violation: Option<Violation>,
    /// The SHA-256 chain over all events.
    pub chain: String,
    /// The first eight bytes of the chain after each `trace::LINK_EVENTS` events.
    pub links: Vec<u64>,
    /// Number of steps that nodes took.
    pub events: u64,
    /// Number of messages that nodes sent each other.
    pub messages: u64,
    /// Virtual time that passed, in nanoseconds.
    pub virtual_ns: u64,
    /// Number of acknowledged operations.
    pub operations: u64,
    /// Number of operations with an unknown outcome.
    pub unknown: u64,
    /// All operations that clients began.
    pub asked: SelectedOps,
    /// Number of planned faults per kind.
    pub planned: Tally,
    /// How often each kind of fault took effect.
    pub fired: Tally,
    /// How long each stage of recovery took.
    pub liveness: Liveness,
    /// The most work of one step.
    pub work_max: Work,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    run_in(plan, Setting::default())
}

/// Runs a plan under the given conditions.
#[must_use]
pub fn run_in(plan: &Plan, setting: Setting) -> Outcome {
    let (world, broken) = attempt(plan, 0..0, setting);
    let Some(broken) = broken else { return outcome_of(world, None) };
    let (at_ns, node, events) = (world.now, world.stepping, world.trace.events);
    let (again, _) = attempt(plan, events.saturating_sub(STEPS_DESCRIBED)..u64::MAX, setting);
    let steps = again.step_texts.iter().map(crate::transcript::lines).collect();
    let Broken { oracle, what } = broken;
    let violation = Violation { oracle: oracle.to_owned(), what, at_ns, node, steps };
    outcome_of(world, Some(violation))
}

fn outcome_of(world: World, violation: Option<Violation>) -> Outcome {
    let mut planned = Tally::default();
    world.plan.faults.iter().for_each(|fault| planned.count(fault.kind));
    let asked = asked(&world);
    let (chain, links) = world.trace.finish();
    Outcome {
        violation,
        chain,
        links,
        events: world.steps,
        messages: world.messages,
        virtual_ns: world.now,
        operations: world.clients.history.acknowledged,
        asked,
        unknown: world.clients.history.unknown,
        planned,
        fired: world.fired,
        liveness: world.liveness,
        work_max: world.work_max,
    }
}

/// The message of the last panic: a failed assertion of the core is a violation like any other.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// From now on a panic is recorded and prints nothing. Call this once per process.
pub fn hush_panics() {
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut note) = PANIC.lock() {
            *note = info.to_string().replace('\n', " ");
        }
    }));
}

/// Runs a plan and describes all steps between two virtual times, in milliseconds.
#[must_use]
pub fn describe(plan: &Plan, stretch_ms: Range<u64>) -> Vec<String> {
    let mut world = World::new(plan.clone());
    world.described_within = stretch_ms.start * MS..stretch_ms.end * MS;
    let (world, _) = finish(world);
    world.step_texts.iter().map(crate::transcript::lines).collect()
}

/// Runs a plan and describes these steps in full, for the comparison of two runs.
#[must_use]
pub fn describe_steps(plan: &Plan, steps: Range<u64>, setting: Setting) -> Vec<String> {
    attempt(plan, steps, setting).0.step_texts.iter().map(crate::transcript::full_line).collect()
}

/// How a run failed, without a description of its steps.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) oracle: &'static str,
    pub(crate) what: String,
    pub(crate) at_ns: u64,
    /// All operations that clients began, and when they began the last one.
    pub(crate) asked: SelectedOps,
    pub(crate) asked_at_ns: u64,
}

/// Runs a plan up to a time. Returns how it failed, if it did.
pub(crate) fn fail(plan: &Plan, until_ns: u64) -> Option<Failure> {
    let mut world = World::new(plan.clone());
    world.stop_at = until_ns;
    let (world, broken) = finish(world);
    let Broken { oracle, what } = broken?;
    let asked = asked(&world);
    let last = world.clients.history.operations.last();
    let asked_at_ns = last.map_or(0, |operation| operation.called);
    Some(Failure { oracle, what, at_ns: world.now, asked, asked_at_ns })
}

/// Runs a plan with a scene that records what happens.
pub(crate) fn record(plan: &Plan) -> World {
    let mut world = World::new(plan.clone());
    let replicas = world.processes.iter().map(|process| process.replica);
    world.scene = Some(Box::new(Scene::new(&replicas.collect::<Vec<_>>())));
    finish(world).0
}

fn asked(world: &World) -> SelectedOps {
    let operations = world.clients.history.operations.iter();
    operations.map(|operation| (operation.client, operation.op_index)).collect()
}

fn attempt(plan: &Plan, described_steps: Range<u64>, setting: Setting) -> (World, Option<Broken>) {
    let mut world = World::new(plan.clone());
    world.setting = setting;
    world.described_steps = described_steps;
    finish(world)
}

fn finish(mut world: World) -> (World, Option<Broken>) {
    let verdict = catch_unwind(AssertUnwindSafe(|| world.run_to_end()));
    let broken = match verdict {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken),
        Err(_) => {
            let note = PANIC.lock().map(|note| note.clone()).unwrap_or_default();
            Some(Broken { oracle: NO_PANIC, what: note })
        }
    };
    (world, broken)
}

/// The length of a row's key and of all that it holds.
fn content_of(row: &Row) -> u64 {
    let fields = row.fields.iter().map(|field| match &field.content {
        Content::Register(values) => values.iter().map(Bytes::len).sum(),
        Content::Set(members) => members.iter().map(Bytes::len).sum(),
        Content::Counter(_) => 0,
    });
    (row.key.len() + fields.sum::<usize>()) as u64
}

impl World {
    /// Runs from setup to judgement.
    fn run_to_end(&mut self) -> Verdict {
        let heal_at = self.plan.heal_ms() * MS;
        // The last faults end at this very moment. Their end has effects that must be healed too: a lying disk loses
        // what it reported.
        while self.advance((heal_at + 1).min(self.stop_at))? {}
        if self.stop_at <= heal_at {
            return Ok(());
        }
        self.heal();
        let mut look_at = heal_at;
        while !self.operator.is_done() {
            look_at += LOOK_NS;
            while !self.operator.is_done() && self.advance(look_at)? {}
            self.check_liveness()?;
        }
        self.judge()
    }

    /// Checks what must hold at the end.
    fn judge(&self) -> Verdict {
        for process in &self.processes {
            one_reply::check_end(process)?;
        }
        self.check_costs()?;
        self.check_strong()?;
        self.check_states()?;
        self.check_churn()?;
        let recorded = self.has_losses().then(|| self.recorded_dots());
        let excused = recorded.map(|recorded| self.oracles.writes.nowhere_in(&recorded));
        let excused = excused.unwrap_or_default();
        let (first, others) = self.first_and_others();
        let mut content = 0;
        for space in [Space::Siblings, Space::Discard] {
            let rows = self.rows_of(first, space)?;
            for node in others.clone() {
                if self.rows_of(node, space)? != rows {
                    let what =
                        format!("{}: the rows of nodes {first} and {node} differ", space.name());
                    return Err(Broken::new(eventual::CONVERGENCE, what));
                }
            }
            let is_clients = |row: &&Row| !row.key.starts_with(crate::world::forge::OWN_KEY);
            let of_clients: Vec<Row> = rows.iter().filter(is_clients).cloned().collect();
            eventual::check(&self.clients.history, space, &of_clients, &excused)?;
            let is_made_once =
                |operation: usize, key: &[u8]| self.oracles.writes.times_made(operation, key) == 1;
            let history = &self.clients.history;
            read_then_overwritten::check(history, space, &of_clients, &excused, is_made_once)?;
            content += rows.iter().map(content_of).sum::<u64>();
            self.check_specification(space, rows)?;
        }
        self.check_memory(content)?;
        self.check_acknowledged(&excused)
    }

    /// Checks each node's count of its memory: the content of the eventual namespaces has this many bytes.
    fn check_memory(&self, eventual: u64) -> Verdict {
        let witness = self.strong_group().and_then(|group| self.oracles.witness(group));
        let content = eventual + witness.map_or(0, Witness::content_bytes);
        // A restart costs as much as hundreds of steps, so each seed restarts one node.
        let nodes = self.core().count() as u64;
        let chosen = self.core().nth((self.plan.seed % nodes.max(1)) as usize);
        self.core().try_for_each(|number| {
            let process = &self.processes[number];
            let Some(node) = &process.node else { return Ok(()) };
            bounded_memory::check_counted(node.memory_bytes(), content)?;
            // A restarted node applies no group's log before its leader says so; its replicas it has at once.
            let restarts = chosen == Some(number) && process.disk.is_idle();
            let restarted = restarts.then(|| process.copied(0)).flatten();
            let counts = |node: &Node| node.replicator().bytes();
            // A delete goes on after a restart from where its record says, not from where its slices were.
            let is_whole = |node: &Node| !node.replicator().has_more_to_free();
            restarted
                .filter(|restarted| is_whole(node) && is_whole(restarted))
                .map_or(Ok(()), |restarted| {
                    bounded_memory::check_restarted(counts(node), counts(&restarted))
                })
        })
    }

    /// The first node of the core, and the others, which are compared with it.
    fn first_and_others(&self) -> (usize, impl Iterator<Item = usize> + Clone + '_) {
        let mut core = self.core();
        (core.next().unwrap_or_default(), core)
    }

    /// The dots that are recorded on some disk of the core.
    ///
    /// Level `durable` promises one disk only, that of the acknowledging node. So an acknowledged write may be gone
    /// only if every disk that ever had it is outside of the core or lost data. A write that one disk of the core held
    /// and did not lose is owed, whichever node acknowledged it.
    fn recorded_dots(&self) -> BTreeSet<(ShardId, Dot)> {
        let disks = self.core().map(|node| (node, self.processes[node].disk.persisted()));
        self.oracles.writes.recorded_on(disks)
    }

    /// Checks that the rows of an eventual namespace are what all writes amount to.
    fn check_specification(&self, space: Space, rows: Vec<Row>) -> Verdict {
        let numbered = self.operator.namespaces.iter().find(|(known, _)| *known == space);
        let Some((_, namespace)) = numbered else { return Ok(()) };
        let slots = self.plan.workload.slots;
        let mut by_shard: BTreeMap<ShardId, Vec<Row>> = BTreeMap::new();
        for row in rows {
            let shard = Replicator::shard_for(*namespace, slots, &row.key);
            by_shard.entry(shard).or_default().push(row);
        }
        for slot in 0..slots {
            let shard = ShardId { namespace: *namespace, slot };
            let rows = by_shard.remove(&shard).unwrap_or_default();
            let context = self.context_of(shard);
            let discards = space == Space::Discard;
            let covers = |dot: &Dot| context.contains(dot);
            self.oracles.writes.check(shard, discards, &rows, covers, &self.core())?;
        }
        Ok(())
    }

    /// The context of a shard at the end; equal roots mean that it is the same on all replicas.
    fn context_of(&self, shard: ShardId) -> Dots {
        let (first, _) = self.first_and_others();
        let node = self.processes[first].node.as_ref();
        node.and_then(|node| node.replicator().context(shard)).unwrap_or_default()
    }

    /// Checks that the replicas have seen every acknowledged write that is not excused.
    fn check_acknowledged(&self, excused: &BTreeSet<usize>) -> Verdict {
        let shards = self.operator.shards();
        let contexts: BTreeMap<ShardId, Dots> =
            shards.map(|shard| (shard, self.context_of(shard))).collect();
        let covers = |shard, dot: &Dot| contexts.get(&shard).is_some_and(|c| c.contains(dot));
        for (number, operation) in self.clients.history.operations.iter().enumerate() {
            let is_owed = operation.space != Space::Strong && !excused.contains(&number);
            if is_owed && eventual::is_certain(operation) {
                self.oracles.writes.check_there(number, covers)?;
            }
        }
        Ok(())
    }

    /// Checks the history of the strong namespace, and its final content.
    fn check_strong(&self) -> Verdict {
        let group = self.strong_group();
        // Without a group of keys no command was ever committed.
        let nothing = Witness::new(SessionRules { most: 0, idle_ms: 0 });
        let witness = group.and_then(|group| self.oracles.witness(group)).unwrap_or(&nothing);
        strong::check(&self.clients.history, witness)?;
        let states =
            self.core().filter_map(|node| self.processes[node].node.as_ref()?.state(group?));
        states.into_iter().try_for_each(|state| strong::check_state(witness, state))
    }

    /// The group of the strong namespace: the first one after the registry, because churn starts later.
    pub(crate) fn strong_group(&self) -> Option<GroupId> {
        let mut groups = self.oracles.ledger.groups().map(|(group, _)| group);
        groups.find(|group| *group != GroupId::REGISTRY)
    }

    /// Checks that all nodes have the same state in each group, since they have applied the same entries.
    fn check_states(&self) -> Verdict {
        let (first, others) = self.first_and_others();
        for (group, _) in self.oracles.ledger.groups() {
            let digest = |node: usize| {
                self.processes[node].node.as_ref()?.state(group).map(state::StateMachine::digest)
            };
            let expected = digest(first);
            if let Some(node) = others.clone().find(|node| digest(*node) != expected) {
                let words = |node: usize| {
                    let node = self.processes[node].node.as_ref();
                    node.and_then(|node| node.state(group))
                        .map_or_else(String::new, |s| format!("{s:?}"))
                };
                let difference = crate::transcript::difference(&words(first), &words(node));
                let what = format!(
                    "group {group}: the states of nodes {first} and {node} differ: {difference}"
                );
                return Err(Broken::new(crate::oracle::state_machine_safety::NAME, what));
            }
        }
        Ok(())
    }

    /// All rows of an eventual namespace on one node.
    fn rows_of(&self, node: usize, space: Space) -> Result<Vec<Row>, Broken> {
        let failed = |what: String| Broken::new(eventual::CONVERGENCE, what);
        let found = self.operator.namespaces.iter().find(|(known, _)| *known == space);
        let (_, namespace) =
            found.ok_or_else(|| failed("the namespace is not there".to_owned()))?;
        let machine = self.processes[node].node.as_ref();
        let replicator =
            machine.ok_or_else(|| failed(format!("node {node} is down")))?.replicator();
        let mut rows = Vec::new();
        for slot in 0..self.plan.workload.slots {
            let shard = ShardId { namespace: *namespace, slot };
            let mut after = None;
            loop {
                let query = Query::Rows { after: after.take(), limit: 1000 };
                match replicator.read(shard, &query) {
                    Ok(Value::Rows { rows: page, more }) => {
                        after = page.last().map(|row| row.key.clone());
                        rows.extend(page);
                        if !more {
                            break;
                        }
                    }
                    other => return Err(failed(format!("node {node} answers {other:?}"))),
                }
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plan_is_one_run() {
        let plan = Plan::from_seed(1);
        let first = run(&plan);
        assert_eq!(first.violation, None);
        assert!(first.operations >= 200 && first.virtual_ns >= 64_000 * MS);
        assert_eq!(run(&plan), first);
        let observed = Setting { observes: true, slip_at: None };
        assert_eq!(run_in(&plan, observed), first);
        let mut other = plan;
        other.workload.clients += 1;
        assert_ne!(run(&other).chain, first.chain);
    }

    #[test]
    fn a_plan_that_lists_all_its_operations_is_the_same_run() {
        let mut plan = Plan::from_seed(2);
        plan.workload.operations_min = 0;
        let first = run(&plan);
        plan.workload.only = Some(first.asked.clone());
        let read = Plan::parse(&plan.to_toml());
        assert_eq!(read, Ok(plan.clone()));
        let again = run(&plan);
        assert_eq!((&again.chain, &again.asked), (&first.chain, &first.asked));
        plan.workload.only = Some(first.asked.iter().skip(1).collect());
        let fewer = run(&plan);
        assert_ne!(fewer.chain, first.chain);
        assert!(fewer.asked.len() < first.asked.len() && !fewer.asked.is_empty());
    }
}
