//! The writes that make a namespace hold what a row says, and the bounds of a row.
//!
//! A plan is the difference between a row of a file and the row that the namespace holds: a register takes the file's
//! values, a set the members that it lacks, a counter the amount that is missing. So a row that is there already needs
//! no write, and an import that was killed or repeated counts nothing twice. This module is pure: it reads no file and
//! asks no node.

use std::collections::BTreeSet;

use bytes::Bytes;
use continuum_core::api::{Change, Content, Context, Edit, Field, Row};
use continuum_core::limits::{
    EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, SIBLINGS_MAX, VALUE_BYTES_MAX,
};

use crate::api::input::{BatchBody, EditBody, WriteBody};
use crate::api::json::JsonBytes;
use crate::api::token;

/// Approximate bytes of keys and values in one request, and in one atomic write. A single larger value has a request
/// of its own. JSON makes it at most six times longer, which a body may be.
pub(super) const REQUEST_BYTES: usize = 512 << 10;

/// Approximate bytes that an edit takes beside its field and value.
const EDIT_BYTES: usize = 24;

/// The limits of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    /// Each key has one value: no fields, sets or counters.
    pub(super) is_strong: bool,
    /// Only the first value of a register stays.
    pub(super) discards: bool,
}

/// Refuses a row that no namespace can take.
///
/// # Errors
///
/// The bound that the row exceeds.
pub(super) fn check(row: &Row) -> Result<(), String> {
    if row.key.is_empty() {
        return Err(format!("the key is empty; a key has 1 to {KEY_BYTES_MAX} bytes"));
    }
    at_most("the key", row.key.len(), KEY_BYTES_MAX, "bytes")?;
    let mut seen = BTreeSet::new();
    for (at, Field { field, content }) in row.fields.iter().enumerate() {
        check_field(field, content).map_err(|why| format!("fields[{at}]: {why}"))?;
        if !seen.insert((field, kind_of(content))) {
            return Err(format!("fields[{at}]: the field has a {} already", kind_of(content)));
        }
    }
    Ok(())
}

fn check_field(field: &Bytes, content: &Content) -> Result<(), String> {
    at_most("the field's name", field.len(), FIELD_BYTES_MAX, "bytes")?;
    let each = |what: &str, values: &[Bytes]| {
        values.iter().try_for_each(|value| at_most(what, value.len(), VALUE_BYTES_MAX, "bytes"))
    };
    match content {
        Content::Register(values) => {
            each("a value", values)?;
            at_most("the register", values.len(), SIBLINGS_MAX, "values").map_err(|why| {
                format!("{why}; choose among them where they come from, by a write with the context of a read")
            })
        }
        Content::Set(members) => each("a member", members),
        // One author's counter has 64 bits in each direction.
        Content::Counter(value) if value.unsigned_abs() > u128::from(u64::MAX) => {
            Err(format!("the counter is {value}, and one node counts to {} at most", u64::MAX))
        }
        Content::Counter(_) => Ok(()),
    }
}

fn at_most(what: &str, found: usize, limit: usize, unit: &str) -> Result<(), String> {
    if found <= limit {
        return Ok(());
    }
    Err(format!("{what} has {found} {unit}, and {limit} are the most"))
}

/// Why a namespace of this kind cannot hold the row; `None` when it can.
pub(super) fn misfit(row: &Row, kind: Kind) -> Option<String> {
    if !kind.is_strong {
        return None;
    }
    let why = row.fields.iter().find_map(|Field { field, content }| match content {
        _ if !field.is_empty() => Some("a strong namespace has no fields"),
        Content::Register(values) if values.len() > 1 => {
            Some("a strong namespace has one value for each key, and the row has several")
        }
        Content::Register(_) => None,
        Content::Set(_) | Content::Counter(_) => {
            Some("a strong namespace has neither sets nor counters")
        }
    });
    why.map(ToOwned::to_owned)
}

const fn kind_of(content: &Content) -> &'static str {
    match content {
        Content::Register(_) => "register",
        Content::Set(_) => "set",
        Content::Counter(_) => "counter",
    }
}

/// The approximate bytes of a row.
pub(super) fn size(row: &Row) -> usize {
    let fields = row.fields.iter().map(|Field { field, content }| match content {
        Content::Register(values) | Content::Set(values) => {
            values.iter().map(|value| value.len() + field.len() + EDIT_BYTES).sum()
        }
        Content::Counter(_) => field.len() + EDIT_BYTES,
    });
    row.key.len() + 64 + fields.sum::<usize>()
}

