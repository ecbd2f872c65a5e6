//! A node's disk: real log bytes, synced in batches, torn at a crash.
//!
//! `core::wal` writes and reads the log's bytes; this module stores them, syncs them after a while, and damages them. A
//! batch forms while the previous sync is in progress. A running node never reads its disk, so there is no read path
//! for it. Snapshot files are written beside the log and synced on their own, in `files`.
//!
//! `segment` holds the bytes, `fate` decides what a crash does to unsynced bytes, and `damage` breaks synced ones.
//!
//! After a failed sync the operating system holds the batch in memory and counts it as written: a process that starts
//! on the same machine reads it, and no sync writes it unless it is written again. A power loss takes it.
//!
//! A drive that lies reports a sync but keeps the bytes in its cache. Its stored content then dates from its last
//! honest sync, and a crash leaves only that.

mod damage;
mod fate;
mod files;
mod segment;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use continuum_core::id::{SnapshotId, Token};
use continuum_core::raft::{self, Entry, Payload};
use continuum_core::replication;
use continuum_core::wal::{self, Batch, Header, LastBatch, LogWriter, RecoverError, Write};

use crate::env::durable::Durable;
use crate::format::shard::seen_in_file;
use crate::rng::{Draws, stream};

pub(crate) use fate::Fate;

use fate::Crash;
use files::FileLane;
use segment::Media;

/// The writes that are being synced.
#[derive(Debug)]
struct InFlight {
    /// The writes that become durable, in order; none for a seal.
    writes: Vec<(Token, Write)>,
    batch: Batch,
}

/// One node's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    node: u64,
    draws: Draws,
    header: Header,
    segment_bytes: u64,
    writer: LogWriter,
    media: Media,
    queue: Vec<(Token, Write)>,
    in_flight: Option<InFlight>,
    files: FileLane,
    /// The newest token that was reported durable, or that a restart found durable.
    persisted: Token,
    synced: Token,
    crashes: u64,
    damages: u64,
    /// The content that the drive has really stored, while later syncs were lies.
    honest: Option<Box<Media>>,
    /// A crash took back what a sync had reported, and no recovery has found out yet.
    took_back: bool,
    /// A sync failed: nothing is written until a restart.
    has_failed: bool,
    /// The batch of a failed sync: in memory, and counted there as written.
    cached: Option<Batch>,
    /// The next batch is written to a wrong offset.
    pub(crate) misdirects_next: bool,
    /// Its node was refused by its peers: no process may start from it.
    pub(crate) is_condemned: bool,
    /// The state that the synced writes amount to.
    pub(crate) durable: Durable,
}

/// Why a restart cannot continue from this disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsound {
    /// The drive answers with an error.
    Unreadable,
    /// Recovery refuses the log.
    Log(RecoverError),
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("a sector cannot be read"),
            Self::Log(error) => error.fmt(f),
        }
    }
}

/// A copy of a disk, as an operator's backup.
#[derive(Clone, Debug)]
pub(crate) struct Backup(Media);

/// The content that a restart finds.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) writes: Vec<(Token, Write)>,
    pub(crate) snapshots: BTreeMap<SnapshotId, Bytes>,
}

impl Disk {
    pub(crate) fn new(node: usize, draws: Draws, header: Header, segment_bytes: u64) -> Self {
        Self {
            node: node as u64,
            draws,
            header,
            segment_bytes,
            writer: LogWriter::new(header).with_segment_bytes(segment_bytes),
            media: Media::default(),
            queue: Vec::new(),
            in_flight: None,
            files: FileLane::default(),
            persisted: Token::default(),
            synced: Token::default(),
            crashes: 0,
            damages: 0,
            honest: None,
            took_back: false,
            has_failed: false,
            cached: None,
            misdirects_next: false,
            is_condemned: false,
            durable: Durable::default(),
        }
    }

    /// Queues a write for the next batch.
    pub(crate) fn persist(&mut self, token: Token, write: Write) {
        self.queue.push((token, write));
    }

    /// Number of writes that are not durable yet.
    pub(crate) fn pending(&self) -> usize {
        self.queue.len() + self.in_flight.as_ref().map_or(0, |in_flight| in_flight.writes.len())
    }

    /// The bytes of the writes that are not durable yet: of records and entries, without what encloses them.
    pub(crate) fn pending_bytes(&self) -> usize {
        let in_flight = self.in_flight.iter().flat_map(|in_flight| &in_flight.writes);
        self.queue.iter().chain(in_flight).map(|(_, write)| payload(write)).sum()
    }

