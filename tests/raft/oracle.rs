//! Invariants that hold after every step: the five properties of figure 3, durability at send, monotonic counters.
//!
//! The oracle reads machines and disks from outside and shares no code with them.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::id::{Index, Role, Term};
use continuum_core::raft::{Entry, Payload, Position, Promise, Raft};

use super::{Disk, Envelope, Process, number, replica};

/// Observes all replicas and remembers what later checks need.
#[derive(Debug, Default)]
pub struct Oracle {
    /// The leader of each term.
    leaders: BTreeMap<Term, u8>,
    /// Every entry that was ever in a log, with the term of the entry before it.
    entries: BTreeMap<Position, (Entry, Term)>,
    /// Every applied entry, by index.
    committed: BTreeMap<Index, Entry>,
    /// Term and commit index of each replica since its last restart.
    seen: BTreeMap<u8, (Term, Index)>,
}

impl Oracle {
    /// The number of entries that some replica has applied.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.committed.len()
    }

    /// Checks a message as it leaves against the state that the sender's disk would recover.
    pub(super) fn sent(&self, disk: &Disk, envelope: &Envelope) {
        let (durable, message) = (disk.durable(), &envelope.message);
        match message.promise() {
            None => {}
            Some(Promise::Vote { term }) => {
                let voted = durable.term == term && durable.vote == Some(replica(envelope.to));
                assert!(
                    voted || durable.term > term,
                    "a vote leaves before it is durable: {message:?}"
                );
            }
            Some(Promise::Append { term, matched }) => {
                let there = disk.holds(matched);
                assert!(
                    there || durable.term > term,
                    "an acknowledgement leaves before it is durable: {message:?}"
                );
            }
            Some(Promise::Snapshot { bytes, .. }) => {
                assert!(
                    disk.longest_file() >= bytes,
                    "a chunk is acknowledged before it is durable"
                );
            }
        }
    }

    /// Checks an entry as it is applied: state machine safety.
    pub(super) fn applied(&mut self, n: u8, index: Index, entry: &Entry) {
        let first = self.committed.entry(index).or_insert_with(|| entry.clone());
        assert_eq!(first, entry, "replica {n} applies a different entry at {index}");
    }

    /// Checks an installed snapshot: it must equal the state that its entries produce.
    pub(super) fn installed(&mut self, n: u8, position: Position, state: &[Bytes]) {
        let commands =
            self.committed.range(..=position.index).filter_map(|(_, entry)| match &entry.payload {
                Payload::Command(command) => Some(command),
                _ => None,
            });
        assert!(commands.eq(state), "replica {n} installs a state that no log produced");
        let (_, commit) = self.seen.get(&n).copied().unwrap_or_default();
        assert!(
            position.index > commit,
            "replica {n} installs a snapshot of entries that it has committed"
        );
    }

    /// Notes that a replica restarted.
    pub(super) fn restarted(&mut self, n: u8) {
        self.seen.remove(&n);
    }

    /// Checks all replicas.
    pub(super) fn look(&mut self, nodes: &BTreeMap<u8, Process>) {
        for (n, process) in nodes {
            if let Some(machine) = &process.machine {
                self.look_at(*n, machine);
                Self::committed_on_disks(machine, nodes);
            }
        }
    }

    fn look_at(&mut self, n: u8, machine: &Raft) {
        let now = (machine.term(), machine.commit());
        let before = self.seen.insert(n, now).unwrap_or_default();
        if machine.role() == Role::Leader {
            let leader = *self.leaders.entry(machine.term()).or_insert(n);
            assert_eq!(leader, n, "two leaders in term {}", machine.term());
            self.leader_completeness(n, machine);
        }
        assert!(before.0 <= now.0 && before.1 <= now.1, "term or commit of replica {n} goes back");
        assert!(
            machine.base().index <= machine.commit(),
            "a snapshot is ahead of the commit index"
        );
        assert!(machine.commit() <= machine.last().index, "the commit index is ahead of the log");
        self.log_matching(machine);
    }

    /// An entry that a leader takes for committed is on the disks of a majority, running or crashed.
    fn committed_on_disks(machine: &Raft, nodes: &BTreeMap<u8, Process>) {
        let (commit, voters) = (machine.commit(), &machine.configuration().voters);
        if machine.role() != Role::Leader || commit <= machine.base().index {
            return;
        }
        let position =
            Position { term: machine.term_at(commit).expect("in the log"), index: commit };
        let has = |n: &u8| nodes.get(n).is_some_and(|process| process.disk.holds(position));
        let count = voters.iter().map(|voter| number(*voter)).filter(has).count();
        assert!(count * 2 > voters.len(), "{position:?} is committed but only on {count} disks");
    }

    /// Only one entry exists at each position, and it always follows an entry of the same term. By induction, logs that
    /// share an entry share all entries before it.
    fn log_matching(&mut self, machine: &Raft) {
        for index in machine.first().0..=machine.last().index.0 {
            let entry = machine.entry(Index(index)).expect("from first to last");
            let prev = machine
                .term_at(Index(index - 1))
                .expect("the term before the first entry is known");
            let position = Position { term: entry.term, index: Index(index) };
            let earlier = machine.entry(Index(index - 1)).map_or(0, |entry| entry.time_ms);
            assert!(earlier <= entry.time_ms, "group time goes back at {position:?}");
            let known = self.entries.entry(position).or_insert_with(|| (entry.clone(), prev));
            assert_eq!((&known.0, known.1), (entry, prev), "two logs differ before {position:?}");
        }
    }

    /// A leader has every entry that was committed in an earlier term than its own.
    fn leader_completeness(&self, n: u8, machine: &Raft) {
        for (index, entry) in self.committed.range(machine.first()..) {
            if entry.term < machine.term() {
                assert_eq!(
                    machine.entry(*index),
                    Some(entry),
                    "leader {n} lacks a committed entry"
                );
            }
        }
    }
}
