//! What replicas of a group say to each other, and what of it is a promise.
//!
//! Every message but those of reads carries a term. Nothing here is checked: `step` rejects what no honest replica
//! sends. A message names neither its sender nor its group; the transport and the node know both.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::types::{Configuration, Entry, Position};
use crate::digest::Digest;
use crate::id::{Index, Replica, Term};

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Would you vote for me in this term? It changes nothing at the receiver (§9.6).
    PreVote {
        /// The term that the sender would campaign in.
        term: Term,
        /// The last entry of the sender's log.
        last: Position,
    },
    /// The answer to a pre-vote.
    PreVoteReply {
        /// The asked term when granted; else the answerer's own.
        term: Term,
        /// Whether the answerer would vote for the origin.
        granted: bool,
    },
    /// Vote for me (§5.2). Sent only once the sender's own vote is durable.
    Vote {
        /// The sender's term.
        term: Term,
        /// The last entry of the sender's log.
        last: Position,
        /// The leader asked the sender to campaign: a fresh leader is then no reason to refuse.
        leadership_transfer: bool,
    },
    /// The answer to a vote. A granted vote is a promise.
    VoteReply {
        /// The answerer's term.
        term: Term,
        /// Whether the vote is given.
        granted: bool,
    },
    /// Entries that follow `prev` (§5.3). Without entries it asks whether `prev` is there.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry before the first.
        prev: Position,
        /// The leader's commit index.
        commit: Index,
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// The log is as the leader's up to here, durably: a promise.
    AppendAck {
        /// The answerer's term.
        term: Term,
        /// The last entry known to be shared.
        matched: Position,
    },
    /// The entry before the appended ones is not there.
    AppendRejected {
        /// The answerer's term.
        term: Term,
        /// The index before the appended entries.
        refused: Index,
        /// The last entry of the answerer's log that could be shared: neither behind `refused` in the log, nor of a
        /// term above the refused one. The leader skips whole terms with it.
        hint: Position,
    },
    /// The leader is there. Also sent out of turn when a commit unblocks a follower, and to confirm reads.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// The leader's commit index, but never beyond what this follower acknowledged.
        commit: Index,
        /// The leader's round, see `read`.
        round: u64,
    },
    /// The answer to a heartbeat: when it was sent, the answerer knew of no later term.
    HeartbeatAck {
        /// The answerer's term.
        term: Term,
        /// The heartbeat's round.
        round: u64,
    },
    /// The answer to a leader of the past.
    StaleTerm {
        /// The answerer's term.
        term: Term,
    },
    /// The entries that the follower needs are gone: here is a snapshot. Answered with how much of it is held.
    SnapshotOffer {
        /// The leader's term.
        term: Term,
        /// What is offered.
        header: SnapshotHeader,
    },
    /// A piece of an offered snapshot.
    SnapshotChunk {
        /// The leader's term.
        term: Term,
        /// The offered position.
        position: Position,
        /// Where in the snapshot.
        offset: u64,
        /// The bytes: at most [`crate::limits::CHUNK_BYTES_MAX`].
        data: Bytes,
    },
    /// How much of an offered snapshot is held durably, from its start: a promise.
    SnapshotAck {
        /// The answerer's term.
        term: Term,
        /// The offered position.
        position: Position,
        /// How many bytes; `None` when the answerer knows of no such offer, as after a restart.
        bytes: Option<u64>,
    },
    /// Campaign at once: the leader hands over to the receiver (§3.10 of the thesis).
    TimeoutNow {
        /// The leader's term.
        term: Term,
        /// Voters that are to be spared, the sender among them: each had the leadership, or was told to take it, since
        /// somebody last kept it. Who has it too hands it to none of them.
        transfer_excluded: Vec<Replica>,
    },
    /// A follower has a read: which index must it apply first?
    ReadIndex {
        /// The origin's number for it, never used by another read of any of its lives.
        id: u64,
    },
    /// The answer to a read.
    ReadIndexReply {
        /// The origin's number for it.
        id: u64,
        /// The index; `None` when the answerer does not lead, or ceased to.
        index: Option<Index>,
    },
}

/// What a snapshot is, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The last entry that it contains.
    pub position: Position,
    /// Group time at that entry, in milliseconds.
    pub time_ms: u64,
    /// The configuration as of that entry.
    pub configuration: Configuration,
    /// SHA-256 of all bytes.
    pub digest: Digest,
    /// How many bytes.
    pub length: u64,
}

/// What a message promises. The sender's disk must show it, or a later term, for as long as the sender lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The sender votes for the receiver, and for nobody else, in this term.
    Vote {
        /// The term.
        term: Term,
    },
    /// The sender's log, or its snapshot, holds this entry and all before it; unless a leader of a later term than
    /// `term` has replaced them since.
    Append {
        /// The term in which this was promised.
        term: Term,
        /// The entry.
        matched: Position,
    },
    /// The sender holds so many bytes of the snapshot at this position, until a restart or another offer.
    Snapshot {
        /// The snapshot's position.
        position: Position,
        /// How many bytes from the start.
        bytes: u64,
    },
}

impl Message {
    /// The term that the message carries; reads carry none.
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
            | Self::TimeoutNow { term, .. } => Some(*term),
            Self::ReadIndex { .. } | Self::ReadIndexReply { .. } => None,
        }
    }

    /// What the message promises, if anything: what the sender's disk must hold when it leaves.
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
