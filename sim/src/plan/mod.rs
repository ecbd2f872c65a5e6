//! A plan: cluster, workload and faults as data.
//!
//! A plan is made from a seed (`swarm`), saved as TOML, and run; the same plan always gives the same run. What a fault
//! does is not here.

pub mod fault;
pub(crate) mod fault_budget;
pub mod selected_ops;
mod swarm;

use continuum_core::config::Config;
use serde::{Deserialize, Serialize};

use fault::Fault;
use selected_ops::SelectedOps;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The root of all chance in the run.
    pub seed: u64,
    /// When the setup is over and faults may begin, in virtual milliseconds.
    pub calm_ms: u64,
    /// How long faults may begin after that.
    pub fault_ms: u64,
    /// The nodes.
    pub cluster: Cluster,
    /// The clients.
    pub workload: Workload,
    /// Who is well when faults are over; everybody unless told otherwise.
    #[serde(default, skip_serializing_if = "Heal::is_whole")]
    pub heal: Heal,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// What healing heals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heal {
    /// The nodes that are well from then on; nobody named means everybody. Who lost its store for good is not of it.
    #[serde(default)]
    pub core: Vec<usize>,
    /// What becomes of the others, for ever.
    #[serde(default)]
    pub rest: Rest,
}

/// What becomes of nodes that are not healed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Their processes have ended.
    #[default]
    Dead,
    /// They and the core do not hear each other.
    Isolated,
    /// They hear the core, which does not hear them.
    OneWay,
    /// They and the first node of the core hear each other; they and the others of it do not.
    Bridged,
}

impl Heal {
    fn is_whole(&self) -> bool {
        self.core.is_empty()
    }

    /// The core among so many nodes.
    #[must_use]
    pub fn members(&self, nodes: usize) -> Vec<usize> {
        if self.is_whole() { (0..nodes).collect() } else { self.core.clone() }
    }
}

/// The nodes and their surroundings while nothing goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// How many nodes.
    pub nodes: usize,
    /// How many of them, from the first, are first voters.
    pub voters: usize,
    /// A message takes from so many microseconds ..
    pub latency_us_min: u64,
    /// .. to so many.
    pub latency_us_max: u64,
    /// A sync takes from so many microseconds ..
    pub sync_us_min: u64,
    /// .. to so many.
    pub sync_us_max: u64,
    /// The node's knobs that the swarm turns.
    pub heartbeat_ms: u64,
    /// As in the node's configuration.
    pub election_timeout_ms: u64,
    /// As in the node's configuration.
    pub request_timeout_ms: u64,
    /// As in the node's configuration.
    pub anti_entropy_ms: u64,
    /// As in the node's configuration.
    pub checkpoint_bytes: u64,
    /// As in the node's configuration.
    pub retained_bytes_max: usize,
    /// As in the node's configuration.
    pub append_bytes_max: usize,
    /// As in the node's configuration.
    pub delta_bytes_max: usize,
    /// As in the node's configuration.
    #[serde(default = "capture_bytes")]
    pub capture_bytes: usize,
}

/// As plans have it that were made before it was drawn.
pub(crate) const fn capture_bytes() -> usize {
    64 << 10
}

/// The clients and what they ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// How many clients, each with one request at a time.
    pub clients: usize,
    /// A client pauses from so many milliseconds ..
    pub think_ms_min: u64,
    /// .. to so many.
    pub think_ms_max: u64,
    /// Milliseconds after which a client asks another node, or gives up.
    pub timeout_ms: u64,
    /// Keys of the strong namespace.
    pub strong_keys: u64,
    /// Keys of each kind in each eventual namespace.
    pub eventual_keys: u64,
    /// Slots of each eventual namespace.
    pub slots: u16,
    /// Requests that go to the strong namespace.
    pub strong_ppm: u64,
    /// Requests that go to the first four keys.
    pub hot_ppm: u64,
    /// Requests that read.
    pub read_ppm: u64,
    /// Strong writes with a session, which alone are tried again.
    pub session_ppm: u64,
    /// Most values are short; this share is up to `value_bytes_max` long.
    pub large_ppm: u64,
    /// Longest value.
    pub value_bytes_max: u64,
    /// The run goes on until so many requests were acknowledged.
    pub operations_min: u64,
    /// Only these operations take place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<SelectedOps>,
}

impl Plan {
    /// Reads a plan from TOML.
    ///
    /// # Errors
    ///
    /// What is wrong with the text or with a number in it.
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
        config
    }

    /// When the last fault has ended.
    #[must_use]
    pub const fn heal_ms(&self) -> u64 {
        self.calm_ms + self.fault_ms
    }

    fn validate(&self) -> Result<(), String> {
        let Cluster { nodes, voters, .. } = self.cluster;
        if !(1..=16).contains(&nodes) || !(1..=nodes.min(7)).contains(&voters) {
            return Err(format!("{voters} voters of {nodes} nodes: 1 to 7 of 1 to 16"));
        }
        if self.faults.iter().any(|fault| fault.nodes.iter().any(|node| *node >= nodes)) {
            return Err(format!("a fault names a node that is not among the {nodes}"));
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
    fn a_plan_survives_its_file() {
        for seed in 0..50 {
            let plan = Plan::from_seed(seed);
            assert_eq!(Plan::parse(&plan.to_toml()), Ok(plan.clone()), "seed {seed}");
            assert_eq!(plan, Plan::from_seed(seed));
            assert!(plan.fault_ms >= 60_000);
            assert!(plan.faults.iter().all(|f| f.at_ms + f.for_ms <= plan.heal_ms()));
        }
    }

    #[test]
    fn nonsense_is_refused() {
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
