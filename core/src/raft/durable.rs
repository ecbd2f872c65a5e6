//! The log and the disk, for leader and follower alike: writes, durable marks, commit and compaction.
//!
//! Every write of the machine is issued here, and every message leaves here, so that promises wait for the disk. Which
//! entries are appended, and what is committed, the other modules decide.

use alloc::vec::Vec;

use super::message::{Message, Promise};
use super::state::DurableMark;
use super::{Action, Entry, Position, Raft, Write};
use crate::id::{Index, Replica};
use crate::machine::Outbox;
use crate::{mutant, reach};

impl Raft {
    /// Issues a write.
    pub(super) fn persist(&mut self, write: Write, out: &mut Outbox<Action>) {
        self.writes += 1;
        out.push(Action::Persist { write });
    }

    /// Issues term and vote if they changed. Called before any other write and before any promise, so that in the
    /// log's order no entry of a term precedes the term.
    pub(super) fn persist_hard_state(&mut self, out: &mut Outbox<Action>) {
        if self.hard_changed {
            self.hard_changed = false;
            let vote = if mutant!("raft.vote.forgotten") { None } else { self.vote };
            self.persist(Write::Hard { term: self.term, vote }, out);
        }
    }

    /// Sends a message; promises wait for the disk.
    pub(super) fn send(&mut self, to: Replica, message: Message, out: &mut Outbox<Action>) {
        let promise = match message.promise() {
            None => false,
            Some(Promise::Vote { .. }) => !mutant!("raft.vote.not_persisted"),
            Some(Promise::Append { .. }) => !mutant!("raft.ack.before_fsync"),
            Some(Promise::Snapshot { .. }) => true,
        };
        if message.promise().is_some() {
            self.persist_hard_state(out);
        }
        out.push(Action::Send { to, message, promise });
    }

    /// Cuts the log, and with it all claims about what follows.
    pub(super) fn truncate(&mut self, last: Index) {
        assert!(last >= self.commit, "what is committed is never cut off");
        self.log.truncate(last);
        self.configurations.truncate(last);
        if mutant!("raft.append.aba") {
            return;
        }
        self.durable = self.durable.min(last);
        self.marks.iter_mut().for_each(|mark| mark.index = mark.index.min(last));
    }

    /// Puts entries at the end of the log and issues their write. Without entries it makes a cut durable.
    pub(super) fn append(&mut self, entries: Vec<Entry>, out: &mut Outbox<Action>) {
        self.persist_hard_state(out);
        let prev = self.log.last_index();
        entries.iter().for_each(|entry| self.log.push(entry.clone()));
        self.learn_configurations(prev.next(), &entries);
        self.persist(Write::Append { prev, entries }, out);
        self.mark(self.log.last_index());
    }

    /// Notes that the log is durable up to `index` once all writes so far are.
    pub(super) fn mark(&mut self, index: Index) {
        self.marks.push_back(DurableMark { writes: self.writes, index });
    }

    pub(super) fn on_persisted(&mut self, writes: u64, out: &mut Outbox<Action>) {
        self.persisted = self.persisted.max(writes.min(self.writes));
        while let Some(mark) = self.marks.front().filter(|mark| mark.writes <= self.persisted) {
            self.durable = self.durable.max(mark.index);
            self.marks.pop_front();
        }
        self.request_votes(out);
        self.try_commit(out);
    }

    pub(super) fn advance_commit(&mut self, to: Index, out: &mut Outbox<Action>) {
        if to <= self.commit && !mutant!("raft.commit.goes_back") {
            return;
        }
        assert!(to <= self.log.last_index(), "only what is in the log is committed");
        self.subtract_uncommitted(self.commit, to);
        self.commit = to;
        out.push(Action::Committed { index: to });
        // Appends may overtake a snapshot that is under way; then its bytes are of no use.
        if self.incoming.as_ref().is_some_and(|incoming| incoming.ends_by(to)) {
            self.incoming = None;
        }
    }

    /// A durable snapshot covers the log up to `position`. What may go, goes; what a slow follower may still want stays
    /// within its budget, for without it that follower needs the whole snapshot.
    pub(super) fn compact(&mut self, position: Position) {
        if position.index <= self.base.index {
            return;
        }
        assert!(position.index <= self.commit, "a snapshot covers committed entries alone");
        assert!(self.log.holds(position), "a snapshot is of this log");
        self.base = position;
        let floor = self.retention_floor().max(self.log.offset().index);
        let cut = self.log.retain(position.index, floor, self.config.retained_bytes_max);
        if let Some(term) = self.log.term_at(cut).filter(|_| cut > self.log.offset().index) {
            reach!("raft.log.compacted");
            self.log.compact(Position { term, index: cut });
            self.configurations.compact(cut);
        }
    }

    /// The last entry that this leader's own disk has, as one voter among others.
    pub(super) fn own_durable(&self) -> Index {
        if mutant!("raft.commit.own_disk_ignored") { self.log.last_index() } else { self.durable }
    }
}
