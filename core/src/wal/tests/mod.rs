//! Laws of the log: recovery reads every written record, and gives each damage its one verdict.

mod crash;
mod damage;

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::id::Token;
use crate::limits::BLOCK_BYTES;
use crate::replication;

pub(super) fn header() -> Header {
    Header {
        federation: FederationId([1; 16]),
        node: NodeId([2; 16]),
        store: StoreId([3; 16]),
        lane: 7,
    }
}

/// A record of about `bytes` bytes. Its shard and its bytes depend on `mark`.
pub(super) fn write(mark: u64, bytes: usize) -> Write {
    let data = vec![mark as u8 | 1; bytes];
    let shard = ShardId { slot: mark as u16, ..ShardId::default() };
    Write::Shard { shard, write: replication::Write::Dots { records: vec![Bytes::from(data)] } }
}

/// The files as a driver keeps them, and the records that were written to them.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) writer: LogWriter,
    pub(super) files: Vec<(u64, Vec<u8>)>,
    pub(super) writes: Vec<(Token, Write)>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { writer: LogWriter::new(header()), files: Vec::new(), writes: Vec::new() }
    }

    pub(super) fn append(&mut self, writes: &[Write]) -> Batch {
        let first = self.writer.next_token();
        let numbered: Vec<_> = (first.seq..)
            .zip(writes)
            .map(|(seq, write)| (Token { seq, ..first }, write.clone()))
            .collect();
        let batch = self.writer.encode(&numbered);
        self.writes.extend(numbered);
        assert_eq!(batch.last.seq + 1, self.writer.next_token().seq);
        self.put(&batch);
        batch
    }

    /// Writes a batch as a driver does: into a file that grows by zeros.
    pub(super) fn put(&mut self, batch: &Batch) {
        let at = self.files.iter().position(|(number, _)| *number == batch.segment);
        let at = at.unwrap_or_else(|| {
            assert!(batch.opens_segment);
            self.files.push((batch.segment, Vec::new()));
            self.files.len() - 1
        });
        let file = &mut self.files[at].1;
        let (start, end) = (batch.offset as usize, batch.offset as usize + batch.bytes.len());
        assert_eq!((start % BLOCK_BYTES, end % BLOCK_BYTES), (0, 0));
        file.resize(file.len().max(end), 0);
        file[start..end].copy_from_slice(&batch.bytes);
    }

    pub(super) fn recover(&self) -> Result<Recovered, RecoverError> {
        recover(self.files.iter().map(|(n, file)| (*n, Bytes::copy_from_slice(file))).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_written_record_is_read(
        batches in proptest::collection::vec((proptest::collection::vec(0_usize..9000, 0..4), any::<bool>()), 1..20),
        zeros in 0_usize..3,
    ) {
        let mut disk = Disk::new();
        for (sizes, restart) in batches {
            let writes: Vec<_> = sizes.iter().map(|size| write(*size as u64, *size)).collect();
            if writes.is_empty() {
                if let Some(seal) = disk.writer.seal() {
                    disk.put(&seal);
                }
                prop_assert!(disk.writer.seal().is_none());
            } else {
                disk.append(&writes);
            }
            if restart && !disk.files.is_empty() {
                for (_, file) in &mut disk.files {
                    file.resize(file.len() + zeros * BLOCK_BYTES, 0);
                }
                let recovered = disk.recover().unwrap();
                prop_assert_eq!(&recovered.writes, &disk.writes);
                prop_assert_eq!((recovered.header, recovered.torn), (header(), None));
                disk.writer = recovered.writer;
            }
        }
        match disk.recover() {
            Ok(recovered) => prop_assert_eq!(recovered.writes, disk.writes),
            Err(error) => prop_assert_eq!((error, disk.files.len()), (RecoverError::Empty, 0)),
        }
    }

    #[test]
    fn recovery_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..9000), number in any::<u64>()) {
        prop_assert!(recover(vec![(number, bytes.into())]).is_err());
    }
}

