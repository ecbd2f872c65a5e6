//! The events that a group's machine consumes, and the actions that it asks for.
//!
//! The node turns what happens into events and performs the actions. Each action says whether the driver may drop,
//! delay, repeat or reorder it. This module does not decide anything.

use alloc::sync::Arc;

use bytes::Bytes;

use super::message::Message;
use super::record::Write;
use super::types::{Position, Reconfiguration, RefusalReason, Snapshot, Ticket};
use crate::files::Piece;
use crate::id::{Index, NodeId, Replica, Role, SnapshotId, Term};

/// An event that a group's machine consumes.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the variants document their fields")]
pub enum Event {
    /// Time passed.
    Tick,
    /// A message of this group arrived. The transport authenticated `from`, the store included.
    Received { from: Replica, message: Message },
    /// The link to a peer is down.
    Unreachable { peer: NodeId },
    /// The first `writes` writes of the group since the process started are durable; see [`Action::Persist`].
    Persisted { writes: u64 },
    /// Append a command. Answered with [`Action::Proposed`] or [`Action::Refused`] under this ticket.
    Propose { ticket: Ticket, command: Bytes },
    /// Find the index that the state machine must have applied to serve a linearizable read (§6.4). Answered with
    /// [`Action::Readable`] or [`Action::Refused`] under this ticket.
    Read { ticket: Ticket },
    /// Change the configuration. Answered with [`Action::Proposed`] or [`Action::Refused`] under this ticket.
    Reconfigure { ticket: Ticket, change: Reconfiguration },
    /// The state that [`Action::Capture`] asked for.
    Captured { snapshot: Arc<Snapshot> },
    /// The first `bytes` bytes of an arriving snapshot's file are durable. With all of them the file is durable under
    /// its name.
    FileWritten { id: SnapshotId, bytes: u64 },
    /// The disk has no room for an arriving snapshot's file and dropped it.
    FileFailed { id: SnapshotId },
    /// The state machine looked at the snapshot of [`Action::Check`]: it can become it, or it cannot.
    Checked { id: SnapshotId, restores: bool },
    /// A durable snapshot covers the log up to `position`. The machine drops the entries up to there, except those that
    /// a slow follower still needs.
    Compact { position: Position },
    /// The process is stopping: transfer leadership to the most advanced follower.
    TransferLeadership,
}

/// An action that a group's machine asks for.
///
/// Every action but `Send` must be performed, once, and in the order in which the machine emitted it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the variants document their fields")]
pub enum Action {
    /// Send a message to a replica. The driver may drop, delay, repeat and reorder messages. With `promise` the message
    /// may leave only after all writes that the group issued before it are durable.
    Send { to: Replica, message: Message, promise: bool },
    /// Make a record durable. Never dropped or repeated, and written in order; it may take any time. The machine counts
    /// its writes from 1 and learns with [`Event::Persisted`] how many are durable.
    Persist { write: Write },
    /// Write a piece of an arriving snapshot's file, and report [`Event::FileWritten`] once it is durable, or
    /// [`Event::FileFailed`]. Never dropped, and in order for one file; it waits for no other action.
    WriteFile { piece: Piece },
    /// The file of an arriving snapshot is not wanted any more. Never dropped, and performed before a later piece of a
    /// file with the same name; no event about the file follows but for such a piece.
    DropFile { id: SnapshotId },
    /// All entries up to `index` are committed and may be applied. The state machine may apply them later, in order. A
    /// later `Committed` includes an earlier one.
    Committed { index: Index },
    /// A proposal or change is in the log at `position`, not yet committed. Never dropped, and performed before the
    /// `Committed` of its index. If the entry applied at that index has that term, the proposal is committed; if it has
    /// another term, the proposal is lost.
    Proposed { ticket: Ticket, position: Position },
    /// A proposal, read or change will not happen. Never dropped; it may be delayed and reordered, since no other
    /// action has this ticket.
    Refused { ticket: Ticket, why: RefusalReason },
    /// A read may be served once the state machine has applied `index`. Never dropped; it may be delayed.
    Readable { ticket: Ticket, index: Index },
    /// A follower needs a snapshot: capture the applied state and answer with [`Event::Captured`]. Never dropped: the
    /// machine does not ask again before the answer. The answer may take any time.
    Capture,
    /// Look whether the state machine can become this snapshot from the leader, and answer with [`Event::Checked`]. It
    /// is complete and its digest matches; nothing durable names it before the answer. Never dropped; the answer may
    /// take any time.
    Check { id: SnapshotId, snapshot: Arc<Snapshot> },
    /// Replace the state machine's state by this snapshot, which restores. Never dropped, and done before any entry of
    /// a later `Committed` is applied; its writes may still be under way.
    Install { snapshot: Arc<Snapshot> },
    /// The role, the term or the known leader changed. A later one replaces an earlier one.
    Role { role: Role, term: Term, leader: Option<Replica> },
    /// The machine dropped a message that no correct replica sends. For diagnosis only: the driver may drop it.
    Rejected { from: Replica, why: &'static str },
}
