//! How a node's run ends: by a stop, or with an error.

use std::io;
use std::net::SocketAddr;

use continuum_core::id::Boot;
use continuum_core::node::RestoreError;

use crate::disk::OpenError;
use crate::settings::SettingsErrors;
use crate::tls::CredentialsError;

/// The node stopped as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The process that ended.
    pub boot: Boot,
}

/// Why a node did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsErrors),
    /// The certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The peers' listener cannot be opened.
    #[error(
        "cannot listen for peers on {address}: {error}; hint: stop the process that uses it, or set peer.listen"
    )]
    Listen {
        /// Where peers should be accepted.
        address: SocketAddr,
        /// From the operating system.
        error: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log was read, but the core refuses what it holds.
    #[error(
        "the log cannot be restored: {0}; hint: move the data directory away, and join as a new node"
    )]
    Restore(#[from] RestoreError),
    /// A write failed. Only the next start can tell what the disk holds.
    #[error("the disk failed: {why}; hint: check the disk, then start the node again")]
    StorageFailed {
        /// From the operating system.
        why: String,
    },
    /// A majority of the other voters refused this process. Its store is marked, and never starts again.
    #[error(
        "the node is fenced, and its data directory never starts again: {why}; hint: move the directory away and start \
         with an empty one, which joins as a learner"
    )]
    Condemned {
        /// The voters, and what they know.
        why: String,
    },
    /// Another process has this node's identity, or the storage failed.
    #[error(
        "the node fenced itself: {why}; hint: let only one process use this identity and its own data directory"
    )]
    Fenced {
        /// The core's reason.
        why: &'static str,
    },
}
