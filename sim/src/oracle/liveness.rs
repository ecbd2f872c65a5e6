//! Liveness after healing, with numbers: a leader, every node serving, equal replicas, each within a bound (Raft, §5.6;
//! the bounds are this project's own).

use super::{Broken, Verdict};
use crate::clock::MS;

pub(crate) const NAME: &str = "liveness";

/// A leader in every group, after so many election timeouts.
pub(crate) const LEADER_TIMEOUTS: u64 = 20;
/// Every node serves a strong write within so many milliseconds.
pub(crate) const SERVE_MS: u64 = 30_000;
/// Replicas are equal within so many milliseconds of the last write.
pub(crate) const EQUAL_MS: u64 = 30_000;

/// What was reached when, in virtual nanoseconds after healing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Every group has a leader.
    pub leader_ns: Option<u64>,
    /// Each node served a strong write.
    pub served_ns: Option<u64>,
    /// Replicas are equal, counted from the end of the last write.
    pub equal_ns: Option<u64>,
}

/// Something has to be reached by now.
pub(crate) fn check(what: &str, reached: bool, waited_ns: u64, bound_ms: u64) -> Verdict {
    if reached || waited_ns <= bound_ms * MS {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{what}: not within {bound_ms} ms of calm")))
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
