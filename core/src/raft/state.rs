//! A replica's memory besides its log: the state of a candidate or leader, pending reads, a snapshot on its way.
//!
//! The protocol modules change this data. This module does not build messages.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::message::SnapshotHeader;
use super::progress::Progress;
use super::types::{Snapshot, Ticket, snapshot_id};
use crate::digest::Hasher;
use crate::id::{GroupId, Index, NodeId, Replica, SnapshotId};
use crate::limits::VOTERS_MAX;
use crate::seed::Seed;
use crate::time::Instant;
use crate::{mutant, reach};

/// The part of the state that depends on the role.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// A follower or a learner.
    Follower,
    /// A pre-candidate or a candidate.
    Campaign(Campaign),
    Leader(Box<Leader>),
}

/// A pre-vote or an election of this replica.
#[derive(Clone, Debug)]
pub(super) struct Campaign {
    /// A pre-vote: it asks without a new term.
    pub(super) pre: bool,
    /// The answers so far, at most one of each voter.
    pub(super) votes: Vec<(Replica, bool)>,
    /// Votes are requested once this many writes are durable (our own vote is among them). `None`: already requested.
    pub(super) request_after: Option<u64>,
    /// `Some` if the leader asked for this election: the voters that must not be the next transfer target.
    pub(super) transfer_excluded: Option<Vec<Replica>>,
}

impl Campaign {
    pub(super) const fn new(pre: bool, transfer_excluded: Option<Vec<Replica>>) -> Self {
        Self { pre, votes: Vec::new(), request_after: None, transfer_excluded }
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.pre, &self.votes, self.request_after, &self.transfer_excluded));
    }

    /// The number of answers that grant, or deny, the vote.
    pub(super) fn count(&self, granted: bool) -> usize {
        self.votes.iter().filter(|(_, answer)| *answer == granted).count()
    }
}

/// The state of a leader.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// The progress of all members but this replica, in the order of the replicas.
    pub(super) peers: Vec<Progress>,
    /// The first entry of this leader's term. Earlier entries are committed only together with it, and no read is
    /// answered before it is committed.
    pub(super) noop: Index,
    pub(super) heartbeat_at: Instant,
    /// Group time in milliseconds when this leader's term began, at `since`.
    pub(super) time_ms: u64,
    pub(super) since: Instant,
    pub(super) uncommitted_bytes: usize,
    /// The last round of heartbeats that was sent.
    pub(super) round: u64,
    /// The last round that a majority confirmed.
    pub(super) confirmed: u64,
    /// Reads that wait for a round, oldest first.
    pub(super) reads: VecDeque<PendingRead>,
    /// The voter that shall lead next, and when the transfer is aborted.
    pub(super) transfer_target: Option<(Replica, Instant)>,
    /// Voters excluded as transfer targets, because each gave leadership away or did not take it.
    pub(super) transfer_excluded: Vec<Replica>,
    /// The snapshot that is sent to followers that need one.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Whether an `Action::Capture` is not answered yet.
    pub(super) capturing: bool,
}

impl Leader {
    pub(super) fn peer(&mut self, replica: Replica) -> Option<&mut Progress> {
        let at = self.peers.binary_search_by_key(&replica, |peer| peer.replica).ok()?;
        self.peers.get_mut(at)
    }

    /// A part of a peer's progress; the default for a replica that is no peer.
    pub(super) fn of<T: Default>(&self, voter: Replica, part: impl Fn(&Progress) -> T) -> T {
        let at = self.peers.binary_search_by_key(&voter, |peer| peer.replica);
        at.map_or_else(|_| T::default(), |at| part(&self.peers[at]))
    }

    pub(super) fn contact(&self, voter: Replica) -> Instant {
        self.of(voter, |peer| peer.last_contact)
    }

    pub(super) fn round_of(&self, voter: Replica) -> u64 {
        self.of(voter, |peer| peer.round)
    }

