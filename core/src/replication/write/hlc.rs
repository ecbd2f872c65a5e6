//! The hybrid logical clock (Kulkarni and others, 2014): 48 bits of milliseconds and a 16-bit counter in one `u64`.
//!
//! If the author of a write knew another write, the other write's stamp is smaller. Only stamps from the future are
//! checked; a stamp from the past is always accepted. The clock never goes back, not even over a restart: there it
//! starts from the greatest stamp among the records. This module does not decide how far ahead a stamp may be;
//! `sync::receive` does.

use crate::time::WallTime;

/// Bits of the counter.
const COUNTER_BITS: u32 = 16;

/// The milliseconds of a stamp.
pub(crate) const fn millis(stamp: u64) -> u64 {
    stamp >> COUNTER_BITS
}

/// The last stamp of a millisecond.
pub(crate) const fn last_of(ms: u64) -> u64 {
    let ms = if ms > u64::MAX >> COUNTER_BITS { u64::MAX >> COUNTER_BITS } else { ms };
    (ms << COUNTER_BITS) | ((1 << COUNTER_BITS) - 1)
}

/// A node's clock: the greatest stamp that the node issued or saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    last: u64,
}

impl Clock {
    /// Notes a stamp that the node saw.
    pub(crate) fn observe(&mut self, stamp: u64) {
        self.last = self.last.max(stamp);
    }

    /// Issues a stamp above all stamps issued or seen. A counter that overflows carries into the milliseconds: then the
    /// clock is ahead of the wall clock until that catches up.
    pub(crate) fn issue(&mut self, wall: WallTime) -> u64 {
        let physical = last_of(wall.0) & !((1 << COUNTER_BITS) - 1);
        self.last = self.last.saturating_add(1).max(physical);
        self.last
    }

    /// The greatest stamp issued or seen.
    pub(crate) const fn last(self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stamps_grow_when_the_wall_clock_goes_back(walls: alloc::vec::Vec<u64>, seen in 0..u64::MAX / 2) {
            let mut clock = Clock::default();
            clock.observe(seen);
            let mut before = seen;
            for wall in walls {
                let stamp = clock.issue(WallTime(wall));
                prop_assert!(stamp > before || stamp == u64::MAX);
                before = stamp;
            }
        }
    }

    #[test]
    fn a_stamp_contains_the_wall_time() {
        let mut clock = Clock::default();
        assert_eq!(millis(clock.issue(WallTime(77))), 77);
        assert_eq!(clock.issue(WallTime(77)), (77 << 16) + 1);
        assert!(last_of(77) > clock.last());
        assert_eq!(millis(last_of(u64::MAX)), u64::MAX >> 16);
    }
}
