//! Every damage of a small log, and the verdict that recovery must give. The test computes the verdict from the log's
//! plan, block by block, and not from its bytes.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Disk, header, write};
use crate::id::{NodeId, StoreId};
use crate::limits::BLOCK_BYTES;
use crate::wal::frame::{BlockAddress, PREFIX_BYTES, Prefix};
use crate::wal::{Header, LogWriter, RecoverError, Tear, Torn, VERSION};
use crate::{codec, replication};

/// The condition of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Intact,
    /// The content is damaged, the prefix is sound.
    Content,
    /// The prefix is damaged.
    Garbage,
    /// The block is zeros or missing.
    Gone,
}

/// A block of the plan.
#[derive(Clone, Copy, Debug)]
struct Unit {
    /// The index of the file.
    file: usize,
    block: usize,
    is_header: bool,
    /// The batch of the block; for a segment header, the first one after it.
    seq: u64,
    /// The block where the batch begins.
    start: usize,
    /// The bytes of the block before its padding.
    used: usize,
    state: State,
}

/// A small log and its plan.
#[derive(Clone)]
struct Plan {
    disk: Disk,
    units: Vec<Unit>,
    /// For each batch, the number of records before it.
    before: Vec<usize>,
}

const FILES: usize = 3;

/// Twelve batches in three segments: of one block and of more, one of them a seal, the last of two blocks.
fn plan(last_bytes: usize) -> Plan {
    let mut disk = Disk::new();
    disk.writer.segment_bytes = 8 * BLOCK_BYTES as u64;
    let mut plan = Plan { disk, units: Vec::new(), before: vec![0] };
    let sizes = [10, 5000, 3000, 0, 9000, 4000, 100, 100, 7000, 100, 100, last_bytes];
    for (at, size) in sizes.into_iter().enumerate() {
        plan.before.push(plan.disk.writes.len());
        let writes = [write(at as u64, size / 2), write(90 + at as u64, size / 2)];
        let (batch, content) = if size == 0 {
            let seal = plan.disk.writer.seal().unwrap();
            plan.disk.put(&seal);
            (seal, 0)
        } else {
            let content = writes.iter().map(|write| 4 + codec::encoded_len(write)).sum();
            (plan.disk.append(&writes), content)
        };
        plan.add(at as u64 + 1, batch.opens_segment, batch.offset as usize / BLOCK_BYTES, content);
    }
    assert_eq!((plan.disk.files.len(), plan.before.len()), (FILES, 13));
    plan
}

impl Plan {
    fn add(&mut self, seq: u64, opens: bool, block: usize, content: usize) {
        let file = self.disk.files.len() - 1;
        let start = block + usize::from(opens);
        let unit =
            Unit { file, block, is_header: true, seq, start, used: 170, state: State::Intact };
        self.units.extend(opens.then_some(unit));
        // The layout: 48 bytes of prefix in each block, 80 bytes of head, then the records.
        let (room, mut left, mut block) = (BLOCK_BYTES - 48, 80 + content, start);
        while left > 0 {
            let used = 48 + left.min(room);
            self.units.push(Unit { block, is_header: false, used, ..unit });
            left -= left.min(room);
            block += 1;
        }
    }

    /// The file and the block where the batch before `seq` ends.
    fn end_before(&self, seq: u64) -> (usize, usize) {
        let last = self.units.iter().rfind(|unit| unit.seq < seq && !unit.is_header).unwrap();
        (last.file, last.block + 1)
    }

    fn damaged(&self) -> Option<Unit> {
        let broken = self.units.iter().filter(|unit| unit.state != State::Intact);
        broken.min_by_key(|unit| (unit.seq, !unit.is_header)).copied()
    }

