//! Bad requests: the node answers each with its own problem and keeps serving.

use continuum_core::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use continuum_tests::process::{Dev, Response, exchange};
use serde_json::Value;

use super::witness::{log, refused, write_key};

/// A key that must not appear in any log.
const SECRET: &str = "must-not-be-logged";

fn request(dev: &Dev, method: &str, path: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close");
    let kind = "Content-Type: application/json";
    let raw = format!("{head}\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}");
    exchange(dev.api(1), &raw).expect("an answer")
}

/// A write of a raw value.
fn put(dev: &Dev, namespace: &str, key: &str, bytes: usize) -> Response {
    let head = format!("PUT /v1/namespaces/{namespace}/kv/{key} HTTP/1.1\r\nHost: localhost");
    let value = "v".repeat(bytes);
    let raw = format!("{head}\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n{value}");
    exchange(dev.api(1), &raw).expect("an answer")
}

/// Checks that the node counts and logs the problem by its code, and that the answer has what, why and the hint.
fn problem(dev: &Dev, status: u16, code: &str, ask: impl FnOnce() -> Response) -> Value {
    let series = format!("continuum_http_problems_total{{code=\"{code}\"");
    let reason = format!("reason=\"{code}\"");
    let answer = refused(dev, &series, &["refused a request", &reason], ask);
    assert_eq!(answer.status, status, "{}", answer.body);
    let headers = answer.headers.to_ascii_lowercase();
    assert!(headers.contains("content-type: application/problem+json"), "{headers}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(body["code"], code, "{body}");
    for part in ["title", "detail", "hint"] {
        assert!(body[part].as_str().is_some_and(|text| !text.is_empty()), "{part} in {body}");
    }
    body
}

#[test]
fn each_bad_request_has_its_own_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(1, &folder.path().join("dev"));
    write_key(&dev);

    let longest = put(&dev, "facts", SECRET, VALUE_BYTES_MAX);
    assert!(matches!(longest.status, 200..=204), "a value at its limit: {}", longest.body);
    let body =
        problem(&dev, 413, "value_too_large", || put(&dev, "facts", SECRET, VALUE_BYTES_MAX + 1));
    assert_eq!(body["limit"], VALUE_BYTES_MAX);
    let long_key = SECRET.repeat(KEY_BYTES_MAX / SECRET.len() + 1);
    problem(&dev, 413, "value_too_large", || put(&dev, "facts", &long_key, 1));
    // The head alone gets the answer: the node neither waits for 4 GiB nor allocates them.
    problem(&dev, 413, "body_too_large", || {
        let head = "PUT /v1/namespaces/facts/kv/k HTTP/1.1\r\nHost: localhost\r\nConnection: close";
        exchange(dev.api(1), &format!("{head}\r\nContent-Length: 4294967296\r\n\r\n"))
            .expect("an answer")
    });

    problem(&dev, 404, "unknown_namespace", || put(&dev, "unheard-of", SECRET, 1));
    let unknown = dev.run(1, &["kv", "put", "unheard-of", SECRET, "1"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{text}");
    assert!(text.contains("error[unknown_namespace]") && text.contains("hint: "), "{text}");

    let made =
        request(&dev, "POST", "/v1/namespaces", r#"{"name":"notes","consistency":"eventual"}"#);
    assert!(matches!(made.status, 200..=204), "{}", made.body);
    let deep = "[".repeat(100_000);
    for wrong in
        [r#"{"name":"n","#, r#"{"name":7}"#, r#"{"name":"n","nonsense":1}"#, "\u{0}", &deep]
    {
        let body =
            problem(&dev, 400, "malformed_json", || request(&dev, "POST", "/v1/namespaces", wrong));
        assert!(body["detail"].as_str().is_some_and(|detail| detail.len() < 1000), "{body}");
    }
    problem(&dev, 404, "unknown_route", || request(&dev, "GET", "/v2/anything", ""));
    problem(&dev, 405, "method_not_allowed", || request(&dev, "DELETE", "/v1/status", ""));
    problem(&dev, 400, "invalid_request", || put(&dev, "facts", "%zz", 1));
    assert!(!log(&dev, 1).contains(SECRET), "keys stay out of the log");
}
