//! The operator in the world: it sends requests, lets clients start, and after healing checks that everything recovers.
//!
//! The operator reads nodes directly only to see whether groups have leaders and replicas are equal. This module does
//! not set the bounds on recovery; `oracle::liveness` does.

use continuum_core::api::{Change, Edit, Level, Mutation, Request};
use continuum_core::id::{GroupId, Role};
use continuum_core::node::Node;

use crate::env::clock::MS;
use crate::env::process::Process;
use crate::env::requester::Requester;
use crate::oracle::{liveness, one_reply, views};
use crate::verdict::Verdict;
use crate::workload::history::Space;
use crate::workload::operator::Stage;
use crate::world::{World, WorldEvent};

/// How often the operator looks.
const LOOK_NS: u64 = 100 * MS;
/// Clients start after this many eighths of the calm before the faults, or when the setup is done if that is later.
const OPEN_EIGHTHS: u64 = 5;
/// The setup must be done within this many milliseconds.
const SETUP_MS: u64 = 30_000;

impl World {
    /// The operator looks, and sends its next request.
    pub(crate) fn operate(&mut self) {
        self.schedule_in(LOOK_NS, WorldEvent::Operate);
        let before = self.operator.stage;
        if self.operator.healed_at == 0 {
            // A founding beside may be decided after its fault has ended, and after the federation is set up.
            self.end_rivals();
        }
        if !self.operator.waiting
            && let Some(request) = self.operator.request()
        {
            self.operator.waiting = true;
            let latency = self.network.latency(0, 0);
            self.schedule_in(
                latency,
                WorldEvent::Request { node: 0, requester: Requester::Operator, request },
            );
        }
        match self.operator.stage {
            Stage::Healed => self.check_operations(),
            Stage::Probe => self.probe(),
            Stage::Settle => self.check_equality(),
            Stage::Serve if self.operator.opened && self.operator.healed_at > 0 => self.heal(),
            Stage::Serve if !self.operator.opened => {
                self.operator.opened = true;
                // At a time from the plan, so that the length of the setup moves no operation.
                let at = self.plan.calm_ms * MS * OPEN_EIGHTHS / 8;
                for client in 0..self.clients.count() {
                    let at = at.max(self.now) + client as u64 * 7 * MS;
                    self.schedule_at(at, WorldEvent::Wake { client });
                }
            }
            _ => {}
        }
        if self.operator.stage != before {
            self.operator.since = self.now;
        }
    }

    /// Faults are over.
    pub(crate) fn heal(&mut self) {
        if self.operator.healed_at == 0 {
            self.operator.healed_at = self.now;
            if self.operator.opened {
                self.part_core_from_rest();
            }
            for node in 0..self.processes.len() {
                let losses = self.survival[node].losses;
                self.notice_old_store(node, losses);
                self.schedule_in(0, WorldEvent::Start { node });
            }
        }
        if self.operator.stage == Stage::Serve && self.operator.opened {
            self.operator.stage = Stage::Healed;
            self.operator.since = self.now;
        }
    }

    /// Checks that the present stage is not overdue.
    pub(crate) fn check_liveness(&self) -> Verdict {
        let operator = &self.operator;
        let name = operator.stage_name();
        let waited = self.now.saturating_sub(operator.since);
        match operator.stage {
            Stage::Bootstrap | Stage::Create(_) | Stage::List => {
                liveness::check(name, false, self.now, SETUP_MS.max(self.plan.heal_ms() + SETUP_MS))
            }
            Stage::Healed | Stage::Probe => {
                // Clients ask at their own pace, however well they are served.
                let load = &self.plan.workload;
                let pace = load.operations_min * load.think_ms_max / load.clients.max(1) as u64;
                let paced = if operator.stage == Stage::Healed { pace } else { 0 };
                let timeout = self.plan.cluster.election_timeout_ms;
                let led = self.liveness.leader_ns.is_some();
                let healed = self.now.saturating_sub(operator.healed_at);
                let bound = liveness::LEADER_TIMEOUTS * timeout;
                liveness::check("every group has a leader", led, healed, bound)?;
                liveness::check(name, false, waited, liveness::SERVE_MS + paced)
            }
            Stage::Settle => {
                let what = format!("{name}: {}", operator.unequal.as_deref().unwrap_or_default());
                liveness::check(&what, false, waited, liveness::EQUAL_MS)
            }
            Stage::Serve | Stage::Done => Ok(()),
        }
    }

