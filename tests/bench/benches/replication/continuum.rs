//! Ours: `continuum_core::replication`.

use std::marker::PhantomData;

use bytes::Bytes;
use continuum_core::api::{Change, Edit, Mutation, Query, Strategy, Value};
use continuum_core::codec;
use continuum_core::config::ReplicationConfig;
use continuum_core::id::{Boot, NamespaceId, NodeId, Replica, ShardId, StoreId};
use continuum_core::limits::FRAME_BYTES_MAX;
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::replication::{Action, Event, Message, Replicator, Restored};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

use super::{Counter, KEYS, Kind, Pair, Register, Set, WRITES};
use super::{key, member, value, writes_of};

const NAMESPACE: NamespaceId = NamespaceId(1);
const SHARD: ShardId = ShardId { namespace: NAMESPACE, slot: 0 };

/// The change of each write, and the check of a key.
pub trait Work: Kind {
    fn change(write: usize) -> Change;
    fn check(replicator: &Replicator, at: usize);
}

pub struct Two<K> {
    replicators: Vec<Replicator>,
    /// Writes issued to each disk. All are durable, except the author's while it writes.
    issued: [u64; 2],
    /// Encoded messages to each replica.
    inboxes: [Vec<Bytes>; 2],
    wire_bytes: usize,
    accepted: usize,
    ms: u64,
    out: Outbox<Action>,
    kind: PhantomData<K>,
}

const fn replica(at: usize) -> Replica {
    Replica { node: NodeId([at as u8; 16]), store: StoreId([at as u8; 16]) }
}

fn replicator(at: usize) -> Replicator {
    let (boot, seed) = (Boot { count: 1, nonce: at as u64 }, Seed::from_number(at as u64));
    let config = ReplicationConfig::default();
    Replicator::new(replica(at), boot, config, &seed, Restored::default()).expect("an empty store")
}

impl<K: Work> Two<K> {
    fn step(&mut self, at: usize, event: Event) {
        let now = Now { mono: Instant::from_millis(self.ms), wall: WallTime(self.ms) };
        self.replicators[at].step(now, event, &mut self.out);
        for action in self.out.drain() {
            match action {
                Action::Persist { .. } => self.issued[at] += 1,
                // A promise waits for the disk. The disk is done before the other replica reads the message.
                Action::Send { message, .. } => {
                    let bytes = codec::encode(&message);
                    self.wire_bytes += bytes.len();
                    self.inboxes[1 - at].push(bytes);
                }
                Action::Accepted { .. } => self.accepted += 1,
                Action::Refused { reason, .. } => panic!("refused: {reason:?}"),
                Action::Rejected { why, .. } => panic!("rejected: {why}"),
                _ => {}
            }
        }
    }

    fn sync(&mut self, at: usize) {
        let writes = self.issued[at];
        self.step(at, Event::Persisted { writes });
    }

    fn connect(&mut self) {
        for at in 0..2 {
            self.step(at, Event::Connected { peer: replica(1 - at) });
        }
    }

    /// Delivers messages until none is in flight.
    fn settle(&mut self) {
        while let Some(at) = (0..2).find(|at| !self.inboxes[*at].is_empty()) {
            for bytes in std::mem::take(&mut self.inboxes[at]) {
                let message: Message = codec::decode(&bytes, FRAME_BYTES_MAX).expect("our bytes");
                self.step(at, Event::Received { from: replica(1 - at), message });
            }
            self.sync(at);
        }
    }

    fn equal(&self) -> bool {
        self.replicators[0].root(SHARD) == self.replicators[1].root(SHARD)
    }
}

impl<K: Work> Pair for Two<K> {
    fn new(linked: bool) -> Self {
        let mut two = Self {
            replicators: [0, 1].map(replicator).into(),
            issued: [0, 0],
            inboxes: [Vec::new(), Vec::new()],
            wire_bytes: 0,
            accepted: 0,
            ms: 1_000_000,
            out: Outbox::new(),
            kind: PhantomData,
        };
        for at in 0..2 {
            let strategy = Strategy::LastWriterWins;
            two.step(at, Event::Open { namespace: NAMESPACE, slots: 1, strategy, discard: false });
            two.step(at, Event::Peers { replicas: vec![replica(1 - at)] });
            two.sync(at);
        }
        if linked {
            two.connect();
            two.settle();
            two.wire_bytes = 0;
        }
        two
    }

    fn write(&mut self) {
        for write in 0..WRITES {
            let edits = vec![Edit { field: Bytes::new(), change: K::change(write) }];
            let key = Bytes::copy_from_slice(&key(write));
            let mutation = Mutation { key, edits, context: None };
            let ticket = write as u64;
            self.step(0, Event::Mutate { ticket, shard: SHARD, mutation, replicas: 0 });
        }
        assert_eq!(self.accepted, WRITES);
        assert!(self.inboxes[1].is_empty(), "a write leaves once it is durable");
    }

    fn deliver(&mut self) {
        self.sync(0);
        self.settle();
    }

    fn catch_up(&mut self) {
        // There is no link yet, so this pushes nothing.
        self.sync(0);
        self.connect();
        self.settle();
        for _ in 0..10 {
            if self.equal() {
                return;
            }
            self.ms += ReplicationConfig::default().anti_entropy_ms;
            (0..2).for_each(|at| self.step(at, Event::Tick));
            self.settle();
        }
    }

    fn wire_bytes(&self) -> usize {
        self.wire_bytes
    }

    fn check(&self, other_has: bool) {
        (0..KEYS).for_each(|at| K::check(&self.replicators[0], at));
        if other_has {
            assert!(self.equal());
            (0..KEYS).for_each(|at| K::check(&self.replicators[1], at));
        }
    }
}

fn read(replicator: &Replicator, query: &Query) -> Value {
    replicator.read(SHARD, query).expect("the shard is open")
}

impl Work for Register {
    fn change(write: usize) -> Change {
        Change::Put(Bytes::copy_from_slice(&value(write)))
    }

    fn check(replicator: &Replicator, at: usize) {
        let last = writes_of(at).next_back().expect("every key is written");
        let query = Query::Get { key: Bytes::copy_from_slice(&key(at)), field: Bytes::new() };
        let Value::Register(register) = read(replicator, &query) else { panic!("no register") };
        assert_eq!(register.value.as_deref(), Some(&value(last)[..]));
        assert!(register.siblings.len() <= 1);
    }
}

impl Work for Set {
    fn change(write: usize) -> Change {
        Change::Add(Bytes::copy_from_slice(&member(write)))
    }

    fn check(replicator: &Replicator, at: usize) {
        let query = Query::Members { key: Bytes::copy_from_slice(&key(at)), field: Bytes::new() };
        let Value::Set { members, .. } = read(replicator, &query) else { panic!("no set") };
        assert!(
            members
                .iter()
                .eq(writes_of(at).map(|write| member(write).to_vec()).collect::<Vec<_>>().iter())
        );
    }
}

impl Work for Counter {
    fn change(_: usize) -> Change {
        Change::Count(1)
    }

    fn check(replicator: &Replicator, at: usize) {
        let query = Query::Count { key: Bytes::copy_from_slice(&key(at)), field: Bytes::new() };
        assert_eq!(read(replicator, &query), Value::Counter((WRITES / KEYS) as i128));
    }
}
