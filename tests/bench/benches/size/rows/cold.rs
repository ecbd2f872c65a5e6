//! Two replicators of one shard that differ in a few keys: bytes and round trips until they are equal.
//!
//! The replicators are driven without nodes, because a thousand authors are out of reach of whole ones. Frames are
//! counted as they are encoded, payloads included. Those that are too long for a link are dropped, as a link does.

use continuum_bench::allocator;
use continuum_bench::steps::{Memory, Meter};
use continuum_core::api::{Change, Mutation, Strategy};
use continuum_core::codec;
use continuum_core::config::ReplicationConfig;
use continuum_core::id::{Boot, NamespaceId, NodeId, Replica, ShardId, StoreId};
use continuum_core::limits::FRAME_BYTES_MAX;
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::replication::{Action, Event, Message, Replicator, Restored};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};
use cpu_time::ThreadTime;
use serde_json::json;

use super::{Row, edit, key, put, scaled, value};
use crate::names;
use crate::world::{Stop, World};

const NAMESPACE: NamespaceId = NamespaceId(1);
const SHARD: ShardId = ShardId { namespace: NAMESPACE, slot: 0 };
/// Authors of the keys.
const ACTORS: [u64; 3] = [1, 10, 1000];
/// Turns without equality after which there is none.
const TURNS_MAX: u64 = 10_000;
/// Comparisons without equality after which there is none.
const COMPARISONS_MAX: u64 = 30;

pub const COLD_1E4: Row = Row {
    name: "cold.1e4",
    what: "10,000 keys by 1, 10 and 1,000 authors; 10 new, overwritten or removed keys cross a link",
    run: |world, scale| run(world, scaled(10_000, scale), 10),
};

pub const COLD_1E6: Row = Row {
    name: "cold.1e6",
    what: "1,000,000 keys by 1, 10 and 1,000 authors; 100 new, overwritten or removed keys cross a link",
    run: |world, scale| run(world, scaled(1_000_000, scale), 100),
};

#[derive(Clone, Copy)]
enum Difference {
    New,
    Overwritten,
    Removed,
}

struct Side {
    replica: Replica,
    machine: Replicator,
    issued: u64,
    inbox: Vec<(Replica, Vec<u8>)>,
}

struct Pair<'a> {
    meter: &'a mut Meter,
    sides: [Side; 2],
    ms: u64,
    bytes: u64,
    frames: u64,
    too_long: u64,
    turns: u64,
}

const fn replica(number: u64) -> Replica {
    let number = number.to_be_bytes();
    let mut id = [0; 16];
    let mut at = 0;
    while at < 8 {
        id[at] = number[at];
        at += 1;
    }
    Replica { node: NodeId(id), store: StoreId(id) }
}

fn side(number: u64) -> Side {
    let (boot, seed) = (Boot { count: 1, nonce: number }, Seed::from_number(number));
    let config = ReplicationConfig::default();
    let machine = Replicator::new(replica(number), boot, config, &seed, Restored::default());
    let machine = machine.expect("an empty store");
    Side { replica: replica(number), machine, issued: 0, inbox: Vec::new() }
}

impl Side {
    /// One step. Returns the messages to send.
    fn step(&mut self, ms: u64, event: Event) -> Result<Vec<(Replica, Message)>, Stop> {
        let now = Now { mono: Instant::from_millis(ms), wall: WallTime(ms) };
        let mut out = Outbox::new();
        self.machine.step(now, event, &mut out);
        let mut messages = Vec::new();
        for action in out.drain() {
            match action {
                Action::Persist { .. } => self.issued += 1,
                Action::Send { to, message, .. } => messages.push((to, message)),
                Action::Refused { reason, .. } => return Err(Stop(format!("refused: {reason:?}"))),
                Action::Rejected { why, .. } => return Err(Stop(format!("rejected: {why}"))),
                _ => {}
            }
        }
        Ok(messages)
    }

    fn open(&mut self, ms: u64, peers: Vec<Replica>) -> Result<(), Stop> {
        let strategy = Strategy::LastWriterWins;
        self.step(ms, Event::Open { namespace: NAMESPACE, slots: 1, strategy, discard: false })?;
        self.step(ms, Event::Peers { replicas: peers }).map(drop)
    }

