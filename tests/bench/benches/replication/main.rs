//! CRDT replication: two replicas of a keyed memory, ours beside `crdts` (rust-crdt).
//!
//! One author makes 4,096 writes to 256 keys, 16 to each key. Registers of 64 bytes are overwritten, sets get new
//! members of 16 bytes, counters count up by one. Each kind has three works:
//!
//! * `local`: the author makes and applies all writes.
//! * `delivery`: one sync makes the writes durable, and they go to the other replica: encoded, decoded, applied.
//! * `catch-up`: an empty replica gets everything from the author's state, as after a long absence.
//!
//! The bench checks that the second replica then answers every key as the author does. It counts the bytes on the wire
//! of `delivery` and `catch-up`, including the receiver's answers.
//!
//! The peers do different amounts of work:
//!
//! * Neither writes to a disk. Ours issues its log records, and they count as durable at once.
//! * `crdts` does not hash or timestamp writes and does not keep them: authenticity, order by time and the original
//!   bytes are left to the application. It does not acknowledge, detect missing writes or compare replicas, and its
//!   operations must arrive once and in order. A catch-up sends the whole state, even if little differs. Its actor here
//!   is one number; ours is a node, a disk and a boot, 48 bytes.
//! * Ours keeps the sealed bytes of every live write with their SHA-256, an HLC timestamp, and ranges of dots. It
//!   compares replicas by their roots and sends only the differences. It does not merge whole states.
//!
//! `crdts` uses a `Map` from keys to `MVReg`, `Orswot` or `PNCounter`, because this type, like ours, removes whole keys
//! by what was observed. Both encode with postcard.
//!
//! `cargo bench --bench replication` runs everything. `-- --test` is a smoke check with one iteration each, and a
//! filter such as `-- crdts` selects benchmarks by a part of their name. The last line is JSON. Each ratio in it is the
//! smallest over all kinds.

mod continuum;
mod rust_crdt;

use std::cell::Cell;

use continuum_bench::cpu::CpuTime;
use continuum_bench::runs::{self, RUNS, Runs};
use criterion::BenchmarkGroup;
use serde_json::{Value, json};

const WRITES: usize = 4096;
const KEYS: usize = 256;
const VALUE_BYTES: usize = 64;

const OURS: &str = "continuum";
const CRDTS: &str = "crdts";
const PEERS: [&str; 2] = [OURS, CRDTS];

const LOCAL: &str = "local";
const DELIVERY: &str = "delivery";
const CATCH_UP: &str = "catch-up";
const WORKS: [&str; 3] = [LOCAL, DELIVERY, CATCH_UP];

/// The type of a key's value.
trait Kind {
    const NAME: &'static str;
}

struct Register;
struct Set;
struct Counter;

impl Kind for Register {
    const NAME: &'static str = "register";
}

impl Kind for Set {
    const NAME: &'static str = "set";
}

impl Kind for Counter {
    const NAME: &'static str = "counter";
}

/// Two replicas of one peer: an author and another.
trait Pair {
    /// Two empty replicas, with or without a link between them.
    fn new(linked: bool) -> Self;

    /// The author makes and applies all writes.
    fn write(&mut self);

    /// Sends the writes over the link.
    fn deliver(&mut self);

    /// Connects the replicas and brings the other one up to date.
    fn catch_up(&mut self);

    /// Bytes sent over the link in both directions.
    fn wire_bytes(&self) -> usize;

    /// Checks every key at the author, and at the other replica too if `other_has` everything.
    fn check(&self, other_has: bool);
}

/// The key of a write.
fn key(write: usize) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    key[12..].copy_from_slice(&((write % KEYS) as u32).to_be_bytes());
    key
}

/// The value that a write puts.
fn value(write: usize) -> [u8; VALUE_BYTES] {
    let mut value = [7; VALUE_BYTES];
    value[..8].copy_from_slice(&(write as u64).to_be_bytes());
    value
}

/// The member that a write adds.
fn member(write: usize) -> [u8; 16] {
    let mut member = *b"member-000000000";
    member[8..].copy_from_slice(&(write as u64).to_be_bytes());
    member
}

/// The writes of a key, first to last.
fn writes_of(key: usize) -> impl DoubleEndedIterator<Item = usize> {
    (key..WRITES).step_by(KEYS)
}

