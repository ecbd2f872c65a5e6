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
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::thread;

use continuum_core::id::{FederationId, NodeId, StoreId};
use rustix::fs::{Access, OFlags, access};
use serde::{Deserialize, Serialize};

use super::{OpenError, StoreOwner};
use crate::regular;
use crate::tls::secret;

/// `STORE` and `FENCED` are never longer.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// How often a lock is tried while a look at the store holds it.
const LOCK_TRIES: u32 = 10_000;

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

    pub(super) fn lane(&self) -> PathBuf {
        lane(&self.path)
    }

    pub(super) fn side(&self) -> PathBuf {
        side(&self.path)
    }

    pub(super) fn reserve(&self) -> PathBuf {
        reserve(&self.path)
    }

    /// Records, durably, that the store never starts again.
    pub(super) fn condemn(&self, why: &str) -> io::Result<()> {
        secret::create(&self.path.join("FENCED"), why.as_bytes(), true)
    }

    /// Whether a write was ever durable here.
    pub(super) fn has_begun(&self) -> bool {
        has_begun(&self.path)
    }

    /// Records, durably, that the log has durable writes.
    pub(super) fn begin(&self) -> io::Result<()> {
        let path = self.path.join("BEGUN");
        File::create(&path)?.sync_all()?;
        secret::sync_directory(&path)
    }
}

/// The store of this owner in a directory that may be opened or made, as far as that shows without changing anything.
/// `None` when there is none yet.
pub(super) fn check(path: &Path, owner: StoreOwner) -> Result<Option<StoreId>, OpenError> {
    let is_there = |path: &&Path| path.as_os_str().is_empty() || fs::symlink_metadata(path).is_ok();
    let nearest = path.ancestors().find(is_there);
    let here = || Path::new(".");
    let nearest = nearest.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(here);
    writable(nearest).map_err(|error| unusable(nearest, error))?;
    if nearest != path {
        return Ok(None);
    }
    if is_fresh(path)? {
        // An opening closes it to other users, which only its owner may do.
        let owner = fs::metadata(path).map_err(|error| unusable(path, error))?.uid();
        let me = rustix::process::geteuid();
        let may_close = me.is_root() || me.as_raw() == owner;
        let refused = || unusable(path, rustix::io::Errno::PERM.into());
        return may_close.then_some(None).ok_or_else(refused);
    }
    let lock = path.join("LOCK");
    openable(&lock).map_err(|error| unusable(&lock, error))?;
    let Some(store) = store_of(path, owner)? else { return Ok(None) };
    for part in [lane(path), side(path)] {
        // A missing one is made.
        if fs::symlink_metadata(&part).is_ok() {
            writable(&part).map_err(|error| unusable(&part, error))?;
        }
    }
    let reserve = reserve(path);
    openable(&reserve).map_err(|error| unusable(&reserve, error))?;
    Ok(Some(store))
}

/// Whether a process uses the store. This shares the lock for a moment; see [`LOCK_TRIES`].
pub(super) fn is_in_use(path: &Path) -> bool {
    let lock = regular::open(&path.join("LOCK"), OpenOptions::new().read(true), OFlags::empty());
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

pub(super) fn lane(path: &Path) -> PathBuf {
    path.join("lane-0")
}

pub(super) fn side(path: &Path) -> PathBuf {
    path.join("side")
}

fn reserve(path: &Path) -> PathBuf {
    path.join("reserve")
}

/// Whether a write was ever durable in this store.
pub(super) fn has_begun(path: &Path) -> bool {
    path.join("BEGUN").exists()
}

/// Refuses all but a directory in which files can be made.
fn writable(path: &Path) -> io::Result<()> {
    directory(path)?;
    Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Refuses all but a directory, or a link to one.
fn directory(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    fs::metadata(path).map(drop)
}

/// Refuses all but a file that can be written. A missing one can be made.
fn openable(path: &Path) -> io::Result<()> {
    let opened = regular::open(path, OpenOptions::new().write(true), OFlags::empty());
    match opened {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The error of an operation on a path.
pub(super) fn unusable(path: &Path, error: io::Error) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), error }
}

fn make(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return directory(path);
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
    match regular::read_text(&path.join("FENCED"), TEXT_BYTES_MAX) {
        Ok(why) => Err(OpenError::Condemned { path: path.to_owned(), why }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(store),
        Err(error) => Err(unusable(path, error)),
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join("LOCK");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = regular::open(&name, &options, OFlags::empty());
    let file = file.map_err(|error| unusable(&name, error))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(unusable(&name, error)),
            // One that uses the store shares it with nobody; a look gives way at once.
            Err(TryLockError::WouldBlock) if file.try_lock_shared().is_err() => break,
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    Err(OpenError::Locked { path: path.to_owned() })
}

/// The owner and id of the store; `None` when the directory holds only the files of an unfinished creation.
fn describe(path: &Path) -> Result<Option<(StoreOwner, StoreId)>, OpenError> {
    let name = path.join("STORE");
    let text = match regular::read_text(&name, TEXT_BYTES_MAX) {
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
    for entry in fs::read_dir(path).map_err(|error| unusable(path, error))? {
        let name = entry.map_err(|error| unusable(path, error))?.file_name();
        let is_unfinished = |name: &str| name.starts_with("STORE.") && name.ends_with(".new");
        if !name.to_str().is_some_and(|name| name == "LOCK" || is_unfinished(name)) {
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
