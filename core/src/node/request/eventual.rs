//! Requests of eventual namespaces: this node reads and writes its own replica at once.
//!
//! A write is answered when its level is reached: in memory, on this node's disk, or on the disks of N other members as
//! well. Each mutation is an atomic write of its own, with a ticket of its own.
//!
//! This module does not merge or replicate (`replication`), and does not forward: every node holds every shard.

use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use crate::api::{
    Before, Context, Level, Mutation, Outcome, Policy, Query, Reason, Receipt, Request, Row, Value,
};
use crate::id::{NamespaceId, ShardId};
use crate::limits::{PAGE_ROWS_MAX, REQUEST_BYTES_MAX};
use crate::reach;
use crate::replication::{self, Replicator, Ticket};

use super::super::machine::{Node, Task};
use super::super::registry::Target;
use super::dedup::{self, Repeat};
use super::{Pending, Requests, Stage, check};

/// The progress of an eventual write.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Mutations applied here.
    accepted: u64,
    /// Mutations that are durable on as many other replicas as the level asks for.
    replicated: u64,
    /// Why a mutation was refused; the ones after it were not tried.
    refused: Option<Reason>,
    /// The receipt of the answer; it holds a context when the write is a single mutation.
    receipt: Receipt,
    /// The write's entry in the table of `dedup`, when it has a session and is the first.
    session: Option<dedup::SessionWrite>,
}

impl Requests {
    /// The pending request that holds a ticket, with its key.
    fn by_ticket(&mut self, ticket: Ticket) -> Option<(u64, &mut Pending)> {
        let (&key, pending) = self.pending.range_mut(..=ticket).next_back()?;
        (ticket - key < pending.ticket_count).then_some((key, pending))
    }
}

impl Node {
    /// Writes each mutation into its shard and answers when the level is reached.
    pub(super) fn write_eventual(&mut self, key: u64, target: Target) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        let session = pending.session();
        let Request::Write { mutations, level, .. } = &mut pending.request else { return };
        if let Err(reason) = check::check_consistency(mutations, false) {
            return self.refuse(key, reason);
        }
        let (mutations, level) = (mem::take(mutations), *level);
        if let Some(session) = session {
            match self.requests.eventual_writes.begin(target.id, session, key) {
                Repeat::First => {
                    self.remember_session(key, (target.id, session.id, session.seq));
                }
                Repeat::Reused => return self.refuse(key, Reason::SessionReused),
                Repeat::Answered(outcome) => {
                    reach!("node.session.repeated");
                    return self.finish_after(key, outcome, self.shards_token());
                }
                Repeat::InProgress => return self.set_stage(key, Stage::Duplicate),
            }
        }
        self.mutate(key, target, mutations, level);
        self.answer_when_reached(key, level);
    }

    fn remember_session(&mut self, key: u64, session: dedup::SessionWrite) {
        if let Some(pending) = self.requests.pending.get_mut(&key) {
            pending.progress.session = Some(session);
        }
    }

    /// Steps the replicator once for each mutation, up to the first that is refused.
    ///
    /// A strong write enqueues one task and learns its fate steps later. Here each verdict is needed at once, since a
    /// refusal stops the batch, and stepping directly is safe: no machine's actions are being read at this point.
    fn mutate(&mut self, key: u64, target: Target, mutations: Vec<Mutation>, level: Level) {
        let replicas = if let Level::Replicated(others) = level { others } else { 0 };
        for (ticket, mutation) in (key..).zip(mutations) {
            let shard = Replicator::shard_for(target.id, target.slots(), &mutation.key);
            let event = replication::Event::Mutate { ticket, shard, mutation, replicas };
            self.step_replication(event);
            let refused = |p: &Pending| p.progress.refused.is_some();
            if self.requests.pending.get(&key).is_none_or(refused) {
                break;
            }
        }
    }

    /// Answers a write whose mutations were all handed over, or lets it wait for replicas.
    fn answer_when_reached(&mut self, key: u64, level: Level) {
        let token = self.shards_token();
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if let Some(reason) = pending.progress.refused.take() {
            // Rejected means that nothing happened, which is untrue once a part of the batch is applied.
            let happened = u32::try_from(pending.progress.accepted).unwrap_or(u32::MAX);
            if happened == 0 {
                return self.finish(key, Outcome::Rejected(reason));
            }
            reach!("node.request.partial");
            return self.finish_after(key, Outcome::Partial { happened, reason }, token);
        }
        match level {
            Level::Applied => {
                let receipt = mem::take(&mut pending.progress.receipt);
                self.finish(key, Outcome::Committed { level, receipt });
            }
            Level::Durable => {
                let receipt = mem::take(&mut pending.progress.receipt);
                self.finish_after(key, Outcome::Committed { level, receipt }, token);
            }
            Level::Replicated(_) => {
                pending.stage = Stage::Replicating(token);
                self.check_replicated(key);
            }
        }
    }

    /// A mutation is applied here, and its record is handed to the disk.
    pub(in crate::node) fn on_accepted(
        &mut self,
        ticket: Ticket,
        context: Context,
        before: Before,
    ) {
        let Some((_, pending)) = self.requests.by_ticket(ticket) else { return };
        pending.progress.accepted += 1;
        pending.progress.receipt.existed |= before.existed(pending.ticket_count == 1);
        if pending.ticket_count == 1 {
            pending.progress.receipt.context = Some(context);
        }
    }

    /// The replicator refused a mutation.
    pub(in crate::node) fn on_mutation_refused(&mut self, ticket: Ticket, reason: Reason) {
        if let Some((_, pending)) = self.requests.by_ticket(ticket) {
            pending.progress.refused = Some(reason);
        }
    }

    /// A mutation is durable on as many other replicas as its write asks for.
    pub(in crate::node) fn on_replicated(&mut self, ticket: Ticket) {
        let Some((key, pending)) = self.requests.by_ticket(ticket) else { return };
        pending.progress.replicated += 1;
        self.check_replicated(key);
    }

    fn check_replicated(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        let Stage::Replicating(token) = pending.stage else { return };
        let Request::Write { level, .. } = pending.request else { return };
        if pending.progress.replicated >= pending.ticket_count {
            reach!("node.request.replicated");
            let receipt = mem::take(&mut pending.progress.receipt);
            self.finish_after(key, Outcome::Committed { level, receipt }, token);
        }
    }

    /// Ends an eventual write: stops counting replicas and answers its duplicates, which wait for the same token. A
    /// member may lie that it holds what is not even durable here.
    pub(super) fn end_eventual(
        &mut self,
        key: u64,
        pending: &Pending,
        outcome: &Outcome,
        token: u64,
    ) {
        if matches!(pending.stage, Stage::Replicating(_))
            && pending.progress.replicated < pending.ticket_count
        {
            for ticket in key..key + pending.ticket_count {
                self.enqueue(Task::Replication(replication::Event::Abandon { ticket }));
            }
        }
        if let Some(session) = pending.progress.session {
            self.answer_duplicates(session, outcome, token);
        }
    }

    /// Answers a read of an eventual namespace that this node knows; `None` for any other request.
    pub(super) fn read_at_once(&self, request: &Request) -> Option<Outcome> {
        let Request::Read { namespace, query } = request else { return None };
        let target = self.namespace(namespace)?;
        target.group.is_none().then(|| self.read_shards(target, query))
    }

    /// Serves a pending read whose namespace this node has just learnt of.
    pub(super) fn read_eventual(&mut self, key: u64, target: Target) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let Request::Read { query, .. } = &pending.request else { return };
        let outcome = self.read_shards(target, query);
        self.finish(key, outcome);
    }

    fn read_shards(&self, target: Target, query: &Query) -> Outcome {
        let replicator = &self.replication.machine;
        let slots = target.slots();
        let read = match query {
            Query::Get { key, .. }
            | Query::Members { key, .. }
            | Query::Count { key, .. }
            | Query::Record { key } => {
                replicator.read(Replicator::shard_for(target.id, slots, key), query)
            }
            Query::Keys { .. } | Query::Rows { .. } => {
                Pages::collect(target.id, slots, query, |shard, query| {
                    replicator.read(shard, query)
                })
            }
            Query::Export { .. } => Err(Reason::WrongConsistency),
        };
        match read {
            Ok(value) => Outcome::Value(value),
            Err(reason) => Outcome::Rejected(reason),
        }
    }
}

