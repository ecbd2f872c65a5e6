//! A leader's view of one follower, and how much it may send to it.
//!
//! This module does not build messages and does not decide what is committed.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::types::Snapshot;
use crate::id::{Index, Replica};
use crate::time::Instant;

/// A follower or learner as its leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) replica: Replica,
    /// The last index up to which the follower's disk has the leader's log.
    pub(super) matched: Index,
    /// The index of the next entry to send.
    pub(super) next: Index,
    /// The current way to send to it.
    pub(super) flow: Flow,
    /// When the follower last answered.
    pub(super) last_contact: Instant,
    /// The last round of heartbeats that it confirmed.
    pub(super) round: u64,
    /// The greatest commit index that was sent to it.
    pub(super) commit_sent: Index,
    /// The greatest index for which one of its reads waits.
    pub(super) awaited_commit: Index,
    /// Whether it acknowledged new entries or bytes since `check_at` was last set.
    pub(super) advanced: bool,
    /// When the leader next checks that it makes progress.
    pub(super) check_at: Instant,
    /// Snapshots that it refused since it last made progress, and until when it gets no further offer.
    pub(super) refusals: u32,
    pub(super) rest_until: Instant,
}

/// The way in which a leader sends to a follower.
#[derive(Clone, Debug)]
pub(super) enum Flow {
    /// The shared prefix of the logs is unknown: one append at a time.
    Probe {
        /// An append is under way.
        paused: bool,
    },
    /// The prefix is known: appends leave without waiting for acknowledgements, up to the window.
    Replicate {
        /// The last index of each append that is not acknowledged yet.
        inflight: VecDeque<Index>,
    },
    /// The leader no longer has the entries that the follower needs.
    Snapshot(SnapshotTransfer),
}

/// A snapshot that is sent to a follower.
#[derive(Clone, Debug)]
pub(super) struct SnapshotTransfer {
    /// The snapshot; `None` until it is captured.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Bytes that the receiver has durably; `None` until it answers the offer.
    pub(super) acked: Option<u64>,
    /// Bytes sent so far, from the snapshot's start.
    pub(super) sent: u64,
}

impl Progress {
    pub(super) const fn new(replica: Replica, next: Index, now: Instant) -> Self {
        Self {
            replica,
            matched: Index(0),
            next,
            flow: Flow::Probe { paused: false },
            last_contact: now,
            round: 0,
            commit_sent: Index(0),
            awaited_commit: Index(0),
            advanced: false,
            check_at: now,
            refusals: 0,
            rest_until: Instant::ZERO,
        }
    }

    /// Starts again with a probe, after the entries that are known to be shared.
    pub(super) fn probe(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.flow = Flow::Probe { paused: false };
    }

    /// Starts again with nothing known to be shared: the follower may have restarted on a disk that lost what it had
    /// acknowledged. Its answer to the next probe says what it has, and until then it does not count for commit.
    pub(super) fn reset(&mut self) {
        self.next = self.next.min(self.matched.next()).max(Index(1));
        (self.matched, self.commit_sent) = (Index(0), Index(0));
        self.flow = Flow::Probe { paused: false };
    }

    /// Streams entries after those that are known to be shared.
    pub(super) fn replicate(&mut self) {
        self.next = self.matched.next();
        self.flow = Flow::Replicate { inflight: VecDeque::new() };
    }

    /// Records an acknowledgement. A late one changes nothing.
    pub(super) fn acknowledge(&mut self, matched: Index) {
        if matched > self.matched {
            self.matched = matched;
            self.advanced = true;
            (self.refusals, self.rest_until) = (0, Instant::ZERO);
        }
        self.next = self.next.max(matched.next());
        let is_known = match &mut self.flow {
            Flow::Probe { .. } => matched >= self.matched,
            Flow::Replicate { inflight } => {
                while inflight.front().is_some_and(|last| *last <= matched) {
                    inflight.pop_front();
                }
                false
            }
            // Once the follower has the entries of the snapshot, however it got them, it can follow the log again.
            Flow::Snapshot(transfer) => {
                transfer.snapshot.as_ref().is_some_and(|s| s.position.index <= self.matched)
            }
        };
        if is_known {
            self.replicate();
        }
    }

    /// Whether the leader sends a snapshot to it, or waits for one to send.
    pub(super) const fn needs_snapshot(&self) -> bool {
        matches!(self.flow, Flow::Snapshot(_))
            && !(self.refusals > 0
                && matches!(&self.flow, Flow::Snapshot(t) if t.snapshot.is_none()))
    }

    /// Whether the window has room for another append.
    pub(super) fn has_room(&self, inflight_max: usize) -> bool {
        match &self.flow {
            Flow::Probe { paused } => !paused,
            Flow::Replicate { inflight } => inflight.len() < inflight_max,
            Flow::Snapshot(_) => false,
        }
    }

    /// Records that an append with entries up to `last` was sent.
    pub(super) fn sent(&mut self, last: Index) {
        match &mut self.flow {
            Flow::Probe { paused } => *paused = true,
            Flow::Replicate { inflight } => {
                inflight.push_back(last);
                self.next = last.next();
            }
            Flow::Snapshot(_) => {}
        }
    }

    /// The follower still needs the entries after this index.
    pub(super) fn floor(&self) -> Index {
        match &self.flow {
            Flow::Snapshot(SnapshotTransfer { snapshot: Some(snapshot), .. }) => {
                snapshot.position.index
            }
            Flow::Probe { .. } => self.next.prev(),
            _ => self.matched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> Progress {
        Progress::new(Replica::default(), Index(5), Instant::ZERO)
    }

    #[test]
    fn a_probe_sends_one_append_and_then_waits() {
        let mut progress = follower();
        assert!(progress.has_room(8));
        progress.sent(Index(7));
        assert!(!progress.has_room(8));
        assert_eq!(progress.next, Index(5));
        progress.acknowledge(Index(4));
        assert!(matches!(progress.flow, Flow::Replicate { .. }));
        assert_eq!(progress.next, Index(5));
    }

    #[test]
    fn the_window_closes_when_full_and_opens_with_each_acknowledgement() {
        let mut progress = follower();
        progress.acknowledge(Index(4));
        progress.sent(Index(5));
        progress.sent(Index(9));
        assert!(!progress.has_room(2));
        progress.acknowledge(Index(3));
        assert!(!progress.has_room(2), "a late acknowledgement makes no room");
        progress.acknowledge(Index(5));
        assert!(progress.has_room(2));
        assert_eq!((progress.matched, progress.next), (Index(5), Index(10)));
    }

    #[test]
    fn matched_decreases_only_on_a_reset() {
        let mut progress = follower();
        progress.acknowledge(Index(8));
        progress.acknowledge(Index(3));
        assert_eq!(progress.matched, Index(8));
        progress.probe(Index(2));
        assert_eq!(progress.next, Index(9));
        progress.sent(Index(12));
        progress.reset();
        assert_eq!((progress.matched, progress.next), (Index(0), Index(9)));
        assert_eq!(
            progress.floor(),
            Index(8),
            "the next probe asks for the last acknowledged entry"
        );
    }
}
