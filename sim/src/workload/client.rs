//! Clients: each sends one request at a time, waits, and then retries elsewhere or gives up.
//!
//! A client knows only the replies that it got. It decides what it asks of which node; the world carries requests and
//! replies, and the oracles judge the replies.
//!
//! Random draws are positional: the operation, its time, its retries and its mode depend on (client, operation index)
//! alone. An operation whose time comes while the client still waits is skipped. So an operation can be left out
//! (`selected_ops`), and every other one keeps its time, its node and its key. Only what a client cannot know without
//! the missing one changes: contexts, revisions, the first number of a session, and where an export goes on.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{
    Context, Fingerprint, Mutation, Outcome, Query, Reason, Register, Request, Session, Value,
};

use crate::env::clock::MS;
use crate::env::requester::Attempt;
use crate::plan::Workload;
use crate::rng::{Draws, stream};
use crate::workload::choice::Choice;
use crate::workload::history::{Body, Ending, History, Operation, Responder, Space, session_id};

/// Most attempts of one operation.
const ATTEMPTS_MAX: u32 = 6;
/// Most attempts while clients are impatient.
const HASTY_MAX: u32 = 24;
/// This many consecutive operations go to one node first, except those that stray.
const HOME_OPERATIONS: u64 = 8;
const STRAY_PPM: u64 = 200_000;

const PAUSE: &str = "client.pause";
const HOME: &str = "client.home";
const CHOICE: &str = "client.choice";
const NODE: &str = "client.node";
const LATENCY: &str = "client.latency";
const MANNERS: &str = "client.manners";
const SESSION: &str = "client.session";

/// The stream of one operation.
const fn of(label: &str, client: usize, op_index: u64) -> u64 {
    stream(label, (client as u64) << 32 | op_index)
}

/// An action that the world performs for a client.
#[derive(Debug)]
pub(crate) enum ClientAction {
    /// Carry this request to this node.
    Ask { attempt: Attempt, node: usize, request: Request },
    /// Wake the client when it may have to retry.
    Timeout { attempt: Attempt, after_ns: u64 },
    /// Wake the client for its next operation.
    Wake { client: usize, after_ns: u64 },
}

/// The operation that a client waits for.
#[derive(Debug)]
struct Current {
    op_index: u64,
    operation: usize,
    request: Request,
    attempts: u32,
    /// Attempts without an answer so far.
    open: u32,
    /// Whether an attempt may have taken effect.
    tainted: bool,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) number: usize,
    /// The index of its next operation.
    next: u64,
    sessions: u64,
    /// By space, the session and the number of the last write that had them.
    pub(super) last: BTreeMap<Space, Session>,
    /// Whether the present session was begun.
    began: bool,
    /// Whether the present session has more than its first write.
    went_on: bool,
    current: Option<Current>,
    /// The context that was last read or written, per key.
    pub(super) contexts: BTreeMap<(Space, Bytes), (u64, Context)>,
    pub(super) registers: BTreeMap<Bytes, Register>,
    /// The export that it reads.
    pub(super) export: Option<Exporting>,
}

/// An export that a client reads: the page that it has, the one that it asks for next, and the node that has them.
#[derive(Clone, Debug)]
pub(super) struct Exporting {
    pub(super) last: Query,
    pub(super) next: Query,
    node: usize,
}

/// Misbehaviour of all clients at present.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientMode {
    pub(crate) duplicate_ppm: u64,
    pub(crate) abandon_ppm: u64,
    /// How often a write is given the number of the last one in its session.
    pub(crate) reuse_ppm: u64,
    /// How often a hostile client writes beside an honest one.
    pub(crate) hostile_ppm: u64,
    /// Impatient clients repeat a request after this time, if it may be repeated; 0 when clients are patient.
    pub(crate) retry_ms: u64,
    /// Whether clients ask almost without pauses, once `quiet_until` has passed.
    pub(crate) bursts: bool,
    pub(crate) quiet_until: u64,
}

