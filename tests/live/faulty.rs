//! Disks that misbehave under real processes: a library that is preloaded into a node, and small file systems in
//! memory.
//!
//! `shim.c` is compiled at the start of a row with the C compiler that the build needs as well. It stands before the
//! writes and syncs of the C library, for files below the data directory of its node alone. A file system that fills up
//! is mounted, since the node reserves space by calls that no library sees: that needs the right to mount.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::federation::Node;
use crate::row::{Bench, Check, holds};

const SOURCE: &str = include_str!("shim.c");
/// The size of the control page, and where in it the number of calls is that met a fault.
const PAGE: u64 = 4096;
const HITS_AT: u64 = 8;

/// The fault of a kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The call does not return until the fault is another.
    Hangs,
    /// It fails with an input-output error.
    Fails,
}

/// The disk of one node, on command.
#[derive(Debug)]
pub(crate) struct Disk {
    control: File,
    trace: PathBuf,
}

/// A write at an offset or a sync, as the node called it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) is_sync: bool,
    pub(crate) at: u64,
    pub(crate) has_failed: bool,
    pub(crate) path: String,
}

/// Compiles the library. A machine without a C compiler cannot run the row.
fn library(bench: &Bench) -> Check<PathBuf> {
    let folder = bench.folder();
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
    let Ok(output) = compiler.arg("-ldl").stdin(Stdio::null()).output() else {
        return bench.skip("there is no C compiler `cc`");
    };
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    holds(output.status.success(), || format!("the library does not compile: {told}"))?;
    Ok(library)
}

impl Disk {
    /// Puts a disk on command under a node that does not run yet.
    pub(crate) fn of(bench: &Bench, node: &mut Node) -> Check<Self> {
        let library = library(bench)?;
        let folder = bench.folder();
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let (page, trace) = (folder.join("control"), folder.join("trace"));
        let options = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&page);
        let control = options.map_err(|error| error.to_string())?;
        control.set_len(PAGE).map_err(|error| error.to_string())?;
        let shown = |path: &Path| path.display().to_string();
        node.variables = vec![
            ("LD_PRELOAD".into(), shown(&library)),
            ("DISK_FAULTS_CONTROL".into(), shown(&page)),
            ("DISK_FAULTS_BELOW".into(), shown(&node.data)),
            ("DISK_FAULTS_TRACE".into(), shown(&trace)),
        ];
        Ok(Self { control, trace })
    }

    fn set(&self, at: u64, fault: Fault) {
        let byte = match fault {
            Fault::None => 0,
            Fault::Hangs => b'h',
            Fault::Fails => b'e',
        };
        self.control.write_all_at(&[byte], at).expect("a writable control page");
    }

    /// Sets the fault of syncs.
    pub(crate) fn syncs(&self, fault: Fault) {
        self.set(0, fault);
    }

    /// Sets the fault of writes.
    pub(crate) fn writes(&self, fault: Fault) {
        self.set(1, fault);
    }

    /// The calls that met a fault so far.
    pub(crate) fn hits(&self) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, HITS_AT).expect("a readable control page");
        u64::from_ne_bytes(bytes)
    }

    /// All calls so far, in order.
    pub(crate) fn called(&self) -> Vec<Called> {
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }
}

fn parse(line: &str) -> Option<Called> {
    let mut words = line.splitn(4, ' ');
    Some(Called {
        is_sync: words.next()? == "sync",
        at: words.next()?.parse().ok()?,
        has_failed: words.next()? == "failed",
        path: words.next()?.into(),
    })
}

/// A file system in memory, of a fixed size. Its end unmounts it.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) path: PathBuf,
}

impl Small {
    /// Mounts it, or skips the row.
    pub(crate) fn mount(bench: &Bench, mebibytes: u32) -> Check<Self> {
        let path = bench.folder();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|e| e.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "tmpfs"]);
        let mounted = mount.arg(&path).stdin(Stdio::null()).output();
        let told = match &mounted {
            Ok(output) if output.status.success() => return Ok(Self { path }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        bench.skip(format!("a file system in memory cannot be mounted: {told}"))
    }

    /// A file of another program that takes all the room that is left.
    pub(crate) fn fill(&self) -> Check {
        let file = File::create(self.filler()).map_err(|error| error.to_string())?;
        let piece = vec![7; 1 << 20];
        let (mut at, mut size) = (0, piece.len());
        // Smaller and smaller pieces, down to one page.
        while size >= PAGE as usize {
            match file.write_at(&piece[..size], at) {
                Ok(written) if written > 0 => at += written as u64,
                _ => size /= 2,
            }
        }
        Ok(())
    }

    /// Removes that file.
    pub(crate) fn free(&self) -> Check {
        fs::remove_file(self.filler()).map_err(|error| error.to_string())
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A lazy end: the node that used it may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.path).stdin(Stdio::null()).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_from_its_line() {
        let called = parse("write 8192 done /a/lane-0/0 1.log").unwrap();
        assert_eq!((called.is_sync, called.at, called.has_failed), (false, 8192, false));
        assert_eq!(called.path, "/a/lane-0/0 1.log");
        let called = parse("sync 0 failed /a").unwrap();
        assert!(called.is_sync && called.has_failed);
        assert_eq!(parse("sync"), None);
    }
}
