//! Deduplication of eventual writes: a write with a session happens once, within limits.
//!
//! The table lives in the memory of the node that took the write. A repeat of the same (namespace, session, number) on
//! the same node and in the same boot gets the first answer, as long as that answer is among the last [`ANSWERS_MAX`].
//! A retry on another node, or after a restart, writes again. For sets, registers and fields that writes the same value
//! once more; a counter counts twice. Strong namespaces keep their sessions in the replicated state (`state::session`)
//! and have no such limit.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::api::{Outcome, Session};
use crate::digest::Hasher;
use crate::id::NamespaceId;
use crate::{mutant, reach};

use super::super::machine::Node;

/// Answers remembered; the oldest goes first.
const ANSWERS_MAX: usize = 16_384;

/// The state of a session's write.
#[derive(Debug)]
enum State {
    /// The write is not answered yet; the requests with these keys wait for its answer too.
    InProgress(Vec<u64>),
    Done(Outcome),
}

/// A session's write in one namespace.
pub(super) type SessionWrite = (NamespaceId, Session);

/// Eventual writes with a session that this process remembers.
#[derive(Debug, Default)]
pub(super) struct EventualWrites {
    states: BTreeMap<SessionWrite, State>,
    /// Answered writes, oldest first.
    done: VecDeque<SessionWrite>,
}

/// The table's knowledge of a write when a request for it arrives.
pub(super) enum Repeat {
    /// Nothing: this request performs the write.
    First,
    /// The write was answered before, with this outcome.
    Answered(Outcome),
    /// An earlier request performs the write; this one waits for the same answer.
    InProgress,
}

impl EventualWrites {
    /// Registers a write, or finds that it is a repeat.
    pub(super) fn begin(&mut self, write: SessionWrite, key: u64) -> Repeat {
        match self.states.get_mut(&write) {
            None => {
                self.states.insert(write, State::InProgress(Vec::new()));
                Repeat::First
            }
            Some(State::Done(outcome)) => Repeat::Answered(outcome.clone()),
            Some(State::InProgress(duplicates)) => {
                duplicates.push(key);
                Repeat::InProgress
            }
        }
    }

    /// The write is answered. Returns the keys of the duplicates that wait for the same answer. A refused write is not
    /// remembered, because it may be tried again.
    fn end(&mut self, write: SessionWrite, outcome: &Outcome) -> Vec<u64> {
        let Some(State::InProgress(duplicates)) = self.states.remove(&write) else {
            return Vec::new();
        };
        if !matches!(outcome, Outcome::Rejected(_)) {
            self.states.insert(write, State::Done(outcome.clone()));
            self.done.push_back(write);
        }
        if self.done.len() > ANSWERS_MAX
            && let Some(oldest) = self.done.pop_front()
        {
            reach!("node.session.forgotten");
            self.states.remove(&oldest);
        }
        duplicates
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        self.states.keys().for_each(|write| hash.value(write));
    }
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
