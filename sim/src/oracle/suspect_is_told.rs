//! Buddy: whoever pings a suspect says so, that it may refute (Lifeguard, IV-C).

use continuum_core::gossip::{Body, Message, State};
use continuum_core::id::NodeId;

use super::views::{Held, accusation};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "suspect-is-told";

/// A message leaves to a member that is held so.
pub(crate) fn check(to: NodeId, held: Held, message: &Message) -> Verdict {
    let pings = matches!(message.body, Body::Ping { .. });
    if !pings || held.1 == State::Alive {
        return Ok(());
    }
    if accusation(to, message).is_some_and(|told| told >= held) {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{to:?} is held {held:?} and is not told: {message:?}")))
}
