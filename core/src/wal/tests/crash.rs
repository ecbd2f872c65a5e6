//! Life after life of one log, each ended by a crash that leaves any part of the last batch.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{Disk, write};
use crate::limits::BLOCK_BYTES;
use crate::wal::{RecoverError, Torn};

const SECTOR_BYTES: usize = 512;

/// What one life does: writes so many batches, then crashes while the last one is under way.
#[derive(Clone, Debug)]
struct Life {
    sizes: Vec<usize>,
    /// For each sector of the last batch, over and over, whether it reached the disk.
    reached: Vec<bool>,
    /// Whether a file that the last batch made longer has its new length.
    is_longer: bool,
}

fn life() -> impl Strategy<Value = Life> {
    let sizes = proptest::collection::vec(prop_oneof![3 => 0..300_usize, 2 => 0..9000_usize], 1..5);
    let reached = prop_oneof![
        Just(vec![true]),
        Just(vec![false]),
        proptest::collection::vec(any::<bool>(), 1..40),
        // A header's block without what follows, and the reverse.
        (0..60_usize).prop_map(|n| (0..120).map(|at| at < n).collect()),
        (0..60_usize).prop_map(|n| (0..120).map(|at| at >= n).collect()),
    ];
    (sizes, reached, any::<bool>()).prop_map(|(sizes, reached, is_longer)| Life {
        sizes,
        reached,
        is_longer,
    })
}

/// The disk after a crash: of the sectors that differ, those that reached it.
fn crash(before: &Disk, after: &mut Disk, life: &Life) {
    for (number, file) in &mut after.files {
        let old = before.files.iter().find(|(known, _)| known == number);
        let old = old.map_or(&[][..], |(_, old)| old);
        let mut at = 0;
        for (sector, bytes) in file.chunks_mut(SECTOR_BYTES).enumerate() {
            let mut was = [0; SECTOR_BYTES];
            if let Some(old) = old.get(sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES) {
                was.copy_from_slice(old);
            }
            if *bytes != was {
                if !life.reached[at % life.reached.len()] {
                    bytes.copy_from_slice(&was);
                }
                at += 1;
            }
        }
        if !life.is_longer && file[old.len()..].iter().all(|byte| *byte == 0) {
            file.truncate(old.len());
        }
    }
}

/// What the driver does after a cut, as far as a crash lets it: zeros to the segment's end, later segments away.
fn erase(disk: &mut Disk, torn: &Torn, mut reaches: impl FnMut() -> bool) {
    disk.files.retain(|(number, _)| *number <= torn.segment || !reaches());
    let file = disk.files.iter_mut().find(|(number, _)| *number == torn.segment);
    let rest = file.and_then(|(_, file)| file.get_mut(torn.offset as usize..));
    for sector in rest.unwrap_or_default().chunks_mut(SECTOR_BYTES) {
        if reaches() {
            sector.fill(0);
        }
    }
}

/// A crash while a cut is made durable, then the whole cut.
fn mend(disk: &mut Disk, torn: &Torn, life: &Life) {
    let cut = disk.recover().unwrap().writes;
    let mut reached = life.reached.iter().rev().cycle();
    erase(disk, torn, || *reached.next().unwrap());
    assert_eq!(disk.recover().unwrap().writes, cut);
    erase(disk, torn, || true);
    let whole = disk.recover().unwrap();
    assert_eq!((whole.writes, whole.torn), (cut, None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_never_costs_a_durable_write_nor_the_log(lives in proptest::collection::vec(life(), 1..12)) {
        let mut disk = Disk::new();
        let mut mark = 0;
        for life in lives {
            disk.writer.segment_bytes = 7 * BLOCK_BYTES as u64;
            let mut before = disk.clone();
            for size in &life.sizes {
                mark += 1;
                before = disk.clone();
                disk.append(&[write(mark, *size)]);
            }
            crash(&before, &mut disk, &life);
            match disk.recover() {
                Ok(found) => {
                    let durable = before.writes.len();
                    prop_assert_eq!(&found.writes[..durable], &before.writes[..]);
                    let tail = &found.writes[durable..];
                    prop_assert!(tail.is_empty() || *tail == disk.writes[durable..]);
                    if let Some(torn) = found.torn {
                        mend(&mut disk, &torn, &life);
                    }
                    disk.writes = found.writes;
                    disk.writer = found.writer;
                }
                Err(error) => {
                    // Nothing was durable yet: the log begins anew, in a new file.
                    prop_assert_eq!((error, before.writes.len()), (RecoverError::Empty, 0));
                    disk = Disk::new();
                }
            }
        }
    }
}
