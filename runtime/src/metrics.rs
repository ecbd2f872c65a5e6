//! Metrics for Prometheus, in an explicit registry, so that several nodes can live in one process.
//!
//! Counters are raised where the events happen. Gauges of the node's state are set from its status at each scrape.
//! Every refusal is counted by its reason.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use continuum_core::api::{Health, Member, Outcome, Reason, Status, Warning};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// The label of counters that are split by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InGroup {
    group: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithCode {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfShard {
    namespace: u32,
    slot: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OnPlane {
    plane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// All metrics of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rejected: Family<Why, Counter>,
    messages_rejected: Family<Why, Counter>,
    handshake_failures: Family<Why, Counter>,
    requests: Family<Ended, Counter>,
    dropped: Family<OnPlane, Counter>,
    steps: Counter,
    torn: Counter,
    fsync: Histogram,
    batch: Histogram,
    unpersisted: Gauge,
    store: Gauge,
    store_free: Gauge,
    peers: Gauge,
    connections: Gauge,
    certificate_expiry: Gauge<f64, AtomicU64>,
    http: HttpMetrics,
    state: StateGauges,
}

/// Gauges that are set from a node's status.
#[derive(Debug, Default)]
struct StateGauges {
    ready: Gauge,
    warning: Family<WithCode, Gauge>,
    clock_lead: Family<WithCode, Gauge>,
    halted: Family<InGroup, Gauge>,
    term: Family<InGroup, Gauge>,
    is_leader: Family<InGroup, Gauge>,
    has_leader: Family<InGroup, Gauge>,
    commit: Family<InGroup, Gauge>,
    applied: Family<InGroup, Gauge>,
    root: Family<OfShard, Gauge>,
    writes: Family<OfShard, Gauge>,
    in_sync: Family<OfShard, Gauge>,
    members: Family<InState, Gauge>,
    memory: Gauge,
    pending: Gauge,
    rivals: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("continuum"),
            rejected: Family::default(),
            messages_rejected: Family::default(),
            handshake_failures: Family::default(),
            requests: Family::default(),
            dropped: Family::default(),
            steps: Counter::default(),
            torn: Counter::default(),
            // 50 microseconds to 6.5 s: from an NVMe's sync to that of a failing disk.
            fsync: Histogram::new(exponential_buckets(50e-6, 2.0, 18)),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            unpersisted: Gauge::default(),
            store: Gauge::default(),
            store_free: Gauge::default(),
            peers: Gauge::default(),
            connections: Gauge::default(),
            certificate_expiry: Gauge::default(),
            http: HttpMetrics::default(),
            state: StateGauges::default(),
        };
        metrics.register_io();
        metrics.http.register(&mut metrics.registry);
        metrics.register_state();
        metrics
    }

    fn register_io(&mut self) {
        let r = &mut self.registry;
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The build", info);
        r.register("rejected", "What peers and clients were refused", self.rejected.clone());
        r.register(
            "messages_rejected",
            "Messages of peers that were refused",
            self.messages_rejected.clone(),
        );
        r.register(
            "tls_handshake_failures",
            "Handshakes that failed",
            self.handshake_failures.clone(),
        );
        r.register("requests", "Requests by how they ended", self.requests.clone());
        r.register("sends_dropped", "Messages dropped at a full queue", self.dropped.clone());
        r.register("steps", "Events that the node consumed", self.steps.clone());
        r.register("wal_torn", "Starts that cut an unfinished end of the log", self.torn.clone());
        r.register_with_unit("wal_fsync", "Syncs of the log", Unit::Seconds, self.fsync.clone());
        r.register("wal_batch_entries", "Writes made durable by one sync", self.batch.clone());
        let bytes = [
            ("unpersisted", "Bytes handed to the disk and not yet durable", &self.unpersisted),
            ("store", "Bytes of log segments and side files", &self.store),
            ("store_free", "Bytes free on the disk of the store", &self.store_free),
        ];
        for (name, help, gauge) in bytes {
            r.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        r.register("peer_connected", "Peers with a link up", self.peers.clone());
        r.register("peer_connections", "Connections of peer links", self.connections.clone());
        r.register_with_unit(
            "tls_cert_expiry",
            "When the node's certificate ends, as seconds since 1970",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
    }

    fn register_state(&mut self) {
        let (r, s) = (&mut self.registry, &self.state);
        r.register("ready", "1 when the node is ready to serve", s.ready.clone());
        r.register("warning", "1 while a warning holds, by its code", s.warning.clone());
        r.register("clock_lead_ms", "Lead of stamps over the clock", s.clock_lead.clone());
        r.register("group_halted", "1 when this build cannot apply a group", s.halted.clone());
        r.register("raft_term", "Term of a group", s.term.clone());
        r.register("raft_is_leader", "1 when this node leads a group", s.is_leader.clone());
        r.register("raft_has_leader", "1 when a group's leader is known", s.has_leader.clone());
        r.register("raft_commit_index", "Last committed entry of a group", s.commit.clone());
        r.register("raft_applied_index", "Last applied entry of a group", s.applied.clone());
        r.register("crdt_root", "First 8 bytes of a shard's root", s.root.clone());
        r.register("crdt_writes", "Live writes of a shard", s.writes.clone());
        r.register("crdt_in_sync", "Peers whose root equals a shard's", s.in_sync.clone());
        r.register("gossip_members", "Members by health", s.members.clone());
        r.register_with_unit("memory", "Keys and values held", Unit::Bytes, s.memory.clone());
        let help = "Linked nodes of another federation of this id";
        r.register("rival_federations", help, s.rivals.clone());
        r.register("requests_pending", "Requests under way", s.pending.clone());
    }

    /// Something from a peer or client was refused.
    pub fn rejected(&self, reason: &str) {
        self.rejected.get_or_create(&Why { reason: reason.to_owned() }).inc();
    }

    /// A message of a peer was refused. It also counts under the reason `message` among all refusals.
    pub fn message_rejected(&self, why: &'static str) {
        self.rejected("message");
        self.messages_rejected.get_or_create(&Why { reason: why.to_owned() }).inc();
    }

    /// The count of refusals for a reason.
    #[must_use]
    pub fn rejections(&self, reason: &str) -> u64 {
        self.rejected.get_or_create(&Why { reason: reason.to_owned() }).get()
    }

    /// The metrics of the HTTP API.
    pub(crate) const fn http(&self) -> &HttpMetrics {
        &self.http
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self, reason: &str) {
        self.handshake_failures.get_or_create(&Why { reason: reason.to_owned() }).inc();
    }

    /// The count of failed handshakes for a reason.
    #[must_use]
    pub fn handshake_failures(&self, reason: &str) -> u64 {
        self.handshake_failures.get_or_create(&Why { reason: reason.to_owned() }).get()
    }

    /// A request was answered.
    pub fn answered(&self, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Committed { .. } => "committed",
            Outcome::Value(_) => "value",
            Outcome::Rejected(reason) => rejection(reason),
            Outcome::Unknown { .. } => "unknown",
        };
        self.requests.get_or_create(&Ended { outcome }).inc();
    }

    /// A message was dropped at a full queue.
    pub fn dropped(&self, plane: &'static str) {
        self.dropped.get_or_create(&OnPlane { plane }).inc();
    }

    /// The node consumed one event.
    pub fn stepped(&self) {
        self.steps.inc();
    }

    /// The unfinished end of the log was cut.
    pub fn torn(&self) {
        self.torn.inc();
    }

    /// One sync took this long and made this many writes durable.
    pub fn synced(&self, took: Duration, writes: usize) {
        self.fsync.observe(took.as_secs_f64());
        self.batch.observe(writes as f64);
    }

    /// Bytes handed to the disk and not yet durable.
    pub fn unpersisted(&self, bytes: u64) {
        self.unpersisted.set(signed(bytes));
    }

    /// Bytes that the store uses, and bytes free on its file system.
    pub fn store(&self, used: u64, free: u64) {
        self.store.set(signed(used));
        self.store_free.set(signed(free));
    }

    /// Links and connections that are up.
    pub fn links(&self, peers: usize, connections: usize) {
        self.peers.set(signed(peers as u64));
        self.connections.set(signed(connections as u64));
    }

    /// When the node's certificate ends, in seconds since 1970.
    pub fn certificate_expires(&self, at_s: u64) {
        self.certificate_expiry.set(at_s as f64);
    }

    /// Sets the gauges of the node's state.
    pub fn observe(&self, status: &Status) {
        let s = &self.state;
        s.ready.set(i64::from(status.unready.is_empty()));
        for code in Warning::CODES {
            let holds = status.warnings.iter().any(|warning| warning.code() == *code);
            s.warning.get_or_create(&WithCode { code }).set(i64::from(holds));
        }
        let (mut own, mut peers) = (0, 0);
        for warning in &status.warnings {
            match warning {
                Warning::ClockAhead { by_ms } => own = *by_ms,
                Warning::ClockBehindPeers { by_ms, .. } => peers = peers.max(*by_ms),
                Warning::SnapshotRefused { .. }
                | Warning::RivalFederation { .. }
                | Warning::StoreReplaced { .. } => {}
            }
        }
        for (code, by_ms) in [("clock_ahead", own), ("clock_behind_peers", peers)] {
            s.clock_lead.get_or_create(&WithCode { code }).set(signed(by_ms));
        }
        s.memory.set(signed(status.memory_bytes));
        s.pending.set(i64::from(status.requests));
        let rivals = if status.formed { status.formed_peers.len() } else { 0 };
        s.rivals.set(signed(rivals as u64));
        for group in &status.groups {
            let label = InGroup { group: group.group.0 };
            let leads = group.leader == Some(status.replica.node);
            s.term.get_or_create(&label).set(signed(group.term.0));
            s.is_leader.get_or_create(&label).set(i64::from(leads));
            s.has_leader.get_or_create(&label).set(i64::from(group.leader.is_some()));
            s.commit.get_or_create(&label).set(signed(group.commit.0));
            s.applied.get_or_create(&label).set(signed(group.applied.0));
            s.halted.get_or_create(&label).set(i64::from(group.halted.is_some()));
        }
        for shard in &status.shards {
            let label = OfShard { namespace: shard.namespace.0, slot: shard.slot };
            s.root.get_or_create(&label).set(shard.root.cast_signed());
            s.writes.get_or_create(&label).set(signed(shard.writes));
            s.in_sync.get_or_create(&label).set(i64::from(shard.in_sync));
        }
    }

    /// Sets the gauges of the members' health.
    pub fn observe_members(&self, members: &[Member]) {
        for health in
            [Health::Unknown, Health::Healthy, Health::Suspect, Health::Unhealthy, Health::Left]
        {
            let count = members.iter().filter(|member| member.health == health).count();
            let label = InState { state: health_label(health) };
            self.state.members.get_or_create(&label).set(signed(count as u64));
        }
    }

    /// All metrics in the text format of OpenMetrics.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

/// Metrics of the HTTP API.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    problems: Family<ProblemLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    code: &'static str,
}

/// Bucket bounds in seconds: from a read in memory to a write that waits for its timeout.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            problems: Family::default(),
        }
    }
}