impl ClientMode {
    /// How long clients stay quiet.
    pub(crate) fn quiet_ns(&self, now: u64) -> Option<u64> {
        (self.quiet_until > now).then(|| self.quiet_until - now)
    }
}

/// The misbehaviour that took effect.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Injected {
    pub(crate) duplicated: bool,
    pub(crate) abandoned: bool,
    pub(crate) reused: bool,
}

/// All clients and the replies they got.
#[derive(Debug)]
pub(crate) struct Clients {
    nodes: usize,
    /// The nodes that clients ask, except when they stray: all nodes, and after healing the core. A node outside of the
    /// core may never answer, and its clients are promised nothing. Strays still ask it, so that its answers are
    /// judged.
    pub(crate) homes: Vec<usize>,
    draws: Draws,
    workload: Workload,
    clients: Vec<Client>,
    /// As in `ClientMode`; it also applies to operations in progress.
    pub(crate) retry_ms: u64,
    pub(crate) history: History,
}

impl Clients {
    pub(crate) fn new(nodes: usize, workload: &Workload, draws: Draws) -> Self {
        let client = |number: usize| Client {
            number,
            next: 0,
            sessions: 0,
            last: BTreeMap::new(),
            began: false,
            went_on: false,
            current: None,
            contexts: BTreeMap::new(),
            registers: BTreeMap::new(),
            export: None,
        };
        Self {
            nodes,
            homes: (0..nodes).collect(),
            draws,
            workload: workload.clone(),
            clients: (0..workload.clients).map(client).collect(),
            retry_ms: 0,
            history: History::default(),
        }
    }

    /// Number of clients.
    pub(crate) const fn count(&self) -> usize {
        self.clients.len()
    }

    /// The latency of a client's request, or of the reply to it.
    pub(crate) fn latency(&self, attempt: Attempt, is_reply: bool, (low, high): (u64, u64)) -> u64 {
        let k = u64::from(attempt.number) << 1 | u64::from(is_reply);
        self.draws.between(of(LATENCY, attempt.client, attempt.op_index), k, low, high)
    }

    /// The time of a client's next operation has come.
    pub(crate) fn wake(
        &mut self,
        number: usize,
        now: u64,
        mode: ClientMode,
        actions: &mut Vec<ClientAction>,
    ) -> Injected {
        let client = &mut self.clients[number];
        let op_index = client.next;
        client.next += 1;
        let pause = stream(PAUSE, number as u64);
        let (low, high) = (self.workload.think_ms_min, self.workload.think_ms_max);
        let after_ns = self.draws.between(pause, op_index, low * 1000, high * 1000) * 1000;
        actions.push(ClientAction::Wake { client: number, after_ns });
        let selected = self.workload.only.as_ref().is_none_or(|only| only.holds(number, op_index));
        if client.current.is_some() || !selected {
            return Injected::default();
        }
        let reuses = self.draws.chance(of(MANNERS, number, op_index), 2, mode.reuse_ppm);
        let (operation, reused) = self.call(number, op_index, now, reuses);
        let mut injected = Injected { reused, ..Injected::default() };
        self.attempt(number, actions);
        let name = of(MANNERS, number, op_index);
        let has_session = self.history.operations[operation].session.is_some();
        if has_session && self.draws.chance(name, 0, mode.duplicate_ppm) {
            injected.duplicated = true;
            self.attempt(number, actions);
        }
        if self.draws.chance(name, 1, mode.abandon_ppm) {
            injected.abandoned = true;
            self.give_up(number, now);
        }
        injected
    }

