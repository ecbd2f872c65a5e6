//! The committed fuzz corpora, replayed on stable Rust, so that a bug that fuzzing found once cannot come back.

use std::fs;

use continuum_tests::{fuzzing, root};

/// Runs every file of a target's corpus through the target's function.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = root().join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("a committed corpus") {
        run(&fs::read(entry.expect("an entry").path()).expect("a readable input"));
        count += 1;
    }
    assert!(count >= 10, "the corpus of {target} has {count} inputs");
}

#[test]
fn recovery() {
    replay("recovery", fuzzing::recovery);
}

#[test]
fn frame() {
    replay("frame", fuzzing::frame);
}

#[test]
fn every_target_has_its_corpus_replayed() {
    let targets = fs::read_dir(root().join("fuzz/targets")).expect("targets");
    let names = targets.map(|entry| entry.expect("an entry").file_name().into_string());
    let mut names: Vec<String> = names.map(|name| name.expect("a plain name")).collect();
    names.sort();
    assert_eq!(names, ["frame.rs", "recovery.rs"]);
}
