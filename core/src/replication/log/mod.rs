//! Records of a shard, and how they become its state again.
//!
//! A record is a sealed write as it is, or a tagged encoding of any other change. Replay is idempotent and total: any
//! record of any disk gives a state or a typed error, never a panic. Replay calls the functions that changed the shard
//! at first, so it gives the state that was acknowledged. When not all elements of a write were live after its merge,
//! its record carries those that were, because a checkpoint may have lost what removed the others (see `checkpoint`).

pub(crate) mod checkpoint;
pub(crate) mod inspect;
mod record;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::id::{ShardId, SnapshotFile, SnapshotId};
use crate::limits::{LOG_BATCH_BYTES_MAX, SEQ_MAX, SHARD_ACTORS_HELD_MAX, STAMP_MAX};
use crate::{codec, mutant, reach};

use super::shard::{Cover, Join, LiveEdits, LiveWrite, Merged, Shard};
use super::write::{self, TAG_SEALED, WriteBody};

pub use record::Write;

/// The first byte of a record that is not a sealed write.
const TAG_RECORD: u8 = 2;

/// The state of all shards as the log leaves it; [`crate::replication::Replicator::new`] starts from it.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The shards that were not forgotten.
    pub shards: BTreeMap<ShardId, RestoredShard>,
}

/// The state of one shard as the log leaves it.
#[derive(Clone, Debug, Default)]
pub struct RestoredShard {
    /// The newest snapshot file.
    pub file: Option<SnapshotFile>,
    /// The bytes of that file; see [`Restored::load`].
    pub snapshot: Option<Bytes>,
    /// The records that are not in that file, in order.
    pub records: Vec<Bytes>,
}

impl Restored {
    /// Applies a shard's next write in the log.
    pub fn apply(&mut self, shard: ShardId, write: Write) {
        match write {
            Write::Dots { records } => {
                self.shards.entry(shard).or_default().records.extend(records);
            }
            Write::Snapshot { file, since } => {
                // The file contains all records before those.
                let known = self.shards.remove(&shard).unwrap_or_default();
                let since = usize::try_from(since).unwrap_or(usize::MAX);
                let mut records = known.records;
                records.drain(..records.len().saturating_sub(since));
                let restored = RestoredShard { file: Some(file), snapshot: None, records };
                self.shards.insert(shard, restored);
            }
            Write::Forget => drop(self.shards.remove(&shard)),
        }
    }

    /// Loads the snapshot files that the log names; `read` gives the bytes of a file that it has.
    ///
    /// # Errors
    ///
    /// The first file that is missing or damaged.
    pub fn load(
        &mut self,
        mut read: impl FnMut(SnapshotId) -> Option<Bytes>,
    ) -> Result<(), FileError> {
        for shard in self.shards.values_mut() {
            let Some(file) = shard.file else { continue };
            let bytes = read(file.id).ok_or(FileError::Missing(file.id))?;
            if !file.matches(&bytes) {
                return Err(FileError::Damaged(file.id));
            }
            shard.snapshot = Some(bytes);
        }
        Ok(())
    }
}

/// Why a snapshot file cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// The file is not there.
    Missing(SnapshotId),
    /// The file does not have the length or the digest that the log says.
    Damaged(SnapshotId),
}

/// Why a store cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// The shard that cannot be restored.
    pub shard: ShardId,
    /// The index of the record at fault; `None` when the fault is in the snapshot file.
    pub record: Option<usize>,
    /// The fault.
    pub why: &'static str,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShardId { namespace, slot } = self.shard;
        write!(f, "shard {namespace}/{slot}: ")?;
        match self.record {
            Some(record) => write!(f, "record {record}: {}", self.why)?,
            None => write!(f, "snapshot file: {}", self.why)?,
        }
        f.write_str("; remove this store and join again with an empty one")
    }
}

impl core::error::Error for RestoreError {}

