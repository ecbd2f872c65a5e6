//! Bounded memory: nothing in a node grows past its stated limit (`core::limits`).
//!
//! Looked at with each link of the trace, since a queue that runs away stays away.

use continuum_core::limits::{REQUESTS_PENDING_MAX, SESSIONS_MAX, UNPERSISTED_BYTES_MAX};

use super::{Broken, Verdict};
use crate::process::Process;

pub(crate) const NAME: &str = "bounded-memory";
/// Writes that wait for the disk: each has at least some bytes.
const WRITES_PENDING_MAX: usize = UNPERSISTED_BYTES_MAX / 64;

/// Looks at one node.
pub(crate) fn check(process: &Process, memory_bytes_max: u64) -> Verdict {
    let Some(node) = &process.node else { return Ok(()) };
    within("writes under way to the disk", process.disk.pending(), WRITES_PENDING_MAX)?;
    within("requests", process.requests.len(), REQUESTS_PENDING_MAX + SESSIONS_MAX)?;
    within("bytes of shards", node.replicator().bytes() as usize, memory_bytes_max as usize)
}

fn within(what: &str, found: usize, limit: usize) -> Verdict {
    if found <= limit {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{found} {what}, and at most {limit} are allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_allowed_is_seen() {
        assert_eq!(within("things", 3, 3), Ok(()));
        assert!(within("things", 4, 3).is_err());
    }
}
