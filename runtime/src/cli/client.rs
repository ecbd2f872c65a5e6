//! The HTTP client of the commands: one kept connection, JSON and raw bytes, plain on loopback or TLS.
//!
//! The client never retries by itself: only the caller knows whether a retry is harmless.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::args::Global;
use super::exit::{self, Failure};
use super::local;
use super::output::say;
use crate::api::media;
use crate::clock::SystemClock;
use crate::tls::{self, Credentials, HANDSHAKE_TIMEOUT};

/// Bytes of one answer. A page of rows is at most a frame or one row, which JSON makes a few times longer. A register
/// may have 64 values of 512 KiB.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The code of a write whose session the group does not know any more.
pub(super) const FORGOTTEN: &str = "session_expired";

/// The address of a node's API.
#[derive(Clone, Debug)]
pub(super) struct Target {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

impl Target {
    /// Parses a URL.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            let hint = "use http://HOST:PORT or https://HOST:PORT, as `continuum dev` prints them";
            Failure::usage(format!("{url:?} is not the URL of a node"), why, hint)
        };
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong("it cannot be read"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { host, port, is_tls, uri })
    }

    /// The URL, without a `/` at its end.
    pub(super) fn url(&self) -> String {
        self.uri.to_string().trim_end_matches('/').to_owned()
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// Whether it is a write of a session.
    is_numbered: bool,
}

impl Call {
    /// A read.
    pub(super) fn get(path: impl Into<String>) -> Self {
        let (method, headers, body) = (Method::GET, Vec::new(), Bytes::new());
        Self { method, path: path.into(), headers, body, is_numbered: false }
    }

    /// A deletion.
    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// A put of raw bytes.
    pub(super) fn put(path: impl Into<String>, body: Bytes) -> Self {
        Self::put_as(media::DEFAULT, path, body)
    }

    /// A put of raw bytes with a media type.
    pub(super) fn put_as(media_type: &str, path: impl Into<String>, body: Bytes) -> Self {
        let call = Self { method: Method::PUT, body, ..Self::get(path) };
        call.header("content-type", media_type)
    }

    /// A post of JSON.
    pub(super) fn post(path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        let body = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
        let call = Self { method: Method::POST, body, ..Self::get(path) };
        call.header("content-type", "application/json")
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a fresh idempotency key, so that a retry of this write is harmless.
    pub(super) fn once(self) -> Self {
        self.header("idempotency-key", fresh_key())
    }
}

fn fresh_key() -> String {
    continuum_core::id::SessionId(crate::entropy::identity()).to_string()
}

/// A session: one idempotency key, and a rising number for each write. A group remembers one write of it, the last, so
/// a client has one session for each connection, and many writes take the room of one. All are of one namespace,
/// because each group counts for itself.
#[derive(Clone, Debug)]
struct Session {
    key: String,
    next: u64,
    /// Whether a write of it was answered: then its group knows it.
    is_known: bool,
}

impl Session {
    fn new() -> Self {
        Self { key: fresh_key(), next: 0, is_known: false }
    }
}

/// An answer with a status below 400.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// All headers.
    pub(super) headers: HeaderMap,
    /// The whole body.
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let hint = "check that --node is the API of a node of this version";
            Failure::new(
                exit::MISMATCH,
                "not_json",
                "the answer is not JSON",
                error.to_string(),
                hint,
            )
        })
    }

    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A client of one node: with several targets, of the first that can be reached.
pub(super) struct Client {
    targets: Vec<Target>,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
    link: Option<SendRequest<Full<Bytes>>>,
    session: Session,
}

impl Client {
    /// A client of at least one target.
    fn new(targets: Vec<Target>, tls: Option<Arc<ClientConfig>>, timeout: Duration) -> Self {
        Self { targets, tls, timeout, link: None, session: Session::new() }
    }

    /// Makes a call the next write of this client's session, so that a retry of it is harmless. In a strong namespace
    /// the number before it is given up: if that write did not happen yet, it never will once this one has.
    pub(super) fn next(&mut self, call: Call) -> Call {
        // A session begins with 0. Without an answer to that write no group may know the session.
        if self.session.next > 0 && !self.session.is_known {
            self.session = Session::new();
        }
        let number = self.session.next;
        self.session.next += 1;
        let call = call.header("idempotency-key", &self.session.key);
        Call { is_numbered: true, ..call.header("continuum-sequence", number.to_string()) }
    }

