//! All writes of the eventual namespaces, as their authors log them, and which of them each node logged.
//!
//! This file remembers, and passes each record to the laws that concern it: `dead_write_stays_dead`,
//! `write_says_what_was_asked`, `context_covers_what_is_known`, `dot_minted_once`, `supersedes_what_was_seen`,
//! `hybrid_clock`. At the end it selects the writes that `eventual_specification` judges, and reports acknowledged
//! writes that no replica has. `gone` says which edits others superseded or beat.

mod gone;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use continuum_core::api::{Mutation, Policy, Query, Row};
use continuum_core::id::{Actor, Boot, Dot, GroupId, NamespaceId, Replica, ShardId, Token};
use continuum_core::node::Node;
use continuum_core::replication::{
    Dots, EditInfo, EditOpInfo, Replicator, WriteInfo, inspect, removals_in,
};
use continuum_core::state::{Registry, StateMachine};

use super::context_covers_what_is_known::Covered;
use super::eventual_read::{self, Expected};
use super::eventual_specification::{FieldPath, Rank, rank_of};
use super::hybrid_clock::{Follows, Stamps, Wall};
use super::supersedes_what_was_seen::{self, Held};
use super::told::Told;
use super::{
    Step, dead_write_stays_dead, dot_minted_once, eventual, eventual_specification,
    write_says_what_was_asked,
};
use crate::env::process::Process;
use crate::verdict::{Broken, Verdict};

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

/// The knowledge of a node at the end of the step that logs a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) node: &'a Node,
    /// The node's context of the shard.
    pub(crate) context: &'a Dots,
}

/// All writes of one shard.
#[derive(Debug, Default)]
struct Shard {
    writes: BTreeMap<Dot, WriteInfo>,
    /// By key: its writes.
    by_key: BTreeMap<Vec<u8>, Vec<Dot>>,
    /// By edit (a dot and the edit's number): the writes that supersede it.
    superseded_by: BTreeMap<(Dot, u16), Vec<Dot>>,
    /// By write: the writes that supersede all of it that is in their scope.
    scoped: BTreeMap<Dot, Vec<Dot>>,
    /// By field: the writes that put a register value, in the LWW order.
    puts: BTreeMap<FieldPath, BTreeSet<(Rank, Dot)>>,
    /// By field: the writes that counted.
    counts: BTreeMap<FieldPath, BTreeSet<Dot>>,
    /// The greatest stamp.
    greatest: u64,
}

