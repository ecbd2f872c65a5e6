//! The values in the events, actions, messages and records of a group.
//!
//! They check their own form and nothing else. This module does not know the machine.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::id::{GroupId, Index, Replica, SnapshotId, Term};
use crate::limits::{MEMBERS_MAX, VOTERS_MAX};
use crate::mutant;

/// The machine rejects terms and indices above this bound. Real ones stay below it for longer than any disk lasts, and
/// arithmetic on smaller ones cannot overflow.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// How far above a replica's own term a message's term may be. Elections at every 100 ms take thirteen years to get
/// there, so an honest replica that was away is never that far behind. A voter that lies could otherwise bring a group
/// to the last term with one message, and no leader would ever be elected again.
pub(super) const TERM_LEAD_MAX: u64 = 1 << 32;

/// An index of a log and the term of the entry there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// First, so that the order of positions is the order of logs in §5.4.1.
    pub term: Term,
    /// 0 is the position before the first entry.
    pub index: Index,
}

/// The members of a group. Both lists are sorted and without repeats, and no replica is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The replicas that vote and count for commit: at most [`crate::limits::VOTERS_MAX`].
    pub voters: Vec<Replica>,
    /// The replicas that receive the log and count for nothing.
    pub learners: Vec<Replica>,
}

impl Configuration {
    /// Whether there are 1 to 7 voters and not too many members, both lists are sorted without repeats, and no replica
    /// is in both.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let sorted = |list: &[Replica]| list.is_sorted_by(|a, b| a < b);
        (1..=VOTERS_MAX).contains(&self.voters.len())
            && self.voters.len() + self.learners.len() <= MEMBERS_MAX
            && sorted(&self.voters)
            && sorted(&self.learners)
            && !self.learners.iter().any(|learner| self.is_voter(*learner))
    }

    /// Whether the replica is a voter.
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

    /// This configuration after a change. `None` if the change adds a member that is there, removes a learner that is
    /// not, or makes the group too large. A voter's node may come in with another store: that one never votes.
    pub(super) fn changed(&self, change: Reconfiguration) -> Option<Self> {
        let (mut voters, mut learners) = (self.voters.clone(), self.learners.clone());
        match change {
            Reconfiguration::AddLearner(replica) if mutant!("raft.membership.learner_votes") => {
                voters.push(replica);
                voters.sort_unstable();
            }
            Reconfiguration::AddLearner(replica) => {
                if self.is_member(replica) {
                    return None;
                }
                if mutant!("raft.membership.drops_learner") {
                    learners.pop();
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
    /// The term of the leader that created it.
    pub term: Term,
    /// Group time in milliseconds. Successive leaders count it; it never goes back, and stands still without a leader.
    pub time_ms: u64,
    /// The content of the entry.
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

/// The content of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing. The first entry of each leader (§8).
    Noop,
    /// The group's configuration, in effect from the moment that a replica appends the entry.
    Configuration(Configuration),
    /// A command of the state machine. The proposer encodes it; the machine does not look inside.
    Command(Bytes),
}

/// The number of a request within one group on one node. The node chooses it.
pub type Ticket = u64;

/// A state machine's state at a position, in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry whose effect the state contains.
    pub position: Position,
    /// Group time at that entry, in milliseconds.
    pub time_ms: u64,
    /// The configuration as of that entry.
    pub configuration: Configuration,
    /// SHA-256 of all chunks in order.
    pub digest: Digest,
    /// The state's bytes. Each chunk has at most [`crate::limits::CHUNK_BYTES_MAX`].
    pub chunks: Vec<Bytes>,
}

impl Snapshot {
    /// The length of all chunks in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }
}

/// The name of the snapshot file of a received snapshot. The same snapshot has the same name, so that a transfer that
/// starts over writes the same bytes to the same file. The highest bit is set; a node names its own snapshots with the
/// bit clear.
#[must_use]
pub fn snapshot_id(group: GroupId, position: Position, digest: Digest) -> SnapshotId {
    let mut hash = Hasher::new();
    hash.value(&(group, position, digest));
    SnapshotId(1 << 63 | hash.finish().short())
}

/// Whether the file came from a leader: a node's own files are numbered without the highest bit.
#[must_use]
pub const fn is_received(snapshot: SnapshotId) -> bool {
    snapshot.0 >> 63 != 0
}

/// A change of a group's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reconfiguration {
    /// Adds a learner. It replaces a learner of the same node with another store.
    AddLearner(Replica),
    /// Removes a learner.
    RemoveLearner(Replica),
}

/// Why a proposal, read or change will not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// This replica does not lead, or transfers its leadership. The leader, if known.
    NotLeader(Option<Replica>),
    /// The leader lost its leadership, or began to transfer it, before it confirmed the read.
    LostLeadership,
    /// Too many bytes wait for commit, or too many reads for their confirmation.
    Busy,
    /// The change does not fit the configuration (see [`Reconfiguration`]), or the change before it is not committed.
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
    fn invalid_configurations_are_recognized() {
        assert!(configuration(&[1, 2, 3], &[4]).is_valid());
        assert!(!configuration(&[], &[4]).is_valid(), "no voters");
        assert!(!configuration(&[2, 1], &[]).is_valid(), "unsorted");
        assert!(!configuration(&[1, 1], &[]).is_valid(), "repeated");
        assert!(!configuration(&[1, 2], &[2]).is_valid(), "in both lists");
        assert!(!configuration(&[1, 2, 3, 4, 5, 6, 7, 8], &[]).is_valid(), "too many");
    }

    #[test]
    fn a_change_that_does_not_fit_is_refused() {
        let now = configuration(&[1, 2], &[4]);
        assert_eq!(now.changed(Reconfiguration::AddLearner(replica(1, 1))), None);
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
        // A voter whose store is gone: the new one does not vote, and the old one still does.
        let next = now.changed(Reconfiguration::AddLearner(replica(1, 9))).unwrap();
        assert_eq!(next.learners, [replica(1, 9), replica(4, 1)]);
        assert_eq!(next.voters, now.voters);
    }
}