    /// Whether there is nothing to write to the log.
    pub(crate) const fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    /// Whether a batch can begin.
    pub(crate) const fn may_begin(&self) -> bool {
        self.in_flight.is_none() && !self.queue.is_empty() && !self.has_failed
    }

    /// Begins the next batch unless one is in flight. Returns when it will be durable.
    pub(crate) fn begin(&mut self, now: u64, sync_ns: u64) -> Option<u64> {
        if !self.may_begin() {
            return None;
        }
        let writes = std::mem::take(&mut self.queue);
        let batch = self.writer.encode(&writes);
        self.in_flight = Some(InFlight { writes, batch });
        Some(now + sync_ns)
    }

    /// Begins an empty batch after the last one of an idle log. Returns when it will be durable.
    pub(crate) fn seal(&mut self, now: u64, sync_ns: u64) -> Option<u64> {
        if !self.is_idle() || self.has_failed {
            return None;
        }
        let batch = self.writer.seal()?;
        self.in_flight = Some(InFlight { writes: Vec::new(), batch });
        Some(now + sync_ns)
    }

    /// The batch in flight is durable, or the drive `lies` that it is. Returns its newest token; none for a seal.
    pub(crate) fn finish(&mut self, lies: bool) -> Option<Token> {
        let in_flight = self.in_flight.take()?;
        self.before_sync(lies);
        for (_, write) in &in_flight.writes {
            self.durable.apply(write);
            replace_shard(&mut self.durable, &self.media, write);
        }
        self.write(&in_flight.batch);
        let last = in_flight.writes.last().map(|(token, _)| *token)?;
        self.persisted = last;
        Some(last)
    }

    /// A sync begins to count: an honest one writes the drive's cache out as well.
    fn before_sync(&mut self, lies: bool) {
        if !lies {
            self.honest = None;
        } else if self.honest.is_none() {
            self.honest = Some(Box::new(self.media.clone()));
        }
    }

    /// Writes a batch to its offset, or to a wrong one.
    fn write(&mut self, batch: &Batch) {
        self.media.last = (batch.segment, batch.offset as usize);
        if self.misdirects_next {
            let name = stream("disk.astray", self.node << 32 | self.persisted.seq);
            self.misdirects_next = false;
            if self.media.misdirect(batch, self.draws, name) {
                return;
            }
        }
        self.media.open(batch).write(batch.offset as usize, &batch.bytes, |_| true);
    }

    /// Deletes segments that hold no write from `before` on.
    pub(crate) fn release(&mut self, before: Token) {
        for segment in self.writer.releasable(before) {
            self.media.remove(segment);
        }
    }

    /// The machine stops. Returns the number of lost sectors of the log.
    pub(crate) fn crash(&mut self, fate: Fate) -> u64 {
        self.crashes += 1;
        self.queue.clear();
        self.files.clear();
        if fate != Fate::Kept {
            self.cached = None;
        }
        let in_flight = self.in_flight.take();
        if let Some(honest) = self.honest.take() {
            self.media = *honest;
            self.took_back = true;
            return 0;
        }
        let Some(InFlight { batch, .. }) = in_flight else { return 0 };
        let (draws, node, number) = (self.draws, self.node, self.crashes);
        let sectors = fate::sectors(batch.bytes.len());
        let crash = Crash { draws, node, number, fate, sectors };
        let survivors = crash.survivors(u64::MAX, 0, batch.bytes.len());
        // The directory entry of a new segment is as unsynced as its bytes.
        if !batch.opens_segment || survivors.contains(&true) {
            let segment = self.media.open(&batch);
            segment.write(batch.offset as usize, &batch.bytes, |at| survivors[at]);
        }
        survivors.iter().filter(|survives| !**survives).count() as u64
    }

    /// The sync in flight fails; `fate` decides what of it is on the disk. Returns the write that failed.
    pub(crate) fn fail(&mut self, fate: Fate) -> Token {
        let newest = self.in_flight.as_ref().and_then(|in_flight| in_flight.writes.last());
        let token = newest.map_or(self.persisted, |(token, _)| *token);
        let batch = self.in_flight.as_ref().map(|in_flight| in_flight.batch.clone());
        self.crash(fate);
        self.cached = batch;
        self.has_failed = true;
        token
    }

