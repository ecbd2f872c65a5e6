//! Precedence: what is held of a member never goes back in the order of (incarnation, state); only the member itself
//! raises its incarnation (SWIM, 4.2).

use continuum_core::id::NodeId;

use super::views::Held;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "incarnation-precedence";

/// What is held of a member changes.
pub(crate) fn check(member: NodeId, before: Held, now: Held) -> Verdict {
    if now >= before {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{member:?} was {before:?} and is {now:?}")))
}
