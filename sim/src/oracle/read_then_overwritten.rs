//! Law: a value that a client read, and then overwrote with the context of that read, is gone in the end (README,
//! Guarantees: a write that carries the context of a read supersedes just what was read).
//!
//! Compares the final rows with the answers that clients got, by the values alone: neither dots nor what a context says
//! are looked at, so an answer whose context names too little is seen too. Each acknowledged put, removal and deletion
//! with a context is judged, wherever it stands in its request. It does not judge a value that several writes wrote,
//! because the client may not have read all of them, nor counters, which no read names, nor writes that only lost disks
//! held.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Change, Content, Context, Edit, Mutation, Outcome, Query, Row, Value};

use super::eventual::is_certain;
use crate::verdict::{Broken, Verdict};
use crate::workload::history::{Body, Ending, History, Operation, Space};

pub(crate) const NAME: &str = "read-then-overwritten";

/// A register's value or a set's member, in a field of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thing {
    key: Bytes,
    field: Bytes,
    is_member: bool,
    bytes: Bytes,
}

/// Judges one namespace, whose rows are the same everywhere. The operations in `excused` may be lost with the disks
/// that held them. `is_made_once` says whether an operation wrote to a key once only.
pub(crate) fn check(
    history: &History,
    space: Space,
    rows: &[Row],
    excused: &BTreeSet<usize>,
    is_made_once: impl Fn(usize, &[u8]) -> bool,
) -> Verdict {
    let mut held: BTreeSet<Thing> = BTreeSet::new();
    for row in rows {
        for field in &row.fields {
            held.extend(things_of(&row.key, &field.field, &field.content));
        }
    }
    let seen = seen_in(history, space);
    let authors = authors_in(history, space);
    let is_of_one = |thing: &Thing| {
        let of = authors.get(thing).map_or(&[][..], Vec::as_slice);
        matches!(of, [one] if is_made_once(*one, &thing.key))
    };
    for (number, operation) in history.of(space) {
        let Body::Write { mutations, .. } = &operation.body else { continue };
        if !is_certain(operation) || excused.contains(&number) {
            continue;
        }
        for mutation in mutations {
            let Some(context) = &mutation.context else { continue };
            let read = seen.get(&(&mutation.key, context.as_bytes())).into_iter().flatten();
            let mut gone = read.filter(|thing| overwrites(mutation, thing) && is_of_one(thing));
            if let Some(thing) = gone.find(|thing| held.contains(thing)) {
                let what = format!(
                    "{}: {thing:?} was read and then overwritten by operation {number}, and is there: {operation:?}",
                    space.name()
                );
                return Err(Broken::new(NAME, what));
            }
        }
    }
    Ok(())
}

/// By key and context: what clients were shown with it.
fn seen_in(history: &History, space: Space) -> BTreeMap<(&Bytes, &Bytes), Vec<Thing>> {
    let mut seen: BTreeMap<(&Bytes, &Bytes), Vec<Thing>> = BTreeMap::new();
    for (_, operation) in history.of(space) {
        if let Some((key, context, things)) = shown_by(operation) {
            seen.entry((key, context.as_bytes())).or_default().extend(things);
        }
    }
    seen
}

/// The key, the context and the content that an answer showed.
fn shown_by(operation: &Operation) -> Option<(&Bytes, &Context, Vec<Thing>)> {
    let Ending::Answered(outcome) = &operation.ended else { return None };
    match (&operation.body, outcome) {
        (Body::Read(Query::Get { key, field }), Outcome::Value(Value::Register(register))) => {
            let values = register.value.iter().chain(&register.siblings).cloned().collect();
            Some((key, &register.context, things_of(key, field, &Content::Register(values))))
        }
        (
            Body::Read(Query::Members { key, field }),
            Outcome::Value(Value::Set { members, context }),
        ) => Some((key, context, things_of(key, field, &Content::Set(members.clone())))),
        (Body::Read(Query::Record { key }), Outcome::Value(Value::Record { fields, context })) => {
            let things =
                fields.iter().flat_map(|field| things_of(key, &field.field, &field.content));
            Some((key, context, things.collect()))
        }
        (Body::Write { mutations, .. }, Outcome::Committed { receipt, .. }) => {
            let context = receipt.context.as_ref()?;
            let Mutation { key, edits, .. } = mutations.first()?;
            Some((key, context, edits.iter().filter_map(|edit| written_by(key, edit)).collect()))
        }
        _ => None,
    }
}

fn things_of(key: &Bytes, field: &Bytes, content: &Content) -> Vec<Thing> {
    let (is_member, all) = match content {
        Content::Register(values) => (false, &values[..]),
        Content::Set(members) => (true, &members[..]),
        Content::Counter(_) => (false, &[][..]),
    };
    let thing = |bytes: &Bytes| Thing {
        key: key.clone(),
        field: field.clone(),
        is_member,
        bytes: bytes.clone(),
    };
    all.iter().map(thing).collect()
}

fn written_by(key: &Bytes, edit: &Edit) -> Option<Thing> {
    let (is_member, bytes) = match &edit.change {
        Change::Put(value) => (false, value),
        Change::Add(member) => (true, member),
        _ => return None,
    };
    let (key, field, bytes) = (key.clone(), edit.field.clone(), bytes.clone());
    Some(Thing { key, field, is_member, bytes })
}

/// The operations that may have written each value and member.
fn authors_in(history: &History, space: Space) -> BTreeMap<Thing, Vec<usize>> {
    let mut authors: BTreeMap<Thing, Vec<usize>> = BTreeMap::new();
    for (number, operation) in history.of(space) {
        let Body::Write { mutations, .. } = &operation.body else { continue };
        let edits = mutations.iter().flat_map(|m| m.edits.iter().map(move |edit| (&m.key, edit)));
        for thing in edits.filter_map(|(key, edit)| written_by(key, edit)) {
            authors.entry(thing).or_default().push(number);
        }
    }
    authors
}

/// Whether an edit of a mutation removes or replaces a value or a member that its client saw.
fn overwrites(mutation: &Mutation, thing: &Thing) -> bool {
    let takes = |edit: &Edit| {
        let same = edit.field == thing.field;
        match &edit.change {
            Change::Put(_) => same && !thing.is_member,
            Change::Remove(member) => same && thing.is_member && *member == thing.bytes,
            Change::Delete => same || edit.field.is_empty(),
            _ => false,
        }
    };
    // A write does not supersede what it writes itself.
    let writes = |edit: &Edit| written_by(&mutation.key, edit).as_ref() == Some(thing);
    mutation.edits.iter().any(takes) && !mutation.edits.iter().any(writes)
}
