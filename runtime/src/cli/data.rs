//! Verbs for keys, sets, counters, records and whole rows.

use std::io::Read as _;

use bytes::Bytes;
use continuum_core::limits::VALUE_BYTES_MAX;
use serde_json::{Value, json};

use super::args::{Cas, Counter, Del, KeyPath, Kv, Promise, Record, Set};
use super::batch;
use super::client::{Call, Client};
use super::cluster::print_done;
use super::exit::{self, Failure};
use super::list;
use super::output::{Screen, say};
use crate::api::input::{
    BatchBody, CasBody, CountBody, EditBody, ExpectedBody, RecordBody, SetBody, WriteBody,
};
use crate::api::json::JsonBytes;
use crate::api::{media, uri};

/// The path of a key in one of the API's collections.
fn path(collection: &str, key_path: &KeyPath, promise: Option<&Promise>) -> String {
    let (ns, key) = (uri::encode(key_path.ns.as_bytes()), uri::encode(key_path.key.as_bytes()));
    let mut path = format!("/v1/namespaces/{ns}/{collection}/{key}");
    let mut separator = '?';
    let field = Some(&key_path.field).filter(|field| !field.is_empty());
    let level = promise.map(|promise| &promise.level);
    for (name, value) in [("field", field), ("level", level)] {
        if let Some(value) = value {
            path.extend([&String::from(separator), name, "=", &uri::encode(value.as_bytes())]);
            separator = '&';
        }
    }
    path
}

/// `kv ...`.
pub(super) async fn kv(verb: Kv, client: &mut Client, screen: &mut Screen) -> Result<(), Failure> {
    let (call, words) = match verb {
        Kv::Get { key_path, raw } => return get(&key_path, raw, client, screen).await,
        Kv::Del(Del { ns, prefix: Some(prefix), promise, .. }) => {
            return delete_all(&ns, &prefix, &promise, client, screen).await;
        }
        Kv::List(list) => return list::run(list, client, screen).await,
        Kv::Batch(batch) => return batch::run(batch, client, screen).await,
        Kv::Put { key_path, value, promise, context, media_type } => {
            let path = path("kv", &key_path, Some(&promise));
            let media_type = media_type.as_deref().unwrap_or(media::DEFAULT);
            let mut call = Call::put_as(media_type, path, value_of(&value)?);
            if let Some(context) = context {
                call = call.header("continuum-context", context);
            }
            (call, "put")
        }
        Kv::Del(Del { ns, key, field, promise, prefix: None }) => {
            let key_path = KeyPath { ns, key: key.unwrap_or_default(), field };
            (Call::delete(path("kv", &key_path, Some(&promise))), "deleted")
        }
        Kv::Cas(cas) => (cas_call(cas), "set"),
    };
    let answer = client.send(&call.once()).await?.json()?;
    existed(&answer)?;
    print_done(&answer, words, screen)
}

/// Fails as for an absent value when a removal found nothing.
fn existed(answer: &Value) -> Result<(), Failure> {
    if answer["existed"] != false {
        return Ok(());
    }
    let hint = "see what is there with `continuum kv list`";
    Err(Failure::new(exit::NEGATIVE, "absent", "there was nothing to remove", "", hint)
        .with(answer))
}

fn cas_call(cas: Cas) -> Call {
    let Cas { key_path, value, expect, expect_revision, expect_absent, delete: _ } = cas;
    let text = |text: String| JsonBytes(text.into());
    let expected =
        ExpectedBody { absent: expect_absent, revision: expect_revision, value: expect.map(text) };
    Call::post(path("cas", &key_path, None), &CasBody { expected, value: value.map(text) })
}

/// A value from the command line, or from standard input.
fn value_of(argument: &str) -> Result<Bytes, Failure> {
    if argument != "-" {
        return Ok(Bytes::copy_from_slice(argument.as_bytes()));
    }
    let mut value = Vec::new();
    // One byte more than allowed, so that the node refuses the value with its bound.
    let read = std::io::stdin().take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| {
        Failure::local("standard input cannot be read", &error, "pipe the value in")
    })?;
    Ok(value.into())
}

async fn get(
    key_path: &KeyPath,
    is_raw: bool,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let call = Call::get(path("kv", key_path, None));
    if screen.is_json() && !is_raw {
        return screen.json(&client.send(&call).await?.json()?);
    }
    let value = client.send(&call.header("accept", "application/octet-stream")).await?;
    screen.bytes(&value.body)?;
    if is_raw { Ok(()) } else { screen.bytes(b"\n") }
}

