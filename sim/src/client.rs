//! The clients: each asks one thing at a time, waits, asks again elsewhere, or gives up.
//!
//! A client knows only what it was told. It decides whom to ask what; the world carries requests and replies. What a
//! reply should have been is judged by the oracles, not here.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::node::api::{
    Change, Context, Edit, Expected, Level, Mutation, Outcome, Query, Reason, Register, Request,
    Session, Value,
};

use crate::clock::MS;
use crate::draw::{Dice, Draws, stream};
use crate::history::{Asked, Body, Ended, History, Operation, Space, session_id};
use crate::plan::Workload;

/// Attempts of one operation.
const ATTEMPTS_MAX: u32 = 6;
/// The same while clients are impatient.
const HASTY_MAX: u32 = 24;

/// What the world does for a client.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Carry this request to this node.
    Ask { attempt: Attempt, node: usize, request: Request },
    /// Wake the client when it may have to ask again.
    Timeout { attempt: Attempt, after_ns: u64 },
    /// Wake the client for its next operation.
    Wake { client: usize, after_ns: u64 },
}

/// One request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) client: usize,
    pub(crate) operation: usize,
    pub(crate) number: u32,
}

/// What the client waits for.
#[derive(Debug)]
struct Current {
    operation: usize,
    request: Request,
    attempts: u32,
    /// Attempts without an answer so far.
    open: u32,
    /// Whether an attempt may have had an effect.
    tainted: bool,
}

/// One client.
#[derive(Debug)]
struct Client {
    dice: Dice,
    home: usize,
    sessions: u64,
    seq: u64,
    current: Option<Current>,
    written: u64,
    /// What was last read or written of a key.
    contexts: BTreeMap<(Space, Bytes), (u64, Context)>,
    registers: BTreeMap<Bytes, Register>,
}

/// Rates of what clients do wrong at present.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) duplicate_ppm: u64,
    pub(crate) abandon_ppm: u64,
    /// After how long what can be asked twice is, if clients are impatient.
    pub(crate) retry_ms: u64,
    /// Whether clients ask without a pause, but not before this time.
    pub(crate) bursts: bool,
    pub(crate) quiet_until: u64,
}

impl Manners {
    /// For how long nobody asks yet.
    pub(crate) fn quiet_ns(&self, now: u64) -> Option<u64> {
        (self.quiet_until > now).then(|| self.quiet_until - now)
    }
}

/// What of it happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Misbehaved {
    pub(crate) duplicated: bool,
    pub(crate) abandoned: bool,
}

/// All clients and what they were told.
#[derive(Debug)]
pub(crate) struct Clients {
    nodes: usize,
    workload: Workload,
    clients: Vec<Client>,
    /// As in the manners: it concerns what is under way as well.
    pub(crate) retry_ms: u64,
    pub(crate) history: History,
}

impl Clients {
    pub(crate) fn new(nodes: usize, workload: &Workload, draws: Draws) -> Self {
        let client = |number: usize| Client {
            dice: draws.dice(stream("client", number as u64)),
            home: number % nodes,
            sessions: 0,
            seq: 0,
            current: None,
            written: 0,
            contexts: BTreeMap::new(),
            registers: BTreeMap::new(),
        };
        Self {
            nodes,
            workload: workload.clone(),
            clients: (0..workload.clients).map(client).collect(),
            retry_ms: 0,
            history: History::default(),
        }
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.clients.len()
    }

    /// A client begins its next operation.
    pub(crate) fn wake(
        &mut self,
        number: usize,
        now: u64,
        manners: Manners,
        errands: &mut Vec<Errand>,
    ) -> Misbehaved {
        let client = &mut self.clients[number];
        if client.current.is_some() {
            return Misbehaved::default();
        }
        let (space, body, session) = client.choose(number, &self.workload);
        let seen_at = client.seen_at(space, &body);
        let request = request_of(space, &body, session);
        let operation = self.history.call(Operation {
            space,
            body,
            session,
            seen_at,
            called: now,
            returned: 0,
            ended: Ended::Open,
            answered: None,
        });
        client.current = Some(Current { operation, request, attempts: 0, open: 0, tainted: false });
        let mut misbehaved = Misbehaved::default();
        self.attempt(number, errands);
        let client = &mut self.clients[number];
        if session.is_some() && client.dice.chance(manners.duplicate_ppm) {
            misbehaved.duplicated = true;
            self.attempt(number, errands);
        }
        if self.clients[number].dice.chance(manners.abandon_ppm) {
            misbehaved.abandoned = true;
            self.give_up(number, now, errands);
        }
        misbehaved
    }

