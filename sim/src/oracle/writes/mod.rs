//! All writes of the eventual namespaces, as their authors log them, and which of them each node logged.
//!
//! This file remembers, and passes each record to the laws that concern it: `dead_write_stays_dead`,
//! `write_says_what_was_asked`, `context_covers_what_is_known`, `dot_minted_once`, `supersedes_what_was_seen`,
//! `hybrid_clock`. At the end it selects the writes that `eventual_specification` judges, and reports acknowledged
//! writes that no replica has. `shard` holds the writes of one shard, and `gone` says which edits others superseded or
//! beat.

mod gone;
mod shard;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use continuum_core::api::{Mutation, Policy, Query, Row};
use continuum_core::id::{Actor, Boot, Dot, GroupId, NamespaceId, Replica, ShardId, Token};
use continuum_core::node::Node;
use continuum_core::replication::{Dots, Replicator};
use continuum_core::state::{Registry, StateMachine};

use super::context_covers_what_is_known::Covered;
use super::dead_write_stays_dead::LoggedWrites;
use super::eventual_read::Expected;
use super::hybrid_clock::{Follows, Stamps, Wall};
use super::supersedes_what_was_seen::{self, Held};
use super::told::Told;
use super::{Step, dot_minted_once, eventual, eventual_specification, write_says_what_was_asked};
use crate::env::process::Process;
use crate::format::shard::{self as records, Record};
use crate::format::write::{Op, Written};
use crate::verdict::{Broken, Verdict};
use shard::Shard;

/// The number of a client's operation, and a mutation that it asks for.
pub(crate) type RequestedWrite<'a> = (usize, &'a Mutation);

/// The process that logs a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) number: usize,
    pub(crate) replica: Replica,
    pub(crate) boot: Boot,
    pub(crate) wall: Wall,
    /// Whether the shard discards losers of the LWW order.
    pub(crate) discards: bool,
    /// The token of the record in the process's log.
    pub(crate) token: Token,
}

/// The writes that one process life of a node logged.
#[derive(Debug, Default)]
struct Logged {
    seen: BTreeMap<ShardId, LoggedWrites>,
    covered: Covered,
    stamps: Stamps,
    /// The greatest stamp that it logged, by shard.
    greatest: BTreeMap<ShardId, u64>,
    /// By shard: up to this number the node has seen all writes of this process. `covered` judges that it unsees none.
    own_seen: BTreeMap<ShardId, u64>,
}

/// All writes of a run.
#[derive(Debug)]
pub(crate) struct Writes {
    shards: BTreeMap<ShardId, Shard>,
    logged: Vec<Logged>,
    /// By node number, shard and write's number: the token number of the record that its store logged last.
    recorded: Vec<BTreeMap<ShardId, Vec<Option<u64>>>>,
    told: Told,
    /// By operation number: the dots that were made for it.
    made_for: BTreeMap<usize, Vec<(ShardId, Dot)>>,
}

impl Writes {
    pub(crate) fn new(nodes: usize) -> Self {
        let logged = (0..nodes).map(|_| Logged::default()).collect();
        let recorded = vec![BTreeMap::new(); nodes];
        let (shards, made_for) = (BTreeMap::new(), BTreeMap::new());
        Self { shards, logged, recorded, told: Told::new(nodes), made_for }
    }

    /// Forgets the records of a node whose disk is gone.
    pub(crate) fn disk_gone(&mut self, number: usize) {
        self.recorded[number].clear();
        self.told.disk_gone(number);
    }

