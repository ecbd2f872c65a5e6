//! Files of keys with one value each: those of `consul kv export` and of `etcdctl get -w json`.
//!
//! Consul's file is a list of pairs with their value in base64 and a number, `flags`; the answers of its HTTP API have
//! capital letters and further members. etcd's is one object with `kvs`, all in base64. A number that is not 0 becomes
//! the register `flags`, which only eventual namespaces can hold. Revisions, sessions and leases have no place here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use continuum_core::api::{Content, Field, Row};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::source::{Place, Placed};
use super::whole::{self, Item, LineOf, Notes};
use crate::api::media;
use crate::cli::exit::Failure;

/// The field that holds Consul's number.
pub(super) const FLAGS: &str = "flags";

/// A pair of Consul, with the names of its HTTP API as well.
#[derive(Debug, Deserialize)]
struct ConsulPair {
    #[serde(alias = "Key")]
    key: String,
    #[serde(default, alias = "Flags")]
    flags: u64,
    #[serde(default, alias = "Value")]
    value: Option<String>,
}

/// A pair as `consul kv export` prints it.
#[derive(Debug, Serialize)]
struct ConsulOut<'a> {
    key: &'a str,
    flags: u64,
    value: String,
}

/// One answer of etcd.
#[derive(Debug, Deserialize)]
struct EtcdAnswer<'a> {
    #[serde(borrow, default)]
    kvs: Vec<&'a RawValue>,
    #[serde(default)]
    more: bool,
}

/// A pair of etcd.
#[derive(Debug, Deserialize)]
struct EtcdPair {
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    lease: serde_json::Value,
}

/// A pair as `etcdctl` prints it.
#[derive(Debug, Serialize)]
struct EtcdOut {
    key: String,
    value: String,
}

const HINT: &str = "correct or remove the pair, and check --format";

fn register(field: &'static str, value: Bytes) -> Field {
    let field = Bytes::from_static(field.as_bytes());
    Field { field, content: Content::Register(vec![media::stored(None, value)]) }
}

fn bytes(place: &Place, what: &str, text: &str) -> Result<Bytes, Failure> {
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| place.broken(format!("{what} is not base64: {error}"), HINT))
}

fn parse<'a, T: Deserialize<'a>>(place: &Place, json: &'a RawValue) -> Result<T, Failure> {
    serde_json::from_str(json.get())
        .map_err(|error| place.broken(whole::without_line(&error), HINT))
}

/// The rows of a file of Consul.
pub(super) fn consul(name: &str, text: &str) -> Result<Vec<Placed>, Failure> {
    let pair = |Item { line, json }: Item<'_>| {
        let place = Place { file: name.to_owned(), line };
        let pair: ConsulPair = parse(&place, json)?;
        let value = bytes(&place, "the value", pair.value.as_deref().unwrap_or_default())?;
        let mut fields = vec![register("", value)];
        if pair.flags != 0 {
            fields.push(register(FLAGS, pair.flags.to_string().into()));
        }
        Ok(Placed { place, row: Row { key: pair.key.into(), fields } })
    };
    whole::items(name, text)?.into_iter().map(pair).collect()
}

/// The rows of a file of etcd.
pub(super) fn etcd(name: &str, text: &str, notes: &mut Notes) -> Result<Vec<Placed>, Failure> {
    let mut rows = Vec::new();
    let mut lines = LineOf::new(text);
    for Item { line, json } in whole::items(name, text)? {
        let place = Place { file: name.to_owned(), line };
        let answer: EtcdAnswer<'_> = parse(&place, json)?;
        if answer.more {
            notes.add("answers of etcd that say that there are more keys", &place);
        }
        for json in answer.kvs {
            let place = Place { file: name.to_owned(), line: lines.part(json.get()) };
            let pair: EtcdPair = parse(&place, json)?;
            if !matches!(pair.lease.to_string().trim_matches('"'), "null" | "0") {
                notes.add("keys whose lease was left out: here they do not expire", &place);
            }
            let key = bytes(&place, "the key", &pair.key)?;
            let value = bytes(&place, "the value", pair.value.as_deref().unwrap_or_default())?;
            rows.push(Placed { place, row: Row { key, fields: vec![register("", value)] } });
        }
    }
    Ok(rows)
}

/// The value and the number of a row. All else of it is noted.
fn plain<'a>(row: &'a Row, has_flags: bool, notes: &mut Notes) -> Option<(&'a Bytes, u64)> {
    let (mut value, mut flags) = (None, 0);
    let key = row.key.escape_ascii();
    for Field { field, content } in &row.fields {
        match content {
            Content::Register(values) => {
                let number = || std::str::from_utf8(values.first()?).ok()?.parse().ok();
                if field.is_empty() {
                    value = values.first();
                } else if field == FLAGS
                    && has_flags
                    && let Some(number) = number()
                {
                    flags = number;
                } else {
                    notes.add("fields that were left out, because the format has none", &key);
                    continue;
                }
                if values.len() > 1 {
                    notes.add("values beside the first that were left out", &key);
                }
            }
            Content::Set(_) | Content::Counter(_) => {
                notes.add("sets and counters that were left out", &key);
            }
        }
    }
    if value.is_none() {
        notes.add("keys without a value that were left out", &key);
    }
    value.map(|value| (value, flags))
}

/// A row as `consul kv export` has it, with the separator before it.
pub(super) fn to_consul(row: &Row, is_first: bool, notes: &mut Notes) -> Option<Vec<u8>> {
    let Ok(key) = std::str::from_utf8(&row.key) else {
        notes.add("keys that are no text and were left out", &row.key.escape_ascii());
        return None;
    };
    let (value, flags) = plain(row, true, notes)?;
    let pair = ConsulOut { key, flags, value: STANDARD.encode(value) };
    let mut text = if is_first { b"[\n".to_vec() } else { b",\n".to_vec() };
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut json = Vec::new();
    pair.serialize(&mut serde_json::Serializer::with_formatter(&mut json, format)).ok()?;
    for (at, line) in json.split(|byte| *byte == b'\n').enumerate() {
        text.extend_from_slice(if at == 0 { b"\t" } else { b"\n\t" });
        text.extend_from_slice(line);
    }
    Some(text)
}

/// A row as `etcdctl` has it, with the separator before it.
pub(super) fn to_etcd(row: &Row, is_first: bool, notes: &mut Notes) -> Option<Vec<u8>> {
    let (value, _) = plain(row, false, notes)?;
    let pair = EtcdOut { key: STANDARD.encode(&row.key), value: STANDARD.encode(value) };
    let mut text = if is_first { b"{\"header\":{},\"kvs\":[".to_vec() } else { b",".to_vec() };
    text.extend(serde_json::to_vec(&pair).ok()?);
    Some(text)
}
