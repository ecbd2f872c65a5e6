//! Discovery: where nodes may be found. A candidate becomes a peer only after a verified handshake.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::node::{Identity, Unverified};

/// Where a node may be reached: `host:port`, at most [`crate::limits::ADDRESS_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address(pub String);

/// A place and, when known, who should be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// Who answers there, as last verified.
    pub node: Option<NodeId>,
    /// Where.
    pub address: Address,
}

/// Where candidates come from. Each is resolved by the driver; the answer comes back as an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// The operator's list.
    Bootstrap,
    /// What peers told.
    Peers,
}

/// What the machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A source was resolved, to possibly nothing.
    Resolved {
        /// The source.
        source: Source,
        /// What it named.
        peers: Vec<Contact>,
    },
    /// A verified peer told of contacts that it verified.
    Told {
        /// Who told.
        from: NodeId,
        /// What.
        contacts: Vec<Contact>,
    },
    /// An address was dialled.
    Verified {
        /// The address.
        address: Address,
        /// Who proved to be there, or why nobody did.
        outcome: Result<Identity, Unverified>,
    },
    /// A link to a peer is up.
    Connected {
        /// Who.
        peer: NodeId,
    },
    /// The link to a peer is down.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// Gossip or the registry knows where a member is.
    Located {
        /// Who.
        node: NodeId,
        /// Where.
        address: Address,
    },
}

/// What the machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Ask a source.
    Resolve {
        /// The source.
        source: Source,
    },
    /// Dial an address.
    Verify {
        /// The address.
        address: Address,
    },
    /// A peer proved to be at an address: keep a link to it.
    Found {
        /// Who.
        identity: Identity,
        /// Where.
        address: Address,
    },
    /// Tell a peer of verified contacts.
    Tell {
        /// Whom.
        to: NodeId,
        /// What.
        contacts: Vec<Contact>,
    },
    /// The verified contacts changed: make them durable.
    Remember {
        /// All of them.
        contacts: Vec<Contact>,
    },
}
