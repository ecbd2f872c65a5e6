//! The bytes of a log on a drive, in segments. Sectors of zeros take no memory.
//!
//! A batch fills whole blocks and rarely needs all of them. This module does not decide which sectors survive a crash.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::id::SnapshotId;
use continuum_core::wal::Batch;

use crate::plan::fault::Kind;

/// The unit that a disk writes as a whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];
/// Zeros that recovery sees after the last byte ever written to a segment: it needs no more of a file that is
/// preallocated in full.
const TAIL_BYTES: usize = 8192;

/// Everything that a drive stores for one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Media {
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) files: BTreeMap<SnapshotId, Vec<u8>>,
    /// Where the last batch begins whose sync was reported.
    pub(super) last: (u64, usize),
    /// Segments that are damaged before their last batch, and the kind of damage.
    pub(super) damage: BTreeSet<(u64, Kind)>,
    /// Segments with a sector that answers with an error.
    pub(super) unreadable: BTreeSet<u64>,
}

impl Media {
    /// The segment of a batch; a new one when the batch opens it.
    pub(super) fn open(&mut self, batch: &Batch) -> &mut Segment {
        let segment = self.segments.entry(batch.segment).or_default();
        if batch.opens_segment {
            *segment = Segment::default();
        }
        segment
    }

    /// Removes a segment and its damage.
    pub(super) fn remove(&mut self, segment: u64) {
        self.segments.remove(&segment);
        self.unreadable.remove(&segment);
        self.damage.retain(|(damaged, _)| *damaged != segment);
    }

    /// Zeros everything from an offset to the end of the log, as a driver erases a torn tail.
    pub(super) fn erase(&mut self, segment: u64, offset: usize) {
        self.segments.retain(|number, _| *number <= segment);
        if let Some(cut) = self.segments.get_mut(&segment) {
            cut.slots.truncate(offset.div_ceil(SECTOR_BYTES));
        }
    }

    /// All segments as recovery reads them.
    pub(super) fn read(&self) -> Vec<(u64, Bytes)> {
        self.segments.iter().map(|(id, segment)| (*id, segment.read())).collect()
    }

    /// All snapshot files.
    pub(super) fn read_files(&self) -> BTreeMap<SnapshotId, Bytes> {
        self.files.iter().map(|(id, file)| (*id, Bytes::copy_from_slice(file))).collect()
    }
}

/// One segment of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Segment {
    /// For each sector its index in `sectors` plus one; 0 for zeros.
    pub(super) slots: Vec<u32>,
    sectors: Vec<u8>,
}

impl Segment {
    /// Writes the sectors of `data` for which `survives` holds. `offset` is a multiple of the sector size.
    pub(super) fn write(&mut self, offset: usize, data: &[u8], survives: impl Fn(usize) -> bool) {
        let first = offset / SECTOR_BYTES;
        let end = first + data.len().div_ceil(SECTOR_BYTES);
        if self.slots.len() < end {
            self.slots.resize(end, 0);
        }
        for (at, sector) in data.chunks(SECTOR_BYTES).enumerate().filter(|(at, _)| survives(*at)) {
            let slot = &mut self.slots[first + at];
            if *sector == ZEROS[..sector.len()] {
                *slot = 0;
                continue;
            }
            if *slot == 0 {
                *slot = (self.sectors.len() / SECTOR_BYTES) as u32 + 1;
                self.sectors.resize(self.sectors.len() + SECTOR_BYTES, 0);
            }
            let from = (*slot as usize - 1) * SECTOR_BYTES;
            let sector_now = &mut self.sectors[from..from + SECTOR_BYTES];
            sector_now.fill(0);
            sector_now[..sector.len()].copy_from_slice(sector);
        }
    }

    /// The offsets of the sectors that are not all zeros.
    pub(super) fn used(&self) -> impl Iterator<Item = usize> + '_ {
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, slot)| **slot > 0).map(|(at, _)| at * SECTOR_BYTES)
    }

    /// The sector at `offset`; `None` for zeros.
    pub(super) fn sector_mut(&mut self, offset: usize) -> Option<&mut [u8]> {
        let slot = *self.slots.get(offset / SECTOR_BYTES)?;
        let from = (slot as usize).checked_sub(1)? * SECTOR_BYTES;
        self.sectors.get_mut(from..from + SECTOR_BYTES)
    }

    /// Makes the sector at `offset` read as zeros.
    pub(super) fn blank(&mut self, offset: usize) {
        if let Some(slot) = self.slots.get_mut(offset / SECTOR_BYTES) {
            *slot = 0;
        }
    }

    /// All bytes up to the last one ever written, and some zeros.
    pub(super) fn read(&self) -> Bytes {
        let mut bytes = vec![0; self.slots.len() * SECTOR_BYTES + TAIL_BYTES];
        for (at, slot) in self.slots.iter().enumerate().filter(|(_, slot)| **slot > 0) {
            let from = (*slot as usize - 1) * SECTOR_BYTES;
            let sector = &self.sectors[from..from + SECTOR_BYTES];
            bytes[at * SECTOR_BYTES..(at + 1) * SECTOR_BYTES].copy_from_slice(sector);
        }
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_reads_as_written() {
        let mut segment = Segment::default();
        let mut expected = vec![0; 4 * SECTOR_BYTES];
        for (sector, byte) in [(1, 7), (3, 8), (1, 9), (3, 0)] {
            let data = [byte; SECTOR_BYTES];
            segment.write(sector * SECTOR_BYTES, &data, |_| true);
            expected[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(byte);
            assert_eq!(
                segment.read()[..(segment.slots.len() * SECTOR_BYTES)],
                expected[..segment.slots.len() * SECTOR_BYTES]
            );
        }
        segment.write(0, &[5; 3 * SECTOR_BYTES], |at| at == 2);
        assert_eq!(segment.read()[2 * SECTOR_BYTES], 5);
        assert_eq!(segment.read()[0], 0);
    }

    #[test]
    fn the_damage_of_a_segment_goes_with_it() {
        let mut media = Media::default();
        for segment in 1..=2 {
            media.segments.entry(segment).or_default();
            media.unreadable.insert(segment);
            media.damage.insert((segment, Kind::Latent));
        }
        media.remove(1);
        assert_eq!(media.unreadable, BTreeSet::from([2]));
        assert_eq!(media.damage, BTreeSet::from([(2, Kind::Latent)]));
    }

    #[test]
    fn erased_sectors_are_zeros() {
        let mut media = Media::default();
        for segment in 1..=3 {
            let known = media.segments.entry(segment).or_default();
            known.write(0, &[7; 4 * SECTOR_BYTES], |_| true);
        }
        media.erase(2, SECTOR_BYTES);
        assert_eq!(media.segments.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(media.segments[&2].used().collect::<Vec<_>>(), [0]);
        assert_eq!(media.segments[&1].used().count(), 4);
    }
}
