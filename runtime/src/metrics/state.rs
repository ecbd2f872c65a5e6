//! Gauges of the node's state, set anew at each scrape, so that a deleted group or shard leaves no series behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use continuum_core::api::{Health, Member, Namespace, Status, Unready, Warning};
use continuum_core::id::{GroupId, NamespaceId, NodeId};
use continuum_core::node::{ExportFigures, Node};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::signed;

/// All that a node tells of itself at a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its status.
    pub status: &'a Status,
    /// The members as it sees them.
    pub members: &'a [Member],
    /// The namespaces as it knows them.
    pub namespaces: &'a [Namespace],
    /// Figures of its machines, if it told them.
    pub figures: Option<&'a Figures>,
}

/// Figures of a node's machines that its status does not have.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Gossip's counters.
    pub gossip: continuum_core::gossip::Counters,
    /// Lifeguard's score of this node: 0 is sound.
    pub gossip_local_health: u32,
    /// Addresses of nodes that discovery knows.
    pub candidates: usize,
    /// The most removals of one shard that wait for what they remove.
    pub deferred_removals: usize,
    /// Writes that made siblings.
    pub conflicts: u64,
    /// Writes for which a client waits until other replicas have them.
    pub waiting: usize,
    /// Snapshot files that are being written.
    pub unfinished_files: usize,
    /// Figures of each peer.
    pub peers: BTreeMap<NodeId, PeerFigures>,
    /// Messages and replies that wait for the disk.
    pub held: usize,
    /// Exports of strong namespaces.
    pub exports: ExportFigures,
}

/// A node's knowledge of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerFigures {
    /// How long the oldest eventual write of this node has waited until the peer has it.
    pub lag: Duration,
    /// The most entries that the peer is not known to have, of a group that this node leads.
    pub entries: u64,
    /// How long the peer took to answer the last probe.
    pub round_trip: Option<Duration>,
}

impl Figures {
    /// The figures of a node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let (gossip, replicator) = (node.gossip(), node.replicator());
        Self {
            gossip: gossip.counters(),
            gossip_local_health: gossip.local_health(),
            candidates: node.discovery().known(),
            deferred_removals: replicator.deferred_removals(),
            conflicts: replicator.conflicts(),
            waiting: replicator.waiting(),
            unfinished_files: node.unfinished_files(),
            peers: peers(node),
            held: node.held(),
            exports: node.exports(),
        }
    }
}