    /// When the next heartbeat is due. `None` without peers.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.peers.is_empty()).then_some(self.heartbeat_at)
    }

    /// The voter with the longest log among those that answered within `timeout` and are not excluded.
    pub(super) fn choose_transfer_target(
        &self,
        voters: &[Replica],
        now: Instant,
        timeout: Duration,
    ) -> Option<Replica> {
        let excluded =
            |voter| self.transfer_excluded.contains(&voter) && !mutant!("raft.transfer.hands_back");
        let alive = |peer: &&Progress| {
            let may = voters.contains(&peer.replica) && !excluded(peer.replica);
            may && now.since(peer.last_contact) < timeout
        };
        self.peers.iter().filter(alive).max_by_key(|peer| peer.matched).map(|peer| peer.replica)
    }

    pub(super) fn begin_leadership_transfer(&mut self, target: Replica, until: Instant) {
        self.transfer_target = Some((target, until));
    }

    /// Aborts the transfer if its time is over, and excludes its target from the next one.
    pub(super) fn abort_transfer(&mut self, now: Instant) {
        if let Some((target, _)) = self.transfer_target.take_if(|(_, until)| *until <= now) {
            reach!("raft.transfer.expired");
            self.exclude_from_transfer(target);
        }
    }

    pub(super) fn exclude_from_transfer(&mut self, voter: Replica) {
        if !self.transfer_excluded.contains(&voter) && self.transfer_excluded.len() < VOTERS_MAX {
            self.transfer_excluded.push(voter);
        }
    }

    /// The leader stays, so the next transfer may target any voter.
    pub(super) fn clear_transfer_excluded(&mut self) {
        self.transfer_excluded.clear();
    }

    /// The link to a node is down. It gave leadership away because it was about to stop, or it may have restarted
    /// since; a voter that still does not want to lead gives leadership away once more.
    pub(super) fn may_lead_again(&mut self, node: NodeId) {
        if !mutant!("raft.transfer.excludes_restarted") {
            self.transfer_excluded.retain(|voter| voter.node != node);
        }
    }

    /// The voters that the transfer target must exclude: this leader, then those that this leader excludes.
    pub(super) fn transfer_excluded_with(&self, me: Replica) -> Vec<Replica> {
        let others = self.transfer_excluded.iter().copied().filter(|voter| *voter != me);
        core::iter::once(me).chain(others).take(VOTERS_MAX).collect()
    }

    pub(super) const fn is_transferring(&self) -> bool {
        self.transfer_target.is_some()
    }

    /// The transfer target, if its log reaches `last`.
    pub(super) fn caught_up_transfer_target(&self, last: Index) -> Option<Replica> {
        let (target, _) = self.transfer_target?;
        (self.of(target, |peer| peer.matched) == last).then_some(target)
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.noop, self.round, self.confirmed, self.uncommitted_bytes as u64));
        hash.value(&(self.reads.len() as u64, self.transfer_target, &self.transfer_excluded));
        hash.value(&(self.capturing, self.time_ms));
        for peer in &self.peers {
            hash.value(&(peer.replica, peer.matched, peer.next, peer.round, peer.last_contact));
        }
    }
}

/// A read that waits at the leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRead {
    pub(super) origin: ReadOrigin,
    /// The index that must be applied before the read is served.
    pub(super) index: Index,
    /// The round that confirms the read.
    pub(super) round: u64,
}

/// The origin of a read.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReadOrigin {
    /// A client of this node.
    Local(Ticket),
    /// Another member, on behalf of a client of its node.
    Remote { replica: Replica, id: u64 },
}

/// Reads that this replica forwarded to the leader.
#[derive(Clone, Debug)]
pub(super) struct ForwardedReads {
    /// The next read's number. It starts at a random number in each process, so that an answer to a read of an earlier
    /// process, which names an older index, is not mistaken for the answer to a new read.
    pub(super) next: u64,
    /// Ticket and deadline by number. Later numbers have later deadlines.
    pub(super) pending: BTreeMap<u64, (Ticket, Instant)>,
}

impl ForwardedReads {
    pub(super) fn new(seed: &Seed, group: GroupId) -> Self {
        let first = seed.derive("raft.read", u64::from(group.0)).draw() >> 1;
        Self { next: first, pending: BTreeMap::new() }
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.next, &self.pending));
    }

    /// When the oldest read is refused.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, (_, until))| *until)
    }
}

/// A snapshot that this replica receives.
#[derive(Clone, Debug)]
pub(super) struct IncomingSnapshot {
    pub(super) header: SnapshotHeader,
    pub(super) id: SnapshotId,
    pub(super) chunks: Vec<Bytes>,
    /// Bytes received so far, from the snapshot's start.
    pub(super) received: u64,
    /// Bytes of its file that are durable.
    pub(super) durable: u64,
    /// The digest of the received bytes.
    pub(super) sha: Sha256,
    /// The whole snapshot, once all of it was received.
    pub(super) complete: Option<Arc<Snapshot>>,
    /// Whether the state machine restored it.
    pub(super) restores: bool,
}

impl IncomingSnapshot {
    pub(super) fn new(group: GroupId, header: SnapshotHeader) -> Self {
        let id = snapshot_id(group, header.position, header.digest);
        Self {
            header,
            id,
            chunks: Vec::new(),
            received: 0,
            durable: 0,
            sha: Sha256::new(),
            complete: None,
            restores: false,
        }
    }

    /// Whether the snapshot covers nothing after `index`.
    pub(super) fn ends_by(&self, index: Index) -> bool {
        self.header.position.index <= index
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(&self.header, self.received, self.durable));
        hash.value(&(self.complete.is_some(), self.restores));
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.received == self.header.length
    }
}

/// The log is durable up to `index` once the first `writes` writes are. Durable writes prove bytes, not indices: a cut
/// of the log lowers the marks of the entries that it removes, so that old bytes prove nothing about new entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurableMark {
    pub(super) writes: u64,
    pub(super) index: Index,
}
