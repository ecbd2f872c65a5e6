//! Files that appear complete or not at all, and private keys that only their owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::regular;

/// Why a key file was refused.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}; hint: give the key that `continuum pki issue` wrote")]
    Read {
        /// The file.
        path: PathBuf,
        /// From the operating system.
        error: io::Error,
    },
    /// It is a symbolic link.
    #[error("{path} is a symbolic link; hint: give the path of the key itself")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Another user owns it.
    #[error("{path} is a file of user {owner}; hint: chown it to the user of this process")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// Other users may read it.
    #[error("{path} is open to others (mode {mode:04o}); hint: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// No key is longer, and a wrong file may be.
const KEY_BYTES_MAX: u64 = 1 << 20;

/// Writes a file that appears complete or not at all, readable by its owner alone when `private`. The directory is
/// synced too, so that the name is as durable as the bytes. No symbolic link is followed.
///
/// # Errors
///
/// The operating system's. An existing file of that name is left alone, and is an error.
pub fn create(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    let temporary = sibling(path);
    let written = write_new(&temporary, bytes, if private { 0o600 } else { 0o644 });
    // A hard link fails if the name exists; a rename would silently replace another's key.
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
    linked?;
    removed?;
    sync_directory(path)
}

/// Makes a file that nobody else has open, in a place where there was none.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Exclusive creation follows no link and takes no file that another process made before.
    options
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let mut file = options.open(path)?;
    // The umask narrows the mode given at creation.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads a private key. Refuses a symbolic link, a file that other users may read, and one of another owner: it could
/// change between two looks.
///
/// # Errors
///
/// [`SecretError`].
pub fn read(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |error| SecretError::Read { path: path.to_owned(), error };
    let opened = regular::open(path, OpenOptions::new().read(true), OFlags::NOFOLLOW);
    let file = opened.map_err(|error| match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => SecretError::Link { path: path.to_owned() },
        _ => failed(error),
    })?;
    let found = file.metadata().map_err(failed)?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    if !may_own(found.uid(), rustix::process::geteuid().as_raw()) {
        return Err(SecretError::Foreign { path: path.to_owned(), owner: found.uid() });
    }
    regular::all_of(file, KEY_BYTES_MAX).map_err(failed)
}

/// Whether a process of user `me` trusts a file of this owner.
const fn may_own(owner: u32, me: u32) -> bool {
    owner == me || owner == 0
}

/// A name beside `path` that nobody can foresee.
fn sibling(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let random = u128::from_be_bytes(crate::entropy::identity());
    name.push(format!(".{random:032x}.new"));
    path.with_file_name(name)
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_readable_by_its_owner_alone_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        create(&path, b"one", true).unwrap();
        assert_eq!(read(&path).unwrap(), b"one");
        assert_eq!(create(&path, b"two", true).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        create(&path, b"one", true).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn no_link_is_followed_when_a_key_is_written_or_read() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("victim"), "mine").unwrap();
        // A name that could be foreseen, and the name itself.
        symlink(at("victim"), at("a.key.new")).unwrap();
        create(&at("a.key"), b"one", true).unwrap();
        symlink(at("victim"), at("b.key")).unwrap();
        assert_eq!(
            create(&at("b.key"), b"two", true).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        symlink(at("nowhere"), at("c.key")).unwrap();
        assert!(create(&at("c.key"), b"two", true).is_err());
        assert_eq!(fs::read(at("victim")).unwrap(), b"mine");
        assert!(!at("nowhere").exists());
        assert_eq!(fs::symlink_metadata(at("a.key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::symlink_metadata(at("a.key")).unwrap().is_symlink());
        symlink(at("a.key"), at("d.key")).unwrap();
        assert!(matches!(read(&at("d.key")), Err(SecretError::Link { .. })));
        assert!(matches!(read(dir.path()), Err(SecretError::Read { .. })));
    }

    #[test]
    fn a_file_of_another_user_is_no_key() {
        assert!(may_own(7, 7) && may_own(0, 7));
        assert!(!may_own(8, 7) && !may_own(7, 0));
    }
}
