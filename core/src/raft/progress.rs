//! What a leader knows of one follower, and how fast it may send to it.
//!
//! Pure bookkeeping: no message is made here, and nothing here decides what is committed.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::types::Snapshot;
use crate::id::{Index, Replica};
use crate::time::Instant;

/// A follower as its leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Who.
    pub(super) replica: Replica,
    /// The log is shared up to here, durably on the follower's disk.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    /// How it is sent to.
    pub(super) flow: Flow,
    /// When it last answered.
    pub(super) last_contact: Instant,
    /// The last round that it confirmed.
    pub(super) round: u64,
    /// The greatest commit index that it was told.
    pub(super) commit_sent: Index,
    /// The greatest index that one of its reads waits for.
    pub(super) awaited_commit: Index,
    /// Whether it acknowledged anything new since `check_at` was last set.
    pub(super) advanced: bool,
    /// When a lack of progress is next looked at.
    pub(super) check_at: Instant,
}

/// How a follower is sent to.
#[derive(Clone, Debug)]
pub(super) enum Flow {
    /// The shared prefix is unknown: one append at a time.
    Probe {
        /// One is under way.
        paused: bool,
    },
    /// Entries are streamed, each append before the last is acknowledged.
    Replicate {
        /// The last index of each append under way.
        inflight: VecDeque<Index>,
    },
    /// The entries that it needs are gone.
    Snapshot(SnapshotTransfer),
}

/// A snapshot on its way.
#[derive(Clone, Debug)]
pub(super) struct SnapshotTransfer {
    /// What is sent; `None` until it is captured.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Bytes that the receiver holds durably; `None` until it answered the offer.
    pub(super) held: Option<u64>,
    /// Bytes sent.
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
        }
    }

    /// Starts over from what is known to be shared.
    pub(super) fn probe(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.flow = Flow::Probe { paused: false };
    }

    /// Starts over from nothing: the follower may be another life of itself, on a disk that took back what it had
    /// acknowledged. Its answer to the next probe says what it has; until then it counts for nothing.
    pub(super) fn reset(&mut self) {
        self.next = self.next.min(self.matched.next()).max(Index(1));
        (self.matched, self.commit_sent) = (Index(0), Index(0));
        self.flow = Flow::Probe { paused: false };
    }

    pub(super) fn replicate(&mut self) {
        self.next = self.matched.next();
        self.flow = Flow::Replicate { inflight: VecDeque::new() };
    }

    /// Records an acknowledgement. Late ones change nothing.
    pub(super) fn acknowledge(&mut self, matched: Index) {
        if matched > self.matched {
            self.matched = matched;
            self.advanced = true;
        }
        self.next = self.next.max(matched.next());
        let settled = match &mut self.flow {
            Flow::Probe { .. } => matched >= self.matched,
            Flow::Replicate { inflight } => {
                while inflight.front().is_some_and(|last| *last <= matched) {
                    inflight.pop_front();
                }
                false
            }
            // Whatever brought it this far, the log can bring it further once the snapshot's entries are there.
            Flow::Snapshot(transfer) => {
                transfer.snapshot.as_ref().is_some_and(|s| s.position.index <= self.matched)
            }
        };
        if settled {
            self.replicate();
        }
    }

    /// Which index would be sent next, if the window has room for another append.
    pub(super) fn has_room(&self, inflight_max: usize) -> bool {
        match &self.flow {
            Flow::Probe { paused } => !paused,
            Flow::Replicate { inflight } => inflight.len() < inflight_max,
            Flow::Snapshot(_) => false,
        }
    }

    /// Records that entries up to `last` were sent.
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

    /// The first index that it still wants from the log, minus one: entries after it are worth keeping.
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
        assert!(!progress.has_room(2), "a late acknowledgement frees nothing");
        progress.acknowledge(Index(5));
        assert!(progress.has_room(2));
        assert_eq!((progress.matched, progress.next), (Index(5), Index(10)));
    }

    #[test]
    fn matched_falls_with_the_link_and_never_else() {
        let mut progress = follower();
        progress.acknowledge(Index(8));
        progress.acknowledge(Index(3));
        assert_eq!(progress.matched, Index(8));
        progress.probe(Index(2));
        assert_eq!(progress.next, Index(9));
        progress.sent(Index(12));
        progress.reset();
        assert_eq!((progress.matched, progress.next), (Index(0), Index(9)));
        assert_eq!(progress.floor(), Index(8), "what it said it had is asked for first");
    }
}
