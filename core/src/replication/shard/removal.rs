//! Removals of elements: what a write supersedes, what loses in a discarding shard, what a peer knows to be dead.
//!
//! A removal costs the same for each element: a write of which several elements die is decoded once for all of them.
//! This module does not decide what supersedes what; the write says it.

use crate::replication::write::{self, EditOp, ElementRef, WriteBody};
use crate::{mutant, reach};

use super::cover::Cover;
use super::deferred::Deferred;
use super::live_edits::LiveEdits;
use super::{Dots, Element, LocalDot, Ranges, Shard, WRITE_BYTES, register};

impl Shard {
    /// Removes the elements that a write supersedes, and defers the removal of those that have not arrived.
    pub(super) fn supersede(&mut self, body: &WriteBody<'_>) {
        for edit in &body.edits {
            let scope = edit.scope(body.key.0);
            let of_one_write =
                |a: &ElementRef, b: &ElementRef| (a.actor, a.seq) == (b.actor, b.seq);
            for superseded in edit.superseded.chunk_by(of_one_write) {
                let dot = (self.intern(&body.actor(superseded[0].actor)), superseded[0].seq);
                self.note_named(dot);
                let edits = superseded.iter().map(|element| element.edit);
                if !self.seen(dot.0).contains(dot.1) {
                    edits.for_each(|edit| self.defer(dot, Deferred::Edit(edit)));
                } else if scope.is_prefix {
                    self.remove_edits(dot, edits);
                } else {
                    let element = |edit| Element { actor: dot.0, edit, seq: dot.1 };
                    edits.for_each(|edit| self.remove_element(element(edit), Some(&scope.path)));
                }
            }
            if !edit.absent.is_empty() {
                let removal = Deferred::scope(edit, body.key.0);
                for absent in &edit.absent {
                    let dot = (self.intern(&body.actor(absent.actor)), absent.seq);
                    self.note_named(dot);
                    self.remove_or_defer(dot, removal);
                }
            }
            if !edit.covered.is_empty() {
                let dots = edit.covered.iter().map(|of| (body.actor(of.actor), ranges(&of.spans)));
                self.cover(&Cover { scope: scope.clone(), dots: Dots::new(dots.collect()) });
            }
            if mutant!("replication.set.removes_unseen") && matches!(edit.op, EditOp::Remove(_)) {
                let all = self.elements_at(&scope.path).to_vec();
                all.into_iter().for_each(|one| self.remove_element(one, Some(&scope.path)));
            }
        }
    }

    /// Removes all elements at one path except the winner of the LWW order.
    pub(super) fn prune(&mut self, path: &[u8]) {
        let elements = self.elements_at(path).to_vec();
        if elements.len() < 2 {
            return;
        }
        reach!("replication.discard.pruned");
        let winner = elements.iter().max_by_key(|element| register::rank(self, element)).copied();
        let losers = elements.into_iter().filter(|element| Some(*element) != winner);
        losers.for_each(|loser| self.remove_element(loser, Some(path)));
    }

    /// Removes one element, if it is live. `hint` is the path where it probably is.
    pub(crate) fn remove_element(&mut self, element: Element, hint: Option<&[u8]>) {
        let Some(live) = self.live.get(&element.dot()) else { return };
        if !live.edits.contains(element.edit) {
            return;
        }
        if !hint.is_some_and(|path| self.remove_from_index(path, &element)) {
            let sealed = self.write(&element).sealed.clone();
            let body = write::reopen(&sealed);
            let path = body.edits[usize::from(element.edit)].path(body.key.0);
            let found = self.remove_from_index(&path.unwrap_or_default(), &element);
            assert!(found, "a live element is in the index");
        }
        self.remove_from_write(&element);
    }

    /// Removes an element from its write's live edits, and the write with its last element.
    fn remove_from_write(&mut self, element: &Element) {
        let dot = element.dot();
        let live = self.live.get_mut(&dot).expect("the element was live");
        self.root = None;
        self.fingerprints.remove(dot, &live.leaf());
        live.edits.remove(element.edit);
        live.whole = false;
        if live.edits.is_empty() {
            if !mutant!("replication.shard.count_drifts") {
                self.bytes -= live.sealed.len() as u64 + WRITE_BYTES;
            }
            self.live.remove(&dot);
        } else {
            reach!("replication.write.partly_dead");
            self.fingerprints.add(dot, &live.leaf());
        }
    }

    /// Removes all elements of a write except those in `edits`.
    pub(crate) fn retain_edits(&mut self, dot: LocalDot, edits: &LiveEdits) {
        let Some(live) = self.live.get(&dot) else { return };
        let dead = live.edits.minus(edits);
        self.remove_edits(dot, dead.into_iter());
    }

    /// Removes elements of one write, as far as they are live.
    fn remove_edits(&mut self, dot: LocalDot, edits: impl Iterator<Item = u16>) {
        let Some(live) = self.live.get(&dot) else { return };
        let sealed = live.sealed.clone();
        let body = write::reopen(&sealed);
        for edit in edits {
            let record = body.edits.get(usize::from(edit));
            let path = record.and_then(|record| record.path(body.key.0));
            self.remove_element(Element { actor: dot.0, edit, seq: dot.1 }, path.as_deref());
        }
    }
}

/// The numbers of spans that ascend and do not touch.
fn ranges(spans: &[(u64, u64)]) -> Ranges {
    let mut ranges = Ranges::default();
    spans.iter().for_each(|(low, high)| ranges.insert_span(*low, *high));
    ranges
}