    /// A client of the nodes in the options, or of the running `dev`.
    pub(super) fn of(global: &Global) -> Result<Self, Failure> {
        let mut all = Self::all(global)?.into_iter();
        let mut first = all.next().ok_or_else(local::no_node)?;
        first.targets.extend(all.flat_map(|other| other.targets));
        Ok(first)
    }

    /// A client of one URL, on loopback.
    pub(super) fn of_url(url: &str, timeout: Duration) -> Result<Self, Failure> {
        Ok(Self::new(vec![Target::parse(url)?], None, timeout))
    }

    /// From now on asks only the current node, because a retry must not reach another.
    pub(super) fn pin(&mut self) {
        self.targets.truncate(1);
    }

    /// The current node.
    fn target(&self) -> &Target {
        &self.targets[0]
    }

    /// A client for each node in the options; at least one.
    pub(super) fn all(global: &Global) -> Result<Vec<Self>, Failure> {
        let urls = if global.node.is_empty() { local::dev_nodes()? } else { global.node.clone() };
        let targets = urls.iter().map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let tls = tls_of(global)?;
        if let Some(target) = targets.iter().find(|target| target.is_tls && tls.is_none()) {
            return Err(Failure::usage(
                format!("{} needs a client certificate", target.url()),
                "an https API needs certificates on both sides",
                "give --tls-ca, --tls-cert and --tls-key; issue them with `continuum pki issue --client NAME`",
            ));
        }
        let timeout = Duration::from_secs(global.timeout);
        Ok(targets.into_iter().map(|one| Self::new(vec![one], tls.clone(), timeout)).collect())
    }

    /// The URL of the current node.
    pub(super) fn url(&self) -> String {
        self.target().url()
    }

    /// Another client of the same nodes, with its own connection.
    pub(super) fn another(&self) -> Self {
        Self::new(self.targets.clone(), self.tls.clone(), self.timeout)
    }

    /// Sends a request and reads its answer. A problem becomes a failure.
    pub(super) async fn send(&mut self, call: &Call) -> Result<Answer, Failure> {
        let sent = tokio::time::timeout(self.timeout, self.exchange(call)).await;
        let (status, answer) = sent.unwrap_or_else(|_| {
            self.link = None;
            Err(self.no_answer(call))
        })?;
        let answered = if status < 400 { Ok(answer) } else { Err(problem(status, &answer)) };
        if call.is_numbered {
            match &answered {
                Ok(_) => self.session.is_known = true,
                Err(failure) if failure.code == FORGOTTEN => self.session = Session::new(),
                Err(_) => {}
            }
        }
        answered
    }

