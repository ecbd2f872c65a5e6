//! A whole node on its own: it begins a federation of one, takes a write, and starts again from the bytes of its log.
//! Its driver reports a write as durable once the batch is in the log. The disk is a map of segments in memory.

use std::collections::BTreeMap;

use continuum_core::api::{Change, Edit, Level, Mutation, Outcome, Policy, Query, Request};
use continuum_core::config::Config;
use continuum_core::id::{Address, Boot, FederationId, NodeId, Replica, RequestId, StoreId, Token};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::node::{Action, Event, Node, Start, last_boot};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};
use continuum_core::wal::{self, Header, LogWriter, Write};

const FEDERATION: FederationId = FederationId([9; 16]);
const ME: Replica = Replica { node: NodeId([1; 16]), store: StoreId([2; 16]) };

struct Host {
    node: Node,
    log: LogWriter,
    segments: BTreeMap<u64, Vec<u8>>,
    ms: u64,
}

/// Starts a process on the segments of a log, which may be empty.
fn start(segments: BTreeMap<u64, Vec<u8>>, ms: u64) -> Host {
    let header = Header { federation: FEDERATION, node: ME.node, store: ME.store, lane: 0 };
    let bytes = segments.iter().map(|(number, bytes)| (*number, bytes.clone().into())).collect();
    let (writes, log) = match wal::recover(bytes) {
        Ok(recovered) => (recovered.writes, recovered.writer),
        Err(_) => (Vec::new(), LogWriter::new(header)),
    };
    let boot = Boot { count: last_boot(&writes).map_or(1, |boot| boot.count + 1), nonce: ms };
    let (config, seed) = (Config::default(), Seed::from_number(ms));
    let (name, address) = (String::new(), Address("host:7100".into()));
    let start = Start { config, federation: FEDERATION, replica: ME, boot, seed, name, address };
    let node = Node::restore(start, writes, BTreeMap::new()).expect("our own log");
    Host { node, log, segments, ms }
}

impl Host {
    /// One step, and the writes of it made durable. Returns the answers to clients.
    fn step(&mut self, event: Event) -> Vec<Outcome> {
        let now = Now { mono: Instant::from_millis(self.ms), wall: WallTime(self.ms) };
        let (mut out, mut writes, mut answers) = (Outbox::new(), Vec::new(), Vec::new());
        self.node.step(now, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Persist { token, write } => writes.push((token, write)),
                Action::Reply { outcome, .. } => answers.push(outcome),
                _ => {}
            }
        }
        let durable = (!writes.is_empty()).then(|| self.append(&writes));
        answers.extend(durable.into_iter().flat_map(|token| self.step(Event::Persisted { token })));
        answers
    }

    fn append(&mut self, writes: &[(Token, Write)]) -> Token {
        let batch = self.log.encode(writes);
        let segment = self.segments.entry(batch.segment).or_default();
        segment.resize(batch.offset as usize, 0);
        segment.extend_from_slice(&batch.bytes);
        batch.last
    }

    /// Asks, and lets time pass until the answer is there.
    fn ask(&mut self, request: Request) -> Outcome {
        let mut answers = self.step(Event::Requested { id: RequestId(self.ms), request });
        while answers.is_empty() {
            self.ms += 10;
            answers = self.step(Event::Tick);
        }
        answers.remove(0)
    }
}

fn main() {
    let mut host = start(BTreeMap::new(), 1);
    host.ask(Request::Init { voters: Vec::new() });
    let (name, policy) = ("facts".to_owned(), Policy::Strong);
    host.ask(Request::CreateNamespace { name, policy, session: None });
    let edit = Edit { field: "".into(), change: Change::Put("blue".into()) };
    let mutations = vec![Mutation { key: "sky".into(), edits: vec![edit], context: None }];
    let (namespace, level) = ("facts".to_owned(), Level::Durable);
    host.ask(Request::Write { namespace, mutations, level, session: None });
    let mut host = start(host.segments, host.ms); // it crashes and starts again
    let (namespace, key, field) = ("facts".to_owned(), "sky".into(), "".into());
    let answer = host.ask(Request::Read { namespace, query: Query::Get { key, field } });
    assert!(format!("{answer:?}").contains("blue"), "{answer:?}");
    println!("{answer:?}");
}

#[test]
fn runs() {
    main();
}
