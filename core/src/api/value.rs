//! What is read.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Bootstrap, Context, Policy, Status};
use crate::id::{Address, GroupId, Index, NamespaceId, Replica};

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A register.
    Register(Register),
    /// The members of a set, in order.
    Set {
        /// The members.
        members: Vec<Bytes>,
        /// What was read.
        context: Context,
    },
    /// A counter.
    Counter(i128),
    /// A record, or a row of one field.
    Record {
        /// The fields, in order.
        fields: Vec<Field>,
        /// What was read.
        context: Context,
    },
    /// A page of keys.
    Keys {
        /// The keys, in order.
        keys: Vec<Bytes>,
        /// Whether there are more.
        more: bool,
    },
    /// A page of rows.
    Rows {
        /// The rows, in order of their keys.
        rows: Vec<Row>,
        /// Whether there are more.
        more: bool,
    },
    /// What the node knows.
    Status(Status),
    /// The members.
    Members(Vec<Member>),
    /// The namespaces, in order of their names.
    Namespaces(Vec<Namespace>),
    /// The node is a member now.
    Joined(Bootstrap),
    /// The federation is founded.
    Initialized,
}

/// A register as read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The value under the namespace's strategy; `None` when there is none.
    pub value: Option<Bytes>,
    /// All values, when concurrent writes left more than one; the first is `value`.
    pub siblings: Vec<Bytes>,
    /// Strong: the revision of the value.
    pub revision: Option<Index>,
    /// Eventual: what was read.
    pub context: Context,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name; empty for the key's own value.
    pub field: Bytes,
    /// What it holds.
    pub content: Content,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Content {
    /// Values of a register; the first is the one under the namespace's strategy.
    Register(Vec<Bytes>),
    /// Members of a set, in order.
    Set(Vec<Bytes>),
    /// A counter's value.
    Counter(i128),
}

/// All fields of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: Bytes,
    /// Its fields, in order of name and kind.
    pub fields: Vec<Field>,
}

/// A member as seen by the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who and on which disk.
    pub replica: Replica,
    /// The operator's name for it.
    pub name: String,
    /// Where.
    pub address: Address,
    /// Whether it votes in group 0.
    pub voter: bool,
    /// Its health, as this node sees it.
    pub health: Health,
    /// Its boot count as last heard; 0 when never.
    pub boot: u64,
    /// Requests under way on it, as it last reported.
    pub load: u32,
}

/// How well a member is, as one node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// Not heard of yet.
    #[default]
    Unknown,
    /// Answers.
    Healthy,
    /// Suspected, or failing some observations.
    Suspect,
    /// Dead, or failing most observations.
    Unhealthy,
    /// Left on its own.
    Left,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its number.
    pub id: NamespaceId,
    /// Its name.
    pub name: String,
    /// How it is replicated.
    pub policy: Policy,
    /// The group of a strong namespace.
    pub group: Option<GroupId>,
}
