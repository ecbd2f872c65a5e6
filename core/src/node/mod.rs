//! The composition of all machines, and the only surface that a driver sees.
//!
//! A node routes events down, hands one machine's actions to another as events, and withholds what promises something
//! until the disk has it. It decides no protocol question itself.
//!
//! | module | what it answers |
//! |---|---|
//! | [`api`] | what clients ask and are told |
//! | `machine` | one step: due timers, the event, what follows from it |
//! | `start` | from a recovered log to a node |
//! | `restore` | from writes to what each machine starts from |
//! | `storage` | the disk's answers: durable, failed, full; fencing |
//! | `route` | whose action is whose event |
//! | `registry` | what an applied registry means for all others |
//! | `boots` | which process is behind a link |
//! | `wire` | messages in and out, their plane, who may say what |
//! | `request` | the life of a client request |
//! | `founding`, `join` | how a node comes into a federation |
//! | `apply` | committed entries into states, states into snapshots |
//! | `checkpoint` | which log records are still needed |
//! | `status` | what the node says of itself |

mod apply;
mod bootstrap;
mod checkpoint;
mod join;
mod machine;
mod notice;
mod peers;
mod registry;
mod request;
mod restore;
mod route;
mod start;
mod status;
mod storage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::discovery::{Identity, Source, Unverified};
use crate::id::{Address, Boot, Contact, GroupId, NodeId, RequestId, SnapshotId, StoreId, Token};
use crate::wal::Write;
use crate::{gossip, mutant, raft, replication};

use crate::api::{Mutation, Outcome, Request};

pub use machine::Node;
pub use notice::Notice;
pub use restore::{RestoreError, last_boot};
pub use start::Start;

/// What a driver tells a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed; see [`crate::machine::Machine::deadline`].
    Tick,
    /// A link to a peer is up. The identity is what the handshake proved, never what a message claims.
    Connected {
        /// Who.
        peer: NodeId,
        /// On which disk.
        store: StoreId,
        /// In which life.
        boot: Boot,
        /// The protocol version that both ends speak.
        version: u16,
    },
    /// A message from a connected peer, as the transport authenticated it.
    Received {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// The link to a peer is down, or could not be made.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// All writes of the lane up to this token are durable. Repeats are harmless.
    Persisted {
        /// The newest of them.
        token: Token,
    },
    /// A write failed. The node goes silent: a failed fsync is never retried.
    StorageFailed {
        /// The write.
        token: Token,
    },
    /// The disk's reserve was reached, or is free again. A full disk is not a failure: writes are refused until it
    /// ends.
    StorageFull {
        /// Whether it is full now.
        full: bool,
    },
    /// A client asks.
    Requested {
        /// The request's number on this node.
        id: RequestId,
        /// What it asks.
        request: Request,
    },
    /// A source was resolved, to possibly nothing.
    Resolved {
        /// The source.
        source: Source,
        /// What it named.
        peers: Vec<Contact>,
    },
    /// An address was dialled and its handshake ended.
    Verified {
        /// The address.
        address: Address,
        /// Who proved to be there, or why nobody did.
        outcome: Result<Identity, Unverified>,
    },
    /// The process was asked to stop: hand over what can be handed over.
    Stopping,
}

/// What a node asks of its driver. The driver may perform the actions of a step in any order; its duties are to keep a
/// lane's log first-in, first-out, and to greet nobody before [`Node::is_booted`].
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message, or drop it: a full queue drops.
    Send {
        /// To whom.
        to: NodeId,
        /// On which connection.
        plane: Plane,
        /// What.
        message: Message,
    },
    /// Make a write durable, and say so with [`Event::Persisted`]. Never dropped.
    Persist {
        /// Its number in its lane.
        token: Token,
        /// What to write.
        write: Write,
    },
    /// Nothing needs this side file any more, although records may still name it: it may be deleted. Without this the
    /// files of an owner that changes often would pile up until its log is released.
    Discard {
        /// The file.
        snapshot: SnapshotId,
    },
    /// No write of this lane before the token is needed any more: log segments and side files that hold nothing newer
    /// may be deleted.
    Release {
        /// The oldest write still needed.
        before: Token,
    },
    /// Answer a client. Every request is answered exactly once.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        outcome: Outcome,
    },
    /// Ask a source for candidates, and answer with [`Event::Resolved`].
    Resolve {
        /// The source.
        source: Source,
    },
    /// Dial an address, make the handshake, and answer with [`Event::Verified`].
    Verify {
        /// The address.
        address: Address,
    },
    /// Keep a link to this peer at this address; without an address, keep none.
    Route {
        /// The peer.
        peer: NodeId,
        /// Where it is.
        address: Option<Address>,
    },
    /// Close the link to one process of a peer, and tell it why with [`Message::Refused`]. Another process of the peer
    /// keeps its link, and hears nothing of it.
    Refuse {
        /// The peer.
        peer: NodeId,
        /// The process, as its handshake named it.
        boot: Boot,
        /// Why, as the peer is told.
        reason: Refusal,
    },
    /// Something that an operator, a metric or an oracle wants to know.
    Notify(Notice),
}

