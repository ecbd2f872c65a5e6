//! The answers to clients: the core's outcomes as JSON, raw bytes or pages of lines.
//!
//! Ids above 53 bits (nonces, roots) are hexadecimal text, since JSON readers round such numbers.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use continuum_core::api::{
    Field, FormedPeer, GroupStatus, Level, Member, MemberInfo, Namespace, Outcome, Policy, Receipt,
    Register, Row, ShardStatus, Status, Strategy, Unready, Value, Warning,
};
use continuum_core::id::Role;
use serde_json::{Map, Value as Json, json};

use super::conditions::{CONTEXT, raw_tag};
use super::json::{Count, FieldBody, JsonBytes, json_bytes, line};
use super::media;
use super::problem::{ABSENT, Problem, UNEXPECTED_ANSWER};
use super::token::{self, Tag};

/// Whether another page follows this one.
pub static MORE: HeaderName = HeaderName::from_static("continuum-more");
/// The cursor after the last line of a page.
pub static NEXT: HeaderName = HeaderName::from_static("continuum-next");
/// The last entry that all pages of an export contain.
pub static REVISION: HeaderName = HeaderName::from_static("continuum-revision");

/// A context that is longer than this is in the body alone.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// The value of a read.
///
/// # Errors
///
/// The problem of any other outcome.
pub fn value(outcome: Outcome) -> Result<Value, Problem> {
    match outcome {
        Outcome::Value(value) => Ok(value),
        Outcome::Rejected(reason) => Err(reason.into()),
        Outcome::Unknown { reached } => Err(Problem::unknown(reached)),
        other => Err(unexpected(&other)),
    }
}

/// The answer to a write.
///
/// # Errors
///
/// The problem of any other outcome.
pub fn committed(outcome: Outcome) -> Result<Response, Problem> {
    match outcome {
        Outcome::Committed { level, receipt } => Ok(receipt_response(level, receipt, &json!({}))),
        Outcome::Rejected(reason) => Err(reason.into()),
        Outcome::Unknown { reached } => Err(Problem::unknown(reached)),
        other @ (Outcome::Value(_) | Outcome::Partial { .. }) => Err(unexpected(&other)),
    }
}

/// The answer to a write that removes: it says whether something was there.
///
/// # Errors
///
/// The problem of any other outcome.
pub fn deleted(outcome: Outcome) -> Result<Response, Problem> {
    match outcome {
        Outcome::Committed { level, receipt } => {
            let existed = receipt.existed;
            Ok(receipt_response(level, receipt, &json!({ "existed": existed })))
        }
        other => committed(other),
    }
}

