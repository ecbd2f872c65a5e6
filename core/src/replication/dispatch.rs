//! Handles what peers cause: links, messages and comparisons. Each handler calls `sync` and turns the result into
//! actions.
//!
//! Every message is checked first: its shard must be open here, and its claims within bounds. A refused write does not
//! affect the other writes of its message, of its shard or of its session. A claim of a write of this very process that
//! this process did not author raises an alarm and changes nothing else: it shows that somebody lies or runs on a copy
//! of this disk, and to refuse the message would let one such write stop the learning of all others. This module does
//! not know how replicas synchronize; `sync` does.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::api::{Change, Edit, Mutation, Observed};
use crate::id::{NodeId, Replica, ShardId};
use crate::machine::{Now, Outbox};
use crate::time::Instant;
use crate::{mutant, reach};

use super::shard::{Dots, LiveWrite};
use super::sync::message::{Message, PullError, View};
use super::sync::receive;
use super::sync::session::{self, Session};
use super::write::{self, EditOp};
use super::{Action, Replicator, reject, sync};

/// The outcome of the writes of one message.
#[derive(Default)]
struct ReceivedWrites {
    /// The dots that this replica holds once the records are durable.
    held: Dots,
    /// The bytes of all writes, refused ones included.
    bytes: u64,
    new: usize,
    /// Refused writes that are noted for the first time, so that the next question leaves them out.
    skipped: usize,
    /// Refused writes whose dots are unknown, or cannot be noted.
    unnamed: usize,
    records: Vec<Bytes>,
    /// Writes of this very process that others with their dots replaced.
    lost: Vec<LiveWrite>,
}

impl Replicator {
    /// Replaces the set of replicas, and compares with those that are new in it.
    pub(super) fn set_replicas(
        &mut self,
        now: Instant,
        replicas: Vec<Replica>,
        out: &mut Outbox<Action>,
    ) {
        let me = self.me.node;
        let others = replicas.into_iter().filter(|replica| replica.node != me);
        let added = self.peers.set_replicas(others);
        added.iter().for_each(|replica| self.waiters.replaced(*replica));
        let peers = &self.peers;
        self.shards.each_mut(|_, local| {
            local.sync.in_sync.retain(|replica| peers.is_replica(replica));
            local.sync.lags.retain(|replica| peers.is_replica(replica));
        });
        added.into_iter().for_each(|replica| self.begin_compare(now, replica, out));
    }

    /// Notes that a link is up.
    pub(super) fn on_connected(
        &mut self,
        now: Instant,
        replica: Replica,
        out: &mut Outbox<Action>,
    ) {
        self.peers.connect(replica);
        self.waiters.replaced(replica);
        self.begin_compare(now, replica, out);
    }

    /// Notes that the link to a peer is down: it will answer nothing that it was asked.
    pub(super) fn on_unreachable(&mut self, node: NodeId) {
        self.peers.disconnect(node);
        let of_peer = |id: &ShardId| {
            let session = self.shards.get(id).and_then(|local| local.sync.session.as_ref());
            session.is_some_and(|session| session.peer.node == node)
        };
        for id in self.index.in_session().filter(of_peer).collect::<Vec<_>>() {
            if let Some(local) = self.shards.get_mut(&id) {
                local.sync.session = None;
            }
        }
    }

    /// Handles a message from an authenticated replica.
    pub(super) fn on_message(
        &mut self,
        now: Now,
        from: Replica,
        message: Message,
        out: &mut Outbox<Action>,
    ) {
        let id = match message {
            Message::Summary(said) => return self.on_summary(from, said, out),
            ref message => message.shard().unwrap_or_default(),
        };
        let me = self.actor();
        let local = self.shards.get_mut(&id).filter(|local| local.strategy.is_some());
        let Some(local) = local else {
            // The registry here is older or newer than the peer's. Anti-entropy will ask again.
            reach!("replication.message.unknown_shard");
            return;
        };
        if let Some(dots) = message.claims() {
            if !dots.is_empty() && !dots.is_valid() {
                return reject(from, "a context is outside its bounds", out);
            }
            let named = dots.iter().map(|(actor, ranges)| (*actor, ranges.last()));
            if let Some(dot) = receive::forged_dot(&local.shard, me, named) {
                reach!("replication.forged.context");
                out.push(Action::Equivocation { dot });
            }
            if let Some(mine) = dots.ranges(&me) {
                local.sync.lags.held(now.mono, from, mine, local.shard.last_seen(&me));
                let done = self.waiters.credit(id, from, mine);
                done.into_iter().for_each(|ticket| out.push(Action::Replicated { ticket }));
            }
        }
        self.dispatch(now, from, message, out);
    }

