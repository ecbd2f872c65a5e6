//! Law: a node takes an answer only for the very try that it answers (README, Guarantees: what an answer means). So an
//! answer to an earlier process, whose numbers begin anew, is not taken for a request of this one.
//!
//! Compares the request that a process forwarded under a number with the requests that the answering node received
//! under that number, by their content. It judges only answers that are passed on to the client unchanged, because the
//! step that takes one of these shows it. It does not judge whether the answer is true (`linearizable-search`).

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::Outcome;
use continuum_core::id::{AskId, NodeId};
use continuum_core::node::Action;

use super::{Roster, Step};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "answer-to-its-own-try";

/// The event of a step, as far as this law needs it.
#[derive(Clone, Debug)]
pub(crate) enum Forwarding {
    /// A request arrived: the number that its sender gave it, and its fingerprint.
    Arrives(NodeId, AskId, u64),
    /// The answer to this number arrived, and decides the request.
    Answered(NodeId, AskId, Outcome),
}

/// All forwarded requests of a run.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// By sender, receiver and number: the request that the sender's present process forwarded.
    sent: BTreeMap<(usize, usize, AskId), u64>,
    /// By receiver, sender and number: the requests that the receiver ever got.
    arrived: BTreeMap<(usize, usize, AskId), BTreeSet<u64>>,
}

impl Tries {
    /// Notes that a process forwards a request with this fingerprint.
    pub(crate) fn sends(&mut self, from: usize, to: usize, id: AskId, print: u64) {
        self.sent.insert((from, to, id), print);
    }

    /// Whether a node's present process ever forwarded a request to another node.
    pub(crate) fn has_asked(&self, from: usize, to: usize) -> bool {
        let least = AskId { nonce: 0, number: 0 };
        let most = AskId { nonce: u64::MAX, number: u64::MAX };
        self.sent.range((from, to, least)..=(from, to, most)).next().is_some()
    }

    /// Notes that the process of a node ended. Its successor has asked nobody yet.
    pub(crate) fn ended(&mut self, node: usize) {
        self.sent.retain(|(from, ..), _| *from != node);
    }

    /// Judges the step that an arriving request or answer caused.
    pub(crate) fn check(&mut self, step: &Step<'_>, roster: &Roster) -> Verdict {
        match &step.cause.forwarding {
            Some(Forwarding::Arrives(from, id, print)) => {
                let Some(from) = roster.number(*from) else { return Ok(()) };
                self.arrived.entry((step.me, from, *id)).or_default().insert(*print);
                Ok(())
            }
            Some(Forwarding::Answered(from, id, outcome)) => {
                let takes = |action: &Action| matches!(action, Action::Reply { outcome: told, .. } if told == outcome);
                match roster.number(*from).filter(|_| step.actions.iter().any(takes)) {
                    Some(from) => self.check_taken(step.me, from, *id),
                    None => Ok(()),
                }
            }
            None => Ok(()),
        }
    }

    fn check_taken(&self, me: usize, from: usize, id: AskId) -> Verdict {
        let asked = self.sent.get(&(me, from, id));
        let arrived = self.arrived.get(&(from, me, id));
        if asked.is_some_and(|asked| arrived.is_some_and(|arrived| arrived.contains(asked))) {
            return Ok(());
        }
        let what = format!(
            "node {me} takes node {from}'s answer to {id:?}, but node {from} has not received the request \
             that this process of node {me} sent under that number"
        );
        Err(Broken::new(NAME, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_request_or_process_is_seen() {
        let id = |number| AskId { nonce: 3, number };
        let mut tries = Tries::default();
        tries.arrived.entry((1, 0, id(7))).or_default().insert(40);
        tries.sends(0, 1, id(7), 40);
        assert_eq!(tries.check_taken(0, 1, id(7)), Ok(()));
        assert!(tries.check_taken(0, 1, id(8)).is_err(), "it was never asked");
        assert!(tries.check_taken(0, 1, AskId { nonce: 4, number: 7 }).is_err(), "another process");
        tries.ended(0);
        assert!(tries.check_taken(0, 1, id(7)).is_err(), "an earlier process asked");
        tries.sends(0, 1, id(7), 41);
        assert!(tries.check_taken(0, 1, id(7)).is_err(), "it answers another request");
    }
}
