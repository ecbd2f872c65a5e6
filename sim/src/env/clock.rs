//! A node's clocks as functions of virtual time: a monotonic clock with a rate, and a wall clock with an offset.
//!
//! Virtual time is nanoseconds since the start of the run. This module reads no real clock.

use continuum_core::machine::Now;
use continuum_core::time::{Instant, WallTime};

/// Virtual nanoseconds per millisecond.
pub(crate) const MS: u64 = 1_000_000;
/// The wall clock at the start of a run, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_800_000_000_000;
const MILLION: u64 = 1_000_000;

/// The clocks of one node.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// The virtual time at which the rate last changed, and what the monotonic clock showed then.
    since: u64,
    mono: u64,
    /// Monotonic nanoseconds per million virtual ones.
    rate: u64,
    /// Offset of the wall clock in milliseconds: the permanent part, and the temporary one.
    jumped: i64,
    skew: i64,
    /// The virtual time that a frozen wall clock shows.
    frozen: Option<u64>,
}

impl Clock {
    /// The clocks of a machine which, at virtual time `at`, has been up for `mono` nanoseconds.
    pub(crate) const fn new(at: u64, mono: u64) -> Self {
        Self { since: at, mono, rate: MILLION, jumped: 0, skew: 0, frozen: None }
    }

    /// Both clocks at virtual time `at`.
    pub(crate) fn now(&self, at: u64) -> Now {
        let shown = self.frozen.unwrap_or(at);
        let wall = EPOCH_MS + (shown / MS) as i64 + self.jumped + self.skew;
        Now { mono: Instant(self.mono_at(at)), wall: WallTime(wall.max(0) as u64) }
    }

    const fn mono_at(&self, at: u64) -> u64 {
        let passed = at.saturating_sub(self.since);
        if self.rate == MILLION {
            return self.mono + passed;
        }
        self.mono + (passed as u128 * self.rate as u128 / MILLION as u128) as u64
    }

    /// The first virtual time at which the monotonic clock shows `deadline` or later.
    pub(crate) const fn when(&self, deadline: Instant) -> u64 {
        let ahead = deadline.0.saturating_sub(self.mono);
        if self.rate == MILLION {
            return self.since.saturating_add(ahead);
        }
        let virtually = (ahead as u128 * MILLION as u128).div_ceil(self.rate as u128);
        if virtually > u64::MAX as u128 {
            u64::MAX
        } else {
            self.since.saturating_add(virtually as u64)
        }
    }

    /// From virtual time `at` on, the monotonic clock runs `ppm` too fast, or, when negative, too slow.
    pub(crate) fn set_drift(&mut self, at: u64, ppm: i64) {
        self.mono = self.mono_at(at);
        self.since = at;
        self.rate = MILLION.saturating_add_signed(ppm.max(-900_000));
    }

    /// Sets the temporary offset of the wall clock.
    pub(crate) fn set_skew(&mut self, ms: i64) {
        self.skew = ms;
    }

    /// Freezes the wall clock at this virtual time, or lets it run on, right again.
    pub(crate) const fn set_frozen(&mut self, at: Option<u64>) {
        self.frozen = at;
    }

    /// Moves the wall clock permanently.
    pub(crate) fn jump(&mut self, ms: i64) {
        self.jumped += ms;
    }

    /// The machine was switched off and on: the monotonic clock starts anew, the wall clock does not.
    pub(crate) const fn reboot(&mut self, at: u64, mono: u64) {
        self.since = at;
        self.mono = mono;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_on_time_and_not_before() {
        for ppm in [-100_000, -37, 0, 41, 99_999] {
            let mut clock = Clock::new(5, 1_000);
            clock.set_drift(777, ppm);
            for deadline in [1_772, 2_000, 999_999, 123_456_789] {
                let at = clock.when(Instant(deadline));
                assert!(clock.now(at).mono >= Instant(deadline), "{ppm} {deadline}");
                assert!(
                    at <= 777 || clock.now(at - 1).mono < Instant(deadline),
                    "{ppm} {deadline}"
                );
            }
        }
    }

    #[test]
    fn drift_never_turns_monotonic_time_back() {
        let mut clock = Clock::new(0, 0);
        let mut last = Instant::ZERO;
        for (at, ppm) in [(10, 50_000), (2_000, -100_000), (9_999, 0), (20_000, 1)] {
            clock.set_drift(at, ppm);
            assert!(clock.now(at).mono >= last);
            last = clock.now(at + 5).mono;
        }
    }

    #[test]
    fn jumps_and_skew_move_only_the_wall_clock() {
        let mut clock = Clock::new(0, 0);
        let before = clock.now(5 * MS);
        clock.jump(-3_000);
        clock.set_skew(1_000);
        let after = clock.now(5 * MS);
        assert_eq!(before.mono, after.mono);
        assert_eq!(before.wall.0 - 2_000, after.wall.0);
    }

    #[test]
    fn freezing_stops_only_the_wall_clock_which_is_right_afterwards() {
        let mut clock = Clock::new(0, 0);
        clock.set_frozen(Some(5 * MS));
        let (early, late) = (clock.now(6 * MS), clock.now(9_000 * MS));
        assert_eq!(early.wall, late.wall);
        assert!(late.mono > early.mono);
        clock.set_frozen(None);
        assert_eq!(clock.now(9_000 * MS).wall.0, early.wall.0 + 8_995);
    }
}
