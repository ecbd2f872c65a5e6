//! Each event goes to its handler. Before that, a message's term is compared with this replica's (§5.1).
//!
//! This module rejects messages of outsiders and terms that no group reaches. Only a voter's message can move this
//! replica to a later term: a learner follows, so it learns of a term from a voter, and this replica will too. It does
//! not handle any message itself.

use super::state::State;
use super::{Action, Event, Message, NUMBER_MAX, Raft, TERM_LEAD_MAX};
use crate::id::{Replica, Term};
use crate::machine::Outbox;
use crate::time::{Instant, earlier};
use crate::{mutant, reach};

impl Raft {
    /// Starts the election timer at the first step.
    pub(super) fn start(&mut self) {
        if self.started {
            return;
        }
        self.started = true;
        self.arm_election();
        if self.configuration().voters == [self.me] {
            // The only voter has no other leader to wait for.
            self.election_at = self.now;
        }
    }

    /// Does what is due by the time of this step.
    pub(super) fn on_time(&mut self, out: &mut Outbox<Action>) {
        self.expire_forwarded(out);
        match &self.state {
            State::Leader(leader) if leader.heartbeat_at <= self.now => self.on_heartbeat_due(out),
            State::Leader(_) => {}
            _ if self.configurations.is_voter() && self.election_at <= self.now => {
                self.start_pre_vote(out);
            }
            _ => {}
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Leader(leader) => leader.deadline(),
            _ => self.configurations.is_voter().then_some(self.election_at),
        };
        earlier(own, self.forwarded.deadline())
    }

    pub(super) fn on_event(&mut self, event: Event, out: &mut Outbox<Action>) {
        match event {
            Event::Tick => {}
            Event::Received { from, message } => self.receive(from, message, out),
            Event::Unreachable { peer } => self.on_unreachable(peer, out),
            Event::Persisted { writes } => self.on_persisted(writes, out),
            Event::Propose { ticket, command } => self.propose(ticket, command, out),
            Event::Read { ticket } => self.read(ticket, out),
            Event::Reconfigure { ticket, change } => self.reconfigure(ticket, change, out),
            Event::Captured { snapshot } => self.on_captured(snapshot, out),
            Event::FileWritten { id, bytes } => self.on_file_written(id, bytes, out),
            Event::FileFailed { id } => self.on_file_failed(id, out),
            Event::Checked { id, restores } => self.on_checked(id, restores, out),
            Event::Compact { position } => self.compact(position),
            Event::TransferLeadership => self.transfer_leadership(out),
        }
    }

    /// Reports role, term and leader at the end of a step, if one of them changed.
    pub(super) fn announce(&mut self, out: &mut Outbox<Action>) {
        let (role, term, leader) = (self.role(), self.term, self.leader);
        if self.announced != (role, term, leader) {
            self.announced = (role, term, leader);
            out.push(Action::Role { role, term, leader });
        }
    }

    fn receive(&mut self, from: Replica, message: Message, out: &mut Outbox<Action>) {
        if from == self.me {
            return self.reject(from, "comes from this replica itself", out);
        }
        if let Some(term) = message.term() {
            if term.0 > NUMBER_MAX {
                return self.reject(from, "a term that no group reaches", out);
            }
            let lead = term.0.saturating_sub(self.term.0);
            if lead > TERM_LEAD_MAX && !mutant!("raft.term.unbounded") {
                reach!("raft.term.out_of_bounds");
                return self.reject(from, "a term far beyond this replica's own", out);
            }
            if message.is_from_leader() && !self.may_lead(from) {
                reach!("raft.leader.no_voter");
                return self.reject(from, "leads but is not a voter", out);
            }
            if !self.observe_term(from, term, &message, out) {
                return;
            }
        }
        self.dispatch(from, message, out);
    }

