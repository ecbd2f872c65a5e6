//! The real disk: one thread that writes, syncs and reports how far the log is durable, and one beside it for snapshot
//! files, so that no write of the log waits for a large file.
//!
//! Group commit: the writes that arrive during a sync form the next batch. A batch is written only after the sync of
//! the previous one has returned. On a full disk the thread gives up the reserve and waits for space. A failed sync is
//! final.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use continuum_core::codec;
use continuum_core::id::{StoreId, Token};
use continuum_core::limits::LOG_BATCH_BYTES_MAX;
use continuum_core::wal::{Batch, Header, LogWriter, Recovered, Write};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::directory::{self, Directory, unusable};
use super::reserve::Reserve;
use super::segment::{self, Segments, is_full};
use super::snapshot_files::{self, FileRequest, FileWorker, SnapshotFiles, Usage};
use super::{Content, Disk, DiskEvent, DiskRequest, OpenError, Opened, StoreOwner};
use crate::clock::Stopwatch;

/// A log without writes for this long is sealed, and the next segment is made.
const IDLE: Duration = Duration::from_millis(50);
/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// How often a log at rest looks for room: another program may fill the disk.
const LOOK: Duration = Duration::from_secs(1);

/// A full disk reports its room again when it changed by this many bytes.
const ROOM_CHANGE: u64 = 1 << 20;
/// How long the owner of a disk waits for the end of its thread.
const END_MAX: Duration = Duration::from_millis(500);

/// Where requests go: to the thread of the log, and to that of the snapshot files.
type Requests = (Sender<DiskRequest>, Sender<FileRequest>);

/// A store in a directory of the file system.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    reserve_bytes: u64,
    requests: Option<Requests>,
    threads: Option<([JoinHandle<()>; 2], Receiver<Infallible>)>,
}

impl FileDisk {
    /// A store in this directory, with this many bytes kept back for a full disk. Nothing is touched before it is
    /// opened.
    #[must_use]
    pub const fn new(path: PathBuf, reserve_bytes: u64) -> Self {
        Self { path, reserve_bytes, requests: None, threads: None }
    }

    /// Whether this node may use the directory, as far as that shows quickly and without changing anything. The log
    /// and the snapshots are not read: that is [`FileDisk::look`].
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn check(path: &Path, owner: StoreOwner) -> Result<(), OpenError> {
        directory::check(path, owner).map(drop)
    }

    /// Reads the store as [`Disk::open`] would, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as from [`Disk::open`], except that a store in use is none.
    pub fn look(path: &Path, owner: StoreOwner) -> Result<Content, OpenError> {
        if directory::is_in_use(path) {
            return Ok(Content::InUse);
        }
        match content(path, owner) {
            // The files of a process that began meanwhile change while they are read.
            Err(_) if directory::is_in_use(path) => Ok(Content::InUse),
            found => found,
        }
    }
}

fn content(path: &Path, owner: StoreOwner) -> Result<Content, OpenError> {
    let Some(store) = directory::check(path, owner)? else { return Ok(Content::Fresh) };
    let (lane, side) = (directory::lane(path), directory::side(path));
    if lane.is_dir() {
        segment::check(&lane)?;
    }
    let log = segment::look(&lane, header(owner, store), directory::has_begun(path))?;
    let writes = log.map(|log| log.writes).unwrap_or_default();
    let snapshots = snapshot_files::look(&side, &writes, snapshot_files::deletable)?;
    Ok(Content::Sound { store, writes, snapshots })
}

fn header(StoreOwner { federation, node }: StoreOwner, store: StoreId) -> Header {
    Header { federation, node, store, lane: 0 }
}

impl Disk for FileDisk {
    fn open(&mut self, owner: StoreOwner, fresh: StoreId) -> Result<Opened, OpenError> {
        let (running, ended) = channel();
        let ((worker, files), opened, requests) =
            Worker::open((&self.path, self.reserve_bytes), owner, fresh, running)?;
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let log = named("continuum-disk").spawn(|| worker.run());
        let files = named("continuum-files").spawn(|| files.run());
        let threads = [log, files].map(|thread| thread.map_err(|e| unusable(&self.path, e)));
        let [log, files] = threads;
        (self.requests, self.threads) = (Some(requests), Some(([log?, files?], ended)));
        Ok(opened)
    }