    fn persisted(&mut self, ms: u64) -> Result<Vec<(Replica, Message)>, Stop> {
        let writes = self.issued;
        self.step(ms, Event::Persisted { writes })
    }
}

impl<'a> Pair<'a> {
    fn new(meter: &'a mut Meter, authors: u64) -> Result<Self, Stop> {
        let mut sides = [side(1), side(2)];
        let ms = 1_000_000;
        for side in &mut sides {
            side.open(ms, (1..authors + 10).map(replica).collect())?;
        }
        Ok(Self { meter, sides, ms, bytes: 0, frames: 0, too_long: 0, turns: 0 })
    }

    fn memory(&self) -> Memory {
        Memory {
            allocated: allocator::live(),
            resident: allocator::resident().0,
            counted: self.sides.iter().map(|side| side.machine.bytes()).sum(),
            nodes: 2,
        }
    }

    /// One measured step of a side. Its messages are encoded into the inbox of the other one.
    fn step(&mut self, at: usize, event: Event) -> Result<(), Stop> {
        let name = match &event {
            Event::Received { message, .. } => names::of_replication(message),
            Event::Tick => "Tick",
            Event::Persisted { .. } => "Persisted",
            Event::Mutate { .. } => "Mutate",
            _ => "another event",
        };
        allocator::reset_peak();
        let (before, began) = (allocator::total(), ThreadTime::now());
        let messages = self.sides[at].step(self.ms, event)?;
        let took = began.elapsed().as_nanos() as u64;
        let bytes = allocator::total() - before;
        self.meter.step(took, bytes, allocator::peak(), || {
            let sent = messages.iter().map(|(_, message)| names::of_replication(message));
            let sent: Vec<_> = sent.map(|name| name.replace("Received", "Send")).collect();
            format!("replicator {at} {name} -> {}", sent.join(", "))
        });
        let from = self.sides[at].replica;
        for (to, message) in messages {
            if to != self.sides[1 - at].replica {
                continue;
            }
            let bytes = codec::encode(&message).to_vec();
            if bytes.len() > FRAME_BYTES_MAX {
                self.too_long += 1;
                continue;
            }
            self.frames += 1;
            self.bytes += bytes.len() as u64;
            self.sides[1 - at].inbox.push((from, bytes));
        }
        Ok(())
    }

    fn sync(&mut self, at: usize) -> Result<(), Stop> {
        let writes = self.sides[at].issued;
        self.step(at, Event::Persisted { writes })
    }

