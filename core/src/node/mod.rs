//! The composition of all machines, and the only surface that a driver sees.
//!
//! A node routes events to its machines, hands one machine's action to another as an event, and holds back what
//! promises something until the disk has it. It does not decide a question of any protocol itself.
//!
//! | module | what it answers |
//! |---|---|
//! | `machine` | one step: due timers, the event, and all that follows from it |
//! | `route` | which machine's action becomes which machine's event |
//! | `wire` | messages in and out, and on which plane |
//! | `standing` | which sender may send which kind of message |
//! | `peers` | which process is behind a link |
//! | `doubt` | whether this process is the one that should be there |
//! | `registry` | what an applied registry means for the other machines |
//! | `request` | the life of a client request |
//! | `bootstrap`, `genesis` | how a founder begins a federation, and how its voters take part |
//! | `join` | how a node enters a federation that exists |
//! | `admission` | how often peers may ask to be let in |
//! | `group` | a Raft group: its machine, its state, the requests that wait for it |
//! | `apply` | committed entries into states, states into snapshots |
//! | `checkpoint` | which log records are still needed |
//! | `restore`, `start` | from the writes of a recovered log to a node |
//! | `storage` | the disk's other answers: failed, full; fencing and stopping |
//! | `status`, `notice` | what the node reports, asked and unasked |

mod admission;
mod apply;
mod bootstrap;
mod checkpoint;
mod doubt;
mod files;
mod genesis;
mod group;
mod join;
mod machine;
mod notice;
mod peers;
mod registry;
mod request;
mod restore;
mod route;
mod standing;
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

use crate::api::{Bootstrap, Mutation, Outcome, Reason, Request};
use crate::codec::{self, DecodeError};
use crate::discovery::{Identity, Source, Unverified};
use crate::files::Piece;
use crate::id::{
    Address, AskId, Boot, Contact, GenesisId, GroupId, Lineage, NodeId, Replica, RequestId,
    SnapshotId, StoreId, Token,
};
use crate::wal::Write;
use crate::{gossip, mutant, raft, replication};

pub use machine::Node;
pub use notice::Notice;
pub use request::ExportFigures;
pub use restore::{RestoreError, last_boot};
pub use start::Start;

/// An event that a driver reports to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed; see [`crate::machine::Machine::deadline`].
    Tick,
    /// A link to a peer is up. All fields are what the handshake proved, never what a message claims.
    Connected {
        /// The node at the other end.
        peer: NodeId,
        /// The data directory that its promises are on.
        store: StoreId,
        /// The start of its process.
        boot: Boot,
        /// The boots before it.
        lineage: Lineage,
        /// The protocol version that both ends speak.
        version: u16,
    },
    /// A message from a connected peer.
    Received {
        /// The sender, as the transport authenticated it.
        from: NodeId,
        /// The decoded message.
        message: Message,
    },
    /// The link to a peer is down, or could not be made.
    Unreachable {
        /// The node at the other end.
        peer: NodeId,
    },
    /// All writes of the lane up to this token are durable. Repeats are harmless.
    Persisted {
        /// The newest durable write.
        token: Token,
    },
    /// A write failed. The node goes silent, because a failed fsync is never retried.
    StorageFailed {
        /// The write that failed.
        token: Token,
    },
    /// The disk is full, or has room again, or a full one has more or less room. A full disk is not a failure: until
    /// it ends, writes are refused.
    StorageFull {
        /// Whether it is full now.
        full: bool,
        /// Bytes that can still be written, the reserve with them. A full node writes a checkpoint in half of them.
        room: u64,
    },
    /// All pieces of snapshot files up to this number are durable, but for those of files that failed. A file whose
    /// last piece is durable is durable under its name. Repeats are harmless.
    FilesWritten {
        /// The newest such piece; see [`Action::WriteFile`].
        number: u64,
    },
    /// The disk has no room for a snapshot file that is being written, and deleted it. Later pieces of it are ignored
    /// until [`Action::Discard`].
    FileFailed {
        /// The file.
        snapshot: SnapshotId,
    },
    /// A client sends a request.
    Requested {
        /// The request's number on this node, unique while the process lives.
        id: RequestId,
        /// The request itself.
        request: Request,
    },
    /// A source of candidates was resolved, as [`Action::Resolve`] asked.
    Resolved {
        /// The source that was asked.
        source: Source,
        /// The candidates that it named; possibly none.
        peers: Vec<Contact>,
    },
    /// An address was dialled, as [`Action::Verify`] asked, and the handshake ended.
    Verified {
        /// The address that was dialled.
        address: Address,
        /// The identity that was proved there, or why none was.
        outcome: Result<Identity, Unverified>,
    },
    /// The process was asked to stop: the node gives away its leadership and answers every request.
    Stopping,
}

