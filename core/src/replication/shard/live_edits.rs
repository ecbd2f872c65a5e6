//! Which edits of a write still are live elements: one bit each.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::EDITS_MAX;

/// A bit for each edit of a write. Writes of up to 64 edits, nearly all, need no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mask {
    first: u64,
    rest: Box<[u64]>,
}

impl Mask {
    /// From one flag for each edit.
    pub(crate) fn of(flags: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut mask = Self { first: 0, rest: vec![0; (flags.len().max(1) - 1) / 64].into() };
        for (edit, flag) in flags.enumerate() {
            if flag {
                *mask.word(edit).expect("the words were counted from the edits") |=
                    1 << (edit % 64);
            }
        }
        mask
    }

    /// Whether the edit's element is live.
    pub(crate) fn contains(&self, edit: u16) -> bool {
        let word = match usize::from(edit) / 64 {
            0 => self.first,
            at => self.rest.get(at - 1).copied().unwrap_or(0),
        };
        word >> (edit % 64) & 1 == 1
    }

    /// Drops one element. False when it was not live.
    pub(crate) fn remove(&mut self, edit: u16) -> bool {
        let held = self.contains(edit);
        if held && let Some(word) = self.word(usize::from(edit)) {
            *word &= !(1 << (edit % 64));
        }
        held
    }

    /// Whether no element is live.
    pub(crate) fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|word| *word == 0)
    }

    /// The live edits, ascending.
    pub(crate) fn edits(&self) -> impl Iterator<Item = u16> + '_ {
        (0..(1 + self.rest.len() as u16) * 64).filter(|edit| self.contains(*edit))
    }

    /// The live edits that `other` does not have.
    pub(crate) fn minus(&self, other: &Self) -> Vec<u16> {
        self.edits().filter(|edit| !other.contains(*edit)).collect()
    }

    /// The words, for hashing.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        core::iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// Whether it is no longer than the longest write's: to be asked of what a peer or a disk produced.
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
        fn a_mask_is_a_set_of_edits(flags in proptest::collection::vec(any::<bool>(), 1..200), gone in 0u16..210) {
            let mut mask = Mask::of(flags.iter().copied());
            prop_assert!(mask.is_valid());
            let live: Vec<u16> = (0..flags.len() as u16).filter(|e| flags[usize::from(*e)]).collect();
            prop_assert_eq!(mask.edits().collect::<Vec<_>>(), live.clone());
            let before = mask.clone();
            prop_assert_eq!(mask.remove(gone), live.contains(&gone));
            prop_assert!(!mask.contains(gone));
            prop_assert_eq!(before.minus(&mask).len(), usize::from(live.contains(&gone)));
        }
    }
}
