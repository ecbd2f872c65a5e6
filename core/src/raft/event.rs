//! What a group's machine consumes and what it asks for.
//!
//! The node turns what happens into events, and carries out the actions. This module decides nothing.

use alloc::sync::Arc;

use bytes::Bytes;

use super::message::Message;
use super::record::Write;
use super::types::{Position, Reconfiguration, RefusalReason, Snapshot, Ticket};
use crate::id::{Index, NodeId, Replica, Role, Term};

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
    TransferLeadership,
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
        why: RefusalReason,
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
