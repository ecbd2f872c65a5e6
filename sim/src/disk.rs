//! A node's disk: real log bytes, synced in batches, torn at a crash.
//!
//! The log's bytes are made and read by `core::wal`; here they are kept, synced after a while and damaged. A batch
//! forms while the previous sync is under way. What a crash does to the batch under way is drawn sector by sector.
//! Side files are synced before the batch that may name them is written. Reading while the node runs is not here: a
//! node never reads its disk.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use continuum_core::id::{ShardId, Token};
use continuum_core::replication::Dots;
use continuum_core::wal::{self, Batch, Header, LogWriter, RecoverError, SnapshotId, Write};

use crate::draw::{Draws, stream};
use crate::durable::Durable;

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;
const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];
/// Zeros that recovery finds behind the last byte ever written to a segment: it reads no further into a file that is
/// preallocated in full.
const TAIL_BYTES: usize = 8192;

/// What a crash does to bytes that were written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The operating system survived and wrote them.
    Kept,
    /// All of them are gone, or none.
    Lost,
    /// Each sector is gone, or not.
    Torn,
}

/// A side file: its bytes, and what tells when it is no longer needed.
#[derive(Debug, Default)]
struct SideFile {
    bytes: Vec<u8>,
    /// The newest token that wrote or named it.
    newest: Token,
}

/// Writes under way.
#[derive(Debug)]
struct Flight {
    /// Everything that becomes durable, in order.
    writes: Vec<(Token, Write)>,
    /// The log's part of it.
    batch: Option<Batch>,
    /// When the side files are synced and the batch is begun.
    batch_at: u64,
}

/// One node's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    node: u64,
    draws: Draws,
    header: Header,
    writer: LogWriter,
    segments: BTreeMap<u64, Segment>,
    /// Where the last batch begins.
    last: (u64, usize),
    files: BTreeMap<SnapshotId, SideFile>,
    queue: Vec<(Token, Write)>,
    /// What a shard holds once a write is durable, oldest write first.
    shards: VecDeque<(Token, ShardId, Dots)>,
    flight: Option<Flight>,
    /// The newest token that was reported durable, or found to be so after a restart.
    persisted: Token,
    synced: Token,
    crashes: u64,
    /// What the synced writes amount to.
    pub(crate) durable: Durable,
}

/// What a restart finds.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) writes: Vec<(Token, Write)>,
    pub(crate) snapshots: BTreeMap<SnapshotId, Bytes>,
}

impl Disk {
    pub(crate) fn new(node: usize, draws: Draws, header: Header) -> Self {
        Self {
            node: node as u64,
            draws,
            header,
            writer: LogWriter::new(header),
            segments: BTreeMap::new(),
            last: (0, 0),
            files: BTreeMap::new(),
            queue: Vec::new(),
            shards: VecDeque::new(),
            flight: None,
            persisted: Token::default(),
            synced: Token::default(),
            crashes: 0,
            durable: Durable::default(),
        }
    }

    /// Queues a write for the next batch.
    pub(crate) fn persist(&mut self, token: Token, write: Write) {
        self.queue.push((token, write));
    }

    /// Once this write is durable, the shard holds these dots.
    pub(crate) fn expect(&mut self, token: Token, shard: ShardId, dots: Dots) {
        self.shards.push_back((token, shard, dots));
    }

    /// Writes that are not durable yet.
    pub(crate) fn pending(&self) -> usize {
        self.queue.len() + self.flight.as_ref().map_or(0, |flight| flight.writes.len())
    }

    /// How many side files there are.
    pub(crate) fn side_files(&self) -> usize {
        self.files.len()
    }

