//! Stamps: those of one node strictly increase, also over a restart; each is above the stamps of what its write
//! supersedes, and no further ahead than what the node saw, or its wall clock and the bound (hybrid logical clocks,
//! Kulkarni and others 2014, theorems 1 and 3). A stamp beyond the bound is not taken in before its time.

use continuum_core::replication::WriteInfo;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "hybrid-clock";
/// Bits of the counter in a stamp; above them are milliseconds.
const COUNTER_BITS: u32 = 16;

/// What one node's stamps are measured by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamps {
    /// The greatest of its own.
    pub(crate) own: u64,
    /// The greatest that it saw.
    pub(crate) seen: u64,
}

/// What a clock may show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    /// The wall clock's milliseconds.
    pub(crate) now_ms: u64,
    /// How far ahead of it a stamp may be.
    pub(crate) ahead_ms: u64,
}

impl Stamps {
    /// A node logs a write as seen, its own or another's; `superseded` is the greatest stamp of what that supersedes.
    pub(crate) fn check(
        &mut self,
        told: &WriteInfo,
        is_own: bool,
        superseded: u64,
        wall: Wall,
    ) -> Verdict {
        let stamp = told.stamp;
        let broken = |what: String| Err(Broken::new(NAME, format!("{:?}: {what}", told.dot)));
        let within = wall.now_ms.saturating_add(wall.ahead_ms);
        let ms = stamp >> COUNTER_BITS;
        if is_own && stamp <= self.own {
            return broken(format!("stamp {stamp} comes after {}", self.own));
        }
        if stamp <= superseded {
            return broken(format!("stamp {stamp} supersedes {superseded}"));
        }
        // A full counter carries into the milliseconds.
        let most = if is_own { within.max(self.seen >> COUNTER_BITS) + 1 } else { within };
        if ms > most {
            return broken(format!(
                "stamp {stamp} is of {ms} ms, {wall:?}, and {} was seen",
                self.seen
            ));
        }
        self.seen = self.seen.max(stamp);
        self.own = if is_own { stamp } else { self.own };
        Ok(())
    }
}
