//! Many shards on two replicas: what quiet ones cost, and how a difference among them is found.

use std::collections::{BTreeMap, VecDeque};

use continuum_core::api::Strategy;
use continuum_core::config::ReplicationConfig;
use continuum_core::id::{Boot, NamespaceId, ShardId};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::replication::{Action, Event, Message, Replicator, Restored, Summary};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

use super::{keys, put, replica};

/// Slots of each namespace.
const SLOTS: u16 = 256;

/// Two replicas that are linked, or not.
struct Pair {
    machines: [Replicator; 2],
    issued: [u64; 2],
    ms: u64,
    linked: bool,
    wire: VecDeque<(usize, Message)>,
    /// Messages sent so far.
    sent: u64,
    /// The most roots in one message.
    roots: usize,
}

impl Pair {
    /// Two replicas that open this many namespaces, without a link.
    fn new(namespaces: u32) -> Self {
        let machine = |at: usize| {
            let (boot, seed) = (Boot { count: 1, nonce: at as u64 }, Seed::from_number(at as u64));
            let config = ReplicationConfig::default();
            Replicator::new(replica(at), boot, config, &seed, Restored::default()).expect("empty")
        };
        let mut pair = Self {
            machines: [0, 1].map(machine),
            issued: [0; 2],
            ms: 1_000_000,
            linked: false,
            wire: VecDeque::new(),
            sent: 0,
            roots: 0,
        };
        for at in 0..2 {
            pair.step(at, Event::Keys { keys: keys() });
            pair.step(at, Event::Peers { replicas: [0, 1].map(replica).into() });
            for namespace in (1..=namespaces).map(NamespaceId) {
                let strategy = Strategy::LastWriterWins;
                pair.step(at, Event::Open { namespace, slots: SLOTS, strategy, discard: false });
            }
        }
        pair
    }

    fn step(&mut self, at: usize, event: Event) {
        let mono = Instant::from_millis(self.ms);
        let mut out = Outbox::new();
        self.machines[at].step(Now { mono, wall: WallTime(self.ms) }, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Persist { .. } => self.issued[at] += 1,
                Action::Send { message, .. } if self.linked => {
                    if let Message::Summary(Summary::Roots(roots)) = &message {
                        self.roots = self.roots.max(roots.len());
                    }
                    self.sent += 1;
                    self.wire.push_back((1 - at, message));
                }
                _ => {}
            }
        }
    }

    fn link(&mut self) {
        self.linked = true;
        (0..2).for_each(|at| self.step(at, Event::Connected { peer: replica(1 - at) }));
    }

    /// Lets time pass. Messages take no time, and every write is durable at once.
    fn run(&mut self, for_ms: u64) {
        let until = self.ms + for_ms;
        loop {
            while let Some((to, message)) = self.wire.pop_front() {
                self.step(to, Event::Received { from: replica(1 - to), message });
            }
            for at in 0..2 {
                let writes = self.issued[at];
                self.step(at, Event::Persisted { writes });
            }
            if self.wire.is_empty() {
                let due = self.machines.iter().filter_map(Machine::deadline).min();
                let due = due.map_or(until, |due| due.as_millis() + 1);
                if due.max(self.ms) >= until {
                    self.ms = until;
                    return;
                }
                self.ms = due.max(self.ms);
                (0..2).for_each(|at| self.step(at, Event::Tick));
            }
        }
    }

    /// Writes one key into a shard.
    fn write(&mut self, at: usize, shard: ShardId) {
        let mut keys = (0..).map(|number| format!("key{number}"));
        let is_there =
            |key: &String| Replicator::shard_for(shard.namespace, SLOTS, key.as_bytes()) == shard;
        let key = keys.find(is_there).expect("some key is in each slot");
        let mutation = put(&key, "", "value");
        self.step(at, Event::Mutate { ticket: 1, shard, mutation, replicas: 0 });
    }

    fn is_equal(&self) -> bool {
        let roots = |at: usize| -> BTreeMap<_, _> {
            let machine = &self.machines[at];
            machine.shards().map(|shard| (shard, machine.root(shard))).collect()
        };
        roots(0) == roots(1)
    }

    fn messages(&mut self, during_ms: u64) -> u64 {
        let before = self.sent;
        self.run(during_ms);
        self.sent - before
    }
}

fn every(nth: usize, namespaces: u32) -> impl Iterator<Item = ShardId> {
    let slots = |namespace| (0..SLOTS).map(move |slot| ShardId { namespace, slot });
    (1..=namespaces).map(NamespaceId).flat_map(slots).step_by(nth)
}

/// Quiet shards cost two messages now and then, whatever their number.
pub fn quiet_shards_cost_a_message() {
    let mut pair = Pair::new(8);
    pair.link();
    pair.run(20_000);
    let messages = pair.messages(600_000);
    assert!(
        (2..=50).contains(&messages),
        "{messages} messages of 2,048 quiet shards in 10 minutes"
    );
    assert!(pair.machines.iter().all(|machine| machine.status().all(|shard| shard.in_sync == 1)));
}

/// Writes that were made without a link are found by the blocks that they change.
pub fn a_difference_is_found_among_many_shards() {
    let mut pair = Pair::new(8);
    pair.link();
    pair.run(120_000);
    for at in 0..2 {
        pair.linked = false;
        pair.step(at, Event::Unreachable { peer: replica(1 - at).node });
    }
    for (number, shard) in every(401, 8).enumerate() {
        pair.write(number % 2, shard);
    }
    pair.run(60_000);
    assert!(!pair.is_equal());
    pair.link();
    let messages = pair.messages(30_000);
    assert!(pair.is_equal(), "a shard that differs was not found");
    assert!(messages < 200, "{messages} messages for 6 shards that differ");
}

/// A replica that lacks all shards gets their roots in bounded messages, one after the other.
pub fn all_shards_of_a_cold_replica_are_found() {
    let mut pair = Pair::new(8);
    every(1, 8).for_each(|shard| pair.write(0, shard));
    pair.run(1000);
    pair.link();
    pair.run(60_000);
    assert!(pair.is_equal(), "a shard that differs was not found");
    assert!((1..=512).contains(&pair.roots), "{} roots in one message", pair.roots);
}

/// A write whose push is lost while the link stays is found without a new link, soon and not only by a summary.
pub fn a_lost_push_is_found_by_its_shard() {
    let mut pair = Pair::new(8);
    pair.link();
    pair.run(120_000);
    pair.linked = false;
    pair.write(0, ShardId { namespace: NamespaceId(3), slot: 7 });
    let writes = pair.issued[0];
    pair.step(0, Event::Persisted { writes });
    pair.linked = true;
    pair.run(3_000);
    assert!(pair.is_equal(), "the shard was not compared soon");
}
