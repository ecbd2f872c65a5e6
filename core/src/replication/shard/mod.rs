//! The state of one shard: live elements, and the context of all dots ever seen.
//!
//! An element is one edit of one write; its identity is (dot, edit). There are no tombstones: a dot that is in the
//! context and not live is dead, and stays dead. A removal is a write whose dot enters the context and whose superseded
//! elements are dropped. As a set of (element, seen) pairs, this is a join semilattice: when two replicas both saw an
//! element, it is live only if it is live in both; when one of them has not seen it, the other's state counts.
//!
//! A superseded element that has not arrived is *deferred*: its dot does not enter the context, because its write may
//! have other elements. When the write arrives, its deferred elements are removed at once. So a lost write leaves a gap
//! that anti-entropy fills, and never a false claim. A removal of many elements names none of them and takes effect in
//! slices; see `cover`.
//!
//! In a discarding shard, the losers of the LWW order at one path are dropped as soon as they meet the winner. That
//! order extends happens-before (see `write::hlc`), so the same element survives in every order of arrival.
//!
//! This module knows no messages, clocks or records.

mod context;
pub(crate) mod counter;
mod cover;
mod deferred;
mod fingerprint;
mod index;
mod live_edits;
pub(crate) mod query;
mod register;
mod removal;
mod set;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::id::{Actor, Dot, ShardId};
use crate::limits::{DEFERRED_MAX, SEQ_MAX, SHARD_ACTORS_HELD_MAX};
use crate::replication::write::{self, EditOp, EditRecord, WriteBody};
use crate::{mutant, reach};

use self::cover::Covers;
use self::deferred::Deferrals;
use self::fingerprint::Fingerprints;
use self::index::Elements;

pub use self::context::{Dots, Ranges};
pub use self::cover::Cover;
pub use self::deferred::{Deferred, Level};
pub(crate) use self::fingerprint::LIST_BITS;
pub use self::fingerprint::Span;
pub use self::live_edits::LiveEdits;

/// The memory of a live write beside its bytes: its entry in the table, its fingerprints.
const WRITE_BYTES: u64 = 160;
/// The memory of a path beside its bytes.
const PATH_BYTES: u64 = 72;
/// The memory of an actor, and of a range of the context.
const ACTOR_BYTES: u64 = 192;
const RANGE_BYTES: u64 = 16;

/// A dot inside a shard: the actor's number there, and the sequence number.
pub(crate) type LocalDot = (u32, u64);

/// One live edit of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    /// Its author's number in this shard.
    pub(crate) actor: u32,
    /// The index of its edit in its write.
    pub(crate) edit: u16,
    /// Its write's sequence number.
    pub(crate) seq: u64,
}

impl Element {
    /// The dot of its write.
    pub(crate) const fn dot(&self) -> LocalDot {
        (self.actor, self.seq)
    }
}

/// A write with at least one live element.
#[derive(Clone, Debug)]
pub(crate) struct LiveWrite {
    /// The write as its author made it.
    pub(crate) sealed: Bytes,
    /// The edits whose elements are live.
    pub(crate) edits: LiveEdits,
    /// The author's hybrid logical clock.
    pub(crate) stamp: u64,
    /// Whether every element that the write made is live.
    pub(crate) whole: bool,
}

impl LiveWrite {
    /// The digest that fingerprints sum up: the write's hash, or once an element was removed, the hash of that hash and
    /// the live edits.
    pub(crate) fn leaf(&self) -> Digest {
        let hash = write::hash_of(&self.sealed);
        if self.whole {
            return hash;
        }
        let mut hasher = Hasher::new();
        hasher.bytes(&hash.0);
        self.edits.words().for_each(|word| hasher.number(word));
        hasher.finish()
    }

    /// The live edits, unless all are live.
    pub(crate) fn partial_edits(&self) -> Option<LiveEdits> {
        (!self.whole).then(|| self.edits.clone())
    }
}

