//! What a crash does to bytes that were written and not synced.
//!
//! All that is unsynced at one time is a row of writes in their order, each a row of sectors. A fate says for each
//! sector whether it is on the disk. What was synced is not here.

use crate::rng::{Draws, stream};

use super::segment::SECTOR_BYTES;

/// What becomes of unsynced bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The operating system survived and wrote them.
    Kept,
    /// All of them are gone.
    Gone,
    /// All of one write are gone, or none.
    Lost,
    /// Each sector is gone, or not.
    Torn,
    /// The drive wrote the later ones first: from the beginning a part is gone, what follows it is there.
    Reordered,
}

/// The fate of one crash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    pub(super) draws: Draws,
    pub(super) node: u64,
    pub(super) number: u64,
    pub(super) fate: Fate,
    /// Sectors that are unsynced, in all writes.
    pub(super) sectors: usize,
}

/// How many sectors a write takes.
pub(super) const fn sectors(length: usize) -> usize {
    length.div_ceil(SECTOR_BYTES)
}

impl Crash {
    /// Which sectors of a write survive. `before` sectors of other writes precede it.
    pub(super) fn survivors(&self, write: u64, before: usize, length: usize) -> Vec<bool> {
        let sectors = sectors(length);
        let name = stream("disk.sector", self.node << 32 | self.number) ^ write;
        match self.fate {
            Fate::Kept => vec![true; sectors],
            Fate::Gone => vec![false; sectors],
            Fate::Lost => vec![self.draws.chance(name, 0, 500_000); sectors],
            Fate::Torn => {
                // Half of all tears keep nearly all or nearly nothing: those are the ones that look whole or absent.
                let share =
                    [20_000, 500_000, 500_000, 980_000][self.draws.below(name, 1, 4) as usize];
                (0..sectors as u64).map(|k| self.draws.chance(name, 2 + k, share)).collect()
            }
            Fate::Reordered => {
                let first = self.first_kept();
                (before..before + sectors).map(|at| at >= first).collect()
            }
        }
    }

    /// The first sector that a drive which wrote the later ones first had written: never the very first, never none.
    fn first_kept(&self) -> usize {
        let name = stream("disk.reorder", self.node << 32 | self.number);
        1 + self.draws.below(name, 0, (self.sectors as u64).saturating_sub(1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(fate: Fate, number: u64, write: u64, before: usize, length: usize) -> Vec<bool> {
        let crash = Crash { draws: Draws::new(1), node: 0, number, fate, sectors: 8 };
        crash.survivors(write, before, length)
    }

    #[test]
    fn a_later_part_is_there_and_an_earlier_one_is_not() {
        for number in 0..50 {
            let mut all = survivors(Fate::Reordered, number, 0, 0, 3 * SECTOR_BYTES);
            all.extend(survivors(Fate::Reordered, number, 1, 3, 5 * SECTOR_BYTES - 7));
            assert_eq!(all.len(), 8);
            assert!(!all[0] && all[7] && all.is_sorted(), "{all:?}");
        }
    }

    #[test]
    fn each_fate_is_what_it_says() {
        let all = |fate| survivors(fate, 3, 0, 0, 8 * SECTOR_BYTES);
        assert!(all(Fate::Kept).iter().all(|kept| *kept));
        assert!(!all(Fate::Gone).contains(&true));
        let lost = all(Fate::Lost);
        assert!(lost.iter().all(|kept| *kept == lost[0]));
        assert_eq!(all(Fate::Torn), all(Fate::Torn));
    }
}
