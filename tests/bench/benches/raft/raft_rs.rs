//! `raft` from crates.io, which is TiKV's raft-rs.

use raft::eraftpb::{Entry, EntryType, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode};

use super::{Applied, Cluster, Inboxes};

struct Node {
    raft: RawNode<MemStorage>,
    state: Applied,
}

pub struct Three {
    nodes: Vec<Node>,
    inboxes: Inboxes<Message>,
}

impl Node {
    fn new(at: usize) -> Self {
        let config = Config {
            id: at as u64 + 1,
            election_tick: 10,
            heartbeat_tick: 3,
            // The same as ours: appends of at most 256 KiB, pre-vote and check-quorum.
            max_size_per_msg: 256 << 10,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            batch_append: true,
            ..Config::default()
        };
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, storage, &logger).expect("a valid configuration");
        Self { raft, state: Applied::default() }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if entry.entry_type == EntryType::EntryNormal {
                self.state.apply(&entry.data);
            }
        }
    }
}

impl Three {
    /// Handles everything that the node has ready. Its disk syncs at once.
    fn turn(&mut self, at: usize) {
        let (node, inboxes) = (&mut self.nodes[at], &mut self.inboxes);
        let mut send = |messages: Vec<Message>| {
            messages.into_iter().for_each(|m| inboxes.send(m.to as usize - 1, m));
        };
        while node.raft.has_ready() {
            let mut ready = node.raft.ready();
            send(ready.take_messages());
            let committed = ready.take_committed_entries();
            node.apply(committed);
            {
                let mut storage = node.raft.mut_store().wl();
                storage.append(ready.entries()).expect("entries that follow");
                if let Some(hard) = ready.hs() {
                    storage.set_hardstate(hard.clone());
                }
            }
            send(ready.take_persisted_messages());
            let mut light = node.raft.advance(ready);
            if let Some(commit) = light.commit_index() {
                node.raft.mut_store().wl().mut_hard_state().commit = commit;
            }
            send(light.take_messages());
            let committed = light.take_committed_entries();
            node.apply(committed);
            node.raft.advance_apply();
        }
    }

    fn settle(&mut self) {
        let mut at = 0;
        self.turn(at);
        while let Some(next) = self.inboxes.next(at) {
            at = next;
            let mut arrived = self.inboxes.take(at);
            for message in arrived.drain(..) {
                self.nodes[at].raft.step(message).expect("an honest message");
            }
            self.inboxes.done(arrived);
            self.turn(at);
        }
    }
}

impl Cluster for Three {
    fn elected() -> Self {
        let mut three = Self { nodes: (0..3).map(Node::new).collect(), inboxes: Inboxes::new() };
        three.nodes[0].raft.campaign().expect("a voter");
        three.settle();
        assert_eq!(three.nodes[0].raft.raft.state, raft::StateRole::Leader);
        three.heartbeat();
        // The first entry of a leader is not a command.
        three.nodes.iter_mut().for_each(|node| node.state = Applied::default());
        three.inboxes.sent = 0;
        three
    }

    fn commit(&mut self, batch: usize, command: &[u8]) {
        for _ in 0..batch {
            self.nodes[0].raft.propose(Vec::new(), command.to_vec()).expect("it leads");
        }
        self.settle();
    }

    fn heartbeat(&mut self) {
        self.nodes[0].raft.ping();
        self.settle();
    }

    fn counts(&self) -> ([Applied; 3], u64) {
        ([0, 1, 2].map(|at| self.nodes[at].state), self.inboxes.sent)
    }
}