/// The content of one instant of a peer beyond the writes that it sent. It may be applied once all of these are held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// Dots that enter the context.
    pub(crate) context: Dots,
    /// Removals of elements whose writes have not arrived here.
    pub(crate) deferred: Vec<(Dot, Deferred)>,
    /// Removals of whole scopes.
    pub(crate) covers: Vec<Cover>,
    /// For live writes here: the only edits that stay live.
    pub(crate) removals: Vec<(Dot, LiveEdits)>,
    /// At least the greatest stamp of all writes in `context`.
    pub(crate) stamp: u64,
}

impl Join {
    /// Whether it changes nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.context.is_empty()
            && self.deferred.is_empty()
            && self.covers.is_empty()
            && self.removals.is_empty()
    }
}

/// The outcome of merging a write.
#[derive(Debug)]
pub(crate) enum Merged {
    /// The write is new, and its dot is in the context now. The live edits are given when not all are live.
    New(Option<LiveEdits>),
    /// The dot was in the context.
    Known,
    /// The dot was in the context, with other bytes that win over these.
    Lost,
    /// The dot was in the context, with other bytes that these replace. The live edits are given when not all are live.
    Replaced {
        /// The write that was here.
        old: LiveWrite,
        /// The live edits of the write that replaces it.
        edits: Option<LiveEdits>,
    },
    /// The shard knows as many actors as it may.
    Full,
}

/// One shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    /// The shard's namespace and slot.
    pub(crate) id: ShardId,
    /// The number of slots of its namespace; 0 until the shard is open.
    pub(crate) slots: u16,
    /// Whether losers of the LWW order are dropped.
    pub(crate) discard: bool,
    /// The live writes.
    pub(crate) live: BTreeMap<LocalDot, LiveWrite>,
    /// At least the greatest stamp of all writes in the context, those included that it knows only from views.
    pub(crate) stamp: u64,
    /// The sums over the live writes.
    pub(crate) fingerprints: Fingerprints,
    /// Removals of elements whose writes have not arrived.
    deferred: Deferrals,
    covers: Covers,
    actors: Vec<Actor>,
    /// The greatest sequence number of each actor that any write or view named, seen or not.
    named: Vec<u64>,
    numbers: BTreeMap<Actor, u32>,
    context: Vec<Ranges>,
    index: BTreeMap<Box<[u8]>, Elements>,
    bytes: u64,
    /// The root, if nothing changed since it was last computed.
    root: Option<Digest>,
}

/// The slot of a key.
pub(crate) fn slot_of(slots: u16, key: &[u8]) -> u16 {
    let slot = if slots <= 1 { 0 } else { Digest::of(key).short() % u64::from(slots) };
    slot as u16
}

impl Shard {
    /// Makes an empty shard.
    pub(crate) fn new(id: ShardId) -> Self {
        Self { id, ..Self::default() }
    }

    /// Bytes of memory that grow with what the shard holds.
    pub(crate) fn bytes(&self) -> u64 {
        if mutant!("replication.deferred.uncounted") {
            return self.bytes;
        }
        self.bytes + self.deferred_bytes() + self.cover_bytes()
    }

    /// The actor's number in this shard, if the actor is known.
    pub(crate) fn number(&self, actor: &Actor) -> Option<u32> {
        self.numbers.get(actor).copied()
    }

    /// The actor with a number of this shard.
    pub(crate) fn actor(&self, number: u32) -> Actor {
        self.actors[number as usize]
    }

    /// Whether the shard may learn `actors` more actors and then has at most `limit`.
    pub(crate) fn has_room(&self, actors: usize, limit: usize) -> bool {
        self.actors.len() + actors <= limit
    }

