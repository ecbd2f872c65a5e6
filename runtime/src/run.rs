//! Starts a node from its settings and seams, and runs it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use continuum_core::id::{Address, Boot, FederationId, Lineage, NodeId, Replica, StoreId, Token};
use continuum_core::node::{Node, Start, last_boot};
use continuum_core::seed::Seed;
use continuum_core::wal::{Torn, Write};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::disk::{Content, Disk, FileDisk, Opened, StoreOwner};
use crate::driver::{Driver, Observer};
use crate::error::{RunError, Stopped};
use crate::handle::Commands;
use crate::link::{Limits, Links, LocalIdentity, Tls};
use crate::metrics::Metrics;
use crate::resolve::{Resolver, SystemResolver};
use crate::settings::Settings;
use crate::tls::Credentials;
use crate::{entropy, log};

/// Everything that a node is given. Disk, clock, resolver and seed are seams, so that a test can replace the outside.
pub struct Inputs<D, R> {
    /// The operator's settings; [`run`] validates them.
    pub settings: Settings,
    /// The node's certificate, which holds its identity, and its key.
    pub credentials: Credentials,
    /// The root of all randomness of this process; fresh in production.
    pub seed: Seed,
    /// Opens the store.
    pub disk: D,
    /// The source of time, also for certificates.
    pub clock: Arc<dyn Clock>,
    /// Looks up the host names of the bootstrap list.
    pub resolver: R,
    /// Commands of clients; see [`crate::handle::channel`].
    pub commands: Commands,
    /// Shared with the API, which renders them.
    pub metrics: Arc<Metrics>,
    /// Bounds of the peers' listener.
    pub limits: Limits,
    /// Told once, when the node accepts peers.
    pub started: Option<oneshot::Sender<Started>>,
    /// Sees all events and actions; for tests.
    pub observer: Option<Box<dyn Observer>>,
}

impl Inputs<FileDisk, SystemResolver> {
    /// The inputs of a node on this machine: its files, its resolver and fresh randomness, under any clock.
    #[must_use]
    pub fn of_machine(
        settings: Settings,
        credentials: Credentials,
        clock: Arc<dyn Clock>,
        (commands, metrics): (Commands, Arc<Metrics>),
    ) -> Self {
        Self {
            disk: FileDisk::new(settings.data.clone(), settings.disk.reserve_bytes),
            settings,
            credentials,
            seed: entropy::seed(),
            clock,
            resolver: SystemResolver,
            commands,
            metrics,
            limits: Limits::default(),
            started: None,
            observer: None,
        }
    }
}

/// The facts about a node that accepts peers.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// The federation of its certificate.
    pub federation: FederationId,
    /// Its node id and the id of its data directory.
    pub replica: Replica,
    /// This process.
    pub boot: Boot,
    /// The address on which it accepts peers.
    pub peers: SocketAddr,
    /// The unfinished end that was cut from its log.
    pub torn: Option<Torn>,
}

/// Runs one node until `stop` resolves.
///
/// # Errors
///
/// [`RunError`]. None of them loses anything that the store holds.
pub async fn run<D: Disk, R: Resolver>(
    inputs: Inputs<D, R>,
    stop: impl Future<Output = ()>,
) -> Result<Stopped, RunError> {
    let Inputs { settings, credentials, seed, mut disk, clock, .. } = inputs;
    settings.validate()?;
    credentials.check(clock.as_ref())?;
    let owner = StoreOwner { federation: credentials.federation(), node: credentials.node()? };
    let tls = Tls {
        server: credentials.peer_server(Arc::clone(&clock))?,
        client: credentials.peer_client(Arc::clone(&clock))?,
    };
    let metrics = &inputs.metrics;
    metrics.certificate_expires("peer", credentials.ends_s(), credentials.authority_ends_s());
    metrics.memory_limit(settings.core.node.memory_bytes_max);
    let (listener, peers) = listen(settings.peer.listen).await?;
    let opened = disk.open(owner, fresh_store(&seed))?;
    let Opened { store, writes, snapshots, torn, events } = opened;
    let mut me = myself(owner, store, &writes, &seed);
    let replica = Replica { node: me.node, store: me.store };
    let node = Node::restore(start(&settings, &me, seed, peers), writes, snapshots)?;
    me.lineage = node.lineage().clone();
    let jitter = seed.derive("runtime.link", 0);
    let metrics = inputs.metrics;
    let (federation, boot) = (me.federation, me.boot);
    let links = Links::start(me, listener, tls, inputs.limits, Arc::clone(&metrics), jitter);
    let started = Started { federation, replica, boot, peers, torn };
    if torn.is_some() {
        metrics.torn();
    }
    announce(inputs.started, started);
    let driver = Driver {
        node,
        links,
        disk,
        disk_events: events,
        commands: inputs.commands,
        clock,
        resolver: inputs.resolver,
        bootstrap: settings.peer.bootstrap,
        metrics,
        observer: inputs.observer,
        next_request: 1,
    };
    driver.run(stop).await
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |error| RunError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn fresh_store(seed: &Seed) -> StoreId {
    let mut draws = seed.derive("runtime.store", 0);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&draws.draw().to_be_bytes());
    id[8..].copy_from_slice(&draws.draw().to_be_bytes());
    StoreId(id)
}

