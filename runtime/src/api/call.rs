//! One HTTP request, read whole and within bounds before the core is asked.

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use bytes::Bytes;
use continuum_core::api::Session;

use super::body::{self, Read};
use super::budget::Account;
use super::conditions::Condition;
use super::input::Params;
use super::problem::{
    EXPECTATION_FAILED, Problem, UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_TRANSFER_CODING,
};
use super::token::{self, Client};
use super::{Api, uri};

/// The longest idempotency key in bytes; a UUID has 36.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// The headers that decide what a write does, beside its method, path and body.
const DECISIVE: [&str; 4] = ["if-match", "if-none-match", "content-type", "continuum-context"];

/// One request.
#[derive(Debug)]
pub(super) struct Call {
    segments: Vec<Bytes>,
    pub(super) params: Params,
    pub(super) headers: HeaderMap,
    /// The condition of the write.
    pub(super) condition: Condition,
    pub(super) body: Bytes,
    /// The session of the idempotency key, if there is one.
    session: Option<Session>,
    /// Whether parsing the body would hold up other work.
    pub(super) is_heavy: bool,
    /// The charge for the body, as long as the request lasts.
    _account: Account,
}

impl Call {
    /// Reads a request to its end.
    pub(super) async fn read(api: &Api, request: Request) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let segments = segments(&parts)?;
        let params = Params::new(parts.uri.query())?;
        check_transfer(&parts.headers)?;
        let declared = declared_bytes(&parts.headers);
        let mut account = api.bodies.open();
        let mut read = Read::empty();
        if declared != Some(0) {
            check_media_type(&parts)?;
            let is_json = parts.method == Method::POST;
            read = body::read(body, declared, is_json, &mut account).await?;
        }
        let is_heavy = read.is_heavy();
        let session = session(&parts, &read.bytes)?;
        let (headers, body) = (parts.headers, read.bytes);
        let condition = Condition::Always;
        Ok(Self {
            segments,
            params,
            headers,
            condition,
            body,
            session,
            is_heavy,
            _account: account,
        })
    }

    /// The namespace in the path. Names are ASCII; other bytes become a name that no namespace has.
    pub(super) fn namespace(&self) -> String {
        self.segments
            .get(2)
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .unwrap_or_default()
    }

    /// The key in the path.
    pub(super) fn key(&self) -> Bytes {
        self.segments.get(4).cloned().unwrap_or_default()
    }

    /// All that the client accepts, as one list.
    pub(super) fn accept(&self) -> String {
        let all = self.headers.get_all(header::ACCEPT).iter();
        all.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
    }

    /// The session that makes a retry of this write harmless.
    pub(super) const fn session(&self) -> Option<Session> {
        self.session
    }
}

/// The session of the idempotency key, bound to the client and to the whole request.
fn session(parts: &Parts, body: &[u8]) -> Result<Option<Session>, Problem> {
    let number = number(&parts.headers)?;
    let mut keys = parts.headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else {
        return match number {
            None => Ok(None),
            Some(_) => Err(Problem::invalid(
                "Continuum-Sequence numbers the writes of an Idempotency-Key, and there is none",
                "send both, or neither",
            )),
        };
    };
    let wrong = |what: &str| {
        let hint =
            format!("use 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, chosen at random for each write");
        Err(Problem::invalid(format!("the Idempotency-Key is {what}"), hint))
    };
    match key.len() {
        _ if keys.next().is_some() => return wrong("given twice"),
        0 => return wrong("empty"),
        1..=IDEMPOTENCY_KEY_BYTES_MAX => {}
        _ => return wrong("too long"),
    }
    let client = parts.extensions.get::<Client>().cloned().unwrap_or_default();
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let mut decisive = vec![parts.method.as_str().as_bytes(), target.as_bytes(), body];
    for name in DECISIVE {
        decisive.push(name.as_bytes());
        decisive.extend(parts.headers.get_all(name).iter().map(HeaderValue::as_bytes));
    }
    let request = token::fingerprint(&decisive);
    Ok(Some(token::session(&client, key.as_bytes(), number.unwrap_or(0), request)))
}

/// The number that a client gives a write in the session of its key.
fn number(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut all = headers.get_all("continuum-sequence").iter();
    let Some(first) = all.next() else { return Ok(None) };
    let number = token::parse_number(first.as_bytes()).filter(|_| all.next().is_none());
    number.map(Some).ok_or_else(|| {
        let hint = "count the writes of a session from 0, and send one number";
        Problem::invalid("Continuum-Sequence is not one number", hint)
    })
}

/// Whether the headers say that the body is JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

/// Refuses a body that would be taken for something else. A browser sends media types other than JSON for any page, and
/// asks this node first whether it may send JSON. A value would be stored as it is encoded, and served without a word.
fn check_media_type(parts: &Parts) -> Result<(), Problem> {
    let encoding = parts.headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::new(
            &UNSUPPORTED_MEDIA_TYPE,
            "the body has a content encoding",
            "send it without Content-Encoding, or encode the value yourself",
        ));
    }
    if parts.method == Method::POST && !is_json(&parts.headers) {
        return Err(Problem::new(
            &UNSUPPORTED_MEDIA_TYPE,
            "the body is not declared as JSON",
            "send it with the header `Content-Type: application/json`",
        ));
    }
    Ok(())
}

/// The decoded segments of the path.
fn segments(parts: &Parts) -> Result<Vec<Bytes>, Problem> {
    let path = parts.uri.path();
    let segments = path.split('/').skip(1).map(|segment| uri::decode(segment, false));
    segments.collect::<Option<_>>().ok_or_else(|| {
        Problem::invalid("the path has a broken %-escape", "encode `%` itself as %25")
    })
}

/// Refuses what the head asks of the connection and this node does not do: an answer in another way would store
/// compressed bytes as a value, or let the client wait for ever.
fn check_transfer(headers: &HeaderMap) -> Result<(), Problem> {
    let is_foreign = |name: HeaderName, known: &str| {
        let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(known.as_bytes());
        !headers.get_all(name).iter().all(known)
    };
    let is_repeated = headers.get_all(header::TRANSFER_ENCODING).iter().count() > 1;
    if is_repeated || is_foreign(header::TRANSFER_ENCODING, "chunked") {
        return Err(Problem::new(
            &UNSUPPORTED_TRANSFER_CODING,
            "the body has a transfer coding other than chunked alone",
            "send it with Content-Length, or with `Transfer-Encoding: chunked`",
        ));
    }
    if is_foreign(header::EXPECT, "100-continue") {
        return Err(Problem::new(
            &EXPECTATION_FAILED,
            "the request expects more than 100-continue",
            "leave out the header Expect",
        ));
    }
    Ok(())
}

/// The length that the head declares; `None` when it does not say one.
fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Some(0) };
    length.to_str().ok()?.parse().ok()
}
