//! The state of one shard: live elements, and the context of all dots ever seen.
//!
//! An element is one edit of one write; its identity is (dot, edit). There are no tombstones: a dot that is in the
//! context and not live is dead, and stays dead. A removal is a write whose dot enters the context and whose victims
//! are dropped. Seen as a set of (element, seen) pairs this is a join semilattice: of two replicas that both saw an
//! element it is live only if live in both, and an element that one has not seen is taken as the other has it.
//!
//! A victim that has not arrived is *doomed*: its dot does not enter the context, since its write may have other
//! elements; when it arrives, what is doomed of it is dead at once. So a lost write leaves a gap for anti-entropy to
//! fill, and never a claim.
//!
//! In a discarding shard the losers of the LWW order at one place are dropped as soon as they meet. That order extends
//! happens-before, so whatever order writes arrive in, the same one survives.
//!
//! No messages, no clocks and no records here: this is what they all act upon.

mod context;
pub(crate) mod counter;
mod deferred;
mod fingerprint;
mod live_edits;
pub(crate) mod query;
mod register;
mod set;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::id::{Actor, Dot, ShardId};
use crate::limits::SHARD_ACTORS_MAX;
use crate::{mutant, reach};

use self::fingerprint::Fingerprints;
use crate::replication::write::path::{self, Scope};
use crate::replication::write::{self, Act, Author, Deed};

pub use context::{Dots, Ranges};
pub use deferred::Doom;
pub(crate) use fingerprint::LIST_BITS;
pub use fingerprint::Span;
pub use live_edits::Mask;

/// What a live write costs in memory beside its bytes: its entry in the table, its fingerprints.
const WRITE_BYTES: u64 = 160;
/// What a place costs in memory beside its bytes.
const PLACE_BYTES: u64 = 72;

/// A dot inside a shard: the actor's number there, and the sequence number.
pub(crate) type At = (u32, u64);

/// One live edit of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    /// Its author's number in this shard.
    pub(crate) actor: u32,
    /// Which edit of the write.
    pub(crate) edit: u16,
    /// Which write.
    pub(crate) seq: u64,
}

impl Element {
    /// The write that it is a part of.
    pub(crate) const fn at(&self) -> At {
        (self.actor, self.seq)
    }
}

/// A write with at least one live element.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// As its author made it.
    pub(crate) sealed: Bytes,
    /// Which of its elements are live.
    pub(crate) mask: Mask,
    /// Its stamp.
    pub(crate) stamp: u64,
    /// Whether no element of it has died.
    pub(crate) whole: bool,
}

impl Live {
    /// What stands for it in fingerprints: its hash, or its hash with the mask once an element died.
    pub(crate) fn leaf(&self) -> Digest {
        let hash = write::hash_of(&self.sealed);
        if self.whole {
            return hash;
        }
        let mut hasher = Hasher::new();
        hasher.bytes(&hash.0);
        self.mask.words().for_each(|word| hasher.number(word));
        hasher.finish()
    }
}

/// What one instant of a peer teaches beyond the writes that it sent: to be applied when all of those are held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// Dots to cover.
    pub(crate) context: Dots,
    /// Dots not covered of which parts are dead.
    pub(crate) doomed: Vec<(Dot, Doom)>,
    /// Live writes here of which no more than this is live.
    pub(crate) deaths: Vec<(Dot, Mask)>,
}

impl Join {
    /// Whether it teaches nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.context.is_empty() && self.doomed.is_empty() && self.deaths.is_empty()
    }
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It is new, and its dot is in the context now. The mask is there when less than all of it lives.
    New(Option<Mask>),
    /// Its dot was in the context.
    Known,
    /// Its dot was in the context, with other bytes.
    Equivocation,
    /// The shard knows as many actors as it may.
    Full,
}

/// The elements at one place; mostly one.
#[derive(Clone, Debug)]
enum Held {
    One(Element),
    Many(Vec<Element>),
}

impl Held {
    fn as_slice(&self) -> &[Element] {
        match self {
            Self::One(element) => core::slice::from_ref(element),
            Self::Many(elements) => elements,
        }
    }
}

/// One shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    /// Which.
    pub(crate) id: ShardId,
    /// Whether LWW losers are dropped.
    pub(crate) discard: bool,
    /// The live writes.
    pub(crate) live: BTreeMap<At, Live>,
    /// Writes stamped too far ahead, by stamp: held durably, not seen.
    pub(crate) waiting: BTreeMap<(u64, Dot), Bytes>,
    /// The greatest stamp seen.
    pub(crate) stamp: u64,
    /// The sums over the live writes.
    pub(crate) prints: Fingerprints,
    actors: Vec<Actor>,
    numbers: BTreeMap<Actor, u32>,
    context: Vec<Ranges>,
    index: BTreeMap<Box<[u8]>, Held>,
    /// What is doomed.
    pub(crate) doomed: BTreeMap<At, BTreeSet<Doom>>,
    bytes: u64,
    /// The root, while nothing changed since it was asked for.
    root: Option<Digest>,
}

