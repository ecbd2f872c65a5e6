//! Transcripts of Raft as golden text: all actions of the replicas, in order. They serve as the protocol's
//! documentation. `tests/raft/script.rs` explains the format.

use std::fs;

use continuum_tests::raft::script;
use continuum_tests::{files, golden};

#[test]
fn every_transcript_is_reproduced() {
    let paths = files("tests/data/raft", "txt");
    assert!(paths.len() >= 6, "the transcripts are there");
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let script = fs::read_to_string(&path).expect("a readable transcript");
        golden(&format!("raft/{name}"), &script::run(&script));
    }
}
