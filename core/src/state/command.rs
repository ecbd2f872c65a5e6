//! Commands: the payload of a log entry, and the reply of the state machine to it.
//!
//! The proposing node encodes a command once. Later builds append operations; a replica that does not know one halts,
//! because skipping it would fork the state.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::api::{
    Bootstrap, Bound, MemberInfo, Mutation, Namespace, Policy, Reason, Secret, Session,
};
use crate::codec::{self, DecodeError};
use crate::id::{Index, NamespaceId, NodeId};
use crate::limits::REQUEST_BYTES_MAX;
use crate::reach;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The client session and the number of the write in it, so that the command happens once, however often it is in
    /// the log. `None`: it happens each time.
    pub session: Option<Session>,
    /// The change to make.
    pub operation: Operation,
}

/// The change that a command makes. The registry takes all but `Write`, a group of keys takes `Write` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Begin the federation with these members, and with this first key for contexts. Only the first command of the
    /// registry may be this one.
    Bootstrap(Bootstrap, Secret),
    /// Let a member in as a learner, or change the name or address of one.
    Join(MemberInfo),
    /// Create a namespace.
    CreateNamespace {
        /// The name, unique in the federation.
        name: String,
        /// Its consistency, and how it is replicated.
        policy: Policy,
    },
    /// Delete a namespace. Its number is never used again.
    DeleteNamespace {
        /// The name of an existing namespace.
        name: String,
    },
    /// Change keys: all mutations, or none.
    Write {
        /// Applied in this order, to at most [`crate::limits::BATCH_WRITES_MAX`] keys.
        mutations: Vec<Mutation>,
    },
    /// Seal contexts with this key from now on. The one before the present key is no longer valid.
    RotateKey {
        /// Drawn by the node that was asked.
        secret: Secret,
    },
}

/// The result of a command. It is the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The federation has begun.
    Bootstrapped,
    /// The member is let in, or changed.
    Joined {
        /// The node of the member.
        node: NodeId,
    },
    /// The namespace exists.
    Created {
        /// The namespace, with its new numbers.
        namespace: Namespace,
    },
    /// The namespace is gone.
    Deleted {
        /// The number that it had. No later namespace gets it.
        namespace: NamespaceId,
    },
    /// Contexts are sealed with a new key.
    KeyRotated {
        /// The number of the key.
        number: u32,
    },
    /// All mutations were applied.
    Written {
        /// The index of the command: the revision of every key that it wrote.
        revision: Index,
        /// Whether something was there before; see [`crate::api::Receipt`].
        existed: bool,
    },
    /// The command changed nothing, for this reason.
    Rejected(Reason),
}

impl Command {
    /// The bytes that go into the log.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfBounds`] when the encoding is longer than [`REQUEST_BYTES_MAX`]. No other bytes may be proposed:
    /// a command that is too long to decode would halt its group.
    pub fn encode(&self) -> Result<Bytes, Reason> {
        let bytes = codec::encode(self);
        if bytes.len() > REQUEST_BYTES_MAX {
            reach!("state.command.too_long");
            let limit = REQUEST_BYTES_MAX as u64;
            return Err(Reason::OutOfBounds { what: Bound::Request, limit });
        }
        Ok(bytes)
    }

    /// Reads a command from the log.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when this build does not know the command, or when it is longer than a request may be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, REQUEST_BYTES_MAX)
    }
}
