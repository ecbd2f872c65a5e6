//! Marks: which marked places in the core's code a run reached, and in how many seeds each was reached.
//!
//! A bug in code that is seldom reached is seldom seen. Rare marks are named, so that the workload can be improved. The
//! marks themselves are in `core::mark`.

use std::collections::BTreeMap;

use continuum_core::mark::instrument::{MARKS, hits};
use serde::{Deserialize, Serialize};

/// Marks that no run reaches, and what it would take: more than a run writes, or what no node, driver or link of the
/// simulator does. Tests of the core reach them.
pub const OUT_OF_REACH: &[(&str, &str)] = &[
    ("raft.leader.no_voter", "the table of standings refuses a leader's message of no voter first"),
    ("replication.deferred.full", "65,536 deferred removals"),
    ("replication.push.withheld", "4 MiB of writes that one peer has not acknowledged"),
    ("replication.push.resumed", "as replication.push.withheld"),
    ("replication.author.too_many_siblings", "64 concurrent values of one register"),
    ("replication.sync.context_too_large", "a context of 400 KiB"),
    ("replication.sync.equivocation", "an author that makes two writes with one dot"),
    ("replication.write.equivocation", "an author that makes two writes with one dot"),
    ("replication.write.replaced", "an author that makes two writes with one dot"),
    ("replication.author.again", "a member that makes a write with a dot of another process"),
    ("gossip.member.table_full", "1,024 members"),
    ("gossip.member.recalled", "a registry that forgets a member"),
    ("gossip.sync.paged", "more members than one message tells of"),
    ("coordinator.members.full", "1,024 members"),
    ("coordinator.leaders.full", "more groups than a run creates"),
    (
        "coordinator.balance.panic",
        "a request of a group that the node lacks: nodes hold all groups",
    ),
    ("coordinator.balance.suspect", "as coordinator.balance.panic"),
    ("coordinator.balance.passed_over", "a choice in turn, which no node makes"),
    (
        "state.capture.waits",
        "a capture that begins before the last one is merged, which no node does",
    ),
    ("state.registry.members_full", "1,024 members"),
    ("state.registry.namespaces_full", "4,096 namespaces"),
    ("state.registry.not_bootstrapped", "a command that no node proposes"),
    ("state.registry.bad_name", "a name that every node refuses before it proposes"),
    ("state.registry.repeated_member", "a command that no node proposes"),
    ("state.command.too_long", "a command that every node refuses before it proposes"),
    ("state.halted", "a command of a later version"),
    ("node.apply.halted", "a command of a later version"),
    ("node.apply.halted_leader", "a command of a later version"),
    (
        "node.apply.snapshot_refused",
        "a snapshot of a later version, or one that its author's memory spoiled",
    ),
    ("wal.recover.stale", "a segment file that was used before"),
    ("wal.recover.forked", "files of two states of one store"),
    ("wal.recover.foreign", "files of two stores"),
    ("wal.recover.hole", "a segment file that is missing"),
    ("node.forward.forgotten", "65,536 open requests of one peer"),
    ("node.hold.repeated", "a driver that reports a write as durable twice"),
    ("node.hold.dropped", "65,536 messages that wait for the disk"),
    ("node.request.disk_slow", "64 MiB that wait for the disk"),
    ("node.request.memory_full", "4 GiB of keys and values"),
    ("node.request.out_of_bounds", "requests that the clients of a run do not send"),
    ("node.session.forgotten", "16,384 answers of one process"),
];

/// A mark is rare if fewer than one seed in this many hits it.
const RARE: u64 = 1_000;

/// Runs something, and returns which marks it hit: one bit each in the order of the table, as hexadecimal digits.
///
/// The counters belong to the whole process, so only one run may be watched at a time.
pub fn watch<T>(run: impl FnOnce() -> T) -> (T, String) {
    let before: Vec<u64> = hits().map(|(_, hits)| hits).collect();
    let outcome = run();
    let hit: Vec<bool> = hits().zip(before).map(|((_, now), before)| now > before).collect();
    (outcome, encode(&hit))
}

fn encode(bits: &[bool]) -> String {
    let digit = |four: &[bool]| {
        let value = four.iter().rev().fold(0, |value, bit| value << 1 | u32::from(*bit));
        char::from_digit(value, 16).unwrap_or('0')
    };
    bits.chunks(4).map(digit).collect()
}

