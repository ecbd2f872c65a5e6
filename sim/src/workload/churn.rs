//! Churn clients: each creates a namespace, fills it, reads it and deletes it, again and again. The writes of some are
//! large (`Kind::Churn`, `Kind::Bulk`).
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
use continuum_core::limits::{BATCH_WRITES_MAX, EDITS_MAX};

use crate::plan::fault::{Fault, Kind};
use crate::rng::{Draws, stream};

/// Number of writes to one namespace.
const WRITES: (u64, u64) = (2, 9);
/// Number of writes with keys of their own in one namespace. Later ones write the same keys again.
const KEYS: u64 = 4;
/// The set to which large writes add members.
const SET: &[u8] = b"set";
/// Writes of this many keys are many, and each has keys of its own: the namespace grows to the size of a small one in
/// production.
const HUGE: u64 = 2_000;
/// The least and the most number of such writes.
const HUGE_WRITES: (u64, u64) = (8, 25);
/// The most keys of one page.
const PAGE: u64 = 200;

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
    /// Delete the set of large writes, without a word of what is in it.
    Clear,
    Delete,
}

/// One churn client.
#[derive(Debug)]
pub(crate) struct ChurnClient {
    pub(crate) fault: usize,
    /// Its kind of fault.
    pub(crate) kind: Kind,
    /// The number of keys in each write.
    size: u64,
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
    pub(crate) fn new(fault: usize, planned: &Fault, draws: Draws) -> Self {
        Self {
            fault,
            kind: planned.kind,
            size: planned.amount.clamp(1, BATCH_WRITES_MAX as i64) as u64,
            window: (planned.at_ms, planned.for_ms),
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
        let nature = if self.is_bulk() { "bulk" } else { "tenant" };
        format!("{nature}-{at_ms}-{for_ms}-{incarnation}")
    }

    /// The name of the present namespace.
    pub(crate) fn name(&self) -> String {
        self.name_of(self.incarnation)
    }

    fn is_bulk(&self) -> bool {
        self.kind == Kind::Bulk
    }

    /// The id of one of its random streams.
    pub(crate) fn stream(&self, label: &str) -> u64 {
        stream(label, self.window.0 << 32 | self.window.1) ^ u64::from(self.is_bulk())
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
        let (low, high) = if self.size < HUGE { WRITES } else { HUGE_WRITES };
        self.draws.between(name, self.incarnation, low, high)
    }

    /// Number of writes with keys of their own.
    const fn keys(&self) -> u64 {
        if self.size < HUGE { KEYS } else { HUGE_WRITES.1 }
    }

    /// The keys of a write.
    fn keys_of(&self, count: u64) -> impl Iterator<Item = Bytes> + use<> {
        let (group, bulk) = (count % self.keys(), self.is_bulk());
        let key = move |at| if bulk { format!("k{group}.{at:04}") } else { format!("k{group}") };
        (0..self.size).map(move |at| key(at).into())
    }

    /// The value of a write, the same under all of its keys.
    fn value(&self, count: u64) -> Bytes {
        format!("{}.{count}", self.incarnation).into()
    }

    /// All that a write changes.
    fn mutations(&self, count: u64) -> Vec<Mutation> {
        let put = || Edit { field: Bytes::new(), change: Change::Put(self.value(count)) };
        let put = |key| Mutation { key, edits: vec![put()], context: None };
        let mut mutations: Vec<Mutation> = self.keys_of(count).map(put).collect();
        if self.is_bulk() && self.policy() != Policy::Strong {
            mutations.truncate(BATCH_WRITES_MAX - 1);
            let member = |at| Change::Add(format!("{count}.{at}").into());
            let add = |at| Edit { field: Bytes::new(), change: member(at) };
            let edits = (0..self.size.min(EDITS_MAX as u64)).map(add).collect();
            mutations.push(Mutation { key: SET.into(), edits, context: None });
        }
        mutations
    }

    /// A read of the present namespace.
    fn query(&self, count: u64) -> Query {
        let key = || self.keys_of(count).next().unwrap_or_default();
        if !self.is_bulk() {
            return Query::Get { key: key(), field: Bytes::new() };
        }
        let limit = PAGE.min(1 + self.size) as u32;
        match count % 2 {
            0 => Query::Keys { prefix: Bytes::from_static(b"k"), after: Some(key()), limit },
            _ => Query::Rows { after: Some(key()), limit },
        }
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
                let (mutations, session) = (self.mutations(count), Some(self.session(count)));
                Request::Write { namespace, mutations, level: Level::Durable, session }
            }
            Stage::Check(count) => Request::Read { namespace, query: self.query(count) },
            Stage::Clear => {
                let edits = vec![Edit { field: Bytes::new(), change: Change::Delete }];
                let mutations = vec![Mutation { key: SET.into(), edits, context: None }];
                let session = Some(self.session(self.writes()));
                Request::Write { namespace, mutations, level: Level::Durable, session }
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
                let value = self.value(count);
                self.acknowledged.extend(self.keys_of(count).map(|key| (key, value.clone())));
                if count + 1 < self.writes() { Stage::Fill(count + 1) } else { Stage::Check(0) }
            }
            Stage::Check(count) if count + 1 < self.writes() => Stage::Check(count + 1),
            Stage::Check(_) if self.is_bulk() => Stage::Clear,
            Stage::Check(_) | Stage::Clear => Stage::Delete,
            Stage::Delete => {
                self.acknowledged.clear();
                self.incarnation += 1;
                Stage::Create
            }
        };
    }
}
