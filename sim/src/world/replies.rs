//! Replies to clients as they leave: the laws that compare an answer with the disks at this moment, and the client's
//! mutations that a step may carry out.
//!
//! This module does not judge what replies answer (`oracle`), and does not hand them to clients (`dispatch`).

use continuum_core::api::Outcome;
use continuum_core::id::{Dot, RequestId};
use continuum_core::node::Action;
use continuum_core::raft::Position;
use continuum_core::replication::{self, Replicator};
use continuum_core::wal::Write;

use crate::env::process::Process;
use crate::env::requester::Requester;
use crate::oracle::writes::{RequestedWrite, is_member};
use crate::oracle::{Cause, durability_at_send, one_reply, replicated_level};
use crate::trace::{fingerprint, fold};
use crate::verdict::Verdict;
use crate::workload::client::Clients;
use crate::workload::history::{Body, Responder, Space};
use crate::world::{World, WorldEvent};

use crate::world::hostile;
impl World {
    /// A reply leaves a node: it is judged, and delivered after a while.
    pub(super) fn reply_leaves(&mut self, me: usize, id: RequestId, outcome: Outcome) -> Verdict {
        self.trace.action(4, fold(id.0, fingerprint(&outcome)));
        let requester = one_reply::check(&mut self.processes[me], id)?;
        self.check_reply(me, requester, &outcome)?;
        let (generation, losses) = (self.processes[me].generation, self.survival[me].losses);
        let store = self.processes[me].replica.store;
        let by = Responder { node: me, generation, store, losses };
        let latency = match requester {
            Requester::Client(attempt) => {
                let latency = self.clients.latency(attempt, true, self.network.latency_ns);
                if let Some(scene) = &mut self.scene {
                    scene.answers(self.now, me, attempt, &outcome, self.now + latency);
                }
                latency
            }
            Requester::Operator | Requester::Rival | Requester::Probe | Requester::Hostile => {
                self.network.latency(me, me)
            }
            Requester::Churn(request) => self.churn_latency(request, true),
        };
        self.schedule_in(latency, WorldEvent::Reply { requester, by, outcome });
        Ok(())
    }

    /// A reply to a client promises only what is on the disks by now.
    fn check_reply(&mut self, me: usize, requester: Requester, outcome: &Outcome) -> Verdict {
        if requester == Requester::Hostile {
            return hostile::check(outcome);
        }
        let Requester::Client(attempt) = requester else { return Ok(()) };
        let operation = &self.clients.history.operations[attempt.operation];
        let Body::Write { mutations, .. } = &operation.body else { return Ok(()) };
        let space = operation.space;
        let promised = replicated_level::promised_by(outcome);
        if space == Space::Strong {
            let called = operation.called;
            return promised
                .map_or(Ok(()), |others| self.check_replicated((me, others), called, outcome));
        }
        let numbers = &self.operator.namespaces;
        let Some((_, namespace)) = numbers.iter().find(|(known, _)| *known == space) else {
            return Ok(());
        };
        let shard = Replicator::shard_for(*namespace, self.plan.workload.slots, &mutations[0].key);
        durability_at_send::check_reply(&self.processes[me].disk.durable, shard, outcome)?;
        let Some(others) = promised else { return Ok(()) };
        let dots = self.oracles.writes.made_for(attempt.operation);
        let receipt = match outcome {
            Outcome::Committed { receipt, .. } => receipt.context.as_ref(),
            _ => None,
        };
        let receipt = receipt.map(|context| context.peek().unwrap_or_default());
        let named = |dot: &Dot| receipt.as_ref().is_none_or(|seen| seen.dots.contains(dot));
        let forgot = self.forgot_unknown_to(me, operation.called);
        replicated_level::check_eventual(&self.processes, forgot, me, others, dots, named)
    }

    /// Whether a node's word is unproved, and the registry does not tell `me` of the store that replaced the one that
    /// gave it.
    fn forgot_unknown_to(&self, me: usize, called: u64) -> impl Fn(usize) -> bool {
        move |node| {
            let survival = &self.survival[node];
            let replica = self.processes[node].replica;
            let is_told = self.processes[me].node.as_ref().is_some_and(|me| is_member(me, replica));
            let known = survival.lost_at == survival.emptied_at && is_told;
            let lost = survival.lost_at.is_some_and(|at| at >= called) && !known;
            lost || self.hostile.learners.contains(&node)
        }
    }

    /// Whether a node may have said that it holds something which its disk does not have: the disk lost data since, or
    /// somebody spoke in the node's name.
    fn is_word_unproved(&self, node: usize, since: u64) -> bool {
        let lost = self.survival[node].lost_at.is_some_and(|at| at >= since);
        lost || self.hostile.learners.contains(&node)
    }

    /// A strong write is on as many other disks as its answer says.
    fn check_replicated(
        &mut self,
        promise: (usize, usize),
        called: u64,
        outcome: &Outcome,
    ) -> Verdict {
        let Outcome::Committed { receipt, .. } = outcome else { return Ok(()) };
        let (Some(group), Some(index)) = (self.strong_group(), receipt.revision) else {
            return Ok(());
        };
        let Some(term) = self.oracles.ledger.group_mut(group).committed_at(index) else {
            return Ok(());
        };
        let position = Position { term, index };
        // Commitment counts the promises of a configuration, and a lost store is no reason to count again.
        let forgot = |node: usize| self.is_word_unproved(node, called);
        replicated_level::check_strong(&self.processes, forgot, group, promise, position)
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
