//! Tests of the router with a driver that answers from a table, and of whole connections over a pipe in memory.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderValue, Request as HttpRequest, StatusCode, header};
use bytes::Bytes;
use continuum_core::api::{
    Change, Context, Expected, Level, Namespace, Outcome, Policy, Query, Reason, Receipt, Register,
    Request, Row, Status, Unready, Value, Warning,
};
use continuum_core::id::{Address, Boot, GroupId, Index, Replica};
use continuum_core::limits::VALUE_BYTES_MAX;
use http_body_util::BodyExt as _;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::sync::watch;
use tower::Service as _;

use super::connections::{Bounds, Connections};
use super::input::BODY_BYTES_MAX;
use super::origin::Hosts;
use super::problem::KINDS;
use super::{Api, ROUTES, Route, router, serve, token};
use crate::handle::{COMMANDS_MAX, Command, Commands, channel};
use crate::metrics::{Figures, Metrics};

/// The requests that the driver received.
pub(super) type Seen = Arc<Mutex<Vec<Request>>>;

fn status(unready: Vec<Unready>) -> Status {
    Status {
        replica: Replica::default(),
        boot: Boot::default(),
        name: "n1".into(),
        address: Address("127.0.0.1:7400".into()),
        formed: true,
        genesis: None,
        undecided: None,
        formed_peers: Vec::new(),
        unready,
        warnings: vec![Warning::SnapshotRefused { group: GroupId(3), index: Index(7) }],
        groups: Vec::new(),
        shards: Vec::new(),
        memory_bytes: 7,
        requests: 0,
    }
}

/// Answers each request with `answer`, and records it.
pub(super) async fn drive(
    mut commands: Commands,
    answer: impl Fn(&Request) -> Outcome,
    unready: Vec<Unready>,
    seen: Seen,
) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Request { request, reply } => {
                let outcome = answer(&request);
                seen.lock().expect("no panic holds it").push(request);
                drop(reply.send(outcome));
            }
            Command::Status { reply } => drop(reply.send(status(unready.clone()))),
            Command::Namespaces { reply } => drop(reply.send(None)),
            Command::Figures { reply } => drop(reply.send(Figures::default())),
        }
    }
}

pub(super) struct World {
    api: Arc<Api>,
    seen: Seen,
}

impl World {
    pub(super) fn new(outcome: Outcome) -> Self {
        Self::unready(outcome, Vec::new())
    }

    fn unready(outcome: Outcome, unready: Vec<Unready>) -> Self {
        Self::with(move |_| outcome.clone(), unready)
    }

    pub(super) fn answering(answer: impl Fn(&Request) -> Outcome + Send + 'static) -> Self {
        Self::with(answer, Vec::new())
    }

    fn with(answer: impl Fn(&Request) -> Outcome + Send + 'static, unready: Vec<Unready>) -> Self {
        let (handle, commands) = channel();
        let seen = Seen::default();
        tokio::spawn(drive(commands, answer, unready, Arc::clone(&seen)));
        let api = Api::new(handle, Arc::new(Metrics::new()), Hosts::Local(Vec::new()));
        Self { api: Arc::new(api), seen }
    }

