//! Pages of keys and rows: where each begins, and the link to the next one.
//!
//! All pages have one form: `Link` with `rel="next"` while there are more (RFC 8288), and the cursor in
//! `continuum-next`. The pages of an export are of one moment, which `continuum-revision` names. This module reads no
//! value.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use continuum_core::api::{ExportCursor, Query};
use continuum_core::id::Index;
use continuum_core::limits::KEY_BYTES_MAX;

use super::call::Call;
use super::output::{NEXT, REVISION};
use super::problem::Problem;
use super::token::{self, Cursor};
use super::uri;

/// A page that was asked for.
#[derive(Debug)]
pub(super) struct Page {
    path: String,
    pub(super) prefix: Bytes,
    pub(super) after: Option<Bytes>,
    pub(super) limit: u32,
    /// Set for a page of an export; the cursor is that of a further page.
    pub(super) export: Option<Option<ExportCursor>>,
}

impl Page {
    /// Reads the parameters of a page.
    pub(super) fn read(call: &mut Call, what: &str) -> Result<Self, Problem> {
        let path = format!("/v1/namespaces/{}/{what}", uri::encode(call.namespace().as_bytes()));
        let prefix = call.params.take("prefix").unwrap_or_default();
        let (limit, exports) = (call.params.limit()?, call.params.flag("export")?);
        let (after, export) = match call.params.after()? {
            Some(Cursor::Export(cursor)) => (None, Some(Some(cursor))),
            Some(Cursor::After(_)) if exports => {
                let detail = "after is not the cursor of an export";
                return Err(Problem::invalid(detail, "begin the export without after"));
            }
            Some(Cursor::After(after)) => (Some(after), None),
            None => (None, exports.then_some(None)),
        };
        Ok(Self { path, prefix, after, limit, export })
    }

    /// The query for a page of an export, with whole rows or keys alone; `None` for another page.
    pub(super) fn export_query(&self, values: bool) -> Option<Query> {
        let (from, prefix) = (self.export.clone()?, self.prefix.clone());
        Some(Query::Export { from, prefix, limit: self.limit, values })
    }

    /// The query for a page of keys.
    pub(super) fn query(&self) -> Query {
        let (prefix, after) = (self.prefix.clone(), self.after.clone());
        Query::Keys { prefix, after, limit: self.limit }
    }

    /// Adds the way to the page after this key.
    pub(super) fn link(&self, response: Response, last: Option<&[u8]>) -> Response {
        self.link_to(response, last.map(token::cursor))
    }

    /// Adds the moment of an export, and the way to its next page.
    pub(super) fn link_export(
        &self,
        mut response: Response,
        at: Index,
        next: Option<&ExportCursor>,
    ) -> Response {
        response.headers_mut().insert(REVISION.clone(), HeaderValue::from(at.0));
        self.link_to(response, next.map(token::export_cursor))
    }

    fn link_to(&self, mut response: Response, cursor: Option<String>) -> Response {
        let Some(cursor) = cursor else { return response };
        let prefix = if self.prefix.is_empty() {
            String::new()
        } else {
            format!("&prefix={}", uri::encode(&self.prefix))
        };
        let link =
            format!("<{}?after={cursor}&limit={}{prefix}>; rel=\"next\"", self.path, self.limit);
        for (name, text) in [(header::LINK, link), (NEXT.clone(), cursor)] {
            // Both are ASCII.
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// The greatest key before all keys with a prefix; `None` when there is none.
pub(super) fn before(prefix: &[u8]) -> Option<Bytes> {
    let (&last, head) = prefix.split_last()?;
    let mut key = head.to_vec();
    if last > 0 {
        key.push(last - 1);
        key.resize(KEY_BYTES_MAX.max(key.len()), u8::MAX);
    }
    Some(key.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_stands_between_a_prefix_and_the_key_before_it(
            prefix in proptest::collection::vec(prop_oneof![Just(0), Just(255), any::<u8>()], 1..4),
            key in proptest::collection::vec(prop_oneof![Just(0), Just(255), any::<u8>()], 1..6),
        ) {
            let before = before(&prefix).expect("a prefix");
            prop_assert!(before[..] < prefix[..]);
            // Each key is at or before it, or at or after the prefix.
            prop_assert_eq!(key[..] <= before[..], key < prefix);
        }
    }
}
