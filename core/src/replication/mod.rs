//! Replication of what must always be writable.
//!
//! One [`Replicator`] holds all shards of a node. Its rooms, from the lowest to the highest:
//!
//! | where | what |
//! |---|---|
//! | `write/` | one authored write: its sealed bytes, its paths, its clock |
//! | `shard/` | the state of one shard: live elements and a causal context |
//! | `log/` | the records of a shard, checkpoints, and the restore from both |
//! | `sync/` | what peers exchange: pushes, acknowledgements, anti-entropy |
//! | this folder | the machine: `author` writes, `dispatch` reads messages, `turns` compares, `slices` does long work |
//!
//! A write is pushed once to every connected replica. Anti-entropy pulls it where that push was lost. Every change is a
//! record in the log before a peer or client is promised it, and checkpoints keep the log short.
//!
//! Four choices and their reasons:
//!
//! * **The answerer of a session has no state.** Every question carries all that the asker holds. So loss, repetition,
//!   reordering and restarts of either side need no special case, and a session resumes by starting again.
//! * **A push covers only its own dot.** The removal of a superseded element that has not arrived is deferred. Its dot
//!   is not covered, because the superseded write may have other elements, which live on.
//! * **Every message that carries writes leaves only when these are durable.** A write names only what it supersedes,
//!   not all that came before; so everything that it builds on must be durable here first.
//! * **The machine hardly tracks durability.** [`Event::Persisted`] only releases pushes, so that one push carries what
//!   one disk sync made durable. Everything else that waits for the disk is a promise, which the node holds back until
//!   all earlier writes are durable.
//!
//! Deliberately absent: causal stability and the garbage collection that it allows (there are no tombstones to collect,
//! only contexts to shorten), forwarding of pushes, and the choice of the replicas.

mod author;
mod dispatch;
mod index;
mod local;
mod log;
mod replicator;
mod shard;
mod slices;
mod sync;
#[cfg(test)]
mod tests;
mod turns;
mod write;

use alloc::vec::Vec;

use crate::api::{Before, Context, ContextKeys, Mutation, Reason, Strategy};
use crate::files::Piece;
use crate::id::{Dot, NamespaceId, NodeId, Replica, ShardId, SnapshotId};
use crate::machine::Outbox;
use crate::reach;

pub use log::inspect::{EditInfo, EditOpInfo, WriteInfo, dot_of, inspect};
pub use log::{FileError, RestoreError, Restored, RestoredShard, Write};
pub use replicator::{Replicator, Scrub};
pub use shard::{Cover, Deferred, Dots, Level, LiveEdits, Ranges, Span};
pub use sync::ack::Ticket;
pub use sync::message::{Answer, ListedWrite, Message, Promise, PullError, View};
pub use sync::summary::Summary;

/// Reports that a peer sent what it must not send.
fn reject(from: Replica, why: &'static str, out: &mut Outbox<Action>) {
    reach!("replication.message.rejected");
    out.push(Action::Rejected { from, why });
}

