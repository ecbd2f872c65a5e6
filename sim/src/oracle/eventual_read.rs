//! Law: a read of an eventual namespace answers what all writes that the node has seen determine, and the node has seen
//! every write that it made itself (Shapiro and others 2011; Bieniusa and others 2012; README, Guarantees).
//!
//! Compares the answer to each query, pages included, with the executable specification of `eventual_specification`
//! over the node's own context at the moment when the read arrived. It does not judge which writes the node has seen
//! (`context_covers_what_is_known`), nor the contexts of answers.
//!
//! A context covers a removal only once all that it removed is gone, so no value outlives a removal that the context
//! covers. The node may know that an element is dead before its context covers the write that superseded it: a peer's
//! view says so. Such an element is dead, and some write must have superseded it (`told`, `writes`).
//!
//! In a discarding namespace a value that was beaten is gone whether or not its winner was superseded later, so a
//! register may have fewer values than the specification computes. Such a register is judged as at the end of a run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Content, Field, Outcome, Query, Register, Row, Value};
use continuum_core::id::RequestId;
use continuum_core::limits::{PAGE_ROWS_MAX, REQUEST_BYTES_MAX};

pub(crate) use super::eventual_specification::Judged as Read;
use super::eventual_specification::{self as specification, Contents};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "eventual-read";

/// The content that a node's replica has by the specification, and whether its namespace discards losers.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The content that the writes in the node's context determine, without what it knows to be dead.
    contents: Contents,
    discards: bool,
}

/// The reads that were not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pending: BTreeMap<(usize, RequestId), (Query, Expected)>,
}

impl Reads {
    /// Records a read that arrives.
    pub(crate) fn arrives(&mut self, me: usize, id: RequestId, query: Query, expected: Expected) {
        self.pending.insert((me, id), (query, expected));
    }

    /// Judges the answer to a request.
    pub(crate) fn check(&mut self, me: usize, id: RequestId, outcome: &Outcome) -> Verdict {
        match (self.pending.remove(&(me, id)), outcome) {
            (Some((query, expected)), Outcome::Value(value)) => expected.check(&query, value),
            _ => Ok(()),
        }
    }

    /// Forgets the reads of a node whose process ended.
    pub(crate) fn ended(&mut self, me: usize) {
        self.pending.retain(|(node, _), _| *node != me);
    }
}

impl Expected {
    pub(crate) fn new(discards: bool) -> Self {
        Self { contents: Contents::default(), discards }
    }

