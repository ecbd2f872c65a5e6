//! How a node's run ends: as asked, or with an error.

use std::io;
use std::net::SocketAddr;

use continuum_core::id::Boot;
use continuum_core::node::RestoreError;

use crate::disk::OpenError;
use crate::settings::SettingsError;
use crate::tls::CredentialsError;

/// How a node ended that was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The life that ended.
    pub boot: Boot,
}

/// Why a node did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something is set wrongly.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Its certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Peers cannot be accepted there.
    #[error(
        "cannot listen for peers on {address}: {error}; hint: stop what uses it, or set peer.listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Its store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its log was read, and cannot be.
    #[error(
        "the log cannot be restored: {0}; hint: move the data directory away, and join as a new node"
    )]
    Restore(#[from] RestoreError),
    /// A write failed. What the disk holds now is unknown until the next start reads it.
    #[error("the disk failed: {why}; hint: check the disk, then start the node again")]
    StorageFailed {
        /// What the operating system said.
        why: String,
    },
    /// Another process has this node's identity, or its disk failed.
    #[error(
        "the node fenced itself: {why}; hint: let only one process use this identity and its own data directory"
    )]
    Fenced {
        /// Why.
        why: &'static str,
    },
}
