//! Exports: pages of a group's keys as they were at one moment, while the keys go on changing.
//!
//! An export keeps what changes replace: of each key that its reader does not have yet, the slot that the first change
//! replaced. A page is the present keys with the kept slots laid over them. So beginning an export costs nothing, a
//! write pays for what it replaces, and neither waits for the other or for a capture.
//!
//! The cursor of a page confirms all pages before it. Until then their slots stay, so a page whose answer was lost is
//! the same when it is asked for again.
//!
//! Exports are no part of the replicated state. Other replicas have none, and captures and restored states have none.
//! This module reads no clock, and bounds the exports of one group alone: the node bounds those of all its groups.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::ops::Bound;
use core::time::Duration;

use bytes::Bytes;

use super::kv::{Keys, Page, Slot, row, weight};
use crate::api::{ExportCursor, ExportPage, Reason};
use crate::digest::Hasher;
use crate::id::{ExportId, Index};
use crate::limits::{
    EXPORT_BYTES_MAX, EXPORT_IDLE_MS, EXPORT_LOOKS_MAX, EXPORT_SLOT_BYTES, EXPORT_YIELD_MS,
    EXPORTS_MAX,
};
use crate::time::Instant;
use crate::{mutant, reach};

/// Kept slots that nobody needs any more dropped with each change and each page: more than one, so that they go.
const SWEEP_PER_CHANGE: usize = 8;

/// The replaced slots of an export; `None` for a key that was absent.
type Kept = BTreeMap<Bytes, Option<Slot>>;

/// A page that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where the export goes on; `None` begins one.
    pub from: Option<&'a ExportCursor>,
    /// Only keys that begin with these bytes.
    pub prefix: &'a Bytes,
    /// The most rows.
    pub limit: u32,
    /// Whether rows have their fields.
    pub values: bool,
}

/// An export that is under way.
#[derive(Debug)]
struct Export {
    id: ExportId,
    prefix: Bytes,
    /// The last entry that its pages contain.
    at: Index,
    /// The reader has all rows up to this key.
    passed: Option<Bytes>,
    kept: Kept,
    /// The bytes of `kept`.
    bytes: u64,
    /// When its reader last got further.
    used: Instant,
    /// Whether the last page was given out.
    is_read: bool,
}

impl Export {
    /// Whether the reader still needs this key as it was.
    fn needs(&self, key: &Bytes) -> bool {
        key.starts_with(&self.prefix) && self.passed.as_ref().is_none_or(|passed| key > passed)
    }

    /// When it ends by itself.
    fn ends(&self) -> Instant {
        let idle_ms = if self.is_read { EXPORT_YIELD_MS } else { EXPORT_IDLE_MS };
        self.used + Duration::from_millis(idle_ms)
    }

    /// Whether it makes room for another one.
    fn yields(&self, now: Instant) -> bool {
        self.is_read || now >= self.used + Duration::from_millis(EXPORT_YIELD_MS)
    }
}

/// The exports of one group on one node.
#[derive(Debug)]
pub struct Exports {
    open: Vec<Export>,
    /// Slots of exports that ended. They are dropped a few at a time.
    dropped: Vec<Kept>,
    /// Bytes of all kept slots, also of those that are to be dropped.
    bytes: u64,
    /// Bytes that those under way keep at most.
    bytes_max: u64,
    /// How many ended because they kept too much, since the node asked last.
    too_large: u64,
}

impl Default for Exports {
    fn default() -> Self {
        let (open, dropped) = (Vec::new(), Vec::new());
        Self { open, dropped, bytes: 0, bytes_max: EXPORT_BYTES_MAX, too_large: 0 }
    }
}

impl Exports {
    /// Sets how many bytes they keep at most.
    pub(super) const fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Bytes of all kept slots.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the kept slots of exports that are under way.
    #[must_use]
    pub fn open_bytes(&self) -> u64 {
        self.open.iter().map(|export| export.bytes).sum()
    }