    /// Adds what a query can answer with of a shard's writes that the node has seen.
    pub(crate) fn add<'a>(&mut self, seen: impl Iterator<Item = Read<'a>>) {
        self.contents.extend(Contents::of_edits(seen));
    }

    /// Judges the answer to a query.
    pub(crate) fn check(&self, query: &Query, value: &Value) -> Verdict {
        let verdict = match (query, value) {
            (Query::Get { key, field }, Value::Register(register)) => {
                self.check_field(key, field, &Content::Register(values_of(register)))
            }
            (Query::Members { key, field }, Value::Set { members, .. }) => {
                self.check_field(key, field, &Content::Set(members.clone()))
            }
            (Query::Count { key, field }, Value::Counter(sum)) => {
                self.check_field(key, field, &Content::Counter(*sum))
            }
            (Query::Record { key }, Value::Record { fields, .. }) => self.check_fields(key, fields),
            (Query::Keys { prefix, after, limit }, Value::Keys { keys, more }) => {
                let bytes = keys.iter().map(|key| key.len() + 8).sum();
                self.check_page(prefix, after.as_ref(), (*limit, bytes), keys, *more)
            }
            (Query::Rows { after, limit }, Value::Rows { rows, more }) => {
                let keys: Vec<Bytes> = rows.iter().map(|row| row.key.clone()).collect();
                // A row that does not fit ends a page: the law does not measure how long the next row is.
                let bytes = if rows.iter().any(is_long) { REQUEST_BYTES_MAX } else { 0 };
                self.check_page(b"", after.as_ref(), (*limit, bytes), &keys, *more).and_then(|()| {
                    rows.iter().try_for_each(|row| self.check_fields(&row.key, &row.fields))
                })
            }
            _ => Err(Broken::new(NAME, "the answer is to another query".to_owned())),
        };
        verdict.map_err(|broken| {
            Broken::new(NAME, format!("{query:?} is answered with {value:?}: {}", broken.what))
        })
    }

    fn check_field(&self, key: &Bytes, field: &Bytes, content: &Content) -> Verdict {
        let path = (key.to_vec(), field.to_vec());
        let is_empty = match content {
            Content::Register(values) => values.is_empty(),
            Content::Set(members) => members.is_empty(),
            Content::Counter(sum) => *sum == 0,
        };
        let mut held = Contents::default();
        if !is_empty {
            held.add_field(key, &Field { field: field.clone(), content: content.clone() });
        }
        let of_field = self.contents.only(|of| *of == path).of_kind(content);
        of_field.check(self.discards, &held)
    }

    fn check_fields(&self, key: &Bytes, fields: &[Field]) -> Verdict {
        let mut held = Contents::default();
        fields.iter().for_each(|field| held.add_field(key, field));
        self.contents.only(|(of, _)| of[..] == key[..]).check(self.discards, &held)
    }

    /// Judges a page of keys.
    fn check_page(
        &self,
        prefix: &[u8],
        after: Option<&Bytes>,
        (limit, bytes): (u32, usize),
        keys: &[Bytes],
        more: bool,
    ) -> Verdict {
        let (certain, possible) = self.contents.keys(self.discards);
        let within = |keys: BTreeSet<Vec<u8>>| -> Vec<Vec<u8>> {
            let in_page = |key: &Vec<u8>| {
                key.starts_with(prefix) && after.is_none_or(|after| key[..] > after[..])
            };
            keys.into_iter().filter(in_page).collect()
        };
        let (certain, possible) = (within(certain), within(possible));
        let broken = |what: String| Err(Broken::new(specification::NAME, what));
        let sorted = keys.is_sorted_by(|a, b| a < b);
        let known =
            |key: &Bytes| possible.binary_search_by(|known| known[..].cmp(&key[..])).is_ok();
        if !sorted || !keys.iter().all(known) {
            return broken(format!("a page of {possible:?}"));
        }
        let last = keys.last();
        let skipped = |key: &&Vec<u8>| {
            last.is_some_and(|last| key[..] <= last[..]) && !keys.iter().any(|k| k[..] == key[..])
        };
        if let Some(key) = certain.iter().find(skipped) {
            return broken(format!("{key:?} is skipped"));
        }
        let rest = |keys: &[Vec<u8>]| {
            keys.iter().filter(|key| last.is_none_or(|last| key[..] > last[..])).count()
        };
        if more != (rest(&possible) > 0) && (more || rest(&certain) > 0) {
            return broken(format!("{} keys follow", rest(&certain)));
        }
        let full = keys.len() >= (limit as usize).clamp(1, PAGE_ROWS_MAX);
        if more && !full && bytes < REQUEST_BYTES_MAX / 2 {
            return broken(format!("{} keys follow, and there is room", rest(&certain)));
        }
        Ok(())
    }
}

/// All values of a register, the chosen one first.
fn values_of(register: &Register) -> Vec<Bytes> {
    match &register.siblings[..] {
        [] => register.value.iter().cloned().collect(),
        siblings => siblings.to_vec(),
    }
}

