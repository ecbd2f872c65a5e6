//! Law: a replica takes in each write at most once in a process life, also when the write is superseded by then, so
//! that a dead write never comes back (Shapiro and others 2011: merge is idempotent; causal delivery without tombstones
//! relies on it).
//!
//! Compares each logged write with all that the same process life logged. It does not judge writes that a restarted
//! node logs again because its disk had lost them.

use continuum_core::id::{Dot, ShardId};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "dead-write-stays-dead";

/// Whether one process life of a node logged each write of a shard, by the writes' numbers.
#[derive(Debug, Default)]
pub(crate) struct LoggedWrites(Vec<bool>);

impl LoggedWrites {
    /// Judges a node that logs a write as seen.
    pub(crate) fn check(&mut self, number: usize, shard: ShardId, dot: Dot) -> Verdict {
        if self.0.len() <= number {
            self.0.resize(number + 1, false);
        }
        if std::mem::replace(&mut self.0[number], true) {
            let what = format!("{dot:?} of {shard:?} is logged as new a second time");
            return Err(Broken::new(NAME, what));
        }
        Ok(())
    }
}
