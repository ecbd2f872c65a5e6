//! The world: one thread, one heap of events ordered by (time, number), whole nodes.
//!
//! The loop takes the next event, hands it to a node, lets the oracles check what the node did, and performs the node's
//! actions. Other modules decide what happens to a message, a write or a process; this one decides when, and in which
//! order. Nothing depends on a real clock, on memory addresses or on an unordered map: the same plan is always the same
//! run.

mod churn;
mod clones;
mod dispatch;
mod event;
mod faults;
mod files;
pub(crate) mod forge;
mod healing;
mod hostile;
mod hostile_node;
mod identity;
mod pause;
mod progress;
mod replies;
mod send;
mod soundness;
mod survivors;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use continuum_core::digest::Hasher;
use continuum_core::discovery::{Identity, Unverified};
use continuum_core::id::{Address, FederationId, Replica};
use continuum_core::machine::{Machine as _, Outbox};
use continuum_core::node::{Action, Event, Notice};

use crate::env::clock::MS;
use crate::env::network::Network;
use crate::env::process::Process;
use crate::env::replay::Replays;
use crate::env::requester::Requester;
use crate::oracle::bounded_step::{self, Work};
use crate::oracle::liveness::Liveness;
use crate::oracle::witness::SessionRules;
use crate::oracle::{
    Cause, Oracles, Roster, Rules, Step, bounded_memory, cheapest_is_chosen,
    one_process_per_identity,
};
use crate::plan::Plan;
use crate::plan::fault::{Fault, Kind, Tally};
use crate::rng::{Draws, stream};
use crate::scene::Scene;
use crate::trace::{Trace, fingerprint, fold};
use crate::transcript::StepText;
use crate::verdict::{Broken, Verdict};
use crate::workload::churn::ChurnClient;
use crate::workload::client::{ClientAction, ClientMode, Clients};
use crate::workload::operator::Operator;
pub(crate) use clones::CloneEvent;
use clones::LiveClones;
use event::EventQueue;
pub(crate) use event::WorldEvent;
use hostile_node::Hostile;
use identity::{DiskCopy, node_id, store_id, wide};
use progress::ProgressGuard;
use survivors::Survival;

/// A node that asks for an immediate tick after this many consecutive steps makes no progress.
const TICKS_MAX: u32 = 10_000;

/// Delay of an immediate tick after the last step, in nanoseconds: a driver has other work too.
const STEP_NS: (u64, u64) = (20_000, 5_000_000);

/// In a burst, clients pause this many times shorter. So a client is mostly still busy when its next operation is due.
const BURST_FASTER: u64 = 50;

/// Nodes, what is between them, and what happens to them.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) draws: Draws,
    pub(crate) now: u64,
    events: EventQueue,
    pace: ProgressGuard,
    pub(crate) processes: Vec<Process>,
    pub(crate) network: Network,
    pub(crate) replays: Replays,
    pub(crate) oracles: Oracles,
    pub(crate) clients: Clients,
    pub(crate) operator: Operator,
    /// When each stage of recovery was reached after healing.
    pub(crate) liveness: Liveness,
    pub(crate) churn_clients: Vec<ChurnClient>,
    pub(crate) trace: Trace,
    pub(crate) fired: Tally,
    /// Whether each fault is active at present.
    pub(crate) active: Vec<bool>,
    pub(crate) mode: ClientMode,
    pub(crate) survival: Vec<Survival>,
    /// Copies of disks, by the fault that made them.
    pub(crate) backups: BTreeMap<usize, DiskCopy>,
    pub(crate) hostile: Hostile,
    /// Processes on copies of running nodes' disks.
    pub(crate) live_clones: LiveClones,
    /// Which fault made which node's sync fail.
    pub(crate) failed: BTreeSet<(usize, usize)>,
    out: Outbox<Action>,
    actions: Vec<ClientAction>,
    /// Steps that nodes took.
    pub(crate) steps: u64,
    /// The most work of one step.
    pub(crate) work_max: Work,
    /// Messages that were sent on a link.
    pub(crate) messages: u64,
    /// The node that takes a step, for the message when it panics.
    pub(crate) stepping: usize,
    /// The steps to describe in words.
    pub(crate) described_steps: Range<u64>,
    /// Steps within these virtual times are described as well.
    pub(crate) described_within: Range<u64>,
    pub(crate) step_texts: Vec<StepText>,
    budgets: bounded_memory::Budgets,
    pub(crate) setting: Setting,
    /// The run ends at this time, if that is before healing.
    pub(crate) stop_at: u64,
    /// Records what happens, when a picture is wanted.
    pub(crate) scene: Option<Box<Scene>>,
}

