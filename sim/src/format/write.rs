//! Sealed writes: what one write of an eventual namespace says.
//!
//! Sealed bytes are a tag, the SHA-256 of the body, and the body: the codec's version, the shard, the dot, the key, the
//! stamp, the other authors that it refers to, and the edits, each with its field, its change, the elements that it
//! supersedes, and the dots whose elements in its scope it supersedes, one by one and in ranges. An index into the
//! table of authors counts from 1, and 0 is the write's own. A write outside the bounds of the format says nothing.
//! This module does not know what a shard holds.

use continuum_core::digest::Digest;
use continuum_core::id::{Actor, Dot, ShardId};
use continuum_core::limits::{
    EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, REQUEST_BYTES_MAX, SEQ_MAX, STAMP_MAX,
    VALUE_BYTES_MAX,
};
use sha2::{Digest as _, Sha256};

use super::reader::Reader;

/// The first byte of sealed bytes.
pub(super) const SEALED: u8 = 1;
/// The version of the codec.
pub(super) const VERSION: u8 = 1;

/// A write, with all its references resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The shard that the write belongs to.
    pub(crate) shard: ShardId,
    /// The write's identity.
    pub(crate) dot: Dot,
    /// The key that the write changes.
    pub(crate) key: Vec<u8>,
    /// The author's hybrid logical clock.
    pub(crate) stamp: u64,
    /// The hash over its meaning.
    pub(crate) hash: Digest,
    /// The edits, in order.
    pub(crate) edits: Vec<WrittenEdit>,
}

/// One edit of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenEdit {
    /// The field that it changes.
    pub(crate) field: Vec<u8>,
    /// The change of the field.
    pub(crate) op: Op,
    /// The superseded elements: the dot of the write, and the index of the edit.
    pub(crate) superseded: Vec<(Dot, u16)>,
    /// Writes whose elements in this edit's scope are superseded.
    pub(crate) absent: Vec<Dot>,
    /// The same for ranges of an author's numbers, both ends included. Only a removal of a whole scope has some.
    pub(crate) covered: Vec<Span>,
}

/// An author's numbers from one to another, both included.
pub(crate) type Span = (Actor, u64, u64);

impl WrittenEdit {
    /// An edit that supersedes nothing.
    #[cfg(test)]
    pub(crate) const fn new(field: Vec<u8>, op: Op) -> Self {
        Self { field, op, superseded: Vec::new(), absent: Vec::new(), covered: Vec::new() }
    }

    /// Whether the edit supersedes all of a write that is in its scope.
    pub(crate) fn supersedes_in_scope(&self, dot: &Dot) -> bool {
        self.absent.contains(dot) || self.covers(dot)
    }

    /// Whether a range of the edit has a dot.
    pub(crate) fn covers(&self, dot: &Dot) -> bool {
        let has =
            |(actor, low, high): &Span| *actor == dot.actor && (*low..=*high).contains(&dot.seq);
        self.covered.iter().any(has)
    }
}

/// The change that an edit makes to its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Sets the register to a value.
    Put(Vec<u8>),
    /// Removes the field, or the whole key if the field is empty.
    Delete,
    /// Adds a member to the set.
    Add(Vec<u8>),
    /// Removes a member from the set.
    Remove(Vec<u8>),
    /// Replaces the author's totals of the counter: all that it added, and all that it subtracted.
    Count {
        /// The sum of all that the author added.
        plus: u64,
        /// The sum of all that the author subtracted.
        minus: u64,
    },
}

/// The hash and the body of sealed bytes. The body is after the version.
fn parts(sealed: &[u8]) -> Option<(Digest, &[u8], Reader<'_>)> {
    let mut reader = Reader(sealed);
    if reader.byte()? != SEALED {
        return None;
    }
    let hash = Digest(reader.array()?);
    let body = reader.0;
    (reader.byte()? == VERSION).then_some((hash, body, reader))
}

/// The shard and the dot of sealed bytes, whether or not the rest is intact.
pub(crate) fn head_of(sealed: &[u8]) -> Option<(ShardId, Dot)> {
    let (.., mut reader) = parts(sealed)?;
    Some((reader.shard()?, reader.dot()?))
}

