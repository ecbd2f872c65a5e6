//! How much may happen in a second of virtual time, and how much may be about to happen.
//!
//! Messages that answer each other without end, or that multiply, would make a run endless without any step that is
//! wrong in itself: here they break a law of their own. What a single node holds is bounded in `oracle::bounds`, and
//! how long a run may take in virtual time in `oracle::liveness`.

use crate::env::clock::MS;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "progress";

/// Happenings of a virtual second: ten times the most of 300 seeds (5,106).
const HAPPENINGS_MAX: u64 = 50_000;
/// Happenings that are planned and have not come, messages under way above all; the most of 300 seeds is 1,327.
const PENDING_MAX: usize = 50_000;

/// What has happened in this virtual second.
#[derive(Debug, Default)]
pub(crate) struct ProgressGuard {
    second: u64,
    happened: u64,
}

impl ProgressGuard {
    /// Counts what happens now, while so many happenings are planned.
    pub(crate) fn count(&mut self, now: u64, pending: usize) -> Verdict {
        let second = now / (1_000 * MS);
        if second != self.second {
            *self = Self { second, happened: 0 };
        }
        self.happened += 1;
        if self.happened > HAPPENINGS_MAX {
            return Err(endless(HAPPENINGS_MAX, "happen", second));
        }
        if pending > PENDING_MAX {
            return Err(endless(PENDING_MAX as u64, "are about to happen", second));
        }
        Ok(())
    }
}

fn endless(most: u64, what: &str, second: u64) -> Broken {
    let what = format!("more than {most} things {what} in virtual second {second}");
    Broken::new(NAME, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_seen_and_a_long_run_is_not() {
        let mut pace = ProgressGuard::default();
        assert!((0..HAPPENINGS_MAX * 3).all(|number| pace.count(number * MS / 10, 0).is_ok()));
        let mut pace = ProgressGuard::default();
        let storm = (0..=HAPPENINGS_MAX).map(|number| pace.count(number, 0)).find(Result::is_err);
        assert_eq!(storm.and_then(Result::err).map(|broken| broken.oracle), Some(NAME));
        assert!(ProgressGuard::default().count(0, PENDING_MAX).is_ok());
        assert!(ProgressGuard::default().count(0, PENDING_MAX + 1).is_err());
    }
}
