//! Paths: the location of an element in a shard, as bytes that sort as (key, field, kind, member) does.
//!
//! One flat map from paths to elements serves all kinds: a register, a member of a set and a counter are one entry
//! each; a field or a whole key is a range. A zero byte in a key or field becomes `00 FF`, and `00 01` ends it, so no
//! key's path is a prefix of another key's. The member stands last and needs no escape.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::{FIELD_BYTES_MAX, KEY_BYTES_MAX};

/// The most bytes of the prefix of a field's paths: all bytes of its key and its name are escaped.
const PREFIX_BYTES_MAX: usize = 2 * (KEY_BYTES_MAX + FIELD_BYTES_MAX) + 4;

/// The kind of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A register's value.
    Register = 0,
    /// An occurrence of a member in a set.
    Set = 1,
    /// One actor's part of a counter.
    Counter = 2,
}

/// A path, or all paths with a common prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// The path, or the prefix.
    pub(crate) path: Vec<u8>,
    /// Whether `path` is a prefix.
    pub(crate) is_prefix: bool,
}

/// A path taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PathParts<'a> {
    /// The key, without its escapes.
    pub(crate) key: Vec<u8>,
    /// The field, without its escapes.
    pub(crate) field: Vec<u8>,
    /// The kind of the elements there.
    pub(crate) kind: Kind,
    /// The member of a set; empty for other kinds.
    pub(crate) member: &'a [u8],
}

impl Scope {
    /// Whether `path` lies in the scope.
    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        if self.is_prefix { path.starts_with(&self.path) } else { path == self.path }
    }
}

/// The prefix of all paths of a key.
pub(crate) fn of_key(key: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(key.len() + 8);
    push(&mut path, key);
    path
}

/// The prefix of all paths of a field.
pub(crate) fn of_field(key: &[u8], field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(key.len() + field.len() + 8);
    push(&mut path, key);
    push(&mut path, field);
    path
}

/// The path of a register or counter, or of a set's member.
pub(crate) fn of(key: &[u8], field: &[u8], kind: Kind, member: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(key.len() + field.len() + member.len() + 8);
    push(&mut path, key);
    push(&mut path, field);
    path.push(kind as u8);
    path.extend_from_slice(member);
    path
}

/// The first bytes after all paths with `prefix`, which must end as [`of_key`] or [`of_field`] end it.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Whether [`of_key`] or [`of_field`] made these bytes. To be asked of what a peer or a disk produced.
pub(crate) fn is_prefix(path: &[u8]) -> bool {
    let (mut rest, mut parts) = (path, 0);
    while !rest.is_empty() {
        let Some(at) = rest.iter().position(|byte| *byte == 0) else { return false };
        match rest.get(at + 1) {
            Some(1) => parts += 1,
            Some(0xff) => {}
            _ => return false,
        }
        rest = &rest[at + 2..];
    }
    path.ends_with(&[0, 1]) && (1..=2).contains(&parts) && path.len() <= PREFIX_BYTES_MAX
}

fn push(path: &mut Vec<u8>, bytes: &[u8]) {
    push_escaped(path, bytes);
    path.extend_from_slice(&[0, 1]);
}

/// Appends the escaped bytes without the two bytes that end them.
pub(crate) fn push_escaped(path: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.contains(&0) {
        path.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        path.push(byte);
        if byte == 0 {
            path.push(0xff);
        }
    }
}

/// Takes a path apart.
///
/// # Panics
///
/// When [`of`] did not make `path`: the index holds no other paths.
pub(crate) fn parts(path: &[u8]) -> PathParts<'_> {
    let (key, rest) = take_unescaped(path);
    let (field, rest) = take_unescaped(rest);
    let kind = match rest[0] {
        0 => Kind::Register,
        1 => Kind::Set,
        _ => Kind::Counter,
    };
    PathParts { key, field, kind, member: &rest[1..] }
}

fn take_unescaped(path: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        let byte = path[at];
        if byte == 0 && path[at + 1] == 1 {
            return (bytes, &path[at + 2..]);
        }
        bytes.push(byte);
        at += if byte == 0 { 2 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_bytes_are_no_prefix() {
        let bad: [&[u8]; 7] =
            [b"", b"a", b"a\0", b"\xff", b"a\0\xff", b"a\0\x02", b"a\0\x01b\0\x01c\0\x01"];
        bad.iter().for_each(|path| assert!(!is_prefix(path), "{path:?}"));
        assert!(!is_prefix(&of_key(&[b'k'; PREFIX_BYTES_MAX])));
    }

    fn short() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..4)
    }

    proptest! {
        #[test]
        fn paths_sort_as_their_parts(a in (short(), short(), short()), b in (short(), short(), short())) {
            let path = |p: &(Vec<u8>, Vec<u8>, Vec<u8>)| of(&p.0, &p.1, Kind::Set, &p.2);
            prop_assert_eq!(path(&a).cmp(&path(&b)), a.cmp(&b));
            let found = path(&a);
            let parts = parts(&found);
            prop_assert_eq!((parts.key, parts.field, parts.member.to_vec()), a.clone());
            let prefix = of_key(&a.0);
            prop_assert!(found.starts_with(&prefix) && found < end_of(&prefix));
            prop_assert_eq!(path(&b) >= prefix && path(&b) < end_of(&prefix), a.0 == b.0);
            prop_assert!(is_prefix(&prefix) && is_prefix(&of_field(&a.0, &a.1)));
        }
    }
}
