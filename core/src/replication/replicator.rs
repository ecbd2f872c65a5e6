//! The machine: its shards, clients and checkpoints, and the reads of what it holds. This module does not handle what
//! comes from peers, nor timers; `dispatch` does.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::api::{
    Before, ContextKeys, Edit, Mutation, Observed, Query, Reason, ShardStatus, Strategy, Value,
};
use crate::config::ReplicationConfig;
use crate::counted::CountedMap;
use crate::digest::{Digest, Hasher};
use crate::id::{Actor, Boot, Dot, NamespaceId, NodeId, Replica, ShardId, SnapshotId};
use crate::limits::SLOTS_MAX;
use crate::machine::{Machine, Now, Outbox};
use crate::seed::{Seed, Stream};
use crate::time::{Instant, WallTime, earlier};
use crate::{mutant, reach};

use super::index::Index;
use super::local::LocalShard;
use super::log::{self, Record, RestoreError, Restored, Write};
use super::shard::{Dots, Ranges, Shard, query, slot_of};
use super::sync::ack::{Ticket, Waiters};
use super::sync::peer::Peers;
use super::sync::push::Pushes;
use super::sync::receive::Receiver;
use super::write::hlc::{Clock, Wall};
use super::write::leads::Leads;
use super::{Action, Event, author, write};

/// All shards of a node; see the [module](super).
#[derive(Debug)]
pub struct Replicator {
    pub(super) me: Replica,
    pub(super) boot: Boot,
    pub(super) config: ReplicationConfig,
    /// Draws the numbers of questions and the first comparison times.
    pub(super) stream: Stream,
    pub(super) clock: Clock,
    pub(super) leads: Leads,
    /// The keys that seal contexts; `None` until the registry tells them.
    keys: Option<ContextKeys>,
    pub(super) peers: Peers,
    pub(super) shards: CountedMap<ShardId, LocalShard>,
    pub(super) index: Index,
    pub(super) waiters: Waiters,
    pub(super) pushes: Pushes,
    /// Checkpoints to be made; the first is under way.
    pub(super) captures: VecDeque<(ShardId, SnapshotId)>,
    /// Shards with elements that a delete covered and that are still in the table.
    pub(super) sweeping: BTreeSet<ShardId>,
    /// Deleted shards whose memory is freed in slices.
    pub(super) graves: VecDeque<Shard>,
    pub(super) grave_bytes: u64,
    /// The number of [`Action::Persist`] so far.
    pub(super) issued: u64,
    /// The number of merged writes that made siblings.
    pub(super) conflicts: u64,
}

/// The result of hashing a page of live writes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// The number of hashed writes.
    pub checked: u64,
    /// The writes that no longer match their hash.
    pub corrupt: Vec<Dot>,
    /// The first dot of the next page; `None` at the end.
    pub next: Option<Dot>,
}

impl Replicator {
    /// Restores the machine from its records. Shards are silent until [`Event::Open`].
    ///
    /// # Errors
    ///
    /// [`RestoreError`] on records that this machine did not write.
    pub fn new(
        me: Replica,
        boot: Boot,
        config: ReplicationConfig,
        seed: &Seed,
        restored: Restored,
    ) -> Result<Self, RestoreError> {
        let leads = Leads::new(Wall::new(WallTime::default(), config.ahead_ms_max));
        let mut machine = Self {
            me,
            boot,
            config,
            stream: seed.derive("replication.rounds", boot.count),
            clock: Clock::default(),
            leads,
            keys: None,
            peers: Peers::default(),
            shards: CountedMap::default(),
            index: Index::default(),
            waiters: Waiters::default(),
            pushes: Pushes::default(),
            captures: VecDeque::new(),
            sweeping: BTreeSet::new(),
            graves: VecDeque::new(),
            grave_bytes: 0,
            issued: 0,
            conflicts: 0,
        };
        for (id, records) in restored.shards {
            let shard = log::restore(id, &records)?;
            machine.clock.resume(shard.stamp);
            machine.shards.insert(id, LocalShard::new(shard));
            machine.note_sweep(id);
        }
        Ok(machine)
    }
}

