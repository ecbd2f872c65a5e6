//! Dots: an author gives a dot to one write, so that a dot has one meaning everywhere and for ever (Almeida and others
//! 2018, dotted version vectors; this project's design, section 3, actors).

use continuum_core::replication::WriteInfo;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "dot-minted-once";

/// A write is logged whose dot was known.
pub(crate) fn check(known: &WriteInfo, told: &WriteInfo) -> Verdict {
    if known.hash == told.hash {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{:?} means {known:?} and also {told:?}", told.dot)))
}