    /// Whether there is nothing to do.
    pub(crate) const fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
    }

    /// Whether there is a batch to begin.
    pub(crate) const fn may_begin(&self) -> bool {
        self.flight.is_none() && !self.queue.is_empty()
    }

    /// Begins the next batch, if there is one and no other is under way. Returns when it will be durable.
    pub(crate) fn begin(&mut self, now: u64, sync_ns: u64) -> Option<u64> {
        if self.flight.is_some() || self.queue.is_empty() {
            return None;
        }
        let writes = std::mem::take(&mut self.queue);
        let is_chunk = |(_, write): &(Token, Write)| matches!(write, Write::Chunk { .. });
        let chunks = writes.iter().filter(|write| is_chunk(write)).count();
        let batch = if chunks == 0 {
            Some(self.writer.encode(&writes))
        } else {
            let log: Vec<_> = writes.iter().filter(|write| !is_chunk(write)).cloned().collect();
            (!log.is_empty()).then(|| self.writer.encode(&log))
        };
        let batch_at = if chunks > 0 { now + sync_ns } else { now };
        let done_at = if batch.is_some() { batch_at + sync_ns } else { batch_at };
        self.flight = Some(Flight { writes, batch, batch_at });
        Some(done_at)
    }

    /// Begins an empty batch behind the last one of an idle log. Returns when it will be durable.
    pub(crate) fn seal(&mut self, now: u64, sync_ns: u64) -> Option<u64> {
        if !self.is_idle() {
            return None;
        }
        let batch = self.writer.seal()?;
        let done_at = now + sync_ns;
        self.flight = Some(Flight { writes: Vec::new(), batch: Some(batch), batch_at: now });
        Some(done_at)
    }

    /// The batch under way is durable. Returns its newest token; none for a seal.
    pub(crate) fn finish(&mut self) -> Option<Token> {
        let flight = self.flight.take()?;
        for (token, write) in &flight.writes {
            self.durable.apply(write);
            match write {
                Write::Chunk { snapshot, offset, data } => {
                    let file = self.files.entry(*snapshot).or_default();
                    file.newest = *token;
                    if *offset == 0 {
                        file.bytes.clear();
                    }
                    write_at(&mut file.bytes, *offset as usize, data);
                }
                Write::Snapshot { snapshot, .. } => {
                    if let Some(file) = self.files.get_mut(snapshot) {
                        file.newest = *token;
                    }
                }
                _ => {}
            }
        }
        if let Some(batch) = &flight.batch {
            self.open(batch).write(batch.offset as usize, &batch.bytes, |_| true);
        }
        let last = flight.writes.last().map(|(token, _)| *token)?;
        self.persisted = last;
        while self.shards.front().is_some_and(|(token, _, _)| *token <= last) {
            if let Some((_, shard, dots)) = self.shards.pop_front() {
                self.durable.set_shard(shard, dots);
            }
        }
        Some(last)
    }

    /// Deletes what holds no write from `before` on.
    pub(crate) fn release(&mut self, before: Token) {
        for segment in self.writer.releasable(before) {
            self.segments.remove(&segment);
        }
        let durable = &mut self.durable;
        self.files.retain(|snapshot, file| {
            let needed = file.newest.seq >= before.seq;
            if !needed {
                durable.forget_file(*snapshot);
            }
            needed
        });
    }

    /// The machine stops at `now`. Returns how many sectors were lost.
    pub(crate) fn crash(&mut self, now: u64, fate: Fate) -> u64 {
        self.crashes += 1;
        self.queue.clear();
        self.shards.clear();
        let Some(flight) = self.flight.take() else { return 0 };
        let mut lost = 0;
        for (at, (token, write)) in flight.writes.iter().enumerate() {
            let Write::Chunk { snapshot, offset, data } = write else { continue };
            let fate = if now >= flight.batch_at { Fate::Kept } else { fate };
            let survivors = self.survivors(fate, at as u64, data.len());
            let file = self.files.entry(*snapshot).or_default();
            file.newest = *token;
            lost += write_some(&mut file.bytes, *offset as usize, data, &survivors);
        }
        if let Some(batch) = flight.batch.filter(|_| now >= flight.batch_at) {
            let survivors = self.survivors(fate, u64::MAX, batch.bytes.len());
            if batch.opens_segment && !survivors.contains(&true) {
                // The directory entry of a new segment is as unsynced as its bytes.
                return lost + survivors.len() as u64;
            }
            let segment = self.open(&batch);
            segment.write(batch.offset as usize, &batch.bytes, |at| survivors[at]);
            lost += survivors.iter().filter(|survives| !**survives).count() as u64;
        }
        lost
    }

    /// Reads everything back after a crash. `None` when nothing was ever durable.
    pub(crate) fn recover(&mut self) -> Result<Option<Found>, RecoverError> {
        let segments = self.segments.iter();
        let segments = segments.map(|(id, segment)| (*id, segment.read())).collect();
        let recovered = match wal::recover(segments) {
            Ok(recovered) => recovered,
            Err(RecoverError::Empty) if self.persisted == Token::default() => {
                self.segments.clear();
                self.files.clear();
                self.writer = LogWriter::new(self.header);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.writer = recovered.writer;
        for (token, write) in recovered.writes.iter().filter(|(token, _)| *token > self.persisted) {
            // The crash spared them: they were never synced, and are durable all the same.
            self.durable.apply(write);
            self.synced = *token;
            if let Write::Snapshot { snapshot, .. } = write
                && let Some(file) = self.files.get_mut(snapshot)
            {
                file.newest = *token;
            }
        }
        self.persisted = self.persisted.max(self.synced);
        let file = |(id, file): (&SnapshotId, &SideFile)| (*id, Bytes::from(file.bytes.clone()));
        Ok(Some(Found {
            writes: recovered.writes,
            snapshots: self.files.iter().map(file).collect(),
        }))
    }

    /// Changes a byte of a copy of the log, before its last batch, and reads that. Returns whether recovery noticed; a
    /// byte between batches may make no difference.
    ///
    /// # Errors
    ///
    /// The damaged log was read as if it were sound, and other writes came out.
    pub(crate) fn probe_rot(&self, sound: &[(Token, Write)]) -> Result<bool, String> {
        let name = stream("disk.rot", self.node);
        let (last_segment, last_offset) = self.last;
        let candidates: Vec<(u64, usize)> = self
            .segments
            .iter()
            .flat_map(|(id, segment)| segment.used().map(move |offset| (*id, offset)))
            .filter(|at| *at < (last_segment, last_offset))
            .collect();
        if candidates.is_empty() {
            return Ok(false);
        }
        let chosen = self.draws.below(name, self.crashes * 2, candidates.len() as u64) as usize;
        let (id, sector) = candidates[chosen];
        let bits = self.draws.bits(name, self.crashes * 2 + 1);
        let at = sector + bits as usize % SECTOR_BYTES;
        let segments = self.segments.iter().map(|(known, segment)| {
            let mut bytes = segment.read();
            if *known == id {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << (bits >> 32 & 7);
                bytes = damaged.into();
            }
            (*known, bytes)
        });
        match wal::recover(segments.collect()) {
            Err(_) => Ok(true),
            Ok(recovered) if recovered.writes == sound => Ok(false),
            Ok(recovered) => Err(format!(
                "byte {at} of segment {id} was changed, and the log was read as sound: {} writes instead of {}",
                recovered.writes.len(),
                sound.len()
            )),
        }
    }

    /// The segment of a batch, made anew when the batch opens it.
    fn open(&mut self, batch: &Batch) -> &mut Segment {
        self.last = (batch.segment, batch.offset as usize);
        let segment = self.segments.entry(batch.segment).or_default();
        if batch.opens_segment {
            *segment = Segment::default();
        }
        segment
    }

    /// Which sectors of one write survive.
    fn survivors(&self, fate: Fate, write: u64, length: usize) -> Vec<bool> {
        let sectors = length.div_ceil(SECTOR_BYTES);
        let name = stream("disk.sector", self.node << 32 | self.crashes) ^ write;
        match fate {
            Fate::Kept => vec![true; sectors],
            Fate::Lost => vec![self.draws.chance(name, 0, 500_000); sectors],
            Fate::Torn => {
                // Half of all tears keep nearly all or nearly nothing: those are the ones that look whole or absent.
                let share =
                    [20_000, 500_000, 500_000, 980_000][self.draws.below(name, 1, 4) as usize];
                (0..sectors as u64).map(|k| self.draws.chance(name, 2 + k, share)).collect()
            }
        }
    }
}

/// A segment, of which only sectors that are not zeros take room: a batch fills whole blocks and rarely needs them.
#[derive(Debug, Default)]
struct Segment {
    /// For each sector its place in `sectors` plus one; 0 for zeros.
    places: Vec<u32>,
    sectors: Vec<u8>,
}

impl Segment {
    /// Writes those sectors of `data` for which `survives` holds. `offset` is that of a sector.
    fn write(&mut self, offset: usize, data: &[u8], survives: impl Fn(usize) -> bool) {
        let first = offset / SECTOR_BYTES;
        let end = first + data.len().div_ceil(SECTOR_BYTES);
        if self.places.len() < end {
            self.places.resize(end, 0);
        }
        for (at, sector) in data.chunks(SECTOR_BYTES).enumerate().filter(|(at, _)| survives(*at)) {
            let place = &mut self.places[first + at];
            if *sector == ZEROS[..sector.len()] {
                *place = 0;
                continue;
            }
            if *place == 0 {
                *place = (self.sectors.len() / SECTOR_BYTES) as u32 + 1;
                self.sectors.resize(self.sectors.len() + SECTOR_BYTES, 0);
            }
            let from = (*place as usize - 1) * SECTOR_BYTES;
            let sector_now = &mut self.sectors[from..from + SECTOR_BYTES];
            sector_now.fill(0);
            sector_now[..sector.len()].copy_from_slice(sector);
        }
    }

    /// Where the sectors that are not zeros begin.
    fn used(&self) -> impl Iterator<Item = usize> + '_ {
        let places = self.places.iter().enumerate();
        places.filter(|(_, place)| **place > 0).map(|(at, _)| at * SECTOR_BYTES)
    }

    /// All bytes up to the last ever written, and some zeros behind.
    fn read(&self) -> Bytes {
        let mut bytes = vec![0; self.places.len() * SECTOR_BYTES + TAIL_BYTES];
        for (at, place) in self.places.iter().enumerate().filter(|(_, place)| **place > 0) {
            let from = (*place as usize - 1) * SECTOR_BYTES;
            let sector = &self.sectors[from..from + SECTOR_BYTES];
            bytes[at * SECTOR_BYTES..(at + 1) * SECTOR_BYTES].copy_from_slice(sector);
        }
        bytes.into()
    }
}

