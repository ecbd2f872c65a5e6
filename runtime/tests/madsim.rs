//! The production driver, unchanged, on a simulated network: three nodes with TLS on, a partition and a kill.
//!
//! It covers what the pure simulator cannot: handshakes, half-written frames at a kill, reconnects, bounded queues.
//! Each scenario runs in a process of its own, twice for each seed, and both runs must see the same events and actions.
//! Keys and the bytes on the wire differ between the two runs, so the core must not depend on them.
#![cfg(madsim)]

mod common;

use std::env;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use continuum_core::api::{Outcome, Policy, Request, Strategy};
use continuum_core::digest::Hasher;
use continuum_core::id::{Address, FederationId, NodeId};
use continuum_core::machine::Now;
use continuum_core::node::{Action, Event};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant as Mono, WallTime};
use continuum_runtime::Observer;
use continuum_runtime::clock::Clock;
use continuum_runtime::disk::MemDisk;
use continuum_runtime::handle::{self, Handle};
use continuum_runtime::link::Limits;
use continuum_runtime::metrics::Metrics;
use continuum_runtime::resolve::SystemResolver;
use continuum_runtime::settings::Settings;
use continuum_runtime::tls::Credentials;
use continuum_runtime::tls::pki::{Authority, ISSUED_VALID, Issued, Validity};
use continuum_runtime::{Inputs, run};
use madsim::net::NetSim;
use madsim::runtime::{Handle as World, NodeHandle, Runtime};
use madsim::time::sleep;

use common::Patient;

/// Passes the seed to the process that runs the scenario.
const SEED: &str = "CONTINUUM_MADSIM_SEED";
/// The wall time at the start, whatever madsim's own calendar says: certificates are checked against it.
const EPOCH_MS: u64 = 1_700_000_000_000;
const FEDERATION: FederationId = FederationId([0xfe; 16]);
const NODES: u8 = 3;

/// The simulated time, the same for all nodes.
#[derive(Clone, Copy, Debug)]
struct VirtualClock {
    began: Instant,
}

impl Clock for VirtualClock {
    fn now(&self) -> Now {
        let passed = self.began.elapsed();
        // A machine has been up for a second when its node starts.
        let mono = Mono::from_millis(1000) + passed;
        Now { mono, wall: WallTime(EPOCH_MS + passed.as_millis() as u64) }
    }
}

/// All events and actions of all nodes, in order.
#[derive(Clone, Default)]
struct Trace {
    hash: Arc<Mutex<(Hasher, u64)>>,
}

struct Watch {
    node: u8,
    trace: Trace,
}

impl Trace {
    fn add(&self, text: &str) {
        let mut hash = self.hash.lock().unwrap();
        hash.0.bytes(text.as_bytes());
        hash.1 += 1;
        if env::var_os("CONTINUUM_MADSIM_TRACE").is_some() {
            println!("{text}");
        }
    }
}

impl Observer for Watch {
    fn event(&mut self, now: Now, event: &Event) {
        self.trace.add(&format!("{} {} {event:?}", self.node, now.mono));
    }

    fn actions(&mut self, actions: &[Action]) {
        for action in actions {
            self.trace.add(&format!("{} {action:?}", self.node));
        }
    }
}

/// The state of one node that survives its kills.
#[derive(Clone)]
struct Machine {
    node: u8,
    seed: u64,
    disk: MemDisk,
    authority: Arc<str>,
    issued: Issued,
    clock: VirtualClock,
    trace: Trace,
    process: Arc<Mutex<u64>>,
    handle: Arc<Mutex<Option<Handle>>>,
}

fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 7400))
}

fn settings(node: u8) -> Settings {
    let mut settings = Settings { data: "memory".into(), ..Settings::default() };
    settings.peer.listen = address(node);
    settings.peer.bootstrap = (1..=NODES).map(|node| address(node).to_string()).collect();
    for path in [&mut settings.peer.ca, &mut settings.peer.cert, &mut settings.peer.key] {
        *path = "given".into();
    }
    settings
}

impl Machine {
    /// Runs one process of the node.
    async fn live(self) {
        let process = {
            let mut process = self.process.lock().unwrap();
            *process += 1;
            *process
        };
        let credentials = Credentials::from_pem(
            self.authority.as_bytes(),
            self.issued.certificate.as_bytes(),
            self.issued.key.as_bytes(),
        );
        let (handle, commands) = handle::channel();
        *self.handle.lock().unwrap() = Some(handle);
        let inputs = Inputs {
            settings: settings(self.node),
            credentials: credentials.unwrap(),
            seed: Seed::from_number(self.seed << 16 | u64::from(self.node) << 8 | process),
            disk: self.disk.clone(),
            clock: Arc::new(self.clock),
            resolver: SystemResolver,
            commands,
            metrics: Arc::new(Metrics::new()),
            limits: Limits::default(),
            started: None,
            observer: Some(Box::new(Watch { node: self.node, trace: self.trace.clone() })),
        };
        run(inputs, std::future::pending()).await.expect("the node runs until it is killed");
    }

