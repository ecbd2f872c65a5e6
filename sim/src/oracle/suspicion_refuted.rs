//! Refutation: who hears that it is suspected is above that when the step ends; nobody but itself can raise its
//! incarnation (SWIM, 4.2).

use continuum_core::gossip::Member;

use super::views::Held;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "suspicion-refuted";

/// A step ends in which this node may have been accused. A claim about another life of it is not its to refute.
pub(crate) fn check(own: &Member, accused: Option<Held>) -> Verdict {
    let mine = (own.incarnation, own.state);
    match accused.filter(|told| told.0.boot == mine.0.boot && *told > mine) {
        None => Ok(()),
        Some(told) => {
            let what = format!("told that it is {told:?}, it goes on as {mine:?}");
            Err(Broken::new(NAME, what))
        }
    }
}
