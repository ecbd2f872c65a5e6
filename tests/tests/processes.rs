//! A federation of real processes, started, used and broken as a user would do it.

use std::fs;
use std::path::Path;

use continuum_tests::process::{Dev, binary, get, run, signal, wait_until};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

/// A WordNet excerpt in the format of wndb(5WN): two nouns, a verb, an adjective cluster and an adverb.
fn wordnet(folder: &Path, synsets: usize) {
    let licence = "  1 An excerpt in the format of WordNet's data files, made for a test.  \n";
    let noun = |at: usize| {
        format!(
            "{at:08} 03 n 02 word_{at} 0 term_{at} 0 001 @ {:08} n 0000 | gloss {at}; \"a use\"  \n",
            at / 2
        )
    };
    let nouns: String = (1..=synsets).map(noun).collect();
    fs::create_dir_all(folder).expect("a folder");
    let write = |name: &str, lines: &str| {
        fs::write(folder.join(name), format!("{licence}{lines}")).expect("written");
    };
    write("data.noun", &nouns);
    write("data.verb", "00000001 29 v 01 breathe 0 000 01 + 02 00 | draw air  \n");
    write(
        "data.adj",
        "00000001 00 a 01 able(p) 0 001 & 00000002 a 0000 | having means  \n\
         00000002 00 s 01 capable 0 000 | able  \n",
    );
    write("data.adv", "00000001 02 r 01 ably 0 000 | with skill  \n");
}

#[test]
fn the_quick_start_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    dev.ok(1, &["ns", "create", "facts", "--consistency", "strong"]);
    dev.ok(2, &["ns", "create", "notes", "--consistency", "eventual"]);
    dev.ok(1, &["kv", "put", "facts", "sky", "blue"]);
    assert_eq!(dev.ok(2, &["kv", "get", "facts", "sky"]), "blue\n");

    // The eventual write is local to node 3. Node 1 has it once a push or anti-entropy brought it.
    dev.ok(3, &["kv", "put", "notes", "sea", "green"]);
    dev.ok(3, &["set", "add", "notes", "tags", "wet"]);
    dev.ok(3, &["counter", "add", "notes", "visits", "5"]);
    wait_until("the note reaches node 1", || {
        dev.run(1, &["kv", "get", "notes", "sea"]).stdout == b"green\n"
    });

    dev.kill(3);
    dev.ok(1, &["kv", "put", "facts", "grass", "green"]);
    assert_eq!(dev.ok(2, &["kv", "get", "facts", "sky"]), "blue\n");
    assert_eq!(dev.ok(2, &["kv", "get", "notes", "sea"]), "green\n");
    wait_until("status tells that node 3 is gone", || {
        let members = json(&dev.ok(1, &["-o", "json", "cluster", "members"]));
        let text = members.to_string();
        text.contains("suspect") || text.contains("unhealthy")
    });

    dev.restart(3);
    assert_eq!(dev.ok(3, &["kv", "get", "facts", "grass"]), "green\n");
    assert_eq!(dev.ok(3, &["set", "members", "notes", "tags"]), "wet\n");
    assert_eq!(dev.ok(3, &["counter", "get", "notes", "visits"]), "5\n");
}

#[test]
fn an_import_survives_a_kill_of_another_node_midway() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("wordnet");
    wordnet(&source, 3000);
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    dev.ok(1, &["ns", "create", "wordnet", "--consistency", "eventual"]);

    let source = source.to_str().expect("a plain path");
    let arguments =
        ["--node", dev.api(1), "import", "--format", "wordnet", "--ns", "wordnet", source];
    let mut import =
        std::process::Command::new(binary()).args(arguments).spawn().expect("it starts");
    wait_until("the import is under way", || {
        dev.run(2, &["kv", "list", "wordnet", "--limit", "1"]).stdout.len() > 1
    });
    dev.kill(2);
    dev.restart(2);
    assert!(import.wait().expect("an end").success());

    let export = |node| dev.ok(node, &["export", "--ns", "wordnet"]);
    let first = export(1);
    assert_eq!(first.lines().count(), 3004);
    wait_until("all three exports are equal", || export(2) == first && export(3) == first);
}

#[test]
fn a_stopped_federation_resumes_with_its_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("dev");
    let mut dev = Dev::start(3, &data);
    dev.ok(1, &["ns", "create", "facts", "--consistency", "strong"]);
    dev.ok(1, &["kv", "put", "facts", "sky", "blue"]);
    signal(dev.process.0.id().into(), "INT");
    assert!(dev.process.wait().success(), "an interrupted `dev` exits with success");
    let nodes: Vec<String> = (1..=3).map(|node| dev.api(node).to_owned()).collect();
    assert!(nodes.iter().all(|api| get(api, "/livez").is_none()), "its children have ended");
    drop(dev);

    let dev = Dev::start(3, &data);
    assert_eq!(dev.ok(2, &["kv", "get", "facts", "sky"]), "blue\n");
}

#[test]
fn children_end_with_their_parent() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    signal(dev.process.0.id().into(), "KILL");
    dev.process.wait();
    wait_until("no child answers", || (1..=3).all(|node| get(dev.api(node), "/livez").is_none()));
}

#[test]
fn the_shipped_binary_carries_no_planted_bug() {
    let bytes = fs::read(binary()).expect("a readable binary");
    // A name is within a run of the characters of names. Only these runs are searched: the binary is large.
    let is_name = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.');
    let runs = bytes.split(|byte| !is_name(byte)).filter(|run| run.len() >= 8);
    let runs: Vec<&str> = runs.map(|run| str::from_utf8(run).expect("ASCII")).collect();
    let holds = |name: &str| {
        assert!(name.len() >= 8 && name.as_bytes().iter().all(is_name), "{name} is no name");
        runs.iter().any(|run| run.contains(name))
    };
    for (name, _) in continuum_core::mark::instrument::MUTANTS {
        assert!(!holds(name), "the shipped binary names the mutant {name}");
    }
    // The search itself works: it finds a name that must be there.
    assert!(holds("wal_fsync"));
}

#[test]
fn absent_keys_and_wrong_usage_have_their_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(1, &folder.path().join("dev"));
    dev.ok(1, &["ns", "create", "facts", "--consistency", "strong"]);
    let absent = dev.run(1, &["kv", "get", "facts", "nothing"]);
    assert_eq!((absent.status.code(), absent.stdout.len()), (Some(1), 0));
    assert_eq!(dev.run(1, &["kv", "get", "unheard", "of"]).status.code(), Some(1));
    assert_eq!(run(&["kv", "get"]).status.code(), Some(2));
    assert_eq!(run(&["--node", "http://127.0.0.1:1", "cluster", "status"]).status.code(), Some(3));
    dev.ok(1, &["kv", "put", "facts", "sky", "blue"]);
    let conflict = dev.run(1, &["kv", "cas", "facts", "sky", "green", "--expect", "red"]);
    assert_eq!(conflict.status.code(), Some(6));
}
