//! What of an event the laws have to know once the node took it.

use bytes::Bytes;
use continuum_core::api::{Query, Request};
use continuum_core::id::{GroupId, Index, NodeId, RequestId};
use continuum_core::node::{Event, Message};
use continuum_core::raft::{self, Position};

use super::one_process_per_identity::Identified;
use super::views::Heard;
use crate::workload::history::Space;

/// What a request asks of the strong namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// What a key holds.
    Read(Bytes),
    /// A write of these keys.
    Write(Vec<Bytes>),
    /// Nothing.
    Other,
}

/// What of an event the oracles have to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause {
    /// It was gossip, and what that said.
    pub(crate) heard: Heard,
    /// It was another message.
    pub(crate) is_other_message: bool,
    /// Writes became durable: messages leave that were made in earlier steps.
    pub(crate) is_persisted: bool,
    /// The group of the append that it was, and the last entry of which that speaks.
    pub(crate) append: Option<(GroupId, Index)>,
    /// The group and position of the snapshot of which it was a chunk.
    pub(crate) chunk: Option<(GroupId, Position)>,
    /// Who asked for a vote in which group, and where its log ends.
    pub(crate) asks: Option<(GroupId, NodeId, Position)>,
    /// The request that it was.
    pub(crate) request: Option<(RequestId, Asks)>,
    /// Who was at the other end of a new link.
    pub(crate) connected: Option<Identified>,
}

impl Cause {
    pub(crate) fn of(me: NodeId, event: &Event) -> Self {
        match event {
            Event::Received { from, message: Message::Gossip(message) } => {
                Self { heard: Heard::of(me, *from, message), ..Self::default() }
            }
            Event::Received { from, message: Message::Raft { group, message } } => {
                Self::of_raft(*from, *group, message)
            }
            Event::Received { .. } => Self { is_other_message: true, ..Self::default() },
            Event::Persisted { .. } => Self { is_persisted: true, ..Self::default() },
            Event::Connected { peer, store, boot, .. } => {
                let connected = Some(Identified { peer: *peer, store: *store, boot: *boot });
                Self { connected, ..Self::default() }
            }
            Event::Requested { id, request } => {
                Self { request: Some((*id, asks(request))), ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    fn of_raft(from: NodeId, group: GroupId, message: &raft::Message) -> Self {
        let mut cause = Self { is_other_message: true, ..Self::default() };
        match message {
            raft::Message::Append { prev, entries, .. } => {
                cause.append = Some((group, Index(prev.index.0 + entries.len() as u64)));
            }
            raft::Message::Vote { last, .. } => cause.asks = Some((group, from, *last)),
            raft::Message::SnapshotChunk { position, .. } => cause.chunk = Some((group, *position)),
            _ => {}
        }
        cause
    }
}

fn asks(request: &Request) -> Asks {
    let strong = Space::Strong.name();
    match request {
        Request::Read { namespace, query: Query::Get { key, .. } } if namespace == strong => {
            Asks::Read(key.clone())
        }
        Request::Write { namespace, mutations, .. } if namespace == strong => {
            Asks::Write(mutations.iter().map(|mutation| mutation.key.clone()).collect())
        }
        _ => Asks::Other,
    }
}
