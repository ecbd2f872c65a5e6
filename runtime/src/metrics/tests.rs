//! Tests of the page of metrics: its counts, its names and types, what it forgets, and the alerts that use it.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::{GroupStatus, Level, Namespace, Policy, Receipt, ShardStatus, Status};
use continuum_core::id::{Address, Boot, GroupId, Index, NamespaceId, Owner, Replica, Role, Term};

use super::*;

const ANN: NodeId = NodeId([1; 16]);

fn status() -> Status {
    let group = |group: u32| GroupStatus {
        group: GroupId(group),
        term: Term(3),
        leader: None,
        role: Role::Follower,
        commit: Index(7),
        applied: Index(7),
        last: Index(7),
        halted: None,
    };
    let shard = ShardStatus {
        namespace: NamespaceId(4),
        slot: 0,
        root: u64::MAX,
        writes: 2,
        in_sync: 1,
        peers: 2,
    };
    Status {
        replica: Replica::default(),
        boot: Boot::default(),
        name: "n1".into(),
        address: Address("127.0.0.1:7400".into()),
        formed: true,
        genesis: None,
        undecided: None,
        formed_peers: Vec::new(),
        unready: Vec::new(),
        warnings: Vec::new(),
        groups: vec![group(0), group(3)],
        shards: vec![shard],
        memory_bytes: 7,
        requests: 0,
    }
}

fn namespaces() -> Vec<Namespace> {
    let facts = Namespace {
        id: NamespaceId(3),
        name: "facts".into(),
        policy: Policy::Strong,
        group: Some(GroupId(3)),
    };
    let notes =
        Namespace { id: NamespaceId(4), name: "notes".into(), group: None, ..facts.clone() };
    vec![facts, notes]
}

fn committed(revision: Option<Index>) -> Outcome {
    let receipt = Receipt { revision, ..Receipt::default() };
    Outcome::Committed { level: Level::Durable, receipt }
}

fn leads(group: u32) -> Notice {
    let (term, role) = (Term(3), Role::Follower);
    Notice::Role { group: GroupId(group), term, role, leader: Some(ANN) }
}

fn figures(peer: NodeId) -> Figures {
    let known = PeerFigures {
        lag: Duration::from_millis(1500),
        entries: 6,
        round_trip: Some(Duration::from_millis(2)),
    };
    Figures { conflicts: 5, peers: [(peer, known)].into(), ..Figures::default() }
}

/// A page after something of everything.
fn page(format: Format) -> String {
    let metrics = Metrics::new();
    metrics.http().know([("GET", "/livez")].into_iter(), ["absent"].into_iter());
    metrics.rejected("frame_garbage");
    metrics.rejected("frame_garbage");
    metrics.message_rejected("a voter's message of no voter");
    metrics.handshake_failed("expired");
    metrics.synced(Duration::from_micros(300), 4);
    metrics.answered(&Outcome::Rejected(Reason::NoLeader), Duration::from_millis(2));
    metrics.answered(&committed(Some(Index(4))), Duration::from_millis(2));
    metrics.noticed(&leads(3));
    let owner = Owner::Group(GroupId(3));
    metrics.noticed(&Notice::Checkpointed { owner, bytes: 9 });
    metrics.noticed(&Notice::Installed { owner });
    let (node, from, to) = (ANN, Health::Healthy, Health::Suspect);
    metrics.noticed(&Notice::Health { node, from, to });
    metrics.verified::<()>(&Err(Unverified::Unreachable));
    metrics.certificate_expires("peer", 5, 6);
    let (status, namespaces) = (status(), namespaces());
    let figures = figures(ANN);
    let seen =
        Seen { status: &status, members: &[], namespaces: &namespaces, figures: Some(&figures) };
    metrics.page(Some(&seen), format)
}

#[test]
fn the_page_lists_all_counts() {
    let page = page(Format::Text);
    for line in [
        "continuum_build_info{version=",
        "continuum_rejected_total{reason=\"frame_garbage\"} 2",
        "continuum_rejected_total{reason=\"message\"} 1",
        "continuum_messages_rejected_total{reason=\"a voter's message of no voter\"} 1",
        "continuum_tls_handshake_failures_total{reason=\"expired\"} 1",
        "continuum_tls_ca_expiry_timestamp_seconds{listener=\"peer\"} 6.0",
        "continuum_wal_fsync_seconds_count 1",
        "continuum_wal_batch_entries_sum 4",
        "continuum_requests_total{outcome=\"no_leader\"} 1",
        "continuum_requests_total{outcome=\"busy\"} 0",
        "continuum_http_problems_total{code=\"absent\"} 0",
        "continuum_request_duration_seconds_count{outcome=\"rejected\"} 1",
        "continuum_checkpoints_total 1",
        "continuum_commit_duration_seconds_count{memory=\"strong\"} 1",
        "continuum_commit_duration_seconds_count{memory=\"eventual\"} 0",
        "continuum_member_health_changes_total{health=\"suspect\"} 1",
        "continuum_discovery_verifications_total{outcome=\"unreachable\"} 1",
        "continuum_crdt_conflicts_total 5",
        "continuum_replication_lag_seconds{peer=\"01010101010101010101010101010101\"} 1.5",
        "continuum_raft_follower_lag_entries{peer=\"01010101010101010101010101010101\"} 6",
        "continuum_peer_round_trip_seconds{peer=\"01010101010101010101010101010101\"} 0.002",
        "continuum_snapshot_file_duration_seconds_count{kind=\"checkpoint\"} 0",
        "continuum_http_request_duration_seconds_count{method=\"GET\",route=\"/livez\",class=\"2xx\"} 0",
        "continuum_snapshots_installed_total 1",
        "continuum_ready{memory=\"strong\"} 1",
        "continuum_raft_leader_changes_total{group=\"3\",namespace=\"facts\"} 1",
        "continuum_raft_term{group=\"0\",namespace=\"registry\"} 3",
        "continuum_crdt_writes{namespace=\"notes\",slot=\"0\"} 2",
        "continuum_gossip_events_total{event=\"probe\"} 0",
        "process_open_fds ",
    ] {
        assert!(page.contains(line), "{line} in\n{page}");
    }
}