/// Removes all keys with a prefix, page by page. A repeat after a failure removes those that are left.
async fn delete_all(
    ns: &str,
    prefix: &str,
    promise: &Promise,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let (ns, prefix) = (uri::encode(ns.as_bytes()), uri::encode(prefix.as_bytes()));
    let batch =
        format!("/v1/namespaces/{ns}/batch?level={}", uri::encode(promise.level.as_bytes()));
    let (mut after, mut deleted) = (String::new(), 0);
    loop {
        let call = Call::get(format!("/v1/namespaces/{ns}/keys?prefix={prefix}{after}"));
        let body = client.send(&call).await?.json()?;
        client.pin();
        let keys: Vec<JsonBytes> = serde_json::from_value(body["keys"].clone()).unwrap_or_default();
        let count = keys.len();
        let edits = vec![EditBody { delete: true, ..EditBody::default() }];
        let writes =
            keys.into_iter().map(|key| WriteBody { key, edits: edits.clone(), context: None });
        if count > 0 {
            let call = client.next(Call::post(&batch, &BatchBody { writes: writes.collect() }));
            client.send(&call).await.inspect_err(|_| {
                say(format!("{deleted} keys were deleted before this"));
            })?;
        }
        deleted += count;
        let Some(next) = body["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    if deleted == 0 {
        return existed(&json!({ "existed": false, "deleted": 0 }));
    }
    if screen.is_json() {
        return screen.json(&json!({ "deleted": deleted }));
    }
    screen.line(format!("deleted {deleted} keys"))
}

/// `set ...`.
pub(super) async fn set(
    verb: Set,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let json_bytes =
        |members: Vec<String>| members.into_iter().map(|one| JsonBytes(one.into())).collect();
    let (key_path, promise, body, words) = match verb {
        Set::Add { key_path, members, promise } => {
            (key_path, promise, SetBody { add: json_bytes(members), ..SetBody::default() }, "added")
        }
        Set::Rm { key_path, members, promise } => (
            key_path,
            promise,
            SetBody { remove: json_bytes(members), ..SetBody::default() },
            "removed",
        ),
        Set::Members { key_path } => return members(&key_path, client, screen).await,
    };
    let call = Call::post(path("sets", &key_path, Some(&promise)), &body).once();
    let answer = client.send(&call).await?.json()?;
    existed(&answer)?;
    print_done(&answer, words, screen)
}

async fn members(
    key_path: &KeyPath,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let body = client.send(&Call::get(path("sets", key_path, None))).await?.json()?;
    there(&body["members"], "the key has no set")?;
    if screen.is_json() {
        return screen.json(&body);
    }
    let members: Vec<JsonBytes> =
        serde_json::from_value(body["members"].clone()).unwrap_or_default();
    members.iter().try_for_each(|member| screen.line(&member.0))
}

/// Fails as for an absent value when a list is empty: an empty set and none are the same.
fn there(list: &Value, what: &str) -> Result<(), Failure> {
    if list.as_array().is_some_and(|list| !list.is_empty()) {
        return Ok(());
    }
    let hint = "write it, or see what is there with `continuum kv list`";
    Err(Failure::new(exit::NEGATIVE, "absent", what, "", hint))
}

/// `counter ...`.
pub(super) async fn counter(
    verb: Counter,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    match verb {
        Counter::Add { key_path, amount, promise } => {
            let path = path("counters", &key_path, Some(&promise));
            let call = Call::post(path, &CountBody { add: amount }).once();
            print_done(&client.send(&call).await?.json()?, "counted", screen)
        }
        Counter::Get { key_path } => {
            let body = client.send(&Call::get(path("counters", &key_path, None))).await?.json()?;
            if screen.is_json() {
                return screen.json(&body);
            }
            let text =
                body["value"].as_str().map_or_else(|| body["value"].to_string(), ToOwned::to_owned);
            screen.line(text)
        }
    }
}

/// `record ...`.
pub(super) async fn record(
    verb: Record,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    match verb {
        Record::Get { ns, key } => {
            let key_path = KeyPath { ns, key, field: String::new() };
            let body = client.send(&Call::get(path("records", &key_path, None))).await?.json()?;
            there(&body["fields"], "the key has no fields")?;
            if screen.is_json() { screen.json(&body) } else { show_record(&body, screen) }
        }
        Record::Put { ns, key, put, add, remove, count, delete, promise } => {
            let key_path = KeyPath { ns, key, field: String::new() };
            let edit =
                |field: String| EditBody { field: JsonBytes(field.into()), ..EditBody::default() };
            let text = |text: String| JsonBytes(text.into());
            let mut edits = Vec::new();
            edits.extend(delete.into_iter().map(|f| EditBody { delete: true, ..edit(f) }));
            edits.extend(put.into_iter().map(|(f, v)| EditBody { put: Some(text(v)), ..edit(f) }));
            edits.extend(
                remove.into_iter().map(|(f, v)| EditBody { remove: vec![text(v)], ..edit(f) }),
            );
            edits.extend(add.into_iter().map(|(f, v)| EditBody { add: vec![text(v)], ..edit(f) }));
            edits.extend(count.into_iter().map(|(f, n)| EditBody { count: Some(n), ..edit(f) }));
            let body = RecordBody { edits, context: None };
            let is_removal = body.edits.iter().all(|edit| edit.delete || !edit.remove.is_empty());
            let call = Call::post(path("records", &key_path, Some(&promise)), &body).once();
            let answer = client.send(&call).await?.json()?;
            if is_removal {
                existed(&answer)?;
            }
            print_done(&answer, "put", screen)
        }
    }
}

/// Prints fields as rows of name, kind and values.
fn show_record(body: &Value, screen: &mut Screen) -> Result<(), Failure> {
    let fields = body["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let mut rows = Vec::new();
    for field in fields {
        for kind in ["register", "set", "counter"] {
            let values = match &field[kind] {
                Value::Null => continue,
                Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
                one => plain(one),
            };
            rows.push(vec![plain(&field["field"]), kind.to_owned(), values]);
        }
    }
    screen.table(&["field", "kind", "value"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_levels_are_encoded() {
        let key_path = KeyPath { ns: "notes".into(), key: "a/b c".into(), field: "é".into() };
        let promise = Promise { level: "replicated:2".into() };
        let expected = "/v1/namespaces/notes/kv/a%2Fb%20c?field=%C3%A9&level=replicated%3A2";
        assert_eq!(path("kv", &key_path, Some(&promise)), expected);
        let key_path = KeyPath { field: String::new(), ..key_path };
        assert_eq!(path("kv", &key_path, None), "/v1/namespaces/notes/kv/a%2Fb%20c");
    }
}
