//! The routes: each sends one request to the core and answers with its outcome.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Expected, ExportPage, Mutation, Outcome, Query, Reason, Register, Request, Value,
};
use serde_json::json;
use tokio::time::Instant;

use super::batch::Batch;
use super::body;
use super::call::Call;
use super::conditions::{self, Condition};
use super::input::{
    self, BatchBody, CasBody, CountBody, EditBody, InitBody, NamespaceBody, RecordBody, SetBody,
    WriteBody,
};
use super::json::JsonBytes;
use super::media;
use super::pages::{self, Page};
use super::problem::{BUSY, CONFLICT, Problem, UNKNOWN_NAMESPACE};
use super::{Api, Operation, heavy, output, probes, uri};
use crate::metrics::{Format, Seen};

/// Counting ends after this.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) type Answer = Result<Response, Problem>;

/// Performs a route.
pub(super) async fn perform(api: &Api, operation: Operation, call: Call) -> Answer {
    match operation {
        Operation::Live => probes::live(api, call).await,
        Operation::Ready => probes::ready(api, call).await,
        Operation::Metrics => metrics(api, call).await,
        Operation::Status => probes::status(api, call).await,
        Operation::Init => init(api, call).await,
        Operation::RotateKey => rotate_key(api, call).await,
        Operation::CreateNamespace => create_namespace(api, call).await,
        Operation::DeleteNamespace => delete_namespace(api, call).await,
        Operation::Namespace => probes::namespace(api, call).await,
        Operation::Members => plain(api, Request::Members, call).await,
        Operation::Namespaces => probes::namespaces(api, call).await,
        Operation::Get => get(api, call).await,
        Operation::Rows => rows(api, call).await,
        Operation::Keys => keys(api, call).await,
        Operation::SetMembers | Operation::Count | Operation::Record => {
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
async fn metrics(api: &Api, call: Call) -> Answer {
    let format = Format::accepted(&call.accept());
    call.params.finish()?;
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
    let body = Body::from(api.metrics.page(seen.as_ref(), format));
    let kind = HeaderValue::from_static(format.media_type());
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    Ok(([(header::CONTENT_TYPE, kind), vary], body).into_response())
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
    let location = format!("/v1/namespaces/{}", uri::encode(body.name.as_bytes()));
    let request = Request::CreateNamespace { name: body.name.clone(), policy, session };
    let (level, receipt) = match api.handle.request(request).await? {
        Outcome::Committed { level, receipt } => (level, receipt),
        other => return output::committed(other),
    };
    probes::catch_up(api).await;
    let found = probes::known(api, &body.name).await;
    let made =
        found.map_or_else(|| json!({ "name": body.name }), |found| output::namespace(&found));
    let mut response = output::created(level, receipt, &made);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
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
    let (namespace, key) = (call.namespace(), call.key());
    let field = call.params.take("field").unwrap_or_default();
    call.params.finish()?;
    let mut response = match ask(api, namespace, Query::Get { key: key.clone(), field }).await? {
        value @ Value::Register(_) => {
            let bytes = heavy::size(&value);
            let Value::Register(register) = value else { return Err(output::unexpected(&value)) };
            let kind =
                register.value.as_ref().map(|value| media::split(value).0.map(str::to_owned));
            let raw =
                kind.is_some_and(|kind| conditions::wants_raw(&call.headers, kind.as_deref()));
            let make = move || output::register(key, register, raw);
            // A raw answer is the value itself.
            if raw { make()? } else { heavy::made(api, bytes, make).await?? }
        }
        other => return Err(output::unexpected(&other)),
    };
    let tag = response.headers().get(header::ETAG);
    if !conditions::is_wanted(&call.headers, tag)? {
        let hint = "read without If-Match for the value that is there";
        return Err(Problem::new(&CONFLICT, "no entity tag in If-Match is the value's", hint));
    }
    if conditions::is_known(&call.headers, tag)? {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    Ok(response)
}

async fn rows(api: &Api, mut call: Call) -> Answer {
    let namespace = call.namespace();
    let page = Page::read(&mut call, "rows")?;
    call.params.finish()?;
    if let Some(query) = page.export_query(true) {
        return exported_rows(api, namespace, page, query).await;
    }
    let Page { prefix, limit, .. } = &page;
    // Rows are read from a key on: the pages of a prefix begin before its first key.
    let after = page.after.clone().max(pages::before(prefix));
    let value = ask(api, namespace, Query::Rows { after, limit: *limit }).await?;
    let bytes = heavy::size(&value);
    match value {
        Value::Rows { mut rows, more } => {
            let of_prefix = rows.iter().take_while(|row| row.key.starts_with(prefix)).count();
            let more = more && of_prefix == rows.len();
            rows.truncate(of_prefix);
            let next = rows.last().filter(|_| more).map(|row| row.key.clone());
            let made = heavy::made(api, bytes, move || output::rows(&rows, more)).await?;
            Ok(page.link(made, next.as_deref()))
        }
        other => Err(output::unexpected(&other)),
    }
}

/// A page of rows of an export.
async fn exported_rows(api: &Api, namespace: String, page: Page, query: Query) -> Answer {
    let value = ask(api, namespace, query).await?;
    let bytes = heavy::size(&value);
    let Value::Export(ExportPage { at, rows, next }) = value else {
        return Err(output::unexpected(&value));
    };
    let more = next.is_some();
    let made = heavy::made(api, bytes, move || output::rows(&rows, more)).await?;
    Ok(page.link_export(made, at, next.as_ref()))
}

/// A page of keys, or how many there are.
async fn keys(api: &Api, mut call: Call) -> Answer {
    let namespace = call.namespace();
    let count = call.params.flag("count")?;
    let page = Page::read(&mut call, "keys")?;
    call.params.finish()?;
    let export = page.export_query(false);
    if count {
        if export.is_some() {
            return Err(Problem::invalid("a count has no pages", "leave export and after out"));
        }
        return count_keys(api, namespace, page).await;
    }
    if let Some(query) = export {
        let value = ask(api, namespace, query).await?;
        let Value::Export(found) = &value else { return Err(output::unexpected(&value)) };
        let response = output::json_response(StatusCode::OK, &output::json(&value));
        return Ok(page.link_export(response, found.at, found.next.as_ref()));
    }
    let value = ask(api, namespace, page.query()).await?;
    let Value::Keys { keys, more } = &value else { return Err(output::unexpected(&value)) };
    let response = output::json_response(StatusCode::OK, &output::json(&value));
    Ok(page.link(response, keys.last().filter(|_| *more).map(|key| &key[..])))
}

/// Counts keys page by page, so that no step of the node takes long. Keys that come and go meanwhile may count or not.
async fn count_keys(api: &Api, namespace: String, mut page: Page) -> Answer {
    let until = Instant::now() + COUNT_TIMEOUT;
    let mut count: u64 = 0;
    loop {
        let value = ask(api, namespace.clone(), page.query()).await?;
        let Value::Keys { keys, more } = value else { return Err(output::unexpected(&value)) };
        count += keys.len() as u64;
        match keys.last().filter(|_| more) {
            None => return Ok(output::json_response(StatusCode::OK, &json!({ "count": count }))),
            Some(last) if Instant::now() < until => page.after = Some(last.clone()),
            Some(_) => {
                let detail = format!("{count} keys were counted, and there are more");
                return Err(Problem::new(&BUSY, detail, "count the keys of longer prefixes"));
            }
        }
    }
}

/// The reads of one key that answer with JSON.
async fn read(api: &Api, operation: Operation, mut call: Call) -> Answer {
    let (namespace, key) = (call.namespace(), call.key());
    let mut field = || call.params.take("field").unwrap_or_default();
    let query = match operation {
        Operation::SetMembers => Query::Members { key: key.clone(), field: field() },
        Operation::Count => Query::Count { key: key.clone(), field: field() },
        _ => Query::Record { key: key.clone() },
    };
    call.params.finish()?;
    let value = ask(api, namespace, query).await?;
    let bytes = heavy::size(&value);
    let make = move || {
        let mut body = output::json(&value);
        if body.is_null() {
            return Err(output::unexpected(&value));
        }
        body["key"] = json!(JsonBytes(key));
        Ok(output::json_response(StatusCode::OK, &body))
    };
    heavy::made(api, bytes, make).await?
}

/// All writes of keys.
async fn write(api: &Api, operation: Operation, mut call: Call) -> Answer {
    if matches!(operation, Operation::Put | Operation::Delete) {
        call.condition = settle(api, &call).await?;
    }
    let is_heavy = call.is_heavy;
    let read = move || {
        let mutations = mutations(operation, &mut call);
        (call, mutations)
    };
    let (mut call, mutations) =
        if is_heavy { body::apart(&api.turns, read).await? } else { read() };
    let mut mutations = mutations?;
    let namespace = call.namespace();
    expect_any_type(api, &namespace, &mut mutations).await?;
    let level = call.params.level()?;
    let session = call.session();
    let name = namespace.clone();
    call.params.finish()?;
    let batch = (operation == Operation::Batch).then(|| Batch::of(&mutations));
    let is_removal = mutations.iter().flat_map(|one| &one.edits).any(|e| e.change.removes());
    let request = Request::Write { namespace, mutations, level, session };
    let outcome = api.handle.request(request).await?;
    let answer = match (outcome, &batch) {
        (Outcome::Partial { happened, reason }, Some(batch)) => {
            Err(batch.partly_written(happened, reason))
        }
        (Outcome::Rejected(reason), Some(batch)) => Err(batch.refused(api, &name, reason).await),
        (outcome, _) if is_removal => output::deleted(outcome),
        (outcome, _) if operation == Operation::Put => output::put(outcome),
        (outcome, _) => output::committed(outcome),
    };
    answer.map_err(|problem| named(problem, &name))
}

/// The condition of a write as one that the core knows. A list of tags, and `*`, are the revision that the value has
/// now: the core compares once more when it writes. If none matches, the write is sent all the same, with a revision
/// that does not match. So it is refused by the one who knows, and a repeat still gets its first answer.
async fn settle(api: &Api, call: &Call) -> Result<Condition, Problem> {
    let condition = conditions::of_write(&call.headers)?;
    let listed = match &condition {
        Condition::Present => &[][..],
        Condition::Revisions(listed) if listed.len() > 1 => listed,
        _ => return Ok(condition),
    };
    let field = call.params.get("field").unwrap_or_default();
    let query = Query::Get { key: call.key(), field };
    let Value::Register(register) = ask(api, call.namespace(), query).await? else {
        return Err(Reason::WrongConsistency.into());
    };
    let found = register.revision.map(|revision| revision.0);
    let matches = found.filter(|found| listed.is_empty() || listed.contains(found));
    // No value has the revision 0.
    let revision = matches.or_else(|| listed.first().copied()).unwrap_or(0);
    Ok(Condition::Revisions(vec![revision]))
}

/// Lets an expected value without a media type stand for the one that is there, when it is the same value with a type.
/// The core compares once more when it writes.
async fn expect_any_type(
    api: &Api,
    namespace: &str,
    mutations: &mut [Mutation],
) -> Result<(), Problem> {
    for Mutation { key, edits, .. } in mutations {
        for Edit { field, change } in edits {
            let Change::Cas { expected: Expected::Value(value), .. } = change else { continue };
            let (None, wanted) = media::split(value) else { continue };
            let query = Query::Get { key: key.clone(), field: field.clone() };
            match api
                .handle
                .request(Request::Read { namespace: namespace.to_owned(), query })
                .await?
            {
                Outcome::Value(Value::Register(Register { value: Some(found), .. })) => {
                    if media::split(&found).1 == wanted {
                        *value = found;
                    }
                }
                Outcome::Value(_) => {}
                // The write itself is refused for these, with better words.
                Outcome::Rejected(Reason::UnknownNamespace | Reason::WrongConsistency) => {
                    return Ok(());
                }
                other => drop(output::value(other)?),
            }
        }
    }
    Ok(())
}

/// The changes that a write asks for.
fn mutations(operation: Operation, call: &mut Call) -> Result<Vec<Mutation>, Problem> {
    Ok(vec![match operation {
        Operation::Put => {
            let kind = media::of_request(&call.headers)?;
            let value = media::stored(kind.as_deref(), call.body.clone());
            conditional(call, Some(value))
        }
        Operation::Delete => conditional(call, None),
        Operation::Cas => cas(call)?,
        Operation::SetChange => set_change(call)?,
        Operation::CountAdd => count_add(call)?,
        Operation::RecordChange => record_change(call)?,
        _ => return input::mutations(input::json::<BatchBody>(&call.body)?),
    }])
}

/// A write of one register, with the condition in the head.
fn conditional(call: &mut Call, value: Option<Bytes>) -> Mutation {
    let (key, field) = (call.key(), call.params.take("field").unwrap_or_default());
    let mut context = None;
    let expected = match std::mem::replace(&mut call.condition, Condition::Always) {
        Condition::Always => None,
        Condition::Absent => Some(Expected::Absent),
        Condition::Present => Some(Expected::Revision(0)),
        Condition::Revisions(one) => one.first().copied().map(Expected::Revision),
        Condition::After(seen) => {
            context = Some(seen);
            None
        }
    };
    let change = match (expected, value) {
        (Some(expected), value) => Change::Cas { expected, value },
        (None, Some(value)) => Change::Put(value),
        (None, None) => Change::Delete,
    };
    Mutation { key, edits: vec![Edit { field, change }], context }
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
