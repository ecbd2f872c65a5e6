//! Import and export of real processes: an import that is killed midway and repeated, and exports under writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use continuum_tests::process::{Dev, Response, binary, exchange, get, wait_until};
use serde_json::Value;

/// An export with every kind of field: counters, siblings, a set larger than a write, bytes that are no text.
fn rows(count: usize) -> String {
    let mut lines = String::new();
    let members: Vec<String> = (0..1500).map(|at| format!("\"member {at:04}\"")).collect();
    let big = format!("{{\"field\":\"\",\"set\":[{}]}}", members.join(","));
    writeln!(lines, "{{\"key\":\"a big set\",\"fields\":[{big}]}}").expect("memory");
    for at in 0..count {
        let fields = [
            format!("{{\"field\":\"hits\",\"counter\":{}}}", at + 1),
            "{\"field\":\"names\",\"register\":[\"third\",{\"base64\":\"/wA=\"},\"first\"]}"
                .to_owned(),
            "{\"field\":\"tags\",\"set\":[\"a\",\"b\"]}".to_owned(),
        ];
        let fields = fields.join(",");
        writeln!(lines, "{{\"key\":\"k{at:06}\",\"fields\":[{fields}]}}").expect("memory");
    }
    lines
}

#[test]
fn an_import_that_is_killed_and_repeated_counts_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(1, &folder.path().join("dev"));
    dev.ok(1, &["ns", "create", "notes", "--consistency", "eventual", "--slots", "3"]);
    let (file, text) = (folder.path().join("rows.jsonl"), rows(3000));
    fs::write(&file, &text).expect("written");
    let file = file.to_str().expect("a plain path");

    let import = ["--node", dev.api(1), "import", "--ns", "notes", "--batch", "16", file];
    let mut killed = Command::new(binary()).args(import).spawn().expect("it starts");
    wait_until("the import is under way", || {
        dev.run(1, &["kv", "list", "notes", "--limit", "200"]).stdout.len() > 1000
    });
    killed.kill().expect("a running import");
    assert!(!killed.wait().expect("an end").success(), "the kill came before the end");

    dev.ok(1, &["import", "--ns", "notes", file]);
    assert!(dev.ok(1, &["export", "--ns", "notes"]) == text, "the export differs from the file");
    let again = dev.ok(1, &["import", "--ns", "notes", file, "-o", "json"]);
    assert!(again.contains("\"changed\":0,"), "{again}");
    assert!(dev.ok(1, &["export", "--ns", "notes"]) == text, "a repeated import changed something");
}

/// Keys of the strong namespace.
const KEYS: usize = 5000;

/// One of the pairs of keys that one batch writes: a key of an early page, and one of a late page.
fn pair(number: u64) -> [String; 2] {
    let early = number as usize % 8 * 300;
    [format!("k{early:04}"), format!("k{:04}", KEYS - 1 - early)]
}

/// Writes a pair of keys with equal values, in one batch.
fn write_pair(api: &str, number: u64) {
    let writes = pair(number).map(|key| {
        format!("{{\"key\":\"{key}\",\"edits\":[{{\"field\":\"\",\"put\":\"{number}\"}}]}}")
    });
    let body = format!("{{\"writes\":[{}]}}", writes.join(","));
    let head = "POST /v1/namespaces/facts/batch HTTP/1.1\r\nHost: localhost\r\nConnection: close";
    let kind = "Content-Type: application/json";
    let length = format!("Content-Length: {}", body.len());
    let answer = exchange(api, &format!("{head}\r\n{kind}\r\n{length}\r\n\r\n{body}"));
    assert!(answer.as_ref().is_some_and(|answer| answer.status == 200), "{answer:?}");
}

/// A header of an answer.
fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    let mut lines = answer.headers.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// An export of all rows in pages of 100, with writes between any two of them, and how many pages there were. No other
/// node has the export.
fn export(api: &str, other: &str, written: &AtomicU64) -> (String, usize) {
    let path = "/v1/namespaces/facts/rows?limit=100";
    let (mut next, mut text, mut pages, mut at) =
        ("export=true".to_owned(), String::new(), 0, None);
    loop {
        let answer = get(api, &format!("{path}&{next}")).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let revision = header(&answer, "continuum-revision").map(str::to_owned);
        assert!(revision.is_some() && (pages == 0 || revision == at), "{revision:?}, not {at:?}");
        at = revision;
        pages += 1;
        let Some(cursor) = header(&answer, "continuum-next") else {
            text.push_str(&answer.body);
            return (text, pages);
        };
        next = format!("after={cursor}");
        text.push_str(&answer.body);
        let before = written.load(Ordering::Relaxed);
        // The one that was begun by then, and one more.
        wait_until("a write", || written.load(Ordering::Relaxed) >= before + 2);
        let elsewhere = get(other, &format!("{path}&{next}")).expect("an answer");
        assert_eq!(elsewhere.status, 410, "{}", elsewhere.body);
        assert!(elsewhere.body.contains("\"export_expired\""), "{}", elsewhere.body);
    }
}

/// Judges an export: it has every key, and both keys of a pair are equal.
fn check_pairs(text: &str) {
    let row = |line: &str| -> (String, String) {
        let row: Value = serde_json::from_str(line).expect("a row");
        let value = &row["fields"][0]["register"][0];
        (row["key"].as_str().expect("text").into(), value.as_str().expect("text").into())
    };
    let rows: BTreeMap<String, String> = text.lines().map(row).collect();
    assert_eq!((rows.len(), text.lines().count()), (KEYS, KEYS));
    for number in 0..8 {
        let [early, late] = pair(number);
        assert_eq!(rows[&early], rows[&late], "{early} and {late}");
    }
}

#[test]
fn an_export_under_constant_writes_is_one_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(3, &folder.path().join("dev"));
    dev.ok(1, &["ns", "create", "facts", "--consistency", "strong"]);
    let row = |at| {
        format!("{{\"key\":\"k{at:04}\",\"fields\":[{{\"field\":\"\",\"register\":[\"0\"]}}]}}\n")
    };
    let (file, text) = (folder.path().join("rows.jsonl"), (0..KEYS).map(row).collect::<String>());
    fs::write(&file, &text).expect("written");
    dev.ok(1, &["import", "--ns", "facts", file.to_str().expect("a plain path")]);

    let (stops, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stops.load(Ordering::Relaxed) {
                write_pair(dev.api(1), written.fetch_add(1, Ordering::Relaxed) + 1);
            }
        });
        // Ends the writer also when an assertion fails.
        let stop = Stop(&stops);
        for node in [2, 1, 3] {
            let (text, pages) = export(dev.api(node), dev.api(node % 3 + 1), &written);
            check_pairs(&text);
            assert_eq!(pages, 50);
        }
        check_pairs(&dev.ok(2, &["export", "--ns", "facts"]));
        let listed = dev.ok(3, &["kv", "list", "facts", "--values"]);
        assert_eq!(listed.lines().count(), KEYS);
        drop(stop);
    });
}

/// Says that the writer is to stop once it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
