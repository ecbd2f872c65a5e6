//! The life of a client request, from its arrival to its one answer.
//!
//! A request that cannot be answered at once becomes *pending*, under a key. Each new try gets a new key, so a late
//! report about an earlier try finds no request. The key is also the request's Raft ticket, its first replication
//! ticket and its number when forwarded.
//!
//! `check` refuses what is out of bounds, `strong` proposes and reads, `forward` asks another node, `eventual` serves
//! from the replicator, `export` reads pages of one moment, `dedup` remembers eventual writes. This module does not
//! know what a command does (`state`, `replication`).

mod check;
mod dedup;
mod eventual;
mod export;
mod forward;
mod strong;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{Bound, Level, Outcome, Reason, Request, Resource, Session, Value};
use crate::digest::Hasher;
use crate::hold::Waits;
use crate::id::{AskId, GroupId, NodeId, Replica, RequestId, Writer};
use crate::limits::UNPERSISTED_BYTES_MAX;
use crate::raft::Position;
use crate::time::Instant;
use crate::{mutant, reach};

use super::machine::{Node, Task, Timer};
use super::{Action, Message};

pub use export::ExportFigures;
pub(super) use export::ExportState;

/// The node's own questions that are remembered. It asks a few peers a few times per second, and repeats each question
/// as long as it needs the answer.
const QUESTIONS_MAX: usize = 256;

/// The asker of a request, who gets its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this node.
    Client(RequestId),
    /// A node that forwarded the request, and the request's number there.
    Peer(Replica, AskId),
}

/// The event that a pending request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its next try.
    New,
    /// A linearizable read of the registry, because this node knows no namespace of that name.
    ResolvingName,
    /// A leader of the group.
    Waiting(GroupId),
    /// The group's Raft, which is to log the proposal or to find an index to read at.
    Asked(GroupId),
    /// The entry that is applied at this position's index: it decides the proposal.
    Logged(GroupId, Position),
    /// The read's index, which the group's state on this node has not reached.
    Reading(GroupId),
    /// The answer of another node.
    Forwarded(Replica),
    /// Other replicas of an eventual write. Its records are durable here with this token of the lane.
    Replicating(u64),
    /// The answer to an earlier request of the same session and number.
    Duplicate,
    /// The bootstrap of the federation.
    Bootstrap,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) origin: Origin,
    pub(super) request: Request,
    pub(super) stage: Stage,
    /// When it is answered at the latest.
    timeout: Instant,
    /// When its timer fires; never after `timeout`.
    wake: Instant,
    /// Whether an earlier try may have been logged somewhere.
    logged: bool,
    /// Whether a linearizable read of the registry has looked for its namespace.
    name_checked: bool,
    /// How many tickets it holds, from its key on: one for each mutation.
    ticket_count: u64,
    /// The progress of an eventual write.
    progress: eventual::Progress,
}

/// All requests that are not answered yet.
#[derive(Debug)]
pub(super) struct Requests {
    /// The nonce of this process, which every question to another node carries.
    nonce: u64,
    /// The next key.
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// The keys of requests that were forwarded, by peer.
    forwarded: BTreeSet<(NodeId, u64)>,
    /// The node's own questions that were not answered, and the replica that was asked.
    questions: BTreeMap<u64, Replica>,
    eventual_writes: dedup::EventualWrites,
}

impl Requests {
    pub(super) const fn new(nonce: u64, answers_max: usize) -> Self {
        Self {
            nonce,
            next: 1,
            pending: BTreeMap::new(),
            forwarded: BTreeSet::new(),
            questions: BTreeMap::new(),
            eventual_writes: dedup::EventualWrites::new(answers_max),
        }
    }

    /// Bytes of the answers that are kept for repeats.
    pub(super) const fn answer_bytes(&self) -> u64 {
        self.eventual_writes.bytes()
    }

    /// How many requests are pending.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The node itself asks a peer, without a client.
    pub(super) fn question(&mut self, to: Replica, request: Request) -> Message {
        let number = self.key(1);
        self.questions.insert(number, to);
        if self.questions.len() > QUESTIONS_MAX {
            self.questions.pop_first();
        }
        self.forwarding(to, number, request)
    }

    /// Takes out the node's own question that this replica answers.
    fn take_question(&mut self, from: Replica, id: AskId) -> bool {
        let asked = id.nonce == self.nonce && self.questions.get(&id.number) == Some(&from);
        asked && self.questions.remove(&id.number).is_some()
    }

    /// The message that asks a peer under this number.
    fn forwarding(&self, to: Replica, number: u64, request: Request) -> Message {
        let mut open = self.forwarded.range((to.node, 0)..=(to.node, number));
        let open = open.next().map_or(number, |(_, lowest)| *lowest);
        Message::Forward { id: AskId { nonce: self.nonce, number }, open, request }
    }

