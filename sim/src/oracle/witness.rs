//! The witness: what the committed log of a strong namespace says happened.
//!
//! A small model reads the log by `format` and applies it. It shares nothing with `core::state`. It has keys with
//! revisions, and sessions that answer a repeated number with the first answer (Raft thesis, §6.3). `strong` compares
//! what clients were told with it, and `session_applied_once` what replicas apply. A log that cannot be explained,
//! because a command does not decode or a write without a session is in it twice, breaks exactly-once.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{Change, Expected, Mutation, Session};
use continuum_core::id::{Index, SessionId};
use continuum_core::raft::Payload;

use super::ledger::GroupLedger;
use crate::format::command::{self, Command};
use crate::verdict::{Broken, Verdict};

pub(crate) const EXACTLY_ONCE: &str = "exactly-once";

/// The effect of one command, with its index in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// All mutations of the command happened.
    Written(Index),
    /// A condition failed: the key had this revision, or no value.
    Conflict(Index, Option<Index>),
}

impl Effect {
    /// The command's index in the log.
    pub(crate) const fn index(self) -> Index {
        match self {
            Self::Written(index) | Self::Conflict(index, _) => index,
        }
    }
}

/// The versions of a register, each with the index at which it began; a removal is a version without a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    versions: Vec<(Index, Option<Bytes>)>,
}

impl Versions {
    /// The current value and its revision.
    pub(crate) fn current(&self) -> Option<(&Bytes, Index)> {
        let (index, value) = self.versions.last()?;
        value.as_ref().map(|value| (value, *index))
    }

    /// The indexes at which the register changed.
    pub(super) fn changes(&self) -> impl Iterator<Item = u64> + '_ {
        self.versions.iter().map(|(index, _)| index.0)
    }

    /// The register's value after the entry at an index.
    pub(super) fn at(&self, index: Index) -> Option<&Bytes> {
        let later = self.versions.partition_point(|(since, _)| *since <= index);
        self.versions.get(later.checked_sub(1)?)?.1.as_ref()
    }

    /// The ranges of the log in which the register had this value: the first index, and the one after the last.
    pub(crate) fn ranges_of(&self, value: Option<&Bytes>) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        if value.is_none() {
            ranges.push((0, self.versions.first().map_or(u64::MAX, |(index, _)| index.0)));
        }
        for (at, (from, found)) in self.versions.iter().enumerate() {
            if found.as_ref() == value {
                let end = self.versions.get(at + 1).map_or(u64::MAX, |next| next.0.0);
                ranges.push((from.0, end));
            }
        }
        ranges
    }

    /// Whether the register had no value at some index from `floor` on.
    fn is_absent_since(&self, floor: Index) -> bool {
        let mut late = self.versions.iter().rev().take_while(|(index, _)| *index >= floor);
        late.any(|(_, value)| value.is_none())
    }

    /// The revision of a value, which is unique to its write.
    pub(crate) fn revision_of(&self, value: &Bytes) -> Option<Index> {
        let found = self.versions.iter().find(|(_, known)| known.as_ref() == Some(value));
        found.map(|(index, _)| *index)
    }
}

/// How many sessions a group keeps, and how long a session without commands is kept while there is room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRules {
    pub(crate) most: usize,
    pub(crate) idle_ms: u64,
}

/// The last write of a session, and the entry and group time at which it was used last.
#[derive(Clone, Copy, Debug)]
struct Used {
    last: Session,
    at: Index,
    at_ms: u64,
}

/// The model state after the committed log.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) keys: BTreeMap<Bytes, Versions>,
    rules: SessionRules,
    sessions: BTreeMap<SessionId, Used>,
    by_session: BTreeMap<Session, Effect>,
    by_value: BTreeMap<Bytes, Effect>,
    /// By index, the commands of sessions: session, keys, and the effect if the number was new.
    commands: BTreeMap<Index, (Session, Vec<Bytes>, Option<Effect>)>,
    /// The last entry that was applied.
    applied: Index,
}

impl Witness {
    pub(crate) const fn new(rules: SessionRules) -> Self {
        Self {
            keys: BTreeMap::new(),
            rules,
            sessions: BTreeMap::new(),
            by_session: BTreeMap::new(),
            by_value: BTreeMap::new(),
            commands: BTreeMap::new(),
            applied: Index(0),
        }
    }

    /// Applies the entries that the group committed since the last call.
    pub(crate) fn follow(&mut self, ledger: &GroupLedger) -> Verdict {
        while self.applied < ledger.last_committed().index {
            self.applied = self.applied.next();
            let Some(entry) = ledger.committed_entry(self.applied) else { continue };
            let Payload::Command(bytes) = &entry.payload else { continue };
            let command = command::read(bytes).ok_or_else(|| {
                let what = format!("the command at {} follows no format", self.applied);
                Broken::new(EXACTLY_ONCE, what)
            })?;
            self.apply(self.applied, entry.time_ms, &command)?;
        }
        Ok(())
    }

