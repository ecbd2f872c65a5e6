//! The operator: founds the federation, creates the namespaces, lets clients in, and after healing looks whether all is
//! well again.
//!
//! The operator asks like any client, through requests. It reads replicas directly only to see whether they are equal.

use continuum_core::api::{
    Change, Edit, Level, Mutation, Namespace, Outcome, Policy, Reason, Request, Session, Strategy,
    Value,
};
use continuum_core::id::{NamespaceId, Role, SessionId, ShardId};
use continuum_core::node::Node;

use crate::clock::MS;
use crate::history::Space;
use crate::oracle::liveness::{self, Liveness};
use crate::oracle::{Verdict, replies, views};
use crate::plan::Plan;
use crate::process::{Asker, Process, address_of};
use crate::world::{Happening, World};

/// How often the operator looks.
const LOOK_NS: u64 = 100 * MS;
/// Clients are let in when so many eighths of the calm before the faults have passed, or once the setup is done.
const OPEN_EIGHTHS: u64 = 5;
/// The setup has to be done within so many milliseconds.
const SETUP_MS: u64 = 30_000;

/// What the operator is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Found the federation.
    Found,
    /// Create this namespace.
    Create(usize),
    /// Ask for the numbers of the namespaces.
    List,
    /// Clients ask.
    Serve,
    /// Faults are over; clients ask until there are enough operations.
    Healed,
    /// Clients have stopped; each node must serve.
    Probe,
    /// All nodes serve; replicas must become equal.
    Settle,
    /// All is well.
    Done,
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Operator {
    stage: Stage,
    slots: u16,
    voters: usize,
    waiting: bool,
    /// Whether clients were let in.
    opened: bool,
    /// When the stage began, and when healing began.
    since: u64,
    healed_at: u64,
    served: Vec<bool>,
    probes: u64,
    /// The namespaces as the registry numbers them.
    pub(crate) namespaces: Vec<(Space, NamespaceId)>,
    /// What is not equal at the end.
    unequal: Option<String>,
    /// When what was reached.
    pub(crate) liveness: Liveness,
}

impl Operator {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            stage: Stage::Found,
            slots: plan.workload.slots,
            voters: plan.cluster.voters,
            waiting: false,
            opened: false,
            since: 0,
            healed_at: 0,
            served: vec![false; plan.cluster.nodes],
            probes: 0,
            namespaces: Vec::new(),
            unequal: None,
            liveness: Liveness::default(),
        }
    }

    /// Whether clients may begin operations.
    pub(crate) const fn lets_clients_ask(&self) -> bool {
        matches!(self.stage, Stage::Serve | Stage::Healed)
    }

    /// Whether the federation is set up.
    pub(crate) const fn is_open(&self) -> bool {
        self.opened
    }

    /// Whether all is well at the end.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// What the stage is about, for messages.
    pub(crate) const fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Found => "the federation is founded",
            Stage::Create(_) => "the namespaces are created",
            Stage::List => "the namespaces are listed",
            Stage::Serve => "clients are served",
            Stage::Healed => "enough operations are acknowledged",
            Stage::Probe => "every node serves and every group has a leader",
            Stage::Settle => "replicas are equal",
            Stage::Done => "done",
        }
    }

    /// All shards of the eventual namespaces.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        let eventual = self.namespaces.iter().filter(|(space, _)| *space != Space::Strong);
        eventual.flat_map(|(_, namespace)| {
            (0..self.slots).map(|slot| ShardId { namespace: *namespace, slot })
        })
    }

    /// The answer to a setup request.
    pub(crate) fn told(&mut self, outcome: &Outcome) {
        self.waiting = false;
        let done = match (self.stage, outcome) {
            (Stage::Found, Outcome::Value(Value::Initialized)) => true,
            (Stage::Found, Outcome::Rejected(Reason::AlreadyFormed)) => true,
            (Stage::Create(_), Outcome::Rejected(Reason::NamespaceExists)) => true,
            (Stage::Create(_), Outcome::Committed { .. } | Outcome::Value(_)) => true,
            (Stage::List, Outcome::Value(Value::Namespaces(list))) => self.number(list),
            _ => false,
        };
        if done {
            self.stage = match self.stage {
                Stage::Found => Stage::Create(0),
                Stage::Create(at) if at + 1 < Space::ALL.len() => Stage::Create(at + 1),
                Stage::Create(_) => Stage::List,
                _ => Stage::Serve,
            };
        }
    }

    fn number(&mut self, list: &[Namespace]) -> bool {
        let number = |space: Space| {
            let found = list.iter().find(|namespace| namespace.name == space.name())?;
            Some((space, found.id))
        };
        self.namespaces = Space::ALL.iter().filter_map(|space| number(*space)).collect();
        self.namespaces.len() == Space::ALL.len()
    }

    /// A setup request was lost.
    pub(crate) const fn failed(&mut self) {
        self.waiting = false;
    }

    /// A node answered a probe.
    pub(crate) fn probed(&mut self, node: usize, outcome: &Outcome) {
        if matches!(outcome, Outcome::Committed { .. }) {
            self.served[node] = true;
        }
    }

    fn request(&self) -> Option<Request> {
        match self.stage {
            Stage::Found => {
                Some(Request::Init { voters: (1..self.voters).map(address_of).collect() })
            }
            Stage::Create(at) => {
                let space = Space::ALL[at];
                let policy = match space {
                    Space::Strong => Policy::Strong,
                    Space::Siblings | Space::Discard => Policy::Eventual {
                        strategy: Strategy::LastWriterWins,
                        slots: self.slots,
                        discard: space == Space::Discard,
                    },
                };
                let id = SessionId([0xee; 16]);
                let session = Some(Session { id, seq: at as u64 });
                Some(Request::CreateNamespace { name: space.name().to_owned(), policy, session })
            }
            Stage::List => Some(Request::Namespaces),
            _ => None,
        }
    }
}