    /// Bytes of the kept slots of the export that keeps most.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.open.iter().map(|export| export.bytes).max().unwrap_or(0)
    }

    /// How many are under way.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is under way and nothing is kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.open.is_empty() && self.dropped.is_empty()
    }

    /// Keeps what a change of a key replaced. It is called after each change.
    pub(super) fn keep(&mut self, key: &Bytes, replaced: Option<&Slot>) {
        if self.is_empty() {
            return;
        }
        self.sweep(SWEEP_PER_CHANGE);
        for export in self.open.iter_mut().filter(|export| export.needs(key)) {
            if replaced.is_none() && mutant!("state.export.shows_created") {
                continue;
            }
            let slot = match export.kept.entry(key.clone()) {
                Entry::Vacant(slot) => slot,
                // The first change counts.
                Entry::Occupied(mut slot) => {
                    if mutant!("state.export.keeps_the_last") {
                        slot.insert(replaced.cloned());
                    }
                    continue;
                }
            };
            reach!("state.export.kept");
            slot.insert(replaced.cloned());
            let bytes = kept_weight(key, replaced);
            export.bytes += bytes;
            self.bytes += bytes;
        }
        while self.open_bytes() > self.bytes_max && !mutant!("state.export.unbounded") {
            self.end_largest();
        }
    }

    /// A page of an export; `id` is for an export that begins.
    pub(super) fn page(
        &mut self,
        keys: &Keys,
        applied: Index,
        asked: Asked<'_>,
        (id, now): (ExportId, Instant),
    ) -> Result<ExportPage, Reason> {
        self.sweep(SWEEP_PER_CHANGE);
        match asked.from {
            None => self.begin(keys, applied, asked, (id, now)),
            Some(cursor) => self.go_on(keys, asked, cursor, now),
        }
    }

    fn begin(
        &mut self,
        keys: &Keys,
        applied: Index,
        asked: Asked<'_>,
        (id, now): (ExportId, Instant),
    ) -> Result<ExportPage, Reason> {
        let mut export = Export {
            id,
            prefix: asked.prefix.clone(),
            at: applied,
            passed: None,
            kept: Kept::new(),
            bytes: 0,
            used: now,
            is_read: false,
        };
        let page = export.page(keys, asked);
        // A single page is one state without any help.
        if page.next.is_some() {
            self.make_room(now)?;
            reach!("state.export.begun");
            if mutant!("state.export.never_idle") {
                export.used = Instant(u64::MAX);
            }
            self.open.push(export);
        }
        Ok(page)
    }

    /// Ends the export that got no further for the longest time, if there is no room for another.
    fn make_room(&mut self, now: Instant) -> Result<(), Reason> {
        if self.open.len() < EXPORTS_MAX {
            return Ok(());
        }
        let idle = self.open.iter().enumerate().filter(|(_, export)| export.yields(now));
        match idle.min_by_key(|(_, export)| export.ends()).map(|(at, _)| at) {
            Some(at) => {
                reach!("state.export.yielded");
                self.end(at);
                Ok(())
            }
            None => {
                reach!("state.export.busy");
                Err(Reason::ExportsBusy)
            }
        }
    }

    fn go_on(
        &mut self,
        keys: &Keys,
        asked: Asked<'_>,
        cursor: &ExportCursor,
        now: Instant,
    ) -> Result<ExportPage, Reason> {
        let is_it = |export: &&mut Export| {
            export.id == cursor.export
                && export.prefix == *asked.prefix
                // Rows that the reader said to have may be gone.
                && export.passed.as_ref().is_none_or(|passed| cursor.after >= *passed)
        };
        let Some(export) = self.open.iter_mut().find(is_it) else {
            reach!("state.export.unknown");
            return Err(Reason::ExportExpired);
        };
        let is_further = export.passed.as_ref() != Some(&cursor.after);
        export.passed = Some(cursor.after.clone());
        let page = export.page(keys, asked);
        if is_further {
            // A reader that asks for one page again and again does not keep the export.
            export.used = export.used.max(now);
            export.is_read = page.next.is_none();
        } else {
            reach!("state.export.page_again");
        }
        if let Some(next) = &page.next
            && mutant!("state.export.drops_unconfirmed")
        {
            export.kept.retain(|key, _| *key > next.after);
        }
        Ok(page)
    }

    /// Ends the exports whose time is up, and returns how many.
    pub(super) fn end_idle(&mut self, now: Instant) -> usize {
        let mut ended = 0;
        while let Some(at) = self.open.iter().position(|export| now >= export.ends()) {
            reach!("state.export.idle");
            // An export that was read to its end did not expire.
            ended += usize::from(!self.open[at].is_read);
            self.end(at);
        }
        ended
    }

    /// Ends the export that keeps most. Returns false when none is under way.
    pub(super) fn end_largest(&mut self) -> bool {
        let largest = self.open.iter().enumerate().max_by_key(|(_, export)| export.bytes);
        let Some(at) = largest.map(|(at, _)| at) else { return false };
        reach!("state.export.too_large");
        self.too_large += 1;
        self.end(at);
        true
    }

    /// How many ended because they kept too much, since this was asked last.
    pub(super) const fn take_too_large(&mut self) -> u64 {
        core::mem::replace(&mut self.too_large, 0)
    }

    fn end(&mut self, at: usize) {
        let export = self.open.swap_remove(at);
        if !export.kept.is_empty() {
            self.dropped.push(export.kept);
        }
    }

    /// Drops at most this many kept slots that nobody needs.
    pub(super) fn sweep(&mut self, slots_max: usize) {
        let mut left = slots_max;
        for export in &mut self.open {
            let Some(passed) = &export.passed else { continue };
            while left > 0
                && let Some(first) = export.kept.first_entry().filter(|slot| slot.key() <= passed)
            {
                let (key, slot) = first.remove_entry();
                let bytes = kept_weight(&key, slot.as_ref());
                export.bytes -= bytes;
                self.bytes -= bytes;
                left -= 1;
            }
        }
        while left > 0
            && let Some(kept) = self.dropped.last_mut()
        {
            match kept.pop_first() {
                Some((key, slot)) => self.bytes -= kept_weight(&key, slot.as_ref()),
                None => drop(self.dropped.pop()),
            }
            left -= 1;
        }
    }

    /// Whether there are slots to drop.
    pub(super) fn has_unneeded(&self) -> bool {
        let is_behind = |export: &Export| {
            let first = export.kept.first_key_value();
            first.is_some_and(|(key, _)| export.passed.as_ref().is_some_and(|passed| key <= passed))
        };
        !self.dropped.is_empty() || self.open.iter().any(is_behind)
    }

    /// Feeds everything to `hash`.
    pub fn feed(&self, hash: &mut Hasher) {
        hash.number(self.bytes);
        for export in &self.open {
            hash.value(&(export.id, &export.prefix, export.at, &export.passed));
            hash.value(&(export.used, export.is_read, export.bytes));
            export.kept.iter().for_each(|slot| hash.value(&slot));
        }
    }
}

