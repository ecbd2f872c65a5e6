//! The words of answers: each misuse is told by its own name, and no value is changed on its way.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{ALL, begin, finish, is, make, path, written};
use crate::federation::{Nodes, Ran};
use crate::http::Ask;
use crate::row::{Bench, Check, Row, holds, pause};

/// Bytes that a request's body may have, and one more mebibyte.
const TOO_LARGE: usize = 5 << 20;
/// Large bodies, one after the other.
const LARGE_BODIES: usize = 20;
/// The smallest number that a reader with 53 bits of precision takes for another.
const PAST_53_BITS: i64 = 9_007_199_254_740_993;
/// A federation with a replaced node is watched for this long.
const WATCHED: Duration = Duration::from_secs(20);
/// Lines about the replaced node in each log meanwhile: 16 at once and then one every 10 s, of two reasons.
const LINES_MAX: usize = 40;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "words.too-large",
        expected: "a client that writes 5 MB before it reads gets 413 body_too_large each of 20 times, with and \
                   without a length, and the next request works",
        run: too_large,
    },
    Row {
        name: "words.numbers",
        expected: "counters past 2^53 are strings of digits in each answer, and go in as numbers and as strings",
        run: numbers,
    },
    Row {
        name: "words.keys",
        expected: "an empty key, `.` and `..`, a parameter given twice and a wrong method are each told; keys with a \
                   dash work, and `kv get --raw` is byte for byte",
        run: keys,
    },
    Row {
        name: "words.deletions",
        expected: "a deletion says whether something was there: HTTP, command line, strong and eventual",
        run: deletions,
    },
    Row {
        name: "words.bodies",
        expected: "a JSON document put is the value and comes back; Content-Encoding is 415; what the node does not \
                   have in replicas is 422 before anything is written, replicated:0 is durable",
        run: bodies,
    },
    Row {
        name: "words.operators",
        expected: "`cluster status` names namespaces; a host name in peer.listen is told with peer.advertise; SIGHUP \
                   ends no node",
        run: operators,
    },
    Row {
        name: "words.replaced-node",
        expected: "a new node at the address of a dead one joins; in 20 s the others log at most 40 lines about it",
        run: replaced_node,
    },
];