fn write_at(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if file.len() < offset + data.len() {
        file.resize(offset + data.len(), 0);
    }
    file[offset..offset + data.len()].copy_from_slice(data);
}

/// Writes the sectors that survive; returns how many did not.
fn write_some(file: &mut Vec<u8>, offset: usize, data: &[u8], survivors: &[bool]) -> u64 {
    let mut lost = 0;
    for (at, (sector, survives)) in data.chunks(SECTOR_BYTES).zip(survivors).enumerate() {
        if *survives {
            write_at(file, offset + at * SECTOR_BYTES, sector);
        } else {
            lost += 1;
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_what_was_written_to_it() {
        let mut segment = Segment::default();
        let mut expected = vec![0; 4 * SECTOR_BYTES];
        for (sector, byte) in [(1, 7), (3, 8), (1, 9), (3, 0)] {
            let data = [byte; SECTOR_BYTES];
            segment.write(sector * SECTOR_BYTES, &data, |_| true);
            expected[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(byte);
            assert_eq!(
                segment.read()[..(segment.places.len() * SECTOR_BYTES)],
                expected[..segment.places.len() * SECTOR_BYTES]
            );
        }
        segment.write(0, &[5; 3 * SECTOR_BYTES], |at| at == 2);
        assert_eq!(segment.read()[2 * SECTOR_BYTES], 5);
        assert_eq!(segment.read()[0], 0);
    }

    #[test]
    fn a_crash_recovers_what_was_synced_and_a_prefix_of_the_rest() {
        for (fate, seed) in [(Fate::Kept, 1), (Fate::Lost, 2), (Fate::Torn, 3), (Fate::Torn, 4)] {
            let mut disk = Disk::new(0, Draws::new(seed), Header::default());
            let write =
                |seq: u64| (Token { lane: 0, seq }, Write::Contacts { contacts: Vec::new() });
            let (token, first) = write(1);
            disk.persist(token, first);
            assert_eq!(disk.begin(0, 100), Some(100));
            assert_eq!(disk.finish(), Some(token));
            let (unsynced, second) = write(2);
            disk.persist(unsynced, second);
            assert_eq!(disk.begin(200, 100), Some(300));
            disk.crash(250, fate);
            let found = disk.recover().expect("a tear is no damage").expect("one was durable");
            assert!(found.writes.len() == 1 || found.writes.len() == 2);
            assert_eq!(found.writes[0], write(1));
            if fate == Fate::Kept {
                assert_eq!(found.writes.len(), 2);
            }
        }
    }
}
