//! Comparisons: what is compared with which peer, and when.
//!
//! Each peer has turns of its own, from a moment on that is drawn, so that nodes do not compare with one peer at the
//! same time. In a turn the shards that changed since its last one are compared one by one. All others cost one message
//! about all of them ([`Summary`]), and that only now and then: soon after a change, and rarely while nothing changes.
//! This module does not know how replicas synchronize; `sync` does.

use alloc::vec::Vec;
use core::time::Duration;

use crate::digest::Digest;
use crate::id::{NodeId, Replica, ShardId};
use crate::machine::{Now, Outbox};
use crate::time::Instant;
use crate::{mutant, reach};

use super::sync::message::Message;
use super::sync::summary::{BLOCKS, ROOTS_MAX, Summary};
use super::{Action, Replicator, reject};

/// A session without an answer for this many comparison periods ends.
const SESSION_PERIODS: u64 = 3;
/// Shards that changed and are compared one by one in one turn. If more changed, they are found by their blocks.
const CHANGES_MAX: usize = 256;
/// A node with at most so few shards compares each: a summary would cost round trips and save nothing.
const FEW: usize = 4;
/// Shards whose roots are brought up to date in one step.
const REFRESHED_MAX: usize = 512;
/// Periods between two summaries for one peer, after a change and while the last one was equal and nothing changed.
const CHANGED_PERIODS: u64 = 4;
const QUIET_PERIODS: u64 = 60;
/// A peer with which much differs has its next turn after this part of a period.
const SOON: u32 = 8;

impl Replicator {
    /// How long a session waits for an answer.
    pub(super) const fn patience(&self) -> Duration {
        Duration::from_millis(self.config.anti_entropy_ms * SESSION_PERIODS)
    }

    fn period(&self) -> Duration {
        Duration::from_millis(self.config.anti_entropy_ms)
    }

    /// Does what is due by now.
    pub(super) fn run_timers(&mut self, now: Now, out: &mut Outbox<Action>) {
        while let Some(node) = self.peers.due(now.mono) {
            self.take_turn(now.mono, node, out);
        }
        let patience = self.patience();
        while let Some(id) = self.index.expired(now.mono) {
            let Some(local) = self.shards.get_mut(&id) else { return };
            local.sync.session = None;
            self.index.note(id, local, patience);
        }
    }

    /// Compares with a replica, if it is one of the set and connected.
    pub(super) fn begin_compare(
        &mut self,
        now: Instant,
        replica: Replica,
        out: &mut Outbox<Action>,
    ) {
        if !self.peers.reset_window(&replica) {
            return;
        }
        for id in self.index.refusing.clone() {
            if let Some(local) = self.shards.get_mut(&id) {
                local.sync.forget_refused(replica.node);
            }
        }
        let newest = self.index.seen();
        let Some(peer) = self.peers.get_mut(replica.node) else { return };
        peer.begin(newest);
        let is_asked = self.ask_whole(now, replica, out);
        let spread = self.turn_ms();
        let first = if is_asked { self.stream.below(spread) } else { 1 };
        self.peers.schedule(replica.node, now + Duration::from_millis(first));
    }

    /// Milliseconds between two turns of one peer: each shard that changes is compared once a period.
    fn turn_ms(&self) -> u64 {
        let connected = self.peers.connected().count().max(1) as u64;
        self.config.anti_entropy_ms.saturating_mul(connected)
    }

    /// Compares with one peer what is to be compared now.
    fn take_turn(&mut self, now: Instant, node: NodeId, out: &mut Outbox<Action>) {
        let period = self.period();
        let mut next = now + Duration::from_millis(self.turn_ms());
        let Some(peer) = self.peers.get_mut(node) else { return };
        let (to, upto) = (peer.replica, peer.compared);
        let changed: Vec<ShardId> = self.index.since(upto).take(CHANGES_MAX + 1).collect();
        peer.compared = self.index.seen();
        let is_unchanged = peer.equal_at == Some(peer.compared);
        let pause = period * if is_unchanged { QUIET_PERIODS } else { CHANGED_PERIODS } as u32;
        let mut asks = now >= peer.asked_at + pause || peer.resumes.is_some();
        if mutant!("replication.compare.never") {
            return self.peers.schedule(node, next);
        }
        if changed.len() > CHANGES_MAX {
            reach!("replication.compare.many");
            asks = true;
        } else {
            changed.into_iter().for_each(|id| self.compare_one(id, to, out));
        }
        let is_asked = asks && self.ask_whole(now, to, out);
        let resumes = self.peers.get_mut(node).is_some_and(|peer| peer.resumes.is_some());
        if asks && !is_asked || resumes {
            next = now + period / SOON;
        }
        self.peers.schedule(node, next);
    }

    /// Sends a shard's root.
    fn compare_one(&mut self, id: ShardId, to: Replica, out: &mut Outbox<Action>) {
        let Some(local) = self.shards.get_mut(&id).filter(|local| local.strategy.is_some()) else {
            return;
        };
        self.index.refresh(id, local);
        let message = Message::Compare { shard: id, root: local.shard.cached_root() };
        out.push(Action::Send { to, message, promise: false });
    }