    /// The dots whose records these nodes' disks hold, each up to its token.
    pub(crate) fn recorded_on(
        &self,
        disks: impl Iterator<Item = (usize, Token)>,
    ) -> BTreeSet<(ShardId, Dot)> {
        let on = |(number, last): (usize, Token)| {
            let shards = self.recorded[number].iter().filter_map(|(id, records)| {
                let writes = &self.shards.get(id)?.writes;
                Some(writes.iter().zip(records).map(|(write, seq)| (*id, write.info.dot, *seq)))
            });
            let durable =
                shards.flatten().filter(move |(.., seq)| seq.is_some_and(|seq| seq <= last.seq));
            durable.map(|(id, dot, _)| (id, dot))
        };
        disks.flat_map(on).collect()
    }

    /// The operations of which some mutation has no dot among `kept`. A mutation has several dots if its request was
    /// repeated, and an operation has several mutations, each durable by itself.
    pub(crate) fn nowhere_in(&self, kept: &BTreeSet<(ShardId, Dot)>) -> BTreeSet<usize> {
        let key = |(shard, dot): &(ShardId, Dot)| {
            let write = self.shards.get(shard).and_then(|shard| shard.get(dot));
            write.map(|write| &write.info.key)
        };
        let gone = |(_, dots): &(&usize, &Vec<_>)| {
            let here: BTreeSet<_> = dots.iter().filter(|dot| kept.contains(dot)).map(key).collect();
            dots.iter().any(|dot| !here.contains(&key(dot)))
        };
        self.made_for.iter().filter(gone).map(|(operation, _)| *operation).collect()
    }

    /// Begins a new process life of a node whose log ends at `last`. A write that its disk held is known to it; a write
    /// that the crash lost may be logged again.
    pub(crate) fn restarted(&mut self, number: usize, node: &Node, last: Token) {
        for record in self.recorded[number].values_mut().flatten() {
            *record = record.filter(|seq| *seq <= last.seq);
        }
        self.told.restarted(number, last);
        let mut logged = Logged::default();
        for (id, shard) in &self.shards {
            let context = node.replicator().context(*id).unwrap_or_default();
            let all = shard.writes.iter().map(|write| &write.info);
            for write in all.filter(|write| context.contains(&write.dot)) {
                logged.stamps.last = logged.stamps.last.max(write.stamp);
                let greatest = logged.greatest.entry(*id).or_default();
                *greatest = write.stamp.max(*greatest);
            }
            logged.covered.adopt(*id, &context);
        }
        self.logged[number] = logged;
    }

    /// Records that a node forgets a shard.
    pub(crate) fn forgotten(&mut self, number: usize, shard: ShardId) {
        self.logged[number].covered.forgets(shard);
        self.logged[number].greatest.remove(&shard);
        self.logged[number].own_seen.remove(&shard);
    }

