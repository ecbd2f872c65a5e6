//! The follower: the match check and conflicts (§5.3).
//!
//! This module does not check terms or who leads: `observe_term` and `accept_leader` do, before it changes anything.

use alloc::vec::Vec;

use super::{Action, Entry, Message, NUMBER_MAX, Payload, Position, Raft, Write};
use crate::id::{Index, Replica, Term};
use crate::machine::Outbox;
use crate::{mutant, reach};

/// Why no correct leader sends this append, independent of this replica's log. `None` if one could.
fn malformed(prev: Position, entries: &[Entry], term: Term) -> Option<&'static str> {
    if prev.index.0 > NUMBER_MAX || entries.len() as u64 > NUMBER_MAX {
        return Some("an index that no log can reach");
    }
    if (prev.index.0 == 0) != (prev.term.0 == 0) {
        return Some("index and term of an entry must both be zero or neither");
    }
    let terms = || [prev.term].into_iter().chain(entries.iter().map(|entry| entry.term));
    if !terms().is_sorted() || terms().next_back().is_some_and(|last| last > term) {
        return Some("terms that decrease or exceed the leader's");
    }
    let valid = |entry: &Entry| match &entry.payload {
        Payload::Configuration(configuration) => configuration.is_valid(),
        Payload::Noop | Payload::Command(_) => true,
    };
    (!entries.iter().all(valid)).then_some("an entry with an invalid configuration")
}

impl Raft {
    pub(super) fn on_append(
        &mut self,
        from: Replica,
        prev: Position,
        commit: Index,
        entries: Vec<Entry>,
        out: &mut Outbox<Action>,
    ) {
        if let Some(why) = malformed(prev, &entries, self.term) {
            return self.reject(from, why, out);
        }
        if !self.accept_leader(from, out) {
            return;
        }
        let tail = Position {
            index: Index(prev.index.0 + entries.len() as u64),
            term: entries.last().map_or(prev.term, |entry| entry.term),
        };
        let Some((prev, entries)) = self.skip_committed(from, prev, tail, entries, out) else {
            return;
        };
        if !self.has_prev(prev) {
            return self.reject_append(from, prev, out);
        }
        self.append_new(prev, tail, entries, out);
        let last =
            if mutant!("raft.commit.unverified") { self.log.last_index() } else { tail.index };
        self.advance_commit(commit.min(last), out);
        self.send(from, Message::AppendAck { term: self.term, matched: tail }, out);
    }

    /// Skips entries up to the commit index: a correct leader has the same ones. `None` if no entries remain; then the
    /// append is answered.
    fn skip_committed(
        &mut self,
        from: Replica,
        prev: Position,
        tail: Position,
        mut entries: Vec<Entry>,
        out: &mut Outbox<Action>,
    ) -> Option<(Position, Vec<Entry>)> {
        if prev.index >= self.commit {
            return Some((prev, entries));
        }
        if tail.index <= self.commit {
            reach!("raft.append.already_committed");
            if self.log.term_at(tail.index).is_some_and(|term| term != tail.term) {
                self.reject(from, "contradicts a committed entry", out);
            } else {
                if mutant!("raft.append.cuts_committed") && tail.index < self.commit {
                    let prev = tail.index;
                    self.persist(Write::Append { prev, entries: Vec::new() }, out);
                }
                self.send(from, Message::AppendAck { term: self.term, matched: tail }, out);
            }
            return None;
        }
        let known = (self.commit.0 - prev.index.0) as usize;
        let prev = Position { term: entries[known - 1].term, index: self.commit };
        if !self.log.holds(prev) {
            self.reject(from, "contradicts a committed entry", out);
            return None;
        }
        entries.drain(..known);
        Some((prev, entries))
    }

    /// The match check. It ensures that two logs that share an entry share all entries before it.
    fn has_prev(&self, prev: Position) -> bool {
        self.log.holds(prev)
            || (mutant!("raft.match.skipped") && prev.index <= self.log.last_index())
    }

    fn reject_append(&mut self, from: Replica, prev: Position, out: &mut Outbox<Action>) {
        if prev.index == self.commit {
            return self.reject(from, "contradicts a committed entry", out);
        }
        reach!("raft.append.conflict");
        let bound = Position { term: prev.term, index: prev.index.prev() };
        let hint = self.log.last_within(bound);
        let refused = prev.index;
        self.send(from, Message::AppendRejected { term: self.term, refused, hint }, out);
    }

    /// Appends the entries that are new. It removes entries only at a real conflict: an append that arrives after a
    /// longer one must not shorten the log, which this replica has acknowledged.
    fn append_new(
        &mut self,
        prev: Position,
        tail: Position,
        mut entries: Vec<Entry>,
        out: &mut Outbox<Action>,
    ) {
        let is_new = |at: usize, entry: &Entry| {
            self.log.term_at(Index(prev.index.0 + 1 + at as u64)) != Some(entry.term)
        };
        let first_new = entries.iter().enumerate().position(|(at, entry)| is_new(at, entry));
        if let Some(known) = first_new {
            entries.drain(..known);
            let after = Index(prev.index.0 + known as u64);
            if after < self.log.last_index() {
                reach!("raft.append.truncated");
                self.truncate(after);
            }
            self.append(entries, out);
        } else if tail.index < self.log.last_index() {
            reach!("raft.append.overtaken");
            if mutant!("raft.truncate.stale") && tail.index >= self.commit {
                self.truncate(tail.index);
                self.append(Vec::new(), out);
            }
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: Replica,
        commit: Index,
        round: u64,
        out: &mut Outbox<Action>,
    ) {
        if !self.accept_leader(from, out) {
            return;
        }
        self.send(from, Message::HeartbeatAck { term: self.term, round }, out);
        if commit > self.log.last_index() {
            if !mutant!("raft.conflict.unsaid") {
                // An idle leader sends no entries whose match check could fail, so it would never learn of the loss.
                reach!("raft.conflict.told");
                let (refused, hint) = (commit, self.log.last());
                self.send(from, Message::AppendRejected { term: self.term, refused, hint }, out);
            }
            return self.reject(from, "commits an entry that this replica never acknowledged", out);
        }
        self.advance_commit(commit, out);
    }
}