fn myself(
    owner: StoreOwner,
    store: StoreId,
    writes: &[(Token, Write)],
    seed: &Seed,
) -> LocalIdentity {
    let count = last_boot(writes).map_or(1, |boot| boot.count + 1);
    let nonce = seed.derive("runtime.boot", count).draw();
    let StoreOwner { federation, node } = owner;
    let (boot, lineage) = (Boot { count, nonce }, Lineage::default());
    LocalIdentity { federation, node, store, boot, lineage }
}

fn start(settings: &Settings, me: &LocalIdentity, seed: Seed, peers: SocketAddr) -> Start {
    let advertise = settings.peer.advertise.clone();
    Start {
        config: settings.core.clone(),
        federation: me.federation,
        replica: Replica { node: me.node, store: me.store },
        boot: me.boot,
        seed,
        name: name(settings, me.node),
        address: Address(advertise.unwrap_or_else(|| peers.to_string())),
    }
}

/// Whether a node could start with what its store holds. Starts none.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn judge(
    settings: &Settings,
    owner: StoreOwner,
    content: Content,
) -> Result<(), RunError> {
    let Content::Sound { store, writes, snapshots } = content else { return Ok(()) };
    let seed = entropy::seed();
    let me = myself(owner, store, &writes, &seed);
    Node::restore(start(settings, &me, seed, settings.peer.listen), writes, snapshots)?;
    Ok(())
}

/// The operator's name, or the first 8 digits of the node's id.
fn name(settings: &Settings, node: NodeId) -> String {
    if settings.name.is_empty() {
        return node.to_string().chars().take(8).collect();
    }
    settings.name.clone()
}

fn announce(to: Option<oneshot::Sender<Started>>, started: Started) {
    let Started { federation, replica, boot, peers, torn } = started;
    if let Some(torn) = torn {
        let detail = format!("segment {} at byte {}: {:?}", torn.segment, torn.offset, torn.what);
        log::warn("cut the unfinished end of the log", &detail);
    }
    let detail = format!(
        "node {} of federation {federation}, store {}, boot {}, peers on {peers}",
        replica.node, replica.store, boot.count
    );
    log::info("started", &detail);
    if let Some(to) = to {
        // A receiver that has gone away needs no report.
        let _ = to.send(started);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use continuum_core::id::{GroupId, Term};
    use continuum_core::raft;

    use super::*;

    #[test]
    fn a_store_from_which_no_node_starts_is_refused_without_a_start() {
        let owner = StoreOwner { federation: FederationId([1; 16]), node: NodeId([2; 16]) };
        let refused = |content| {
            let judged = judge(&Settings::default(), owner, content);
            judged.err().map(|error| error.to_string())
        };
        let sound =
            |writes| Content::Sound { store: StoreId([3; 16]), writes, snapshots: BTreeMap::new() };
        assert_eq!(refused(Content::Fresh), None);
        assert_eq!(refused(Content::InUse), None);
        assert_eq!(refused(sound(Vec::new())), None);
        // A vote in a group that no federation has begun.
        let write = raft::Write::Hard { term: Term(1), vote: None };
        let write = Write::Group { group: GroupId(1), write };
        let why = refused(sound(vec![(Token { lane: 0, seq: 1 }, write)])).expect("no genesis");
        assert!(why.contains("the log cannot be restored"), "{why}");
    }
}