impl Export {
    /// The page after what the reader has.
    fn page(&self, keys: &Keys, asked: Asked<'_>) -> ExportPage {
        let mut page = Page::new(asked.limit.max(1));
        let (mut rows, mut last, mut looks) = (Vec::new(), None, 0);
        for (key, slot) in self.entries(keys).take_while(|(key, _)| key.starts_with(&self.prefix)) {
            looks += 1;
            let bytes =
                slot.map(|slot| key.len() + if asked.values { slot.value.len() } else { 0 });
            let is_full = bytes.is_some_and(|bytes| !page.takes(bytes));
            if let Some(after) = last.filter(|_| is_full || looks > EXPORT_LOOKS_MAX) {
                let next = ExportCursor { export: self.id, after: Bytes::clone(after) };
                return ExportPage { at: self.at, rows, next: Some(next) };
            }
            rows.extend(slot.map(|slot| row(key, slot, asked.values)));
            last = Some(key);
        }
        ExportPage { at: self.at, rows, next: None }
    }

    /// The keys that the reader lacks, each with its slot when the export began. A key that was absent then may be
    /// among them.
    fn entries<'a>(
        &'a self,
        keys: &'a Keys,
    ) -> impl Iterator<Item = (&'a Bytes, Option<&'a Slot>)> {
        let passed = self.passed.as_ref().filter(|passed| **passed >= self.prefix);
        let from = passed.map_or(Bound::Included(&self.prefix), Bound::Excluded);
        let kept = self.kept.range::<Bytes, _>((from, Bound::Unbounded));
        Overlaid { now: keys.map.iter_from(from).peekable(), kept: kept.peekable() }
    }
}

/// Present keys with kept slots laid over them, in order.
struct Overlaid<N: Iterator, K: Iterator> {
    now: Peekable<N>,
    kept: Peekable<K>,
}

impl<'a, N, K> Iterator for Overlaid<N, K>
where
    N: Iterator<Item = (&'a Bytes, &'a Slot)>,
    K: Iterator<Item = (&'a Bytes, &'a Option<Slot>)>,
{
    type Item = (&'a Bytes, Option<&'a Slot>);

    fn next(&mut self) -> Option<Self::Item> {
        let Some((kept, _)) = self.kept.peek() else {
            return self.now.next().map(|(key, slot)| (key, Some(slot)));
        };
        if let Some((key, slot)) = self.now.next_if(|(key, _)| key < kept) {
            return Some((key, Some(slot)));
        }
        self.now.next_if(|(key, _)| key == kept);
        self.kept.next().map(|(key, slot)| (key, slot.as_ref()))
    }
}

/// The bytes that a kept slot counts as.
fn kept_weight(key: &Bytes, slot: Option<&Slot>) -> u64 {
    let bytes = slot.map_or(key.len() as u64, |slot| weight(key, slot));
    EXPORT_SLOT_BYTES + bytes
}
