//! `node start`: runs a node with its API until SIGINT or SIGTERM.
//!
//! This module gives the node its files, listeners and seams; the driver runs it. Both listeners are opened before the
//! store, so that a busy port is reported without touching the store.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::args::{Layers, Start};
use super::exit::{self, Failure};
use super::{local, stop};
use crate::api::Api;
use crate::api::connections::Bounds;
use crate::api::origin::Hosts;
use crate::api::serve::serve;
use crate::clock::{Clock, SystemClock};
use crate::disk::{Content, FileDisk, OpenError, StoreOwner};
use crate::error::RunError;
use crate::metrics::Metrics;
use crate::run::{Inputs, judge, run};
use crate::settings::{ApiSettings, PeerSettings, Settings};
use crate::tls::{Credentials, CredentialsError, secret};
use crate::{handle, log};

/// Runs a node.
pub(super) fn start(start: &Start) -> Result<u8, Failure> {
    if let Some(parent) = start.parent {
        end_with(parent)?;
    }
    let ready = prepare(&start.layers);
    // The log must also say why the node ended, even if it never started.
    let said = log::begin(&local::gather(&start.layers).understood().log);
    let ready = ready.inspect_err(|failure| {
        if said.is_ok() {
            fatal(failure);
        }
    })?;
    said.map_err(|error| local::settings_failure(&error.into()))?;
    let layers = start.layers.clone();
    let stop = stop::signals_of_node(move || reload(&layers))?;
    super::wait(on_workers(ready, stop)).map(|()| 0).inspect_err(fatal)
}

/// Says in the log why the node ended.
fn fatal(failure: &Failure) {
    let Failure { what, why, hint, .. } = failure;
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    log::fatal(&failure.code, &format_args!("{what}{why}; hint: {hint}"));
}

/// Reads the settings again and takes their log filter. All other settings stay as they were at the start.
fn reload(layers: &Layers) {
    let read = local::gather(layers).checked();
    let taken = read.and_then(|settings| Ok(log::refilter(&settings.log)?));
    if let Err(error) = taken {
        log::warn("the settings cannot be read again", &error.to_string().replace('\n', ", "));
    }
}

