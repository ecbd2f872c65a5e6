//! The scene: everything a picture may show, recorded by the world as it happens.
//!
//! A world has a scene only when a picture was requested; other runs pay one comparison. This module does not judge,
//! and does not choose what is shown: `diagram::layout` does.

pub(crate) mod words;

use std::collections::BTreeMap;
use words::{Names, Protocol, Words};

use continuum_core::api::Outcome;
use continuum_core::id::{GroupId, Index, Replica, Role, Term};
use continuum_core::node::{Message, Node};
use continuum_core::wal::Write;

use crate::env::requester::Attempt;
use crate::plan::fault::Fault;

/// A column of the picture: a node, or the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// All clients.
    Clients,
    /// A node.
    Node(usize),
}

/// One arrival of a message: when it is due, and whether it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: u64,
    pub(crate) happened: bool,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) from: Lane,
    pub(crate) to: Lane,
    pub(crate) words: Words,
    /// Empty when the message was lost at once; two when it was duplicated.
    pub(crate) arrivals: Vec<Arrival>,
    /// Why it was lost at once, or what else happened to it.
    pub(crate) fate: Option<&'static str>,
}

/// A batch of a node's log.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) at: u64,
    pub(crate) node: usize,
    pub(crate) writes: Vec<Words>,
    /// When it became durable or was lost; `None` at the end of the run.
    pub(crate) done_at: Option<u64>,
    pub(crate) was_lost: bool,
}

/// A change of a node's state.
#[derive(Clone, Debug)]
pub(crate) enum NodeEvent {
    Role { group: GroupId, role: Role, term: Term },
    Commit { group: GroupId, index: Index },
    Start { is_restart: bool },
    Crash { sectors_lost: u64 },
}

/// A node's event with its time.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) at: u64,
    pub(crate) node: usize,
    pub(crate) event: NodeEvent,
}

/// The time in which a fault is active.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) at: u64,
    pub(crate) until: Option<u64>,
    pub(crate) nodes: Vec<usize>,
    pub(crate) what: String,
    number: usize,
}

/// Everything that was recorded.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) names: Names,
    pub(crate) sent: Vec<Sent>,
    pub(crate) batches: Vec<Batch>,
    pub(crate) moments: Vec<Moment>,
    pub(crate) windows: Vec<Window>,
    /// Writes that wait for the next batch, per node.
    waiting: Vec<Vec<Words>>,
    /// Role, term and commit index of each group, as last seen on each node.
    seen: Vec<BTreeMap<GroupId, (Role, Term, Index)>>,
    /// Messages in flight, by the time and the lanes of their arrival.
    in_flight: BTreeMap<(u64, Lane, Lane), Vec<(usize, usize)>>,
}

impl Scene {
    pub(crate) fn new(replicas: &[Replica]) -> Self {
        Self {
            names: Names::new(replicas),
            sent: Vec::new(),
            batches: Vec::new(),
            moments: Vec::new(),
            windows: Vec::new(),
            waiting: vec![Vec::new(); replicas.len()],
            seen: vec![BTreeMap::new(); replicas.len()],
            in_flight: BTreeMap::new(),
        }
    }

    /// A node sends a message.
    pub(crate) fn sends(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        message: &Message,
        arrivals: &[Option<u64>],
        fate: Option<&'static str>,
    ) {
        let words = words::message(&self.names, message);
        self.add(now, (Lane::Node(from), Lane::Node(to)), words, arrivals, fate);
    }

    /// A client sends a request to a node.
    pub(crate) fn asks(&mut self, now: u64, attempt: Attempt, node: usize, arrives: u64) {
        let words = words::attempt(attempt);
        self.add(now, (Lane::Clients, Lane::Node(node)), words, &[Some(arrives)], None);
    }

    /// A node answers a client.
    pub(crate) fn answers(
        &mut self,
        now: u64,
        node: usize,
        attempt: Attempt,
        outcome: &Outcome,
        arrives: u64,
    ) {
        let words = words::answer(&self.names, attempt, outcome);
        self.add(now, (Lane::Node(node), Lane::Clients), words, &[Some(arrives)], None);
        if let Some(arrival) = self.sent.last_mut().and_then(|sent| sent.arrivals.first_mut()) {
            arrival.happened = true;
        }
    }

    fn add(
        &mut self,
        at: u64,
        (from, to): (Lane, Lane),
        words: Words,
        arrivals: &[Option<u64>],
        fate: Option<&'static str>,
    ) {
        let arrivals: Vec<Arrival> =
            arrivals.iter().flatten().map(|at| Arrival { at: *at, happened: false }).collect();
        for (which, arrival) in arrivals.iter().enumerate() {
            let key = (arrival.at, from, to);
            self.in_flight.entry(key).or_default().push((self.sent.len(), which));
        }
        self.sent.push(Sent { at, from, to, words, arrivals, fate });
    }

