//! Tenants: each makes a namespace, fills it, looks into it and deletes it, again and again (`Kind::Churn`).
//!
//! A tenant asks one thing at a time, and asks it again, of another node, until the answer is certain; so in the end it
//! knows whether its namespace is there and what it was told of it. When its fault ends it stops as soon as that is so.
//! What must be there in the end is judged in `oracle/tenancy`. Chance is by position: tenant and turn.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Level, Mutation, Outcome, Policy, Query, Reason, Request, Session, Strategy,
};
use continuum_core::id::SessionId;

use crate::clock::MS;
use crate::draw::{Draws, stream};
use crate::fault::Kind;
use crate::oracle::{Verdict, tenancy};
use crate::process::Asker;
use crate::world::{Happening, World};

/// A tenant rests from so long to so long between two requests, ..
const PAUSE_NS: (u64, u64) = (20 * MS, 250 * MS);
/// .. and waits so long for an answer.
const PATIENCE_NS: u64 = 1_500 * MS;
/// Writes to one namespace.
const WRITES: (u64, u64) = (2, 9);
/// Keys of one namespace: some are written more than once.
const KEYS: u64 = 4;

const NODE: &str = "tenant.node";
const PAUSE: &str = "tenant.pause";
const NATURE: &str = "tenant.nature";
const LATENCY: &str = "tenant.latency";

/// One request of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The fault that brought the tenant.
    pub(crate) fault: usize,
    /// The number of the request.
    pub(crate) number: u64,
}

/// What a tenant wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Create,
    /// So many writes were acknowledged.
    Fill(u64),
    /// So many reads were answered.
    Look(u64),
    Delete,
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    fault: usize,
    /// What it is called and drawn by: not the fault's place, which moves when others are left out.
    window: (u64, u64),
    draws: Draws,
    /// Which of its namespaces this is.
    incarnation: u64,
    stage: Stage,
    /// The request that it waits for, or makes next.
    number: u64,
    /// Whether what it wants was asked for, so that it may happen yet.
    asked: bool,
    /// What was acknowledged of the namespace that is there.
    pub(crate) acknowledged: BTreeMap<Bytes, Bytes>,
}

impl Tenant {
    const fn new(fault: usize, window: (u64, u64), draws: Draws) -> Self {
        Self {
            fault,
            window,
            draws,
            incarnation: 0,
            stage: Stage::Create,
            number: 0,
            asked: false,
            acknowledged: BTreeMap::new(),
        }
    }

    /// What one of its namespaces is called. Names are not used again: until a node has learnt of a deletion it serves
    /// what was deleted, under that name.
    pub(crate) fn name_of(&self, incarnation: u64) -> String {
        let (at_ms, for_ms) = self.window;
        format!("tenant-{at_ms}-{for_ms}-{incarnation}")
    }

    /// What the namespace is called that it is about.
    pub(crate) fn name(&self) -> String {
        self.name_of(self.incarnation)
    }

    /// The name of one of its streams.
    fn stream(&self, label: &str) -> u64 {
        stream(label, self.window.0 << 32 | self.window.1)
    }

    /// What it was told of one of its namespaces. Not before it is certain.
    fn owed(&self, incarnation: u64, may_lose: bool) -> tenancy::Owed<'_> {
        let is_there = incarnation == self.incarnation && self.stage != Stage::Create;
        let policy = is_there.then(|| self.nature());
        tenancy::Owed { policy, values: &self.acknowledged, may_lose }
    }

    fn nature(&self) -> Policy {
        let name = self.stream(NATURE);
        if self.draws.chance(name, self.incarnation, 500_000) {
            return Policy::Strong;
        }
        let slots = self.draws.between(name ^ 1, self.incarnation, 1, 3) as u16;
        Policy::Eventual { strategy: Strategy::LastWriterWins, slots, discard: false }
    }

    /// How many writes and reads this namespace gets.
    fn writes(&self) -> u64 {
        let name = self.stream(NATURE) ^ 2;
        self.draws.between(name, self.incarnation, WRITES.0, WRITES.1)
    }

    /// The key and the value of a write.
    fn write(&self, count: u64) -> (Bytes, Bytes) {
        let key = format!("k{}", count % KEYS);
        (key.into(), format!("{}.{count}", self.incarnation).into())
    }

    /// A retry is the same command: what was asked first and comes late must not undo what was asked since.
    fn session(&self, seq: u64) -> Session {
        let mut id = [0; 16];
        let (at, by) = self.window;
        id[..8].copy_from_slice(&(at << 32 | by).to_be_bytes());
        id[8..].copy_from_slice(&self.incarnation.to_be_bytes());
        Session { id: SessionId(id), seq }
    }

    fn request(&self) -> Request {
        let namespace = self.name();
        match self.stage {
            Stage::Create => {
                let session = Some(self.session(0));
                Request::CreateNamespace { name: namespace, policy: self.nature(), session }
            }
            Stage::Fill(count) => {
                let (key, value) = self.write(count);
                let edits = vec![Edit { field: Bytes::new(), change: Change::Put(value) }];
                let mutations = vec![Mutation { key, edits, context: None }];
                let session = Some(self.session(count));
                Request::Write { namespace, mutations, level: Level::Durable, session }
            }
            Stage::Look(count) => {
                let (key, _) = self.write(count);
                Request::Read { namespace, query: Query::Get { key, field: Bytes::new() } }
            }
            Stage::Delete => {
                Request::DeleteNamespace { name: namespace, session: Some(self.session(1)) }
            }
        }
    }

    /// Takes in an answer to what it waits for. One that is not certain changes nothing: it asks again.
    fn told(&mut self, outcome: &Outcome) {
        self.number += 1;
        let done = match (self.stage, outcome) {
            (_, Outcome::Committed { .. } | Outcome::Value(_)) => true,
            // It was made by an attempt of which the answer was lost, and so was that it was.
            (Stage::Create, Outcome::Rejected(Reason::NamespaceExists)) => true,
            _ => false,
        };
        if done {
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        self.asked = false;
        self.stage = match self.stage {
            Stage::Create => Stage::Fill(0),
            Stage::Fill(count) => {
                let (key, value) = self.write(count);
                self.acknowledged.insert(key, value);
                if count + 1 < self.writes() { Stage::Fill(count + 1) } else { Stage::Look(0) }
            }
            Stage::Look(count) if count + 1 < self.writes() => Stage::Look(count + 1),
            Stage::Look(_) => Stage::Delete,
            Stage::Delete => {
                self.acknowledged.clear();
                self.incarnation += 1;
                Stage::Create
            }
        };
    }
}

