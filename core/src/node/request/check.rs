//! The bounds of a request, checked before the node does anything for it.
//!
//! This module does not check what depends on state (a counter's range, siblings, revisions): the machine that holds
//! the state does.

use crate::api::{Bound, Change, Edit, Expected, Mutation, Policy, Query, Reason, Request};
use crate::limits::{
    ADDRESS_BYTES_MAX, BATCH_WRITES_MAX, EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX,
    NAMESPACE_NAME_BYTES_MAX, REQUEST_BYTES_MAX, SLOTS_MAX, VALUE_BYTES_MAX,
};
use crate::reach;

/// Refuses a request that is out of bounds.
pub(super) fn check(request: &Request) -> Result<(), Reason> {
    match request {
        Request::CreateNamespace { name, policy, .. } => {
            check_name(name)?;
            match policy {
                Policy::Eventual { slots, .. } => {
                    within(Bound::Slots, usize::from(*slots), 1, usize::from(SLOTS_MAX))
                }
                Policy::Strong => Ok(()),
            }
        }
        Request::DeleteNamespace { name, .. } => check_name(name),
        Request::Read { namespace, query } => {
            check_name(namespace)?;
            check_query(query)
        }
        Request::Write { namespace, mutations, .. } => {
            check_name(namespace)?;
            check_mutations(mutations)
        }
        Request::Join { address, name, .. } => {
            within(Bound::Address, address.0.len(), 1, ADDRESS_BYTES_MAX)?;
            if name.len() > NAMESPACE_NAME_BYTES_MAX { Err(Reason::InvalidName) } else { Ok(()) }
        }
        Request::Init { .. }
        | Request::Status
        | Request::Members
        | Request::Namespaces
        | Request::RotateKey { .. } => Ok(()),
    }
}

pub(super) fn within(what: Bound, value: usize, low: usize, high: usize) -> Result<(), Reason> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    reach!("node.request.out_of_bounds");
    Err(Reason::OutOfBounds { what, limit: high as u64 })
}

/// Refuses a name that is not 1 to 64 bytes of a-z, 0-9, `-`, `_`, `.`, beginning with a letter.
fn check_name(name: &str) -> Result<(), Reason> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let fits = name.len() <= NAMESPACE_NAME_BYTES_MAX;
    if starts && fits && name.bytes().all(is_plain) { Ok(()) } else { Err(Reason::InvalidName) }
}

fn check_key(key: &[u8]) -> Result<(), Reason> {
    within(Bound::Key, key.len(), 1, KEY_BYTES_MAX)
}

fn check_field(field: &[u8]) -> Result<(), Reason> {
    within(Bound::Field, field.len(), 0, FIELD_BYTES_MAX)
}

fn check_query(query: &Query) -> Result<(), Reason> {
    match query {
        Query::Get { key, field } | Query::Members { key, field } | Query::Count { key, field } => {
            check_key(key)?;
            check_field(field)
        }
        Query::Record { key } => check_key(key),
        Query::Keys { prefix, after, .. } => {
            within(Bound::Key, prefix.len(), 0, KEY_BYTES_MAX)?;
            within(Bound::Key, after.as_ref().map_or(0, bytes::Bytes::len), 0, KEY_BYTES_MAX)
        }
        Query::Rows { after, .. } => {
            within(Bound::Key, after.as_ref().map_or(0, bytes::Bytes::len), 0, KEY_BYTES_MAX)
        }
        Query::Export { from, prefix, .. } => {
            within(Bound::Key, prefix.len(), 0, KEY_BYTES_MAX)?;
            let after = from.as_ref().map_or(0, |cursor| cursor.after.len());
            within(Bound::Key, after, 0, KEY_BYTES_MAX)
        }
    }
}

fn check_mutations(mutations: &[Mutation]) -> Result<(), Reason> {
    within(Bound::Mutations, mutations.len(), 1, BATCH_WRITES_MAX)?;
    let mut bytes = 0;
    for mutation in mutations {
        check_key(&mutation.key)?;
        within(Bound::Edits, mutation.edits.len(), 1, EDITS_MAX)?;
        bytes += mutation.key.len() + 16;
        bytes += mutation.context.as_ref().map_or(0, |context| context.as_bytes().len());
        for edit in &mutation.edits {
            bytes += check_edit(edit)?;
        }
    }
    within(Bound::Request, bytes, 0, REQUEST_BYTES_MAX)
}

