//! The hybrid logical clock (Kulkarni and others, 2014): 48 bits of milliseconds and a 16-bit counter in one `u64`.
//!
//! A stamp orders writes. It never decides whether a write is visible, and nothing waits for it.
//!
//! # The law
//!
//! 1. A stamp is greater than the stamps of all that its write supersedes. In a discarding shard it is greater than
//!    the stamps of all writes that the author's shard has seen.
//! 2. The clock's last stamp is never more than the bound ahead of the wall clock. Stamps beyond the bound move the
//!    clock not at all, and when the wall clock goes back by more than the bound, the clock goes back with it.
//! 3. Unless it goes back so, a node's clock issues each stamp above all that it issued or saw.
//!
//! The first part is what correctness needs, and no wall clock can break it: it comes from the writes themselves, as in
//! a Lamport clock. A discarding shard drops the lesser of two siblings for good. Say that A beat C, and that B then
//! superseded A: where B arrived first, it meets C without A. So B must be greater than A, or C would win there and B
//! here, and both would be gone. B's author may not hold A any more, because a deletion came between, or may never have
//! held it, because it learnt of A's death from a view; so there the bound is the shard's greatest stamp, which every
//! view carries. The other parts only make the order of concurrent writes follow real time. So a wrong clock spoils the
//! order of concurrent writes, on the keys that it wrote or in the discarding shard that it wrote, and nothing else.
//!
//! A stamp at the very top has none above it. Honest clocks stay far below, so only a lying member makes one. Then an
//! overwrite is refused, and a deletion, whose stamp orders nothing, works.

use crate::limits::STAMP_MAX;
use crate::time::WallTime;
use crate::{mutant, reach};

/// Bits of the counter.
const COUNTER_BITS: u32 = 16;
/// The greatest wall time that the clock follows, in milliseconds: about the year 4200.
const WALL_MS_MAX: u64 = 1 << 46;

/// The milliseconds of a stamp.
pub(crate) const fn millis(stamp: u64) -> u64 {
    stamp >> COUNTER_BITS
}

/// The wall clock at one instant, and the bound on stamps that follows from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    now_ms: u64,
    reach_ms: u64,
}

impl Wall {
    /// The wall clock at `now`; stamps within `ahead_ms` of it move the clock.
    pub(crate) fn new(now: WallTime, ahead_ms: u64) -> Self {
        let now_ms = now.0.min(WALL_MS_MAX);
        Self { now_ms, reach_ms: now_ms.saturating_add(ahead_ms).min(WALL_MS_MAX * 2) }
    }

    /// The first stamp of this millisecond.
    const fn stamp(self) -> u64 {
        self.now_ms << COUNTER_BITS
    }

    /// The milliseconds by which a stamp is ahead, if that is beyond the bound; else 0.
    pub(crate) const fn lead_ms(self, stamp: u64) -> u64 {
        if millis(stamp) > self.reach_ms { millis(stamp) - self.now_ms } else { 0 }
    }

    /// Whether a stamp is not too far ahead.
    pub(crate) fn reaches(self, stamp: u64) -> bool {
        mutant!("replication.hlc.unbounded") || millis(stamp) <= self.reach_ms
    }
}

/// A node's clock: the greatest stamp within reach that the node issued or saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    last: u64,
}

impl Clock {
    /// Starts from a stamp of an earlier process life.
    pub(crate) fn resume(&mut self, stamp: u64) {
        self.last = self.last.max(stamp);
    }

    /// Notes a stamp that the node saw.
    pub(crate) fn observe(&mut self, stamp: u64, wall: Wall) {
        self.fall_back(wall);
        if wall.reaches(stamp) {
            self.last = self.last.max(stamp);
        }
    }

    /// Goes back with a wall clock that went back by more than the bound. Stamps seen from then on count.
    fn fall_back(&mut self, wall: Wall) {
        if !wall.reaches(self.last) {
            reach!("replication.clock.fell_back");
            self.last = 0;
        }
    }

