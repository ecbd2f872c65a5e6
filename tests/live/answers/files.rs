//! Files: an export imports to an equal export, a bad file changes nothing and its line is named, and files are taken
//! as people have them.

use std::fs;
use std::path::PathBuf;

use continuum_core::limits::VALUE_BYTES_MAX;
use serde_json::{Value, json};

use super::{ALL, begin, finish, is, path, written};
use crate::federation::{Nodes, Ran};
use crate::http::Ask;
use crate::row::{Bench, Check, Row, holds};

/// The exit code of a file that is not as it should be.
const WRONG_FILE: i32 = 8;
/// Rows before the broken one.
const ROWS_BEFORE: usize = 2000;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "files.round-trip",
        expected: "siblings, sets of 1,500, counters past 2^63, bytes that are no text and keys with a dash come back \
                   byte for byte: into other slots, another strategy, through another node, and strong",
        run: round_trip,
    },
    Row {
        name: "files.bad-rows",
        expected: "2,000 counters, then a row out of bounds: refused with file and line before the first write; \
                   corrected and imported three times each counter is 5",
        run: bad_rows,
    },
    Row {
        name: "files.as-people-have-them",
        expected: "a byte order mark, CRLF and blank lines are taken, from a file and from a pipe; UTF-16, gzip and \
                   arrays are named, and nothing is written",
        run: as_people_have_them,
    },
    Row {
        name: "files.of-other-programs",
        expected: "an MCP memory file, a Consul and an etcd export are imported and come back equal in their own \
                   format",
        run: of_other_programs,
    },
];

/// A file of the row's own.
fn file(bench: &Bench, name: &str, content: impl AsRef<[u8]>) -> Check<String> {
    let folder: PathBuf = bench.folder();
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let file = folder.join(name);
    fs::write(&file, content).map_err(|error| error.to_string())?;
    Ok(file.display().to_string())
}

/// Runs a command that must succeed, and returns its output.
fn done(nodes: &Nodes, at: usize, words: &[&str], input: &[u8]) -> Check<Vec<u8>> {
    let Ran { code, out, err } = nodes.all[at].run(words, input);
    holds(code == Some(0), || format!("{} ends with {code:?}: {err}", words.join(" ")))?;
    Ok(out)
}

fn export(nodes: &Nodes, at: usize, namespace: &str) -> Check<Vec<u8>> {
    done(nodes, at, &["export", "--ns", namespace], b"")
}

/// Siblings in an order that is not that of their writing, by contexts that saw nothing.
fn siblings(nodes: &Nodes, namespace: &str) -> Check {
    let api = nodes.all[0].api;
    let nothing = Ask::get(path(namespace, "kv/siblings")).send(api);
    let token = nothing.map_or(Value::Null, |answer| answer.json()["context"].clone());
    let token = token.as_str().unwrap_or_default();
    for value in ["first", "second", "third"] {
        let put = Ask::new("PUT", path(namespace, "kv/siblings")).raw(value);
        let answer = put.header("Continuum-Context", token).send(api);
        written(answer.as_ref(), || format!("the sibling {value}"))?;
    }
    Ok(())
}

/// Fills an eventual namespace with every shape.
fn fill(nodes: &Nodes, namespace: &str) -> Check {
    let api = nodes.all[0].api;
    siblings(nodes, namespace)?;
    for half in [0, 750] {
        let members: Vec<String> = (half..half + 750).map(|at| format!("member {at}")).collect();
        let add = Ask::new("POST", path(namespace, "sets/big")).json(&json!({ "add": members }));
        is(add.send(api).as_ref(), 200, "", || "750 members".into())?;
    }
    for amount in [i64::MAX, i64::MAX, 1] {
        let add =
            Ask::new("POST", path(namespace, "counters/count")).json(&json!({ "add": amount }));
        is(add.send(api).as_ref(), 200, "", || "a count".into())?;
    }
    for key in ["-dash", "--", "%00%FF", "a%2Fb", "%C3%BC"] {
        let put = Ask::new("PUT", path(namespace, &format!("kv/{key}"))).raw(b"\0\xff\n".to_vec());
        written(put.send(api).as_ref(), || format!("a put of {key}"))?;
    }
    let edits = json!({ "edits": [
        { "field": "hits", "count": -3 },
        { "field": "tags", "add": ["a", "b"] },
        { "field": "", "put": "own" },
    ] });
    let record = Ask::new("POST", path(namespace, "records/mixed")).json(&edits);
    is(record.send(api).as_ref(), 200, "", || "a record".into())
}

fn create(nodes: &Nodes, name: &str, more: &[&str]) -> Check {
    let words = [&["ns", "create", name, "--consistency"], more].concat();
    done(nodes, 0, &words, b"").map(drop)
}

