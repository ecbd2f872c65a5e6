//! All writes of the eventual namespaces, as their authors log them, and what each node logged of them.
//!
//! This only remembers and hands each record to the laws that concern it: `again`, `coverage`, `dots`, `minted`,
//! `stamps`. What all writes amount to is `spec`'s business.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::id::GroupId;
use continuum_core::id::{Boot, Dot, NamespaceId, Replica, ShardId};
use continuum_core::node::Node;
use continuum_core::node::api::{Mutation, Policy, Row};
use continuum_core::replication::{Described, DescribedAct, Dots, describe};
use continuum_core::state::{Machine, Registry};

use super::coverage::Covered;
use super::spec::{Place, Rank, rank_of, takes};
use super::stamps::{Stamps, Wall};
use super::{Broken, Verdict, again, dots, eventual, minted, spec};

/// A client's operation that the step was asked for, with what it wants changed.
pub(crate) type Wanted<'a> = (usize, &'a Mutation);

/// Who logs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) number: usize,
    pub(crate) replica: Replica,
    pub(crate) boot: Boot,
    pub(crate) wall: Wall,
}

/// All writes of one shard.
#[derive(Debug, Default)]
struct Shard {
    writes: BTreeMap<Dot, Described>,
    /// By an edit of a write: the writes that supersede it.
    killers: BTreeMap<(Dot, u16), Vec<Dot>>,
    /// By a write: the writes that supersede what of it is in their scope.
    scoped: BTreeMap<Dot, Vec<Dot>>,
    /// By place: the registers put there.
    puts: BTreeMap<Place, BTreeSet<(Rank, Dot)>>,
}

/// What one life of a node logged.
#[derive(Debug, Default)]
struct Logged {
    seen: BTreeSet<(ShardId, Dot)>,
    covered: Covered,
    stamps: Stamps,
}

/// All writes of a run.
#[derive(Debug)]
pub(crate) struct Writes {
    shards: BTreeMap<ShardId, Shard>,
    logged: Vec<Logged>,
    /// The dots that were made for an operation.
    made_for: BTreeMap<usize, Vec<(ShardId, Dot)>>,
}

impl Writes {
    pub(crate) fn new(nodes: usize) -> Self {
        let logged = (0..nodes).map(|_| Logged::default()).collect();
        Self { shards: BTreeMap::new(), logged, made_for: BTreeMap::new() }
    }

    /// A node starts anew: what it logs again after a crash is new to it, what its disk held is not.
    pub(crate) fn restarted(&mut self, number: usize, node: &Node) {
        let mut logged = Logged::default();
        let me = node.replica();
        for (id, shard) in &self.shards {
            let context = node.replicator().context(*id).unwrap_or_default();
            for write in shard.writes.values().filter(|write| context.contains(&write.dot)) {
                let is_own = write.dot.actor.replica == me;
                logged.stamps.seen = logged.stamps.seen.max(write.stamp);
                logged.stamps.own = logged.stamps.own.max(if is_own { write.stamp } else { 0 });
            }
            logged.covered.adopt(*id, context);
        }
        self.logged[number] = logged;
    }

    /// A shard is gone from a node.
    pub(crate) fn forgotten(&mut self, number: usize, shard: ShardId) {
        self.logged[number].covered.forgets(shard);
    }

    /// A node logs what it takes in or makes.
    pub(crate) fn observe(
        &mut self,
        by: Author,
        wanted: Option<Wanted<'_>>,
        shard: ShardId,
        records: &[Bytes],
    ) -> Verdict {
        for record in records {
            let Some(told) = describe(record) else {
                self.logged[by.number].covered.learns(shard);
                continue;
            };
            let actor = told.dot.actor;
            let is_own = actor.replica == by.replica && actor.boot == by.boot;
            if let Some((operation, mutation)) = wanted.filter(|_| is_own)
                && mutation.key[..] == told.key[..]
            {
                minted::check(&told, mutation)?;
                self.made_for.entry(operation).or_default().push((shard, told.dot));
            }
            let shard = self.shards.entry(shard).or_default();
            let logged = &mut self.logged[by.number];
            if !told.waits {
                again::check(&mut logged.seen, told.shard, told.dot)?;
                logged.covered.logs(told.shard, &told.dot);
                let victims = if is_own { shard.greatest_victim(&told) } else { 0 };
                logged.stamps.check(&told, is_own, victims, by.wall)?;
            }
            match shard.writes.get(&told.dot) {
                Some(known) => dots::check(known, &told)?,
                None => shard.add(told),
            }
        }
        Ok(())
    }

