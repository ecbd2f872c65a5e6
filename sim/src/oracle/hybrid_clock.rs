//! Law: a node's stamps strictly increase, also over a restart; a write's stamp is greater than the stamps of what it
//! supersedes; and a stamp is at most the greatest that the node saw, or its wall clock plus the bound, whichever is
//! later (hybrid logical clocks, Kulkarni and others 2014, theorems 1 and 3). A node does not take in another node's
//! stamp while it is beyond the bound.
//!
//! Compares each logged stamp with the node's earlier stamps and its wall clock. It does not judge whether wall clocks
//! are right.

use continuum_core::replication::WriteInfo;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "hybrid-clock";
/// Bits of a stamp's counter; the bits above are milliseconds.
const COUNTER_BITS: u32 = 16;

/// The greatest stamps of one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamps {
    /// The greatest of the node's own.
    pub(crate) own: u64,
    /// The greatest that the node saw, its own or another's.
    pub(crate) seen: u64,
}

/// A node's wall clock, and how far ahead of it stamps may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    /// The wall clock's milliseconds.
    pub(crate) now_ms: u64,
    /// How far ahead of the wall clock a stamp may be, in milliseconds.
    pub(crate) ahead_ms: u64,
}

impl Stamps {
    /// Judges a node that logs a write, its own or another's; `superseded` is the greatest stamp that the write
    /// supersedes.
    pub(crate) fn check(
        &mut self,
        write: &WriteInfo,
        is_own: bool,
        superseded: u64,
        wall: Wall,
    ) -> Verdict {
        let stamp = write.stamp;
        let broken = |what: String| Err(Broken::new(NAME, format!("{:?}: {what}", write.dot)));
        let within = wall.now_ms.saturating_add(wall.ahead_ms);
        let ms = stamp >> COUNTER_BITS;
        if is_own && stamp <= self.own {
            return broken(format!("stamp {stamp} is not above the node's last, {}", self.own));
        }
        if stamp <= superseded {
            return broken(format!("stamp {stamp} is not above {superseded}, which it supersedes"));
        }
        // A full counter carries into the milliseconds.
        let most = if is_own { within.max(self.seen >> COUNTER_BITS) + 1 } else { within };
        if ms > most {
            return broken(format!(
                "stamp {stamp} is at {ms} ms, beyond the bound of {wall:?}, and the greatest seen is {}",
                self.seen
            ));
        }
        self.seen = self.seen.max(stamp);
        self.own = if is_own { stamp } else { self.own };
        Ok(())
    }
}