fn too_large(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "big", "eventual")?;
    let body = vec![b'v'; TOO_LARGE];
    for number in 0..LARGE_BODIES {
        let api = nodes.all[number % ALL.len()].api;
        let answer = if number % 2 == 0 {
            Ask::new("PUT", path("big", "kv/k")).raw(body.clone()).send(api)
        } else {
            let head = format!(
                "PUT {} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                path("big", "kv/k"),
                body.len()
            );
            let request = [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            crate::http::exchange(api, &request, crate::http::PATIENCE)
        };
        is(answer.as_ref(), 413, "body_too_large", || format!("body {number} of 5 MB"))?;
        let next = Ask::new("PUT", path("big", "kv/small")).raw("v").send(api);
        written(next.as_ref(), || "the next request".into())?;
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{LARGE_BODIES} of {LARGE_BODIES} clients read 413; {settled}"))
}

fn numbers(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "n", "eventual")?;
    let digits = PAST_53_BITS.to_string();
    for (key, amount) in [("a", json!(PAST_53_BITS)), ("b", json!(digits))] {
        let add = json!({ "add": amount });
        let answer = Ask::new("POST", path("n", &format!("counters/{key}"))).json(&add);
        is(answer.send(nodes.all[0].api).as_ref(), 200, "", || format!("a count of {amount}"))?;
        let json = |part: String| {
            Ask::get(path("n", &part)).send(nodes.all[0].api).map_or(Value::Null, |a| a.json())
        };
        let found = [
            json(format!("counters/{key}"))["value"].clone(),
            json(format!("records/{key}"))["fields"][0]["counter"].clone(),
        ];
        holds(found == [json!(digits), json!(digits)], || format!("{key} is told as {found:?}"))?;
        let Ran { out, .. } = nodes.all[0].run(&["counter", "get", "n", key], b"");
        holds(out.trim_ascii() == digits.as_bytes(), || {
            format!("the command line prints {out:?}")
        })?;
    }
    let small = Ask::new("POST", path("n", "counters/small")).json(&json!({ "add": 3 }));
    is(small.send(nodes.all[0].api).as_ref(), 200, "", || "a count of 3".into())?;
    let small = Ask::get(path("n", "counters/small")).send(nodes.all[0].api);
    let small = small.map_or(Value::Null, |answer| answer.json()["value"].clone());
    holds(small == json!(3), || format!("3 is told as {small}"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("\"{digits}\" everywhere; {settled}"))
}

/// A request with the status and the code of its answer, and words that the answer must have.
type Told<'a> = (&'a str, Ask<'static>, u16, &'a str, &'a str);

/// Each is answered so, on each node.
fn all_told(nodes: &Nodes, asks: &[Told<'_>]) -> Check {
    for (number, (what, ask, status, code, words)) in asks.iter().enumerate() {
        let answer = ask.send(nodes.all[number % ALL.len()].api);
        is(answer.as_ref(), *status, code, || (*what).to_owned())?;
        let body = answer.map(|answer| answer.body).unwrap_or_default();
        holds(body.contains(words), || format!("{what}: `{words}` is not in {body}"))?;
    }
    Ok(())
}

fn keys(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "s", "strong")?;
    let ask = |method: &'static str, part: &str| Ask::new(method, path("s", part)).raw("v");
    let get = |part: &str| Ask::get(path("s", part));
    let dots = json!({ "writes": [{ "key": ".", "edits": [{ "put": "one" }] },
                                  { "key": "..", "edits": [{ "put": "two" }] }] });
    let empty = json!({ "writes": [{ "key": "", "edits": [{ "put": "one" }] }] });
    let batch = |body: &Value| Ask::new("POST", path("s", "batch")).json(body);
    let asks: &[Told<'_>] = &[
        ("an empty key", ask("PUT", "kv/"), 400, "invalid_request", "1 to 1024 bytes"),
        ("an empty key in a batch", batch(&empty), 400, "malformed_json", "1 to 1024 bytes"),
        (
            "a long key",
            ask("PUT", &format!("kv/{}", "k".repeat(1025))),
            413,
            "value_too_large",
            "1024",
        ),
        ("a path with dots", ask("DELETE", "kv/../../victim"), 404, "unknown_route", "`..`"),
        ("two limits", get("keys?limit=1&limit=2"), 400, "invalid_request", "given twice"),
        ("no limit", get("keys?limit=0"), 400, "invalid_request", "1 to 1000"),
        ("an unknown parameter", get("keys?limits=1"), 400, "invalid_request", "limits"),
        ("a wrong method", ask("PATCH", "kv/k"), 405, "method_not_allowed", "GET, PUT, DELETE"),
        ("a broken escape", get("kv/%4"), 400, "invalid_request", "%"),
        ("keys of dots", batch(&dots), 200, "", "revision"),
    ];
    all_told(&nodes, asks)?;
    let node = &nodes.all[1];
    let bytes: Vec<u8> = (0..=255).chain([b'\n', 0, b'\r']).collect();
    for key in ["-k", "--", ".", "..", "a/b", "%"] {
        let put = node.run(&["kv", "put", "s", key, "-"], &bytes);
        let put =
            if key == "--" { node.run(&["kv", "put", "s", "--", key, "-"], &bytes) } else { put };
        holds(put.code == Some(0), || format!("kv put of `{key}`: {:?} {}", put.code, put.err))?;
        let mut words = vec!["kv", "get", "--raw", "s"];
        words.extend((key == "--").then_some("--"));
        words.push(key);
        let got = node.run(&words, b"");
        holds(got.out == bytes, || {
            format!("kv get --raw of `{key}`: {} bytes, {:?} {}", got.out.len(), got.code, got.err)
        })?;
    }
    let Ran { code, err, .. } = node.run(&["kv", "put", "s", "", "x"], b"");
    holds(code == Some(2) && err.contains("the key is empty"), || format!("{code:?}: {err}"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{} misuses told by name, 6 odd keys work; {settled}", asks.len()))
}

fn deletions(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let mut told = Vec::new();
    for (name, kind) in [("s", "strong"), ("e", "eventual")] {
        make(nodes.all[0].api, name, kind)?;
        let put = Ask::new("PUT", path(name, "kv/there")).raw("v").send(nodes.all[0].api);
        is(put.as_ref(), 201, "", || "a put of a new key".into())?;
        for key in ["there", "there", "never"] {
            let answer =
                Ask::new("DELETE", path(name, &format!("kv/{key}"))).send(nodes.all[0].api);
            is(answer.as_ref(), 200, "", || format!("the deletion of {key}"))?;
            told.push(answer.map_or(Value::Null, |answer| answer.json()["existed"].clone()));
        }
        let Ran { code, out, err } = nodes.all[0].run(&["kv", "del", name, "never"], b"");
        let text = String::from_utf8_lossy(&out).into_owned() + &err;
        holds(code == Some(1) || text.contains("nothing") || text.contains("absent"), || {
            format!("`kv del` of an absent key ends with {code:?}: {text}")
        })?;
    }
    let expected = [true, false, false].repeat(2);
    holds(told.iter().map(Value::as_bool).eq(expected.iter().map(|one| Some(*one))), || {
        format!("deletions say {told:?}")
    })?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("existed: true, then false; {settled}"))
}

fn bodies(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    for (name, kind) in [("s", "strong"), ("e", "eventual")] {
        make(nodes.all[0].api, name, kind)?;
        for document in [json!({ "a": 1 }), json!({ "value": "x" }), json!(["value"])] {
            let put = Ask::new("PUT", path(name, "kv/doc")).json(&document);
            written(put.send(nodes.all[0].api).as_ref(), || format!("a put of {document}"))?;
            let get = Ask::get(path(name, "kv/doc")).header("Accept", "application/octet-stream");
            let body = get.send(nodes.all[0].api).map(|answer| answer.body).unwrap_or_default();
            let sent = document.to_string();
            holds(body == sent, || format!("{document} comes back as {body}"))?;
        }
        let packed = Ask::new("PUT", path(name, "kv/gz")).raw("\u{1f}");
        let packed = packed.header("Content-Encoding", "gzip").send(nodes.all[0].api);
        is(packed.as_ref(), 415, "unsupported_media_type", || "a packed body".into())?;
        let ask =
            |level: &str| Ask::new("PUT", path(name, &format!("kv/l?level={level}"))).raw("v");
        let nine = ask("replicated:9").send(nodes.all[0].api);
        is(nine.as_ref(), 422, "out_of_bounds", || "nine replicas of three".into())?;
        let absent = Ask::get(path(name, "kv/l")).send(nodes.all[0].api);
        is(absent.as_ref(), 404, "absent", || "what was refused".into())?;
        let none = ask("replicated:0").send(nodes.all[0].api);
        written(none.as_ref(), || "no replica".into())?;
        let level = none.map_or(Value::Null, |answer| answer.json()["level"].clone());
        holds(level == "durable" || level == "replicated:0", || format!("its level is {level}"))?;
        let wrong = ask("durabel").send(nodes.all[0].api);
        is(wrong.as_ref(), 400, "invalid_request", || "a level of no name".into())?;
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("documents come back as they are; 415, 422 before a write, 400; {settled}"))
}

fn operators(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let (code, text) = nodes.all[2].cli(&["cluster", "status"]);
    let named = [crate::book::STRONG, crate::book::EVENTUAL, "registry"];
    holds(code == Some(0) && named.iter().all(|name| text.contains(name)), || {
        format!("`cluster status` ends with {code:?}: {text}")
    })?;
    let mut command = Command::new(&bench.binary);
    command.args(["node", "start", "--set", "peer.listen=node.example:7400"]);
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    holds(output.status.code() == Some(2) && err.contains("peer.advertise"), || {
        format!("a name in peer.listen: {:?}, {err}", output.status.code())
    })?;
    for at in ALL {
        nodes.all[at].signal("HUP");
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    for at in ALL {
        let ended = nodes.all[at].ended();
        holds(ended.is_none(), || format!("n{} ended with {ended:?} at SIGHUP", at + 1))?;
    }
    Ok(format!("named, told, and no node ended; {settled}"))
}

fn replaced_node(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let _ = nodes.all[2].kill();
    nodes.add();
    let (peer, bootstrap) = (nodes.all[2].peer, nodes.all[2].bootstrap.clone());
    let new = &mut nodes.all[3];
    (new.peer, new.bootstrap) = (peer, bootstrap);
    nodes.start(&[3])?;
    nodes.all[3].becomes_ready().map_err(|error| format!("it does not join: {error}"))?;
    let lines = |nodes: &Nodes| [0, 1, 3].map(|at| nodes.all[at].log_lines(&[" WARN "]));
    let before = lines(&nodes);
    pause(WATCHED);
    let after = lines(&nodes);
    let grown: Vec<usize> = after.iter().zip(before).map(|(now, then)| now - then).collect();
    holds(grown.iter().all(|lines| *lines <= LINES_MAX), || {
        format!("the logs grew by {grown:?} lines in {} s", WATCHED.as_secs())
    })?;
    let who = [0, 1, 3];
    nodes.all_serve(&who)?;
    crate::writers::must_write(&mut book, &nodes, &who, "-after")?;
    let settled = crate::writers::settle(bench, &nodes, &who, &book)?;
    Ok(format!("it joined; the logs grew by {grown:?} lines; {settled}"))
}
