//! The cause of a step: what the laws need of the event that a node was given.
//!
//! The event itself is consumed by the step, so this is extracted before it. Nothing is judged here.

use bytes::Bytes;
use continuum_core::api::{Outcome, Query, Reason, Request};
use continuum_core::id::{GenesisId, GroupId, Index, NodeId, Replica, RequestId};
use continuum_core::node::{Event, Message};
use continuum_core::raft::{self, Position};

use super::answer_to_its_own_try::Forwarding;
use super::one_process_per_identity::Identified;
use super::views::Heard;
use crate::trace::fingerprint;
use crate::workload::history::Space;

/// The keys of the strong namespace that a request concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Reads this key.
    Read(Bytes),
    /// Writes these keys.
    Write(Vec<Bytes>),
    /// Reads a namespace that is not the strong one.
    ReadOther(String, Query),
    /// Concerns another namespace or none.
    Other,
}

/// The facts about an event that the oracles need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause {
    /// The content of the event, if it was gossip.
    pub(crate) heard: Heard,
    /// The event was a message other than gossip.
    pub(crate) is_other_message: bool,
    /// The step sends messages that earlier steps made: writes became durable, or a process that was suspended goes on.
    pub(crate) releases: bool,
    /// If the event was an append: its group, and the index of the last entry that it vouches for.
    pub(crate) append: Option<(GroupId, Index)>,
    /// If the event was a request for a vote: the group, the candidate, and the last entry of the candidate's log.
    pub(crate) asks: Option<(GroupId, NodeId, Position)>,
    /// If the event was a follower's read: the group, the follower, and the read's number there.
    pub(crate) read_index: Option<(GroupId, NodeId, u64)>,
    /// If the event was a client's request: its id, and what it asks.
    pub(crate) request: Option<(RequestId, Asks)>,
    /// If the event was a forwarded request, or the answer to one.
    pub(crate) forwarding: Option<Forwarding>,
    /// If the event was a message of the protocols: its genesis.
    pub(crate) genesis: Option<GenesisId>,
    /// If the event was a message of a node that says that it is formed: that node.
    pub(crate) formed_peer: Option<NodeId>,
    /// If the event was a link that came up or went down: the node at its other end.
    pub(crate) relinked: Option<NodeId>,
    /// The process was asked to stop.
    pub(crate) stops: bool,
    /// The process was told that its disk is full, or is no longer.
    pub(crate) full: Option<bool>,
    /// If the event was a new link: the process at its other end.
    pub(crate) connected: Option<Identified>,
}

impl Cause {
    pub(crate) fn of(me: Replica, event: &Event) -> Self {
        let mut cause = Self::of_event(me, event);
        match event {
            Event::Received { from, message: Message::Genesis { genesis: Some(_), .. } } => {
                cause.formed_peer = Some(*from);
            }
            Event::Received { message, .. } => cause.genesis = message.genesis(),
            Event::Connected { peer, .. } | Event::Unreachable { peer } => {
                cause.relinked = Some(*peer);
            }
            _ => {}
        }
        cause
    }

    fn of_event(me: Replica, event: &Event) -> Self {
        match event {
            Event::Received { from, message: Message::Gossip { message, .. } } => {
                Self { heard: Heard::of(me, *from, message), ..Self::default() }
            }
            Event::Received { from, message: Message::Raft { group, message, .. } } => {
                Self::of_raft(*from, *group, message)
            }
            Event::Received { from, message } => Self {
                is_other_message: true,
                releases: matches!(message, Message::Confirmed(_)),
                forwarding: forwarding(*from, message),
                ..Self::default()
            },
            Event::Stopping => Self { stops: true, ..Self::default() },
            Event::StorageFull { full, .. } => Self { full: Some(*full), ..Self::default() },
            Event::Persisted { .. } => Self { releases: true, ..Self::default() },
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
                cause.append =
                    Some((group, Index(prev.index.0.saturating_add(entries.len() as u64))));
            }
            raft::Message::Vote { last, .. } => cause.asks = Some((group, from, *last)),
            raft::Message::ReadIndex { id } => cause.read_index = Some((group, from, *id)),
            _ => {}
        }
        cause
    }
}

fn forwarding(from: NodeId, message: &Message) -> Option<Forwarding> {
    match message {
        Message::Forward { id, request, .. } => {
            Some(Forwarding::Arrives(from, *id, fingerprint(request)))
        }
        Message::Answer { id, outcome } if decides(outcome) => {
            Some(Forwarding::Answered(from, *id, outcome.clone()))
        }
        _ => None,
    }
}

/// Whether an answer is passed on to the client unchanged. A refusal that concerns the node that was asked is not: the
/// request is tried elsewhere.
const fn decides(outcome: &Outcome) -> bool {
    let again = matches!(
        outcome,
        Outcome::Rejected(
            Reason::NoLeader
                | Reason::NotFormed
                | Reason::Stopping
                | Reason::Busy
                | Reason::Full { .. }
                | Reason::SessionExpired
        )
    );
    !again && !matches!(outcome, Outcome::Unknown { .. })
}

fn asks(request: &Request) -> Asks {
    let strong = Space::Strong.name();
    match request {
        Request::Read { namespace, query: Query::Get { key, .. } } if namespace == strong => {
            Asks::Read(key.clone())
        }
        Request::Read { namespace, query } if namespace != strong => {
            Asks::ReadOther(namespace.clone(), query.clone())
        }
        Request::Write { namespace, mutations, .. } if namespace == strong => {
            Asks::Write(mutations.iter().map(|mutation| mutation.key.clone()).collect())
        }
        _ => Asks::Other,
    }
}
