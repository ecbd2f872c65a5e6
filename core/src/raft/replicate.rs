//! The leader: entries out, acknowledgements in, and the commit rule (5.3, 5.4.2).
//!
//! Appends leave before the leader's own disk has the entries; that disk is one more voter. Batches form on their own:
//! entries that are proposed while a follower's window is full leave in one append when it opens. This module does not
//! decide who leads (`election`) and does not send snapshots (`snapshot`).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::log::{ENTRY_OVERHEAD_BYTES, entry_bytes};
use super::progress::{Flow, Progress};
use super::state::{Leader, State};
use super::{Action, Entry, Message, Payload, Position, Raft, RefusalReason, Ticket, quorum};
use crate::id::{Index, NodeId, Replica};
use crate::machine::Outbox;
use crate::{mutant, reach};

impl Raft {
    /// Starts to lead with an entry of the new term; committing it commits all entries before it (§5.4.2, §8).
    pub(super) fn become_leader(
        &mut self,
        transfer_excluded: Vec<Replica>,
        out: &mut Outbox<Action>,
    ) {
        reach!("raft.election.won");
        let noop = self.log.last_index().next();
        let fresh = |replica| Progress::new(replica, noop, self.now);
        let after_commit =
            self.log.iter().rev().take((self.log.last_index().0 - self.commit.0) as usize);
        let leader = Leader {
            peers: self.others().into_iter().map(fresh).collect(),
            noop,
            heartbeat_at: self.now + Duration::from_millis(self.config.heartbeat_ms),
            time_ms: if mutant!("raft.time.falls") { 0 } else { self.log.last_time_ms() },
            since: self.now,
            uncommitted_bytes: after_commit.map(entry_bytes).sum(),
            round: 0,
            confirmed: 0,
            reads: VecDeque::new(),
            transfer_target: None,
            transfer_excluded,
            snapshot: None,
            capturing: false,
        };
        self.state = State::Leader(Box::new(leader));
        self.set_leader(Some(self.me), out);
        self.append_own(Payload::Noop, out);
        self.replicate(out);
        self.try_commit(out);
    }

    /// Stops leading: refuses the reads that wait here.
    pub(super) fn step_down(&mut self, out: &mut Outbox<Action>) {
        reach!("raft.election.stepped_down");
        self.refuse_reads(out);
    }

    /// Appends a new entry of this leader's term, with the group time of now.
    pub(super) fn append_own(&mut self, payload: Payload, out: &mut Outbox<Action>) -> Position {
        let (now, term) = (self.now, self.term);
        let State::Leader(leader) = &mut self.state else { unreachable!("only a leader appends") };
        let counted = u64::try_from(now.since(leader.since).as_millis()).unwrap_or(u64::MAX);
        let time_ms = leader.time_ms.saturating_add(counted);
        let entry = Entry { term, time_ms, payload };
        leader.uncommitted_bytes += entry_bytes(&entry);
        self.append(vec![entry], out);
        self.log.last()
    }

    /// `Err` says why this replica takes no proposal now.
    pub(super) fn may_propose(&self) -> Result<(), RefusalReason> {
        match &self.state {
            State::Leader(leader) if leader.is_transferring() => {
                Err(RefusalReason::NotLeader(None))
            }
            State::Leader(_) => Ok(()),
            _ => Err(RefusalReason::NotLeader(self.leader)),
        }
    }

    pub(super) fn propose(&mut self, ticket: Ticket, command: Bytes, out: &mut Outbox<Action>) {
        let refused = self.may_propose().err().or_else(|| self.check_budget(&command));
        if let Some(why) = refused {
            reach!("raft.propose.refused");
            out.push(Action::Refused { ticket, why });
            return;
        }
        let position = self.append_own(Payload::Command(command), out);
        out.push(Action::Proposed { ticket, position });
        self.replicate(out);
        self.try_commit(out);
    }

