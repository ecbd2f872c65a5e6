//! One step of a node: the timers that are due, the event, and all that follows from both.
//!
//! Machines never call each other. A request from one machine to another becomes a [`Task`] in a queue. So a step is a
//! flat loop, and no machine is stepped while another one's actions are being read.
//!
//! This module does not decide which machine's action becomes which machine's event (`route`).

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::config::Config;
use crate::counted::CountedMap;
use crate::digest::Hasher;
use crate::files::{Files, Written};
use crate::hold::{DurabilityGate, Durable};
use crate::id::{Address, Boot, FederationId, GroupId, Lineage, Replica, Writer};
use crate::machine::{Machine, Now, Outbox};
use crate::time::{Instant, earlier};
use crate::wal::Write;
use crate::{coordinator, discovery, gossip, mutant, raft, reach, replication};

use super::admission::Admission;
use super::bootstrap::BootstrapState;
use super::checkpoint::Checkpoints;
use super::doubt::Doubt;
use super::genesis::GenesisState;
use super::group::Group;
use super::join::JoinState;
use super::peers::Peers;
use super::registry::RegistryView;
use super::request::{ExportState, Requests};
use super::storage::step_fenced;
use super::{Action, Event, Notice};

/// The composition of all machines. See [`super`] for its modules.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) federation: FederationId,
    pub(super) me: Replica,
    pub(super) boot: Boot,
    pub(super) lineage: Lineage,
    pub(super) seed: crate::seed::Seed,
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) now: Now,
    pub(super) phase: Phase,
    pub(super) groups: CountedMap<GroupId, Group>,
    /// The deadlines of all groups that have one, so that a step looks only at groups that are due.
    group_deadlines: BTreeSet<(Instant, GroupId)>,
    raft_out: Outbox<raft::Action>,
    pub(super) replication: Stepper<replication::Replicator>,
    pub(super) gossip: Stepper<gossip::Gossip>,
    pub(super) discovery: Stepper<discovery::Discovery>,
    pub(super) coordinator: Stepper<coordinator::Coordinator>,
    pub(super) gate: DurabilityGate<Action>,
    pub(super) checkpoints: Checkpoints,
    pub(super) peers: Peers,
    pub(super) doubt: Doubt,
    pub(super) registry_view: RegistryView,
    pub(super) bootstrap: BootstrapState,
    pub(super) genesis: GenesisState,
    pub(super) join: JoinState,
    pub(super) admission: Admission,
    pub(super) requests: Requests,
    pub(super) exports: ExportState,
    timers: BTreeSet<(Instant, Timer)>,
    tasks: VecDeque<Task>,
    /// Groups with committed entries left over from the last step.
    pub(super) unapplied: BTreeSet<GroupId>,
    /// Groups whose state is being captured.
    pub(super) capturing: BTreeSet<GroupId>,
    /// The actions of the current step.
    out: Outbox<Action>,
    durable: Vec<Durable>,
    pub(super) files: Files,
    /// Taken out while it is read, so that a step allocates nothing.
    pub(super) written: Vec<Written>,
    pub(super) released: Vec<Action>,
}

