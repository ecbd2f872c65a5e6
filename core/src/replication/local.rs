//! One shard on this node: its state, its part in anti-entropy, and its place in the index. This module changes none of
//! them.

use crate::api::Strategy;
use crate::counted::Weighed;
use crate::time::Instant;

use super::log::checkpoint::Capture;
use super::shard::Shard;
use super::sync::session::SyncState;

/// One shard with its part of the machine's state.
#[derive(Debug)]
pub(super) struct LocalShard {
    pub(super) shard: Shard,
    /// How registers are read; `None` until the registry says that the shard exists.
    pub(super) strategy: Option<Strategy>,
    pub(super) sync: SyncState,
    pub(super) place: Place,
    /// The checkpoint under way.
    pub(super) capture: Option<Capture>,
}

/// The place of one shard in the index.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The number of its last change; 0 before the first.
    pub(super) changed: u64,
    /// Its part of the sums; 0 before it is open.
    pub(super) leaf: u64,
    /// Whether its root changed since the sums were last brought up to date.
    pub(super) is_stale: bool,
    /// When its session ends unless an answer comes.
    pub(super) patience: Option<Instant>,
}

impl Weighed for LocalShard {
    fn bytes(&self) -> u64 {
        self.shard.bytes()
    }
}

impl LocalShard {
    pub(super) fn new(shard: Shard) -> Self {
        let (sync, place) = (SyncState::default(), Place::default());
        Self { shard, strategy: None, sync, place, capture: None }
    }
}

impl Place {
    /// Whether the shard did not change after this change.
    pub(super) const fn is_unchanged_since(&self, change: u64) -> bool {
        self.changed <= change
    }
}
