//! Law: after healing, every group has a leader, every node serves, and replicas become equal, each within a stated
//! bound (Raft, §5.6; the bounds are this project's own).
//!
//! Compares the time that each took, counted from healing, with its bound. It does not judge progress while faults
//! last.
//!
//! No bound depends on a wall clock: a stamp decides no visibility, whatever clock it came from.

use crate::env::clock::MS;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "liveness";

/// Election timeouts within which every group has a leader.
pub(crate) const LEADER_TIMEOUTS: u64 = 20;
/// Milliseconds within which every node serves a strong write.
pub(crate) const SERVE_MS: u64 = 30_000;
/// Milliseconds after the last write within which replicas are equal.
pub(crate) const EQUAL_MS: u64 = 30_000;

/// How long each goal took, in virtual nanoseconds after healing; `None` if it was not reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Until every group had a leader.
    pub leader_ns: Option<u64>,
    /// Until each node had served a strong write.
    pub served_ns: Option<u64>,
    /// Until replicas were equal, counted from the end of the last write.
    pub equal_ns: Option<u64>,
}

/// Judges a goal that must be reached within a bound.
pub(crate) fn check(what: &str, reached: bool, waited_ns: u64, bound_ms: u64) -> Verdict {
    if reached || waited_ns <= bound_ms * MS {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{what}: not within {bound_ms} ms after healing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_bound_is_seen() {
        assert_eq!(check("x", true, u64::MAX, 1), Ok(()));
        assert_eq!(check("x", false, 5 * MS, 5), Ok(()));
        assert!(check("x", false, 5 * MS + 1, 5).is_err());
    }
}