/// An action that a node asks of its driver.
///
/// The driver may perform the actions of one step in any order. Its two duties are to keep a lane's log first-in,
/// first-out, and to begin no handshake before [`Node::is_booted`].
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message. The driver may drop, delay or reorder it: each protocol repeats what it needs.
    Send {
        /// The receiving node.
        to: NodeId,
        /// The connection to use.
        plane: Plane,
        /// The message to encode.
        message: Message,
    },
    /// Make a write durable, then report [`Event::Persisted`]. The driver may delay it, but must not drop it and must
    /// keep the order of tokens within the lane.
    Persist {
        /// The write's number in its lane.
        token: Token,
        /// The record.
        write: Write,
    },
    /// Write a piece of a snapshot file, beside the log, then report [`Event::FilesWritten`] once it is durable, or
    /// [`Event::FileFailed`]. The driver may delay it, but must not drop it and must keep the order of pieces. It
    /// should let no write of the log wait for pieces.
    WriteFile {
        /// The piece's number since the process began.
        number: u64,
        /// The piece.
        piece: Piece,
    },
    /// Delete a snapshot file that nothing needs, although log records may still name it. The driver may delay it, but
    /// must keep its place among the pieces; when it drops it, the file stays until the next start.
    Discard {
        /// The file.
        snapshot: SnapshotId,
    },
    /// Delete log segments that hold nothing from this token on. The driver may delay or drop it,
    /// because a later one covers it; until then they take disk space.
    Release {
        /// The oldest write of the lane that is still needed.
        before: Token,
    },
    /// Answer a client. The driver may delay or reorder it, but must not drop it while the client waits: every request
    /// is answered exactly once.
    Reply {
        /// The request's number.
        id: RequestId,
        /// The answer.
        outcome: Outcome,
    },
    /// Ask a source for candidates, then report [`Event::Resolved`]. The driver may drop, delay or reorder it: the node
    /// asks again later.
    Resolve {
        /// The source to ask.
        source: Source,
    },
    /// Dial an address, make the handshake, then report [`Event::Verified`]. The driver may drop, delay or reorder it:
    /// an unanswered dial expires and is repeated.
    Verify {
        /// The address to dial.
        address: Address,
    },
    /// Keep a link to a peer at this address, or keep none. The driver may delay it, but must not drop it and must keep
    /// the order per peer: the latest one counts.
    Route {
        /// The peer.
        peer: NodeId,
        /// Its address; `None` ends the link.
        address: Option<Address>,
    },
    /// Close the link to one process of a peer after sending it [`Message::Refused`]. Another process of the same peer
    /// keeps its link. The driver must not drop it, and closes the link before it hands over further messages from it.
    Refuse {
        /// The peer.
        peer: NodeId,
        /// The refused process, as its handshake named it.
        boot: Boot,
        /// The reason, which the peer is told.
        reason: Refusal,
        /// The boot that contradicts it, which the peer is told as well.
        known: Boot,
    },
    /// Make it durable that no process may start from this store again, because its peers know that it is a copy or an
    /// older one. The driver must not drop it, and exits once it is done. [`Condemned`] is what the next start says.
    Condemn(Condemned),
    /// Report something to operators, metrics or oracles. The driver may drop, delay or reorder it.
    Notify(Notice),
}

/// Why this end closes a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// This node saw a later boot of the same store, so the peer's process is an old one.
    StaleBoot,
    /// This node saw the same boot count with another nonce, or an older boot that is still alive: one disk was copied.
    Cloned,
    /// The boots before this one are not those that this node saw: the disk is an older copy of what it once was.
    Forked,
    /// The process before this one is still linked, and this node asks it whether it lives. No evidence of anything: a
    /// process that restarts quickly meets it.
    Linked,
}

/// Why a store must not be started again: its peers refused its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// The refused process.
    pub boot: Boot,
    /// The reason of the voter that decided it.
    pub reason: Refusal,
    /// The boot of this store that voter knows.
    pub known: Boot,
    /// The voters that refused it.
    pub by: Vec<NodeId>,
}

