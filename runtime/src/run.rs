//! From settings and seams to a running node.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use continuum_core::id::{Address, Boot, FederationId, Replica, StoreId};
use continuum_core::node::{Node, Start, last_boot};
use continuum_core::seed::Seed;
use continuum_core::wal::Torn;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::disk::{Disk, Holder, Opened};
use crate::driver::{Driver, Observer};
use crate::error::{RunError, Stopped};
use crate::handle::Asks;
use crate::link::{Limits, Links, Myself, Tls};
use crate::log;
use crate::metrics::Metrics;
use crate::resolve::Resolver;
use crate::settings::Settings;
use crate::tls::Credentials;

/// Everything that a node is given. What reads the world (disk, clock, names, chance) is a seam.
pub struct Inputs<D, R> {
    /// What the operator set; validated here.
    pub settings: Settings,
    /// The node's certificate: who it is.
    pub credentials: Credentials,
    /// The root of all chance of this process life; fresh in production.
    pub seed: Seed,
    /// Where its store is.
    pub disk: D,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Names.
    pub resolver: R,
    /// Questions of clients; see [`crate::handle::channel`].
    pub asks: Asks,
    /// Figures; shared with whoever renders them.
    pub metrics: Arc<Metrics>,
    /// Bounds of the peers' listener.
    pub limits: Limits,
    /// Told once, when the node takes part.
    pub started: Option<oneshot::Sender<Started>>,
    /// Sees all events and actions; for tests.
    pub observer: Option<Box<dyn Observer>>,
}

/// What a node is once it takes part.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// The federation of its certificate.
    pub federation: FederationId,
    /// Who it is and on which disk.
    pub replica: Replica,
    /// Which life of it.
    pub boot: Boot,
    /// Where it accepts peers.
    pub peers: SocketAddr,
    /// What was cut from its log.
    pub torn: Option<Torn>,
}

/// Runs one node until `stop` resolves.
///
/// # Errors
///
/// [`RunError`]. Nothing of the store is lost by any of them.
pub async fn run<D: Disk, R: Resolver>(
    inputs: Inputs<D, R>,
    stop: impl Future<Output = ()>,
) -> Result<Stopped, RunError> {
    let Inputs { settings, credentials, seed, mut disk, clock, .. } = inputs;
    settings.validate()?;
    credentials.check(clock.as_ref())?;
    let holder = Holder { federation: credentials.federation(), node: credentials.node()? };
    let tls = Tls {
        server: credentials.peer_server(Arc::clone(&clock))?,
        client: credentials.peer_client(Arc::clone(&clock))?,
    };
    inputs.metrics.certificate_expires(credentials.ends_s());
    let (listener, peers) = listen(settings.peer.listen).await?;
    let opened = disk.open(holder, fresh_store(&seed))?;
    let me = myself(holder, &opened, &seed);
    let Opened { writes, snapshots, torn, done, .. } = opened;
    let replica = Replica { node: me.node, store: me.store };
    let start = Start {
        config: settings.core.clone(),
        federation: me.federation,
        replica,
        boot: me.boot,
        seed,
        name: name(&settings, me),
        address: Address(settings.peer.advertise.unwrap_or_else(|| peers.to_string())),
    };
    let node = Node::restore(start, writes, snapshots)?;
    let jitter = seed.derive("runtime.link", 0);
    let metrics = inputs.metrics;
    let links = Links::start(me, listener, tls, inputs.limits, Arc::clone(&metrics), jitter);
    let started = Started { federation: me.federation, replica, boot: me.boot, peers, torn };
    if torn.is_some() {
        metrics.torn();
    }
    announce(inputs.started, started);
    let driver = Driver {
        node,
        links,
        disk,
        done,
        asks: inputs.asks,
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

fn myself(holder: Holder, opened: &Opened, seed: &Seed) -> Myself {
    let count = last_boot(&opened.writes).map_or(1, |boot| boot.count + 1);
    let nonce = seed.derive("runtime.boot", count).draw();
    let Holder { federation, node } = holder;
    Myself { federation, node, store: opened.store, boot: Boot { count, nonce } }
}

/// The operator's name, or the first digits of the node's id.
fn name(settings: &Settings, me: Myself) -> String {
    if settings.name.is_empty() {
        return me.node.to_string().chars().take(8).collect();
    }
    settings.name.clone()
}

fn announce(to: Option<oneshot::Sender<Started>>, started: Started) {
    let Started { federation, replica, boot, peers, torn } = started;
    if let Some(torn) = torn {
        let detail = format!("segment {} at byte {}: {:?}", torn.segment, torn.offset, torn.what);
        log::warn_of("cut the unfinished end of the log", &detail);
    }
    let detail = format!(
        "node {} of federation {federation}, store {}, boot {}, peers on {peers}",
        replica.node, replica.store, boot.count
    );
    log::tell("started", &detail);
    if let Some(to) = to {
        // Whoever asked to be told may have gone away.
        let _ = to.send(started);
    }
}
