//! One write as its author made it, and as it travels: the same sealed bytes in memory, in the log and on the wire.
//!
//! Sealed bytes are a tag, the SHA-256 of the author's bytes, and the author's bytes: the canonical encoding of
//! [`Author`]. The hash covers the whole meaning, so neither a value nor a stamp, key, dot or victim can change on the
//! way. Nothing here knows what a shard holds.

pub(crate) mod hlc;
pub(crate) mod path;

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;
use crate::digest::Digest;
use crate::id::{Actor, Dot, NamespaceId, ShardId};
use crate::limits::{
    EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, REQUEST_BYTES_MAX, SEQ_MAX, VALUE_BYTES_MAX,
};
use crate::mutant;

use self::path::{Kind, Scope};

/// The first byte of sealed bytes, which tells them from the other records of a shard.
pub(crate) const TAG_SEALED: u8 = 1;
/// Where the author's bytes begin.
const AUTHOR_AT: usize = 33;
/// The most bytes of a sealed write: with its envelope it fits into a frame.
pub(crate) const SEALED_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// A borrowed run of bytes that is encoded as one, not element by element.
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

/// The meaning of a write: what the hash covers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Author<'a> {
    /// The shard's namespace.
    pub(crate) namespace: NamespaceId,
    /// The shard's slot.
    pub(crate) slot: u16,
    /// The write's identity.
    pub(crate) dot: Dot,
    /// The one key that it changes.
    #[serde(borrow)]
    pub(crate) key: Raw<'a>,
    /// Its stamp.
    pub(crate) stamp: u64,
    /// The other authors named below, by their place here from 1; 0 is the author of this write.
    pub(crate) actors: Vec<Actor>,
    /// What it does, in order.
    pub(crate) edits: Vec<Deed<'a>>,
}

/// One edit, with all that it supersedes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deed<'a> {
    /// The field.
    #[serde(borrow)]
    pub(crate) field: Raw<'a>,
    /// What happens to it.
    pub(crate) act: Act<'a>,
    /// The superseded elements that the author held.
    pub(crate) victims: Vec<Victim>,
    /// Dots that the client had read and the author had not: whatever they have in this edit's scope is superseded.
    pub(crate) unseen: Vec<Unseen>,
}

/// What happens to a field.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Act<'a> {
    /// The register gets a value.
    Put(#[serde(borrow)] Raw<'a>),
    /// What was observed goes: of the field, or of the whole key when the field is empty.
    Delete,
    /// The set gets a member.
    Add(Raw<'a>),
    /// Observed occurrences of the member go.
    Remove(Raw<'a>),
    /// The author's running totals, which take the place of its earlier ones.
    Count {
        /// All that it added.
        plus: u64,
        /// All that it took away.
        minus: u64,
    },
}

/// A superseded element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Victim {
    /// Its author's place.
    pub(crate) actor: u32,
    /// Its write.
    pub(crate) seq: u64,
    /// Which edit of the write.
    pub(crate) edit: u16,
}

/// A dot that the author of a write had not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Unseen {
    /// Its author's place.
    pub(crate) actor: u32,
    /// Its number.
    pub(crate) seq: u64,
}

impl Deed<'_> {
    /// The place of the element that the edit makes; removals make none.
    pub(crate) fn place(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.act {
            Act::Put(_) => Some(path::of(key, self.field.0, Kind::Register, &[])),
            Act::Add(member) => Some(path::of(key, self.field.0, Kind::Set, member.0)),
            Act::Count { .. } => Some(path::of(key, self.field.0, Kind::Counter, &[])),
            Act::Delete | Act::Remove(_) => None,
        }
    }

    /// The places that the edit may supersede elements of.
    pub(crate) fn scope(&self, key: &[u8]) -> Scope {
        let field = self.field.0;
        match self.act {
            Act::Delete if field.is_empty() => Scope { place: path::of_key(key), all: true },
            Act::Delete => Scope { place: path::of_field(key, field), all: true },
            Act::Remove(member) => {
                Scope { place: path::of(key, field, Kind::Set, member.0), all: false }
            }
            _ => Scope { place: self.place(key).unwrap_or_default(), all: false },
        }
    }

    /// Whether the edit makes an element.
    pub(crate) const fn is_element(&self) -> bool {
        !matches!(self.act, Act::Delete | Act::Remove(_))
    }
}