/// The writes that one process life of a node logged.
#[derive(Debug, Default)]
struct Logged {
    seen: BTreeSet<(ShardId, Dot)>,
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
    /// By node number: the dots whose records its store logged, with the records' token numbers.
    recorded: Vec<BTreeMap<(ShardId, Dot), u64>>,
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
            let durable = self.recorded[number].iter().filter(move |(_, seq)| **seq <= last.seq);
            durable.map(|(record, _)| *record)
        };
        disks.flat_map(on).collect()
    }

    /// The operations of which some mutation has no dot among `kept`. A mutation has several dots if its request was
    /// repeated, and an operation has several mutations, each durable by itself.
    pub(crate) fn nowhere_in(&self, kept: &BTreeSet<(ShardId, Dot)>) -> BTreeSet<usize> {
        let key = |(shard, dot): &(ShardId, Dot)| {
            let write = self.shards.get(shard).and_then(|shard| shard.writes.get(dot));
            write.map(|write| &write.key)
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
        self.recorded[number].retain(|_, seq| *seq <= last.seq);
        self.told.restarted(number, last);
        let mut logged = Logged::default();
        for (id, shard) in &self.shards {
            let context = node.replicator().context(*id).unwrap_or_default();
            for write in shard.writes.values().filter(|write| context.contains(&write.dot)) {
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

    /// Judges and remembers the records that a node logs, of its own writes and of others'.
    pub(crate) fn observe(
        &mut self,
        by: Author,
        seen: &Seen<'_>,
        wanted: &[RequestedWrite<'_>],
        shard: ShardId,
        records: &[Bytes],
    ) -> Verdict {
        self.observe_writes(by, seen, wanted, shard, records)?;
        for (dot, left) in records.iter().flat_map(removals_in) {
            if let Some(shard) = self.shards.get(&shard) {
                shard.check_removal(&dot, &left, by.discards)?;
            }
            self.told.add(by.number, by.token, (shard, dot), left);
        }
        Ok(())
    }

    fn observe_writes(
        &mut self,
        by: Author,
        seen: &Seen<'_>,
        wanted: &[RequestedWrite<'_>],
        shard: ShardId,
        records: &[Bytes],
    ) -> Verdict {
        for record in records {
            let Some(write) = inspect(record) else {
                self.logged[by.number].covered.learns(shard);
                continue;
            };
            self.recorded[by.number].insert((write.shard, write.dot), by.token.seq);
            let actor = write.dot.actor;
            let is_own = actor.replica == by.replica && actor.boot == by.boot;
            // If several operations wait for the same key, an operation that already has a write gets no second one.
            let of_one = wanted.iter().all(|(operation, _)| *operation == wanted[0].0);
            let is_asked = |(operation, mutation): &&RequestedWrite<'_>| {
                let is_new = of_one || !self.made_for.contains_key(operation);
                is_own && is_new && mutation.key[..] == write.key[..]
            };
            if let Some((operation, mutation)) = wanted.iter().find(is_asked) {
                if of_one {
                    let before = |field: &[u8]| self.totals_before(shard, &write, field);
                    write_says_what_was_asked::check(&write, mutation, before)?;
                    supersedes_what_was_seen::check(&write, mutation)?;
                    self.check_superseded(seen, shard, &write, mutation)?;
                }
                self.made_for.entry(*operation).or_default().push((shard, write.dot));
            }
            let shard = self.shards.entry(shard).or_default();
            let logged = &mut self.logged[by.number];
            dead_write_stays_dead::check(&mut logged.seen, write.shard, write.dot)?;
            logged.covered.logs(write.shard, &write.dot);
            let known = logged.greatest.entry(write.shard).or_default();
            if is_own {
                let below = shard.greatest_superseded(&write).max(u64::from(by.discards) * *known);
                let follows = Follows { below, greatest: shard.greatest };
                logged.stamps.check(&write, follows, by.wall)?;
            }
            logged.stamps.see(write.stamp, by.wall);
            *known = write.stamp.max(*known);
            match shard.writes.get(&write.dot) {
                Some(known) => dot_minted_once::check(known, &write)?,
                None => shard.add(write),
            }
        }
        Ok(())
    }

    /// Judges that a new write supersedes all that its client saw and its replica holds.
    fn check_superseded(
        &self,
        seen: &Seen<'_>,
        shard: ShardId,
        write: &WriteInfo,
        mutation: &Mutation,
    ) -> Verdict {
        let (Some(context), Some(known)) = (&mutation.context, self.shards.get(&shard)) else {
            return Ok(());
        };
        let discard = discards(seen.node, shard.namespace);
        // A context that no node of the federation sealed names nothing.
        let read = context.peek().unwrap_or_default();
        for named in read.dots.iter().filter_map(|dot| known.writes.get(dot)) {
            let held = if !seen.context.contains(&named.dot) {
                // A replica that never was a member here made no write that could still arrive.
                if !is_member(seen.node, named.dot.actor.replica) {
                    continue;
                }
                Held::Unseen
            } else if discard && known.is_beaten(&named.dot, seen.context) {
                continue;
            } else {
                Held::Seen
            };
            for (number, edit) in (0..).zip(&named.edits) {
                let context = Some(seen.context);
                if held == Held::Seen && known.is_edit_superseded(named, number, edit, context) {
                    continue;
                }
                let element = (named.dot, number);
                supersedes_what_was_seen::check_whole(write, (&named.key, edit), element, held)?;
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
            Query::Keys { .. } | Query::Rows { .. } => None,
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
            let took_place = shard.read_by(query).filter(|write| context.contains(&write.dot));
            let told = &self.told;
            expected.add(took_place, |dot, edit| told.is_dead(step.me, *id, dot, edit));
        }
        Ok(Some(expected))
    }

    /// The writes that were made for an operation: key, shard and dot.
    pub(crate) fn made_for(&self, operation: usize) -> impl Iterator<Item = (&[u8], ShardId, Dot)> {
        let made = self.made_for.get(&operation).into_iter().flatten();
        made.filter_map(|(shard, dot)| {
            let write = self.shards.get(shard)?.writes.get(dot)?;
            Some((&write.key[..], *shard, *dot))
        })
    }

    /// The totals that the author of a new write may have had in a counter before: the last, and none if that may have
    /// been deleted.
    fn totals_before(&self, shard: ShardId, write: &WriteInfo, field: &[u8]) -> Vec<i128> {
        let path = (write.key.clone(), field.to_vec());
        let shard = self.shards.get(&shard);
        let last = shard.and_then(|shard| {
            let first = Dot { seq: 0, ..write.dot };
            let dot = shard.counts.get(&path)?.range(first..write.dot).next_back()?;
            let edits = &shard.writes.get(dot)?.edits;
            let number = edits.iter().rposition(|edit| {
                edit.field[..] == *field && matches!(edit.op, EditOpInfo::Count { .. })
            })?;
            let deleted = shard.superseded_by.contains_key(&(*dot, number as u16))
                || shard.scoped.contains_key(dot);
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
        let writes = self.shards.get(&shard).unwrap_or(&nothing).writes.values();
        let took_place = writes.filter(|write| covers(&write.dot));
        let is_dead = |dot: &Dot, edit| {
            replicas.clone().any(|replica| self.told.is_dead(replica, shard, dot, edit))
        };
        eventual_specification::check(took_place, is_dead, discards, rows)
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

impl Shard {
    fn add(&mut self, write: WriteInfo) {
        for edit in &write.edits {
            for element in &edit.superseded {
                self.superseded_by.entry(*element).or_default().push(write.dot);
            }
            for dot in &edit.unseen {
                self.scoped.entry(*dot).or_default().push(write.dot);
            }
            if matches!(edit.op, EditOpInfo::Put(_)) {
                let path = (write.key.clone(), edit.field.clone());
                self.puts.entry(path).or_default().insert((rank_of(&write), write.dot));
            }
            if matches!(edit.op, EditOpInfo::Count { .. }) {
                let path = (write.key.clone(), edit.field.clone());
                self.counts.entry(path).or_default().insert(write.dot);
            }
        }
        self.greatest = write.stamp.max(self.greatest);
        self.by_key.entry(write.key.clone()).or_default().push(write.dot);
        self.writes.insert(write.dot, write);
    }

    /// The writes of the keys that a query can answer with. A write concerns no other key than its own.
    fn read_by(&self, query: &Query) -> impl Iterator<Item = &WriteInfo> + Clone {
        let nothing = Bytes::new();
        let (prefix, after) = match query {
            Query::Keys { prefix, after, .. } => (prefix, after.as_ref()),
            Query::Rows { after, .. } => (&nothing, after.as_ref()),
            Query::Get { key, .. }
            | Query::Members { key, .. }
            | Query::Count { key, .. }
            | Query::Record { key } => (key, None),
        };
        let is_page = matches!(query, Query::Keys { .. } | Query::Rows { .. });
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.to_vec()),
            None => Bound::Included(prefix.to_vec()),
        };
        let to = if is_page { Bound::Unbounded } else { Bound::Included(prefix.to_vec()) };
        let keys = self.by_key.range((from, to));
        keys.flat_map(|(_, dots)| dots).filter_map(|dot| self.writes.get(dot))
    }

    /// The greatest stamp among the writes that a write supersedes, other than itself.
    fn greatest_superseded(&self, write: &WriteInfo) -> u64 {
        let superseded = write.edits.iter().flat_map(|edit| &edit.superseded);
        let stamps =
            superseded.filter_map(|(dot, _)| self.writes.get(dot).map(|write| write.stamp));
        stamps.max().unwrap_or(0)
    }

    /// Judges that a node has seen the writes that its process made after `last`. Returns the number of the newest.
    fn check_own(&self, last: Dot, context: &Dots) -> Result<u64, Broken> {
        let mut newest = last.seq;
        let later = self.writes.range((Bound::Excluded(last), Bound::Unbounded));
        for (dot, _) in later.take_while(|(dot, _)| dot.actor == last.actor) {
            if !context.contains(dot) {
                let what = format!("a node made {dot:?} and does not see it: {context:?}");
                return Err(Broken::new(eventual_read::NAME, what));
            }
            newest = dot.seq;
        }
        Ok(newest)
    }

    /// Judges that what a node counts as dead of a write was superseded, or beaten where losers are dropped, by some
    /// write, known to that node or not.
    fn check_removal(&self, dot: &Dot, left: &[u16], discards: bool) -> Verdict {
        let Some(write) = self.writes.get(dot) else { return Ok(()) };
        let mut dead = (0_u16..).zip(&write.edits).filter(|(number, _)| !left.contains(number));
        let lives = |(number, edit): &(u16, &EditInfo)| {
            let beaten = discards && self.is_edit_beaten(write, edit, None);
            !beaten && !self.is_edit_superseded(write, *number, edit, None)
        };
        match dead.find(lives) {
            None => Ok(()),
            Some((number, _)) => {
                let what = format!("edit {number} of {dot:?} is dead, and nothing superseded it");
                Err(Broken::new(eventual_read::NAME, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::api::{Content, Field};
    use continuum_core::digest::Digest;
    use continuum_core::id::Actor;
    use continuum_core::replication::EditInfo;

    use super::*;

    pub(super) fn dot(seq: u64) -> Dot {
        Dot { actor: Actor::default(), seq }
    }

    pub(super) fn put(seq: u64, superseded: &[u64]) -> WriteInfo {
        let superseded = superseded.iter().map(|seq| (dot(*seq), 0)).collect();
        let op = EditOpInfo::Put(vec![seq as u8]);
        WriteInfo {
            shard: ShardId::default(),
            dot: dot(seq),
            key: b"k".to_vec(),
            stamp: seq,
            hash: Digest::default(),
            edits: vec![EditInfo { field: Vec::new(), op, superseded, unseen: Vec::new() }],
        }
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
        writes.recorded[0] = BTreeMap::from([((shard, dot(1)), 1), ((shard, dot(2)), 2)]);
        writes.recorded[1] = BTreeMap::from([((shard, dot(2)), 1), ((shard, dot(3)), 5)]);
        for seq in 1..=3 {
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
        [put(0, &[]), put(1, &[0]), put(2, &[1])].into_iter().for_each(|put| of_shard.add(put));
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