fn round_trip(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    create(&nodes, "source", &["eventual"])?;
    fill(&nodes, "source")?;
    let source = export(&nodes, 0, "source")?;
    holds(source.starts_with(br#"{"key":"#) && source.len() > 20_000, || {
        "the export lacks rows".into()
    })?;
    let from = file(bench, "source.jsonl", &source)?;
    for (number, more) in [
        &["eventual"][..],
        &["eventual", "--slots", "7"],
        &["eventual", "--strategy", "highest-node-wins"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("copy{number}");
        create(&nodes, &name, more)?;
        nodes.all_serve(&ALL)?;
        done(&nodes, number, &["import", "--ns", &name, &from], b"")?;
        let copy = export(&nodes, number, &name)?;
        holds(copy == source, || differs(&source, &copy, &more.join(" ")))?;
        done(&nodes, number, &["import", "--ns", &name, &from], b"")?;
        holds(export(&nodes, number, &name)? == source, || "a second import changed it".into())?;
    }
    create(&nodes, "strong", &["strong"])?;
    create(&nodes, "strong-copy", &["strong"])?;
    for key in ["a", "-b", "a%2F", "%00"] {
        let put = Ask::new("PUT", path("strong", &format!("kv/{key}"))).raw(b"\xfe\r\n".to_vec());
        written(put.send(nodes.all[0].api).as_ref(), || "a strong put".into())?;
    }
    let strong = export(&nodes, 1, "strong")?;
    done(&nodes, 2, &["import", "--ns", "strong-copy", "-"], &strong)?;
    let copy = export(&nodes, 1, "strong-copy")?;
    holds(copy == strong, || differs(&strong, &copy, "strong"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("4 copies, {} and {} bytes, all equal; {settled}", source.len(), strong.len()))
}

/// The first lines in which two exports differ.
fn differs(source: &[u8], copy: &[u8], of: &str) -> String {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().map(|line| line.chars().take(200).collect()).collect()
    };
    let (source, copy) = (lines(source), lines(copy));
    let pair = source.iter().zip(&copy).find(|(left, right)| left != right);
    let Some((left, right)) = pair else {
        return format!("the copy into {of} has {} lines, not {}", copy.len(), source.len());
    };
    format!("the copy into {of} differs: {left} and {right}")
}

/// Counters, then this line.
fn counters(last: &str) -> String {
    let row = |at: usize| format!(r#"{{"key":"k{at:04}","fields":[{{"field":"","counter":5}}]}}"#);
    let mut lines: Vec<String> = (0..ROWS_BEFORE).map(row).collect();
    lines.push(last.into());
    lines.join("\n") + "\n"
}

fn bad_rows(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    create(&nodes, "notes2", &["eventual"])?;
    create(&nodes, "facts2", &["strong"])?;
    let register = |key: &str, value: &str| {
        format!(r#"{{"key":"{key}","fields":[{{"field":"","register":["{value}"]}}]}}"#)
    };
    let huge = "9".repeat(60);
    let bad = [
        ("a large value", register("last", &"v".repeat(VALUE_BYTES_MAX + 1))),
        ("a long key", register(&"k".repeat(1025), "v")),
        ("no key", register("", "v")),
        (
            "a long field",
            format!(r#"{{"key":"k","fields":[{{"field":"{}","set":["a"]}}]}}"#, "f".repeat(257)),
        ),
        ("a large counter", format!(r#"{{"key":"k","fields":[{{"field":"","counter":{huge}}}]}}"#)),
        ("an unknown member", r#"{"key":"k","values":[]}"#.to_owned()),
        ("half a line", r#"{"key":"k","fields":["#.to_owned()),
    ];
    let line = format!("rows.jsonl:{}", ROWS_BEFORE + 1);
    for (what, last) in &bad {
        let from = file(bench, "rows.jsonl", counters(last))?;
        let Ran { code, err, .. } = nodes.all[0].run(&["import", "--ns", "notes2", &from], b"");
        holds(code == Some(WRONG_FILE) && err.contains(&line), || {
            format!("{what}: the import ends with {code:?} and names no {line}: {err}")
        })?;
        let found = export(&nodes, 0, "notes2")?;
        holds(found.is_empty(), || {
            format!("{what}: a refused import wrote {} bytes", found.len())
        })?;
    }
    let misfit = file(bench, "rows.jsonl", counters(&register("a", "b")))?;
    let Ran { code, err, .. } = nodes.all[0].run(&["import", "--ns", "facts2", &misfit], b"");
    holds(code == Some(WRONG_FILE) && err.contains("rows.jsonl:1"), || {
        format!("counters into a strong namespace: {code:?}, {err}")
    })?;
    holds(export(&nodes, 0, "facts2")?.is_empty(), || "a refused import wrote something".into())?;
    let good = counters(&register("last", "v"));
    let from = file(bench, "rows.jsonl", &good)?;
    for at in [0, 0, 1] {
        done(&nodes, at, &["import", "--ns", "notes2", &from], b"")?;
        crate::writers::settle(bench, &nodes, &ALL, &book)?;
    }
    let found = export(&nodes, 2, "notes2")?;
    holds(found == good.as_bytes(), || differs(good.as_bytes(), &found, "notes2"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!(
        "{} bad files refused at their line, nothing counted twice; {settled}",
        bad.len() + 1
    ))
}

/// Text in UTF-16 with its mark, as some shells redirect it.
fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
    [0xff, 0xfe].into_iter().chain(units).collect()
}

fn as_people_have_them(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let row = r#"{"key":"a","fields":[{"field":"","register":["1"]}]}"#;
    let other = row.replace("\"a\"", "\"b\"");
    let expected = format!("{row}\n{other}\n");
    let taken: [(&str, String); 5] = [
        ("a byte order mark", format!("\u{feff}{expected}")),
        ("CRLF", expected.replace('\n', "\r\n")),
        ("blank lines", format!("\n{row}\n\n  \n{other}\n\n")),
        ("no last newline", format!("{row}\n{other}")),
        ("all of them", format!("\u{feff}\r\n{row}\r\n\r\n{other}\r\n \r\n")),
    ];
    for (number, (what, text)) in taken.iter().enumerate() {
        let (from, name) = (file(bench, "rows.jsonl", text)?, format!("taken{number}"));
        create(&nodes, &name, &["eventual"])?;
        done(&nodes, 0, &["import", "--ns", &name, &from], b"")?;
        let found = export(&nodes, 0, &name)?;
        holds(found == expected.as_bytes(), || differs(expected.as_bytes(), &found, what))?;
        create(&nodes, &format!("piped{number}"), &["strong"])?;
        done(&nodes, 0, &["import", "--ns", &format!("piped{number}"), "-"], text.as_bytes())?;
    }
    create(&nodes, "named", &["eventual"])?;
    let list = format!("[{row},{other}]\n");
    let named: [(&str, Vec<u8>); 3] = [
        ("UTF-16", utf16(&expected)),
        ("gzip", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[7; 40]].concat()),
        ("array", list.into_bytes()),
    ];
    for (what, bytes) in &named {
        let from = file(bench, "rows.jsonl", bytes)?;
        for words in [["import", "--ns", "named", from.as_str()], ["import", "--ns", "named", "-"]]
        {
            let Ran { code, err, .. } = nodes.all[0].run(&words, bytes);
            let is_named = err.to_lowercase().contains(&what.to_lowercase());
            holds(code == Some(WRONG_FILE) && is_named, || {
                format!("{what}: the import ends with {code:?}: {err}")
            })?;
        }
    }
    holds(export(&nodes, 0, "named")?.is_empty(), || "a refused import wrote something".into())?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{} forms taken, {} named; {settled}", taken.len(), named.len()))
}

/// A graph as MCP servers write it: text before it, an entity on two lines, `observations` that repeat, no `type`.
const GRAPH: &str = r#"Memory of the assistant
{"type":"entity","name":"Ada","entityType":"person","observations":["likes tea","likes tea","born 1815"]}
{"type":"entity","name":"Ada","entityType":"person","observations":["wrote notes"],"createdAt":"2025-01-01"}

{"name":"C:\\notes","label":"folder","observations":{"text":"one"}}
{"type":"relation","from":"Ada","to":"Engine","relationType":"describes"}
"#;
/// The export of the import of an export is the export.
const CONSUL: &str = r#"[
	{
		"key": "app/",
		"flags": 0,
		"value": ""
	},
	{
		"key": "app/name",
		"flags": 42,
		"value": "Y29udGludXVt"
	}
]"#;
const ETCD: &str = r#"{"header":{"cluster_id":1},
"kvs":[{"key":"YQ==","mod_revision":2,"value":"MQ=="},{"key":"Yg==","version":1}]}"#;

fn of_other_programs(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let mut told = Vec::new();
    for (format, text) in [("mcp-jsonl", GRAPH), ("consul", CONSUL), ("etcd-json", ETCD)] {
        let first = through(bench, &nodes, format, text.as_bytes(), &format!("first-{format}"))?;
        let again = through(bench, &nodes, format, &first, &format!("again-{format}"))?;
        holds(first == again, || differs(&first, &again, format))?;
        told.push(format!("{format} {} bytes", first.len()));
        let rows = export(&nodes, 0, &format!("again-{format}"))?;
        let rows = String::from_utf8_lossy(&rows).into_owned();
        let parts: &[&str] = match format {
            "mcp-jsonl" => &[
                "likes tea",
                "born 1815",
                "wrote notes",
                "Engine",
                "createdAt",
                "C:\\\\notes",
                "one",
            ],
            "consul" => &["app/", "continuum", "42"],
            _ => &["\"a\"", "\"1\"", "\"b\""],
        };
        let missing = parts.iter().find(|part| !rows.contains(**part));
        holds(missing.is_none(), || format!("{format}: {missing:?} is not in {rows}"))?;
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{}; {settled}", told.join(", ")))
}

/// Imports a file of a format into a new namespace, and exports it in that format.
fn through(bench: &Bench, nodes: &Nodes, format: &str, text: &[u8], name: &str) -> Check<Vec<u8>> {
    create(nodes, name, &["eventual"])?;
    let from = file(bench, "theirs", text)?;
    done(nodes, 0, &["import", "--format", format, "--ns", name, &from], b"")?;
    done(nodes, 0, &["export", "--format", format, "--ns", name], b"")
}
