//! Tests of the API as HTTP has it: conditions, representations, pages, locations.

use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode, header};
use bytes::Bytes;
use continuum_core::api::{
    Change, Context, Expected, ExportCursor, ExportPage, Level, Outcome, Query, Reason, Receipt,
    Register, Request, Row, Value,
};
use continuum_core::id::{ExportId, Index};
use serde_json::json;

use super::tests::{Answer, World, committed};
use super::token::{self, Tag};
use super::{ROUTES, Route, media};

const KEY: &str = "/v1/namespaces/ns/kv/sky";

fn register(revision: u64) -> Outcome {
    let value = Some(Bytes::from_static(b"{\"a\":1}"));
    let revision = Some(Index(revision));
    Outcome::Value(Value::Register(Register { value, revision, ..Register::default() }))
}

async fn send(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = HttpRequest::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::empty()).expect("a request")).await
}

/// The conditions of the writes that the core saw.
fn conditions(world: &World) -> Vec<Option<Expected>> {
    let asked = world.asked();
    let writes = asked.iter().filter_map(|request| match request {
        Request::Write { mutations, .. } => Some(&mutations[0].edits[0].change),
        _ => None,
    });
    let expected = |change: &Change| match change {
        Change::Cas { expected, .. } => Some(expected.clone()),
        _ => None,
    };
    writes.map(expected).collect()
}

/// Answers reads with a value of revision 5, and commits writes.
fn at_revision_5() -> World {
    World::answering(|request| match request {
        Request::Read { .. } => register(5),
        _ => committed(),
    })
}

