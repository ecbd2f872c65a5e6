//! Every setting with its kind and its meaning, in the order of the file. The annotated file and `runtime/README.md`
//! say the same words. Defaults and bounds are elsewhere.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path in the file.
    pub key: &'static str,
    /// The kind or unit of its value.
    pub kind: &'static str,
    /// Its meaning, on one line.
    pub meaning: &'static str,
}

/// Declares the table.
macro_rules! keys {
    ($($key:literal, $kind:literal, $meaning:literal;)*) => {
        /// All settings.
        pub static KEYS: &[Key] = &[$(Key { key: $key, kind: $kind, meaning: $meaning }),*];
    };
}

keys! {
    "data", "path",
        "the data directory; created when absent, and owned by one node for ever";
    "name", "text",
        "the node's name for people; at most 300 bytes, no control characters";
    "peer.listen", "`ip:port`",
        "where peers connect, an IP address; port 0 takes a free one; a host name goes into `peer.advertise`";
    "peer.advertise", "`host:port`",
        "where other nodes reach this one; required when `peer.listen` is `0.0.0.0` or `[::]`";
    "peer.bootstrap", "list of `host:port`",
        "where to look for other nodes; every address of a host name is tried";
    "peer.ca", "path",
        "the authority's certificate, PEM";
    "peer.cert", "path",
        "this node's certificate, PEM";
    "peer.key", "path",
        "its key, PEM; no other user may read it";
    "api.listen", "`ip:port`",
        "where clients connect, an IP address; without `api.tls` it must be a loopback one; a host name goes into \
         `api.hosts`";
    "api.hosts", "list of names",
        "names for which a listener without TLS answers, beside loopback addresses and `localhost`";
    "api.connections_max", "number",
        "open connections of clients, over all addresses";
    "api.connections_of_address_max", "number",
        "open connections of one address; of one network of 64 bits with IPv6";
    "api.tls.ca", "path",
        "the authority that client certificates must come from, PEM";
    "api.tls.cert", "path",
        "the API's certificate, PEM";
    "api.tls.key", "path",
        "its key, PEM; no other user may read it";
    "log.format", "`pretty`, `json`",
        "lines for people, or one JSON object a line";
    "log.filter", "text",
        "filter of `tracing-subscriber`, such as `continuum_runtime=debug,warn`";
    "disk.reserve_bytes", "bytes",
        "space kept back for a full disk; at least one log segment, 16 MiB";
    "core.raft.heartbeat_ms", "ms",
        "between a leader's heartbeats; at most a third of the election timeout";
    "core.raft.election_timeout_ms", "ms",
        "shortest election timeout; each is drawn between it and twice it; at most 60000";
    "core.raft.append_bytes_max", "bytes",
        "entries in one append message";
    "core.raft.inflight_max", "messages",
        "append messages under way to one follower; 1 to 1024";
    "core.raft.uncommitted_bytes_max", "bytes",
        "proposals not yet committed; past it proposals are refused";
    "core.raft.retained_bytes_max", "bytes",
        "entries kept in memory behind the last checkpoint; slower followers get a snapshot";
    "core.replication.anti_entropy_ms", "ms",
        "between two comparisons of a shard that changed; shards that did not cost one message for all \
         now and then";
    "core.replication.delta_bytes_max", "bytes",
        "writes in one message";
    "core.replication.unacknowledged_bytes_max", "bytes",
        "pushed to one peer and not acknowledged; past it the peer waits for anti-entropy";
    "core.replication.ahead_ms_max", "ms",
        "how far a stamp may lie ahead of this node's wall clock and still move its hybrid clock; \
         past it the node warns";
    "core.replication.capture_bytes", "bytes",
        "bytes of a shard that one step captures for a checkpoint";
    "core.gossip.period_ms", "ms",
        "one protocol period, in which one member is probed";
    "core.gossip.ping_timeout_ms", "ms",
        "from the first direct ping until helpers are asked; below the period";
    "core.gossip.pings", "pings",
        "direct pings before helpers are asked; 1 to 16";
    "core.gossip.helpers", "members",
        "helpers asked for an indirect ping";
    "core.gossip.suspicion_multiplier", "factor",
        "a suspicion lasts at least this many periods times log10 of the member count";
    "core.gossip.retransmit_multiplier", "factor",
        "each update is sent this many times log10 of the member count";
    "core.gossip.updates_max", "updates",
        "updates in one message; 1 to 64";
    "core.gossip.dead_kept_ms", "ms",
        "how long a dead member is remembered";
    "core.discovery.resolve_ms", "ms",
        "between two look-ups of the bootstrap list; a quarter of it while no peer is connected";
    "core.discovery.backoff_ms", "ms",
        "first pause after a failed handshake; it doubles";
    "core.discovery.backoff_ms_max", "ms",
        "longest pause after failed handshakes";
    "core.discovery.candidates_max", "addresses",
        "candidate addresses remembered";
    "core.coordinator.fall", "observations",
        "bad observations in a row that make a healthy member unhealthy";
    "core.coordinator.rise", "observations",
        "good observations in a row that make it healthy again";
    "core.coordinator.dwell_ms", "ms",
        "shortest time in one state of health";
    "core.coordinator.report_ms", "ms",
        "between two reports of a node's own load";
    "core.node.request_timeout_ms", "ms",
        "after which an unfinished request is answered, a possibly logged write as unknown";
    "core.node.checkpoint_bytes", "bytes",
        "log beyond twice the state's size that triggers a checkpoint; at least 64 KiB";
    "core.node.memory_bytes_max", "bytes",
        "keys and values in memory; past it writes are refused as full; at least 1 MiB";
    "core.node.clone_window_ms", "ms",
        "if the older process spoke within this, a newer boot waits, and is refused \
         as a clone once the older one answers";
}