    /// Begins the operation of an index; it `reuses` a number if there is one to reuse. Returns its number in the
    /// history, and whether it does.
    fn call(&mut self, number: usize, op_index: u64, now: u64, reuses: bool) -> (usize, bool) {
        let client = &mut self.clients[number];
        let mut dice = self.draws.dice(of(CHOICE, number, op_index));
        let mut choice = Choice { client, op_index, load: &self.workload, dice: &mut dice, reuses };
        let (space, body, session) = choice.choose();
        let is_reused = session.is_some_and(|session| session.request != fingerprint(op_index));
        let session = session.map(|session| Session { request: fingerprint(op_index), ..session });
        if let Some(session) = session {
            client.last.insert(space, session);
        }
        let seen_at = client.seen_at(space, &body);
        let request = request_of(space, &body, session);
        let operation = self.history.call(Operation {
            client: number,
            op_index,
            space,
            body,
            session,
            seen_at,
            called: now,
            returned: 0,
            ended: Ending::Open,
            answered_by: None,
        });
        client.current =
            Some(Current { op_index, operation, request, attempts: 0, open: 0, tainted: false });
        (operation, is_reused)
    }

    /// A reply arrived.
    pub(crate) fn on_reply(
        &mut self,
        attempt: Attempt,
        now: u64,
        by: Responder,
        outcome: Outcome,
        actions: &mut Vec<ClientAction>,
    ) {
        let client = &mut self.clients[attempt.client];
        let Some(current) = client.current.as_mut() else { return };
        if current.operation != attempt.operation {
            return;
        }
        current.open = current.open.saturating_sub(1);
        match outcome {
            Outcome::Committed { .. }
            | Outcome::Value(_)
            | Outcome::Rejected(Reason::Conflict { .. }) => {
                let operation = &self.history.operations[attempt.operation];
                client.learn(now, operation.space, &operation.body, &outcome);
                client.read_on(&operation.body, &outcome, by.node);
                client.current = None;
                self.history.end(attempt.operation, now, Ending::Answered(outcome), Some(by));
            }
            Outcome::Rejected(Reason::SessionExpired) => {
                // No retry helps: the session is gone.
                self.give_up(attempt.client, now);
                self.clients[attempt.client].begin_session();
            }
            // The number belongs to an earlier write, whether it happened or not.
            Outcome::Rejected(Reason::SessionReused) => self.give_up(attempt.client, now),
            Outcome::Rejected(Reason::ExportExpired) => {
                // No retry helps: another export has another moment.
                client.export = None;
                self.give_up(attempt.client, now);
            }
            Outcome::Rejected(Reason::ForeignContext) => {
                // Its key was replaced twice since. The client reads again before it writes.
                let operation = &self.history.operations[attempt.operation];
                client.forget(operation.space, &operation.body);
                self.give_up(attempt.client, now);
            }
            Outcome::Rejected(_) => self.retry(attempt.client, now, actions),
            Outcome::Unknown { .. } | Outcome::Partial { .. } => {
                current.tainted = true;
                self.retry(attempt.client, now, actions);
            }
        }
    }

    /// An attempt was lost: the connection was refused, or, when `tainted`, broke.
    pub(crate) fn on_lost(
        &mut self,
        attempt: Attempt,
        now: u64,
        tainted: bool,
        actions: &mut Vec<ClientAction>,
    ) {
        let Some(current) = self.clients[attempt.client].current.as_mut() else { return };
        if current.operation == attempt.operation {
            current.open = current.open.saturating_sub(1);
            current.tainted |= tainted;
            self.retry(attempt.client, now, actions);
        }
    }

    /// An attempt took too long. Returns whether an impatient client retries.
    pub(crate) fn on_timeout(
        &mut self,
        attempt: Attempt,
        now: u64,
        actions: &mut Vec<ClientAction>,
    ) -> bool {
        let client = &mut self.clients[attempt.client];
        let Some(current) = client.current.as_mut() else { return false };
        if current.operation != attempt.operation || current.attempts != attempt.number {
            return false;
        }
        // The attempt stays open: it may still take effect.
        current.tainted = true;
        self.retry(attempt.client, now, actions);
        self.retry_ms > 0 && self.clients[attempt.client].current.is_some()
    }