    /// The number of an author's next write: above all of its numbers that anybody named here, because a removal of a
    /// named one may be deferred on any replica. Only a lying member can name the last one; then it is a number after
    /// those seen that nobody named here. `None` when there is none.
    pub(crate) fn next_seq(&self, me: &Actor) -> Option<u64> {
        let Some(number) = self.number(me) else { return Some(1) };
        let named = if mutant!("replication.author.mints_named") {
            0
        } else {
            self.named.get(number as usize).copied().unwrap_or(0)
        };
        let seen = self.seen(number);
        let top = seen.last().max(named);
        if top < SEQ_MAX {
            return Some(top + 1);
        }
        reach!("replication.author.below_the_top");
        let free = |seq: &u64| !seen.contains(*seq) && !self.deferred.has((number, *seq));
        let runs: Vec<u64> =
            seen.iter().map(|(_, high)| high).filter(|high| *high < SEQ_MAX).collect();
        let first = runs.last().copied().unwrap_or(0) + 1;
        (first..=SEQ_MAX).take(DEFERRED_MAX + 2).find(free)
    }

    /// Frees about `entries` entries of the tables of a shard that is gone. True when nothing is left.
    pub(crate) fn free(&mut self, entries: usize) -> bool {
        let entries = if mutant!("replication.shard.freed_at_once") { usize::MAX } else { entries };
        let mut left = entries;
        while left > 0 {
            let write = self.live.pop_first();
            let path = self.index.pop_first();
            if write.is_none() && path.is_none() {
                return self.fingerprints.free(left) && self.deferred.free(left);
            }
            let bytes = write.map_or(0, |(_, live)| live.sealed.len() as u64 + WRITE_BYTES)
                + path.map_or(0, |(path, _)| path.len() as u64 + PATH_BYTES);
            self.bytes = self.bytes.saturating_sub(bytes);
            left -= 1;
        }
        reach!("replication.shard.freed_in_slices");
        false
    }

    /// Translates a dot of this shard.
    pub(crate) fn dot(&self, dot: LocalDot) -> Dot {
        Dot { actor: self.actor(dot.0), seq: dot.1 }
    }

    /// The seen sequence numbers of an actor.
    pub(crate) fn seen(&self, actor: u32) -> &Ranges {
        &self.context[actor as usize]
    }

    /// The greatest seen sequence number of an actor; 0 when none was seen.
    pub(crate) fn last_seen(&self, actor: &Actor) -> u64 {
        self.number(actor).map_or(0, |number| self.seen(number).last())
    }

    /// Whether the dot is in the context.
    pub(crate) fn contains(&self, dot: &Dot) -> bool {
        self.number(&dot.actor).is_some_and(|actor| self.seen(actor).contains(dot.seq))
    }

    /// The context in its canonical form.
    pub(crate) fn dots(&self) -> Dots {
        let actors = self.numbers.iter();
        Dots::new(actors.map(|(actor, number)| (*actor, self.seen(*number).clone())).collect())
    }

    /// The actors with their numbers, in canonical order.
    pub(crate) fn actors(&self) -> impl Iterator<Item = (&Actor, u32)> {
        self.numbers.iter().map(|(actor, number)| (actor, *number))
    }

    /// The root: equal if and only if two replicas hold the same and have seen the same.
    pub(crate) fn root(&self) -> Digest {
        debug_assert!(
            self.root.is_none_or(|root| root == self.compute_root()),
            "a cached root is current"
        );
        self.root.unwrap_or_else(|| self.compute_root())
    }

    /// Returns the root and caches it until something changes: equal replicas compare their roots again and again.
    pub(crate) fn cached_root(&mut self) -> Digest {
        let root = self.root();
        self.root = Some(root);
        root
    }

    /// Whether nothing changed since the root was last cached.
    pub(crate) const fn is_root_known(&self) -> bool {
        self.root.is_some()
    }

    fn compute_root(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.value(self.fingerprints.whole());
        hasher.number(self.live.len() as u64);
        for (actor, number) in self.actors().filter(|(_, number)| !self.seen(*number).is_empty()) {
            hasher.value(actor);
            hasher.value(self.seen(number));
        }
        hasher.finish()
    }

    /// The live write of an element.
    pub(crate) fn write(&self, element: &Element) -> &LiveWrite {
        self.live.get(&element.dot()).expect("every element in the index belongs to a live write")
    }