    fn submit(&mut self, request: DiskRequest) {
        let Some((log, files)) = &self.requests else { return };
        // A worker that has ended has reported why.
        let _ = match request {
            DiskRequest::WriteFile(number, piece) => {
                files.send(FileRequest::Write(number, piece)).is_ok()
            }
            DiskRequest::Discard(snapshot) => files.send(FileRequest::Discard(snapshot)).is_ok(),
            request => log.send(request).is_ok(),
        };
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        self.requests = None;
        let Some((threads, ended)) = self.threads.take() else { return };
        // The lock is released only when both have ended. One whose disk hangs ends with the process.
        if ended.recv_timeout(END_MAX) == Err(RecvTimeoutError::Disconnected) {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }
}

/// Why the worker ends.
enum End {
    /// It was asked to, or its owner is gone.
    Stopped,
    /// The disk failed.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The thread's state.
struct Worker {
    directory: Arc<Directory>,
    segments: Segments,
    files: Arc<Usage>,
    reserve: Reserve,
    writer: LogWriter,
    has_begun: bool,
    is_full: bool,
    /// The room that was reported last.
    room: u64,
    /// Since a full disk was last asked whether it has room again.
    looked: Stopwatch,
    /// Whether nothing is left to do until the next request.
    is_idle: bool,
    events: UnboundedSender<DiskEvent>,
    /// Closed when the thread has ended.
    _running: Sender<Infallible>,
    queue: Receiver<DiskRequest>,
    /// Requests taken from the queue and not yet begun, oldest first.
    backlog: VecDeque<DiskRequest>,
}

impl Worker {
    fn open(
        (path, reserve_bytes): (&Path, u64),
        owner: StoreOwner,
        fresh: StoreId,
        running: Sender<Infallible>,
    ) -> Result<((Self, FileWorker), Opened, Requests), OpenError> {
        let directory = Arc::new(Directory::open(path, owner, fresh)?);
        let store = directory.store;
        let (segments, recovered) = Segments::open(&directory, header(owner, store))?;
        let Recovered { writes, writer, torn, .. } = recovered;
        let (files, snapshots) = SnapshotFiles::open(directory.side(), &writes)?;
        let mut reserve = Reserve::new(directory.reserve(), reserve_bytes);
        let has_reserve = reserve.keep().map_err(|e| unusable(&directory.reserve(), e))?;
        let (sender, events) = unbounded_channel();
        let (requests, queue) = channel();
        let (file_requests, file_queue) = channel();
        let usage = files.usage();
        let files = FileWorker {
            files,
            queue: file_queue,
            events: sender.downgrade(),
            failed: BTreeSet::new(),
            _directory: Arc::clone(&directory),
            _running: running.clone(),
        };
        let worker = Self {
            has_begun: directory.has_begun(),
            directory,
            segments,
            files: usage,
            reserve,
            writer,
            is_full: !has_reserve,
            room: 0,
            looked: Stopwatch::start(),
            is_idle: false,
            events: sender,
            _running: running,
            queue,
            backlog: VecDeque::new(),
        };
        let opened = Opened { store, writes, snapshots, torn, events };
        Ok(((worker, files), opened, (requests, file_requests)))
    }

    fn run(mut self) {
        if self.is_full {
            self.report_full(true);
        }
        self.report_space();
        let mut newest = self.writer.next_token();
        loop {
            match self.run_one(&mut newest) {
                Ok(()) => {}
                Err(End::Stopped) => break,
                Err(End::Failed(error)) => {
                    self.report(DiskEvent::Failed { token: newest, why: error.to_string() });
                    return;
                }
            }
        }
        self.report(DiskEvent::Stopped);
    }

