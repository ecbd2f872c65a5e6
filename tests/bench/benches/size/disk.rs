//! A disk of the bench: real log bytes in real files, so that they are not in the memory that is measured.
//!
//! Nothing is synced: the bench measures the core, and the kernel's cache stands for the drive.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use continuum_core::id::{FederationId, Replica, SnapshotId, Token};
use continuum_core::limits::LOG_BATCH_BYTES_MAX;
use continuum_core::wal::{self, Batch, Chunk, Header, LogWriter, RecoverError, Write};

/// Zeros behind the last batch, as in a segment that is filled before it is used.
const TAIL_BYTES: usize = 8192;

/// The log's writes and the snapshot files that a start finds.
pub type Found = (Vec<(Token, Write)>, BTreeMap<SnapshotId, Bytes>);

pub struct Disk {
    folder: PathBuf,
    header: Header,
    writer: LogWriter,
    /// The newest token that wrote or named each snapshot file.
    files: BTreeMap<SnapshotId, u64>,
    queue: Vec<(Token, Write)>,
    flight: Option<Vec<(Token, Write)>>,
    /// The segment that was written last.
    open: Option<(u64, File)>,
    /// Bytes of log and of snapshot files ever written.
    pub written: u64,
}

impl Disk {
    pub fn new(folder: PathBuf, federation: FederationId, replica: Replica) -> Self {
        fs::create_dir_all(&folder).expect("a folder for a disk");
        let header = Header { federation, node: replica.node, store: replica.store, lane: 0 };
        Self {
            folder,
            header,
            writer: LogWriter::new(header),
            files: BTreeMap::new(),
            queue: Vec::new(),
            flight: None,
            open: None,
            written: 0,
        }
    }

    pub fn persist(&mut self, token: Token, write: Write) {
        self.queue.push((token, write));
    }

    /// Begins a batch unless one is under way. Returns its bytes if it began one.
    pub fn begin(&mut self) -> Option<u64> {
        if self.flight.is_some() || self.queue.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |(_, write): &&(Token, Write)| {
            bytes += write.payload_bytes();
            bytes <= LOG_BATCH_BYTES_MAX
        };
        let mut taken = self.queue.iter().take_while(fits).count().max(1);
        // A piece of a file and the record that follows it have one token, and stay together.
        while taken < self.queue.len() && self.queue[taken].0 == self.queue[taken - 1].0 {
            taken += 1;
        }
        let rest = self.queue.split_off(taken);
        let batch = mem::replace(&mut self.queue, rest);
        let bytes = batch.iter().map(|(_, write)| write.payload_bytes() as u64).sum();
        self.flight = Some(batch);
        Some(bytes)
    }

    /// The batch is written. Returns its newest token.
    pub fn finish(&mut self) -> Token {
        let writes = self.flight.take().expect("a batch is under way");
        for (token, write) in &writes {
            if let Some(Chunk { snapshot, offset, data }) = write.chunk() {
                let path = self.file(snapshot);
                let file = OpenOptions::new().create(true).append(true).open(path);
                let mut file = file.expect("a snapshot file");
                file.set_len(offset).expect("a snapshot file");
                file.write_all(data).expect("room for a snapshot file");
                self.written += data.len() as u64;
                self.files.insert(snapshot, token.seq);
            } else if let Some(file) = write.snapshot() {
                self.files.insert(file.id, token.seq);
            }
        }
        let last = writes.last().expect("a batch is not empty").0;
        let records: Vec<_> =
            writes.into_iter().filter(|(_, write)| write.chunk().is_none()).collect();
        if !records.is_empty() {
            let batch = self.writer.encode(&records);
            self.write(&batch);
        }
        last
    }

    fn write(&mut self, batch: &Batch) {
        if self.open.as_ref().is_none_or(|(open, _)| *open != batch.segment) {
            let path = self.segment(batch.segment);
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
            self.open = Some((batch.segment, file.expect("a segment")));
        }
        let (_, file) = self.open.as_ref().expect("a segment is open");
        file.write_all_at(&batch.bytes, batch.offset).expect("room for the log");
        self.written += batch.bytes.len() as u64;
    }

    pub fn discard(&mut self, snapshot: SnapshotId) {
        if self.files.remove(&snapshot).is_some() {
            fs::remove_file(self.file(snapshot)).expect("a snapshot file");
        }
    }

    pub fn release(&mut self, before: Token) {
        for segment in self.writer.releasable(before) {
            fs::remove_file(self.segment(segment)).expect("a segment");
        }
        let old = self.files.iter().filter(|(_, newest)| **newest < before.seq);
        let old: Vec<SnapshotId> = old.map(|(file, _)| *file).collect();
        old.into_iter().for_each(|file| self.discard(file));
    }

    pub fn crash(&mut self) {
        self.queue = Vec::new();
        self.flight = None;
    }

    /// Reads everything, as a start does. The work is the caller's to measure.
    pub fn recover(&mut self) -> Found {
        self.open = None;
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.folder).expect("a disk").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_suffix(".log") else { continue };
            let mut bytes = fs::read(entry.path()).expect("a segment");
            bytes.resize(bytes.len() + TAIL_BYTES, 0);
            segments.push((number.parse().expect("a segment's number"), Bytes::from(bytes)));
        }
        let read = |id: &SnapshotId| fs::read(self.file(*id)).expect("a snapshot file");
        let files = self.files.keys().map(|id| (*id, Bytes::from(read(id)))).collect();
        match wal::recover(segments) {
            Ok(recovered) => {
                self.writer = recovered.writer;
                (recovered.writes, files)
            }
            Err(RecoverError::Empty) => {
                self.writer = LogWriter::new(self.header);
                (Vec::new(), files)
            }
            Err(error) => panic!("the log recovers: {error:?}"),
        }
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.log"))
    }

    fn file(&self, snapshot: SnapshotId) -> PathBuf {
        self.folder.join(format!("{:x}.snapshot", snapshot.0))
    }
}
