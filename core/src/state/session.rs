//! Client sessions: the last reply of each, so that a write happens exactly once (Raft thesis §6.3).
//!
//! Sessions are part of the replicated state. A retry that reaches the log again gets the stored reply; another request
//! under the same number is refused. A session opens with number 0. A full table refuses no new session: it forgets the
//! one that was used longest ago. A session that was not used for [`SESSION_IDLE_MS`] goes when others open. Uses are
//! ordered by the index of their entries and timed by the group's own time, which entries carry, so every replica
//! forgets the same sessions at the same entry. Only the last reply is kept: a client has one write in progress per
//! session, and a higher number says that it got the reply.
//!
//! The promise has a limit: a first write that is retried after its session was forgotten happens again. A later write
//! of a forgotten session is refused. Clients give up long before [`SESSIONS_MAX`] other sessions were used.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::snapshot_map::SnapshotMap;
use crate::api::{Fingerprint, Reason, Session};
use crate::id::{Index, SessionId};
use crate::limits::{SESSION_BYTES, SESSION_IDLE_MS, SESSIONS_MAX};
use crate::{mutant, reach};

/// The record of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The number of its last write.
    pub seq: u64,
    /// The request of that write.
    pub request: Fingerprint,
    /// The reply to that write.
    pub reply: Reply,
    /// The entry of its last use: that write, or a repeat of it.
    pub used: Index,
    /// The group time of that entry, in milliseconds.
    pub used_ms: u64,
}

/// Sessions that are forgotten for their age when one opens: more than one, so that a table shrinks.
const FORGOTTEN_PER_OPENING: usize = 2;

/// The verdict on a command of a session.
pub(super) enum Admission {
    /// The command is new: execute it, and record the reply.
    New,
    /// The command was executed before, with this reply.
    Repeated(Reply),
    /// The command cannot be executed.
    Refused(Reason),
}

/// All sessions of a group.
#[derive(Clone, Debug)]
pub struct Sessions {
    pub(super) table: SnapshotMap<SessionId, Remembered>,
    /// Sessions by their last use, so that the longest unused one is found without a scan. An entry uses one session.
    by_use: BTreeMap<Index, SessionId>,
    /// The bound on the table: [`SESSIONS_MAX`], lower in tests and in the simulator.
    sessions_max: usize,
    /// [`SESSION_IDLE_MS`], lower in the simulator.
    idle_ms: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            table: SnapshotMap::default(),
            by_use: BTreeMap::new(),
            sessions_max: SESSIONS_MAX,
            idle_ms: SESSION_IDLE_MS,
        }
    }
}

impl Sessions {
    /// The sessions of a restored table; `None` when two of them claim the same use.
    pub(super) fn new(table: SnapshotMap<SessionId, Remembered>) -> Option<Self> {
        let by_use: BTreeMap<_, _> = table.iter().map(|(id, known)| (known.used, *id)).collect();
        (by_use.len() == table.len()).then(|| Self { table, by_use, ..Self::default() })
    }

    /// No sessions, with another bound.
    #[cfg(test)]
    pub(super) fn with_max(sessions_max: usize) -> Self {
        Self { sessions_max, ..Self::default() }
    }

    /// Sets other bounds, after the table was made or restored.
    pub(super) const fn limit(&mut self, sessions_max: usize, idle_ms: u64) {
        self.sessions_max = sessions_max;
        self.idle_ms = idle_ms;
    }

    /// The number of sessions in the table.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// The bytes of memory that the table takes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.table.len() as u64 * SESSION_BYTES
    }

    /// The record of a session.
    #[must_use]
    pub fn get(&self, id: &SessionId) -> Option<&Remembered> {
        self.table.get(id)
    }

    /// Whether the table is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Decides whether a command of a session is new, in O(log n). It stands at this index and group time.
    pub(super) fn admit(&mut self, session: &Session, at: (Index, u64)) -> Admission {
        let Some(known) = self.table.get(&session.id) else {
            return self.open(session, at.1);
        };
        if session.seq > known.seq {
            return Admission::New;
        }
        if session.seq < known.seq {
            reach!("state.session.older");
            return Admission::Refused(Reason::SessionExpired);
        }
        if session.request != known.request && !mutant!("state.session.any_request") {
            reach!("state.session.reused");
            return Admission::Refused(Reason::SessionReused);
        }
        reach!("state.session.repeated");
        let known = known.clone();
        let reply = known.reply.clone();
        // A client that retries is not idle.
        self.remember(session.id, Remembered { used: at.0, used_ms: at.1, ..known });
        Admission::Repeated(reply)
    }

    fn open(&mut self, session: &Session, time_ms: u64) -> Admission {
        if session.seq > 0 {
            reach!("state.session.unknown");
            return Admission::Refused(Reason::SessionExpired);
        }
        for _ in 0..FORGOTTEN_PER_OPENING {
            if self.oldest_is_idle(time_ms) {
                reach!("state.session.idle");
                self.forget_oldest();
            }
        }
        if self.table.len() >= self.sessions_max {
            reach!("state.session.evicted");
            self.forget_oldest();
        }
        Admission::New
    }

    fn oldest_is_idle(&self, time_ms: u64) -> bool {
        let oldest = self.by_use.first_key_value().and_then(|(_, id)| self.table.get(id));
        oldest.is_some_and(|known| time_ms.saturating_sub(known.used_ms) >= self.idle_ms)
    }

    /// Forgets the session that was used longest ago.
    fn forget_oldest(&mut self) {
        let newest = mutant!("state.session.newest_goes");
        let found = if newest { self.by_use.pop_last() } else { self.by_use.pop_first() };
        if let Some((_, id)) = found {
            self.table.remove(&id);
        }
    }

    /// Records the reply to an admitted command.
    pub(super) fn record(&mut self, session: &Session, at: (Index, u64), reply: &Reply) {
        if mutant!("state.session.forgotten") {
            return;
        }
        let Session { id, seq, request } = *session;
        let (used, used_ms) = at;
        self.remember(id, Remembered { seq, request, reply: reply.clone(), used, used_ms });
    }

    fn remember(&mut self, id: SessionId, remembered: Remembered) {
        self.by_use.insert(remembered.used, id);
        if let Some(before) = self.table.insert(id, remembered) {
            self.by_use.remove(&before.used);
        }
        debug_assert_eq!(self.by_use.len(), self.table.len());
    }
}
