//! Authors a write: checks its bounds, finds what it supersedes, and gives it a dot.
//!
//! Only this module refuses a write for what the shard holds; a write that was authored is merged wherever it arrives.
//! A write with a client's context supersedes what that context names and nothing else; without one it supersedes what
//! this replica holds. This module does not merge the write.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::api::{Bound, Change, Edit, Mutation, Observed, Reason, Resource};
use crate::id::{Actor, Dot};
use crate::limits::{
    EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, REPLACED_MAX, REPLACED_NAMES_MAX, SHARD_ACTORS_MAX,
    SIBLINGS_MAX, STAMP_MAX, VALUE_BYTES_MAX,
};
use crate::{mutant, reach};

use super::shard::{Element, LocalDot, Shard, counter};
use super::write::path::{self, Kind, Scope};
use super::write::{
    self, DotRef, EditOp, EditRecord, ElementRef, Raw, SEALED_BYTES_MAX, SpansRef, WriteBody,
};

/// The most ranges of dots in a delete of many elements, before it is limited to the dots of its scope.
const COVER_RANGES_MAX: usize = 1024;

/// The dots that a client had read.
struct Read {
    /// The dots in the shard's context.
    here: BTreeSet<LocalDot>,
    /// Those of `here` of which the shard no longer holds all elements, ascending, up to a bound.
    replaced: Vec<LocalDot>,
    /// The dots that the shard has not seen.
    unseen: Vec<Dot>,
}

/// An element of the write that is being built.
struct OwnElement {
    path: Vec<u8>,
    edit: u16,
    totals: (u64, u64),
    live: bool,
}

struct WriteBuilder<'a> {
    shard: &'a Shard,
    /// `None` when the client carries no context.
    read: Option<Read>,
    dot: Dot,
    actors: Vec<Actor>,
    actor_indices: BTreeMap<Actor, u32>,
    own: Vec<OwnElement>,
    /// The greatest stamp among what the write supersedes.
    floor: u64,
    /// The names of replaced elements that the write may still hold.
    nameable: usize,
    /// The most elements that a delete names one by one.
    listed_max: usize,
    /// Whether some edit names all that the client had read, and none of its elements.
    names_all_read: bool,
}

/// Builds and seals a write. `observed` is the content of the client's context; `stamp` issues a stamp above a floor.
/// Returns the write's dot, stamp and sealed bytes.
///
/// # Errors
///
/// The bound that the mutation exceeds.
pub(super) fn new_write(
    shard: &Shard,
    me: Actor,
    mutation: &Mutation,
    observed: Option<Observed>,
    listed_max: usize,
    stamp: impl FnOnce(u64) -> Option<u64>,
) -> Result<(Dot, u64, Bytes), Reason> {
    check(mutation)?;
    let full = Reason::Full { what: Resource::Memory };
    let dot = Dot { actor: me, seq: shard.next_seq(&me).ok_or_else(|| full.clone())? };
    let floor = observed.as_ref().map_or(0, |observed| observed.stamp);
    let read = observed.map(|observed| read(shard, observed));
    let unseen = read.as_ref().map_or(0, |read| read.unseen.len());
    // Others cannot refuse what was authored, so its deferred removals must have room here at least.
    if !shard.has_deferred_room(unseen * mutation.edits.len()) {
        return Err(full);
    }
    let mut builder = WriteBuilder {
        shard,
        read,
        dot,
        actors: Vec::new(),
        actor_indices: BTreeMap::new(),
        own: Vec::new(),
        floor,
        nameable: REPLACED_NAMES_MAX,
        listed_max,
        names_all_read: false,
    };
    let key = &mutation.key;
    let kept = if mutant!("replication.author.drops_edit") { 1 } else { EDITS_MAX };
    let edits = mutation.edits.iter().take(kept).enumerate();
    let edits: Result<Vec<_>, _> = edits.map(|edit| builder.edit(key, edit)).collect();
    let edits = edits?;
    let stamp = builder.stamp(&edits, stamp)?;
    let names_all_read = builder.names_all_read;
    let mut body = WriteBody {
        namespace: shard.id.namespace,
        slot: shard.id.slot,
        dot,
        key: Raw(key),
        stamp,
        edits,
        actors: builder.actors,
    };
    let unknown = body.actors.iter().chain([&me]).filter(|actor| shard.number(actor).is_none());
    if !shard.has_room(unknown.count(), SHARD_ACTORS_MAX) {
        return Err(full);
    }
    let mut sealed = write::seal(&body);
    if sealed.len() > SEALED_BYTES_MAX && !names_all_read {
        // A client knows nothing of what was replaced, so its write is not refused for the names of that.
        body.edits.iter_mut().for_each(|edit| edit.absent.truncate(unseen));
        sealed = write::seal(&body);
    }
    at_most(Bound::Request, sealed.len(), SEALED_BYTES_MAX)?;
    Ok((dot, stamp, sealed))
}

