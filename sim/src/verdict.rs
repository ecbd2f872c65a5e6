//! Verdicts: a law holds, or it was broken.
//!
//! All checks of the simulator return these types. This module contains no law.

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The name of the law.
    pub(crate) oracle: &'static str,
    /// How it was broken.
    pub(crate) what: String,
}

impl Broken {
    pub(crate) const fn new(oracle: &'static str, what: String) -> Self {
        Self { oracle, what }
    }
}

/// Whether a law holds.
pub(crate) type Verdict = Result<(), Broken>;