    fn dispatch(&mut self, now: Now, from: Replica, message: Message, out: &mut Outbox<Action>) {
        let Some(id) = message.shard() else { return };
        let Some(local) = self.shards.get_mut(&id) else { return };
        // The dead that are still in the table must not be told as alive, beside a context that has its removal.
        let is_sweeping = local.shard.is_sweeping() && !mutant!("replication.cover.told_early");
        match message {
            Message::Delta { shard, writes } => self.on_delta(now, from, shard, &writes, out),
            Message::Ack { bytes, .. } => {
                if let Some(peer) = self.peers.get_mut(from.node) {
                    peer.acknowledge(now.mono, bytes);
                }
            }
            Message::Compare { .. } if is_sweeping => reach!("replication.cover.not_compared"),
            Message::Pull { shard, round, .. } if is_sweeping => {
                reach!("replication.cover.not_answered");
                let message = Message::Refused { shard, round, why: PullError::Busy };
                out.push(Action::Send { to: from, message, promise: false });
            }
            Message::Compare { shard, root } => {
                let message = local.sync.compare(&mut local.shard, from, root);
                let differ = matches!(message, Message::Differ { .. });
                out.push(Action::Send { to: from, message, promise: false });
                if differ {
                    self.index.changed(id, local);
                    self.begin_session(now, from, shard, out);
                }
            }
            Message::Same { root, .. } => {
                if local.shard.cached_root() == root {
                    local.sync.equals(from);
                }
            }
            Message::Differ { shard } => {
                local.sync.in_sync.remove(&from);
                self.index.changed(id, local);
                self.begin_session(now, from, shard, out);
            }
            Message::Pull { round, context, refused, spans, .. } => {
                let bytes = self.config.delta_bytes_max;
                let without = (&context, &refused);
                match session::answer(&local.shard, round, without, &spans, bytes) {
                    Ok((message, promise)) => out.push(Action::Send { to: from, message, promise }),
                    Err(message) => {
                        out.push(Action::Send { to: from, message, promise: false });
                        reject(from, "a question names impossible spans", out);
                    }
                }
            }
            Message::Page { shard, round, writes } => {
                self.on_page(now, from, (shard, round), &writes, out);
            }
            Message::View { shard, round, view } => {
                self.on_view(now, from, (shard, round), &view, out);
            }
            Message::Refused { round, .. } => {
                reach!("replication.session.refused");
                drop(local.sync.take_session(from, round));
            }
            Message::Summary(_) => {}
        }
    }

    fn on_delta(
        &mut self,
        now: Now,
        from: Replica,
        id: ShardId,
        writes: &[Bytes],
        out: &mut Outbox<Action>,
    ) {
        let received = self.receive_writes(now, from, id, writes.iter(), out);
        self.record(id, received.records, out);
        self.write_again(now, id, &received.lost, out);
        let message = Message::Ack { shard: id, held: received.held, bytes: received.bytes };
        let promise = !mutant!("replication.ack.before_fsync");
        out.push(Action::Send { to: from, message, promise });
    }

