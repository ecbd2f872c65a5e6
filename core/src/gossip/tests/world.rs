//! A world for the unit tests of gossip: many machines, virtual time, and a network that loses, delays and partitions.
//!
//! It is not the simulator: it has no disks, no wrong clocks and no oracles. It checks gossip alone, with fifty nodes,
//! in milliseconds.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use crate::config::GossipConfig;
use crate::gossip::{Action, Counters, Event, Gossip, Incarnation, Member, Message, State};
use crate::id::{Address, Boot, NodeId, Replica, StoreId};
use crate::machine::{Machine, Now, Outbox};
use crate::seed::{Seed, Stream};
use crate::time::{Instant, WallTime};

/// Latencies lie between half a millisecond and five.
const LATENCY_NS: (u64, u64) = (500_000, 5_000_000);

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) config: GossipConfig,
    /// `None` while crashed.
    pub(super) nodes: Vec<Option<Gossip>>,
    boots: Vec<u64>,
    /// Which side of a partition each node is on.
    pub(super) sides: Vec<u8>,
    /// Messages lost, per thousand.
    pub(super) loss: u64,
    /// Messages in flight, by (arrival, order of sending).
    flying: BTreeMap<(Instant, u64), (usize, usize, Message)>,
    wakes: BTreeSet<(Instant, usize)>,
    wake_of: Vec<Option<Instant>>,
    sent: u64,
    random: Stream,
    seed: u64,
    /// Every change that a node reported: (when, observer, member).
    pub(super) changes: Vec<(Instant, usize, Member)>,
    out: Outbox<Action>,
    is_open: bool,
}

pub(super) fn id(at: usize) -> NodeId {
    let mut bytes = [0xc0; 16];
    bytes[..8].copy_from_slice(&(at as u64).to_be_bytes());
    NodeId(bytes)
}

fn index_of(node: NodeId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&node.0[..8]);
    u64::from_be_bytes(bytes) as usize
}

pub(super) fn replica(at: usize) -> Replica {
    Replica { node: id(at), store: StoreId([9; 16]) }
}

pub(super) fn member(at: usize, boot: u64) -> Member {
    Member {
        replica: replica(at),
        name: format!("n{at}"),
        address: Address(format!("host{at}:{boot}")),
        incarnation: Incarnation { boot: Boot { count: boot, nonce: 77 }, refutations: 0 },
        state: State::Alive,
        load: 0,
    }
}

impl World {
    /// A world of closed machines: each is told of all others when it starts.
    pub(super) fn new(n: usize, seed: u64, config: GossipConfig) -> Self {
        let mut world = Self { is_open: false, ..Self::open(n, seed, config) };
        (0..n).for_each(|at| world.boot(at));
        world
    }

    /// A world of open machines, of which none runs yet: each joins through node 0.
    pub(super) fn open(n: usize, seed: u64, config: GossipConfig) -> Self {
        Self {
            now: Instant::from_millis(1),
            config,
            nodes: (0..n).map(|_| None).collect(),
            boots: alloc::vec![0; n],
            sides: alloc::vec![0; n],
            loss: 0,
            flying: BTreeMap::new(),
            wakes: BTreeSet::new(),
            wake_of: alloc::vec![None; n],
            sent: 0,
            random: Seed::from_number(seed).derive("world", 0),
            seed,
            changes: Vec::new(),
            out: Outbox::new(),
            is_open: true,
        }
    }

    /// Starts a node in its next boot.
    pub(super) fn boot(&mut self, at: usize) {
        self.boots[at] += 1;
        let seed = Seed::from_number(self.seed * 1_000_003 + (at as u64) * 101 + self.boots[at]);
        let me = member(at, self.boots[at]);
        if self.is_open {
            self.nodes[at] = Some(Gossip::open(me, self.config.clone(), &seed));
            let Member { replica: contact, address, .. } = member(0, 0);
            return self.step(at, Event::Join { contact, address });
        }
        self.nodes[at] = Some(Gossip::new(me, self.config.clone(), &seed));
        for other in 0..self.nodes.len() {
            let Member { replica, name, address, .. } = member(other, 0);
            self.step(at, Event::Add { replica, name, address });
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        self.nodes[at] = None;
    }

    pub(super) fn node(&self, at: usize) -> &Gossip {
        self.nodes[at].as_ref().expect("the node runs")
    }

    /// The view of `subject` that `observer` has.
    pub(super) fn view(&self, observer: usize, subject: usize) -> &Member {
        self.node(observer).member(id(subject)).expect("all are members")
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = Counters> {
        self.nodes.iter().flatten().map(Gossip::counters)
    }

    pub(super) fn step(&mut self, at: usize, event: Event) {
        let now = Now { mono: self.now, wall: WallTime(0) };
        let Some(node) = self.nodes[at].as_mut() else { return };
        node.step(now, event, &mut self.out);
        let due = node.deadline();
        assert!(due.is_none_or(|due| due > self.now), "a step leaves nothing due");
        if let Some(old) = core::mem::replace(&mut self.wake_of[at], due) {
            self.wakes.remove(&(old, at));
        }
        self.wakes.extend(due.map(|due| (due, at)));
        let mut out = core::mem::take(&mut self.out);
        out.drain().for_each(|action| self.perform(at, action));
        self.out = out;
    }

    fn perform(&mut self, at: usize, action: Action) {
        match action {
            Action::Send { to, message } => self.send(at, index_of(to), message),
            Action::Changed { member } => self.changes.push((self.now, at, member)),
            Action::Rejected { why, .. } => panic!("an honest member was rejected: {why}"),
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.sent += 1;
        let lost = self.random.below(1000) < self.loss;
        let latency = self.random.between(LATENCY_NS.0, LATENCY_NS.1);
        if !lost && self.sides[from] == self.sides[to] {
            let when = Instant(self.now.0 + latency);
            self.flying.insert((when, self.sent), (from, to, message));
        }
    }

    /// Runs for this many virtual milliseconds.
    pub(super) fn run(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    /// Runs until `done` holds after an event, or for this many virtual milliseconds. Returns whether it holds.
    pub(super) fn run_until(&mut self, ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = Instant(self.now.0 + ms * 1_000_000);
        loop {
            let message = self.flying.first_key_value().map(|((when, _), _)| *when);
            let wake = self.wakes.first().map(|(when, _)| *when);
            let Some(next) = crate::time::earlier(message, wake).filter(|next| *next <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = next;
            if message == Some(next) {
                let (_, (from, to, message)) = self.flying.pop_first().expect("one is in flight");
                self.step(to, Event::Received { from: id(from), message });
            } else if let Some((_, at)) = self.wakes.pop_first() {
                self.wake_of[at] = None;
                self.step(at, Event::Tick);
            }
            if done(self) {
                return true;
            }
        }
    }

    /// Whether every running node knows all running nodes as alive in their latest boot, and the others as `gone`.
    pub(super) fn agree(&self, gone: State) -> bool {
        let running = |at: usize| self.nodes[at].is_some();
        let n = self.nodes.len();
        (0..n).filter(|at| running(*at)).all(|observer| {
            (0..n).filter(|at| *at != observer).all(|subject| {
                let view = self.view(observer, subject);
                if running(subject) {
                    view.state == State::Alive
                        && view.incarnation == self.node(subject).own().incarnation
                } else {
                    view.state == gone
                }
            })
        })
    }
}
