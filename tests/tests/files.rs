//! Import and export of real processes: an import that is killed midway and repeated, and files of other programs.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use continuum_tests::process::{Dev, binary, wait_until};

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