    /// Every client gives up its present operation.
    pub(crate) fn give_up_all(&mut self, now: u64) {
        for number in 0..self.clients.len() {
            if self.clients[number].current.is_some() {
                self.give_up(number, now);
            }
        }
    }

    /// Retries on another node, or ends the operation.
    fn retry(&mut self, number: usize, now: u64, actions: &mut Vec<ClientAction>) {
        let client = &mut self.clients[number];
        let Some(current) = client.current.as_ref() else { return };
        let session = self.history.operations[current.operation].session;
        let is_read = matches!(current.request, Request::Read { .. });
        let may_repeat = session.is_some() || is_read || !current.tainted;
        let most = if self.retry_ms > 0 { HASTY_MAX } else { ATTEMPTS_MAX };
        if may_repeat && current.attempts < most {
            self.attempt(number, actions);
        } else {
            self.give_up(number, now);
        }
    }

    fn attempt(&mut self, number: usize, actions: &mut Vec<ClientAction>) {
        let client = &mut self.clients[number];
        let Some(current) = client.current.as_mut() else { return };
        current.attempts += 1;
        current.open += 1;
        let Current { op_index, operation, attempts, .. } = *current;
        let attempt = Attempt { client: number, op_index, operation, number: attempts };
        // A node remembers the sessions of eventual writes for itself: elsewhere a retry would be another write.
        let space = self.history.operations[operation].space;
        let stays = space != Space::Strong && !matches!(current.request, Request::Read { .. });
        let asks = if stays { Attempt { number: 1, ..attempt } } else { attempt };
        let request = current.request.clone();
        let is_read = matches!(request, Request::Read { .. });
        let home = || Self::node(&self.draws, self.nodes, &self.homes, asks);
        let node = client.exporter(&request).unwrap_or_else(home);
        actions.push(ClientAction::Ask { attempt, node, request });
        // For a request that must not be repeated, a client is never impatient.
        let repeats = is_read || self.history.operations[operation].session.is_some();
        let hasty = repeats && self.retry_ms > 0;
        let after_ms = if hasty { self.retry_ms } else { self.workload.timeout_ms };
        actions.push(ClientAction::Timeout { attempt, after_ns: after_ms * MS });
    }

    /// The node to ask: one node for several consecutive operations, any node when the client strays, another node for
    /// each retry.
    fn node(draws: &Draws, nodes: usize, homes: &[usize], attempt: Attempt) -> usize {
        let Attempt { client, op_index, number, .. } = attempt;
        let name = of(NODE, client, op_index);
        let strays = draws.chance(name, 0, STRAY_PPM);
        if number == 1 && strays {
            return draws.below(name, 1, nodes as u64) as usize;
        }
        let most = homes.len() as u64;
        let home = if number > 1 {
            draws.below(name, u64::from(number), most)
        } else {
            draws.below(stream(HOME, client as u64), op_index / HOME_OPERATIONS, most)
        };
        homes[home as usize]
    }

    fn give_up(&mut self, number: usize, now: u64) {
        let client = &mut self.clients[number];
        let Some(current) = client.current.take() else { return };
        let unknown = current.tainted || current.open > 0;
        let ended = if unknown { Ending::Unknown } else { Ending::Nothing };
        let operation = &self.history.operations[current.operation];
        if operation.session.is_some() && operation.space == Space::Strong {
            // Using the next number would claim that the last answer arrived, which it did not; the client draws
            // whether it does, because both ways must be safe. But a session opens with number 0, and that write may
            // not have happened.
            let anew = self.draws.chance(of(SESSION, number, current.op_index), 0, 500_000);
            if !client.went_on || anew {
                client.begin_session();
            }
        }
        self.history.end(current.operation, now, ended, None);
    }
}

/// The fingerprint of the request of an operation. A client makes one request an operation.
pub(super) fn fingerprint(op_index: u64) -> Fingerprint {
    Fingerprint(u128::from(op_index).to_be_bytes())
}

