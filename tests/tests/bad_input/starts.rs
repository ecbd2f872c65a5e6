//! Nodes that must not start: a busy port, wrong certificates, a data directory of another node.
//!
//! Each prints the reason and ends with its exit code, and a node that runs beside it is not affected. A directory
//! below `/sys` stands for a read-only disk, because `/sys` refuses writes even of the superuser.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use continuum_core::id::NodeId;
use continuum_runtime::tls::pki::{Authority, Issued};
use continuum_tests::process::{Dev, free_ports};

use super::witness::{ended, ended_with, still_serves, validity, write_key};

const TLS_REFUSED: i32 = 5;
const LOCAL: i32 = 8;
const MISMATCH: i32 = 9;

/// A second process with the settings of node 1, overridden by these.
fn beside(dev: &Dev, settings: &[(&str, &str)]) -> Command {
    let mut command = dev.restart_command(1);
    let ports = free_ports(2);
    let peer = format!("peer.listen=127.0.0.1:{ports}");
    let api = format!("api.listen=127.0.0.1:{}", ports + 1);
    command.args(["--set", &peer, "--set", &api]);
    for (key, value) in settings {
        command.args(["--set", &format!("{key}={value}")]);
    }
    command
}

/// Checks that the second process ends with this code and these words, and that node 1 is unaffected.
fn refused(dev: &Dev, settings: &[(&str, &str)], code: i32, parts: &[&str]) {
    ended_with(&ended(&mut beside(dev, settings)), code, parts);
    still_serves(dev, 1);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A new directory with these permissions.
fn directory(parent: &Path, name: &str, mode: u32) -> PathBuf {
    let path = parent.join(name);
    fs::create_dir(&path).expect("made");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its owner");
    path
}

#[test]
fn a_busy_port_is_named_and_no_store_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(1, &folder.path().join("dev"));
    write_key(&dev);
    let data = folder.path().join("unused");
    let api = dev.api(1).trim_start_matches("http://").to_owned();
    let peer = dev.ready["nodes"][0]["peer"].as_str().expect("an address").to_owned();
    let busy = |key: &str, at: &str, users: &str| {
        let what = format!("cannot listen for {users} on {at}");
        let parts = [what.as_str(), "in use", "stop the process that uses it", key];
        refused(&dev, &[("data", text(&data)), (key, at)], LOCAL, &parts);
        assert!(!data.exists(), "a busy port is reported before the store is created");
    };
    busy("api.listen", &api, "clients");
    busy("peer.listen", &peer, "peers");
}

#[test]
fn a_node_with_a_wrong_certificate_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("dev");
    let dev = Dev::start(1, &root);
    write_key(&dev);
    let ours = Authority::load(&root.join("pki")).expect("the federation's authority");
    let theirs = Authority::mint(validity()).expect("another authority");
    let node = NodeId([9; 16]);
    let files = folder.path().join("files");
    let save = |issued: Issued, name: &str| issued.save(&files, name).expect("saved");
    let good = save(ours.issue_node(node, &[], validity()).expect("issued"), "good");
    let other = save(theirs.issue_node(node, &[], validity()).expect("issued"), "other");
    let client = save(ours.issue_client("ann", validity()).expect("issued"), "client");
    let data = folder.path().join("unused");
    let with = |certificate: &Path, key: &Path, parts: &[&str]| {
        let files = [("peer.cert", text(certificate)), ("peer.key", text(key))];
        refused(&dev, &[files[0], files[1], ("data", text(&data))], TLS_REFUSED, parts);
    };

    with(
        &other.0,
        &other.1,
        &["it is of federation ", "the authority of federation ", "pki issue"],
    );
    with(&client.0, &client.1, &["client/ann", "a node needs one for a node"]);
    with(&good.0, &other.1, &["the key that was issued with the certificate"]);
    assert!(!data.join("STORE").exists(), "no store is created");
    let missing = files.join("missing.pem");
    let absent = [("peer.cert", text(&missing)), ("data", text(&data))];
    refused(&dev, &absent, LOCAL, &["cannot read", "missing.pem", "pki issue"]);
    fs::set_permissions(&good.1, fs::Permissions::from_mode(0o644)).expect("its owner");
    let (code, stderr) = ended(&mut beside(&dev, &[("peer.key", text(&good.1))]));
    assert!(code.is_some_and(|code| code == TLS_REFUSED || code == LOCAL), "{stderr}");
    assert!(stderr.contains("chmod 600"), "an exposed key: {stderr}");
}

#[test]
fn a_directory_that_is_not_the_nodes_own_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("dev");
    let mut dev = Dev::start(1, &root);
    write_key(&dev);
    let at = |path: &Path, code: i32, parts: &[&str]| {
        refused(&dev, &[("data", text(path))], code, parts);
    };

    at(Path::new("/sys/continuum"), LOCAL, &["cannot use /sys/continuum", "a writable disk"]);
    let file = folder.path().join("file");
    fs::write(&file, "not a directory").expect("written");
    at(&file.join("data"), LOCAL, &["cannot use", "ot a directory", "another data directory"]);
    let thesis = directory(folder.path(), "thesis", 0o700);
    fs::write(thesis.join("thesis.txt"), "mine").expect("written");
    at(&thesis, LOCAL, &["not a store of this program", "an empty directory"]);
    assert_eq!(fs::read_to_string(thesis.join("thesis.txt")).expect("left alone"), "mine");
    let open = directory(folder.path(), "open", 0o755);
    fs::write(open.join("STORE"), "").expect("written");
    at(&open, LOCAL, &["is open to others (mode 0755)", "chmod 700"]);
    at(&dev.data(1), LOCAL, &["in use by another process", "stop that process"]);

    // Node 9 of the same federation, then a node of another federation, start on the store of node 1.
    let ours = Authority::load(&root.join("pki")).expect("the federation's authority");
    let theirs = Authority::mint(validity()).expect("another authority");
    dev.kill(1);
    for (name, authority) in [("ours", ours), ("theirs", theirs)] {
        let files = folder.path().join(name);
        let issued = authority.issue_node(NodeId([9; 16]), &[], validity()).expect("issued");
        let (certificate, key) = issued.save(&files, "node").expect("saved");
        fs::write(files.join("ca.pem"), authority.certificate()).expect("written");
        let ca = files.join("ca.pem");
        let of =
            [("peer.ca", text(&ca)), ("peer.cert", text(&certificate)), ("peer.key", text(&key))];
        let id = dev.ready["nodes"][0]["id"].as_str().expect("an id").to_owned();
        let found = format!("belongs to node {id} of federation ");
        let parts = [found.as_str(), "this is node 09090909", "own data directory"];
        ended_with(&ended(&mut beside(&dev, &of)), MISMATCH, &parts);
    }
    dev.restart(1);
    still_serves(&dev, 1);
}
