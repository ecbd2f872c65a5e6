//! Doubt: whether this process is the one that should be there, at its start and once a voter says that it is not.
//!
//! Two processes must never promise with one identity. A process that starts inside a federation cannot know whether
//! its disk is a copy or was rolled back; the other voters can. So it begins *unconfirmed*: it promises nothing,
//! acknowledges nothing, and asks each voter as soon as a link to it is up. It says that it lives, and which federation
//! its disk is in. It stands once a majority of the other
//! voters confirmed it and none that is linked leaves its question unanswered. Voters may be down or unreachable, so it
//! also stands after [`START_GRACE_MS`] in which no voter left a question open and none refused it. An unconfirmed
//! process confirms others, because all of them may start at once.
//!
//! From the first refusal with evidence on, a process is *suspended*: it is as silent, and a majority of the other
//! voters decides. If they count this very process as linked, it goes on. If they refuse it with evidence, it fences
//! itself, and its store is condemned: the next start refuses.
//!
//! No message of a stranger or a learner counts, and one voter alone can at most suspend this process until the others
//! answer, once in [`SETTLED`]. A node that knows no voters is only refused. A process that reaches no voter cannot
//! know whether it is a copy. This module does not judge the processes of peers (`peers`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;

use crate::api::Outcome;
use crate::digest::Hasher;
use crate::id::{AskId, Boot, GroupId, Lineage, NodeId, Replica};
use crate::limits::{START_GRACE_MS, START_WAIT_MS_MAX};
use crate::time::Instant;
use crate::{mutant, reach};

use super::machine::{Node, Timer};
use super::{Action, Condemned, Message, Notice, Refusal};

/// Milliseconds between two questions to the voters while this process is suspended.
const ASK_MS: u64 = 250;
/// The same while it is unconfirmed: the other end of a new link may not take the first question yet.
const ASK_START_MS: u64 = 50;

/// A process stands this long after its start if it reaches no voter.
const START_GRACE: Duration = Duration::from_millis(START_GRACE_MS);

/// After the voters confirmed this process, a refusal of the same voter does not suspend it again for this long. It
/// counts when another voter's does.
const SETTLED: Duration = Duration::from_secs(600);

/// The last word of a voter about this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Word {
    /// It counts this process as linked.
    Confirmed,
    /// It refused this process with evidence. Answers to questions up to this number are older than that.
    Refused(Refusal, Boot, u64),
}

/// The doubt about this process.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// When this process was suspended, or began unconfirmed, if it is.
    since: Option<Instant>,
    /// Whether it is unconfirmed, and no voter refused it.
    unconfirmed: bool,
    /// The voters that left the question of an unconfirmed process open, and until when it waits for them.
    open: BTreeMap<Replica, Instant>,
    /// The voter whose word began the suspension.
    by: Option<Replica>,
    /// The last word of each voter.
    words: BTreeMap<Replica, Word>,
    /// Until when a voter's refusal does not suspend again.
    settled: BTreeMap<Replica, Instant>,
    /// The number of the first question of this doubt, and of the newest one.
    first: u64,
    asked: u64,
    /// When the next question is due.
    due: Option<Instant>,
}

impl Doubt {
    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.since, self.unconfirmed, &self.open, self.first, self.asked));
        self.words.iter().for_each(|word| hash.value(&word));
    }

    /// When an unconfirmed process stands although voters have not answered.
    fn stands_at(&self) -> Option<Instant> {
        let since = self.since.filter(|_| self.unconfirmed)?;
        let open = self.open.values().copied().max().unwrap_or(since);
        let most = since + Duration::from_millis(START_WAIT_MS_MAX);
        Some(open.max(since + START_GRACE).min(most))
    }
}

