//! Nodes without a majority, and a group that no build can apply: what is served all the same, and what is said.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use bytes::Bytes;
use continuum_core::id::{GroupId, Index, Term};
use continuum_core::raft::{self, Entry, Payload};
use continuum_core::wal::{Recovered, Write, recover};
use continuum_runtime::clock::Stopwatch;
use serde_json::{Value, json};

use super::{ALL, begin, finish, is, make, path, written};
use crate::book::{EVENTUAL, STRONG};
use crate::federation::{Node, Nodes, Ran, SOON};
use crate::http::{Answer, Ask, brief, metric};
use crate::row::{Bench, Check, Row, holds, wait_until};
use crate::writers::{put, settle};

/// A node that knows of no leader refuses within this. Its request timeout is five times longer.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Commands for eventual memory end within this. It covers the start of a debug build.
const SOON_DONE: Duration = Duration::from_secs(4);
/// A record of a later build, as this one reads it.
const UNKNOWN_COMMAND: [u8; 9] = [0xff; 9];

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "majority.two-dead",
        expected: "two of three dead: eventual commands, `ns list`, import and export work, /readyz is 200 and serves \
                   eventual, /readyz?strong is 503; after the time of an election strong requests are no_leader \
                   within 1 s",
        run: |bench| two_dead(bench, false),
    },
    Row {
        name: "majority.alone-again",
        expected: "the same when the last node itself is killed and started again",
        run: |bench| two_dead(bench, true),
    },
    Row {
        name: "majority.halted-group",
        expected: "a command of a later build halts its group on each node: /readyz 503 with group and index, status, \
                   metric and log say so, also after a restart; all else is served",
        run: halted,
    },
];

fn two_dead(bench: &Bench, restart: bool) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    settle(bench, &nodes, &ALL, &book)?;
    make(nodes.all[0].api, "files", "eventual")?;
    [1, 2].iter().for_each(|at| assert!(nodes.all[*at].kill().is_none(), "killed by a signal"));
    if restart {
        nodes.restart(&[0])?;
    }
    let node = &nodes.all[0];
    let mut last = String::new();
    let says = || {
        let (ready, strong) = (probe(node, "/readyz"), probe(node, "/readyz?strong"));
        let told = |(status, body): &(u16, Value)| {
            format!("{status} serves {} for {}", body["serves"], body["reasons"])
        };
        last = format!("/readyz {}, ?strong {}", told(&ready), told(&strong));
        let is_eventual = ready.0 == 200 && ready.1["serves"] == json!(["eventual"]);
        is_eventual && strong.0 == 503 && strong.1["reasons"] == json!(["no_leader"])
    };
    wait_until(SOON, says, String::new).map_err(|_| last.clone())?;
    // Requests wait for as long as an election may take. From then on they are refused at once.
    let mut took = Duration::MAX;
    let is_prompt = || {
        let watch = Stopwatch::start();
        let _ = Ask::get(path(STRONG, "kv/k")).send(node.api);
        took = watch.elapsed();
        took < AT_ONCE
    };
    wait_until(SOON, is_prompt, String::new)
        .map_err(|_| format!("a strong read is answered after {} ms", took.as_millis()))?;
    let refused = strong_is_refused(node)?;
    let slowest = eventual_works(node)?;
    for number in 0..3 {
        let answer = put(&mut book, node.api, EVENTUAL, &format!("alone-{number}"), "v");
        written(answer.as_ref(), || "an eventual put".into())?;
    }
    nodes.start(&[1, 2])?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!(
        "{last}; no_leader after {} ms at most, commands after {} ms; {settled}",
        refused.as_millis(),
        slowest.as_millis()
    ))
}

/// The status and the body of a probe.
fn probe(node: &Node, path: &str) -> (u16, Value) {
    Ask::get(path).send(node.api).map_or((0, Value::Null), |answer| (answer.status, answer.json()))
}