fn check(mutation: &Mutation) -> Result<(), Reason> {
    at_most(Bound::Key, mutation.key.len(), KEY_BYTES_MAX)?;
    if mutation.edits.is_empty() {
        return Err(Reason::OutOfBounds { what: Bound::Edits, limit: EDITS_MAX as u64 });
    }
    at_most(Bound::Edits, mutation.edits.len(), EDITS_MAX)?;
    for edit in &mutation.edits {
        at_most(Bound::Field, edit.field.len(), FIELD_BYTES_MAX)?;
        match &edit.change {
            Change::Put(value) | Change::Add(value) | Change::Remove(value) => {
                at_most(Bound::Value, value.len(), VALUE_BYTES_MAX)?;
            }
            Change::Cas { .. } => return Err(Reason::WrongConsistency),
            Change::Delete | Change::Count(_) => {}
        }
    }
    Ok(())
}

/// The elements that an edit removes, or the register that it replaces; `None` for other edits.
pub(super) fn before_scope(key: &[u8], edit: &Edit) -> Option<Scope> {
    let op = match &edit.change {
        Change::Delete => EditOp::Delete,
        Change::Remove(member) => EditOp::Remove(Raw(member)),
        Change::Put(value) => EditOp::Put(Raw(value)),
        _ => return None,
    };
    Some(EditRecord::new(&edit.field, op).scope(key))
}

fn at_most(what: Bound, length: usize, limit: usize) -> Result<(), Reason> {
    if length <= limit { Ok(()) } else { Err(Reason::OutOfBounds { what, limit: limit as u64 }) }
}

fn read(shard: &Shard, observed: Observed) -> Read {
    let mut read = Read { here: BTreeSet::new(), replaced: Vec::new(), unseen: Vec::new() };
    for dot in observed.dots {
        match shard.number(&dot.actor) {
            Some(number) if shard.seen(number).contains(dot.seq) => {
                read.here.insert((number, dot.seq));
            }
            _ => read.unseen.push(dot),
        }
    }
    let is_replaced = |dot: &&LocalDot| shard.live.get(dot).is_none_or(|live| !live.whole);
    read.replaced = read.here.iter().filter(is_replaced).take(REPLACED_MAX).copied().collect();
    read.unseen.sort_unstable();
    read.unseen.dedup();
    read
}