impl Node {
    /// Whether this process is silent: a voter refused it, or it has just started and is not confirmed.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        self.doubt.since.is_some()
    }

    /// Whether this process has just started, and waits until the voters confirm it.
    #[must_use]
    pub const fn is_unconfirmed(&self) -> bool {
        self.doubt.unconfirmed
    }

    /// Part of the first step: a process in a federation with other voters begins unconfirmed.
    pub(super) fn begin_unconfirmed(&mut self) {
        if self.other_voters().is_empty() || mutant!("node.start.unconfirmed_serves") {
            return;
        }
        reach!("node.start.unconfirmed");
        self.doubt.since = Some(self.now.mono);
        self.doubt.unconfirmed = true;
        self.gate.hold(true);
        self.begin_questions();
    }

    /// A peer's link is up. A voter among them is asked at once.
    pub(super) fn on_doubt_connected(&mut self, peer: Replica) {
        if !self.is_suspended() || !self.other_voters().contains(&peer) {
            return;
        }
        if self.is_unconfirmed() && !self.doubt.words.contains_key(&peer) {
            let until = self.doubt.open.get(&peer).copied().unwrap_or_default();
            self.doubt.open.insert(peer, until.max(self.now.mono + START_GRACE));
        }
        self.ask_voter(peer);
    }

    /// A peer refuses this process.
    pub(super) fn on_refused_by(&mut self, from: Replica, refusal: Refusal, known: Boot) {
        reach!("node.peers.refused_by_peer");
        self.notify(Notice::RefusedBy { peer: from.node, reason: refusal, known });
        let votes = self.other_voters().contains(&from);
        if refusal == Refusal::Linked {
            if votes && self.is_unconfirmed() && !mutant!("node.start.linked_is_no") {
                self.on_linked_still(from);
            }
            return;
        }
        if !votes {
            return self.rejected(from.node, "a refusal of no voter");
        }
        if !contradicts((self.boot, &self.lineage), refusal, known) {
            return self.rejected(from.node, "a refusal without evidence");
        }
        if mutant!("node.doubt.goes_on") {
            self.doubt.words.insert(from, Word::Confirmed);
            return self.decide_doubt();
        }
        self.doubt.words.insert(from, Word::Refused(refusal, known, self.doubt.asked));
        if self.doubt.settled.get(&from).is_some_and(|until| *until > self.now.mono) {
            reach!("node.doubt.settled");
        } else {
            self.suspend(from);
        }
        self.decide_doubt();
    }

    /// A voter asks the process before this one whether it lives. It knows within its clone window.
    fn on_linked_still(&mut self, from: Replica) {
        reach!("node.start.linked_still");
        self.doubt.words.remove(&from);
        let window = Duration::from_millis(self.config.node.clone_window_ms);
        self.doubt.open.insert(from, self.now.mono + window + START_GRACE);
    }

    /// A peer says that it counts this process as linked, or that it lives.
    pub(super) fn on_confirmed(&mut self, from: Replica, id: AskId) {
        if id.nonce != self.boot.nonce {
            return;
        }
        self.peers.confirmed(from.node, id.number);
        if !self.is_suspended() || id.number < self.doubt.first {
            return;
        }
        let is_old = |word: &Word| matches!(word, Word::Refused(.., asked) if id.number <= *asked);
        let is_old = self.doubt.words.get(&from).is_some_and(is_old);
        let counts = self.other_voters().contains(&from) || mutant!("node.doubt.learner_counts");
        if counts && !is_old {
            self.doubt.words.insert(from, Word::Confirmed);
            self.doubt.open.remove(&from);
        }
        self.decide_doubt();
    }

    /// The timer: asks the voters that are linked, as long as the doubt lasts.
    pub(super) fn on_doubt_due(&mut self) {
        let Some(since) = self.doubt.since else { return };
        if self.doubt.stands_at().is_some_and(|at| at <= self.now.mono) {
            reach!("node.start.stands_alone");
            return self.resume();
        }
        self.ask_voters();
        let timeout = Duration::from_millis(self.config.node.request_timeout_ms);
        if self.now.mono.since(since) >= timeout {
            self.answer_held();
        }
    }

    fn suspend(&mut self, by: Replica) {
        let unconfirmed = core::mem::take(&mut self.doubt.unconfirmed);
        self.doubt.open.clear();
        if self.is_suspended() && !unconfirmed {
            return;
        }
        reach!("node.doubt.suspended");
        self.doubt.by = Some(by);
        self.gate.hold(true);
        self.notify(Notice::Suspended { suspended: true });
        if unconfirmed {
            // Its timer asks already.
            return;
        }
        self.doubt.since = Some(self.now.mono);
        self.begin_questions();
    }

    fn begin_questions(&mut self) {
        self.doubt.first = self.doubt.asked + 1;
        self.ask_voters();
    }

    fn ask_voters(&mut self) {
        self.doubt.asked = self.ask_number();
        for voter in self.other_voters() {
            self.ask_voter(voter);
        }
        if let Some(at) = self.doubt.due.take() {
            self.disarm(at, Timer::Doubt);
        }
        let after = if self.is_unconfirmed() { ASK_START_MS } else { ASK_MS };
        self.doubt.due = Some(self.arm(Duration::from_millis(after), Timer::Doubt));
    }

    fn ask_voter(&mut self, voter: Replica) {
        let id = AskId { nonce: self.boot.nonce, number: self.doubt.asked };
        self.send(voter, Message::Confirm(id));
    }

    /// Goes on or fences itself, once a majority of the other voters says the same.
    fn decide_doubt(&mut self) {
        let others = self.other_voters();
        let majority = if mutant!("node.doubt.one_is_enough") { 1 } else { others.len() / 2 + 1 };
        self.doubt
            .words
            .retain(|voter, _| others.contains(voter) || mutant!("node.doubt.learner_counts"));
        let refused: Vec<_> = self
            .doubt
            .words
            .iter()
            .filter_map(|(voter, word)| match word {
                Word::Refused(refusal, known, _) => Some((voter.node, (*refusal, *known))),
                Word::Confirmed => None,
            })
            .collect();
        if refused.len() >= majority {
            return self.condemn(&refused);
        }
        let confirmed = self.doubt.words.len() - refused.len();
        if self.is_unconfirmed() && confirmed > 0 && mutant!("node.start.one_is_enough") {
            return self.resume();
        }
        if self.is_suspended() && confirmed >= majority && !self.is_any_silent(&others) {
            self.resume();
        }
    }

    /// Whether a linked voter has not answered an unconfirmed process yet.
    fn is_any_silent(&self, others: &[Replica]) -> bool {
        let is_silent =
            |voter: &Replica| self.peers.is_linked(*voter) && !self.doubt.words.contains_key(voter);
        self.is_unconfirmed() && others.iter().any(is_silent)
    }

    /// This process stands: it may promise from now on.
    fn resume(&mut self) {
        let until = self.now.mono + SETTLED;
        let words = core::mem::take(&mut self.doubt.words);
        self.doubt.settled.retain(|_, until| *until > self.now.mono);
        let refused = words.into_iter().filter(|(_, word)| *word != Word::Confirmed);
        let refused = refused.map(|(voter, _)| voter).chain(self.doubt.by.take());
        self.doubt.settled.extend(refused.map(|voter| (voter, until)));
        self.doubt.since = None;
        self.gate.hold(false);
        self.release_held();
        self.doubt.open.clear();
        if core::mem::take(&mut self.doubt.unconfirmed) {
            reach!("node.start.stands");
        } else {
            reach!("node.doubt.resumed");
            self.notify(Notice::Suspended { suspended: false });
        }
        // The machines' messages were dropped meanwhile.
        self.tell_links();
    }

    /// A majority of the other voters knows that this process must not be there.
    fn condemn(&mut self, refused: &[(NodeId, (Refusal, Boot))]) {
        reach!("node.doubt.condemned");
        let Some((_, (reason, known))) = refused.last().copied() else { return };
        self.fence(match reason {
            Refusal::StaleBoot => "peers know a later process of this store",
            Refusal::Cloned => "peers know another process with this node's identity",
            Refusal::Forked | Refusal::Linked => "peers know a newer state of this store",
        });
        if !mutant!("node.doubt.fence_not_durable") {
            let by = refused.iter().map(|(node, _)| *node).collect();
            self.emit(Action::Condemn(Condemned { boot: self.boot, reason, known, by }));
        }
    }

    /// The doubt lasts longer than a client waits: nobody can know what became of its request.
    fn answer_held(&mut self) {
        let waiting: Vec<Action> = self.gate.abandon().collect();
        for action in waiting {
            if let Action::Reply { id, .. } = action {
                self.emit(Action::Reply { id, outcome: Outcome::Unknown { reached: None } });
            }
        }
    }

    /// The voters of group 0's newest known configuration, without this node's: an earlier store of it says nothing.
    fn other_voters(&self) -> Vec<Replica> {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.raft.configuration().voters);
        voters.iter().filter(|voter| voter.node != self.me.node).copied().collect()
    }
}

