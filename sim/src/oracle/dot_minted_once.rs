//! Law: an author mints a dot for one write only, so a dot names the same write on all nodes and for ever (Almeida and
//! others 2018, dotted version vectors).
//!
//! Compares the hashes of all logged writes that carry the same dot. It does not judge whether dots are consecutive.

use crate::format::write::Written;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "dot-minted-once";

/// Judges a logged write whose dot is already known.
pub(crate) fn check(known: &Written, write: &Written) -> Verdict {
    if known.hash == write.hash {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{:?} means {known:?} and also {write:?}", write.dot)))
}
