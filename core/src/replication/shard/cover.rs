//! Removals of whole scopes: all elements of a field or a key that an author had seen die with one edit.
//!
//! Such an edit names no element. It has a *cover*: a scope, and the dots that its author had seen. All elements in the
//! scope whose dots are covered are dead. So the edit costs the same for one element and for a million.
//!
//! The part of a cover whose dots were seen here is *swept*: a step removes a bounded number of elements from the
//! table and the index, in the order of their paths. Until then they are hidden: no read shows them, and nothing that
//! is written or merged looks at them. The part whose dots were not seen here waits, as deferred removals do: when such
//! a write arrives, its elements in the scope are dead at once. The cover goes when all its dots are in the context.
//!
//! # Why the order of the slices changes nothing
//!
//! A cover that is swept has only dots that were in the context when it came, and no later element has one of these
//! dots. So the set of the elements that it removes is fixed, and it shrinks only by other removals, which commute with
//! it. A merge decides by what is not hidden, as if the sweep had ended at once, with three results: an overwritten
//! element may be removed twice, which is one removal; a counter and the LWW order of a discarding shard choose among
//! what is not hidden; and a write that another one with its dot replaces is swept first. So the state at the end of
//! the sweep does not depend on its slices, nor on a restart that begins it again: the record of the edit brings the
//! cover back.
//!
//! While a shard is swept its fingerprints still have elements that are dead, although the context has the edit. So
//! it answers no question and no comparison of a peer, and no checkpoint begins. All three wait for the end of the
//! sweep, which takes a time that is linear in the elements of the scope.
//!
//! This module does not decide what an edit covers; `author` does.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::id::Actor;
use crate::limits::COVERS_MAX;
use crate::replication::write::path::{self, Scope};
use crate::replication::write::{self, EditRecord, WriteBody};
use crate::{mutant, reach};

use super::live_edits::LiveEdits;
use super::{Dots, Element, LocalDot, RANGE_BYTES, Ranges, Shard};

/// The memory of a cover beside its path and ranges.
const COVER_BYTES: u64 = 128;

/// A cover as records and messages carry it: the removal of all elements in a scope that have one of these dots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// The prefix of the paths.
    pub(crate) scope: Scope,
    /// The dots.
    pub(crate) dots: Dots,
}

impl Cover {
    /// Whether it is within bounds. To be asked of what a peer or a disk produced.
    pub(crate) fn is_valid(&self) -> bool {
        self.scope.is_prefix && path::is_prefix(&self.scope.path) && self.dots.is_valid()
    }
}

/// A cover in a shard, with the actors' numbers there.
#[derive(Clone, Debug)]
struct LocalCover {
    scope: Scope,
    dots: BTreeMap<u32, Ranges>,
    /// The number of its dots that are awaited.
    awaited: u64,
}

impl LocalCover {
    fn has(&self, dot: LocalDot) -> bool {
        self.dots.get(&dot.0).is_some_and(|ranges| ranges.contains(dot.1))
    }

    fn bytes(&self) -> u64 {
        let ranges: usize = self.dots.values().map(Ranges::len).sum();
        COVER_BYTES + self.scope.path.len() as u64 + ranges as u64 * RANGE_BYTES
    }
}

/// A cover that is being swept.
#[derive(Clone, Debug)]
struct Sweep {
    cover: LocalCover,
    /// The path of the next element to look at.
    next: Vec<u8>,
}

impl Sweep {
    /// Whether it has yet to remove this element.
    fn removes(&self, path: &[u8], element: &Element) -> bool {
        *path >= self.next[..] && self.cover.scope.contains(path) && self.cover.has(element.dot())
    }
}

/// The covers of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Covers {
    /// Those whose dots are in the context.
    sweeps: VecDeque<Sweep>,
    /// Those that await some of their dots.
    waiting: Vec<LocalCover>,
    bytes: u64,
}

impl Shard {
    /// Whether elements that are dead are still in the table.
    pub(crate) fn is_sweeping(&self) -> bool {
        !self.covers.sweeps.is_empty()
    }

    /// The bytes that the covers take.
    pub(super) const fn cover_bytes(&self) -> u64 {
        self.covers.bytes
    }