    /// The log as a process on this machine reads it: with the batch that only memory holds.
    fn read_log(&self) -> Vec<(u64, Bytes)> {
        let Some(batch) = &self.cached else { return self.media.read() };
        let mut seen = self.media.clone();
        seen.open(batch).write(batch.offset as usize, &batch.bytes, |_| true);
        seen.read()
    }

    /// The driver writes the last batch again. If it was in memory alone, it is on the disk then.
    fn rewrite(&mut self, last: Option<&LastBatch>) {
        let is_again = |batch: &mut Batch| {
            last.is_some_and(|last| {
                let bytes = last.offset..last.offset + last.bytes.len() as u64;
                last.segment == batch.segment && bytes.contains(&batch.offset)
            })
        };
        if let Some(batch) = self.cached.take_if(is_again) {
            self.media.open(&batch).write(batch.offset as usize, &batch.bytes, |_| true);
        }
    }

    /// Whether a sync failed since the last restart.
    pub(crate) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Reads everything back after a crash. `None` when nothing was ever durable.
    pub(crate) fn recover(&mut self) -> Result<Option<Found>, Unsound> {
        self.has_failed = false;
        if !self.media.unreadable.is_empty() {
            return Err(Unsound::Unreadable);
        }
        if std::mem::take(&mut self.took_back) {
            self.forget_what_is_gone();
        }
        let recovered = match wal::recover(self.read_log()) {
            Ok(recovered) => recovered,
            Err(RecoverError::Empty) if self.persisted == Token::default() => {
                self.media = Media::default();
                self.writer = LogWriter::new(self.header).with_segment_bytes(self.segment_bytes);
                return Ok(None);
            }
            Err(error) => return Err(Unsound::Log(error)),
        };
        self.writer = recovered.writer.with_segment_bytes(self.segment_bytes);
        if let Some(torn) = recovered.torn {
            self.media.erase(torn.segment, torn.offset as usize);
        }
        self.rewrite(recovered.last.as_ref());
        for (token, write) in recovered.writes.iter().filter(|(token, _)| *token > self.persisted) {
            // These writes survived the crash: they were never synced, and are durable all the same.
            self.durable.apply(write);
            self.synced = *token;
            replace_shard(&mut self.durable, &self.media, write);
        }
        self.persisted = self.persisted.max(self.synced);
        self.drop_unnamed_files(&recovered.writes);
        let snapshots = self.media.read_files();
        Ok(Some(Found { writes: recovered.writes, snapshots }))
    }

    /// Writes that were durable are gone: the durable state is counted anew from what is left.
    fn forget_what_is_gone(&mut self) {
        (self.persisted, self.synced) = (Token::default(), Token::default());
        self.durable = Durable::default();
        for (snapshot, file) in &self.media.files {
            self.durable.hold_file(*snapshot, file.len() as u64);
        }
    }

    /// Whether the drive reported syncs that a crash would take back, or has taken back.
    pub(crate) const fn is_lying(&self) -> bool {
        self.honest.is_some() || self.took_back
    }

    /// The newest durable token.
    pub(crate) const fn persisted(&self) -> Token {
        self.persisted
    }

    /// Copies the disk of a process that has ended.
    pub(crate) fn backup(&self) -> Backup {
        Backup(self.media.clone())
    }

    /// Restores the disk of a process that has ended to a copy.
    pub(crate) fn roll_back(&mut self, backup: Backup) {
        self.media = backup.0;
        self.cached = None;
        self.took_back = true;
        self.is_condemned = false;
    }
}

/// The bytes that a write carries. `Write::payload_bytes` is not asked: the node counts with it.
fn payload(write: &Write) -> usize {
    match write {
        Write::Shard { write: replication::Write::Dots { records }, .. } => {
            records.iter().map(Bytes::len).sum()
        }
        Write::Group { write: raft::Write::Append { entries, .. }, .. } => {
            let command = |entry: &Entry| match &entry.payload {
                Payload::Command(command) => command.len(),
                Payload::Noop | Payload::Configuration(_) => 0,
            };
            entries.iter().map(command).sum()
        }
        _ => 0,
    }
}