    fn key(&mut self, ticket_count: u64) -> u64 {
        let key = self.next;
        self.next += ticket_count;
        key
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.next);
        for (key, pending) in &self.pending {
            hash.value(&(key, pending.timeout, pending.logged, pending.ticket_count));
        }
        self.eventual_writes.digest(hash);
    }
}

impl Node {
    /// A client of this node sends a request.
    pub(super) fn on_requested(&mut self, id: RequestId, request: Request) {
        let origin = Origin::Client(id);
        match request {
            Request::Init { voters } => self.on_init(id, voters),
            // Only a node may ask to join: its link proves its identity.
            Request::Join { .. } => {
                let formed = self.is_formed();
                let reason = if formed { Reason::AlreadyFormed } else { Reason::NotFormed };
                self.answer(origin, Outcome::Rejected(reason));
            }
            request => self.accept(origin, request),
        }
    }

    /// Takes a request from a client or a peer, and answers it or makes it pending.
    pub(super) fn accept(&mut self, origin: Origin, request: Request) {
        if let Some(outcome) = self.immediate_answer(&request) {
            return self.answer(origin, outcome);
        }
        if let Err(reason) = self.admit(&request) {
            return self.answer(origin, Outcome::Rejected(reason));
        }
        if let Some(outcome) = self.read_at_once(&request) {
            return self.answer(origin, outcome);
        }
        let key = self.add(origin, request, Stage::New);
        self.submit(key);
    }

    /// Answers what the node knows of itself, even when it serves nothing else.
    fn immediate_answer(&self, request: &Request) -> Option<Outcome> {
        match request {
            Request::Status => Some(Outcome::Value(Value::Status(Box::new(self.status())))),
            Request::Members => Some(Outcome::Value(Value::Members(self.members()))),
            _ => None,
        }
    }

    /// Refuses a request that the node cannot take now.
    fn admit(&self, request: &Request) -> Result<(), Reason> {
        if self.phase.stopping {
            return Err(Reason::Stopping);
        }
        if !self.is_formed() {
            return Err(Reason::NotFormed);
        }
        if self.is_suspended() {
            reach!("node.request.suspended");
            return Err(Reason::NoLeader);
        }
        check::check(request)?;
        self.check_level(request)?;
        if self.requests.len() >= self.config.bounds.requests {
            reach!("node.request.busy");
            return Err(Reason::Busy);
        }
        if !is_write(request) {
            return Ok(());
        }
        let may_remove = check::only_removes(request) && !mutant!("node.storage.refuses_deletes");
        if self.phase.disk_full && !may_remove {
            reach!("node.request.disk_full");
            return Err(Reason::Full { what: Resource::Disk });
        }
        if self.gate.unpersisted_bytes() >= UNPERSISTED_BYTES_MAX {
            reach!("node.request.disk_slow");
            return Err(Reason::Busy);
        }
        if check::grows(request) && self.own_memory_bytes() >= self.config.node.memory_bytes_max {
            reach!("node.request.memory_full");
            return Err(Reason::Full { what: Resource::Memory });
        }
        Ok(())
    }

    /// Refuses a level that asks for more replicas than there are members, before anything is written.
    fn check_level(&self, request: &Request) -> Result<(), Reason> {
        let Request::Write { level: Level::Replicated(wanted), .. } = request else {
            return Ok(());
        };
        let members = self.registry().map_or(1, |registry| registry.members().count());
        check::within(Bound::Replicas, usize::from(*wanted), 0, members.saturating_sub(1))
    }

    /// Makes a request pending, with its timeout.
    pub(super) fn add(&mut self, origin: Origin, request: Request, stage: Stage) -> u64 {
        let ticket_count = match &request {
            Request::Write { mutations, .. } => mutations.len() as u64,
            _ => 1,
        };
        let key = self.requests.key(ticket_count.max(1));
        let timeout = Duration::from_millis(self.config.node.request_timeout_ms);
        let timeout = self.arm(timeout, Timer::Request(key));
        let pending = Pending {
            origin,
            request,
            stage,
            timeout,
            wake: timeout,
            logged: false,
            name_checked: false,
            ticket_count: ticket_count.max(1),
            progress: eventual::Progress::default(),
        };
        self.requests.pending.insert(key, pending);
        key
    }

    /// Takes a request out, with every reference to its key.
    fn remove_pending(&mut self, key: u64) -> Option<Pending> {
        let pending = self.requests.pending.remove(&key)?;
        self.disarm(pending.wake, Timer::Request(key));
        match pending.stage {
            Stage::Waiting(group) => {
                self.groups.get_mut(&group).map(|group| group.waiting.remove(&key));
            }
            Stage::Forwarded(to) => {
                self.requests.forwarded.remove(&(to.node, key));
                self.coordinator.machine.withdraw(to.node);
            }
            _ => {}
        }
        Some(pending)
    }

