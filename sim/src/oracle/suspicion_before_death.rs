//! Law: a node that calls a living member dead by its own probes suspects it first (SWIM, 4.2).
//!
//! Compares each view of a member with the one before it, in steps that received no gossip. It does not judge deaths
//! that gossip reports: another node suspected these.

use continuum_core::gossip::State;
use continuum_core::id::NodeId;

use super::views::Held;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "suspicion-before-death";

/// Judges a changed view of a member; `hears` says whether the step received gossip.
pub(crate) fn check(member: NodeId, before: Held, now: Held, hears: bool) -> Verdict {
    if hears || before.1 != State::Alive || now.1 < State::Dead {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{member:?} was alive and becomes {now:?} without a suspicion")))
}
