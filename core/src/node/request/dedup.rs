//! Exactly-once for eventual writes, within limits.
//!
//! A session of an eventual write lives on the node that took it, for as long as the process lives and the table has
//! room: the same (session, number) at the same node in the same boot gets the first answer. A retry at another node,
//! or after a restart, writes again. For sets, registers and fields that is the same value once more; a counter counts
//! twice. Strong namespaces keep their sessions in the replicated state and have no such limit.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::api::{Outcome, Session};
use crate::digest::Hasher;
use crate::id::NamespaceId;
use crate::reach;

use super::super::machine::Node;

/// Answers remembered; the oldest goes first.
const ANSWERS_MAX: usize = 16_384;

/// What is known of a session's write.
#[derive(Debug)]
enum State {
    /// It is under way; these requests wait for its answer too.
    InProgress(Vec<u64>),
    Done(Outcome),
}

/// A session's write in one namespace.
pub(super) type SessionWrite = (NamespaceId, Session);

/// Eventual writes with a session, as this process remembers them.
#[derive(Debug, Default)]
pub(super) struct EventualWrites {
    known: BTreeMap<SessionWrite, State>,
    done: VecDeque<SessionWrite>,
}

/// What a session's write is to do.
pub(super) enum Repeat {
    /// It is the first: write.
    First,
    /// It was answered before.
    Answered(Outcome),
    /// The first one is under way: wait for its answer.
    InProgress,
}

impl EventualWrites {
    /// Registers a write, or finds that it is a repeat.
    pub(super) fn begin(&mut self, session: SessionWrite, key: u64) -> Repeat {
        match self.known.get_mut(&session) {
            None => {
                self.known.insert(session, State::InProgress(Vec::new()));
                Repeat::First
            }
            Some(State::Done(outcome)) => Repeat::Answered(outcome.clone()),
            Some(State::InProgress(duplicates)) => {
                duplicates.push(key);
                Repeat::InProgress
            }
        }
    }

    /// The write is answered: who else waits for it. A refused write may be tried again, so it is not remembered.
    fn end(&mut self, session: SessionWrite, outcome: &Outcome) -> Vec<u64> {
        let Some(State::InProgress(duplicates)) = self.known.remove(&session) else {
            return Vec::new();
        };
        if !matches!(outcome, Outcome::Rejected(_)) {
            self.known.insert(session, State::Done(outcome.clone()));
            self.done.push_back(session);
        }
        if self.done.len() > ANSWERS_MAX
            && let Some(oldest) = self.done.pop_front()
        {
            reach!("node.session.forgotten");
            self.known.remove(&oldest);
        }
        duplicates
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        self.known.keys().for_each(|session| hash.value(session));
    }
}

impl Node {
    /// A write that was the first of its session and number ends: so do its duplicates, with the same answer.
    pub(super) fn answer_duplicates(&mut self, session: SessionWrite, outcome: &Outcome) {
        for duplicate in self.requests.eventual_writes.end(session, outcome) {
            reach!("node.session.duplicate");
            self.finish(duplicate, outcome.clone());
        }
    }
}