    /// A message arrives at a node now.
    pub(crate) fn arrives(&mut self, now: u64, from: Lane, to: usize) {
        let Some(due) = self.in_flight.get_mut(&(now, from, Lane::Node(to))) else { return };
        if !due.is_empty() {
            let (sent, which) = due.remove(0);
            self.sent[sent].arrivals[which].happened = true;
        }
    }

    /// A node took a step.
    pub(crate) fn stepped(&mut self, now: u64, me: usize, node: &Node) {
        for group in node.groups() {
            let Some(raft) = node.raft(group) else { continue };
            let is = (raft.role(), raft.term(), raft.commit());
            let was = self.seen[me].insert(group, is);
            if was == Some(is) {
                continue;
            }
            let (role, term, index) = is;
            if was.is_none_or(|(was, at, _)| (was, at) != (role, term)) {
                let event = NodeEvent::Role { group, role, term };
                self.moments.push(Moment { at: now, node: me, event });
            }
            if was.is_none_or(|(_, _, was)| was != index) && index > Index(0) {
                let event = NodeEvent::Commit { group, index };
                self.moments.push(Moment { at: now, node: me, event });
            }
        }
    }

    /// A node hands its disk a write.
    pub(crate) fn writes(&mut self, node: usize, write: &Write) {
        let words = words::write(&self.names, write);
        self.waiting[node].push(words);
    }

    /// All writes that waited begin to be written.
    pub(crate) fn begins_batch(&mut self, now: u64, node: usize) {
        let writes = std::mem::take(&mut self.waiting[node]);
        let batch = Batch { at: now, node, writes, done_at: None, was_lost: false };
        self.batches.push(batch);
    }

    /// The batch in flight is over.
    fn ends_batch(&mut self, now: u64, node: usize, was_lost: bool) {
        let open = |batch: &&mut Batch| batch.node == node && batch.done_at.is_none();
        if let Some(batch) = self.batches.iter_mut().rev().find(open) {
            (batch.done_at, batch.was_lost) = (Some(now), was_lost);
        }
    }

    /// A node's batch is durable.
    pub(crate) fn synced(&mut self, now: u64, node: usize) {
        self.ends_batch(now, node, false);
    }

    /// A process starts.
    pub(crate) fn starts(&mut self, now: u64, node: usize, is_restart: bool) {
        self.moments.push(Moment { at: now, node, event: NodeEvent::Start { is_restart } });
    }

    /// A process ends.
    pub(crate) fn crashes(&mut self, now: u64, node: usize, sectors_lost: u64) {
        self.ends_batch(now, node, sectors_lost > 0);
        self.waiting[node].clear();
        self.seen[node].clear();
        self.moments.push(Moment { at: now, node, event: NodeEvent::Crash { sectors_lost } });
    }

    /// A fault begins.
    pub(crate) fn fault_begins(&mut self, now: u64, number: usize, fault: &Fault) {
        let window = Window {
            at: now,
            until: None,
            nodes: fault.nodes.clone(),
            what: words::fault(fault),
            number,
        };
        self.windows.push(window);
    }

    /// A fault ends.
    pub(crate) fn fault_ends(&mut self, now: u64, number: usize) {
        let mut windows = self.windows.iter_mut().rev();
        if let Some(window) = windows.find(|window| window.number == number) {
            window.until = Some(now);
        }
    }

    /// The group that last changed on a node, or that it last sent or received a message of.
    pub(crate) fn last_group(&self, node: usize) -> Option<GroupId> {
        let changes = self.moments.iter().filter(|moment| moment.node == node);
        let changes = changes.filter_map(|moment| match moment.event {
            NodeEvent::Role { group, .. } | NodeEvent::Commit { group, .. } => {
                Some((moment.at, group))
            }
            NodeEvent::Start { .. } | NodeEvent::Crash { .. } => None,
        });
        let messages = self.sent.iter().filter_map(|sent| {
            let Protocol::Raft(group) = sent.words.protocol else { return None };
            let received = sent.arrivals.iter().filter(|arrival| arrival.happened);
            let at = match (sent.from, sent.to) {
                (Lane::Node(from), _) if from == node => Some(sent.at),
                (_, Lane::Node(to)) if to == node => received.map(|arrival| arrival.at).max(),
                _ => None,
            };
            Some((at?, group))
        });
        messages.chain(changes).max_by_key(|(at, _)| *at).map(|(_, group)| group)
    }
}
