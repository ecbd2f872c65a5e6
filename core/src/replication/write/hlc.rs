//! The hybrid logical clock (Kulkarni and others, 2014): 48 bits of milliseconds and a 16-bit counter in one `u64`.
//!
//! If one write was known to the author of another, its stamp is smaller. Only the future side is checked: a stamp from
//! the past is as good as any. The clock never goes back, not even over a restart, where it starts from the greatest
//! stamp among the records. It knows no skew policy: who waits for how long is decided where writes are admitted.

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

/// A node's clock: the greatest stamp that it issued or saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    last: u64,
}

impl Clock {
    /// Takes note of a stamp that was seen.
    pub(crate) fn observe(&mut self, stamp: u64) {
        self.last = self.last.max(stamp);
    }

    /// A stamp above all that were issued or seen. A counter that overflows carries into the milliseconds, which only
    /// puts the clock ahead of the wall for as long as it takes.
    pub(crate) fn stamp(&mut self, wall: WallTime) -> u64 {
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
        fn stamps_grow_whatever_the_wall_does(walls: alloc::vec::Vec<u64>, seen in 0..u64::MAX / 2) {
            let mut clock = Clock::default();
            clock.observe(seen);
            let mut before = seen;
            for wall in walls {
                let stamp = clock.stamp(WallTime(wall));
                prop_assert!(stamp > before || stamp == u64::MAX);
                before = stamp;
            }
        }
    }

    #[test]
    fn a_sound_wall_shows_in_the_stamp() {
        let mut clock = Clock::default();
        assert_eq!(millis(clock.stamp(WallTime(77))), 77);
        assert_eq!(clock.stamp(WallTime(77)), (77 << 16) + 1);
        assert!(last_of(77) > clock.last());
        assert_eq!(millis(last_of(u64::MAX)), u64::MAX >> 16);
    }
}
