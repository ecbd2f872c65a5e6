//! Processes that use the data directories of a `dev` without being its children: a user may have started a node by
//! hand. The directories end with `dev`, and a node must not go on acknowledging writes into files that are removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::Instant;

use super::layout::DevNode;
use super::{POLL_STARTING, say};

/// How long such a process may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(4);

/// Ends every process that has a data directory of these nodes open.
pub(super) async fn end_all(nodes: &[DevNode]) {
    let locks: Vec<PathBuf> = nodes.iter().map(|node| node.data.join("LOCK")).collect();
    let users = holders(Path::new("/proc"), &locks);
    for user in &users {
        say(format!("process {} uses this federation's data: ending it", user.as_raw_nonzero()));
        kill_process(*user, Signal::TERM).unwrap_or_default();
    }
    let begun = Instant::now();
    while users.iter().any(|user| test_kill_process(*user).is_ok()) && begun.elapsed() < END_WITHIN
    {
        tokio::time::sleep(POLL_STARTING).await;
    }
    // Only those that still have the file open: the number of one that ended may belong to another by now.
    for user in holders(Path::new("/proc"), &locks) {
        kill_process(user, Signal::KILL).unwrap_or_default();
    }
}

/// The processes that have one of these files open. Those of other users cannot be seen.
fn holders(proc: &Path, files: &[PathBuf]) -> Vec<Pid> {
    let mut found = Vec::new();
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut targets = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        if targets.any(|target| files.contains(&target)) {
            found.push(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_the_file_open_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("a path");
        let files = vec![folder.join("LOCK")];
        let me = rustix::process::getpid();
        assert!(!holders(Path::new("/proc"), &files).contains(&me));
        let file = fs::File::create(&files[0]).expect("created");
        assert!(holders(Path::new("/proc"), &files).contains(&me));
        drop(file);
    }
}