    /// Judges and remembers the records that a node logs, of its own writes and of others'. Removals are judged when
    /// all writes of these records are known.
    pub(crate) fn observe(
        &mut self,
        by: Author,
        node: &Node,
        wanted: &[RequestedWrite<'_>],
        shard: ShardId,
        records: &[Bytes],
    ) -> Verdict {
        let mut removals = Vec::new();
        for record in records {
            let known = self.shards.get(&shard).and_then(|shard| shard.of_record(record));
            match known
                .map_or_else(|| read(shard, record), |write| Ok(Record::Write(write, None)))?
            {
                Record::Write(write, left) => {
                    let whole = left.is_none().then_some(record);
                    removals.extend(left.map(|left| (write.dot, left)));
                    self.observe_write(by, node, wanted, (shard, whole), &write)?;
                }
                Record::Join(join) => {
                    self.logged[by.number].covered.learns(shard);
                    removals.extend(join.removals);
                }
                Record::Other => self.logged[by.number].covered.learns(shard),
            }
        }
        for (dot, left) in removals {
            if let Some(shard) = self.shards.get(&shard) {
                shard.check_removal(&dot, &left, by.discards)?;
            }
            self.told.add(by.number, by.token, (shard, dot), left);
        }
        Ok(())
    }

    fn observe_write(
        &mut self,
        by: Author,
        node: &Node,
        wanted: &[RequestedWrite<'_>],
        (id, record): (ShardId, Option<&Bytes>),
        write: &Rc<Written>,
    ) -> Verdict {
        let actor = write.dot.actor;
        let is_own = actor.replica == by.replica && actor.boot == by.boot;
        if is_own {
            self.observe_made(node, wanted, id, write)?;
        }
        let shard = self.shards.entry(id).or_default();
        let logged = &mut self.logged[by.number];
        let superseded = if is_own { shard.greatest_superseded(write) } else { 0 };
        let greatest = shard.greatest;
        let known = shard.numbers.get(&write.dot).copied();
        let number = known.unwrap_or_else(|| shard.add(write, record.cloned()));
        logged.seen.entry(id).or_default().check(number, id, write.dot)?;
        logged.covered.logs(write.shard, &write.dot);
        let logged_stamp = logged.greatest.entry(write.shard).or_default();
        if is_own {
            let below = superseded.max(u64::from(by.discards) * *logged_stamp);
            logged.stamps.check(write, Follows { below, greatest }, by.wall)?;
        }
        logged.stamps.see(write.stamp, by.wall);
        *logged_stamp = write.stamp.max(*logged_stamp);
        dot_minted_once::check(&shard.writes[number].info, write)?;
        let recorded = self.recorded[by.number].entry(id).or_default();
        if recorded.len() <= number {
            recorded.resize(number + 1, None);
        }
        recorded[number] = Some(by.token.seq);
        Ok(())
    }

    /// Judges a write that a node makes by what its client asked for, and remembers for which operation it was made.
    fn observe_made(
        &mut self,
        node: &Node,
        wanted: &[RequestedWrite<'_>],
        shard: ShardId,
        write: &Written,
    ) -> Verdict {
        // If several operations wait for the same key, an operation that already has a write gets no second one.
        let of_one = wanted.iter().all(|(operation, _)| *operation == wanted[0].0);
        let is_asked = |(operation, mutation): &&RequestedWrite<'_>| {
            let is_new = of_one || !self.made_for.contains_key(operation);
            is_new && mutation.key[..] == write.key[..]
        };
        let Some((operation, mutation)) = wanted.iter().find(is_asked) else { return Ok(()) };
        if of_one {
            let before = |field: &[u8]| self.totals_before(shard, write, field);
            write_says_what_was_asked::check(write, mutation, before)?;
            supersedes_what_was_seen::check(write, mutation)?;
            self.check_superseded(node, shard, write, mutation)?;
        }
        self.made_for.entry(*operation).or_default().push((shard, write.dot));
        Ok(())
    }

    /// Judges that a new write supersedes all that its client saw and its replica holds.
    fn check_superseded(
        &self,
        node: &Node,
        shard: ShardId,
        write: &Written,
        mutation: &Mutation,
    ) -> Verdict {
        let (Some(context), Some(known)) = (&mutation.context, self.shards.get(&shard)) else {
            return Ok(());
        };
        let discard = discards(node, shard.namespace);
        let seen = node.replicator().context(shard).unwrap_or_default();
        // A context that no node of the federation sealed names nothing.
        let read = context.peek().unwrap_or_default();
        for named in read.dots.iter().filter_map(|dot| known.get(dot)) {
            let Dot { actor, .. } = named.info.dot;
            let held = if !seen.contains(&named.info.dot) {
                // A replica that never was a member here made no write that could still arrive.
                if !is_member(node, actor.replica) {
                    continue;
                }
                Held::Unseen
            } else {
                Held::Seen
            };
            for (number, edit) in (0..).zip(&named.info.edits) {
                // Where losers are dropped, a write may lose in one of its fields alone.
                let is_beaten = || discard && known.is_edit_beaten(&named.info, edit, Some(&seen));
                let is_dead =
                    || known.is_edit_superseded(named, number, edit, Some(&seen)) || is_beaten();
                if held == Held::Seen && gone::leaves_nothing(edit) {
                    continue;
                }
                let held = if held == Held::Seen && is_dead() { Held::Replaced } else { held };
                let element = (named.info.dot, number);
                let key = &named.info.key;
                supersedes_what_was_seen::check_whole(write, (key, edit), element, held)?;
            }
        }
        Ok(())
    }

    /// The content that a node's answer to a read must have; `None` if the node does not know the namespace, or if that
    /// is strong.
    pub(crate) fn expect_read(
        &mut self,
        step: &Step<'_>,
        namespace: &str,
        query: &Query,
    ) -> Result<Option<Expected>, Broken> {
        let registry = step.node.state(GroupId::REGISTRY).map(StateMachine::registry);
        let mut known = registry.into_iter().flat_map(Registry::namespaces);
        let Some(record) = known.find(|record| record.namespace.name == namespace) else {
            return Ok(None);
        };
        let Policy::Eventual { slots, discard, .. } = record.namespace.policy else {
            return Ok(None);
        };
        let (namespace, slots) = (record.namespace.id, slots.max(1));
        let key = match query {
            Query::Get { key, .. }
            | Query::Members { key, .. }
            | Query::Count { key, .. }
            | Query::Record { key } => Some(key),
            Query::Keys { .. } | Query::Rows { .. } | Query::Export { .. } => None,
        };
        let shards = match key {
            Some(key) => vec![Replicator::shard_for(namespace, slots, key)],
            None => (0..slots).map(|slot| ShardId { namespace, slot }).collect(),
        };
        let Process { replica, boot, .. } = step.processes[step.me];
        let me = Actor { replica, boot };
        let mut expected = Expected::new(discard);
        for (id, shard) in shards.iter().filter_map(|id| Some((id, self.shards.get(id)?))) {
            let context = step.node.replicator().context(*id).unwrap_or_default();
            let own_seen = self.logged[step.me].own_seen.entry(*id).or_default();
            *own_seen = shard.check_own(Dot { actor: me, seq: *own_seen }, &context)?;
            let told = |dot: &Dot, edit| self.told.is_dead(step.me, *id, dot, edit);
            expected.add(shard.read_by(query, &context, &told));
        }
        Ok(Some(expected))
    }

    /// The writes that were made for an operation: key, shard and dot.
    pub(crate) fn made_for(&self, operation: usize) -> impl Iterator<Item = (&[u8], ShardId, Dot)> {
        let made = self.made_for.get(&operation).into_iter().flatten();
        made.filter_map(|(shard, dot)| {
            let write = self.shards.get(shard)?.get(dot)?;
            Some((&write.info.key[..], *shard, *dot))
        })
    }

    /// The totals that the author of a new write may have had in a counter before: the last, and none if that may have
    /// been deleted.
    fn totals_before(&self, shard: ShardId, write: &Written, field: &[u8]) -> Vec<i128> {
        let path = (write.key.clone(), field.to_vec());
        let shard = self.shards.get(&shard);
        let last = shard.and_then(|shard| {
            let first = Dot { seq: 0, ..write.dot };
            let dot = shard.counts.get(&path)?.range(first..write.dot).next_back()?;
            let counted = shard.get(dot)?;
            let edits = &counted.info.edits;
            let number = edits.iter().rposition(|edit| {
                edit.field[..] == *field && matches!(edit.op, Op::Count { .. })
            })?;
            let by_name = &counted.later.by_name;
            let deleted = by_name.iter().any(|(edit, _)| usize::from(*edit) == number)
                || !counted.later.by_scope.is_empty()
                || shard
                    .covering
                    .iter()
                    .filter_map(|by| shard.get(by))
                    .any(|by| by.info.edits.iter().any(|edit| edit.covers(&counted.info.dot)));
            Some((write_says_what_was_asked::total_of(&edits[number].op), deleted))
        });
        match last {
            None => vec![0],
            Some((total, false)) => vec![total],
            Some((total, true)) => vec![total, 0],
        }
    }

    /// How many writes to a key were made for an operation: more than one if its request was repeated.
    pub(crate) fn times_made(&self, operation: usize, key: &[u8]) -> usize {
        self.made_for(operation).filter(|(made, ..)| *made == key).count()
    }

    /// Judges the contexts of a node after a step.
    pub(crate) fn check_covered(&mut self, number: usize, node: &Node) -> Verdict {
        let shards = &self.shards;
        let explains = |id: ShardId, dot: &Dot, context: &Dots| {
            shards.get(&id).is_some_and(|shard| {
                let discards = discards(node, id.namespace);
                shard.is_gone(dot, (context, discards), &mut BTreeMap::new())
            })
        };
        self.logged[number].covered.check(node.replicator(), explains)
    }

    /// Judges that the final context of the replicas covers an acknowledged operation, also if a greater write of a
    /// discarding namespace beat it.
    pub(crate) fn check_there(
        &self,
        operation: usize,
        covers: impl Fn(ShardId, &Dot) -> bool,
    ) -> Verdict {
        let Some(dots) = self.made_for.get(&operation) else { return Ok(()) };
        if dots.iter().any(|(shard, dot)| covers(*shard, dot)) {
            return Ok(());
        }
        let what = format!("no replica has a write of operation {operation}, which made {dots:?}");
        Err(Broken::new(eventual::LOST, what))
    }

    /// Judges the rows of one shard, which are the same on all of these replicas.
    pub(crate) fn check(
        &self,
        shard: ShardId,
        discards: bool,
        rows: &[Row],
        covers: impl Fn(&Dot) -> bool,
        replicas: &(impl Iterator<Item = usize> + Clone),
    ) -> Verdict {
        let nothing = Shard::default();
        let writes = self.shards.get(&shard).unwrap_or(&nothing).writes.iter();
        let took_place = writes.map(|write| &*write.info).filter(|write| covers(&write.dot));
        let is_dead = |dot: &Dot, edit| {
            replicas.clone().any(|replica| self.told.is_dead(replica, shard, dot, edit))
        };
        eventual_specification::check(took_place, is_dead, discards, rows)
    }
}

/// Reads a record of a shard.
fn read(id: ShardId, record: &Bytes) -> Result<Record, Broken> {
    let unreadable = |what: String| Broken::new(write_says_what_was_asked::NAME, what);
    let read = records::read(record)
        .ok_or_else(|| unreadable(format!("a record of {id:?} follows no format: {record:?}")))?;
    match &read {
        Record::Write(write, _) if write.shard != id => {
            Err(unreadable(format!("{write:?} is logged for {id:?}")))
        }
        _ => Ok(read),
    }
}

/// Whether a replica is a member, as this node knows it.
pub(crate) fn is_member(node: &Node, replica: Replica) -> bool {
    let registry = node.state(GroupId::REGISTRY).map(StateMachine::registry);
    registry
        .and_then(|registry| registry.member(replica.node))
        .is_some_and(|(known, _)| *known == replica)
}

/// Whether a namespace discards losers of the LWW order, as this node knows it.
pub(crate) fn discards(node: &Node, namespace: NamespaceId) -> bool {
    let registry = node.state(GroupId::REGISTRY).map(StateMachine::registry);
    let mut known = registry.into_iter().flat_map(Registry::namespaces);
    known.any(|record| {
        record.namespace.id == namespace
            && matches!(record.namespace.policy, Policy::Eventual { discard: true, .. })
    })
}

#[cfg(test)]
mod tests {
    use continuum_core::api::{Content, Field};
    use continuum_core::digest::Digest;
    use continuum_core::id::Actor;

    use super::*;
    use crate::format::write::WrittenEdit;

    pub(super) fn dot(seq: u64) -> Dot {
        Dot { actor: Actor::default(), seq }
    }

    pub(super) fn put(seq: u64, superseded: &[u64]) -> Written {
        let superseded = superseded.iter().map(|seq| (dot(*seq), 0)).collect();
        let op = Op::Put(vec![seq as u8]);
        Written {
            shard: ShardId::default(),
            dot: dot(seq),
            key: b"k".to_vec(),
            stamp: seq,
            hash: Digest::default(),
            edits: vec![WrittenEdit { superseded, ..WrittenEdit::new(Vec::new(), op) }],
        }
    }

    pub(super) fn add(shard: &mut Shard, write: Written) {
        let record = Bytes::from(vec![write.dot.seq as u8]);
        shard.add(&Rc::new(write), Some(record));
    }

    fn register(values: &[u8]) -> Vec<Row> {
        let values = values.iter().map(|value| Bytes::from(vec![*value])).collect();
        let field = Field { field: Bytes::new(), content: Content::Register(values) };
        vec![Row { key: Bytes::from_static(b"k"), fields: vec![field] }]
    }

    #[test]
    fn an_operation_that_no_kept_disk_recorded_is_excused() {
        let mut writes = Writes::new(2);
        let shard = ShardId::default();
        writes.recorded[0] = BTreeMap::from([(shard, vec![Some(1), Some(2)])]);
        writes.recorded[1] = BTreeMap::from([(shard, vec![None, Some(1), Some(5)])]);
        for seq in 1..=3 {
            add(writes.shards.entry(shard).or_default(), put(seq, &[]));
            writes.made_for.insert(seq as usize, vec![(shard, dot(seq))]);
        }
        let gone = |writes: &Writes, disks: &[(usize, u64)]| {
            let disks = disks.iter().map(|(node, seq)| (*node, Token { lane: 0, seq: *seq }));
            writes.nowhere_in(&writes.recorded_on(disks)).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(gone(&writes, &[(0, 9), (1, 9)]), Vec::<usize>::new());
        assert_eq!(
            gone(&writes, &[(1, 4)]),
            [1, 3],
            "the record of the third was not durable there"
        );
        writes.disk_gone(0);
        assert_eq!(gone(&writes, &[(0, 9), (1, 9)]), [1]);
    }

    #[test]
    fn what_a_node_was_told_is_dead_and_must_have_been_superseded() {
        let mut writes = Writes::new(1);
        let shard = ShardId::default();
        let of_shard = writes.shards.entry(shard).or_default();
        [put(0, &[]), put(1, &[0]), put(2, &[1])].into_iter().for_each(|put| add(of_shard, put));
        assert!(of_shard.check_removal(&dot(0), &[], false).is_ok());
        assert!(of_shard.check_removal(&dot(2), &[0], false).is_ok());
        assert!(of_shard.check_removal(&dot(2), &[], false).is_err(), "nothing superseded it");
        assert!(of_shard.check_removal(&dot(2), &[], true).is_err(), "nothing beats it");
        // Write 1 superseded write 0, and no replica has it: value 0 is dead once a view said so, and not before.
        let judge = |writes: &Writes, rows: &[Row], covers: &[u64]| {
            writes.check(shard, false, rows, |dot| covers.contains(&dot.seq), &(0..1)).is_ok()
        };
        assert!(judge(&writes, &register(&[2, 0]), &[0, 2]));
        assert!(judge(&writes, &register(&[2]), &[0, 1, 2]));
        assert!(!judge(&writes, &register(&[2, 0]), &[0, 1, 2]), "a covered removal was applied");
        assert!(!judge(&writes, &register(&[2]), &[0, 2]), "a value is gone without a reason");
        writes.told.add(0, Token { lane: 0, seq: 9 }, (shard, dot(0)), Vec::new());
        assert!(judge(&writes, &register(&[2]), &[0, 2]));
        assert!(!judge(&writes, &register(&[2, 0]), &[0, 2]));
    }
}
