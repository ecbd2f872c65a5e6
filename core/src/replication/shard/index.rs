//! The index of a shard: from paths to the elements there, and the reads of it. This module does not decide what lives.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::Bound;

use super::{Element, PATH_BYTES, Shard};
use crate::replication::write::path::{self, Scope};
use crate::replication::write::{EditOp, WriteBody};

/// The elements at one path; in most cases one.
#[derive(Clone, Debug)]
pub(super) enum Elements {
    One(Element),
    Many(Vec<Element>),
}

impl Elements {
    pub(super) fn as_slice(&self) -> &[Element] {
        match self {
            Self::One(element) => core::slice::from_ref(element),
            Self::Many(elements) => elements,
        }
    }
}

impl Shard {
    /// The elements at one path.
    pub(crate) fn elements_at(&self, path: &[u8]) -> Cow<'_, [Element]> {
        let all = self.index.get(path).map_or(&[][..], Elements::as_slice);
        self.unhidden(path, all)
    }

    /// Whether a register that a write sets has more than one value.
    pub(crate) fn has_siblings(&self, body: &WriteBody<'_>) -> bool {
        let mut puts = body.edits.iter().filter(|edit| matches!(edit.op, EditOp::Put(_)));
        puts.any(|edit| {
            let path = edit.path(body.key.0);
            path.is_some_and(|path| self.elements_at(&path).len() > 1)
        })
    }

    /// The paths with `prefix`, with their elements; see [`path::end_of`].
    pub(crate) fn within(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = (&[u8], Cow<'_, [Element]>)> {
        self.unhidden_paths(self.in_prefix(prefix))
    }

    fn unhidden_paths<'a>(
        &'a self,
        paths: impl Iterator<Item = (&'a [u8], &'a [Element])>,
    ) -> impl Iterator<Item = (&'a [u8], Cow<'a, [Element]>)> {
        paths.map(|(path, all)| (path, self.unhidden(path, all))).filter(|(_, all)| !all.is_empty())
    }

    /// The paths with `prefix`, with their elements, hidden ones included.
    pub(super) fn in_prefix(&self, prefix: &[u8]) -> impl Iterator<Item = (&[u8], &[Element])> {
        let end = path::end_of(prefix);
        let bounds = (Bound::Included(prefix), Bound::Excluded(&end[..]));
        let range = self.index.range::<[u8], _>(bounds);
        range.map(|(path, elements)| (&path[..], elements.as_slice()))
    }

    /// The elements in a scope, of any kind.
    pub(crate) fn in_scope(&self, scope: &Scope) -> Vec<Element> {
        if scope.is_prefix {
            self.within(&scope.path).flat_map(|(_, elements)| elements.into_owned()).collect()
        } else {
            self.elements_at(&scope.path).into_owned()
        }
    }

    /// Whether a scope has more than `most` elements, hidden ones included.
    pub(crate) fn has_more(&self, scope: &Scope, most: usize) -> bool {
        // The path of a member may end with any byte, and is no prefix.
        if !scope.is_prefix {
            return false;
        }
        let elements = self.in_prefix(&scope.path).flat_map(|(_, elements)| elements);
        elements.take(most + 1).count() > most
    }

    /// The first path from `bound` on.
    pub(crate) fn first_from(&self, bound: &[u8]) -> Option<&[u8]> {
        let bounds = (Bound::Included(bound), Bound::Unbounded);
        let paths = self.index.range::<[u8], _>(bounds);
        let paths = paths.map(|(path, elements)| (&path[..], elements.as_slice()));
        self.unhidden_paths(paths).next().map(|(path, _)| path)
    }

    /// Adds an element at a path.
    pub(super) fn insert(&mut self, path: Vec<u8>, element: Element) {
        match self.index.get_mut(&path[..]) {
            Some(Elements::Many(elements)) => elements.push(element),
            Some(elements) => {
                let both = [elements.as_slice()[0], element];
                *elements = Elements::Many(both.to_vec());
            }
            None => {
                self.bytes += path.len() as u64 + PATH_BYTES;
                self.index.insert(path.into_boxed_slice(), Elements::One(element));
            }
        }
    }

    /// Removes an element from the index. False when it is not at this path.
    pub(super) fn remove_from_index(&mut self, path: &[u8], element: &Element) -> bool {
        let Some(elements) = self.index.get_mut(path) else { return false };
        let Some(at) = elements.as_slice().iter().position(|e| e == element) else { return false };
        if let Elements::Many(many) = elements {
            many.remove(at);
            if let [last] = many[..] {
                *elements = Elements::One(last);
            }
            return true;
        }
        self.index.remove(path);
        self.bytes -= path.len() as u64 + PATH_BYTES;
        true
    }
}
