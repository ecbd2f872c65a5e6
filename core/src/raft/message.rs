//! The messages between the replicas of a group, and which of them are promises.
//!
//! Every message except those of reads carries a term. A message names neither its sender nor its group: the transport
//! and the node know both. This module does not check anything; `step` and the handlers reject what no correct replica
//! sends.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::types::{Configuration, Entry, Position};
use crate::digest::Digest;
use crate::id::{Index, Replica, Term};

/// A message between two replicas of one group. `term` is the sender's current term, except where a variant says
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`term` is explained once, above")]
pub enum Message {
    /// Asks whether the receiver would vote for the sender. The receiver changes no state (§9.6).
    PreVote {
        /// The term in which the sender would campaign: one above its own.
        term: Term,
        /// The last entry of the sender's log.
        last: Position,
    },
    /// The answer to a pre-vote.
    PreVoteReply {
        /// The term of the pre-vote if granted, else the answerer's own.
        term: Term,
        granted: bool,
    },
    /// Asks for a vote (§5.2). The candidate sends it once its vote for itself is durable.
    Vote {
        term: Term,
        /// The last entry of the candidate's log.
        last: Position,
        /// The leader asked the candidate to campaign, so a voter that hears from that leader votes all the same.
        leadership_transfer: bool,
    },
    /// The answer to a vote. A granted vote is a promise.
    VoteReply { term: Term, granted: bool },
    /// Entries that follow `prev` (§5.3). Without entries it asks whether the receiver has `prev`.
    Append {
        term: Term,
        /// The entry before the first one.
        prev: Position,
        /// The leader's commit index.
        commit: Index,
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// The answerer's log equals the leader's up to `matched`, durably: a promise.
    AppendAck {
        term: Term,
        /// The last entry known to be shared.
        matched: Position,
    },
    /// The answerer does not have the entry before the appended ones, or the one that a heartbeat commits.
    AppendRejected {
        term: Term,
        /// The index of that entry.
        refused: Index,
        /// The last entry of the answerer's log that the leader may share: before `refused`, and of no later term than
        /// the refused entry. With it the leader skips a whole term at a time.
        hint: Position,
    },
    /// The leader is alive. Sent at an interval, to confirm reads, and as soon as a commit completes a follower's read.
    Heartbeat {
        term: Term,
        /// The leader's commit index, but never above what this follower acknowledged.
        commit: Index,
        /// The leader's round, see `read`.
        round: u64,
    },
    /// The answer to a heartbeat: when the answerer sent it, it knew of no later term.
    HeartbeatAck {
        term: Term,
        /// The heartbeat's round.
        round: u64,
    },
    /// The answer to a leader of an earlier term.
    StaleTerm { term: Term },
    /// Offers a snapshot to a follower whose next entries the leader no longer has.
    SnapshotOffer { term: Term, header: SnapshotHeader },
    /// A piece of an offered snapshot.
    SnapshotChunk {
        term: Term,
        /// The snapshot's position.
        position: Position,
        /// The piece's first byte in the snapshot.
        offset: u64,
        /// At most [`crate::limits::CHUNK_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// The answerer has the first `bytes` bytes of an offered snapshot durably: a promise.
    SnapshotAck {
        term: Term,
        /// The snapshot's position.
        position: Position,
        /// The number of bytes. `None` if the answerer does not know the offer, for example after a restart.
        bytes: Option<u64>,
    },
    /// Campaign at once: the leader transfers leadership to the receiver (§3.10).
    TimeoutNow {
        term: Term,
        /// Voters that must not be the next transfer target, the sender included: each gave up leadership, or did not
        /// take it, since a leader last kept it.
        transfer_excluded: Vec<Replica>,
    },
    /// A follower asks which index it must apply before it serves a read (§6.4).
    ReadIndex {
        /// The read's number. The asker uses it for no other read, even after a restart.
        id: u64,
    },
    /// The answer to `ReadIndex`.
    ReadIndexReply {
        /// The read's number.
        id: u64,
        /// `None` if the answerer does not lead, or lost or transfers its leadership.
        index: Option<Index>,
    },
    /// The answerer has a whole snapshot and does not install it.
    SnapshotRefused {
        term: Term,
        /// The snapshot's position.
        position: Position,
        /// Its bytes are not those that were offered. Otherwise its state machine does not restore it, or its disk has
        /// no room.
        corrupt: bool,
    },
}

/// A snapshot without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The last entry whose effect the snapshot contains.
    pub position: Position,
    /// Group time at that entry, in milliseconds.
    pub time_ms: u64,
    /// The configuration as of that entry.
    pub configuration: Configuration,
    /// SHA-256 of all bytes.
    pub digest: Digest,
    /// The number of bytes.
    pub length: u64,
}

/// The promise that a message makes. The sender's disk proves it, or a later term, from the moment that the message
/// leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The sender votes for the receiver, and for no other replica, in this term.
    Vote {
        /// The term of the vote.
        term: Term,
    },
    /// The sender's log or snapshot has this entry and all before it, unless a leader of a later term than `term`
    /// replaced them.
    Append {
        /// The sender's term when it promised.
        term: Term,
        /// The last entry that the promise covers.
        matched: Position,
    },
    /// The sender has the first `bytes` bytes of the snapshot at this position, until a restart or another offer.
    Snapshot {
        /// The snapshot's position.
        position: Position,
        /// The number of bytes from the snapshot's start.
        bytes: u64,
    },
}

impl Message {
    /// The term that the message carries. Reads carry none.
    #[must_use]
    pub const fn term(&self) -> Option<Term> {
        match self {
            Self::PreVote { term, .. }
            | Self::PreVoteReply { term, .. }
            | Self::Vote { term, .. }
            | Self::VoteReply { term, .. }
            | Self::Append { term, .. }
            | Self::AppendAck { term, .. }
            | Self::AppendRejected { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatAck { term, .. }
            | Self::StaleTerm { term }
            | Self::SnapshotOffer { term, .. }
            | Self::SnapshotChunk { term, .. }
            | Self::SnapshotAck { term, .. }
            | Self::TimeoutNow { term, .. }
            | Self::SnapshotRefused { term, .. } => Some(*term),
            Self::ReadIndex { .. } | Self::ReadIndexReply { .. } => None,
        }
    }

    /// Whether only the leader of the message's term sends it.
    pub(super) const fn is_from_leader(&self) -> bool {
        matches!(
            self,
            Self::Append { .. }
                | Self::Heartbeat { .. }
                | Self::SnapshotOffer { .. }
                | Self::SnapshotChunk { .. }
                | Self::TimeoutNow { .. }
        )
    }

    /// The promise that the message makes, if any. The sender's disk must prove it before the message leaves.
    #[must_use]
    pub const fn promise(&self) -> Option<Promise> {
        match self {
            Self::VoteReply { term, granted: true } => Some(Promise::Vote { term: *term }),
            Self::AppendAck { term, matched } => {
                Some(Promise::Append { term: *term, matched: *matched })
            }
            Self::SnapshotAck { position, bytes: Some(bytes), .. } => {
                Some(Promise::Snapshot { position: *position, bytes: *bytes })
            }
            _ => None,
        }
    }
}