/// Every strong request is refused at once. Returns the longest wait.
fn strong_is_refused(node: &Node) -> Check<Duration> {
    let body = json!({ "name": "new", "consistency": "eventual" });
    let asks = [
        Ask::get(path(STRONG, "kv/must-n1-before")),
        Ask::new("PUT", path(STRONG, "kv/k")).raw("v"),
        Ask::new("DELETE", path(STRONG, "kv/k")),
        Ask::get("/v1/namespaces?consistent"),
        Ask::new("POST", "/v1/namespaces").json(&body),
    ];
    let mut longest = Duration::ZERO;
    for ask in &asks {
        let watch = Stopwatch::start();
        let answer = ask.send(node.api);
        let took = watch.elapsed();
        is(answer.as_ref(), 503, "no_leader", || format!("{ask:?}"))?;
        holds(took < AT_ONCE, || format!("no_leader came after {} ms", took.as_millis()))?;
        longest = longest.max(took);
    }
    Ok(longest)
}

/// Every command for eventual memory works. Returns the longest time that one took.
fn eventual_works(node: &Node) -> Check<Duration> {
    let row = b"{\"key\":\"imported\",\"fields\":[{\"field\":\"\",\"register\":[\"v\"]}]}\n";
    let commands: [&[&str]; 10] = [
        &["ns", "list"],
        &["kv", "put", "files", "k", "v"],
        &["kv", "get", "files", "k"],
        &["kv", "list", "files"],
        &["set", "add", "files", "s", "m"],
        &["counter", "add", "files", "c", "3"],
        &["record", "get", "files", "k"],
        &["import", "--ns", "files", "-"],
        &["export", "--ns", "files"],
        &["kv", "del", "files", "k"],
    ];
    let mut longest = Duration::ZERO;
    for words in commands {
        let watch = Stopwatch::start();
        let Ran { code, err, .. } = node.run(words, row);
        let took = watch.elapsed();
        let told = words.join(" ");
        holds(code == Some(0), || format!("`{told}` ends with {code:?}: {err}"))?;
        holds(took < SOON_DONE, || format!("`{told}` took {} ms", took.as_millis()))?;
        longest = longest.max(took);
    }
    Ok(longest)
}

/// Ends a log with a command that no build knows, as the leader of a later build would have written it. Returns its
/// index.
fn write_unknown(node: &Node, group: GroupId) -> Check<Index> {
    let lane = node.data.join("lane-0");
    let mut segments = Vec::new();
    for entry in fs::read_dir(&lane).map_err(|error| error.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(digits) = name.strip_suffix(".log") else { continue };
        let number = u64::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
        let bytes = fs::read(entry.path()).map_err(|error| error.to_string())?;
        segments.push((number, Bytes::from(bytes)));
    }
    segments.sort_unstable_by_key(|(number, _)| *number);
    let recovered = recover(segments).map_err(|error| error.to_string())?;
    let Recovered { writes, mut writer, .. } = recovered;
    let (mut prev, mut term, mut time_ms) = (Index(0), Term(1), 0);
    for (_, write) in &writes {
        match write {
            Write::Group { group: of, write: raft::Write::Append { prev: before, entries } }
                if *of == group =>
            {
                prev = Index(before.0 + entries.len() as u64);
                time_ms = entries.last().map_or(time_ms, |entry| entry.time_ms);
            }
            Write::Group { group: of, write: raft::Write::Hard { term: now, .. } }
                if *of == group =>
            {
                term = *now;
            }
            _ => {}
        }
    }
    let payload = Payload::Command(Bytes::from_static(&UNKNOWN_COMMAND));
    let entries = vec![Entry { term, time_ms, payload }];
    let write = Write::Group { group, write: raft::Write::Append { prev, entries } };
    let token = writer.next_token();
    let batch = writer.encode(&[(token, write)]);
    holds(!batch.opens_segment, || "the log ends at the end of a segment".into())?;
    let segment = lane.join(format!("{:016x}.log", batch.segment));
    let file = fs::OpenOptions::new().write(true).open(segment);
    let written = file.and_then(|file| file.write_all_at(&batch.bytes, batch.offset));
    written.map_err(|error| error.to_string())?;
    Ok(Index(prev.0 + 1))
}