impl Machine for Replicator {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, now: Now, event: Event, out: &mut Outbox<Action>) {
        self.leads.advance(now.mono, Wall::new(now.wall, self.config.ahead_ms_max));
        self.run_timers(now, out);
        // The writes of one request come one by one. A tick follows at once while there is more to do.
        let is_one_of_many = matches!(event, Event::Mutate { .. });
        self.handle(now, event, out);
        if !is_one_of_many {
            self.sweep();
            self.free();
            self.capture(out);
        }
        let (patience, index) = (self.patience(), &mut self.index);
        self.shards.settle(|id, local| index.note(id, local, patience));
    }

    fn deadline(&self) -> Option<Instant> {
        let captures = self.captures.front().is_some_and(|(shard, _)| !self.waits(*shard));
        if captures || !self.sweeping.is_empty() || !self.graves.is_empty() {
            return Some(Instant::ZERO);
        }
        let turns = self.peers.next_turn().filter(|_| !self.shards.is_empty());
        earlier(turns, self.index.deadline())
    }

    fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.me, self.boot, self.clock.last(), self.issued, self.waiters.len()));
        hash.number(self.pushes.len() as u64);
        self.peers.digest(hash);
        for (id, local) in self.shards.iter() {
            hash.value(&(id, local.shard.root(), local.strategy));
            hash.value(&(local.shard.bytes(), local.shard.discard));
            let session = local.sync.session.as_ref();
            hash.value(&session.map(|s| (s.peer, s.round, s.last_heard, &s.spans, &s.asked)));
            hash.number(local.shard.stamp);
            local.shard.deferred().for_each(|deferred| hash.value(&deferred));
            hash.value(&local.sync.in_sync);
        }
        hash.value(&(self.index.newest(), self.index.deadline()));
        hash.value(&self.sweeping);
        hash.number(self.grave_bytes);
    }
}

impl Replicator {
    fn handle(&mut self, now: Now, event: Event, out: &mut Outbox<Action>) {
        match event {
            Event::Tick => {}
            Event::Persisted { writes } => self.push(now, writes, out),
            Event::Keys { keys } => self.keys = Some(keys),
            Event::Open { namespace, slots, strategy, discard } => {
                for slot in 0..slots.min(SLOTS_MAX) {
                    let id = ShardId { namespace, slot };
                    self.open((id, slots), (strategy, discard), out);
                }
            }
            Event::Close { namespace } => self.close(namespace, out),
            Event::Peers { replicas } => self.set_replicas(now.mono, replicas, out),
            Event::Connected { peer } => self.on_connected(now.mono, peer, out),
            Event::Unreachable { peer } => self.on_unreachable(peer),
            Event::Received { from, message } => self.on_message(now, from, message, out),
            Event::Mutate { ticket, shard, mutation, replicas } => {
                self.mutate(now, (ticket, replicas), shard, &mutation, out);
            }
            Event::Abandon { ticket } => self.waiters.remove(ticket),
            Event::Checkpoint { shard, snapshot } => self.checkpoint(shard, snapshot),
            Event::FileWritten { snapshot, bytes } => self.on_file_written(snapshot, bytes, out),
            Event::FileFailed { snapshot } => self.on_file_failed(snapshot),
        }
    }

    fn open(
        &mut self,
        (id, slots): (ShardId, u16),
        (strategy, discard): (Strategy, bool),
        out: &mut Outbox<Action>,
    ) {
        if !self.shards.contains_key(&id) {
            self.shards.insert(id, LocalShard::new(Shard::new(id)));
        }
        let Some(local) = self.shards.get_mut(&id) else { return };
        local.shard.slots = slots;
        if local.strategy.replace(strategy).is_none() {
            reach!("replication.shard.opened");
        }
        if discard && !local.shard.discard {
            local.shard.discard = true;
            self.record(id, [log::encode(&Record::Discarding)].into(), out);
        }
    }

