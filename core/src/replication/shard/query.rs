//! Queries: answers from one shard, in canonical order. Records and pages read more than one field at a time.
//!
//! Rows are the export: replicas with equal roots answer with equal bytes, page by page. A query changes nothing.

use alloc::vec::Vec;
use core::mem::size_of;

use bytes::Bytes;

use crate::api::{Content, Context, Field, Observed, Query, Reason, Row, Strategy, Value};
use crate::limits::{PAGE_ROWS_MAX, REQUEST_BYTES_MAX};
use crate::mutant;

use super::{Element, Shard, counter, register, set};
use crate::replication::write::path::{self, Kind, PathParts};

/// Answers a query from one shard. `seal` seals the contexts of the answer.
pub(crate) fn read(
    shard: &Shard,
    strategy: Strategy,
    query: &Query,
    seal: &dyn Fn(&Observed) -> Context,
) -> Result<Value, Reason> {
    Ok(match query {
        Query::Get { key, field } => {
            let elements = shard.elements_at(&path::of(key, field, Kind::Register, &[]));
            Value::Register(register::read(shard, &elements, strategy, seal))
        }
        Query::Members { key, field } => set::read(shard, key, field, seal),
        Query::Count { key, field } => {
            let elements = shard.elements_at(&path::of(key, field, Kind::Counter, &[]));
            Value::Counter(counter::read(shard, &elements))
        }
        Query::Record { key } => {
            let (fields, elements) = fields(shard, key, strategy);
            Value::Record { fields, context: seal(&register::observed(shard, elements.iter())) }
        }
        Query::Keys { prefix, after, limit } => keys(shard, prefix, after.as_ref(), *limit),
        Query::Rows { after, limit } => rows(shard, strategy, after.as_ref(), *limit),
        // Replicas of a shard have no common moment.
        Query::Export { .. } => return Err(Reason::WrongConsistency),
    })
}

/// All fields of a key, in order of name and kind, and the elements that hold them.
fn fields(shard: &Shard, key: &[u8], strategy: Strategy) -> (Vec<Field>, Vec<Element>) {
    let prefix = path::of_key(key);
    let mut fields: Vec<Field> = Vec::new();
    let mut seen = Vec::new();
    for (path, elements) in shard.within(&prefix) {
        seen.extend_from_slice(&elements);
        let PathParts { field, kind, member, .. } = path::parts(path);
        let member = || Bytes::copy_from_slice(member);
        let content = match (kind, fields.last_mut()) {
            // Members of one set are neighbours.
            (Kind::Set, Some(Field { field: last, content: Content::Set(members) }))
                if *last == field =>
            {
                members.push(member());
                continue;
            }
            (Kind::Set, _) => Content::Set([member()].into()),
            (Kind::Register, _) => Content::Register(register::values(shard, &elements, strategy)),
            (Kind::Counter, _) => Content::Counter(counter::read(shard, &elements)),
        };
        fields.push(Field { field: field.into(), content });
    }
    (fields, seen)
}

/// Visits keys in order from `bound` until `visit` returns false. True when keys are left.
fn walk(shard: &Shard, mut bound: Vec<u8>, mut visit: impl FnMut(&[u8]) -> bool) -> bool {
    while let Some(path) = shard.first_from(&bound) {
        let key = path::parts(path).key;
        if !visit(&key) {
            return true;
        }
        bound = path::end_of(&path::of_key(&key));
    }
    false
}

fn limit_of(asked: u32) -> usize {
    (asked as usize).clamp(1, PAGE_ROWS_MAX)
}

fn keys(shard: &Shard, prefix: &[u8], after: Option<&Bytes>, limit: u32) -> Value {
    let mut bound = Vec::new();
    path::push_escaped(&mut bound, prefix);
    if let Some(after) = after {
        bound = bound.max(path::end_of(&path::of_key(after)));
    }
    let (mut keys, mut bytes, mut past) = (Vec::new(), 0, false);
    let more = walk(shard, bound, |key| {
        past = !key.starts_with(prefix);
        if past || keys.len() == limit_of(limit) || (bytes + key.len() + 8 > REQUEST_BYTES_MAX) {
            return false;
        }
        bytes += key.len() + 8;
        keys.push(Bytes::copy_from_slice(key));
        true
    });
    Value::Keys { keys, more: more && !past }
}

/// Rows until a page is full. A page has at least one row, even if that is too long: else no reader would get past it.
fn rows(shard: &Shard, strategy: Strategy, after: Option<&Bytes>, limit: u32) -> Value {
    let mut bound = after.map_or_else(Vec::new, |after| path::end_of(&path::of_key(after)));
    if after.is_some()
        && mutant!("replication.page.skips_row")
        && let Some(path) = shard.first_from(&bound)
    {
        bound = path::end_of(&path::of_key(&path::parts(path).key));
    }
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let more = walk(shard, bound, |key| {
        if rows.len() == limit_of(limit) {
            return false;
        }
        let row = Row { key: Bytes::copy_from_slice(key), fields: fields(shard, key, strategy).0 };
        bytes += size(&row);
        let fits = rows.is_empty() || bytes <= REQUEST_BYTES_MAX;
        if fits {
            rows.push(row);
        }
        fits
    });
    Value::Rows { rows, more }
}

/// An upper bound of the row's bytes in a message.
fn size(row: &Row) -> usize {
    let each = size_of::<u64>();
    let content = |content: &Content| match content {
        Content::Register(values) | Content::Set(values) => {
            values.iter().map(|value| value.len() + each).sum::<usize>()
        }
        Content::Counter(_) => 2 * each + 3,
    };
    let fields = row.fields.iter().map(|f| f.field.len() + content(&f.content) + 2 * each);
    row.key.len() + 2 * each + fields.sum::<usize>()
}
