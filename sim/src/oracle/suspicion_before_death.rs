//! Suspicion first: no probe of one's own makes a living member dead at once (SWIM, 4.2).

use continuum_core::gossip::State;
use continuum_core::id::NodeId;

use super::views::Held;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "suspicion-before-death";

/// What is held of a member changes, by gossip or by what this node found out itself.
pub(crate) fn check(member: NodeId, before: Held, now: Held, hears: bool) -> Verdict {
    if hears || before.1 != State::Alive || now.1 < State::Dead {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{member:?} was alive, and is {now:?} at once")))
}