    /// Whether a command would exceed the budget for uncommitted bytes. One that is larger than the budget passes if no
    /// other waits.
    fn check_budget(&self, command: &Bytes) -> Option<RefusalReason> {
        let State::Leader(leader) = &self.state else { return None };
        let waiting = leader.uncommitted_bytes;
        let with_it = waiting.saturating_add(ENTRY_OVERHEAD_BYTES + command.len());
        let congested = waiting > 0 && with_it > self.config.uncommitted_bytes_max;
        congested.then_some(RefusalReason::Busy)
    }

    /// The bytes of this leader's entries that are not committed yet; 0 on a replica that does not lead.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.state {
            State::Leader(leader) => leader.uncommitted_bytes,
            _ => 0,
        }
    }

    /// For each other member of the group, when this replica leads it: the entries that it is not known to have.
    pub fn lags(&self) -> impl Iterator<Item = (Replica, u64)> + '_ {
        let leader = if let State::Leader(leader) = &self.state { Some(leader) } else { None };
        let last = self.log.last_index().0;
        let peers = leader.into_iter().flat_map(|leader| &leader.peers);
        peers.map(move |peer| (peer.replica, last.saturating_sub(peer.matched.0)))
    }

    /// Subtracts the entries after `from` up to `to` from the uncommitted bytes.
    pub(super) fn subtract_uncommitted(&mut self, from: Index, to: Index) {
        let State::Leader(leader) = &mut self.state else { return };
        for index in from.0 + 1..=to.0 {
            let bytes = self.log.get(Index(index)).map_or(0, entry_bytes);
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(bytes);
        }
    }

    /// Matches the peers to the active configuration: adds new members as probes, drops removed ones.
    pub(super) fn update_peers(&mut self) {
        let (others, next, now) = (self.others(), self.log.last_index(), self.now);
        let State::Leader(leader) = &mut self.state else { return };
        leader.peers.retain(|peer| others.binary_search(&peer.replica).is_ok());
        for replica in others {
            if let Err(at) = leader.peers.binary_search_by_key(&replica, |peer| peer.replica) {
                leader.peers.insert(at, Progress::new(replica, next, now));
            }
        }
    }

    /// Sends each peer what its window allows.
    pub(super) fn replicate(&mut self, out: &mut Outbox<Action>) {
        for at in 0..self.peer_count() {
            self.replicate_to(at, out);
        }
    }

    pub(super) fn peer_count(&self) -> usize {
        match &self.state {
            State::Leader(leader) => leader.peers.len(),
            _ => 0,
        }
    }

    fn replicate_to(&mut self, at: usize, out: &mut Outbox<Action>) {
        loop {
            let State::Leader(leader) = &self.state else { return };
            let peer = &leader.peers[at];
            let probing = matches!(peer.flow, Flow::Probe { .. });
            let worth = probing || peer.next <= self.log.last_index();
            if !worth || !peer.has_room(self.config.inflight_max) {
                return;
            }
            let all = mutant!("raft.append.unbounded");
            let bytes = if all { usize::MAX } else { self.config.append_bytes_max };
            let next = peer.next;
            self.send_append(at, next, bytes, out);
        }
    }

    /// Sends entries from `next` on, at most `bytes`, or the snapshot that replaces them. With 0 bytes the append has
    /// no entries and does not count for the window.
    fn send_append(&mut self, at: usize, next: Index, bytes: usize, out: &mut Outbox<Action>) {
        let (term, commit) = (self.term, self.commit);
        let State::Leader(leader) = &mut self.state else { return };
        let index = next.prev();
        let Some(prev_term) = self.log.term_at(index) else {
            return self.begin_snapshot_transfer(at, out);
        };
        let entries = if bytes == 0 { Vec::new() } else { self.log.slice(next, bytes) };
        let peer = &mut leader.peers[at];
        if bytes > 0 {
            peer.sent(Index(index.0 + entries.len() as u64));
        }
        peer.commit_sent = peer.commit_sent.max(commit);
        let (to, prev) = (peer.replica, Position { term: prev_term, index });
        self.send(to, Message::Append { term, prev, commit, entries }, out);
    }

    pub(super) fn on_append_ack(
        &mut self,
        from: Replica,
        matched: Position,
        out: &mut Outbox<Action>,
    ) {
        let State::Leader(leader) = &mut self.state else { return };
        // An entry that is no longer in the log is committed, so every member that has it has the same one.
        let ours = matched.index <= self.log.last_index()
            && self.log.term_at(matched.index).is_none_or(|term| term == matched.term);
        let Some(peer) = leader.peer(from).filter(|_| ours) else {
            return self.reject(from, "acknowledges an entry that it was never sent", out);
        };
        peer.last_contact = self.now;
        peer.acknowledge(matched.index);
        self.try_commit(out);
        self.after_progress(from, out);
    }

    /// Does what an answer of this peer made possible.
    fn after_progress(&mut self, from: Replica, out: &mut Outbox<Action>) {
        let State::Leader(leader) = &mut self.state else { return };
        let Ok(at) = leader.peers.binary_search_by_key(&from, |peer| peer.replica) else { return };
        self.replicate_to(at, out);
        self.send_awaited_commit(at, out);
        self.send_timeout_now(out);
        self.release_snapshot();
    }

    pub(super) fn on_append_rejected(
        &mut self,
        from: Replica,
        refused: Index,
        hint: Position,
        out: &mut Outbox<Action>,
    ) {
        let State::Leader(leader) = &mut self.state else { return };
        if refused > self.log.last_index() || hint.index >= refused {
            return self.reject(from, "rejects an entry that it was never sent", out);
        }
        let Some(peer) = leader.peer(from) else {
            return self.reject(from, "answers but is not a member", out);
        };
        peer.last_contact = self.now;
        let current = match &peer.flow {
            Flow::Probe { .. } => refused == peer.next.prev(),
            Flow::Replicate { .. } => refused > peer.matched || refused == peer.commit_sent,
            Flow::Snapshot(_) => false,
        };
        if !current {
            reach!("raft.conflict.late");
            return;
        }
        // Goes back a whole term at a time: to the last entry of this log with at most the index and term of the hint.
        // A hint before this log stays, and the follower gets a snapshot.
        let shared =
            if hint.index < self.log.offset().index { hint } else { self.log.last_within(hint) };
        reach!("raft.conflict.backtracked");
        if refused <= peer.matched {
            // The follower lost entries that it had acknowledged. If they still counted as shared, the leader would
            // probe after them again and again.
            reach!("raft.conflict.lost");
            peer.reset();
        }
        peer.probe(shared.index.next());
        if mutant!("raft.conflict.gives_way") && shared.index >= self.commit {
            self.truncate(shared.index);
            self.append(Vec::new(), out);
        }
        self.after_progress(from, out);
    }

    pub(super) fn has_committed_own_term(&self) -> bool {
        matches!(&self.state, State::Leader(leader) if self.commit >= leader.noop)
    }

    /// Commits the last entry that a majority has durably, and with it all before it, if it is of this leader's term.
    /// An entry of an earlier term may still be replaced, even if a majority has it (figure 8).
    pub(super) fn try_commit(&mut self, out: &mut Outbox<Action>) {
        let State::Leader(leader) = &self.state else { return };
        let own = self.own_durable();
        let voters = self.configuration().voters.iter();
        let matched = voters.map(|voter| {
            if *voter == self.me { own } else { leader.of(*voter, |peer| peer.matched) }
        });
        let reached = if mutant!("raft.commit.waits_for_all") {
            matched.min().unwrap_or_default()
        } else {
            quorum::reached(matched)
        };
        if reached <= self.commit {
            return;
        }
        if self.log.term_at(reached) != Some(self.term) && !mutant!("raft.commit.old_term") {
            reach!("raft.commit.old_term_waits");
            return;
        }
        self.advance_commit(reached, out);
        self.answer_reads(out);
        for at in 0..self.peer_count() {
            self.send_awaited_commit(at, out);
        }
    }

    /// Tells a peer at once that the index is committed for which one of its reads waits. Other peers learn the commit
    /// index from the next message.
    pub(super) fn send_awaited_commit(&mut self, at: usize, out: &mut Outbox<Action>) {
        let State::Leader(leader) = &self.state else { return };
        let peer = &leader.peers[at];
        let known = self.commit.min(peer.matched);
        if peer.awaited_commit > peer.commit_sent && known >= peer.awaited_commit {
            reach!("raft.commit.unblocks");
            self.send_heartbeat(at, out);
        }
    }

    pub(super) fn send_heartbeat(&mut self, at: usize, out: &mut Outbox<Action>) {
        let (term, committed) = (self.term, self.commit);
        let State::Leader(leader) = &mut self.state else { return };
        let round = leader.round;
        let peer = &mut leader.peers[at];
        let commit = committed.min(peer.matched);
        peer.commit_sent = peer.commit_sent.max(commit);
        let to = peer.replica;
        self.send(to, Message::Heartbeat { term, commit, round }, out);
    }

    pub(super) fn on_heartbeat_due(&mut self, out: &mut Outbox<Action>) {
        if !self.check_quorum(out) {
            return;
        }
        let (now, every) = (self.now, Duration::from_millis(self.config.heartbeat_ms));
        if let State::Leader(leader) = &mut self.state {
            leader.heartbeat_at = now + every;
            leader.abort_transfer(now);
        }
        self.begin_round(out);
        self.send_timeout_now(out);
    }

    pub(super) fn on_heartbeat_ack(&mut self, from: Replica, round: u64, out: &mut Outbox<Action>) {
        let (now, every) = (self.now, Duration::from_millis(self.config.heartbeat_ms));
        let State::Leader(leader) = &mut self.state else { return };
        if round > leader.round {
            return self.reject(from, "confirms a round that was never sent", out);
        }
        let Some(peer) = leader.peer(from) else {
            return self.reject(from, "answers but is not a member", out);
        };
        if !mutant!("raft.quorum.idle_is_lost") {
            peer.last_contact = now;
        }
        peer.round = peer.round.max(round);
        // Reads add rounds of their own; progress is checked once per heartbeat interval, not once per round.
        let due = peer.check_at <= now;
        let stuck = due && !peer.advanced;
        if due {
            (peer.check_at, peer.advanced) = (now + every, false);
        }
        self.confirm_round(out);
        if stuck {
            self.recover_stuck(from, out);
        }
    }

    /// Resends to a follower that answers but makes no progress: a message to or from it was lost.
    fn recover_stuck(&mut self, from: Replica, out: &mut Outbox<Action>) {
        let last = self.log.last_index();
        let State::Leader(leader) = &mut self.state else { return };
        let Ok(at) = leader.peers.binary_search_by_key(&from, |peer| peer.replica) else { return };
        let peer = &mut leader.peers[at];
        let (matched, next) = (peer.matched, peer.next);
        match &mut peer.flow {
            Flow::Probe { paused } => {
                *paused = false;
                self.replicate_to(at, out);
            }
            Flow::Replicate { .. } if matched < last => {
                // Asks whether the follower has the entry before `next`. If an append was lost, it rejects; if its disk
                // is only slow, nothing happens.
                reach!("raft.append.hole_probed");
                self.send_append(at, next, 0, out);
            }
            Flow::Replicate { .. } => {}
            Flow::Snapshot(_) => self.resume_snapshot_transfer(at, out),
        }
    }

    pub(super) fn on_unreachable(&mut self, node: NodeId, out: &mut Outbox<Action>) {
        if self.leader.is_some_and(|leader| leader.node == node) {
            self.refuse_forwarded(out);
        }
        let State::Leader(leader) = &mut self.state else { return };
        leader.may_lead_again(node);
        for peer in leader.peers.iter_mut().filter(|peer| peer.replica.node == node) {
            match peer.flow {
                Flow::Replicate { .. } => peer.reset(),
                Flow::Probe { .. } if peer.matched > Index(0) => peer.reset(),
                Flow::Probe { .. } | Flow::Snapshot(_) => {}
            }
        }
    }

    /// Some follower of this leader still needs the entries after this index. On other replicas it is 0: the next
    /// leader may need any entry for a follower.
    pub(super) fn retention_floor(&self) -> Index {
        match &self.state {
            State::Leader(leader) => {
                leader.peers.iter().map(Progress::floor).min().unwrap_or(self.base.index)
            }
            _ => Index(0),
        }
    }
}
