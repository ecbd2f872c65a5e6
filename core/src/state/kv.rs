//! The keys of a strong namespace: each has a value and the revision that wrote it.
//!
//! A command is atomic. All its conditions are checked against the state before it. If one fails nothing changes;
//! otherwise all changes apply in order, and every written key gets the command's index as its revision. This module
//! has no fields, siblings, sets or counters: those belong to eventual namespaces.

use alloc::vec;
use alloc::vec::Vec;
use core::ops;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::export::Exports;
use super::snapshot_map::{Iter, SnapshotMap};
use crate::api::{
    Before, Bound, Change, Content, Context, Edit, Expected, Field, Mutation, Query, Reason,
    Register, Row, Value,
};
use crate::id::Index;
use crate::limits::{
    BATCH_WRITES_MAX, EDITS_MAX, KEY_BYTES_MAX, PAGE_ROWS_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::{mutant, reach};

/// Bytes of keys and values in one page. With its framing a page fits into one message.
const PAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX - (64 << 10);

/// Bytes of a row beside its key and value, at most.
const ROW_BYTES: usize = 32;

/// The value of a key, and its revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The value.
    pub value: Bytes,
    /// The index of the command that wrote it.
    pub revision: Index,
}

/// All keys of one group.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub(super) map: SnapshotMap<Bytes, Slot>,
    bytes: u64,
}

impl Keys {
    /// The keys of a restored table.
    pub(super) fn new(map: SnapshotMap<Bytes, Slot>) -> Self {
        let bytes = map.iter().map(|(key, slot)| weight(key, slot)).sum();
        Self { map, bytes }
    }

    /// Bytes of keys and values held.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The value and revision of a key.
    #[must_use]
    pub fn get(&self, key: &Bytes) -> Option<&Slot> {
        self.map.get(key)
    }

    /// Applies all mutations, or none.
    pub(super) fn write(
        &mut self,
        revision: Index,
        mutations: Vec<Mutation>,
        exports: &mut Exports,
    ) -> Reply {
        if let Err(reason) = self.check(&mutations) {
            reach!("state.kv.refused");
            return Reply::Rejected(reason);
        }
        let is_alone = mutations.iter().map(|mutation| mutation.edits.len()).sum::<usize>() == 1;
        let mut existed = false;
        for Mutation { key, edits, .. } in mutations {
            for edit in edits {
                existed |= self.change(revision, &key, edit.change, exports).existed(is_alone);
            }
        }
        Reply::Written { revision, existed }
    }

    fn check(&self, mutations: &[Mutation]) -> Result<(), Reason> {
        check_mutations(mutations)?;
        for (at, Mutation { key, edits, .. }) in (0..).zip(mutations) {
            for edit in edits {
                self.check_condition(at, key, edit)?;
            }
        }
        Ok(())
    }

    fn check_condition(&self, at: u32, key: &Bytes, edit: &Edit) -> Result<(), Reason> {
        let Change::Cas { expected, .. } = &edit.change else { return Ok(()) };
        let found = self.map.get(key);
        let holds = match expected {
            Expected::Absent => found.is_none(),
            Expected::Revision(revision) => found.is_some_and(|slot| slot.revision.0 == *revision),
            Expected::Value(value) => found.is_some_and(|slot| slot.value == *value),
        };
        if holds || mutant!("state.cas.ignored") {
            return Ok(());
        }
        reach!("state.kv.conflict");
        Err(Reason::Conflict { revision: found.map(|slot| slot.revision), at })
    }

    fn change(
        &mut self,
        revision: Index,
        key: &Bytes,
        change: Change,
        exports: &mut Exports,
    ) -> Before {
        let value = match change {
            Change::Put(value) => Some(value),
            Change::Cas { value, .. } => value,
            Change::Delete => None,
            // `check_mutations` rejected these before anything changed.
            Change::Add(_) | Change::Remove(_) | Change::Count(_) => return Before::Nothing,
        };
        let effect = if value.is_none() { Before::Removed } else { Before::Replaced };
        let before = match value {
            Some(value) => {
                let slot = Slot { value, revision };
                // Added before the old weight is subtracted, so that the sum never goes below zero.
                self.bytes += weight(key, &slot);
                self.map.insert(key.clone(), slot)
            }
            None => self.map.remove(key),
        };
        // A removal of nothing changes nothing.
        if matches!(effect, Before::Replaced) || before.is_some() {
            exports.keep(key, before.as_ref());
        }
        let effect = if before.is_some() { effect } else { Before::Nothing };
        self.bytes -= before.map_or(0, |slot| weight(key, &slot));
        effect
    }

