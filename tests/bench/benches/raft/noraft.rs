//! `noraft` from crates.io. Its entries have no payloads, so its driver here keeps and sends the payloads.

use bytes::Bytes;
use noraft::{Action, Message, NodeId, Role};

use super::{Applied, Cluster, Inboxes};

struct Node {
    raft: noraft::Node,
    /// The payload of each entry from index 1 on; `None` for entries that are not commands.
    payloads: Vec<Option<Bytes>>,
    applied: usize,
    state: Applied,
}

/// A message and the payloads of its entries.
type Envelope = (Message, Vec<Option<Bytes>>);

pub struct Three {
    nodes: Vec<Node>,
    inboxes: Inboxes<Envelope>,
}

impl Node {
    fn new(at: usize) -> Self {
        Self {
            raft: noraft::Node::start(NodeId::new(at as u64)),
            payloads: Vec::new(),
            applied: 0,
            state: Applied::default(),
        }
    }

    fn receive(&mut self, (message, payloads): Envelope) {
        self.raft.handle_message(&message).expect("an honest message");
        let Message::AppendEntriesCall { entries, .. } = &message else { return };
        let last = entries.last_position();
        if last.index.get() as usize > self.payloads.len()
            && self.raft.log().entries().contains(last)
        {
            self.payloads.truncate(entries.prev_position().index.get() as usize);
            self.payloads.extend(payloads);
        }
    }

    /// Attaches the payloads of a message's entries.
    fn with_payloads(&self, message: Message) -> Envelope {
        let Message::AppendEntriesCall { entries, .. } = &message else {
            return (message, Vec::new());
        };
        let from = entries.prev_position().index.get() as usize;
        let payloads = self.payloads[from..from + entries.len()].to_vec();
        (message, payloads)
    }

    fn apply(&mut self) {
        let commit = self.raft.commit_index().get() as usize;
        for command in self.payloads[self.applied..commit.max(self.applied)].iter().flatten() {
            self.state.apply(command);
        }
        self.applied = commit.max(self.applied);
    }
}

impl Three {
    /// Performs all actions of a node. The iterator yields those of the disk first.
    fn turn(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        // Entries that a leader adds by itself are not commands.
        let last = node.raft.log().last_position().index.get() as usize;
        if node.payloads.len() < last {
            node.payloads.resize(last, None);
        }
        while let Some(action) = node.raft.actions_mut().next() {
            match action {
                Action::BroadcastMessage(message) => {
                    let envelope = node.with_payloads(message);
                    let [one, other] = [(at + 1) % 3, (at + 2) % 3];
                    self.inboxes.send(one, envelope.clone());
                    self.inboxes.send(other, envelope);
                }
                Action::SendMessage(to, message) => {
                    let envelope = node.with_payloads(message);
                    self.inboxes.send(to.get() as usize, envelope);
                }
                Action::InstallSnapshot(_) => panic!("no log is ever compacted"),
                Action::SetElectionTimeout
                | Action::SaveCurrentTerm
                | Action::SaveVotedFor
                | Action::AppendLogEntries(_) => {}
            }
        }
        node.apply();
    }

    fn settle(&mut self) {
        let mut at = 0;
        self.turn(at);
        while let Some(next) = self.inboxes.next(at) {
            at = next;
            let mut arrived = self.inboxes.take(at);
            arrived.drain(..).for_each(|envelope| self.nodes[at].receive(envelope));
            self.inboxes.done(arrived);
            self.turn(at);
        }
    }
}

impl Cluster for Three {
    fn elected() -> Self {
        let mut three = Self { nodes: (0..3).map(Node::new).collect(), inboxes: Inboxes::new() };
        three.nodes[0].raft.create_cluster(&[0, 1, 2].map(NodeId::new));
        three.settle();
        assert_eq!(three.nodes[0].raft.role(), Role::Leader);
        three.heartbeat();
        three.inboxes.sent = 0;
        three
    }

    fn commit(&mut self, batch: usize, command: &[u8]) {
        let leader = &mut self.nodes[0];
        for _ in 0..batch {
            let position = leader.raft.propose_command();
            assert!(!position.is_invalid());
            leader.payloads.push(Some(Bytes::copy_from_slice(command)));
        }
        self.settle();
    }

    fn heartbeat(&mut self) {
        assert!(self.nodes[0].raft.heartbeat());
        self.settle();
    }

    fn counts(&self) -> ([Applied; 3], u64) {
        ([0, 1, 2].map(|at| self.nodes[at].state), self.inboxes.sent)
    }
}