    /// The verdict that recovery must give.
    fn expected(&self) -> Result<(usize, Option<Torn>), RecoverError> {
        let Some(broken) = self.damaged() else { return Ok((self.disk.writes.len(), None)) };
        let is_seen = |unit: &&Unit| matches!(unit.state, State::Intact | State::Content);
        let later = self.units.iter().filter(is_seen).any(|unit| unit.seq > broken.seq);
        let offset_of = |file: usize, block: usize| (file as u64 + 1, (block * BLOCK_BYTES) as u64);
        let (segment, offset) =
            offset_of(broken.file, if broken.is_header { 0 } else { broken.start });
        if later {
            return Err(RecoverError::Rot { segment, offset });
        }
        if broken.seq == 1 && broken.is_header {
            return Err(RecoverError::Empty);
        }
        let same = self.units.iter().filter(|unit| unit.seq == broken.seq);
        let at = if broken.is_header {
            let (file, block) = self.end_before(broken.seq);
            offset_of(file, block)
        } else {
            (segment, offset)
        };
        // Recovery enters a segment with a sound header; only bytes after the header are a tear.
        let remains =
            |unit: &Unit| unit.state != State::Gone && (broken.is_header || !unit.is_header);
        let torn = same.copied().any(|unit| remains(&unit));
        let torn = torn.then_some(Torn { segment: at.0, offset: at.1, what: Tear::Batch });
        Ok((self.before[broken.seq as usize], torn))
    }

    /// Compares recovery with the plan, then continues the recovered log.
    fn check(&self) {
        let expected = self.expected();
        let found = self.disk.recover();
        let seen = found.as_ref().map(|found| (found.writes.len(), found.torn));
        assert_eq!(seen.map_err(|error| *error), expected);
        let Ok(found) = found else { return };
        assert_eq!(found.writes, self.disk.writes[..found.writes.len()]);
        // A second recovery gives the same result.
        let again = self.disk.recover().unwrap();
        assert_eq!((&again.writes, again.torn), (&found.writes, found.torn));
        assert_eq!(format(&again.writer), format(&found.writer));
        // Recovery finds a batch that is appended after any cut.
        let mut after =
            Disk { writer: found.writer, files: self.disk.files.clone(), writes: found.writes };
        after.writer.segment_bytes = 8 * BLOCK_BYTES as u64;
        after.append(&[write(77, 20)]);
        let again = after.recover().unwrap();
        assert_eq!(again.writes, after.writes);
    }

    fn unit(&mut self, file: usize, block: usize) -> Option<&mut Unit> {
        self.units.iter_mut().find(|unit| (unit.file, unit.block) == (file, block))
    }

    fn flip(&mut self, file: usize, byte: usize, bit: u8) {
        self.disk.files[file].1[byte] ^= 1 << bit;
        let inside = byte % BLOCK_BYTES;
        if let Some(unit) = self.unit(file, byte / BLOCK_BYTES) {
            if inside < PREFIX_BYTES {
                unit.state = State::Garbage;
            } else if inside < unit.used && unit.state == State::Intact {
                unit.state = State::Content;
            }
        }
    }

    fn zero(&mut self, file: usize, block: usize) {
        self.disk.files[file].1[block * BLOCK_BYTES..][..BLOCK_BYTES].fill(0);
        if let Some(unit) = self.unit(file, block) {
            unit.state = State::Gone;
        }
    }

    fn truncate(&mut self, file: usize, bytes: usize) {
        self.disk.files[file].1.truncate(bytes);
        for unit in self.units.iter_mut().filter(|unit| unit.file == file) {
            let start = unit.block * BLOCK_BYTES;
            unit.state = match (bytes, unit.state) {
                (bytes, state) if bytes >= start + BLOCK_BYTES => state,
                (bytes, _) if bytes <= start => State::Gone,
                // A block that was zeros or garbage does not get better.
                (_, State::Gone) => State::Gone,
                (_, State::Garbage) => State::Garbage,
                (bytes, _) if bytes >= start + PREFIX_BYTES => State::Content,
                _ => State::Garbage,
            };
        }
    }
}

fn format(writer: &LogWriter) -> alloc::string::String {
    let mut writer = writer.clone();
    writer.scratch = Vec::new();
    alloc::format!("{writer:?}")
}

fn each_block(plan: &Plan) -> Vec<(usize, usize)> {
    plan.units.iter().map(|unit| (unit.file, unit.block)).collect()
}

#[test]
fn every_block_zeroed_or_cut_off_has_its_verdict() {
    for last_bytes in [100, 5000] {
        let whole = plan(last_bytes);
        whole.check();
        for (file, block) in each_block(&whole) {
            let mut zeroed = whole.clone();
            zeroed.zero(file, block);
            zeroed.check();
            for bytes in [0, 1, 47, 48, 512, 4095] {
                let mut cut = whole.clone();
                cut.truncate(file, block * BLOCK_BYTES + bytes);
                cut.check();
            }
        }
    }
}