    fn check_operations(&mut self) {
        self.check_leaders();
        // Each time anew: a void disk is found only when its process starts.
        self.clients.homes = self.core().collect();
        let acknowledged = self.clients.history.acknowledged;
        if acknowledged > self.operator.acknowledged {
            // A few clients that ask for levels out of reach may need long for the number, but never for the next one.
            self.operator.acknowledged = acknowledged;
            self.operator.since = self.now;
        }
        if acknowledged >= self.plan.workload.operations_min {
            self.clients.give_up_all(self.now);
            self.operator.stage = Stage::Probe;
        }
    }

    fn check_leaders(&mut self) {
        if self.liveness.leader_ns.is_none() && self.is_led() {
            self.liveness.leader_ns = Some(self.now - self.operator.healed_at);
        }
    }

    /// Whether every group of the core has a leader in the core.
    fn is_led(&self) -> bool {
        let nodes = || self.core().filter_map(|node| self.processes[node].node.as_ref());
        let leads = |group| {
            nodes().any(|node| node.raft(group).is_some_and(|raft| raft.role() == Role::Leader))
        };
        nodes().flat_map(Node::groups).all(leads)
    }

    /// Sends a strong write to every node of the core that has not served one yet.
    fn probe(&mut self) {
        self.check_leaders();
        if self.core().all(|node| self.operator.served[node]) && self.liveness.leader_ns.is_some() {
            self.liveness.served_ns = Some(self.now - self.operator.healed_at);
            self.operator.stage = Stage::Settle;
            return;
        }
        self.operator.probes += 1;
        if self.operator.probes % 5 != 1 {
            return;
        }
        let core: Vec<usize> = self.core().collect();
        for node in core.into_iter().filter(|node| !self.operator.served[*node]).collect::<Vec<_>>()
        {
            let value = format!("probe.{}.{node}", self.operator.probes);
            let change = Change::Put(value.into_bytes().into());
            let edits = vec![Edit { field: bytes::Bytes::new(), change }];
            let key = bytes::Bytes::from(format!("probe{node}"));
            let request = Request::Write {
                namespace: Space::Strong.name().to_owned(),
                mutations: vec![Mutation { key, edits, context: None }],
                level: Level::Durable,
                session: None,
            };
            self.schedule_in(
                MS,
                WorldEvent::Request { node, requester: Requester::Probe, request },
            );
        }
    }

    /// Checks whether all shards and groups are equal on the core's nodes and no request or write is open.
    fn check_equality(&mut self) {
        self.operator.unequal = self.find_difference();
        if self.operator.unequal.is_none() {
            self.liveness.equal_ns = Some(self.now - self.operator.since);
            self.operator.stage = Stage::Done;
        }
    }

    /// The first difference between nodes, or the first request or write that is still open.
    fn find_difference(&self) -> Option<String> {
        if let Some(broken) = self.processes.iter().find_map(|p| one_reply::check_end(p).err()) {
            return Some(broken.what);
        }
        if let Some(what) = self.find_waiting_churn() {
            return Some(what);
        }
        let view = |process: &Process| {
            let status = process.node.as_ref()?.status();
            let shards = status.shards.iter();
            let shards: Vec<_> = shards
                .map(|shard| (shard.namespace, shard.slot, shard.root, shard.writes))
                .collect();
            let groups = status.groups.iter();
            let groups: Vec<_> = groups.map(|group| (group.group, group.applied)).collect();
            status.formed.then_some((shards, groups))
        };
        let nodes = self.core().filter_map(|node| self.processes[node].node.as_ref());
        let is_voter = |node: &Node| {
            node.raft(GroupId::REGISTRY).is_some_and(|raft| raft.role() != Role::Learner)
        };
        let mut first = nodes.clone().filter(|n| self.oracles.geneses.is_first_voter(n.replica()));
        if let Some(node) = first.find(|node| !is_voter(node)) {
            return Some(format!("{:?} is a first voter and does not know it", node.replica()));
        }
        if let Some(what) = views::difference(&nodes) {
            return Some(what);
        }
        let mut core = self.core();
        let number = core.next()?;
        let first = view(&self.processes[number]);
        let other = core.find(|node| {
            let view = view(&self.processes[*node]);
            view.is_none() || view != first
        })?;
        let other_has = view(&self.processes[other]);
        Some(format!("node {number} has {first:?}, node {other} has {other_has:?}"))
    }
}
