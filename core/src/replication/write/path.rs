//! Places: where in a shard an element lives, as bytes whose order is that of (key, field, kind, member).
//!
//! One flat map from such bytes to elements serves all kinds: a register, a member of a set, a counter are one entry, a
//! field or a whole key is a range. A zero byte in a key or field becomes `00 FF`, and `00 01` ends it, so no key is a
//! prefix of another's place. The member stands last and needs no escape.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::{FIELD_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The most bytes that a place can have.
pub(crate) const PLACE_BYTES_MAX: usize =
    2 * (KEY_BYTES_MAX + FIELD_BYTES_MAX) + 5 + VALUE_BYTES_MAX;

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A register's value.
    Register = 0,
    /// An occurrence of a member in a set.
    Set = 1,
    /// One actor's part of a counter.
    Counter = 2,
}

/// Appends the escaped bytes, without their end.
pub(crate) fn push_open(place: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.contains(&0) {
        place.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        place.push(byte);
        if byte == 0 {
            place.push(0xff);
        }
    }
}

fn push(place: &mut Vec<u8>, bytes: &[u8]) {
    push_open(place, bytes);
    place.extend_from_slice(&[0, 1]);
}

/// The beginning of all places of a key.
pub(crate) fn of_key(key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + 8);
    push(&mut place, key);
    place
}

/// The beginning of all places of a field.
pub(crate) fn of_field(key: &[u8], field: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + field.len() + 8);
    push(&mut place, key);
    push(&mut place, field);
    place
}

/// The place of a register or counter, or of a set's member.
pub(crate) fn of(key: &[u8], field: &[u8], kind: Kind, member: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + field.len() + member.len() + 8);
    push(&mut place, key);
    push(&mut place, field);
    place.push(kind as u8);
    place.extend_from_slice(member);
    place
}

/// The first bytes after all places that begin with `prefix`, which must end as [`of_key`] or [`of_field`] end it.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A place taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// The key.
    pub(crate) key: Vec<u8>,
    /// The field.
    pub(crate) field: Vec<u8>,
    /// What is there.
    pub(crate) kind: Kind,
    /// The member, of a set.
    pub(crate) member: &'a [u8],
}

/// Takes a place apart.
///
/// # Panics
///
/// When `place` was not made by [`of`]: only such places are in the index.
pub(crate) fn parts(place: &[u8]) -> Parts<'_> {
    let (key, rest) = pull(place);
    let (field, rest) = pull(rest);
    let kind = match rest[0] {
        0 => Kind::Register,
        1 => Kind::Set,
        _ => Kind::Counter,
    };
    Parts { key, field, kind, member: &rest[1..] }
}

fn pull(place: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        let byte = place[at];
        if byte == 0 && place[at + 1] == 1 {
            return (bytes, &place[at + 2..]);
        }
        bytes.push(byte);
        at += if byte == 0 { 2 } else { 1 };
    }
}

/// Which places an edit speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// The place, or what all places begin with.
    pub(crate) place: Vec<u8>,
    /// Whether it is a beginning.
    pub(crate) all: bool,
}

impl Scope {
    /// Whether `place` is in it.
    pub(crate) fn contains(&self, place: &[u8]) -> bool {
        if self.all { place.starts_with(&self.place) } else { place == self.place }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn short() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..4)
    }

    proptest! {
        #[test]
        fn places_sort_as_their_parts(a in (short(), short(), short()), b in (short(), short(), short())) {
            let place = |p: &(Vec<u8>, Vec<u8>, Vec<u8>)| of(&p.0, &p.1, Kind::Set, &p.2);
            prop_assert_eq!(place(&a).cmp(&place(&b)), a.cmp(&b));
            let found = place(&a);
            let parts = parts(&found);
            prop_assert_eq!((parts.key, parts.field, parts.member.to_vec()), a.clone());
            let prefix = of_key(&a.0);
            prop_assert!(found.starts_with(&prefix) && found < end_of(&prefix));
            prop_assert_eq!(place(&b) >= prefix && place(&b) < end_of(&prefix), a.0 == b.0);
        }
    }
}
