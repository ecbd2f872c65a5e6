//! One write as its author made it: the same sealed bytes in memory, in the log and on the wire.
//!
//! Sealed bytes are a tag, the SHA-256 of the body's bytes, and the body's bytes: the canonical encoding of
//! [`WriteBody`]. The hash covers the whole meaning, so no value, stamp, key, dot or reference can change on the way.
//! This module does not know what a shard holds.

pub(crate) mod hlc;
pub(crate) mod leads;
pub(crate) mod path;

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;
use crate::digest::Digest;
use crate::id::{Actor, Dot, NamespaceId, ShardId};
use crate::limits::{
    EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, REQUEST_BYTES_MAX, SEQ_MAX, STAMP_MAX,
    VALUE_BYTES_MAX,
};
use crate::mutant;

use self::path::{Kind, Scope};

/// The first byte of sealed bytes. The other records of a shard begin with another byte.
pub(crate) const TAG_SEALED: u8 = 1;
/// The offset of the body in sealed bytes.
const BODY_AT: usize = 33;
/// The most bytes of a sealed write: with its envelope it fits into a frame.
pub(crate) const SEALED_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// Borrowed bytes that are encoded as one run, not element by element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a [u8]>::deserialize(deserializer).map(Self)
    }
}

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The meaning of a write: the hash covers all of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WriteBody<'a> {
    /// The shard's namespace.
    pub(crate) namespace: NamespaceId,
    /// The shard's slot.
    pub(crate) slot: u16,
    /// The write's identity.
    pub(crate) dot: Dot,
    /// The one key that the write changes.
    #[serde(borrow)]
    pub(crate) key: Raw<'a>,
    /// The author's hybrid logical clock.
    pub(crate) stamp: u64,
    /// The other authors that the edits refer to. An index into this table counts from 1; 0 is the write's own author.
    pub(crate) actors: Vec<Actor>,
    /// The edits, in order.
    pub(crate) edits: Vec<EditRecord<'a>>,
}

/// One edit, with everything that it supersedes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EditRecord<'a> {
    /// The field that it changes.
    #[serde(borrow)]
    pub(crate) field: Raw<'a>,
    /// The change of the field.
    pub(crate) op: EditOp<'a>,
    /// The superseded elements that the author held.
    pub(crate) superseded: Vec<ElementRef>,
    /// Dots that the client had read and whose elements the author did not hold: it had not seen them, or had replaced
    /// them. The edit supersedes their elements in its scope.
    pub(crate) absent: Vec<DotRef>,
    /// The same for whole ranges of dots: a delete of many elements names no element.
    pub(crate) covered: Vec<SpansRef>,
}

/// The change that an edit makes to its field.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum EditOp<'a> {
    /// Sets the register to a value.
    Put(#[serde(borrow)] Raw<'a>),
    /// Removes what was observed: of the field, or of the whole key when the field is empty.
    Delete,
    /// Adds a member to the set.
    Add(Raw<'a>),
    /// Removes the observed occurrences of a member.
    Remove(Raw<'a>),
    /// Replaces the author's earlier running totals of the counter.
    Count {
        /// The sum of all that the author added.
        plus: u64,
        /// The sum of all that the author subtracted.
        minus: u64,
    },
}

/// Names an element of another write, or of an earlier edit of the same write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ElementRef {
    /// Its author's index in the write's table of actors.
    pub(crate) actor: u32,
    /// Its write's sequence number.
    pub(crate) seq: u64,
    /// The index of its edit in that write.
    pub(crate) edit: u16,
}

/// Names a write that the author of this write had not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct DotRef {
    /// Its author's index in the write's table of actors.
    pub(crate) actor: u32,
    /// Its sequence number.
    pub(crate) seq: u64,
}

/// Names ranges of one author's writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpansRef {
    /// Its author's index in the write's table of actors.
    pub(crate) actor: u32,
    /// The first and last number of each range. They ascend and do not touch.
    pub(crate) spans: Vec<(u64, u64)>,
}

impl SpansRef {
    /// The greatest number; 0 when there is none.
    pub(crate) fn last(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.1)
    }

    fn is_valid(&self) -> bool {
        let is_bounded = |&(low, high): &(u64, u64)| 1 <= low && low <= high && high <= SEQ_MAX;
        !self.spans.is_empty()
            && self.spans.iter().all(is_bounded)
            && self.spans.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
    }
}

impl<'a> EditRecord<'a> {
    /// An edit that supersedes nothing.
    pub(crate) fn new(field: &'a [u8], op: EditOp<'a>) -> Self {
        let (superseded, absent, covered) = (Vec::new(), Vec::new(), Vec::new());
        Self { field: Raw(field), op, superseded, absent, covered }
    }
}