/// A change of a shard other than a write of which every element is live.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A write with its live edits: after its merge, or in a snapshot file.
    Partial(Bytes, LiveEdits),
    /// The content of a view beyond its writes, or in a snapshot file a part of the context and deferred removals.
    Join(Join),
    /// From here on, losers of the LWW order are dropped.
    Discarding,
    /// The beginning of a snapshot file.
    Header(Header),
    /// In a snapshot file, the end of the live writes; records follow.
    EndOfWrites,
}

/// The first record of a snapshot file. All its fields are as of the beginning of the capture. The context and the
/// deferred removals follow in records of their own, because each may be longer than one record may be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The shard that was captured.
    pub(crate) shard: ShardId,
    /// At least the greatest stamp of all writes in the context.
    pub(crate) stamp: u64,
    /// Whether losers of the LWW order are dropped.
    pub(crate) discard: bool,
}

/// Merges a write that is new here, or wins over another one with its dot. Returns its record, and the write that it
/// replaced.
///
/// # Errors
///
/// The outcome, when the write changes nothing.
pub(crate) fn merge(
    shard: &mut Shard,
    sealed: &Bytes,
    body: &WriteBody<'_>,
) -> Result<(Bytes, Option<LiveWrite>), Merged> {
    let (edits, old) = match shard.merge(sealed, body) {
        Merged::New(edits) => (edits, None),
        Merged::Replaced { old, edits } => (edits, Some(old)),
        other => return Err(other),
    };
    let partial = |edits| encode(&Record::Partial(sealed.clone(), edits));
    Ok((edits.map_or_else(|| sealed.clone(), partial), old))
}

/// Encodes a record that is not a sealed write.
pub(crate) fn encode(record: &Record) -> Bytes {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(TAG_RECORD);
    codec::encode_into(record, &mut bytes);
    bytes.into()
}

fn decode(bytes: &[u8]) -> Result<Record, &'static str> {
    match bytes.split_first() {
        Some((&TAG_RECORD, rest)) => {
            codec::decode(rest, LOG_BATCH_BYTES_MAX).map_err(|_| "a record does not decode")
        }
        _ => Err("a record is of an unknown kind"),
    }
}

/// Restores one shard.
///
/// # Errors
///
/// [`RestoreError`] on a record or snapshot file that this machine did not write.
pub(crate) fn restore(id: ShardId, restored: &RestoredShard) -> Result<Shard, RestoreError> {
    let error = |record, why| RestoreError { shard: id, record, why };
    let mut shard = Shard::new(id);
    if let Some(file) = &restored.snapshot {
        reach!("replication.restore.snapshot");
        load(&mut shard, file).map_err(|why| error(None, why))?;
    }
    for (index, record) in restored.records.iter().enumerate() {
        replay(&mut shard, record).map_err(|why| error(Some(index), why))?;
    }
    Ok(shard)
}

/// Applies one record.
fn replay(shard: &mut Shard, bytes: &Bytes) -> Result<(), &'static str> {
    if bytes.first() == Some(&TAG_SEALED) {
        return replay_write(shard, bytes, None);
    }
    match decode(bytes)? {
        Record::Partial(sealed, edits) => replay_write(shard, &sealed, Some(&edits)),
        Record::Join(join) => {
            check_join(shard, &join)?;
            shard.join(&join);
            Ok(())
        }
        Record::Discarding => {
            shard.discard = true;
            Ok(())
        }
        Record::Header(_) | Record::EndOfWrites => {
            Err("a part of a snapshot file stands among the records")
        }
    }
}

fn replay_write(
    shard: &mut Shard,
    sealed: &Bytes,
    edits: Option<&LiveEdits>,
) -> Result<(), &'static str> {
    let body = write::open(sealed)?;
    if body.shard() != shard.id {
        return Err("a write belongs to another shard");
    }
    match shard.merge(sealed, &body) {
        Merged::Full => return Err("there are more authors than a shard may have"),
        Merged::New(_) | Merged::Replaced { .. } | Merged::Known | Merged::Lost => {}
    }
    if let (Some(edits), Some(number)) = (edits, shard.number(&body.dot.actor)) {
        shard.retain_edits((number, body.dot.seq), edits);
    }
    Ok(())
}

