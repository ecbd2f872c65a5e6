//! Processes that use one log in turn. Each ends in a crash that leaves any part of the last batch.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{Disk, write};
use crate::limits::BLOCK_BYTES;
use crate::wal::{RecoverError, Torn};

const SECTOR_BYTES: usize = 512;

/// One process: it writes a batch for each size, and crashes while it writes the last one.
#[derive(Clone, Debug)]
struct Process {
    sizes: Vec<usize>,
    /// Whether each sector of the last batch reached the disk; the list repeats.
    reached: Vec<bool>,
    /// Whether a file that the last batch extended has its new length.
    is_longer: bool,
}

fn process() -> impl Strategy<Value = Process> {
    let sizes = proptest::collection::vec(prop_oneof![3 => 0..300_usize, 2 => 0..9000_usize], 1..5);
    let reached = prop_oneof![
        Just(vec![true]),
        Just(vec![false]),
        proptest::collection::vec(any::<bool>(), 1..40),
        // A header's block without the blocks after it, and the reverse.
        (0..60_usize).prop_map(|n| (0..120).map(|at| at < n).collect()),
        (0..60_usize).prop_map(|n| (0..120).map(|at| at >= n).collect()),
    ];
    (sizes, reached, any::<bool>()).prop_map(|(sizes, reached, is_longer)| Process {
        sizes,
        reached,
        is_longer,
    })
}

/// Leaves on the disk those changed sectors that reached it before the crash.
fn crash(before: &Disk, after: &mut Disk, process: &Process) {
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
                if !process.reached[at % process.reached.len()] {
                    bytes.copy_from_slice(&was);
                }
                at += 1;
            }
        }
        if !process.is_longer && file[old.len()..].iter().all(|byte| *byte == 0) {
            file.truncate(old.len());
        }
    }
}

/// Erases the cut as a driver does, as far as `reaches` allows: zeros to the segment's end, later segments deleted.
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

/// Crashes while the driver erases the cut, then erases it in full.
fn erase_after_crash(disk: &mut Disk, torn: &Torn, process: &Process) {
    let cut = disk.recover().unwrap().writes;
    let mut reached = process.reached.iter().rev().cycle();
    erase(disk, torn, || *reached.next().unwrap());
    assert_eq!(disk.recover().unwrap().writes, cut);
    erase(disk, torn, || true);
    let whole = disk.recover().unwrap();
    assert_eq!((whole.writes, whole.torn), (cut, None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_loses_no_durable_write(processes in proptest::collection::vec(process(), 1..12)) {
        let mut disk = Disk::new();
        let mut mark = 0;
        for process in processes {
            disk.writer.segment_bytes = 7 * BLOCK_BYTES as u64;
            let mut before = disk.clone();
            for size in &process.sizes {
                mark += 1;
                before = disk.clone();
                disk.append(&[write(mark, *size)]);
            }
            crash(&before, &mut disk, &process);
            match disk.recover() {
                Ok(found) => {
                    let durable = before.writes.len();
                    prop_assert_eq!(&found.writes[..durable], &before.writes[..]);
                    let tail = &found.writes[durable..];
                    prop_assert!(tail.is_empty() || *tail == disk.writes[durable..]);
                    if let Some(torn) = found.torn {
                        erase_after_crash(&mut disk, &torn, &process);
                    }
                    disk.writes = found.writes;
                    disk.writer = found.writer;
                }
                Err(error) => {
                    // Nothing was durable yet: a new log begins in a new file.
                    prop_assert_eq!((error, before.writes.len()), (RecoverError::Empty, 0));
                    disk = Disk::new();
                }
            }
        }
    }
}
