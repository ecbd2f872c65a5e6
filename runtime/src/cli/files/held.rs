//! The rows that a namespace holds under given keys.
//!
//! Keys of an export are near each other, so a page from the first key on mostly has them all. Keys that a few pages do
//! not have are asked for one by one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::Row;
use continuum_core::limits::{KEY_BYTES_MAX, PAGE_ROWS_MAX};

use super::jsonl;
use crate::api::json::FieldBody;
use crate::api::{token, uri};
use crate::cli::client::{Call, Client};
use crate::cli::exit::{self, Failure};

/// Fewer keys than this are asked for one by one.
const PAGE_KEYS_MIN: usize = 3;
/// Pages read before the keys that are left are asked for one by one.
const PAGES_MAX: usize = 4;

/// Reads the rows under these keys; those that the namespace lacks are left out. `ns` is the encoded name.
pub(super) async fn read(
    client: &mut Client,
    ns: &str,
    keys: BTreeSet<Bytes>,
) -> Result<BTreeMap<Bytes, Row>, Failure> {
    let mut found = BTreeMap::new();
    let mut left = keys;
    for _ in 0..PAGES_MAX {
        let Some(first) = left.first().filter(|_| left.len() >= PAGE_KEYS_MIN) else { break };
        let limit = (2 * left.len()).min(PAGE_ROWS_MAX);
        let after = token::cursor(&before(first));
        let path = format!("/v1/namespaces/{ns}/rows?after={after}&limit={limit}");
        let answer = client.send(&Call::get(path)).await?;
        let mut end = None;
        for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row = jsonl::row(line).map_err(|why| foreign(&why))?;
            end = Some(row.key.clone());
            if left.contains(&row.key) {
                found.insert(row.key.clone(), row);
            }
        }
        let more = answer.header("continuum-more") == Some("true");
        left.retain(|key| more && end.as_ref().is_some_and(|end| key > end));
    }
    for key in left {
        if let Some(row) = one(client, ns, &key).await? {
            found.insert(key, row);
        }
    }
    Ok(found)
}

async fn one(client: &mut Client, ns: &str, key: &Bytes) -> Result<Option<Row>, Failure> {
    let call = Call::get(format!("/v1/namespaces/{ns}/records/{}", uri::encode(key)));
    let answer = match client.send(&call).await {
        Err(failure) if failure.code == "absent" => return Ok(None),
        answer => answer?,
    };
    let body = answer.json()?;
    let fields: Vec<FieldBody> =
        serde_json::from_value(body["fields"].clone()).map_err(|why| foreign(&why.to_string()))?;
    let fields = fields.into_iter().map(jsonl::field).collect::<Result<Vec<_>, _>>();
    let fields = fields.map_err(|why| foreign(&why))?;
    Ok((!fields.is_empty()).then(|| Row { key: key.clone(), fields }))
}

fn foreign(why: &str) -> Failure {
    let hint = "check that --node is the API of a node of this version";
    Failure::new(exit::MISMATCH, "not_rows", "the answer has no rows", why, hint)
}

/// The greatest key before this one that a namespace may hold.
fn before(key: &[u8]) -> Vec<u8> {
    let Some((last, start)) = key.split_last() else { return Vec::new() };
    let mut before = start.to_vec();
    if let Some(less) = last.checked_sub(1) {
        before.push(less);
        before.resize(KEY_BYTES_MAX, 0xff);
    }
    before
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_key_lies_between_a_key_and_the_one_before(
            key in proptest::collection::vec(any::<u8>(), 1..5),
            other in proptest::collection::vec(prop_oneof![Just(0), Just(255), any::<u8>()], 1..9),
        ) {
            let before = before(&key);
            prop_assert!(before < key);
            prop_assert!(other <= before || other >= key);
        }
    }
}
