//! Replication: what must always be writable.
//!
//! One [`Replicator`] holds all shards of a node. A shard is live elements and a causal context (`store`); a write is
//! its author's sealed bytes (`delta`), made here (`mint`), pushed once to every connected replica (`push`), and where
//! that push was lost, pulled by anti-entropy (`sync`). Every change is a record in the log before anybody is promised
//! it (`restore`), and side files keep the log short (`checkpoint`).
//!
//! Four choices are worth their reasons:
//!
//! * **The answerer of a session has no state.** Every question carries all that the asker holds, so loss, repetition,
//!   reordering and restarts of either side need no case of their own, and a session resumes by starting again.
//! * **A push covers its own dot alone.** Victims that have not arrived are remembered as doomed instead of covered,
//!   since a write may have elements that its victim's superseder did not mean.
//! * **Every message that carries writes is a promise.** Writes name what they supersede, not all that is behind it;
//!   so a write leaves only when everything that it stands on is durable here.
//! * **Almost nothing is counted back.** `Persisted` lets pushes go, so that a push carries what one sync made durable.
//!   All else that waits for the disk is a promise, withheld by the node until what was issued before is durable.
//!
//! Deliberately absent: causal stability and the collection of what it allows (there are no tombstones to collect, only
//! contexts to shorten), forwarding of pushes, and any choice of who the replicas are.

mod author;
mod dispatch;
mod log;
mod replicator;
mod shard;
mod sync;
#[cfg(test)]
mod tests;
mod write;

use alloc::vec::Vec;

use crate::api::{Context, Mutation, Reason, Strategy};
use crate::id::{Dot, NamespaceId, NodeId, Replica, ShardId, SnapshotId};

pub use log::inspect::{Described, DescribedAct, DescribedEdit, describe, dot_of};
pub use log::{FileError, RestoreError, Restored, RestoredShard, Write};
pub use replicator::{Replicator, Scrub};
pub use shard::{Doom, Dots, Mask, Ranges, Span};
pub use sync::ack::Ticket;
pub use sync::message::{Answer, Fault, Listed, Message, Promise, View};

/// What the machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The registry has an eventual namespace: open its shards. Repeats are harmless; the strategy may change.
    Open {
        /// The namespace.
        namespace: NamespaceId,
        /// Its shards.
        slots: u16,
        /// How registers are read.
        strategy: Strategy,
        /// Whether losers of the LWW order are dropped.
        discard: bool,
    },
    /// The namespace is gone.
    Close {
        /// Which.
        namespace: NamespaceId,
    },
    /// The replicas of all shards, this one excluded.
    Peers {
        /// All of them.
        replicas: Vec<Replica>,
    },
    /// A link to a replica is up.
    Connected {
        /// Who.
        peer: Replica,
    },
    /// The link to a peer is down.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// A message from an authenticated replica.
    Received {
        /// Who sent it, and on which disk.
        from: Replica,
        /// What.
        message: Message,
    },
    /// The machine's first so many writes since this process began are durable.
    Persisted {
        /// How many; see [`Action::Persist`].
        writes: u64,
    },
    /// A client writes.
    Mutate {
        /// Names the write in the answer.
        ticket: Ticket,
        /// The shard.
        shard: ShardId,
        /// What.
        mutation: Mutation,
        /// How many other replicas must have it durably before [`Action::Replicated`].
        replicas: u8,
    },
    /// A client no longer waits for replicas.
    Abandon {
        /// Which write.
        ticket: Ticket,
    },
    /// Write the shard's state into a side file, so that its older log records may go.
    Checkpoint {
        /// Which.
        shard: ShardId,
        /// The side file's name.
        snapshot: SnapshotId,
    },
}

/// What the machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a replica.
    Send {
        /// To whom.
        to: Replica,
        /// What.
        message: Message,
        /// Whether it promises something: then it waits for all that the machine has written so far.
        promise: bool,
    },
    /// Make a write durable. The machine counts its writes from 1; the count comes back with [`Event::Persisted`].
    Persist {
        /// The shard whose record it is.
        shard: ShardId,
        /// The record.
        write: Write,
    },
    /// A client's write is applied here, and its record was issued.
    Accepted {
        /// Which.
        ticket: Ticket,
        /// Its dot.
        dot: Dot,
        /// What a later write carries to supersede it.
        context: Context,
    },
    /// A client's write did not happen.
    Refused {
        /// Which.
        ticket: Ticket,
        /// Why.
        reason: Reason,
    },
    /// As many other replicas as were asked for have the write durably.
    Replicated {
        /// Which.
        ticket: Ticket,
    },
    /// A shard's state was written to its side file: [`Write::Snapshot`] was issued.
    Checkpointed {
        /// Whose.
        shard: ShardId,
        /// The file's length.
        bytes: u64,
    },
    /// Two writes with one dot and different content.
    Equivocation {
        /// The dot.
        dot: Dot,
    },
    /// A write is stamped too far ahead, and waits.
    Ahead {
        /// The author.
        node: NodeId,
        /// By how many milliseconds.
        by_ms: u64,
    },
    /// A peer sent something that it must not send; it was dropped.
    Rejected {
        /// Who.
        from: Replica,
        /// What was wrong.
        why: &'static str,
    },
}