/// The edit's size in bytes, when it is within bounds.
fn check_edit(edit: &Edit) -> Result<usize, Reason> {
    check_field(&edit.field)?;
    let bytes = match &edit.change {
        Change::Put(value) | Change::Add(value) | Change::Remove(value) => value.len(),
        Change::Cas { expected, value } => {
            let expected = if let Expected::Value(value) = expected { value.len() } else { 0 };
            within(Bound::Value, expected, 0, VALUE_BYTES_MAX)?;
            expected + value.as_ref().map_or(0, bytes::Bytes::len)
        }
        Change::Delete | Change::Count(_) => 0,
    };
    // An expected and a new value may both be as large as one value: their sum is bounded by two.
    let single = if matches!(edit.change, Change::Cas { .. }) { bytes / 2 } else { bytes };
    within(Bound::Value, single, 0, VALUE_BYTES_MAX)?;
    Ok(bytes + edit.field.len() + 8)
}

/// Whether a change is for strong namespaces (`Some(true)`), for eventual ones (`Some(false)`) or for both (`None`).
const fn is_strong(change: &Change) -> Option<bool> {
    match change {
        Change::Put(_) | Change::Delete => None,
        Change::Cas { .. } => Some(true),
        Change::Add(_) | Change::Remove(_) | Change::Count(_) => Some(false),
    }
}

/// Whether a request only removes things. It takes a little room in the log, and gives more back with the next
/// checkpoint, so a full node still takes it.
pub(super) fn only_removes(request: &Request) -> bool {
    match request {
        Request::Write { .. } => !grows(request),
        Request::DeleteNamespace { .. } => true,
        _ => false,
    }
}

/// Whether a request may need more memory for keys and values. A full node still deletes.
pub(super) fn grows(request: &Request) -> bool {
    let Request::Write { mutations, .. } = request else { return false };
    let mut edits = mutations.iter().flat_map(|mutation| &mutation.edits);
    edits.any(|edit| match &edit.change {
        Change::Put(_) | Change::Add(_) | Change::Count(_) => true,
        Change::Cas { value, .. } => value.is_some(),
        Change::Delete | Change::Remove(_) => false,
    })
}

/// Refuses changes that a namespace of this consistency does not support.
pub(super) fn check_consistency(mutations: &[Mutation], strong: bool) -> Result<(), Reason> {
    let mut edits = mutations.iter().flat_map(|mutation| &mutation.edits);
    let fits = |edit: &Edit| is_strong(&edit.change).is_none_or(|needs| needs == strong);
    // A strong namespace compares revisions: a context there would be a condition that nobody looks at.
    let is_blind = strong && mutations.iter().any(|mutation| mutation.context.is_some());
    if !is_blind && edits.all(fits) { Ok(()) } else { Err(Reason::WrongConsistency) }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_name_is_short_lower_case_and_begins_with_a_letter() {
        for name in ["a", "word-net_3.1"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "A", "3a", "a b", "ä", &"a".repeat(65)] {
            assert_eq!(check_name(name), Err(Reason::InvalidName), "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_bound_that_was_exceeded() {
        let write = |key: &[u8], edits: Vec<Edit>| Request::Write {
            namespace: "a".to_string(),
            mutations: vec![Mutation { key: key.to_vec().into(), edits, context: None }],
            level: crate::api::Level::Durable,
            session: None,
        };
        let put = |length: usize| {
            vec![Edit { field: b"".as_slice().into(), change: Change::Put(vec![0; length].into()) }]
        };
        let what = |request: &Request| match check(request) {
            Err(Reason::OutOfBounds { what, .. }) => Some(what),
            _ => None,
        };
        assert_eq!(what(&write(b"k", put(VALUE_BYTES_MAX))), None);
        assert_eq!(what(&write(b"k", put(VALUE_BYTES_MAX + 1))), Some(Bound::Value));
        assert_eq!(what(&write(b"", put(1))), Some(Bound::Key));
        assert_eq!(what(&write(b"k", vec![])), Some(Bound::Edits));
    }
}
