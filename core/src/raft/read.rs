//! Linearizable reads without log entries: ReadIndex (6.4), confirmed by rounds of heartbeats.
//!
//! A read is safe at the commit index of its arrival, once a majority confirms that its leader still led after that.
//! The leader numbers its rounds of heartbeats, and a read waits for a round that began after it arrived. So one round
//! confirms all reads that wait, and a late or repeated answer confirms only its own round. Every read ends in
//! `Readable` or `Refused`. This module does not use leases and does not trust clocks.

use super::state::{PendingRead, ReadOrigin, State};
use super::{Action, Message, NUMBER_MAX, Raft, RefusalReason, Ticket, quorum};
use crate::id::{Index, Replica};
use crate::limits::REQUESTS_PENDING_MAX;
use crate::machine::Outbox;
use crate::{mutant, reach};

impl Raft {
    /// Handles a read of a client of this node: queues it at the leader or forwards it to the leader.
    pub(super) fn read(&mut self, ticket: Ticket, out: &mut Outbox<Action>) {
        match (&self.state, self.leader) {
            (State::Leader(_), _) => self.queue_read(ReadOrigin::Local(ticket), out),
            (_, None) => {
                out.push(Action::Refused { ticket, why: RefusalReason::NotLeader(None) });
            }
            _ if self.forwarded.pending.len() >= REQUESTS_PENDING_MAX => {
                out.push(Action::Refused { ticket, why: RefusalReason::Busy });
            }
            (_, Some(leader)) => {
                reach!("raft.read.forwarded");
                let id = self.forwarded.next;
                self.forwarded.next += 1;
                let until = self.now + self.election_timeout().saturating_mul(2);
                self.forwarded.pending.insert(id, (ticket, until));
                self.send(leader, Message::ReadIndex { id }, out);
            }
        }
    }

    /// Handles a read that another member forwarded.
    pub(super) fn on_read_index(&mut self, replica: Replica, id: u64, out: &mut Outbox<Action>) {
        if !self.configuration().is_member(replica) {
            return self.reject(replica, "reads but is not a member", out);
        }
        match &self.state {
            State::Leader(_) => self.queue_read(ReadOrigin::Remote { replica, id }, out),
            _ => self.send(replica, Message::ReadIndexReply { id, index: None }, out),
        }
    }

    pub(super) fn on_read_index_reply(
        &mut self,
        from: Replica,
        id: u64,
        index: Option<Index>,
        out: &mut Outbox<Action>,
    ) {
        if self.leader != Some(from) || index.is_some_and(|index| index.0 > NUMBER_MAX) {
            return self.reject(from, "answers a read but does not lead", out);
        }
        // The read was refused after its deadline, or this is a second answer.
        let Some((ticket, _)) = self.forwarded.pending.remove(&id) else { return };
        out.push(match index {
            Some(index) => Action::Readable { ticket, index },
            None => Action::Refused { ticket, why: RefusalReason::LostLeadership },
        });
    }

    /// Queues a read. It begins a round if none is under way; otherwise the read waits for the next one.
    fn queue_read(&mut self, origin: ReadOrigin, out: &mut Outbox<Action>) {
        let commit = self.commit;
        let State::Leader(leader) = &mut self.state else { return };
        if leader.is_transferring() {
            reach!("raft.read.during_transfer");
            return self.refuse_read(origin, RefusalReason::LostLeadership, out);
        }
        if leader.reads.len() >= REQUESTS_PENDING_MAX {
            return self.refuse_read(origin, RefusalReason::Busy, out);
        }
        // All that earlier leaders committed is before this leader's first entry, even if its commit index is behind.
        let index =
            if mutant!("raft.read.without_noop") { commit } else { commit.max(leader.noop) };
        let idle = leader.confirmed == leader.round;
        let is_forwarded = matches!(origin, ReadOrigin::Remote { .. });
        let trusts_forwarded = is_forwarded && mutant!("raft.read.forwarded_unconfirmed");
        let trusts = trusts_forwarded || mutant!("raft.read.stale_round");
        let round = if trusts { leader.confirmed } else { leader.round + 1 };
        leader.reads.push_back(PendingRead { origin, index, round });
        if idle {
            self.begin_round_for_reads(out);
        }
        self.answer_reads(out);
    }

    /// Begins a round with a heartbeat to every member.
    pub(super) fn begin_round(&mut self, out: &mut Outbox<Action>) {
        if let State::Leader(leader) = &mut self.state {
            leader.round += 1;
        }
        (0..self.peer_count()).for_each(|at| self.send_heartbeat(at, out));
        self.confirm_round(out);
    }

