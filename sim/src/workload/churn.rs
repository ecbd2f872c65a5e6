//! Tenants: each makes a namespace, fills it, looks into it and deletes it, again and again (`Kind::Churn`).
//!
//! A tenant asks one thing at a time, and asks it again, of another node, until the answer is certain; so in the end it
//! knows whether its namespace is there and what it was told of it. When its fault ends it stops as soon as that is so.
//! What must be there in the end is judged in `oracle/deleted_is_gone`. Chance is by position: tenant and turn.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Level, Mutation, Outcome, Policy, Query, Reason, Request, Session, Strategy,
};
use continuum_core::id::SessionId;

use crate::rng::{Draws, stream};

/// Writes to one namespace.
const WRITES: (u64, u64) = (2, 9);
/// Keys of one namespace: some are written more than once.
const KEYS: u64 = 4;

const NATURE: &str = "tenant.nature";

/// What a tenant wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Create,
    /// So many writes were acknowledged.
    Fill(u64),
    /// So many reads were answered.
    Check(u64),
    Delete,
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct ChurnClient {
    pub(crate) fault: usize,
    /// What it is called and drawn by: not the fault's place, which moves when others are left out.
    window: (u64, u64),
    draws: Draws,
    /// Which of its namespaces this is.
    pub(crate) incarnation: u64,
    pub(crate) stage: Stage,
    /// The request that it waits for, or makes next.
    pub(crate) number: u64,
    /// Whether what it wants was asked for, so that it may happen yet.
    pub(crate) is_waiting: bool,
    /// What was acknowledged of the namespace that is there.
    pub(crate) acknowledged: BTreeMap<Bytes, Bytes>,
}

impl ChurnClient {
    pub(crate) const fn new(fault: usize, window: (u64, u64), draws: Draws) -> Self {
        Self {
            fault,
            window,
            draws,
            incarnation: 0,
            stage: Stage::Create,
            number: 0,
            is_waiting: false,
            acknowledged: BTreeMap::new(),
        }
    }

    /// What one of its namespaces is called. Names are not used again: until a node has learnt of a deletion it serves
    /// what was deleted, under that name.
    pub(crate) fn name_of(&self, incarnation: u64) -> String {
        let (at_ms, for_ms) = self.window;
        format!("tenant-{at_ms}-{for_ms}-{incarnation}")
    }

    /// What the namespace is called that it is about.
    pub(crate) fn name(&self) -> String {
        self.name_of(self.incarnation)
    }

    /// The name of one of its streams.
    pub(crate) fn stream(&self, label: &str) -> u64 {
        stream(label, self.window.0 << 32 | self.window.1)
    }

    pub(crate) fn policy(&self) -> Policy {
        let name = self.stream(NATURE);
        if self.draws.chance(name, self.incarnation, 500_000) {
            return Policy::Strong;
        }
        let slots = self.draws.between(name ^ 1, self.incarnation, 1, 3) as u16;
        Policy::Eventual { strategy: Strategy::LastWriterWins, slots, discard: false }
    }

    /// How many writes and reads this namespace gets.
    fn writes(&self) -> u64 {
        let name = self.stream(NATURE) ^ 2;
        self.draws.between(name, self.incarnation, WRITES.0, WRITES.1)
    }

    /// The key and the value of a write.
    fn write(&self, count: u64) -> (Bytes, Bytes) {
        let key = format!("k{}", count % KEYS);
        (key.into(), format!("{}.{count}", self.incarnation).into())
    }

    /// A retry is the same command: what was asked first and comes late must not undo what was asked since.
    fn session(&self, seq: u64) -> Session {
        let mut id = [0; 16];
        let (at, by) = self.window;
        id[..8].copy_from_slice(&(at << 32 | by).to_be_bytes());
        id[8..].copy_from_slice(&self.incarnation.to_be_bytes());
        Session { id: SessionId(id), seq }
    }

    pub(crate) fn request(&self) -> Request {
        let namespace = self.name();
        match self.stage {
            Stage::Create => {
                let session = Some(self.session(0));
                Request::CreateNamespace { name: namespace, policy: self.policy(), session }
            }
            Stage::Fill(count) => {
                let (key, value) = self.write(count);
                let edits = vec![Edit { field: Bytes::new(), change: Change::Put(value) }];
                let mutations = vec![Mutation { key, edits, context: None }];
                let session = Some(self.session(count));
                Request::Write { namespace, mutations, level: Level::Durable, session }
            }
            Stage::Check(count) => {
                let (key, _) = self.write(count);
                Request::Read { namespace, query: Query::Get { key, field: Bytes::new() } }
            }
            Stage::Delete => {
                Request::DeleteNamespace { name: namespace, session: Some(self.session(1)) }
            }
        }
    }

    /// Takes in an answer to what it waits for. One that is not certain changes nothing: it asks again.
    pub(crate) fn on_reply(&mut self, outcome: &Outcome) {
        self.number += 1;
        let done = match (self.stage, outcome) {
            (_, Outcome::Committed { .. } | Outcome::Value(_)) => true,
            // It was made by an attempt of which the answer was lost, and so was that it was.
            (Stage::Create, Outcome::Rejected(Reason::NamespaceExists)) => true,
            _ => false,
        };
        if done {
            self.advance();
        }
    }

    fn advance(&mut self) {
        self.is_waiting = false;
        self.stage = match self.stage {
            Stage::Create => Stage::Fill(0),
            Stage::Fill(count) => {
                let (key, value) = self.write(count);
                self.acknowledged.insert(key, value);
                if count + 1 < self.writes() { Stage::Fill(count + 1) } else { Stage::Check(0) }
            }
            Stage::Check(count) if count + 1 < self.writes() => Stage::Check(count + 1),
            Stage::Check(_) => Stage::Delete,
            Stage::Delete => {
                self.acknowledged.clear();
                self.incarnation += 1;
                Stage::Create
            }
        };
    }
}