#[derive(Default)]
struct Bench {
    runs: Runs,
    wire: Vec<(String, &'static str, f64)>,
}

fn name(kind: &str, work: &str) -> String {
    format!("{kind}/{work}")
}

impl Bench {
    fn run<P: Pair>(
        &mut self,
        group: &mut BenchmarkGroup<'_, CpuTime>,
        peer: &'static str,
        (kind, work): (&str, &str),
    ) {
        let name = name(kind, work);
        let wire = Cell::new(None);
        let fresh = || {
            let mut pair = P::new(work == DELIVERY);
            if work != LOCAL {
                pair.write();
            }
            pair
        };
        let act = |pair: &mut P| match work {
            LOCAL => pair.write(),
            DELIVERY => pair.deliver(),
            _ => pair.catch_up(),
        };
        let check = |pair: &mut P| {
            pair.check(work != LOCAL);
            wire.set(Some(pair.wire_bytes() as f64 / WRITES as f64));
        };
        self.runs.measure(group, (&name, peer), WRITES as u64, fresh, act, check);
        self.wire.extend(wire.take().map(|bytes| (name, peer, bytes)));
    }

    fn run_kind<K: continuum::Work + rust_crdt::Work>(
        &mut self,
        group: &mut BenchmarkGroup<'_, CpuTime>,
        run: usize,
    ) {
        for work in WORKS {
            // The peers take turns, and each run begins with the other peer.
            for turn in 0..PEERS.len() {
                match PEERS[(turn + run) % PEERS.len()] {
                    OURS => self.run::<continuum::Two<K>>(group, OURS, (K::NAME, work)),
                    _ => self.run::<rust_crdt::Two<K>>(group, CRDTS, (K::NAME, work)),
                }
            }
        }
    }

    fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for kind in [Register::NAME, Set::NAME, Counter::NAME] {
            for (work, peer) in WORKS.into_iter().flat_map(|work| PEERS.map(|peer| (work, peer))) {
                let name = name(kind, work);
                let Some(summary) = self.runs.of(&name, peer) else { continue };
                let mut row = summary.json("writes_per_cpu_s");
                let mut wire = self.wire.iter().filter(|(of, by, _)| *of == name && *by == peer);
                let bytes = wire.next().filter(|_| work != LOCAL).map(|wire| wire.2.round());
                row["kind"] = json!(kind);
                row["work"] = json!(work);
                row["peer"] = json!(peer);
                row["wire_bytes_per_write"] = json!(bytes);
                rows.push(row);
            }
        }
        rows
    }

    /// The smallest ratio of ours to `crdts` over all kinds.
    fn least(&self, work: &str) -> Value {
        let kinds = [Register::NAME, Set::NAME, Counter::NAME];
        runs::least(kinds.iter().map(|kind| self.runs.ratio(&name(kind, work), OURS, CRDTS)))
    }
}

fn print_table(rows: &[Value]) {
    let head = ["kind", "work", "peer", "writes/CPU s", "min", "max", "bytes/write"];
    runs::print_row(&head.map(String::from));
    for row in rows {
        let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
        runs::print_row(&[
            text("kind"),
            text("work"),
            text("peer"),
            row["writes_per_cpu_s"].to_string(),
            row["min"].to_string(),
            row["max"].to_string(),
            row["wire_bytes_per_write"].to_string(),
        ]);
    }
}

fn main() {
    let mut criterion = runs::criterion();
    let mut bench = Bench::default();
    for run in 0..RUNS {
        let mut group = runs::group(&mut criterion, "replication", run);
        bench.run_kind::<Register>(&mut group, run);
        bench.run_kind::<Set>(&mut group, run);
        bench.run_kind::<Counter>(&mut group, run);
        group.finish();
    }
    criterion.final_summary();
    let rows = bench.rows();
    print_table(&rows);
    println!(
        "{}",
        json!({
            "command": "replication",
            "min_ratio_vs_crdts_local": bench.least(LOCAL),
            "min_ratio_vs_crdts_delivery": bench.least(DELIVERY),
            "min_ratio_vs_crdts_catch_up": bench.least(CATCH_UP),
            "writes_per_iteration": WRITES,
            "rows": rows,
        })
    );
}
