//! Live clones: a second process of one identity, on a copy of a running node's disk, beside the node.
//!
//! A clone is where its original is, so a cut of the network strikes both. It dials every peer again and again, and
//! reaches those that have a link to the original: each of them can ask the original whether it lives, and refuses the
//! clone. So nothing that a clone sends is ever for anybody, and it must promise nothing and acknowledge nothing. Its
//! own clients ask it all the while.
//!
//! A clone that no voter has told anything for the grace of a start cannot know what it is. It stands then, and
//! rightly: the fault ends, without a verdict. So it does when a peer takes it for a restart because the original was
//! silent for longer than the clone window; the original's store is then worth nothing, and is replaced. A clone whose
//! original does not run, and which then is the node, is not modelled here.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{Change, Edit, Level, Mutation, Outcome, Query, Request, Value};
use continuum_core::id::{Boot, GroupId, Lineage, NodeId, Replica, RequestId, Token};
use continuum_core::limits::START_GRACE_MS;
use continuum_core::machine::{Machine as _, Outbox};
use continuum_core::node::{Action, Event, Message, Node, Refusal};

use crate::env::clock::{Clock, MS};
use crate::oracle::one_process_per_identity::{self, NAME};
use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::trace::fold;
use crate::verdict::{Broken, Verdict};
use crate::workload::history::Space;
use crate::world::dispatch::{PROTOCOL, tag};
use crate::world::{World, WorldEvent};

/// The pause between two dials of one peer, and between two requests of a clone's clients.
const DIAL_NS: (u64, u64) = (50 * MS, 600 * MS);
const ASK_NS: (u64, u64) = (20 * MS, 200 * MS);
/// How long a clone's sync takes.
const SYNC_NS: u64 = 2 * MS;

/// Something that happens to a clone.
#[derive(Debug)]
pub(crate) enum CloneEvent {
    /// It is given an event.
    Step(Event),
    /// A peer refuses it.
    Refused { by: usize, refusal: Refusal, known: Boot },
    /// Its tick is due.
    Tick { at: u64 },
    /// It dials a peer.
    Dial { peer: usize },
    /// A client asks it.
    Ask,
}

/// A process on a copy of a running node's disk.
#[derive(Debug)]
pub(crate) struct LiveClone {
    of: usize,
    replica: Replica,
    node: Node,
    clock: Clock,
    /// When its next tick is due.
    due: u64,
    /// Requests and dials so far; they number the random draws.
    acts: u64,
    /// Until when its start, or a voter's word, keeps it silent.
    silent_until: u64,
    /// Whether a voter refused it with evidence.
    is_refuted: bool,
}

/// All clones, by the fault that made them, and when their peers last heard of the originals.
#[derive(Debug, Default)]
pub(crate) struct LiveClones {
    clones: BTreeMap<usize, LiveClone>,
    heard: BTreeMap<(usize, usize), u64>,
}

impl LiveClones {
    /// A peer received something from a node.
    pub(crate) fn hears(&mut self, peer: usize, from: usize, now: u64) {
        if !self.clones.is_empty() {
            self.heard.insert((peer, from), now);
        }
    }

    /// The fault that made the clone with this boot.
    fn by_boot(&self, node: NodeId, boot: Boot) -> Option<usize> {
        let is_it = |clone: &LiveClone| clone.replica.node == node && clone.node.boot() == boot;
        self.clones.iter().find(|(_, clone)| is_it(clone)).map(|(fault, _)| *fault)
    }
}

impl World {
    /// Copies the disk of a running process, and starts a second process on the copy.
    pub(crate) fn start_clone(&mut self, fault: usize, of: usize) {
        if !self.may_break(of) || !self.accepts_handshake(of) || self.runs_untrusted(of) {
            return;
        }
        let nonce = self.draws.bits(stream("clone.nonce", fault as u64), 0);
        let Some(node) = self.processes[of].copied(nonce) else { return };
        let replica = self.processes[of].replica;
        let group = node.raft(GroupId::REGISTRY);
        let voters = group.map_or(&[][..], |raft| &raft.configuration().voters);
        if voters.iter().all(|voter| *voter == replica) {
            // It knows nobody who could confirm it.
            return;
        }
        let clock = Clock::new(self.now, 0);
        self.live_clones.clones.insert(
            fault,
            LiveClone {
                of,
                replica,
                node,
                clock,
                due: u64::MAX,
                acts: 0,
                silent_until: self.now + START_GRACE_MS * MS,
                is_refuted: false,
            },
        );
        self.tell_clone(fault, 0, CloneEvent::Step(Event::Tick));
        self.tell_clone(fault, MS, CloneEvent::Ask);
        for peer in (0..self.processes.len()).filter(|peer| *peer != of) {
            self.tell_clone(fault, MS, CloneEvent::Dial { peer });
        }
    }

