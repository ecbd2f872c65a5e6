//! Logs that are not as they were written: torn ends, which every power cut leaves, and damage before the end.
//!
//! A log is a row of blocks of 4 KiB, each with a prefix that says what it is; a batch begins with a head, and an idle
//! log ends in a seal, a batch without records.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use continuum_core::limits::BLOCK_BYTES;
use continuum_tests::process::{Dev, get, metric, wait_until};

use super::witness::{ended, keep, kept, lines, says};

const LOCAL: i32 = 8;
/// Bytes of a block's prefix.
const PREFIX_BYTES: usize = 48;
/// Where a head says how many records its batch has, from the block's beginning.
const RECORDS_AT: usize = PREFIX_BYTES + 32 + 32 + 8 + 4;
/// The kind of a block that begins a batch, which is the seventh byte of its prefix.
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

/// Where each batch of a segment begins, in bytes, and how many records it has.
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

/// The newest segment, and the last batch in it.
fn end(dev: &Dev, number: usize) -> (PathBuf, (usize, u32)) {
    let newest = segments(dev, number).pop().expect("a segment");
    let last = *batches(&newest).last().expect("a batch");
    (newest, last)
}

/// Waits until nothing is left to write, and cuts the power.
fn cut_power(dev: &Dev, number: usize) {
    wait_until("the idle log is sealed", || end(dev, number).1.1 == 0);
    dev.kill(number);
}

fn overwrite(path: &PathBuf, at: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("a writable segment");
    file.write_all_at(bytes, at as u64).expect("written");
}

/// The next batch was under way: some of its sectors came, and not the first one.
fn tear_next(dev: &Dev, number: usize) {
    let (segment, (seal, _)) = end(dev, number);
    overwrite(&segment, seal + BLOCK_BYTES + 512, &[0xab; 1024]);
}

/// The last batch, a seal, came in part: its prefix, and nothing of what it says.
fn tear_last(dev: &Dev, number: usize) {
    let (segment, (seal, _)) = end(dev, number);
    overwrite(&segment, seal + PREFIX_BYTES, &[0; 512 - PREFIX_BYTES]);
}

#[test]
fn torn_logs_are_cut_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    keep(&dev);
    dev.ok(1, &["ns", "create", "notes", "--consistency", "eventual"]);
    dev.ok(2, &["kv", "put", "notes", "sea", "deep"]);
    wait_until("all have the note", || {
        (1..=3).all(|number| dev.run(number, &["kv", "get", "notes", "sea"]).stdout == b"deep\n")
    });

    // Node 3 misses what comes now; then the power fails for all, and every log is torn in one way or another.
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
        let told =
            lines(&dev, number, &["cut the unfinished end of the log", "segment ", "at byte "]);
        assert_eq!(told, 1, "node {number} says once what it cut");
        assert!(metric(dev.api(number), "continuum_wal_torn_total ") > 0.5, "and counts it");
        kept(&dev, number);
        assert_eq!(dev.ok(number, &["kv", "get", "facts", "rain"]), "wet\n");
        wait_until("the peers bring what was missed", || {
            let has = |key: &str, value: &[u8]| {
                dev.run(number, &["kv", "get", "notes", key]).stdout == value
            };
            has("sea", b"deep\n") && has("wind", b"cold\n")
        });
    }
}

#[test]
fn a_flipped_byte_before_the_end_is_not_started_upon() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(3, &folder.path().join("dev"));
    keep(&dev);
    cut_power(&dev, 2);
    let segment = segments(&dev, 2).remove(0);
    let whole = fs::read(&segment).expect("a readable segment");
    let (at, _) = *batches(&segment).iter().find(|(_, records)| *records > 0).expect("a batch");
    let place = at + PREFIX_BYTES + 100;
    overwrite(&segment, place, &[whole[place] ^ 1]);
    let damaged = fs::read(&segment).expect("a readable segment");

    let number =
        u64::from_str_radix(segment.file_stem().and_then(|s| s.to_str()).expect("a name"), 16);
    let named = format!("log segment {} is damaged at byte {at}", number.expect("a number"));
    let parts = [named.as_str(), "before its end", "the store is void", "move it away"];
    says(&ended(&mut dev.restart_command(2)), LOCAL, &parts);
    assert_eq!(fs::read(&segment).expect("a readable segment"), damaged, "nothing is changed");

    // The others serve on, and count and tell that one is gone.
    for number in [1, 3] {
        kept(&dev, number);
        let gone = ["suspect", "unhealthy"];
        wait_until("the others count it as gone", || {
            let count = |state| {
                metric(dev.api(number), &format!("continuum_gossip_members{{state=\"{state}\""))
            };
            gone.into_iter().map(count).sum::<f64>() > 0.5
        });
        let id = dev.ready["nodes"][1]["id"].as_str().expect("an id");
        assert!(lines(&dev, number, &[id, "now "]) > 0, "node {number} tells it");
    }
    assert!(get(dev.api(2), "/livez").is_none());

    // Once the byte is right again, so is the node.
    overwrite(&segment, place, &[whole[place]]);
    dev.restart(2);
    kept(&dev, 2);
}