    /// Performs one request, or the idle work.
    fn run_one(&mut self, newest: &mut Token) -> Result<(), End> {
        match self.next_request() {
            Some(DiskRequest::Persist(token, write)) => {
                let batch = self.gather(token, write);
                *newest = batch.last().map_or(token, |(token, _)| *token);
                self.commit(&batch)?;
                self.look_for_room()
            }
            // The other thread's; see `submit`.
            Some(DiskRequest::WriteFile(..) | DiskRequest::Discard(_)) => Ok(()),
            Some(DiskRequest::Release(before)) => self.release(before),
            Some(DiskRequest::Condemn(why)) => Ok(self.directory.condemn(&why)?),
            Some(DiskRequest::Stop) => {
                self.seal()?;
                Err(End::Stopped)
            }
            None => self.idle(),
        }
    }

    /// The next request; `None` when none came for a while and there is idle work.
    fn next_request(&mut self) -> Option<DiskRequest> {
        if let Some(request) = self.backlog.pop_front() {
            return Some(request);
        }
        match self.queue.recv_timeout(self.pause()) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(DiskRequest::Stop),
        }
    }

    /// How long to wait for a request before the idle work.
    const fn pause(&self) -> Duration {
        match (self.is_idle, self.is_full) {
            (true, false) => LOOK,
            (true, true) => FULL_RETRY,
            (false, _) => IDLE,
        }
    }

    /// The write, and the writes that wait behind it, up to the bound of a batch.
    fn gather(&mut self, token: Token, write: Write) -> Vec<(Token, Write)> {
        let mut bytes = codec::encoded_len(&write);
        let mut batch = vec![(token, write)];
        while let Some(request) = self.backlog.pop_front().or_else(|| self.queue.try_recv().ok()) {
            match request {
                DiskRequest::Persist(token, write)
                    if bytes + codec::encoded_len(&write) <= LOG_BATCH_BYTES_MAX =>
                {
                    bytes += codec::encoded_len(&write);
                    batch.push((token, write));
                }
                other => {
                    self.backlog.push_front(other);
                    break;
                }
            }
        }
        batch
    }

    /// Makes a batch durable.
    fn commit(&mut self, batch: &[(Token, Write)]) -> Result<(), End> {
        let Some((token, _)) = batch.last() else { return Ok(()) };
        let (token, writes) = (*token, batch.len());
        let watch = Stopwatch::start();
        let batch = self.writer.encode(batch);
        self.write_log(&batch)?;
        self.is_idle = false;
        self.report(DiskEvent::Persisted { token, writes, took: watch.elapsed() });
        Ok(())
    }

