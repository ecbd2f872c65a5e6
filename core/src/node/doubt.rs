//! Doubt: whether this process is the one that should be there, once a voter says that it is not.
//!
//! Two processes must never promise with one identity. So from the first refusal with evidence on, this process is
//! *suspended*: it promises nothing, acknowledges nothing, and asks the other voters. A majority of the other voters
//! decides. If they count this very process as linked, it goes on. If they refuse it with evidence, it fences itself,
//! and its store is condemned: the next start refuses.
//!
//! No message of a stranger or a learner counts, and one voter alone can at most suspend this process until the others
//! answer, once in [`SETTLED`]. A node that knows no voters is only refused. This module does not judge the processes
//! of peers (`peers`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::api::Outcome;
use crate::digest::Hasher;
use crate::id::{AskId, Boot, GroupId, Lineage, NodeId, Replica};
use crate::time::Instant;
use crate::{mutant, reach};

use super::machine::{Node, Timer};
use super::{Action, Condemned, Message, Notice, Refusal};

/// Milliseconds between two questions to the voters while this process is suspended.
const ASK_MS: u64 = 250;

/// After the voters confirmed this process, a refusal of the same voter does not suspend it again for this long. It
/// counts when another voter's does.
const SETTLED: Duration = Duration::from_secs(600);

/// The doubt about this process.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// When this process was suspended, if it is.
    since: Option<Instant>,
    /// The voter whose word began it.
    by: Option<Replica>,
    /// The last word of each voter: its evidence, or `None` if it counts this process as linked.
    words: BTreeMap<Replica, Option<(Refusal, Boot)>>,
    /// Until when a voter's refusal does not suspend again.
    settled: BTreeMap<Replica, Instant>,
    /// The number of the present question.
    asked: u64,
}

impl Doubt {
    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.since, self.asked));
        self.words.iter().for_each(|word| hash.value(&word));
    }
}

impl Node {
    /// Whether this process is suspended.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        self.doubt.since.is_some()
    }

    /// A peer refuses this process.
    pub(super) fn on_refused_by(&mut self, from: Replica, refusal: Refusal, known: Boot) {
        reach!("node.peers.refused_by_peer");
        self.notify(Notice::RefusedBy { peer: from.node, reason: refusal, known });
        if refusal == Refusal::Linked {
            return;
        }
        if !self.other_voters().contains(&from) && !mutant!("node.doubt.learner_counts") {
            return self.rejected(from.node, "a refusal of no voter");
        }
        if !contradicts((self.boot, &self.lineage), refusal, known) {
            return self.rejected(from.node, "a refusal without evidence");
        }
        self.doubt.words.insert(from, Some((refusal, known)));
        if self.doubt.settled.get(&from).is_some_and(|until| *until > self.now.mono) {
            reach!("node.doubt.settled");
        } else {
            self.suspend(from);
        }
        self.decide_doubt();
    }

    /// A peer says that it counts this process as linked, or that it lives.
    pub(super) fn on_confirmed(&mut self, from: Replica, id: AskId) {
        if id.nonce != self.boot.nonce {
            return;
        }
        self.peers.confirmed(from.node, id.number);
        if self.is_suspended() && id.number == self.doubt.asked {
            if self.other_voters().contains(&from) {
                self.doubt.words.insert(from, None);
            }
            self.decide_doubt();
        }
    }

    /// The timer: asks the voters that are linked, as long as the doubt lasts.
    pub(super) fn on_doubt_due(&mut self) {
        let Some(since) = self.doubt.since else { return };
        self.ask_voters();
        let timeout = Duration::from_millis(self.config.node.request_timeout_ms);
        if self.now.mono.since(since) >= timeout {
            self.answer_held();
        }
    }

    fn suspend(&mut self, by: Replica) {
        if self.doubt.since.is_none() {
            reach!("node.doubt.suspended");
            (self.doubt.since, self.doubt.by) = (Some(self.now.mono), Some(by));
            if !mutant!("node.doubt.goes_on") {
                self.gate.hold(true);
            }
            self.notify(Notice::Suspended { suspended: true });
            self.ask_voters();
        }
    }

    fn ask_voters(&mut self) {
        self.doubt.asked = self.ask_number();
        let id = AskId { nonce: self.boot.nonce, number: self.doubt.asked };
        for voter in self.other_voters() {
            self.send(voter, Message::Confirm(id));
        }
        self.arm(Duration::from_millis(ASK_MS), Timer::Doubt);
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
            .filter_map(|(voter, word)| Some((voter.node, (*word)?)))
            .collect();
        if refused.len() >= majority {
            return self.condemn(&refused);
        }
        if self.is_suspended() && self.doubt.words.len() - refused.len() >= majority {
            self.resume();
        }
    }

    fn resume(&mut self) {
        reach!("node.doubt.resumed");
        let until = self.now.mono + SETTLED;
        let words = core::mem::take(&mut self.doubt.words);
        self.doubt.settled.retain(|_, until| *until > self.now.mono);
        let refused = words.into_iter().filter(|(_, word)| word.is_some()).map(|(voter, _)| voter);
        let refused = refused.chain(self.doubt.by.take());
        self.doubt.settled.extend(refused.map(|voter| (voter, until)));
        self.doubt.since = None;
        self.gate.hold(false);
        self.release_held();
        self.notify(Notice::Suspended { suspended: false });
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

    /// The voters of group 0's newest known configuration, without this replica.
    fn other_voters(&self) -> Vec<Replica> {
        let group = self.groups.get(&GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |group| &group.raft.configuration().voters);
        voters.iter().filter(|voter| **voter != self.me).copied().collect()
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