/// The answer to a `PUT`: 201 when there was no value before (RFC 9110, 9.3.4).
///
/// # Errors
///
/// The problem of any other outcome.
pub fn put(outcome: Outcome) -> Result<Response, Problem> {
    let is_new =
        matches!(&outcome, Outcome::Committed { receipt: Receipt { existed: false, .. }, .. });
    let mut response = committed(outcome)?;
    if is_new {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// The problem when the node's answer does not fit the question.
pub fn unexpected(found: &impl std::fmt::Debug) -> Problem {
    let mut text = format!("{found:?}");
    text.truncate(text.floor_char_boundary(200));
    Problem::new(&UNEXPECTED_ANSWER, text, "report this, with the versions of all nodes")
}

/// The answer to the creation of a namespace: it says what was made.
#[must_use]
pub fn created(level: Level, receipt: Receipt, namespace: &Json) -> Response {
    let mut response = receipt_response(level, receipt, namespace);
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// The answer to a write, with further members.
fn receipt_response(level: Level, receipt: Receipt, more: &Json) -> Response {
    let mut body = json!({ "committed": true, "level": token::level(level) });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let mut tag = None;
    if let Some(revision) = receipt.revision {
        body["revision"] = revision.0.into();
        tag = Some(Tag::Revision(revision.0));
    }
    if let Some(context) = receipt.context {
        body["context"] = token::context(&context).into();
        tag = Some(Tag::Context(context));
    }
    with_tag(json_response(StatusCode::OK, &body), tag.as_ref())
}

/// A JSON answer.
#[must_use]
pub fn json_response(status: StatusCode, body: &Json) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body.to_string()).into_response()
}

/// Adds the entity tag of the value that was read.
fn with_tag(mut response: Response, tag: Option<&Tag>) -> Response {
    // A tag is base64 and quotes. A context too long for a header is in the body alone.
    let text = tag.map(token::tag).filter(|text| text.len() <= HEADER_BYTES_MAX);
    if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// A register: raw when the client prefers bytes, else JSON. Without a value it is a problem that carries the context,
/// since a later write may have to supersede the delete that was read.
///
/// # Errors
///
/// [`ABSENT`].
pub fn register(key: Bytes, register: Register, raw: bool) -> Result<Response, Problem> {
    let tag = match register.revision {
        Some(revision) => Tag::Revision(revision.0),
        None => Tag::Context(register.context.clone()),
    };
    let Some(value) = register.value else {
        let hint = "write it, or see what is there with `continuum kv list`";
        let seen = token::context(&register.context);
        return Err(
            Problem::new(&ABSENT, "the key has no value", hint).with("context", seen.into())
        );
    };
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    let (kind, plain) = media::split(&value);
    if raw {
        return Ok(with_raw_tag(with_context(bare(kind, plain, vary), &tag), &tag));
    }
    let mut body = json!({ "key": JsonBytes(key), "value": JsonBytes(plain) });
    if let Some(kind) = kind {
        body["media_type"] = kind.into();
    }
    if register.siblings.len() > 1 {
        body["siblings"] = media::json(&register.siblings);
    }
    match &tag {
        Tag::Revision(revision) => body["revision"] = (*revision).into(),
        Tag::Context(context) => body["context"] = token::context(context).into(),
    }
    let mut response = json_response(StatusCode::OK, &body);
    response.headers_mut().insert(vary.0, vary.1);
    Ok(with_tag(with_context(response, &tag), Some(&tag)))
}

/// The bytes of a value under its media type. A page that somebody stored must not run as one of this API: it is shown
/// in a sandbox, and under no other type than its own.
fn bare(kind: Option<&str>, value: Bytes, vary: (HeaderName, HeaderValue)) -> Response {
    let kind = HeaderValue::from_str(kind.unwrap_or(media::DEFAULT));
    let kind = kind.unwrap_or(HeaderValue::from_static(media::DEFAULT));
    let headers = [
        (header::CONTENT_TYPE, kind),
        vary,
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
    ];
    (headers, Body::from(value)).into_response()
}

/// Adds the context of the read, which a later write may carry in the same header.
fn with_context(mut response: Response, tag: &Tag) -> Response {
    if let Tag::Context(context) = tag {
        let text = token::context(context);
        if text.len() <= HEADER_BYTES_MAX
            && let Ok(value) = HeaderValue::from_str(&text)
        {
            response.headers_mut().insert(CONTEXT.clone(), value);
        }
    }
    response
}

/// Adds the entity tag of raw bytes.
fn with_raw_tag(mut response: Response, tag: &Tag) -> Response {
    let text = raw_tag(&token::tag(tag));
    if text.len() <= HEADER_BYTES_MAX
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// The JSON of all other values.
#[must_use]
pub fn json(value: &Value) -> Json {
    match value {
        Value::Set { members, context } => {
            json!({ "members": json_bytes(members), "context": token::context(context) })
        }
        Value::Counter(count) => json!({ "value": Count(*count) }),
        Value::Record { fields, context } => {
            json!({ "fields": self::fields(fields), "context": token::context(context) })
        }
        Value::Keys { keys, more } => {
            let next = keys.last().filter(|_| *more).map(|key| token::cursor(key));
            json!({ "keys": json_bytes(keys), "more": more, "next": next })
        }
        Value::Export(page) => {
            let keys: Vec<_> = page.rows.iter().map(|row| row.key.clone()).collect();
            let next = page.next.as_ref().map(token::export_cursor);
            let at = page.at.0;
            json!({ "keys": json_bytes(&keys), "more": next.is_some(), "next": next, "revision": at })
        }
        Value::Status(status) => self::status(status),
        Value::Members(members) => {
            json!({ "members": members.iter().map(member).collect::<Vec<_>>() })
        }
        Value::Namespaces(found) => {
            json!({ "namespaces": found.iter().map(namespace).collect::<Vec<_>>() })
        }
        Value::Initialized => json!({ "initialized": true }),
        Value::Register(_) | Value::Rows { .. } | Value::Joined(_) | Value::Leader(_) => Json::Null,
    }
}

fn fields(fields: &[Field]) -> Vec<FieldBody> {
    fields.iter().map(FieldBody::from).collect()
}

/// A page of rows, one canonical line each.
#[must_use]
pub fn rows(rows: &[Row], more: bool) -> Response {
    let mut body = Vec::with_capacity(rows.len() * 64);
    for row in rows {
        body.extend_from_slice(&line(row));
        body.push(b'\n');
    }
    let kind = HeaderValue::from_static("application/x-ndjson");
    let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(MORE.clone(), HeaderValue::from_static(if more { "true" } else { "false" }));
    response
}

/// A namespace in JSON.
#[must_use]
pub fn namespace(namespace: &Namespace) -> Json {
    let mut object = Map::new();
    object.insert("name".into(), namespace.name.clone().into());
    object.insert("id".into(), namespace.id.0.into());
    match namespace.policy {
        Policy::Strong => {
            object.insert("consistency".into(), "strong".into());
            object
                .insert("group".into(), namespace.group.map_or(Json::Null, |group| group.0.into()));
        }
        Policy::Eventual { strategy, slots, discard } => {
            object.insert("consistency".into(), "eventual".into());
            object.insert("strategy".into(), strategy_name(strategy).into());
            object.insert("slots".into(), slots.into());
            object.insert("discard".into(), discard.into());
        }
    }
    object.into()
}

const fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::LastWriterWins => "last-writer-wins",
        Strategy::HighestNodeWins => "highest-node-wins",
    }
}

fn member(member: &Member) -> Json {
    json!({
        "node": member.replica.node.to_string(),
        "store": member.replica.store.to_string(),
        "name": member.name,
        "address": member.address.0,
        "voter": member.voter,
        "health": member.health.word(),
        "boot": member.boot,
        "load": member.load,
    })
}

/// A node's status in JSON.
#[must_use]
pub fn status(status: &Status) -> Json {
    json!({
        "node": status.replica.node.to_string(),
        "store": status.replica.store.to_string(),
        "name": status.name,
        "address": status.address.0,
        "boot": { "count": status.boot.count, "nonce": format!("{:016x}", status.boot.nonce) },
        "formed": status.formed,
        "genesis": status.genesis.map(|genesis| genesis.to_string()),
        "undecided": status.undecided.as_ref().map(founder),
        "formed_peers": status.formed_peers.iter().map(formed_peer).collect::<Vec<_>>(),
        "ready": serves(status).contains(&"eventual"),
        "serves": serves(status),
        "unready": status.unready.iter().copied().map(unready).collect::<Vec<_>>(),
        "warnings": warnings(&status.warnings),
        "groups": status.groups.iter().map(group).collect::<Vec<_>>(),
        "shards": status.shards.iter().map(shard).collect::<Vec<_>>(),
        "memory_bytes": status.memory_bytes,
        "requests": status.requests,
    })
}

/// The kinds of memory that the node serves.
#[must_use]
pub fn serves(status: &Status) -> Vec<&'static str> {
    let eventual = !status.unready.iter().any(Unready::stops_eventual);
    let kinds = [("eventual", eventual), ("strong", status.unready.is_empty())];
    kinds.into_iter().filter_map(|(kind, serves)| serves.then_some(kind)).collect()
}

