//! The data directory: locked by one process, closed to other users, and owned by one node for ever.
//!
//! ```text
//! LOCK      locked by the process that uses the store
//! STORE     the federation and node that own it, and its store id
//! BEGUN     created with the first durable write: tells a lost log from one that was never written
//! FENCED    why peers refused a process of it: it never starts again
//! reserve   bytes kept back for a full disk
//! lane-0/   the log's segments
//! side/     snapshot files
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use continuum_core::id::{FederationId, NodeId, StoreId};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::{OpenError, StoreOwner};
use crate::tls::secret;

/// The version of the directory's layout. This build reads no other.
const VERSION: u32 = 1;

/// An open, locked data directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    pub(super) store: StoreId,
    /// Unlocked when it is dropped, or when the process dies.
    _lock: File,
}

/// The content of `STORE`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    federation: String,
    node: String,
    store: String,
}

impl Directory {
    /// Opens the directory of this node, or makes it when it is absent or empty.
    pub(super) fn open(path: &Path, owner: StoreOwner, fresh: StoreId) -> Result<Self, OpenError> {
        make(path).map_err(|error| unusable(path, error))?;
        // Checked before the lock file is created.
        if is_fresh(path)? {
            let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
            closed.map_err(|error| unusable(path, error))?;
        }
        let lock = lock(path)?;
        let store = match store_of(path, owner)? {
            Some(store) => store,
            None => create(path, owner, fresh)?,
        };
        let directory = Self { path: path.to_owned(), store, _lock: lock };
        for part in [directory.lane(), directory.side()] {
            make(&part).map_err(|error| unusable(&part, error))?;
        }
        secret::sync_directory(&directory.lane()).map_err(|error| unusable(path, error))?;
        Ok(directory)
    }

    /// Whether the directory may be opened or made, as far as that shows without changing anything.
    pub(super) fn check(path: &Path, owner: StoreOwner) -> Result<(), OpenError> {
        let nearest = path.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
        let here = || Path::new(".");
        let nearest = nearest.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(here);
        if !nearest.is_dir() {
            return Err(unusable(nearest, io::ErrorKind::NotADirectory.into()));
        }
        access(nearest, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| unusable(nearest, error.into()))?;
        if nearest == path && !is_fresh(path)? {
            store_of(path, owner)?;
        }
        Ok(())
    }

    pub(super) fn lane(&self) -> PathBuf {
        self.path.join("lane-0")
    }

    pub(super) fn side(&self) -> PathBuf {
        self.path.join("side")
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// Records, durably, that the store never starts again.
    pub(super) fn condemn(&self, why: &str) -> io::Result<()> {
        secret::create(&self.path.join("FENCED"), why.as_bytes(), true)
    }

    /// Whether a write was ever durable here.
    pub(super) fn has_begun(&self) -> bool {
        self.path.join("BEGUN").exists()
    }

    /// Records, durably, that the log has durable writes.
    pub(super) fn begin(&self) -> io::Result<()> {
        let path = self.path.join("BEGUN");
        File::create(&path)?.sync_all()?;
        secret::sync_directory(&path)
    }
}

/// The error of an operation on a path.
pub(super) fn unusable(path: &Path, error: io::Error) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), error }
}

fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    secret::sync_directory(path)
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none())
}

/// Whether the directory is empty. One that is not must be closed to other users.
fn is_fresh(path: &Path) -> Result<bool, OpenError> {
    let is_empty = is_empty(path).map_err(|error| unusable(path, error))?;
    let mode = fs::metadata(path).map_err(|error| unusable(path, error))?.permissions().mode();
    if !is_empty && mode & 0o077 != 0 {
        return Err(OpenError::Exposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    Ok(is_empty)
}

/// The store of this owner in the directory; `None` before it has one.
fn store_of(path: &Path, owner: StoreOwner) -> Result<Option<StoreId>, OpenError> {
    let store = match describe(path)? {
        Some((found, _)) if found != owner => {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
                found: Box::new(found),
                expected: Box::new(owner),
            });
        }
        described => described.map(|(_, store)| store),
    };
    match fs::read_to_string(path.join("FENCED")) {
        Ok(why) => Err(OpenError::Condemned { path: path.to_owned(), why }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(store),
        Err(error) => Err(unusable(path, error)),
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join("LOCK");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|error| unusable(&name, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(unusable(&name, error)),
    }
}

/// The owner and id of the store; `None` when the directory holds only the files of an unfinished creation.
fn describe(path: &Path) -> Result<Option<(StoreOwner, StoreId)>, OpenError> {
    let name = path.join("STORE");
    let text = match fs::read_to_string(&name) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if holds_only_a_lock(path)? {
                Ok(None)
            } else {
                Err(OpenError::NotAStore { path: path.to_owned() })
            };
        }
        Err(error) => return Err(unusable(&name, error)),
    };
    let wrong = |why: String| OpenError::Description { path: name.clone(), why };
    let described: Description =
        toml::from_str(&text).map_err(|e| wrong(e.message().to_owned()))?;
    if described.version != VERSION {
        let found = described.version;
        return Err(wrong(format!(
            "it has version {found}, and this build reads version {VERSION}"
        )));
    }
    let parsed = || {
        let federation = FederationId::parse(&described.federation)?;
        let node = NodeId::parse(&described.node)?;
        Some((StoreOwner { federation, node }, StoreId::parse(&described.store)?))
    };
    parsed().map(Some).ok_or_else(|| wrong("it holds an invalid id".to_owned()))
}

fn holds_only_a_lock(path: &Path) -> Result<bool, OpenError> {
    let ours = ["LOCK", "STORE.new"];
    for entry in fs::read_dir(path).map_err(|error| unusable(path, error))? {
        let name = entry.map_err(|error| unusable(path, error))?.file_name();
        if !ours.iter().any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn create(path: &Path, owner: StoreOwner, fresh: StoreId) -> Result<StoreId, OpenError> {
    let description = Description {
        version: VERSION,
        federation: owner.federation.to_string(),
        node: owner.node.to_string(),
        store: fresh.to_string(),
    };
    let name = path.join("STORE");
    let text = toml::to_string(&description).unwrap_or_default();
    secret::create(&name, text.as_bytes(), true).map_err(|error| unusable(&name, error))?;
    Ok(fresh)
}
