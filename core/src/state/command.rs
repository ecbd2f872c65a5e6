//! What a log entry says to a state machine, and what the machine answers.
//!
//! A command is encoded once, by the node that proposes it. Later builds add operations at the end; a replica that does
//! not know one halts, since skipping it would fork the state.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::api::{Bootstrap, Bound, MemberInfo, Mutation, Namespace, Policy, Reason, Session};
use crate::codec::{self, DecodeError};
use crate::id::{Index, NamespaceId, NodeId};
use crate::limits::REQUEST_BYTES_MAX;
use crate::reach;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// With a session the command happens once, however often it is in the log.
    pub session: Option<Session>,
    /// What to do.
    pub operation: Operation,
}

/// What a command does. The registry takes all but `Write`, a group of keys takes `Write` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// The federation begins with these members. Only the first command of the registry can be that.
    Bootstrap(Bootstrap),
    /// A member comes in as a learner, or tells its new name or address.
    Join(MemberInfo),
    /// Create a namespace.
    CreateNamespace {
        /// What it is called.
        name: String,
        /// How it is replicated.
        policy: Policy,
    },
    /// Delete a namespace. Its number is never used again.
    DeleteNamespace {
        /// What it is called.
        name: String,
    },
    /// Change keys: all mutations, or none.
    Write {
        /// The mutations.
        mutations: Vec<Mutation>,
    },
}

/// What a command came to. The same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The federation is bootstrapped.
    Bootstrapped,
    /// The member is in.
    Joined {
        /// Who.
        node: NodeId,
    },
    /// The namespace exists.
    Created {
        /// It.
        namespace: Namespace,
    },
    /// The namespace is gone.
    Deleted {
        /// Which.
        namespace: NamespaceId,
    },
    /// All mutations happened.
    Written {
        /// The command's index, which is the revision of every key that it wrote.
        revision: Index,
    },
    /// Nothing happened.
    Rejected(Reason),
}

impl Command {
    /// The bytes that go into the log.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfBounds`] when they are more than [`REQUEST_BYTES_MAX`]. Only what passes here may be proposed: a
    /// command that is too long to decode would halt its group.
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
    /// [`DecodeError`] when the bytes are no command that this build knows, or longer than a request may be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, REQUEST_BYTES_MAX)
    }
}
