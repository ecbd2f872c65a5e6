//! `kv list`: keys in order, their values, or how many there are.
//!
//! A long list of a strong namespace is of one moment, as an export is. When the node cannot keep that moment, the list
//! goes on with what is there now, and says so.

use bytes::Bytes;
use clap::Args;
use continuum_core::limits::PAGE_ROWS_MAX;
use serde_json::{Value, json};

use super::client::{Call, Client};
use super::exit::{self, Failure};
use super::output::{Screen, say};
use crate::api::json::{JsonBytes, RowBody};
use crate::api::problem::{EXPORT_EXPIRED, EXPORTS_BUSY, WRONG_CONSISTENCY};
use crate::api::{media, token, uri};

/// Keys to list.
#[derive(Clone, Debug, Args)]
pub(super) struct List {
    /// The namespace
    pub(super) ns: String,
    /// Only keys with this prefix
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    prefix: String,
    /// Maximum number of keys
    #[arg(long)]
    limit: Option<u64>,
    /// Print each key, a tab and its value; what is no single value is JSON. With -o json whole rows
    #[arg(long)]
    values: bool,
    /// Print only how many keys there are
    #[arg(long, conflicts_with_all = ["limit", "values"])]
    count: bool,
}

/// `kv list ...`, page by page.
pub(super) async fn run(
    list: List,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let ns = format!("/v1/namespaces/{}", uri::encode(list.ns.as_bytes()));
    let prefix = uri::encode(list.prefix.as_bytes());
    if list.count {
        let call = Call::get(format!("{ns}/keys?count=true&prefix={prefix}"));
        let body = client.send(&call).await?.json()?;
        return if screen.is_json() {
            screen.json(&body)
        } else {
            screen.line(body["count"].to_string())
        };
    }
    let what = if list.values { "rows" } else { "keys" };
    let mut left = list.limit.unwrap_or(u64::MAX);
    // A single page is of one moment without any help.
    let mut of_one_moment = left > PAGE_ROWS_MAX as u64;
    let (mut after, mut last, mut all) = (String::new(), None, Vec::new());
    while left > 0 {
        let page = left.min(PAGE_ROWS_MAX as u64);
        let begins = if of_one_moment && after.is_empty() { "&export=true" } else { "" };
        let path = format!("{ns}/{what}?prefix={prefix}&limit={page}{after}{begins}");
        let answer = match client.send(&Call::get(path)).await {
            Err(failure) if of_one_moment && goes_on(&failure) => {
                of_one_moment = false;
                after = last.as_deref().map(plain).unwrap_or_default();
                continue;
            }
            answer => answer?,
        };
        client.pin();
        let next = answer.header("continuum-next").map(|next| format!("&after={next}"));
        let found = if list.values {
            print_rows(&answer.body, screen)?
        } else {
            print_keys(&answer.json()?, screen)?
        };
        screen.finish()?;
        // A page ends early when its rows are large.
        left -= found.count.min(left);
        all.extend(found.json);
        last = found.last.or(last);
        match next {
            Some(next) if found.count > 0 || of_one_moment => after = next,
            _ => break,
        }
    }
    if screen.is_json() { screen.json(&json!({ what: all })) } else { Ok(()) }
}

/// Whether a list that cannot be of one moment goes on with what is there now.
fn goes_on(failure: &Failure) -> bool {
    let why = match failure.code.as_str() {
        // Eventual namespaces have no such moment.
        code if code == WRONG_CONSISTENCY.code => return true,
        code if code == EXPORT_EXPIRED.code => "it took too long",
        code if code == EXPORTS_BUSY.code => "exports are under way",
        _ => return false,
    };
    say(format!(
        "the list is not of one moment, because {why}: keys that change meanwhile may be missing"
    ));
    true
}

/// The parameter of a page after a key.
fn plain(key: &[u8]) -> String {
    format!("&after={}", token::cursor(key))
}

/// A page: how many keys it has, the last one, and in JSON what is printed at the end.
#[derive(Default)]
struct Page {
    count: u64,
    json: Vec<Value>,
    last: Option<Bytes>,
}

fn print_keys(body: &Value, screen: &mut Screen) -> Result<Page, Failure> {
    let keys: Vec<JsonBytes> = serde_json::from_value(body["keys"].clone()).unwrap_or_default();
    let last = keys.last().map(|key| key.0.clone());
    let mut page = Page { count: keys.len() as u64, json: Vec::new(), last };
    for key in keys {
        if screen.is_json() {
            page.json.push(json!(key));
        } else {
            screen.line(&key.0)?;
        }
    }
    Ok(page)
}

fn print_rows(lines: &[u8], screen: &mut Screen) -> Result<Page, Failure> {
    let mut page = Page::default();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: RowBody = serde_json::from_slice(line).map_err(|error| {
            let hint = "check that --node is the API of a node of this version";
            Failure::new(
                exit::MISMATCH,
                "not_rows",
                "the answer has no rows",
                error.to_string(),
                hint,
            )
        })?;
        page.count += 1;
        page.last = Some(row.key.0.clone());
        if screen.is_json() {
            page.json.push(json!(row));
        } else {
            screen.pair(&row.key.0, &value(&row))?;
        }
    }
    Ok(page)
}

/// The key's own value if it is all that the row has, and else the fields as JSON.
fn value(row: &RowBody) -> Vec<u8> {
    if let [field] = &row.fields[..]
        && field.field.0.is_empty()
        && let Some([value]) = field.register.as_deref()
    {
        return media::split(&value.0).1.to_vec();
    }
    // Serialization to memory fails only on maps whose keys are not strings, and fields are none.
    serde_json::to_vec(&row.fields).unwrap_or_default()
}