    async fn exchange(&mut self, call: &Call) -> Result<(u16, Answer), Failure> {
        let mut link = match self.link.take() {
            // The node may have closed an idle connection. Nothing was sent on it, so a new one is made.
            Some(link) if !link.is_closed() => link,
            _ => self.reach().await?,
        };
        let lost = |error: hyper::Error| self.lost(call, &error);
        link.ready().await.map_err(lost)?;
        let response = link.send_request(self.request(call)?).await.map_err(lost)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            let what = format!("the answer of {} was cut off", self.target().url());
            Failure::new(exit::UNKNOWN, "connection_lost", what, error.to_string(), "ask again")
        })?;
        let answer = Answer { headers: parts.headers, body: body.to_bytes() };
        self.link = Some(link);
        Ok((parts.status.as_u16(), answer))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Failure> {
        let authority = self.target().uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(header::HOST, authority);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        request.body(Full::new(call.body.clone())).map_err(|error| {
            Failure::usage(
                "the request cannot be made",
                error.to_string(),
                "shorten the key or the name",
            )
        })
    }

    /// Connects to the first node that can be reached. The others were asked nothing.
    async fn reach(&mut self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        for _ in 1..self.targets.len() {
            match self.connect().await {
                Err(failure) if failure.exit == exit::UNREACHABLE => {
                    self.targets.rotate_left(1);
                    say(format!("{}: asking {} instead", failure.what, self.target().url()));
                }
                other => return other,
            }
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let (host, port) = (self.target().host.as_str(), self.target().port);
        let stream = TcpStream::connect((host, port)).await.map_err(|error| {
            Failure::new(
                exit::UNREACHABLE,
                "unreachable",
                format!("no node answers at {}", self.target().url()),
                error.to_string(),
                "start the node, or name another with --node",
            )
        })?;
        // Small requests must not wait for Nagle's algorithm. A socket without the option is only slower.
        drop(stream.set_nodelay(true));
        match (&self.tls, self.target().is_tls) {
            (Some(tls), true) => self.open(self.secure(stream, tls).await?).await,
            _ => self.open(stream).await,
        }
    }

    async fn secure(
        &self,
        stream: TcpStream,
        tls: &Arc<ClientConfig>,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let refused = |why: String| {
            let what = format!("the TLS handshake with {} failed", self.target().url());
            let hint = "use the certificates of the node's own federation: `continuum pki issue --client NAME`";
            Failure::new(exit::REFUSED, "tls", what, why, hint)
        };
        let name =
            ServerName::try_from(self.target().host.clone()).map_err(|e| refused(e.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream));
        match shaken.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(refused(format!("{}: {error}", tls::reason(&error)))),
            Err(_) => Err(refused("the handshake took too long".into())),
        }
    }

    async fn open<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = handshake(TokioIo::new(stream)).await;
        let (link, connection) = opened.map_err(|error| {
            let what = format!("{} does not speak HTTP", self.target().url());
            Failure::new(exit::UNREACHABLE, "unreachable", what, error.to_string(), "check --node")
        })?;
        // The task ends when the link is dropped. Its errors appear in the requests.
        tokio::spawn(async move { drop(connection.await) });
        Ok(link)
    }

    fn lost(&self, call: &Call, error: &hyper::Error) -> Failure {
        let what = format!("{} closed the connection before it answered", self.target().url());
        self.uncertain(call, "connection_lost", what, error.to_string())
    }

    fn no_answer(&self, call: &Call) -> Failure {
        let what =
            format!("{} gave no answer in {} s", self.target().url(), self.timeout.as_secs());
        self.uncertain(call, "timeout", what, "the node or the network is slow".into())
    }

    /// The failure of a request without an answer: a read can be repeated, a write may have happened.
    fn uncertain(&self, call: &Call, code: &str, what: String, why: String) -> Failure {
        if call.method == Method::GET {
            return Failure::new(exit::UNREACHABLE, code, what, why, "ask again, or another node");
        }
        let why = format!("{why}; the write may have happened, or may still happen");
        Failure::new(exit::UNKNOWN, code, what, why, "read before you write again")
    }
}

/// The TLS configuration in the options.
fn tls_of(global: &Global) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let (Some(ca), Some(cert), Some(key)) = (&global.tls_ca, &global.tls_cert, &global.tls_key)
    else {
        return Ok(None);
    };
    let credentials = Credentials::load(ca, cert, key);
    let config = credentials.and_then(|credentials| credentials.api_client(Arc::new(SystemClock)));
    config.map(Some).map_err(|error| local::credentials_failure(&error, &error))
}

/// The failure for a problem.
fn problem(status: u16, answer: &Answer) -> Failure {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let Some(code) = body["code"].as_str() else {
        let what = format!("the answer has the HTTP status {status}");
        let hint = "check that --node is the API of a node";
        return Failure::new(
            exit::of_problem("", status),
            "http",
            what,
            "the body is not a problem of this API",
            hint,
        );
    };
    let exit = exit::of_problem(code, status);
    Failure::new(exit, code, text("title"), text("detail"), text("hint")).with(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let read =
            |url| Target::parse(url).map(|target| (target.host, target.port, target.is_tls)).ok();
        assert_eq!(read("http://127.0.0.1:7171"), Some(("127.0.0.1".into(), 7171, false)));
        assert_eq!(read("https://[::1]:7171/"), Some(("::1".into(), 7171, true)));
        for broken in ["127.0.0.1:7171", "ftp://a:1", "http://", "http:// a"] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_problem_keeps_its_code_and_gets_its_exit_code() {
        let body = Bytes::from(crate::api::problem::Problem::unknown(None).body().to_string());
        let failure = problem(504, &Answer { headers: HeaderMap::new(), body });
        assert_eq!((failure.exit, failure.code.as_str()), (exit::UNKNOWN, "unknown_outcome"));
        let html = Answer { headers: HeaderMap::new(), body: Bytes::from_static(b"<html>") };
        assert_eq!(problem(502, &html).exit, exit::UNREACHABLE);
    }

    #[test]
    fn a_write_without_an_answer_is_unknown_and_a_read_is_not() {
        let client = Client::of_url("http://127.0.0.1:1", Duration::from_secs(1)).expect("a URL");
        assert_eq!(client.no_answer(&Call::get("/")).exit, exit::UNREACHABLE);
        assert_eq!(client.no_answer(&Call::delete("/")).exit, exit::UNKNOWN);
    }
}