/// All that a node needs before it opens a listener or its store.
pub(super) struct Ready {
    /// Valid settings.
    pub(super) settings: Settings,
    credentials: Credentials,
    acceptor: Option<Listener>,
    clock: Arc<dyn Clock>,
    /// Addresses on which a process listens already, with their keys. It may be this node.
    taken: Vec<(&'static str, SocketAddr)>,
}

/// The TLS of the API's listener, and when its certificate and the authority's end, in seconds since 1970.
type Listener = (TlsAcceptor, u64, u64);

/// Checks the settings, the files that they name and the addresses of the listeners. Accepts no connection and changes
/// nothing.
///
/// # Errors
///
/// All mistakes at once.
pub(super) fn prepare(layers: &Layers) -> Result<Ready, Failure> {
    let layered = local::gather(layers);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let valid = layered.checked().map_err(|errors| local::settings_failures(&errors));
    // The rest is judged also beside mistakes.
    let settings = layered.understood();
    let credentials = peer_credentials(&settings.peer, &clock);
    let acceptor = acceptor(&settings.api, &clock);
    let store = credentials.as_ref().ok().and_then(|found| unusable_store(settings, found));
    let taken = taken(settings);
    match (valid, credentials, acceptor, store, taken) {
        (Ok(settings), Ok(credentials), Ok(acceptor), None, Ok(taken)) => {
            Ok(Ready { settings, credentials, acceptor, clock, taken })
        }
        (valid, credentials, acceptor, store, taken) => {
            let store = store.map(|failure| vec![failure]);
            let all = [valid.err(), credentials.err(), acceptor.err(), store, taken.err()];
            Err(Failure::of_all(all.into_iter().flatten().flatten()))
        }
    }
}

impl Ready {
    /// Reads the store too. Returns what only a start can find out.
    ///
    /// # Errors
    ///
    /// Why a node would not start.
    pub(super) fn judge_store(&self) -> Result<Vec<String>, Failure> {
        let (settings, credentials) = (&self.settings, &self.credentials);
        let node = credentials.node().map_err(|error| refused("peer.cert", &error))?;
        let owner = StoreOwner { federation: credentials.federation(), node };
        let content = FileDisk::look(&settings.data, owner).map_err(|e| failed(&e.into()))?;
        let taken = self.taken.iter();
        let mut open: Vec<String> = taken
            .map(|(key, address)| format!("{key}: a process listens on {address} now"))
            .collect();
        if matches!(content, Content::InUse) {
            let data = settings.data.display();
            open.push(format!("data: a process uses {data} now, so its log was not read"));
        }
        judge(settings, owner, content).map_err(|error| failed(&error))?;
        Ok(open)
    }
}

/// Refuses addresses on which this machine cannot listen, and returns those on which a process does.
fn taken(settings: &Settings) -> Result<Vec<(&'static str, SocketAddr)>, Vec<Failure>> {
    let (peer, api) = (settings.peer.listen, settings.api.listen);
    let peers = can_bind(peer).map_err(|error| failed(&RunError::Listen { address: peer, error }));
    let clients = can_bind(api).map_err(|error| unheard(api, &error));
    match (peers, clients) {
        (Ok(peers), Ok(clients)) => {
            let all = [("peer.listen", peer, peers), ("api.listen", api, clients)];
            let taken = all.into_iter().filter(|(_, _, is_free)| !is_free);
            Ok(taken.map(|(key, address, _)| (key, address)).collect())
        }
        (peers, clients) => Err(peers.err().into_iter().chain(clients.err()).collect()),
    }
}

/// Whether nobody listens on an address. It is bound as a listener binds it, but never listens, so that a node that
/// starts at the same time is not disturbed.
fn can_bind(address: SocketAddr) -> io::Result<bool> {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match bind(&socket, &address) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::ADDRINUSE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Runs the node on the runtime's workers, beside its links and clients, so that passing work between them mostly wakes
/// no other thread.
async fn on_workers(ready: Ready, stop: watch::Receiver<bool>) -> Result<(), Failure> {
    match tokio::spawn(node(ready, stop)).await {
        Ok(ran) => ran,
        // A broken invariant ends the process, as it would on the main thread.
        Err(broken) => panic!("the node's task broke: {broken}"),
    }
}

async fn node(ready: Ready, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let Ready { settings, credentials, acceptor, clock, .. } = ready;
    let listener = listen(&settings.api).await?;
    let metrics = Arc::new(Metrics::new());
    let acceptor = acceptor.map(|(acceptor, ends_s, authority_ends_s)| {
        metrics.certificate_expires("api", ends_s, authority_ends_s);
        acceptor
    });
    let (handle, commands) = handle::channel();
    let api = Arc::new(Api::new(handle, Arc::clone(&metrics), hosts(&settings.api)));
    let (end, ended) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, acceptor, api, bounds(&settings.api), ended));
    let inputs = Inputs::of_machine(settings, credentials, clock, (commands, metrics));
    let stopping = async move {
        // An error means that no signal can arrive any more, so the node stops too.
        drop(stop.wait_for(|stop| *stop).await);
    };
    let ran = run(inputs, stopping).await;
    // The last answers are sent before the process ends.
    end.send_replace(true);
    drop(serving.await);
    ran.map(|_| ()).map_err(|error| failed(&error))
}

/// The peers' credentials, if a node can use them.
fn peer_credentials(
    peer: &PeerSettings,
    clock: &Arc<dyn Clock>,
) -> Result<Credentials, Vec<Failure>> {
    let credentials = load("peer", &peer.ca, &peer.cert, &peer.key)?;
    let usable = credentials
        .check(clock.as_ref())
        .and_then(|()| credentials.node())
        .and_then(|_| credentials.peer_server(Arc::clone(clock)))
        .and_then(|_| credentials.peer_client(Arc::clone(clock)));
    usable.map(|_| ()).map_err(|error| vec![refused("peer.cert", &error)])?;
    Ok(credentials)
}

/// The TLS of the API, if it is set.
fn acceptor(api: &ApiSettings, clock: &Arc<dyn Clock>) -> Result<Option<Listener>, Vec<Failure>> {
    let Some(files) = &api.tls else { return Ok(None) };
    let credentials = load("api.tls", &files.ca, &files.cert, &files.key)?;
    let config = credentials
        .node()
        // Else each client would find out by itself that the certificate has expired.
        .and_then(|_| credentials.check(clock.as_ref()))
        .and_then(|()| credentials.api_server(Arc::clone(clock)));
    config
        .map(|config| {
            let ends = (credentials.ends_s(), credentials.authority_ends_s());
            Some((TlsAcceptor::from(config), ends.0, ends.1))
        })
        .map_err(|error| vec![refused("api.tls.cert", &error)])
}

