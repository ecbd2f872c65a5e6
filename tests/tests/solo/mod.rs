//! A federation of one node, step by step: it leads its groups, and a test speaks for its peers and its disk.
//!
//! This module judges nothing.

use std::collections::BTreeMap;

use continuum_core::api::{Outcome, Policy, Request};
use continuum_core::config::Config;
use continuum_core::id::{
    Address, AskId, Boot, FederationId, GenesisId, Lineage, NodeId, Replica, RequestId, StoreId,
    Token,
};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Event, Message, Node, Notice, Start};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};
use continuum_core::wal::Write;

pub(crate) const ME: Replica = Replica { node: NodeId([1; 16]), store: StoreId([1; 16]) };
pub(crate) const PEER: Replica = Replica { node: NodeId([9; 16]), store: StoreId([9; 16]) };
/// Bytes that exports may keep.
pub(crate) const EXPORT_BYTES: u64 = 1_000_000;

/// A federation of one, and everything that it reported.
pub(crate) struct Solo {
    pub(crate) node: Node,
    pub(crate) ms: u64,
    pub(crate) rejected: Vec<&'static str>,
    pub(crate) refused: Vec<Boot>,
    /// How far it released its log.
    pub(crate) released: Vec<Token>,
    /// Snapshot files that it discarded.
    pub(crate) discarded: usize,
    /// Pieces of snapshot files that a disk took and never finished, if it takes any.
    pub(crate) unwritten: Option<usize>,
    /// Its log.
    pub(crate) writes: Vec<(Token, Write)>,
    pub(crate) asked: u64,
}

impl Solo {
    pub(crate) fn new() -> Self {
        let node = Node::restore(start(1), Vec::new(), BTreeMap::new()).expect("a fresh store");
        let (rejected, refused, writes) = (Vec::new(), Vec::new(), Vec::new());
        let released = Vec::new();
        let (unwritten, discarded) = (None, 0);
        let mut solo = Self {
            node,
            ms: 1,
            rejected,
            refused,
            released,
            discarded,
            unwritten,
            writes,
            asked: 0,
        };
        solo.ask(Request::Init { voters: Vec::new() });
        let (name, policy) = (String::from("facts"), Policy::Strong);
        solo.ask(Request::CreateNamespace { name, policy, session: None });
        solo.connect(PEER);
        solo
    }

    /// One step; its writes are durable at once.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Outcome> {
        let now = Now { mono: Instant::from_millis(self.ms), wall: WallTime(self.ms) };
        let (mut out, mut newest, mut answers) = (Outbox::new(), None, Vec::new());
        let mut pieces = None;
        self.node.step(now, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Persist { token, write } => {
                    newest = Some(token);
                    self.writes.push((token, write));
                }
                Action::WriteFile { number, .. } => match &mut self.unwritten {
                    Some(unwritten) => *unwritten += 1,
                    None => pieces = Some(number),
                },
                Action::Refuse { boot, .. } => self.refused.push(boot),
                Action::Release { before } => self.released.push(before),
                Action::Discard { .. } => self.discarded += 1,
                Action::Reply { outcome, .. } => answers.push(outcome),
                Action::Notify(Notice::Rejected { why, .. }) => self.rejected.push(why),
                _ => {}
            }
        }
        if let Some(token) = newest {
            answers.extend(self.step(Event::Persisted { token }));
        }
        if let Some(number) = pieces {
            answers.extend(self.step(Event::FilesWritten { number }));
        }
        answers
    }

    pub(crate) fn ask(&mut self, request: Request) -> Outcome {
        self.asked += 1;
        let mut answers = self.step(Event::Requested { id: RequestId(self.asked), request });
        while answers.is_empty() {
            answers = self.wait(10);
        }
        answers.remove(0)
    }

    pub(crate) fn wait(&mut self, ms: u64) -> Vec<Outcome> {
        self.ms += ms;
        self.step(Event::Tick)
    }

    pub(crate) fn genesis(&self) -> GenesisId {
        self.node.genesis().expect("it is formed")
    }

    pub(crate) fn connect(&mut self, peer: Replica) {
        self.connect_as(peer, Boot { count: 1, nonce: 9 }, Lineage::default());
    }

    /// A process of a peer, with the boots before it, makes a handshake. Returns whether it is let in.
    pub(crate) fn connect_as(&mut self, peer: Replica, boot: Boot, lineage: Lineage) -> bool {
        let Replica { node, store } = peer;
        self.refused.clear();
        self.step(Event::Connected { peer: node, store, boot, lineage, version: 1 });
        !self.refused.contains(&boot)
    }

    /// The process ends, and starts again on its log.
    pub(crate) fn restart(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        let boot = continuum_core::node::last_boot(&writes).expect("it has started");
        self.node = Node::restore(start(boot.count + 1), writes.clone(), BTreeMap::new())
            .expect("its own records");
        self.writes = writes;
        self.wait(10);
    }

    pub(crate) fn receive(&mut self, from: Replica, message: Message) {
        self.step(Event::Received { from: from.node, message });
    }

    /// A peer asks to let a replica in, at an address with this number.
    pub(crate) fn join(&mut self, from: Replica, replica: Replica, number: u64) {
        let (address, name) = (Address(format!("peer:{number}")), String::from("peer"));
        let request = Request::Join { replica, address, name, genesis: None };
        let id = AskId { nonce: 9, number };
        self.receive(from, Message::Forward { id, open: number, request });
        for _ in 0..4 {
            self.wait(10);
        }
    }

    /// Lets the peer in as a learner.
    pub(crate) fn admit(&mut self) {
        self.join(PEER, PEER, 1);
        self.wait(500);
        assert_eq!(self.node.members().len(), 2);
        self.rejected.clear();
    }
}

pub(crate) fn start(count: u64) -> Start {
    let mut config = Config::default();
    config.bounds.export_bytes = EXPORT_BYTES;
    Start {
        config,
        federation: FederationId([7; 16]),
        replica: ME,
        boot: Boot { count, nonce: count },
        seed: Seed::from_number(count),
        name: String::from("one"),
        address: Address("one:1".into()),
    }
}
