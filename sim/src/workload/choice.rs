//! The choice of a client's next operation: namespace, kind, keys, values, conditions, level, session.
//!
//! All draws are of the operation's own dice. This module does not send or repeat anything; `client` does.

use bytes::Bytes;
use continuum_core::api::{Change, Context, Edit, Expected, Level, Mutation, Query, Session};

use crate::plan::Workload;
use crate::rng::Dice;
use crate::workload::client::{Client, fingerprint};
use crate::workload::history::{Body, Space, eventual_session_id};

/// Chooses the operation of an index.
pub(super) struct Choice<'a> {
    pub(super) client: &'a mut Client,
    pub(super) op_index: u64,
    pub(super) load: &'a Workload,
    pub(super) dice: &'a mut Dice,
    /// Whether a write takes the session and number of the last one.
    pub(super) reuses: bool,
}

impl Choice<'_> {
    pub(super) fn choose(&mut self) -> (Space, Body, Option<Session>) {
        if self.dice.chance(self.load.strong_ppm) {
            let body = self.choose_strong();
            // A write without a value is recognised in the log by its session only.
            let (writes, bare) = match &body {
                Body::Read(_) => (false, false),
                Body::Write { mutations, .. } => (true, writes_no_value(&mutations[0])),
            };
            let wished = self.dice.chance(self.load.session_ppm);
            let session = (writes && (wished || bare)).then(|| self.session(Space::Strong));
            return (Space::Strong, body, session);
        }
        let space = *self.dice.pick(&[Space::Siblings, Space::Siblings, Space::Discard]);
        let body = self.choose_eventual(space);
        let wished = self.dice.chance(self.load.session_ppm / 2);
        let session = (wished && is_harmless(&body)).then(|| self.session(space));
        (space, body, session)
    }

    /// The session of a write: a next number, or the last one again.
    fn session(&mut self, space: Space) -> Session {
        match self.client.last.get(&space) {
            Some(last) if self.reuses => *last,
            _ if space == Space::Strong => self.client.session(self.op_index),
            _ => {
                let id = eventual_session_id(self.client.number, self.op_index);
                Session { id, seq: 0, request: fingerprint(self.op_index) }
            }
        }
    }

    fn key(&mut self, kind: &str, keys: u64) -> Bytes {
        let hot = self.dice.chance(self.load.hot_ppm);
        let key = self.dice.below(if hot { keys.min(4) } else { keys });
        Bytes::from(format!("{kind}{key:02}"))
    }

    /// A value that no other operation writes, sometimes a long one. `which` tells the values of one operation apart.
    fn value(&mut self, which: &str) -> Bytes {
        let mut value = format!("{}.{}{which}", self.client.number, self.op_index).into_bytes();
        if self.dice.chance(self.load.large_ppm) {
            let length = self.dice.below(self.load.value_bytes_max) as usize;
            value.resize(value.len().max(length), b'.');
        }
        value.into()
    }

    fn choose_strong(&mut self) -> Body {
        let key = self.key("k", self.load.strong_keys);
        if self.dice.chance(self.load.read_ppm) {
            return Body::Read(self.strong_query(key));
        }
        let value = self.value("");
        let change = match self.dice.below(100) {
            0..50 => Change::Put(value),
            50..85 => self.swap(&key, value),
            _ => Change::Delete,
        };
        let mut mutations = vec![mutation(key, change, None)];
        if self.dice.chance(150_000) {
            // Several keys in one command: all are written, or none.
            self.add_strong(&mut mutations);
        }
        let level = match self.dice.below(10) {
            0..3 => Level::Replicated(self.others(self.load.quorum_others)),
            _ => Level::Durable,
        };
        Body::Write { mutations, level }
    }

    /// A compare-and-set of what the client saw last, sometimes a removal.
    fn swap(&mut self, key: &Bytes, value: Bytes) -> Change {
        let seen = self.client.registers.get(key).cloned().unwrap_or_default();
        let by_revision = self.dice.chance(500_000);
        let expected = match (seen.value, seen.revision) {
            (None, _) => Expected::Absent,
            (Some(_), Some(revision)) if by_revision => Expected::Revision(revision.0),
            (Some(value), _) => Expected::Value(value),
        };
        let value = (!self.dice.chance(100_000)).then_some(value);
        Change::Cas { expected, value }
    }

    /// Adds further keys to a command: a value, or a compare-and-set.
    fn add_strong(&mut self, mutations: &mut Vec<Mutation>) {
        for which in ["b", "c"] {
            let key = self.key("k", self.load.strong_keys);
            if mutations.iter().any(|mutation| mutation.key == key) {
                continue;
            }
            let value = self.value(which);
            let swaps = self.dice.chance(300_000);
            let change = if swaps { self.swap(&key, value) } else { Change::Put(value) };
            mutations.push(mutation(key, change, None));
        }
    }

    fn strong_query(&mut self, key: Bytes) -> Query {
        let limit = self.dice.between(1, 8) as u32;
        let after = self.dice.chance(600_000).then(|| key.clone());
        let prefix = Bytes::from_static(b"k");
        let export = self.client.export.as_ref();
        let begin = |prefix, values| Query::Export { from: None, prefix, limit, values };
        match (self.dice.below(20), export) {
            (0, _) => Query::Keys { prefix, after, limit },
            (1, _) => Query::Rows { after, limit },
            // A part of the exports is left alone at some page.
            (2, _) if self.op_index.is_multiple_of(2) => begin(prefix, true),
            (2, None) => begin(Bytes::new(), false),
            (2..12, Some(export)) => export.next.clone(),
            // The same page again, as after a lost answer.
            (12..14, Some(export)) => export.last.clone(),
            _ => Query::Get { key, field: Bytes::new() },
        }
    }

    /// How many other nodes a write asks for.
    fn others(&mut self, most: u8) -> u8 {
        self.dice.between(1, u64::from(most.max(1))).min(u64::from(most)) as u8
    }

    fn choose_eventual(&mut self, space: Space) -> Body {
        let kind = *self.dice.pick(&["r", "r", "s", "s", "c", "o"]);
        let key = self.key(kind, self.load.eventual_keys);
        if self.dice.chance(self.load.read_ppm) {
            let query = self.query(kind, key);
            return Body::Read(self.of_document(query));
        }
        let value = self.value("");
        let seen = self.client.contexts.get(&(space, key.clone()));
        let known = seen.map(|(_, context)| context.clone());
        let (field, change, context) = match kind {
            "r" if self.dice.chance(120_000) => (Bytes::new(), Change::Delete, known),
            "r" => (Bytes::new(), Change::Put(value), self.put_context(&key, known)),
            "s" if self.dice.chance(350_000) => match known {
                // A remove covers only what was seen: it carries the context that this client read.
                Some(context) => (Bytes::new(), Change::Remove(self.member()), Some(context)),
                None => return Body::Read(self.query(kind, key)),
            },
            "s" => (Bytes::new(), Change::Add(self.member()), None),
            "c" => (Bytes::new(), self.count(), None),
            _ => self.edit_record(value),
        };
        let context = match change {
            Change::Delete | Change::Remove(_) => Some(context.unwrap_or_default()),
            _ => context,
        };
        let level = match self.dice.below(5) {
            0..3 => Level::Durable,
            3 => Level::Applied,
            _ => Level::Replicated(self.others(self.load.replica_others)),
        };
        let mut edits = vec![Edit { field, change }];
        if kind == "o" && self.dice.chance(500_000) {
            self.add_edits(&mut edits);
        }
        let mut mutations = vec![Mutation { key, edits, context }];
        if self.dice.chance(150_000) {
            self.add_eventual(&mut mutations);
        }
        for mutation in &mut mutations {
            self.turn_to_document(mutation);
            self.add_context(space, mutation);
        }
        Body::Write { mutations, level }
    }

    /// Some reads of records read a document instead: a record without counters, whose writers say what they overwrite.
    fn of_document(&mut self, query: Query) -> Query {
        match query {
            Query::Record { key } if key.first() == Some(&b'o') && self.dice.chance(500_000) => {
                Query::Record { key: document(&key) }
            }
            query => query,
        }
    }

    /// Some writes of records write a document instead.
    fn turn_to_document(&mut self, mutation: &mut Mutation) {
        if mutation.key.first() != Some(&b'o') || !self.dice.chance(500_000) {
            return;
        }
        mutation.key = document(&mutation.key);
        for (edit, which) in mutation.edits.iter_mut().zip(["g", "h", "i"]) {
            if matches!(edit.change, Change::Count(_)) {
                edit.change = Change::Put(self.value(which));
            }
        }
    }

    /// Some writes of documents and sets carry the context that this client read last, wherever they stand in their
    /// request. Some of them remove what was read.
    fn add_context(&mut self, space: Space, mutation: &mut Mutation) {
        let Mutation { key, edits, context } = mutation;
        let kind = key.first().copied();
        if context.is_some() || !matches!(kind, Some(b'd' | b's')) || !self.dice.chance(600_000) {
            return;
        }
        let Some((_, known)) = self.client.contexts.get(&(space, key.clone())) else { return };
        *context = Some(known.clone());
        if kind == Some(b'd') && self.dice.chance(150_000) {
            *edits = vec![Edit { field: Bytes::new(), change: Change::Delete }];
        } else if kind == Some(b'd') && self.dice.chance(150_000) {
            let field = Bytes::from(format!("f{}", self.dice.below(4)));
            if edits.iter().all(|edit| edit.field != field) {
                edits.push(Edit { field, change: Change::Delete });
            }
        }
    }

    /// Adds edits of other fields to a record.
    fn add_edits(&mut self, edits: &mut Vec<Edit>) {
        for which in ["b", "c"] {
            let value = self.value(which);
            let (field, change, _) = self.edit_record(value);
            if edits.iter().all(|edit| edit.field != field) {
                edits.push(Edit { field, change });
            }
        }
    }

    /// Adds writes of other keys to a request, none with a context.
    fn add_eventual(&mut self, mutations: &mut Vec<Mutation>) {
        for which in ["d", "e"] {
            let kind = *self.dice.pick(&["s", "c", "o"]);
            let key = self.key(kind, self.load.eventual_keys);
            if mutations.iter().any(|mutation| mutation.key == key) {
                continue;
            }
            let value = self.value(which);
            let (field, change, context) = match kind {
                "s" => (Bytes::new(), Change::Add(self.member()), None),
                "c" => (Bytes::new(), self.count(), None),
                _ => self.edit_record(value),
            };
            mutations.push(Mutation { key, edits: vec![Edit { field, change }], context });
        }
    }

    fn count(&mut self) -> Change {
        Change::Count(self.dice.between(0, 1_000) as i64 - 300)
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

    /// Writes to keys with an even number carry the context that was read; the others use what the replica holds.
    fn put_context(&self, key: &Bytes, known: Option<Context>) -> Option<Context> {
        is_strict(key).then(|| known.unwrap_or_default())
    }

    fn member(&mut self) -> Bytes {
        Bytes::from(format!("m{}", self.dice.below(12)))
    }

    fn query(&mut self, kind: &str, key: Bytes) -> Query {
        let field = Bytes::new();
        let limit = self.dice.between(1, 10) as u32;
        let after = self.dice.chance(600_000).then(|| key.clone());
        match (kind, self.dice.below(16)) {
            (_, 0) => Query::Keys { prefix: Bytes::new(), after, limit },
            (_, 1) => Query::Keys { prefix: Bytes::copy_from_slice(kind.as_bytes()), after, limit },
            (_, 2) => Query::Rows { after, limit },
            (_, 3) => Query::Record { key },
            ("r", _) => Query::Get { key, field },
            ("s", _) => Query::Members { key, field },
            ("c", _) => Query::Count { key, field },
            _ => Query::Record { key },
        }
    }
}

/// The document beside a record.
fn document(key: &Bytes) -> Bytes {
    let mut name = key.to_vec();
    name[0] = b'd';
    name.into()
}

/// Whether a repeat on the same node, after a restart that forgot the session, changes nothing: a counter counts twice.
fn is_harmless(body: &Body) -> bool {
    let Body::Write { mutations, .. } = body else { return false };
    let mut edits = mutations.iter().flat_map(|mutation| &mutation.edits);
    edits.all(|edit| !matches!(edit.change, Change::Count(_)))
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
