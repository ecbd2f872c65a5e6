//! One HTTP request, read whole and within bounds before the core is asked.
//!
//! All connections permit one budget for bodies: when many or slow bodies use it up, further ones get 429, and the
//! process does not grow.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, header};
use bytes::Bytes;
use continuum_core::api::Session;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;

use super::input::{BODY_BYTES_MAX, Params};
use super::problem::{BODY_TIMEOUT, BODY_TOO_LARGE, BUSY, Problem, UNSUPPORTED_MEDIA_TYPE};
use super::token::{self, Client, Tag};
use super::{Api, uri};

/// A body must be complete within this, or its memory is taken back.
const BODY_TIMEOUT_S: u64 = 30;

/// The longest idempotency key in bytes; a UUID has 36.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// The headers that decide what a write does, beside its method, path and body.
const DECISIVE: [&str; 3] = ["if-match", "if-none-match", "content-type"];

/// One request.
#[derive(Debug)]
pub(super) struct Call {
    segments: Vec<Bytes>,
    pub(super) params: Params,
    headers: HeaderMap,
    pub(super) body: Bytes,
    /// The session of the idempotency key, if there is one.
    session: Option<Session>,
    /// The body's permit of the budget, held as long as the request.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// Reads a request to its end.
    pub(super) async fn read(api: &Api, request: Request) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let segments = segments(&parts)?;
        let params = Params::new(parts.uri.query())?;
        let permit = permit(api, &parts.headers)?;
        if permit.is_some() {
            check_media_type(&parts)?;
        }
        let body = if permit.is_some() { collect(body).await? } else { Bytes::new() };
        let session = session(&parts, &body)?;
        Ok(Self { segments, params, headers: parts.headers, body, session, _permit: permit })
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

    /// A header as text.
    fn text(&self, name: &HeaderName) -> Result<Option<&str>, Problem> {
        let Some(value) = self.headers.get(name) else { return Ok(None) };
        value.to_str().map(Some).map_err(|_| {
            Problem::invalid(format!("the header {name} is not ASCII"), "send visible ASCII only")
        })
    }

    /// All that the client accepts, as one list.
    pub(super) fn accept(&self) -> String {
        let all = self.headers.get_all(header::ACCEPT).iter();
        all.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
    }

    /// Whether the client accepts raw bytes.
    pub(super) fn wants_raw(&self) -> bool {
        self.headers.get_all(header::ACCEPT).iter().any(|value| {
            value.to_str().is_ok_and(|value| value.contains("application/octet-stream"))
        })
    }

    /// Whether the body is JSON rather than a raw value.
    pub(super) fn is_json(&self) -> bool {
        is_json(&self.headers)
    }

    /// The version of the value that `If-Match` requires.
    pub(super) fn if_match(&self) -> Result<Option<Tag>, Problem> {
        let Some(text) = self.text(&header::IF_MATCH)? else { return Ok(None) };
        token::parse_tag(text).map(Some).ok_or_else(|| {
            Problem::invalid(
                "If-Match is not an entity tag of this API",
                "use the ETag of a read, unchanged",
            )
        })
    }

    /// Whether the write is for an absent value only.
    pub(super) fn if_none_match(&self) -> Result<bool, Problem> {
        match self.text(&header::IF_NONE_MATCH)?.map(str::trim) {
            None => Ok(false),
            Some("*") => Ok(true),
            Some(_) => Err(Problem::invalid(
                "If-None-Match has another text than `*`",
                "use `*`, or If-Match",
            )),
        }
    }

    /// The session that makes a retry of this write harmless.
    pub(super) const fn session(&self) -> Option<Session> {
        self.session
    }
}

/// The session of the idempotency key, bound to the client and to the whole request.
fn session(parts: &Parts, body: &[u8]) -> Result<Option<Session>, Problem> {
    let mut keys = parts.headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
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
    decisive.extend(
        DECISIVE.iter().map(|name| {
            parts.headers.get(*name).map_or(&[][..], axum::http::HeaderValue::as_bytes)
        }),
    );
    let request = token::fingerprint(&decisive);
    Ok(Some(token::session(&client, key.as_bytes(), request)))
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

/// Takes the body's permit of the budget; `None` when there is no body.
fn permit(api: &Api, headers: &HeaderMap) -> Result<Option<OwnedSemaphorePermit>, Problem> {
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes: usize = if is_chunked { BODY_BYTES_MAX } else { length.unwrap_or(0) };
    if bytes == 0 {
        return Ok(None);
    }
    if bytes > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    Arc::clone(&api.bodies).try_acquire_many_owned(kib).map(Some).map_err(|_| {
        Problem::new(
            &BUSY,
            "the node has reached its bound on bodies in memory",
            "wait a moment and repeat the request",
        )
    })
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    let limited = Limited::new(body, BODY_BYTES_MAX);
    let collected =
        tokio::time::timeout(Duration::from_secs(BODY_TIMEOUT_S), limited.collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(Problem::invalid(format!("the body could not be read: {error}"), "send it whole"))
        }
        Err(_) => {
            let detail = format!("the body was not complete after {BODY_TIMEOUT_S} s");
            Err(Problem::new(
                &BODY_TIMEOUT,
                detail,
                "send it in smaller parts, or over a faster link",
            ))
        }
    }
}

fn too_large() -> Problem {
    let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
    Problem::new(&BODY_TOO_LARGE, detail, "split it into several requests")
        .with("limit", BODY_BYTES_MAX.into())
}
