//! The effect of a crash on bytes that were written but not synced.
//!
//! The unsynced bytes at any time are a sequence of writes, each a sequence of sectors. A fate decides for each sector
//! whether it is on the disk. This module does not touch synced bytes.

use crate::rng::{Draws, stream};

use super::segment::SECTOR_BYTES;

/// The fate of unsynced bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The operating system survived and wrote them.
    Kept,
    /// All of them are gone.
    Gone,
    /// Each write is gone as a whole, or not at all.
    Lost,
    /// Each sector is gone or not, independently.
    Torn,
    /// The drive wrote later sectors first: a part at the beginning is gone, the rest is there.
    Reordered,
}

/// The fate of one crash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    pub(super) draws: Draws,
    pub(super) node: u64,
    pub(super) number: u64,
    pub(super) fate: Fate,
    /// Number of unsynced sectors, in all writes.
    pub(super) sectors: usize,
}

/// Number of sectors that a write takes.
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
                // Half of the tears keep nearly all or nearly nothing, because those look whole or absent.
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

    /// The first sector that survives when the drive wrote later ones first: never the very first, and at least one
    /// survives.
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
    fn reordering_keeps_a_later_part_and_loses_an_earlier_one() {
        for number in 0..50 {
            let mut all = survivors(Fate::Reordered, number, 0, 0, 3 * SECTOR_BYTES);
            all.extend(survivors(Fate::Reordered, number, 1, 3, 5 * SECTOR_BYTES - 7));
            assert_eq!(all.len(), 8);
            assert!(!all[0] && all[7] && all.is_sorted(), "{all:?}");
        }
    }

    #[test]
    fn each_fate_does_what_it_says() {
        let all = |fate| survivors(fate, 3, 0, 0, 8 * SECTOR_BYTES);
        assert!(all(Fate::Kept).iter().all(|kept| *kept));
        assert!(!all(Fate::Gone).contains(&true));
        let lost = all(Fate::Lost);
        assert!(lost.iter().all(|kept| *kept == lost[0]));
        assert_eq!(all(Fate::Torn), all(Fate::Torn));
    }
}
