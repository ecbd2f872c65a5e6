//! A copy of a running node's data directory, started beside the node: two processes with one identity.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use continuum_tests::process::{Dev, Guard, free_ports, get, metric, wait_until};

use super::witness::{lines, still_serves, write_key};

const CONFLICT: i32 = 6;

/// Copies a directory with its content. A file that its owner removes meanwhile is left out.
fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).expect("made");
    for entry in fs::read_dir(from).expect("readable").map(|entry| entry.expect("an entry")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else if let Err(error) = fs::copy(&from, &to) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// The settings of a node, with another data directory and other ports.
fn clone_of(dev: &Dev, number: usize, data: &Path) -> Command {
    let ports = free_ports(2);
    let mut command = dev.restart_command(number);
    command.arg("--data").arg(data);
    command.args(["--set", &format!("peer.listen=127.0.0.1:{ports}")]);
    command.args(["--set", &format!("api.listen=127.0.0.1:{}", ports + 1)]);
    command.stderr(Stdio::piped());
    command
}

#[test]
fn a_clone_of_a_running_node_stops_and_the_federation_stays_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    write_key(&dev);
    dev.ok(3, &["kv", "put", "facts", "sea", "blue"]);
    let copied = folder.path().join("copied");
    copy(&dev.data(3), &copied);

    let mut refused_again = String::new();
    for _ in 0..2 {
        let mut clone = Guard::start(&mut clone_of(&dev, 3, &copied));
        wait_until("the clone ends by itself", || clone.0.try_wait().expect("a child").is_some());
        let code = clone.wait().code();
        let mut stderr = String::new();
        clone.0.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
        assert_eq!(code, Some(CONFLICT), "{stderr}");
        for part in ["error[fenced]", "runs on a copy of it", "\n  hint: move the directory away"] {
            assert!(stderr.contains(part), "{part:?} in {stderr}");
        }
        refused_again = stderr;
    }
    assert!(!refused_again.contains("started: node"), "the second start ends at once");

    // The other nodes counted the refusals and logged the refused node. The original keeps running and nothing is lost.
    let id = dev.ready["nodes"][2]["id"].as_str().expect("an id").to_owned();
    let series = "continuum_rejected_total{reason=\"boot\"";
    let refused = |number| {
        let logged = lines(&dev, number, &["refused node", &id, "Cloned"]);
        let counted = metric(dev.api(number), series);
        assert_eq!(counted > 0.5, logged > 0, "node {number} logs what it counts");
        logged
    };
    assert!(refused(1) + refused(2) > 0, "a node refused the clone");
    for number in 1..=3 {
        wait_until("all are ready", || {
            get(dev.api(number), "/readyz?strong").is_some_and(|answer| answer.status == 200)
        });
        still_serves(&dev, number);
        assert_eq!(dev.ok(number, &["kv", "get", "facts", "sea"]), "blue\n");
    }
    assert!(dev.process.0.try_wait().expect("a child").is_none());

    // The identity can start again from its own data directory.
    dev.kill(3);
    dev.restart(3);
    still_serves(&dev, 3);
}
