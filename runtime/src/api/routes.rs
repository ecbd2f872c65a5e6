//! The routes: each sends one request to the core and answers with its outcome.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use continuum_core::api::{Change, Edit, Expected, Mutation, Outcome, Query, Request, Value};
use serde_json::json;

use super::call::Call;
use super::input::{
    self, BatchBody, CasBody, CountBody, EditBody, InitBody, NamespaceBody, PutBody, RecordBody,
    SetBody, WriteBody,
};
use super::json::JsonBytes;
use super::problem::{Problem, UNKNOWN_NAMESPACE};
use super::token::Tag;
use super::{Api, Operation, output, probes};
use crate::metrics::{Format, Seen};

pub(super) type Answer = Result<Response, Problem>;

/// Performs a route.
pub(super) async fn perform(api: &Api, operation: Operation, call: Call) -> Answer {
    match operation {
        Operation::Live => probes::live(api).await,
        Operation::Ready => probes::ready(api, call).await,
        Operation::Metrics => Ok(metrics(api, &call).await),
        Operation::Status => probes::status(api).await,
        Operation::Init => init(api, call).await,
        Operation::RotateKey => rotate_key(api, call).await,
        Operation::CreateNamespace => create_namespace(api, call).await,
        Operation::DeleteNamespace => delete_namespace(api, call).await,
        Operation::Namespace => probes::namespace(api, call).await,
        Operation::Members => plain(api, Request::Members, call).await,
        Operation::Namespaces => probes::namespaces(api, call).await,
        Operation::Get => get(api, call).await,
        Operation::Rows => rows(api, call).await,
        Operation::Keys | Operation::SetMembers | Operation::Count | Operation::Record => {
            read(api, operation, call).await
        }
        Operation::Put
        | Operation::Delete
        | Operation::Cas
        | Operation::SetChange
        | Operation::CountAdd
        | Operation::RecordChange
        | Operation::Batch => write(api, operation, call).await,
    }
}

/// All metrics, with current gauges, in the form that the client asks for. If the node does not answer, the gauges are
/// old and the counters are current.
async fn metrics(api: &Api, call: &Call) -> Response {
    let status = api.handle.status().await.ok();
    let members = match api.handle.request(Request::Members).await {
        Ok(Outcome::Value(Value::Members(members))) => members,
        _ => Vec::new(),
    };
    let namespaces = api.handle.namespaces().await.ok().flatten();
    let namespaces = namespaces.map(|(all, _)| all).unwrap_or_default();
    let figures = api.handle.figures().await.ok();
    let (members, namespaces, figures) = (&members[..], &namespaces[..], figures.as_ref());
    let seen = status.as_ref().map(|status| Seen { status, members, namespaces, figures });
    let format = Format::accepted(&call.accept());
    let body = Body::from(api.metrics.page(seen.as_ref(), format));
    let kind = HeaderValue::from_static(format.media_type());
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    ([(header::CONTENT_TYPE, kind), vary], body).into_response()
}

/// A read without parameters.
async fn plain(api: &Api, request: Request, call: Call) -> Answer {
    call.params.finish()?;
    let value = output::value(api.handle.request(request).await?)?;
    Ok(output::json_response(StatusCode::OK, &output::json(&value)))
}

async fn init(api: &Api, call: Call) -> Answer {
    let body = if call.body.is_empty() { InitBody::default() } else { input::json(&call.body)? };
    call.params.finish()?;
    let value = output::value(api.handle.request(input::init(body)).await?)?;
    Ok(output::json_response(StatusCode::OK, &output::json(&value)))
}

async fn rotate_key(api: &Api, call: Call) -> Answer {
    let session = call.session();
    call.params.finish()?;
    output::committed(api.handle.request(Request::RotateKey { session }).await?)
}

