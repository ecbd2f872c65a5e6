//! Refused batches: which write was refused, and why.
//!
//! A batch of a strong namespace happens as a whole or not at all; in an eventual one the writes before the refused one
//! have happened. The core names the place of a refusal that depends on what is stored. The places of all others follow
//! from the batch itself. This module decides nothing: it explains.

use bytes::Bytes;
use continuum_core::api::{Bound, Change, Mutation, Policy, Reason};
use serde_json::{Value, json};

use super::Api;
use super::json::JsonBytes;
use super::problem::{PARTLY_WRITTEN, Problem};

/// Characters of a key in a sentence.
const KEY_CHARS_MAX: usize = 60;

/// The parts of a batch that place a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    keys: Vec<Bytes>,
    /// The first write that only a strong namespace takes.
    strong: Option<usize>,
    /// The first write that only an eventual namespace takes.
    eventual: Option<usize>,
}

impl Batch {
    /// The batch of these writes.
    pub(super) fn of(mutations: &[Mutation]) -> Self {
        let keys = mutations.iter().map(|mutation| mutation.key.clone()).collect();
        let is_strong = |mutation: &Mutation| {
            mutation.edits.iter().any(|edit| matches!(edit.change, Change::Cas { .. }))
        };
        let is_eventual = |mutation: &Mutation| {
            let plain = |change: &Change| {
                matches!(change, Change::Put(_) | Change::Delete | Change::Cas { .. })
            };
            mutation.context.is_some()
                || mutation.edits.iter().any(|edit| !edit.field.is_empty() || !plain(&edit.change))
        };
        Self {
            keys,
            strong: mutations.iter().position(is_strong),
            eventual: mutations.iter().position(is_eventual),
        }
    }

    /// The problem of a batch that was refused as a whole.
    pub(super) async fn refused(&self, api: &Api, namespace: &str, reason: Reason) -> Problem {
        let at = match (self.place(&reason), &reason) {
            (None, Reason::WrongConsistency) => self.misfit(api, namespace).await,
            (place, _) => place,
        };
        let problem = Problem::from(reason);
        match at {
            Some(at) => self.placed(at, problem, "nothing was written"),
            None => problem,
        }
    }

    /// The place of a refusal, where the reason and the batch say it.
    fn place(&self, reason: &Reason) -> Option<usize> {
        match reason {
            Reason::Conflict { at, .. } => Some(*at as usize),
            // Only what a shard holds decides these. A shard is asked for one write after the other, so the first one
            // was refused: otherwise a part of the batch would have happened.
            Reason::ForeignContext
            | Reason::TooManySiblings
            | Reason::OutOfBounds { what: Bound::Counter | Bound::Stamp, .. } => Some(0),
            Reason::WrongConsistency => match (self.strong, self.eventual) {
                (one, None) | (None, one) => one,
                _ => None,
            },
            _ => None,
        }
    }

    /// The first write that does not fit into the namespace, in a batch that fits into none.
    async fn misfit(&self, api: &Api, namespace: &str) -> Option<usize> {
        let (all, _) = api.handle.namespaces().await.ok()??;
        let found = all.iter().find(|known| known.name == namespace)?;
        if found.policy == Policy::Strong { self.eventual } else { self.strong }
    }

    /// The problem of a batch of which the first writes happened: it tells each write with what became of it.
    pub(super) fn partly_written(&self, happened: u32, reason: Reason) -> Problem {
        let at = happened as usize;
        let refused = Problem::from(reason);
        let one = |place: usize| match place.cmp(&at) {
            std::cmp::Ordering::Less => json!({ "at": place, "committed": true }),
            std::cmp::Ordering::Equal => json!({
                "at": place,
                "committed": false,
                "code": refused.kind.code,
                "detail": refused.detail,
                "hint": refused.hint,
            }),
            std::cmp::Ordering::Greater => {
                json!({ "at": place, "committed": false, "code": "not_tried" })
            }
        };
        let all: Vec<Value> = (0..self.keys.len().max(at + 1)).map(one).collect();
        let hint = format!(
            "correct writes[{at}] ({}), and send it again with those after it",
            refused.hint
        );
        let problem = Problem::new(&PARTLY_WRITTEN, refused.detail, hint)
            .with("happened", happened.into())
            .with("writes", all.into());
        let rest = "the writes before it happened and are durable; those after it were not tried";
        self.placed(at, problem, rest)
    }

