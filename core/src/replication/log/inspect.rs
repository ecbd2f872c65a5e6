//! Records of a shard in words of their own: for whoever judges a log without knowing how a shard is kept.
//!
//! The simulator's executable specification reads writes with this and merges them by its own rules. Nothing here
//! applies a record, and no step of a machine calls it.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::digest::Digest;
use crate::id::{Dot, ShardId};

use crate::replication::write::{self, Act, Author, Deed};

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its shard.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// The key that it changes.
    pub key: Vec<u8>,
    /// Its stamp.
    pub stamp: u64,
    /// The hash over its meaning.
    pub hash: Digest,
    /// What it does, in order.
    pub edits: Vec<DescribedEdit>,
    /// Whether the record only says that it waits for its stamp.
    pub waits: bool,
}

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedEdit {
    /// The field.
    pub field: Vec<u8>,
    /// What happens to it.
    pub act: DescribedAct,
    /// The edits that it supersedes: of which write, and which of its edits.
    pub victims: Vec<(Dot, u16)>,
    /// Writes of which it supersedes all that is in its scope.
    pub unseen: Vec<Dot>,
}

/// What happens to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribedAct {
    /// The register gets a value.
    Put(Vec<u8>),
    /// The field goes, or with an empty field the whole key.
    Delete,
    /// The set gets a member.
    Add(Vec<u8>),
    /// The member goes.
    Remove(Vec<u8>),
    /// The author's running totals.
    Count {
        /// All that it added.
        plus: u64,
        /// All that it took away.
        minus: u64,
    },
}

/// The write in a record, if the record holds one whose bytes are what their author hashed.
#[must_use]
pub fn describe(record: &Bytes) -> Option<Described> {
    let (sealed, waits) = super::write_in(record)?;
    let author = write::open(&sealed).ok()?;
    let edits = author.edits.iter().map(|deed| edit(&author, deed)).collect();
    Some(Described {
        shard: author.shard(),
        dot: author.dot,
        key: author.key.0.to_vec(),
        stamp: author.stamp,
        hash: write::hash_of(&sealed),
        edits,
        waits,
    })
}

/// The identity of a sealed write, whether or not its bytes are intact.
#[must_use]
pub fn dot_of(sealed: &Bytes) -> Option<Dot> {
    write::peek(sealed).map(|author| author.dot)
}

fn edit(author: &Author<'_>, deed: &Deed<'_>) -> DescribedEdit {
    let dot = |actor, seq| Dot { actor: author.actor(actor), seq };
    let victims = deed.victims.iter();
    DescribedEdit {
        field: deed.field.0.to_vec(),
        act: match deed.act {
            Act::Put(value) => DescribedAct::Put(value.0.to_vec()),
            Act::Delete => DescribedAct::Delete,
            Act::Add(member) => DescribedAct::Add(member.0.to_vec()),
            Act::Remove(member) => DescribedAct::Remove(member.0.to_vec()),
            Act::Count { plus, minus } => DescribedAct::Count { plus, minus },
        },
        victims: victims.map(|victim| (dot(victim.actor, victim.seq), victim.edit)).collect(),
        unseen: deed.unseen.iter().map(|unseen| dot(unseen.actor, unseen.seq)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::{Actor, Boot, NamespaceId};
    use crate::replication::log;
    use crate::replication::write::{Raw, Unseen, Victim, seal};

    #[test]
    fn a_write_is_described_and_damage_is_not() {
        let other = Actor { boot: Boot { count: 1, nonce: 0 }, ..Actor::default() };
        let deed = Deed {
            field: Raw(b"f"),
            act: Act::Put(Raw(b"value")),
            victims: vec![Victim { actor: 1, seq: 2, edit: 0 }],
            unseen: vec![Unseen { actor: 1, seq: 9 }],
        };
        let author = Author {
            namespace: NamespaceId(1),
            slot: 2,
            dot: Dot { actor: Actor::default(), seq: 3 },
            key: Raw(b"key"),
            stamp: 77,
            actors: vec![other],
            edits: vec![deed],
        };
        let sealed = seal(&author);
        let told = describe(&sealed).expect("it is sound");
        assert_eq!((told.dot, told.stamp, told.waits), (author.dot, 77, false));
        assert_eq!(told.edits[0].victims, [(Dot { actor: other, seq: 2 }, 0)]);
        assert_eq!(told.edits[0].unseen, [Dot { actor: other, seq: 9 }]);
        assert_eq!(told.edits[0].act, DescribedAct::Put(b"value".to_vec()));
        let waiting = log::encode(&log::Record::Waiting(sealed.clone()));
        assert!(describe(&waiting).is_some_and(|told| told.waits));
        let mut spoilt = sealed.to_vec();
        spoilt[60] ^= 1;
        assert_eq!(describe(&spoilt.into()), None);
        assert_eq!(dot_of(&sealed), Some(author.dot));
        assert_eq!(dot_of(&sealed.slice(..9)), None);
        assert_eq!(describe(&log::encode(&log::Record::Discarding)), None);
    }
}