impl EditRecord<'_> {
    /// The path of the element that the edit makes. Removals make none.
    pub(crate) fn path(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.op {
            EditOp::Put(_) => Some(path::of(key, self.field.0, Kind::Register, &[])),
            EditOp::Add(member) => Some(path::of(key, self.field.0, Kind::Set, member.0)),
            EditOp::Count { .. } => Some(path::of(key, self.field.0, Kind::Counter, &[])),
            EditOp::Delete | EditOp::Remove(_) => None,
        }
    }

    /// The paths at which the edit may supersede elements.
    pub(crate) fn scope(&self, key: &[u8]) -> Scope {
        let field = self.field.0;
        match self.op {
            EditOp::Delete if field.is_empty() => {
                Scope { path: path::of_key(key), is_prefix: true }
            }
            EditOp::Delete => Scope { path: path::of_field(key, field), is_prefix: true },
            EditOp::Remove(member) => {
                Scope { path: path::of(key, field, Kind::Set, member.0), is_prefix: false }
            }
            _ => Scope { path: self.path(key).unwrap_or_default(), is_prefix: false },
        }
    }

    /// Whether the edit makes an element.
    pub(crate) const fn makes_element(&self) -> bool {
        !matches!(self.op, EditOp::Delete | EditOp::Remove(_))
    }
}

impl WriteBody<'_> {
    /// The shard that the write belongs to.
    pub(crate) const fn shard(&self) -> ShardId {
        ShardId { namespace: self.namespace, slot: self.slot }
    }

    /// The actor at an index of the table.
    pub(crate) fn actor(&self, index: u32) -> Actor {
        if index == 0 { self.dot.actor } else { self.actors[index as usize - 1] }
    }

    /// Checks the bounds and references that the encoding itself does not enforce.
    fn is_valid(&self) -> bool {
        let edits = self.edits.len();
        (1..=SEQ_MAX).contains(&self.dot.seq)
            && self.stamp <= STAMP_MAX
            && self.key.0.len() <= KEY_BYTES_MAX
            && !self.actors.contains(&self.dot.actor)
            && (1..=EDITS_MAX).contains(&edits)
            && self.edits.iter().enumerate().all(|(index, edit)| self.is_edit_valid(index, edit))
    }

    fn is_edit_valid(&self, index: usize, edit: &EditRecord<'_>) -> bool {
        let value = match edit.op {
            EditOp::Put(value) | EditOp::Add(value) | EditOp::Remove(value) => value.0.len(),
            EditOp::Delete | EditOp::Count { .. } => 0,
        };
        let known = |actor: u32| actor as usize <= self.actors.len();
        // An author supersedes of its own elements only those that it wrote earlier.
        let earlier = |element: &ElementRef| {
            element.actor != 0
                || element.seq < self.dot.seq
                || (element.seq == self.dot.seq && usize::from(element.edit) < index)
        };
        let in_range = |seq: u64| (1..=SEQ_MAX).contains(&seq);
        edit.field.0.len() <= FIELD_BYTES_MAX
            && value <= VALUE_BYTES_MAX
            && edit.superseded.iter().all(|e| known(e.actor) && in_range(e.seq) && earlier(e))
            && edit.absent.iter().all(|dot| {
                let is_earlier = dot.actor > 0 || dot.seq < self.dot.seq;
                known(dot.actor) && in_range(dot.seq) && is_earlier
            })
            && edit.covered.iter().all(|of| {
                let is_earlier = of.actor > 0 || of.last() < self.dot.seq;
                known(of.actor) && of.is_valid() && is_earlier
            })
            && edit.covered.windows(2).all(|pair| pair[0].actor < pair[1].actor)
            && (edit.covered.is_empty() || matches!(edit.op, EditOp::Delete))
    }
}

/// Encodes, hashes and seals a write.
pub(crate) fn seal(body: &WriteBody<'_>) -> Bytes {
    let mut bytes = Vec::with_capacity(BODY_AT + 192);
    bytes.resize(BODY_AT, TAG_SEALED);
    codec::encode_into(body, &mut bytes);
    let hash = Digest::of(&bytes[BODY_AT..]);
    bytes[1..BODY_AT].copy_from_slice(&hash.0);
    bytes.into()
}

/// The hash that sealed bytes carry.
pub(crate) fn hash_of(sealed: &[u8]) -> Digest {
    let mut hash = Digest::default();
    hash.0.copy_from_slice(&sealed[1..BODY_AT]);
    hash
}

/// Whether sealed bytes still are what their author hashed.
pub(crate) fn is_intact(sealed: &[u8]) -> bool {
    mutant!("replication.hash.skipped") || Digest::of(&sealed[BODY_AT..]) == hash_of(sealed)
}