impl Target {
    /// The number of shards of an eventual namespace; at least one.
    fn slots(&self) -> u16 {
        match self.policy {
            Policy::Eventual { slots, .. } => slots.max(1),
            Policy::Strong => 1,
        }
    }
}

/// One page over all shards of a namespace, merged from one page of each shard.
#[derive(Default)]
struct Pages {
    rows: Vec<(Bytes, Option<Row>)>,
    /// The least of the last keys of shards with further rows. Beyond it a shard may hold rows that were not read.
    end: Option<Bytes>,
    /// Whether a shard has further rows.
    more: bool,
}

impl Pages {
    fn collect(
        namespace: NamespaceId,
        slots: u16,
        query: &Query,
        mut read: impl FnMut(ShardId, &Query) -> Result<Value, Reason>,
    ) -> Result<Value, Reason> {
        if slots == 1 {
            return read(ShardId { namespace, slot: 0 }, query);
        }
        let mut pages = Self::default();
        for slot in 0..slots {
            pages.add(read(ShardId { namespace, slot }, query)?);
        }
        Ok(pages.finish(query))
    }

    fn add(&mut self, value: Value) {
        let (rows, more): (Vec<_>, bool) = match value {
            Value::Keys { keys, more } => (keys.into_iter().map(|key| (key, None)).collect(), more),
            Value::Rows { rows, more } => {
                (rows.into_iter().map(|row| (row.key.clone(), Some(row))).collect(), more)
            }
            _ => return,
        };
        if more && let Some((last, _)) = rows.last() {
            self.more = true;
            self.end =
                Some(self.end.take().map_or_else(|| last.clone(), |end| end.min(last.clone())));
        }
        self.rows.extend(rows);
    }

    fn finish(mut self, query: &Query) -> Value {
        self.rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(end) = &self.end {
            self.rows.retain(|(key, _)| key <= end);
        }
        let (Query::Keys { limit, .. } | Query::Rows { limit, .. }) = query else {
            return Value::Keys { keys: Vec::new(), more: false };
        };
        let fits = self.fitting((*limit as usize).clamp(1, PAGE_ROWS_MAX));
        let more = self.more || fits < self.rows.len();
        self.rows.truncate(fits);
        if matches!(query, Query::Keys { .. }) {
            Value::Keys { keys: self.rows.into_iter().map(|(key, _)| key).collect(), more }
        } else {
            Value::Rows { rows: self.rows.into_iter().filter_map(|(_, row)| row).collect(), more }
        }
    }

    /// How many rows fit into the limit and into a frame. At least one, or a listing would make no progress.
    fn fitting(&self, limit: usize) -> usize {
        let mut bytes = 0;
        let fits = self.rows.iter().take(limit).take_while(|(key, row)| {
            bytes += row.as_ref().map_or(key.len(), crate::codec::encoded_len);
            bytes <= REQUEST_BYTES_MAX
        });
        fits.count().max(1).min(self.rows.len())
    }
}