    fn write_log(&mut self, batch: &Batch) -> Result<(), End> {
        self.attempt(|worker| worker.segments.write(batch))?;
        self.segments.sync(batch)?;
        if !self.has_begun {
            self.attempt(|worker| worker.directory.begin())?;
            self.has_begun = true;
        }
        if batch.opens_segment {
            self.report_space();
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), End> {
        match self.writer.seal() {
            Some(batch) => self.write_log(&batch),
            None => Ok(()),
        }
    }

    /// Deletes the segments in which every write is older than `before`.
    fn release(&mut self, before: Token) -> Result<(), End> {
        let segments = self.writer.releasable(before);
        self.segments.delete(&segments)?;
        self.report_space();
        Ok(())
    }

    /// Work for times without requests.
    fn idle(&mut self) -> Result<(), End> {
        self.seal()?;
        self.attempt(|worker| worker.segments.prepare())?;
        self.look_for_room()?;
        self.is_idle = true;
        Ok(())
    }

    /// Whether the disk has room, or a full one has room again. It is asked at rest and under load alike, at most once
    /// in a while.
    fn look_for_room(&mut self) -> Result<(), End> {
        if self.looked.elapsed() < FULL_RETRY {
            return Ok(());
        }
        self.looked = Stopwatch::start();
        if !self.is_full {
            self.is_full = self.reserve.is_low(self.files.due_bytes());
            if self.is_full {
                self.report_full(true);
                self.report_space();
            }
        } else if self.reserve.keep_when_free(self.files.due_bytes())? {
            self.is_full = false;
            self.report_full(false);
            self.report_space();
        } else if self.reserve.room().abs_diff(self.room) >= ROOM_CHANGE {
            self.report_full(true);
        }
        Ok(())
    }

    /// Repeats an operation for as long as the disk is full.
    fn attempt(&mut self, act: impl Fn(&mut Self) -> io::Result<()>) -> Result<(), End> {
        loop {
            match act(self) {
                Err(error) if is_full(&error) => self.make_room()?,
                done => return Ok(done?),
            }
        }
    }

    /// Gives up the reserve; if that is gone already, waits for a moment.
    fn make_room(&mut self) -> Result<(), End> {
        if !std::mem::replace(&mut self.is_full, true) {
            self.report_full(true);
        }
        if self.reserve.is_kept() {
            self.reserve.give_up()?;
            self.report_space();
            return Ok(());
        }
        match self.queue.recv_timeout(FULL_RETRY) {
            // The waiting writes are lost, which is safe: none of them was reported as durable.
            Ok(DiskRequest::Stop) | Err(RecvTimeoutError::Disconnected) => Err(End::Stopped),
            // It needs almost no room, and must not wait for some.
            Ok(DiskRequest::Condemn(why)) => Ok(self.directory.condemn(&why)?),
            // It makes room, and is about nothing that a waiting write needs.
            Ok(DiskRequest::Release(before)) => self.release(before),
            Ok(request) => {
                self.backlog.push_back(request);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
        }
    }

    fn report_space(&self) {
        let used = self.segments.bytes() + self.files.bytes();
        self.report(DiskEvent::Space { used, free: self.reserve.free() });
    }

    fn report_full(&mut self, full: bool) {
        self.room = self.reserve.room();
        self.report(DiskEvent::Full { full, room: self.room });
    }

    fn report(&self, event: DiskEvent) {
        // A driver that has ended needs no report.
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use continuum_core::id::{FederationId, GroupId, NodeId, ShardId, Term};
    use continuum_core::raft;
    use continuum_core::wal::SEGMENT_BYTES;

    use super::*;

    const OWNER: StoreOwner =
        StoreOwner { federation: FederationId([1; 16]), node: NodeId([2; 16]) };
    const RESERVE: u64 = 64 << 10;

    fn worker(path: &Path, reserve: u64) -> (Worker, Opened, Sender<DiskRequest>) {
        let ((worker, _), opened, (requests, _)) =
            Worker::open((path, reserve), OWNER, StoreId([3; 16]), channel().0).unwrap();
        (worker, opened, requests)
    }

    fn reported(opened: &mut Opened) -> Vec<DiskEvent> {
        let all = std::iter::from_fn(|| opened.events.try_recv().ok());
        all.filter(|event| !matches!(event, DiskEvent::Space { .. })).collect()
    }

    fn write(seq: u64) -> DiskRequest {
        let write = Write::Group {
            group: GroupId(0),
            write: raft::Write::Hard { term: Term(seq), vote: None },
        };
        DiskRequest::Persist(Token { lane: 0, seq }, write)
    }

    /// A write of a mebibyte.
    fn large(seq: u64) -> DiskRequest {
        let records = vec![vec![7; 1 << 20].into()];
        let write = Write::Shard {
            shard: ShardId::default(),
            write: continuum_core::replication::Write::Dots { records },
        };
        DiskRequest::Persist(Token { lane: 0, seq }, write)
    }

    #[test]
    fn a_full_disk_gives_up_the_reserve_waits_and_takes_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut worker, mut opened, requests) = worker(&dir.path().join("data"), RESERVE);
        let reserve = worker.directory.reserve();
        assert!(reserve.exists());
        requests.send(write(1)).unwrap();
        let tries = Cell::new(0);
        // Full three times: the first gives up the reserve, the others wait for requests or a moment.
        let done = worker.attempt(|_| {
            tries.set(tries.get() + 1);
            if tries.get() <= 3 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        assert!(done.is_ok() && tries.get() == 4 && !reserve.exists());
        let full = |event: &DiskEvent| match event {
            DiskEvent::Full { full, .. } => Some(*full),
            _ => None,
        };
        let said: Vec<_> = reported(&mut opened).iter().map(full).collect();
        assert_eq!(said, [Some(true)], "reported once");
        // The request that arrived meanwhile is not lost, and the end of the shortage is noticed.
        // That happens under load as well as at rest: with the write itself, not only once nothing is left to do.
        let mut newest = Token::default();
        assert!(worker.run_one(&mut newest).is_ok());
        let reported = reported(&mut opened);
        assert!(matches!(reported[0], DiskEvent::Persisted { writes: 1, .. }), "{reported:?}");
        assert_eq!(reported[1..].iter().map(full).collect::<Vec<_>>(), [Some(false)]);
        assert!(reserve.exists());
    }

    /// A release, which makes room, does not wait behind the write that waits for room.
    #[test]
    fn a_full_disk_releases_what_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let (mut worker, mut opened, requests) = worker(&dir.path().join("data"), RESERVE);
        let mut newest = Token::default();
        // A segment that is full, and writes in the next one.
        for seq in 1..=20 {
            requests.send(large(seq)).unwrap();
            assert!(worker.run_one(&mut newest).is_ok());
        }
        let before = worker.segments.bytes();
        requests.send(DiskRequest::Release(newest)).unwrap();
        let tries = Cell::new(0);
        let freed = Cell::new(0);
        let done = worker.attempt(|worker| {
            tries.set(tries.get() + 1);
            freed.set(before - worker.segments.bytes());
            if tries.get() <= 3 && freed.get() == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        });
        assert!(done.is_ok() && freed.get() == SEGMENT_BYTES, "{} bytes freed", freed.get());
        drop(reported(&mut opened));
    }

    /// Another program fills the disk while nothing is written.
    #[test]
    fn a_log_at_rest_finds_the_disk_full() {
        let dir = tempfile::tempdir().unwrap();
        let (mut worker, mut opened, _requests) = worker(&dir.path().join("data"), RESERVE);
        let mut newest = Token::default();
        assert!(worker.run_one(&mut newest).is_ok() && worker.is_idle && !worker.is_full);
        // No byte is free in a folder that is missing.
        worker.reserve = Reserve::new(dir.path().join("missing/reserve"), RESERVE);
        assert!(worker.run_one(&mut newest).is_ok());
        let reported = reported(&mut opened);
        assert!(matches!(reported[..], [DiskEvent::Full { full: true, .. }]), "{reported:?}");
    }

    #[test]
    fn a_stop_does_not_wait_for_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (mut worker, _opened, requests) = worker(&dir.path().join("data"), RESERVE);
        requests.send(DiskRequest::Stop).unwrap();
        let done = worker.attempt(|_| Err(io::ErrorKind::StorageFull.into()));
        assert!(matches!(done, Err(End::Stopped)));
    }

    #[test]
    fn without_room_for_the_reserve_the_store_is_full_but_still_writes() {
        let dir = tempfile::tempdir().unwrap();
        let free = Reserve::new(dir.path().join("any"), 0).free();
        let mut disk = FileDisk::new(dir.path().join("data"), free + (1 << 30));
        let mut opened = disk.open(OWNER, StoreId([3; 16])).unwrap();
        disk.submit(write(1));
        disk.submit(DiskRequest::Stop);
        let all: Vec<DiskEvent> = std::iter::from_fn(|| opened.events.blocking_recv()).collect();
        assert!(matches!(all[0], DiskEvent::Full { full: true, .. }));
        assert!(all.iter().any(|event| matches!(event, DiskEvent::Persisted { .. })), "{all:?}");
    }

    #[test]
    fn a_failed_disk_reports_it_and_writes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut disk = FileDisk::new(path.clone(), RESERVE);
        let mut opened = disk.open(OWNER, StoreId([3; 16])).unwrap();
        std::fs::remove_dir_all(path.join("lane-0")).unwrap();
        disk.submit(write(1));
        disk.submit(write(2));
        let all: Vec<DiskEvent> = std::iter::from_fn(|| opened.events.blocking_recv()).collect();
        assert!(matches!(
            all.last(),
            Some(DiskEvent::Failed { token: Token { seq: 1.., .. }, .. })
        ));
        assert!(!all.iter().any(|event| matches!(event, DiskEvent::Persisted { .. })), "{all:?}");
    }
}
