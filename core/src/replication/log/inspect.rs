//! Reads the writes in records, for a reader of a log that does not know how a shard keeps its state.
//!
//! Tests and tools read writes with this module. The simulator's oracles do not: they judge this decoder too, so they
//! have one of their own. This module does not apply a record, and no step of a machine calls it.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::digest::Digest;
use crate::id::{Actor, Dot, ShardId};
use crate::replication::write::{self, EditOp, EditRecord, TAG_SEALED, WriteBody};

use super::{Record, decode};

/// A write, with all its references resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteInfo {
    /// The shard that the write belongs to.
    pub shard: ShardId,
    /// The write's identity.
    pub dot: Dot,
    /// The key that the write changes.
    pub key: Vec<u8>,
    /// The author's hybrid logical clock.
    pub stamp: u64,
    /// The hash over its meaning.
    pub hash: Digest,
    /// The edits, in order.
    pub edits: Vec<EditInfo>,
}

/// One edit of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditInfo {
    /// The field that it changes.
    pub field: Vec<u8>,
    /// The change of the field.
    pub op: EditOpInfo,
    /// The superseded elements: the dot of the write, and the index of the edit.
    pub superseded: Vec<(Dot, u16)>,
    /// Writes whose elements in this edit's scope are superseded.
    pub absent: Vec<Dot>,
    /// The same for ranges of an author's numbers, both ends included.
    pub covered: Vec<(Actor, u64, u64)>,
}

/// The change that an edit makes to its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditOpInfo {
    /// Sets the register to a value.
    Put(Vec<u8>),
    /// Removes the field, or the whole key when the field is empty.
    Delete,
    /// Adds a member to the set.
    Add(Vec<u8>),
    /// Removes a member from the set.
    Remove(Vec<u8>),
    /// Replaces the author's running totals of the counter.
    Count {
        /// The sum of all that the author added.
        plus: u64,
        /// The sum of all that the author subtracted.
        minus: u64,
    },
}

/// The write in a record; `None` when the record has no write, or one that does not match its hash.
#[must_use]
pub fn inspect(record: &Bytes) -> Option<WriteInfo> {
    let sealed = write_in(record)?;
    let body = write::open(&sealed).ok()?;
    let edits = body.edits.iter().map(|edit| edit_info(&body, edit)).collect();
    Some(WriteInfo {
        shard: body.shard(),
        dot: body.dot,
        key: body.key.0.to_vec(),
        stamp: body.stamp,
        hash: write::hash_of(&sealed),
        edits,
    })
}

/// The identity of a sealed write, whether or not its bytes are intact.
#[must_use]
pub fn dot_of(sealed: &Bytes) -> Option<Dot> {
    write::peek(sealed).map(|body| body.dot)
}

/// The sealed write in a record.
fn write_in(record: &Bytes) -> Option<Bytes> {
    if record.first() == Some(&TAG_SEALED) {
        return Some(record.clone());
    }
    match decode(record).ok()? {
        Record::Partial(sealed, _) => Some(sealed),
        _ => None,
    }
}

fn edit_info(body: &WriteBody<'_>, edit: &EditRecord<'_>) -> EditInfo {
    let dot = |actor, seq| Dot { actor: body.actor(actor), seq };
    let superseded = edit.superseded.iter();
    EditInfo {
        field: edit.field.0.to_vec(),
        op: match edit.op {
            EditOp::Put(value) => EditOpInfo::Put(value.0.to_vec()),
            EditOp::Delete => EditOpInfo::Delete,
            EditOp::Add(member) => EditOpInfo::Add(member.0.to_vec()),
            EditOp::Remove(member) => EditOpInfo::Remove(member.0.to_vec()),
            EditOp::Count { plus, minus } => EditOpInfo::Count { plus, minus },
        },
        superseded: superseded.map(|e| (dot(e.actor, e.seq), e.edit)).collect(),
        absent: edit.absent.iter().map(|named| dot(named.actor, named.seq)).collect(),
        covered: edit
            .covered
            .iter()
            .flat_map(|of| {
                let actor = body.actor(of.actor);
                of.spans.iter().map(move |(low, high)| (actor, *low, *high))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::{Boot, NamespaceId};
    use crate::replication::log::encode;
    use crate::replication::write::{DotRef, ElementRef, Raw, seal};

    #[test]
    fn a_sound_write_is_inspected_and_a_damaged_one_is_not() {
        let other = Actor { boot: Boot { count: 1, nonce: 0 }, ..Actor::default() };
        let edit = EditRecord {
            field: Raw(b"f"),
            op: EditOp::Put(Raw(b"value")),
            superseded: vec![ElementRef { actor: 1, seq: 2, edit: 0 }],
            absent: vec![DotRef { actor: 1, seq: 9 }],
            covered: Vec::new(),
        };
        let body = WriteBody {
            namespace: NamespaceId(1),
            slot: 2,
            dot: Dot { actor: Actor::default(), seq: 3 },
            key: Raw(b"key"),
            stamp: 77,
            actors: vec![other],
            edits: vec![edit],
        };
        let sealed = seal(&body);
        let info = inspect(&sealed).expect("a sound write");
        assert_eq!((info.dot, info.stamp), (body.dot, 77));
        assert_eq!(info.edits[0].superseded, [(Dot { actor: other, seq: 2 }, 0)]);
        assert_eq!(info.edits[0].absent, [Dot { actor: other, seq: 9 }]);
        assert_eq!(info.edits[0].op, EditOpInfo::Put(b"value".to_vec()));
        let mut spoiled = sealed.to_vec();
        spoiled[60] ^= 1;
        assert_eq!(inspect(&spoiled.into()), None);
        assert_eq!(dot_of(&sealed), Some(body.dot));
        assert_eq!(dot_of(&sealed.slice(..9)), None);
        assert_eq!(inspect(&encode(&Record::Discarding)), None);
    }
}
