//! Churn in the world: it carries requests and replies, and checks at the end that no node holds more than is owed.
//!
//! This module does not choose requests (`workload::churn`) and does not judge (the law `deleted-is-gone`).

use continuum_core::api::{Outcome, Request};

use crate::env::clock::MS;
use crate::env::requester::{ChurnRequest, Requester};
use crate::oracle::deleted_is_gone;
use crate::rng::stream;
use crate::verdict::Verdict;
use crate::workload::churn::{ChurnClient, Stage};
use crate::world::{World, WorldEvent};

/// Shortest and longest pause of a churn client between two requests.
const PAUSE_NS: (u64, u64) = (20 * MS, 250 * MS);
/// How long a churn client waits for a reply.
const PATIENCE_NS: u64 = 1_500 * MS;

const NODE: &str = "tenant.node";
const PAUSE: &str = "tenant.pause";
const LATENCY: &str = "tenant.latency";

impl World {
    /// A fault adds a churn client.
    pub(crate) fn add_churn_client(&mut self, fault: usize) {
        let planned = &self.plan.faults[fault];
        self.churn_clients.push(ChurnClient::new(fault, planned, self.draws));
        self.schedule_in(0, WorldEvent::Churn { id: ChurnRequest { fault, number: 0 } });
    }

    /// A churn client sends its next request, unless this one was answered already.
    pub(crate) fn churn_asks(&mut self, id: ChurnRequest) {
        let is_over = !self.active[id.fault];
        let is_open = self.operator.is_open();
        let nodes: Vec<usize> = self.clients.homes.clone();
        let mut clients = self.churn_clients.iter_mut();
        let Some(client) = clients.find(|client| client.fault == id.fault) else { return };
        if client.number != id.number || (is_over && !client.is_waiting) {
            return;
        }
        if !is_open {
            return self.schedule_in(PATIENCE_NS, WorldEvent::Churn { id });
        }
        // A request that timed out is sent again under another number.
        client.number += u64::from(client.is_waiting);
        client.is_waiting = true;
        let id = ChurnRequest { number: client.number, ..id };
        let name = client.stream(NODE);
        let node = nodes[self.draws.below(name, id.number, nodes.len() as u64) as usize];
        let request = client.request();
        if matches!(request, Request::CreateNamespace { .. } | Request::DeleteNamespace { .. }) {
            self.fired.count(client.kind);
        }
        let latency = self.churn_latency(id, false);
        let requester = Requester::Churn(id);
        self.schedule_in(latency, WorldEvent::Request { node, requester, request });
        self.schedule_in(PATIENCE_NS, WorldEvent::Churn { id });
    }

    /// The latency of a churn client's request, or of the reply to it.
    pub(crate) fn churn_latency(&self, id: ChurnRequest, is_reply: bool) -> u64 {
        let (low, high) = self.network.latency_ns;
        let name = stream(LATENCY, id.fault as u64);
        self.draws.between(name, id.number << 1 | u64::from(is_reply), low, high)
    }

    /// A churn client's request was answered; or lost, when there is no outcome.
    pub(crate) fn on_churn_reply(&mut self, id: ChurnRequest, outcome: Option<&Outcome>) {
        let waits =
            |client: &&mut ChurnClient| client.fault == id.fault && client.number == id.number;
        let Some(client) = self.churn_clients.iter_mut().find(waits) else { return };
        match outcome {
            Some(outcome) => client.on_reply(outcome),
            None => client.number += 1,
        }
        let (number, name) = (client.number, client.stream(PAUSE));
        let after = self.draws.between(name, number, PAUSE_NS.0, PAUSE_NS.1);
        self.schedule_in(after, WorldEvent::Churn { id: ChurnRequest { number, ..id } });
    }

    /// Checks that every node of the core holds what churn clients know, and nothing more.
    pub(crate) fn check_churn(&self) -> Verdict {
        let has_losses = self.has_losses();
        for number in self.core() {
            let Some(node) = &self.processes[number].node else { continue };
            deleted_is_gone::check_leftovers(number, node)?;
            for client in &self.churn_clients {
                deleted_is_gone::check_created(client.created_twice.as_deref())?;
                for incarnation in 0..=client.incarnation {
                    let name = client.name_of(incarnation);
                    let owed = owed(client, incarnation, has_losses);
                    deleted_is_gone::check(
                        number,
                        &name,
                        &owed,
                        &deleted_is_gone::Held::of(node, &name),
                    )?;
                }
            }
        }
        Ok(())
    }

    /// A churn client without a certain answer, if there is one.
    pub(crate) fn find_waiting_churn(&self) -> Option<String> {
        let waits = self.churn_clients.iter().find(|client| client.is_waiting)?;
        Some(format!("{} waits for an answer to {:?}", waits.name(), waits.stage))
    }
}

/// The content that a churn client may expect of one of its namespaces. Call it once all answers are certain.
fn owed(client: &ChurnClient, incarnation: u64, may_lose: bool) -> deleted_is_gone::Owed<'_> {
    let is_there = incarnation == client.incarnation && client.stage != Stage::Create;
    let policy = is_there.then(|| client.policy());
    deleted_is_gone::Owed { policy, values: &client.acknowledged, may_lose }
}