impl World {
    /// The operator looks.
    pub(crate) fn operate(&mut self) {
        self.plan_in(LOOK_NS, Happening::Operate);
        let before = self.operator.stage;
        if !self.operator.waiting
            && let Some(request) = self.operator.request()
        {
            self.operator.waiting = true;
            let latency = self.network.latency(0, 0);
            self.plan_in(latency, Happening::Request { node: 0, asker: Asker::Operator, request });
        }
        match self.operator.stage {
            Stage::Healed => self.look_for_enough(),
            Stage::Probe => self.probe(),
            Stage::Settle => self.look_for_equality(),
            Stage::Serve if self.operator.opened && self.operator.healed_at > 0 => self.heal(),
            Stage::Serve if !self.operator.opened => {
                self.operator.opened = true;
                // At a time of the plan, so that the setup's length moves no operation.
                let at = self.plan.calm_ms * MS * OPEN_EIGHTHS / 8;
                for client in 0..self.clients.count() {
                    let at = at.max(self.now) + client as u64 * 7 * MS;
                    self.plan_at(at, Happening::Wake { client });
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
                self.processes[node].clock.correct();
                let losses = self.standing[node].losses;
                self.notice(node, losses);
                self.plan_in(0, Happening::Start { node });
            }
        }
        if self.operator.stage == Stage::Serve && self.operator.opened {
            self.operator.stage = Stage::Healed;
            self.operator.since = self.now;
        }
    }

    /// What has to be reached by now.
    pub(crate) fn check_liveness(&self) -> Verdict {
        let operator = &self.operator;
        let name = operator.stage_name();
        let waited = self.now.saturating_sub(operator.since);
        match operator.stage {
            Stage::Found | Stage::Create(_) | Stage::List => {
                liveness::check(name, false, self.now, SETUP_MS.max(self.plan.heal_ms() + SETUP_MS))
            }
            Stage::Healed | Stage::Probe => {
                let timeout = self.plan.cluster.election_timeout_ms;
                let led = operator.liveness.leader_ns.is_some();
                let healed = self.now.saturating_sub(operator.healed_at);
                let bound = liveness::LEADER_TIMEOUTS * timeout;
                liveness::check("every group has a leader", led, healed, bound)?;
                liveness::check(name, false, waited, liveness::SERVE_MS)
            }
            Stage::Settle => {
                let what = format!("{name}: {}", operator.unequal.as_deref().unwrap_or_default());
                let furthest = self.processes.iter().map(|process| process.clock.furthest_ms());
                let ahead_ms = furthest.max().unwrap_or(0);
                let reach_ms = self.plan.config().replication.ahead_ms_max;
                let bound = liveness::equal_ms(ahead_ms, reach_ms);
                liveness::check(&what, false, waited, bound)
            }
            Stage::Serve | Stage::Done => Ok(()),
        }
    }

    fn look_for_enough(&mut self) {
        self.look_for_leaders();
        // Not once for all: that a disk is void is found out when its process starts.
        self.clients.homes = self.core().collect();
        if self.clients.history.acknowledged >= self.plan.workload.operations_min {
            self.clients.give_up_all(self.now);
            self.operator.stage = Stage::Probe;
        }
    }

    fn look_for_leaders(&mut self) {
        if self.operator.liveness.leader_ns.is_none() && self.is_led() {
            self.operator.liveness.leader_ns = Some(self.now - self.operator.healed_at);
        }
    }

    /// Whether every group that some node of the core has is led by one of them.
    fn is_led(&self) -> bool {
        let nodes = || self.core().filter_map(|node| self.processes[node].node.as_ref());
        let leads = |group| {
            nodes().any(|node| node.raft(group).is_some_and(|raft| raft.role() == Role::Leader))
        };
        nodes().flat_map(Node::groups).all(leads)
    }

    /// Asks every node of the core that has not served yet for a strong write.
    fn probe(&mut self) {
        self.look_for_leaders();
        if self.core().all(|node| self.operator.served[node])
            && self.operator.liveness.leader_ns.is_some()
        {
            self.operator.liveness.served_ns = Some(self.now - self.operator.healed_at);
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
            self.plan_in(MS, Happening::Request { node, asker: Asker::Probe, request });
        }
    }

    /// Looks whether all replicas of the core are equal, of all shards and of all groups, and nothing is under way.
    fn look_for_equality(&mut self) {
        self.operator.unequal = self.find_difference();
        if self.operator.unequal.is_none() {
            self.operator.liveness.equal_ns = Some(self.now - self.operator.since);
            self.operator.stage = Stage::Done;
        }
    }

    /// What is not equal yet, or under way.
    fn find_difference(&self) -> Option<String> {
        if let Some(broken) = self.processes.iter().find_map(|p| replies::check_end(p).err()) {
            return Some(broken.what);
        }
        if let Some(what) = self.find_waiting_tenant() {
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
        if let Some(what) = views::difference(&nodes) {
            return Some(what);
        }
        // What waits on all replicas alike is in no root.
        let waiting = nodes.map(|node| node.replicator().waiting()).sum::<usize>();
        if waiting > 0 {
            return Some(format!("{waiting} writes wait for their time"));
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