fn is_long(row: &Row) -> bool {
    let length = |field: &Field| match &field.content {
        Content::Register(values) | Content::Set(values) => values.iter().map(Bytes::len).sum(),
        Content::Counter(_) => 0,
    };
    row.fields.iter().map(length).sum::<usize>() > 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::from(text.to_owned())
    }

    fn register(key: &str, values: &[&str]) -> (Bytes, Field) {
        let values = values.iter().map(|value| bytes(value)).collect();
        (bytes(key), Field { field: Bytes::new(), content: Content::Register(values) })
    }

    fn expected(discards: bool) -> Expected {
        let mut contents = Contents::default();
        let fields = [register("a", &["2", "1"]), register("b", &["3"]), register("d", &["4"])];
        fields.iter().for_each(|(key, field)| contents.add_field(key, field));
        Expected { contents, discards }
    }

    fn get(key: &str, values: &[&str]) -> bool {
        let query = Query::Get { key: bytes(key), field: Bytes::new() };
        let all: Vec<Bytes> = values.iter().map(|value| bytes(value)).collect();
        let siblings = if all.len() > 1 { all.clone() } else { Vec::new() };
        let register = Register { value: all.first().cloned(), siblings, ..Register::default() };
        expected(false).check(&query, &Value::Register(register)).is_ok()
    }

    #[test]
    fn a_register_is_read_whole_and_in_order() {
        assert!(get("a", &["2", "1"]) && get("b", &["3"]) && get("c", &[]));
        assert!(!get("a", &["1", "2"]) && !get("a", &["2"]) && !get("a", &[]));
        assert!(!get("b", &["4"]) && !get("c", &["3"]));
    }

    #[test]
    fn a_page_skips_nothing_and_says_whether_more_follows() {
        let keys = |after: Option<&str>, limit, keys: &[&str], more| {
            let query = Query::Keys { prefix: Bytes::new(), after: after.map(bytes), limit };
            let keys = keys.iter().map(|key| bytes(key)).collect();
            expected(false).check(&query, &Value::Keys { keys, more }).is_ok()
        };
        assert!(keys(None, 2, &["a", "b"], true) && keys(Some("b"), 2, &["d"], false));
        assert!(keys(None, 3, &["a", "b", "d"], false) && keys(Some("d"), 2, &[], false));
        assert!(!keys(None, 2, &["a", "d"], false), "a key is skipped");
        assert!(!keys(None, 2, &["a", "b"], false), "more follows");
        assert!(!keys(None, 3, &["a", "b", "d"], true), "nothing follows");
        assert!(!keys(None, 2, &["a"], true), "the page has room");
        assert!(!keys(None, 3, &["a", "b", "c", "d"], false), "no such key");
        assert!(!keys(None, 2, &["b", "a"], true), "out of order");
    }

    #[test]
    fn rows_hold_what_their_keys_hold() {
        let rows = |values: &[&str]| {
            let (key, field) = register("d", values);
            let rows = vec![Row { key, fields: vec![field] }];
            let query = Query::Rows { after: Some(bytes("b")), limit: 5 };
            expected(false).check(&query, &Value::Rows { rows, more: false }).is_ok()
        };
        assert!(rows(&["4"]) && !rows(&["5"]) && !rows(&["4", "5"]));
    }

    #[test]
    fn a_set_and_a_counter_are_read_as_they_are() {
        let mut contents = Contents::default();
        let members = vec![bytes("m"), bytes("n")];
        let fields = [Content::Set(members.clone()), Content::Counter(7)];
        for (name, content) in ["s", "c"].into_iter().zip(fields) {
            contents.add_field(&bytes(name), &Field { field: Bytes::new(), content });
        }
        let expected = Expected { contents, discards: false };
        let field = Bytes::new();
        let set = |members: &[Bytes]| {
            let query = Query::Members { key: bytes("s"), field: field.clone() };
            let context = continuum_core::api::Context::default();
            expected.check(&query, &Value::Set { members: members.to_vec(), context }).is_ok()
        };
        assert!(set(&members) && !set(&members[..1]) && !set(&[]));
        let count = |key, sum| {
            let query = Query::Count { key: bytes(key), field: field.clone() };
            expected.check(&query, &Value::Counter(sum)).is_ok()
        };
        assert!(count("c", 7) && count("s", 0) && !count("c", 0) && !count("c", 8));
    }
}