impl Shard {
    /// An empty shard.
    pub(crate) fn new(id: ShardId) -> Self {
        Self { id, ..Self::default() }
    }

    /// Bytes of memory that grow with what it holds.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The actor's number here, if it is known.
    pub(crate) fn number(&self, actor: &Actor) -> Option<u32> {
        self.numbers.get(actor).copied()
    }

    /// The actor with a number of this shard.
    pub(crate) fn actor(&self, number: u32) -> Actor {
        self.actors[number as usize]
    }

    /// Whether so many actors more may be known.
    pub(crate) fn has_room(&self, actors: usize) -> bool {
        self.actors.len() + actors <= SHARD_ACTORS_MAX
    }

    /// The dot of a place in the table.
    pub(crate) fn dot(&self, at: At) -> Dot {
        Dot { actor: self.actor(at.0), seq: at.1 }
    }

    /// The seen dots of an actor.
    pub(crate) fn seen(&self, actor: u32) -> &Ranges {
        &self.context[actor as usize]
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

    /// All dots whose writes this shard holds durably: those of the context, and those that wait for their stamp.
    pub(crate) fn held(&self) -> Dots {
        let mut held = self.dots();
        for (_, dot) in self.waiting.keys() {
            held.insert(dot);
        }
        held
    }

    /// The actors with their numbers, in canonical order.
    pub(crate) fn actors(&self) -> impl Iterator<Item = (&Actor, u32)> {
        self.numbers.iter().map(|(actor, number)| (actor, *number))
    }

    /// The root: equal if and only if two replicas hold the same and have seen the same.
    pub(crate) fn root(&self) -> Digest {
        debug_assert!(self.root.is_none_or(|root| root == self.reckon_root()), "a root is current");
        self.root.unwrap_or_else(|| self.reckon_root())
    }

    /// As [`Self::root`], which costs nothing from now on until something changes: replicas that are equal compare
    /// theirs again and again.
    pub(crate) fn keep_root(&mut self) -> Digest {
        let root = self.root();
        self.root = Some(root);
        root
    }

    fn reckon_root(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.value(self.prints.whole());
        hasher.number(self.live.len() as u64);
        for (actor, number) in self.actors().filter(|(_, number)| !self.seen(*number).is_empty()) {
            hasher.value(actor);
            hasher.value(self.seen(number));
        }
        hasher.finish()
    }

    /// The elements at one place.
    pub(crate) fn at(&self, place: &[u8]) -> &[Element] {
        self.index.get(place).map_or(&[], Held::as_slice)
    }

    /// The places that begin with `prefix`, with their elements; see [`path::end_of`].
    pub(crate) fn within(&self, prefix: &[u8]) -> impl Iterator<Item = (&[u8], &[Element])> {
        let end = path::end_of(prefix);
        let bounds = (Bound::Included(prefix), Bound::Excluded(&end[..]));
        self.index.range::<[u8], _>(bounds).map(|(place, held)| (&place[..], held.as_slice()))
    }

    /// The first place from `bound` on.
    pub(crate) fn first_from(&self, bound: &[u8]) -> Option<&[u8]> {
        let bounds = (Bound::Included(bound), Bound::Unbounded);
        self.index.range::<[u8], _>(bounds).next().map(|(place, _)| &place[..])
    }

    /// The live write of an element.
    pub(crate) fn write(&self, element: &Element) -> &Live {
        self.live.get(&element.at()).expect("every element in the index belongs to a live write")
    }

    /// The number of an actor, which is known from now on.
    pub(crate) fn intern(&mut self, actor: &Actor) -> u32 {
        if let Some(number) = self.number(actor) {
            return number;
        }
        let number = self.actors.len() as u32;
        self.actors.push(*actor);
        self.numbers.insert(*actor, number);
        self.context.push(Ranges::default());
        number
    }

    /// Applies a write, wherever it came from. Applying it again is a no-op.
    pub(crate) fn apply(&mut self, sealed: &Bytes, author: &Author<'_>) -> Applied {
        let strangers = author.actors.iter().chain([&author.dot.actor]);
        let strangers = strangers.filter(|actor| self.number(actor).is_none()).count();
        if !self.has_room(strangers) {
            return Applied::Full;
        }
        let at = (self.intern(&author.dot.actor), author.dot.seq);
        if self.context[at.0 as usize].contains(at.1) {
            let held = self.live.get(&at);
            if let Some(live) = held {
                let same = write::hash_of(&live.sealed) == write::hash_of(sealed);
                return if same { Applied::Known } else { Applied::Equivocation };
            }
            if !mutant!("replication.delete.resurrects") {
                return Applied::Known;
            }
        }
        self.waiting.remove(&(author.stamp, author.dot));
        self.stamp = self.stamp.max(author.stamp);
        let births = Mask::of(author.edits.iter().map(Deed::is_element));
        let mut mask = births.clone();
        self.meet_doom(at, author, &mut mask);
        counter::keep_latest(self, at, author, &mut mask);
        let own = author.edits.iter().flat_map(|deed| &deed.victims);
        let own = own.filter(|victim| victim.actor == 0 && victim.seq == at.1);
        for victim in own {
            mask.remove(victim.edit);
        }
        self.context[at.0 as usize].insert(at.1);
        self.root = None;
        let whole = mask == births;
        // Held before its victims go: the place of an overwritten register stays in the index.
        let places = self.hold(at, sealed, author, mask, whole);
        self.supersede(author);
        places.iter().for_each(|place| self.prune(place));
        let left = self.live.get(&at).map(|live| (live.whole, &live.mask));
        match left {
            Some((true, _)) => Applied::New(None),
            Some((false, mask)) => Applied::New(Some(mask.clone())),
            None if births.is_empty() => Applied::New(None),
            None => Applied::New(Some(Mask::default())),
        }
    }

    /// Takes a live write whose dot is in the context already. False when the dot has a live write, or the mask names
    /// what the write has not.
    pub(crate) fn reinstate(
        &mut self,
        sealed: &Bytes,
        author: &Author<'_>,
        mask: Option<Mask>,
    ) -> bool {
        let at = (self.intern(&author.dot.actor), author.dot.seq);
        let births = Mask::of(author.edits.iter().map(Deed::is_element));
        let mask = mask.unwrap_or_else(|| births.clone());
        let sound = mask.minus(&births).is_empty() && !mask.is_empty();
        if !sound || self.live.contains_key(&at) {
            return false;
        }
        self.stamp = self.stamp.max(author.stamp);
        let whole = mask == births;
        let places = self.hold(at, sealed, author, mask, whole);
        places.iter().for_each(|place| self.prune(place));
        true
    }

    /// Drops the victims of a write; those that are not here yet are doomed.
    fn supersede(&mut self, author: &Author<'_>) {
        for deed in &author.edits {
            let scope = deed.scope(author.key.0);
            for victim in &deed.victims {
                let actor = self.intern(&author.actor(victim.actor));
                let element = Element { actor, edit: victim.edit, seq: victim.seq };
                if self.context[actor as usize].contains(victim.seq) {
                    self.kill(element, Some(&scope.place));
                } else {
                    self.doom(element.at(), Doom::Edit(victim.edit));
                }
            }
            for unseen in &deed.unseen {
                let at = (self.intern(&author.actor(unseen.actor)), unseen.seq);
                let doom = Doom::Scope { place: scope.place.clone(), all: scope.all };
                self.kill_or_doom(at, doom);
            }
            if mutant!("replication.set.removes_unseen") && matches!(deed.act, Act::Remove(_)) {
                let all = self.at(&scope.place).to_vec();
                all.into_iter().for_each(|element| self.kill(element, Some(&scope.place)));
            }
        }
    }

    /// Takes a write's live elements into the table and the index. Returns the places to prune.
    fn hold(
        &mut self,
        at: At,
        sealed: &Bytes,
        author: &Author<'_>,
        mask: Mask,
        whole: bool,
    ) -> Vec<Vec<u8>> {
        let mut places = Vec::new();
        if mask.is_empty() {
            return places;
        }
        for (edit, deed) in author.edits.iter().enumerate() {
            if let Some(place) = deed.place(author.key.0).filter(|_| mask.contains(edit as u16)) {
                let element = Element { actor: at.0, edit: edit as u16, seq: at.1 };
                if self.discard && matches!(deed.act, Act::Put(_)) {
                    places.push(place.clone());
                }
                self.insert(place, element);
            }
        }
        self.bytes += sealed.len() as u64 + WRITE_BYTES;
        let live = Live { sealed: sealed.clone(), mask, stamp: author.stamp, whole };
        self.prints.add(at, &live.leaf());
        self.live.insert(at, live);
        self.root = None;
        places
    }

    fn insert(&mut self, place: Vec<u8>, element: Element) {
        match self.index.get_mut(&place[..]) {
            Some(Held::Many(elements)) => elements.push(element),
            Some(held) => {
                let both = [held.as_slice()[0], element];
                *held = Held::Many(both.to_vec());
            }
            None => {
                self.bytes += place.len() as u64 + PLACE_BYTES;
                self.index.insert(place.into_boxed_slice(), Held::One(element));
            }
        }
    }

    /// Drops all at one place but the winner of the LWW order.
    fn prune(&mut self, place: &[u8]) {
        let elements = self.at(place);
        if elements.len() < 2 {
            return;
        }
        reach!("replication.discard.pruned");
        let winner = elements.iter().max_by_key(|element| register::rank(self, element)).copied();
        let losers: Vec<_> = elements.iter().copied().filter(|e| Some(*e) != winner).collect();
        losers.into_iter().for_each(|loser| self.kill(loser, Some(place)));
    }

    /// Drops one element, if it is live. `hint` is where it probably is.
    pub(crate) fn kill(&mut self, element: Element, hint: Option<&[u8]>) {
        let Some(live) = self.live.get(&element.at()) else { return };
        if !live.mask.contains(element.edit) {
            return;
        }
        if !hint.is_some_and(|place| self.unindex(place, &element)) {
            let sealed = self.write(&element).sealed.clone();
            let author = write::reopen(&sealed);
            let place = author.edits[usize::from(element.edit)].place(author.key.0);
            let found = self.unindex(&place.unwrap_or_default(), &element);
            assert!(found, "a live element is in the index");
        }
        self.unmask(&element);
    }

    /// Takes an element out of the index. False when it is not at this place.
    fn unindex(&mut self, place: &[u8], element: &Element) -> bool {
        let Some(held) = self.index.get_mut(place) else { return false };
        let Some(at) = held.as_slice().iter().position(|e| e == element) else { return false };
        if let Held::Many(elements) = held {
            elements.remove(at);
            if let [last] = elements[..] {
                *held = Held::One(last);
            }
            return true;
        }
        self.index.remove(place);
        self.bytes -= place.len() as u64 + PLACE_BYTES;
        true
    }

    /// Takes an element out of its write's mask, and the write out of the table with its last one.
    fn unmask(&mut self, element: &Element) {
        let at = element.at();
        let live = self.live.get_mut(&at).expect("the element was live");
        self.root = None;
        self.prints.remove(at, &live.leaf());
        live.mask.remove(element.edit);
        live.whole = false;
        if live.mask.is_empty() {
            self.bytes -= live.sealed.len() as u64 + WRITE_BYTES;
            self.live.remove(&at);
        } else {
            reach!("replication.write.partly_dead");
            self.prints.add(at, &live.leaf());
        }
    }

    /// Drops all of a write that is not in `mask`.
    pub(crate) fn keep_only(&mut self, at: At, mask: &Mask) {
        let Some(live) = self.live.get(&at) else { return };
        for edit in live.mask.minus(mask) {
            self.kill(Element { actor: at.0, edit, seq: at.1 }, None);
        }
    }

    /// Applies what one instant of a peer teaches.
    pub(crate) fn join(&mut self, join: &Join) {
        for (actor, ranges) in join.context.iter() {
            let number = self.intern(actor);
            self.context[number as usize].union(ranges);
            self.root = None;
            for (low, high) in ranges.iter() {
                let met: Vec<At> =
                    self.doomed.range((number, low)..=(number, high)).map(|(at, _)| *at).collect();
                met.iter().for_each(|at| drop(self.doomed.remove(at)));
            }
        }
        for (dot, mask) in &join.deaths {
            let at = (self.intern(&dot.actor), dot.seq);
            self.keep_only(at, mask);
        }
        for (dot, doom) in &join.doomed {
            let at = (self.intern(&dot.actor), dot.seq);
            self.kill_or_doom(at, doom.clone());
        }
    }

    /// Keeps a write outside the context until its stamp is within reach.
    pub(crate) fn wait(&mut self, sealed: Bytes, stamp: u64, dot: Dot) {
        self.waiting.insert((stamp, dot), sealed);
    }

    /// The elements in a scope, with their places' kinds left aside.
    pub(crate) fn in_scope(&self, scope: &Scope) -> Vec<Element> {
        if scope.all {
            self.within(&scope.place).flat_map(|(_, elements)| elements).copied().collect()
        } else {
            self.at(&scope.place).to_vec()
        }
    }
}