    /// A step of a node ends.
    pub(crate) fn check_covered(&mut self, number: usize, node: &Node) -> Verdict {
        let shards = &self.shards;
        let explains = |id: ShardId, dot: &Dot, context: &Dots| {
            shards.get(&id).is_some_and(|shard| {
                shard.is_superseded(dot, context)
                    || (discards(node, id.namespace) && shard.is_beaten(dot, context))
            })
        };
        self.logged[number].covered.check(node.replicator(), explains)
    }

    /// Whether an acknowledged operation is in the context that the replicas came to; it is beaten where losers go.
    pub(crate) fn check_there(
        &self,
        operation: usize,
        covers: impl Fn(ShardId, &Dot) -> bool,
    ) -> Verdict {
        let Some(dots) = self.made_for.get(&operation) else { return Ok(()) };
        if dots.iter().any(|(shard, dot)| covers(*shard, dot)) {
            return Ok(());
        }
        Err(Broken::new(eventual::LOST, format!("operation {operation} is nowhere: {dots:?}")))
    }

    /// Judges the rows of one shard, which are the same on all replicas.
    pub(crate) fn check(
        &self,
        shard: ShardId,
        discards: bool,
        rows: &[Row],
        covers: impl Fn(&Dot) -> bool,
    ) -> Verdict {
        let nothing = Shard::default();
        let writes = self.shards.get(&shard).unwrap_or(&nothing).writes.values();
        spec::check(writes.filter(|write| covers(&write.dot)), discards, rows)
    }
}

/// Whether losers are dropped in a namespace, as this node knows it.
fn discards(node: &Node, namespace: NamespaceId) -> bool {
    let registry = node.state(GroupId::REGISTRY).map(Machine::registry);
    let mut known = registry.into_iter().flat_map(Registry::namespaces);
    known.any(|record| {
        record.namespace.id == namespace
            && matches!(record.namespace.policy, Policy::Eventual { discard: true, .. })
    })
}

impl Shard {
    fn add(&mut self, told: Described) {
        for edit in &told.edits {
            for victim in &edit.victims {
                self.killers.entry(*victim).or_default().push(told.dot);
            }
            for dot in &edit.unseen {
                self.scoped.entry(*dot).or_default().push(told.dot);
            }
            if matches!(edit.act, DescribedAct::Put(_)) {
                let place = (told.key.clone(), edit.field.clone());
                self.puts.entry(place).or_default().insert((rank_of(&told), told.dot));
            }
        }
        self.writes.insert(told.dot, told);
    }

    /// The greatest stamp of what a write supersedes, but for its own earlier edits.
    fn greatest_victim(&self, told: &Described) -> u64 {
        let victims = told.edits.iter().flat_map(|edit| &edit.victims);
        let stamps = victims.filter_map(|(dot, _)| self.writes.get(dot).map(|write| write.stamp));
        stamps.max().unwrap_or(0)
    }

    /// Whether all that a write made is superseded by writes in the context.
    fn is_superseded(&self, dot: &Dot, context: &Dots) -> bool {
        let Some(write) = self.writes.get(dot) else { return false };
        let mut edits = (0_u16..).zip(&write.edits);
        edits.all(|(number, edit)| {
            matches!(edit.act, DescribedAct::Delete | DescribedAct::Remove(_)) || {
                let killers = self.killers.get(&(*dot, number)).into_iter().flatten();
                let by_scope = self.scoped.get(dot).into_iter().flatten().filter(|killer| {
                    let killer = self.writes.get(*killer);
                    killer.is_some_and(|killer| {
                        let mut by = killer.edits.iter().filter(|by| by.unseen.contains(dot));
                        by.any(|by| takes((&killer.key, by), (&write.key, edit)))
                    })
                });
                killers.chain(by_scope).any(|killer| context.contains(killer))
            }
        })
    }

    /// Whether a write in the context beats every register that this one put.
    fn is_beaten(&self, dot: &Dot, context: &Dots) -> bool {
        let Some(write) = self.writes.get(dot) else { return false };
        let rank = rank_of(write);
        write.edits.iter().all(|edit| {
            let place = (write.key.clone(), edit.field.clone());
            let puts = self.puts.get(&place).filter(|_| matches!(edit.act, DescribedAct::Put(_)));
            let greater = puts.into_iter().flat_map(|puts| puts.range((rank, *dot)..).skip(1));
            greater.into_iter().any(|(_, other)| context.contains(other))
        })
    }
}