    /// Gives a request a new key for its next try, and returns that key.
    fn rekey(&mut self, key: u64) -> Option<u64> {
        let mut pending = self.remove_pending(key)?;
        let renewed = self.requests.key(pending.ticket_count);
        pending.stage = Stage::New;
        pending.wake = pending.timeout;
        self.arm_at(pending.timeout, Timer::Request(renewed));
        self.requests.pending.insert(renewed, pending);
        Some(renewed)
    }

    /// Tries a request again in this step.
    fn retry(&mut self, key: u64) {
        if let Some(key) = self.rekey(key) {
            self.enqueue(Task::Submit(key));
        }
    }

    /// Schedules the next try one election timeout from now, unless the request's timer fires before that.
    fn schedule_retry(&mut self, key: u64) {
        let after = Duration::from_millis(self.config.raft.election_timeout_ms);
        let at = self.now.mono + after;
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if at >= pending.wake {
            return;
        }
        let before = core::mem::replace(&mut pending.wake, at);
        self.disarm(before, Timer::Request(key));
        self.arm_at(at, Timer::Request(key));
    }

    /// Sets what a request waits for.
    fn set_stage(&mut self, key: u64, stage: Stage) {
        if let Some(pending) = self.requests.pending.get_mut(&key) {
            pending.stage = stage;
        }
    }

    /// Tries a request: serves, proposes or forwards it, or lets it wait.
    pub(super) fn submit(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        match &pending.request {
            Request::CreateNamespace { .. }
            | Request::DeleteNamespace { .. }
            | Request::RotateKey { .. }
            | Request::Join { .. } => self.write_strong(key, GroupId::REGISTRY),
            Request::Namespaces => self.read_strong(key, GroupId::REGISTRY),
            Request::Read { .. } | Request::Write { .. } => self.submit_named(key),
            Request::Init { .. } | Request::Status | Request::Members => {}
        }
    }

    /// Resolves the namespace. A node that does not know it asks group 0 before it refuses, because a learner may lag.
    fn submit_named(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let (Request::Read { namespace, .. } | Request::Write { namespace, .. }) = &pending.request
        else {
            return;
        };
        let found = self.namespace(namespace);
        let is_write = is_write(&pending.request);
        match found {
            Some(target) => match (target.group, is_write) {
                (Some(group), true) => self.write_strong(key, group),
                (Some(group), false) => self.read_strong(key, group),
                (None, true) if self.phase.disk_stalled => {
                    reach!("node.request.disk_stalled");
                    self.refuse(key, Reason::DiskStalled);
                }
                (None, true) => self.write_eventual(key, target),
                (None, false) => self.read_eventual(key, target),
            },
            None if pending.name_checked => self.refuse(key, Reason::UnknownNamespace),
            None => {
                reach!("node.request.resolving_name");
                self.set_stage(key, Stage::ResolvingName);
                self.read_index(key, GroupId::REGISTRY);
            }
        }
    }

    /// Answers a request and forgets it.
    pub(super) fn finish(&mut self, key: u64, outcome: Outcome) {
        let boot = self.gate.boot();
        self.finish_after(key, outcome, boot);
    }

    /// Answers a request once the lane is durable up to `token`, and forgets it.
    pub(super) fn finish_after(&mut self, key: u64, outcome: Outcome, token: u64) {
        if let Some(pending) = self.remove_pending(key) {
            self.end_eventual(key, &pending, &outcome, token);
            if mutant!("node.request.answered_twice") {
                self.answer_after(pending.origin, outcome.clone(), token);
            }
            self.answer_after(pending.origin, outcome, token);
        }
    }

