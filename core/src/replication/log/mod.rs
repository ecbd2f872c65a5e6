//! Records of a shard, and how they become its state again.
//!
//! A record is either a sealed write as it is, or a tagged encoding of what else changed. Replaying is idempotent and
//! total: any record of any disk gives a state or a typed error, never a panic. The functions that apply are those
//! that applied first, so replay gives the state that was acknowledged. A write of which less than all lived after it
//! was applied is recorded with what lived, because a checkpoint may have lost what it met (see `checkpoint`).

pub(crate) mod checkpoint;
pub(crate) mod inspect;
mod record;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::id::{Dot, ShardId, SnapshotFile, SnapshotId};
use crate::limits::{LOG_BATCH_BYTES_MAX, SEQ_MAX};
use crate::{codec, mutant, reach};

use crate::replication::shard::{Applied, Doom, Dots, Join, Mask, Shard};
use crate::replication::write::path::PLACE_BYTES_MAX;
use crate::replication::write::{self, Author, TAG_SEALED};

pub use record::Write;

/// The first byte of a record that is not a sealed write.
const TAG_RECORD: u8 = 2;

/// What the records of all shards amount to: the state that [`crate::replication::Replicator::new`] starts from.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The shards that were not forgotten.
    pub shards: BTreeMap<ShardId, RestoredShard>,
}

/// What the records of one shard amount to.
#[derive(Clone, Debug, Default)]
pub struct RestoredShard {
    /// The newest snapshot file.
    pub file: Option<SnapshotFile>,
    /// The bytes of that file; see [`Restored::load`].
    pub snapshot: Option<Bytes>,
    /// The records after it, in order.
    pub records: Vec<Bytes>,
}

impl Restored {
    /// Applies the next record of the log.
    pub fn apply(&mut self, shard: ShardId, write: Write) {
        match write {
            Write::Dots { records } => {
                self.shards.entry(shard).or_default().records.extend(records);
            }
            // Chunks are in files beside the log.
            Write::Chunk { .. } => {}
            Write::Snapshot { file } => {
                // The file contains all older records.
                let file = Some(file);
                self.shards.insert(shard, RestoredShard { file, ..RestoredShard::default() });
            }
            Write::Forget => drop(self.shards.remove(&shard)),
        }
    }

    /// Loads the snapshot files that the records name; `read` gives the bytes of a file that it has.
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
    /// The file is not what its record says.
    Damaged(SnapshotId),
}

/// Why a store cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// The shard.
    pub shard: ShardId,
    /// Which record, from 0; `None` when it is in the side file.
    pub record: Option<usize>,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShardId { namespace, slot } = self.shard;
        write!(f, "shard {namespace}/{slot}: ")?;
        match self.record {
            Some(record) => write!(f, "record {record}: {}", self.why)?,
            None => write!(f, "side file: {}", self.why)?,
        }
        f.write_str("; remove this store and join again with an empty one")
    }
}

impl core::error::Error for RestoreError {}

/// What else than a whole write a shard remembers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A write of which only this lived when it had been applied; or lives, in a side file.
    Masked(Bytes, Mask),
    /// A write that waits for its stamp.
    Waiting(Bytes),
    /// What a view taught.
    Join(Join),
    /// Losers of the LWW order are dropped from here on.
    Discarding,
    /// The beginning of a side file.
    Head(Head),
    /// In a side file: live writes end, and records begin.
    Tail,
}

/// What a side file says before the live writes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Whose.
    pub(crate) shard: ShardId,
    /// All dots seen when the capture began.
    pub(crate) context: Dots,
    /// What was doomed then.
    pub(crate) doomed: Vec<(Dot, Doom)>,
    /// The writes that waited then.
    pub(crate) waiting: Vec<Bytes>,
    /// The greatest stamp then.
    pub(crate) stamp: u64,
    /// Whether losers are dropped.
    pub(crate) discard: bool,
}

/// Encodes a record that is not a whole write.
pub(crate) fn encode(record: &Record) -> Bytes {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(TAG_RECORD);
    codec::encode_into(record, &mut bytes);
    bytes.into()
}

fn decode(bytes: &[u8]) -> Result<Record, &'static str> {
    match bytes.split_first() {
        Some((&TAG_RECORD, rest)) => {
            codec::decode(rest, LOG_BATCH_BYTES_MAX).map_err(|_| "a record that does not decode")
        }
        _ => Err("a record of an unknown kind"),
    }
}

/// Merges a write that is new here, and returns its record.
///
/// # Errors
///
/// What it was instead of new.
pub(crate) fn merge(
    shard: &mut Shard,
    sealed: &Bytes,
    author: &Author<'_>,
) -> Result<Bytes, Applied> {
    match shard.apply(sealed, author) {
        Applied::New(None) => Ok(sealed.clone()),
        Applied::New(Some(mask)) => Ok(encode(&Record::Masked(sealed.clone(), mask))),
        other => Err(other),
    }
}

/// The sealed write in a record, and whether it waits for its stamp; none in a record of anything else.
pub(crate) fn write_in(record: &Bytes) -> Option<(Bytes, bool)> {
    if record.first() == Some(&TAG_SEALED) {
        return Some((record.clone(), false));
    }
    match decode(record).ok()? {
        Record::Masked(sealed, _) => Some((sealed, false)),
        Record::Waiting(sealed) => Some((sealed, true)),
        _ => None,
    }
}

