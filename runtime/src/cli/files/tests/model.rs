//! The two ends of the tests of import and export: a whole node in memory, and a federation of replicas that makes
//! rows as several authors leave them.

use bytes::Bytes;
use continuum_core::api::{
    Change, Context, ContextKeys, Edit, Mutation, Outcome, Policy, Query, Request, Row, Secret,
    Strategy, Value,
};
use continuum_core::config::{Config, ReplicationConfig};
use continuum_core::id::{
    Address, Boot, FederationId, NamespaceId, NodeId, Replica, RequestId, ShardId, StoreId,
};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Event, Node, Start};
use continuum_core::replication::{self, Replicator};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

use crate::api::json::line;

fn now(ms: u64) -> Now {
    Now { mono: Instant::from_millis(ms), wall: WallTime(1_700_000_000_000 + ms) }
}

fn replica(at: u8) -> Replica {
    Replica { node: NodeId([at; 16]), store: StoreId([at; 16]) }
}

/// A federation of one node, whose disk is never late.
pub(super) struct Whole {
    node: Node,
    ms: u64,
}

impl Whole {
    /// A node with one namespace, `notes`.
    pub(super) fn new(policy: Policy) -> Self {
        let (config, seed) = (Config::default(), Seed::from_number(1));
        let start = Start {
            config,
            federation: FederationId([9; 16]),
            replica: replica(9),
            boot: Boot { count: 1, nonce: 1 },
            seed,
            name: String::new(),
            address: Address("host:7100".into()),
        };
        let node = Node::restore(start, Vec::new(), std::collections::BTreeMap::new());
        let mut whole = Self { node: node.expect("an empty log"), ms: 1 };
        whole.ask(Request::Init { voters: Vec::new() });
        let made =
            whole.ask(Request::CreateNamespace { name: "notes".into(), policy, session: None });
        assert!(matches!(made, Outcome::Committed { .. }), "{made:?}");
        whole
    }

    fn step(&mut self, event: Event) -> Vec<Outcome> {
        let (mut out, mut durable, mut answers) = (Outbox::new(), None, Vec::new());
        self.node.step(now(self.ms), event, &mut out);
        for action in out.drain() {
            match action {
                Action::Persist { token, .. } => durable = Some(token),
                Action::Reply { outcome, .. } => answers.push(outcome),
                _ => {}
            }
        }
        let durable = durable.map(|token| self.step(Event::Persisted { token }));
        answers.extend(durable.into_iter().flatten());
        answers
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, ms: u64) {
        self.ms += ms;
        self.step(Event::Tick);
    }

    /// Asks, and lets time pass until the answer is there.
    pub(super) fn ask(&mut self, request: Request) -> Outcome {
        let mut answers = self.step(Event::Requested { id: RequestId(self.ms), request });
        while answers.is_empty() {
            self.ms += 10;
            answers = self.step(Event::Tick);
        }
        answers.remove(0)
    }
}

/// One act of a client of the federation that rows come from.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// A write at a replica, which observes what that replica holds, or nothing.
    Write { at: u8, key: u8, field: u8, change: Change, blind: bool },
    /// All replicas get all writes.
    Meet,
}

/// Replicas of one namespace that meet now and then.
pub(super) struct Federation {
    slots: u16,
    hosts: Vec<Replicator>,
    ms: u64,
}

const NAMESPACE: NamespaceId = NamespaceId(7);

/// The key of this number. Some are not UTF-8, and some need an escape.
pub(super) fn key(number: u8) -> Bytes {
    match number % 3 {
        0 => format!("key {number}").into(),
        1 => vec![0xff, number].into(),
        _ => format!("\u{1b}\"{number}").into(),
    }
}

fn field(number: u8) -> Bytes {
    if number == 0 { Bytes::new() } else { format!("field {number}").into() }
}

impl Federation {
    pub(super) fn new(slots: u16, strategy: Strategy) -> Self {
        let start = |at: u8| {
            let boot = Boot { count: 1, nonce: at.into() };
            let (seed, config) = (Seed::from_number(at.into()), ReplicationConfig::default());
            let restored = replication::Restored::default();
            Replicator::new(replica(at), boot, config, &seed, restored).expect("an empty log")
        };
        let mut federation = Self { slots, hosts: (0..3).map(start).collect(), ms: 1 };
        for at in 0..3 {
            let keys = ContextKeys::new(Secret([1; 32]));
            let open =
                replication::Event::Open { namespace: NAMESPACE, slots, strategy, discard: false };
            let peers = replication::Event::Peers { replicas: (0..3).map(replica).collect() };
            for event in [replication::Event::Keys { keys }, open, peers] {
                federation.step(at, event);
            }
        }
        federation
    }

    fn step(&mut self, at: u8, event: replication::Event) -> Vec<(u8, u8, replication::Message)> {
        self.ms += 1;
        let (mut out, mut mail, mut wrote) = (Outbox::new(), Vec::new(), false);
        self.hosts[usize::from(at)].step(now(self.ms), event, &mut out);
        for action in out.drain() {
            match action {
                replication::Action::Persist { .. } => wrote = true,
                replication::Action::Send { to, message, .. } => {
                    mail.push((at, to.node.0[0], message));
                }
                _ => {}
            }
        }
        if wrote {
            mail.extend(self.step(at, replication::Event::Persisted { writes: u64::MAX }));
        }
        mail
    }

    pub(super) fn perform(&mut self, act: Act) {
        match act {
            Act::Write { at, key: number, field: name, change, blind } => {
                let key = key(number);
                let shard = Replicator::shard_for(NAMESPACE, self.slots, &key);
                let edits = vec![Edit { field: field(name), change }];
                let mutation = Mutation { key, edits, context: blind.then(Context::default) };
                let event = replication::Event::Mutate { ticket: 1, shard, mutation, replicas: 0 };
                // A write past a bound is refused, and nothing happens.
                self.step(at, event);
            }
            Act::Meet => self.meet(),
        }
    }

    /// Links all replicas, delivers messages until none is left, and parts them.
    fn meet(&mut self) {
        let mut mail = Vec::new();
        for (at, peer) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            mail.extend(self.step(at, replication::Event::Connected { peer: replica(peer) }));
        }
        while let Some((from, to, message)) = mail.pop() {
            let event = replication::Event::Received { from: replica(from), message };
            mail.extend(self.step(to, event));
        }
        for (at, peer) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            self.step(at, replication::Event::Unreachable { peer: replica(peer).node });
        }
    }

    /// The export of replica 0, after all have met.
    pub(super) fn export(&mut self) -> String {
        self.meet();
        let mut rows: Vec<Row> = Vec::new();
        for slot in 0..self.slots {
            let shard = ShardId { namespace: NAMESPACE, slot };
            let query = Query::Rows { after: None, limit: 1000 };
            match self.hosts[0].read(shard, &query) {
                Ok(Value::Rows { rows: found, more: false }) => rows.extend(found),
                other => panic!("{other:?}"),
            }
        }
        rows.sort_by(|one, other| one.key.cmp(&other.key));
        lines(&rows)
    }
}

/// Rows as an export has them.
pub(super) fn lines(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| String::from_utf8(line(row)).expect("JSON"));
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}