impl Author<'_> {
    /// The shard that it belongs to.
    pub(crate) const fn shard(&self) -> ShardId {
        ShardId { namespace: self.namespace, slot: self.slot }
    }

    /// The actor at a place of the table.
    pub(crate) fn actor(&self, place: u32) -> Actor {
        if place == 0 { self.dot.actor } else { self.actors[place as usize - 1] }
    }

    /// Bounds and references that the encoding itself does not keep.
    fn is_valid(&self) -> bool {
        let edits = self.edits.len();
        (1..=SEQ_MAX).contains(&self.dot.seq)
            && self.key.0.len() <= KEY_BYTES_MAX
            && !self.actors.contains(&self.dot.actor)
            && (1..=EDITS_MAX).contains(&edits)
            && self.edits.iter().enumerate().all(|(at, deed)| self.is_deed_valid(at, deed))
    }

    fn is_deed_valid(&self, at: usize, deed: &Deed<'_>) -> bool {
        let value = match deed.act {
            Act::Put(value) | Act::Add(value) | Act::Remove(value) => value.0.len(),
            Act::Delete | Act::Count { .. } => 0,
        };
        let known = |actor: u32| actor as usize <= self.actors.len();
        // Nothing supersedes what its author had not written yet.
        let earlier = |victim: &Victim| {
            victim.actor != 0
                || victim.seq < self.dot.seq
                || (victim.seq == self.dot.seq && usize::from(victim.edit) < at)
        };
        let numbered = |seq: u64| (1..=SEQ_MAX).contains(&seq);
        deed.field.0.len() <= FIELD_BYTES_MAX
            && value <= VALUE_BYTES_MAX
            && deed.victims.iter().all(|v| known(v.actor) && numbered(v.seq) && earlier(v))
            && deed.unseen.iter().all(|u| u.actor > 0 && known(u.actor) && numbered(u.seq))
    }
}

/// Encodes, hashes and seals a write.
pub(crate) fn seal(author: &Author<'_>) -> Bytes {
    let mut bytes = Vec::with_capacity(AUTHOR_AT + 192);
    bytes.resize(AUTHOR_AT, TAG_SEALED);
    codec::encode_into(author, &mut bytes);
    let hash = Digest::of(&bytes[AUTHOR_AT..]);
    bytes[1..AUTHOR_AT].copy_from_slice(&hash.0);
    bytes.into()
}

/// The hash that sealed bytes carry.
pub(crate) fn hash_of(sealed: &[u8]) -> Digest {
    let mut hash = Digest::default();
    hash.0.copy_from_slice(&sealed[1..AUTHOR_AT]);
    hash
}

/// Whether sealed bytes still are what their author hashed.
pub(crate) fn is_intact(sealed: &[u8]) -> bool {
    mutant!("replication.hash.skipped") || Digest::of(&sealed[AUTHOR_AT..]) == hash_of(sealed)
}

/// Opens sealed bytes from a peer or a disk.
///
/// # Errors
///
/// What is wrong with them.
pub(crate) fn open(sealed: &[u8]) -> Result<Author<'_>, &'static str> {
    if sealed.len() <= AUTHOR_AT || sealed.len() > SEALED_BYTES_MAX {
        return Err("a write of a length that no write has");
    }
    if sealed[0] != TAG_SEALED {
        return Err("not a sealed write");
    }
    if !is_intact(sealed) {
        return Err("a write whose hash is not that of its bytes");
    }
    let author: Author<'_> = codec::decode_borrowed(&sealed[AUTHOR_AT..], SEALED_BYTES_MAX)
        .map_err(|_| "a write that is not in its canonical encoding")?;
    if author.is_valid() { Ok(author) } else { Err("a write outside its bounds") }
}

/// Opens sealed bytes without a look at their hash and their bounds.
pub(crate) fn peek(sealed: &[u8]) -> Option<Author<'_>> {
    codec::decode_borrowed(sealed.get(AUTHOR_AT..)?, SEALED_BYTES_MAX).ok()
}

/// Opens sealed bytes that were opened before and are held since.
///
/// # Panics
///
/// When they do not decode: they did.
pub(crate) fn reopen(sealed: &[u8]) -> Author<'_> {
    codec::decode_borrowed(&sealed[AUTHOR_AT..], SEALED_BYTES_MAX)
        .expect("a held write decoded when it came")
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::Boot;

    fn sample() -> Bytes {
        let other = Actor { boot: Boot { count: 1, nonce: 0 }, ..Actor::default() };
        let deed = Deed {
            field: Raw(b"f"),
            act: Act::Put(Raw(b"value")),
            victims: vec![Victim { actor: 0, seq: 1, edit: 0 }],
            unseen: vec![Unseen { actor: 1, seq: 9 }],
        };
        seal(&Author {
            namespace: NamespaceId(1),
            slot: 2,
            dot: Dot { actor: Actor::default(), seq: 3 },
            key: Raw(b"key"),
            stamp: 77,
            actors: vec![other],
            edits: vec![deed],
        })
    }

    #[test]
    fn sealing_is_undone_by_opening() {
        let sealed = sample();
        let author = open(&sealed).expect("it is sound");
        assert_eq!(author.shard(), ShardId { namespace: NamespaceId(1), slot: 2 });
        assert_eq!(seal(&author), sealed);
    }

    #[test]
    fn every_single_bit_counts() {
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
        let spoil = |change: fn(&mut Author<'_>)| {
            let sealed = sample();
            let mut author = open(&sealed).expect("it is sound");
            change(&mut author);
            let spoilt = seal(&author);
            assert!(open(&spoilt).is_err());
        };
        spoil(|author| author.dot.seq = 0);
        spoil(|author| author.dot.seq = SEQ_MAX + 1);
        spoil(|author| author.edits.clear());
        spoil(|author| author.actors.clear());
        spoil(|author| author.actors[0] = author.dot.actor);
        spoil(|author| author.edits[0].victims[0].seq = 3);
        spoil(|author| author.edits[0].victims[0].actor = 2);
        spoil(|author| author.edits[0].unseen[0].actor = 0);
        spoil(|author| author.edits[0].unseen[0].seq = 0);
    }
}