    fn close(&mut self, namespace: NamespaceId, out: &mut Outbox<Action>) {
        let shard = |slot| ShardId { namespace, slot };
        let gone = self.shards.range(shard(0)..=shard(u16::MAX));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            reach!("replication.shard.closed");
            if let Some(local) = self.shards.remove(&id) {
                self.index.forget(id, &local);
                self.grave_bytes += local.shard.bytes();
                self.graves.push_back(local.shard);
            }
            self.sweeping.remove(&id);
            self.waiters.forget(id);
            self.pushes.forget(id);
            self.captures.retain(|(shard, _)| *shard != id);
            self.persist(id, Write::Forget, out);
        }
    }

    fn mutate(
        &mut self,
        now: Now,
        (ticket, replicas): (Ticket, u8),
        id: ShardId,
        mutation: &Mutation,
        out: &mut Outbox<Action>,
    ) {
        let observed = self.open_context(id, mutation);
        let before = self.before(id, mutation);
        match observed.and_then(|observed| self.write(now, id, mutation, observed)) {
            Err(reason) => {
                reach!("replication.author.refused");
                out.push(Action::Refused { ticket, reason });
            }
            Ok((dot, stamp, record, sealed)) => {
                self.record(id, [record].into(), out);
                if mutant!("replication.author.refused_and_kept") {
                    return out.push(Action::Refused { ticket, reason: Reason::TooManySiblings });
                }
                let observed = Observed { dots: [dot].into(), stamp };
                let context = self.keys.map(|keys| keys.seal(id, &observed)).unwrap_or_default();
                out.push(Action::Accepted { ticket, dot, context, before });
                if replicas > 0 {
                    self.waiters.add(ticket, id, dot.seq, replicas);
                }
                self.pushes.add(self.issued, (id, dot.seq), sealed);
                if mutant!("replication.push.before_fsync") {
                    self.push(now, self.issued, out);
                }
            }
        }
    }

    /// The effect of a mutation on what is here.
    fn before(&self, id: ShardId, mutation: &Mutation) -> Before {
        let Some(local) = self.shards.get(&id) else { return Before::Nothing };
        let is_alone = mutation.edits.len() == 1;
        let of_edit = |edit: &Edit| {
            let found = author::before_scope(&mutation.key, edit)?;
            let is_there = if found.is_prefix {
                local.shard.within(&found.path).next().is_some()
            } else {
                !local.shard.elements_at(&found.path).is_empty()
            };
            let effect = if edit.change.removes() { Before::Removed } else { Before::Replaced };
            (is_there && effect.existed(is_alone)).then_some(effect)
        };
        mutation.edits.iter().filter_map(of_edit).max().unwrap_or_default()
    }

    /// The content of a mutation's context; `None` when it has no context.
    fn open_context(&self, id: ShardId, mutation: &Mutation) -> Result<Option<Observed>, Reason> {
        let Some(context) = &mutation.context else { return Ok(None) };
        if !self.shards.contains_key(&id) {
            return Err(Reason::UnknownNamespace);
        }
        self.keys.as_ref().ok_or(Reason::NotFormed)?.open(id, context).map(Some)
    }

    /// Authors a write and merges it here. Returns its dot, stamp, record and sealed bytes.
    pub(super) fn write(
        &mut self,
        now: Now,
        id: ShardId,
        mutation: &Mutation,
        observed: Option<Observed>,
    ) -> Result<(Dot, u64, Bytes, Bytes), Reason> {
        let me = self.actor();
        let local = self.shards.get_mut(&id).filter(|local| local.strategy.is_some());
        let shard = &mut local.ok_or(Reason::UnknownNamespace)?.shard;
        let wall = Wall::new(now.wall, self.config.ahead_ms_max);
        let mut clock = self.clock;
        let stamp = |floor| clock.issue(wall, floor);
        let listed_max = self.config.slices.listed;
        let made = author::new_write(shard, me, mutation, observed, listed_max, stamp);
        let (dot, stamp, sealed) = made?;
        self.clock = clock;
        // A stamp that had to be above what the write supersedes is not the clock's.
        if clock.last() == stamp {
            self.leads.issued(stamp);
        }
        let body = write::reopen(&sealed);
        let record = log::merge(shard, &sealed, &body);
        let (record, _) =
            record.expect("a new dot is unknown, and room for its actors was checked");
        self.conflicts += u64::from(shard.has_siblings(&body));
        Ok((dot, stamp, record, sealed))
    }

    /// Pushes the writes that are durable now to every connected peer that keeps up.
    fn push(&mut self, now: Now, durable: u64, out: &mut Outbox<Action>) {
        for (id, seq) in self.pushes.first_durable(durable) {
            if let Some(local) = self.shards.get_mut(&id) {
                local.sync.lags.wrote(now.mono, seq, self.peers.replicas());
            }
        }
        let deltas = self.pushes.take_deltas(now.mono, durable, &self.config, &mut self.peers);
        for (to, message) in deltas {
            out.push(Action::Send { to, message, promise: false });
        }
    }

    /// Issues records of a shard, in one write. An empty list issues nothing.
    pub(super) fn record(&mut self, shard: ShardId, records: Vec<Bytes>, out: &mut Outbox<Action>) {
        if records.is_empty() {
            return;
        }
        if let Some(capture) = self.shards.get_mut(&shard).and_then(|local| local.capture.as_mut())
        {
            capture.add_records(&records);
        }
        self.persist(shard, Write::Dots { records }, out);
        self.note_sweep(shard);
    }

    /// Issues one write, and counts it.
    pub(super) fn persist(&mut self, shard: ShardId, write: Write, out: &mut Outbox<Action>) {
        self.issued += 1;
        out.push(Action::Persist { shard, write });
    }

    /// The author of this boot's writes.
    pub(super) fn actor(&self) -> Actor {
        let boot =
            if mutant!("replication.author.forgets_boot") { Boot::default() } else { self.boot };
        Actor { replica: self.me, boot }
    }

    /// Borrows what receives writes, and beside it the shards that they go to.
    pub(super) fn receiver(
        &mut self,
        now: Now,
    ) -> (Receiver<'_>, &mut CountedMap<ShardId, LocalShard>) {
        let receiver = Receiver {
            me: self.actor(),
            wall: Wall::new(now.wall, self.config.ahead_ms_max),
            clock: &mut self.clock,
            leads: &mut self.leads,
            conflicts: &mut self.conflicts,
        };
        (receiver, &mut self.shards)
    }
}

