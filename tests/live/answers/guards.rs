//! Guards of the HTTP API: pages in browsers, and requests that no client should send.

use std::net::SocketAddr;

use serde_json::json;

use super::{begin, finish, is, make, path, written};
use crate::http::{Answer, Ask, PATIENCE, brief, exchange};
use crate::row::{Bench, Check, Row, holds};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "guards.pages",
        expected: "what a page of another origin can send (a foreign Host, Origin, Sec-Fetch-Site, a simple media \
                   type) is 421, 403 or 415 on each route that changes something, and nothing is changed",
        run: pages,
    },
    Row {
        name: "guards.heads",
        expected: "no or two Hosts, two lengths, unknown codings and expectations, lists for objects: refused as RFC \
                   9112 says, and nothing is stored",
        run: heads,
    },
];

/// Requests that change something, with the body that does it.
fn changes(namespace: &str) -> Vec<(&'static str, String, String)> {
    let put = json!({ "writes": [{ "key": "sky", "edits": [{ "put": "red" }] }] }).to_string();
    let delete = json!({ "edits": [{ "delete": true }] }).to_string();
    let new = json!({ "name": "evil", "consistency": "strong" }).to_string();
    vec![
        ("POST", path(namespace, "records/sky"), delete),
        ("POST", path(namespace, "batch"), put),
        ("POST", path(namespace, "sets/s"), json!({ "add": ["x"] }).to_string()),
        ("POST", path(namespace, "counters/c"), json!({ "add": 1 }).to_string()),
        ("POST", "/v1/namespaces".into(), new),
        ("POST", "/v1/init".into(), "{}".into()),
        ("PUT", path(namespace, "kv/sky"), "red".into()),
        ("DELETE", path(namespace, "kv/sky"), String::new()),
        ("DELETE", format!("/v1/namespaces/{namespace}"), String::new()),
    ]
}

fn raw(api: SocketAddr, line: &str, head: &str, body: &str) -> Option<Answer> {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
    );
    exchange(api, request.as_bytes(), PATIENCE)
}

fn pages(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "page", "eventual")?;
    let api = nodes.all[0].api;
    let blue = Ask::new("PUT", path("page", "kv/sky")).raw("blue").send(api);
    written(blue.as_ref(), || "a put".into())?;
    let before = Ask::get(path("page", "rows")).send(api).map(|answer| answer.body);
    let host = format!("Host: {api}\r\n");
    let kind = "Content-Type: application/json\r\n";
    let foreign = [
        (format!("Host: evil.example\r\n{kind}"), 421, "wrong_host"),
        (format!("Host: 127.0.0.1.evil.example\r\n{kind}"), 421, "wrong_host"),
        (format!("Host: 192.0.2.1\r\n{kind}"), 421, "wrong_host"),
        (format!("{host}{kind}Origin: http://evil.example\r\n"), 403, "cross_origin"),
        (format!("{host}{kind}Origin: null\r\n"), 403, "cross_origin"),
        (format!("{host}{kind}Origin: http://127.0.0.1:1\r\n"), 403, "cross_origin"),
        (format!("{host}{kind}Sec-Fetch-Site: cross-site\r\n"), 403, "cross_origin"),
        (format!("{host}{kind}Sec-Fetch-Site: same-site\r\n"), 403, "cross_origin"),
    ];
    let mut refused = 0;
    for (method, at, body) in changes("page") {
        let line = format!("{method} {at}");
        for (head, status, code) in &foreign {
            let answer = raw(api, &line, head, body.as_str());
            is(answer.as_ref(), *status, code, || format!("{line} with {head:?}"))?;
            refused += 1;
        }
        // A form sends one of these without asking the node first.
        for simple in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            if method == "POST" {
                let head = format!("{host}Content-Type: {simple}\r\n");
                let answer = raw(api, &line, &head, body.as_str());
                is(answer.as_ref(), 415, "unsupported_media_type", || format!("{line}, {simple}"))?;
                refused += 1;
            }
        }
    }
    for (at, (head, status, code)) in ["/v1/status", "/metrics", "/livez"].iter().zip(&foreign) {
        let answer = raw(api, &format!("GET {at}"), head, "");
        is(answer.as_ref(), *status, code, || format!("GET {at} with {head:?}"))?;
    }
    let asked =
        raw(api, "OPTIONS /v1/namespaces", &format!("{host}Origin: http://evil.example\r\n"), "");
    let allows = asked.as_ref().is_some_and(|a| a.header("access-control-allow-origin").is_some());
    holds(!allows, || format!("a preflight is answered {}", brief(asked.as_ref())))?;
    let after = Ask::get(path("page", "rows")).send(api).map(|answer| answer.body);
    holds(before == after, || format!("rows were {before:?} and are {after:?}"))?;
    let evil = Ask::get("/v1/namespaces/evil?consistent").send(api);
    is(evil.as_ref(), 404, "unknown_namespace", || "the namespace of the page".into())?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{refused} requests refused, nothing changed; {settled}"))
}

fn heads(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    make(nodes.all[0].api, "raw", "eventual")?;
    let api = nodes.all[0].api;
    let host = format!("Host: {api}\r\nConnection: close\r\n");
    let put = |head: &str, body: &str| {
        format!("PUT {} HTTP/1.1\r\n{host}{head}\r\n{body}", path("raw", "kv/k"))
    };
    let post = |body: &str| {
        let at = path("raw", "batch");
        let kind = "Content-Type: application/json\r\n";
        format!("POST {at} HTTP/1.1\r\n{host}{kind}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let three = "Content-Length: 3\r\n";
    let asks = [
        ("no Host", "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("two Hosts", put(&format!("Host: {api}\r\n{three}"), "now"), 400),
        ("two lengths", put("Content-Length: 3\r\nContent-Length: 4\r\n", "now!"), 400),
        (
            "a length and chunks",
            put(&format!("{three}Transfer-Encoding: chunked\r\n"), "3\r\nnow\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a packed coding",
            put("Transfer-Encoding: gzip, chunked\r\n", "3\r\nnow\r\n0\r\n\r\n"),
            501,
        ),
        ("an unknown expectation", put(&format!("Expect: 200-ok\r\n{three}"), "now"), 417),
        (
            "two keys",
            put(&format!("Idempotency-Key: a\r\nIdempotency-Key: b\r\n{three}"), "now"),
            400,
        ),
        (
            "two conditions",
            put(&format!("If-Match: \"r1\"\r\nIf-None-Match: *\r\n{three}"), "now"),
            400,
        ),
        ("a list for an object", post("[[\"k\",[]]]"), 400),
        ("a list for a write", post("{\"writes\":[[\"k\",[{\"put\":\"1\"}]]]}"), 400),
        ("a member twice", post("{\"writes\":[],\"writes\":[]}"), 400),
        (
            "an unknown member",
            post("{\"writes\":[{\"key\":\"k\",\"edits\":[{\"putt\":\"1\"}]}]}"),
            400,
        ),
        ("no number", post("{\"writes\":[{\"key\":\"k\",\"edits\":[{\"count\":1e400}]}]}"), 400),
    ];
    for (what, request, status) in &asks {
        let answer = exchange(api, request.as_bytes(), PATIENCE);
        let found = answer.as_ref().map_or(0, |answer| answer.status);
        holds(found == *status, || format!("{what} is answered {}", brief(answer.as_ref())))?;
    }
    let rows = Ask::get(path("raw", "rows")).send(api).map(|answer| answer.body);
    holds(rows.as_deref() == Some(""), || format!("a refused request stored {rows:?}"))?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{} requests refused, nothing stored; {settled}", asks.len()))
}
