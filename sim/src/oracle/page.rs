//! Pages of the strong namespace: where in the log a page of keys or rows is what the namespace held.
//!
//! `strong` uses it for its witness check. Pages here are short, so bytes never end one; this module does not judge
//! that bound.

use std::collections::BTreeSet;

use bytes::Bytes;
use continuum_core::api::{Content, Query, Row, Value};
use continuum_core::id::Index;

use super::witness::{Versions, Witness};

/// One row of a page; a page of keys has no values.
type Line = (Bytes, Option<Bytes>);

/// The ranges of the log in which the answer to a page's query was right: the first index, and the one after the last.
pub(super) fn ranges_of(query: &Query, value: &Value, witness: &Witness) -> Vec<(u64, u64)> {
    let (found, more) = match value {
        Value::Keys { keys, more } => (keys.iter().map(|key| (key.clone(), None)).collect(), more),
        Value::Rows { rows, more } => (rows.iter().map(line_of).collect::<Vec<Line>>(), more),
        _ => return Vec::new(),
    };
    let mut changes: BTreeSet<u64> = witness.keys.values().flat_map(Versions::changes).collect();
    changes.insert(0);
    let starts: Vec<u64> = changes.into_iter().collect();
    let ends = starts.iter().skip(1).copied().chain([u64::MAX]);
    let is_right =
        |(at, _): &(u64, u64)| page_at(query, witness, Index(*at)) == (found.clone(), *more);
    starts.iter().copied().zip(ends).filter(is_right).collect()
}

fn line_of(row: &Row) -> Line {
    let value = row.fields.iter().find_map(|field| match &field.content {
        Content::Register(values) => values.first().cloned(),
        Content::Set(_) | Content::Counter(_) => None,
    });
    (row.key.clone(), value)
}

/// The page that the namespace held after the entry `at`, and whether more follows.
fn page_at(query: &Query, witness: &Witness, at: Index) -> (Vec<Line>, bool) {
    let nothing = Bytes::new();
    let (prefix, after, limit, rows) = match query {
        Query::Keys { prefix, after, limit } => (prefix, after, *limit, false),
        Query::Rows { after, limit } => (&nothing, after, *limit, true),
        _ => return (Vec::new(), false),
    };
    let held = witness.keys.iter().filter_map(|(key, versions)| {
        let value = versions.at(at)?;
        Some((key.clone(), rows.then(|| value.clone())))
    });
    let mut lines = held.filter(|(key, _)| {
        key.starts_with(prefix) && after.as_ref().is_none_or(|after| key > after)
    });
    let page: Vec<Line> = lines.by_ref().take(limit as usize).collect();
    let more = lines.next().is_some();
    (page, more)
}