fn request_of(space: Space, body: &Body, session: Option<Session>) -> Request {
    let namespace = space.name().to_owned();
    match body {
        Body::Read(query) => Request::Read { namespace, query: query.clone() },
        Body::Write { mutations, level } => {
            Request::Write { namespace, mutations: mutations.clone(), level: *level, session }
        }
    }
}

impl Client {
    /// Lets the next write open a new session.
    const fn begin_session(&mut self) {
        self.sessions += 1;
        (self.began, self.went_on) = (false, false);
    }

    /// The session of a write: its first write has number 0, and later ones their operation index plus one.
    pub(super) fn session(&mut self, op_index: u64) -> Session {
        let id = session_id(self.number, self.sessions);
        self.went_on = self.began;
        let seq = if std::mem::replace(&mut self.began, true) { op_index + 1 } else { 0 };
        Session { id, seq, request: fingerprint(op_index) }
    }

    /// When this client learnt the newest of the contexts that a write carries.
    fn seen_at(&self, space: Space, body: &Body) -> u64 {
        let Body::Write { mutations, .. } = body else { return 0 };
        let of = |one: &Mutation| self.contexts.get(&(space, one.key.clone())).map(|(at, _)| *at);
        mutations.iter().filter_map(of).max().unwrap_or(0)
    }

    /// Forgets the contexts that a write carried.
    fn forget(&mut self, space: Space, body: &Body) {
        let Body::Write { mutations, .. } = body else { return };
        for mutation in mutations {
            self.contexts.remove(&(space, mutation.key.clone()));
        }
    }

    /// Remembers where an export goes on.
    fn read_on(&mut self, body: &Body, outcome: &Outcome, node: usize) {
        let (
            Body::Read(Query::Export { from, prefix, limit, values }),
            Outcome::Value(Value::Export(page)),
        ) = (body, outcome)
        else {
            return;
        };
        self.export = page.next.clone().map(|next| {
            let query = |from| {
                let (prefix, limit, values) = (prefix.clone(), *limit, *values);
                Query::Export { from, prefix, limit, values }
            };
            Exporting { last: query(from.clone()), next: query(Some(next)), node }
        });
    }

    /// The node that has the export which a request goes on with.
    fn exporter(&self, request: &Request) -> Option<usize> {
        let goes_on =
            matches!(request, Request::Read { query: Query::Export { from: Some(_), .. }, .. });
        self.export.as_ref().filter(|_| goes_on).map(|export| export.node)
    }