    /// An answer arrived.
    pub(crate) fn told(
        &mut self,
        attempt: Attempt,
        now: u64,
        by: Asked,
        outcome: Outcome,
        errands: &mut Vec<Errand>,
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
                client.current = None;
                self.history.end(attempt.operation, now, Ended::Told(outcome), Some(by));
                self.rest(attempt.client, errands);
            }
            Outcome::Rejected(Reason::SessionExpired) => {
                // No retry mends that.
                self.give_up(attempt.client, now, errands);
                let client = &mut self.clients[attempt.client];
                client.sessions += 1;
                client.seq = 0;
            }
            Outcome::Rejected(_) => self.retry(attempt.client, now, errands),
            Outcome::Unknown { .. } => {
                current.tainted = true;
                self.retry(attempt.client, now, errands);
            }
        }
    }

    /// An attempt was lost: the connection was refused, or broke when `tainted`.
    pub(crate) fn failed(
        &mut self,
        attempt: Attempt,
        now: u64,
        tainted: bool,
        errands: &mut Vec<Errand>,
    ) {
        let Some(current) = self.clients[attempt.client].current.as_mut() else { return };
        if current.operation == attempt.operation {
            current.open = current.open.saturating_sub(1);
            current.tainted |= tainted;
            self.retry(attempt.client, now, errands);
        }
    }

    /// An attempt took too long. Returns whether a client that is impatient asks again.
    pub(crate) fn timed_out(
        &mut self,
        attempt: Attempt,
        now: u64,
        errands: &mut Vec<Errand>,
    ) -> bool {
        let client = &mut self.clients[attempt.client];
        let Some(current) = client.current.as_mut() else { return false };
        if current.operation != attempt.operation || current.attempts != attempt.number {
            return false;
        }
        // It is still open: whatever it does, it may do later.
        current.tainted = true;
        self.retry(attempt.client, now, errands);
        self.retry_ms > 0 && self.clients[attempt.client].current.is_some()
    }

    /// Every client gives up what it waits for.
    pub(crate) fn give_up_all(&mut self, now: u64) {
        let mut errands = Vec::new();
        for number in 0..self.clients.len() {
            if self.clients[number].current.is_some() {
                self.give_up(number, now, &mut errands);
            }
        }
    }

    /// Asks again elsewhere, or ends the operation.
    fn retry(&mut self, number: usize, now: u64, errands: &mut Vec<Errand>) {
        let client = &mut self.clients[number];
        let Some(current) = client.current.as_ref() else { return };
        let session = self.history.operations[current.operation].session;
        let is_read = matches!(current.request, Request::Read { .. });
        let may_repeat = session.is_some() || is_read || !current.tainted;
        let most = if self.retry_ms > 0 { HASTY_MAX } else { ATTEMPTS_MAX };
        if may_repeat && current.attempts < most {
            client.home = client.dice.below(self.nodes as u64) as usize;
            self.attempt(number, errands);
        } else {
            self.give_up(number, now, errands);
        }
    }

    fn attempt(&mut self, number: usize, errands: &mut Vec<Errand>) {
        let client = &mut self.clients[number];
        let Some(current) = client.current.as_mut() else { return };
        current.attempts += 1;
        current.open += 1;
        let attempt =
            Attempt { client: number, operation: current.operation, number: current.attempts };
        let away = current.attempts > 1 || client.dice.chance(200_000);
        let node = if away { client.dice.below(self.nodes as u64) as usize } else { client.home };
        errands.push(Errand::Ask { attempt, node, request: current.request.clone() });
        // What must not be asked twice is waited for as ever.
        let is_read = matches!(current.request, Request::Read { .. });
        let repeats = is_read || self.history.operations[current.operation].session.is_some();
        let hasty = repeats && self.retry_ms > 0;
        let after_ms = if hasty { self.retry_ms } else { self.workload.timeout_ms };
        errands.push(Errand::Timeout { attempt, after_ns: after_ms * MS });
    }

    fn give_up(&mut self, number: usize, now: u64, errands: &mut Vec<Errand>) {
        let client = &mut self.clients[number];
        let Some(current) = client.current.take() else { return };
        let unknown = current.tainted || current.open > 0;
        let ended = if unknown { Ended::Unknown } else { Ended::Nothing };
        if self.history.operations[current.operation].session.is_some() {
            client.go_on();
        }
        self.history.end(current.operation, now, ended, None);
        self.rest(number, errands);
    }

    fn rest(&mut self, number: usize, errands: &mut Vec<Errand>) {
        let (low, high) = (self.workload.think_ms_min, self.workload.think_ms_max);
        let after_ns = self.clients[number].dice.between(low * 1000, high * 1000) * 1000;
        errands.push(Errand::Wake { client: number, after_ns });
    }
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
    fn choose(&mut self, number: usize, load: &Workload) -> (Space, Body, Option<Session>) {
        if self.dice.chance(load.strong_ppm) {
            let body = self.choose_strong(number, load);
            // What writes no value of its own is known again in the log by its session alone.
            let (writes, bare) = match &body {
                Body::Read(_) => (false, false),
                Body::Write { mutations, .. } => (true, writes_no_value(&mutations[0])),
            };
            let wished = self.dice.chance(load.session_ppm);
            let session = (writes && (wished || bare)).then(|| {
                self.seq += 1;
                Session { id: session_id(number, self.sessions), seq: self.seq - 1 }
            });
            return (Space::Strong, body, session);
        }
        let space = *self.dice.pick(&[Space::Siblings, Space::Siblings, Space::Discard]);
        (space, self.choose_eventual(number, space, load), None)
    }

    /// A write of the session ended without an answer that counts.
    const fn go_on(&mut self) {
        // The next number says that the last answer arrived, which it did not: both ways must be safe. But a session
        // opens with its number 0, which may not have happened.
        if self.seq == 1 || self.dice.chance(500_000) {
            self.sessions += 1;
            self.seq = 0;
        }
    }

    /// When this client learnt the context that a write carries.
    fn seen_at(&self, space: Space, body: &Body) -> u64 {
        let Body::Write { mutations, .. } = body else { return 0 };
        self.contexts.get(&(space, mutations[0].key.clone())).map_or(0, |(at, _)| *at)
    }

    fn key(&mut self, kind: &str, keys: u64, load: &Workload) -> Bytes {
        let hot = self.dice.chance(load.hot_ppm);
        let key = self.dice.below(if hot { keys.min(4) } else { keys });
        Bytes::from(format!("{kind}{key:02}"))
    }

    /// A value that nobody else writes, sometimes long.
    fn value(&mut self, number: usize, load: &Workload) -> Bytes {
        self.written += 1;
        let mut value = format!("{number}.{}", self.written).into_bytes();
        if self.dice.chance(load.large_ppm) {
            let length = self.dice.below(load.value_bytes_max) as usize;
            value.resize(value.len().max(length), b'.');
        }
        value.into()
    }

    fn choose_strong(&mut self, number: usize, load: &Workload) -> Body {
        let key = self.key("k", load.strong_keys, load);
        if self.dice.chance(load.read_ppm) {
            return Body::Read(Query::Get { key, field: Bytes::new() });
        }
        let value = self.value(number, load);
        let change = match self.dice.below(100) {
            0..50 => Change::Put(value),
            50..85 => {
                let seen = self.registers.get(&key).cloned().unwrap_or_default();
                let expected = match (seen.value, seen.revision) {
                    (None, _) => Expected::Absent,
                    (Some(_), Some(revision)) if self.dice.chance(500_000) => {
                        Expected::Revision(revision.0)
                    }
                    (Some(value), _) => Expected::Value(value),
                };
                let value = (!self.dice.chance(100_000)).then_some(value);
                Change::Cas { expected, value }
            }
            _ => Change::Delete,
        };
        let mut mutations = vec![mutation(key.clone(), change, None)];
        if self.dice.chance(100_000) {
            // Two keys in one command: both happen, or none.
            let second = self.key("k", load.strong_keys, load);
            if second != key && matches!(mutations[0].edits[0].change, Change::Put(_)) {
                let value = self.value(number, load);
                mutations.push(mutation(second, Change::Put(value), None));
            }
        }
        Body::Write { mutations, level: Level::Durable }
    }

    fn choose_eventual(&mut self, number: usize, space: Space, load: &Workload) -> Body {
        let kind = *self.dice.pick(&["r", "r", "s", "s", "c", "o"]);
        let key = self.key(kind, load.eventual_keys, load);
        if self.dice.chance(load.read_ppm) {
            return Body::Read(self.query(kind, key));
        }
        let value = self.value(number, load);
        let known = self.contexts.get(&(space, key.clone())).map(|(_, context)| context.clone());
        let (field, change, context) = match kind {
            "r" if self.dice.chance(120_000) => (Bytes::new(), Change::Delete, known),
            "r" => (Bytes::new(), Change::Put(value), self.put_context(&key, known)),
            "s" if self.dice.chance(350_000) => match known {
                // Only what was seen is removed: a member seen by this client, under the context that it came with.
                Some(context) => (Bytes::new(), Change::Remove(self.member()), Some(context)),
                None => return Body::Read(self.query(kind, key)),
            },
            "s" => (Bytes::new(), Change::Add(self.member()), None),
            "c" => (Bytes::new(), Change::Count(self.dice.between(0, 1_000) as i64 - 300), None),
            _ => self.edit_record(value),
        };
        let context = match change {
            Change::Delete | Change::Remove(_) => Some(context.unwrap_or_default()),
            _ => context,
        };
        let level = *self.dice.pick(&[
            Level::Durable,
            Level::Durable,
            Level::Durable,
            Level::Applied,
            Level::Replicated(1),
        ]);
        let edits = vec![Edit { field, change }];
        Body::Write { mutations: vec![Mutation { key, edits, context }], level }
    }

    fn edit_record(&mut self, value: Bytes) -> (Bytes, Change, Option<Context>) {
        let field = Bytes::from(format!("f{}", self.dice.below(4)));
        let change = match self.dice.below(3) {
            0 => Change::Put(value),
            1 => Change::Add(self.member()),
            _ => Change::Count(1),
        };
        (field, change, None)
    }

    /// Keys with an even number are written under what was read; the others under what the replica holds.
    fn put_context(&self, key: &Bytes, known: Option<Context>) -> Option<Context> {
        is_strict(key).then(|| known.unwrap_or_default())
    }

    fn member(&mut self) -> Bytes {
        Bytes::from(format!("m{}", self.dice.below(12)))
    }

    fn query(&mut self, kind: &str, key: Bytes) -> Query {
        let field = Bytes::new();
        match (kind, self.dice.below(20)) {
            (_, 0) => Query::Keys { prefix: Bytes::new(), after: None, limit: 10 },
            (_, 1) => Query::Rows { after: None, limit: 5 },
            ("r", _) => Query::Get { key, field },
            ("s", _) => Query::Members { key, field },
            ("c", _) => Query::Count { key, field },
            _ => Query::Record { key },
        }
    }

    /// Remembers what a later write carries.
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
            _ => {}
        }
    }
}

fn writes_no_value(mutation: &Mutation) -> bool {
    matches!(mutation.edits[0].change, Change::Delete | Change::Cas { value: None, .. })
}

fn mutation(key: Bytes, change: Change, context: Option<Context>) -> Mutation {
    Mutation { key, edits: vec![Edit { field: Bytes::new(), change }], context }
}

/// Whether writers of this register always say what they overwrite.
pub(crate) fn is_strict(key: &[u8]) -> bool {
    key.first() == Some(&b'r') && key.last().is_some_and(|digit| digit % 2 == 0)
}
