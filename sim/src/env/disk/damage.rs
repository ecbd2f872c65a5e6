//! Damage to synced bytes, which recovery must notice.
//!
//! This module damages only bytes before the last batch. Damage in the last batch cannot be told from a tear (see
//! `core::wal`); that is why a seal follows the last batch of an idle log.

use std::collections::BTreeSet;

use continuum_core::id::Token;
use continuum_core::limits::BLOCK_BYTES;
use continuum_core::wal::{self, Batch, Write};

use crate::plan::fault::Kind;
use crate::rng::{Draws, stream};

use super::Disk;
use super::segment::{Media, SECTOR_BYTES};

impl Media {
    /// Sectors before the last batch that are not all zeros.
    fn used(&self) -> Vec<(u64, usize)> {
        let all = self.segments.iter();
        let used = all.flat_map(|(id, segment)| segment.used().map(move |offset| (*id, offset)));
        used.filter(|at| *at < self.last).collect()
    }

    fn choose(&self, draws: Draws, name: u64) -> Option<(u64, usize)> {
        let used = self.used();
        used.get(draws.below(name, 0, used.len() as u64) as usize).copied()
    }

    /// Flips a bit of a byte that is not zero.
    fn rot(&mut self, draws: Draws, name: u64) -> bool {
        let Some((id, offset)) = self.choose(draws, name) else { return false };
        let sector = self.segments.get_mut(&id).and_then(|segment| segment.sector_mut(offset));
        let Some(sector) = sector else { return false };
        // Padding is zeros and has no checksum; a byte that is not zero is covered by one.
        let says: Vec<usize> = (0..SECTOR_BYTES).filter(|at| sector[*at] != 0).collect();
        let chosen = says[draws.below(name, 1, says.len() as u64) as usize];
        sector[chosen] ^= 1 << draws.below(name, 2, 8);
        self.damage.insert((id, Kind::Rot));
        true
    }

    /// Makes a sector unreadable: it reads as zeros, or as an error.
    fn lose_sector(&mut self, draws: Draws, name: u64, answers_with_error: bool) -> bool {
        let Some((id, offset)) = self.choose(draws, name) else { return false };
        if answers_with_error {
            self.unreadable.insert(id);
        } else if let Some(segment) = self.segments.get_mut(&id) {
            segment.blank(offset);
        }
        self.damage.insert((id, Kind::Latent));
        true
    }

    /// Writes a batch to a wrong block. False when there is none.
    pub(super) fn misdirect(&mut self, batch: &Batch, draws: Draws, name: u64) -> bool {
        let ids: Vec<u64> = self.segments.keys().copied().collect();
        let Some(id) = ids.get(draws.below(name, 0, ids.len() as u64) as usize) else {
            return false;
        };
        let Some(segment) = self.segments.get_mut(id).filter(|_| !batch.opens_segment) else {
            return false;
        };
        // Up to 4 blocks beyond the last one ever written there.
        let blocks = segment.slots.len() * SECTOR_BYTES / BLOCK_BYTES + 4;
        let offset = draws.below(name, 1, blocks as u64) as usize * BLOCK_BYTES;
        if (*id, offset) == (batch.segment, batch.offset as usize) {
            return false;
        }
        segment.write(offset, &batch.bytes, |_| true);
        self.damage.insert((batch.segment, Kind::Misdirect));
        true
    }
}

impl Disk {
    /// Damages the log before its last batch, permanently. False when there is nothing to damage.
    pub(crate) fn damage(&mut self, kind: Kind, amount: i64) -> bool {
        let name = stream("disk.damage", self.node << 32 | self.damages);
        self.damages += 1;
        match kind {
            Kind::Rot => self.media.rot(self.draws, name),
            Kind::Latent => self.media.lose_sector(self.draws, name, amount % 2 == 1),
            _ => false,
        }
    }

    /// The kinds of damage that were not noticed yet.
    pub(crate) fn damaged_by(&self) -> BTreeSet<Kind> {
        self.media.damage.iter().map(|(_, kind)| *kind).collect()
    }

    /// Flips a bit in a copy of the log, before its last batch, and recovers from the copy. Returns whether recovery
    /// noticed; a byte between batches may make no difference.
    ///
    /// # Errors
    ///
    /// Recovery read the damaged log as sound and returned other writes.
    pub(crate) fn probe_rot(&self, sound: &[(Token, Write)]) -> Result<bool, String> {
        let name = stream("disk.rot", self.node);
        let candidates = self.media.used();
        if candidates.is_empty() {
            return Ok(false);
        }
        let chosen = self.draws.below(name, self.crashes * 2, candidates.len() as u64) as usize;
        let (id, sector) = candidates[chosen];
        let bits = self.draws.bits(name, self.crashes * 2 + 1);
        let at = sector + bits as usize % SECTOR_BYTES;
        let mut segments = self.media.read();
        for (_, bytes) in segments.iter_mut().filter(|(known, _)| *known == id) {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << (bits >> 32 & 7);
            *bytes = damaged.into();
        }
        match wal::recover(segments) {
            Err(_) => Ok(true),
            Ok(recovered) if recovered.writes == sound => Ok(false),
            Ok(recovered) => Err(format!(
                "byte {at} of segment {id} was changed, but recovery read the log as sound: {} writes instead of {}",
                recovered.writes.len(),
                sound.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{begun, disk_with};
    use super::*;

    #[test]
    fn all_damage_before_the_last_batch_is_noticed() {
        for seed in 0..200 {
            for (kind, amount) in [(Kind::Rot, 0), (Kind::Latent, 0), (Kind::Latent, 1)] {
                let mut disk = disk_with(seed, 6);
                assert!(disk.damage(kind, amount));
                assert_eq!(disk.damaged_by(), BTreeSet::from([kind]));
                disk.crash(super::super::Fate::Kept);
                assert!(disk.recover().is_err(), "seed {seed} {kind:?} {amount}");
            }
        }
    }

    #[test]
    fn a_misdirected_batch_is_noticed_whatever_follows() {
        for seed in 0..200 {
            let mut disk = disk_with(seed, 4);
            disk.misdirects_next = true;
            begun(&mut disk, 5);
            assert!(disk.finish(false).is_some());
            if disk.damaged_by().is_empty() {
                continue;
            }
            (0..seed % 4).for_each(|more| {
                begun(&mut disk, 6 + more);
                disk.finish(false);
            });
            disk.crash(super::super::Fate::Kept);
            assert!(disk.recover().is_err(), "seed {seed}");
        }
    }

    #[test]
    fn rot_is_probed_only_before_the_last_whole_batch() {
        for seed in 0..40 {
            let mut disk = disk_with(seed, 2);
            begun(&mut disk, 3);
            // The third batch is lost or torn: damage of the second could not be told from a tear.
            disk.crash(super::super::Fate::Torn);
            let found = disk.recover().expect("a tear is no damage").expect("two are durable");
            disk.probe_rot(&found.writes).expect("damage is noticed, or outside of what is probed");
        }
    }

    #[test]
    fn a_log_of_one_batch_has_nothing_before_its_last() {
        let mut disk = disk_with(1, 1);
        assert!(!disk.damage(Kind::Rot, 0) && !disk.damage(Kind::Latent, 1));
    }
}
