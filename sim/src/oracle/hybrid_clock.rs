//! Law: a write's stamp is greater than the stamps of what it supersedes, and in a discarding namespace than all stamps
//! that its author logged in that shard. A stamp is also greater than all that the node logged, except that its clock
//! goes back with a wall clock that went back by more than the bound. And no stamp is further ahead of its author's
//! wall clock than the bound, unless what it supersedes forces it to be (hybrid logical clocks, Kulkarni and others
//! 2014, theorems 1 and 3; here the clock does not ratchet).
//!
//! Compares each logged stamp with the node's earlier stamps and its wall clock. A stamp of another node is no reason
//! for anything: it is remembered, and never judged. This file does not judge whether wall clocks are right.

use crate::format::write::Written;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "hybrid-clock";
/// Bits of a stamp's counter; the bits above are milliseconds.
const COUNTER_BITS: u32 = 16;

/// A node's hybrid clock as its log determines it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamps {
    /// The greatest stamp that the node logged, its own or another's, while it was within the bound.
    pub(crate) last: u64,
}

/// The stamps that a write's stamp follows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Follows {
    /// The greatest stamp that it must be above.
    pub(crate) below: u64,
    /// The greatest stamp that any write of its shard has: its client may have read that one elsewhere.
    pub(crate) greatest: u64,
}

/// A node's wall clock, and how far ahead of it stamps may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    /// The wall clock's milliseconds.
    pub(crate) now_ms: u64,
    /// How far ahead of the wall clock a stamp may be, in milliseconds.
    pub(crate) ahead_ms: u64,
}

impl Wall {
    const fn reaches(self, stamp: u64) -> bool {
        stamp >> COUNTER_BITS <= self.now_ms.saturating_add(self.ahead_ms)
    }
}

impl Stamps {
    /// Judges a node that logs a write of its own.
    pub(crate) fn check(&mut self, write: &Written, follows: Follows, wall: Wall) -> Verdict {
        let (stamp, last) = (write.stamp, self.last);
        let broken = |what: String| Err(Broken::new(NAME, format!("{:?}: {what}", write.dot)));
        if stamp <= follows.below {
            return broken(format!(
                "stamp {stamp} is not above {}, which it follows",
                follows.below
            ));
        }
        if wall.reaches(last) && stamp <= last {
            return broken(format!("stamp {stamp} is not above {last}, which the node knew"));
        }
        let carries = wall.reaches(stamp - 1);
        if !carries && stamp - 1 > follows.greatest {
            return broken(format!(
                "stamp {stamp} is beyond the bound of {wall:?}, and follows nothing"
            ));
        }
        self.see(stamp, wall);
        Ok(())
    }

    /// Notes a stamp that the node logs.
    pub(crate) fn see(&mut self, stamp: u64, wall: Wall) {
        let kept = if wall.reaches(self.last) { self.last } else { 0 };
        self.last = if wall.reaches(stamp) { stamp.max(kept) } else { kept };
    }
}
