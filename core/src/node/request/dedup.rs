//! Deduplication of eventual writes: a write with a session happens once, within limits.
//!
//! The table lives in the memory of the node that took the write. A repeat of the same (namespace, session, number) on
//! the same node and in the same boot gets the first answer, as long as that answer is among the newest ones, up to
//! [`crate::limits::SESSIONS_MAX`] and [`ANSWERS_BYTES_MAX`]. Another request under that number is refused.
//! A retry on another node, or after a restart, writes again. For sets, registers and fields that writes the same value
//! once more; a counter counts twice. Strong namespaces keep their sessions in the replicated state (`state::session`)
//! and have no such limit.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::api::{Fingerprint, Outcome, Receipt, Session};
use crate::digest::Hasher;
use crate::id::{NamespaceId, SessionId};
use crate::limits::SESSION_BYTES;
use crate::{mutant, reach};

use super::super::machine::Node;

/// Bytes of the answers remembered; the oldest goes first. An answer may carry a context.
const ANSWERS_BYTES_MAX: u64 = 48 << 20;

/// The state of a session's write.
#[derive(Debug)]
enum State {
    /// The write is not answered yet; the requests with these keys wait for its answer too.
    InProgress(Vec<u64>),
    Done(Outcome),
}

/// A session's write in one namespace: the number in the session.
pub(super) type SessionWrite = (NamespaceId, SessionId, u64);

/// Eventual writes with a session that this process remembers.
#[derive(Debug)]
pub(super) struct EventualWrites {
    states: BTreeMap<SessionWrite, (Fingerprint, State)>,
    /// Answered writes, oldest first.
    done: VecDeque<SessionWrite>,
    /// Of the answers in `states`.
    bytes: u64,
    /// The bound on `done`: [`SESSIONS_MAX`], lower in the simulator.
    ///
    /// [`SESSIONS_MAX`]: crate::limits::SESSIONS_MAX
    answers_max: usize,
}

/// The table's knowledge of a write when a request for it arrives.
pub(super) enum Repeat {
    /// Nothing: this request performs the write.
    First,
    /// The write was answered before, with this outcome.
    Answered(Outcome),
    /// An earlier request performs the write; this one waits for the same answer.
    InProgress,
    /// The number was given to another request.
    Reused,
}

impl EventualWrites {
    pub(super) const fn new(answers_max: usize) -> Self {
        Self { states: BTreeMap::new(), done: VecDeque::new(), bytes: 0, answers_max }
    }

    /// Registers a write, or finds that it is a repeat.
    pub(super) fn begin(&mut self, namespace: NamespaceId, session: Session, key: u64) -> Repeat {
        let write = (namespace, session.id, session.seq);
        match self.states.get_mut(&write) {
            None => {
                self.states.insert(write, (session.request, State::InProgress(Vec::new())));
                Repeat::First
            }
            Some((request, _))
                if *request != session.request && !mutant!("node.session.any_request") =>
            {
                reach!("node.session.reused");
                Repeat::Reused
            }
            Some((_, State::Done(outcome))) => Repeat::Answered(outcome.clone()),
            Some((_, State::InProgress(duplicates))) => {
                duplicates.push(key);
                Repeat::InProgress
            }
        }
    }

    /// Bytes of the answers remembered.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The write is answered. Returns the keys of the duplicates that wait for the same answer. A refused write is not
    /// remembered, because it may be tried again.
    fn end(&mut self, write: SessionWrite, outcome: &Outcome) -> Vec<u64> {
        let Some((request, State::InProgress(duplicates))) = self.states.remove(&write) else {
            return Vec::new();
        };
        if !matches!(outcome, Outcome::Rejected(_)) {
            self.bytes += weight(outcome);
            self.states.insert(write, (request, State::Done(outcome.clone())));
            self.done.push_back(write);
        }
        while (self.done.len() > self.answers_max || self.bytes > ANSWERS_BYTES_MAX)
            && let Some(oldest) = self.done.pop_front()
        {
            reach!("node.session.forgotten");
            if let Some((_, State::Done(outcome))) = self.states.remove(&oldest) {
                self.bytes -= weight(&outcome);
            }
        }
        duplicates
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        self.states.keys().for_each(|write| hash.value(write));
    }
}

/// The bytes that an answer takes in memory.
fn weight(outcome: &Outcome) -> u64 {
    let context = match outcome {
        Outcome::Committed { receipt: Receipt { context: Some(context), .. }, .. } => {
            context.as_bytes().len()
        }
        _ => 0,
    };
    SESSION_BYTES + context as u64
}

impl Node {
    /// Gives the answer of a session's first request to all its duplicates, once the lane is durable up to `token`.
    pub(super) fn answer_duplicates(&mut self, write: SessionWrite, outcome: &Outcome, token: u64) {
        let boot = self.gate.boot();
        let token = if mutant!("node.session.duplicate_early") { boot } else { token };
        for duplicate in self.requests.eventual_writes.end(write, outcome) {
            reach!("node.session.duplicate");
            self.finish_after(duplicate, outcome.clone(), token);
        }
    }
}
