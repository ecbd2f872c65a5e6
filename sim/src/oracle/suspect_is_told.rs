//! Law: a ping to a suspect carries the suspicion, so that the suspect can refute it (Lifeguard, IV-C: buddy system).
//!
//! Compares the updates in a ping with the sender's view of the receiver. It does not judge other messages of gossip.

use continuum_core::gossip::{Body, Message, State};
use continuum_core::id::Replica;

use super::views::{Held, greatest_update};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "suspect-is-told";

/// Judges a message to a member of which the sender has the view `held`.
pub(crate) fn check(to: Replica, held: Held, message: &Message) -> Verdict {
    let pings = matches!(message.body, Body::Ping { .. });
    if !pings || held.1 == State::Alive {
        return Ok(());
    }
    if greatest_update(to, message).is_some_and(|update| update >= held) {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{to:?} is seen as {held:?} and is not told so: {message:?}")))
}
