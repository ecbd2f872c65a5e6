//! A disk in memory with the real log's bytes: what a simulated world restarts a node on.
//!
//! Clones share one store, so that it outlives the process that uses it. Writes become durable a moment after they were
//! handed in, in batches; a process that is killed loses those under way. It has no faults of its own: torn and rotten
//! bytes are the simulator's business.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use continuum_core::id::{SnapshotId, StoreId, Token};
use continuum_core::wal::{Batch, Chunk, Header, LogWriter, Write, recover};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel as queue};

use super::{Disk, Done, Holder, Job, OpenError, Opened};

/// How long a sync takes.
const SYNC: Duration = Duration::from_millis(1);

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    shelf: Arc<Mutex<Shelf>>,
    jobs: Option<UnboundedSender<Job>>,
}

/// What is durable.
#[derive(Debug, Default)]
struct Shelf {
    header: Option<Header>,
    segments: BTreeMap<u64, Vec<u8>>,
    side: BTreeMap<SnapshotId, Vec<u8>>,
    /// Which life of a process uses the store: an earlier one writes nothing more.
    life: u64,
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
        lock(&self.shelf).segments.values().map(Vec::len).sum()
    }
}

impl Disk for MemDisk {
    fn open(&mut self, holder: Holder, fresh: StoreId) -> Result<Opened, OpenError> {
        let mut shelf = lock(&self.shelf);
        shelf.life += 1;
        let life = shelf.life;
        let Holder { federation, node } = holder;
        let fresh = Header { federation, node, store: fresh, lane: 0 };
        let header = *shelf.header.get_or_insert(fresh);
        let segments: Vec<_> =
            shelf.segments.iter().map(|(id, bytes)| (*id, Bytes::copy_from_slice(bytes))).collect();
        let (writes, writer, torn) = if segments.is_empty() {
            (Vec::new(), LogWriter::new(header), None)
        } else {
            let path = PathBuf::from("memory");
            let found = recover(segments).map_err(|e| OpenError::Log { path, error: e.into() })?;
            if let Some(torn) = &found.torn {
                shelf.segments.retain(|segment, _| *segment <= torn.segment);
                let cut = shelf.segments.get_mut(&torn.segment);
                cut.into_iter().for_each(|bytes| bytes.truncate(torn.offset as usize));
            }
            (found.writes, found.writer, found.torn)
        };
        let snapshots =
            shelf.side.iter().map(|(id, bytes)| (*id, Bytes::copy_from_slice(bytes))).collect();
        drop(shelf);
        let (jobs, taken) = queue();
        let (told, done) = queue();
        let shelf = Arc::clone(&self.shelf);
        let mut worker = Worker { shelf, life, writer, told };
        tokio::spawn(async move { worker.run(taken).await });
        self.jobs = Some(jobs);
        Ok(Opened { store: header.store, writes, snapshots, torn, done })
    }

    fn submit(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

struct Worker {
    shelf: Arc<Mutex<Shelf>>,
    life: u64,
    writer: LogWriter,
    told: UnboundedSender<Done>,
}

impl Worker {
    async fn run(&mut self, mut jobs: UnboundedReceiver<Job>) {
        while let Some(first) = jobs.recv().await {
            tokio::time::sleep(SYNC).await;
            let mut batch = vec![first];
            while let Ok(job) = jobs.try_recv() {
                batch.push(job);
            }
            let stops = batch.iter().any(|job| matches!(job, Job::Stop));
            self.commit(batch);
            if stops {
                return;
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let shelf = Arc::clone(&self.shelf);
        let mut shelf = lock(&shelf);
        if shelf.life != self.life {
            return;
        }
        let mut log = Vec::new();
        let mut newest = None;
        let mut stops = false;
        for job in jobs {
            match job {
                Job::Persist(token, write) => {
                    newest = Some(token);
                    match write.chunk() {
                        Some(Chunk { snapshot, offset, data }) => {
                            write_at(shelf.side.entry(snapshot).or_default(), offset, data);
                        }
                        None => log.push((token, write)),
                    }
                }
                Job::Discard(snapshot) => drop(shelf.side.remove(&snapshot)),
                Job::Release(before) => {
                    self.append(&mut shelf, &mut log);
                    for segment in self.writer.releasable(before) {
                        shelf.segments.remove(&segment);
                    }
                }
                Job::Stop => stops = true,
            }
        }
        let writes = log.len();
        self.append(&mut shelf, &mut log);
        if let Some(token) = newest {
            let _ = self.told.send(Done::Persisted { token, writes, took: SYNC });
        }
        if stops {
            let _ = self.told.send(Done::Stopped);
        }
    }

    fn append(&mut self, shelf: &mut Shelf, log: &mut Vec<(Token, Write)>) {
        if !log.is_empty() {
            let Batch { segment, offset, bytes, .. } = self.writer.encode(log);
            write_at(shelf.segments.entry(segment).or_default(), offset, &bytes);
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

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}
