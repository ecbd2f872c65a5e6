//! A plan: the cluster, the workload and the faults of one run, as data.
//!
//! A plan is made from a seed (`swarm`), saved as TOML, and run. The same plan always gives the same run. This module
//! does not say what a fault does.

pub mod fault;
pub(crate) mod fault_budget;
pub mod selected_ops;
mod swarm;

use continuum_core::config::{Config, Slices};
use continuum_core::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
use continuum_core::wal::SEGMENT_BYTES;
use serde::{Deserialize, Serialize};

use fault::Fault;
use selected_ops::SelectedOps;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The seed of all random draws in the run.
    pub seed: u64,
    /// Virtual milliseconds of setup before faults may begin.
    pub calm_ms: u64,
    /// Length of the window in which faults may begin and end, in milliseconds.
    pub fault_ms: u64,
    /// The nodes and their surroundings.
    pub cluster: Cluster,
    /// The clients and what they ask.
    pub workload: Workload,
    /// The nodes that are healed when faults are over; all by default.
    #[serde(default, skip_serializing_if = "Heal::is_whole")]
    pub heal: Heal,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// The nodes that healing heals, and the state of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heal {
    /// The nodes that are healthy from then on; empty means all. A voter that lost its store for good does not count.
    #[serde(default)]
    pub core: Vec<usize>,
    /// The state of the other nodes from then on.
    #[serde(default)]
    pub rest: Rest,
}

/// The lasting state of nodes that are not healed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Their processes have ended.
    #[default]
    Dead,
    /// No message passes between them and the core, in either direction.
    Isolated,
    /// They hear the core, and the core does not hear them.
    OneWay,
    /// They and the first node of the core hear each other; they and the rest of the core do not.
    Bridged,
}

impl Heal {
    fn is_whole(&self) -> bool {
        self.core.is_empty()
    }

    /// The nodes of the core, in a cluster of `nodes`.
    #[must_use]
    pub fn members(&self, nodes: usize) -> Vec<usize> {
        if self.is_whole() { (0..nodes).collect() } else { self.core.clone() }
    }
}

/// The nodes and their surroundings while nothing goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Number of nodes, 1 to 16.
    pub nodes: usize,
    /// Number of first voters, 1 to 7: the nodes with the lowest numbers.
    pub voters: usize,
    /// Shortest latency of a message, in microseconds.
    pub latency_us_min: u64,
    /// Longest latency of a message, in microseconds.
    pub latency_us_max: u64,
    /// Shortest sync of a disk, in microseconds.
    pub sync_us_min: u64,
    /// Longest sync of a disk, in microseconds.
    pub sync_us_max: u64,
    /// `raft.heartbeat_ms` of every node. This and the next fields are the settings that the swarm varies.
    pub heartbeat_ms: u64,
    /// `raft.election_timeout_ms` of every node.
    pub election_timeout_ms: u64,
    /// `node.request_timeout_ms` of every node.
    pub request_timeout_ms: u64,
    /// `replication.anti_entropy_ms` of every node.
    pub anti_entropy_ms: u64,
    /// `node.checkpoint_bytes` of every node.
    pub checkpoint_bytes: u64,
    /// `raft.retained_bytes_max` of every node.
    pub retained_bytes_max: usize,
    /// `raft.append_bytes_max` of every node.
    pub append_bytes_max: usize,
    /// `replication.delta_bytes_max` of every node.
    pub delta_bytes_max: usize,
    /// `replication.capture_bytes` of every node.
    #[serde(default = "capture_bytes")]
    pub capture_bytes: usize,
    /// Bytes of a segment of a log.
    #[serde(default = "segment_bytes")]
    pub segment_bytes: u64,
    /// `bounds.chunk_bytes` of every node.
    #[serde(default = "chunk_bytes")]
    pub chunk_bytes: usize,
    /// `bounds.sessions` of every node: more than clients open while one of them retries, since the first write of a
    /// forgotten session happens again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_max: Option<usize>,
    /// `bounds.requests` of every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_max: Option<usize>,
    /// `bounds.export_bytes` of every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_bytes_max: Option<u64>,
    /// `replication.slices` of every node: the elements that a delete names, and that one step removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_elements: Option<usize>,
}

/// The value for plans that are older than the field.
pub(crate) const fn capture_bytes() -> usize {
    64 << 10
}

pub(crate) const fn segment_bytes() -> u64 {
    SEGMENT_BYTES
}

pub(crate) const fn chunk_bytes() -> usize {
    CHUNK_BYTES_MAX
}

const fn one() -> u8 {
    1
}

/// Group time after which an unused session is forgotten, where few have room. No client retries for this long.
const SESSION_IDLE_MS: u64 = 45_000;

