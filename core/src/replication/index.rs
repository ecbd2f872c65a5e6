//! The index of a node's shards: which ones changed and must be compared, which ones have a session, and the sums over
//! all roots.
//!
//! A step looks only at the shards that it touched, so its cost does not grow with the number of shards. This module
//! sends nothing and compares nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::id::ShardId;
use crate::time::Instant;
use crate::{mutant, reach};

use super::local::LocalShard;
use super::sync::summary::{Sums, leaf};

/// The index of the shards.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The number of the newest change, and of the newest one that some comparison took into account.
    newest: u64,
    seen: u64,
    /// The shards in the order of their last changes.
    changes: BTreeMap<u64, ShardId>,
    /// Open shards whose roots the sums do not have.
    stale: BTreeSet<ShardId>,
    sums: Sums,
    /// The shards with a session, by when it ends unless an answer comes.
    sessions: BTreeSet<(Instant, ShardId)>,
    /// The shards with refused writes of some peer, and those that some replica may lag behind.
    pub(super) refusing: BTreeSet<ShardId>,
    pub(super) lagging: BTreeSet<ShardId>,
}

impl Index {
    /// Looks at a shard that a step touched. A session waits for an answer as long as `patience`.
    pub(super) fn note(&mut self, id: ShardId, local: &mut LocalShard, patience: Duration) {
        let is_open = local.strategy.is_some();
        let is_noted = !mutant!("replication.index.change_unnoted");
        if is_open && !local.shard.is_root_known() && is_noted {
            if !core::mem::replace(&mut local.place.is_stale, true) {
                self.stale.insert(id);
            }
            if local.place.changed <= self.seen {
                self.changed(id, local);
            }
        }
        let session = local.sync.session.as_ref().map(|session| session.last_heard + patience);
        self.set_session(id, local, session);
        let (refuses, lags) = (local.sync.has_refused(), local.sync.lags.iter().next().is_some());
        for (holds, set) in [(refuses, &mut self.refusing), (lags, &mut self.lagging)] {
            if holds {
                set.insert(id);
            } else {
                set.remove(&id);
            }
        }
    }

    fn set_session(&mut self, id: ShardId, local: &mut LocalShard, until: Option<Instant>) {
        let before = core::mem::replace(&mut local.place.patience, until);
        if before == until {
            return;
        }
        before.map(|at| self.sessions.remove(&(at, id)));
        match until {
            Some(at) => drop(self.sessions.insert((at, id))),
            // However it ended, the next comparison tells whether anything still differs.
            None => self.changed(id, local),
        }
    }

    /// Notes that a shard must be compared again with every peer.
    pub(super) fn changed(&mut self, id: ShardId, local: &mut LocalShard) {
        self.changes.remove(&local.place.changed);
        self.newest += 1;
        local.place.changed = self.newest;
        self.changes.insert(self.newest, id);
    }

    /// Forgets a closed shard.
    pub(super) fn forget(&mut self, id: ShardId, local: &LocalShard) {
        self.changes.remove(&local.place.changed);
        self.stale.remove(&id);
        local.place.patience.map(|at| self.sessions.remove(&(at, id)));
        self.refusing.remove(&id);
        self.lagging.remove(&id);
        self.sums.replace(id, local.place.leaf, 0);
        // The sums changed, so they are equal to no peer's that were equal before.
        self.newest += 1;
    }

    /// Brings the sums up to date with a shard's root.
    pub(super) fn refresh(&mut self, id: ShardId, local: &mut LocalShard) {
        let leaf = leaf(id, local.shard.cached_root());
        self.sums.replace(id, local.place.leaf, leaf);
        local.place.leaf = leaf;
        local.place.is_stale = false;
        self.stale.remove(&id);
    }

    /// A shard whose root the sums do not have.
    pub(super) fn first_stale(&self) -> Option<ShardId> {
        self.stale.first().copied()
    }

    /// The sums; `None` while they lack a root.
    pub(super) fn sums(&self) -> Option<&Sums> {
        self.stale.is_empty().then_some(&self.sums)
    }

    /// The number of the newest change.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    /// The number of the newest change, for a comparison that takes it into account.
    pub(super) const fn seen(&mut self) -> u64 {
        self.seen = self.newest;
        self.newest
    }

    /// The shards that changed after this change, the oldest change first.
    pub(super) fn since(&self, change: u64) -> impl Iterator<Item = ShardId> + '_ {
        self.changes.range(change + 1..).map(|(_, id)| *id)
    }

    /// When the first session ends unless an answer comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sessions.first().map(|(at, _)| *at)
    }

    /// A shard whose session gets no answer any more.
    pub(super) fn expired(&self, now: Instant) -> Option<ShardId> {
        let (at, id) = self.sessions.first()?;
        let is_over = *at <= now;
        if is_over {
            reach!("replication.session.timeout");
        }
        is_over.then_some(*id)
    }

    /// The shards with a session.
    pub(super) fn in_session(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.sessions.iter().map(|(_, id)| *id)
    }
}
