//! Three nodes in one process, with real files, TLS and loopback: they form a federation, agree, and survive a stop.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use continuum_core::api::{Outcome, Policy, Request, Strategy};
use continuum_core::id::{Address, NodeId};
use continuum_core::wal::RecoverError;
use continuum_runtime::clock::{Clock, SystemClock};
use continuum_runtime::disk::{FileDisk, OpenError};
use continuum_runtime::handle::{self, Handle};
use continuum_runtime::metrics::Metrics;
use continuum_runtime::resolve::SystemResolver;
use continuum_runtime::settings::Settings;
use continuum_runtime::tls::Credentials;
use continuum_runtime::tls::pki::{Authority, ISSUED_VALID, Validity};
use continuum_runtime::{Inputs, RunError, Started, Stopped, run};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use common::{PATIENCE, Patient};

struct Running {
    handle: Handle,
    started: Started,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Stopped, RunError>>,
}

/// A port of loopback that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn authority() -> Authority {
    Authority::mint(Validity::starting(SystemClock.now().wall, ISSUED_VALID)).unwrap()
}

fn settings(data: &Path, listen: SocketAddr, bootstrap: &[SocketAddr]) -> Settings {
    let mut settings = Settings { data: data.to_owned(), ..Settings::default() };
    settings.peer.listen = listen;
    settings.peer.bootstrap = bootstrap.iter().map(ToString::to_string).collect();
    // The credentials are passed directly, so no file is read.
    for path in [&mut settings.peer.ca, &mut settings.peer.cert, &mut settings.peer.key] {
        *path = "given".into();
    }
    settings
}

fn inputs(
    authority: &Authority,
    node: u8,
    settings: Settings,
) -> (Inputs<FileDisk, SystemResolver>, Handle, oneshot::Receiver<Started>) {
    let validity = Validity::starting(SystemClock.now().wall, ISSUED_VALID);
    let issued = authority.issue_node(NodeId([node; 16]), &[], validity).unwrap();
    let credentials = Credentials::from_pem(
        authority.certificate().as_bytes(),
        issued.certificate.as_bytes(),
        issued.key.as_bytes(),
    );
    let (handle, commands) = handle::channel();
    let (tell, told) = oneshot::channel();
    let metrics = Arc::new(Metrics::new());
    let disk = FileDisk::new(settings.data.clone(), 1 << 20);
    let inputs = Inputs::of_machine(
        settings,
        credentials.unwrap(),
        Arc::new(SystemClock),
        (commands, metrics),
    );
    let inputs = Inputs { disk, started: Some(tell), ..inputs };
    (inputs, handle, told)
}

async fn start(authority: &Authority, node: u8, settings: Settings) -> Running {
    let (inputs, handle, told) = inputs(authority, node, settings);
    let metrics = Arc::clone(&inputs.metrics);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(run(inputs, async {
        let _ = stopped.await;
    }));
    let started = timeout(PATIENCE, told).await.unwrap().expect("the node starts");
    Running { handle, started, metrics, stop, task }
}

/// The error of a node that does not start.
async fn refused(authority: &Authority, node: u8, settings: Settings) -> RunError {
    let (inputs, _handle, _told) = inputs(authority, node, settings);
    let ended = timeout(PATIENCE, run(inputs, std::future::pending())).await.unwrap();
    ended.expect_err("the node must not start")
}

impl Running {
    async fn stop(self) -> Stopped {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap()
    }
}

impl Patient for Running {
    async fn ask_once(&self, request: &Request) -> Option<Outcome> {
        Some(self.handle.request(request.clone()).await.unwrap())
    }

    async fn pause(&self) {
        tokio::task::yield_now().await;
    }
}

const EVENTUAL: Policy =
    Policy::Eventual { strategy: Strategy::LastWriterWins, slots: 1, discard: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_federation_and_a_stopped_one_returns() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    let addresses = [free(), free(), free()];
    let mut nodes = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let settings = settings(&dir.path().join(at.to_string()), *address, &addresses);
        nodes.push(start(&authority, 1 + at as u8, settings).await);
    }
    let voters = addresses[1..].iter().map(|address| Address(address.to_string())).collect();
    nodes[0].create_federation(voters).await;
    nodes[1].create("locks", Policy::Strong).await;
    nodes[2].create("notes", EVENTUAL).await;
    nodes[0].put("locks", "a", "1").await;
    assert_eq!(nodes[1].get("locks", "a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(nodes[2].get("locks", "a").await.as_deref(), Some(&b"1"[..]));
    nodes[1].put("notes", "b", "2").await;
    for node in &nodes {
        node.sees("notes", "b", "2").await;
    }
    assert!(nodes[0].metrics.render().contains("continuum_peers_connected 2"));

    // One node stops. The others continue, and it catches up after its return.
    let third = nodes.pop().unwrap();
    let before = third.stop().await.boot;
    nodes[0].put("locks", "a", "3").await;
    nodes[0].put("notes", "c", "4").await;
    let settings = settings(&dir.path().join("2"), addresses[2], &addresses);
    let third = start(&authority, 3, settings).await;
    assert_eq!(third.started.boot.count, before.count + 1);
    assert_eq!(third.get("locks", "a").await.as_deref(), Some(&b"3"[..]));
    third.sees("notes", "c", "4").await;
    nodes.push(third);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_start_has_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    let data = dir.path().join("data");
    let at = |listen| settings(&data, listen, &[]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = refused(&authority, 1, at(taken.local_addr().unwrap())).await;
    assert!(matches!(busy, RunError::Listen { .. }), "{busy}");
    assert!(!data.exists(), "a busy port is found before anything is written");

    let node = start(&authority, 1, at(free())).await;
    let locked = refused(&authority, 1, at(free())).await;
    assert!(matches!(locked, RunError::Open(OpenError::Locked { .. })), "{locked}");
    node.stop().await;

    let foreign = refused(&authority, 2, at(free())).await;
    assert!(matches!(foreign, RunError::Open(OpenError::Foreign { .. })), "{foreign}");
    let foreign = refused(&self::authority(), 1, at(free())).await;
    assert!(matches!(foreign, RunError::Open(OpenError::Foreign { .. })), "{foreign}");

    let segment = data.join("lane-0/0000000000000001.log");
    let sound = std::fs::read(&segment).unwrap();
    let mut rotten = sound.clone();
    rotten[4096 + 40] ^= 0x10;
    std::fs::write(&segment, &rotten).unwrap();
    let rot = refused(&authority, 1, at(free())).await;
    let RunError::Open(OpenError::Log { error, .. }) = rot else { panic!("{rot}") };
    assert!(matches!(*error, RecoverError::Rot { segment: 1, offset: 4096 }), "{error}");

    std::fs::write(&segment, &sound).unwrap();
    start(&authority, 1, at(free())).await.stop().await;
}
