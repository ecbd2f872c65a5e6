//! The requests of all clients and the replies they got, in the order of the calls.
//!
//! The checks at the end of a run know only these records. This module does not judge them.

use continuum_core::api::{Level, Mutation, Outcome, Query, Session};
use continuum_core::id::{SessionId, StoreId};

/// The namespaces of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    /// Linearizable, replicated by Raft.
    Strong,
    /// Multi-master; siblings are kept.
    Siblings,
    /// Multi-master; losers are dropped.
    Discard,
}

impl Space {
    pub(crate) const ALL: [Self; 3] = [Self::Strong, Self::Siblings, Self::Discard];

    /// Its name in the federation.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Siblings => "siblings",
            Self::Discard => "discard",
        }
    }
}

/// The request.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Read(Query),
    Write { mutations: Vec<Mutation>, level: Level },
}

/// How the operation ended for the client.
#[derive(Clone, Debug, Default)]
pub(crate) enum Ending {
    /// The client still waits.
    #[default]
    Open,
    /// A certain answer: committed, a value, or a compare-and-set that found another value.
    Answered(Outcome),
    /// It certainly did not happen.
    Nothing,
    /// It may have happened.
    Unknown,
}

/// The node that answered: its process, its store, and how often its disk had lost data by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Responder {
    pub(crate) node: usize,
    pub(crate) generation: u64,
    pub(crate) store: StoreId,
    pub(crate) losses: u64,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// The number of the client.
    pub(crate) client: usize,
    /// Its index among the operations of that client.
    pub(crate) op_index: u64,
    pub(crate) space: Space,
    pub(crate) body: Body,
    pub(crate) session: Option<Session>,
    /// When the client learnt the context that the write carries.
    pub(crate) seen_at: u64,
    pub(crate) called: u64,
    pub(crate) returned: u64,
    pub(crate) ended: Ending,
    /// The node that answered, if one did.
    pub(crate) answered_by: Option<Responder>,
}

impl Operation {
    /// Whether the client knows that the operation happened.
    pub(crate) const fn is_acknowledged(&self) -> bool {
        matches!(self.ended, Ending::Answered(Outcome::Committed { .. } | Outcome::Value(_)))
    }
}

/// All operations of a run.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    /// Number of acknowledged operations.
    pub(crate) acknowledged: u64,
    /// Number of operations that ended unknown.
    pub(crate) unknown: u64,
}

impl History {
    /// Records a call and returns its number.
    pub(crate) fn call(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// Records how an operation ended.
    pub(crate) fn end(&mut self, number: usize, now: u64, ended: Ending, by: Option<Responder>) {
        let operation = &mut self.operations[number];
        operation.returned = now;
        operation.ended = ended;
        operation.answered_by = by;
        self.acknowledged += u64::from(operation.is_acknowledged());
        self.unknown += u64::from(matches!(operation.ended, Ending::Unknown));
    }

    /// The operations of one namespace with their numbers.
    pub(crate) fn of(&self, space: Space) -> impl Iterator<Item = (usize, &Operation)> {
        let all = self.operations.iter().enumerate();
        all.filter(move |(_, operation)| operation.space == space)
    }
}

/// The session of one eventual write: nodes tell such sessions apart from those of strong writes by the namespace.
pub(crate) fn eventual_session_id(client: usize, op_index: u64) -> SessionId {
    session_id(client, 1 << 63 | op_index)
}

/// A session id that no other client has, and no earlier session of this client.
pub(crate) fn session_id(client: usize, count: u64) -> SessionId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(client as u64 + 1).to_be_bytes());
    id[8..].copy_from_slice(&count.to_be_bytes());
    SessionId(id)
}
