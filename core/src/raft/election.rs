//! Elections: pre-vote (9.6), votes (5.2, 5.4.1), check-quorum, leadership transfer (3.10).
//!
//! With pre-vote a replica that was isolated does not depose a working leader. With check-quorum a leader that cannot
//! reach a majority steps down; its followers stop hearing from it, and their pre-votes succeed. Neither is enough
//! without the other. This module does not replicate entries; `replicate` does.

use alloc::vec::Vec;
use core::time::Duration;

use super::state::{Campaign, State};
use super::{Action, Message, NUMBER_MAX, Position, Raft, quorum};
use crate::id::{Replica, Term};
use crate::limits::VOTERS_MAX;
use crate::machine::Outbox;
use crate::{mutant, reach};

impl Raft {
    /// Draws the next election timeout, between the configured one and twice that. It is drawn in nanoseconds, so that
    /// two replicas hardly ever draw the same (9.3).
    pub(super) fn arm_election(&mut self) {
        let least = self.config.election_timeout_ms.saturating_mul(1_000_000);
        let timeout = self.elections.between(least, least.saturating_mul(2));
        self.election_at = self.now + Duration::from_nanos(timeout);
    }

    pub(super) const fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.config.election_timeout_ms)
    }

    /// Becomes a follower in `term`, which may be the current one. In a new term this replica has not voted.
    pub(super) fn enter_term(
        &mut self,
        term: Term,
        leader: Option<Replica>,
        out: &mut Outbox<Action>,
    ) {
        assert!(term >= self.term, "a term never decreases");
        if term > self.term {
            (self.term, self.vote, self.hard_changed) = (term, None, true);
        }
        if matches!(self.state, State::Leader(_)) {
            self.arm_election();
            self.step_down(out);
        }
        self.state = State::Follower;
        self.set_leader(leader, out);
    }

    pub(super) fn set_leader(&mut self, leader: Option<Replica>, out: &mut Outbox<Action>) {
        if self.leader != leader {
            self.leader = leader;
            // The old leader may never answer the reads that it got.
            self.refuse_forwarded(out);
        }
    }

    /// Whether this replica had contact with a leader within the election timeout. A leader counts itself until
    /// check-quorum makes it step down.
    pub(super) fn has_live_leader(&self) -> bool {
        match &self.state {
            State::Leader(_) => true,
            _ => {
                self.leader.is_some()
                    && self.now.since(self.leader_contact) < self.election_timeout()
            }
        }
    }

    /// Whether a replica may ask this one for votes. A replica that is no voter here may be one by entries that this
    /// replica lacks: then its log is longer and at least as new. Any other is an outsider or was removed.
    pub(super) fn may_campaign(&self, candidate: Replica, last: Position) -> bool {
        self.configuration().is_voter(candidate)
            || (last.index > self.configurations.active_since() && self.is_up_to_date(last))
    }

    /// Whether a replica may lead this group, and so move this replica to a later term. Voters do not change, and each
    /// replica knows them from the start: a learner is told of them with its genesis. One that knows none takes
    /// nobody's word.
    pub(super) fn may_lead(&self, replica: Replica) -> bool {
        self.configuration().is_voter(replica) || mutant!("raft.leader.any")
    }

    /// Whether a log that ends at `last` has every entry that this replica may have helped to commit (§5.4.1).
    fn is_up_to_date(&self, last: Position) -> bool {
        if mutant!("raft.vote.index_only") {
            return last.index >= self.log.last_index();
        }
        last >= self.log.last()
    }

    /// The end of this replica's log, as it tells voters.
    fn last_position(&self) -> Position {
        let last = self.log.last();
        let term = if mutant!("raft.vote.boasts") { self.term } else { last.term };
        Position { term, ..last }
    }

    /// Starts a pre-vote: asks whether a majority would vote for this replica in the next term.
    pub(super) fn start_pre_vote(&mut self, out: &mut Outbox<Action>) {
        self.arm_election();
        if self.term.0 >= NUMBER_MAX {
            return;
        }
        if mutant!("raft.election.no_pre_vote") {
            return self.start_election(None, out);
        }
        reach!("raft.election.pre_vote");
        self.set_leader(None, out);
        self.state = State::Campaign(Campaign::new(true, None));
        let term = Term(self.term.0 + 1);
        self.send_to_voters(&Message::PreVote { term, last: self.last_position() }, out);
        self.record_vote(self.me, true, out);
    }

    /// Enters the next term and votes for itself. It requests votes only after its own vote is durable: otherwise a
    /// replica that crashed in between could vote for another one in the same term.
    fn start_election(
        &mut self,
        transfer_excluded: Option<Vec<Replica>>,
        out: &mut Outbox<Action>,
    ) {
        self.arm_election();
        if self.term.0 >= NUMBER_MAX {
            return;
        }
        reach!("raft.election.campaign");
        self.enter_term(Term(self.term.0 + 1), None, out);
        self.vote = Some(self.me);
        self.persist_hard_state(out);
        let mut campaign = Campaign::new(false, transfer_excluded);
        campaign.request_after = Some(self.writes);
        self.state = State::Campaign(campaign);
        self.request_votes(out);
    }

    /// Requests votes if this replica's own vote is durable and it has not requested them yet.
    pub(super) fn request_votes(&mut self, out: &mut Outbox<Action>) {
        let (term, last, persisted) = (self.term, self.last_position(), self.persisted);
        let State::Campaign(campaign) = &mut self.state else { return };
        let due = |after| after <= persisted || mutant!("raft.vote.not_persisted");
        if !campaign.request_after.is_some_and(due) {
            return;
        }
        campaign.request_after = None;
        let leadership_transfer = campaign.transfer_excluded.is_some();
        self.send_to_voters(&Message::Vote { term, last, leadership_transfer }, out);
        self.record_vote(self.me, true, out);
    }

    /// Sends a message to all other voters.
    fn send_to_voters(&mut self, message: &Message, out: &mut Outbox<Action>) {
        for at in 0..self.configuration().voters.len() {
            let voter = self.configuration().voters[at];
            if voter != self.me {
                self.send(voter, message.clone(), out);
            }
        }
    }

    pub(super) fn on_pre_vote(
        &mut self,
        from: Replica,
        term: Term,
        last: Position,
        out: &mut Outbox<Action>,
    ) {
        if !self.may_campaign(from, last) {
            return self.reject(from, "asks for pre-votes but is not a voter", out);
        }
        let granted = term > self.term && !self.has_live_leader() && self.is_up_to_date(last);
        // A pre-vote changes no state and promises nothing: a replica may grant it to several others.
        let term = if granted {
            reach!("raft.election.pre_vote_granted");
            term
        } else {
            reach!("raft.election.pre_vote_denied");
            self.term
        };
        self.send(from, Message::PreVoteReply { term, granted }, out);
    }

    pub(super) fn on_vote(&mut self, from: Replica, last: Position, out: &mut Outbox<Action>) {
        if !self.may_campaign(from, last) {
            return self.reject(from, "asks for votes but is not a voter", out);
        }
        let free = match self.vote {
            Some(voted) => voted == from || mutant!("raft.vote.twice"),
            None => self.leader.is_none(),
        };
        let granted = free && self.is_up_to_date(last) && !matches!(self.state, State::Leader(_));
        if granted {
            reach!("raft.vote.granted");
            if self.vote != Some(from) {
                (self.vote, self.hard_changed) = (Some(from), true);
            }
            self.arm_election();
        } else {
            reach!("raft.vote.denied");
        }
        self.send(from, Message::VoteReply { term: self.term, granted }, out);
    }

    pub(super) fn on_pre_vote_reply(
        &mut self,
        from: Replica,
        term: Term,
        granted: bool,
        out: &mut Outbox<Action>,
    ) {
        let asked = matches!(&self.state, State::Campaign(campaign) if campaign.pre);
        let current = !granted || term.0 == self.term.0 + 1;
        if asked && current {
            self.record_vote(from, granted, out);
        }
    }

    pub(super) fn on_vote_reply(&mut self, from: Replica, granted: bool, out: &mut Outbox<Action>) {
        // An answer that precedes the request is for an earlier process of this replica, and does not count.
        let asked =
            matches!(&self.state, State::Campaign(c) if !c.pre && c.request_after.is_none());
        if asked {
            self.record_vote(from, granted, out);
        }
    }

    /// Counts an answer. Each voter counts once, other replicas do not count.
    fn record_vote(&mut self, from: Replica, granted: bool, out: &mut Outbox<Action>) {
        let majority = quorum::majority(self.configuration().voters.len());
        if !self.configuration().is_voter(from) {
            return;
        }
        let State::Campaign(campaign) = &mut self.state else { return };
        if campaign.votes.iter().any(|(voter, _)| *voter == from) {
            return;
        }
        campaign.votes.push((from, granted));
        let pre = campaign.pre;
        if campaign.count(true) >= majority {
            let transfer_excluded = campaign.transfer_excluded.take().unwrap_or_default();
            if pre {
                self.start_election(None, out);
            } else {
                self.become_leader(transfer_excluded, out);
            }
        } else if campaign.count(false) >= majority {
            reach!("raft.election.lost");
            self.state = State::Follower;
        }
    }

    /// Steps down if no majority of voters answered within the election timeout, so that a replica that reaches a
    /// majority can be elected. Returns whether this replica still leads.
    pub(super) fn check_quorum(&mut self, out: &mut Outbox<Action>) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let contacts = self
            .configuration()
            .voters
            .iter()
            .map(|voter| if *voter == self.me { self.now } else { leader.contact(*voter) });
        let contact = quorum::reached(contacts);
        if self.now.since(contact) < self.election_timeout() {
            return true;
        }
        reach!("raft.election.quorum_lost");
        self.enter_term(self.term, None, out);
        false
    }

    /// Transfers leadership to the most advanced follower that answers, but to none that gave leadership away: if all
    /// voters want to stop leading, one of them leads on until it is asked again. Until the target campaigns, at most
    /// for an election timeout, this leader refuses proposals and reads, because the target may already commit entries
    /// that this leader has not seen.
    pub(super) fn transfer_leadership(&mut self, out: &mut Outbox<Action>) {
        let (now, me, timeout) = (self.now, self.me, self.election_timeout());
        let until = now + timeout;
        let State::Leader(leader) = &mut self.state else { return };
        let voters = &self.configurations.active().voters;
        let Some(target) = leader.choose_transfer_target(voters, now, timeout) else {
            reach!("raft.transfer.nobody");
            return leader.clear_transfer_excluded();
        };
        assert!(target != me, "a leader is not among its own peers");
        reach!("raft.transfer.begun");
        leader.begin_leadership_transfer(target, until);
        self.refuse_reads(out);
        self.send_timeout_now(out);
    }

    /// Tells the transfer target to campaign, if its disk has the whole log.
    pub(super) fn send_timeout_now(&mut self, out: &mut Outbox<Action>) {
        let last = self.log.last_index();
        let State::Leader(leader) = &self.state else { return };
        let Some(target) = leader.caught_up_transfer_target(last) else { return };
        if mutant!("raft.transfer.untold") {
            return;
        }
        reach!("raft.transfer.told");
        let transfer_excluded = leader.transfer_excluded_with(self.me);
        self.send(target, Message::TimeoutNow { term: self.term, transfer_excluded }, out);
    }

    pub(super) fn on_timeout_now(
        &mut self,
        from: Replica,
        transfer_excluded: Vec<Replica>,
        out: &mut Outbox<Action>,
    ) {
        if transfer_excluded.len() > VOTERS_MAX {
            return self.reject(from, "excludes more voters than a group can have", out);
        }
        if !self.accept_leader(from, out) {
            return;
        }
        if !self.configurations.is_voter() {
            return self.reject(from, "transfers leadership to a learner", out);
        }
        if mutant!("raft.transfer.ignored") {
            return;
        }
        reach!("raft.transfer.taken");
        self.start_election(Some(transfer_excluded), out);
    }

    /// Accepts the sender as the leader of the current term. Rejects the message and returns false if the term has
    /// another leader.
    pub(super) fn accept_leader(&mut self, from: Replica, out: &mut Outbox<Action>) -> bool {
        if matches!(self.state, State::Leader(_)) || self.leader.is_some_and(|known| known != from)
        {
            self.reject(from, "leads a term that has another leader", out);
            return false;
        }
        if matches!(self.state, State::Campaign(_)) {
            reach!("raft.election.conceded");
            self.state = State::Follower;
        }
        self.set_leader(Some(from), out);
        self.leader_contact = self.now;
        self.arm_election();
        true
    }
}
