//! The log and its disk, for leader and follower alike: writes, durable marks, commit, compaction.
//!
//! Every write is issued here and every message is sent from here, so that term and vote are always written before what
//! depends on them. This module does not decide which entries to append or to commit; `follow` and `replicate` do.

use alloc::vec::Vec;

use super::message::{Message, Promise};
use super::state::DurableMark;
use super::{Action, Entry, Position, Raft, Write};
use crate::id::{Index, Replica};
use crate::machine::Outbox;
use crate::{mutant, reach};

impl Raft {
    /// Issues a write and counts it.
    pub(super) fn persist(&mut self, write: Write, out: &mut Outbox<Action>) {
        self.writes += 1;
        out.push(Action::Persist { write });
    }

    /// Writes term and vote if they changed. Every other write and every promise calls this first, so that on disk no
    /// entry of a term precedes the term.
    pub(super) fn persist_hard_state(&mut self, out: &mut Outbox<Action>) {
        if self.hard_changed {
            self.hard_changed = false;
            let vote = if mutant!("raft.vote.forgotten") { None } else { self.vote };
            self.persist(Write::Hard { term: self.term, vote }, out);
        }
    }

    /// Sends a message. A promise is marked as one: it leaves after all writes issued so far are durable.
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

    /// Removes the entries after `last`, and the marks and configurations that came from them.
    pub(super) fn truncate(&mut self, last: Index) {
        assert!(last >= self.commit, "committed entries are never removed");
        self.log.truncate(last);
        self.configurations.truncate(last);
        if mutant!("raft.append.aba") {
            return;
        }
        self.durable = self.durable.min(last);
        self.marks.iter_mut().for_each(|mark| mark.index = mark.index.min(last));
    }

    /// Appends entries to the log and writes them. Without entries it writes that the log was cut.
    pub(super) fn append(&mut self, entries: Vec<Entry>, out: &mut Outbox<Action>) {
        self.persist_hard_state(out);
        let prev = self.log.last_index();
        entries.iter().for_each(|entry| self.log.push(entry.clone()));
        self.learn_configurations(prev.next(), &entries);
        self.persist(Write::Append { prev, entries }, out);
        self.mark(self.log.last_index());
    }

    /// Records that the log is durable up to `index` once all writes issued so far are.
    pub(super) fn mark(&mut self, index: Index) {
        self.marks.push_back(DurableMark { writes: self.writes, index });
    }

    /// The first `writes` writes are durable: the log may be durable further, and votes may be requested.
    pub(super) fn on_persisted(&mut self, writes: u64, out: &mut Outbox<Action>) {
        self.persisted = self.persisted.max(writes.min(self.writes));
        while let Some(mark) = self.marks.front().filter(|mark| mark.writes <= self.persisted) {
            self.durable = self.durable.max(mark.index);
            self.marks.pop_front();
        }
        self.request_votes(out);
        self.try_commit(out);
    }

    /// Raises the commit index, unless it is there already.
    pub(super) fn advance_commit(&mut self, to: Index, out: &mut Outbox<Action>) {
        if to <= self.commit && !mutant!("raft.commit.goes_back") {
            return;
        }
        assert!(to <= self.log.last_index(), "a committed entry is in the log");
        self.subtract_uncommitted(self.commit, to);
        self.commit = to;
        out.push(Action::Committed { index: to });
        // The log overtook a snapshot that is still arriving: its remaining bytes are not needed.
        if self.incoming.as_ref().is_some_and(|incoming| incoming.ends_by(to)) {
            self.drop_incoming(out);
        }
    }

    /// Drops entries that a durable snapshot covers. Entries that a slow follower still needs stay, as far as
    /// `retained_bytes_max` allows: without them the follower needs the whole snapshot.
    pub(super) fn compact(&mut self, position: Position) {
        if position.index <= self.base.index {
            return;
        }
        assert!(position.index <= self.commit, "a snapshot covers only committed entries");
        assert!(self.log.holds(position), "a snapshot ends at an entry of this log");
        self.base = position;
        let floor = self.retention_floor().max(self.log.offset().index);
        let cut = self.log.retain(position.index, floor, self.config.retained_bytes_max);
        if let Some(term) = self.log.term_at(cut).filter(|_| cut > self.log.offset().index) {
            reach!("raft.log.compacted");
            self.log.compact(Position { term, index: cut });
            self.configurations.compact(cut);
        }
    }

    /// The last entry that this leader's own disk has. The leader counts as one voter for commit.
    pub(super) fn own_durable(&self) -> Index {
        if mutant!("raft.commit.own_disk_ignored") { self.log.last_index() } else { self.durable }
    }
}
