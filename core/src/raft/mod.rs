//! Raft: what must be agreed.

mod message;

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Index, NodeId, Replica, Term};
use crate::wal::Write;

pub use message::Message;

/// A place in a log and the term of the entry there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The term first, so that positions order as §5.4.1 compares logs.
    pub term: Term,
    /// The index.
    pub index: Index,
}

/// Who counts. Sorted, without repeats; a replica is in one of the lists at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Who votes and is counted for commit; at most [`crate::limits::VOTERS_MAX`].
    pub voters: Vec<Replica>,
    /// Who receives the log and is not counted.
    pub learners: Vec<Replica>,
}

/// One entry of a log. Its index is its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Group time in milliseconds: counted by successive leaders, never back, paused without a leader.
    pub time_ms: u64,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a leader's first entry (§8).
    Noop,
    /// The group's configuration from here on, effective on append.
    Configuration(Configuration),
    /// A command of the state machine, encoded once.
    Command(Bytes),
}

/// A request's number within one group on one node, chosen by the node.
pub type Ticket = u64;

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Receives the log, is not counted.
    #[default]
    Learner,
    /// Votes, and follows.
    Follower,
    /// Asks whether it could win, without a new term (§9.6).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A state machine's state at a position, in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it contains.
    pub position: Position,
    /// Group time at that entry.
    pub time_ms: u64,
    /// The configuration as of that entry.
    pub configuration: Configuration,
    /// SHA-256 of all chunks in order.
    pub digest: Digest,
    /// The bytes, each chunk at most [`crate::limits::CHUNK_BYTES_MAX`].
    pub chunks: Vec<Bytes>,
}

/// What a group's machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A message of this group from an authenticated replica.
    Received {
        /// Who sent it, and on which disk.
        from: Replica,
        /// What.
        message: Message,
    },
    /// The link to a peer is down.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// The group's first so many writes since this process began are durable.
    Persisted {
        /// How many; see [`Action::Persist`].
        writes: u64,
    },
    /// Append a command, if leader.
    Propose {
        /// Names the proposal in the answer.
        ticket: Ticket,
        /// The command, encoded.
        command: Bytes,
    },
    /// Find an index such that a state machine which applied it serves a linearizable read (§6.4).
    Read {
        /// Names the read in the answer.
        ticket: Ticket,
    },
    /// Change the configuration, if leader.
    Reconfigure {
        /// Names the change in the answer.
        ticket: Ticket,
        /// The change.
        change: Reconfiguration,
    },
    /// The state at a position, as asked for by [`Action::Capture`].
    Captured {
        /// The state.
        snapshot: Arc<Snapshot>,
    },
    /// A durable snapshot covers the log up to here: the log before may go, but for what slow followers still want.
    Compact {
        /// The last entry covered.
        position: Position,
    },
    /// The process is stopping: hand leadership to the most advanced follower.
    HandOver,
}

/// A change of a group's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reconfiguration {
    /// Add a learner. The same node with another store replaces its old entry when that was a learner.
    AddLearner(Replica),
    /// Remove a learner.
    RemoveLearner(Replica),
}

/// What a group's machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a replica.
    Send {
        /// To whom.
        to: Replica,
        /// What.
        message: Message,
        /// Whether it promises something: then it waits for all that the group has written so far.
        promise: bool,
    },
    /// Make a write durable. The machine counts its writes from 1; the count comes back with [`Event::Persisted`].
    Persist {
        /// What.
        write: Write,
    },
    /// All entries up to here may be applied.
    Committed {
        /// The last one.
        index: Index,
    },
    /// A proposal or change is in the log at this position. It is decided when an entry of that term is applied there,
    /// or one of another term.
    Proposed {
        /// Which.
        ticket: Ticket,
        /// Where.
        position: Position,
    },
    /// A proposal, read or change will not happen.
    Refused {
        /// Which.
        ticket: Ticket,
        /// Why.
        why: Refused,
    },
    /// A read may be served once this index is applied.
    Readable {
        /// Which.
        ticket: Ticket,
        /// The index.
        index: Index,
    },
    /// A follower needs a snapshot: capture the applied state, and answer with [`Event::Captured`].
    Capture,
    /// A snapshot from the leader is complete and verified; its writes are issued. The state machine becomes it.
    Install {
        /// The snapshot.
        snapshot: Arc<Snapshot>,
    },
    /// The role, the term or the known leader changed.
    Role {
        /// The role.
        role: Role,
        /// The term.
        term: Term,
        /// The leader, if known.
        leader: Option<Replica>,
    },
    /// A peer sent something that it must not send; it was dropped.
    Rejected {
        /// Who.
        from: Replica,
        /// What was wrong.
        why: &'static str,
    },
}

/// Why a proposal, read or change will not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This replica does not lead; who does, if known.
    NotLeader(Option<Replica>),
    /// Leadership was lost, or is being handed over, before the read was confirmed.
    LostLeadership,
    /// Too many bytes wait for commit.
    Busy,
    /// The change names a voter, or someone who is not there, or follows one that is not committed.
    InvalidChange,
}
