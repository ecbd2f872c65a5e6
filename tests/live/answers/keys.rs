//! Idempotency keys: a key names one request, a repeat gets the first answer, and no number of keys locks anybody out.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;
use serde_json::{Value, json};

use super::{ALL, begin, finish, is, leader, make, path, written};
use crate::book::{Answered, Book, STRONG};
use crate::federation::{Nodes, SOON};
use crate::http::{Answer, Ask, Kept, PATIENCE, brief};
use crate::row::{Bench, Check, Row, holds, wait_for};

/// Clients that write at the same time.
const CLIENTS: usize = 64;
/// Keys that each of them writes, one after the other.
const PLACES: u64 = 100;
/// A chain of compare-and-sets goes on for this long before and after its leader is killed.
const LINKS: u64 = 15;
/// One repeat after the other is tried for this long.
const REPEATS: Duration = Duration::from_secs(30);

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "keys.reused",
        expected: "another request under a used Idempotency-Key is 422 key_reused and does nothing, for each route and \
                   kind of namespace; the first one repeated gets its first answer",
        run: reused,
    },
    Row {
        name: "keys.repeated",
        expected: "a repeat gets the first answer: strong on each node and after a restart of all, eventual on the \
                   same node; nothing happens twice",
        run: repeated,
    },
    Row {
        name: "keys.over-a-crash",
        expected: "a compare-and-set whose leader is killed under it is repeated until it is answered: committed each \
                   time, never refused for what its first try did",
        run: over_a_crash,
    },
    Row {
        name: "keys.many",
        expected: "1,000,000 keyed writes (--writes) of 64 clients through one group: 0 refused; after them a write \
                   with a key, one without and the command line work",
        run: many,
    },
];

fn keyed<'a>(ask: Ask<'a>, key: &str) -> Ask<'a> {
    ask.header("Idempotency-Key", key)
}

fn post<'a>(path: String, body: &Value) -> Ask<'a> {
    Ask::new("POST", path).json(body)
}

/// The requests of a namespace that differ from a put of `one` under the key `x`.
fn others(namespace: &str, is_strong: bool) -> Vec<(&'static str, Ask<'static>)> {
    let batch = json!({ "writes": [{ "key": "y", "edits": [{ "put": "three" }] }] });
    let at_x = path(namespace, "kv/x");
    let mut all = vec![
        ("another value", Ask::new("PUT", at_x.clone()).raw("two")),
        ("another key", Ask::new("PUT", path(namespace, "kv/y")).raw("one")),
        ("another field", Ask::new("PUT", path(namespace, "kv/x?field=f")).raw("one")),
        ("another level", Ask::new("PUT", path(namespace, "kv/x?level=applied")).raw("one")),
        ("a deletion", Ask::new("DELETE", at_x.clone())),
        ("a batch", post(path(namespace, "batch"), &batch)),
    ];
    if is_strong {
        let body = json!({ "expected": { "value": "one" }, "value": "two" });
        all.push(("a compare-and-set", post(path(namespace, "cas/x"), &body)));
        all.push(("a condition", Ask::new("PUT", at_x).raw("one").header("If-None-Match", "*")));
    } else {
        all.push(("a member", post(path(namespace, "sets/y"), &json!({ "add": ["m"] }))));
        all.push(("a count", post(path(namespace, "counters/y"), &json!({ "add": 1 }))));
        let edits = json!({ "edits": [{ "field": "f", "put": "one" }] });
        all.push(("a record", post(path(namespace, "records/y"), &edits)));
    }
    all
}

/// Whether a namespace holds `one` under `x` and nothing else.
fn is_untouched(api: SocketAddr, namespace: &str) -> Check {
    let rows = Ask::get(path(namespace, "rows")).send(api);
    let body = rows.as_ref().map_or("", |rows| rows.body.trim());
    let expected = r#"{"key":"x","fields":[{"field":"","register":["one"]}]}"#;
    holds(body == expected, || format!("{namespace} holds {body}"))
}

fn reused(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let mut refused = 0;
    for (namespace, kind) in [("strong", "strong"), ("eventual", "eventual")] {
        make(nodes.all[0].api, namespace, kind)?;
        let first = keyed(Ask::new("PUT", path(namespace, "kv/x")).raw("one"), "k1");
        let answer = first.send(nodes.all[0].api);
        written(answer.as_ref(), || format!("the first put in {namespace}"))?;
        let answer = answer.map(|answer| answer.json());
        let asks = others(namespace, kind == "strong");
        for (number, (what, ask)) in asks.into_iter().enumerate() {
            // A node and a namespace know the keys of eventual writes, a group those of strong ones.
            let at = if kind == "strong" { number % ALL.len() } else { 0 };
            let other = keyed(ask, "k1").send(nodes.all[at].api);
            is(other.as_ref(), 422, "key_reused", || format!("{namespace}: {what} under its key"))?;
            refused += 1;
        }
        let again = first.send(nodes.all[0].api).map(|answer| answer.json());
        holds(answer == again, || format!("{answer:?}, and repeated {again:?}"))?;
        is_untouched(nodes.all[0].api, namespace)?;
    }
    refused += reused_in_the_registry(&nodes)?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{refused} other requests refused, nothing happened; {settled}"))
}