    /// One author writes its share of the keys, and both sides receive it.
    fn author(&mut self, number: u64, keys: impl Iterator<Item = u64>) -> Result<(), Stop> {
        let mut author = side(10 + number);
        author.open(self.ms, vec![replica(1)])?;
        author.step(self.ms, Event::Connected { peer: replica(1) })?;
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            for at in keys.by_ref().take(200) {
                let mutation = put(key(at), value(32, at));
                let event = Event::Mutate { ticket: at, shard: SHARD, mutation, replicas: 0 };
                author.step(self.ms, event)?;
            }
            for (_, message) in author.persisted(self.ms)? {
                let Message::Delta { .. } = &message else { continue };
                for at in 0..2 {
                    let from = author.replica;
                    let event = Event::Received { from, message: message.clone() };
                    let answers = self.sides[at].step(self.ms, event)?;
                    if at == 0 {
                        for (_, message) in answers {
                            let event = Event::Received { from: replica(1), message };
                            author.step(self.ms, event)?;
                        }
                    }
                }
            }
        }
        (0..2).try_for_each(|at| self.sides[at].persisted(self.ms).map(drop))
    }

    /// Side 0 makes its difference.
    fn differ(&mut self, keys: u64, many: u64, difference: Difference) -> Result<(), Stop> {
        for at in 0..many {
            // One more than a round step, so that the keys are of many authors.
            let step = (keys / many).max(1) + 1;
            let old = key((at * step + 3 * difference as u64) % keys);
            let mutation = match difference {
                Difference::New => put(key(keys + at), value(32, at)),
                Difference::Overwritten => put(old, value(32, at + 1)),
                Difference::Removed => {
                    Mutation { key: old, edits: vec![edit(Change::Delete)], context: None }
                }
            };
            self.step(0, Event::Mutate { ticket: at, shard: SHARD, mutation, replicas: 0 })?;
        }
        self.sync(0)
    }

    fn is_equal(&self) -> bool {
        self.sides[0].machine.root(SHARD) == self.sides[1].machine.root(SHARD)
    }

    /// Delivers messages in turns, in both directions at once, until none is under way.
    fn exchange(&mut self) -> Result<(), Stop> {
        while self.sides.iter().any(|side| !side.inbox.is_empty()) {
            self.turns += 1;
            if self.turns > TURNS_MAX {
                return Err(Stop(format!("not equal after {TURNS_MAX} turns")));
            }
            let inboxes: Vec<_> =
                self.sides.iter_mut().map(|side| std::mem::take(&mut side.inbox)).collect();
            for (at, inbox) in inboxes.into_iter().enumerate() {
                for (from, bytes) in inbox {
                    let message = codec::decode(&bytes, FRAME_BYTES_MAX).expect("our own bytes");
                    self.step(at, Event::Received { from, message })?;
                }
                self.sync(at)?;
            }
        }
        Ok(())
    }

    /// The link is made, the sides become equal, and the link is lost again.
    fn meet(&mut self) -> Result<(), Stop> {
        (self.bytes, self.frames, self.too_long, self.turns) = (0, 0, 0, 0);
        for at in 0..2 {
            self.step(at, Event::Connected { peer: replica(2 - at as u64) })?;
        }
        self.exchange()?;
        let mut comparisons = 0;
        while !self.is_equal() {
            comparisons += 1;
            if comparisons > COMPARISONS_MAX {
                return Err(Stop(format!("not equal after {COMPARISONS_MAX} comparisons")));
            }
            self.ms += ReplicationConfig::default().anti_entropy_ms;
            (0..2).try_for_each(|at| self.step(at, Event::Tick))?;
            self.exchange()?;
        }
        for at in 0..2 {
            self.step(at, Event::Unreachable { peer: replica(2 - at as u64).node })?;
        }
        Ok(())
    }

    fn phase(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        eprintln!("  {name}");
        let before = self.memory();
        self.meter.begin(name, false, before);
        allocator::reset_resident_peak();
        let ended = work(self);
        let after = self.memory();
        let stopped = ended.as_ref().err().map(|Stop(why)| why.clone());
        self.meter.end(after, allocator::resident().1, stopped);
        ended
    }
}

fn run(world: &mut World, keys: u64, many: u64) -> Result<(), Stop> {
    let mut ended = Ok(());
    for authors in ACTORS {
        let authors = authors.min(keys);
        world.within_bound()?;
        let mut pair = Pair::new(&mut world.meter, authors)?;
        pair.phase(&format!("load by {authors}"), |pair| {
            pair.meter.holds(keys);
            let share = |number| (number..keys).step_by(authors as usize);
            (0..authors).try_for_each(|number| pair.author(number, share(number)))
        })?;
        pair.phase(&format!("equal, {authors}"), |pair| told(pair, 0))?;
        let all = [
            ("new", Difference::New),
            ("overwritten", Difference::Overwritten),
            ("removed", Difference::Removed),
        ];
        for (what, difference) in all {
            let met = pair.phase(&format!("{many} {what}, {authors}"), |pair| {
                pair.differ(keys, many, difference)?;
                told(pair, many)
            });
            if met.is_err() {
                ended = met;
                break;
            }
        }
    }
    ended
}

/// Meets, and notes what that took.
fn told(pair: &mut Pair<'_>, differences: u64) -> Result<(), Stop> {
    let met = pair.meet();
    pair.meter.note("differences", differences);
    pair.meter.note("wire_bytes", pair.bytes);
    pair.meter.note("frames", pair.frames);
    pair.meter.note("frames_too_long", pair.too_long);
    pair.meter.note("round_trips", json!(pair.turns.div_ceil(2)));
    met
}