/// Why a link is closed by this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A later boot of the same store was seen: the peer's process is an old one.
    StaleBoot,
    /// The same boot count with another nonce was seen, or an older boot that is still alive: one disk was copied.
    Cloned,
}

/// The class of a message: each peer has one connection for each, so that bulk never delays control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Plane {
    /// Votes, heartbeats, probes, small appends, requests.
    Control,
    /// Snapshots, large appends, anti-entropy.
    Bulk,
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Consensus, of one group.
    Raft {
        /// The group.
        group: GroupId,
        /// What.
        message: raft::Message,
    },
    /// CRDT replication.
    Replication(replication::Message),
    /// Membership.
    Gossip(gossip::Message),
    /// The founder of a federation tells a named first voter of it.
    Bootstrap(crate::api::Bootstrap),
    /// The voter has it, durably.
    BootstrapAck,
    /// Contacts that the sender verified.
    Contacts(Vec<Contact>),
    /// A client's request that the sender cannot serve. It is not forwarded again.
    Forward {
        /// The sender's number for it.
        id: RequestId,
        /// What is asked.
        request: Request,
    },
    /// The answer to a forwarded request.
    Answer {
        /// The asker's number for it.
        id: RequestId,
        /// The answer.
        outcome: Outcome,
    },
    /// The receiver's process is refused, see [`Refusal`]: it must fence itself if this persists.
    Refused(Refusal),
}

/// Why bytes are no message of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// A kind of message that a later version added. It is dropped and counted like one that was lost, and the link
    /// lives on.
    UnknownKind {
        /// Its place among all kinds.
        kind: u32,
    },
    /// Not the encoding of a message.
    Malformed(DecodeError),
}

impl Message {
    /// Kinds of message that this build knows. New ones are added at the end.
    pub const KINDS: u32 = 9;

    /// About how many bytes the message has beside its envelope: the payloads that it carries.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// What an update about a member and a load take.
        const UPDATE_BYTES: usize = 80;
        const LOAD_BYTES: usize = 40;
        match self {
            Self::Raft { message: raft::Message::Append { entries, .. }, .. } => {
                entries.iter().map(raft::Entry::payload_bytes).sum()
            }
            Self::Raft { message: raft::Message::Chunk { data, .. }, .. } => data.len(),
            Self::Replication(
                replication::Message::Delta { writes, .. }
                | replication::Message::Page { writes, .. },
            ) => writes.iter().map(Bytes::len).sum(),
            Self::Gossip(gossip) => {
                UPDATE_BYTES * gossip.updates.len() + LOAD_BYTES * gossip.loads.len()
            }
            Self::Forward { request: Request::Write { mutations, .. }, .. } => {
                mutations.iter().map(Mutation::payload_bytes).sum()
            }
            _ => 0,
        }
    }

    fn is_later(kind: u32) -> bool {
        kind >= Self::KINDS && !mutant!("node.message.unknown_is_garbage")
    }

    /// Decodes a message that a peer sent; at most `limit` bytes are looked at.
    ///
    /// Only the outermost kind may be unknown: a later version that changes what a kind holds gives it a new kind, or
    /// speaks it on links of the new version alone.
    ///
    /// # Errors
    ///
    /// [`MessageError`].
    pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, MessageError> {
        codec::decode(bytes, limit).map_err(|error| match codec::variant(bytes) {
            Some(kind) if Self::is_later(kind) && error == DecodeError::Malformed => {
                MessageError::UnknownKind { kind }
            }
            _ => MessageError::Malformed(error),
        })
    }
}
