//! Captures: a state as bytes, written in slices while the state goes on changing, and read back with every check.
//!
//! The bytes are a format tag, a preamble, and four tables in a fixed order: sessions, members, namespaces, keys. A
//! table is a count, then its records in the order of their keys. A record is a length and a canonical encoding. So
//! equal states give equal bytes, wherever and however the capture was sliced. Chunks are cut at one length,
//! [`crate::limits::CHUNK_BYTES_MAX`] unless a simulator lowers it, also within a record, and are read in order only. A
//! slice ends with the record that uses its budget up, and a chunk keeps no memory beside its own bytes.
//!
//! This module does not compute or check the SHA-256 over all chunks: the caller does. Reading accepts any bytes.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::ops::Bound;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::kv::{Keys, Slot};
use super::registry::{MemberRecord, NamespaceRecord, Registry, is_name};
use super::session::{Remembered, Sessions};
use super::snapshot_map::{SnapshotMap, View};
use super::{Kind, StateMachine};
use crate::api::ContextKeys;
use crate::codec::{self, DecodeError};
use crate::id::{Index, Replica, SessionId};
use crate::limits::{
    CHUNK_BYTES_MAX, KEY_BYTES_MAX, MEMBERS_MAX, NAMESPACES_MAX, SESSIONS_MAX, VALUE_BYTES_MAX,
};
use crate::{mutant, reach};

/// The tag of the format, and its version.
pub(super) const FORMAT: [u8; 8] = *b"CSTATE\x03\x00";

/// The longest record: a key with its value. A namespace with a configuration of all members is shorter.
const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + 64;

/// The part of a state that is not in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Preamble {
    kind: Kind,
    applied: Index,
    next_namespace: u32,
    next_group: u32,
    keys: Option<ContextKeys>,
}

/// The result of one slice of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    /// The budget is used up, and the next chunk is not full yet.
    More,
    /// The next chunk.
    Chunk(Bytes),
    /// All chunks were handed out.
    Done,
}

/// Why a capture cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// Not a capture, or of a format that this build does not read.
    Format,
    /// A capture of the other kind of state.
    Kind {
        /// The kind of the capture.
        found: Kind,
    },
    /// The capture ends too early.
    Short,
    /// Bytes follow after the end.
    Long,
    /// A record cannot be decoded.
    Record(DecodeError),
    /// A table announces more records than it may have.
    Count {
        /// Records announced.
        found: u64,
        /// Records allowed.
        limit: u64,
    },
    /// Records are out of order or repeated.
    Order,
    /// No command could have created this record.
    Invalid(&'static str),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("not a snapshot that this build reads"),
            Self::Kind { found } => write!(f, "a snapshot of another kind of state: {found:?}"),
            Self::Short => f.write_str("the snapshot ends too early"),
            Self::Long => f.write_str("the snapshot has bytes after its end"),
            Self::Record(why) => write!(f, "a record of the snapshot: {why}"),
            Self::Count { found, limit } => {
                write!(
                    f,
                    "a table of the snapshot announces {found} records; at most {limit} are allowed"
                )
            }
            Self::Order => f.write_str("records of the snapshot are out of order"),
            Self::Invalid(what) => write!(f, "the snapshot holds an invalid {what}"),
        }
    }
}

impl core::error::Error for RestoreError {}

