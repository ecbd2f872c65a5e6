//! Bounds on the events per virtual second, and on the events that are scheduled.
//!
//! Messages that answer each other forever, or that multiply, would make a run endless without any wrong step; this law
//! ends such a run. It does not bound what one node holds (`oracle::bounded_memory`), nor how long a run may take in
//! virtual time (`oracle::liveness`).

use crate::env::clock::MS;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "progress";

/// Most events in a virtual second: ten times the most that 300 seeds showed (5,106).
const EVENTS_MAX: u64 = 50_000;
/// Most scheduled events, which are mainly messages in flight. The most that 300 seeds showed is 1,327.
const PENDING_MAX: usize = 50_000;

/// Counts the events of this virtual second.
#[derive(Debug, Default)]
pub(crate) struct ProgressGuard {
    second: u64,
    events: u64,
}

impl ProgressGuard {
    /// Counts one event, while `pending` events are scheduled.
    pub(crate) fn count(&mut self, now: u64, pending: usize) -> Verdict {
        let second = now / (1_000 * MS);
        if second != self.second {
            *self = Self { second, events: 0 };
        }
        self.events += 1;
        if self.events > EVENTS_MAX {
            return Err(endless(EVENTS_MAX, "were handled", second));
        }
        if pending > PENDING_MAX {
            return Err(endless(PENDING_MAX as u64, "are scheduled", second));
        }
        Ok(())
    }
}

fn endless(most: u64, what: &str, second: u64) -> Broken {
    let what = format!("more than {most} events {what} in virtual second {second}");
    Broken::new(NAME, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_events_is_seen_and_a_long_run_is_not() {
        let mut guard = ProgressGuard::default();
        assert!((0..EVENTS_MAX * 3).all(|number| guard.count(number * MS / 10, 0).is_ok()));
        let mut guard = ProgressGuard::default();
        let storm = (0..=EVENTS_MAX).map(|number| guard.count(number, 0)).find(Result::is_err);
        assert_eq!(storm.and_then(Result::err).map(|broken| broken.oracle), Some(NAME));
        assert!(ProgressGuard::default().count(0, PENDING_MAX).is_ok());
        assert!(ProgressGuard::default().count(0, PENDING_MAX + 1).is_err());
    }
}
