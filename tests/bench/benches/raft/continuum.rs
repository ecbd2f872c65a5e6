//! Ours: `continuum_core::raft`.

use std::time::Duration;

use bytes::Bytes;
use continuum_core::config::RaftConfig;
use continuum_core::id::{GroupId, Index, NodeId, Replica, Role, StoreId};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::raft::{Action, Configuration, Event, Message, Payload, Raft, Restored};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

use super::{Applied, Cluster, Inboxes};

struct Node {
    raft: Raft,
    now: Instant,
    applied: Index,
    state: Applied,
    writes: u64,
    durable: u64,
    /// Promises that wait for the disk, with their receivers.
    promises: Vec<(usize, Message)>,
}

pub struct Three {
    nodes: Vec<Node>,
    inboxes: Inboxes<(Replica, Message)>,
    out: Outbox<Action>,
}

const fn replica(at: usize) -> Replica {
    let id = [at as u8; 16];
    Replica { node: NodeId(id), store: StoreId(id) }
}

impl Node {
    fn new(at: usize) -> Self {
        let voters = (0..3).map(replica).collect();
        let genesis = Configuration { voters, learners: Vec::new() };
        let restored = Restored { genesis, ..Restored::default() };
        let seed = Seed::from_number(at as u64);
        Self {
            raft: Raft::new(GroupId(1), replica(at), RaftConfig::default(), &seed, restored),
            now: Instant::ZERO,
            applied: Index(0),
            state: Applied::default(),
            writes: 0,
            durable: 0,
            promises: Vec::new(),
        }
    }
}

impl Three {
    fn step(&mut self, at: usize, event: Event) {
        let node = &mut self.nodes[at];
        node.raft.step(Now { mono: node.now, wall: WallTime(0) }, event, &mut self.out);
        for action in self.out.drain() {
            match action {
                Action::Send { to, message, promise } => {
                    let to = usize::from(to.node.0[0]);
                    if promise {
                        node.promises.push((to, message));
                    } else {
                        self.inboxes.send(to, (replica(at), message));
                    }
                }
                Action::Persist { .. } => node.writes += 1,
                Action::Committed { index } => {
                    while node.applied < index {
                        node.applied = node.applied.next();
                        let entry = node.raft.entry(node.applied).expect("it is in the log");
                        if let Payload::Command(command) = &entry.payload {
                            node.state.apply(command);
                        }
                    }
                }
                Action::Refused { why, .. } => panic!("refused: {why:?}"),
                Action::Rejected { why, .. } => panic!("rejected: {why}"),
                _ => {}
            }
        }
    }

    /// Makes all writes durable and sends the promises that waited for them.
    fn sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.durable < node.writes {
            node.durable = node.writes;
            let writes = node.writes;
            self.step(at, Event::Persisted { writes });
        }
        let node = &mut self.nodes[at];
        for (to, message) in node.promises.drain(..) {
            self.inboxes.send(to, (replica(at), message));
        }
    }

    fn settle(&mut self) {
        let mut at = 0;
        self.sync(at);
        while let Some(next) = self.inboxes.next(at) {
            at = next;
            let mut arrived = self.inboxes.take(at);
            for (from, message) in arrived.drain(..) {
                self.step(at, Event::Received { from, message });
            }
            self.inboxes.done(arrived);
            self.sync(at);
        }
    }
}

impl Cluster for Three {
    fn elected() -> Self {
        let nodes = (0..3).map(Node::new).collect();
        let mut three = Self { nodes, inboxes: Inboxes::new(), out: Outbox::new() };
        (0..3).for_each(|at| three.step(at, Event::Tick));
        // Only the first replica's clock reaches its election timeout. The other clocks advance far enough that these
        // replicas grant pre-votes.
        let timeout = Duration::from_millis(RaftConfig::default().election_timeout_ms);
        three.nodes[1..].iter_mut().for_each(|node| node.now = Instant::ZERO + timeout);
        three.nodes[0].now = three.nodes[0].raft.deadline().expect("an election timeout");
        three.step(0, Event::Tick);
        three.settle();
        assert_eq!(three.nodes[0].raft.role(), Role::Leader);
        three.heartbeat();
        three.inboxes.sent = 0;
        three
    }

    fn commit(&mut self, batch: usize, command: &[u8]) {
        for ticket in 0..batch as u64 {
            self.step(0, Event::Propose { ticket, command: Bytes::copy_from_slice(command) });
        }
        self.settle();
    }

    fn heartbeat(&mut self) {
        let due = Duration::from_millis(RaftConfig::default().heartbeat_ms);
        self.nodes[0].now = self.nodes[0].now + due;
        self.step(0, Event::Tick);
        self.settle();
    }

    fn counts(&self) -> ([Applied; 3], u64) {
        ([0, 1, 2].map(|at| self.nodes[at].state), self.inboxes.sent)
    }
}
