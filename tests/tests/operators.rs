//! An operator's day with real processes: settings, readiness, metrics and `dev`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use continuum_tests::process::{binary, run};

/// Runs the binary in a directory, with variables.
fn run_in(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).envs(variables.iter().copied());
    command.current_dir(folder).stdin(Stdio::null()).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The annotated file of a node and its certificates, as a new operator makes them.
fn node(folder: &Path) {
    let steps: [&[&str]; 2] =
        [&["pki", "init", "--out", "pki"], &["pki", "issue", "--ca", "pki", "--out", "pki/n1"]];
    for step in steps {
        let made = run_in(folder, step, &[]);
        assert!(made.status.success(), "{step:?}: {}", text(&made.stderr));
    }
    let file = run_in(folder, &["config", "init"], &[]);
    assert!(file.status.success(), "{}", text(&file.stderr));
    fs::write(folder.join("n1.toml"), file.stdout).expect("written");
}

#[test]
fn config_check_refuses_what_node_start_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    node(folder);
    let check = ["config", "check", "--config", "n1.toml"];
    let start = ["node", "start", "--config", "n1.toml"];
    let sound = run_in(folder, &check, &[]);
    assert!(sound.status.success(), "{}", text(&sound.stderr));
    assert!(!folder.join("data").exists(), "a check changes nothing");

    let other = run_in(folder, &["pki", "init", "--out", "other"], &[]);
    assert!(other.status.success());
    let client = ["pki", "issue", "--ca", "pki", "--out", "pki/ann", "--client", "ann"];
    assert!(run_in(folder, &client, &[]).status.success());
    fs::copy(folder.join("pki/n1/node.key"), folder.join("open.key")).expect("copied");
    fs::set_permissions(folder.join("open.key"), fs::Permissions::from_mode(0o644)).expect("set");
    fs::write(folder.join("empty.pem"), "").expect("written");
    fs::create_dir(folder.join("full")).expect("made");
    fs::write(folder.join("full/thesis.txt"), "mine").expect("written");
    fs::set_permissions(folder.join("full"), fs::Permissions::from_mode(0o700)).expect("set");

    let sets: &[(&[&str], i32)] = &[
        (&["log.filter=a=b=c=[[["], 2),
        (&["peer.listen=nowhere"], 2),
        (&["api.listen=0.0.0.0:7401"], 2),
        (&["api.listen=127.0.0.1:7400"], 2),
        (&["core.raft.heartbeat_ms=400"], 2),
        (&["peer.ca=/nonexistent"], 8),
        (&["peer.key=/nonexistent"], 8),
        (&["peer.key=open.key"], 8),
        (&["peer.ca=empty.pem"], 5),
        (&["peer.ca=other/ca.pem"], 5),
        (&["peer.cert=pki/ann/client.pem", "peer.key=pki/ann/client.key"], 5),
        (&["peer.key=pki/ann/client.key"], 5),
        (&["api.tls.ca=/a", "api.tls.cert=/b", "api.tls.key=/c"], 8),
        (&["data=n1.toml"], 8),
        (&["data=n1.toml/below"], 8),
        (&["data=full"], 8),
    ];
    for (sets, exit) in sets {
        let flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let checked = run_in(folder, &[&check[..], &flags].concat(), &[]);
        let started = run_in(folder, &[&start[..], &flags].concat(), &[]);
        assert_eq!(checked.status.code(), Some(*exit), "{sets:?}: {}", text(&checked.stderr));
        assert_eq!(started.status.code(), Some(*exit), "{sets:?}: {}", text(&started.stderr));
        assert_eq!(text(&checked.stderr), text(&started.stderr), "{sets:?}");
    }
    for name in ["CONTINUUM_LOG_FORMAT", "CONTINUUM_LOGG__FORMAT", "CONTINUUM_PEER__LISTNE"] {
        let found = [&check, &start].map(|verb| run_in(folder, verb, &[(name, "json")]));
        assert!(found.iter().all(|output| output.status.code() == Some(2)), "{name}");
        assert!(found.iter().all(|output| text(&output.stderr).contains(name)), "{name}");
    }
}

#[test]
fn all_mistakes_of_settings_and_files_are_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    node(folder.path());
    let sets = ["log.filter=[", "peer.ca=/a", "peer.cert=/b", "core.gossip.pings=0", "nothing=1"];
    let flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let check = [&["config", "check", "--config", "n1.toml"], &flags[..]].concat();
    let checked = run_in(folder.path(), &check, &[("CONTINUUM_NAMES", "n")]);
    assert_eq!(checked.status.code(), Some(2));
    let errors = text(&checked.stderr);
    for key in ["log.filter", "peer.ca", "peer.cert", "core.gossip.pings", "nothing", "_NAMES"] {
        assert!(errors.contains(key), "{key} is not in\n{errors}");
    }
    assert_eq!(run(&["config", "check"]).status.code(), Some(2));
}