    /// The covers that wait for their dots, in their canonical form.
    pub(crate) fn waiting_covers(&self) -> impl Iterator<Item = Cover> + '_ {
        self.covers.waiting.iter().map(|cover| {
            let dots =
                cover.dots.iter().map(|(actor, ranges)| (self.actor(*actor), ranges.clone()));
            Cover { scope: cover.scope.clone(), dots: Dots::new(dots.collect()) }
        })
    }

    /// Whether a cover changes nothing here: nothing is in its scope, and a cover here awaits the same dots.
    pub(crate) fn has_cover(&self, cover: &Cover) -> bool {
        let is_awaited = |(actor, ranges): &(Actor, Ranges)| {
            let Some(number) = self.number(actor) else { return false };
            let mut rest = ranges.minus(self.seen(number));
            for known in self.covers.waiting.iter().filter(|known| known.scope == cover.scope) {
                if let Some(ranges) = known.dots.get(&number) {
                    rest = rest.minus(ranges);
                }
            }
            rest.is_empty()
        };
        self.in_prefix(&cover.scope.path).next().is_none() && cover.dots.iter().all(is_awaited)
    }

    /// The elements of a list at a path that no sweep has yet to remove.
    pub(super) fn unhidden<'a>(&self, path: &[u8], all: &'a [Element]) -> Cow<'a, [Element]> {
        if !self.is_sweeping() || mutant!("replication.cover.shown") {
            return Cow::Borrowed(all);
        }
        let is_hidden = |e: &Element| self.covers.sweeps.iter().any(|s| s.removes(path, e));
        if all.iter().any(is_hidden) {
            Cow::Owned(all.iter().copied().filter(|element| !is_hidden(element)).collect())
        } else {
            Cow::Borrowed(all)
        }
    }

    /// The dots that an edit without a client's context covers: all that were seen here, or if these have more than
    /// `ranges_max` ranges, those of the elements in the scope.
    pub(crate) fn covering(&self, scope: &Scope, ranges_max: usize) -> Vec<(Actor, Ranges)> {
        let all = || self.actors().filter(|(_, number)| !self.seen(*number).is_empty());
        if all().map(|(_, number)| self.seen(number).len()).sum::<usize>() <= ranges_max {
            return all().map(|(actor, number)| (*actor, self.seen(number).clone())).collect();
        }
        reach!("replication.cover.of_few");
        let mut dots: Vec<LocalDot> =
            self.in_prefix(&scope.path).flat_map(|(_, all)| all).map(Element::dot).collect();
        dots.sort_unstable();
        let mut ranges: BTreeMap<u32, Ranges> = BTreeMap::new();
        for (actor, seq) in dots {
            ranges.entry(actor).or_default().insert(seq);
        }
        ranges.into_iter().map(|(number, ranges)| (self.actor(number), ranges)).collect()
    }

    /// Removes all elements in a scope that have one of these dots, now, in later slices, or when they arrive.
    pub(super) fn cover(&mut self, cover: &Cover) {
        let (mut seen, mut unseen) = (BTreeMap::new(), BTreeMap::new());
        for (actor, ranges) in cover.dots.iter() {
            let number = self.intern(actor);
            self.note_named((number, ranges.last()));
            let rest = ranges.minus(self.seen(number));
            for (which, part) in [(&mut seen, ranges.minus(&rest)), (&mut unseen, rest)] {
                if !part.is_empty() {
                    which.insert(number, part);
                }
            }
        }
        if !unseen.is_empty() && !mutant!("replication.cover.forgets_unseen") {
            let awaited = unseen.values().map(count).sum();
            self.wait_for(LocalCover { scope: cover.scope.clone(), dots: unseen, awaited });
        }
        if !seen.is_empty() && self.in_prefix(&cover.scope.path).next().is_some() {
            reach!("replication.cover.swept");
            let cover = LocalCover { scope: cover.scope.clone(), dots: seen, awaited: 0 };
            self.covers.bytes += cover.bytes();
            self.covers.sweeps.push_back(Sweep { next: cover.scope.path.clone(), cover });
        }
    }

    /// Remembers a cover until its dots are seen. There is no room for any number of them: see `deferred`.
    fn wait_for(&mut self, cover: LocalCover) {
        if self.covers.waiting.len() >= COVERS_MAX {
            reach!("replication.cover.full");
            return;
        }
        reach!("replication.cover.waits");
        self.covers.bytes += cover.bytes();
        self.covers.waiting.push(cover);
    }

    /// Looks at about `budget` elements of the oldest sweep, and removes those that it covers.
    pub(crate) fn sweep(&mut self, budget: usize) {
        let Some(mut sweep) = self.covers.sweeps.pop_front() else { return };
        let before = sweep.cover.bytes();
        let (mut looked, mut dead, mut next) = (0, Vec::new(), None);
        let end = path::end_of(&sweep.cover.scope.path);
        let bounds = (Bound::Included(&sweep.next[..]), Bound::Excluded(&end[..]));
        for (path, elements) in self.index.range::<[u8], _>(bounds) {
            if looked >= budget && !mutant!("replication.cover.unsliced") {
                next = Some(path.to_vec());
                break;
            }
            let elements = elements.as_slice();
            looked += elements.len();
            let covered = elements.iter().filter(|element| sweep.cover.has(element.dot()));
            dead.extend(covered.map(|element| (path.clone(), *element)));
        }
        if mutant!("replication.cover.leaves_one") {
            dead.pop();
        }
        for (path, element) in dead {
            self.remove_element(element, Some(&path));
        }
        match next {
            Some(next) => {
                reach!("replication.cover.sliced");
                sweep.next = next;
                self.covers.sweeps.push_front(sweep);
            }
            None => self.covers.bytes -= before,
        }
    }

    /// Removes what sweeps have yet to remove of one write.
    pub(super) fn sweep_write(&mut self, dot: LocalDot) {
        if !self.is_sweeping() || !self.covers.sweeps.iter().any(|sweep| sweep.cover.has(dot)) {
            return;
        }
        let Some(live) = self.live.get(&dot) else { return };
        let sealed = live.sealed.clone();
        let body = write::reopen(&sealed);
        for edit in live.edits.edits().collect::<Vec<_>>() {
            let element = Element { actor: dot.0, edit, seq: dot.1 };
            let path = body.edits[usize::from(edit)].path(body.key.0).unwrap_or_default();
            if self.covers.sweeps.iter().any(|sweep| sweep.removes(&path, &element)) {
                self.remove_element(element, Some(&path));
            }
        }
    }

    /// Takes the elements that waiting covers remove out of `live`, the live edits of a write that arrives.
    pub(super) fn apply_waiting(
        &mut self,
        dot: LocalDot,
        body: &WriteBody<'_>,
        live: &mut LiveEdits,
    ) {
        if !self.covers.waiting.iter().any(|cover| cover.has(dot)) {
            return;
        }
        reach!("replication.cover.applied");
        let covers: Vec<&LocalCover> =
            self.covers.waiting.iter().filter(|cover| cover.has(dot)).collect();
        for (index, edit) in (0_u16..).zip(&body.edits) {
            let path = EditRecord::path(edit, body.key.0);
            if path.is_some_and(|path| covers.iter().any(|cover| cover.scope.contains(&path))) {
                live.remove(index);
            }
        }
    }

    /// Notes dots that entered the context. A cover that awaits no further dot goes.
    pub(super) fn trim_waiting(&mut self, actor: u32, entered: &Ranges) {
        if self.covers.waiting.is_empty() {
            return;
        }
        let mut gone = 0;
        self.covers.waiting.retain_mut(|cover| {
            let Some(ranges) = cover.dots.get(&actor) else { return true };
            cover.awaited -= count(&common(ranges, entered));
            gone += if cover.awaited == 0 { cover.bytes() } else { 0 };
            cover.awaited > 0
        });
        self.covers.bytes -= gone;
    }
}

/// The numbers that are in both sets.
fn common(a: &Ranges, b: &Ranges) -> Ranges {
    a.minus(&a.minus(b))
}

fn count(ranges: &Ranges) -> u64 {
    ranges.iter().map(|(low, high)| high - low + 1).sum()
}
