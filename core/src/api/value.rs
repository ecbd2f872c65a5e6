//! The values that reads return.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Bootstrap, Context, ExportCursor, MemberInfo, Policy, Status};
use crate::id::{Address, GroupId, Index, NamespaceId, Replica};

/// The answer to a read. `context`, where there is one, makes a later write supersede exactly what was read.
#[expect(missing_docs, reason = "`context` is explained once, above")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A register.
    Register(Register),
    /// The members of a set.
    Set {
        /// The members in byte order.
        members: Vec<Bytes>,
        context: Context,
    },
    /// The value of a counter.
    Counter(i128),
    /// All fields of one key.
    Record {
        /// The fields in order of name and kind.
        fields: Vec<Field>,
        context: Context,
    },
    /// A page of keys.
    Keys {
        /// The keys in byte order.
        keys: Vec<Bytes>,
        /// Whether further keys follow the last one.
        more: bool,
    },
    /// A page of rows.
    Rows {
        /// The rows in byte order of their keys.
        rows: Vec<Row>,
        /// Whether further rows follow the last one.
        more: bool,
    },
    /// The node's status.
    Status(Box<Status>),
    /// The members of the federation in order of their node ids.
    Members(Vec<Member>),
    /// The namespaces in order of their names.
    Namespaces(Vec<Namespace>),
    /// The node that asked is a member now; the list holds all members.
    Joined(Bootstrap),
    /// The node that was asked does not lead group 0. This one does, and the node that wants to join asks it itself.
    Leader(MemberInfo),
    /// The federation is created.
    Initialized,
    /// A page of an export.
    Export(ExportPage),
}

/// A page of a strong namespace as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPage {
    /// The moment: the last entry that all pages of the export contain.
    pub at: Index,
    /// The rows in byte order of their keys. There may be none although further ones follow.
    pub rows: Vec<Row>,
    /// Where the next page goes on; `None` after the last one.
    pub next: Option<ExportCursor>,
}

/// A register as read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The value that the namespace's strategy chooses; `None` when there is no value.
    pub value: Option<Bytes>,
    /// All values, when concurrent writes left more than one; the first is `value`.
    pub siblings: Vec<Bytes>,
    /// Strong namespaces: the log index that wrote the value.
    pub revision: Option<Index>,
    /// Eventual namespaces: makes a later write supersede exactly what was read.
    pub context: Context,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The field's name; empty for the key's own value.
    pub field: Bytes,
    /// The field's value.
    pub content: Content,
}

/// The value of a field: a register, a set or a counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Content {
    /// The values of a register; the first is the one that the namespace's strategy chooses.
    Register(Vec<Bytes>),
    /// The members of a set in byte order.
    Set(Vec<Bytes>),
    /// The value of a counter.
    Counter(i128),
}

/// All fields of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The row's key.
    pub key: Bytes,
    /// The fields in order of name and kind.
    pub fields: Vec<Field>,
}

/// A member as the node that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node and the store that its promises are on.
    pub replica: Replica,
    /// The operator's name for it.
    pub name: String,
    /// The address at which other nodes reach it.
    pub address: Address,
    /// Whether it votes in group 0.
    pub voter: bool,
    /// Its health, as this node sees it.
    pub health: Health,
    /// Its boot count as last received by gossip; 0 when none was.
    pub boot: u64,
    /// Unanswered requests on it, as it last reported.
    pub load: u32,
}

/// A member's health as one node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// This node has no observation of it yet.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// Gossip suspects it, or some observations failed.
    Suspect,
    /// Gossip declared it dead, or most observations failed.
    Unhealthy,
    /// It announced that it leaves.
    Left,
}

impl Health {
    /// The word for it in answers and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Unhealthy => "unhealthy",
            Self::Left => "left",
        }
    }
}

/// A namespace as the registry holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its number, never used again after a deletion.
    pub id: NamespaceId,
    /// The name that clients use.
    pub name: String,
    /// How it is replicated.
    pub policy: Policy,
    /// The Raft group of a strong namespace; `None` for an eventual one.
    pub group: Option<GroupId>,
}
