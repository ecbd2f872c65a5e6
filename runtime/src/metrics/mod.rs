//! Metrics for Prometheus, in an explicit registry, so that several nodes can live in one process.
//!
//! Counters are raised where the events happen. Gauges of the node's state are set from what it tells at each scrape.
//! Every refusal is counted by its reason. Names and units follow Prometheus' conventions.

mod files;
mod http;
mod process;
mod state;
mod text;

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use continuum_core::api::{Health, Outcome, Reason};
use continuum_core::discovery::Unverified;
use continuum_core::files::Piece;
use continuum_core::id::{NodeId, Token};
use continuum_core::node::Notice;
use continuum_core::time::Instant;
use continuum_core::wal::Write;
use prometheus_client::encoding::{EncodeLabelSet, text as openmetrics};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use files::FileMetrics;
pub(crate) use http::HttpMetrics;
use process::ProcessMetrics;
use state::StateGauges;
pub use state::{Figures, PeerFigures, Seen};
pub use text::Format;

/// The label of counters that are split by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OnPlane {
    plane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InMemory {
    memory: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    health: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfListener {
    listener: &'static str,
}

/// The labels of refusals that are shown from the start. Further ones, of damaged frames, appear when they happen.
const REFUSALS: [&str; 8] = [
    "boot",
    "equivocation",
    "message",
    "message_unknown",
    "other_genesis",
    "refused_by_peer",
    "too_many_connections",
    "wrong_store",
];

/// All metrics of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Held from the first gauge that a scrape sets to the end of its page.
    scrape: Mutex<()>,
    rejected: Family<Why, Counter>,
    messages_rejected: Family<Why, Counter>,
    handshake_failures: Family<Why, Counter>,
    requests: Family<Ended, Counter>,
    request_seconds: Family<Ended, Histogram, fn() -> Histogram>,
    commit_seconds: Family<InMemory, Histogram, fn() -> Histogram>,
    dropped: Family<OnPlane, Counter>,
    too_long: Counter,
    health_changes: Family<Became, Counter>,
    verifications: Family<Ended, Counter>,
    steps: Counter,
    torn: Counter,
    fsync: Histogram,
    batch: Histogram,
    checkpoints: Counter,
    checkpoint_bytes: Counter,
    snapshots: Counter,
    snapshots_refused: Counter,
    unpersisted: Gauge,
    store: Gauge,
    store_free: Gauge,
    memory_limit: Gauge,
    peers: Gauge,
    connections: Gauge,
    certificate_expiry: Family<OfListener, Gauge<f64, AtomicU64>>,
    authority_expiry: Family<OfListener, Gauge<f64, AtomicU64>>,
    files: FileMetrics,
    http: HttpMetrics,
    process: ProcessMetrics,
    state: StateGauges,
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
        let mut registry = Registry::default();
        let mut metrics = Self {
            registry: Registry::default(),
            scrape: Mutex::new(()),
            rejected: Family::default(),
            messages_rejected: Family::default(),
            handshake_failures: Family::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(http::SECONDS)),
            commit_seconds: Family::new_with_constructor(|| Histogram::new(http::SECONDS)),
            dropped: Family::default(),
            too_long: Counter::default(),
            health_changes: Family::default(),
            verifications: Family::default(),
            steps: Counter::default(),
            torn: Counter::default(),
            // 50 microseconds to 6.5 s: from an NVMe's sync to that of a failing disk.
            fsync: Histogram::new(exponential_buckets(50e-6, 2.0, 18)),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            checkpoints: Counter::default(),
            checkpoint_bytes: Counter::default(),
            snapshots: Counter::default(),
            snapshots_refused: Counter::default(),
            unpersisted: Gauge::default(),
            store: Gauge::default(),
            store_free: Gauge::default(),
            memory_limit: Gauge::default(),
            peers: Gauge::default(),
            connections: Gauge::default(),
            certificate_expiry: Family::default(),
            authority_expiry: Family::default(),
            files: FileMetrics::default(),
            http: HttpMetrics::default(),
            process: ProcessMetrics::default(),
            state: StateGauges::default(),
        };
        metrics.process.register(registry.sub_registry_with_prefix("process"));
        let own = registry.sub_registry_with_prefix("continuum");
        metrics.register_requests(own);
        metrics.register_io(own);
        metrics.files.register(own);
        metrics.http.register(own);
        metrics.state.register(own);
        metrics.registry = registry;
        metrics.show_from_the_start();
        metrics
    }

    /// A counter that appears with its first event hides that event from `rate()`.
    fn show_from_the_start(&self) {
        for reason in REFUSALS {
            drop(self.rejected.get_or_create(&Why { reason: reason.to_owned() }));
        }
        for outcome in ["committed", "value", "partial", "unknown"].iter().chain(REASONS) {
            drop(self.requests.get_or_create(&Ended { outcome }));
        }
        for outcome in KINDS {
            drop(self.request_seconds.get_or_create(&Ended { outcome }));
        }
        for memory in MEMORIES {
            drop(self.commit_seconds.get_or_create(&InMemory { memory }));
        }
        for plane in ["control", "bulk"] {
            drop(self.dropped.get_or_create(&OnPlane { plane }));
        }
        for health in [Health::Healthy, Health::Suspect, Health::Unhealthy, Health::Left] {
            drop(self.health_changes.get_or_create(&Became { health: health.word() }));
        }
        for outcome in VERIFIED {
            drop(self.verifications.get_or_create(&Ended { outcome }));
        }
    }

    fn register_requests(&self, r: &mut Registry) {
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The build", info);
        r.register("rejected", "What peers and clients were refused", self.rejected.clone());
        let help = "Messages of peers that were refused";
        r.register("messages_rejected", help, self.messages_rejected.clone());
        let help = "Handshakes that failed";
        r.register("tls_handshake_failures", help, self.handshake_failures.clone());
        r.register("requests", "Requests by how they ended", self.requests.clone());
        let help = "Time from a request's arrival in the node to its answer";
        let seconds = self.request_seconds.clone();
        r.register_with_unit("request_duration", help, Unit::Seconds, seconds);
        let help = "Time from a write's arrival in the node to its commitment";
        let seconds = self.commit_seconds.clone();
        r.register_with_unit("commit_duration", help, Unit::Seconds, seconds);
        let help = "Changes of a member's health, by what it became";
        r.register("member_health_changes", help, self.health_changes.clone());
        let help = "Addresses dialled to learn which node answers there";
        r.register("discovery_verifications", help, self.verifications.clone());
        r.register("sends_dropped", "Messages dropped at a full queue", self.dropped.clone());
        let help = "Messages that were longer than a frame and could not be sent";
        r.register("sends_too_long", help, self.too_long.clone());
        r.register("steps", "Events that the node consumed", self.steps.clone());
        let help = "When a listener's certificate ends, since 1970";
        let expiry = self.certificate_expiry.clone();
        r.register_with_unit("tls_cert_expiry_timestamp", help, Unit::Seconds, expiry);
        let help = "When the certificate of a listener's authority ends, since 1970";
        let expiry = self.authority_expiry.clone();
        r.register_with_unit("tls_ca_expiry_timestamp", help, Unit::Seconds, expiry);
        r.register("peers_connected", "Peers with a link up", self.peers.clone());
        r.register("peer_connections", "Connections of peer links", self.connections.clone());
    }

    fn register_io(&self, r: &mut Registry) {
        r.register("wal_torn", "Starts that cut an unfinished end of the log", self.torn.clone());
        r.register_with_unit("wal_fsync", "Syncs of the log", Unit::Seconds, self.fsync.clone());
        r.register("wal_batch_entries", "Writes made durable by one sync", self.batch.clone());
        r.register("checkpoints", "Checkpoints that were completed", self.checkpoints.clone());
        let help = "Bytes of completed checkpoints";
        r.register_with_unit("checkpoint", help, Unit::Bytes, self.checkpoint_bytes.clone());
        let help = "Snapshots of peers that were installed";
        r.register("snapshots_installed", help, self.snapshots.clone());
        let help = "Snapshots of leaders that do not restore here";
        r.register("snapshots_refused", help, self.snapshots_refused.clone());
        let bytes = [
            ("unpersisted", "Bytes handed to the disk and not yet durable", &self.unpersisted),
            ("store", "Bytes of log segments and side files", &self.store),
            ("store_free", "Bytes free on the disk of the store", &self.store_free),
            ("memory_limit", "Keys and values that may be held", &self.memory_limit),
        ];
        for (name, help, gauge) in bytes {
            r.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
    }

    /// A message is longer than a frame.
    pub fn too_long(&self) {
        self.too_long.inc();
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

    /// A request was answered after this time.
    pub fn answered(&self, whole: &Outcome, took: Duration) {
        let (kind, outcome) = match whole {
            Outcome::Committed { .. } => ("committed", "committed"),
            Outcome::Value(_) => ("value", "value"),
            Outcome::Rejected(reason) => ("rejected", rejection(reason)),
            Outcome::Partial { .. } => ("partial", "partial"),
            Outcome::Unknown { .. } => ("unknown", "unknown"),
        };
        self.requests.get_or_create(&Ended { outcome }).inc();
        let seconds = self.request_seconds.get_or_create(&Ended { outcome: kind });
        seconds.observe(took.as_secs_f64());
        if let Outcome::Committed { receipt, .. } = whole {
            let memory = MEMORIES[usize::from(receipt.revision.is_some())];
            let seconds = self.commit_seconds.get_or_create(&InMemory { memory });
            seconds.observe(took.as_secs_f64());
        }
    }

    /// The core reported something.
    pub fn noticed(&self, notice: &Notice) {
        match notice {
            Notice::RefusedBy { .. } => self.rejected("refused_by_peer"),
            Notice::OtherGenesis { .. } => self.rejected("other_genesis"),
            Notice::Rejected { why, .. } => self.message_rejected(why),
            Notice::WrongStore { .. } => self.rejected("wrong_store"),
            Notice::Equivocation { .. } => self.rejected("equivocation"),
            Notice::Role { group, leader: Some(_), .. } => self.state.leader_changed(*group),
            Notice::Health { to, .. } => {
                self.health_changes.get_or_create(&Became { health: to.word() }).inc();
            }
            Notice::Checkpointed { bytes, .. } => {
                self.checkpoints.inc();
                self.checkpoint_bytes.inc_by(*bytes);
            }
            Notice::Installed { .. } => drop(self.snapshots.inc()),
            Notice::SnapshotRefused { .. } => drop(self.snapshots_refused.inc()),
            _ => {}
        }
    }

    /// A write was handed to the disk.
    pub fn issued(&self, token: Token, write: &Write) {
        self.files.issued(token, write);
    }

    /// A piece of a snapshot file was handed to the disk.
    pub fn wrote_piece(&self, now: Instant, piece: &Piece) {
        self.files.wrote(now, piece.snapshot);
    }

    /// All writes up to this one are durable.
    pub fn durable(&self, now: Instant, token: Token) {
        self.files.durable(now, token);
    }

    /// An address was dialled to learn which node answers there.
    pub fn verified<T>(&self, outcome: &Result<T, Unverified>) {
        let outcome = match outcome {
            Ok(_) => VERIFIED[0],
            Err(Unverified::Unreachable) => VERIFIED[1],
            Err(Unverified::Refused) => VERIFIED[2],
        };
        self.verifications.get_or_create(&Ended { outcome }).inc();
    }

    /// Bytes were written to a peer's link.
    pub fn sent(&self, peer: NodeId, bytes: usize) {
        self.state.sent(peer, bytes as u64);
    }

    /// Bytes were read from a peer's link.
    pub fn received(&self, peer: NodeId, bytes: usize) {
        self.state.received(peer, bytes as u64);
    }

    /// Bytes of keys and values that may be held.
    pub fn memory_limit(&self, bytes: u64) {
        self.memory_limit.set(signed(bytes));
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

    /// When the certificate of a listener, `peer` or `api`, and that of its authority end, in seconds since 1970.
    pub fn certificate_expires(&self, listener: &'static str, at_s: u64, authority_s: u64) {
        let label = OfListener { listener };
        self.certificate_expiry.get_or_create(&label).set(at_s as f64);
        self.authority_expiry.get_or_create(&label).set(authority_s as f64);
    }

    /// The page of metrics, with what the node tells of itself. If it tells nothing, its gauges are those of the last
    /// scrape.
    #[must_use]
    pub fn page(&self, seen: Option<&Seen<'_>>, format: Format) -> String {
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen {
            self.state.observe(seen);
        }
        self.process.observe();
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = openmetrics::encode(&mut page, &self.registry);
        match format {
            Format::OpenMetrics => page,
            Format::Text => text::translate(&page),
        }
    }

    /// The page in the text format of OpenMetrics, with the gauges of the last scrape.
    #[must_use]
    pub fn render(&self) -> String {
        self.page(None, Format::OpenMetrics)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The two kinds of memory. A commit in strong memory has a revision.
const MEMORIES: [&str; 2] = ["eventual", "strong"];

/// The outcomes of dialling an address to learn which node answers there.
const VERIFIED: [&str; 3] = ["verified", "unreachable", "refused"];

/// The kinds of outcomes.
const KINDS: [&str; 5] = ["committed", "value", "rejected", "partial", "unknown"];

/// Declares the labels of refused requests: the match and the list of all labels.
macro_rules! rejections {
    ($($reason:pat => $label:literal,)*) => {
        /// The labels of all refusals of requests.
        const REASONS: &[&str] = &[$($label),*];

        /// The label of a refused request.
        const fn rejection(reason: &Reason) -> &'static str {
            match reason {
                $($reason => $label,)*
            }
        }
    };
}

rejections! {
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
    Reason::DiskStalled => "disk_stalled",
    Reason::Stopping => "stopping",
    Reason::GroupHalted { .. } => "group_halted",
    Reason::StoreReplaced => "store_replaced",
    Reason::FoundingUndecided { .. } => "founding_undecided",
    Reason::FederationExists { .. } => "federation_exists",
    Reason::ExportExpired => "export_expired",
    Reason::ExportsBusy => "exports_busy",
}

#[cfg(test)]
mod tests;
