//! CRDT replication: two replicas of a keyed memory, ours beside `crdts` (rust-crdt).
//!
//! 4,096 writes of one author over 256 keys, 16 to a key: registers of 64 bytes that are overwritten, sets that get new
//! members of 16 bytes, counters that count up by one. Three works on each kind:
//!
//! * `local`: the author makes and applies all writes.
//! * `delivery`: writes that one sync made durable go to the other replica as they were made: encoded, decoded, applied.
//! * `catch-up`: an empty replica gets everything from the author's state, as after a long absence.
//!
//! The second replica must then answer every key as the author does, which is checked. Bytes on the wire are counted for
//! `delivery` and `catch-up`, what the receiver answers included.
//!
//! What each does not do:
//!
//! * Neither writes to a disk here: ours issues its records, and they count as durable at once.
//! * `crdts` hashes nothing, stamps nothing with a clock and keeps no write: a write's authenticity, its order by time and
//!   its bytes are the application's business. It neither acknowledges, nor notices what it missed, nor compares
//!   replicas; its operations must arrive once and in order. A catch-up is the whole state, also when little differs.
//!   Its actor here is one number; ours is 48 bytes (node, disk, boot).
//! * Ours keeps the sealed bytes of every live write with their SHA-256, an HLC stamp, and dot ranges; it can tell two
//!   replicas apart by their roots and send only what differs. It merges no whole states.
//!
//! `crdts` gets a `Map` from keys to `MVReg`, `Orswot` or `PNCounter`: the type that, like ours, removes whole keys by
//! what was seen. Its bytes are postcard's, as are ours.
//!
//! `cargo bench --bench replication`; with `-- --test` a smoke check of one iteration each; with `-- crdts` or any other
//! part of a name only what has it. The last line is JSON.

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

/// What a key holds.
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
    /// Two empty replicas, with a link between them or without.
    fn new(linked: bool) -> Self;

    /// The author makes and applies all writes.
    fn write(&mut self);

    /// The writes go over the link.
    fn deliver(&mut self);

    /// A link is made, and the other replica gets what the author holds.
    fn catch_up(&mut self);

    /// Bytes that went over the link.
    fn wire_bytes(&self) -> usize;

    /// The author answers every key as it must, and the other as well if it `has` everything.
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
            // The peers take turns, and each run begins with the other one.
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

    /// The smallest of our ratios to `crdts` over all kinds.
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