/// One table of a capture in progress.
#[derive(Debug)]
struct Table<K, V> {
    view: View<K, V>,
    is_begun: bool,
    /// The last key written.
    after: Option<K>,
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Table<K, V> {
    fn new(map: &SnapshotMap<K, V>) -> Option<Self> {
        Some(Self { view: map.view()?, is_begun: false, after: None })
    }

    /// Appends records until `out` holds `target` bytes. Returns true when all are written, and then drops the view, so
    /// that this table can be merged while the others are still written.
    fn write(&mut self, out: &mut Vec<u8>, target: usize) -> bool {
        if !mem::replace(&mut self.is_begun, true) {
            out.extend_from_slice(&(self.view.len() as u64).to_le_bytes());
        }
        let from = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for record in self.view.range::<K, _>((from, Bound::Unbounded)) {
            if out.len() >= target && !mutant!("state.capture.unsliced") {
                if let Some(last) = last {
                    self.after = Some(K::clone(last));
                }
                return false;
            }
            write_record(out, &record);
            last = Some(record.0);
        }
        self.view = Arc::default();
        true
    }
}

/// A capture in progress: views of all tables as they were when it began.
#[derive(Debug)]
pub(super) struct Capture {
    sessions: Table<SessionId, Remembered>,
    members: Table<Replica, MemberRecord>,
    namespaces: Table<String, NamespaceRecord>,
    keys: Table<Bytes, Slot>,
    /// Tables written so far.
    written: u8,
    /// Bytes of no chunk yet, after the first `taken`.
    buffer: Vec<u8>,
    taken: usize,
    chunk_bytes: usize,
}

impl Capture {
    /// Takes a view of each table. `None` while changes made during an earlier capture are not merged.
    pub(super) fn begin(state: &StateMachine) -> Option<Self> {
        let mut buffer = FORMAT.to_vec();
        let Registry { members, namespaces, next_namespace, next_group, keys: sealing } =
            &state.registry;
        write_record(
            &mut buffer,
            &Preamble {
                kind: state.kind,
                applied: state.applied,
                next_namespace: *next_namespace,
                next_group: *next_group,
                keys: *sealing,
            },
        );
        let mut sessions = Table::new(&state.sessions.table)?;
        if mutant!("state.session.lost_in_snapshot") {
            sessions.view = Arc::default();
        }
        let mut keys = Table::new(&state.keys.map)?;
        if mutant!("state.keys.lost_in_snapshot") {
            keys.view = Arc::default();
        }
        Some(Self {
            sessions,
            members: Table::new(members)?,
            namespaces: Table::new(namespaces)?,
            keys,
            written: 0,
            buffer,
            taken: 0,
            chunk_bytes: state.chunk_bytes,
        })
    }

    /// Writes about `budget_bytes`, and returns a chunk when it is full or the last one.
    pub(super) fn slice(&mut self, budget_bytes: usize) -> Slice {
        let full = self.taken + self.chunk_bytes;
        let target = self.buffer.len().saturating_add(budget_bytes.max(1)).min(full);
        let is_complete = self.fill(target);
        if self.buffer.len() >= full {
            reach!("state.capture.chunk");
            return Slice::Chunk(self.take_chunk(full));
        }
        if !is_complete {
            return Slice::More;
        }
        match self.buffer.len() {
            end if end == self.taken => Slice::Done,
            end => Slice::Chunk(self.take_chunk(end)),
        }
    }

    /// Copies the next chunk out of the buffer, up to `end`: a part of the buffer would keep all of it in memory.
    fn take_chunk(&mut self, end: usize) -> Bytes {
        if mutant!("state.capture.pins_the_rest") {
            let rest = self.buffer.split_off(end);
            let whole = Bytes::from(mem::replace(&mut self.buffer, rest));
            return whole.slice(mem::take(&mut self.taken)..);
        }
        let chunk = Bytes::copy_from_slice(&self.buffer[self.taken..end]);
        self.taken = end;
        if end == self.buffer.len() || end >= CHUNK_BYTES_MAX {
            // Less than a record is left.
            self.buffer.drain(..mem::take(&mut self.taken));
        }
        chunk
    }