impl HttpMetrics {
    /// Registers the families; their names follow the registry's prefix.
    fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "HTTP requests answered", self.requests.clone());
        registry.register("http_request_seconds", "Time to answer", self.seconds.clone());
        registry.register("http_problems", "HTTP problems, by code", self.problems.clone());
    }

    /// A request was answered after this many seconds.
    pub(crate) fn answered(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        seconds: f64,
    ) {
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
        self.seconds.get_or_create(&RouteLabels { route }).observe(seconds);
    }

    /// An answer was a problem with this code.
    pub(crate) fn problem(&self, code: &'static str) {
        self.problems.get_or_create(&ProblemLabels { code }).inc();
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const fn health_label(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Suspect => "suspect",
        Health::Unhealthy => "unhealthy",
        Health::Left => "left",
    }
}

/// The label of a refused request.
const fn rejection(reason: &Reason) -> &'static str {
    match reason {
        Reason::NotFormed => "not_formed",
        Reason::AlreadyFormed => "already_formed",
        Reason::VoterUnavailable { .. } => "voter_unavailable",
        Reason::UnknownNamespace => "unknown_namespace",
        Reason::NamespaceExists => "namespace_exists",
        Reason::InvalidName => "invalid_name",
        Reason::WrongConsistency => "wrong_consistency",
        Reason::OutOfBounds { .. } => "out_of_bounds",
        Reason::Conflict { .. } => "conflict",
        Reason::ForeignContext => "foreign_context",
        Reason::TooManySiblings => "too_many_siblings",
        Reason::SessionExpired => "session_expired",
        Reason::SessionReused => "key_reused",
        Reason::NoLeader => "no_leader",
        Reason::Busy => "busy",
        Reason::Full { .. } => "full",
        Reason::Stopping => "stopping",
        Reason::GroupHalted { .. } => "group_halted",
        Reason::StoreReplaced => "store_replaced",
        Reason::FoundingUndecided { .. } => "founding_undecided",
        Reason::FederationExists { .. } => "federation_exists",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_all_counts() {
        let metrics = Metrics::new();
        metrics.rejected("frame_garbage");
        metrics.rejected("frame_garbage");
        metrics.message_rejected("a voter's message of no voter");
        metrics.handshake_failed("expired");
        metrics.synced(Duration::from_micros(300), 4);
        metrics.answered(&Outcome::Rejected(Reason::NoLeader));
        let page = metrics.render();
        for line in [
            "continuum_build_info{version=",
            "continuum_rejected_total{reason=\"frame_garbage\"} 2",
            "continuum_rejected_total{reason=\"message\"} 1",
            "continuum_messages_rejected_total{reason=\"a voter's message of no voter\"} 1",
            "continuum_tls_handshake_failures_total{reason=\"expired\"} 1",
            "continuum_wal_fsync_seconds_count 1",
            "continuum_wal_batch_entries_sum 4",
            "continuum_requests_total{outcome=\"no_leader\"} 1",
        ] {
            assert!(page.contains(line), "{line} in\n{page}");
        }
    }
}
