//! Every knob of the core, with its meaning, unit, bound, default and reason.
//!
//! A unit stands at the end of a name. Bounds that are part of a format are in [`crate::limits`]. This module reads no
//! file: the runtime fills the values in.

use core::fmt;

use serde::{Deserialize, Serialize};

/// All knobs of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Knobs of consensus.
    pub raft: RaftConfig,
    /// Knobs of CRDT replication.
    pub replication: ReplicationConfig,
    /// Knobs of membership and failure detection.
    pub gossip: GossipConfig,
    /// Knobs of finding nodes.
    pub discovery: DiscoveryConfig,
    /// Knobs of health and the choice of nodes.
    pub coordinator: CoordinatorConfig,
    /// Knobs of the composition: requests, checkpoints, memory.
    pub node: NodeConfig,
    /// Bounds that only a simulator lowers.
    #[serde(skip)]
    pub bounds: Bounds,
}

/// Bounds of [`crate::limits`] that a simulator lowers, so that its small states reach them. No file sets them: members
/// of a group with different bounds would not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a full chunk of a captured state.
    pub chunk_bytes: usize,
    /// Client sessions that a group of keys keeps.
    pub sessions: usize,
    /// Milliseconds of group time without a command after which a session is forgotten when another opens.
    pub session_idle_ms: u64,
    /// Requests that wait inside one node.
    pub requests: usize,
    /// Bytes that the exports on one node keep.
    pub export_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        use crate::limits as most;
        Self {
            chunk_bytes: most::CHUNK_BYTES_MAX,
            sessions: most::SESSIONS_MAX,
            session_idle_ms: most::SESSION_IDLE_MS,
            requests: most::REQUESTS_PENDING_MAX,
            export_bytes: most::EXPORT_BYTES_MAX,
        }
    }
}

/// Knobs of Raft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// Milliseconds between a leader's heartbeats. Must be at most a third of the election timeout, so that two lost
    /// heartbeats start no election. Default 100.
    pub heartbeat_ms: u64,
    /// Shortest election timeout in milliseconds. Each timeout is drawn between it and twice it (Raft thesis §9.3). It
    /// is also the check-quorum window. Must be above a round trip and an fsync. Default 500.
    pub election_timeout_ms: u64,
    /// Entry bytes in one append message. Must be below a frame. Default 256 KiB.
    pub append_bytes_max: usize,
    /// Append messages in flight to one follower. A slow follower can pin this many times `append_bytes_max` of memory,
    /// and a deep pipeline raises commit latency more than throughput. Default 8.
    pub inflight_max: usize,
    /// Bytes of proposals not yet committed. Past this bound proposals are refused. Default 32 MiB.
    pub uncommitted_bytes_max: usize,
    /// Entry bytes kept in memory behind the last checkpoint for slow followers. A slower follower gets a snapshot.
    /// Default 16 MiB.
    pub retained_bytes_max: usize,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_timeout_ms: 500,
            append_bytes_max: 256 << 10,
            inflight_max: 8,
            uncommitted_bytes_max: 32 << 20,
            retained_bytes_max: 16 << 20,
        }
    }
}

/// Knobs of CRDT replication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationConfig {
    /// Milliseconds between two comparisons of roots with one peer. Pushed deltas carry the normal load, and this
    /// repairs their losses. Default 1000.
    pub anti_entropy_ms: u64,
    /// Bytes of writes in one message. Must be below a frame. Default 256 KiB.
    pub delta_bytes_max: usize,
    /// Bytes pushed to one peer and not yet acknowledged. Past this bound the peer waits for anti-entropy. Default 4
    /// MiB.
    pub unacknowledged_bytes_max: usize,
    /// Milliseconds that a stamp may be ahead of this node's wall clock and still move its hybrid clock. Stamps further
    /// ahead order their writes and nothing else, and past this bound the node warns. Large enough for NTP's worst
    /// errors. Default 60 000.
    pub ahead_ms_max: u64,
    /// Bytes of a shard that one step captures for a checkpoint: large beside a message, small beside the time that a
    /// step may take. Default 64 KiB.
    pub capture_bytes: usize,
    /// Bounds of slices that only a simulator and tests lower.
    #[serde(skip)]
    pub slices: Slices,
}

