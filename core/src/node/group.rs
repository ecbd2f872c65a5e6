//! A Raft group on this node: its machine, its applied state, and the requests that wait for them.
//!
//! This module only holds them: `machine` steps the Raft machine, and `apply` applies its entries.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::api::Reason;
use crate::counted::Weighed;
use crate::id::{Index, Role, Term};
use crate::time::Instant;
use crate::{raft, state};

use super::apply::Capture;
use super::checkpoint::SnapshotRecord;

/// A Raft group on this node.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) raft: raft::Raft,
    pub(super) state: state::StateMachine,
    /// The last entry that `state` contains.
    pub(super) applied: Index,
    /// The last entry that a record says is committed.
    pub(super) recorded: Index,
    /// When Raft next wants a tick.
    pub(super) deadline: Option<Instant>,
    /// The keys of logged proposals, by position: the entry that is applied there decides each.
    pub(super) proposals: BTreeMap<(Index, Term), u64>,
    /// Reads that wait until this index is applied, with their keys.
    pub(super) reads: BTreeSet<(Index, u64)>,
    /// Whether the timer to bring its learners in line is armed.
    pub(super) aligning: bool,
    /// The keys of requests that wait for a leader.
    pub(super) waiting: BTreeSet<u64>,
    /// Since when no leader is known, as far as that was noticed.
    pub(super) leaderless_since: Option<Instant>,
    /// The configuration that the group began with.
    pub(super) genesis: raft::Configuration,
    /// Group time at `applied`, in milliseconds.
    pub(super) time_ms: u64,
    pub(super) capture: Option<Capture>,
    /// The record of a captured state whose file is not durable yet.
    pub(super) captured: Option<SnapshotRecord>,
    /// Whether Raft waits for a capture, and whether a checkpoint does.
    pub(super) raft_wants_capture: bool,
    pub(super) disk_wants_capture: bool,
    /// The state of a leader's snapshot, between Raft's question whether it restores and its installation.
    pub(super) checked: Option<state::StateMachine>,
    /// The last entry of a leader's snapshot that does not restore here.
    pub(super) refused_snapshot: Option<Index>,
}

impl Weighed for Group {
    fn bytes(&self) -> u64 {
        self.state.bytes()
    }
}

impl Group {
    pub(super) fn new(
        raft: raft::Raft,
        state: state::StateMachine,
        genesis: raft::Configuration,
        time_ms: u64,
    ) -> Self {
        let applied = raft.base().index;
        Self {
            // Due at once: the first step arms the machine's timers.
            deadline: Some(Instant::ZERO),
            recorded: raft.commit(),
            raft,
            state,
            applied,
            proposals: BTreeMap::new(),
            reads: BTreeSet::new(),
            aligning: false,
            waiting: BTreeSet::new(),
            leaderless_since: None,
            genesis,
            time_ms,
            capture: None,
            captured: None,
            raft_wants_capture: false,
            disk_wants_capture: false,
            checked: None,
            refused_snapshot: None,
        }
    }

    /// Why this replica serves nothing, if it stopped at an entry that this build cannot apply.
    pub(super) fn halted(&self) -> Option<Reason> {
        let halt = self.state.halted()?;
        Some(Reason::GroupHalted { group: self.raft.group(), index: halt.index })
    }

    pub(super) fn leads(&self) -> bool {
        self.raft.role() == Role::Leader
    }
}
