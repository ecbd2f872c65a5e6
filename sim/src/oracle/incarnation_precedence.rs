//! Law: a node's view of a member never goes back in the order of (incarnation, state); only the member itself raises
//! its incarnation (SWIM, 4.2). The member's own word replaces what others say of its process, because others may
//! lie.
//!
//! Compares each view of a member with the one before it. It does not judge whether the member is alive.

use continuum_core::id::NodeId;

use super::views::Held;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "incarnation-precedence";

/// Judges a changed view of a member; `is_own_word` says whether the step received gossip of that very member.
pub(crate) fn check(member: NodeId, before: Held, now: Held, is_own_word: bool) -> Verdict {
    if now >= before || is_own_word && now.0.boot != before.0.boot {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{member:?} was {before:?} and is {now:?}")))
}
