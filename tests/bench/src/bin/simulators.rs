//! Runs each simulator's mesh in its own process, one after another, and prints a table and one line of JSON.

use std::process::Command;

use serde_json::Value;

/// Each mesh program with its argument.
const MESHES: [(&str, &str); 5] = [
    ("continuum_mesh", ""),
    ("madsim_mesh", "udp"),
    ("madsim_mesh", "tcp"),
    ("turmoil_mesh", "1"),
    ("turmoil_mesh", "10"),
];

fn main() {
    let own = std::env::current_exe().expect("the path of this program");
    let mut rows = Vec::new();
    let head = ("simulator", "virtual s/CPU s", "messages/CPU s", "events/CPU s");
    eprintln!("{:<28} {:>16} {:>16} {:>14}", head.0, head.1, head.2, head.3);
    for (program, argument) in MESHES {
        let path = own.with_file_name(program);
        let output = Command::new(&path).arg(argument).output().expect("all programs are built");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", path.display());
        let row: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
        let whole = |name: &str| row[name].as_f64().map_or("-".into(), |n| format!("{n:.0}"));
        eprintln!(
            "{:<28} {:>16} {:>16} {:>14}",
            row["name"].as_str().unwrap_or_default(),
            whole("virtual_s_per_cpu_s"),
            whole("messages_per_cpu_s"),
            whole("events_per_cpu_s"),
        );
        rows.push(row);
    }
    println!("{}", serde_json::json!({ "command": "peers", "table": rows }));
}