    /// Issues a stamp above `floor`, and above all stamps issued or seen that are within reach. A counter that
    /// overflows carries into the milliseconds. `None` when no stamp is above `floor`.
    pub(crate) fn issue(&mut self, wall: Wall, floor: u64) -> Option<u64> {
        self.fall_back(wall);
        let own = (self.last + 1).max(wall.stamp());
        let stamp = if mutant!("replication.stamp.below_superseded") {
            own
        } else {
            own.max(floor.saturating_add(1))
        };
        if stamp > STAMP_MAX {
            return None;
        }
        self.last = if wall.reaches(stamp) { stamp } else { own };
        Some(stamp)
    }

    /// The greatest stamp issued or seen.
    pub(crate) const fn last(self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const AHEAD_MS: u64 = 60_000;
    const YEAR_MS: u64 = 365 * 86_400_000;

    fn wall(ms: u64) -> Wall {
        Wall::new(WallTime(ms), AHEAD_MS)
    }

    proptest! {
        /// Parts 1 to 3 of the law, for wall clocks that do anything.
        #[test]
        fn stamps_keep_the_law(
            steps in proptest::collection::vec((0..3u8, 0..20 * YEAR_MS, any::<u64>(), any::<bool>()), 1..80),
        ) {
            let mut clock = Clock::default();
            let mut seen: Vec<u64> = Vec::new();
            let mut now = 30 * YEAR_MS;
            for (what, by, stamp, is_far) in steps {
                now = match what {
                    0 => now + by % 1000,
                    1 => now.saturating_sub(by),
                    _ => now + if is_far { by } else { 0 },
                };
                let (at, floor) = (wall(now), if is_far { stamp % STAMP_MAX } else { 0 });
                if what == 0 {
                    clock.observe(stamp % STAMP_MAX, at);
                    seen.push(stamp % STAMP_MAX);
                }
                let fell = seen.iter().any(|seen| !at.reaches(*seen));
                let known = seen.iter().copied().filter(|_| !fell).max().unwrap_or(0);
                let issued = clock.issue(at, floor).expect("the floor is below the top");
                prop_assert!(issued > floor && issued > known);
                prop_assert!(at.reaches(clock.last()) || clock.last() <= (now << 16) + 0x1_0000);
                prop_assert!(at.reaches(issued) || issued == floor + 1);
                seen.push(issued);
            }
        }
    }

    #[test]
    fn a_stamp_contains_the_wall_time() {
        let mut clock = Clock::default();
        assert_eq!(clock.issue(wall(77), 0).map(millis), Some(77));
        assert_eq!(clock.issue(wall(77), 0), Some((77 << 16) + 1));
        assert!(wall(77).reaches(clock.last()));
    }

    #[test]
    fn a_clock_that_was_years_ahead_comes_back_with_the_wall_clock() {
        let mut clock = Clock::default();
        let far = clock.issue(wall(90 * YEAR_MS), 0).expect("room");
        let back = clock.issue(wall(50 * YEAR_MS), 0).expect("room");
        assert_eq!(millis(back), 50 * YEAR_MS);
        // An overwrite of the far write is above it, and moves the clock not at all.
        assert_eq!(clock.issue(wall(50 * YEAR_MS), far), Some(far + 1));
        assert_eq!(clock.issue(wall(50 * YEAR_MS), 0).map(millis), Some(50 * YEAR_MS));
        // A small step back is bridged.
        let before = clock.last();
        assert!(clock.issue(wall(50 * YEAR_MS - 1000), 0).is_some_and(|stamp| stamp > before));
    }

    #[test]
    fn the_top_leaves_room_and_ends() {
        let mut clock = Clock::default();
        let latest = clock.issue(wall(u64::MAX), 0).expect("the wall clock is bounded");
        assert!(latest < STAMP_MAX / 2 + (1 << 17));
        assert_eq!(clock.issue(wall(1), STAMP_MAX - 1), Some(STAMP_MAX));
        assert_eq!(clock.issue(wall(1), STAMP_MAX), None);
        assert_eq!(clock.issue(wall(1), 0).map(millis), Some(1));
    }
}