/// A snapshot file of a shard replaces all its older records, but for the last ones as its record says. A file that
/// cannot be read replaces none.
fn replace_shard(durable: &mut Durable, media: &Media, write: &Write) {
    if let Write::Shard { shard, write: replication::Write::Snapshot { file, since } } = write
        && let Some(found) = media.files.get(&file.id)
        && let Some(seen) = seen_in_file(found)
    {
        durable.replace_shard(*shard, seen, *since);
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::files::Piece;
    use continuum_core::id::{Actor, Dot, ShardId, SnapshotFile};
    use continuum_core::wal::SEGMENT_BYTES;

    use super::*;
    use crate::format::dots::ExactDots;

    fn write(seq: u64) -> (Token, Write) {
        (Token { lane: 0, seq }, Write::Contacts { contacts: Vec::new() })
    }

    const fn of_shard(shard: ShardId, write: replication::Write) -> Write {
        Write::Shard { shard, write }
    }

    /// Hands a write to the disk and begins its batch.
    pub(super) fn begun(disk: &mut Disk, seq: u64) {
        let (token, write) = write(seq);
        disk.persist(token, write);
        assert_eq!(disk.begin(0, 100), Some(100));
    }

    /// A disk with this many batches.
    pub(super) fn disk_with(seed: u64, batches: u64) -> Disk {
        let mut disk = Disk::new(0, Draws::new(seed), Header::default(), SEGMENT_BYTES);
        for seq in 1..=batches {
            begun(&mut disk, seq);
            assert_eq!(disk.finish(false), Some(write(seq).0));
        }
        disk
    }

    fn found(disk: &mut Disk) -> usize {
        let found = disk.recover().expect("a tear is no damage").expect("one was durable");
        assert!(found.writes.iter().zip(1..).all(|(found, seq)| *found == write(seq)));
        found.writes.len()
    }

    #[test]
    fn a_shard_forgotten_after_its_writes_in_one_batch_is_gone() {
        let mut disk = Disk::new(0, Draws::new(1), Header::default(), SEGMENT_BYTES);
        let (token, shard) = (|seq| Token { lane: 0, seq }, ShardId::default());
        disk.persist(token(1), of_shard(shard, replication::Write::Dots { records: Vec::new() }));
        disk.persist(token(2), of_shard(shard, replication::Write::Forget));
        disk.begin(0, 100);
        disk.finish(false);
        assert_eq!(disk.durable.shard(shard), None);
        assert!(disk.durable.is_forgotten(shard));
        disk.durable.set_shard(shard, ExactDots::default());
        assert!(!disk.durable.is_forgotten(shard), "it was created again");
    }

    /// A record teaches the dot of its write when it is durable, and a snapshot file those that are in it, no others.
    #[test]
    fn a_disk_holds_the_dots_that_its_records_say() {
        let mut disk = Disk::new(0, Draws::new(1), Header::default(), SEGMENT_BYTES);
        let (token, shard) = (|seq| Token { lane: 0, seq }, ShardId::default());
        let dot = |seq| Dot { actor: Actor::default(), seq };
        // The tag, the hash, the version, the shard, the author: all else does not matter for a dot.
        let sealed = |seq| [&[1; 34][..], &[0; 36], &[seq]].concat();
        let dots = |seq| replication::Write::Dots { records: vec![sealed(seq).into()] };
        let holds = |disk: &Disk, seq| {
            disk.durable.shard(shard).is_some_and(|held| held.contains(&dot(seq)))
        };
        let records = vec![sealed(1).into(), sealed(2).into()];
        disk.persist(token(1), of_shard(shard, replication::Write::Dots { records }));
        disk.begin(0, 100);
        assert!(!holds(&disk, 1), "nothing is durable yet");
        disk.finish(false);
        assert!(holds(&disk, 1) && holds(&disk, 2) && !holds(&disk, 3));
        let header = [2, 1, 3, 0, 0, 0, 0];
        let with_length =
            |record: &[u8]| [&(record.len() as u32).to_be_bytes()[..], record].concat();
        let data = Bytes::from([with_length(&header), with_length(&sealed(2))].concat());
        let file = SnapshotFile::of(SnapshotId(7), &data);
        disk.write_file(1, Piece { snapshot: file.id, offset: 0, data, is_last: true });
        assert!(disk.begin_files());
        assert_eq!(disk.finish_files(false).number, 1);
        disk.persist(token(2), of_shard(shard, replication::Write::Snapshot { file, since: 0 }));
        disk.begin(200, 100);
        disk.finish(false);
        assert!(!holds(&disk, 1) && holds(&disk, 2), "the file lost the first");
        disk.persist(token(3), of_shard(shard, dots(4)));
        disk.persist(token(4), of_shard(shard, dots(5)));
        disk.persist(token(5), of_shard(shard, replication::Write::Snapshot { file, since: 1 }));
        disk.begin(400, 100);
        disk.finish(false);
        assert!(!holds(&disk, 4) && holds(&disk, 5), "the last record is not in the file");
    }

    #[test]
    fn a_crash_recovers_what_was_synced_and_a_prefix_of_the_rest() {
        let fates = [Fate::Kept, Fate::Lost, Fate::Torn, Fate::Torn, Fate::Reordered, Fate::Gone];
        for (fate, seed) in fates.into_iter().zip(1..) {
            let mut disk = disk_with(seed, 1);
            begun(&mut disk, 2);
            let lost = disk.crash(fate);
            let found = found(&mut disk);
            assert!(found == 1 || found == 2);
            match fate {
                Fate::Kept => assert_eq!((found, lost), (2, 0)),
                Fate::Gone | Fate::Reordered => assert!(found == 1 && lost > 0),
                Fate::Lost | Fate::Torn => {}
            }
        }
    }

    #[test]
    fn a_torn_tail_is_erased_and_the_log_continues() {
        let mut disk = disk_with(5, 2);
        begun(&mut disk, 3);
        disk.crash(Fate::Reordered);
        assert_eq!(found(&mut disk), 2);
        assert!(
            disk.media.segments.values().all(|s| s.used().all(|at| at <= disk.media.last.1 + 4095))
        );
        begun(&mut disk, 3);
        disk.finish(false);
        disk.crash(Fate::Kept);
        assert_eq!(found(&mut disk), 3);
    }

    #[test]
    fn a_lying_drive_loses_everything_since_its_last_honest_sync() {
        let mut disk = disk_with(1, 3);
        for seq in 4..=6 {
            begun(&mut disk, seq);
            assert_eq!(disk.finish(true).map(|token| token.seq), Some(seq));
        }
        assert!(disk.is_lying() && disk.persisted().seq == 6);
        disk.crash(Fate::Kept);
        assert_eq!((found(&mut disk), disk.persisted().seq), (3, 3));
        assert!(!disk.is_lying());
        // All that it ever reported may have been a lie.
        let mut empty = Disk::new(0, Draws::new(1), Header::default(), SEGMENT_BYTES);
        begun(&mut empty, 1);
        empty.finish(true);
        empty.crash(Fate::Kept);
        assert!(empty.recover().expect("an empty disk is sound").is_none());
        // An honest sync writes the cache out.
        begun(&mut disk, 4);
        disk.finish(true);
        begun(&mut disk, 5);
        disk.finish(false);
        disk.crash(Fate::Kept);
        assert_eq!(found(&mut disk), 5);
    }

    #[test]
    fn a_failed_sync_leaves_all_part_or_nothing_and_no_sync_follows() {
        for fate in [Fate::Kept, Fate::Torn, Fate::Gone] {
            let mut disk = disk_with(7, 2);
            begun(&mut disk, 3);
            assert_eq!(disk.fail(fate).seq, 3);
            let (token, more) = write(4);
            disk.persist(token, more);
            assert!(!disk.may_begin() && disk.begin(100, 1).is_none() && disk.persisted().seq == 2);
            disk.crash(Fate::Lost);
            let found = found(&mut disk);
            assert!(found == 2 && fate != Fate::Kept || found == 3 && fate != Fate::Gone);
        }
    }

    /// A process that starts again after a failed sync reads the batch from memory, and makes it durable.
    #[test]
    fn what_a_failed_sync_left_in_memory_is_written_again() {
        for fate in [Fate::Kept, Fate::Torn, Fate::Gone] {
            let mut disk = disk_with(7, 2);
            begun(&mut disk, 3);
            disk.fail(fate);
            disk.crash(Fate::Kept);
            assert_eq!(found(&mut disk), 3);
            begun(&mut disk, 4);
            disk.finish(false);
            disk.crash(Fate::Gone);
            assert_eq!(found(&mut disk), 4, "{fate:?}");
        }
    }

    #[test]
    fn a_restored_backup_is_an_older_disk() {
        let mut disk = disk_with(1, 3);
        let backup = disk.backup();
        begun(&mut disk, 4);
        disk.finish(false);
        disk.crash(Fate::Kept);
        disk.roll_back(backup);
        assert_eq!((found(&mut disk), disk.persisted().seq), (3, 3));
    }
}