impl Machine for Node {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, now: Now, event: Event, out: &mut Outbox<Action>) {
        if self.phase.fenced.is_some() && !mutant!("node.fence.goes_on") {
            return step_fenced(&event, out);
        }
        self.now = Now { mono: now.mono.max(self.now.mono), wall: now.wall };
        mem::swap(&mut self.out, out);
        if !self.phase.started {
            self.begin();
        }
        if self.deadline().is_some_and(|at| at <= now.mono) {
            self.step_due();
            self.run();
        }
        self.on_event(event);
        self.run();
        self.groups.settle(|_, _| {});
        mem::swap(&mut self.out, out);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.phase.fenced.is_some() {
            return None;
        }
        let captures = !self.capturing.is_empty() && self.files.has_room();
        let busy = !self.unapplied.is_empty() || captures;
        if busy
            || mutant!("node.deadline.spins")
            || self.checkpoints.is_running()
            || !self.phase.started
        {
            return Some(self.now.mono);
        }
        let groups = self.group_deadlines.first().map(|(at, _)| *at);
        let timers = self.timers.first().map(|(at, _)| *at);
        let peers = earlier(self.gossip.deadline, self.discovery.deadline);
        let data = earlier(self.replication.deadline, self.coordinator.deadline);
        earlier(earlier(groups, timers), earlier(peers, data))
    }

    fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.federation, self.me, self.boot));
        hash.value(&(self.phase.stopping, self.phase.disk_full, self.phase.fenced.is_some()));
        hash.value(&(self.phase.disk_stalled, self.phase.disk_waits_since));
        for (id, group) in self.groups.iter() {
            hash.value(&(id, group.applied));
            group.raft.digest(hash);
            group.state.feed(hash);
            group.state.exports().feed(hash);
        }
        self.replication.machine.digest(hash);
        self.gossip.machine.digest(hash);
        self.discovery.machine.digest(hash);
        self.coordinator.machine.digest(hash);
        self.gate.digest(hash);
        self.checkpoints.digest(hash);
        self.files.digest(hash);
        self.peers.digest(hash);
        self.doubt.digest(hash);
        self.genesis.digest(hash);
        self.requests.digest(hash);
        self.admission.digest(hash);
        self.timers.iter().for_each(|(at, _)| hash.value(at));
    }
}

impl Node {
    /// The first step of a process. Its boot record must be durable before any message or reply leaves.
    fn begin(&mut self) {
        self.phase.started = true;
        reach!("node.start");
        if mutant!("node.boot.not_persisted") {
            self.gate.skip_boot();
        } else {
            self.persist_own(self.boot_record());
        }
        self.begin_unconfirmed();
        self.repeat_own_records();
        self.arm_report();
        self.begin_routes();
        self.begin_membership();
    }

