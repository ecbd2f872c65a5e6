//! Liveness after healing, with numbers: a leader, every node serving, equal replicas, each within a bound (Raft, §5.6;
//! the bounds are this project's own).
//!
//! Replicas that are right about the time wait for stamps that are not. A stamp is at most what some wall clock showed
//! when it was made (and some counts, far less than a millisecond). Healing sets all wall clocks right. A replica takes
//! a stamp in as soon as its wall clock is within `ahead_ms_max` of it; so with `a` the most that any clock was ever
//! ahead, the last stamp is taken in at most `a - ahead_ms_max` after the write that carries it, and equality may be
//! asked for that much later.

use crate::env::clock::MS;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "liveness";

/// A leader in every group, after so many election timeouts.
pub(crate) const LEADER_TIMEOUTS: u64 = 20;
/// Every node serves a strong write within so many milliseconds.
pub(crate) const SERVE_MS: u64 = 30_000;
/// Replicas are equal within so many milliseconds of the last write.
pub(crate) const EQUAL_MS: u64 = 30_000;

/// The bound for equality when some clock was so far ahead, and stamps are taken in within a reach.
pub(crate) const fn equal_ms(ahead_ms: u64, reach_ms: u64) -> u64 {
    EQUAL_MS + ahead_ms.saturating_sub(reach_ms)
}

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
