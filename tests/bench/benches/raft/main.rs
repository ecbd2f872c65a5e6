//! Raft: three replicas in one loop on one thread, ours beside `raft` (TiKV's raft-rs) and `noraft`.
//!
//! A batch is B client commands. The leader takes all of them, its disk syncs once, and messages are delivered until
//! none is in flight. Then the next batch begins. Followers learn of a commit from the messages of the next batch, and
//! after the last batch from one heartbeat. At the end the bench checks that every replica has applied every command.
//!
//! These rules are the same for each peer:
//!
//! * A command is copied once into the type that the peer takes. Messages are passed in memory and not encoded.
//! * A turn of a replica: it handles all received messages, then its disk syncs, then it sends what waited for the
//!   disk. A sync takes no time.
//! * No replica compacts its log. Elections are not measured.
//!
//! The peers differ in this:
//!
//! * `raft-rs` runs on its `MemStorage`, with `batch_append`, and with `skip_bcast_commit` as in TiKV. Without the
//!   latter it sends each follower two messages for each commit.
//! * `noraft` has no payloads, no pre-vote, no check-quorum, no flow control and no limit on uncommitted entries. Its
//!   driver here keeps the payloads beside the log and sends them along with the messages.
//! * Ours sends an append as soon as a command is proposed, with at most eight in flight to a follower. The other two
//!   collect all proposals of a turn in one append.
//!
//! `cargo bench --bench raft` runs everything. `-- --test` is a smoke check with one iteration each, and a filter such
//! as `-- raft-rs` selects benchmarks by a part of their name. The last line is JSON. Each ratio in it is the smallest
//! over all payloads and batches that its name covers.

mod continuum;
mod noraft;
mod raft_rs;

use bytes::Bytes;
use continuum_bench::runs::{self, RUNS, Runs};
use serde_json::{Value, json};

const PAYLOADS: [usize; 3] = [0, 16, 256];
const BATCHES: [usize; 3] = [1, 64, 1024];
/// Entries of one iteration: a multiple of every batch, and more than fits into the first-level cache.
const ENTRIES: usize = 8192;

const OURS: &str = "continuum";
const RAFT_RS: &str = "raft-rs";
const NORAFT: &str = "noraft";
const PEERS: [&str; 3] = [OURS, RAFT_RS, NORAFT];

/// Three replicas of one peer.
trait Cluster {
    /// Three replicas. The first leads, the others know it, and no message is in flight.
    fn elected() -> Self;

    /// Proposes `batch` copies of a command and delivers messages until none is in flight.
    fn commit(&mut self, batch: usize, command: &[u8]);

    /// Sends a heartbeat, from which the followers learn of the last commit.
    fn heartbeat(&mut self);

    /// The commands that each replica applied, and the number of messages since the election.
    fn counts(&self) -> ([Applied; 3], u64);
}

/// The state machine. It reads every command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Applied {
    commands: usize,
    bytes: usize,
    sum: u64,
}

impl Applied {
    fn apply(&mut self, command: &[u8]) {
        self.commands += 1;
        self.bytes += command.len();
        self.sum += command.last().copied().map_or(0, u64::from);
    }
}

/// The messages in flight: one inbox for each replica.
#[derive(Debug)]
struct Inboxes<M> {
    waiting: [Vec<M>; 3],
    taken: Vec<M>,
    sent: u64,
}

impl<M> Inboxes<M> {
    const fn new() -> Self {
        Self { waiting: [Vec::new(), Vec::new(), Vec::new()], taken: Vec::new(), sent: 0 }
    }

    fn send(&mut self, to: usize, message: M) {
        self.sent += 1;
        self.waiting[to].push(message);
    }

    /// Takes the messages of a replica. [`Self::done`] returns the buffer, so that no turn allocates.
    fn take(&mut self, at: usize) -> Vec<M> {
        std::mem::replace(&mut self.waiting[at], std::mem::take(&mut self.taken))
    }

    fn done(&mut self, mut taken: Vec<M>) {
        taken.clear();
        self.taken = taken;
    }

    /// The next replica after `after` that has messages.
    fn next(&self, after: usize) -> Option<usize> {
        (1..=3).map(|step| (after + step) % 3).find(|at| !self.waiting[*at].is_empty())
    }
}

fn work(payload: usize, batch: usize) -> String {
    format!("payload {payload}/batch {batch}")
}

