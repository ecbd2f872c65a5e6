//! Law: no step works longer than its budget, whatever the size of what a node holds (README, Guarantees: a node
//! answers while it works).
//!
//! A step's work is what it allocates and frees: a deterministic measure, unlike its time. Copies, decoders, drops and
//! answers of any size show in it. A loop that only reads does not; the bench `size` measures its CPU time.

use allocation_counter::AllocationInfo;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "bounded-step";

/// The most allocations and frees of one step. The longest ones take a request of 4,096 writes, or a message with as
/// many, which are not sliced.
const CALLS_MAX: u64 = 500_000;
/// The most bytes that one step allocates, over and over counted.
const BYTES_MAX: u64 = 32 << 20;

/// The work of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Allocations and frees.
    pub calls: u64,
    /// Bytes allocated.
    pub bytes: u64,
}

impl Work {
    pub(crate) const fn of(info: &AllocationInfo) -> Self {
        // All that was allocated and is not held at the end was freed. A negative rest was held before.
        let freed = (info.count_total as i64 - info.count_current) as u64;
        Self { calls: info.count_total + freed, bytes: info.bytes_total }
    }

    /// The greater of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { calls: self.calls.max(other.calls), bytes: self.bytes.max(other.bytes) }
    }
}

/// Judges one step.
pub(crate) fn check(node: usize, work: Work, event: impl FnOnce() -> String) -> Verdict {
    let Work { calls, bytes } = work;
    if calls <= CALLS_MAX && bytes <= BYTES_MAX {
        return Ok(());
    }
    let event = event();
    Err(Broken::new(
        NAME,
        format!(
            "node {node} allocated and freed {calls} times and allocated {bytes} bytes in one step: {event}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work_of(run: impl FnOnce()) -> Work {
        Work::of(&allocation_counter::measure(run))
    }

    #[test]
    fn a_step_that_drops_a_large_map_is_seen() {
        let map: std::collections::BTreeMap<u64, Vec<u8>> =
            (0..600_000).map(|n| (n, vec![1])).collect();
        let work = work_of(move || drop(map));
        assert!(work.calls > CALLS_MAX && work.bytes == 0);
        assert!(check(0, work, String::new).is_err());
    }

    #[test]
    fn a_step_that_copies_much_is_seen() {
        let work = work_of(|| drop(vec![1_u8; 33 << 20]));
        assert!(work.calls == 2 && check(0, work, String::new).is_err());
        assert_eq!(check(0, Work { calls: CALLS_MAX, bytes: BYTES_MAX }, String::new), Ok(()));
    }
}