    /// Steps every machine, timer and piece of long work that is due by now.
    fn step_due(&mut self) {
        let now = self.now.mono;
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        while let Some(&(at, group)) = self.group_deadlines.first()
            && at <= now
        {
            self.step_raft(group, raft::Event::Tick);
            // A machine that does not move its deadline would be stepped without end.
            let next = self.groups.get(&group).and_then(|group| group.deadline);
            assert!(next.is_none_or(|next| next > at), "a tick did what was due at {at}");
        }
        if is_due(self.replication.deadline) {
            self.step_replication(replication::Event::Tick);
        }
        if is_due(self.gossip.deadline) {
            self.step_gossip(gossip::Event::Tick);
        }
        if is_due(self.discovery.deadline) {
            self.step_discovery(discovery::Event::Tick);
        }
        if is_due(self.coordinator.deadline) {
            self.step_coordinator(coordinator::Event::Tick);
        }
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            self.on_timer(timer);
        }
        for group in mem::take(&mut self.unapplied) {
            self.enqueue(Task::Apply(group));
        }
        self.continue_checkpoint();
        self.continue_captures();
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Request(key) => self.on_request_due(key),
            Timer::Bootstrap => self.on_bootstrap_due(),
            Timer::Join => self.on_join_due(),
            Timer::Align(group) => self.on_align_due(group),
            Timer::Report => self.on_report_due(),
            Timer::Registry => self.on_registry_due(),
            Timer::Checkpoint => self.checkpoints.look_again(),
            Timer::OfferLeadership => self.on_offer_due(),
            Timer::Doubt => self.on_doubt_due(),
            Timer::DiskLook => self.on_disk_look(),
            Timer::Exports => self.on_exports_due(),
            Timer::StopEnds => self.answer_all(),
        }
    }

    /// Handles the event of this step.
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tick => {
                let sound = !mutant!("node.canary");
                assert!(sound, "the planted bug that proves that the pipeline reports");
            }
            Event::Connected { peer, store, boot, lineage, .. } => {
                self.on_connected(Replica { node: peer, store }, boot, &lineage);
            }
            Event::Received { from, message } => self.on_received(from, message),
            Event::Unreachable { peer } => self.on_unreachable(peer),
            Event::Persisted { token } => self.on_persisted(token),
            Event::StorageFailed { .. } => self.fence("the storage failed"),
            Event::FilesWritten { number } => self.on_files_written(number),
            Event::FileFailed { snapshot } => self.on_file_failed(snapshot),
            Event::StorageFull { full, room } => self.on_storage_full(full, room),
            Event::Requested { id, request } => self.on_requested(id, request),
            Event::Resolved { source, peers } => {
                self.enqueue(Task::Discovery(discovery::Event::Resolved { source, peers }));
            }
            Event::Verified { address, outcome } => self.on_verified(address, outcome),
            Event::Stopping => self.on_stopping(),
        }
    }

    /// Writes became durable: releases the actions that waited for them, and tells their machines.
    fn on_persisted(&mut self, token: crate::id::Token) {
        let mut durable = mem::take(&mut self.durable);
        let mut released = mem::take(&mut self.released);
        let bytes = self.gate.persisted(token, &mut durable, &mut released);
        self.disk_took(durable.is_empty());
        released.drain(..).for_each(|action| self.out.push(action));
        self.released = released;
        for progress in durable.drain(..) {
            match progress.writer {
                Writer::Node => {}
                Writer::Group(group) => {
                    self.step_raft(group, raft::Event::Persisted { writes: progress.writes });
                }
                Writer::Shards => {
                    self.step_replication(replication::Event::Persisted {
                        writes: progress.writes,
                    });
                }
            }
        }
        self.durable = durable;
        self.checkpoints_durable(token.seq, bytes);
    }

    /// Emits what the gate holds back no longer.
    pub(super) fn release_held(&mut self) {
        let mut released = mem::take(&mut self.released);
        self.gate.release(&mut released);
        released.drain(..).for_each(|action| self.out.push(action));
        self.released = released;
    }

    /// Performs tasks until the queue is empty.
    fn run(&mut self) {
        while let Some(task) = self.tasks.pop_front() {
            match task {
                Task::Raft(group, event) => self.step_raft(group, event),
                Task::Replication(event) => self.step_replication(event),
                Task::Gossip(event) => self.step_gossip(event),
                Task::Discovery(event) => self.step_discovery(event),
                Task::Coordinator(event) => self.step_coordinator(event),
                Task::Apply(group) => self.apply(group),
                Task::Installed(group) => self.installed(group),
                Task::Wake(group) => self.wake(group),
                Task::Submit(key) => self.submit(key),
                Task::Registry => self.on_registry_read(),
                Task::Align(group) => self.align(group),
            }
        }
    }

    pub(super) fn step_raft(&mut self, id: GroupId, event: raft::Event) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let mut out = mem::take(&mut self.raft_out);
        group.raft.step(self.now, event, &mut out);
        let before = mem::replace(&mut group.deadline, group.raft.deadline());
        if before != group.deadline {
            before.map(|at| self.group_deadlines.remove(&(at, id)));
            group.deadline.map(|at| self.group_deadlines.insert((at, id)));
        }
        for action in out.drain() {
            self.on_raft(id, action);
        }
        self.raft_out = out;
    }

    pub(super) fn step_replication(&mut self, event: replication::Event) {
        let mut out = self.replication.step(self.now, event);
        for action in out.drain() {
            self.on_replication(action);
        }
        self.replication.put_back(out);
    }

    pub(super) fn step_gossip(&mut self, event: gossip::Event) {
        let mut out = self.gossip.step(self.now, event);
        for action in out.drain() {
            self.on_gossip(action);
        }
        self.gossip.put_back(out);
    }

    pub(super) fn step_discovery(&mut self, event: discovery::Event) {
        let mut out = self.discovery.step(self.now, event);
        for action in out.drain() {
            self.on_discovery(action);
        }
        self.discovery.put_back(out);
    }

    pub(super) fn step_coordinator(&mut self, event: coordinator::Event) {
        let mut out = self.coordinator.step(self.now, event);
        for action in out.drain() {
            self.on_coordinator(&action);
        }
        self.coordinator.put_back(out);
    }

    /// Appends an action to this step's outbox.
    pub(super) fn emit(&mut self, action: Action) {
        self.out.push(action);
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        self.out.push(Action::Notify(notice));
    }

    /// Queues a task of this step.
    pub(super) fn enqueue(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// Drops the messages and the remaining tasks of this step.
    pub(super) fn drop_messages(&mut self) {
        let kept = |action: &Action| !matches!(action, Action::Send { .. });
        let actions: Vec<Action> = self.out.drain().filter(kept).collect();
        actions.into_iter().for_each(|action| self.out.push(action));
        self.tasks.clear();
    }

    /// Arms a timer `after` from now, and returns when it fires.
    pub(super) fn arm(&mut self, after: Duration, timer: Timer) -> Instant {
        let at = self.now.mono + after;
        self.timers.insert((at, timer));
        at
    }

    pub(super) fn arm_at(&mut self, at: Instant, timer: Timer) {
        self.timers.insert((at, timer));
    }

    pub(super) fn disarm(&mut self, at: Instant, timer: Timer) {
        self.timers.remove(&(at, timer));
    }

    /// Issues a write of the node's own, on behalf of the record's owner.
    pub(super) fn persist_own(&mut self, write: Write) -> u64 {
        self.persist(false, write)
    }

    /// Issues a record of a group on behalf of its Raft.
    pub(super) fn persist_for_group(&mut self, group: GroupId, write: raft::Write) -> u64 {
        self.persist_own(Write::Group { group, write })
    }

    /// Issues a write and returns its number in the lane. `counted` is true if the owner's machine issued it.
    pub(super) fn persist(&mut self, counted: bool, write: Write) -> u64 {
        let bytes = write.payload_bytes();
        let token = self.gate.issue(write.owner().writer(), counted, bytes);
        self.disk_waits();
        self.checkpoints.issued(token.seq, bytes, &write);
        if let Some(file) = write.snapshot() {
            self.files.named(file.id);
        }
        let forgotten = write.forgets().then(|| write.owner());
        self.emit(Action::Persist { token, write });
        if let Some(owner) = forgotten {
            self.drop_files_of(owner);
        }
        token.seq
    }

    /// Adds a group; its first tick is due at once.
    pub(super) fn add_group(&mut self, id: GroupId, group: Group) {
        self.group_deadlines.insert((Instant::ZERO, id));
        self.groups.insert(id, group);
    }

    /// Takes a group out, with its deadline.
    pub(super) fn remove_group(&mut self, id: GroupId) -> Option<Group> {
        let group = self.groups.remove(&id)?;
        group.deadline.map(|at| self.group_deadlines.remove(&(at, id)));
        self.unapplied.remove(&id);
        Some(group)
    }

    /// A node whose machines are restored. Each is due at once.
    pub(super) fn assemble(parts: Parts) -> Self {
        let super::Start { config, federation, replica, boot, seed, name, address } = parts.start;
        let coordinator = coordinator::Coordinator::new(replica.node, config.coordinator.clone());
        let due = |group: &GroupId| (Instant::ZERO, *group);
        let is_behind = |(_, group): &(&GroupId, &Group)| group.raft.commit() > group.applied;
        let unapplied = parts.groups.iter().filter(is_behind).map(|(id, _)| *id).collect();
        Self {
            federation,
            me: replica,
            boot,
            lineage: parts.lineage,
            seed,
            name,
            address,
            now: Now { mono: Instant::ZERO, wall: crate::time::WallTime::default() },
            phase: Phase::default(),
            group_deadlines: parts.groups.keys().map(due).collect(),
            groups: parts.groups,
            raft_out: Outbox::new(),
            replication: Stepper::new(parts.replication),
            gossip: Stepper::new(parts.gossip),
            discovery: Stepper::new(parts.discovery),
            coordinator: Stepper::new(coordinator),
            gate: parts.gate,
            checkpoints: parts.checkpoints,
            peers: parts.peers,
            doubt: Doubt::default(),
            registry_view: parts.registry_view,
            bootstrap: BootstrapState::default(),
            genesis: parts.genesis,
            join: JoinState::default(),
            admission: Admission::default(),
            requests: Requests::new(boot.nonce, config.bounds.sessions),
            exports: ExportState::default(),
            timers: BTreeSet::new(),
            tasks: VecDeque::new(),
            unapplied,
            capturing: BTreeSet::new(),
            out: Outbox::new(),
            durable: Vec::new(),
            files: Files::new(config.bounds.chunk_bytes),
            written: Vec::new(),
            released: Vec::new(),
            config,
        }
    }
}

