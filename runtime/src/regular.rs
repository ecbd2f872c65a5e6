//! Regular files: opened without waiting, and read up to a bound.
//!
//! A path that an operator wrote may name anything. A named pipe without a writer would hold up the process that opens
//! it, and a device may have no end. So every file that a setting names, and every file of a store, is opened here.
//! Input that a person pipes in on purpose is not.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file, with further flags of open(2). Never waits.
///
/// # Errors
///
/// The operating system's; also for anything that is no regular file.
pub(crate) fn open(path: &Path, options: &OpenOptions, flags: OFlags) -> io::Result<File> {
    // Opening some devices does something already. A path that cannot be looked at is judged when it is opened.
    if let Ok(found) = fs::metadata(path) {
        regular(found.file_type())?;
    }
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options.clone().custom_flags(flags.bits().cast_signed()).open(path)?;
    // The name may stand for something else since.
    regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
///
/// As [`open`]; also for a longer file.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    all_of(open(path, OpenOptions::new().read(true), OFlags::empty())?, max)
}

/// Reads a regular file of at most `max` bytes as text.
///
/// # Errors
///
/// As [`read`]; also for bytes that are not UTF-8.
pub(crate) fn read_text(path: &Path, max: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, max)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))
}

/// Reads the rest of an open file, if that is at most `max` bytes.
///
/// # Errors
///
/// The operating system's; also for a longer file.
pub(crate) fn all_of(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let why = format!("it has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Refuses all but a regular file.
fn regular(found: FileType) -> io::Result<()> {
    let what = match found {
        file if file.is_file() => return Ok(()),
        file if file.is_dir() => "a directory",
        file if file.is_fifo() => "a named pipe",
        file if file.is_socket() => "a socket",
        _ => "a device",
    };
    let why = format!("it is {what} and no regular file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        let cases = [
            (pipe.as_path(), "a named pipe"),
            (&link, "a named pipe"),
            (&socket, "a socket"),
            (folder.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ];
        for (path, what) in cases {
            let why = format!("it is {what} and no regular file");
            assert_eq!(read(path, 9).unwrap_err().to_string(), why, "{path:?}");
            let writing = open(path, OpenOptions::new().write(true), OFlags::empty());
            assert_eq!(writing.unwrap_err().to_string(), why, "{path:?}");
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"123").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"123");
        assert_eq!(read_text(&path, 3).unwrap(), "123");
        assert_eq!(read(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            read(&folder.path().join("none"), 3).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