    /// Adds the place of the refused write, and what became of the others.
    fn placed(&self, at: usize, mut problem: Problem, others: &str) -> Problem {
        let key = self.keys.get(at).cloned().unwrap_or_default();
        let shown: String = String::from_utf8_lossy(&key).chars().take(KEY_CHARS_MAX).collect();
        problem.detail =
            format!("writes[{at}], of the key {shown:?}, is refused: {}; {others}", problem.detail);
        let key = serde_json::to_value(JsonBytes(key)).unwrap_or_default();
        problem.with("at", at.into()).with("key", key)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use continuum_core::api::{Outcome, Reason, Resource};
    use continuum_core::id::Index;
    use continuum_core::limits::{EDITS_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
    use serde_json::{Value, json};

    use super::super::tests::World;

    const PATH: &str = "/v1/namespaces/ns/batch";

    /// The problem of a batch of these writes, when the core answers so.
    async fn refused(outcome: Outcome, writes: &Value) -> (u16, Value) {
        let world = World::new(outcome);
        let answer = world.ask("POST", PATH, json!({ "writes": writes }).to_string()).await;
        assert_ne!(answer.status, StatusCode::OK);
        answer.code();
        (answer.status.as_u16(), answer.json())
    }

    fn put(key: &str) -> Value {
        json!({ "key": key, "edits": [{ "put": "v" }] })
    }

    fn cas(key: &str) -> Value {
        let cas = json!({ "expected": { "absent": true }, "value": "v" });
        json!({ "key": key, "edits": [{ "cas": cas }] })
    }

    #[tokio::test]
    async fn a_conflict_names_the_write_that_found_another_value() {
        let writes = json!([put("a"), cas("b"), cas("c\u{1b}")]);
        for (at, key) in [(1_u32, "b"), (2, "c\u{1b}")] {
            let reason = Reason::Conflict { revision: Some(Index(7)), at };
            let (status, body) = refused(Outcome::Rejected(reason), &writes).await;
            assert_eq!((status, &body["code"]), (412, &"conflict".into()));
            assert_eq!((&body["at"], &body["key"]), (&at.into(), &key.into()), "{body}");
            assert_eq!(body["revision"], 7);
            let detail = body["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(&format!("writes[{at}]")) && detail.contains("at revision 7"));
            assert!(detail.contains("nothing was written") && !detail.contains('\u{1b}'));
        }
    }

    #[tokio::test]
    async fn a_write_of_the_other_consistency_is_named() {
        let add = json!({ "key": "s", "edits": [{ "add": ["x"] }] });
        let field = json!({ "key": "f", "edits": [{ "field": "f", "put": "x" }] });
        let seen = json!({ "key": "k", "edits": [{ "put": "x" }], "context": "AQAA" });
        let outcome = Outcome::Rejected(Reason::WrongConsistency);
        for misfit in [add, field, seen, cas("c")] {
            let writes = json!([put("a"), put("b"), misfit]);
            let (status, body) = refused(outcome.clone(), &writes).await;
            assert_eq!((status, &body["at"]), (409, &2.into()), "{body}");
            assert_eq!(body["key"], misfit["key"]);
        }
        let (_, body) = refused(outcome, &json!([put("a")])).await;
        assert_eq!(body["at"], Value::Null, "nothing in the batch explains it: {body}");
    }

    #[tokio::test]
    async fn what_a_shard_refuses_first_is_the_first_write_and_a_full_node_refuses_all() {
        let writes = json!([put("a"), put("b")]);
        let (status, body) = refused(Outcome::Rejected(Reason::TooManySiblings), &writes).await;
        assert_eq!((status, &body["at"], &body["key"]), (409, &0.into(), &"a".into()));
        let full = Reason::Full { what: Resource::Disk };
        let (status, body) = refused(Outcome::Rejected(full), &writes).await;
        assert_eq!((status, &body["at"]), (507, &Value::Null));
    }

    #[tokio::test]
    async fn a_part_that_happened_is_told_write_by_write() {
        let partial = Outcome::Partial { happened: 1, reason: Reason::TooManySiblings };
        let (status, body) = refused(partial, &json!([put("a"), put("b"), put("c")])).await;
        assert_eq!((status, &body["code"]), (409, &"partly_written".into()));
        assert_eq!(
            (&body["happened"], &body["at"], &body["key"]),
            (&1.into(), &1.into(), &"b".into())
        );
        let told = body["writes"].as_array().expect("a list");
        let told: Vec<_> = told.iter().map(|one| (&one["committed"], &one["code"])).collect();
        let (yes, no) = (&true.into(), &false.into());
        let codes = ["too_many_siblings".into(), "not_tried".into()];
        assert_eq!(told, [(yes, &Value::Null), (no, &codes[0]), (no, &codes[1])]);
        assert!(body["detail"].to_string().contains("writes[1]"), "{body}");
    }

    #[tokio::test]
    async fn what_is_too_large_is_named_by_its_path_before_anything_is_asked() {
        let long = |length: usize| "x".repeat(length);
        let edits = |edit: Value| json!({ "key": "k", "edits": [{ "put": "v" }, edit] });
        let many: Vec<String> = (0..EDITS_MAX).map(|number| number.to_string()).collect();
        let rows = [
            (put(&long(KEY_BYTES_MAX + 1)), "writes[1].key", KEY_BYTES_MAX),
            (
                edits(json!({ "put": long(VALUE_BYTES_MAX + 1) })),
                "writes[1].edits[1]",
                VALUE_BYTES_MAX,
            ),
            (
                edits(json!({ "add": ["", long(VALUE_BYTES_MAX + 1)] })),
                "writes[1].edits[1]",
                VALUE_BYTES_MAX,
            ),
            (
                edits(json!({ "cas": { "expected": { "value": long(VALUE_BYTES_MAX + 1) } } })),
                "writes[1].edits[1]",
                VALUE_BYTES_MAX,
            ),
            (
                edits(json!({ "field": long(FIELD_BYTES_MAX + 1), "put": "" })),
                "writes[1].edits[1]",
                FIELD_BYTES_MAX,
            ),
            (edits(json!({ "add": many })), "writes[1].edits", EDITS_MAX),
        ];
        for (wrong, path, limit) in rows {
            let world = World::new(super::super::tests::committed());
            let body = json!({ "writes": [put("a"), wrong] }).to_string();
            let answer = world.ask("POST", PATH, body).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "value_too_large"));
            let body = answer.json();
            assert_eq!((&body["path"], &body["limit"]), (&path.into(), &limit.into()), "{body}");
            assert!(body["detail"].as_str().is_some_and(|detail| detail.starts_with(path)));
            assert!(world.asked().is_empty());
        }
    }
}
