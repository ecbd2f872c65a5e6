//! Tests of the API on a real listener, with raw bytes: what no HTTP client sends by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use continuum_core::api::{Level, Outcome, Receipt, Request};
use continuum_core::id::Index;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Api;
use super::connections::Bounds;
use super::input::BODY_BYTES_MAX;
use super::origin::Hosts;
use super::serve::serve;
use super::tests::{Seen, drive};
use crate::handle::channel;
use crate::metrics::Metrics;

/// An API on loopback whose driver commits everything.
struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    seen: Seen,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start(bounds: Bounds) -> Self {
        let receipt = Receipt { revision: Some(Index(17)), context: None, existed: true };
        let outcome = Outcome::Committed { level: Level::Durable, receipt };
        Self::answering(bounds, outcome).await
    }

    async fn answering(bounds: Bounds, outcome: Outcome) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (handle, commands) = channel();
        let (seen, metrics) = (Seen::default(), Arc::new(Metrics::new()));
        tokio::spawn(drive(commands, move |_| outcome.clone(), Vec::new(), Arc::clone(&seen)));
        let api = Api::new(handle, Arc::clone(&metrics), Hosts::Local(Vec::new()));
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, None, Arc::new(api), bounds, stopped));
        Self { address, metrics, seen, _stop: stop }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Opens a connection, and sends the beginning of a request.
    async fn begin(&self, bytes: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.expect("written");
        stream
    }

    /// Sends bytes, and reads the answer until the node closes the connection.
    async fn exchange(&self, bytes: &str) -> Response {
        rest_of(self.begin(bytes).await).await
    }

    fn writes(&self) -> usize {
        let seen = self.seen.lock().expect("no panic holds it");
        seen.iter().filter(|request| matches!(request, Request::Write { .. })).count()
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn code(&self) -> String {
        let body: Json = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Reads until the other side closes.
async fn rest_of(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await;
    read.expect("the node closes the connection").expect("no reset");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

const HOST: &str = "Host: localhost\r\nConnection: close\r\n";

fn put(headers: &str, body: &str) -> String {
    format!("PUT /v1/namespaces/ns/kv/key HTTP/1.1\r\n{HOST}{headers}\r\n{body}")
}

fn post(path: &str, body: &str) -> String {
    let kind = "Content-Type: application/json";
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\n{HOST}{kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn slow_bodies_refuse_nobody_else() {
    let server = Server::start(Bounds::default()).await;
    let mut slow = Vec::new();
    for at in 0..200 {
        let length = if at % 2 == 0 {
            format!("Content-Length: {BODY_BYTES_MAX}\r\n")
        } else {
            "Transfer-Encoding: chunked\r\n".to_owned()
        };
        slow.push(server.begin(&put(&length, "4\r\nslow")).await);
    }
    let answer = server.exchange(&put("Content-Length: 3\r\n", "now")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let large = "v".repeat(BODY_BYTES_MAX);
    let answer =
        server.exchange(&put(&format!("Content-Length: {}\r\n", large.len()), &large)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(slow);
}

#[tokio::test]
async fn a_body_that_would_grow_when_parsed_is_refused_before_that() {
    let server = Server::start(Bounds::default()).await;
    let edits = "{},".repeat(BODY_BYTES_MAX / 3 - 100);
    let bomb = format!("{{\"writes\":[{{\"key\":\"a\",\"edits\":[{edits}{{}}]}}]}}");
    let answer = server.exchange(&post("/v1/namespaces/ns/batch", &bomb)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let voters = format!("{{\"voters\":[{}\"\"]}}", "\"\",".repeat(BODY_BYTES_MAX / 4));
    let answer = server.exchange(&post("/v1/init", &voters)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert!(server.seen.lock().expect("no panic holds it").is_empty());
}

#[tokio::test]
async fn a_large_batch_is_parsed_apart_and_written() {
    let server = Server::start(Bounds::default()).await;
    let write = |at: usize| format!("{{\"key\":\"k{at}\",\"edits\":[{{\"put\":\"v\"}}]}}");
    let writes = (0..4096).map(write).collect::<Vec<_>>().join(",");
    let answer = server
        .exchange(&post("/v1/namespaces/ns/batch", &format!("{{\"writes\":[{writes}]}}")))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = server.seen.lock().expect("no panic holds it").clone();
    let [Request::Write { mutations, .. }] = &seen[..] else { panic!("one write") };
    assert_eq!((mutations.len(), &mutations[4095].key[..]), (4096, &b"k4095"[..]));
}

#[tokio::test]
async fn a_client_that_is_still_writing_reads_its_refusal() {
    let server = Server::start(Bounds::default()).await;
    let body = vec![b'v'; 4 * BODY_BYTES_MAX];
    let whole = format!("Content-Length: {}\r\n", body.len());
    for (head, status) in [
        (put(&whole, ""), 413),
        (put("Content-Encoding: gzip\r\nContent-Length: 16777216\r\n", ""), 415),
        (put("Host: a\r\nContent-Length: 16777216\r\n", ""), 400),
        (format!("PUT /v1/nowhere HTTP/1.1\r\n{HOST}{whole}\r\n"), 404),
        (format!("PUT /livez HTTP/1.1\r\n{HOST}{whole}\r\n"), 405),
        ("garbage\r\n\r\n".to_owned(), 400),
    ] {
        let mut stream = server.begin(&head).await;
        stream.write_all(&body).await.expect("the node takes what is still sent");
        let answer = rest_of(stream).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(server.writes(), 0);
}

#[tokio::test]
async fn probes_are_answered_when_all_connections_are_taken() {
    let server = Server::start(Bounds { all: 8, of_address: 4 }).await;
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(server.begin("GET /livez HTTP/1.1\r\n").await);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        // Without `Connection: close`: in the reserve the node closes.
        let answer =
            server.exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let answer = server.exchange(&put("Content-Length: 1\r\n", "v")).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "busy"));
    assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    assert_eq!(server.writes(), 0);
    taken.pop();
    let mut answer = server.exchange(&put("Content-Length: 1\r\n", "v")).await;
    while answer.status == 429 {
        answer = server.exchange(&put("Content-Length: 1\r\n", "v")).await;
    }
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_node_reads_heads_as_rfc_9112_says() {
    let server = Server::start(Bounds::default()).await;
    let get = |lines: &str| format!("GET /livez HTTP/1.1\r\n{lines}\r\n");
    let chunks = |body: &str| put("Transfer-Encoding: chunked\r\n", body);
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let mut wrong = Vec::new();
    let turned = "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n";
    for (raw, status) in [
        (put(both, "3\r\nnow\r\n0\r\n\r\n"), 400),
        (put(turned, "3\r\nnow\r\n0\r\n\r\n"), 400),
        (put("Transfer-Encoding: gzip, chunked\r\n", "3\r\nnow\r\n0\r\n\r\n"), 501),
        (put("Transfer-Encoding: chunked, chunked\r\n", "3\r\nnow\r\n0\r\n\r\n"), 501),
        (put("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 501),
        (put("Transfer-Encoding: gzip\r\n", "now"), 400),
        (put("Transfer-Encoding: xchunked\r\n", "now"), 400),
        (put(both, "").replace("HTTP/1.1", "HTTP/1.0"), 400),
        (put("Content-Length: 3\r\nContent-Length: 4\r\n", "now!"), 400),
        (put("Content-Length: +3\r\n", "now"), 400),
        (put("Content-Length: -3\r\n", "now"), 400),
        (put("Content-Length: 3, 3\r\n", "now"), 400),
        (put("Content-Length: 3 3\r\n", "now"), 400),
        (put("Content-Length:\r\n", ""), 400),
        (put("Content-Length: 99999999999999999999\r\n", "now"), 400),
        (put("Content-Length : 3\r\n", "now"), 400),
        (put("X-Folded: a\r\n b\r\n", ""), 400),
        (put("X-Nul: a\0b\r\n", ""), 400),
        (put("X-Return: a\rb\r\n", ""), 400),
        (put(": empty\r\n", ""), 400),
        (put("Expect: 200-ok\r\nContent-Length: 3\r\n", "now"), 417),
        (chunks("3\r\nnow\r\n0\r\n\r\n"), 200),
        (chunks("x\r\nnow\r\n0\r\n\r\n"), 400),
        (chunks("-3\r\nnow\r\n0\r\n\r\n"), 400),
        (chunks("00000000000000003\r\nnow\r\n0\r\n\r\n"), 200),
        (chunks("fffffffffffffffff\r\nnow\r\n0\r\n\r\n"), 400),
        (chunks("3\r\nnow!\r\n0\r\n\r\n"), 400),
        (chunks("3\nnow\r\n0\r\n\r\n"), 400),
        (chunks("\r\nnow\r\n0\r\n\r\n"), 400),
        (get(HOST), 200),
        (get("Connection: close\r\n"), 400),
        (get(&format!("{HOST}{HOST}")), 400),
        (format!("GET  /livez HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /livez HTTP/2.0\r\n{HOST}\r\n"), 400),
        (format!("GET /livez\r\n{HOST}\r\n"), 400),
        (format!("get /livez HTTP/1.1\r\n{HOST}\r\n"), 405),
        (format!("GET http://localhost/livez HTTP/1.1\r\n{HOST}\r\n"), 200),
        (format!("GET http://evil.example/livez HTTP/1.1\r\n{HOST}\r\n"), 421),
    ] {
        let answer = server.exchange(&raw).await;
        if answer.status != status {
            wrong.push(format!("{raw:?}: {answer:?}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(server.writes(), 2, "only the sound ones");
    assert_eq!(server.metrics.rejections("slow_head"), 0);
}