    /// Sends a request, meant for this node unless it names another host.
    pub(super) async fn send(&self, mut request: HttpRequest<Body>) -> Answer {
        let here = HeaderValue::from_static("127.0.0.1:7401");
        request.headers_mut().entry(header::HOST).or_insert(here);
        let response =
            router(Arc::clone(&self.api)).call(request).await.expect("a router never fails");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(super) async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let body = body.into();
        let length = hyper::body::Body::size_hint(&body).exact().unwrap_or(0);
        let mut builder = HttpRequest::builder().method(method).uri(path);
        if method == "POST" {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        let request = builder.header(header::CONTENT_LENGTH, length).body(body);
        self.send(request.expect("a request")).await
    }

    pub(super) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.seen.lock().expect("no panic holds it"))
    }
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The code, after a check of the body's form.
    pub(super) fn code(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let body = self.json();
        for member in ["type", "title", "code", "detail", "hint"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
        }
        assert_eq!(body["status"], self.status.as_u16());
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub(super) fn committed() -> Outcome {
    let receipt = Receipt { revision: Some(Index(17)), context: None, existed: true };
    Outcome::Committed { level: Level::Durable, receipt }
}

#[tokio::test]
async fn every_route_answers_with_json_or_a_problem() {
    let world = World::new(Outcome::Rejected(Reason::NoLeader));
    for Route { method, path, .. } in ROUTES {
        let path = path.replace("{namespace}", "ns").replace("{key}", "a%2Fb");
        let answer = world.ask(method, &path, "{").await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        if !answer.status.is_success() {
            let code = answer.code();
            assert!(KINDS.iter().any(|kind| kind.code == code), "{code}");
            assert_ne!(code, "unknown_route", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems() {
    let world = World::new(committed());
    let answer = world.ask("GET", "/v2/status", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "unknown_route"));
    let answer = world.ask("PATCH", "/v1/namespaces/ns/kv/key", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(answer.headers[header::ALLOW], "GET, PUT, DELETE, HEAD, OPTIONS");
    let answer = world.ask("OPTIONS", "/v1/namespaces", Body::empty()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.headers[header::ALLOW], "GET, POST, HEAD, OPTIONS");
    for path in ["/v1/namespaces/ns/kv/", "/v1/namespaces/ns/sets", "/v1/namespaces/ns/records/"] {
        let answer = world.ask("PUT", path, "v").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_request"));
        assert!(answer.json()["detail"].to_string().contains("1 to 1024 bytes"), "{path}");
    }
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn a_raw_put_keeps_every_byte() {
    let world = World::new(committed());
    let answer = world.ask("PUT", "/v1/namespaces/ns/kv/%FF%2F", &b"\xfe\x00"[..]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::ETAG], "\"r17\"");
    assert_eq!(answer.json()["revision"], 17);
    let asked = world.asked();
    let [Request::Write { namespace, mutations, level, session }] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!((namespace.as_str(), *level, session), ("ns", Level::Durable, &None));
    assert_eq!(mutations[0].key, Bytes::from_static(b"\xff/"));
    assert_eq!(mutations[0].edits[0].change, Change::Put(Bytes::from_static(b"\xfe\x00")));
}

#[tokio::test]
async fn no_page_of_another_origin_reaches_a_route() {
    let world = World::new(committed());
    let post = |kind: &str| {
        let request = HttpRequest::post("/v1/namespaces/facts/records/sky");
        request.header(header::CONTENT_TYPE, kind).header(header::CONTENT_LENGTH, 28)
    };
    let body = || Body::from("{\"edits\":[{\"delete\":true}]}");
    let json = || post("application/json");
    let refused = [
        (json().header("origin", "http://evil.example"), 403, "cross_origin"),
        (json().header("origin", "null"), 403, "cross_origin"),
        (json().header("sec-fetch-site", "cross-site"), 403, "cross_origin"),
        (json().header("host", "evil.example"), 421, "wrong_host"),
        (post("text/plain"), 415, "unsupported_media_type"),
        (post("application/x-www-form-urlencoded"), 415, "unsupported_media_type"),
        (post("application/json2"), 415, "unsupported_media_type"),
        (json().header("content-encoding", "gzip"), 415, "unsupported_media_type"),
    ];
    for (request, status, code) in refused {
        let answer = world.send(request.body(body()).expect("a request")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    for path in ["/livez", "/v1/nowhere"] {
        let request = HttpRequest::get(path).header("host", "evil.example").body(Body::empty());
        assert_eq!(world.send(request.expect("a request")).await.code(), "wrong_host");
    }
    assert!(world.asked().is_empty());
    let request = post("Application/JSON; charset=utf-8").body(body()).expect("a request");
    assert_eq!(world.send(request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn conditions_become_compare_and_set_or_a_context() {
    let world = World::new(committed());
    let seen = Context::from_bytes(Bytes::from_static(b"sealed"));
    let context_tag = format!("\"c{}\"", token::context(&seen));
    for (name, value) in
        [("if-match", "\"r3\""), ("if-none-match", "*"), ("if-match", &context_tag)]
    {
        let request =
            HttpRequest::put("/v1/namespaces/ns/kv/k?level=replicated:1").header(name, value);
        let request = request.header("idempotency-key", "once").body(Body::empty());
        assert_eq!(world.send(request.expect("a request")).await.status, StatusCode::OK);
    }
    let asked = world.asked();
    let mut sessions = std::collections::BTreeSet::new();
    let changes: Vec<_> = asked
        .iter()
        .map(|request| match request {
            Request::Write {
                mutations,
                level: Level::Replicated(1),
                session: Some(session),
                ..
            } => {
                sessions.insert(session.request);
                (mutations[0].edits[0].change.clone(), mutations[0].context.clone())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let cas = |expected| (Change::Cas { expected, value: Some(Bytes::new()) }, None);
    let expected = [
        cas(Expected::Revision(3)),
        cas(Expected::Absent),
        (Change::Put(Bytes::new()), Some(seen)),
    ];
    assert_eq!(changes, expected);
    assert_eq!(sessions.len(), 3, "a request with another condition is another request");
}

#[tokio::test]
async fn a_read_is_json_or_raw_and_absent_is_a_problem_with_its_context() {
    let value = Some(Bytes::from_static(b"blue"));
    let register = Register {
        value: value.clone(),
        siblings: value.into_iter().collect(),
        ..Register::default()
    };
    let world = World::new(Outcome::Value(Value::Register(register)));
    let answer = world.ask("GET", "/v1/namespaces/ns/kv/sky", Body::empty()).await;
    assert_eq!(answer.json()["value"], "blue");
    assert!(answer.json()["siblings"].is_null());
    let tag = answer.headers[header::ETAG].to_str().expect("ASCII").to_owned();
    assert!(token::parse_tag(&tag).is_some(), "{tag}");
    let raw =
        HttpRequest::get("/v1/namespaces/ns/kv/sky").header("accept", "application/octet-stream");
    assert_eq!(world.send(raw.body(Body::empty()).expect("a request")).await.body, "blue");

    let world = World::new(Outcome::Value(Value::Register(Register::default())));
    let answer = world.ask("GET", "/v1/namespaces/ns/kv/sky", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "absent"));
    assert!(answer.json()["context"].is_string());
}

#[tokio::test]
async fn rows_are_lines_with_a_cursor() {
    let row = |key| Row { key: Bytes::from_static(key), fields: Vec::new() };
    let world =
        World::new(Outcome::Value(Value::Rows { rows: vec![row(b"a"), row(b"b")], more: true }));
    let answer = world.ask("GET", "/v1/namespaces/ns/rows?limit=2", Body::empty()).await;
    assert_eq!(answer.body, "{\"key\":\"a\",\"fields\":[]}\n{\"key\":\"b\",\"fields\":[]}\n");
    assert_eq!(answer.headers["continuum-more"], "true");
    let next = answer.headers["continuum-next"].to_str().expect("ASCII");
    world.asked();
    world.ask("GET", &format!("/v1/namespaces/ns/rows?after={next}"), Body::empty()).await;
    let asked = world.asked();
    let query = Query::Rows { after: Some(Bytes::from_static(b"b")), limit: 1000 };
    assert_eq!(asked, [Request::Read { namespace: "ns".into(), query }]);
}

#[tokio::test]
async fn malformed_json_is_located_and_never_reaches_the_core() {
    let world = World::new(committed());
    for (path, body, location) in [
        ("/v1/namespaces", "{\"name\":\"a\",\n\"consistency\":\"weak\"}", "line 2"),
        (
            "/v1/namespaces/ns/batch",
            "{\"writes\":[{\"key\":\"a\",\"edits\":[{}]}]}",
            "writes[0].edits[0]",
        ),
        ("/v1/namespaces/ns/sets/tags", "{\"add\":\"wet\"}", "line 1 column 12"),
        ("/v1/namespaces/ns/counters/visits", "", "empty"),
    ] {
        let answer = world.ask("POST", path, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "malformed_json"),
            "{path}"
        );
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(location), "{detail}");
    }
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_or_without_a_length() {
    let world = World::new(committed());
    let path = "/v1/namespaces/ns/kv/key";
    let answer = world.ask("PUT", path, vec![0; BODY_BYTES_MAX + 1]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "body_too_large"));
    let chunked = HttpRequest::put(path).header(header::TRANSFER_ENCODING, "chunked");
    let request = chunked.body(Body::from(vec![0; BODY_BYTES_MAX + 1])).expect("a request");
    assert_eq!(world.send(request).await.code(), "body_too_large");
    assert!(world.asked().is_empty());
    // The core refuses a value over its own limit, and its refusal is the answer.
    let limit = VALUE_BYTES_MAX as u64;
    let what = continuum_core::api::Bound::Value;
    let world = World::new(Outcome::Rejected(Reason::OutOfBounds { what, limit }));
    let answer = world.ask("PUT", path, vec![0; VALUE_BYTES_MAX + 1]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "value_too_large"));
    assert_eq!(answer.json()["limit"], limit);
}

#[tokio::test]
async fn a_full_queue_is_429_and_an_unknown_outcome_504() {
    let (handle, mut commands) = channel();
    let mut waiting = Vec::new();
    for _ in 0..COMMANDS_MAX {
        let mut question = Box::pin(handle.request(Request::Members));
        // One poll puts it into the queue.
        tokio::select! {
            biased;
            _ = &mut question => {}
            () = std::future::ready(()) => {}
        }
        waiting.push(question);
    }
    let api =
        Arc::new(Api::new(handle.clone(), Arc::new(Metrics::new()), Hosts::Local(Vec::new())));
    let world = World { api, seen: Seen::default() };
    let answer = world.ask("GET", "/v1/members", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "busy"));
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    // A probe has a place in the queue all the same.
    let driver = async {
        for _ in 0..COMMANDS_MAX {
            assert!(matches!(commands.recv().await, Some(Command::Request { .. })));
        }
        let Some(Command::Status { reply }) = commands.recv().await else { panic!("no probe") };
        drop(reply.send(status(Vec::new())));
    };
    let (answer, ()) = tokio::join!(world.ask("GET", "/livez", Body::empty()), driver);
    assert_eq!(answer.status, StatusCode::OK);
    drop(commands);
    let answer = world.ask("GET", "/v1/members", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "stopping"));

    let world = World::new(Outcome::Unknown { reached: None });
    let answer = world.ask("PUT", "/v1/namespaces/ns/kv/key", "v").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "unknown_outcome"));
}

#[tokio::test]
async fn readiness_names_its_reasons() {
    let world = World::unready(committed(), vec![Unready::NoLeader, Unready::DiskFull]);
    let answer = world.ask("GET", "/readyz", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "not_ready"));
    assert_eq!(answer.json()["reasons"], serde_json::json!(["no_leader", "disk_full"]));
    assert_eq!(world.ask("GET", "/livez", Body::empty()).await.status, StatusCode::OK);
    let halted = Unready::GroupHalted { group: GroupId(3), index: Index(7) };
    let answer =
        World::unready(committed(), vec![halted]).ask("GET", "/readyz", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "not_ready"));
    let json = answer.json();
    assert_eq!(json["serves"], serde_json::json!(["eventual"]));
    assert_eq!(json["reasons"], serde_json::json!(["group_halted"]));
    assert_eq!(json["halted"], serde_json::json!([{ "group": 3, "index": 7 }]));
    let world = World::unready(committed(), vec![Unready::NoLeader]);
    let answer = world.ask("GET", "/readyz", Body::empty()).await;
    assert_eq!(answer.status, StatusCode::OK, "eventual memory is served");
    let answer = world.ask("GET", "/readyz?strong", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "not_ready"));
    assert_eq!(answer.json()["serves"], serde_json::json!(["eventual"]));
    assert!(answer.json()["hint"].as_str().is_some_and(|hint| hint.contains("voters")));
    for (query, expected) in [("?strong=false", 200), ("?strnog", 400), ("?strong=x", 400)] {
        let answer = world.ask("GET", &format!("/readyz{query}"), Body::empty()).await;
        assert_eq!(answer.status.as_u16(), expected, "{query}");
    }
    let world = World::unready(committed(), vec![Unready::Fenced]);
    assert_eq!(
        world.ask("GET", "/livez", Body::empty()).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let world = World::new(committed());
    let answer = world.ask("GET", "/readyz", Body::empty()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let warnings = answer.json()["warnings"].clone();
    assert_eq!(
        (&warnings[0]["code"], warnings.as_array().map(Vec::len)),
        (&"snapshot_refused".into(), Some(1))
    );
    assert!(warnings[0]["hint"].as_str().is_some_and(|hint| hint.contains("same version")));
    let page = world.ask("GET", "/metrics", Body::empty()).await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("continuum_http_requests_total"), "{page}");
    assert!(page.contains("continuum_ready{memory=\"strong\"} 1"), "{page}");
    assert!(page.contains("continuum_warning{code=\"snapshot_refused\"} 1"), "{page}");
    assert!(!page.contains("# EOF") && page.contains("# TYPE continuum_build_info gauge"));
}

#[tokio::test]
async fn an_unknown_namespace_is_named_in_the_problem() {
    let facts = Namespace {
        id: continuum_core::id::NamespaceId(1),
        name: "facts".into(),
        policy: Policy::Strong,
        group: None,
    };
    let world = World::new(Outcome::Value(Value::Namespaces(vec![facts])));
    let answer = world.ask("GET", "/v1/namespaces/facts", Body::empty()).await;
    assert_eq!(answer.json()["consistency"], "strong");
    let answer = world.ask("GET", "/v1/namespaces/fiction", Body::empty()).await;
    assert_eq!(answer.code(), "unknown_namespace");
    assert!(answer.json()["detail"].to_string().contains("`fiction`"));
}

/// Serves a connection over a pipe, and returns the client's end.
fn connect(world: &World) -> (tokio::io::DuplexStream, watch::Sender<bool>) {
    let (client, server) = duplex(1 << 16);
    let (stop, stopped) = watch::channel(false);
    let router = router(Arc::clone(&world.api));
    tokio::spawn(async move {
        let place = Connections::new(Bounds::default()).admit(Ipv4Addr::LOCALHOST.into());
        serve::http(server, token::Client::default(), router, &place, stopped).await
    });
    (client, stop)
}

#[tokio::test]
async fn a_connection_is_kept_and_ends_when_the_node_stops() {
    let world = World::new(committed());
    let (mut client, stop) = connect(&world);
    for _ in 0..2 {
        client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = vec![0; 1024];
        let read = client.read(&mut rest).await.expect("its rest");
        assert!(rest[..read].ends_with(b"{\"live\":true}"));
    }
    stop.send_replace(true);
    assert_eq!(client.read(&mut [0; 1]).await.expect("an end"), 0);
}

#[tokio::test]
async fn garbage_is_answered_with_400_and_closed() {
    let world = World::new(committed());
    let (mut client, _stop) = connect(&world);
    client.write_all(b"\x16\x03\x01\x02\x00garbage\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("an end");
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    assert!(world.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_answered_and_its_memory_freed() {
    let world = World::new(committed());
    let (mut client, _stop) = connect(&world);
    let head = "PUT /v1/namespaces/ns/kv/key HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4194304\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("written");
    let begun = tokio::time::Instant::now();
    let writing = async {
        // Fast at first: that earns no slow end.
        for _ in 0..16 {
            client.write_all(&[b'v'; 64 << 10]).await.expect("written");
        }
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an end");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = writing.await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("body_timeout"), "{answer}");
    assert!(begun.elapsed().as_secs() <= 10, "{:?}", begun.elapsed());
    assert!(world.asked().is_empty());
    assert!(world.api.bodies.is_unused());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_too_slowly_is_closed_and_its_answer_freed() {
    let row = Row { key: Bytes::from(vec![0; 1 << 20]), fields: Vec::new() };
    let world = World::new(Outcome::Value(Value::Rows { rows: vec![row], more: false }));
    let (mut client, _stop) = connect(&world);
    let head = "GET /v1/namespaces/ns/rows HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("written");
    let mut read = 0;
    let mut scratch = [0; 512];
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        match client.read(&mut scratch).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => read += bytes,
        }
        assert!(read < 1 << 20, "an answer of 6 MiB at 5 KiB a second is cut off");
    }
    assert!(world.api.answers.is_unused());
}

#[tokio::test]
async fn answers_past_the_budget_are_refused_and_small_ones_are_not() {
    let row = Row { key: Bytes::from(vec![0; 1 << 20]), fields: Vec::new() };
    let world = World::new(Outcome::Value(Value::Rows { rows: vec![row], more: false }));
    let mut unread = Vec::new();
    let refused = loop {
        let request = HttpRequest::get("/v1/namespaces/ns/rows").header("host", "localhost");
        let request = request.body(Body::empty()).expect("a request");
        let response = router(Arc::clone(&world.api)).call(request).await.expect("no failure");
        if response.status() != StatusCode::OK {
            break response;
        }
        unread.push(response);
        assert!(unread.len() < 100, "100 answers of 6 MiB fit into no budget");
    };
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.ask("GET", "/readyz", Body::empty()).await.status, StatusCode::OK);
    unread.clear();
    let answer = world.ask("GET", "/v1/namespaces/ns/rows", Body::empty()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::CONTENT_LENGTH], answer.body.len().to_string());
}

#[tokio::test]
async fn an_answer_that_may_not_fit_is_refused_before_it_is_made() {
    // A mebibyte of letters stays one in JSON, and only the finished answer shows that.
    let row = Row { key: Bytes::from(vec![b'a'; 1 << 20]), fields: Vec::new() };
    let world = World::new(Outcome::Value(Value::Rows { rows: vec![row], more: false }));
    let mut held = world.api.answers.open();
    held.charge(123 << 20).expect("room");
    let answer = world.ask("GET", "/v1/namespaces/ns/rows", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "busy"));
    drop(held);
    let answer = world.ask("GET", "/v1/namespaces/ns/rows", Body::empty()).await;
    assert_eq!(answer.status, StatusCode::OK);
    drop(answer);
    assert!(world.api.answers.is_unused());
}