    /// The session's command at an index: session, keys, and the effect if the number was new.
    pub(crate) fn session_at(&self, at: Index) -> Option<(Session, &[Bytes], Option<&Effect>)> {
        let (session, keys, effect) = self.commands.get(&at)?;
        Some((*session, keys, effect.as_ref()))
    }

    /// The length of all keys that have a value, and of these values.
    pub(crate) fn content_bytes(&self) -> u64 {
        let current = self
            .keys
            .iter()
            .filter_map(|(key, known)| known.current().map(|(value, _)| key.len() + value.len()));
        current.sum::<usize>() as u64
    }

    /// Whether a key had no value at some index from `floor` on.
    pub(crate) fn is_absent_since(&self, key: &Bytes, floor: Index) -> bool {
        self.keys.get(key).is_some_and(|versions| versions.is_absent_since(floor))
    }

    /// The effect of an operation, found by its session or else by its first value.
    pub(crate) fn effect(
        &self,
        session: Option<Session>,
        mutations: &[Mutation],
    ) -> Option<Effect> {
        match session {
            Some(session) => self.by_session.get(&session).copied(),
            None => self.by_value.get(value_of(mutations.first()?)?).copied(),
        }
    }

    fn apply(&mut self, index: Index, time_ms: u64, command: &Command) -> Verdict {
        let Some(mutations) = &command.mutations else { return Ok(()) };
        let is_new = command.session.is_none_or(|session| self.admit(session, index, time_ms));
        let effect = is_new.then(|| self.write(index, mutations));
        if let Some(session) = command.session {
            let keys = mutations.iter().map(|mutation| mutation.key.clone()).collect();
            self.commands.insert(index, (session, keys, effect));
        }
        let Some(effect) = effect else { return Ok(()) };
        if let Some(session) = command.session {
            self.by_session.insert(session, effect);
        } else if let Some(value) = mutations.first().and_then(value_of) {
            // A client sends a write without a session once, so a node retried a value that is in the log twice.
            if let Some(first) = self.by_value.insert(value.clone(), effect) {
                let what = format!(
                    "a write without a session is in the log at {} and at {index}",
                    first.index()
                );
                return Err(Broken::new(EXACTLY_ONCE, what));
            }
        }
        Ok(())
    }

    /// Whether a session's write is new. A session opens with number 0. It makes two sessions go that were idle for
    /// long, and in a full table the one that was used longest ago.
    fn admit(&mut self, session: Session, index: Index, time_ms: u64) -> bool {
        let last = self.sessions.get(&session.id).map(|used| used.last);
        let is_new = match last {
            None => session.seq == 0,
            Some(last) => session.seq > last.seq,
        };
        if is_new && last.is_none() {
            self.make_room(time_ms);
        }
        if is_new || last == Some(session) {
            self.sessions.insert(session.id, Used { last: session, at: index, at_ms: time_ms });
        }
        is_new
    }

    fn make_room(&mut self, time_ms: u64) {
        for _ in 0..2 {
            self.forget_oldest(|used| time_ms.saturating_sub(used.at_ms));
        }
        if self.sessions.len() >= self.rules.most {
            self.forget_oldest(|_| u64::MAX);
        }
    }

    /// Forgets the session that was used longest ago, if it was idle long enough.
    fn forget_oldest(&mut self, idle_ms: impl Fn(&Used) -> u64) {
        let oldest = self.sessions.iter().min_by_key(|(_, used)| used.at);
        let oldest = oldest.filter(|(_, used)| idle_ms(used) >= self.rules.idle_ms);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.sessions.remove(&id);
        }
    }

    fn write(&mut self, index: Index, mutations: &[Mutation]) -> Effect {
        for mutation in mutations {
            let current = self.keys.get(&mutation.key).and_then(Versions::current);
            let changes = mutation.edits.iter().map(|edit| &edit.change);
            for change in changes {
                if let Change::Cas { expected, .. } = change
                    && !is_met(expected, current)
                {
                    return Effect::Conflict(index, current.map(|(_, revision)| revision));
                }
            }
        }
        for mutation in mutations {
            let versions = self.keys.entry(mutation.key.clone()).or_default();
            for edit in &mutation.edits {
                let value = match &edit.change {
                    Change::Put(value) => Some(value.clone()),
                    Change::Cas { value, .. } => value.clone(),
                    _ => None,
                };
                versions.versions.push((index, value));
            }
        }
        Effect::Written(index)
    }
}

fn is_met(expected: &Expected, current: Option<(&Bytes, Index)>) -> bool {
    match (expected, current) {
        (Expected::Absent, None) => true,
        (Expected::Revision(wanted), Some((_, revision))) => revision.0 == *wanted,
        (Expected::Value(wanted), Some((value, _))) => value == wanted,
        _ => false,
    }
}

/// The value that a mutation writes; it is unique to the mutation.
fn value_of(mutation: &Mutation) -> Option<&Bytes> {
    match &mutation.edits.first()?.change {
        Change::Put(value) => Some(value),
        Change::Cas { value, .. } => value.as_ref(),
        _ => None,
    }
}
