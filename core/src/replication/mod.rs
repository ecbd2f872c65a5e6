//! Replication: what must always be writable.

mod message;

use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::{Dot, NamespaceId, NodeId, Owner, Replica, ShardId};
use crate::node::api::{Context, Mutation, Reason, Strategy};
use crate::wal::Write;

pub use message::Message;

/// A request's number, chosen by the node.
pub type Ticket = u64;

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
        snapshot: crate::wal::SnapshotId,
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
        /// What.
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
        owner: Owner,
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

/// A write as its author made it: the bytes that its SHA-256 covers, stored and forwarded unchanged.
pub type AuthorBytes = Bytes;
