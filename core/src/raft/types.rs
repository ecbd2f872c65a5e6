//! The values that a group's machine is given and gives back.
//!
//! They carry data and check nothing but themselves; what the machine does with them is in the other modules.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::id::{GroupId, Index, Replica, SnapshotId, Term};
use crate::limits::{MEMBERS_MAX, VOTERS_MAX};
use crate::mutant;

/// Terms and indices past this are refused: honest ones stay below for longer than any disk lasts, and no arithmetic
/// on smaller ones can overflow.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// A place in a log and the term of the entry there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The term first, so that positions order as §5.4.1 compares logs.
    pub term: Term,
    /// The index.
    pub index: Index,
}

/// Who counts. Sorted, without repeats; a replica is in one of the lists at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Who votes and is counted for commit; at most [`crate::limits::VOTERS_MAX`].
    pub voters: Vec<Replica>,
    /// Who receives the log and is not counted.
    pub learners: Vec<Replica>,
}

impl Configuration {
    /// Whether it could be one: 1 to 7 voters, both lists sorted and without repeats, nobody in both.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let sorted = |list: &[Replica]| list.is_sorted_by(|a, b| a < b);
        (1..=VOTERS_MAX).contains(&self.voters.len())
            && self.voters.len() + self.learners.len() <= MEMBERS_MAX
            && sorted(&self.voters)
            && sorted(&self.learners)
            && !self.learners.iter().any(|learner| self.is_voter(*learner))
    }

    /// Whether the replica votes.
    #[must_use]
    pub fn is_voter(&self, replica: Replica) -> bool {
        self.voters.contains(&replica)
    }

    /// Whether the replica is a voter or a learner.
    #[must_use]
    pub fn is_member(&self, replica: Replica) -> bool {
        self.is_voter(replica) || self.learners.binary_search(&replica).is_ok()
    }

    /// The bytes of its members, about as many as it takes in the log, in a message and in memory.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        (self.voters.len() + self.learners.len()) * size_of::<Replica>()
    }

    /// This configuration after a change; `None` when the change names a voter, nobody, or one too many.
    pub(super) fn changed(&self, change: Reconfiguration) -> Option<Self> {
        let (mut voters, mut learners) = (self.voters.clone(), self.learners.clone());
        match change {
            Reconfiguration::AddLearner(replica) if mutant!("raft.membership.learner_votes") => {
                voters.push(replica);
                voters.sort_unstable();
            }
            Reconfiguration::AddLearner(replica) => {
                let votes = self.voters.iter().any(|voter| voter.node == replica.node);
                if votes || learners.contains(&replica) {
                    return None;
                }
                learners.retain(|learner| learner.node != replica.node);
                learners.push(replica);
                learners.sort_unstable();
            }
            Reconfiguration::RemoveLearner(replica) => {
                learners.remove(learners.binary_search(&replica).ok()?);
            }
        }
        let changed = Self { voters, learners };
        changed.is_valid().then_some(changed)
    }
}

/// One entry of a log. Its index is its position in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Group time in milliseconds: counted by successive leaders, never back, paused without a leader.
    pub time_ms: u64,
    /// What it says.
    pub payload: Payload,
}

impl Entry {
    /// The bytes of the payload, about as many as it takes in the log, in a message and in memory.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        match &self.payload {
            Payload::Noop => 0,
            Payload::Configuration(configuration) => configuration.payload_bytes(),
            Payload::Command(command) => command.len(),
        }
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a leader's first entry (§8).
    Noop,
    /// The group's configuration from here on, effective on append.
    Configuration(Configuration),
    /// A command of the state machine, encoded once.
    Command(Bytes),
}

/// A request's number within one group on one node, chosen by the node.
pub type Ticket = u64;

/// A state machine's state at a position, in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it contains.
    pub position: Position,
    /// Group time at that entry.
    pub time_ms: u64,
    /// The configuration as of that entry.
    pub configuration: Configuration,
    /// SHA-256 of all chunks in order.
    pub digest: Digest,
    /// The bytes, each chunk at most [`crate::limits::CHUNK_BYTES_MAX`].
    pub chunks: Vec<Bytes>,
}

impl Snapshot {
    /// The snapshot's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }
}

/// The name of the side file of a received snapshot: the same for the same snapshot, so that a transfer that starts
/// over writes the same bytes to the same file. Its highest bit is set; names that a node gives to its own snapshots
/// have it clear.
#[must_use]
pub fn snapshot_id(group: GroupId, position: Position, digest: Digest) -> SnapshotId {
    let mut hash = Hasher::new();
    hash.value(&(group, position, digest));
    SnapshotId(1 << 63 | hash.finish().short())
}

/// A change of a group's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reconfiguration {
    /// Add a learner. The same node with another store replaces its old entry when that was a learner.
    AddLearner(Replica),
    /// Remove a learner.
    RemoveLearner(Replica),
}

/// Why a proposal, read or change will not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// This replica does not lead; who does, if known.
    NotLeader(Option<Replica>),
    /// Leadership was lost, or is being handed over, before the read was confirmed.
    LostLeadership,
    /// Too many bytes wait for commit.
    Busy,
    /// The change names a voter, or someone who is not there, or follows one that is not committed.
    InvalidChange,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, StoreId};

    fn replica(node: u8, store: u8) -> Replica {
        Replica { node: NodeId([node; 16]), store: StoreId([store; 16]) }
    }

    fn configuration(voters: &[u8], learners: &[u8]) -> Configuration {
        let list = |nodes: &[u8]| nodes.iter().map(|node| replica(*node, 1)).collect();
        Configuration { voters: list(voters), learners: list(learners) }
    }

    #[test]
    fn invalid_configurations_are_told() {
        assert!(configuration(&[1, 2, 3], &[4]).is_valid());
        assert!(!configuration(&[], &[4]).is_valid(), "nobody votes");
        assert!(!configuration(&[2, 1], &[]).is_valid(), "unsorted");
        assert!(!configuration(&[1, 1], &[]).is_valid(), "repeated");
        assert!(!configuration(&[1, 2], &[2]).is_valid(), "in both lists");
        assert!(!configuration(&[1, 2, 3, 4, 5, 6, 7, 8], &[]).is_valid(), "too many");
    }

    #[test]
    fn a_change_that_makes_no_sense_is_refused() {
        let now = configuration(&[1, 2], &[4]);
        assert_eq!(now.changed(Reconfiguration::AddLearner(replica(1, 9))), None);
        assert_eq!(now.changed(Reconfiguration::AddLearner(replica(4, 1))), None);
        assert_eq!(now.changed(Reconfiguration::RemoveLearner(replica(1, 1))), None);
        assert_eq!(now.changed(Reconfiguration::RemoveLearner(replica(5, 1))), None);
    }

    #[test]
    fn another_store_replaces_a_learner() {
        let now = configuration(&[1, 2], &[4]);
        let next = now.changed(Reconfiguration::AddLearner(replica(4, 2))).unwrap();
        assert_eq!(next.learners, [replica(4, 2)]);
        let next = now.changed(Reconfiguration::AddLearner(replica(3, 1))).unwrap();
        assert_eq!(next.learners, [replica(3, 1), replica(4, 1)]);
    }
}