/// Something that this step still has to do.
#[derive(Debug)]
pub(super) enum Task {
    Raft(GroupId, raft::Event),
    Replication(replication::Event),
    Gossip(gossip::Event),
    Discovery(discovery::Event),
    Coordinator(coordinator::Event),
    /// Apply committed entries of the group.
    Apply(GroupId),
    /// Handle that a leader's snapshot replaced the group's state.
    Installed(GroupId),
    /// Retry the requests that wait for a leader of the group.
    Wake(GroupId),
    /// Try the pending request with this key.
    Submit(u64),
    /// Tell all machines what the registry says.
    Registry,
    /// Bring the group's learners in line with the registry, if this node leads it.
    Align(GroupId),
}

/// The node's own timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Retry or expire the pending request with this key.
    Request(u64),
    /// Repeat the messages of a founding: the founder's, and those of a voter that waits for its end.
    Bootstrap,
    /// Ask a peer to be let in.
    Join,
    /// Bring the group's learners in line with the registry.
    Align(GroupId),
    /// Report this node's load to the other members.
    Report,
    /// Checkpoint the registry after a change.
    Registry,
    /// Checkpoints may begin again, after one had no room.
    Checkpoint,
    /// Offer leadership again, because the disk is still full.
    OfferLeadership,
    /// Ask the voters again whether they count this process as linked.
    Doubt,
    /// See whether the disk still takes writes.
    DiskLook,
    /// End exports that nobody reads.
    Exports,
    /// End the stop: answer what is not answered yet.
    StopEnds,
}

