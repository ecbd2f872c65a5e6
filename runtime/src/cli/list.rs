//! `kv list`: keys in order, their values, or how many there are.

use clap::Args;
use continuum_core::limits::PAGE_ROWS_MAX;
use serde_json::{Value, json};

use super::client::{Call, Client};
use super::exit::{self, Failure};
use super::output::Screen;
use crate::api::json::{JsonBytes, RowBody};
use crate::api::{media, uri};

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
    let (mut after, mut all) = (String::new(), Vec::new());
    while left > 0 {
        let page = left.min(PAGE_ROWS_MAX as u64);
        let call = Call::get(format!("{ns}/{what}?prefix={prefix}&limit={page}{after}"));
        let answer = client.send(&call).await?;
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
        match next {
            Some(next) if found.count > 0 => after = next,
            _ => break,
        }
    }
    if screen.is_json() { screen.json(&json!({ what: all })) } else { Ok(()) }
}

/// A page: how many keys it has, and in JSON what is printed at the end.
#[derive(Default)]
struct Page {
    count: u64,
    json: Vec<Value>,
}

fn print_keys(body: &Value, screen: &mut Screen) -> Result<Page, Failure> {
    let keys: Vec<JsonBytes> = serde_json::from_value(body["keys"].clone()).unwrap_or_default();
    let mut page = Page { count: keys.len() as u64, json: Vec::new() };
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
