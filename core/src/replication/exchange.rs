//! What replicas do with each other: pushes, acknowledgements, comparisons, sessions.
//!
//! A message is checked before anything of it is believed: its bounds, its hashes, and that it claims no write of this
//! very process that this process did not make. Writes that are refused do not spoil those beside them.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::id::{Actor, Dot, NodeId, Replica, ShardId};
use crate::machine::{Now, Outbox};
use crate::{mutant, reach};

use super::context::Dots;
use super::delta::{self, Author};
use super::hlc;
use super::message::Message;
use super::replicator::Peer;
use super::restore::{self, Record};
use super::store::{Applied, Shard};
use super::{Action, Replicator};

/// A session that has heard nothing for so many comparison periods has ended.
const SESSION_PERIODS: u64 = 3;

/// What became of the writes of one message.
#[derive(Default)]
pub(super) struct Admitted {
    pub(super) held: Dots,
    pub(super) bytes: u64,
    pub(super) fresh: usize,
    pub(super) refused: usize,
    pub(super) records: Vec<Bytes>,
}

/// The dots that a shard holds durably, whether it has seen them or not yet.
pub(super) fn held(shard: &Shard) -> Dots {
    let mut held = shard.dots();
    for (_, dot) in shard.waiting.keys() {
        held.insert(dot);
    }
    held
}

/// Applies a write that is new here, and gives its record.
///
/// # Errors
///
/// What it was instead of new.
pub(super) fn apply(
    shard: &mut Shard,
    sealed: &Bytes,
    author: &Author<'_>,
) -> Result<Bytes, Applied> {
    match shard.apply(sealed, author) {
        Applied::New(None) => Ok(sealed.clone()),
        Applied::New(Some(mask)) => Ok(restore::encode(&Record::Masked(sealed.clone(), mask))),
        other => Err(other),
    }
}

impl Replicator {
    /// The replicas are these.
    pub(super) fn align(&mut self, replicas: Vec<Replica>, out: &mut Outbox<Action>) {
        let mut old = core::mem::take(&mut self.peers);
        let mut met = Vec::new();
        for replica in replicas.into_iter().filter(|replica| replica.node != self.me.node) {
            let known = old.remove(&replica.node).filter(|peer| peer.replica == replica);
            if known.is_none() {
                met.push(replica);
            }
            let peer = known.unwrap_or_else(|| Peer::new(replica));
            self.peers.insert(replica.node, peer);
        }
        let peers = &self.peers;
        let stays = |replica: &Replica| {
            peers.get(&replica.node).is_some_and(|peer| peer.replica == *replica)
        };
        self.residents.values_mut().for_each(|resident| resident.in_sync.retain(stays));
        met.into_iter().for_each(|replica| self.meet(replica, out));
    }

    /// A link is up.
    pub(super) fn connected(&mut self, replica: Replica, out: &mut Outbox<Action>) {
        self.links.insert(replica.node, replica);
        self.meet(replica, out);
    }

