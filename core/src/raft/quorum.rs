//! Counting: which value a majority of voters has reached.
//!
//! Commit, reads and check-quorum all count here. This module does not know configurations or logs.

use crate::limits::VOTERS_MAX;
use crate::mutant;

/// The number of voters that are a majority of `voters`. It is 1 of 0, so that no election is won without voters.
pub(super) fn majority(voters: usize) -> usize {
    if mutant!("raft.quorum.off_by_one") {
        return (voters / 2).max(1);
    }
    voters / 2 + 1
}

/// The greatest value that a majority has reached, given each voter's value; the default without voters.
///
/// It sorts at most 7 values on the stack. A faster selection is not worth a mistake in the commit rule.
pub(super) fn reached<T: Copy + Ord + Default>(values: impl Iterator<Item = T>) -> T {
    let mut sorted = [T::default(); VOTERS_MAX];
    let mut count = 0;
    for (slot, value) in sorted.iter_mut().zip(values) {
        *slot = value;
        count += 1;
    }
    let sorted = &mut sorted[..count];
    sorted.sort_unstable();
    count.checked_sub(majority(count)).map_or_else(T::default, |at| sorted[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_each_size() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(majority), [1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn no_voters_reach_nothing() {
        assert_eq!(reached(core::iter::empty::<u64>()), 0);
    }

    /// Compares all assignments of 4 values to up to 7 voters with the definition.
    #[test]
    fn reached_is_the_greatest_value_that_a_majority_has() {
        for voters in 1..=VOTERS_MAX {
            for code in 0..4_u32.pow(voters as u32) {
                let value = |voter: usize| u64::from(code / 4_u32.pow(voter as u32) % 4);
                let has = |least: u64| (0..voters).filter(|v| value(*v) >= least).count();
                let expected = (0..4).rev().find(|least| has(*least) >= majority(voters));
                assert_eq!(Some(reached((0..voters).map(value))), expected);
            }
        }
    }
}
