//! The edits of a write whose elements are still live: one bit each. This module does not know what an edit does.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::EDITS_MAX;

/// A bit for each edit of a write. Up to 64 edits need no allocation; nearly all writes have fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveEdits {
    first: u64,
    rest: Box<[u64]>,
}

impl LiveEdits {
    /// Builds the set from one flag for each edit.
    pub(crate) fn of(flags: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut live = Self { first: 0, rest: vec![0; (flags.len().max(1) - 1) / 64].into() };
        for (edit, flag) in flags.enumerate() {
            if flag {
                *live.word(edit).expect("the words were counted from the edits") |=
                    1 << (edit % 64);
            }
        }
        live
    }

    /// Whether the edit's element is live.
    pub(crate) fn contains(&self, edit: u16) -> bool {
        let word = match usize::from(edit) / 64 {
            0 => self.first,
            at => self.rest.get(at - 1).copied().unwrap_or(0),
        };
        word >> (edit % 64) & 1 == 1
    }

    /// Removes one edit. False when it was not live.
    pub(crate) fn remove(&mut self, edit: u16) -> bool {
        let held = self.contains(edit);
        if held && let Some(word) = self.word(usize::from(edit)) {
            *word &= !(1 << (edit % 64));
        }
        held
    }

    /// Whether no edit is live.
    pub(crate) fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|word| *word == 0)
    }

    /// The live edits, ascending.
    pub(crate) fn edits(&self) -> impl Iterator<Item = u16> + '_ {
        (0..(1 + self.rest.len() as u16) * 64).filter(|edit| self.contains(*edit))
    }

    /// The live edits that are not live in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Vec<u16> {
        self.edits().filter(|edit| !other.contains(*edit)).collect()
    }

    /// The words, for hashing.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        core::iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// Whether there are no more words than the longest write needs. To be asked of what a peer or a disk produced.
    pub(crate) fn is_valid(&self) -> bool {
        self.rest.len() < EDITS_MAX / 64
    }

    fn word(&mut self, edit: usize) -> Option<&mut u64> {
        match edit / 64 {
            0 => Some(&mut self.first),
            at => self.rest.get_mut(at - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn live_edits_behave_as_a_set(flags in proptest::collection::vec(any::<bool>(), 1..200), removed in 0u16..210) {
            let mut set = LiveEdits::of(flags.iter().copied());
            prop_assert!(set.is_valid());
            let live: Vec<u16> = (0..flags.len() as u16).filter(|e| flags[usize::from(*e)]).collect();
            prop_assert_eq!(set.edits().collect::<Vec<_>>(), live.clone());
            let before = set.clone();
            prop_assert_eq!(set.remove(removed), live.contains(&removed));
            prop_assert!(!set.contains(removed));
            prop_assert_eq!(before.minus(&set).len(), usize::from(live.contains(&removed)));
        }
    }
}