impl Replicator {
    /// Reads what this node holds of a shard.
    ///
    /// # Errors
    ///
    /// [`Reason::UnknownNamespace`] when the shard is not open here; [`Reason::NotFormed`] when the answer needs a
    /// context and no key was told yet.
    pub fn read(&self, shard: ShardId, query: &Query) -> Result<Value, Reason> {
        let local = self.shards.get(&shard).ok_or(Reason::UnknownNamespace)?;
        let strategy = local.strategy.ok_or(Reason::UnknownNamespace)?;
        match (&self.keys, query) {
            (Some(keys), _) => {
                query::read(&local.shard, strategy, query, &|seen| keys.seal(shard, seen))
            }
            (None, Query::Get { .. } | Query::Members { .. } | Query::Record { .. }) => {
                Err(Reason::NotFormed)
            }
            (None, _) => {
                query::read(&local.shard, strategy, query, &|_| crate::api::Context::default())
            }
        }
    }

    /// The milliseconds by which stamps that this node issued in the last minute are further ahead of its wall clock
    /// than the bound: its clock went back. 0 when there are none.
    #[must_use]
    pub fn clock_lead_ms(&self) -> u64 {
        self.leads.own_ms()
    }

    /// The authors whose stamps, received in the last minute, are further ahead of this node's wall clock than the
    /// bound, with the milliseconds.
    pub fn peer_leads(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.leads.others()
    }

    /// The shard's root. Two replicas have equal roots if and only if they hold the same and have seen the same.
    #[must_use]
    pub fn root(&self, shard: ShardId) -> Option<Digest> {
        self.shards.get(&shard).map(|local| local.shard.root())
    }

    /// The dots in the shard's context.
    #[must_use]
    pub fn context(&self, shard: ShardId) -> Option<Dots> {
        self.shards.get(&shard).map(|local| local.shard.dots())
    }

    /// The seen sequence numbers of an actor.
    #[must_use]
    pub fn seen(&self, shard: ShardId, actor: &Actor) -> Option<&Ranges> {
        let shard = &self.shards.get(&shard)?.shard;
        shard.number(actor).map(|number| shard.seen(number))
    }

