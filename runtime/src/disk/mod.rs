//! Making writes durable: the seam between the driver and a disk, real or simulated.
//!
//! A disk keeps one lane's log first-in, first-out, and reports how far it is durable. [`continuum_core::wal`] defines
//! the log's bytes. This module does not look at what the writes mean.

mod directory;
mod file;
mod memory;
mod reserve;
mod segment;
mod snapshot_files;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use continuum_core::files::Piece;
use continuum_core::id::{FederationId, NodeId, SnapshotId, StoreId, Token};
use continuum_core::wal::{RecoverError, Torn, Write};
use tokio::sync::mpsc;

pub use file::FileDisk;
pub use memory::MemDisk;

/// The owner of a store, from the node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOwner {
    /// The federation.
    pub federation: FederationId,
    /// The node.
    pub node: NodeId,
}

/// The content of a store when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The id of the data directory.
    pub store: StoreId,
    /// The log, in order.
    pub writes: Vec<(Token, Write)>,
    /// The snapshot files that the log names.
    pub snapshots: BTreeMap<SnapshotId, Bytes>,
    /// The unfinished end that was cut from the log.
    pub torn: Option<Torn>,
    /// The disk's reports. At most one for each request, so the core's bound on requests bounds this queue.
    pub events: mpsc::UnboundedReceiver<DiskEvent>,
}

/// A request of the driver.
#[derive(Clone, Debug)]
pub enum DiskRequest {
    /// Make a write durable.
    Persist(Token, Write),
    /// Write the piece of a snapshot file with this number, beside the log. Pieces and [`Self::Discard`] keep their
    /// order; no write of the log waits for them.
    WriteFile(u64, Piece),
    /// Delete this snapshot file, complete or not.
    Discard(SnapshotId),
    /// No write before this token is needed any more.
    Release(Token),
    /// Mark the store, durably, so that it never opens again, with this reason.
    Condemn(String),
    /// Make everything durable, seal the log, report [`DiskEvent::Stopped`] and close the store.
    Stop,
}

/// A report to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// All writes up to this token are durable.
    Persisted {
        /// The newest of them.
        token: Token,
        /// The number of writes that the sync covered.
        writes: usize,
        /// How long the sync took.
        took: Duration,
    },
    /// All pieces up to this number are durable, but for those of files that failed.
    FilesWritten {
        /// The newest of them.
        number: u64,
    },
    /// A snapshot file found no room and is deleted. Its later pieces are ignored until it is discarded.
    FileFailed {
        /// The file.
        snapshot: SnapshotId,
    },
    /// A write failed. Nothing after it is tried: what a failed sync left behind is unknown.
    Failed {
        /// The newest write that may not be durable.
        token: Token,
        /// From the operating system.
        why: String,
    },
    /// The disk is full, or has room again, or a full one has more or less room than was reported. Writes wait
    /// meanwhile; none is lost.
    Full {
        /// Whether it is full.
        full: bool,
        /// Bytes that can still be written, the reserve with them.
        room: u64,
    },
    /// How much space is used and free.
    Space {
        /// Bytes that the store uses.
        used: u64,
        /// Bytes free on its file system.
        free: u64,
    },
    /// The store is closed.
    Stopped,
}

/// A disk, real or simulated.
pub trait Disk: Send + 'static {
    /// Opens the store, or creates it with the id `fresh`.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Nothing in the store is lost.
    fn open(&mut self, owner: StoreOwner, fresh: StoreId) -> Result<Opened, OpenError>;

    /// Takes a request; never blocks. Requests before a successful `open` are lost.
    fn submit(&mut self, request: DiskRequest);
}

/// The content of a store that is not opened.
#[derive(Debug)]
pub enum Content {
    /// There is none yet.
    Fresh,
    /// A process uses it, so it changes.
    InUse,
    /// It could be opened now, and its log and files would be these.
    Sound {
        /// The id of the data directory.
        store: StoreId,
        /// The log, in order.
        writes: Vec<(Token, Write)>,
        /// The snapshot files that the log names.
        snapshots: BTreeMap<SnapshotId, Bytes>,
    },
}

fn hint_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidInput
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => "give another data directory, or move it away",
        _ => "give a directory on a writable disk that this user owns",
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error("cannot use {path}: {error}; hint: {}", hint_for(error))]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// From the operating system.
        error: io::Error,
    },
    /// Another process has it open.
    #[error(
        "{path} is in use by another process; hint: stop that process, or give another data directory"
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// Other users may read or write it.
    #[error("{path} is open to others (mode {mode:04o}); hint: chmod 700 {path}")]
    Exposed {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds files, but no store.
    #[error(
        "{path} is not empty and not a store of this program; hint: give an empty directory, or one of this node"
    )]
    NotAStore {
        /// The data directory.
        path: PathBuf,
    },
    /// It belongs to another node.
    #[error(
        "{path} belongs to node {} of federation {}, and this is node {} of federation {}; hint: give this node's own \
         data directory, or an empty one",
        .found.node, .found.federation, .expected.node, .expected.federation
    )]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// The owner that it names.
        found: Box<StoreOwner>,
        /// This node.
        expected: Box<StoreOwner>,
    },
    /// Its `STORE` file is of another version, or damaged.
    #[error(
        "{path} cannot be understood: {why}; hint: use the build that made it, or restore the file"
    )]
    Description {
        /// The `STORE` file.
        path: PathBuf,
        /// The version or the damage.
        why: String,
    },
    /// Peers refused a process of it: it is a copy of another directory, or older than what they saw of it.
    #[error(
        "{path} was fenced and never starts again: {why}; hint: move the directory away and start with an empty one, \
         which joins as a learner"
    )]
    Condemned {
        /// The data directory.
        path: PathBuf,
        /// The peers, and what they know.
        why: String,
    },
    /// Its log cannot be used.
    #[error("the log in {path} cannot be used: {error}")]
    Log {
        /// The log's directory.
        path: PathBuf,
        /// Which damage, and what to do.
        error: Box<RecoverError>,
    },
    /// The log is gone, although writes were durable once.
    #[error(
        "the log in {path} is missing, and the store was in use; hint: put the segments back, or join as a new node \
         with an empty data directory"
    )]
    LogMissing {
        /// The log's directory.
        path: PathBuf,
    },
}
