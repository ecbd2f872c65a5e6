//! Identities and other plain values that several modules share.
//!
//! | identity | created when | survives |
//! |---|---|---|
//! | [`FederationId`] | the federation's CA is made | everything |
//! | [`NodeId`] | a certificate is issued | restarts and new disks |
//! | [`GenesisId`] | an operator founds the federation | everything |
//! | [`StoreId`] | a data directory is created | restarts, not a wiped disk |
//! | [`Boot`] | a process starts | nothing |
//!
//! Names and addresses identify nothing: they may change at any time.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};

/// Declares a 128-bit identity that prints as 32 hexadecimal digits.
macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Parses 32 hexadecimal digits; `None` for anything else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

wide_id! {
    /// A federation: the set of nodes that trust one CA. It is part of every certificate, handshake and log header.
    FederationId
}
wide_id! {
    /// A node: the identity in its certificate, `spiffe://<federation>/node/<node>`.
    NodeId
}
wide_id! {
    /// A data directory. The same node with another store is a new member: a wiped disk can neither vote nor mint dots
    /// as the old one.
    StoreId
}
wide_id! {
    /// A client session, chosen by the client; see `state::session`.
    SessionId
}
wide_id! {
    /// An export that is under way on one process of a node, which draws it at random; see `state::export`.
    ExportId
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(id)
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// One start of a process on one store, durable before the first send. A peer that saw a later boot, the same count
/// with another nonce, or a boot that the [`Lineage`] of this one contradicts, refuses the link; this catches clones
/// and rolled-back disks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Boot {
    /// Starts of this store so far, this one included.
    pub count: u64,
    /// Random, so that two processes that start from copies of one disk differ.
    pub nonce: u64,
}

/// The boots of a store before one of its boots: their nonces, newest first. The counts have no gap, so the first nonce
/// is that of the count before. A process that starts from an older copy of a disk names other nonces than the process
/// that the disk was copied from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>")]
pub struct Lineage(Vec<u64>);

impl Lineage {
    /// The boots that a lineage names at most. An older one is outside of this window, and proves nothing any more.
    pub const MAX: usize = 64;

    /// The lineage of the boot after `boot`, whose own lineage this is.
    #[must_use]
    pub fn after(&self, boot: Boot) -> Self {
        let before = self.0.iter().copied().take(Self::MAX - 1);
        Self(core::iter::once(boot.nonce).chain(before).collect())
    }

    /// The nonce of the boot with this count, if this lineage of `boot` names it.
    #[must_use]
    pub fn nonce_at(&self, boot: Boot, count: u64) -> Option<u64> {
        let back = boot.count.checked_sub(count)?.checked_sub(1)?;
        self.0.get(usize::try_from(back).ok()?).copied()
    }

    /// How many boots it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it names no boot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<u64>> for Lineage {
    type Error = &'static str;

    fn try_from(nonces: Vec<u64>) -> Result<Self, Self::Error> {
        if nonces.len() > Self::MAX {
            Err("a lineage with more boots than allowed")
        } else {
            Ok(Self(nonces))
        }
    }
}

/// A member: a node and the disk that holds its promises.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Replica {
    /// The node, from its certificate.
    pub node: NodeId,
    /// The data directory on its disk.
    pub store: StoreId,
}

/// The author of CRDT writes: one boot of one store of one node, minted at the boot's first write.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Actor {
    /// The node and its disk.
    pub replica: Replica,
    /// The start of its process.
    pub boot: Boot,
}

/// One write of one actor: its sequence numbers start at 1 and have no holes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Dot {
    /// The author of the write.
    pub actor: Actor,
    /// The number of the write among the author's writes in this shard, from 1.
    pub seq: u64,
}

/// Declares a number that means one thing.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id! {
    /// A namespace, numbered by the registry at creation and never used again.
    NamespaceId(u32)
}
number_id! {
    /// A Raft group. Group 0 is the registry.
    GroupId(u32)
}
number_id! {
    /// A Raft term.
    Term(u64)
}
number_id! {
    /// A position in a Raft log; the first entry is 1, and 0 stands before it.
    Index(u64)
}
number_id! {
    /// A client request, unique on the node that took it for as long as the process lives.
    RequestId(u64)
}

/// The one beginning of a federation. Two foundings of one [`FederationId`] differ in it, and nothing passes between
/// them: every message of the protocols names the genesis that it belongs to.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GenesisId(pub u64);

