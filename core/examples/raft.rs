//! Raft on its own: three replicas in one thread, each with a log and a durability gate.
//!
//! The driver has two duties: a promise waits until the writes before it are durable, and a restart folds the log back
//! into what the machine starts from.

use continuum_core::config::RaftConfig;
use continuum_core::hold::{DurabilityGate, Waits};
use continuum_core::id::{
    GenesisId, GroupId, Index, NodeId, Replica, Role, StoreId, Token, Writer,
};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::raft::{Action, Configuration, Event, Message, Payload, Raft, Restored, Write};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

const GROUP: GroupId = GroupId(1);
const WRITER: Writer = Writer::Group(GROUP);

type Letter = (usize, Replica, Message); // receiver, sender, message

struct Host {
    raft: Raft,
    log: Vec<Write>,
    gate: DurabilityGate<Letter>,
}

fn replica(at: usize) -> Replica {
    Replica { node: NodeId([at as u8; 16]), store: StoreId([at as u8; 16]) }
}

/// Starts a process on what its log holds; its first write is its boot record.
fn start(at: usize, log: Vec<Write>) -> Host {
    let mut restored = Restored::default();
    log.iter().for_each(|write| restored.apply(write.clone()).expect("our own log"));
    let (config, seed) = (RaftConfig::default(), Seed::from_number(at as u64));
    let mut gate = DurabilityGate::new(log.len() as u64);
    gate.issue(Writer::Node, false, 0);
    Host { raft: Raft::new(GROUP, replica(at), config, &seed, restored), log, gate }
}

fn step(host: &mut Host, ms: u64, event: Event, mail: &mut Vec<Letter>) {
    let mut out = Outbox::new();
    host.raft.step(Now { mono: Instant::from_millis(ms), wall: WallTime(ms) }, event, &mut out);
    for action in out.drain() {
        match action {
            Action::Persist { write } => {
                host.gate.issue(WRITER, true, write.payload_bytes());
                host.log.push(write);
            }
            Action::Send { to, message, promise } => {
                let token = if promise { host.gate.newest(WRITER) } else { host.gate.boot() };
                let letter = (usize::from(to.node.0[0]), host.raft.me(), message);
                mail.extend(host.gate.release_when_durable(token, letter, Waits::Droppable));
            }
            _ => {}
        }
    }
}

/// Lets time pass: clocks tick, disks sync, messages arrive.
fn run(hosts: &mut [Host], clock: &mut u64, ms: u64) {
    let mut mail = Vec::new();
    for _ in 0..ms {
        *clock += 1;
        for (to, from, message) in std::mem::take(&mut mail) {
            step(&mut hosts[to], *clock, Event::Received { from, message }, &mut mail);
        }
        for host in &mut *hosts {
            step(host, *clock, Event::Tick, &mut mail);
            let (synced, mut durable) = (Token { lane: 0, seq: host.gate.next() - 1 }, Vec::new());
            host.gate.persisted(synced, &mut durable, &mut mail);
            for known in durable.into_iter().filter(|known| known.writer == WRITER) {
                step(host, *clock, Event::Persisted { writes: known.writes }, &mut mail);
            }
        }
    }
}

fn main() {
    let configuration = Configuration { voters: [0, 1, 2].map(replica).into(), learners: vec![] };
    let log = vec![Write::Genesis { id: GenesisId(1), configuration }];
    let mut hosts = [0, 1, 2].map(|at| start(at, log.clone()));
    let mut clock = 0;
    run(&mut hosts, &mut clock, 3_000);
    let leader = hosts.iter().position(|h| h.raft.role() == Role::Leader).expect("a leader");
    let propose = Event::Propose { ticket: 1, command: "sky = blue".into() };
    step(&mut hosts[leader], clock, propose, &mut Vec::new());
    run(&mut hosts, &mut clock, 500);
    hosts[leader] = start(leader, hosts[leader].log.clone()); // it crashes and starts again
    run(&mut hosts, &mut clock, 3_000);
    for (at, Host { raft, .. }) in hosts.iter().enumerate() {
        let entry = raft.entry(Index(2)).expect("the entry after the first leader's no-op");
        println!("replica {at}: {:?} in term {}: {:?}", raft.role(), raft.term(), entry.payload);
        assert_eq!(entry.payload, Payload::Command("sky = blue".into()));
    }
}

#[test]
fn runs() {
    main();
}