/// The class of a message. Each peer has one connection per plane, so that bulk never delays control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Plane {
    /// Votes, heartbeats, probes, small appends, requests.
    Control,
    /// Snapshots, large appends, anti-entropy.
    Bulk,
}

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A message of one Raft group.
    Raft {
        /// The beginning of the sender's federation.
        genesis: GenesisId,
        /// The group.
        group: GroupId,
        /// The group's own message.
        message: raft::Message,
    },
    /// A message of CRDT replication.
    Replication {
        /// The beginning of the sender's federation.
        genesis: GenesisId,
        /// The replicator's own message.
        message: replication::Message,
    },
    /// A message of membership and failure detection.
    Gossip {
        /// The beginning of the sender's federation.
        genesis: GenesisId,
        /// Gossip's own message.
        message: gossip::Message,
    },
    /// A message of a founding: between a founder and the first voters that an operator named.
    Founding(Founding),
    /// Whether the sender is formed, and with which genesis. It is said once on each link, and when the sender is
    /// formed.
    Genesis {
        /// The beginning of the sender's federation; `None` while it is in none.
        genesis: Option<GenesisId>,
        /// The store with which that federation knows the receiver's node, if the receiver has another one.
        replaced: Option<StoreId>,
    },
    /// Contacts that the sender verified.
    Contacts(Vec<Contact>),
    /// A client's request that the sender cannot serve. It is not forwarded again.
    Forward {
        /// The sender's number for the request.
        id: AskId,
        /// The lowest number of a request that the sender still waits for the receiver to answer. The sender gave up
        /// every try below it.
        open: u64,
        /// The client's request.
        request: Request,
    },
    /// The answer to a forwarded request.
    Answer {
        /// The number that the forwarding process gave the request.
        id: AskId,
        /// The answer for the client.
        outcome: Outcome,
    },
    /// The sender refuses the receiver's process. The receiver fences itself once a majority of the other voters does.
    Refused {
        /// The reason.
        refusal: Refusal,
        /// The boot of the receiver's store that contradicts the receiver's own.
        known: Boot,
    },
    /// Asks whether the receiver counts the sender's process as linked.
    Confirm(AskId),
    /// Says that the asking process is linked, and that the sender lives.
    Confirmed(AskId),
}

/// A message of a founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Founding {
    /// The founder asks a named voter to accept this genesis.
    Offer(Bootstrap),
    /// The genesis is accepted, and its acceptance is on the sender's disk.
    Accepted(GenesisId),
    /// The sender does not accept the genesis now.
    Declined {
        /// The genesis that was offered.
        genesis: GenesisId,
        /// Why it is not accepted.
        reason: Reason,
    },
    /// The sender accepted the genesis and asks how the founding ended.
    Asked {
        /// The genesis that the sender accepted.
        genesis: GenesisId,
        /// The node that decides.
        founder: Replica,
    },
    /// The founder says that nobody will ever be formed with this genesis.
    Aborted(GenesisId),
    /// The founding is decided, and the sender is formed: its genesis is on its disk.
    Formed(Bootstrap),
    /// The genesis is on the sender's disk too.
    Acknowledged(GenesisId),
}

/// Why bytes do not decode to a message of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// A kind of message that a later version added. The receiver drops it like a lost message and keeps the link.
    UnknownKind {
        /// The kind's number, from 0.
        kind: u32,
    },
    /// The bytes are not the encoding of a message.
    Malformed(DecodeError),
}

impl Message {
    /// The number of kinds that this build knows. New kinds are added at the end.
    pub const KINDS: u32 = 11;

    /// About how many bytes the message has beside its envelope: the payloads that it carries.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        /// Bytes of one update about a member, and of one load.
        const UPDATE_BYTES: usize = 80;
        const LOAD_BYTES: usize = 40;
        match self {
            Self::Raft { message: raft::Message::Append { entries, .. }, .. } => {
                entries.iter().map(raft::Entry::payload_bytes).sum()
            }
            Self::Raft { message: raft::Message::SnapshotChunk { data, .. }, .. } => data.len(),
            Self::Replication {
                message:
                    replication::Message::Delta { writes, .. }
                    | replication::Message::Page { writes, .. },
                ..
            } => writes.iter().map(Bytes::len).sum(),
            Self::Gossip { message: gossip, .. } => {
                UPDATE_BYTES * gossip.updates.len() + LOAD_BYTES * gossip.loads.len()
            }
            Self::Forward { request: Request::Write { mutations, .. }, .. } => {
                mutations.iter().map(Mutation::payload_bytes).sum()
            }
            _ => 0,
        }
    }

    /// The genesis that a message of the protocols belongs to.
    #[must_use]
    pub const fn genesis(&self) -> Option<GenesisId> {
        match self {
            Self::Raft { genesis, .. }
            | Self::Replication { genesis, .. }
            | Self::Gossip { genesis, .. } => Some(*genesis),
            Self::Genesis { genesis, .. } => *genesis,
            Self::Founding(_)
            | Self::Contacts(_)
            | Self::Forward { .. }
            | Self::Answer { .. }
            | Self::Refused { .. }
            | Self::Confirm(_)
            | Self::Confirmed(_) => None,
        }
    }

    fn is_later(kind: u32) -> bool {
        kind >= Self::KINDS && !mutant!("node.message.unknown_is_garbage")
    }

    /// Decodes a message that a peer sent. Reads at most `limit` bytes.
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
