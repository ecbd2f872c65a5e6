//! What replicas of shards say to each other.
//!
//! Writes travel as sealed bytes. A [`Dots`] in a message is what its sender holds durably: such a message is a promise
//! and leaves only when the disk has it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Dot, ShardId};

use crate::replication::shard::{Doom, Dots, Mask, Span};

/// A message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Writes of the sender, as they happen.
    Delta {
        /// The shard.
        shard: ShardId,
        /// Sealed writes.
        writes: Vec<Bytes>,
    },
    /// What of a delta the sender holds durably.
    Ack {
        /// The shard.
        shard: ShardId,
        /// The dots.
        held: Dots,
        /// The bytes of the whole delta, for the author's flow control.
        bytes: u64,
    },
    /// The sender's root, to be compared.
    Compare {
        /// The shard.
        shard: ShardId,
        /// Its root.
        root: Digest,
    },
    /// The roots are equal.
    Same {
        /// The shard.
        shard: ShardId,
        /// The root of both.
        root: Digest,
    },
    /// The roots differ: pull, as the sender does.
    Differ {
        /// The shard.
        shard: ShardId,
    },
    /// Asks for what the sender has not seen, and for a view of some spans.
    Pull {
        /// The shard.
        shard: ShardId,
        /// Names the question in the answer.
        round: u64,
        /// What the sender holds.
        context: Dots,
        /// The spans to look at.
        asks: Vec<Span>,
    },
    /// Some of the writes that the asker has not seen. There are more, so nothing else can be said yet.
    Page {
        /// The shard.
        shard: ShardId,
        /// The question.
        round: u64,
        /// Sealed writes.
        writes: Vec<Bytes>,
    },
    /// One instant of the sender.
    Whole {
        /// The shard.
        shard: ShardId,
        /// The question.
        round: u64,
        /// The instant.
        view: Box<View>,
    },
    /// The question cannot be answered.
    Refused {
        /// The shard.
        shard: ShardId,
        /// The question.
        round: u64,
        /// Why.
        why: Fault,
    },
}

/// Why a session ended without equal roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The context or what is doomed does not fit into a message.
    ContextTooLarge,
    /// The question was malformed.
    Malformed,
}

/// One instant of a replica, as far as it was asked about: all live writes that the asker had not seen, and the
/// context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// All dots seen.
    pub context: Dots,
    /// The fingerprint of each actor's live writes, in the order of `context`.
    pub totals: Vec<u64>,
    /// Parts of unseen writes that are dead already.
    pub doomed: Vec<(Dot, Doom)>,
    /// Sealed live writes that the asker had not seen, with what of them is live when that is not all.
    pub births: Vec<(Bytes, Option<Mask>)>,
    /// Answers to the first of the asks, in their order.
    pub answers: Vec<Answer>,
}

/// What a span looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Its live writes.
    List(Vec<Listed>),
    /// The fingerprints of its parts.
    Parts(Vec<u64>),
}

/// A live write in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its sequence number.
    pub seq: u64,
    /// The first 8 bytes of its hash.
    pub hash: u64,
    /// What of it is live, when that is not all.
    pub mask: Option<Mask>,
}

/// What a message promises: that the sender holds these dots durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The dots.
    pub held: &'a Dots,
}

impl Message {
    /// The shard that it is about.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        match self {
            Self::Delta { shard, .. }
            | Self::Ack { shard, .. }
            | Self::Compare { shard, .. }
            | Self::Same { shard, .. }
            | Self::Differ { shard }
            | Self::Pull { shard, .. }
            | Self::Page { shard, .. }
            | Self::Whole { shard, .. }
            | Self::Refused { shard, .. } => *shard,
        }
    }

    /// What it promises, for an oracle that compares this with the sender's disk; see
    /// [`Replicator::holds`](crate::replication::Replicator::holds).
    #[must_use]
    pub fn promise(&self) -> Option<Promise<'_>> {
        let held = match self {
            Self::Ack { held, .. } => held,
            Self::Pull { context, .. } => context,
            Self::Whole { view, .. } => &view.context,
            _ => return None,
        };
        Some(Promise { shard: self.shard(), held })
    }

    /// The dots that it claims, if it claims any.
    pub(crate) fn claims(&self) -> Option<&Dots> {
        self.promise().map(|promise| promise.held)
    }
}
