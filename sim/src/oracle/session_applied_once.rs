//! Exactly once: a session's command takes effect at its first place in the log and nowhere else, on every replica
//! (Raft thesis, §6.3).
//!
//! The model of `witness` says which place is the first; here a replica's state is asked whether it agrees, command by
//! command, as it applies them.

use bytes::Bytes;
use continuum_core::api::{Query, Reason, Register, Session, Value};
use continuum_core::id::{Index, SessionId};
use continuum_core::state::session::Remembered;
use continuum_core::state::{Reply, StateMachine};

use super::witness::{Effect, Witness};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "session-applied-once";

/// A replica's state applied this entry last.
pub(crate) fn check(witness: &Witness, state: &StateMachine, at: Index) -> Verdict {
    let Some((session, keys, effect)) = witness.session_at(at) else { return Ok(()) };
    match effect {
        Some(effect) => check_new(session, *effect, state.sessions().get(&session.id)),
        None => check_repeated(state, session.id, keys, at),
    }
}

/// A command of a new number: the session remembers what it came to.
pub(crate) fn check_new(session: Session, effect: Effect, held: Option<&Remembered>) -> Verdict {
    let agrees = |held: &&Remembered| match (&held.reply, effect) {
        _ if held.seq != session.seq => false,
        (Reply::Written { revision }, Effect::Written(index)) => *revision == index,
        (Reply::Rejected(Reason::Conflict { revision }), Effect::Conflict(_, found)) => {
            *revision == found
        }
        _ => false,
    };
    if held.filter(agrees).is_some() {
        return Ok(());
    }
    let what = format!("{session:?} came to {effect:?}, and is remembered as {held:?}");
    Err(Broken::new(NAME, what))
}

/// A command of a number that was there before, or of a session that is not open: it writes nothing.
fn check_repeated(state: &StateMachine, id: SessionId, keys: &[Bytes], at: Index) -> Verdict {
    for key in keys {
        let query = Query::Get { key: key.clone(), field: Bytes::new() };
        if let Ok(Value::Register(register)) = state.query(&query) {
            check_untouched(id, key, &register, at)?;
        }
    }
    Ok(())
}

pub(crate) fn check_untouched(id: SessionId, key: &Bytes, held: &Register, at: Index) -> Verdict {
    if held.revision != Some(at) {
        return Ok(());
    }
    let what = format!("a repeated command of session {id:?} at {at} writes {key:?}");
    Err(Broken::new(NAME, what))
}
