//! What a replica remembers besides its log: its role and all that comes with it.
//!
//! Plain data and questions about it. The modules that handle messages change it; no message is made here.

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
use crate::id::{GroupId, Index, Replica, SnapshotId};
use crate::limits::VOTERS_MAX;
use crate::seed::Seed;
use crate::time::Instant;
use crate::{mutant, reach};

/// What a replica does about leadership.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Follows, or learns.
    Follower,
    /// Asks for votes, or whether it would get them.
    Campaign(Campaign),
    /// Leads.
    Leader(Box<Leader>),
}

/// A campaign.
#[derive(Clone, Debug)]
pub(super) struct Campaign {
    /// Only asks, without a new term.
    pub(super) pre: bool,
    /// The answers so far, one a voter.
    pub(super) votes: Vec<(Replica, bool)>,
    /// Votes are asked for once this replica's own is durable, that is once so many writes are. `None` when they were.
    pub(super) after: Option<u64>,
    /// A leader asked for this campaign, and wants these transfer_excluded.
    pub(super) transfer_excluded: Option<Vec<Replica>>,
}

impl Campaign {
    pub(super) const fn new(pre: bool, transfer_excluded: Option<Vec<Replica>>) -> Self {
        Self { pre, votes: Vec::new(), after: None, transfer_excluded }
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.pre, &self.votes, self.after, &self.transfer_excluded));
    }

    pub(super) fn count(&self, granted: bool) -> usize {
        self.votes.iter().filter(|(_, answer)| *answer == granted).count()
    }
}

/// What only a leader has.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// All members but this replica, in their order.
    pub(super) peers: Vec<Progress>,
    /// The first entry of this leader's term: nothing before it is committed by counting, and no read is answered
    /// before it is committed.
    pub(super) noop: Index,
    pub(super) heartbeat_at: Instant,
    /// Group time is this much more than the clock has counted since `since`.
    pub(super) time_ms: u64,
    pub(super) since: Instant,
    pub(super) uncommitted_bytes: usize,
    /// The last round of heartbeats that was sent, and the last that a majority confirmed.
    pub(super) round: u64,
    pub(super) confirmed: u64,
    /// Reads that wait for a round, oldest first.
    pub(super) reads: VecDeque<PendingRead>,
    pub(super) transfer_target: Option<(Replica, Instant)>,
    /// Whom it hands leadership to no more: each gave it away, or did not take it, and nobody kept it since.
    pub(super) transfer_excluded: Vec<Replica>,
    /// The snapshot for those who need one, and whether one was asked for.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) capturing: bool,
}

impl Leader {
    pub(super) fn peer(&mut self, replica: Replica) -> Option<&mut Progress> {
        let at = self.peers.binary_search_by_key(&replica, |peer| peer.replica).ok()?;
        self.peers.get_mut(at)
    }

    /// A voter's progress; that of a voter who is none of the peers is nothing.
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

    /// A leader without followers has nothing to tell in time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.peers.is_empty()).then_some(self.heartbeat_at)
    }

    /// The voter with the longest log among those who answered lately.
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

    /// Gives up a transfer_target that did not campaign in time. The next one is another.
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

    /// This leader keeps its office: whoever is asked next may be anybody.
    pub(super) fn clear_transfer_excluded(&mut self) {
        self.transfer_excluded.clear();
    }

    /// Whom the transfer_target shall spare: all that this leader does, and itself.
    pub(super) fn transfer_excluded_with(&self, me: Replica) -> Vec<Replica> {
        let others = self.transfer_excluded.iter().copied().filter(|voter| *voter != me);
        core::iter::once(me).chain(others).take(VOTERS_MAX).collect()
    }

    pub(super) const fn is_transferring(&self) -> bool {
        self.transfer_target.is_some()
    }

    /// The transfer_target, if there is one and it has the log up to `last`.
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

/// A read at its leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRead {
    pub(super) origin: ReadOrigin,
    /// What must be applied before it is served.
    pub(super) index: Index,
    /// The round that confirms it.
    pub(super) round: u64,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReadOrigin {
    Local(Ticket),
    Remote { replica: Replica, id: u64 },
}

/// Reads that were sent to the leader.
#[derive(Clone, Debug)]
pub(super) struct ForwardedReads {
    /// The next read's number. It starts at random in each life: an answer to a read of an earlier life names an older
    /// index, and must not be taken for the answer to a new one.
    pub(super) next: u64,
    /// In order of their numbers, and so of their deadlines.
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

    /// When the oldest is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, (_, until))| *until)
    }
}

/// A snapshot on its way in.
#[derive(Clone, Debug)]
pub(super) struct IncomingSnapshot {
    pub(super) header: SnapshotHeader,
    pub(super) id: SnapshotId,
    pub(super) chunks: Vec<Bytes>,
    pub(super) held: u64,
    pub(super) sha: Sha256,
}

impl IncomingSnapshot {
    pub(super) fn new(group: GroupId, header: SnapshotHeader) -> Self {
        let id = snapshot_id(group, header.position, header.digest);
        Self { header, id, chunks: Vec::new(), held: 0, sha: Sha256::new() }
    }

    /// Whether it covers nothing after `index`.
    pub(super) fn ends_by(&self, index: Index) -> bool {
        self.header.position.index <= index
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&(&self.header, self.held));
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.held == self.header.length
    }
}

/// Once so many writes are durable, the log is durable up to this index. A token proves bytes, not indices: when the
/// log is cut, the marks of what was cut are lowered with it, so that bytes that were durable once prove nothing about
/// the entries that replaced them.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurableMark {
    pub(super) writes: u64,
    pub(super) index: Index,
}