/// The clients and what they ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Number of clients; each has one request at a time.
    pub clients: usize,
    /// Shortest pause of a client between two operations, in milliseconds.
    pub think_ms_min: u64,
    /// Longest pause of a client between two operations, in milliseconds.
    pub think_ms_max: u64,
    /// Milliseconds after which a client asks another node, or gives up.
    pub timeout_ms: u64,
    /// Number of keys in the strong namespace.
    pub strong_keys: u64,
    /// Number of keys of each kind in each eventual namespace.
    pub eventual_keys: u64,
    /// Slots of each eventual namespace.
    pub slots: u16,
    /// Per million: requests that go to the strong namespace.
    pub strong_ppm: u64,
    /// Per million: requests that go to the first four keys.
    pub hot_ppm: u64,
    /// Per million: requests that read.
    pub read_ppm: u64,
    /// Per million: strong writes that carry a session. Only those are retried.
    pub session_ppm: u64,
    /// Per million: values of up to `value_bytes_max` bytes. The others are short.
    pub large_ppm: u64,
    /// Length of the longest value, in bytes.
    pub value_bytes_max: u64,
    /// The most other nodes that a strong write asks for. A majority confirms half of the voters, and never more.
    #[serde(default = "one")]
    pub quorum_others: u8,
    /// The most other nodes that an eventual write asks for.
    #[serde(default = "one")]
    pub replica_others: u8,
    /// The run continues until this many operations were acknowledged.
    pub operations_min: u64,
    /// When given, only these operations run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<SelectedOps>,
}

impl Plan {
    /// Reads a plan from TOML.
    ///
    /// # Errors
    ///
    /// The text is not a plan, or a number in it is out of range.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        plan.validate()?;
        Ok(plan)
    }

    /// Writes the plan as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The configuration of every node.
    #[must_use]
    pub fn config(&self) -> Config {
        let cluster = &self.cluster;
        let mut config = Config::default();
        config.raft.heartbeat_ms = cluster.heartbeat_ms;
        config.raft.election_timeout_ms = cluster.election_timeout_ms;
        config.raft.retained_bytes_max = cluster.retained_bytes_max;
        config.raft.append_bytes_max = cluster.append_bytes_max;
        config.replication.delta_bytes_max = cluster.delta_bytes_max;
        config.replication.capture_bytes = cluster.capture_bytes;
        config.replication.anti_entropy_ms = cluster.anti_entropy_ms;
        config.node.request_timeout_ms = cluster.request_timeout_ms;
        config.node.checkpoint_bytes = cluster.checkpoint_bytes;
        config.bounds.chunk_bytes = cluster.chunk_bytes;
        if let Some(sessions) = cluster.sessions_max {
            config.bounds.sessions = sessions;
            config.bounds.session_idle_ms = SESSION_IDLE_MS;
        }
        config.bounds.requests = cluster.requests_max.unwrap_or(config.bounds.requests);
        if let Some(most) = cluster.slice_elements {
            config.replication.slices = Slices { listed: most, swept: most, freed: most };
        }
        let bounds = &mut config.bounds;
        bounds.export_bytes = cluster.export_bytes_max.unwrap_or(bounds.export_bytes);
        config
    }

    /// When the last fault has ended, in virtual milliseconds.
    #[must_use]
    pub const fn heal_ms(&self) -> u64 {
        self.calm_ms + self.fault_ms
    }

    fn validate(&self) -> Result<(), String> {
        let Cluster { nodes, voters, .. } = self.cluster;
        if !(1..=16).contains(&nodes) || !(1..=nodes.min(7)).contains(&voters) {
            return Err(format!(
                "{voters} voters of {nodes} nodes: choose 1 to 16 nodes, and 1 to 7 of them as voters"
            ));
        }
        if self.faults.iter().any(|fault| fault.nodes.iter().any(|node| *node >= nodes)) {
            return Err(format!(
                "a fault names a node that does not exist: the nodes are 0 to {}",
                nodes - 1
            ));
        }
        if self.cluster.segment_bytes < 4 * BLOCK_BYTES as u64 || self.cluster.chunk_bytes == 0 {
            return Err(format!(
                "segments of {} bytes and chunks of {}: choose at least 4 blocks, and at least 1 byte",
                self.cluster.segment_bytes, self.cluster.chunk_bytes
            ));
        }
        fault_budget::check(self)?;
        self.config().validate().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fault::Kind;

    #[test]
    fn a_plan_is_equal_after_a_round_trip_through_its_file() {
        for seed in 0..50 {
            let plan = Plan::from_seed(seed);
            assert_eq!(Plan::parse(&plan.to_toml()), Ok(plan.clone()), "seed {seed}");
            assert_eq!(plan, Plan::from_seed(seed));
            assert!(plan.fault_ms >= 60_000);
            assert!(plan.faults.iter().all(|f| f.at_ms + f.for_ms <= plan.heal_ms()));
        }
    }

    #[test]
    fn invalid_plans_are_refused() {
        let mut plan = Plan::from_seed(1);
        plan.cluster.voters = 9;
        assert!(Plan::parse(&plan.to_toml()).is_err());
        let mut plan = Plan::from_seed(1);
        plan.faults.push(Fault {
            kind: Kind::Crash,
            at_ms: 1,
            for_ms: 1,
            nodes: vec![17],
            rate_ppm: 0,
            amount: 0,
        });
        assert!(Plan::parse(&plan.to_toml()).is_err());
        assert!(Plan::parse("seed = 'x'").is_err());
    }
}
