//! Replication on its own: two replicas of one shard write one key while they are apart, and lose neither write.
//!
//! Both values stand beside each other until a write that carries the context of a read replaces them. This driver
//! syncs its log within each step, so every promise may leave at once.

use continuum_core::api::{
    Change, Context, ContextKeys, Edit, Mutation, Query, Register, Secret, Strategy, Value,
};
use continuum_core::config::ReplicationConfig;
use continuum_core::id::{Boot, NamespaceId, NodeId, Replica, ShardId, StoreId};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::replication::{Action, Event, Message, Replicator, Restored, Write};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

const SHARD: ShardId = ShardId { namespace: NamespaceId(1), slot: 0 };

struct Host {
    machine: Replicator,
    log: Vec<(ShardId, Write)>,
}

fn replica(at: usize) -> Replica {
    Replica { node: NodeId([at as u8; 16]), store: StoreId([at as u8; 16]) }
}

/// Starts a process on what its log holds, and opens the shard.
fn start(at: usize, count: u64, log: Vec<(ShardId, Write)>) -> Host {
    let mut restored = Restored::default();
    log.iter().for_each(|(shard, write)| restored.apply(*shard, write.clone()));
    let (boot, config) = (Boot { count, nonce: 7 }, ReplicationConfig::default());
    let seed = Seed::from_number(at as u64);
    let machine = Replicator::new(replica(at), boot, config, &seed, restored).expect("our log");
    let mut host = Host { machine, log };
    let (namespace, strategy) = (SHARD.namespace, Strategy::LastWriterWins);
    // A federation agrees on the key that seals the contexts of its reads.
    step(&mut host, Event::Keys { keys: ContextKeys::new(Secret([1; 32])) });
    step(&mut host, Event::Open { namespace, slots: 1, strategy, discard: false });
    step(&mut host, Event::Peers { replicas: vec![replica(0), replica(1)] });
    host
}

/// One step and a sync of the log. Returns the messages that leave.
fn step(host: &mut Host, event: Event) -> Vec<Message> {
    let now = Now { mono: Instant::from_millis(1), wall: WallTime(1_700_000_000_000) };
    let (mut out, mut mail, before) = (Outbox::new(), Vec::new(), host.log.len());
    host.machine.step(now, event, &mut out);
    for action in out.drain() {
        match action {
            Action::Persist { shard, write } => host.log.push((shard, write)),
            Action::Send { message, .. } => mail.push(message),
            Action::Refused { reason, .. } => panic!("refused: {reason:?}"),
            _ => {}
        }
    }
    let synced = (host.log.len() > before).then_some(Event::Persisted { writes: u64::MAX });
    mail.extend(synced.into_iter().flat_map(|event| step(host, event)));
    mail
}

fn put(host: &mut Host, value: &'static str, context: Option<Context>) {
    let edit = Edit { field: "".into(), change: Change::Put(value.into()) };
    let mutation = Mutation { key: "sky".into(), edits: vec![edit], context };
    step(host, Event::Mutate { ticket: 1, shard: SHARD, mutation, replicas: 0 });
}

fn read(host: &Host) -> Register {
    let query = Query::Get { key: "sky".into(), field: "".into() };
    let Ok(Value::Register(register)) = host.machine.read(SHARD, &query) else { unreachable!() };
    register
}

/// Links the two, and delivers messages until neither has one to send.
fn connect(hosts: &mut [Host; 2]) {
    let mut mail = Vec::new();
    for at in [0, 1] {
        let event = Event::Connected { peer: replica(1 - at) };
        mail.extend(step(&mut hosts[at], event).into_iter().map(|message| (1 - at, message)));
    }
    while let Some((to, message)) = mail.pop() {
        let event = Event::Received { from: replica(1 - to), message };
        mail.extend(step(&mut hosts[to], event).into_iter().map(|message| (1 - to, message)));
    }
}

fn main() {
    let mut hosts = [0, 1].map(|at| start(at, 1, Vec::new()));
    put(&mut hosts[0], "blue", None);
    put(&mut hosts[1], "grey", None);
    connect(&mut hosts);
    let (here, there) = (read(&hosts[0]), read(&hosts[1]));
    println!("after the partition: {:?}", here.siblings);
    assert!(here.siblings.len() == 2 && here.siblings == there.siblings);
    put(&mut hosts[1], "blue-grey", Some(there.context));
    let restarted = start(1, 2, hosts[1].log.clone());
    println!("after a restart: {:?}", read(&restarted).value);
    assert_eq!(read(&restarted).value.as_deref(), Some(&b"blue-grey"[..]));
}

#[test]
fn runs() {
    main();
}
