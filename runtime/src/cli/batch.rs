//! `kv batch`: changes of several keys in one request.
//!
//! In a strong namespace all of them happen or none, and only if every expectation holds. The node makes sure of that;
//! this module makes one batch of options, or takes one from a file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{Promise, pair};
use super::client::{Call, Client};
use super::cluster::print_done;
use super::exit::{self, Failure};
use super::output::Screen;
use crate::api::input::{
    self, BODY_BYTES_MAX, BatchBody, CasBody, EditBody, ExpectedBody, WriteBody,
};
use crate::api::json::JsonBytes;
use crate::api::uri;

/// Changes of several keys.
#[derive(Clone, Debug, Args)]
pub(super) struct Batch {
    /// The namespace
    ns: String,
    /// Set a value; this and the options below may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, allow_hyphen_values = true)]
    put: Vec<(String, String)>,
    /// Remove a value
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    delete: Vec<String>,
    /// Only if the key has this value; without a change it is written again (strong namespaces)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, allow_hyphen_values = true)]
    expect: Vec<(String, String)>,
    /// Only if the key, which the batch changes, is at this revision (strong namespaces)
    #[arg(long, value_name = "KEY=REVISION", value_parser = revision, allow_hyphen_values = true)]
    expect_revision: Vec<(String, u64)>,
    /// Only if the key has no value (strong namespaces)
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    expect_absent: Vec<String>,
    /// Take the batch from a file, as HTTP has it: {"writes":[{"key":..,"edits":[..]}]}; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["put", "delete", "expect", "expect_revision", "expect_absent"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    promise: Promise,
}

/// Parses `KEY=REVISION`.
fn revision(text: &str) -> Result<(String, u64), String> {
    let (key, number) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} has no `=`"))?;
    let number = number.parse().map_err(|_| format!("{number:?} is not a revision"))?;
    Ok((key.into(), number))
}

/// `kv batch ...`.
pub(super) async fn run(
    batch: Batch,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let (ns, level) = (uri::encode(batch.ns.as_bytes()), &batch.promise.level);
    let path = format!("/v1/namespaces/{ns}/batch?level={}", uri::encode(level.as_bytes()));
    let body = match &batch.file {
        Some(file) => read(file)?,
        None => body(batch)?,
    };
    let answer = client.send(&Call::post(path, &body).once()).await?;
    print_done(&answer.json()?, "written", screen)
}

/// The batch in a file.
fn read(path: &Path) -> Result<BatchBody, Failure> {
    let shown = if path == Path::new("-") { "standard input" } else { "the file" };
    let failed = |error: std::io::Error| {
        Failure::local(format!("{shown} cannot be read"), &error, "name a file with --file")
    };
    let mut text = Vec::new();
    // One byte more than the node takes, so that the node refuses the batch with its bound.
    let most = BODY_BYTES_MAX as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(most).read_to_end(&mut text).map_err(failed)?;
    }
    input::json(&text).map_err(|problem| {
        let what = format!("{shown} is no batch");
        let hint = "write {\"writes\":[{\"key\":\"k\",\"edits\":[{\"put\":\"v\"}]}]}; see runtime/README.md";
        Failure::new(exit::LOCAL, "malformed_json", what, problem.detail, hint)
    })
}

/// The writes that options ask for: one for each key.
fn body(batch: Batch) -> Result<BatchBody, Failure> {
    let Batch { put, delete, expect, expect_revision, expect_absent, .. } = batch;
    let mut changes: BTreeMap<String, Option<String>> = BTreeMap::new();
    let puts = put.into_iter().map(|(key, value)| (key, Some(value)));
    for (key, value) in puts.chain(delete.into_iter().map(|key| (key, None))) {
        if changes.insert(key.clone(), value).is_some() {
            return Err(twice(&key, "changed"));
        }
    }
    let mut expected: BTreeMap<String, ExpectedBody> = BTreeMap::new();
    let values = expect.into_iter().map(|(key, value)| {
        let value = Some(JsonBytes(value.into()));
        (key, ExpectedBody { value, ..ExpectedBody::default() })
    });
    let revisions = expect_revision.into_iter().map(|(key, revision)| {
        (key, ExpectedBody { revision: Some(revision), ..ExpectedBody::default() })
    });
    let absent = expect_absent
        .into_iter()
        .map(|key| (key, ExpectedBody { absent: true, ..ExpectedBody::default() }));
    for (key, one) in values.chain(revisions).chain(absent) {
        if expected.insert(key.clone(), one).is_some() {
            return Err(twice(&key, "expected"));
        }
    }
    let mut writes = Vec::new();
    for (key, value) in changes {
        let edit = match (expected.remove(&key), value.map(|value| JsonBytes(value.into()))) {
            (None, None) => EditBody { delete: true, ..EditBody::default() },
            (None, put) => EditBody { put, ..EditBody::default() },
            (Some(expected), value) => cas(expected, value),
        };
        writes.push(write(key, edit));
    }
    for (key, expected) in expected {
        writes.push(write(key.clone(), unchanged(&key, expected)?));
    }
    if writes.is_empty() {
        let hint = "give --put KEY=VALUE or --delete KEY, or a batch with --file";
        return Err(Failure::usage("the batch is empty", "it changes no key", hint));
    }
    Ok(BatchBody { writes })
}

