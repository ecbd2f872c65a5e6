//! Pages of the strong namespace: where in the log a page of keys or rows is what the namespace held, and whether a
//! page of an export is what it held at the export's moment.
//!
//! `strong` uses it for its witness check. Pages here are short, so bytes never end one; this module does not judge
//! that bound.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use continuum_core::api::{Content, ExportPage, Query, Row, Value};
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
    let is_right = |(at, _): &(u64, u64)| is_page(query, witness, Index(*at), (&found, *more));
    starts.iter().copied().zip(ends).filter(is_right).collect()
}

fn line_of(row: &Row) -> Line {
    let value = row.fields.iter().find_map(|field| match &field.content {
        Content::Register(values) => values.first().cloned(),
        Content::Set(_) | Content::Counter(_) => None,
    });
    (row.key.clone(), value)
}

/// Whether this is the page that the namespace held after the entry `at`, and whether more follows as told.
fn is_page(query: &Query, witness: &Witness, at: Index, (found, more): (&[Line], bool)) -> bool {
    let nothing = Bytes::new();
    let (prefix, after, limit, rows) = match query {
        Query::Keys { prefix, after, limit } => (prefix, after.as_ref(), *limit, false),
        Query::Rows { after, limit } => (&nothing, after.as_ref(), *limit, true),
        _ => return false,
    };
    let from = match after.filter(|after| *after >= prefix) {
        Some(after) => Bound::Excluded(after),
        None => Bound::Included(prefix),
    };
    let held = witness.keys.range::<Bytes, _>((from, Bound::Unbounded));
    let mut held = held
        .take_while(|(key, _)| key.starts_with(prefix))
        .filter_map(|(key, versions)| Some((key, versions.at(at)?)));
    let is_line = |((key, value), (of, told)): ((&Bytes, &Bytes), &Line)| {
        key == of && told.as_ref() == rows.then_some(value)
    };
    let mut page = held.by_ref().take(limit as usize);
    let is_found = found.iter().all(|line| page.next().is_some_and(|held| is_line((held, line))));
    is_found && page.next().is_none() && held.next().is_some() == more
}

/// Whether a page of an export is the next part of what the namespace held after the entry that it names. A page may be
/// short, and even empty, but its cursor passes no row that the page lacks.
pub(super) fn is_of_export(query: &Query, page: &ExportPage, witness: &Witness) -> bool {
    let Query::Export { from, prefix, limit, values } = query else { return false };
    let after = from.as_ref().map(|from| &from.after).filter(|after| *after >= prefix);
    let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
    let held = witness.keys.range::<Bytes, _>((from, Bound::Unbounded));
    let held = held.take_while(|(key, _)| key.starts_with(prefix));
    let mut held = held.filter_map(|(key, versions)| Some((key, versions.at(page.at)?)));
    let is_line = |row: &Row| {
        let (of, told) = line_of(row);
        held.next()
            .is_some_and(|(key, value)| *key == of && told.as_ref() == values.then_some(value))
    };
    let is_found = page.rows.len() <= *limit as usize && page.rows.iter().all(is_line);
    let next = held.next().map(|(key, _)| key);
    let last = page.rows.last().map(|row| &row.key);
    is_found
        && match &page.next {
            None => next.is_none(),
            Some(cursor) => {
                last.is_none_or(|last| cursor.after >= *last)
                    && next.is_none_or(|next| cursor.after < *next)
            }
        }
}
