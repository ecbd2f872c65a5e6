//! Law: a session's command takes effect at its first index in the log and at no other, on every replica (Raft thesis,
//! §6.3).
//!
//! Compares a replica's state, as it applies each command, with the model of `witness`, which knows the first index. It
//! does not judge what clients are told (`strong`).

use bytes::Bytes;
use continuum_core::api::{Query, Reason, Register, Session, Value};
use continuum_core::id::{Index, SessionId};
use continuum_core::state::session::Remembered;
use continuum_core::state::{Reply, StateMachine};

use super::witness::{Effect, Witness};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "session-applied-once";

/// Judges the state of a replica that has just applied the entry `at`.
pub(crate) fn check(witness: &Witness, state: &StateMachine, at: Index) -> Verdict {
    let Some((session, keys, effect)) = witness.session_at(at) else { return Ok(()) };
    match effect {
        Some(effect) => check_new(session, *effect, state.sessions().get(&session.id)),
        None => check_repeated(state, session.id, keys, at),
    }
}

/// Judges a command with a new number: the session remembers its effect.
pub(crate) fn check_new(session: Session, effect: Effect, held: Option<&Remembered>) -> Verdict {
    let agrees = |held: &&Remembered| match (&held.reply, effect) {
        _ if (held.seq, held.request) != (session.seq, session.request) => false,
        (Reply::Written { revision, .. }, Effect::Written(index)) => *revision == index,
        (Reply::Rejected(Reason::Conflict { revision, .. }), Effect::Conflict(_, found)) => {
            *revision == found
        }
        _ => false,
    };
    if held.filter(agrees).is_some() {
        return Ok(());
    }
    let what = format!("{session:?} had the effect {effect:?}, and is remembered as {held:?}");
    Err(Broken::new(NAME, what))
}

/// Judges a command with a repeated number, or of a session that is not open: it writes nothing.
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
