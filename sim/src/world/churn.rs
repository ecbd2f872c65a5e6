//! Churn in the world: requests and answers travel, and in the end no node holds more than is owed.
//!
//! What a tenant asks next is in `workload::churn`; what must be there in the end is judged by the law `deleted-is-gone`.

use continuum_core::api::{Outcome, Request};

use crate::env::asker::{Asker, Turn};
use crate::env::clock::MS;
use crate::oracle::deleted_is_gone;
use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::verdict::Verdict;
use crate::workload::churn::{Stage, Tenant};
use crate::world::{Happening, World};

/// A tenant rests from so long to so long between two requests, ..
const PAUSE_NS: (u64, u64) = (20 * MS, 250 * MS);
/// .. and waits so long for an answer.
const PATIENCE_NS: u64 = 1_500 * MS;

const NODE: &str = "tenant.node";
const PAUSE: &str = "tenant.pause";
const LATENCY: &str = "tenant.latency";

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
            deleted_is_gone::check_leftovers(number, node)?;
            for tenant in &self.tenants {
                for incarnation in 0..=tenant.incarnation {
                    let name = tenant.name_of(incarnation);
                    let owed = owed(tenant, incarnation, has_losses);
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

    /// A tenant that has no certain answer yet.
    pub(crate) fn find_waiting_tenant(&self) -> Option<String> {
        let waits = self.tenants.iter().find(|tenant| tenant.asked)?;
        Some(format!("{} waits for an answer to {:?}", waits.name(), waits.stage))
    }
}

/// What a tenant was told of one of its namespaces. Not before it is certain.
fn owed(tenant: &Tenant, incarnation: u64, may_lose: bool) -> deleted_is_gone::Owed<'_> {
    let is_there = incarnation == tenant.incarnation && tenant.stage != Stage::Create;
    let policy = is_there.then(|| tenant.nature());
    deleted_is_gone::Owed { policy, values: &tenant.acknowledged, may_lose }
}