/// Bounds on the elements that one step of replication works on, so that small states need several steps. No file sets
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Elements that a delete names one by one. One of more elements names none: it covers their scope.
    pub listed: usize,
    /// Elements of a covered scope that one step looks at.
    pub swept: usize,
    /// Entries of the tables of deleted shards that one step frees.
    pub freed: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Self { listed: 64, swept: 256, freed: 1024 }
    }
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            anti_entropy_ms: 1000,
            delta_bytes_max: 256 << 10,
            unacknowledged_bytes_max: 4 << 20,
            ahead_ms_max: 60_000,
            capture_bytes: 64 << 10,
            slices: Slices::default(),
        }
    }
}

/// Knobs of SWIM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GossipConfig {
    /// Milliseconds of a protocol period. One member is probed in each. Default 1000.
    pub period_ms: u64,
    /// Milliseconds from the first direct ping until helpers are asked. Must be below the period. Default 500.
    pub ping_timeout_ms: u64,
    /// Direct pings to a silent target before helpers are asked. Repetition costs little, and keeps loss from looking
    /// like death. Default 3.
    pub pings: u32,
    /// Helpers asked to ping the target (SWIM's k). Default 3.
    pub helpers: usize,
    /// A suspicion lasts at least this many periods times log10 of the number of members. Default 4.
    pub suspicion_multiplier: u32,
    /// Each update is sent this many times log10 of the number of members. Default 4.
    pub retransmit_multiplier: u32,
    /// Updates piggybacked on one message. Default 16.
    pub updates_max: usize,
    /// Milliseconds that a removed member is remembered, so that late gossip cannot bring it back. Default 86 400 000.
    pub dead_kept_ms: u64,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            period_ms: 1000,
            ping_timeout_ms: 500,
            pings: 3,
            helpers: 3,
            suspicion_multiplier: 4,
            retransmit_multiplier: 4,
            updates_max: 16,
            dead_kept_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// Knobs of discovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// Milliseconds between two resolutions of a source. While no peer is connected it is a quarter of that. Default 30
    /// 000.
    pub resolve_ms: u64,
    /// First pause after a failed handshake, in milliseconds. It doubles up to `backoff_ms_max`. Default 250.
    pub backoff_ms: u64,
    /// Longest pause after failed handshakes, in milliseconds. Default 15 000.
    pub backoff_ms_max: u64,
    /// Candidates in the table. The least useful is evicted first. Default 256.
    pub candidates_max: usize,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { resolve_ms: 30_000, backoff_ms: 250, backoff_ms_max: 15_000, candidates_max: 256 }
    }
}

/// Knobs of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Bad observations in a row that make a healthy member unhealthy. Default 3.
    pub fall: u32,
    /// Good observations in a row that make it healthy again. Default 2.
    pub rise: u32,
    /// Milliseconds that a member's health stays the same, at least, so that it does not flap. Default 1000.
    pub dwell_ms: u64,
    /// Milliseconds between two reports of a node's own load. Default 1000.
    pub report_ms: u64,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self { fall: 3, rise: 2, dwell_ms: 1000, report_ms: 1000 }
    }
}

/// Knobs of the composition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Milliseconds after which a waiting request is answered. A write that a leader may have logged is then unknown.
    /// Default 5000.
    pub request_timeout_ms: u64,
    /// Log bytes since the oldest needed record, in addition to twice the size of the node's state. Past this bound the
    /// owners of old records are checkpointed. It bounds the restart time and the disk. Default 64 MiB.
    pub checkpoint_bytes: u64,
    /// Bytes of keys and values in this node's memory. Past this bound writes are refused as full. Default 4 GiB.
    pub memory_bytes_max: u64,
    /// Milliseconds since the last message of a peer's older boot within which a newer boot of the same store counts as
    /// a clone and is refused. Must be above the pauses between the messages of two idle nodes. Default 5000.
    pub clone_window_ms: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            request_timeout_ms: 5000,
            checkpoint_bytes: 64 << 20,
            memory_bytes_max: 4 << 30,
            clone_window_ms: 5000,
        }
    }
}