    fn fill(&mut self, target: usize) -> bool {
        loop {
            let out = &mut self.buffer;
            let is_written = match self.written {
                0 => self.sessions.write(out, target),
                1 => self.members.write(out, target),
                2 => self.namespaces.write(out, target),
                3 => self.keys.write(out, target),
                _ => return true,
            };
            if !is_written {
                return false;
            }
            self.written += 1;
        }
    }
}

/// Appends a length and a canonical encoding.
fn write_record<T: Serialize>(out: &mut Vec<u8>, record: &T) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    codec::encode_into(record, out);
    let length = u32::try_from(out.len() - start - 4).expect("a record is below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Restores a state from its chunks, however they are cut.
pub(super) fn restore(kind: Kind, chunks: &[Bytes]) -> Result<StateMachine, RestoreError> {
    let mut reader = Reader { chunks, rest: &[], scratch: Vec::new() };
    if reader.array()? != FORMAT {
        return Err(RestoreError::Format);
    }
    let preamble: Preamble = reader.record()?;
    if preamble.kind != kind {
        return Err(RestoreError::Kind { found: preamble.kind });
    }
    let (members_max, namespaces_max, keys_max) = match kind {
        Kind::Registry => (MEMBERS_MAX, NAMESPACES_MAX, 0),
        Kind::Keys => (0, 0, usize::MAX),
    };
    let sessions = reader.table(SESSIONS_MAX, |_, _| true)?;
    let members = reader.table(members_max, |_, _| true)?;
    let namespaces = reader.table(namespaces_max, |name: &String, record: &NamespaceRecord| {
        is_name(name) && *name == record.namespace.name && is_numbered(&preamble, record)
    })?;
    let applied = preamble.applied;
    let keys = reader.table(keys_max, |key: &Bytes, slot: &Slot| {
        key.len() <= KEY_BYTES_MAX
            && slot.value.len() <= VALUE_BYTES_MAX
            && slot.revision <= applied
    })?;
    reader.end()?;
    reach!("state.capture.restored");
    let Preamble { next_namespace, mut next_group, keys: sealing, .. } = preamble;
    if mutant!("state.numbers.skipped_by_restore") {
        next_group += 1;
    }
    let mut machine = StateMachine::new(kind);
    machine.registry = Registry { members, namespaces, next_namespace, next_group, keys: sealing };
    machine.sessions =
        Sessions::new(sessions).ok_or(RestoreError::Invalid("two sessions have one last use"))?;
    machine.keys = Keys::new(keys);
    machine.applied =
        if mutant!("state.apply.twice_after_restore") { applied.prev() } else { applied };
    Ok(machine)
}

/// Whether the numbers of a namespace are below the next free ones.
fn is_numbered(preamble: &Preamble, record: &NamespaceRecord) -> bool {
    let namespace = &record.namespace;
    namespace.id.0 < preamble.next_namespace
        && namespace.group.is_none_or(|group| group.0 < preamble.next_group)
}

/// Reads records across the boundaries of chunks.
struct Reader<'a> {
    chunks: &'a [Bytes],
    /// The unread bytes of the chunk before `chunks`.
    rest: &'a [u8],
    scratch: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Fills the scratch buffer with this many bytes. Callers bound the number.
    fn fill(&mut self, bytes: usize) -> Result<(), RestoreError> {
        self.scratch.clear();
        while self.scratch.len() < bytes {
            if self.rest.is_empty() {
                let (next, chunks) = self.chunks.split_first().ok_or(RestoreError::Short)?;
                (self.rest, self.chunks) = (next, chunks);
                continue;
            }
            let take = (bytes - self.scratch.len()).min(self.rest.len());
            let (now, later) = self.rest.split_at(take);
            self.scratch.extend_from_slice(now);
            self.rest = later;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        self.fill(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.scratch);
        Ok(array)
    }

    fn record<T: Serialize + DeserializeOwned>(&mut self) -> Result<T, RestoreError> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        if length > RECORD_BYTES_MAX {
            let limit = RECORD_BYTES_MAX;
            return Err(RestoreError::Record(DecodeError::TooLong { length, limit }));
        }
        self.fill(length)?;
        codec::decode(&self.scratch, RECORD_BYTES_MAX).map_err(RestoreError::Record)
    }

    /// Reads a table of at most `records_max` records, all of them valid.
    fn table<K, V>(
        &mut self,
        records_max: usize,
        is_valid: impl Fn(&K, &V) -> bool,
    ) -> Result<SnapshotMap<K, V>, RestoreError>
    where
        K: Ord + Clone + Serialize + DeserializeOwned,
        V: Clone + Serialize + DeserializeOwned,
    {
        let (found, limit) = (u64::from_le_bytes(self.array()?), records_max as u64);
        if found > limit {
            return Err(RestoreError::Count { found, limit });
        }
        let mut tree = BTreeMap::new();
        // The count may be forged, so no memory is reserved for it.
        for _ in 0..found {
            let (key, value): (K, V) = self.record()?;
            if !is_valid(&key, &value) {
                return Err(RestoreError::Invalid("record"));
            }
            if tree.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(RestoreError::Order);
            }
            tree.insert(key, value);
        }
        Ok(SnapshotMap::from_tree(tree))
    }

    fn end(&self) -> Result<(), RestoreError> {
        let is_end = self.rest.is_empty() && self.chunks.iter().all(Bytes::is_empty);
        if is_end { Ok(()) } else { Err(RestoreError::Long) }
    }
}