async fn create_namespace(api: &Api, call: Call) -> Answer {
    let session = call.session();
    let body: NamespaceBody = input::json(&call.body)?;
    call.params.finish()?;
    let policy = body.policy()?;
    let request = Request::CreateNamespace { name: body.name, policy, session };
    let mut response = output::committed(api.handle.request(request).await?)?;
    probes::catch_up(api).await;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

async fn delete_namespace(api: &Api, call: Call) -> Answer {
    let name = call.namespace();
    let session = call.session();
    call.params.finish()?;
    let request = Request::DeleteNamespace { name: name.clone(), session };
    let outcome = api.handle.request(request).await?;
    let answer = output::committed(outcome).map_err(|problem| named(problem, &name))?;
    probes::catch_up(api).await;
    Ok(answer)
}

/// Adds the name of an unknown namespace.
pub(super) fn named(mut problem: Problem, name: &str) -> Problem {
    if problem.kind == &UNKNOWN_NAMESPACE {
        let mut name = name.to_owned();
        name.truncate(name.floor_char_boundary(100));
        problem.detail = format!("the federation has no namespace `{name}`");
    }
    problem
}

/// The value of a query.
async fn ask(api: &Api, namespace: String, query: Query) -> Result<Value, Problem> {
    let name = namespace.clone();
    let outcome = api.handle.request(Request::Read { namespace, query }).await?;
    output::value(outcome).map_err(|problem| named(problem, &name))
}

async fn get(api: &Api, mut call: Call) -> Answer {
    let (namespace, key, raw) = (call.namespace(), call.key(), call.wants_raw());
    let field = call.params.take("field").unwrap_or_default();
    call.params.finish()?;
    match ask(api, namespace, Query::Get { key: key.clone(), field }).await? {
        Value::Register(register) => output::register(key, register, raw),
        other => Err(output::unexpected(&other)),
    }
}

async fn rows(api: &Api, mut call: Call) -> Answer {
    let namespace = call.namespace();
    let (after, limit) = (call.params.after()?, call.params.limit()?);
    call.params.finish()?;
    match ask(api, namespace, Query::Rows { after, limit }).await? {
        Value::Rows { rows, more } => Ok(output::rows(&rows, more)),
        other => Err(output::unexpected(&other)),
    }
}

/// The reads that answer with JSON.
async fn read(api: &Api, operation: Operation, mut call: Call) -> Answer {
    let (namespace, key) = (call.namespace(), call.key());
    let mut field = || call.params.take("field").unwrap_or_default();
    let query = match operation {
        Operation::SetMembers => Query::Members { key: key.clone(), field: field() },
        Operation::Count => Query::Count { key: key.clone(), field: field() },
        Operation::Record => Query::Record { key: key.clone() },
        _ => Query::Keys {
            prefix: call.params.take("prefix").unwrap_or_default(),
            after: call.params.after()?,
            limit: call.params.limit()?,
        },
    };
    call.params.finish()?;
    let value = ask(api, namespace, query).await?;
    let mut body = output::json(&value);
    if body.is_null() {
        return Err(output::unexpected(&value));
    }
    if operation != Operation::Keys {
        body["key"] = json!(JsonBytes(key));
    }
    Ok(output::json_response(StatusCode::OK, &body))
}

/// All writes of keys.
async fn write(api: &Api, operation: Operation, mut call: Call) -> Answer {
    let namespace = call.namespace();
    let mutations = match operation {
        Operation::Put => vec![put(&mut call)?],
        Operation::Delete => vec![delete(&mut call)?],
        Operation::Cas => vec![cas(&mut call)?],
        Operation::SetChange => vec![set_change(&mut call)?],
        Operation::CountAdd => vec![count_add(&mut call)?],
        Operation::RecordChange => vec![record_change(&call)?],
        _ => input::mutations(input::json::<BatchBody>(&call.body)?)?,
    };
    let level = call.params.level()?;
    let session = call.session();
    let name = namespace.clone();
    call.params.finish()?;
    let request = Request::Write { namespace, mutations, level, session };
    let outcome = api.handle.request(request).await?;
    output::committed(outcome).map_err(|problem| named(problem, &name))
}

/// A write of one register, with the conditions in the headers.
fn conditional(
    call: &mut Call,
    value: Option<Bytes>,
    context: Option<&str>,
) -> Result<Mutation, Problem> {
    let (key, field) = (call.key(), call.params.take("field").unwrap_or_default());
    let mut context = input::context("context", context)?;
    let expected = match (call.if_match()?, call.if_none_match()?) {
        (None, false) => None,
        (None, true) => Some(Expected::Absent),
        (Some(Tag::Revision(revision)), false) => Some(Expected::Revision(revision)),
        (Some(Tag::Context(seen)), false) => {
            context = Some(seen);
            None
        }
        (Some(_), true) => {
            return Err(Problem::invalid(
                "If-Match and If-None-Match contradict each other",
                "send one of them",
            ));
        }
    };
    let change = match (expected, value) {
        (Some(expected), value) => Change::Cas { expected, value },
        (None, Some(value)) => Change::Put(value),
        (None, None) => Change::Delete,
    };
    Ok(Mutation { key, edits: vec![Edit { field, change }], context })
}

fn put(call: &mut Call) -> Result<Mutation, Problem> {
    if call.is_json() {
        let body: PutBody = input::json(&call.body)?;
        return conditional(call, Some(body.value.0), body.context.as_deref());
    }
    let value = call.body.clone();
    conditional(call, Some(value), None)
}

fn delete(call: &mut Call) -> Result<Mutation, Problem> {
    conditional(call, None, None)
}

fn cas(call: &mut Call) -> Result<Mutation, Problem> {
    let change = input::json::<CasBody>(&call.body)?.change("expected")?;
    let field = call.params.take("field").unwrap_or_default();
    Ok(Mutation { key: call.key(), edits: vec![Edit { field, change }], context: None })
}

fn set_change(call: &mut Call) -> Result<Mutation, Problem> {
    let SetBody { add, remove, context } = input::json(&call.body)?;
    let field = JsonBytes(call.params.take("field").unwrap_or_default());
    let edit = EditBody { field, add, remove, ..EditBody::default() };
    input::mutation("", WriteBody { key: JsonBytes(call.key()), edits: vec![edit], context })
}

fn count_add(call: &mut Call) -> Result<Mutation, Problem> {
    let CountBody { add } = input::json(&call.body)?;
    let field = call.params.take("field").unwrap_or_default();
    let edits = vec![Edit { field, change: Change::Count(add) }];
    Ok(Mutation { key: call.key(), edits, context: None })
}

fn record_change(call: &Call) -> Result<Mutation, Problem> {
    let RecordBody { edits, context } = input::json(&call.body)?;
    input::mutation("", WriteBody { key: JsonBytes(call.key()), edits, context })
}
