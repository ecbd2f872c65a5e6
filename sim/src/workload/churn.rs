//! Churn clients: each creates a namespace, fills it, reads it and deletes it, again and again (`Kind::Churn`).
//!
//! A churn client has one request at a time, and repeats it on another node until the answer is certain. So in the end
//! it knows whether its namespace exists and what it holds. When its fault ends, it stops as soon as it knows. The law
//! `deleted_is_gone` judges the result; this module does not. Random draws depend on the client and the number of the
//! request.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Fingerprint, Level, Mutation, Outcome, Policy, Query, Reason, Request, Session,
    Strategy,
};
use continuum_core::id::SessionId;

use crate::rng::{Draws, stream};

/// Number of writes to one namespace.
const WRITES: (u64, u64) = (2, 9);
/// Number of keys in one namespace. Some are written more than once.
const KEYS: u64 = 4;

/// One namespace in this many has its client replace the key that seals contexts.
const ROTATES: u64 = 8;
/// How often a client creates its namespace twice, in parts per million.
const AGAIN_PPM: u64 = 300_000;

const NATURE: &str = "tenant.nature";
const AGAIN: &str = "tenant.again";

const EVENTUAL: Policy =
    Policy::Eventual { strategy: Strategy::LastWriterWins, slots: 1, discard: false };

/// The next thing that a churn client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Create,
    /// Create it once more, with another policy: it exists.
    CreateAgain,
    /// Replace the key that seals contexts, as an operator does from time to time.
    Rotate,
    /// This many writes were acknowledged.
    Fill(u64),
    /// This many reads were answered.
    Check(u64),
    Delete,
}

/// One churn client.
#[derive(Debug)]
pub(crate) struct ChurnClient {
    pub(crate) fault: usize,
    /// Names the client and its streams. The index of its fault would change when others are left out.
    window: (u64, u64),
    draws: Draws,
    /// Number of the present namespace.
    pub(crate) incarnation: u64,
    pub(crate) stage: Stage,
    /// The request that it waits for, or sends next.
    pub(crate) number: u64,
    /// Whether the request was sent, so that it may still take effect.
    pub(crate) is_waiting: bool,
    /// The values that were acknowledged in the present namespace.
    pub(crate) acknowledged: BTreeMap<Bytes, Bytes>,
    /// The name of a namespace that it was told it has created, although it existed.
    pub(crate) created_twice: Option<String>,
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
            created_twice: None,
        }
    }

    /// The name of one of its namespaces. Names are not reused: a node that has not learnt of a deletion still serves
    /// the old namespace under its name.
    pub(crate) fn name_of(&self, incarnation: u64) -> String {
        let (at_ms, for_ms) = self.window;
        format!("tenant-{at_ms}-{for_ms}-{incarnation}")
    }

    /// The name of the present namespace.
    pub(crate) fn name(&self) -> String {
        self.name_of(self.incarnation)
    }

    /// The id of one of its random streams.
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

    /// Number of writes to, and of reads from, the present namespace.
    fn writes(&self) -> u64 {
        let name = self.stream(NATURE) ^ 2;
        self.draws.between(name, self.incarnation, WRITES.0, WRITES.1)
    }

    /// The key and the value of a write.
    fn write(&self, count: u64) -> (Bytes, Bytes) {
        let key = format!("k{}", count % KEYS);
        (key.into(), format!("{}.{count}", self.incarnation).into())
    }

    /// A retry carries the same session: a late first attempt must not undo later writes.
    fn session(&self, seq: u64) -> Session {
        let mut id = [0; 16];
        let (at, by) = self.window;
        id[..8].copy_from_slice(&(at << 32 | by).to_be_bytes());
        id[8..].copy_from_slice(&self.incarnation.to_be_bytes());
        Session { id: SessionId(id), seq, request: Fingerprint::default() }
    }

    pub(crate) fn request(&self) -> Request {
        let namespace = self.name();
        match self.stage {
            Stage::Create => {
                let session = Some(self.session(0));
                Request::CreateNamespace { name: namespace, policy: self.policy(), session }
            }
            Stage::CreateAgain => {
                let policy = match self.policy() {
                    Policy::Strong => EVENTUAL,
                    Policy::Eventual { .. } => Policy::Strong,
                };
                let session = Some(self.session(1));
                Request::CreateNamespace { name: namespace, policy, session }
            }
            Stage::Rotate => Request::RotateKey { session: Some(self.session(2)) },
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
                Request::DeleteNamespace { name: namespace, session: Some(self.session(3)) }
            }
        }
    }

    /// Takes a reply. After an uncertain one the request is repeated.
    pub(crate) fn on_reply(&mut self, outcome: &Outcome) {
        self.number += 1;
        let done = match (self.stage, outcome) {
            (Stage::CreateAgain, Outcome::Committed { .. } | Outcome::Value(_)) => {
                self.created_twice = Some(self.name());
                true
            }
            (Stage::CreateAgain, Outcome::Rejected(Reason::NamespaceExists)) => true,
            (_, Outcome::Committed { .. } | Outcome::Value(_)) => true,
            // An earlier attempt created it, and its reply was lost.
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
            Stage::Create if self.draws.chance(self.stream(AGAIN), self.incarnation, AGAIN_PPM) => {
                Stage::CreateAgain
            }
            Stage::Create | Stage::CreateAgain if self.incarnation % ROTATES == 1 => Stage::Rotate,
            Stage::Create | Stage::CreateAgain | Stage::Rotate => Stage::Fill(0),
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