    /// Receives writes one by one. The caller issues their records in one write.
    fn receive_writes<'a>(
        &mut self,
        now: Now,
        from: Replica,
        id: ShardId,
        writes: impl Iterator<Item = &'a Bytes>,
        out: &mut Outbox<Action>,
    ) -> ReceivedWrites {
        let mut all = ReceivedWrites::default();
        let (mut receiver, shards) = self.receiver(now);
        let Some(local) = shards.get_mut(&id) else { return all };
        for sealed in writes {
            all.bytes += sealed.len() as u64;
            match receiver.receive_write(&mut local.shard, sealed) {
                Ok(received) => {
                    if received.is_held {
                        all.held.insert(&received.dot);
                    }
                    all.new += usize::from(received.record.is_some());
                    all.records.extend(received.record);
                    all.lost.extend(received.lost);
                    if let Some(dot) = received.alarm {
                        out.push(Action::Equivocation { dot });
                    }
                }
                Err(refused) => {
                    let noted = refused.dot.map(|dot| local.sync.refuse(from.node, &dot));
                    all.skipped += usize::from(noted == Some(true));
                    all.unnamed += usize::from(noted != Some(true));
                    reject(from, refused.why, out);
                }
            }
        }
        all
    }

    /// Begins a session, unless one is under way.
    fn begin_session(&mut self, now: Now, to: Replica, id: ShardId, out: &mut Outbox<Action>) {
        let Some(local) = self.shards.get_mut(&id) else { return };
        let question = local.sync.begin(&local.shard, now.mono, to, &mut self.stream);
        if let Some(message) = question {
            out.push(Action::Send { to, message, promise: true });
        }
    }

    /// Asks the next question of a session.
    fn ask(&mut self, id: ShardId, session: Session, out: &mut Outbox<Action>) {
        let Some(local) = self.shards.get_mut(&id) else { return };
        let to = session.peer;
        let message = local.sync.ask(&local.shard, session, &mut self.stream);
        out.push(Action::Send { to, message, promise: true });
    }

    fn on_page(
        &mut self,
        now: Now,
        from: Replica,
        (id, round): (ShardId, u64),
        writes: &[Bytes],
        out: &mut Outbox<Action>,
    ) {
        let Some(local) = self.shards.get_mut(&id) else { return };
        let Some(mut session) = local.sync.take_session(from, round) else { return };
        let received = self.receive_writes(now, from, id, writes.iter(), out);
        self.record(id, received.records, out);
        self.write_again(now, id, &received.lost, out);
        if received.new + received.skipped == 0 {
            // The same question would bring the same answer.
            reach!("replication.session.stalled");
            return;
        }
        session.last_heard = now.mono;
        // The page said nothing about the spans.
        let asked = core::mem::take(&mut session.asked);
        session.spans.splice(0..0, asked);
        self.ask(id, session, out);
    }

    fn on_view(
        &mut self,
        now: Now,
        from: Replica,
        (id, round): (ShardId, u64),
        view: &View,
        out: &mut Outbox<Action>,
    ) {
        let Some(local) = self.shards.get_mut(&id) else { return };
        let Some(mut session) = local.sync.take_session(from, round) else { return };
        if !sync::is_valid(view, &session.asked) {
            return reject(from, "a view is malformed", out);
        }
        let writes = view.writes.iter().map(|(sealed, _)| sealed);
        let received = self.receive_writes(now, from, id, writes, out);
        let mut records = received.records;
        let blocks = received.unnamed > 0
            || received.skipped > 0 && mutant!("replication.session.refused_blocks");
        let learnt =
            if blocks { None } else { self.learn(from, id, view, &mut session, &mut records, out) };
        self.record(id, records, out);
        self.write_again(now, id, &received.lost, out);
        let Some(mut held) = learnt else { return };
        let of_peer = received.held.iter().filter(|(actor, _)| actor.replica == from);
        held.union(&Dots::new(of_peer.cloned().collect()));
        if !held.is_empty() {
            // Once roots are equal, no further question tells the peer that its writes and removals are held here.
            let message = Message::Ack { shard: id, held, bytes: 0 };
            out.push(Action::Send { to: from, message, promise: true });
        }
        session.last_heard = now.mono;
        if session.is_done() {
            reach!("replication.session.done");
        } else {
            self.ask(id, session, out);
        }
    }

    /// Applies what a view says beyond its writes. Returns the peer's own writes that are covered now; `None` when
    /// nothing was applied.
    fn learn(
        &mut self,
        from: Replica,
        id: ShardId,
        view: &View,
        session: &mut Session,
        records: &mut Vec<Bytes>,
        out: &mut Outbox<Action>,
    ) -> Option<Dots> {
        let me = self.actor();
        let local = self.shards.get_mut(&id)?;
        match session::learn(&mut local.shard, &local.sync, &me, view, session, records) {
            Ok(covered) => Some(covered),
            Err(why) => {
                reject(from, why, out);
                None
            }
        }
    }

    /// Writes the values of this process's own writes again whose dots went to others' content, as siblings under new
    /// dots. Totals of counters are lost: which part of them others counted already is unknown.
    fn write_again(&mut self, now: Now, id: ShardId, lost: &[LiveWrite], out: &mut Outbox<Action>) {
        for old in lost {
            let Some(mutation) = mutation_of(old) else { continue };
            let written = self.write(now, id, &mutation, Some(Observed::default()));
            if let Ok((dot, _, record, sealed)) = written {
                reach!("replication.author.again");
                self.record(id, [record].into(), out);
                self.pushes.add(self.issued, (id, dot.seq), sealed);
            }
        }
    }
}

/// The values that a write still has, as a mutation.
fn mutation_of(old: &LiveWrite) -> Option<Mutation> {
    let body = write::reopen(&old.sealed);
    let bytes = |raw: write::Raw<'_>| old.sealed.slice_ref(raw.0);
    let edit = |index: u16| {
        let edit = &body.edits[usize::from(index)];
        let change = match edit.op {
            EditOp::Put(value) => Change::Put(bytes(value)),
            EditOp::Add(member) => Change::Add(bytes(member)),
            _ => return None,
        };
        Some(Edit { field: bytes(edit.field), change })
    };
    let edits: Vec<Edit> = old.edits.edits().filter_map(edit).collect();
    (!edits.is_empty()).then(|| Mutation { key: bytes(body.key), edits, context: None })
}