impl WriteBuilder<'_> {
    fn edit<'m>(
        &mut self,
        key: &'m Bytes,
        (index, edit): (usize, &'m Edit),
    ) -> Result<EditRecord<'m>, Reason> {
        let mut totals = (0, 0);
        let op = match &edit.change {
            Change::Put(value) => EditOp::Put(Raw(value)),
            Change::Add(member) => EditOp::Add(Raw(member)),
            Change::Remove(member) => EditOp::Remove(Raw(member)),
            Change::Count(by) => {
                totals = counter::add(self.totals(key, &edit.field), *by)?;
                EditOp::Count { plus: totals.0, minus: totals.1 }
            }
            Change::Delete | Change::Cas { .. } => EditOp::Delete,
        };
        let mut record = EditRecord::new(&edit.field, op);
        let scope = record.scope(key);
        if self.shard.has_more(&scope, self.listed_max) {
            self.supersede_scope(&mut record, &scope);
        } else {
            self.supersede_held(&mut record, &scope)?;
        }
        self.supersede_own(&mut record, &scope);
        self.supersede_unseen(&mut record);
        self.supersede_replaced(&mut record);
        if let Some(path) = record.path(key) {
            self.own.push(OwnElement { path, edit: index as u16, totals, live: true });
        }
        Ok(record)
    }

    /// The write's stamp. That of a write that only removes orders nothing, so it may be the greatest that there is.
    fn stamp(
        &self,
        edits: &[EditRecord<'_>],
        issue: impl FnOnce(u64) -> Option<u64>,
    ) -> Result<u64, Reason> {
        let removes = !edits.iter().any(EditRecord::makes_element);
        let floor = if self.shard.discard && !mutant!("replication.stamp.below_dead") {
            // A made-up stamp at the top must not end all writing in the shard.
            self.floor.max(self.shard.stamp.min(STAMP_MAX - 1))
        } else {
            self.floor
        };
        let floor = if removes { floor.min(STAMP_MAX - 1) } else { floor };
        issue(floor).ok_or(Reason::OutOfBounds { what: Bound::Stamp, limit: STAMP_MAX })
    }

    /// This actor's totals of a counter so far, this write's earlier edits included.
    fn totals(&self, key: &[u8], field: &[u8]) -> (u64, u64) {
        let path = path::of(key, field, Kind::Counter, &[]);
        if let Some(own) = self.own.iter().rev().find(|own| own.live && own.path == path) {
            return own.totals;
        }
        let me = self.shard.number(&self.dot.actor);
        let elements = self.shard.elements_at(&path);
        let mine = elements.iter().find(|element| Some(element.actor) == me);
        mine.map_or((0, 0), |element| counter::totals(self.shard, element))
    }

    /// Supersedes elements that the shard holds.
    fn supersede_held(&mut self, record: &mut EditRecord<'_>, scope: &Scope) -> Result<(), Reason> {
        let mut left = 0;
        for element in self.shard.in_scope(scope) {
            if self.supersedes(&record.op, &element) {
                self.floor = self.floor.max(self.shard.write(&element).stamp);
                let actor = self.index_of(self.shard.actor(element.actor));
                record.superseded.push(ElementRef { actor, seq: element.seq, edit: element.edit });
            } else {
                left += 1;
            }
        }
        if matches!(record.op, EditOp::Put(_)) && left >= SIBLINGS_MAX {
            reach!("replication.author.too_many_siblings");
            return Err(Reason::TooManySiblings);
        }
        record.superseded.sort_unstable();
        Ok(())
    }

    fn supersedes(&self, op: &EditOp<'_>, element: &Element) -> bool {
        match (op, &self.read) {
            (EditOp::Count { .. }, _) => {
                Some(element.actor) == self.shard.number(&self.dot.actor)
                    && !mutant!("replication.counter.sums_twice")
            }
            (_, None) => true,
            _ if mutant!("replication.author.observes_all") => true,
            (_, Some(read)) => {
                read.here.contains(&element.dot())
                    && !(element.edit == 0 && mutant!("replication.author.supersedes_too_little"))
            }
        }
    }

    /// Supersedes the elements of a scope that has too many of them to name each: all that were seen here, or all of
    /// the writes that the client had read.
    fn supersede_scope(&mut self, record: &mut EditRecord<'_>, scope: &Scope) {
        reach!("replication.author.covers");
        if let Some(read) = &self.read {
            self.names_all_read = true;
            // The client's context has the greatest of their stamps.
            let here: Vec<LocalDot> = read.here.iter().copied().collect();
            for (number, seq) in here {
                let actor = self.index_of(self.shard.actor(number));
                record.absent.push(DotRef { actor, seq });
            }
            return;
        }
        // To look for the greatest stamp in the scope would cost what the scope holds.
        self.floor = self.floor.max(self.shard.stamp.min(STAMP_MAX - 1));
        for (actor, ranges) in self.shard.covering(scope, COVER_RANGES_MAX) {
            let actor = self.index_of(actor);
            record.covered.push(SpansRef { actor, spans: ranges.iter().collect() });
        }
        record.covered.sort_unstable_by_key(|of| of.actor);
    }

    /// Supersedes earlier edits of the same write.
    fn supersede_own(&mut self, record: &mut EditRecord<'_>, scope: &Scope) {
        let seq = self.dot.seq;
        for own in self.own.iter_mut().filter(|own| own.live && scope.contains(&own.path)) {
            own.live = false;
            record.superseded.push(ElementRef { actor: 0, seq, edit: own.edit });
        }
    }

    /// Supersedes writes that the client had read and this shard has not seen.
    fn supersede_unseen(&mut self, record: &mut EditRecord<'_>) {
        let Some(read) = &self.read else { return };
        if matches!(record.op, EditOp::Count { .. }) || read.unseen.is_empty() {
            return;
        }
        reach!("replication.author.unseen_context");
        for dot in read.unseen.clone() {
            if mutant!("replication.author.ignores_unseen") {
                continue;
            }
            let actor = self.index_of(dot.actor);
            record.absent.push(DotRef { actor, seq: dot.seq });
        }
    }

    /// Supersedes writes that the client had read and whose elements this shard no longer holds. Another replica may
    /// still hold them, and the write that replaced them here may never reach it.
    fn supersede_replaced(&mut self, record: &mut EditRecord<'_>) {
        let Some(read) = &self.read else { return };
        if matches!(record.op, EditOp::Count { .. })
            || mutant!("replication.author.forgets_replaced")
        {
            return;
        }
        if record.absent.len() > read.unseen.len() {
            // All that the client had read is named already.
            return;
        }
        let replaced: Vec<_> = read.replaced.iter().take(self.nameable).copied().collect();
        self.nameable -= replaced.len();
        for (number, seq) in replaced {
            reach!("replication.author.replaced_context");
            let actor = self.index_of(self.shard.actor(number));
            record.absent.push(DotRef { actor, seq });
        }
    }

    /// The actor's index in the write's table. An unknown actor gets the next index.
    fn index_of(&mut self, actor: Actor) -> u32 {
        if actor == self.dot.actor {
            return 0;
        }
        let next = self.actors.len() as u32 + 1;
        let index = *self.actor_indices.entry(actor).or_insert(next);
        if index == next {
            self.actors.push(actor);
        }
        index
    }
}
