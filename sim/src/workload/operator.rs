//! The operator: it bootstraps the federation and creates the namespaces. Its stage says what it does next.
//!
//! Like any client, the operator sends requests. `world::healing` reads nodes directly and advances the stage after
//! healing.

use continuum_core::api::{
    Fingerprint, Namespace, Outcome, Policy, Reason, Request, Session, Strategy, Value,
};
use continuum_core::id::{NamespaceId, SessionId, ShardId};

use crate::env::process::address_of;
use crate::plan::Plan;
use crate::workload::history::Space;

/// The operator's present task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Bootstrap the federation.
    Bootstrap,
    /// Create this namespace.
    Create(usize),
    /// List the namespaces, to learn their ids.
    List,
    /// Clients run.
    Serve,
    /// Faults are over; clients run until enough operations were acknowledged.
    Healed,
    /// Clients have stopped; each node must serve a write.
    Probe,
    /// All nodes serve; replicas must become equal.
    Settle,
    /// Everything has recovered.
    Done,
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) stage: Stage,
    slots: u16,
    voters: usize,
    pub(crate) waiting: bool,
    /// Whether the federation of the plan's first voters has begun.
    pub(crate) has_begun: bool,
    /// Whether clients may run.
    pub(crate) opened: bool,
    /// When the stage began, and when healing began.
    pub(crate) since: u64,
    pub(crate) healed_at: u64,
    /// Number of acknowledged operations when the operator last looked, after healing.
    pub(crate) acknowledged: u64,
    pub(crate) served: Vec<bool>,
    pub(crate) probes: u64,
    /// The namespaces with the ids of the registry.
    pub(crate) namespaces: Vec<(Space, NamespaceId)>,
    /// The first difference between replicas at the end.
    pub(crate) unequal: Option<String>,
}

impl Operator {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            stage: Stage::Bootstrap,
            slots: plan.workload.slots,
            voters: plan.cluster.voters,
            waiting: false,
            has_begun: false,
            opened: false,
            since: 0,
            healed_at: 0,
            acknowledged: 0,
            served: vec![false; plan.cluster.nodes],
            probes: 0,
            namespaces: Vec::new(),
            unequal: None,
        }
    }

    /// Whether clients may begin operations.
    pub(crate) const fn admits_clients(&self) -> bool {
        matches!(self.stage, Stage::Serve | Stage::Healed)
    }

    /// Whether the federation is set up.
    pub(crate) const fn is_open(&self) -> bool {
        self.opened
    }

    /// Whether everything has recovered at the end.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The goal of the stage, for messages.
    pub(crate) const fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Bootstrap => "the federation is bootstrapped",
            Stage::Create(_) => "the namespaces are created",
            Stage::List => "the namespaces are listed",
            Stage::Serve => "clients are served",
            Stage::Healed => "the next operation is acknowledged",
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

    /// Takes the reply to a setup request.
    pub(crate) fn on_reply(&mut self, outcome: &Outcome) {
        self.waiting = false;
        let done = match (self.stage, outcome) {
            (Stage::Bootstrap, Outcome::Value(Value::Initialized)) => true,
            // Another operator may have begun it, or a federation beside it.
            (Stage::Bootstrap, Outcome::Rejected(Reason::AlreadyFormed)) => self.has_begun,
            (Stage::Create(_), Outcome::Rejected(Reason::NamespaceExists)) => true,
            (Stage::Create(_), Outcome::Committed { .. } | Outcome::Value(_)) => true,
            (Stage::List, Outcome::Value(Value::Namespaces(list))) => self.number(list),
            _ => false,
        };
        if done {
            self.stage = match self.stage {
                Stage::Bootstrap => Stage::Create(0),
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
    pub(crate) const fn on_lost(&mut self) {
        self.waiting = false;
    }

    /// Takes a node's reply to a probe.
    pub(crate) fn probed(&mut self, node: usize, outcome: &Outcome) {
        if matches!(outcome, Outcome::Committed { .. }) {
            self.served[node] = true;
        }
    }

    pub(crate) fn request(&self) -> Option<Request> {
        match self.stage {
            Stage::Bootstrap => {
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
                let session = Some(Session { id, seq: at as u64, request: Fingerprint::default() });
                Some(Request::CreateNamespace { name: space.name().to_owned(), policy, session })
            }
            Stage::List => Some(Request::Namespaces),
            _ => None,
        }
    }
}