/// Whether the boot that a peer knows contradicts this one. Of an older boot that this one descends from, the peer must
/// say that it lives.
fn contradicts((me, lineage): (Boot, &Lineage), refusal: Refusal, known: Boot) -> bool {
    if known.count >= me.count {
        return known != me;
    }
    match lineage.nonce_at(me, known.count) {
        Some(nonce) if nonce != known.nonce => true,
        _ => refusal == Refusal::Cloned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_a_boot_that_cannot_be_before_this_one() {
        let boot = |count, nonce| Boot { count, nonce };
        let lineage = Lineage::default().after(boot(1, 10)).after(boot(2, 20));
        let me = boot(3, 30);
        let says = |refusal, known| contradicts((me, &lineage), refusal, known);
        assert!(says(Refusal::StaleBoot, boot(4, 40)) && says(Refusal::Cloned, boot(3, 31)));
        assert!(says(Refusal::Forked, boot(2, 21)) && says(Refusal::Forked, boot(1, 11)));
        assert!(says(Refusal::Cloned, boot(2, 20)), "it lives");
        assert!(!says(Refusal::StaleBoot, me) && !says(Refusal::Cloned, me));
        assert!(!says(Refusal::Forked, boot(2, 20)) && !says(Refusal::StaleBoot, boot(1, 10)));
    }
}
