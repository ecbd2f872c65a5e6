//! What clients asked and what they were told, in order of the calls.
//!
//! The record of an operation is all that the end checks know of it; nothing here judges.

use continuum_core::api::{Level, Mutation, Outcome, Query, Session};
use continuum_core::id::{SessionId, StoreId};

/// The namespaces of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    /// Linearizable.
    Strong,
    /// Multi-master, siblings kept.
    Siblings,
    /// Multi-master, losers dropped.
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

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Read(Query),
    Write { mutations: Vec<Mutation>, level: Level },
}

/// How it ended for the client.
#[derive(Clone, Debug, Default)]
pub(crate) enum Ending {
    /// Still waiting.
    #[default]
    Open,
    /// Told for certain: committed, a value, or a compare-and-set that found something else.
    Answered(Outcome),
    /// Certainly nothing happened.
    Nothing,
    /// It may have happened.
    Unknown,
}

/// A node that was asked, in which of its lives, on which store, and how often its disk had lost something by then.
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
    /// Who asked.
    pub(crate) client: usize,
    /// Its place among the operations of that client.
    pub(crate) op_index: u64,
    pub(crate) space: Space,
    pub(crate) body: Body,
    pub(crate) session: Option<Session>,
    /// When the client had learnt what it says it had seen.
    pub(crate) seen_at: u64,
    pub(crate) called: u64,
    pub(crate) returned: u64,
    pub(crate) ended: Ending,
    /// Who answered, if somebody did.
    pub(crate) answered_by: Option<Responder>,
}

impl Operation {
    /// Whether the client knows that it took place.
    pub(crate) const fn is_acknowledged(&self) -> bool {
        matches!(self.ended, Ending::Answered(Outcome::Committed { .. } | Outcome::Value(_)))
    }
}

/// All operations of a run.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    /// How many were acknowledged.
    pub(crate) acknowledged: u64,
    /// How many ended unknown.
    pub(crate) unknown: u64,
}

impl History {
    /// Notes a call; returns its number.
    pub(crate) fn call(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// Notes how an operation ended.
    pub(crate) fn end(&mut self, number: usize, now: u64, ended: Ending, by: Option<Responder>) {
        let operation = &mut self.operations[number];
        operation.returned = now;
        operation.ended = ended;
        operation.answered_by = by;
        self.acknowledged += u64::from(operation.is_acknowledged());
        self.unknown += u64::from(matches!(operation.ended, Ending::Unknown));
    }

    /// Operations of one namespace with their numbers.
    pub(crate) fn of(&self, space: Space) -> impl Iterator<Item = (usize, &Operation)> {
        let all = self.operations.iter().enumerate();
        all.filter(move |(_, operation)| operation.space == space)
    }
}

/// The session of a client: a number that no other client and no earlier session of it has.
pub(crate) fn session_id(client: usize, count: u64) -> SessionId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(client as u64 + 1).to_be_bytes());
    id[8..].copy_from_slice(&count.to_be_bytes());
    SessionId(id)
}