    /// Ends a request that could not be done now: unknown when an earlier try may have been logged, else rejected.
    fn refuse(&mut self, key: u64, reason: Reason) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let outcome = if pending.logged {
            Outcome::Unknown { reached: None }
        } else {
            Outcome::Rejected(reason)
        };
        self.finish(key, outcome);
    }

    /// Answers the asker. An answer that says that something happened waits for this process's boot to be durable. An
    /// eventual write waits for its own token instead, see `eventual`.
    pub(super) fn answer(&mut self, origin: Origin, outcome: Outcome) {
        let boot = self.gate.boot();
        self.answer_after(origin, outcome, boot);
    }

    /// Answers once the lane is durable up to `token`.
    fn answer_after(&mut self, origin: Origin, outcome: Outcome, token: u64) {
        match origin {
            Origin::Client(id) => {
                let promises = self.promises(&outcome);
                let reply = Action::Reply { id, outcome };
                let reply = if promises {
                    self.gate.release_when_durable(token, reply, Waits::Always)
                } else {
                    Some(reply)
                };
                if let Some(reply) = reply {
                    self.emit(reply);
                }
            }
            Origin::Peer(peer, id) => {
                self.send_after(peer, Message::Answer { id, outcome }, token);
            }
        }
    }

    /// Whether an answer promises something: that a write happened; and, from a process in doubt, that what it read is
    /// so.
    fn promises(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Committed { .. }
            | Outcome::Partial { .. }
            | Outcome::Value(Value::Initialized) => true,
            Outcome::Value(Value::Status(_) | Value::Members(_)) => false,
            Outcome::Value(_) => self.is_suspended(),
            _ => false,
        }
    }

    /// A request's timer fires: the request expires or is tried again.
    pub(super) fn on_request_due(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if self.now.mono >= pending.timeout {
            return self.expire(key);
        }
        reach!("node.request.retried");
        self.retry_or_wait(key);
    }

    /// Tries a request again if that is harmless, and else lets it wait for its timeout.
    fn retry_or_wait(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        let timeout = pending.timeout;
        match pending.stage {
            Stage::Waiting(_) | Stage::Asked(_) | Stage::ResolvingName => self.retry(key),
            Stage::Forwarded(_) if pending.may_repeat() => {
                pending.logged |= is_write(&pending.request);
                self.retry(key);
            }
            _ => {
                pending.wake = timeout;
                self.arm_at(timeout, Timer::Request(key));
            }
        }
    }

    /// Answers a request whose timeout is reached.
    fn expire(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        reach!("node.request.expired");
        let stage = pending.stage;
        let outcome = match stage {
            Stage::Replicating(token) => {
                let reached =
                    if self.gate.is_durable(token) { Level::Durable } else { Level::Applied };
                Outcome::Unknown { reached: Some(reached) }
            }
            Stage::Bootstrap => return self.bootstrap_expired(key),
            Stage::Logged(..) | Stage::Duplicate => Outcome::Unknown { reached: None },
            Stage::Forwarded(_) if is_write(&pending.request) => Outcome::Unknown { reached: None },
            Stage::Asked(_) if is_write(&pending.request) => Outcome::Unknown { reached: None },
            _ if pending.logged => Outcome::Unknown { reached: None },
            _ => Outcome::Rejected(Reason::NoLeader),
        };
        if let Stage::Forwarded(to) = stage {
            self.forward_ended(key, to.node, false);
        }
        self.finish(key, outcome);
    }

    /// Refuses what no try of has been logged or asked for yet, because the node stops.
    pub(super) fn refuse_unlogged(&mut self) {
        if mutant!("node.stop.answers_at_once") {
            return self.answer_all();
        }
        let waits = |pending: &Pending| {
            matches!(pending.stage, Stage::New | Stage::ResolvingName | Stage::Waiting(_))
        };
        let pending = self.requests.pending.iter().filter(|(_, pending)| waits(pending));
        let keys: Vec<u64> = pending.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.refuse(key, Reason::Stopping));
    }

    /// Answers every pending request, because the node stops or is fenced: unknown when it may have been logged.
    pub(super) fn answer_all(&mut self) {
        while let Some((&key, pending)) = self.requests.pending.first_key_value() {
            let is_unknown = match pending.stage {
                Stage::Logged(..) | Stage::Replicating(_) | Stage::Duplicate => true,
                Stage::Forwarded(_) | Stage::Asked(_) => is_write(&pending.request),
                Stage::Bootstrap => self.is_formed(),
                _ => pending.logged,
            };
            let outcome = if is_unknown {
                Outcome::Unknown { reached: None }
            } else {
                Outcome::Rejected(Reason::Stopping)
            };
            self.finish(key, outcome);
        }
    }

    /// The token that a promise of the shards waits for.
    fn shards_token(&self) -> u64 {
        self.gate.newest(Writer::Shards)
    }
}

impl Pending {
    /// The session that makes a repeat harmless, if the request has one.
    fn session(&self) -> Option<Session> {
        match &self.request {
            Request::CreateNamespace { session, .. }
            | Request::DeleteNamespace { session, .. }
            | Request::RotateKey { session }
            | Request::Write { session, .. } => *session,
            _ => None,
        }
    }

    /// Whether a second try is harmless even if the first was logged.
    fn may_repeat(&self) -> bool {
        // A replica that joins twice is a member once.
        let harmless = matches!(self.request, Request::Join { .. }) || !is_write(&self.request);
        harmless || self.session().is_some() || mutant!("node.session.retry_without")
    }
}

/// Whether a request changes anything.
fn is_write(request: &Request) -> bool {
    match request {
        Request::CreateNamespace { .. }
        | Request::DeleteNamespace { .. }
        | Request::RotateKey { .. }
        | Request::Join { .. }
        | Request::Init { .. }
        | Request::Write { .. } => true,
        Request::Status | Request::Members | Request::Namespaces | Request::Read { .. } => false,
    }
}
