//! Client sessions: the last reply of each, so that a write happens exactly once (Raft thesis §6.3).
//!
//! Sessions are part of the replicated state. A retry that reaches the log again gets the stored reply. A session opens
//! with number 0, and is forgotten when the table is full and the session was idle long enough. Time is the group's
//! own, carried in entries, so every replica forgets the same sessions at the same entry. Only the last reply is kept:
//! a client has one write in progress per session, and a higher number says that it got the reply.
//!
//! The promise has a limit: a first write that is retried after its session was forgotten happens again. Clients give
//! up long before [`SESSION_IDLE_MS_MIN`].

use alloc::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::snapshot_map::SnapshotMap;
use crate::api::{Reason, Resource, Session};
use crate::id::SessionId;
use crate::limits::{SESSION_IDLE_MS_MIN, SESSIONS_MAX};
use crate::{mutant, reach};

/// The record of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The number of its last write.
    pub seq: u64,
    /// The reply to that write.
    pub reply: Reply,
    /// Group time of its last use, in milliseconds.
    pub used_ms: u64,
}

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
    /// Sessions by time of last use, so that the longest idle one is found without a scan.
    by_use: BTreeSet<(u64, SessionId)>,
    /// The bound on the table: [`SESSIONS_MAX`], lower in tests and in the simulator.
    sessions_max: usize,
    /// [`SESSION_IDLE_MS_MIN`], lower in the simulator.
    idle_ms_min: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new(SnapshotMap::default())
    }
}

impl Sessions {
    /// The sessions of a restored table.
    pub(super) fn new(table: SnapshotMap<SessionId, Remembered>) -> Self {
        let by_use = table.iter().map(|(id, known)| (known.used_ms, *id)).collect();
        Self { table, by_use, sessions_max: SESSIONS_MAX, idle_ms_min: SESSION_IDLE_MS_MIN }
    }

    /// No sessions, with another bound.
    #[cfg(test)]
    pub(super) fn with_max(sessions_max: usize) -> Self {
        Self { sessions_max, ..Self::default() }
    }

    /// Sets other bounds, after the table was made or restored.
    pub(super) const fn limit(&mut self, sessions_max: usize, idle_ms_min: u64) {
        self.sessions_max = sessions_max;
        self.idle_ms_min = idle_ms_min;
    }

    /// The number of sessions in the table.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
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

    /// Decides whether a command of a session is new, in O(log n).
    pub(super) fn admit(&mut self, session: &Session, time_ms: u64) -> Admission {
        let Some(known) = self.table.get(&session.id) else {
            return self.open(session, time_ms);
        };
        let (seq, used_ms) = (known.seq, known.used_ms);
        if session.seq > seq {
            return Admission::New;
        }
        if session.seq < seq {
            reach!("state.session.older");
            return Admission::Refused(Reason::SessionExpired);
        }
        reach!("state.session.repeated");
        let known = known.clone();
        // A client that retries is not idle.
        self.remember(session.id, Some(used_ms), Remembered { used_ms: time_ms, ..known.clone() });
        Admission::Repeated(known.reply)
    }

    fn open(&mut self, session: &Session, time_ms: u64) -> Admission {
        if session.seq > 0 {
            reach!("state.session.unknown");
            return Admission::Refused(Reason::SessionExpired);
        }
        if self.table.len() >= self.sessions_max && !self.forget_idle(time_ms) {
            reach!("state.session.full");
            return Admission::Refused(Reason::Full { what: Resource::Sessions });
        }
        Admission::New
    }

    /// Forgets the longest idle session, if it was idle long enough. Of equal times the lowest id goes.
    fn forget_idle(&mut self, time_ms: u64) -> bool {
        let Some((used_ms, id)) = self.by_use.first().copied() else { return false };
        if time_ms.saturating_sub(used_ms) < self.idle_ms_min {
            return false;
        }
        reach!("state.session.evicted");
        self.by_use.pop_first();
        self.table.remove(&id);
        true
    }

    /// Records the reply to an admitted command.
    pub(super) fn record(&mut self, session: &Session, time_ms: u64, reply: &Reply) {
        if mutant!("state.session.forgotten") {
            return;
        }
        let before = self.table.get(&session.id).map(|known| known.used_ms);
        let reply = reply.clone();
        let remembered = Remembered { seq: session.seq, reply, used_ms: time_ms };
        self.remember(session.id, before, remembered);
    }

    fn remember(&mut self, id: SessionId, before_ms: Option<u64>, remembered: Remembered) {
        if let Some(used_ms) = before_ms {
            self.by_use.remove(&(used_ms, id));
        }
        self.by_use.insert((remembered.used_ms, id));
        self.table.insert(id, remembered);
        debug_assert_eq!(self.by_use.len(), self.table.len());
    }
}
