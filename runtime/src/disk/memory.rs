//! A disk in memory that holds the real log's bytes, so that a test or simulated network can restart a node on it.
//!
//! Clones share one store, so that it survives the process that uses it. Writes become durable in batches, a moment
//! after they are submitted; a killed process loses those under way. This disk injects no faults; the simulator does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use continuum_core::files::Piece;
use continuum_core::id::{SnapshotId, StoreId, Token};
use continuum_core::wal::{Batch, Header, LogWriter, Write, recover};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel as queue};

use super::{Disk, DiskEvent, DiskRequest, OpenError, Opened, StoreOwner};

/// How long a sync takes.
const SYNC: Duration = Duration::from_millis(1);

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    store: Arc<Mutex<Store>>,
    requests: Option<UnboundedSender<DiskRequest>>,
}

/// The durable content.
#[derive(Debug, Default)]
struct Store {
    header: Option<Header>,
    segments: BTreeMap<u64, Vec<u8>>,
    snapshots: BTreeMap<SnapshotId, Vec<u8>>,
    /// Snapshot files that are not complete.
    parts: BTreeMap<SnapshotId, Vec<u8>>,
    /// Why no process may start from it again.
    condemned: Option<String>,
    /// Counts the processes that opened the store. Only the latest may write.
    process: u64,
}

impl Store {
    /// Writes a piece of a snapshot file. The last one completes it.
    fn write(&mut self, piece: &Piece) {
        let part = self.parts.entry(piece.snapshot).or_default();
        part.truncate(piece.offset as usize);
        write_at(part, piece.offset, &piece.data);
        if piece.is_last
            && let Some(whole) = self.parts.remove(&piece.snapshot)
        {
            self.snapshots.insert(piece.snapshot, whole);
        }
    }
}

impl MemDisk {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of its log's segments.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        lock(&self.store).segments.values().map(Vec::len).sum()
    }
}

impl Disk for MemDisk {
    fn open(&mut self, owner: StoreOwner, fresh: StoreId) -> Result<Opened, OpenError> {
        let mut store = lock(&self.store);
        if let Some(why) = store.condemned.clone() {
            return Err(OpenError::Condemned { path: PathBuf::from("memory"), why });
        }
        store.process += 1;
        let process = store.process;
        let StoreOwner { federation, node } = owner;
        let fresh = Header { federation, node, store: fresh, lane: 0 };
        let header = *store.header.get_or_insert(fresh);
        let segments: Vec<_> =
            store.segments.iter().map(|(id, bytes)| (*id, Bytes::copy_from_slice(bytes))).collect();
        let (writes, writer, torn) = if segments.is_empty() {
            (Vec::new(), LogWriter::new(header), None)
        } else {
            let path = PathBuf::from("memory");
            let found = recover(segments).map_err(|e| OpenError::Log { path, error: e.into() })?;
            if let Some(torn) = &found.torn {
                store.segments.retain(|segment, _| *segment <= torn.segment);
                let cut = store.segments.get_mut(&torn.segment);
                cut.into_iter().for_each(|bytes| bytes.truncate(torn.offset as usize));
            }
            (found.writes, found.writer, found.torn)
        };
        store.parts.clear();
        let snapshots = store
            .snapshots
            .iter()
            .map(|(id, bytes)| (*id, Bytes::copy_from_slice(bytes)))
            .collect();
        drop(store);
        let (requests, taken) = queue();
        let (sender, events) = queue();
        let store = Arc::clone(&self.store);
        let mut worker = Worker { store, process, writer, events: sender };
        tokio::spawn(async move { worker.run(taken).await });
        self.requests = Some(requests);
        Ok(Opened { store: header.store, writes, snapshots, torn, events })
    }

    fn submit(&mut self, request: DiskRequest) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request);
        }
    }
}

struct Worker {
    store: Arc<Mutex<Store>>,
    process: u64,
    writer: LogWriter,
    events: UnboundedSender<DiskEvent>,
}

impl Worker {
    async fn run(&mut self, mut requests: UnboundedReceiver<DiskRequest>) {
        while let Some(first) = requests.recv().await {
            tokio::time::sleep(SYNC).await;
            let mut batch = vec![first];
            while let Ok(request) = requests.try_recv() {
                batch.push(request);
            }
            let stops = batch.iter().any(|request| matches!(request, DiskRequest::Stop));
            self.commit(batch);
            if stops {
                return;
            }
        }
    }

    fn commit(&mut self, requests: Vec<DiskRequest>) {
        let store = Arc::clone(&self.store);
        let mut store = lock(&store);
        if store.process != self.process {
            return;
        }
        let mut log = Vec::new();
        let (mut newest, mut newest_piece) = (None, None);
        let mut stops = false;
        for request in requests {
            match request {
                DiskRequest::Persist(token, write) => {
                    newest = Some(token);
                    log.push((token, write));
                }
                DiskRequest::WriteFile(number, piece) => {
                    newest_piece = Some(number);
                    store.write(&piece);
                }
                DiskRequest::Discard(snapshot) => {
                    store.snapshots.remove(&snapshot);
                    store.parts.remove(&snapshot);
                }
                DiskRequest::Release(before) => {
                    self.append(&mut store, &mut log);
                    for segment in self.writer.releasable(before) {
                        store.segments.remove(&segment);
                    }
                }
                DiskRequest::Condemn(why) => store.condemned = Some(why),
                DiskRequest::Stop => stops = true,
            }
        }
        let writes = log.len();
        self.append(&mut store, &mut log);
        if let Some(token) = newest {
            let _ = self.events.send(DiskEvent::Persisted { token, writes, took: SYNC });
        }
        if let Some(number) = newest_piece {
            let _ = self.events.send(DiskEvent::FilesWritten { number });
        }
        if stops {
            let _ = self.events.send(DiskEvent::Stopped);
        }
    }

    fn append(&mut self, store: &mut Store, log: &mut Vec<(Token, Write)>) {
        if !log.is_empty() {
            let Batch { segment, offset, bytes, .. } = self.writer.encode(log);
            write_at(store.segments.entry(segment).or_default(), offset, &bytes);
            log.clear();
        }
    }
}

fn write_at(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = offset as usize;
    let until = from + bytes.len();
    if file.len() < until {
        file.resize(until, 0);
    }
    file[from..until].copy_from_slice(bytes);
}

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}
