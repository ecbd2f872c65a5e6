//! Law: a majority of voters that is up and soundly linked serves strong writes, while faults go on elsewhere (Raft,
//! §5.6: timing and availability; the bounds are this project's own).
//!
//! Looks at strong writes that arrive at a voter of such a majority, after it has been sound for `SOUND_TIMEOUTS`
//! election timeouts, and compares how each is answered, and when, with the bounds. It does not judge a write once the
//! majority is no longer sound, nor writes at other nodes. A voter whose store was lost a moment ago may have led until
//! then: its loss counts like a crash. Wall clocks and drift are no excuse.
//!
//! Ten timeouts are enough for a leader: two until the followers of a lost one begin an election, six if three
//! elections in a row find no winner, two for slow clocks and for nodes that wait for the leader's first message. From
//! then on an answer takes milliseconds; two timeouts cover a leader that is giving away its office.

use std::collections::BTreeMap;

use continuum_core::api::{Outcome, Reason};
use continuum_core::id::RequestId;

use super::soundness::{Soundness, timeouts_before};
use crate::env::clock::MS;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "majority-serves";

/// Election timeouts for which a majority is sound before a write arrives.
pub(crate) const SOUND_TIMEOUTS: u64 = 10;
/// Election timeouts within which the write is answered.
pub(crate) const ANSWER_TIMEOUTS: u64 = 2;

/// Strong writes that arrived at a node of a sound majority and wait for their answers.
#[derive(Debug)]
pub(crate) struct Requests {
    timeout_ms: u64,
    /// Whether a node may refuse a request as busy.
    few: bool,
    /// By node and request: when it arrived.
    waiting: BTreeMap<(usize, RequestId), u64>,
}

impl Requests {
    pub(crate) const fn new(timeout_ms: u64, few: bool) -> Self {
        Self { timeout_ms, few, waiting: BTreeMap::new() }
    }

    /// Whether a node's majority has been sound since long before `arrived`.
    fn is_served(&self, soundness: &Soundness, node: usize, arrived: u64) -> bool {
        timeouts_before(arrived, SOUND_TIMEOUTS, self.timeout_ms)
            .is_some_and(|since| soundness.is_served(node, since))
    }

    /// A strong write arrives.
    pub(crate) fn arrives(&mut self, soundness: &Soundness, node: usize, id: RequestId, at: u64) {
        if self.is_served(soundness, node, at) {
            self.waiting.insert((node, id), at);
        }
    }

    /// Judges an answer.
    pub(crate) fn answers(
        &mut self,
        soundness: &Soundness,
        node: usize,
        id: RequestId,
        outcome: &Outcome,
    ) -> Verdict {
        let Some(arrived) = self.waiting.remove(&(node, id)) else { return Ok(()) };
        if !self.is_served(soundness, node, arrived) {
            return Ok(());
        }
        if self.is_served_by(outcome) {
            return Ok(());
        }
        let what = format!(
            "node {node} is in a majority that has been sound for {SOUND_TIMEOUTS} election timeouts, and answers a \
             strong write with {outcome:?}"
        );
        Err(Broken::new(NAME, what))
    }

    /// Judges the writes that wait for too long.
    pub(crate) fn look(&mut self, soundness: &Soundness, now: u64) -> Verdict {
        let bound = ANSWER_TIMEOUTS * self.timeout_ms * MS;
        let late: Vec<_> = self.waiting.iter().filter(|(_, at)| now - **at > bound).collect();
        for ((node, id), arrived) in late {
            if self.is_served(soundness, *node, *arrived) {
                let what = format!(
                    "node {node} is in a majority that has been sound for {SOUND_TIMEOUTS} election timeouts, and \
                     {id:?}, a strong write, waits for more than {ANSWER_TIMEOUTS} of them"
                );
                return Err(Broken::new(NAME, what));
            }
        }
        self.waiting.retain(|_, at| now - *at <= bound);
        Ok(())
    }

    /// The process of a node ended.
    pub(crate) fn ended(&mut self, node: usize) {
        self.waiting.retain(|(waits, _), _| *waits != node);
    }

    /// Whether an outcome says what became of the write. A level that no majority promises is missed by right, and a
    /// list of requests that a plan keeps small may be full.
    const fn is_served_by(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Unknown { reached } => reached.is_some(),
            Outcome::Rejected(Reason::Busy) => self.few,
            Outcome::Rejected(Reason::Full { .. }) => false,
            Outcome::Rejected(reason) => !matches!(
                reason,
                Reason::NoLeader
                    | Reason::NotFormed
                    | Reason::Stopping
                    | Reason::GroupHalted { .. }
                    | Reason::UnknownNamespace
            ),
            Outcome::Committed { .. } | Outcome::Partial { .. } | Outcome::Value(_) => true,
        }
    }
}