/// Loads the credentials of a section. Each file that cannot be read is a failure of its own; one that is not set is
/// none here.
fn load(section: &str, ca: &Path, cert: &Path, key: &Path) -> Result<Credentials, Vec<Failure>> {
    let read = [
        ("ca", ca, Credentials::read(ca).err()),
        ("cert", cert, Credentials::read(cert).err()),
        ("key", key, secret::read(key).err().map(CredentialsError::from)),
    ];
    let unset = read.iter().any(|(_, path, _)| path.as_os_str().is_empty());
    let set = read.iter().filter(|(_, path, _)| !path.as_os_str().is_empty());
    let unread: Vec<Failure> = set
        .filter_map(|(name, _, error)| Some(refused(&format!("{section}.{name}"), error.as_ref()?)))
        .collect();
    if unset || !unread.is_empty() {
        return Err(unread);
    }
    Credentials::load(ca, cert, key).map_err(|error| vec![refused(section, &error)])
}

/// Why the data directory cannot be this node's.
fn unusable_store(settings: &Settings, credentials: &Credentials) -> Option<Failure> {
    let owner = StoreOwner { federation: credentials.federation(), node: credentials.node().ok()? };
    let path = Some(&settings.data).filter(|path| !path.as_os_str().is_empty())?;
    FileDisk::check(path, owner).err().map(|error| failed(&error.into()))
}

/// The hosts for which the API's listener answers.
fn hosts(api: &ApiSettings) -> Hosts {
    if api.tls.is_some() { Hosts::Any } else { Hosts::Local(api.hosts.clone()) }
}

/// The bounds on the API's connections. A process mostly begins with far fewer file descriptors than it may have.
fn bounds(api: &ApiSettings) -> Bounds {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without them connections are refused earlier.
    let _ = setrlimit(Resource::Nofile, limit);
    Bounds { all: api.connections_max, of_address: api.connections_of_address_max }
}

async fn listen(api: &ApiSettings) -> Result<TcpListener, Failure> {
    TcpListener::bind(api.listen).await.map_err(|error| unheard(api.listen, &error))
}

fn unheard(address: SocketAddr, error: &io::Error) -> Failure {
    let hint = "stop the process that uses it, or set api.listen";
    Failure::local(format!("cannot listen for clients on {address}"), error, hint)
}

/// The failure of the files that a setting names.
fn refused(key: &str, error: &CredentialsError) -> Failure {
    local::credentials_failure(error, &format_args!("{key}: {error}"))
}

fn failed(error: &RunError) -> Failure {
    let (exit, code) = match error {
        RunError::Settings(_) => (exit::USAGE, "settings"),
        RunError::Credentials(_) => (exit::REFUSED, "credentials"),
        RunError::Listen { .. } => (exit::LOCAL, "listen"),
        RunError::Open(OpenError::Foreign { .. }) => (exit::MISMATCH, "foreign_store"),
        RunError::Open(OpenError::Condemned { .. }) => (exit::CONFLICT, "fenced"),
        RunError::Open(_) => (exit::LOCAL, "store"),
        RunError::Restore(_) => (exit::LOCAL, "restore"),
        RunError::StorageFailed { .. } => (exit::LOCAL, "storage_failed"),
        // Not the code of a failed disk: a supervisor must not restart a second process of the same identity.
        RunError::Fenced { .. } | RunError::Condemned { .. } => (exit::CONFLICT, "fenced"),
    };
    local::failure(exit, code, error)
}

/// Ends this process together with its parent; at once if the parent is gone already.
fn end_with(parent: u32) -> Result<(), Failure> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let set = set_parent_process_death_signal(Some(Signal::TERM));
    set.map_err(|error| {
        Failure::local("the parent cannot be watched", &error.into(), "leave --parent out")
    })?;
    let found = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if found != Some(parent) {
        let hint = "leave --parent out: only `continuum dev` uses it";
        return Err(Failure::usage("the parent process is gone", "", hint));
    }
    Ok(())
}
