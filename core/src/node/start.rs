//! From a recovered log to a node. Each machine starts from what the disk proves, and from nothing else.
//!
//! This module does not read the log's records (`restore`).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::config::Config;
use crate::counted::CountedMap;
use crate::hold::DurabilityGate;
use crate::id::{Address, Boot, FederationId, GroupId, Owner, Replica, SnapshotId, Token};
use crate::raft::Raft;
use crate::replication::Replicator;
use crate::seed::Seed;
use crate::wal::Write;
use crate::{discovery, gossip, raft, state};

use super::checkpoint::Checkpoints;
use super::genesis::GenesisState;
use super::group::Group;
use super::machine::{Node, Parts, Task};
use super::peers::Peers;
use super::registry::{RegistryView, kind};
use super::restore::{self, Replay, RestoreError, snapshot_file};

/// The start of a process: everything that it is given besides its disk.
#[derive(Clone, Debug)]
pub struct Start {
    /// All knobs, validated.
    pub config: Config,
    /// The federation that this node's certificate names.
    pub federation: FederationId,
    /// This node, and the store that its promises are on.
    pub replica: Replica,
    /// This start: the count of [`super::last_boot`] plus one, and a fresh nonce.
    pub boot: Boot,
    /// 32 bytes from the operating system, or the simulator's.
    pub seed: Seed,
    /// The operator's name for this node.
    pub name: String,
    /// The address at which other nodes reach it.
    pub address: Address,
}

impl Node {
    /// Builds a node from its disk: `writes` are the recovered records of the log, in order; `snapshots` holds every
    /// snapshot file that was found, whole. A fresh store has neither.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] when the log is another node's, a snapshot file is missing or damaged, or a record is invalid.
    pub fn restore(
        start: Start,
        writes: Vec<(Token, Write)>,
        mut snapshots: BTreeMap<SnapshotId, Bytes>,
    ) -> Result<Self, RestoreError> {
        let mut replay = restore::replay(&start, writes)?;
        let bytes_max = start.config.node.checkpoint_bytes;
        // Unfinished files count as well, so that no file name is used twice.
        let own = snapshots.keys().filter(|snapshot| !raft::is_received(**snapshot)).copied().max();
        let last = own.unwrap_or_default().max(replay.last_snapshot);
        let mut checkpoints = Checkpoints::new(bytes_max, replay.log_bytes, last);
        let gate = DurabilityGate::new(replay.last);
        for (owner, (oldest, at)) in core::mem::take(&mut replay.oldest) {
            checkpoints.restore_account(owner, oldest, at, replay.record(owner));
        }
        let replication = replicator(&start, &mut replay, &mut snapshots)?;
        let genesis = GenesisState::restored(&mut replay);
        let groups = groups(&start, &mut replay, &mut snapshots)?;
        // Files that no machine took belong to records that later records replaced.
        snapshots.into_keys().for_each(|snapshot| checkpoints.discard_later(snapshot));
        let (config, seed) = (&start.config, &start.seed);
        let gossip = gossip::Gossip::new(own_member(&start), config.gossip.clone(), seed);
        let lineage = replay.lineage(start.boot);
        let (me, contacts) = (start.replica.node, replay.contacts);
        let discovery = discovery::Discovery::new(me, config.discovery.clone(), seed, contacts);
        let registry_view = RegistryView::default();
        let peers = Peers::new(core::mem::take(&mut replay.welcomed));
        Ok(Self::assemble(Parts {
            start,
            groups,
            replication,
            gossip,
            discovery,
            gate,
            checkpoints,
            registry_view,
            lineage,
            peers,
            genesis,
        }))
    }

    /// Part of the first step: asks for links to known peers, and tells the machines what the restored registry says.
    pub(super) fn begin_routes(&mut self) {
        for contact in self.discovery.machine.contacts() {
            if let Some(node) = contact.node.filter(|node| *node != self.me.node) {
                self.located(node, contact.address);
            }
        }
        self.enqueue(Task::Registry);
    }
}

fn own_member(start: &Start) -> gossip::Member {
    gossip::Member {
        replica: start.replica,
        name: start.name.clone(),
        address: start.address.clone(),
        incarnation: gossip::Incarnation { boot: start.boot, refutations: 0 },
        state: gossip::State::Alive,
        load: 0,
    }
}

fn replicator(
    start: &Start,
    replay: &mut Replay,
    snapshots: &mut BTreeMap<SnapshotId, Bytes>,
) -> Result<Replicator, RestoreError> {
    let mut restored = core::mem::take(&mut replay.shards);
    restored.load(|snapshot| snapshots.remove(&snapshot))?;
    let (config, seed) = (start.config.replication.clone(), &start.seed);
    Replicator::new(start.replica, start.boot, config, seed, restored)
        .map_err(RestoreError::Replication)
}

fn groups(
    start: &Start,
    replay: &mut Replay,
    snapshots: &mut BTreeMap<SnapshotId, Bytes>,
) -> Result<CountedMap<GroupId, Group>, RestoreError> {
    let mut groups = CountedMap::default();
    for (id, group) in core::mem::take(&mut replay.groups) {
        let kind = kind(id);
        let restored = group.raft;
        let mut state = match restored.snapshot {
            None => state::StateMachine::new(kind),
            Some(file) => {
                let file = snapshot_file(snapshots, file)?;
                state::StateMachine::restore(kind, &[file])
                    .map_err(|_| RestoreError::Undecodable { owner: Owner::Group(id) })?
            }
        };
        state.limit(start.config.bounds);
        let genesis = restored.genesis.clone();
        if state.applied() != restored.base.index {
            return Err(RestoreError::Undecodable { owner: Owner::Group(id) });
        }
        let time_ms = restored.base_time_ms;
        let raft = Raft::new(id, start.replica, start.config.raft.clone(), &start.seed, restored);
        groups.insert(id, Group::new(raft, state, genesis, time_ms));
    }
    Ok(groups)
}