fn reused_in_the_registry(nodes: &Nodes) -> Check<u64> {
    let create = |name: &str| {
        let body = json!({ "name": name, "consistency": "strong" });
        keyed(Ask::new("POST", "/v1/namespaces").json(&body), "z")
    };
    let api = |at: usize| nodes.all[at].api;
    is(create("zz1").send(api(0)).as_ref(), 201, "", || "the creation of zz1".into())?;
    let other = create("zz2").send(api(1));
    is(other.as_ref(), 422, "key_reused", || "another creation under its key".into())?;
    let deletion = keyed(Ask::new("DELETE", "/v1/namespaces/zz1"), "z").send(api(2));
    is(deletion.as_ref(), 422, "key_reused", || "the deletion under its key".into())?;
    is(create("zz1").send(api(0)).as_ref(), 201, "", || "the creation of zz1 again".into())?;
    let there = |name: &str| Ask::get(format!("/v1/namespaces/{name}?consistent")).send(api(0));
    is(there("zz1").as_ref(), 200, "", || "the namespace zz1".into())?;
    is(there("zz2").as_ref(), 404, "unknown_namespace", || "the namespace zz2".into())?;
    Ok(2)
}

fn repeated(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "once", "strong")?;
    make(nodes.all[0].api, "often", "eventual")?;
    let cas = json!({ "expected": { "value": "a" }, "value": "b" });
    let batch = json!({ "writes": [{ "key": "q", "edits": [{ "put": "1" }] }] });
    let strong = [
        keyed(Ask::new("PUT", path("once", "kv/x")).raw("a"), "s1"),
        keyed(post(path("once", "cas/x"), &cas), "s2"),
        keyed(Ask::new("DELETE", path("once", "kv/x")), "s3"),
        keyed(post(path("once", "batch"), &batch), "s4"),
        keyed(post(path("once", "cas/absent"), &cas), "s5"),
    ];
    let first: Vec<_> = strong.iter().map(|ask| told(ask, nodes.all[0].api)).collect();
    let expected = [201, 200, 200, 200, 412];
    holds(first.iter().map(|(status, _)| *status).eq(expected), || {
        format!("the first answers are {first:?}")
    })?;
    let counts = json!({ "add": 5 });
    let count = keyed(post(path("often", "counters/c"), &counts), "e1");
    for _ in 0..3 {
        is(count.send(nodes.all[1].api).as_ref(), 200, "", || "a count".into())?;
    }
    let counted = Ask::get(path("often", "counters/c")).send(nodes.all[1].api);
    let counted = counted.map_or(Value::Null, |answer| answer.json()["value"].clone());
    holds(counted == 5, || format!("5 was counted three times under one key: {counted}"))?;
    let mut repeats = 3;
    for restarted in [false, true] {
        if restarted {
            nodes.restart(&ALL)?;
            nodes.all_serve(&ALL)?;
        }
        for at in ALL {
            let again: Vec<_> = strong.iter().map(|ask| told(ask, nodes.all[at].api)).collect();
            holds(first == again, || format!("first {first:?}, then on n{} {again:?}", at + 1))?;
            repeats += again.len();
        }
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{repeats} repeats, each with the first answer; {settled}"))
}

/// The status and the body of an answer.
fn told(ask: &Ask<'_>, api: SocketAddr) -> (u16, Value) {
    ask.send(api).map_or((0, Value::Null), |answer| (answer.status, answer.json()))
}