/// Checks a join from a peer or a disk before the shard applies it.
///
/// # Errors
///
/// The fault of the join.
pub(crate) fn check_join(shard: &Shard, join: &Join) -> Result<(), &'static str> {
    let dots = join.deferred.iter().map(|(dot, _)| dot);
    let dots = dots.chain(join.removals.iter().map(|(dot, _)| dot));
    if !dots.clone().all(|dot| (1..=SEQ_MAX).contains(&dot.seq))
        || !join.context.is_empty() && !join.context.is_valid()
        || join.stamp > STAMP_MAX
    {
        return Err("a context is outside its bounds");
    }
    if !join.removals.iter().all(|(_, edits)| edits.is_valid())
        || !join.covers.iter().all(Cover::is_valid)
    {
        return Err("a removal is outside its bounds");
    }
    let mut unknown: Vec<_> = dots.map(|dot| dot.actor).collect();
    let covered = join.covers.iter().flat_map(|cover| cover.dots.iter());
    unknown.extend(join.context.iter().chain(covered).map(|(actor, _)| *actor));
    unknown.retain(|actor| shard.number(actor).is_none());
    unknown.sort_unstable();
    unknown.dedup();
    if shard.has_room(unknown.len(), SHARD_ACTORS_HELD_MAX) {
        Ok(())
    } else {
        Err("there are more authors than a shard may have")
    }
}

/// Loads a snapshot file: a header, the context and deferred removals in parts, live writes, then the records that were
/// issued during the capture.
fn load(shard: &mut Shard, file: &Bytes) -> Result<(), &'static str> {
    let mut rest = file.clone();
    match decode(&next(&mut rest)?.ok_or("the file is empty")?)? {
        Record::Header(header) => load_header(shard, &header)?,
        _ => return Err("the file has no header"),
    }
    loop {
        let bytes = next(&mut rest)?.ok_or("the file has no end")?;
        let (sealed, edits) = if bytes.first() == Some(&TAG_SEALED) {
            (bytes, None)
        } else {
            match decode(&bytes)? {
                Record::Partial(sealed, edits) if edits.is_valid() => (sealed, Some(edits)),
                Record::Join(part) if shard.live.is_empty() => {
                    check_join(shard, &part)?;
                    shard.join(&part);
                    continue;
                }
                Record::EndOfWrites => break,
                _ => return Err("a record stands among the live writes"),
            }
        };
        load_live(shard, &sealed, edits)?;
    }
    while let Some(record) = next(&mut rest)? {
        if !mutant!("replication.restore.skips_tail") {
            reach!("replication.restore.tail");
            replay(shard, &record)?;
        }
    }
    Ok(())
}

fn load_header(shard: &mut Shard, header: &Header) -> Result<(), &'static str> {
    if header.shard != shard.id {
        return Err("the file belongs to another shard");
    }
    shard.discard = header.discard;
    shard.stamp = header.stamp;
    if header.stamp > STAMP_MAX { Err("a stamp is outside its bounds") } else { Ok(()) }
}

/// Takes a live write from a snapshot file. The header's context must have its dot.
fn load_live(
    shard: &mut Shard,
    sealed: &Bytes,
    edits: Option<LiveEdits>,
) -> Result<(), &'static str> {
    let body = write::open(sealed)?;
    if body.shard() != shard.id || !shard.contains(&body.dot) {
        return Err("the file's header does not cover a live write");
    }
    if shard.load_live(sealed, &body, edits) { Ok(()) } else { Err("two writes have one dot") }
}

/// The next record of a snapshot file: its length in four bytes, then the record.
fn next(rest: &mut Bytes) -> Result<Option<Bytes>, &'static str> {
    if rest.is_empty() {
        return Ok(None);
    }
    if rest.len() < 4 {
        return Err("a record is torn");
    }
    let length = rest.get_u32() as usize;
    if length > rest.len() { Err("a record is torn") } else { Ok(Some(rest.split_to(length))) }
}