impl World {
    /// A fault brings a tenant.
    pub(crate) fn admit(&mut self, fault: usize) {
        let window = (self.plan.faults[fault].at_ms, self.plan.faults[fault].for_ms);
        self.tenants.push(Tenant::new(fault, window, self.draws));
        self.plan_in(0, Happening::Tenant { turn: Turn { fault, number: 0 } });
    }

    /// A tenant asks, unless it has an answer already.
    pub(crate) fn tenant_asks(&mut self, turn: Turn) {
        let is_over = !self.active[turn.fault];
        let is_open = self.operator.is_open();
        let whom: Vec<usize> = self.clients.homes.clone();
        let Some(tenant) = self.tenants.iter_mut().find(|tenant| tenant.fault == turn.fault) else {
            return;
        };
        if tenant.number != turn.number || (is_over && !tenant.asked) {
            return;
        }
        if !is_open {
            return self.plan_in(PATIENCE_NS, Happening::Tenant { turn });
        }
        // A request that is not answered in time is made again under another number.
        tenant.number += u64::from(tenant.asked);
        tenant.asked = true;
        let turn = Turn { number: tenant.number, ..turn };
        let name = tenant.stream(NODE);
        let node = whom[self.draws.below(name, turn.number, whom.len() as u64) as usize];
        let request = tenant.request();
        if matches!(request, Request::CreateNamespace { .. } | Request::DeleteNamespace { .. }) {
            self.fired.count(Kind::Churn);
        }
        let latency = self.tenant_latency(turn, false);
        let asker = Asker::Tenant(turn);
        self.plan_in(latency, Happening::Request { node, asker, request });
        self.plan_in(PATIENCE_NS, Happening::Tenant { turn });
    }

    /// How long a request of a tenant is under way, or the reply to it.
    pub(crate) fn tenant_latency(&self, turn: Turn, is_reply: bool) -> u64 {
        let (low, high) = self.network.latency_ns;
        let name = stream(LATENCY, turn.fault as u64);
        self.draws.between(name, turn.number << 1 | u64::from(is_reply), low, high)
    }

    /// A tenant's request was answered, or nobody is there who could.
    pub(crate) fn tenant_told(&mut self, turn: Turn, outcome: Option<&Outcome>) {
        let waits =
            |tenant: &&mut Tenant| tenant.fault == turn.fault && tenant.number == turn.number;
        let Some(tenant) = self.tenants.iter_mut().find(waits) else { return };
        match outcome {
            Some(outcome) => tenant.told(outcome),
            None => tenant.number += 1,
        }
        let (number, name) = (tenant.number, tenant.stream(PAUSE));
        let after = self.draws.between(name, number, PAUSE_NS.0, PAUSE_NS.1);
        self.plan_in(after, Happening::Tenant { turn: Turn { number, ..turn } });
    }

    /// Tenants have what they know, and no node has more.
    pub(crate) fn check_tenants(&self) -> Verdict {
        let has_losses = self.has_losses();
        for number in self.core() {
            let Some(node) = &self.processes[number].node else { continue };
            tenancy::check_leftovers(number, node)?;
            for tenant in &self.tenants {
                for incarnation in 0..=tenant.incarnation {
                    let name = tenant.name_of(incarnation);
                    let owed = tenant.owed(incarnation, has_losses);
                    tenancy::check(number, &name, &owed, &tenancy::Held::of(node, &name))?;
                }
            }
        }
        Ok(())
    }

    /// A tenant that has no certain answer yet.
    pub(crate) fn find_waiting_tenant(&self) -> Option<String> {
        let waits = self.tenants.iter().find(|tenant| tenant.asked)?;
        Some(format!("{} waits for an answer to {:?}", waits.name(), waits.stage))
    }
}