/// A knob out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The knob, as `section.name`.
    pub knob: &'static str,
    /// The bound that the value breaks.
    pub bound: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.knob, self.bound)
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Checks every knob against its bound, some of them against each other.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`] in the order of this file.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (raft, gossip) = (&self.raft, &self.gossip);
        let frame = crate::limits::REQUEST_BYTES_MAX;
        let checks = [
            (raft.heartbeat_ms > 0, "raft.heartbeat_ms", "above 0"),
            (
                raft.heartbeat_ms.saturating_mul(3) <= raft.election_timeout_ms,
                "raft.heartbeat_ms",
                "at most a third of raft.election_timeout_ms",
            ),
            (raft.election_timeout_ms <= 60_000, "raft.election_timeout_ms", "at most 60 000"),
            (
                (1..=frame).contains(&raft.append_bytes_max),
                "raft.append_bytes_max",
                "from 1 to a frame",
            ),
            ((1..=1024).contains(&raft.inflight_max), "raft.inflight_max", "from 1 to 1024"),
            (raft.uncommitted_bytes_max > 0, "raft.uncommitted_bytes_max", "above 0"),
            (self.replication.anti_entropy_ms > 0, "replication.anti_entropy_ms", "above 0"),
            (
                (1..=frame).contains(&self.replication.delta_bytes_max),
                "replication.delta_bytes_max",
                "from 1 to a frame",
            ),
            (self.replication.capture_bytes > 0, "replication.capture_bytes", "above 0"),
            (
                gossip.ping_timeout_ms > 0 && gossip.ping_timeout_ms < gossip.period_ms,
                "gossip.ping_timeout_ms",
                "above 0 and below gossip.period_ms",
            ),
            ((1..=16).contains(&gossip.pings), "gossip.pings", "from 1 to 16"),
            ((1..=64).contains(&gossip.updates_max), "gossip.updates_max", "from 1 to 64"),
            (gossip.suspicion_multiplier > 0, "gossip.suspicion_multiplier", "above 0"),
            (gossip.retransmit_multiplier > 0, "gossip.retransmit_multiplier", "above 0"),
            (self.discovery.resolve_ms > 0, "discovery.resolve_ms", "above 0"),
            (
                self.discovery.backoff_ms > 0
                    && self.discovery.backoff_ms <= self.discovery.backoff_ms_max,
                "discovery.backoff_ms",
                "above 0 and at most discovery.backoff_ms_max",
            ),
            (self.discovery.candidates_max > 0, "discovery.candidates_max", "above 0"),
            (self.coordinator.fall > 0, "coordinator.fall", "above 0"),
            (self.coordinator.rise > 0, "coordinator.rise", "above 0"),
            (self.coordinator.report_ms > 0, "coordinator.report_ms", "above 0"),
            (self.node.request_timeout_ms > 0, "node.request_timeout_ms", "above 0"),
            (self.node.checkpoint_bytes >= 64 << 10, "node.checkpoint_bytes", "at least 64 KiB"),
            (self.node.memory_bytes_max >= 1 << 20, "node.memory_bytes_max", "at least 1 MiB"),
        ];
        match checks.into_iter().find(|(holds, _, _)| !holds) {
            None => Ok(()),
            Some((_, knob, bound)) => Err(ConfigError { knob, bound }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn some_knobs_bound_each_other() {
        let mut config = Config::default();
        config.raft.heartbeat_ms = config.raft.election_timeout_ms / 2;
        assert_eq!(config.validate().map_err(|e| e.knob), Err("raft.heartbeat_ms"));
        let mut config = Config::default();
        config.gossip.ping_timeout_ms = config.gossip.period_ms;
        assert_eq!(config.validate().map_err(|e| e.knob), Err("gossip.ping_timeout_ms"));
    }
}