    fn handle(&self) -> Option<Handle> {
        self.handle.lock().unwrap().clone()
    }
}

impl Patient for Machine {
    async fn ask_once(&self, request: &Request) -> Option<Outcome> {
        self.handle()?.request(request.clone()).await.ok()
    }

    async fn pause(&self) {
        sleep(Duration::from_millis(20)).await;
    }
}

/// The machines of one world, each running its node.
fn build(seed: u64, trace: &Trace) -> Vec<(Machine, NodeHandle)> {
    let valid = Validity::starting(WallTime(EPOCH_MS), ISSUED_VALID);
    let authority = Authority::mint_for(FEDERATION, valid).unwrap();
    let clock = VirtualClock { began: Instant::now() };
    let world = World::current();
    let machine = |node: u8| {
        let issued = authority.issue_node(NodeId([node; 16]), &[], valid).unwrap();
        let machine = Machine {
            node,
            seed,
            disk: MemDisk::new(),
            authority: authority.certificate().into(),
            issued,
            clock,
            trace: trace.clone(),
            process: Arc::default(),
            handle: Arc::default(),
        };
        let living = machine.clone();
        let handle = world
            .create_node()
            .name(format!("n{node}"))
            .ip(IpAddr::from([10, 0, 0, node]))
            .init(move || living.clone().live())
            .build();
        (machine, handle)
    };
    (1..=NODES).map(machine).collect()
}

/// Creates a federation and reads on one node what another wrote. Cuts one node off and lets it return; kills another
/// and restarts it on its disk.
async fn scenario(seed: u64) -> String {
    let trace = Trace::default();
    let world = World::current();
    let machines = build(seed, &trace);
    let [(one, _), (two, two_host), (three, three_host)] = &machines[..] else { unreachable!() };

    let voters = [2, 3].map(|node| Address(address(node).to_string())).to_vec();
    one.create_federation(voters).await;
    two.create("locks", Policy::Strong).await;
    let strategy = Strategy::LastWriterWins;
    three.create("notes", Policy::Eventual { strategy, slots: 1, discard: false }).await;
    one.put("locks", "a", "1").await;
    assert_eq!(two.get("locks", "a").await.as_deref(), Some(&b"1"[..]));
    three.put("notes", "b", "2").await;
    one.sees("notes", "b", "2").await;

    // While it is cut off, the third node accepts eventual writes, and the others agree without it.
    let net = NetSim::current();
    net.clog_node(three_host.id());
    three.put("notes", "cut", "off").await;
    one.put("locks", "a", "2").await;
    sleep(Duration::from_secs(8)).await;
    net.unclog_node(three_host.id());
    one.sees("notes", "cut", "off").await;
    assert_eq!(three.get("locks", "a").await.as_deref(), Some(&b"2"[..]));

    // The second node is killed and returns on its own disk as another process.
    two.put("notes", "before", "kill").await;
    world.kill(two_host.id());
    one.put("locks", "a", "3").await;
    sleep(Duration::from_secs(2)).await;
    world.restart(two_host.id());
    assert_eq!(two.get("locks", "a").await.as_deref(), Some(&b"3"[..]));
    two.sees("notes", "before", "kill").await;
    three.sees("notes", "before", "kill").await;
    assert_eq!(*two.process.lock().unwrap(), 2);

    let hash = trace.hash.lock().unwrap();
    format!("trace {} of {} lines", hash.0.clone().finish(), hash.1)
}

/// Runs a scenario if the environment holds a seed, as in the processes that the other test starts. Passes otherwise.
#[test]
fn run_one_seed() {
    let Ok(seed) = env::var(SEED) else { return };
    let seed = seed.parse().expect("a number");
    let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    println!("{}", runtime.block_on(scenario(seed)));
}

/// The line with `trace` that a process with this seed prints.
fn trace_of(seed: u64) -> String {
    let program = env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", "run_one_seed", "--nocapture"])
        .env(SEED, seed.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "seed {seed}:\n{text}\n{errors}");
    let line = text.lines().find_map(|line| line.find("trace ").map(|at| line[at..].to_owned()));
    line.unwrap_or_else(|| panic!("seed {seed} printed no trace:\n{text}"))
}

#[test]
fn a_seed_gives_the_same_trace_in_two_processes() {
    let mut traces = Vec::new();
    for seed in 1..=3 {
        let first = trace_of(seed);
        assert_eq!(first, trace_of(seed), "seed {seed}");
        println!("seed {seed}: {first}");
        traces.push(first);
    }
    traces.dedup();
    assert_eq!(traces.len(), 3, "seeds differ");
}