fn halted(bench: &Bench) -> Check<String> {
    // One voter and two learners: what its log holds is committed.
    let mut nodes = Nodes::new(bench, 3);
    nodes.form(1)?;
    crate::writers::make_namespaces(nodes.all[0].api)?;
    let mut book = crate::book::Book::default();
    crate::writers::must_write(&mut book, &nodes, &ALL, "-before")?;
    settle(bench, &nodes, &ALL, &book)?;
    make(nodes.all[0].api, "later", "strong")?;
    let first = Ask::new("PUT", path("later", "kv/k")).raw("v").send(nodes.all[1].api);
    written(first.as_ref(), || "a put before".into())?;
    nodes.all_serve(&ALL)?;
    let status = nodes.all[0].status();
    let mut groups = status["groups"].as_array().into_iter().flatten();
    let group = groups.find(|group| group["name"] == "later").ok_or("no group of `later`")?;
    let group = group["group"].as_u64().and_then(|group| u32::try_from(group).ok());
    let group = GroupId(group.ok_or("a group without a number")?);
    ALL.iter().for_each(|at| assert_eq!(nodes.all[*at].stop(), Some(0), "a clean end"));
    let index = write_unknown(&nodes.all[0], group)?;
    nodes.start(&ALL)?;
    let mut observed = String::new();
    for round in ["halted", "restarted"] {
        for at in ALL {
            observed = says_halted(&nodes.all[at], group, index)?;
            let at_node = format!("{round} n{}", at + 1);
            let answer = put(&mut book, nodes.all[at].api, EVENTUAL, &format!("{round}-{at}"), "v");
            written(answer.as_ref(), || format!("{at_node}: an eventual put"))?;
            let mut last = None;
            let key = format!("{round}-{at}");
            let works = || {
                last = put(&mut book, nodes.all[at].api, STRONG, &key, "v");
                last.as_ref().is_some_and(Answer::is_ok)
            };
            wait_until(SOON, works, String::new).map_err(|_| {
                format!("{at_node}: another strong namespace answers {}", brief(last.as_ref()))
            })?;
        }
        nodes.restart(&ALL)?;
    }
    let settled = settle(bench, &nodes, &ALL, &book)?;
    Ok(format!("{observed}; {settled}"))
}

/// A node whose group halted says so everywhere.
fn says_halted(node: &Node, group: GroupId, index: Index) -> Check<String> {
    let expected = json!([{ "group": group.0, "index": index.0 }]);
    let mut last = (0, Value::Null);
    let is_told = || {
        last = probe(node, "/readyz");
        last.0 == 503 && last.1["halted"] == expected
    };
    let name = &node.name;
    wait_until(SOON, is_told, String::new)
        .map_err(|_| format!("{name}: /readyz is {} {}, not {expected}", last.0, last.1))?;
    let reasons = last.1["reasons"].as_array().cloned().unwrap_or_default();
    holds(reasons.contains(&json!("group_halted")), || format!("{name}: reasons are {reasons:?}"))?;
    holds(probe(node, "/readyz?strong").0 == 503, || format!("{name}: ?strong is ready"))?;
    holds(probe(node, "/livez").0 == 200, || format!("{name}: it is not alive"))?;
    let status = node.group(group.0.into());
    holds(status["halted"] == index.0, || format!("{name}: its status says {status}"))?;
    let gauge = metric(node.api, "continuum_group_halted{");
    holds(gauge > 0.5, || format!("{name}: the metric group_halted is {gauge}"))?;
    let lines = node.log_lines(&["halted"]);
    holds(lines > 0, || format!("{name}: its log says nothing"))?;
    for ask in [Ask::get(path("later", "kv/k")), Ask::new("PUT", path("later", "kv/k")).raw("w")] {
        let watch = Stopwatch::start();
        let answer = ask.send(node.api);
        is(answer.as_ref(), 503, "group_halted", || format!("{name}: {ask:?}"))?;
        holds(watch.elapsed() < AT_ONCE, || format!("{name}: it answered late"))?;
    }
    Ok(format!("/readyz 503, halted {expected}, {lines} lines in the log"))
}
