//! Law: a replica takes in each write at most once in a process life, also when the write is superseded by then, so
//! that a dead write never comes back (Shapiro and others 2011: merge is idempotent; causal delivery without tombstones
//! relies on it).
//!
//! Compares each logged write with all that the same process life logged. It does not judge writes that a restarted
//! node logs again because its disk had lost them.

use std::collections::BTreeSet;

use continuum_core::id::{Dot, ShardId};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "dead-write-stays-dead";

/// Judges a node that logs a write as seen; `logged` holds all writes that this process life of it logged.
pub(crate) fn check(logged: &mut BTreeSet<(ShardId, Dot)>, shard: ShardId, dot: Dot) -> Verdict {
    if logged.insert((shard, dot)) {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{dot:?} of {shard:?} is logged as new a second time")))
}