/// The reason's name in `/readyz`.
#[must_use]
pub const fn unready(reason: Unready) -> &'static str {
    match reason {
        Unready::NotFormed => "not_formed",
        Unready::NoLeader => "no_leader",
        Unready::CatchingUp => "catching_up",
        Unready::DiskFull => "disk_full",
        Unready::DiskStalled => "disk_stalled",
        Unready::Stopping => "stopping",
        Unready::Fenced => "fenced",
        Unready::Suspended => "suspended",
        Unready::Unconfirmed => "unconfirmed",
        Unready::GroupHalted { .. } => "group_halted",
        Unready::FoundingUndecided => "founding_undecided",
        Unready::StoreReplaced => "store_replaced",
    }
}

/// Warnings in JSON, each with a code, a detail and a hint.
#[must_use]
pub fn warnings(warnings: &[Warning]) -> Json {
    let one = |warning: &Warning| {
        let (detail, hint) = explain(warning);
        json!({ "code": warning.code(), "detail": detail, "hint": hint })
    };
    warnings.iter().map(one).collect()
}

/// The text of a warning, and advice.
fn explain(warning: &Warning) -> (String, &'static str) {
    match warning {
        Warning::SnapshotRefused { group, index } => (
            format!(
                "group {group} stays behind: the leader's snapshot up to entry {index} does not restore"
            ),
            "run the same version of Continuum on all nodes",
        ),
        Warning::ClockAhead { by_ms } => (
            format!("this node stamped writes {by_ms} ms ahead of its present clock"),
            "compare its clock with a time server; the warning ends a minute after the clock is right",
        ),
        Warning::ClockBehindPeers { node, by_ms } => (
            format!("node {node} stamps writes {by_ms} ms ahead of this node's clock"),
            "compare the clocks of both nodes with a time server, and set the wrong one",
        ),
        Warning::RivalFederation { node, genesis } => (
            format!("node {node} is in another federation of this id, genesis {genesis}"),
            "keep one of the two federations, and start the nodes of the other with empty data directories",
        ),
        Warning::StoreReplaced { store } => (
            format!("this node's earlier store {store} is a voter; this store is a learner"),
            "the federation has one voter less; bring back the earlier data directory if it is sound",
        ),
    }
}

fn founder(founder: &MemberInfo) -> Json {
    json!({
        "founder": founder.replica.node.to_string(),
        "name": founder.name,
        "address": founder.address.0,
    })
}

fn formed_peer(peer: &FormedPeer) -> Json {
    json!({
        "node": peer.node.to_string(),
        "address": peer.address.0,
        "genesis": peer.genesis.to_string(),
    })
}

fn group(group: &GroupStatus) -> Json {
    json!({
        "group": group.group.0,
        "term": group.term.0,
        "leader": group.leader.map(|node| node.to_string()),
        "role": role(group.role),
        "commit": group.commit.0,
        "applied": group.applied.0,
        "last": group.last.0,
        "halted": group.halted.map(|index| index.0),
    })
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn shard(shard: &ShardStatus) -> Json {
    json!({
        "namespace": shard.namespace.0,
        "slot": shard.slot,
        "root": format!("{:016x}", shard.root),
        "writes": shard.writes,
        "in_sync": shard.in_sync,
        "peers": shard.peers,
    })
}
