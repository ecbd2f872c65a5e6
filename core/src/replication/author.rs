//! Making a write: bounds, what it supersedes, its dot and its stamp.
//!
//! Only minting refuses; a write that was made is merged wherever it arrives. A write with a client's context
//! supersedes what that context names and nothing else; without one it supersedes what this replica holds.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem::size_of;

use bytes::Bytes;

use crate::api::{Bound, Change, Context, Edit, Mutation, Reason, Resource};
use crate::id::{Actor, Dot};
use crate::limits::{
    CONTEXT_BYTES_MAX, EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, SEQ_MAX, SIBLINGS_MAX,
    VALUE_BYTES_MAX,
};
use crate::{mutant, reach};

use super::shard::{At, Element, Shard, counter};
use super::write::path::{self, Kind, Scope};
use super::write::{self, Act, Author, Deed, Raw, SEALED_BYTES_MAX, Unseen, Victim};

/// What a client had read, as this shard knows it.
struct Seen {
    here: BTreeSet<At>,
    unseen: Vec<Dot>,
}

/// An element of the write that is being made.
struct Own {
    place: Vec<u8>,
    edit: u16,
    totals: (u64, u64),
    live: bool,
}

/// A write in the making.
struct Minter<'a> {
    shard: &'a Shard,
    seen: Option<Seen>,
    dot: Dot,
    actors: Vec<Actor>,
    places: BTreeMap<Actor, u32>,
    own: Vec<Own>,
}

/// Makes and seals a write. `admits` says whose dots a context may name that were never seen here.
///
/// # Errors
///
/// The bound that it is outside of.
pub(super) fn mint(
    shard: &Shard,
    me: Actor,
    mutation: &Mutation,
    stamp: u64,
    admits: impl Fn(&Actor) -> bool,
) -> Result<(Dot, Bytes), Reason> {
    check(mutation)?;
    let last = shard.number(&me).map_or(0, |number| shard.seen(number).last());
    let dot = Dot { actor: me, seq: last + 1 };
    if dot.seq > SEQ_MAX {
        return Err(Reason::Full { what: Resource::Memory });
    }
    let seen = mutation.context.as_ref().map(|context| seen(shard, context, admits));
    let mut minter =
        Minter { shard, seen, dot, actors: Vec::new(), places: BTreeMap::new(), own: Vec::new() };
    let key = &mutation.key;
    let edits = mutation.edits.iter().enumerate();
    let edits: Result<Vec<_>, _> = edits.map(|edit| minter.deed(key, edit)).collect();
    let author = Author {
        namespace: shard.id.namespace,
        slot: shard.id.slot,
        dot,
        key: Raw(key),
        stamp,
        edits: edits?,
        actors: minter.actors,
    };
    let strangers = author.actors.iter().chain([&me]).filter(|a| shard.number(a).is_none());
    if !shard.has_room(strangers.count()) {
        return Err(Reason::Full { what: Resource::Memory });
    }
    let sealed = write::seal(&author);
    bound(Bound::Request, sealed.len(), SEALED_BYTES_MAX)?;
    Ok((dot, sealed))
}

fn bound(what: Bound, length: usize, limit: usize) -> Result<(), Reason> {
    if length <= limit { Ok(()) } else { Err(Reason::OutOfBounds { what, limit: limit as u64 }) }
}

fn check(mutation: &Mutation) -> Result<(), Reason> {
    bound(Bound::Key, mutation.key.len(), KEY_BYTES_MAX)?;
    if mutation.edits.is_empty() {
        return Err(Reason::OutOfBounds { what: Bound::Edits, limit: EDITS_MAX as u64 });
    }
    bound(Bound::Edits, mutation.edits.len(), EDITS_MAX)?;
    let dots = mutation.context.as_ref().map_or(0, |context| context.dots.len());
    bound(Bound::Request, dots, CONTEXT_BYTES_MAX / size_of::<Dot>())?;
    for edit in &mutation.edits {
        bound(Bound::Field, edit.field.len(), FIELD_BYTES_MAX)?;
        match &edit.change {
            Change::Put(value) | Change::Add(value) | Change::Remove(value) => {
                bound(Bound::Value, value.len(), VALUE_BYTES_MAX)?;
            }
            Change::Cas { .. } => return Err(Reason::WrongConsistency),
            Change::Delete | Change::Count(_) => {}
        }
    }
    Ok(())
}