#[test]
fn segments_open_when_full_and_are_released_when_not_needed() {
    let mut disk = Disk::new();
    let mut opened = Vec::new();
    for mark in 0..12 {
        let batch = disk.append(&[write(mark, 5 << 20)]);
        if batch.opens_segment {
            opened.push((batch.segment, batch.last.seq));
            assert_eq!(batch.offset, 0);
        }
    }
    assert_eq!(opened, [(1, 1), (2, 4), (3, 7), (4, 10)]);
    let token = |seq| Token { lane: 7, seq };
    let mut recovered = disk.recover().unwrap().writer;
    for writer in [&mut disk.writer, &mut recovered] {
        assert_eq!(writer.releasable(token(3)), [0; 0]);
        assert_eq!(writer.releasable(token(6)), [1]);
        assert_eq!(writer.releasable(token(6)), [0; 0]);
        assert_eq!(writer.releasable(token(99)), [2, 3]);
    }
    let mut rest = disk.clone();
    rest.files.retain(|(number, _)| *number > 2);
    assert_eq!(rest.recover().unwrap().writes, disk.writes[6..]);
}

#[test]
fn the_segment_before_an_opening_stays_until_the_opening_is_durable() {
    let mut disk = Disk::new();
    for mark in 0..3 {
        disk.append(&[write(mark, 5 << 20)]);
    }
    assert!(disk.append(&[write(3, 5 << 20)]).opens_segment);
    let all = Token { lane: 7, seq: 99 };
    assert_eq!(disk.writer.releasable(all), [0; 0]);
    disk.append(&[write(4, 1)]);
    assert_eq!(disk.writer.releasable(all), [1]);
}

#[test]
fn a_batch_larger_than_a_segment_has_a_segment_of_its_length() {
    let mut disk = Disk::new();
    disk.append(&[write(1, 1)]);
    let large = disk.append(&[write(2, 17 << 20)]);
    assert!(large.opens_segment && large.bytes.len() as u64 > SEGMENT_BYTES);
    assert!(disk.append(&[write(3, 1)]).opens_segment);
    assert_eq!(disk.recover().unwrap().writes, disk.writes);
}

/// The batch whose sync may have failed is named, so that a driver can write it again; with the header of a segment
/// that it opened.
#[test]
fn the_last_batch_is_named_as_it_was_written() {
    let mut disk = Disk::new();
    for mark in 0..7 {
        let batch = disk.append(&[write(mark, 5 << 20)]);
        let last = disk.recover().unwrap().last.unwrap();
        let (segment, offset, bytes) = (last.segment, last.offset as usize, last.bytes);
        assert_eq!((segment, offset), (batch.segment, batch.offset as usize));
        assert_eq!(bytes[..], batch.bytes[..], "{mark}");
        // A tear behind it is no part of it.
        let mut torn = disk.clone();
        torn.append(&[write(mark, 100)]);
        let file = &mut torn.files.last_mut().unwrap().1;
        let at = file.len() - 1;
        file[at] ^= 1;
        let found = torn.recover().unwrap();
        assert!(found.torn.is_some() || found.writes.len() == disk.writes.len() + 1);
    }
}

/// A disk wrote the last batch behind the end of an earlier segment: the log is not taken for a shorter one.
#[test]
fn a_batch_astray_behind_an_earlier_segments_end_is_found() {
    let mut disk = Disk::new();
    for mark in 0..4 {
        disk.append(&[write(mark, 5 << 20)]);
    }
    assert_eq!(disk.files.len(), 2);
    for gap in 0..3 {
        let mut damaged = disk.clone();
        let sound = damaged.files.clone();
        let batch = damaged.append(&[write(9, 9000)]);
        damaged.files = sound;
        let file = &mut damaged.files[0].1;
        file.resize(file.len() + gap * BLOCK_BYTES, 0);
        file.extend_from_slice(&batch.bytes);
        let error = damaged.recover().unwrap_err();
        assert!(matches!(error, RecoverError::Misdirected { segment: 1, .. }), "{error:?}");
    }
}