/// Opens sealed bytes from a peer or a disk.
///
/// # Errors
///
/// The fault in the bytes.
pub(crate) fn open(sealed: &[u8]) -> Result<WriteBody<'_>, &'static str> {
    if sealed.len() <= BODY_AT || sealed.len() > SEALED_BYTES_MAX {
        return Err("a write is too short or too long");
    }
    if sealed[0] != TAG_SEALED {
        return Err("bytes are not a sealed write");
    }
    if !is_intact(sealed) {
        return Err("a write does not match its hash");
    }
    let body: WriteBody<'_> = codec::decode_borrowed(&sealed[BODY_AT..], SEALED_BYTES_MAX)
        .map_err(|_| "a write is not in its canonical encoding")?;
    if body.is_valid() { Ok(body) } else { Err("a write is outside its bounds") }
}

/// Whether any bytes are sealed, and match their hash.
pub(crate) fn is_intact_at_all(bytes: &[u8]) -> bool {
    (BODY_AT + 1..=SEALED_BYTES_MAX).contains(&bytes.len())
        && bytes[0] == TAG_SEALED
        && is_intact(bytes)
}

/// Opens sealed bytes without a check of their hash and bounds.
pub(crate) fn peek(sealed: &[u8]) -> Option<WriteBody<'_>> {
    codec::decode_borrowed(sealed.get(BODY_AT..)?, SEALED_BYTES_MAX).ok()
}

/// Opens sealed bytes that [`open`] accepted before.
///
/// # Panics
///
/// When the bytes do not decode: the shard holds only bytes that did.
pub(crate) fn reopen(sealed: &[u8]) -> WriteBody<'_> {
    codec::decode_borrowed(&sealed[BODY_AT..], SEALED_BYTES_MAX)
        .expect("a held write decoded when it came")
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::Boot;

    fn sample() -> Bytes {
        let other = Actor { boot: Boot { count: 1, nonce: 0 }, ..Actor::default() };
        let edit = EditRecord {
            field: Raw(b"f"),
            op: EditOp::Put(Raw(b"value")),
            superseded: vec![ElementRef { actor: 0, seq: 1, edit: 0 }],
            absent: vec![DotRef { actor: 1, seq: 9 }],
            covered: Vec::new(),
        };
        let delete = EditRecord {
            field: Raw(b"g"),
            op: EditOp::Delete,
            superseded: Vec::new(),
            absent: Vec::new(),
            covered: vec![
                SpansRef { actor: 0, spans: vec![(1, 1)] },
                SpansRef { actor: 1, spans: vec![(2, 5), (7, 7)] },
            ],
        };
        seal(&WriteBody {
            namespace: NamespaceId(1),
            slot: 2,
            dot: Dot { actor: Actor::default(), seq: 3 },
            key: Raw(b"key"),
            stamp: 77,
            actors: vec![other],
            edits: vec![edit, delete],
        })
    }

    #[test]
    fn open_returns_what_was_sealed() {
        let sealed = sample();
        let body = open(&sealed).expect("a sound write");
        assert_eq!(body.shard(), ShardId { namespace: NamespaceId(1), slot: 2 });
        assert_eq!(seal(&body), sealed);
    }

    #[test]
    fn flipping_any_bit_is_detected() {
        let sealed = sample();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {bit}");
        }
        (0..sealed.len()).for_each(|length| assert!(open(&sealed[..length]).is_err()));
    }

    #[test]
    fn references_out_of_bounds_are_refused() {
        let spoil = |change: fn(&mut WriteBody<'_>)| {
            let sealed = sample();
            let mut body = open(&sealed).expect("a sound write");
            change(&mut body);
            let spoiled = seal(&body);
            assert!(open(&spoiled).is_err());
        };
        spoil(|body| body.dot.seq = 0);
        spoil(|body| body.dot.seq = SEQ_MAX + 1);
        spoil(|body| body.stamp = STAMP_MAX + 1);
        spoil(|body| body.edits.clear());
        spoil(|body| body.actors.clear());
        spoil(|body| body.actors[0] = body.dot.actor);
        spoil(|body| body.edits[0].superseded[0].seq = 3);
        spoil(|body| body.edits[0].superseded[0].actor = 2);
        spoil(|body| body.edits[0].absent[0] = DotRef { actor: 0, seq: body.dot.seq });
        spoil(|body| body.edits[0].absent[0].seq = 0);
        spoil(|body| body.edits[1].covered[0].spans = vec![(1, 3)]);
        spoil(|body| body.edits[1].covered[1].spans.clear());
        spoil(|body| body.edits[1].covered[1].spans = vec![(2, 5), (6, 7)]);
        spoil(|body| body.edits[1].covered[1].spans = vec![(0, 5)]);
        spoil(|body| body.edits[1].covered[1].actor = 2);
        spoil(|body| body.edits[1].covered.swap(0, 1));
        spoil(|body| body.edits[0].covered = body.edits[1].covered.clone());
    }
}