fn seen(shard: &Shard, context: &Context, admits: impl Fn(&Actor) -> bool) -> Seen {
    let mut seen = Seen { here: BTreeSet::new(), unseen: Vec::new() };
    for dot in &context.dots {
        match shard.number(&dot.actor) {
            Some(number) if shard.seen(number).contains(dot.seq) => {
                seen.here.insert((number, dot.seq));
            }
            known => {
                // A made-up dot would be doomed for ever: only who can write at all is believed.
                let sound = (1..=SEQ_MAX).contains(&dot.seq);
                if sound && (known.is_some() || admits(&dot.actor)) {
                    seen.unseen.push(*dot);
                }
            }
        }
    }
    seen.unseen.sort_unstable();
    seen.unseen.dedup();
    seen
}

impl Minter<'_> {
    fn deed<'m>(
        &mut self,
        key: &'m Bytes,
        (at, edit): (usize, &'m Edit),
    ) -> Result<Deed<'m>, Reason> {
        let mut totals = (0, 0);
        let act = match &edit.change {
            Change::Put(value) => Act::Put(Raw(value)),
            Change::Add(member) => Act::Add(Raw(member)),
            Change::Remove(member) => Act::Remove(Raw(member)),
            Change::Count(by) => {
                totals = counter::count(self.totals(key, &edit.field), *by)?;
                Act::Count { plus: totals.0, minus: totals.1 }
            }
            Change::Delete | Change::Cas { .. } => Act::Delete,
        };
        let mut deed =
            Deed { field: Raw(&edit.field), act, victims: Vec::new(), unseen: Vec::new() };
        let scope = deed.scope(key);
        self.supersede_held(&mut deed, &scope)?;
        self.supersede_own(&mut deed, &scope);
        self.supersede_unseen(&mut deed);
        if let Some(place) = deed.place(key) {
            self.own.push(Own { place, edit: at as u16, totals, live: true });
        }
        Ok(deed)
    }

    /// This actor's totals of a counter so far, edits before this one included.
    fn totals(&self, key: &[u8], field: &[u8]) -> (u64, u64) {
        let place = path::of(key, field, Kind::Counter, &[]);
        if let Some(own) = self.own.iter().rev().find(|own| own.live && own.place == place) {
            return own.totals;
        }
        let me = self.shard.number(&self.dot.actor);
        let mine = self.shard.at(&place).iter().find(|element| Some(element.actor) == me);
        mine.map_or((0, 0), |element| counter::totals(self.shard, element))
    }

    fn supersede_held(&mut self, deed: &mut Deed<'_>, scope: &Scope) -> Result<(), Reason> {
        let held = self.shard.in_scope(scope);
        let mut left = 0;
        for element in held {
            if self.supersedes(&deed.act, &element) {
                let actor = self.place_of(self.shard.actor(element.actor));
                deed.victims.push(Victim { actor, seq: element.seq, edit: element.edit });
            } else {
                left += 1;
            }
        }
        if matches!(deed.act, Act::Put(_)) && left >= SIBLINGS_MAX {
            reach!("replication.mint.too_many_siblings");
            return Err(Reason::TooManySiblings);
        }
        deed.victims.sort_unstable();
        Ok(())
    }

    fn supersedes(&self, act: &Act<'_>, element: &Element) -> bool {
        match (act, &self.seen) {
            (Act::Count { .. }, _) => {
                Some(element.actor) == self.shard.number(&self.dot.actor)
                    && !mutant!("replication.counter.sums_twice")
            }
            (_, None) => true,
            _ if mutant!("replication.mint.observes_all") => true,
            (_, Some(seen)) => seen.here.contains(&element.at()),
        }
    }

    /// Later edits of one write supersede its earlier ones.
    fn supersede_own(&mut self, deed: &mut Deed<'_>, scope: &Scope) {
        let seq = self.dot.seq;
        for own in self.own.iter_mut().filter(|own| own.live && scope.contains(&own.place)) {
            own.live = false;
            deed.victims.push(Victim { actor: 0, seq, edit: own.edit });
        }
    }

    fn supersede_unseen(&mut self, deed: &mut Deed<'_>) {
        let Some(seen) = &self.seen else { return };
        if matches!(deed.act, Act::Count { .. }) || seen.unseen.is_empty() {
            return;
        }
        reach!("replication.mint.unseen_context");
        for dot in seen.unseen.clone() {
            // What this actor has not written yet cannot have been read.
            if dot.actor != self.dot.actor {
                let actor = self.place_of(dot.actor);
                deed.unseen.push(Unseen { actor, seq: dot.seq });
            }
        }
    }

    /// The actor's place in the write's table.
    fn place_of(&mut self, actor: Actor) -> u32 {
        if actor == self.dot.actor {
            return 0;
        }
        let next = self.actors.len() as u32 + 1;
        let place = *self.places.entry(actor).or_insert(next);
        if place == next {
            self.actors.push(actor);
        }
        place
    }
}