/// The indexes of the set bits.
fn decode(digits: &str) -> impl Iterator<Item = usize> + '_ {
    digits.chars().enumerate().flat_map(|(at, digit)| {
        let value = digit.to_digit(16).unwrap_or(0);
        (0..4).filter(move |bit| value >> bit & 1 == 1).map(move |bit| at * 4 + bit)
    })
}

/// The number of seeds that hit each mark; marks that were never hit are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reach {
    seeds: BTreeMap<String, u64>,
}

impl Reach {
    /// Adds the marks of a seed.
    pub fn add(&mut self, digits: &str) {
        for mark in decode(digits).filter_map(|at| MARKS.get(at)) {
            *self.seeds.entry((*mark).to_owned()).or_default() += 1;
        }
    }

    /// Adds another campaign's.
    pub fn merge(&mut self, other: &Self) {
        for (mark, seeds) in &other.seeds {
            *self.seeds.entry(mark.clone()).or_default() += seeds;
        }
    }

    /// The number of marks that were hit.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seeds.len()
    }

    /// The number of marks within reach that were hit.
    #[must_use]
    pub fn within_reach(&self) -> usize {
        let out = |mark: &&String| OUT_OF_REACH.iter().any(|(known, _)| known == mark);
        self.seeds.keys().filter(|mark| !out(mark)).count()
    }

    /// The number of marks that a run can reach.
    #[must_use]
    pub fn reachable() -> usize {
        MARKS.len() - OUT_OF_REACH.len()
    }

    /// Marks that were hit in fewer than 0.1 % of `seeds` seeds, with the number of seeds that hit them.
    #[must_use]
    pub fn rare(&self, seeds: u64) -> Vec<(&str, u64)> {
        let rare = self.seeds.iter().filter(|(_, hit)| **hit * RARE < seeds);
        rare.map(|(mark, hit)| (mark.as_str(), *hit)).collect()
    }

    /// Marks that were never hit.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        MARKS.iter().copied().filter(|mark| !self.seeds.contains_key(*mark)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_their_digits() {
        for length in [0, 1, 3, 4, 5, 251] {
            let bits: Vec<bool> = (0..length).map(|at| at % 3 == 0 || at % 7 == 1).collect();
            let set: Vec<usize> = (0..length).filter(|at| bits[*at]).collect();
            assert_eq!(decode(&encode(&bits)).collect::<Vec<_>>(), set);
        }
    }

    #[test]
    fn rare_marks_and_those_never_hit_are_named() {
        let only = |mark: usize| encode(&(0..MARKS.len()).map(|at| at == mark).collect::<Vec<_>>());
        let mut reach = Reach::default();
        reach.add(&only(0));
        (0..2).for_each(|_| reach.add(&only(MARKS.len() - 1)));
        assert_eq!(reach.count(), 2);
        assert_eq!(reach.rare(1_000), []);
        assert_eq!(reach.rare(1_001), [(MARKS[0], 1)]);
        let never = reach.never();
        assert_eq!(never.len(), MARKS.len() - 2);
        assert!(!never.contains(&MARKS[0]));
        let mut twice = reach.clone();
        twice.merge(&reach);
        assert_eq!(twice.rare(2_001), [(MARKS[0], 2)]);
    }

    #[test]
    fn what_is_out_of_reach_is_named_once_and_is_a_mark() {
        let names: std::collections::BTreeSet<_> =
            OUT_OF_REACH.iter().map(|(mark, _)| mark).collect();
        assert_eq!(names.len(), OUT_OF_REACH.len());
        assert!(names.iter().all(|name| MARKS.contains(name)));
        assert!(OUT_OF_REACH.iter().all(|(_, why)| !why.is_empty()));
        assert_eq!(Reach::reachable() + OUT_OF_REACH.len(), MARKS.len());
    }

    #[test]
    fn a_run_reports_the_marks_that_it_hit_itself() {
        let mark = |name| continuum_core::mark::instrument::mark(name);
        continuum_core::mark::instrument::hit(mark("node.start"));
        // Other tests of this process run nodes, so their marks may be reported too.
        let ((), digits) = watch(|| continuum_core::mark::instrument::hit(mark("wal.recover.rot")));
        assert!(decode(&digits).any(|at| at == mark("wal.recover.rot")));
    }
}