/// The other members, with what the node knows of them.
fn peers(node: &Node) -> BTreeMap<NodeId, PeerFigures> {
    let others = node.gossip().members().map(|member| member.replica.node);
    let others = others.filter(|other| *other != node.replica().node);
    let figures = |other| PeerFigures {
        round_trip: node.gossip().round_trip(other),
        ..PeerFigures::default()
    };
    let mut peers: BTreeMap<_, _> = others.map(|other| (other, figures(other))).collect();
    for (other, lag) in node.replication_lags() {
        peers.entry(other).or_default().lag = lag;
    }
    for (other, entries) in node.rafts().flat_map(|(_, raft)| raft.lags()) {
        let known = peers.entry(other.node).or_default();
        known.entries = known.entries.max(entries);
    }
    peers
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InGroup {
    group: u32,
    namespace: String,
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
struct Serving {
    memory: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithEvent {
    event: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfShard {
    namespace: String,
    slot: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

/// Gauges that are set from a node's state.
#[derive(Debug, Default)]
pub(super) struct StateGauges {
    ready: Family<Serving, Gauge>,
    warning: Family<WithCode, Gauge>,
    clock_lead: Family<WithCode, Gauge<f64, AtomicU64>>,
    halted: Family<InGroup, Gauge>,
    term: Family<InGroup, Gauge>,
    is_leader: Family<InGroup, Gauge>,
    has_leader: Family<InGroup, Gauge>,
    commit: Family<InGroup, Gauge>,
    applied: Family<InGroup, Gauge>,
    leader_changes: Family<InGroup, Counter>,
    writes: Family<OfShard, Gauge>,
    in_sync: Family<OfShard, Gauge>,
    replicas: Family<OfShard, Gauge>,
    members: Family<InState, Gauge>,
    load: Family<OfPeer, Gauge>,
    sent: Family<OfPeer, Counter>,
    received: Family<OfPeer, Counter>,
    round_trip: Family<OfPeer, Gauge<f64, AtomicU64>>,
    lag: Family<OfPeer, Gauge<f64, AtomicU64>>,
    lag_entries: Family<OfPeer, Gauge>,
    conflicts: Counter,
    waiting: Gauge,
    unfinished: Gauge,
    memory: Gauge,
    pending: Gauge,
    rivals: Gauge,
    gossip: Family<WithEvent, Counter>,
    gossip_health: Gauge,
    candidates: Gauge,
    deferred: Gauge,
    held: Gauge,
    exports: Gauge,
    export_bytes: Gauge,
    exports_ended: Family<ForReason, Counter>,
    counted: Mutex<Counted>,
}

/// Counts that outlive a scrape.
#[derive(Debug, Default)]
struct Counted {
    leaders: BTreeMap<GroupId, u64>,
    traffic: BTreeMap<NodeId, Traffic>,
}

/// Bytes on the links of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    sent: u64,
    received: u64,
}

impl StateGauges {
    pub(super) fn register(&self, r: &mut Registry) {
        let help = "1 when this kind of memory is served";
        r.register("ready", help, self.ready.clone());
        r.register("warning", "1 while a warning holds, by its code", self.warning.clone());
        let help = "Lead of stamps over this node's clock";
        r.register_with_unit("clock_lead", help, Unit::Seconds, self.clock_lead.clone());
        r.register("group_halted", "1 when this build cannot apply a group", self.halted.clone());
        r.register("raft_term", "Term of a group", self.term.clone());
        r.register("raft_is_leader", "1 when this node leads a group", self.is_leader.clone());
        r.register("raft_has_leader", "1 when a group's leader is known", self.has_leader.clone());
        r.register("raft_commit_index", "Last committed entry of a group", self.commit.clone());
        r.register("raft_applied_index", "Last applied entry of a group", self.applied.clone());
        let help = "Leaders of a group that this node has seen";
        r.register("raft_leader_changes", help, self.leader_changes.clone());
        r.register("crdt_writes", "Live writes of a shard", self.writes.clone());
        r.register("crdt_in_sync", "Peers whose replica equals a shard's", self.in_sync.clone());
        r.register("crdt_peers", "Peers that replicate a shard", self.replicas.clone());
        let help = "Most removals of one shard that wait for what they remove";
        r.register("crdt_deferred_removals", help, self.deferred.clone());
        let help = "Writes that left a value beside one that their author had not seen";
        r.register("crdt_conflicts", help, self.conflicts.clone());
        let help = "Writes for which a client waits until other replicas have them";
        r.register("crdt_waiting_writes", help, self.waiting.clone());
        let help = "Age of the oldest eventual write of this node that a member may lack";
        r.register_with_unit("replication_lag", help, Unit::Seconds, self.lag.clone());
        let help = "Most entries that a member lacks of a group that this node leads";
        r.register("raft_follower_lag_entries", help, self.lag_entries.clone());
        let help = "Time that a member took to answer the last probe";
        r.register_with_unit("peer_round_trip", help, Unit::Seconds, self.round_trip.clone());
        let help = "Snapshot files that are being written";
        r.register("snapshot_files_unfinished", help, self.unfinished.clone());
        r.register("members", "Members by health, as this node sees them", self.members.clone());
        r.register("member_load", "Requests under way that a member reports", self.load.clone());
        let help = "Bytes sent on the links to a member";
        r.register_with_unit("peer_sent", help, Unit::Bytes, self.sent.clone());
        let help = "Bytes received on the links to a member";
        r.register_with_unit("peer_received", help, Unit::Bytes, self.received.clone());
        r.register("gossip_events", "Events of failure detection", self.gossip.clone());
        let help = "Lifeguard's score of this node; 0 is sound";
        r.register("gossip_local_health", help, self.gossip_health.clone());
        let help = "Addresses of nodes that discovery knows";
        r.register("discovery_candidates", help, self.candidates.clone());
        r.register("held_messages", "Messages that wait for the disk", self.held.clone());
        r.register_with_unit("memory", "Keys and values held", Unit::Bytes, self.memory.clone());
        r.register("exports_open", "Exports under way", self.exports.clone());
        let help = "Replaced values that exports keep";
        r.register_with_unit("export_kept", help, Unit::Bytes, self.export_bytes.clone());
        let help = "Exports that ended before their last page";
        r.register("exports_ended", help, self.exports_ended.clone());
        let help = "Linked nodes of another federation of this id";
        r.register("rival_federations", help, self.rivals.clone());
        r.register("requests_pending", "Requests under way", self.pending.clone());
    }

    /// A group has another leader.
    pub(super) fn leader_changed(&self, group: GroupId) {
        *self.counted().leaders.entry(group).or_default() += 1;
    }

    pub(super) fn sent(&self, peer: NodeId, bytes: u64) {
        self.counted().traffic.entry(peer).or_default().sent += bytes;
    }

    pub(super) fn received(&self, peer: NodeId, bytes: u64) {
        self.counted().traffic.entry(peer).or_default().received += bytes;
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets everything anew.
    pub(super) fn observe(&self, seen: &Seen<'_>) {
        let status = seen.status;
        let eventual = !status.unready.iter().any(Unready::stops_eventual);
        for (memory, serves) in [("eventual", eventual), ("strong", status.unready.is_empty())] {
            self.ready.get_or_create(&Serving { memory }).set(i64::from(serves));
        }
        self.observe_warnings(status);
        self.memory.set(signed(status.memory_bytes));
        self.pending.set(i64::from(status.requests));
        let rivals = if status.formed { status.formed_peers.len() } else { 0 };
        self.rivals.set(signed(rivals as u64));
        self.observe_groups(seen);
        self.observe_shards(seen);
        self.observe_members(seen.members);
        if let Some(figures) = seen.figures {
            self.observe_figures(figures);
        }
    }

    fn observe_warnings(&self, status: &Status) {
        for code in Warning::CODES {
            let holds = status.warnings.iter().any(|warning| warning.code() == *code);
            self.warning.get_or_create(&WithCode { code }).set(i64::from(holds));
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
            self.clock_lead.get_or_create(&WithCode { code }).set(by_ms as f64 / 1000.0);
        }
    }

    fn observe_groups(&self, seen: &Seen<'_>) {
        for family in [&self.halted, &self.term, &self.is_leader, &self.has_leader] {
            family.clear();
        }
        [&self.commit, &self.applied].into_iter().for_each(Family::clear);
        self.leader_changes.clear();
        let mut counted = self.counted();
        // Each table is looked up once a row: a node may hold thousands of groups.
        let groups: BTreeSet<GroupId> = seen.status.groups.iter().map(|row| row.group).collect();
        counted.leaders.retain(|group, _| groups.contains(group));
        let names = names_of_groups(seen);
        for row in &seen.status.groups {
            let label = InGroup { group: row.group.0, namespace: name_of(&names, row.group) };
            let leads = row.leader == Some(seen.status.replica.node);
            self.term.get_or_create(&label).set(signed(row.term.0));
            self.is_leader.get_or_create(&label).set(i64::from(leads));
            self.has_leader.get_or_create(&label).set(i64::from(row.leader.is_some()));
            self.commit.get_or_create(&label).set(signed(row.commit.0));
            self.applied.get_or_create(&label).set(signed(row.applied.0));
            self.halted.get_or_create(&label).set(i64::from(row.halted.is_some()));
            let changes = counted.leaders.get(&row.group).copied().unwrap_or(0);
            self.leader_changes.get_or_create(&label).inc_by(changes);
        }
    }

    fn observe_shards(&self, seen: &Seen<'_>) {
        [&self.writes, &self.in_sync, &self.replicas].into_iter().for_each(Family::clear);
        let names: BTreeMap<NamespaceId, &str> =
            seen.namespaces.iter().map(|known| (known.id, known.name.as_str())).collect();
        for shard in &seen.status.shards {
            let found = names.get(&shard.namespace).map(|name| (*name).to_owned());
            let name = found.unwrap_or_else(|| shard.namespace.0.to_string());
            let label = OfShard { namespace: name, slot: shard.slot };
            self.writes.get_or_create(&label).set(signed(shard.writes));
            self.in_sync.get_or_create(&label).set(i64::from(shard.in_sync));
            self.replicas.get_or_create(&label).set(i64::from(shard.peers));
        }
    }

    fn observe_members(&self, members: &[Member]) {
        for health in
            [Health::Unknown, Health::Healthy, Health::Suspect, Health::Unhealthy, Health::Left]
        {
            let count = members.iter().filter(|member| member.health == health).count();
            let label = InState { state: health.word() };
            self.members.get_or_create(&label).set(signed(count as u64));
        }
        self.load.clear();
        [&self.sent, &self.received].into_iter().for_each(Family::clear);
        let mut counted = self.counted();
        let is_member = |node: &NodeId| members.iter().any(|member| member.replica.node == *node);
        counted.traffic.retain(|node, _| is_member(node));
        for member in members {
            let label = OfPeer { peer: member.replica.node.to_string() };
            self.load.get_or_create(&label).set(i64::from(member.load));
        }
        for (node, traffic) in &counted.traffic {
            let label = OfPeer { peer: node.to_string() };
            self.sent.get_or_create(&label).inc_by(traffic.sent);
            self.received.get_or_create(&label).inc_by(traffic.received);
        }
    }

    fn observe_figures(&self, figures: &Figures) {
        let counts = figures.gossip;
        let events = [
            ("probe", counts.probes),
            ("failed_probe", counts.failed_probes),
            ("suspicion", counts.suspicions),
            ("death", counts.deaths),
            ("refutation", counts.refutations),
            ("unknown", counts.unknown),
            ("disbelieved", counts.disbelieved),
            ("rejected", counts.rejected),
        ];
        self.gossip.clear();
        for (event, count) in events {
            self.gossip.get_or_create(&WithEvent { event }).inc_by(count);
        }
        self.gossip_health.set(i64::from(figures.gossip_local_health));
        self.candidates.set(signed(figures.candidates as u64));
        self.deferred.set(signed(figures.deferred_removals as u64));
        self.held.set(signed(figures.held as u64));
        self.observe_exports(figures.exports);
        self.waiting.set(signed(figures.waiting as u64));
        self.unfinished.set(signed(figures.unfinished_files as u64));
        self.conflicts.inc_by(figures.conflicts.saturating_sub(self.conflicts.get()));
        self.observe_peers(&figures.peers);
    }

    fn observe_exports(&self, figures: ExportFigures) {
        self.exports.set(signed(figures.open as u64));
        self.export_bytes.set(signed(figures.bytes));
        self.exports_ended.clear();
        for (reason, count) in [("idle", figures.idle), ("memory", figures.too_large)] {
            self.exports_ended.get_or_create(&ForReason { reason }).inc_by(count);
        }
    }

    fn observe_peers(&self, peers: &BTreeMap<NodeId, PeerFigures>) {
        [&self.lag, &self.round_trip].into_iter().for_each(Family::clear);
        self.lag_entries.clear();
        for (node, figures) in peers {
            let label = OfPeer { peer: node.to_string() };
            self.lag.get_or_create(&label).set(figures.lag.as_secs_f64());
            self.lag_entries.get_or_create(&label).set(signed(figures.entries));
            if let Some(took) = figures.round_trip {
                self.round_trip.get_or_create(&label).set(took.as_secs_f64());
            }
        }
    }
}

/// The name of each group's namespace.
fn names_of_groups<'a>(seen: &Seen<'a>) -> BTreeMap<GroupId, &'a str> {
    let named = seen.namespaces.iter().filter_map(|known| Some((known.group?, &*known.name)));
    named.chain([(GroupId::REGISTRY, "registry")]).collect()
}

fn name_of(names: &BTreeMap<GroupId, &str>, group: GroupId) -> String {
    names.get(&group).map_or_else(String::new, |name| (*name).to_owned())
}
