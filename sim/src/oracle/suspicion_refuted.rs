//! Law: a node that hears that it is suspected or dead has a higher incarnation when the step ends; no other node can
//! raise it (SWIM, 4.2).
//!
//! Compares the greatest update about the node in a message with the node's own incarnation after the step. It does not
//! judge updates about another boot of the node, nor claims far beyond its own word, which no node believes.

use continuum_core::gossip::{HEARSAY_REFUTATIONS_MAX, Member};

use super::views::Held;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "suspicion-refuted";

/// Judges the end of a step in which this node may have been suspected. A node does not refute updates about another
/// boot.
pub(crate) fn check(own: &Member, about_me: Option<Held>) -> Verdict {
    let mine = (own.incarnation, own.state);
    let is_credible = |claim: &Held| {
        claim.0.boot == mine.0.boot
            && claim.0.refutations <= mine.0.refutations.saturating_add(HEARSAY_REFUTATIONS_MAX)
    };
    match about_me.filter(|claim| is_credible(claim) && *claim > mine) {
        None => Ok(()),
        Some(claim) => {
            let what = format!("a node that was told that it is {claim:?} remains {mine:?}");
            Err(Broken::new(NAME, what))
        }
    }
}