/// Restores one shard.
pub(crate) fn restore(id: ShardId, restored: &RestoredShard) -> Result<Shard, RestoreError> {
    let error = |record, why| RestoreError { shard: id, record, why };
    let mut shard = Shard::new(id);
    if let Some(file) = &restored.snapshot {
        reach!("replication.restore.snapshot");
        load(&mut shard, file).map_err(|why| error(None, why))?;
    }
    for (at, record) in restored.records.iter().enumerate() {
        replay(&mut shard, record).map_err(|why| error(Some(at), why))?;
    }
    Ok(shard)
}

/// Applies one record.
pub(crate) fn replay(shard: &mut Shard, bytes: &Bytes) -> Result<(), &'static str> {
    if bytes.first() == Some(&TAG_SEALED) {
        return apply(shard, bytes, None);
    }
    match decode(bytes)? {
        Record::Masked(sealed, mask) => apply(shard, &sealed, Some(&mask)),
        Record::Waiting(sealed) => wait(shard, sealed),
        Record::Join(join) => {
            check_join(shard, &join)?;
            shard.join(&join);
            Ok(())
        }
        Record::Discarding => {
            shard.discard = true;
            Ok(())
        }
        Record::Head(_) | Record::Tail => Err("a part of a side file among records"),
    }
}

fn apply(shard: &mut Shard, sealed: &Bytes, mask: Option<&Mask>) -> Result<(), &'static str> {
    let author = write::open(sealed)?;
    if author.shard() != shard.id {
        return Err("a write of another shard");
    }
    match shard.apply(sealed, &author) {
        Applied::Equivocation => return Err("two writes with one dot"),
        Applied::Full => return Err("more authors than a shard has"),
        Applied::New(_) | Applied::Known => {}
    }
    if let (Some(mask), Some(number)) = (mask, shard.number(&author.dot.actor)) {
        shard.keep_only((number, author.dot.seq), mask);
    }
    Ok(())
}

fn wait(shard: &mut Shard, sealed: Bytes) -> Result<(), &'static str> {
    let author = write::open(&sealed)?;
    let (stamp, dot) = (author.stamp, author.dot);
    if !shard.contains(&dot) {
        shard.wait(sealed, stamp, dot);
    }
    Ok(())
}

/// Whether what came from elsewhere may be joined.
pub(crate) fn check_join(shard: &Shard, join: &Join) -> Result<(), &'static str> {
    let dots = join.doomed.iter().map(|(dot, _)| dot);
    let dots = dots.chain(join.deaths.iter().map(|(dot, _)| dot));
    if !dots.clone().all(|dot| (1..=SEQ_MAX).contains(&dot.seq))
        || !join.context.is_empty() && !join.context.is_valid()
    {
        return Err("a context outside its bounds");
    }
    let scoped = |doom: &Doom| match doom {
        Doom::Scope { place, .. } => !place.is_empty() && place.len() <= PLACE_BYTES_MAX,
        Doom::Edit(_) => true,
    };
    if !join.doomed.iter().all(|(_, doom)| scoped(doom))
        || !join.deaths.iter().all(|(_, mask)| mask.is_valid())
    {
        return Err("a death outside its bounds");
    }
    let mut strangers: Vec<_> = dots.map(|dot| dot.actor).collect();
    strangers.extend(join.context.iter().map(|(actor, _)| *actor));
    strangers.retain(|actor| shard.number(actor).is_none());
    strangers.sort_unstable();
    strangers.dedup();
    if shard.has_room(strangers.len()) { Ok(()) } else { Err("more authors than a shard has") }
}

/// Loads a side file: a head, live writes, then the records of the time of its capture.
fn load(shard: &mut Shard, file: &Bytes) -> Result<(), &'static str> {
    let mut rest = file.clone();
    match decode(&next(&mut rest)?.ok_or("an empty file")?)? {
        Record::Head(head) => behead(shard, head)?,
        _ => return Err("no head"),
    }
    loop {
        let bytes = next(&mut rest)?.ok_or("a file without an end")?;
        let (sealed, mask) = if bytes.first() == Some(&TAG_SEALED) {
            (bytes, None)
        } else {
            match decode(&bytes)? {
                Record::Masked(sealed, mask) if mask.is_valid() => (sealed, Some(mask)),
                Record::Tail => break,
                _ => return Err("a record among the live writes"),
            }
        };
        reinstate(shard, &sealed, mask)?;
    }
    while let Some(record) = next(&mut rest)? {
        if !mutant!("replication.restore.skips_tail") {
            reach!("replication.restore.tail");
            replay(shard, &record)?;
        }
    }
    Ok(())
}

fn behead(shard: &mut Shard, head: Head) -> Result<(), &'static str> {
    if head.shard != shard.id {
        return Err("a file of another shard");
    }
    shard.discard = head.discard;
    shard.stamp = head.stamp;
    let join = Join { context: head.context, doomed: head.doomed, deaths: Vec::new() };
    check_join(shard, &join)?;
    shard.join(&join);
    head.waiting.into_iter().try_for_each(|sealed| wait(shard, sealed))
}

/// Takes a live write from a side file, whose head covered its dot.
fn reinstate(shard: &mut Shard, sealed: &Bytes, mask: Option<Mask>) -> Result<(), &'static str> {
    let author = write::open(sealed)?;
    if author.shard() != shard.id || !shard.contains(&author.dot) {
        return Err("a live write that the file's head does not cover");
    }
    if shard.reinstate(sealed, &author, mask) { Ok(()) } else { Err("two writes with one dot") }
}

/// The next record of a side file: its length in four bytes, then itself.
fn next(rest: &mut Bytes) -> Result<Option<Bytes>, &'static str> {
    if rest.is_empty() {
        return Ok(None);
    }
    if rest.len() < 4 {
        return Err("a torn record");
    }
    let length = rest.get_u32() as usize;
    if length > rest.len() { Err("a torn record") } else { Ok(Some(rest.split_to(length))) }
}