    /// Compares a message's term with this replica's, and enters a later one. Returns whether the message is still to
    /// be handled.
    fn observe_term(
        &mut self,
        from: Replica,
        term: Term,
        message: &Message,
        out: &mut Outbox<Action>,
    ) -> bool {
        if term == self.term {
            return true;
        }
        if term < self.term {
            self.reply_to_stale_term(from, message, out);
            return false;
        }
        match message {
            // A pre-vote names a term that its sender has not entered.
            Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. } => true,
            Message::Vote { last, leadership_transfer, .. } => {
                if self.has_live_leader() && !leadership_transfer {
                    reach!("raft.vote.disruption_ignored");
                    return false;
                }
                if !self.may_campaign(from, *last) {
                    self.reject(from, "asks for votes but is not a voter", out);
                    return false;
                }
                self.enter_term(term, None, out);
                true
            }
            _ if message.is_from_leader() => {
                if mutant!("raft.term.bumped_by_heartbeat")
                    && matches!(self.state, State::Leader(_))
                {
                    self.term = term;
                    return false;
                }
                self.enter_term(term, Some(from), out);
                true
            }
            // An answer with a later term can depose a leader, so only a voter's counts.
            _ if self.may_lead(from) || mutant!("raft.term.of_a_learner") => {
                reach!("raft.term.later_answer");
                self.enter_term(term, None, out);
                false
            }
            _ if self.configuration().is_member(from) => {
                reach!("raft.term.of_a_learner");
                false
            }
            _ => {
                self.reject(from, "answers but is not a member", out);
                false
            }
        }
    }

    /// Answers a leader or candidate of an earlier term with the current term. Answers of an earlier term are dropped.
    fn reply_to_stale_term(&mut self, from: Replica, message: &Message, out: &mut Outbox<Action>) {
        let term = self.term;
        let answer = match message {
            Message::PreVote { .. } => Message::PreVoteReply { term, granted: false },
            Message::Vote { .. } => Message::VoteReply { term, granted: false },
            _ if message.is_from_leader() => {
                reach!("raft.term.stale_leader");
                Message::StaleTerm { term }
            }
            _ => return,
        };
        self.send(from, answer, out);
    }

    fn dispatch(&mut self, from: Replica, message: Message, out: &mut Outbox<Action>) {
        match message {
            Message::PreVote { term, last } => self.on_pre_vote(from, term, last, out),
            Message::PreVoteReply { term, granted } => {
                self.on_pre_vote_reply(from, term, granted, out);
            }
            Message::Vote { last, .. } => self.on_vote(from, last, out),
            Message::VoteReply { granted, .. } => self.on_vote_reply(from, granted, out),
            Message::Append { prev, commit, entries, .. } => {
                self.on_append(from, prev, commit, entries, out);
            }
            Message::AppendAck { matched, .. } => self.on_append_ack(from, matched, out),
            Message::AppendRejected { refused, hint, .. } => {
                self.on_append_rejected(from, refused, hint, out);
            }
            Message::Heartbeat { commit, round, .. } => self.on_heartbeat(from, commit, round, out),
            Message::HeartbeatAck { round, .. } => self.on_heartbeat_ack(from, round, out),
            // Only its term matters, and `observe_term` handled that.
            Message::StaleTerm { .. } => {}
            Message::SnapshotOffer { header, .. } => self.on_snapshot_offer(from, header, out),
            Message::SnapshotChunk { position, offset, data, .. } => {
                self.on_snapshot_chunk(from, position, offset, data, out);
            }
            Message::SnapshotAck { position, bytes, .. } => {
                self.on_snapshot_ack(from, position, bytes, out);
            }
            Message::SnapshotRefused { position, corrupt, .. } => {
                self.on_snapshot_refused(from, position, corrupt, out);
            }
            Message::TimeoutNow { transfer_excluded, .. } => {
                self.on_timeout_now(from, transfer_excluded, out);
            }
            Message::ReadIndex { id } => self.on_read_index(from, id, out),
            Message::ReadIndexReply { id, index } => self.on_read_index_reply(from, id, index, out),
        }
    }

    /// Reports a message that no correct replica sends. The caller drops it.
    pub(super) fn reject(&self, from: Replica, why: &'static str, out: &mut Outbox<Action>) {
        reach!("raft.message.rejected");
        out.push(Action::Rejected { from, why });
    }
}