fn twice(key: &str, how: &str) -> Failure {
    let what = format!("the key {key:?} is {how} twice");
    Failure::usage(what, "a batch has one change and one expectation of a key", "leave one out")
}

fn write(key: String, edit: EditBody) -> WriteBody {
    WriteBody { key: JsonBytes(key.into()), edits: vec![edit], context: None }
}

fn cas(expected: ExpectedBody, value: Option<JsonBytes>) -> EditBody {
    EditBody { cas: Some(CasBody { expected, value }), ..EditBody::default() }
}

/// The edit of a key that is expected and stays as it is.
fn unchanged(key: &str, expected: ExpectedBody) -> Result<EditBody, Failure> {
    if expected.revision.is_some() {
        let what = format!("the key {key:?} has an expected revision and no change");
        let why = "a batch writes every key that it looks at, and a write has a new revision";
        return Err(Failure::usage(what, why, "expect its value with --expect, or change it too"));
    }
    let value = expected.value.clone();
    Ok(cas(expected, value))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::args::{Cli, Kv, Verb};

    fn parsed(line: &str) -> Batch {
        let words = line.split_whitespace();
        let cli = <Cli as clap::Parser>::try_parse_from(words).expect("a command");
        let Verb::Kv(Kv::Batch(batch)) = cli.verb else { panic!("another verb") };
        batch
    }

    fn writes(line: &str) -> Result<Value, (u8, String)> {
        let body = body(parsed(&format!("continuum kv batch facts {line}")));
        let body = body.map_err(|failure| (failure.exit, failure.what))?;
        Ok(serde_json::to_value(body).expect("JSON")["writes"].clone())
    }

    #[test]
    fn options_become_one_write_of_each_key() {
        let found = writes(
            "--put a=1 --put -b=x=y --delete c --expect a=0 --expect-revision c=7 --expect-absent d --expect e=5",
        );
        let edit = |key: &str, edit: Value| json!({ "key": key, "edits": [edit] });
        let cas = |expected: Value, value: Value| {
            let cas = json!({ "expected": expected, "value": value });
            json!({ "field": "", "cas": cas })
        };
        let expected = json!([
            edit("-b", json!({ "field": "", "put": "x=y" })),
            edit("a", cas(json!({ "value": "0" }), json!("1"))),
            edit("c", cas(json!({ "revision": 7 }), Value::Null)),
            edit("d", cas(json!({ "absent": true }), Value::Null)),
            edit("e", cas(json!({ "value": "5" }), json!("5"))),
        ]);
        assert_eq!(found, Ok(expected));
        let deleted = json!([edit("c", json!({ "field": "", "delete": true }))]);
        assert_eq!(writes("--delete c"), Ok(deleted));
    }

    #[test]
    fn contradictions_are_wrong_usage() {
        for line in [
            "",
            "--put a=1 --put a=2",
            "--put a=1 --delete a",
            "--put a=1 --expect a=1 --expect-absent a",
            "--put a=1 --expect-revision b=7",
        ] {
            assert_eq!(writes(line).map_err(|(exit, _)| exit), Err(exit::USAGE), "{line}");
        }
        for line in ["--put a", "--expect-revision a=b", "--put a=1 --file x"] {
            let words = format!("continuum kv batch facts {line}");
            let parsed = <Cli as clap::Parser>::try_parse_from(words.split_whitespace());
            assert!(parsed.is_err(), "{line}");
        }
    }

    #[test]
    fn a_file_holds_what_http_takes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("batch.json");
        std::fs::write(&path, "{\"writes\":[{\"key\":\"a\",\"edits\":[{\"put\":\"1\"}]}]}")
            .expect("written");
        assert_eq!(read(&path).map(|batch| batch.writes.len()).ok(), Some(1));
        std::fs::write(&path, "{\"writes\":[{\"key\":\"a\"}]}").expect("written");
        let failure = read(&path).expect_err("no edits");
        assert_eq!((failure.exit, failure.code.as_str()), (exit::LOCAL, "malformed_json"));
        assert!(failure.why.contains("edits") && failure.why.contains("line 1"), "{failure}");
        let failure = read(&folder.path().join("none")).expect_err("no file");
        assert_eq!((failure.exit, failure.code.as_str()), (exit::LOCAL, "local_io"));
    }
}