fn over_a_crash(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "chain", "strong")?;
    let start = Ask::new("PUT", path("chain", "kv/c")).raw("0").send(nodes.all[0].api);
    written(start.as_ref(), || "the first put".into())?;
    let (mut value, mut repeats) = (0, 0);
    let rounds = bench.rounds.min(10);
    for round in 0..rounds {
        let led = wait_for(SOON, || leader(&nodes, "chain"));
        let (victim, _) = led.ok_or("no node leads the group")?;
        for link in 0..2 * LINKS {
            if link == LINKS {
                let _ = nodes.all[victim].kill();
            }
            repeats += one_link(&nodes, value, (round as usize + link as usize) % ALL.len())?;
            value += 1;
        }
        nodes.all[victim].start();
        nodes.all[victim].answers()?;
        nodes.all_serve(&ALL)?;
    }
    let last = Ask::get(path("chain", "kv/c")).header("Accept", "application/octet-stream");
    let last = last.send(nodes.all[0].api).map(|answer| answer.body);
    holds(last.as_deref() == Some(&value.to_string()), || format!("{value} links, and {last:?}"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{value} links over {rounds} crashes, {repeats} repeats, none refused; {settled}"))
}

/// Adds one to the chain's value, and repeats that on one node after the other until it is answered. Returns the
/// number of repeats.
fn one_link(nodes: &Nodes, value: u64, first: usize) -> Check<u64> {
    let body = json!({
        "expected": { "value": value.to_string() },
        "value": (value + 1).to_string(),
    });
    let ask = keyed(post(path("chain", "cas/c"), &body), &format!("link-{value}"));
    let (watch, mut repeats) = (Stopwatch::start(), 0);
    loop {
        let answer = ask.send(nodes.all[(first + repeats as usize) % ALL.len()].api);
        match answer.as_ref().map(|answer| (answer.status, answer.code())) {
            Some((200, _)) => return Ok(repeats),
            // Nobody answers, or nobody leads: it is repeated.
            None | Some((503 | 504 | 429, _)) if watch.elapsed() < REPEATS => repeats += 1,
            _ => {
                let answer = brief(answer.as_ref());
                return Err(format!("link {value} is answered {answer} at repeat {repeats}"));
            }
        }
    }
}

/// How the writes of one client ended.
#[derive(Debug, Default)]
struct Wrote {
    committed: u64,
    refused: Vec<String>,
    last: Vec<Option<String>>,
}

fn many(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let (next, writes) = (AtomicU64::new(0), bench.writes);
    let watch = Stopwatch::start();
    let apis: Vec<SocketAddr> = nodes.all.iter().map(|node| node.api).collect();
    let wrote: Vec<Wrote> = std::thread::scope(|scope| {
        let client = |client: usize| {
            let (next, api) = (&next, apis[client % apis.len()]);
            scope.spawn(move || write_keyed(api, client, next, writes))
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        clients.into_iter().map(|one| one.join().expect("a client does not panic")).collect()
    });
    let seconds = watch.elapsed().as_secs_f64();
    let committed: u64 = wrote.iter().map(|one| one.committed).sum();
    let refused: Vec<&String> = wrote.iter().flat_map(|one| &one.refused).collect();
    for (client, one) in wrote.iter().enumerate() {
        for (place, value) in one.last.iter().enumerate() {
            if let Some(value) = value {
                book.put(STRONG, &place_of(client, place as u64), value, Answered::Committed);
            }
        }
    }
    holds(refused.is_empty(), || {
        format!("{committed} written, {} refused: {}", refused.len(), refused[0])
    })?;
    after_many(&nodes, &mut book)?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    let rate = committed as f64 / seconds;
    Ok(format!("{committed} keyed writes in {seconds:.1} s ({rate:.0}/s), 0 refused; {settled}"))
}

fn place_of(client: usize, place: u64) -> String {
    format!("many-{client:02}-{place:03}")
}

/// Takes numbers until `writes` are given out, and writes each under a key of its own.
fn write_keyed(api: SocketAddr, client: usize, next: &AtomicU64, writes: u64) -> Wrote {
    let mut wrote = Wrote { last: vec![None; PLACES as usize], ..Wrote::default() };
    let mut kept = Kept::open(api, PATIENCE);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= writes || wrote.refused.len() > 10 {
            return wrote;
        }
        let (place, value) = (number / CLIENTS as u64 % PLACES, format!("v{number}"));
        let ask = Ask::new("PUT", path(STRONG, &format!("kv/{}", place_of(client, place))));
        let ask = keyed(ask.raw(value.as_str()), &format!("many-{number}"));
        let answer = kept.as_mut().and_then(|kept| kept.ask(&ask));
        if answer.as_ref().is_some_and(Answer::is_ok) {
            wrote.committed += 1;
            wrote.last[place as usize] = Some(value);
        } else {
            wrote.refused.push(brief(answer.as_ref()));
            kept = Kept::open(api, PATIENCE);
        }
    }
}

/// Every client can write while the table of keys is full.
fn after_many(nodes: &Nodes, book: &mut Book) -> Check {
    for (at, node) in nodes.all.iter().enumerate() {
        let plain = Ask::new("PUT", path(STRONG, &format!("kv/plain-{at}"))).raw("v");
        written(plain.send(node.api).as_ref(), || "a write without a key".into())?;
        let with_key = Ask::new("PUT", path(STRONG, &format!("kv/keyed-{at}"))).raw("v");
        let with_key = keyed(with_key, &format!("after-{at}"));
        written(with_key.send(node.api).as_ref(), || "a write with a key".into())?;
        let (code, text) = node.cli(&["kv", "put", STRONG, &format!("cli-{at}"), "v"]);
        holds(code == Some(0), || format!("the command line ends with {code:?}: {text}"))?;
        for name in ["plain", "keyed", "cli"] {
            book.put(STRONG, &format!("{name}-{at}"), "v", Answered::Committed);
        }
    }
    Ok(())
}
