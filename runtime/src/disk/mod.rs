//! Making writes durable: the seam between the driver and a disk, real or simulated.
//!
//! A disk keeps one lane's log first-in, first-out, and says how far it is durable. What the bytes of the log are is
//! [`continuum_core::wal`]'s business, what the writes mean is nobody's here.

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
use continuum_core::id::{FederationId, NodeId, SnapshotId, StoreId, Token};
use continuum_core::wal::{RecoverError, Torn, Write};
use tokio::sync::mpsc;

pub use file::FileDisk;
pub use memory::MemDisk;

/// Whose store it is: from the node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The federation.
    pub federation: FederationId,
    /// The node.
    pub node: NodeId,
}

/// What a store held when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its id.
    pub store: StoreId,
    /// Its log, in order.
    pub writes: Vec<(Token, Write)>,
    /// The side files that its log names.
    pub snapshots: BTreeMap<SnapshotId, Bytes>,
    /// What was cut from the log's end.
    pub torn: Option<Torn>,
    /// What the disk tells from now on. At most one for each request, so it is bounded by what the core hands out.
    pub events: mpsc::UnboundedReceiver<DiskEvent>,
}

/// What the driver asks of a disk.
#[derive(Clone, Debug)]
pub enum DiskRequest {
    /// Make a write durable. A piece of a side file shares its token with the log record that follows it.
    Persist(Token, Write),
    /// Nothing needs this side file any more.
    Discard(SnapshotId),
    /// No write before this token is needed any more.
    Release(Token),
    /// Make everything durable, seal the log, say [`DiskEvent::Stopped`] and let go of the store.
    Stop,
}

/// What a disk tells the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// All writes up to this token are durable.
    Persisted {
        /// The newest of them.
        token: Token,
        /// How many the sync covered.
        writes: usize,
        /// How long the sync took.
        took: Duration,
    },
    /// A write failed. Nothing after it is tried: what a failed sync left behind is unknown.
    Failed {
        /// The newest write that is not known to be durable.
        token: Token,
        /// What the operating system said.
        why: String,
    },
    /// The disk is full, or is not any more. Writes wait meanwhile; none is lost.
    Full(bool),
    /// What the store takes and what is left, in bytes.
    Space {
        /// Taken by the store.
        used: u64,
        /// Free on its file system.
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
    /// [`OpenError`]; nothing that was there is lost.
    fn open(&mut self, holder: Holder, fresh: StoreId) -> Result<Opened, OpenError>;

    /// Takes a request; never blocks. Jobs before a successful `open` are lost.
    fn submit(&mut self, request: DiskRequest);
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error(
        "cannot use {path}: {error}; hint: give a directory on a writable disk that this user owns"
    )]
    Unusable {
        /// What was tried.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// Another process has it open.
    #[error(
        "{path} is in use by another process; hint: stop that process, or give another data directory"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It is open to others.
    #[error("{path} is open to others (mode {mode:04o}); hint: chmod 700 {path}")]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds files and is no store.
    #[error(
        "{path} is not empty and no store of this program; hint: give an empty directory, or one of this node"
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// It is another node's.
    #[error(
        "{path} belongs to node {} of federation {}, and this is node {} of federation {}; hint: give this node's own \
         data directory, or an empty one",
        .found.node, .found.federation, .expected.node, .expected.federation
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: Box<Holder>,
        /// Who asked.
        expected: Box<Holder>,
    },
    /// Its description is of another version, or damaged.
    #[error(
        "{path} cannot be understood: {why}; hint: use the build that made it, or restore the file"
    )]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its log cannot be used.
    #[error("the log in {path} cannot be used: {error}")]
    Log {
        /// The log's directory.
        path: PathBuf,
        /// Why.
        error: Box<RecoverError>,
    },
    /// Writes were durable once, and the log is gone.
    #[error(
        "the log in {path} is missing, and the store was in use; hint: put the segments back, or join as a new node \
         with an empty data directory"
    )]
    LogMissing {
        /// The log's directory.
        path: PathBuf,
    },
}