    /// Asks a peer whether all shards are equal. False when some roots must be brought up to date first.
    fn ask_whole(&mut self, now: Instant, to: Replica, out: &mut Outbox<Action>) -> bool {
        let Some(whole) = self.whole() else {
            if let Some(peer) = self.peers.get_mut(to.node) {
                // The next turn asks, whenever the last one was.
                peer.resumes.get_or_insert_default();
            }
            return false;
        };
        let Some(peer) = self.peers.get_mut(to.node) else { return false };
        peer.asked_at = now;
        if self.shards.len() <= FEW {
            peer.resumes = None;
            let all: Vec<ShardId> = self.shards.keys().copied().collect();
            all.into_iter().for_each(|id| self.compare_one(id, to, out));
        } else {
            reach!("replication.summary.asked");
            say(to, Summary::Whole(whole), out);
        }
        true
    }

    /// The digest of all roots, once a bounded number of them was brought up to date; `None` when there are more.
    fn whole(&mut self) -> Option<Digest> {
        for _ in 0..REFRESHED_MAX {
            let Some(id) = self.index.first_stale() else { break };
            match self.shards.get_mut(&id) {
                Some(local) => self.index.refresh(id, local),
                None => break,
            }
        }
        let sums = self.index.sums();
        if sums.is_none() {
            reach!("replication.summary.stale");
        }
        Some(sums?.whole())
    }

    /// Handles what a replica says about all its shards.
    pub(super) fn on_summary(&mut self, from: Replica, said: Summary, out: &mut Outbox<Action>) {
        if !self.peers.is_replica(&from) {
            return;
        }
        match said {
            Summary::Whole(theirs) => {
                let Some(mine) = self.whole() else { return };
                if mine == theirs {
                    self.all_equal(from);
                    say(from, Summary::Equal(mine), out);
                } else if let Some(sums) = self.index.sums() {
                    say(from, Summary::Blocks(sums.blocks()), out);
                }
            }
            Summary::Equal(theirs) => {
                if self.whole() == Some(theirs) {
                    self.all_equal(from);
                }
            }
            Summary::Blocks(theirs) => self.on_blocks(from, &theirs, out),
            Summary::Roots(roots) => self.on_roots(from, &roots, out),
        }
    }

    /// All shards were equal to a peer's.
    fn all_equal(&mut self, from: Replica) {
        reach!("replication.summary.equal");
        let newest = self.index.seen();
        if let Some(peer) = self.peers.get_mut(from.node) {
            (peer.equal_at, peer.resumes) = (Some(newest), None);
        }
        for id in self.index.lagging.clone() {
            if let Some(local) = self.shards.get_mut(&id) {
                local.sync.equals(from);
            }
        }
    }

    /// Tells a peer the roots of the shards in blocks that differ, a bounded number; its next turn goes on after them.
    fn on_blocks(&mut self, from: Replica, theirs: &[u64], out: &mut Outbox<Action>) {
        if theirs.len() != BLOCKS {
            return reject(from, "a summary with another number of blocks", out);
        }
        if self.whole().is_none() {
            return;
        }
        let (Some(sums), Some(peer)) = (self.index.sums(), self.peers.get_mut(from.node)) else {
            return;
        };
        let first = peer.resumes.take().unwrap_or_default();
        let open = |id: &ShardId| self.shards.get(id).is_some_and(|local| local.strategy.is_some());
        let differ = self.shards.range(first..).map(|(id, _)| *id);
        let differ = differ.filter(|id| sums.differs(theirs, *id)).filter(open);
        let mut differ: Vec<ShardId> = differ.take(ROOTS_MAX + 1).collect();
        if differ.len() > ROOTS_MAX {
            reach!("replication.summary.resumed");
            peer.resumes = differ.pop();
        }
        let root = |id: ShardId| Some((id, self.shards.get(&id)?.shard.root()));
        let roots: Vec<_> = differ.into_iter().filter_map(root).collect();
        if !roots.is_empty() {
            reach!("replication.summary.roots");
            say(from, Summary::Roots(roots), out);
        }
    }

    /// Compares the shards in blocks that differ one by one.
    fn on_roots(&mut self, from: Replica, roots: &[(ShardId, Digest)], out: &mut Outbox<Action>) {
        if roots.len() > ROOTS_MAX {
            return reject(from, "more roots than one message may have", out);
        }
        for (id, theirs) in roots {
            let Some(local) = self.shards.get_mut(id).filter(|local| local.strategy.is_some())
            else {
                continue;
            };
            if local.shard.cached_root() == *theirs {
                local.sync.equals(from);
            } else {
                self.compare_one(*id, from, out);
            }
        }
    }
}

fn say(to: Replica, said: Summary, out: &mut Outbox<Action>) {
    let message = Message::Summary(said);
    out.push(Action::Send { to, message, promise: false });
}