    /// The clone of a fault ends.
    pub(crate) fn end_clone(&mut self, fault: usize) {
        self.live_clones.clones.remove(&fault);
    }

    fn tell_clone(&mut self, fault: usize, after: u64, event: CloneEvent) {
        self.schedule_in(after, WorldEvent::Clone { fault, event });
    }

    /// Handles what happens to a clone.
    pub(crate) fn on_clone(&mut self, fault: usize, event: CloneEvent) -> Verdict {
        let Some(clone) = self.live_clones.clones.get_mut(&fault) else { return Ok(()) };
        match event {
            CloneEvent::Step(event) => self.step_clone(fault, event),
            CloneEvent::Tick { at } if at == clone.due => self.step_clone(fault, Event::Tick),
            CloneEvent::Tick { .. } => Ok(()),
            CloneEvent::Refused { by, refusal, known } => {
                self.clone_is_refused(fault, by, refusal, known)
            }
            CloneEvent::Dial { peer } => self.clone_dials(fault, peer),
            CloneEvent::Ask => self.ask_clone(fault),
        }
    }

    /// The next random number of a clone, below a bound, on top of `low`.
    fn draw_for_clone(&mut self, fault: usize, (low, high): (u64, u64)) -> u64 {
        let Some(clone) = self.live_clones.clones.get_mut(&fault) else { return low };
        clone.acts += 1;
        self.draws.between(stream("clone.acts", fault as u64), clone.acts, low, high)
    }

    /// One step of a clone. Its writes are durable soon, and nobody gets its messages.
    fn step_clone(&mut self, fault: usize, event: Event) -> Verdict {
        let Some(clone) = self.live_clones.clones.get_mut(&fault) else { return Ok(()) };
        let (of, mut out) = (clone.of, Outbox::new());
        clone.node.step(clone.clock.now(self.now), event, &mut out);
        let wakes_at = |clone: &LiveClone| {
            clone.node.deadline().map_or(u64::MAX, |deadline| clone.clock.when(deadline))
        };
        clone.due = wakes_at(clone).max(self.now + MS / 10);
        let due = clone.due;
        let promises = !clone.node.is_suspended() && !clone.node.is_fenced()
            || out.as_slice().iter().any(is_promise);
        let is_known = clone.is_refuted || self.now < clone.silent_until;
        let is_fenced = clone.node.is_fenced();
        let mut newest: Option<Token> = None;
        for action in out.drain() {
            match action {
                Action::Persist { token, .. } => newest = Some(token),
                Action::Condemn(condemned) => {
                    let voters = self.first_voters();
                    one_process_per_identity::check_condemned(&condemned, of, &voters)?;
                }
                _ => {}
            }
        }
        if promises && is_known {
            let what =
                format!("a copy of node {of} promises unconfirmed, or although a voter refused it");
            return Err(Broken::new(NAME, what));
        }
        if promises || is_fenced {
            self.end_clone(fault);
            return Ok(());
        }
        if let Some(token) = newest {
            self.tell_clone(fault, SYNC_NS, CloneEvent::Step(Event::Persisted { token }));
        }
        if due < u64::MAX {
            self.schedule_at(due, WorldEvent::Clone { fault, event: CloneEvent::Tick { at: due } });
        }
        Ok(())
    }

    /// A client asks a clone for a write of an eventual namespace, or for a linearizable read.
    fn ask_clone(&mut self, fault: usize) -> Verdict {
        let after = self.draw_for_clone(fault, ASK_NS);
        self.tell_clone(fault, after, CloneEvent::Ask);
        let Some(clone) = self.live_clones.clones.get(&fault) else { return Ok(()) };
        let id = RequestId(clone.acts);
        let key = Bytes::from_static(b"of a copy");
        let request = if clone.acts.is_multiple_of(3) {
            let query = Query::Get { key, field: Bytes::new() };
            Request::Read { namespace: Space::Strong.name().to_owned(), query }
        } else {
            let change = Change::Put(Bytes::from_static(b"lost"));
            let edits = vec![Edit { field: Bytes::new(), change }];
            let mutations = vec![Mutation { key, edits, context: None }];
            let namespace = Space::Siblings.name().to_owned();
            Request::Write { namespace, mutations, level: Level::Durable, session: None }
        };
        self.step_clone(fault, Event::Requested { id, request })
    }