#[test]
fn deleted_groups_and_shards_leave_no_series() {
    let metrics = Metrics::new();
    let (mut status, namespaces) = (status(), namespaces());
    let seen = |status: &Status| {
        metrics.page(
            Some(&Seen { status, members: &[], namespaces: &namespaces, figures: None }),
            Format::Text,
        )
    };
    metrics.noticed(&leads(3));
    let before = seen(&status);
    assert!(before.contains("{group=\"3\"") && before.contains("namespace=\"notes\""), "{before}");
    status.groups.pop();
    status.shards.clear();
    let after = seen(&status);
    assert!(!after.contains("{group=\"3\"") && !after.contains("namespace=\"notes\""), "{after}");
    assert!(after.contains("{group=\"0\""), "{after}");
}

#[test]
fn peers_that_are_gone_leave_no_series_and_counts_never_fall() {
    let metrics = Metrics::new();
    let status = status();
    let seen = |figures: &Figures| {
        let seen = Seen { status: &status, members: &[], namespaces: &[], figures: Some(figures) };
        metrics.page(Some(&seen), Format::Text)
    };
    let before = seen(&figures(ANN));
    assert!(before.contains("peer=\"0101"), "{before}");
    let after = seen(&Figures { conflicts: 6, ..Figures::default() });
    assert!(!after.contains("peer=\"0101"), "{after}");
    assert!(after.contains("continuum_crdt_conflicts_total 6"), "{after}");
}

/// The rules that `promtool check metrics` has, and that every sample belongs to a family with a type and a help.
fn complaints(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut helped, mut series) = (BTreeSet::new(), BTreeSet::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
            helped.insert(name);
            if words.len() < 5 {
                found.push(format!("{name} has no help"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            if kinds.insert(name, kind).is_some() {
                found.push(format!("{name} stands twice"));
            }
        } else {
            let (id, value) = line.rsplit_once(' ').unwrap_or((line, ""));
            let name = id.split('{').next().unwrap_or_default();
            let is_part = |end: &str| {
                name.strip_suffix(end).is_some_and(|stem| kinds.get(stem) == Some(&"histogram"))
            };
            if !kinds.contains_key(name) && !["_bucket", "_sum", "_count"].into_iter().any(is_part)
            {
                found.push(format!("{name} has no type"));
            }
            if !series.insert(id) {
                found.push(format!("{id} stands twice"));
            }
            if value.parse::<f64>().is_err() && value != "+Inf" {
                found.push(format!("{id} has the value {value}"));
            }
        }
    }
    for (name, kind) in kinds {
        if !helped.contains(name) {
            found.push(format!("{name} has no help"));
        }
        if (kind == "counter") != name.ends_with("_total") {
            found.push(format!("{name} is a {kind}"));
        }
        if !["counter", "gauge", "histogram"].contains(&kind) {
            found.push(format!("{name} has the unknown type {kind}"));
        }
        let bare = name.trim_end_matches("_total");
        let odd =
            ["_ms", "_millis", "_kib", "_mib", "_minutes", "_gauge", "_histogram", "_counter"];
        if odd.iter().any(|end| bare.ends_with(end)) || name.bytes().any(|b| b.is_ascii_uppercase())
        {
            found.push(format!("{name} has no base unit"));
        }
    }
    found
}

#[test]
fn names_types_and_units_follow_the_conventions() {
    assert_eq!(complaints(&page(Format::Text)), Vec::<String>::new());
    // The rules themselves see something.
    let wrong =
        "# HELP a_ms Some time.\n# TYPE a_ms counter\na_ms 1\na_ms 1\nb 1\n# TYPE c info\nc x\n";
    assert_eq!(complaints(wrong).len(), 7, "{:?}", complaints(wrong));
    let open = page(Format::OpenMetrics);
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE continuum_build info"));
}

/// The families of a page, without the ends that the text format adds.
fn families(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[test]
fn the_readme_lists_every_metric() {
    let readme = include_str!("../../README.md");
    let page = page(Format::OpenMetrics);
    for family in families(&page) {
        let name = family.strip_prefix("continuum_").unwrap_or(family);
        let name = if name == "build" { "build_info" } else { name };
        assert!(readme.contains(&format!("`{name}`")), "README.md lacks the metric {name}");
    }
}

#[test]
fn alerts_use_metrics_that_there_are() {
    let alerts = include_str!("../../alerts.yml");
    let page = page(Format::Text);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let names: BTreeSet<&str> = alerts
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with("continuum_") || word.starts_with("process_"))
        .collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        let sampled = page
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        // A family with a label per event or per member has no sample before the first of them.
        assert!(sampled || families(&page).contains(name), "no page has {name}");
    }
    let count = |start: &str| alerts.lines().filter(|l| l.trim_start().starts_with(start)).count();
    let rules = count("- alert: ");
    assert!(rules >= 15);
    for part in ["expr: ", "labels: ", "annotations: {summary: "] {
        assert_eq!(count(part), rules, "each rule has {part}");
    }
}