/// The conditions of a run beside its plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    /// Every step is described in words, and the words are thrown away: observation must change nothing.
    pub observes: bool,
    /// From this step on, the time depends on a memory address. Tests use it: the comparison of two processes must see
    /// it.
    pub slip_at: Option<u64>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let (draws, nodes) = (Draws::new(plan.seed), plan.cluster.nodes);
        let config = plan.config();
        let federation = FederationId(wide(draws, "federation", 0, 0));
        let replica = |number: usize| Replica {
            node: node_id(draws, number),
            store: store_id(draws, number, 0),
        };
        let replicas: Vec<Replica> = (0..nodes).map(replica).collect();
        let process = |(number, replica): (usize, &Replica)| {
            Process::new(
                number,
                draws,
                federation,
                *replica,
                config.clone(),
                plan.cluster.segment_bytes,
            )
        };
        let processes = replicas.iter().enumerate().map(process).collect();
        let latency = (plan.cluster.latency_us_min, plan.cluster.latency_us_max);
        let rules = Rules {
            dwell_ms: config.coordinator.dwell_ms,
            ahead_ms: config.replication.ahead_ms_max,
            election_timeout_ms: config.raft.election_timeout_ms,
            few_requests: plan.cluster.requests_max.is_some(),
            sessions: SessionRules {
                most: config.bounds.sessions,
                idle_ms: config.bounds.session_idle_ms,
            },
            budgets: bounded_memory::Budgets::of(&config),
        };
        let mut world = Self {
            draws,
            now: 0,
            events: EventQueue::default(),
            pace: ProgressGuard::default(),
            processes,
            network: Network::new(nodes, draws, latency),
            replays: Replays::new(nodes),
            oracles: Oracles::new(Roster::new(replicas), plan.cluster.voters, rules),
            clients: Clients::new(nodes, &plan.workload, draws),
            operator: Operator::new(&plan),
            liveness: Liveness::default(),
            churn_clients: Vec::new(),
            trace: Trace::new(),
            fired: Tally::default(),
            active: vec![false; plan.faults.len()],
            mode: ClientMode::default(),
            survival: vec![Survival::default(); nodes],
            backups: BTreeMap::new(),
            hostile: Hostile::default(),
            live_clones: LiveClones::default(),
            failed: BTreeSet::new(),
            out: Outbox::new(),
            actions: Vec::new(),
            steps: 0,
            work_max: Work::default(),
            messages: 0,
            stepping: 0,
            described_steps: 0..0,
            described_within: 0..0,
            step_texts: Vec::new(),
            budgets: bounded_memory::Budgets::of(&config),
            setting: Setting::default(),
            stop_at: u64::MAX,
            scene: None,
            plan,
        };
        world.begin();
        world
    }

    /// Schedules what the plan says.
    fn begin(&mut self) {
        for node in 0..self.processes.len() {
            self.schedule_at(self.first_start_ms(node) * MS, WorldEvent::Start { node });
        }
        for fault in 0..self.plan.faults.len() {
            let (at_ms, for_ms) = (self.plan.faults[fault].at_ms, self.plan.faults[fault].for_ms);
            self.schedule_at(at_ms * MS, WorldEvent::Begin { fault });
            self.schedule_at((at_ms + for_ms) * MS, WorldEvent::End { fault });
        }
        self.schedule_at(100 * MS, WorldEvent::Operate);
    }

    /// Schedules an event for a time.
    pub(crate) fn schedule_at(&mut self, at: u64, event: WorldEvent) {
        self.events.plan(at.max(self.now), event);
    }

    /// Schedules an event after a delay.
    pub(crate) fn schedule_in(&mut self, after: u64, event: WorldEvent) {
        self.events.plan(self.now + after, event);
    }

    /// Handles the next event if it is due before `until`. Returns whether there was one.
    pub(crate) fn advance(&mut self, until: u64) -> Result<bool, Broken> {
        let (mut due, mut node) = (u64::MAX, 0);
        for (number, process) in self.processes.iter().enumerate() {
            if process.due < due {
                (due, node) = (process.due, number);
            }
        }
        let next = self.events.next_at();
        if due.min(next) >= until {
            self.now = until;
            return Ok(false);
        }
        self.now = self.now.max(due.min(next));
        self.pace.count(self.now, self.events.len())?;
        if due <= next {
            if self.processes[node].immediate_ticks > TICKS_MAX {
                let what = format!("node {node} asks for an immediate tick again and again");
                return Err(Broken::new(progress::NAME, what));
            }
            self.step(node, Event::Tick, 0, 0)?;
        } else if let Some(event) = self.events.take() {
            self.dispatch(event)?;
        }
        Ok(true)
    }

    /// Hands one event to a node, at once or through its queue.
    pub(crate) fn step(&mut self, me: usize, event: Event, tag: u8, print: u64) -> Verdict {
        if self.processes[me].step_queue.is_open() {
            self.take_step(me, event, tag, print)
        } else {
            self.wait(me, event, tag, print)
        }
    }

    /// Hands one event to a node, lets the oracles check the step, and performs the node's actions.
    pub(crate) fn take_step(&mut self, me: usize, event: Event, tag: u8, print: u64) -> Verdict {
        let keeps = self.described_steps.contains(&self.trace.events)
            || self.described_within.contains(&self.now);
        let describes = keeps || self.setting.observes;
        if self.setting.slip_at == Some(self.trace.events) {
            self.now += address_of(&self.processes) % MS;
        }
        let process = &mut self.processes[me];
        let Some(node) = process.node.as_mut() else { return Ok(()) };
        let now = process.clock.now(self.now);
        let cause = Cause::of(process.replica, &event);
        self.stepping = me;
        self.steps += 1;
        self.trace.event(self.now, me, tag, print);
        if describes {
            let event = format!("{event:?}");
            self.step_texts.push(StepText { at: self.now, node: me, event, actions: Vec::new() });
        }
        let out = &mut self.out;
        let info = allocation_counter::measure(|| node.step(now, event, out));
        let work = Work::of(&info);
        self.work_max = self.work_max.max(work);
        process.due = node.deadline().map_or(u64::MAX, |deadline| process.clock.when(deadline));
        process.immediate_ticks =
            if process.due <= self.now { process.immediate_ticks + 1 } else { 0 };
        if process.immediate_ticks > 0 {
            let name = stream("step.next", me as u64);
            process.due = self.now + self.draws.between(name, self.steps, STEP_NS.0, STEP_NS.1);
        }
        if describes && let Some(text) = self.step_texts.last_mut() {
            text.actions = self.out.as_slice().iter().map(|action| format!("{action:?}")).collect();
        }
        if describes && !keeps {
            self.step_texts.pop();
        }
        if let (Some(scene), Some(node)) = (&mut self.scene, &self.processes[me].node) {
            scene.stepped(self.now, me, node);
        }
        self.take_picture_for_step();
        if let Some(node) = &self.processes[me].node {
            let (actions, processes) = (self.out.as_slice(), self.processes.as_slice());
            let wanted = replies::wanted(&self.clients, &self.processes[me], &cause, actions);
            let at = self.now;
            self.oracles.observe(&Step { me, node, actions, processes, cause, wanted, now, at })?;
        }
        bounded_step::check(me, work, || format!("the event with the tag {tag}"))?;
        self.perform_all(me)?;
        if self.trace.is_link() { self.link() } else { Ok(()) }
    }

    fn perform_all(&mut self, me: usize) -> Verdict {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.out);
        for action in out.drain() {
            self.perform(me, action)?;
        }
        self.out = out;
        self.sync(me);
        self.sync_files(me);
        Ok(())
    }

    /// Begins the next batch of a node's disk. Returns whether there was one.
    pub(crate) fn sync(&mut self, node: usize) -> bool {
        if !self.processes[node].disk.may_begin() {
            return false;
        }
        let sync_ns = self.sync_ns(node);
        let process = &mut self.processes[node];
        let Some(done_at) = process.disk.begin(self.now, sync_ns) else { return false };
        if let Some(scene) = &mut self.scene {
            scene.begins_batch(self.now, node);
        }
        process.syncs += 1;
        let generation = process.generation;
        if process.crashes_in_sync {
            let name = stream("crash.aim", node as u64);
            let after = self.draws.below(name, generation, done_at - self.now);
            self.schedule_in(after, WorldEvent::Crash { node, generation });
        }
        self.schedule_at(done_at, WorldEvent::Synced { node, generation });
        true
    }

    /// Deletes what a node's log no longer needs.
    fn delete(&mut self, me: usize, action: &Action) {
        let disk = &mut self.processes[me].disk;
        match action {
            Action::Discard { snapshot } => {
                self.trace.action(10, snapshot.0);
                disk.discard(*snapshot);
            }
            Action::Release { before } => {
                self.trace.action(3, before.seq);
                disk.release(*before);
            }
            _ => {}
        }
    }

    fn perform(&mut self, me: usize, action: Action) -> Verdict {
        match action {
            Action::Send { to, plane, message } => {
                let print = fingerprint(&message);
                self.trace.action(1, fold(print, u64::from(to.0[15])));
                self.send(me, to, plane, message, print)?;
            }
            Action::Persist { token, write } => {
                self.trace.action(2, token.seq);
                if let Some(scene) = &mut self.scene {
                    scene.writes(me, &write);
                }
                self.processes[me].disk.persist(token, write);
            }
            Action::WriteFile { number, piece } => {
                self.trace.action(12, number);
                self.processes[me].disk.write_file(number, piece);
            }
            gone @ (Action::Discard { .. } | Action::Release { .. }) => self.delete(me, &gone),
            Action::Reply { id, outcome } => self.reply_leaves(me, id, outcome)?,
            Action::Resolve { source } => {
                self.trace.action(5, 0);
                self.resolve(me, source);
            }
            Action::Verify { address } => {
                self.trace.action(6, fingerprint(&address));
                self.verify(me, address);
            }
            Action::Route { peer, address } => {
                self.trace.action(7, fingerprint(&address));
                self.route(me, peer, address.as_ref())?;
            }
            Action::Refuse { peer, boot, reason, known } => {
                self.trace.action(8, fingerprint(&(boot, reason)));
                self.refuse(me, (peer, boot), (reason, known))?;
            }
            Action::Condemn(condemned) => {
                self.trace.action(11, condemned.known.count);
                let voters = self.first_voters();
                one_process_per_identity::check_condemned(&condemned, me, &voters)?;
                self.processes[me].disk.is_condemned = true;
            }
            Action::Notify(notice) => {
                self.trace.action(9, 0);
                if let Notice::Fenced { why } = notice {
                    self.on_fenced(me, why)?;
                }
            }
        }
        Ok(())
    }

    fn verify(&mut self, me: usize, address: Address) {
        let mut latency = 4 * self.network.latency(me, me);
        if address.0 == topology::MUTE {
            let (low, high) = topology::MUTE_NS;
            latency = self.draws.between(stream("dial.mute", me as u64), self.steps, low, high);
        }
        let nobody = match address.0.as_str() {
            topology::FOREIGN => Unverified::Refused,
            _ => Unverified::Unreachable,
        };
        let there = crate::env::process::number_at(&address)
            .filter(|number| *number < self.processes.len())
            .filter(|number| self.accepts_handshake(*number) && self.accepts_handshake(me))
            .filter(|number| *number == me || self.network.is_open(me, *number));
        let outcome = there.map_or(Err(nobody), |number| {
            let process = &self.processes[number];
            let Replica { node, store } = process.replica;
            Ok(Identity { node, store, boot: process.boot })
        });
        let generation = self.processes[me].generation;
        let event = Event::Verified { address, outcome };
        self.schedule_in(latency, WorldEvent::Inform { node: me, generation, event });
    }

    /// Draws how long the next sync of a node takes.
    pub(crate) fn sync_ns(&mut self, node: usize) -> u64 {
        let name = stream("disk.sync", node as u64);
        let k = self.processes[node].syncs;
        let cluster = &self.plan.cluster;
        let (low, high) = (cluster.sync_us_min * 1_000, cluster.sync_us_max * 1_000);
        let usual = self.draws.between(name, k, low, high);
        usual + self.draws.below(name ^ 1, k, self.stall_ns(node))
    }

    /// Carries out what clients want: requests, timeouts, wake-ups.
    pub(crate) fn run_client_actions(
        &mut self,
        run: impl FnOnce(&mut Self, &mut Vec<ClientAction>),
    ) {
        let mut actions = std::mem::take(&mut self.actions);
        run(self, &mut actions);
        for action in actions.drain(..) {
            match action {
                ClientAction::Ask { attempt, node, request } => {
                    let latency = self.clients.latency(attempt, false, self.network.latency_ns);
                    if let Some(scene) = &mut self.scene {
                        scene.asks(self.now, attempt, node, self.now + latency);
                    }
                    self.attack(attempt, node, latency, &request);
                    let requester = Requester::Client(attempt);
                    self.schedule_in(latency, WorldEvent::Request { node, requester, request });
                }
                ClientAction::Timeout { attempt, after_ns } => {
                    self.schedule_in(after_ns, WorldEvent::Timeout { attempt });
                }
                ClientAction::Wake { client, after_ns } => {
                    let bursts = self.mode.bursts && self.mode.quiet_until <= self.now;
                    if bursts {
                        self.fired.count(Kind::ClientBurst);
                    }
                    let after_ns = if bursts { after_ns / BURST_FASTER } else { after_ns };
                    self.schedule_in(after_ns, WorldEvent::Wake { client });
                }
            }
        }
        self.actions = actions;
    }

    /// The actions of the last step, when a broken law stopped the run before they were performed.
    pub(crate) fn unperformed(&self) -> &[Action] {
        self.out.as_slice()
    }

    /// Closes a link of the trace: digests the whole state of one node, each in turn, and makes the checks that cost
    /// too much for every event.
    fn link(&mut self) -> Verdict {
        self.check_costs()?;
        for process in &self.processes {
            if let Some(node) = &process.node {
                cheapest_is_chosen::check(node.coordinator())?;
            }
            bounded_memory::check(process, &self.budgets)?;
        }
        let turn = self.trace.links() % self.processes.len();
        let mut hasher = Hasher::new();
        if let Some(node) = &self.processes[turn].node {
            node.digest(&mut hasher);
        }
        self.trace.link(hasher.finish().0);
        Ok(())
    }

    /// Checks the costs at which each node would choose members now.
    pub(crate) fn check_costs(&self) -> Verdict {
        let forges = |fault: &Fault| matches!(fault.kind, Kind::HostileLearner | Kind::LiveClone);
        let is_forged = self.plan.faults.iter().any(forges);
        self.processes.iter().enumerate().try_for_each(|(me, process)| match &process.node {
            Some(node) => self.oracles.check_costs(me, node, process.requests.len(), is_forged),
            None => Ok(()),
        })
    }
}

/// The address of a list in memory, which a run must never look at.
fn address_of(list: &[Process]) -> u64 {
    list.as_ptr() as u64 >> 3
}
