//! No resurrection: a write that a replica has seen is not new to it again, dead or alive (Shapiro and others 2011:
//! merge is idempotent; causal delivery without tombstones rests on it).

use std::collections::BTreeSet;

use continuum_core::id::{Dot, ShardId};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "dead-write-stays-dead";

/// A node logs a write as seen; `logged` is all that this life of it did.
pub(crate) fn check(logged: &mut BTreeSet<(ShardId, Dot)>, shard: ShardId, dot: Dot) -> Verdict {
    if logged.insert((shard, dot)) {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{dot:?} of {shard:?} is taken in a second time")))
}
