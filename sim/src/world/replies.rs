//! Replies to clients as they leave: the laws that compare an answer with the disks at this moment, and the client's
//! mutations that a step may carry out.
//!
//! This module does not deliver replies, and does not judge what they answer (`oracle`).

use continuum_core::api::Outcome;
use continuum_core::node::Action;
use continuum_core::raft::Position;
use continuum_core::replication::{self, Replicator};
use continuum_core::wal::Write;

use crate::env::process::Process;
use crate::env::requester::Requester;
use crate::oracle::writes::RequestedWrite;
use crate::oracle::{Cause, durability_at_send, replicated_level};
use crate::verdict::Verdict;
use crate::workload::client::Clients;
use crate::workload::history::{Body, Space};
use crate::world::World;

impl World {
    /// A reply to a client promises only what is on the disks by now.
    pub(super) fn check_reply(
        &mut self,
        me: usize,
        requester: Requester,
        outcome: &Outcome,
    ) -> Verdict {
        let Requester::Client(attempt) = requester else { return Ok(()) };
        let operation = &self.clients.history.operations[attempt.operation];
        let Body::Write { mutations, .. } = &operation.body else { return Ok(()) };
        let space = operation.space;
        let promised = replicated_level::promised_by(outcome);
        if space == Space::Strong {
            return promised.map_or(Ok(()), |others| self.check_replicated(me, others, outcome));
        }
        let numbers = &self.operator.namespaces;
        let Some((_, namespace)) = numbers.iter().find(|(known, _)| *known == space) else {
            return Ok(());
        };
        let shard = Replicator::shard_for(*namespace, self.plan.workload.slots, &mutations[0].key);
        durability_at_send::check_reply(&self.processes[me].disk.durable, shard, outcome)?;
        let Some(others) = promised else { return Ok(()) };
        let writes = &self.oracles.writes;
        let dots = writes.made_for(attempt.operation);
        replicated_level::check_eventual(&self.processes, writes, me, others, dots)
    }

    /// A strong write is on as many other disks as its answer says.
    fn check_replicated(&mut self, me: usize, others: usize, outcome: &Outcome) -> Verdict {
        let Outcome::Committed { receipt, .. } = outcome else { return Ok(()) };
        let (Some(group), Some(index)) = (self.strong_group(), receipt.revision) else {
            return Ok(());
        };
        let Some(term) = self.oracles.ledger.group_mut(group).committed_at(index) else {
            return Ok(());
        };
        let position = Position { term, index };
        replicated_level::check_strong(&self.processes, group, me, others, position)
    }
}

/// The clients' mutations that a step may carry out: those of the write that it was asked for; otherwise, if it makes
/// any, all that waited here for their namespace's id.
pub(super) fn wanted<'a>(
    clients: &'a Clients,
    process: &Process,
    cause: &Cause,
    actions: &[Action],
) -> Vec<RequestedWrite<'a>> {
    let of = |requester: &Requester| {
        let operation = match requester {
            Requester::Client(attempt) => Some(attempt.operation),
            _ => None,
        };
        let body = operation.map(|number| (number, &clients.history.operations[number].body));
        let mutations = match body {
            Some((number, Body::Write { mutations, .. })) => Some((number, mutations)),
            _ => None,
        };
        let each = mutations.into_iter();
        each.flat_map(|(number, mutations)| mutations.iter().map(move |one| (number, one)))
    };
    if let Some((request, ..)) = &cause.request {
        return process.requests.get(request).into_iter().flat_map(of).collect();
    }
    let makes = |action: &Action| {
        let Action::Persist { write: Write::Shard { write, .. }, .. } = action else {
            return false;
        };
        matches!(write, replication::Write::Dots { .. })
    };
    let waits = actions.iter().any(makes).then_some(&process.requests);
    waits.into_iter().flat_map(|requests| requests.values()).flat_map(of).collect()
}