    /// Remembers what later writes will carry.
    fn learn(&mut self, now: u64, space: Space, body: &Body, outcome: &Outcome) {
        match (body, outcome) {
            (Body::Write { mutations, .. }, Outcome::Committed { receipt, .. }) => {
                let key = mutations[0].key.clone();
                if let Some(context) = &receipt.context {
                    self.contexts.insert((space, key), (now, context.clone()));
                } else {
                    self.registers.remove(&key);
                }
            }
            (Body::Read(Query::Get { key, .. }), Outcome::Value(Value::Register(register))) => {
                if space == Space::Strong {
                    self.registers.insert(key.clone(), register.clone());
                } else {
                    let seen = (now, register.context.clone());
                    self.contexts.insert((space, key.clone()), seen);
                }
            }
            (
                Body::Read(Query::Members { key, .. }),
                Outcome::Value(Value::Set { context, .. }),
            ) => {
                self.contexts.insert((space, key.clone()), (now, context.clone()));
            }
            (Body::Read(Query::Record { key }), Outcome::Value(Value::Record { context, .. })) => {
                self.contexts.insert((space, key.clone()), (now, context.clone()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::api::{Level, Receipt};
    use continuum_core::id::{Index, StoreId};

    use super::*;
    use crate::plan::Plan;
    use crate::plan::selected_ops::SelectedOps;

    const OPERATIONS: u64 = 200;

    /// The requests of one client, with times and nodes. Each request is answered within a millisecond, except every
    /// seventh, which is lost twice.
    fn asked(only: Option<SelectedOps>) -> BTreeMap<u64, (u64, Vec<usize>, Request)> {
        let workload = Workload { only, ..Plan::from_seed(3).workload };
        let mut clients = Clients::new(5, &workload, Draws::new(3));
        let (mut asked, mut actions, mut now) = (BTreeMap::new(), Vec::new(), 0);
        for op_index in 0..OPERATIONS {
            clients.wake(0, now, ClientMode::default(), &mut actions);
            let mut nodes = Vec::new();
            let mut pause = 0;
            while let Some(action) = actions.pop() {
                match action {
                    ClientAction::Wake { after_ns, .. } => pause = after_ns,
                    ClientAction::Timeout { .. } => {}
                    ClientAction::Ask { attempt, node, request } => {
                        nodes.push(node);
                        if op_index % 7 == 0 && nodes.len() < 3 {
                            clients.on_lost(attempt, now, false, &mut actions);
                            continue;
                        }
                        let receipt = Receipt {
                            revision: Some(Index(op_index)),
                            context: None,
                            existed: false,
                        };
                        let outcome = Outcome::Committed { level: Level::Durable, receipt };
                        let by =
                            Responder { node, generation: 1, store: StoreId::default(), losses: 0 };
                        asked.insert(op_index, (now, std::mem::take(&mut nodes), request));
                        clients.on_reply(attempt, now + MS, by, outcome, &mut actions);
                    }
                }
            }
            now += pause;
        }
        asked
    }

    #[test]
    fn leaving_an_operation_out_changes_no_other() {
        let all = asked(None);
        assert_eq!(all.len() as u64, OPERATIONS);
        let sessions = all.values().filter(|(_, _, request)| {
            matches!(request, Request::Write { session: Some(session), .. } if session.seq > 0)
        });
        assert!(sessions.count() > 10, "the workload has sessions");
        for left_out in [0, 1, 7, 50, 99] {
            let only = (0..OPERATIONS).filter(|op_index| *op_index != left_out);
            let rest = asked(Some(only.map(|op_index| (0, op_index)).collect()));
            assert_eq!(rest.len() as u64, OPERATIONS - 1);
            for (op_index, (at, nodes, request)) in &rest {
                let (old_at, old_nodes, old) = &all[op_index];
                assert_eq!((at, nodes), (old_at, old_nodes), "operation {op_index}");
                let opens =
                    matches!(request, Request::Write { session: Some(s), .. } if s.seq == 0);
                // The first remaining write of a session opens it.
                let (old, new) = if opens {
                    (strip(old), strip(request))
                } else {
                    (old.clone(), request.clone())
                };
                assert_eq!(old, new, "operation {op_index} without {left_out}");
            }
        }
        assert_eq!(asked(Some(SelectedOps::default())).len(), 0);
    }

    fn strip(request: &Request) -> Request {
        let mut request = request.clone();
        if let Request::Write { session, .. } = &mut request {
            *session = None;
        }
        request
    }

    #[test]
    fn a_client_that_still_waits_skips_its_next_operation() {
        let workload = Workload { clients: 1, ..Plan::from_seed(3).workload };
        let mut clients = Clients::new(3, &workload, Draws::new(3));
        let mut actions = Vec::new();
        clients.wake(0, 0, ClientMode::default(), &mut actions);
        clients.wake(0, 9, ClientMode::default(), &mut actions);
        assert_eq!(clients.history.operations.len(), 1);
        let wakes = actions.iter().filter(|action| matches!(action, ClientAction::Wake { .. }));
        assert_eq!(wakes.count(), 2, "the time of a skipped operation passes all the same");
        clients.give_up_all(10);
        clients.wake(0, 11, ClientMode::default(), &mut actions);
        assert_eq!(clients.history.operations[1].op_index, 2);
    }
}
