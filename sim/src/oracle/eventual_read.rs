//! Law: a read of an eventual namespace answers what all writes that the node has seen determine, and the node has seen
//! every write that it made itself (Shapiro and others 2011; Bieniusa and others 2012; README, Guarantees).
//!
//! Compares the answer to each query, pages included, with the executable specification of `eventual_specification`
//! over the node's own context at the moment when the read arrived. It does not judge which writes the node has seen
//! (`context_covers_what_is_known`), nor the contexts of answers.
//!
//! A context also covers dead writes whose records the node never had, and what such a write superseded may still be
//! shown: the node is told that the write is dead, and perhaps later what it removed. So an answer lies between what
//! all covered writes determine and what the writes determine whose records the node logged.
//!
//! In a discarding namespace a value that was beaten is gone whether or not its winner was superseded later, so a
//! register may have fewer values than the specification computes. Such a register is judged as at the end of a run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Content, Field, Outcome, Query, Register, Row, Value};
use continuum_core::id::RequestId;
use continuum_core::limits::{PAGE_ROWS_MAX, REQUEST_BYTES_MAX};
use continuum_core::replication::WriteInfo;

use super::eventual_specification::{self as specification, Contents};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "eventual-read";

/// The content that a node's replica has by the specification, and whether its namespace discards losers.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The content that all writes in the node's context determine.
    contents: Contents,
    /// The content that those of them determine whose records the node logged; `None` if it logged all.
    logged: Option<Contents>,
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
        Self { contents: Contents::default(), logged: None, discards }
    }

    /// Adds the writes of a shard that the node has seen.
    pub(crate) fn add<'a>(
        &mut self,
        seen: impl Iterator<Item = &'a WriteInfo> + Clone,
        is_logged: impl Fn(&WriteInfo) -> bool,
    ) {
        if self.logged.is_none() && !seen.clone().all(&is_logged) {
            self.logged = Some(self.contents.clone());
        }
        if let Some(logged) = &mut self.logged {
            logged.extend(Contents::of(seen.clone().filter(|write| is_logged(write))));
        }
        self.contents.extend(Contents::of(seen));
    }

    /// The content that the logged writes determine.
    fn logged(&self) -> &Contents {
        self.logged.as_ref().unwrap_or(&self.contents)
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
        let part = |of: &Contents| of.only(|of| *of == path).of_kind(content);
        self.judge(&part(&self.contents), &part(self.logged()), &held)
    }

    fn judge(&self, least: &Contents, most: &Contents, held: &Contents) -> Verdict {
        let verdict = least.check(self.discards, held);
        let between = most.check(self.discards, held).is_ok() || held.is_between(least, most);
        if between { Ok(()) } else { verdict }
    }

    fn check_fields(&self, key: &Bytes, fields: &[Field]) -> Verdict {
        let mut held = Contents::default();
        fields.iter().for_each(|field| held.add_field(key, field));
        let part = |of: &Contents| of.only(|(of, _)| of[..] == key[..]);
        self.judge(&part(&self.contents), &part(self.logged()), &held)
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
        let (certain, mut possible) = self.contents.keys(self.discards);
        possible.extend(self.logged.iter().flat_map(|logged| logged.keys(self.discards).1));
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
        Expected { logged: None, contents, discards }
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
    fn a_value_may_outlive_a_removal_that_the_node_never_logged() {
        let mut logged = Contents::default();
        let (key, field) = register("a", &["9", "2", "1"]);
        logged.add_field(&key, &field);
        let expected = Expected { logged: Some(logged), ..expected(false) };
        let get = |values: &[&str]| {
            let siblings = values.iter().map(|value| bytes(value)).collect();
            let register = Register { siblings, ..Register::default() };
            let query = Query::Get { key: bytes("a"), field: Bytes::new() };
            expected.check(&query, &Value::Register(register)).is_ok()
        };
        assert!(get(&["2", "1"]) && get(&["9", "2", "1"]));
        assert!(!get(&["9", "2"]), "a living value is missing");
        assert!(!get(&["8", "2", "1"]), "nobody wrote that");
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
        let expected = Expected { logged: None, contents, discards: false };
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