    /// Begins a round with a heartbeat to every voter.
    fn begin_round_for_reads(&mut self, out: &mut Outbox<Action>) {
        reach!("raft.read.round");
        if let State::Leader(leader) = &mut self.state {
            leader.round += 1;
        }
        for at in 0..self.peer_count() {
            let State::Leader(leader) = &self.state else { return };
            if self.configuration().is_voter(leader.peers[at].replica) {
                self.send_heartbeat(at, out);
            }
        }
        self.confirm_round(out);
    }

    /// Checks whether a majority has confirmed a later round, and answers the reads of that round.
    pub(super) fn confirm_round(&mut self, out: &mut Outbox<Action>) {
        let State::Leader(leader) = &self.state else { return };
        let voters = self.configuration().voters.iter();
        let confirmed =
            quorum::reached(voters.map(|voter| {
                if *voter == self.me { leader.round } else { leader.round_of(*voter) }
            }));
        let State::Leader(leader) = &mut self.state else { return };
        if confirmed <= leader.confirmed {
            return;
        }
        leader.confirmed = confirmed;
        self.answer_reads(out);
        let State::Leader(leader) = &self.state else { return };
        if leader.confirmed == leader.round
            && leader.reads.back().is_some_and(|read| read.round > leader.round)
        {
            self.begin_round_for_reads(out);
        }
    }

    /// Answers the reads whose round is confirmed. It answers none before the leader's first entry is committed: until
    /// then the leader does not know all committed entries.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox<Action>) {
        let knows_commit = self.has_committed_own_term() || mutant!("raft.read.without_noop");
        if !knows_commit {
            return;
        }
        loop {
            let State::Leader(leader) = &mut self.state else { return };
            let confirmed = leader.confirmed;
            if leader.reads.front().is_none_or(|read| read.round > confirmed) {
                return;
            }
            if let Some(PendingRead { origin, index, .. }) = leader.reads.pop_front() {
                self.answer_read(origin, index, out);
            }
        }
    }

    fn answer_read(&mut self, origin: ReadOrigin, index: Index, out: &mut Outbox<Action>) {
        reach!("raft.read.confirmed");
        match origin {
            ReadOrigin::Local(ticket) => out.push(Action::Readable { ticket, index }),
            ReadOrigin::Remote { replica, id } => {
                self.send(replica, Message::ReadIndexReply { id, index: Some(index) }, out);
                let State::Leader(leader) = &mut self.state else { return };
                let at = leader.peers.binary_search_by_key(&replica, |peer| peer.replica);
                if let Ok(at) = at {
                    leader.peers[at].awaited_commit = leader.peers[at].awaited_commit.max(index);
                    self.send_awaited_commit(at, out);
                }
            }
        }
    }

    fn refuse_read(&mut self, origin: ReadOrigin, why: RefusalReason, out: &mut Outbox<Action>) {
        match origin {
            ReadOrigin::Local(ticket) => out.push(Action::Refused { ticket, why }),
            ReadOrigin::Remote { replica, id } => {
                self.send(replica, Message::ReadIndexReply { id, index: None }, out);
            }
        }
    }

    /// Refuses all reads that wait at this leader, because it stops leading.
    pub(super) fn refuse_reads(&mut self, out: &mut Outbox<Action>) {
        let State::Leader(leader) = &mut self.state else { return };
        for read in core::mem::take(&mut leader.reads) {
            reach!("raft.read.leadership_lost");
            self.refuse_read(read.origin, RefusalReason::LostLeadership, out);
        }
    }

    /// Refuses all reads that this replica forwarded.
    pub(super) fn refuse_forwarded(&mut self, out: &mut Outbox<Action>) {
        for (_, (ticket, _)) in core::mem::take(&mut self.forwarded.pending) {
            out.push(Action::Refused { ticket, why: RefusalReason::LostLeadership });
        }
    }

    /// Refuses the forwarded reads that the leader did not answer in time.
    pub(super) fn expire_forwarded(&mut self, out: &mut Outbox<Action>) {
        while self.forwarded.deadline().is_some_and(|until| until <= self.now) {
            reach!("raft.read.timed_out");
            if let Some((_, (ticket, _))) = self.forwarded.pending.pop_first() {
                out.push(Action::Refused { ticket, why: RefusalReason::NotLeader(self.leader) });
            }
        }
    }
}