    /// Answers a read.
    pub(super) fn query(&self, query: &Query) -> Result<Value, Reason> {
        match query {
            Query::Get { key, field } if field.is_empty() => {
                Ok(Value::Register(register(self.map.get(key))))
            }
            Query::Record { key } => {
                let fields = self.map.get(key).map(fields).unwrap_or_default();
                Ok(Value::Record { fields, context: Context::default() })
            }
            Query::Keys { prefix, after, limit } => Ok(self.page(prefix, after.as_ref(), *limit)),
            Query::Rows { after, limit } => Ok(self.rows(after.as_ref(), *limit)),
            Query::Get { .. } | Query::Members { .. } | Query::Count { .. } => {
                Err(Reason::WrongConsistency)
            }
            // Its caller asks `StateMachine::export`.
            Query::Export { .. } => Err(Reason::ExportExpired),
        }
    }

    fn page(&self, prefix: &Bytes, after: Option<&Bytes>, limit: u32) -> Value {
        // A position before the prefix would scan all keys up to it.
        let from = after.filter(|after| *after >= prefix);
        let entries = self.from(from, prefix).take_while(|(key, _)| key.starts_with(prefix));
        let mut page = Page::new(limit);
        let mut keys = Vec::new();
        for (key, _) in entries {
            if !page.takes(key.len()) {
                return Value::Keys { keys, more: true };
            }
            keys.push(key.clone());
        }
        Value::Keys { keys, more: false }
    }

    fn rows(&self, after: Option<&Bytes>, limit: u32) -> Value {
        let mut page = Page::new(limit);
        let mut rows = Vec::new();
        for (key, slot) in self.from(after, &Bytes::new()) {
            if !page.takes(key.len() + slot.value.len()) {
                return Value::Rows { rows, more: true };
            }
            rows.push(row(key, slot, true));
        }
        Value::Rows { rows, more: false }
    }

    /// The entries after a key, or from a prefix on.
    fn from(&self, after: Option<&Bytes>, prefix: &Bytes) -> Iter<'_, Bytes, Slot> {
        let from = after.map_or(ops::Bound::Included(prefix), ops::Bound::Excluded);
        self.map.iter_from(from)
    }
}

/// The room left in a page.
pub(super) struct Page {
    rows_left: usize,
    bytes_left: usize,
    is_empty: bool,
}

impl Page {
    pub(super) fn new(limit: u32) -> Self {
        let rows_left = usize::try_from(limit).unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
        Self { rows_left, bytes_left: PAGE_BYTES_MAX, is_empty: true }
    }

    /// Takes a row of this many bytes into the page. Returns false when it does not fit.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        let bytes = bytes + ROW_BYTES;
        // The first row always fits: with an empty page a listing would never advance.
        if self.rows_left == 0 || bytes > self.bytes_left && !self.is_empty {
            reach!("state.kv.page_full");
            return false;
        }
        self.is_empty = false;
        self.rows_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        true
    }
}

/// Checks bounds and kinds, which do not depend on the state.
fn check_mutations(mutations: &[Mutation]) -> Result<(), Reason> {
    bound(Bound::Mutations, mutations.len(), BATCH_WRITES_MAX)?;
    for Mutation { key, edits, .. } in mutations {
        bound(Bound::Key, key.len(), KEY_BYTES_MAX)?;
        bound(Bound::Edits, edits.len(), EDITS_MAX)?;
        for Edit { field, change } in edits {
            let value = match change {
                Change::Put(value) => Some(value),
                Change::Cas { value, .. } => value.as_ref(),
                Change::Delete => None,
                Change::Add(_) | Change::Remove(_) | Change::Count(_) => {
                    return Err(Reason::WrongConsistency);
                }
            };
            if !field.is_empty() {
                return Err(Reason::WrongConsistency);
            }
            bound(Bound::Value, value.map_or(0, Bytes::len), VALUE_BYTES_MAX)?;
        }
    }
    Ok(())
}

fn bound(what: Bound, found: usize, limit: usize) -> Result<(), Reason> {
    if found > limit {
        return Err(Reason::OutOfBounds { what, limit: limit as u64 });
    }
    Ok(())
}

/// The bytes that a key counts as.
pub(super) fn weight(key: &Bytes, slot: &Slot) -> u64 {
    (key.len() + slot.value.len()) as u64
}

fn register(slot: Option<&Slot>) -> Register {
    let value = slot.map(|slot| slot.value.clone());
    let siblings = value.iter().cloned().collect();
    let revision = slot.map(|slot| slot.revision);
    Register { value, siblings, revision, context: Context::default() }
}

/// The row of a key, without its value if that is not wanted.
pub(super) fn row(key: &Bytes, slot: &Slot, with_value: bool) -> Row {
    let fields = if with_value { fields(slot) } else { Vec::new() };
    Row { key: key.clone(), fields }
}

fn fields(slot: &Slot) -> Vec<Field> {
    let content = Content::Register(vec![slot.value.clone()]);
    vec![Field { field: Bytes::new(), content }]
}
