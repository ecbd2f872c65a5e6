//! Damaged logs: torn ends, which power cuts leave, and damage before the end.
//!
//! A log is a sequence of 4 KiB blocks. The prefix of a block gives its kind. A batch begins with a head block, and an
//! idle log ends with a seal, which is a batch without records.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use continuum_core::limits::BLOCK_BYTES;
use continuum_tests::process::{Dev, get, metric, wait_until};

use super::witness::{ended, ended_with, lines, still_serves, write_key};

const LOCAL: i32 = 8;
/// Bytes of a block's prefix.
const PREFIX_BYTES: usize = 48;
/// The offset in a head block of the number of records in its batch.
const RECORDS_AT: usize = PREFIX_BYTES + 32 + 32 + 8 + 4;
/// The kind of a head block: the seventh byte of its prefix.
const HEAD: u8 = 1;

/// The segments of node `number`, oldest first.
fn segments(dev: &Dev, number: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(dev.data(number).join("lane-0")).expect("a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
    found.sort();
    found
}

/// The offset in bytes and the number of records of each batch in a segment.
fn batches(segment: &PathBuf) -> Vec<(usize, u32)> {
    let bytes = fs::read(segment).expect("a readable segment");
    let heads = bytes
        .chunks(BLOCK_BYTES)
        .enumerate()
        .filter(|(_, block)| block.starts_with(b"CWAL") && block[6] == HEAD);
    let records = |block: &[u8]| {
        let number = block[RECORDS_AT..].first_chunk().expect("a whole block");
        u32::from_le_bytes(*number)
    };
    heads.map(|(at, block)| (at * BLOCK_BYTES, records(block))).collect()
}

/// The newest segment and its last batch.
fn end(dev: &Dev, number: usize) -> (PathBuf, (usize, u32)) {
    let newest = segments(dev, number).pop().expect("a segment");
    let last = *batches(&newest).last().expect("a batch");
    (newest, last)
}

/// Waits until the log is idle, then kills the node.
fn cut_power(dev: &Dev, number: usize) {
    wait_until("the idle log is sealed", || end(dev, number).1.1 == 0);
    dev.kill(number);
}

fn overwrite(path: &PathBuf, at: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("a writable segment");
    file.write_all_at(bytes, at as u64).expect("written");
}

/// Tears the next batch: some of its sectors are on disk, but not the first.
fn tear_next(dev: &Dev, number: usize) {
    let (segment, (seal, _)) = end(dev, number);
    overwrite(&segment, seal + BLOCK_BYTES + 512, &[0xab; 1024]);
}

/// Tears the last batch, a seal: its prefix is on disk, but not its body.
fn tear_last(dev: &Dev, number: usize) {
    let (segment, (seal, _)) = end(dev, number);
    overwrite(&segment, seal + PREFIX_BYTES, &[0; 512 - PREFIX_BYTES]);
}

#[test]
fn torn_logs_are_cut_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    write_key(&dev);
    dev.ok(1, &["ns", "create", "notes", "--consistency", "eventual"]);
    dev.ok(2, &["kv", "put", "notes", "sea", "deep"]);
    wait_until("all have the note", || {
        (1..=3).all(|number| dev.run(number, &["kv", "get", "notes", "sea"]).stdout == b"deep\n")
    });

    // Node 3 misses the next writes. Then all nodes fail, and every log has a torn end of one kind or the other.
    cut_power(&dev, 3);
    dev.ok(1, &["kv", "put", "facts", "rain", "wet"]);
    dev.ok(1, &["kv", "put", "notes", "wind", "cold"]);
    wait_until("another has it", || {
        dev.run(2, &["kv", "get", "notes", "wind"]).stdout == b"cold\n"
    });
    cut_power(&dev, 1);
    cut_power(&dev, 2);
    tear_next(&dev, 1);
    tear_last(&dev, 2);
    tear_last(&dev, 3);

    (1..=3).for_each(|number| dev.start_again(number));
    (1..=3).for_each(|number| dev.wait_ready(number));
    for number in 1..=3 {
        let logged =
            lines(&dev, number, &["cut the unfinished end of the log", "segment ", "at byte "]);
        assert_eq!(logged, 1, "node {number} logs the cut once");
        assert!(
            metric(dev.api(number), "continuum_wal_torn_total ") > 0.5,
            "node {number} counts the cut"
        );
        still_serves(&dev, number);
        assert_eq!(dev.ok(number, &["kv", "get", "facts", "rain"]), "wet\n");
        wait_until("the peers send the missed writes", || {
            let has = |key: &str, value: &[u8]| {
                dev.run(number, &["kv", "get", "notes", key]).stdout == value
            };
            has("sea", b"deep\n") && has("wind", b"cold\n")
        });
    }
}

#[test]
fn a_node_with_a_flipped_byte_before_the_end_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    write_key(&dev);
    cut_power(&dev, 2);
    let segment = segments(&dev, 2).remove(0);
    let whole = fs::read(&segment).expect("a readable segment");
    let (at, _) = *batches(&segment).iter().find(|(_, records)| *records > 0).expect("a batch");
    let offset = at + PREFIX_BYTES + 100;
    overwrite(&segment, offset, &[whole[offset] ^ 1]);
    let damaged = fs::read(&segment).expect("a readable segment");

    let number =
        u64::from_str_radix(segment.file_stem().and_then(|s| s.to_str()).expect("a name"), 16);
    let named = format!("log segment {} is damaged at byte {at}", number.expect("a number"));
    let parts = [named.as_str(), "before its end", "the store is void", "move it away"];
    ended_with(&ended(&mut dev.restart_command(2)), LOCAL, &parts);
    assert_eq!(
        fs::read(&segment).expect("a readable segment"),
        damaged,
        "the node changes nothing"
    );

    // The other nodes keep serving, and count and log that one is gone.
    for number in [1, 3] {
        still_serves(&dev, number);
        let gone = ["suspect", "unhealthy"];
        wait_until("the others count it as gone", || {
            let count =
                |state| metric(dev.api(number), &format!("continuum_members{{state=\"{state}\""));
            gone.into_iter().map(count).sum::<f64>() > 0.5
        });
        let id = dev.ready["nodes"][1]["id"].as_str().expect("an id");
        assert!(lines(&dev, number, &[id, "now "]) > 0, "node {number} logs it");
    }
    assert!(get(dev.api(2), "/livez").is_none());

    // With the right byte the node starts again.
    overwrite(&segment, offset, &[whole[offset]]);
    dev.restart(2);
    still_serves(&dev, 2);
}