/// The write in sealed bytes; `None` if they do not match their hash, or do not follow the format.
pub(super) fn read(sealed: &[u8]) -> Option<Written> {
    if sealed.len() > REQUEST_BYTES_MAX {
        return None;
    }
    let (hash, body, mut reader) = parts(sealed)?;
    if hash.0[..] != Sha256::digest(body)[..] {
        return None;
    }
    let (shard, dot) = (reader.shard()?, reader.dot()?);
    let (key, stamp) = (reader.bytes()?.to_vec(), reader.u64()?);
    let others = reader.list(Reader::actor)?;
    if others.contains(&dot.actor) {
        return None;
    }
    let actor = |index: u32| match index.checked_sub(1) {
        None => Some(dot.actor),
        Some(at) => others.get(at as usize).copied(),
    };
    let edits = reader.list(|reader| edit(reader, actor))?;
    let written = Written { shard, dot, key, stamp, hash, edits };
    (reader.is_at_end() && is_within_bounds(&written)).then_some(written)
}

fn is_within_bounds(write: &Written) -> bool {
    let is_numbered = |dot: &Dot| (1..=SEQ_MAX).contains(&dot.seq);
    let me = write.dot.actor;
    // An author supersedes of its own elements only those that it wrote earlier.
    let are_sound = |(number, edit): (usize, &WrittenEdit)| {
        let before = (write.dot.seq, number);
        let is_earlier =
            |(dot, edit): &(Dot, u16)| dot.actor != me || (dot.seq, usize::from(*edit)) < before;
        let is_before = |dot: &Dot| dot.actor != me || dot.seq < write.dot.seq;
        let length = match &edit.op {
            Op::Put(value) | Op::Add(value) | Op::Remove(value) => value.len(),
            Op::Delete | Op::Count { .. } => 0,
        };
        edit.field.len() <= FIELD_BYTES_MAX
            && length <= VALUE_BYTES_MAX
            && edit.superseded.iter().all(|named| is_numbered(&named.0) && is_earlier(named))
            && edit.absent.iter().all(|dot| is_numbered(dot) && is_before(dot))
            && edit.covered.iter().all(|(actor, low, high)| {
                let dot = |seq| Dot { actor: *actor, seq };
                low <= high
                    && [dot(*low), dot(*high)].iter().all(|d| is_numbered(d) && is_before(d))
            })
            && edit
                .covered
                .windows(2)
                .all(|pair| pair[0].0 != pair[1].0 || pair[0].2 + 1 < pair[1].1)
            && (edit.covered.is_empty() || edit.op == Op::Delete)
    };
    is_numbered(&write.dot)
        && write.stamp <= STAMP_MAX
        && write.key.len() <= KEY_BYTES_MAX
        && (1..=EDITS_MAX).contains(&write.edits.len())
        && write.edits.iter().enumerate().all(are_sound)
}

fn edit(
    reader: &mut Reader<'_>,
    actor: impl Fn(u32) -> Option<Actor> + Copy,
) -> Option<WrittenEdit> {
    let dot =
        |reader: &mut Reader<'_>| Some(Dot { actor: actor(reader.u32()?)?, seq: reader.u64()? });
    Some(WrittenEdit {
        field: reader.bytes()?.to_vec(),
        op: op(reader)?,
        superseded: reader.list(|reader| Some((dot(reader)?, reader.u16()?)))?,
        absent: reader.list(dot)?,
        covered: spans(reader, actor)?,
    })
}

/// Ranges by author, in the order of the authors' numbers in the table.
fn spans(reader: &mut Reader<'_>, actor: impl Fn(u32) -> Option<Actor>) -> Option<Vec<Span>> {
    let span = |reader: &mut Reader<'_>| Some((reader.u64()?, reader.u64()?));
    let of_one = |reader: &mut Reader<'_>| Some((reader.u32()?, reader.list(span)?));
    let authors = reader.list(of_one)?;
    let are_sound = authors.iter().all(|(_, spans)| !spans.is_empty())
        && authors.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let mut all = Vec::new();
    for (author, spans) in authors {
        let actor = actor(author)?;
        all.extend(spans.into_iter().map(|(low, high)| (actor, low, high)));
    }
    are_sound.then_some(all)
}

fn op(reader: &mut Reader<'_>) -> Option<Op> {
    Some(match reader.u32()? {
        0 => Op::Put(reader.bytes()?.to_vec()),
        1 => Op::Delete,
        2 => Op::Add(reader.bytes()?.to_vec()),
        3 => Op::Remove(reader.bytes()?.to_vec()),
        4 => Op::Count { plus: reader.u64()?, minus: reader.u64()? },
        _ => return None,
    })
}