/// An input of the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The keys that seal contexts, or newer ones. Without them contexts are neither given out nor taken.
    Keys {
        /// The keys of the federation.
        keys: ContextKeys,
    },
    /// The registry has an eventual namespace: open its shards. Repeats are harmless; the strategy may change.
    Open {
        /// The namespace to open.
        namespace: NamespaceId,
        /// The number of its shards.
        slots: u16,
        /// How registers are read.
        strategy: Strategy,
        /// Whether losers of the LWW order are dropped.
        discard: bool,
    },
    /// The registry deleted a namespace: forget its shards.
    Close {
        /// The deleted namespace.
        namespace: NamespaceId,
    },
    /// The set of the replicas of all shards changed.
    Peers {
        /// All replicas. This node is ignored if it is among them.
        replicas: Vec<Replica>,
    },
    /// A link to a replica is up.
    Connected {
        /// The replica at its other end.
        peer: Replica,
    },
    /// The link to a peer is down.
    Unreachable {
        /// The node at its other end.
        peer: NodeId,
    },
    /// A message came from an authenticated replica.
    Received {
        /// The sender: its node and its disk.
        from: Replica,
        /// The message.
        message: Message,
    },
    /// The disk has the first `writes` writes that the machine issued since this process began.
    Persisted {
        /// A count of writes; see [`Action::Persist`].
        writes: u64,
    },
    /// A client writes.
    Mutate {
        /// Names the write in the answers.
        ticket: Ticket,
        /// The shard of the key.
        shard: ShardId,
        /// The key and its edits.
        mutation: Mutation,
        /// The number of other replicas that must hold the write durably before [`Action::Replicated`].
        replicas: u8,
    },
    /// A client no longer waits for replicas.
    Abandon {
        /// The client's write.
        ticket: Ticket,
    },
    /// Capture a shard's state in a snapshot file, so that the shard's older log records may go.
    Checkpoint {
        /// The shard to capture.
        shard: ShardId,
        /// The name of the snapshot file.
        snapshot: SnapshotId,
    },
    /// The first `bytes` bytes of a checkpoint's file are durable. With all of them the file is durable under its name.
    FileWritten {
        /// The file.
        snapshot: SnapshotId,
        /// A number of bytes.
        bytes: u64,
    },
    /// The disk has no room for a checkpoint's file and dropped it.
    FileFailed {
        /// The file.
        snapshot: SnapshotId,
    },
}

/// A request of the machine to its driver.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a replica. The driver may drop, delay, duplicate and reorder it; but if `promise` is set, it
    /// must not leave before all writes issued earlier are durable.
    Send {
        /// The receiver.
        to: Replica,
        /// The message.
        message: Message,
        /// Whether the message is a promise.
        promise: bool,
    },
    /// Make a write durable. The driver must never drop or reorder it, and may delay it. The machine counts its writes
    /// from 1; the count comes back with [`Event::Persisted`].
    Persist {
        /// The shard whose state changed.
        shard: ShardId,
        /// The write to the log.
        write: Write,
    },
    /// Write a piece of a checkpoint's file, and report [`Event::FileWritten`] once it is durable, or
    /// [`Event::FileFailed`]. The driver must not drop it, and must keep the order of one file; it waits for no other
    /// action.
    WriteFile {
        /// The captured shard.
        shard: ShardId,
        /// The piece.
        piece: Piece,
    },
    /// A client's write is merged here, and its record was issued. The driver must not drop it. It may delay it, and
    /// does so until the record is durable if the client asked for that.
    Accepted {
        /// The client's write.
        ticket: Ticket,
        /// Its dot.
        dot: Dot,
        /// The context that a later write carries to supersede it.
        context: Context,
        /// Its effect on what this replica held.
        before: Before,
    },
    /// A client's write did not happen. The driver must not drop it; it may delay and reorder it.
    Refused {
        /// The client's write.
        ticket: Ticket,
        /// The reason.
        reason: Reason,
    },
    /// As many other replicas as the client asked for hold the write durably. The driver may delay it; if it drops it,
    /// the client waits until it gives up.
    Replicated {
        /// The client's write.
        ticket: Ticket,
    },
    /// A notice: a checkpoint is complete, and its [`Write::Snapshot`] was issued. The driver may drop, delay and
    /// reorder it.
    Checkpointed {
        /// The captured shard.
        shard: ShardId,
        /// The file's length in bytes.
        bytes: u64,
    },
    /// An alarm: two writes have one dot and different content. The driver may drop, delay and reorder it.
    Equivocation {
        /// The dot of both writes.
        dot: Dot,
    },
    /// A notice: a peer sent something that it must not send, and this was dropped. The driver may drop, delay and
    /// reorder it.
    Rejected {
        /// The sender.
        from: Replica,
        /// The fault.
        why: &'static str,
    },
}