#[test]
fn every_byte_flipped_has_its_verdict() {
    let whole = plan(5000);
    for (file, block) in each_block(&whole) {
        for inside in 0..BLOCK_BYTES {
            // Every byte of the prefix and the head, many of the rest, and both ends of the padding.
            if inside < 180 || inside % 5 == 0 {
                let mut flipped = whole.clone();
                flipped.flip(file, block * BLOCK_BYTES + inside, (inside % 8) as u8);
                flipped.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Several damages at once. Recovery may name either of two positions where the chain breaks, but it never accepts
    /// a damaged batch, and never cuts a durable one while a later block proves it.
    #[test]
    fn several_damages_are_never_taken_for_a_tear(
        damages in proptest::collection::vec((0..3_u8, any::<prop::sample::Index>(), 0..BLOCK_BYTES), 1..6),
    ) {
        let mut plan = plan(5000);
        for (kind, which, byte) in damages {
            let unit = *which.get(&plan.units);
            if (unit.block + 1) * BLOCK_BYTES > plan.disk.files[unit.file].1.len() {
                continue;
            }
            match kind {
                0 => plan.flip(unit.file, unit.block * BLOCK_BYTES + byte, 3),
                1 => plan.zero(unit.file, unit.block),
                _ if unit.file + 1 == FILES => plan.truncate(unit.file, unit.block * BLOCK_BYTES + byte),
                _ => {}
            }
        }
        match (plan.disk.recover(), plan.expected()) {
            (Ok(found), Ok((writes, _))) => prop_assert_eq!(found.writes, &plan.disk.writes[..writes]),
            (Err(RecoverError::Rot { .. }), Err(RecoverError::Rot { .. })) => {}
            (Err(found), Err(expected)) => prop_assert_eq!(found, expected),
            (found, expected) => prop_assert!(false, "{:?} {:?}", found.map(|found| found.torn), expected),
        }
    }
}

/// The log of the plan under another header.
fn relabelled(label: Header) -> Disk {
    let mut disk = Disk::new();
    disk.writer = LogWriter::new(label);
    disk.writer.segment_bytes = 8 * BLOCK_BYTES as u64;
    for at in 0..12 {
        disk.append(&[write(at, 5000)]);
    }
    disk
}

#[test]
fn a_missing_or_repeated_segment_is_named() {
    let mut disk = plan(100).disk;
    disk.files.push(disk.files[0].clone());
    assert_eq!(disk.recover().unwrap_err(), RecoverError::Repeated { segment: 1 });
    disk.files.pop();
    disk.files.remove(1);
    assert_eq!(disk.recover().unwrap_err(), RecoverError::Hole { segment: 2 });
}

#[test]
fn a_foreign_segment_names_both_logs() {
    let other = Header { node: NodeId([9; 16]), ..header() };
    let mut disk = plan(100).disk;
    disk.files[1] = relabelled(other).files[1].clone();
    let expected = RecoverError::Foreign { segment: 2, expected: header(), found: other };
    assert_eq!(disk.recover().unwrap_err(), expected);
}

#[test]
fn another_version_is_refused_and_not_mistaken_for_damage() {
    for found in [1, VERSION - 1, VERSION + 1] {
        for file in 0..FILES {
            let mut disk = plan(100).disk;
            let mut prefix = Prefix::parse(&disk.files[file].1).unwrap();
            prefix.version = found;
            disk.files[file].1[..PREFIX_BYTES].copy_from_slice(&prefix.encode());
            let error = disk.recover().unwrap_err();
            assert_eq!(error, RecoverError::Version { segment: file as u64 + 1, found });
            let text = error.to_string();
            let names =
                [alloc::format!("has version {found}"), alloc::format!("reads version {VERSION}")];
            assert!(
                names.iter().all(|name| text.contains(name)) && text.contains("hint: "),
                "{text}"
            );
        }
    }
}

#[test]
fn a_misplaced_block_is_named() {
    let whole = plan(100);
    let blocks = each_block(&whole);
    for (from, to) in blocks.iter().flat_map(|from| blocks.iter().map(move |to| (*from, *to))) {
        let mut disk = whole.disk.clone();
        let block = disk.files[from.0].1[from.1 * BLOCK_BYTES..][..BLOCK_BYTES].to_vec();
        disk.files[to.0].1[to.1 * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(&block);
        if from == to {
            assert!(disk.recover().is_ok());
            continue;
        }
        match disk.recover() {
            Err(RecoverError::Misdirected { segment, offset, belongs_segment, belongs_offset }) => {
                assert_eq!((segment, offset), (to.0 as u64 + 1, (to.1 * BLOCK_BYTES) as u64));
                let belongs = (from.0 as u64 + 1, (from.1 * BLOCK_BYTES) as u64);
                assert_eq!((belongs_segment, belongs_offset), belongs);
            }
            // An older block over a newer one: the newer one is lost. This is rot, or the log's end if it was the last
            // one.
            Err(RecoverError::Rot { .. }) => assert!(to > from || to.1 == 0),
            Ok(found) => {
                assert_eq!(Some(&to), blocks.last());
                assert_eq!(found.writes.len(), whole.before[12]);
                assert_eq!(found.torn.map(|torn| torn.what), Some(Tear::Stale));
            }
            Err(error) => panic!("{from:?} over {to:?}: {error}"),
        }
    }
}

#[test]
fn bytes_of_an_earlier_use_are_not_accepted() {
    // A preallocated file that was a segment of another store, and one that was an early segment of this log.
    let other = relabelled(Header { store: StoreId([8; 16]), ..header() });
    let whole = plan(100).disk;
    for old in [other.files[0].1.clone(), whole.files[0].1.clone()] {
        let mut disk = whole.clone();
        disk.files.push((4, old.clone()));
        // The same after the last batch of the current segment.
        let end = disk.writer.offset as usize;
        disk.files[2].1.resize(end, 0);
        disk.files[2].1.extend_from_slice(&old[BLOCK_BYTES..3 * BLOCK_BYTES]);
        let found = disk.recover().unwrap();
        assert_eq!(found.writes, disk.writes);
        let torn = Torn { segment: 3, offset: end as u64, what: Tear::Stale };
        assert_eq!(found.torn, Some(torn));
        // Later batches overwrite these bytes.
        disk.writer = found.writer;
        disk.writer.segment_bytes = 8 * BLOCK_BYTES as u64;
        for at in 0..9 {
            disk.append(&[write(at, 5000)]);
            assert_eq!(disk.recover().unwrap().writes, disk.writes);
        }
    }
}

#[test]
fn another_history_of_the_same_store_is_refused() {
    let history = |mark| {
        let mut disk = Disk::new();
        disk.append(&[write(mark, 10)]);
        disk.append(&[write(5, 10)]);
        disk
    };
    let (mut mine, other) = (history(1), history(3));
    mine.files[0].1[2 * BLOCK_BYTES..].copy_from_slice(&other.files[0].1[2 * BLOCK_BYTES..]);
    let expected = RecoverError::Forked { segment: 1, offset: 2 * BLOCK_BYTES as u64 };
    assert_eq!(mine.recover().unwrap_err(), expected);
}

#[test]
fn a_payload_cannot_pass_for_a_batch() {
    // A torn batch with a value that has the bytes of a later batch at the beginning of every block.
    let disk = plan(100).disk;
    let image = disk.files[2].1[BLOCK_BYTES..2 * BLOCK_BYTES].repeat(4);
    let mut torn = Disk::new();
    let shift = 48 + 80 + 4 + 40;
    let data: Vec<u8> = image[BLOCK_BYTES - shift % BLOCK_BYTES..].to_vec();
    let shard = crate::id::ShardId::default();
    let write = crate::wal::Write::Shard {
        shard,
        write: replication::Write::Dots { records: vec![Bytes::from(data)] },
    };
    torn.append(&[super::write(1, 10)]);
    let kept = torn.writes.len();
    torn.append(&[write]);
    let last = torn.files[0].1.len() - 1;
    torn.files[0].1[2 * BLOCK_BYTES + 200] ^= 1;
    torn.files[0].1[last] ^= 1;
    assert_eq!(torn.recover().unwrap().writes.len(), kept);
}

#[test]
fn the_check_covers_the_address() {
    let address = BlockAddress { log: 1, segment: 2, block: 3, seq: 4 };
    let prefix = Prefix { version: 1, kind: 1, address };
    let bytes = prefix.encode();
    assert_eq!(Prefix::parse(&bytes), Some(prefix));
    for at in 0..PREFIX_BYTES * 8 {
        let mut bytes = bytes;
        bytes[at / 8] ^= 1 << (at % 8);
        assert_eq!(Prefix::parse(&bytes), None);
    }
}
