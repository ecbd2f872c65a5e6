//! Batches and siblings: an answer says of each write whether it happened, and no sure refusal is called unknown.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ALL, begin, finish, is, make, path, written};
use crate::federation::{Nodes, Ran, SOON};
use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, Row, holds, wait_until};

/// Siblings that one register may have.
const SIBLINGS_MAX: usize = 64;
/// A refusal of an import comes within this. A retry would go on for two minutes.
const TOLD: Duration = Duration::from_secs(20);

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "batches.partly",
        expected: "an eventual batch with a refused write in the middle is 409 partly_written: committed, \
                   out_of_bounds and not_tried, each with its place, and the rows are as it says",
        run: partly,
    },
    Row {
        name: "batches.refused",
        expected: "an eventual batch whose first write is refused, and a strong one with any refused write, change \
                   nothing and say why",
        run: refused,
    },
    Row {
        name: "batches.siblings",
        expected: "the 65th sibling is refused as too_many_siblings, alone and at its place in a batch; 64 written on \
                   each of two sides apart are 128 everywhere, an import of them names file and line at once",
        run: siblings,
    },
];

fn batch(namespace: &str, writes: &Value) -> Ask<'static> {
    Ask::new("POST", path(namespace, "batch")).json(&json!({ "writes": writes }))
}

fn value(nodes: &Nodes, at: usize, namespace: &str, key: &str) -> String {
    let ask = Ask::get(path(namespace, &format!("kv/{key}")));
    let answer = ask.header("Accept", "application/octet-stream").send(nodes.all[at].api);
    answer
        .map_or_else(String::new, |answer| if answer.is_ok() { answer.body } else { answer.code() })
}

/// Counts a counter up to the largest number that one request may add, twice. A third time passes 64 bits.
fn fill(nodes: &Nodes, namespace: &str) -> Check {
    for _ in 0..2 {
        let add = json!({ "add": i64::MAX });
        let answer = Ask::new("POST", path(namespace, "counters/c")).json(&add);
        is(answer.send(nodes.all[0].api).as_ref(), 200, "", || "a count of 2^63 - 1".into())?;
    }
    Ok(())
}

fn partly(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "g", "eventual")?;
    fill(&nodes, "g")?;
    let put = json!([{ "put": "1" }]);
    let writes = json!([
        { "key": "d", "edits": put },
        { "key": "c", "edits": [{ "count": i64::MAX }] },
        { "key": "z", "edits": put },
    ]);
    let answer = batch("g", &writes).send(nodes.all[0].api);
    is(answer.as_ref(), 409, "partly_written", || "the batch".into())?;
    let told = answer.map_or(Value::Null, |answer| answer.json());
    let each: Vec<(Value, Value, Value)> = told["writes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (one["at"].clone(), one["committed"].clone(), one["code"].clone()))
        .collect();
    let expected = [
        (json!(0), json!(true), Value::Null),
        (json!(1), json!(false), json!("out_of_bounds")),
        (json!(2), json!(false), json!("not_tried")),
    ];
    holds(each == expected, || format!("the answer says {told}"))?;
    let found = ["d", "z"].map(|key| value(&nodes, 0, "g", key));
    holds(found == ["1", "absent"], || format!("d and z are {found:?}"))?;
    let counted = Ask::get(path("g", "counters/c")).send(nodes.all[0].api);
    let counted = counted.map_or(Value::Null, |answer| answer.json()["value"].clone());
    let twice = (i128::from(i64::MAX) * 2).to_string();
    holds(counted == twice.as_str(), || format!("the counter is {counted}, not {twice}"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("committed, out_of_bounds, not_tried; {settled}"))
}

fn refused(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "g", "eventual")?;
    make(nodes.all[0].api, "s", "strong")?;
    fill(&nodes, "g")?;
    let put = json!([{ "put": "1" }]);
    let writes = json!([
        { "key": "c", "edits": [{ "count": i64::MAX }] },
        { "key": "d", "edits": put },
    ]);
    let answer = batch("g", &writes).send(nodes.all[0].api);
    is(answer.as_ref(), 422, "out_of_bounds", || "a batch that begins with a refusal".into())?;
    let found = value(&nodes, 0, "g", "d");
    holds(found == "absent", || format!("d is {found}"))?;
    let cas = json!([{ "cas": { "expected": { "value": "other" }, "value": "2" } }]);
    let writes = json!([
        { "key": "d", "edits": put },
        { "key": "e", "edits": cas },
        { "key": "f", "edits": put },
    ]);
    for at in ALL {
        let answer = batch("s", &writes).send(nodes.all[at].api);
        is(answer.as_ref(), 412, "conflict", || "a strong batch with a refusal".into())?;
    }
    let found = ["d", "e", "f"].map(|key| value(&nodes, 1, "s", key));
    holds(found == ["absent"; 3], || format!("after a refused strong batch: {found:?}"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("422 and 412, nothing happened; {settled}"))
}

/// Writes siblings of `k` beside each other: each with the context of a read that saw nothing.
fn write_siblings(nodes: &Nodes, at: usize, count: usize) -> Check<Option<Answer>> {
    let api = nodes.all[at].api;
    let nothing = Ask::get(path("many", "kv/nothing")).send(api);
    let token = nothing.and_then(|answer| answer.json()["context"].as_str().map(String::from));
    let token = token.ok_or("the read of an absent key has no context")?;
    let mut last = None;
    for number in 0..count {
        let value = format!("n{}-{number:03}", at + 1);
        let put = Ask::new("PUT", path("many", "kv/k")).raw(value);
        last = put.header("Continuum-Context", &token).send(api);
        if number < SIBLINGS_MAX {
            written(last.as_ref(), || format!("sibling {number} on n{}", at + 1))?;
        }
    }
    Ok(last)
}

fn siblings_of(nodes: &Nodes, at: usize) -> usize {
    let ask = Ask::get(path("many", "kv/k")).header("Accept", "application/json");
    let answer = ask.send(nodes.all[at].api).map_or(Value::Null, |answer| answer.json());
    answer["siblings"].as_array().map_or(0, Vec::len)
}

fn siblings(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "many", "eventual")?;
    make(nodes.all[0].api, "copy", "eventual")?;
    nodes.all_serve(&ALL)?;
    crate::writers::settle(bench, &nodes, &ALL, &book)?;
    // Each of two sides hears nothing of the siblings of the other.
    [1, 2].iter().for_each(|at| assert!(nodes.all[*at].kill().is_none(), "killed by a signal"));
    one_side(&nodes, 0)?;
    let _ = nodes.all[0].kill();
    nodes.start(&[1, 2])?;
    one_side(&nodes, 1)?;
    nodes.restart(&ALL)?;
    nodes.all_serve(&ALL)?;
    let all = SIBLINGS_MAX * 2;
    let mut found = [0; 3];
    let are_there = || {
        found = ALL.map(|at| siblings_of(&nodes, at));
        found == [all; 3]
    };
    wait_until(SOON, are_there, String::new).map_err(|_| format!("siblings are {found:?}"))?;
    let told = import_of_all(bench, &nodes)?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{all} siblings on each node; the import says: {told}; {settled}"))
}