    /// Returns the number of an actor. An unknown actor gets the next number.
    pub(crate) fn intern(&mut self, actor: &Actor) -> u32 {
        if let Some(number) = self.number(actor) {
            return number;
        }
        let number = self.actors.len() as u32;
        self.actors.push(*actor);
        self.named.push(0);
        self.bytes += ACTOR_BYTES;
        self.numbers.insert(*actor, number);
        self.context.push(Ranges::default());
        number
    }

    /// Merges a write of any origin. Merging it again changes nothing.
    pub(crate) fn merge(&mut self, sealed: &Bytes, body: &WriteBody<'_>) -> Merged {
        let named = body.actors.iter().chain([&body.dot.actor]);
        let unknown = named.filter(|actor| self.number(actor).is_none()).count();
        if !self.has_room(unknown, SHARD_ACTORS_HELD_MAX) {
            return Merged::Full;
        }
        let dot = (self.intern(&body.dot.actor), body.dot.seq);
        if self.context[dot.0 as usize].contains(dot.1) {
            self.sweep_write(dot);
            if let Some(live) = self.live.get(&dot) {
                let (held, new) = (write::hash_of(&live.sealed), write::hash_of(sealed));
                if held == new {
                    return Merged::Known;
                }
                if held > new || mutant!("replication.equivocation.first_stays") {
                    return Merged::Lost;
                }
                let old = live.clone();
                let edits = self.replace(dot, &old, sealed, body);
                return Merged::Replaced { old, edits };
            }
            if !mutant!("replication.delete.resurrects") {
                return Merged::Known;
            }
        }
        let before = self.seen(dot.0).len();
        self.context[dot.0 as usize].insert(dot.1);
        self.count_ranges(before, dot.0);
        let edits = self.take_effect(dot, sealed, body, &[]);
        self.trim_waiting(dot.0, &Ranges::span(dot.1, dot.1));
        Merged::New(edits)
    }

    /// Replaces a live write by another one with the same dot. An element that was removed stays removed: removals name
    /// elements, not content.
    fn replace(
        &mut self,
        dot: LocalDot,
        old: &LiveWrite,
        sealed: &Bytes,
        body: &WriteBody<'_>,
    ) -> Option<LiveEdits> {
        reach!("replication.write.replaced");
        let known = write::reopen(&old.sealed);
        let created = LiveEdits::of(known.edits.iter().map(EditRecord::makes_element));
        let removed = created.minus(&old.edits);
        self.retain_edits(dot, &LiveEdits::default());
        self.take_effect(dot, sealed, body, &removed)
    }

    /// Gives a write whose dot is in the context its effect. Returns the live edits when not all are live.
    fn take_effect(
        &mut self,
        dot: LocalDot,
        sealed: &Bytes,
        body: &WriteBody<'_>,
        removed: &[u16],
    ) -> Option<LiveEdits> {
        self.stamp = self.stamp.max(body.stamp);
        let created = LiveEdits::of(body.edits.iter().map(EditRecord::makes_element));
        let mut live = self.surviving_edits(dot, body, created.clone());
        for edit in removed {
            live.remove(*edit);
        }
        self.root = None;
        let whole = live == created;
        // The elements enter the index before those that they supersede leave it, so that an overwritten register's
        // path stays there.
        let paths = self.insert_live(dot, sealed, body, live, whole);
        self.supersede(body);
        paths.iter().for_each(|path| self.prune(path));
        let left = self.live.get(&dot).map(|live| (live.whole, &live.edits));
        match left {
            Some((true, _)) => None,
            Some((false, edits)) => Some(edits.clone()),
            None if created.is_empty() => None,
            None => Some(LiveEdits::default()),
        }
    }

    /// Of the elements that a new write creates, those that no write here supersedes and that it does not supersede
    /// itself.
    fn surviving_edits(
        &mut self,
        dot: LocalDot,
        body: &WriteBody<'_>,
        mut live: LiveEdits,
    ) -> LiveEdits {
        self.apply_deferred(dot, body, &mut live);
        self.apply_waiting(dot, body, &mut live);
        counter::keep_latest(self, dot, body, &mut live);
        let superseded = body.edits.iter().flat_map(|edit| &edit.superseded);
        for own in superseded.filter(|element| element.actor == 0 && element.seq == dot.1) {
            live.remove(own.edit);
        }
        live
    }