/// A machine with its outbox and its cached deadline, and the code that steps it.
#[derive(Debug)]
pub(super) struct Stepper<M: Machine> {
    pub(super) machine: M,
    out: Outbox<M::Action>,
    deadline: Option<Instant>,
}

impl<M: Machine> Stepper<M> {
    /// Due at once: the first step arms the machine's timers.
    pub(super) const fn new(machine: M) -> Self {
        Self { machine, out: Outbox::new(), deadline: Some(Instant::ZERO) }
    }

    /// Steps the machine and returns the outbox with its actions. [`Stepper::put_back`] keeps the outbox's memory.
    fn step(&mut self, now: Now, event: M::Event) -> Outbox<M::Action> {
        let mut out = mem::take(&mut self.out);
        self.machine.step(now, event, &mut out);
        self.deadline = self.machine.deadline();
        out
    }

    fn put_back(&mut self, out: Outbox<M::Action>) {
        self.out = out;
    }
}

/// The phase of a process, from its first step to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phase {
    /// Whether the first step was made.
    started: bool,
    pub(super) stopping: bool,
    pub(super) disk_full: bool,
    /// Bytes that a full disk still takes.
    pub(super) disk_room: u64,
    /// Whether writes wait for the disk, and it has taken none for too long.
    pub(super) disk_stalled: bool,
    /// Since when the disk has taken nothing of what waits for it; `None` while nothing waits.
    pub(super) disk_waits_since: Option<Instant>,
    /// Whether the timer to look at the disk is armed.
    pub(super) disk_look_armed: bool,
    /// Whether the timer to offer leadership again is armed.
    pub(super) offer_armed: bool,
    /// Why the node went silent for good; `None` while it works.
    pub(super) fenced: Option<&'static str>,
}

/// The restored parts that a node is assembled from.
pub(super) struct Parts {
    pub(super) start: super::Start,
    pub(super) groups: CountedMap<GroupId, Group>,
    pub(super) replication: replication::Replicator,
    pub(super) gossip: gossip::Gossip,
    pub(super) discovery: discovery::Discovery,
    pub(super) gate: DurabilityGate<Action>,
    pub(super) checkpoints: Checkpoints,
    pub(super) registry_view: RegistryView,
    pub(super) lineage: Lineage,
    pub(super) peers: Peers,
    pub(super) genesis: GenesisState,
}