/// The writes, in order, after which a namespace that holds `held` under the row's key holds the row. None when it
/// does already.
///
/// A register's last value supersedes what the namespace holds, and each value before it is a further write with an
/// empty context, which supersedes nothing. So the first value is written last, and every strategy reads it first.
pub(super) fn writes(row: &Row, held: Option<&Row>, kind: Kind) -> Vec<WriteBody> {
    let mut first = Vec::new();
    let mut rounds: Vec<Vec<Edit>> = Vec::new();
    for Field { field, content } in &row.fields {
        let same =
            |found: &&Field| found.field == *field && kind_of(&found.content) == kind_of(content);
        let held = held.and_then(|held| held.fields.iter().find(same)).map(|found| &found.content);
        let edit = |change| Edit { field: field.clone(), change };
        match (content, held) {
            (Content::Register(values), held) => {
                let stay = if kind.discards { 1 } else { values.len() };
                let values = &values[..stay.min(values.len())];
                if matches!(held, Some(Content::Register(held)) if held == values) {
                    continue;
                }
                let mut puts = values.iter().rev().map(|value| edit(Change::Put(value.clone())));
                first.extend(puts.next());
                for (round, put) in puts.enumerate() {
                    rounds.resize_with(rounds.len().max(round + 1), Vec::new);
                    rounds[round].push(put);
                }
            }
            (Content::Set(members), held) => {
                let held: BTreeSet<&Bytes> = match held {
                    Some(Content::Set(held)) => held.iter().collect(),
                    _ => BTreeSet::new(),
                };
                let lacking = members.iter().filter(|member| !held.contains(member));
                first.extend(lacking.map(|member| edit(Change::Add(member.clone()))));
            }
            (Content::Counter(value), Some(Content::Counter(held))) if value == held => {}
            (Content::Counter(value), held) => {
                let held = if let Some(Content::Counter(held)) = held { *held } else { 0 };
                first.extend(counts(value - held).map(|count| edit(Change::Count(count))));
            }
        }
    }
    let mut writes = atomic(&row.key, first, None);
    let nothing = token::context(&Context::default());
    for round in rounds {
        writes.extend(atomic(&row.key, round, Some(&nothing)));
    }
    writes
}

/// An amount as counts of at most 64 bits. Zero is one count, because a counter of zero exists.
fn counts(amount: i128) -> impl Iterator<Item = i64> {
    let mut left = Some(amount);
    std::iter::from_fn(move || {
        let amount = left?;
        let clamped = amount.clamp(i64::MIN.into(), i64::MAX.into());
        left = Some(amount - clamped).filter(|left| *left != 0);
        i64::try_from(clamped).ok()
    })
}

/// Writes of one key, each within the bounds of an atomic write.
fn atomic(key: &Bytes, edits: Vec<Edit>, context: Option<&str>) -> Vec<WriteBody> {
    let mut writes: Vec<WriteBody> = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for edit in edits {
        let size = edit_size(&edit);
        if writes.is_empty() || count == EDITS_MAX || bytes + size > REQUEST_BYTES {
            let key = JsonBytes(key.clone());
            writes.push(WriteBody { key, edits: Vec::new(), context: context.map(Into::into) });
            (count, bytes) = (0, 0);
        }
        count += 1;
        bytes += size;
        if let Some(write) = writes.last_mut() {
            append(&mut write.edits, edit);
        }
    }
    writes
}

/// Appends an edit. Neighbours that add to one set become one.
fn append(edits: &mut Vec<EditBody>, Edit { field, change }: Edit) {
    let mut body = EditBody { field: JsonBytes(field), ..EditBody::default() };
    match change {
        Change::Add(member) => {
            if let Some(last) = edits.last_mut()
                && last.field == body.field
                && !last.add.is_empty()
            {
                return last.add.push(JsonBytes(member));
            }
            body.add.push(JsonBytes(member));
        }
        Change::Put(value) => body.put = Some(JsonBytes(value)),
        Change::Count(by) => body.count = Some(by),
        Change::Delete => body.delete = true,
        Change::Remove(member) => body.remove.push(JsonBytes(member)),
        // No row has a condition.
        Change::Cas { .. } => return,
    }
    edits.push(body);
}

fn edit_size(Edit { field, change }: &Edit) -> usize {
    let value = match change {
        Change::Put(value) | Change::Add(value) | Change::Remove(value) => value.len(),
        Change::Count(_) | Change::Delete | Change::Cas { .. } => 0,
    };
    field.len() + value + EDIT_BYTES
}

/// Groups writes, in order, into requests within bounds.
pub(super) fn requests(writes: Vec<WriteBody>, writes_max: usize) -> Vec<BatchBody> {
    let mut batches: Vec<BatchBody> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let size = write_size(&write);
        let is_full =
            |batch: &BatchBody| batch.writes.len() >= writes_max || bytes + size > REQUEST_BYTES;
        if batches.last().is_none_or(is_full) {
            batches.push(BatchBody::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.writes.push(write);
        }
    }
    batches
}

fn write_size(write: &WriteBody) -> usize {
    let edits = write.edits.iter().map(|edit| {
        let parts = edit.put.iter().chain(&edit.add).chain(&edit.remove);
        let values = parts.map(|part| part.0.len() + edit.field.0.len() + EDIT_BYTES);
        values.sum::<usize>() + edit.field.0.len() + EDIT_BYTES
    });
    write.key.0.len() + 64 + edits.sum::<usize>()
}