    /// The link to a peer is down: nothing that it was asked will be answered.
    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.links.remove(&node);
        for resident in self.residents.values_mut() {
            resident.session.take_if(|session| session.peer.node == node);
        }
    }

    /// Compares all shards with a replica, if it is one and is connected.
    fn meet(&mut self, replica: Replica, out: &mut Outbox<Action>) {
        let linked = self.links.get(&replica.node) == Some(&replica);
        let Some(peer) = self.peers.get_mut(&replica.node) else { return };
        if !linked || peer.replica != replica {
            return;
        }
        peer.unacknowledged = 0;
        for (id, resident) in self.residents.iter_mut().filter(|(_, r)| r.open.is_some()) {
            let message = Message::Compare { shard: *id, root: resident.shard.keep_root() };
            out.push(Action::Send { to: replica, message, promise: false });
        }
    }

    /// Does what is due by now.
    pub(super) fn due(&mut self, now: Now, out: &mut Outbox<Action>) {
        while let Some(&(due, id)) = self.timers.first().filter(|(due, _)| *due <= now.mono) {
            let next = now.mono + Duration::from_millis(self.config.anti_entropy_ms);
            self.timers.remove(&(due, id));
            self.timers.insert((next, id));
            if let Some(resident) = self.residents.get_mut(&id) {
                resident.due = Some(next);
                let patience = Duration::from_millis(self.config.anti_entropy_ms * SESSION_PERIODS);
                if resident.session.as_ref().is_some_and(|s| now.mono.since(s.heard) >= patience) {
                    reach!("replication.session.timeout");
                    resident.session = None;
                }
            }
            self.admit_waiting(now, id, out);
            if !mutant!("replication.compare.never") {
                self.compare_next(id, out);
            }
        }
    }

    /// Takes in what waited and whose stamp is within reach now.
    fn admit_waiting(&mut self, now: Now, id: ShardId, out: &mut Outbox<Action>) {
        let reach = now.wall.0.saturating_add(self.config.ahead_ms_max);
        let Some(resident) = self.residents.get_mut(&id) else { return };
        let mut records = Vec::new();
        while let Some((&(stamp, _), _)) = resident.shard.waiting.first_key_value() {
            if hlc::millis(stamp) > reach {
                break;
            }
            let Some((_, sealed)) = resident.shard.waiting.pop_first() else { break };
            reach!("replication.ahead.admitted");
            self.ahead -= 1;
            self.clock.observe(stamp);
            records.extend(apply(&mut resident.shard, &sealed, &delta::reopen(&sealed)));
        }
        self.record(id, records, out);
    }

    /// Compares roots with the peer whose turn it is.
    fn compare_next(&mut self, id: ShardId, out: &mut Outbox<Action>) {
        let linked = |peer: &&Peer| self.links.get(&peer.replica.node) == Some(&peer.replica);
        let connected = self.peers.values().filter(linked);
        let count = connected.clone().count();
        let Some(resident) = self.residents.get_mut(&id).filter(|_| count > 0) else { return };
        resident.turn = resident.turn.wrapping_add(1);
        let Some(peer) = connected.clone().nth(resident.turn % count) else { return };
        let message = Message::Compare { shard: id, root: resident.shard.keep_root() };
        out.push(Action::Send { to: peer.replica, message, promise: false });
    }

    /// A message from an authenticated replica.
    pub(super) fn received(
        &mut self,
        now: Now,
        from: Replica,
        message: Message,
        out: &mut Outbox<Action>,
    ) {
        let id = message.shard();
        if self.residents.get(&id).is_none_or(|resident| resident.open.is_none()) {
            // The registry here is behind the peer's, or ahead of it; anti-entropy asks again.
            reach!("replication.message.unknown_shard");
            return;
        }
        if let Some(dots) = message.claims() {
            if !dots.is_empty() && !dots.is_valid() {
                return reject(from, "a context outside its bounds", out);
            }
            if let Some(dot) = self.forged(id, dots.iter().map(|(a, r)| (*a, r.last()))) {
                reach!("replication.forged.context");
                out.push(Action::Equivocation { dot });
                return reject(
                    from,
                    "a context with writes of this process that it never made",
                    out,
                );
            }
            if let Some(mine) = dots.ranges(&self.actor()) {
                let done = self.waiters.credit(id, from, mine);
                done.into_iter().for_each(|ticket| out.push(Action::Replicated { ticket }));
            }
        }
        self.dispatch(now, from, message, out);
    }

    fn dispatch(&mut self, now: Now, from: Replica, message: Message, out: &mut Outbox<Action>) {
        match message {
            Message::Delta { shard, writes } => self.on_delta(now, from, shard, &writes, out),
            Message::Ack { bytes, .. } => {
                if let Some(peer) = self.peers.get_mut(&from.node) {
                    peer.acknowledge(now.mono, bytes);
                }
            }
            Message::Compare { shard, root } => self.on_compare(now, from, shard, root, out),
            Message::Same { shard, root } => {
                if let Some(resident) = self.residents.get_mut(&shard)
                    && resident.shard.keep_root() == root
                {
                    resident.in_sync.insert(from);
                }
            }
            Message::Differ { shard } => {
                self.out_of_sync(shard, from);
                self.pull(now, from, shard, out);
            }
            Message::Pull { shard, round, context, asks } => {
                self.on_pull(from, (shard, round), &context, &asks, out);
            }
            Message::Page { shard, round, writes } => {
                self.on_page(now, from, (shard, round), &writes, out);
            }
            Message::Whole { shard, round, view } => {
                self.on_view(now, from, (shard, round), &view, out);
            }
            Message::Refused { shard, round, .. } => {
                reach!("replication.session.refused");
                self.end_session(shard, from, round);
            }
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
        let admitted = self.admit(now, from, id, writes.iter(), out);
        self.record(id, admitted.records, out);
        let message = Message::Ack { shard: id, held: admitted.held, bytes: admitted.bytes };
        let promise = !mutant!("replication.ack.before_fsync");
        out.push(Action::Send { to: from, message, promise });
    }

    /// Takes writes in, each by itself. Their records are the caller's to issue, in one write.
    pub(super) fn admit<'a>(
        &mut self,
        now: Now,
        from: Replica,
        id: ShardId,
        writes: impl Iterator<Item = &'a Bytes>,
        out: &mut Outbox<Action>,
    ) -> Admitted {
        let mut admitted = Admitted::default();
        for sealed in writes {
            admitted.bytes += sealed.len() as u64;
            match self.admit_one(now, id, sealed, out) {
                Ok((dot, record)) => {
                    admitted.held.insert(&dot);
                    admitted.fresh += usize::from(record.is_some());
                    admitted.records.extend(record);
                }
                Err(why) => {
                    admitted.refused += 1;
                    reject(from, why, out);
                }
            }
        }
        admitted
    }

    /// Takes one write in. Returns its dot, and its record when it is new.
    fn admit_one(
        &mut self,
        now: Now,
        id: ShardId,
        sealed: &Bytes,
        out: &mut Outbox<Action>,
    ) -> Result<(Dot, Option<Bytes>), &'static str> {
        let author = delta::open(sealed)?;
        let dot = author.dot;
        if author.shard() != id {
            return Err("a write of another shard");
        }
        if let Some(dot) = self.forged(id, named(&author)) {
            reach!("replication.forged.write");
            out.push(Action::Equivocation { dot });
            return Err("a write that names writes of this process that it never made");
        }
        let reach = now.wall.0.saturating_add(self.config.ahead_ms_max);
        let Some(resident) = self.residents.get_mut(&id) else { return Err("no such shard") };
        let shard = &mut resident.shard;
        let far = hlc::millis(author.stamp) > reach && !mutant!("replication.hlc.unbounded");
        if far && !shard.contains(&dot) {
            let by_ms = hlc::millis(author.stamp) - now.wall.0;
            return self.wait(id, (author.stamp, dot), by_ms, sealed, out);
        }
        let waiting = shard.waiting.len();
        let applied = apply(shard, sealed, &author);
        self.ahead -= waiting - shard.waiting.len();
        match applied {
            Ok(record) => {
                reach!("replication.write.merged");
                if !mutant!("replication.hlc.deaf") {
                    self.clock.observe(author.stamp);
                }
                Ok((dot, Some(record)))
            }
            Err(Applied::Equivocation) => {
                reach!("replication.write.equivocation");
                out.push(Action::Equivocation { dot });
                Err("a write whose dot has other content here")
            }
            Err(Applied::Full) => Err("more authors than a shard has"),
            Err(_) => {
                reach!("replication.write.again");
                Ok((dot, None))
            }
        }
    }

    /// Keeps a write outside the context, durably, until its stamp is within reach.
    fn wait(
        &mut self,
        id: ShardId,
        (stamp, dot): (u64, Dot),
        by_ms: u64,
        sealed: &Bytes,
        out: &mut Outbox<Action>,
    ) -> Result<(Dot, Option<Bytes>), &'static str> {
        let Some(resident) = self.residents.get_mut(&id) else { return Err("no such shard") };
        if let Some(held) = resident.shard.waiting.get(&(stamp, dot)) {
            return if held == sealed {
                Ok((dot, None))
            } else {
                Err("another write waits with this dot")
            };
        }
        if self.ahead >= self.config.ahead_writes_max {
            reach!("replication.ahead.full");
            return Err("a write stamped too far ahead, and no room to keep it");
        }
        reach!("replication.ahead.waits");
        self.ahead += 1;
        resident.shard.wait(sealed.clone(), stamp, dot);
        out.push(Action::Ahead { node: dot.actor.replica.node, by_ms });
        Ok((dot, Some(restore::encode(&Record::Waiting(sealed.clone())))))
    }

    /// A dot of this very process, or of a later life of this store, that this process did not make: somebody has a
    /// copy of this disk, or lies.
    pub(super) fn forged(
        &self,
        id: ShardId,
        mut named: impl Iterator<Item = (Actor, u64)>,
    ) -> Option<Dot> {
        let me = self.actor();
        let shard = &self.residents.get(&id)?.shard;
        let made = || shard.number(&me).map_or(0, |number| shard.seen(number).last());
        let forged = named.find(|(actor, seq)| {
            actor.replica == me.replica
                && actor.boot.count >= me.boot.count
                && (*actor != me || *seq > made())
        });
        forged.map(|(actor, seq)| Dot { actor, seq })
    }
}

/// Every dot that a write names.
fn named<'a>(author: &'a Author<'_>) -> impl Iterator<Item = (Actor, u64)> + 'a {
    let deeds = author.edits.iter().flat_map(|deed| {
        let victims = deed.victims.iter().map(|victim| (victim.actor, victim.seq));
        victims.chain(deed.unseen.iter().map(|unseen| (unseen.actor, unseen.seq)))
    });
    let own = core::iter::once((0, author.dot.seq));
    own.chain(deeds).map(|(place, seq)| (author.actor(place), seq))
}

/// Reports what a peer must not send.
pub(super) fn reject(from: Replica, why: &'static str, out: &mut Outbox<Action>) {
    reach!("replication.message.rejected");
    out.push(Action::Rejected { from, why });
}