    /// The greatest number of deferred removals in one shard.
    #[must_use]
    pub fn deferred_removals(&self) -> usize {
        self.shards.values().map(|local| local.shard.deferred_removals()).max().unwrap_or(0)
    }

    /// The replicas that may lack eventual writes of this process, with the moment since when the oldest one waits.
    #[must_use]
    pub fn lags(&self) -> BTreeMap<Replica, Instant> {
        let mut oldest = BTreeMap::new();
        let lagging = self.index.lagging.iter().filter_map(|id| self.shards.get(id));
        for (replica, since) in lagging.flat_map(|local| local.sync.lags.iter()) {
            let known = oldest.entry(replica).or_insert(since);
            *known = since.min(*known);
        }
        oldest
    }

    /// The writes so far that made siblings: they left a value beside one that their author had not seen.
    #[must_use]
    pub const fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// The writes for which a client waits until other replicas have them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Whether elements that a delete covered are still in some shard's table. No read shows them; the root has them.
    #[must_use]
    pub fn is_sweeping(&self) -> bool {
        !self.sweeping.is_empty()
    }

    /// Whether all these dots are in the context: the claim in a promise of this node.
    #[must_use]
    pub fn holds(&self, shard: ShardId, dots: &Dots) -> bool {
        let Some(local) = self.shards.get(&shard) else { return dots.is_empty() };
        dots.is_subset(&local.shard.dots())
    }

    /// All shards, open or not.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.keys().copied()
    }

    /// The status of each open shard, in order.
    pub fn status(&self) -> impl Iterator<Item = ShardStatus> {
        self.shards.iter().filter(|(_, local)| local.strategy.is_some()).map(|(id, local)| {
            ShardStatus {
                namespace: id.namespace,
                slot: id.slot,
                root: local.shard.root().short(),
                writes: local.shard.live.len() as u64,
                in_sync: self.in_sync(local) as u32,
                peers: self.peers.len() as u32,
            }
        })
    }

    /// The number of replicas whose roots were equal to a shard's when last compared.
    fn in_sync(&self, local: &LocalShard) -> usize {
        let one_by_one = &local.sync.in_sync;
        let by_summary = self.peers.equal_since().filter(|(replica, at)| {
            local.place.is_unchanged_since(*at) && !one_by_one.contains(replica)
        });
        one_by_one.len() + by_summary.count()
    }

    /// Bytes of memory that grow with what the shards hold: writes and paths.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shards.bytes() + self.grave_bytes
    }

    /// The part of one shard in [`Self::bytes`]; 0 if it is not here.
    #[must_use]
    pub(crate) fn bytes_of(&self, shard: &ShardId) -> u64 {
        self.shards.get(shard).map_or(0, |local| local.shard.bytes())
    }

    /// The same by a sum over all shards: what [`Self::bytes`] must say.
    #[must_use]
    pub fn recounted_bytes(&self) -> u64 {
        self.shards.recounted() + self.graves.iter().map(Shard::bytes).sum::<u64>()
    }

    /// The shard of a key. It follows from the key's SHA-256, so all nodes agree for as long as the namespace exists.
    #[must_use]
    pub fn shard_for(namespace: NamespaceId, slots: u16, key: &[u8]) -> ShardId {
        ShardId { namespace, slot: slot_of(slots, key) }
    }

    /// Hashes at most `limit` live writes again, from a dot on.
    #[must_use]
    pub fn scrub(&self, shard: ShardId, from: Option<Dot>, limit: usize) -> Scrub {
        let mut scrub = Scrub::default();
        let Some(shard) = self.shards.get(&shard).map(|local| &local.shard) else {
            return scrub;
        };
        let from = from.and_then(|dot| Some((shard.number(&dot.actor)?, dot.seq)));
        for (dot, live) in shard.live.range(from.unwrap_or_default()..) {
            if scrub.checked == limit as u64 {
                scrub.next = Some(shard.dot(*dot));
                break;
            }
            scrub.checked += 1;
            if !write::is_intact(&live.sealed) {
                scrub.corrupt.push(shard.dot(*dot));
            }
        }
        scrub
    }
}