struct Bench {
    runs: Runs,
    messages: Vec<(String, &'static str, f64)>,
}

impl Bench {
    fn run<C: Cluster>(
        &mut self,
        group: &mut criterion::BenchmarkGroup<'_, continuum_bench::cpu::CpuTime>,
        peer: &'static str,
        (payload, batch): (usize, usize),
    ) {
        let command = Bytes::from(vec![1; payload]);
        let expected = Applied {
            commands: ENTRIES,
            bytes: ENTRIES * payload,
            sum: if payload == 0 { 0 } else { ENTRIES as u64 },
        };
        let messages = std::cell::Cell::new(None);
        let name = work(payload, batch);
        self.runs.measure(
            group,
            (&name, peer),
            ENTRIES as u64,
            C::elected,
            |cluster| {
                (0..ENTRIES / batch).for_each(|_| cluster.commit(batch, &command));
                cluster.heartbeat();
            },
            |cluster| {
                let (applied, sent) = cluster.counts();
                assert_eq!(applied, [expected; 3], "every replica of {peer} applies every command");
                messages.set(Some(sent as f64 / ENTRIES as f64));
            },
        );
        self.messages.extend(messages.take().map(|per_entry| (name, peer, per_entry)));
    }

    fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for (payload, batch, peer) in cells() {
            let name = work(payload, batch);
            let Some(summary) = self.runs.of(&name, peer) else { continue };
            let mut row = summary.json("entries_per_cpu_s");
            let mut sent = self.messages.iter().filter(|(of, by, _)| *of == name && *by == peer);
            row["peer"] = json!(peer);
            row["payload_bytes"] = json!(payload);
            row["batch"] = json!(batch);
            row["messages_per_entry"] = json!(sent.next().map(|sent| runs::rounded(sent.2)));
            rows.push(row);
        }
        rows
    }

    /// The smallest ratio of ours to a peer over all payloads and these batches.
    fn least(&self, peer: &'static str, batches: &[usize]) -> Value {
        let cells = PAYLOADS.iter().flat_map(|payload| batches.iter().map(move |b| (*payload, *b)));
        runs::least(cells.map(|(payload, b)| self.runs.ratio(&work(payload, b), OURS, peer)))
    }
}

fn cells() -> impl Iterator<Item = (usize, usize, &'static str)> {
    PAYLOADS.into_iter().flat_map(|payload| {
        BATCHES.into_iter().flat_map(move |batch| PEERS.map(|peer| (payload, batch, peer)))
    })
}

fn print_table(rows: &[Value]) {
    let head = ["payload", "batch", "peer", "entries/CPU s", "min", "max", "messages/entry"];
    runs::print_row(&head.map(String::from));
    for row in rows {
        runs::print_row(&[
            row["payload_bytes"].to_string(),
            row["batch"].to_string(),
            row["peer"].as_str().unwrap_or_default().to_owned(),
            row["entries_per_cpu_s"].to_string(),
            row["min"].to_string(),
            row["max"].to_string(),
            row["messages_per_entry"].to_string(),
        ]);
    }
}

fn main() {
    let mut criterion = runs::criterion();
    let mut bench = Bench { runs: Runs::default(), messages: Vec::new() };
    for run in 0..RUNS {
        let mut group = runs::group(&mut criterion, "raft", run);
        for (at, (payload, batch, _)) in cells().enumerate() {
            // The peers take turns, and each run begins with another peer.
            match PEERS[(at + run) % 3] {
                OURS => bench.run::<continuum::Three>(&mut group, OURS, (payload, batch)),
                RAFT_RS => bench.run::<raft_rs::Three>(&mut group, RAFT_RS, (payload, batch)),
                _ => bench.run::<noraft::Three>(&mut group, NORAFT, (payload, batch)),
            }
        }
        group.finish();
    }
    criterion.final_summary();
    let rows = bench.rows();
    print_table(&rows);
    println!(
        "{}",
        json!({
            "command": "raft",
            "ratio_vs_raft_rs_batch1": bench.least(RAFT_RS, &[1]),
            "min_ratio_vs_raft_rs_batched": bench.least(RAFT_RS, &[64, 1024]),
            "min_ratio_vs_noraft": bench.least(NORAFT, &BATCHES),
            "entries_per_iteration": ENTRIES,
            "rows": rows,
        })
    );
}