impl GenesisId {
    /// A fresh genesis: a founder's choice of voters, told apart from its other choices by a random salt.
    #[must_use]
    pub fn of(federation: FederationId, founder: Replica, salt: u64, voters: &[Replica]) -> Self {
        let mut hash = Hasher::new();
        hash.value(&(federation, founder, salt));
        hash.value(voters);
        Self(hash.finish().short())
    }
}

impl fmt::Display for GenesisId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for GenesisId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl GroupId {
    /// The group that agrees on members, namespaces and policies.
    pub const REGISTRY: Self = Self(0);
}

impl Index {
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The number of a question to another node, with the nonce of the process that asks. So an answer to an earlier
/// process of the same store, or to a copy of it, never passes for an answer to this one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct AskId {
    /// The nonce of the asking process's [`Boot`].
    pub nonce: u64,
    /// The number, unique in that process.
    pub number: u64,
}

/// A shard: the unit of CRDT replication, one slot of an eventual namespace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardId {
    /// The namespace that it is a part of.
    pub namespace: NamespaceId,
    /// The number of the shard, below the namespace's fixed number of slots.
    pub slot: u16,
}

/// The owner of a durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// The node itself: boots, contacts.
    Node,
    /// A Raft group.
    Group(GroupId),
    /// A CRDT shard.
    Shard(ShardId),
}

impl Owner {
    /// The machine that writes this owner's records.
    #[must_use]
    pub const fn writer(self) -> Writer {
        match self {
            Self::Node => Writer::Node,
            Self::Group(group) => Writer::Group(group),
            Self::Shard(_) => Writer::Shards,
        }
    }
}

/// A write given to the disk. A lane's log is first-in, first-out, so a persisted token covers all earlier ones.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Token {
    /// The lane; each has its own log.
    pub lane: u16,
    /// The number of the write in the lane's log, from 1. Restarts continue it.
    pub seq: u64,
}

/// The address of a node: `host:port`, at most [`crate::limits::ADDRESS_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address(pub String);

/// An address, and the node that is there if it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// The node that a handshake last proved there; `None` if none did.
    pub node: Option<NodeId>,
    /// The address to dial.
    pub address: Address,
}

/// The name of a snapshot file: unique in its store.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SnapshotId(pub u64);

/// A complete snapshot file, as the log record that names it describes it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SnapshotFile {
    /// The file's name.
    pub id: SnapshotId,
    /// The file's length in bytes.
    pub length: u64,
    /// SHA-256 of the file.
    pub digest: Digest,
}

impl SnapshotFile {
    /// Describes the file `id` with these bytes.
    #[must_use]
    pub fn of(id: SnapshotId, bytes: &[u8]) -> Self {
        Self { id, length: bytes.len() as u64, digest: Digest::of(bytes) }
    }

    /// Whether these bytes are the file.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.length && Digest::of(bytes) == self.digest
    }
}

/// A machine that writes to the log and promises what it wrote. Its promises wait for its own newest write alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    /// The node itself.
    Node,
    /// The Raft machine of one group.
    Group(GroupId),
    /// The replicator, for all shards.
    Shards,
}

/// The role of a replica in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// It receives the log and does not vote.
    #[default]
    Learner,
    /// It votes and follows a leader.
    Follower,
    /// It asks whether it could win, without a new term (Raft thesis §9.6).
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads its group.
    Leader,
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_lineage_names_the_boots_before_it_within_its_window() {
        let boot = |count| Boot { count, nonce: 100 + count };
        let mut lineage = Lineage::default();
        for count in 1..=70 {
            lineage = lineage.after(boot(count));
        }
        let last = boot(71);
        assert_eq!(lineage.len(), Lineage::MAX);
        assert_eq!(lineage.nonce_at(last, 70), Some(170));
        assert_eq!(lineage.nonce_at(last, 7), Some(107));
        assert_eq!([6, 71, 72].map(|count| lineage.nonce_at(last, count)), [None; 3]);
        assert!(Lineage::try_from(alloc::vec![0; Lineage::MAX + 1]).is_err());
    }

    #[test]
    fn wide_ids_print_and_parse() {
        let id = NodeId([0xa5; 16]);
        assert_eq!(NodeId::parse(&id.to_string()), Some(id));
        assert_eq!(NodeId::parse("a5"), None);
        assert_eq!(NodeId::parse(&"zz".repeat(16)), None);
        assert_eq!(NodeId::parse(&"é".repeat(16)), None);
    }
}