#[tokio::test]
async fn a_list_of_tags_and_a_star_become_the_revision_that_is_there() {
    let world = at_revision_5();
    for (tags, revision) in [
        ("*", 5),
        ("\"r3\", \"r5\"", 5),
        ("\"r5.raw\", \"r3\"", 5),
        // Nothing matches: the core refuses it, and a repeat still gets its first answer.
        ("\"r3\", \"r4\"", 3),
        ("\"r3\"", 3),
    ] {
        for method in ["PUT", "DELETE"] {
            let answer = send(&world, method, KEY, &[("if-match", tags)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{tags}");
            assert_eq!(conditions(&world), [Some(Expected::Revision(revision))], "{tags}");
        }
    }
    let answer = send(&world, "PUT", KEY, &[("if-match", "\"of-another-server\"")]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (412, "conflict"));
    assert!(conditions(&world).is_empty());
    let world = World::answering(|request| match request {
        Request::Read { .. } => Outcome::Value(Value::Register(Register::default())),
        _ => Outcome::Rejected(Reason::Conflict { revision: None, at: 0 }),
    });
    let answer = send(&world, "PUT", KEY, &[("if-match", "*")]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (412, "conflict"));
    assert_eq!(conditions(&world), [Some(Expected::Revision(0))]);
}

#[tokio::test]
async fn every_route_refuses_a_parameter_that_it_does_not_know() {
    let world = World::new(committed());
    for Route { method, path, .. } in ROUTES {
        let path = path.replace("{namespace}", "ns").replace("{key}", "k");
        let body = match path.rsplit('/').nth(1) {
            Some("cas") => "{\"expected\":{\"absent\":true},\"value\":\"v\"}",
            Some("counters") => "{\"add\":1}",
            Some("sets") => "{\"add\":[\"m\"]}",
            Some("records") => "{\"edits\":[{\"put\":\"v\"}]}",
            Some("ns") => "{\"writes\":[{\"key\":\"k\",\"edits\":[{\"put\":\"v\"}]}]}",
            _ => "{\"name\":\"ns\",\"consistency\":\"strong\"}",
        };
        let body = if path == "/v1/init" { "" } else { body };
        let answer = world.ask(method, &format!("{path}?verbose=1"), body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
        let detail = answer.json()["detail"].clone();
        assert_eq!(detail, "the route has no parameter `verbose`", "{method} {path}");
    }
    for probe in ["/livez?", "/readyz?", "/metrics?", "/v1/status?"] {
        assert_eq!(world.ask("GET", probe, Body::empty()).await.status, StatusCode::OK, "{probe}");
    }
}

#[tokio::test]
async fn a_put_says_whether_it_made_the_value_and_a_removal_whether_something_was_there() {
    for existed in [false, true] {
        let receipt = Receipt { existed, ..Receipt::default() };
        let world = World::new(Outcome::Committed { level: Level::Durable, receipt });
        let put = send(&world, "PUT", KEY, &[]).await;
        assert_eq!(put.status.as_u16(), if existed { 200 } else { 201 });
        assert_eq!(put.json(), json!({ "committed": true, "level": "durable" }));
        let absent = send(&world, "PUT", KEY, &[("if-none-match", "*")]).await;
        assert_eq!(absent.status.as_u16(), if existed { 200 } else { 201 });
        assert_eq!(send(&world, "DELETE", KEY, &[]).await.json()["existed"], existed);
        for (path, body, says) in [
            ("sets/s", "{\"remove\":[\"m\"]}", true),
            ("sets/s", "{\"add\":[\"n\"],\"remove\":[\"m\"]}", true),
            ("sets/s", "{\"add\":[\"n\"]}", false),
            ("records/r", "{\"edits\":[{\"remove\":[\"m\"]}]}", true),
            ("records/r", "{\"edits\":[{\"put\":\"m\"}]}", false),
        ] {
            let answer = world.ask("POST", &format!("/v1/namespaces/ns/{path}"), body).await;
            assert_eq!(answer.status, StatusCode::OK, "{body}");
            let expected = if says { existed.into() } else { serde_json::Value::Null };
            assert_eq!(answer.json()["existed"], expected, "{body}");
        }
    }
}

#[tokio::test]
async fn a_body_is_the_value_whatever_its_media_type() {
    let world = World::new(committed());
    let document = "{\"value\":\"x\",\"context\":1}";
    for kind in ["application/json", "text/plain", "application/json; charset=utf-8"] {
        let request = HttpRequest::put(KEY).header(header::CONTENT_TYPE, kind);
        let request = request.header(header::CONTENT_LENGTH, document.len());
        let request = request.body(Body::from(document)).expect("a request");
        assert_eq!(world.send(request).await.status, StatusCode::OK);
        let asked = world.asked();
        let [Request::Write { mutations, .. }] = &asked[..] else { panic!("{asked:?}") };
        let stored = media::stored(Some(kind), Bytes::from(document));
        assert_eq!(mutations[0].edits[0].change, Change::Put(stored));
    }
    let seen = Context::from_bytes(Bytes::from_static(b"sealed"));
    let headers = [("continuum-context", &token::context(&seen)[..])];
    assert_eq!(send(&world, "PUT", KEY, &headers).await.status, StatusCode::OK);
    let asked = world.asked();
    let [Request::Write { mutations, .. }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(mutations[0].context, Some(seen));
}

/// A node that holds one register, which batches and puts change.
fn remembering() -> World {
    let held = std::sync::Mutex::new(None::<Bytes>);
    World::answering(move |request| {
        let mut held = held.lock().expect("no panic holds it");
        let Request::Write { mutations, .. } = request else {
            let (value, revision) = (held.clone(), Some(Index(5)));
            let siblings = value.iter().cloned().chain([Bytes::from_static(b"plain")]).collect();
            return Outcome::Value(Value::Register(Register {
                value,
                siblings,
                revision,
                ..Register::default()
            }));
        };
        match &mutations[0].edits[0].change {
            Change::Put(value) => *held = Some(value.clone()),
            Change::Cas { expected: Expected::Value(expected), value } => {
                if Some(expected) != held.as_ref() {
                    let revision = held.as_ref().map(|_| Index(5));
                    return Outcome::Rejected(Reason::Conflict { revision, at: 0 });
                }
                held.clone_from(value);
            }
            other => panic!("{other:?}"),
        }
        committed()
    })
}

async fn put_as(world: &World, kind: Option<&str>, value: &'static str) -> StatusCode {
    let request = HttpRequest::put(KEY).header(header::CONTENT_LENGTH, value.len());
    let request = match kind {
        Some(kind) => request.header(header::CONTENT_TYPE, kind),
        None => request,
    };
    world.send(request.body(Body::from(value)).expect("a request")).await.status
}

#[tokio::test]
async fn a_value_comes_back_with_its_media_type() {
    let world = remembering();
    let bytes = [("accept", "application/octet-stream")];
    for (sent, kept) in [
        (Some("text/html; charset=utf-8"), Some("text/html; charset=utf-8")),
        (Some("application/json"), Some("application/json")),
        (Some("application/octet-stream"), None),
        (Some("application/x-www-form-urlencoded"), None),
        (None, None),
    ] {
        assert_eq!(put_as(&world, sent, "<i>").await, StatusCode::OK, "{sent:?}");
        let raw = send(&world, "GET", KEY, &bytes).await;
        assert_eq!(raw.headers[header::CONTENT_TYPE], kept.unwrap_or("application/octet-stream"));
        assert_eq!(raw.body, "<i>");
        // A stored page runs nowhere as one of this API.
        assert_eq!(raw.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let policy = raw.headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(policy.contains("sandbox"));
        let json = send(&world, "GET", KEY, &[]).await;
        assert_eq!(json.headers[header::CONTENT_TYPE], "application/json");
        let json = json.json();
        assert_eq!((&json["value"], json["media_type"].as_str()), (&"<i>".into(), kept), "{json}");
        let own = match kept {
            Some(kind) => serde_json::json!({ "text": "<i>", "type": kind }),
            None => "<i>".into(),
        };
        assert_eq!(json["siblings"], serde_json::json!([own, "plain"]));
    }
    assert_eq!(put_as(&world, Some("image/png"), "png").await, StatusCode::OK);
    let own = send(&world, "GET", KEY, &[("accept", "image/*, */*;q=0.5")]).await;
    assert_eq!(
        (&own.headers[header::CONTENT_TYPE], &own.body[..]),
        (&"image/png".parse().unwrap(), &b"png"[..])
    );
    assert_eq!(put_as(&world, Some("png"), "x").await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_expected_value_without_a_media_type_stands_for_one_with_any() {
    let world = remembering();
    assert_eq!(put_as(&world, Some("text/plain"), "blue").await, StatusCode::OK);
    let cas = |expected: &str, value: &str| {
        let (path, body) = (
            "/v1/namespaces/ns/cas/sky",
            format!("{{\"expected\":{{\"value\":{expected}}},\"value\":{value}}}"),
        );
        world.ask("POST", path, body)
    };
    let other = "{\"text\":\"blue\",\"type\":\"text/html\"}";
    let own = "{\"text\":\"blue\",\"type\":\"text/plain\"}";
    for wrong in ["\"grey\"", other] {
        assert_eq!(cas(wrong, "\"x\"").await.code(), "conflict");
    }
    assert_eq!(cas(own, other).await.status, StatusCode::OK);
    assert_eq!(
        cas("\"blue\"", "{\"base64\":\"/w==\",\"type\":\"a/b\"}").await.status,
        StatusCode::OK
    );
    let raw = send(&world, "GET", KEY, &[("accept", "a/b")]).await;
    assert_eq!(
        (&raw.headers[header::CONTENT_TYPE], &raw.body[..]),
        (&"a/b".parse().unwrap(), &b"\xff"[..])
    );
    // A batch writes types too.
    let batch = format!("{{\"writes\":[{{\"key\":\"sky\",\"edits\":[{{\"put\":{own}}}]}}]}}");
    assert_eq!(world.ask("POST", "/v1/namespaces/ns/batch", batch).await.status, StatusCode::OK);
    assert_eq!(send(&world, "GET", KEY, &[]).await.json()["media_type"], "text/plain");
}

#[tokio::test]
async fn a_reader_that_has_the_value_gets_304() {
    let world = World::new(register(5));
    let answer = send(&world, "GET", KEY, &[]).await;
    assert_eq!(answer.headers[header::ETAG], "\"r5\"");
    assert_eq!(answer.headers[header::VARY], "accept");
    for tags in ["\"r5\"", "W/\"r5\", \"r4\"", "*"] {
        let answer = send(&world, "GET", KEY, &[("if-none-match", tags)]).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{tags}");
        assert_eq!(
            (&answer.headers[header::ETAG], &answer.body[..]),
            (&"\"r5\"".parse().unwrap(), &b""[..])
        );
        assert_eq!(answer.headers[header::VARY], "accept");
    }
    let raw = ("accept", "application/octet-stream");
    let answer = send(&world, "GET", KEY, &[("if-none-match", "\"r5\""), raw]).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"{\"a\":1}"[..]));
    assert_eq!(answer.headers[header::ETAG], "\"r5.raw\"");
    let answer = send(&world, "HEAD", KEY, &[raw]).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    assert_eq!(answer.headers[header::CONTENT_LENGTH], "7");
}

#[tokio::test]
async fn a_reader_that_wants_another_value_gets_412() {
    let world = World::new(register(5));
    for tags in ["\"r5\"", "\"r5.raw\"", "\"r4\", \"r5\"", "*"] {
        let answer = send(&world, "GET", KEY, &[("if-match", tags)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{tags}");
    }
    // A weak tag is no strong one.
    for tags in ["\"r4\"", "\"x\", \"r6\"", "W/\"r5\""] {
        let headers = [("if-match", tags), ("if-none-match", "\"r5\"")];
        let answer = send(&world, "GET", KEY, &headers).await;
        assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED, "{tags}");
    }
}

#[tokio::test]
async fn options_of_the_whole_server_names_all_methods() {
    let world = World::new(register(5));
    let answer = send(&world, "OPTIONS", "*", &[]).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    for method in ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"] {
        let allowed = answer.headers[header::ALLOW].to_str().unwrap();
        assert!(allowed.split(", ").any(|one| one == method), "{allowed}");
    }
}

#[tokio::test]
async fn the_context_of_a_raw_read_is_in_its_head() {
    let context = Context::from_bytes(Bytes::from_static(b"sealed"));
    let value = Some(Bytes::from_static(b"wet"));
    let read = Register { value, context: context.clone(), ..Register::default() };
    let world = World::new(Outcome::Value(Value::Register(read)));
    let answer = send(&world, "GET", KEY, &[("accept", "application/octet-stream")]).await;
    assert_eq!(answer.headers["continuum-context"], token::context(&context));
    let tag = super::conditions::raw_tag(&token::tag(&Tag::Context(context)));
    assert_eq!(answer.headers[header::ETAG], tag);
}

#[tokio::test]
async fn pages_have_one_form_and_rows_may_have_a_prefix() {
    let keys = vec![Bytes::from_static(b"a/1"), Bytes::from_static(b"a/2")];
    let world = World::new(Outcome::Value(Value::Keys { keys, more: true }));
    let path = "/v1/namespaces/ns/keys?limit=2&prefix=a/";
    let answer = send(&world, "GET", path, &[]).await;
    let link = "</v1/namespaces/ns/keys?after=YS8y&limit=2&prefix=a%2F>; rel=\"next\"";
    assert_eq!(answer.headers[header::LINK], link);
    assert_eq!(answer.headers["continuum-next"], "YS8y");
    assert_eq!(answer.json()["next"], "YS8y");

    let row = |key| Row { key: Bytes::from_static(key), fields: Vec::new() };
    let rows = vec![row(b"a/1"), row(b"a/2"), row(b"b")];
    let world = World::new(Outcome::Value(Value::Rows { rows, more: true }));
    let answer = send(&world, "GET", "/v1/namespaces/ns/rows?limit=3&prefix=a/", &[]).await;
    assert_eq!(answer.body.iter().filter(|byte| **byte == b'\n').count(), 2);
    assert_eq!(answer.headers["continuum-more"], "false");
    assert!(!answer.headers.contains_key(header::LINK));
    let asked = world.asked();
    let [Request::Read { query: Query::Rows { after: Some(after), .. }, .. }] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert!(after.starts_with(b"a.\xff"));
}

#[tokio::test]
async fn the_cursor_of_an_export_names_it() {
    let row = |key| Row { key: Bytes::from_static(key), fields: Vec::new() };
    let cursor = ExportCursor { export: ExportId([7; 16]), after: Bytes::from_static(b"a/2") };
    let rows = vec![row(b"a/1"), row(b"a/2")];
    let page = ExportPage { at: Index(17), rows, next: Some(cursor.clone()) };
    let world = World::new(Outcome::Value(Value::Export(page)));
    for (what, values) in [("rows", true), ("keys", false)] {
        let path = format!("/v1/namespaces/ns/{what}?export=true&limit=2&prefix=a/");
        let answer = send(&world, "GET", &path, &[]).await;
        let next = "BwcHBwcHBwcHBwcHBwcHBw.YS8y";
        assert_eq!(answer.headers["continuum-next"], next);
        assert_eq!(answer.headers["continuum-revision"], "17");
        let link = format!("/v1/namespaces/ns/{what}?after={next}&limit=2&prefix=a%2F");
        assert_eq!(answer.headers[header::LINK], format!("<{link}>; rel=\"next\""));
        if values {
            assert_eq!(answer.headers["continuum-more"], "true");
        } else {
            let body = answer.json();
            assert_eq!((&body["keys"][1], &body["next"]), (&"a/2".into(), &next.into()));
            assert_eq!((&body["more"], &body["revision"]), (&true.into(), &17.into()));
        }
        send(&world, "GET", &link, &[]).await;
        let query = |from| {
            let (prefix, limit) = (Bytes::from_static(b"a/"), 2);
            let query = Query::Export { from, prefix, limit, values };
            Request::Read { namespace: "ns".into(), query }
        };
        assert_eq!(world.asked(), [query(None), query(Some(cursor.clone()))]);
    }
    for broken in
        ["rows?export=true&after=YS8y", "keys?export=true&count=true", "keys?after=a.YS8y"]
    {
        let answer = send(&world, "GET", &format!("/v1/namespaces/ns/{broken}"), &[]).await;
        assert_eq!(
            (answer.code().as_str(), world.asked().len()),
            ("invalid_request", 0),
            "{broken}"
        );
    }
}

#[tokio::test]
async fn an_export_that_is_gone_is_told_from_one_that_has_no_room() {
    for (reason, status, code) in
        [(Reason::ExportExpired, 410, "export_expired"), (Reason::ExportsBusy, 429, "exports_busy")]
    {
        let world = World::new(Outcome::Rejected(reason));
        let answer = send(&world, "GET", "/v1/namespaces/ns/rows?export=true", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert_eq!(answer.headers.contains_key(header::RETRY_AFTER), status == 429);
    }
}

#[tokio::test]
async fn keys_are_counted_over_all_pages() {
    let pages = std::sync::atomic::AtomicUsize::new(0);
    let world = World::answering(move |_| {
        let more = pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2;
        Outcome::Value(Value::Keys { keys: vec![Bytes::from_static(b"k"); 1000], more })
    });
    let answer = send(&world, "GET", "/v1/namespaces/ns/keys?count=true", &[]).await;
    assert_eq!(answer.json(), serde_json::json!({ "count": 3000 }));
    assert_eq!(world.asked().len(), 3);
    let answer = send(&world, "GET", "/v1/namespaces/ns/keys?count=maybe", &[]).await;
    assert_eq!(answer.code(), "invalid_request");
}

#[tokio::test]
async fn a_new_namespace_has_a_location() {
    let world = World::new(committed());
    let answer =
        world.ask("POST", "/v1/namespaces", r#"{"name":"facts","consistency":"strong"}"#).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers[header::LOCATION], "/v1/namespaces/facts");
    let body = answer.json();
    assert_eq!((&body["committed"], &body["name"]), (&true.into(), &"facts".into()), "{body}");
    assert_eq!(body["revision"], 17);
}

#[tokio::test]
async fn a_write_that_missed_its_level_happened() {
    let world = World::new(Outcome::Unknown { reached: Some(Level::Durable) });
    let answer = world.ask("PUT", &format!("{KEY}?level=replicated:1"), "v").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "level_missed"));
    assert_eq!(
        (&answer.json()["committed"], &answer.json()["reached"]),
        (&true.into(), &"durable".into())
    );
    world.asked();
    world.ask("PUT", &format!("{KEY}?level=replicated:0"), "v").await;
    let asked = world.asked();
    assert!(matches!(asked[..], [Request::Write { level: Level::Durable, .. }]), "{asked:?}");
}

#[tokio::test]
async fn a_level_past_all_replicas_is_refused() {
    let what = continuum_core::api::Bound::Replicas;
    let world = World::new(Outcome::Rejected(Reason::OutOfBounds { what, limit: 2 }));
    let answer = world.ask("PUT", &format!("{KEY}?level=replicated:9"), "v").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "out_of_bounds"));
    assert!(answer.json()["detail"].to_string().contains("nothing was written"));
}

#[tokio::test]
async fn counters_are_exact_for_every_reader() {
    let world = World::new(committed());
    for text in ["9007199254740993", "\"9007199254740993\""] {
        for (path, body) in [
            ("/v1/namespaces/ns/counters/c", format!("{{\"add\":{text}}}")),
            ("/v1/namespaces/ns/records/c", format!("{{\"edits\":[{{\"count\":{text}}}]}}")),
        ] {
            assert_eq!(world.ask("POST", path, body).await.status, StatusCode::OK);
            let asked = world.asked();
            let [Request::Write { mutations, .. }] = &asked[..] else { panic!("{asked:?}") };
            assert_eq!(mutations[0].edits[0].change, Change::Count(9_007_199_254_740_993));
        }
    }
    let world = World::new(Outcome::Value(Value::Counter(9_007_199_254_740_993)));
    let answer = world.ask("GET", "/v1/namespaces/ns/counters/c", Body::empty()).await;
    assert_eq!(answer.json()["value"], "9007199254740993");
}

#[tokio::test]
async fn a_key_may_number_the_writes_of_a_session() {
    let world = World::new(committed());
    let mut sessions = Vec::new();
    for number in [None, Some("0"), Some("7"), Some("18446744073709551615")] {
        let mut headers = vec![("idempotency-key", "k")];
        headers.extend(number.map(|number| ("continuum-sequence", number)));
        assert_eq!(send(&world, "PUT", KEY, &headers).await.status, StatusCode::OK);
        let asked = world.asked();
        let [Request::Write { session: Some(session), .. }] = asked[..] else {
            panic!("{asked:?}")
        };
        sessions.push(session);
    }
    assert_eq!(sessions.iter().map(|one| one.seq).collect::<Vec<_>>(), [0, 0, 7, u64::MAX]);
    assert!(
        sessions.iter().all(|one| one.id == sessions[0].id && one.request == sessions[0].request)
    );
    let (key, number) = (("idempotency-key", "k"), ("continuum-sequence", "1"));
    let rows: [&[(&str, &str)]; 4] = [
        &[number],
        &[key, number, number],
        &[key, ("continuum-sequence", "-1")],
        &[key, ("continuum-sequence", "")],
    ];
    for headers in rows {
        assert_eq!(
            send(&world, "PUT", KEY, headers).await.code(),
            "invalid_request",
            "{headers:?}"
        );
        assert!(world.asked().is_empty());
    }
}