    /// A clone dials a peer, and the handshake succeeds if the peer has a link to the original.
    fn clone_dials(&mut self, fault: usize, peer: usize) -> Verdict {
        let after = self.draw_for_clone(fault, DIAL_NS);
        self.tell_clone(fault, after, CloneEvent::Dial { peer });
        let Some(clone) = self.live_clones.clones.get(&fault) else { return Ok(()) };
        let (of, replica) = (clone.of, clone.replica);
        if self.processes[of].replica != replica {
            // The node has another store now, and the clone is not a process of it.
            self.end_clone(fault);
            return Ok(());
        }
        let is_linked = self.network.epoch(of, peer).is_some() && self.network.is_open(of, peer);
        let answers =
            |node: usize| self.accepts_handshake(node) && self.processes[node].step_queue.is_open();
        if !clone.node.is_booted() || !is_linked || !answers(of) || !answers(peer) {
            return Ok(());
        }
        self.fired.count(Kind::LiveClone);
        let (boot, lineage) = (clone.node.boot(), clone.node.lineage().clone());
        if self.is_voting(peer)
            && let Some(clone) = self.live_clones.clones.get_mut(&fault)
        {
            clone.silent_until = clone.silent_until.max(self.now + START_GRACE_MS * MS);
        }
        let other = &self.processes[peer];
        let to_clone = connected(other.replica, other.boot, other.lineage());
        self.step_clone(fault, to_clone)?;
        let print = fold(peer as u64, boot.count);
        self.step(peer, connected(replica, boot, lineage), tag::CONNECTED, print)?;
        if self.oracles.let_in(peer, replica.node) == Some(boot) {
            return self.clone_is_let_in(fault, of, peer);
        }
        Ok(())
    }

    /// A peer takes a clone for a restart of the original. It may, if the original was silent for the clone window.
    fn clone_is_let_in(&mut self, fault: usize, of: usize, peer: usize) -> Verdict {
        let heard = self.live_clones.heard.get(&(peer, of)).copied();
        // Clocks run up to a tenth too fast.
        let window = self.plan.config().node.clone_window_ms * MS * 4 / 5;
        if heard.is_some_and(|at| self.now < at + window) {
            let what =
                format!("node {peer} links a copy of node {of} and has just heard of the original");
            return Err(Broken::new(NAME, what));
        }
        self.end_clone(fault);
        self.end_silently(of);
        if self.may_break(of) {
            self.lose(of);
            self.replace_void_store(of);
        }
        Ok(())
    }

    /// A peer refuses a process. Returns whether that was a clone.
    pub(crate) fn refuses_clone(
        &mut self,
        by: usize,
        (peer, boot): (NodeId, Boot),
        (refusal, known): (Refusal, Boot),
    ) -> bool {
        let Some(fault) = self.live_clones.by_boot(peer, boot) else { return false };
        let latency = self.network.latency(by, by);
        self.tell_clone(fault, latency, CloneEvent::Refused { by, refusal, known });
        true
    }

    /// A clone is told that a peer refuses it, and loses the link.
    fn clone_is_refused(
        &mut self,
        fault: usize,
        by: usize,
        refusal: Refusal,
        known: Boot,
    ) -> Verdict {
        let votes = self.is_voting(by);
        let from = self.processes[by].replica.node;
        let window = self.plan.config().node.clone_window_ms + START_GRACE_MS;
        let Some(clone) = self.live_clones.clones.get_mut(&fault) else { return Ok(()) };
        if votes && refusal == Refusal::Linked {
            clone.silent_until = clone.silent_until.max(self.now + window * MS);
        } else if votes {
            clone.is_refuted = true;
        }
        let message = Message::Refused { refusal, known };
        self.step_clone(fault, Event::Received { from, message })?;
        self.step_clone(fault, Event::Unreachable { peer: from })
    }

    /// Whether a node votes with the store that it has now.
    fn is_voting(&self, node: usize) -> bool {
        node < self.plan.cluster.voters
            && self.oracles.roster.replica(node) == self.processes[node].replica
    }

    /// The voters that the federation began with.
    pub(crate) fn first_voters(&self) -> Vec<NodeId> {
        (0..self.plan.cluster.voters).map(|node| self.oracles.roster.replica(node).node).collect()
    }
}

fn connected(Replica { node: peer, store }: Replica, boot: Boot, lineage: Lineage) -> Event {
    Event::Connected { peer, store, boot, lineage, version: PROTOCOL }
}

/// Whether an action promises something, or speaks for the node.
fn is_promise(action: &Action) -> bool {
    match action {
        Action::Reply { outcome, .. } => match outcome {
            Outcome::Committed { .. } => true,
            Outcome::Value(value) => !matches!(value, Value::Status(_) | Value::Members(_)),
            _ => false,
        },
        Action::Send { message, .. } => {
            use Message::{Confirm, Confirmed, Genesis, Gossip};
            // A copy's genesis is as true as that of its original.
            !matches!(message, Gossip { .. } | Genesis { .. } | Confirm(_) | Confirmed(_))
        }
        _ => false,
    }
}