    /// Takes a live write whose dot is in the context already. False when the dot has a live write, or when `edits`
    /// names edits that the write does not have.
    pub(crate) fn load_live(
        &mut self,
        sealed: &Bytes,
        body: &WriteBody<'_>,
        edits: Option<LiveEdits>,
    ) -> bool {
        let dot = (self.intern(&body.dot.actor), body.dot.seq);
        let created = LiveEdits::of(body.edits.iter().map(EditRecord::makes_element));
        let live = edits.unwrap_or_else(|| created.clone());
        let sound = live.minus(&created).is_empty() && !live.is_empty();
        if !sound || self.live.contains_key(&dot) {
            return false;
        }
        self.stamp = self.stamp.max(body.stamp);
        let whole = live == created;
        let paths = self.insert_live(dot, sealed, body, live, whole);
        paths.iter().for_each(|path| self.prune(path));
        true
    }

    /// Counts the memory of an actor's ranges, which were `before`.
    fn count_ranges(&mut self, before: usize, number: u32) {
        let after = self.seen(number).len() as u64;
        self.bytes = self.bytes + RANGE_BYTES * after - RANGE_BYTES * before as u64;
    }

    fn note_named(&mut self, (number, seq): LocalDot) {
        let named = &mut self.named[number as usize];
        *named = seq.max(*named);
    }

    /// Inserts a write's live elements into the table and the index. Returns the paths to prune.
    fn insert_live(
        &mut self,
        dot: LocalDot,
        sealed: &Bytes,
        body: &WriteBody<'_>,
        edits: LiveEdits,
        whole: bool,
    ) -> Vec<Vec<u8>> {
        let mut paths = Vec::new();
        if edits.is_empty() {
            return paths;
        }
        for (index, edit) in (0_u16..).zip(&body.edits) {
            if let Some(path) = edit.path(body.key.0).filter(|_| edits.contains(index)) {
                if self.discard && matches!(edit.op, EditOp::Put(_)) {
                    paths.push(path.clone());
                }
                self.insert(path, Element { actor: dot.0, edit: index, seq: dot.1 });
            }
        }
        self.bytes += sealed.len() as u64 + WRITE_BYTES;
        let live = LiveWrite { sealed: sealed.clone(), edits, stamp: body.stamp, whole };
        self.fingerprints.add(dot, &live.leaf());
        self.live.insert(dot, live);
        self.root = None;
        paths
    }

    /// The live writes among these dots.
    pub(crate) fn live_in<'a>(&'a self, dots: &'a Dots) -> impl Iterator<Item = Dot> + 'a {
        let known = dots.iter().filter_map(|(actor, ranges)| Some((self.number(actor)?, ranges)));
        let spans = known.flat_map(|(actor, ranges)| {
            ranges.iter().map(move |(low, high)| (actor, low)..=(actor, high))
        });
        spans.flat_map(|span| self.live.range(span).map(|(dot, _)| self.dot(*dot)))
    }

    /// Applies one instant of a peer.
    pub(crate) fn join(&mut self, join: &Join) {
        self.stamp = self.stamp.max(join.stamp);
        for (actor, ranges) in join.context.iter() {
            let number = self.intern(actor);
            let before = self.seen(number).len();
            let entered = ranges.minus(self.seen(number));
            self.context[number as usize].union(ranges);
            self.count_ranges(before, number);
            self.trim_waiting(number, &entered);
            self.root = None;
            for (low, high) in ranges.iter() {
                self.forget_deferred(number, low, high);
            }
        }
        for (dot, edits) in &join.removals {
            let dot = (self.intern(&dot.actor), dot.seq);
            self.retain_edits(dot, edits);
        }
        for (dot, deferred) in &join.deferred {
            let dot = (self.intern(&dot.actor), dot.seq);
            self.note_named(dot);
            self.remove_or_defer(dot, *deferred);
        }
        join.covers.iter().for_each(|cover| self.cover(cover));
    }
}
