//! The messages between replicas of a shard.
//!
//! Writes travel as sealed bytes. A [`Dots`] in a message claims that its sender holds these dots durably: such a
//! message is a promise, and leaves only once the disk has them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Dot, ShardId};
use crate::replication::shard::{Cover, Deferred, Dots, LiveEdits, Span};

use super::summary::Summary;

/// A message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Pushes writes that the sender authored.
    Delta {
        /// The shard of all writes.
        shard: ShardId,
        /// The sealed writes.
        writes: Vec<Bytes>,
    },
    /// Acknowledges a delta.
    Ack {
        /// The shard of the delta.
        shard: ShardId,
        /// The delta's dots that the sender holds durably.
        held: Dots,
        /// The bytes of the whole delta, refused writes included, for the author's flow control.
        bytes: u64,
    },
    /// Carries the sender's root for a comparison.
    Compare {
        /// The shard to compare.
        shard: ShardId,
        /// The sender's root.
        root: Digest,
    },
    /// Answers that both roots are equal.
    Same {
        /// The compared shard.
        shard: ShardId,
        /// The root of both.
        root: Digest,
    },
    /// Answers that the roots differ. The receiver pulls, as the sender does.
    Differ {
        /// The compared shard.
        shard: ShardId,
    },
    /// Asks for the writes that the sender has not seen, and for a view of some spans.
    Pull {
        /// The shard to synchronize.
        shard: ShardId,
        /// Names the question; its answer carries the same number.
        round: u64,
        /// The dots that the sender holds. Without those that it holds with other content than the receiver.
        context: Dots,
        /// Dots of the receiver that the sender refused before, and does not want again.
        refused: Dots,
        /// The spans to look at, at most 32.
        spans: Vec<Span>,
    },
    /// Answers with some of the writes that the asker has not seen. There are more, so it can say nothing else yet.
    Page {
        /// The shard to synchronize.
        shard: ShardId,
        /// The number of the question.
        round: u64,
        /// The sealed writes.
        writes: Vec<Bytes>,
    },
    /// Answers with one instant of the sender.
    View {
        /// The shard to synchronize.
        shard: ShardId,
        /// The number of the question.
        round: u64,
        /// The instant.
        view: Box<View>,
    },
    /// Answers that the question cannot be answered.
    Refused {
        /// The shard to synchronize.
        shard: ShardId,
        /// The number of the question.
        round: u64,
        /// The reason.
        why: PullError,
    },
    /// Compares all shards at once.
    Summary(Summary),
}

/// Why a question cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullError {
    /// The answerer's context does not fit into a message.
    ContextTooLarge,
    /// The question was malformed.
    Malformed,
    /// The answerer is removing many elements. It can answer once they are gone.
    Busy,
}

/// One instant of a replica, as far as a question asked: all live writes that the asker had not seen, and the context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// All dots that the answerer has seen.
    pub context: Dots,
    /// At least the greatest stamp of all writes in `context`.
    pub stamp: u64,
    /// The fingerprint of each actor's live writes, in the order of `context`.
    pub totals: Vec<u64>,
    /// Removals of elements whose writes the answerer has not seen.
    pub deferred: Vec<(Dot, Deferred)>,
    /// Removals of whole scopes that await writes at the answerer.
    pub covers: Vec<Cover>,
    /// The sealed live writes that the asker had not seen, with their live edits unless all are live.
    pub writes: Vec<(Bytes, Option<LiveEdits>)>,
    /// Answers about the first of the question's spans, in their order.
    pub answers: Vec<Answer>,
}

/// The content of a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Its live writes, in the order of their sequence numbers.
    List(Vec<ListedWrite>),
    /// The fingerprints of its parts.
    Parts(Vec<u64>),
}

/// A live write in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedWrite {
    /// Its sequence number.
    pub seq: u64,
    /// The first 8 bytes of its hash.
    pub hash: u64,
    /// Its live edits, unless all are live.
    pub edits: Option<LiveEdits>,
}

/// The promise in a message: that the sender holds these dots durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise<'a> {
    /// The shard of the dots.
    pub shard: ShardId,
    /// The dots that the sender holds.
    pub held: &'a Dots,
}

impl Message {
    /// The shard that the message is about; `None` when it is about all.
    #[must_use]
    pub const fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Delta { shard, .. }
            | Self::Ack { shard, .. }
            | Self::Compare { shard, .. }
            | Self::Same { shard, .. }
            | Self::Differ { shard }
            | Self::Pull { shard, .. }
            | Self::Page { shard, .. }
            | Self::View { shard, .. }
            | Self::Refused { shard, .. } => Some(*shard),
            Self::Summary(_) => None,
        }
    }

    /// The promise in the message, if it has one. An oracle compares it with the sender's disk; see
    /// [`Replicator::holds`](crate::replication::Replicator::holds).
    #[must_use]
    pub fn promise(&self) -> Option<Promise<'_>> {
        let held = match self {
            Self::Ack { held, .. } => held,
            Self::Pull { context, .. } => context,
            Self::View { view, .. } => &view.context,
            _ => return None,
        };
        Some(Promise { shard: self.shard()?, held })
    }

    /// The dots that the sender claims to hold, if the message claims any.
    pub(crate) fn claims(&self) -> Option<&Dots> {
        self.promise().map(|promise| promise.held)
    }
}