/// As many siblings as a register may have, and one more.
fn one_side(nodes: &Nodes, at: usize) -> Check {
    takes_writes(nodes, at)?;
    let last = write_siblings(nodes, at, SIBLINGS_MAX + 1)?;
    is(last.as_ref(), 409, "too_many_siblings", || "the 65th sibling".into())?;
    in_a_batch(nodes, at)
}

/// Waits until a node takes eventual writes.
fn takes_writes(nodes: &Nodes, at: usize) -> Check {
    let mut last = None;
    let takes = || {
        last = Ask::new("PUT", path("many", "kv/first")).raw("x").send(nodes.all[at].api);
        last.as_ref().is_some_and(Answer::is_ok)
    };
    wait_until(SOON, takes, String::new)
        .map(drop)
        .map_err(|_| format!("n{} takes no eventual write: {}", at + 1, brief(last.as_ref())))
}

/// One more sibling, between two other writes of a batch.
fn in_a_batch(nodes: &Nodes, at: usize) -> Check {
    let nothing = Ask::get(path("many", "kv/nothing")).send(nodes.all[at].api);
    let token = nothing.map_or(Value::Null, |answer| answer.json()["context"].clone());
    let put = json!([{ "put": "1" }]);
    let writes = json!([
        { "key": "before", "edits": put },
        { "key": "k", "edits": put, "context": token },
        { "key": "after", "edits": put },
    ]);
    let answer = batch("many", &writes).send(nodes.all[at].api);
    is(answer.as_ref(), 409, "partly_written", || "a batch with the 65th sibling".into())?;
    let refused = answer.map_or(Value::Null, |answer| answer.json()["writes"][1].clone());
    holds(refused["code"] == "too_many_siblings", || format!("the 65th sibling: {refused}"))
}

/// Imports the export of the register into another namespace. A register of a file has at most 64 values.
fn import_of_all(bench: &Bench, nodes: &Nodes) -> Check<String> {
    let folder = bench.folder();
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let file = folder.join("many.jsonl");
    let Ran { code, out, err } = nodes.all[0].run(&["export", "--ns", "many"], b"");
    holds(code == Some(0), || format!("the export ends with {code:?}: {err}"))?;
    fs::write(&file, out).map_err(|error| error.to_string())?;
    let file = file.display().to_string();
    let watch = continuum_runtime::clock::Stopwatch::start();
    let Ran { code, err, .. } = nodes.all[0].run(&["import", "--ns", "copy", &file], b"");
    let took = watch.elapsed();
    holds(code == Some(8) && err.contains("many.jsonl:") && took < TOLD, || {
        format!("the import ends with {code:?} after {} s: {err}", took.as_secs())
    })?;
    let rows = Ask::get(path("copy", "rows")).send(nodes.all[0].api);
    holds(rows.as_ref().is_some_and(|rows| rows.body.is_empty()), || {
        "a refused import wrote something".into()
    })?;
    Ok(err.lines().next().unwrap_or_default().into())
}
