//! Values that were read and then overwritten, and writes that do not say what was asked.

use std::collections::BTreeSet;

use bytes::Bytes;
use continuum_core::api::{
    Change, Content, Context, Edit, Field, Level, Mutation, Outcome, Query, Receipt, Register, Row,
    Value,
};
use continuum_core::digest::Digest;
use continuum_core::id::{Actor, Dot, ShardId};

use super::super::read_then_overwritten::{self, check};
use super::super::write_says_what_was_asked;
use super::{Planted, bad, good};
use crate::format::write::{Op, Written, WrittenEdit};
use crate::verdict::Verdict;
use crate::workload::history::{Body, Ending, History, Operation, Space};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn context(text: &'static str) -> Context {
    Context::from_bytes(bytes(text))
}

fn operation(body: Body, outcome: Outcome) -> Operation {
    Operation {
        client: 0,
        op_index: 0,
        space: Space::Siblings,
        body,
        session: None,
        seen_at: 0,
        called: 0,
        returned: 1,
        ended: Ending::Answered(outcome),
        answered_by: None,
    }
}

fn read(values: &[&'static str], named: &'static str) -> Operation {
    let siblings = values.iter().map(|value| bytes(value)).collect();
    let register = Register { siblings, context: context(named), ..Register::default() };
    let query = Query::Get { key: bytes("k"), field: Bytes::new() };
    operation(Body::Read(query), Outcome::Value(Value::Register(register)))
}

/// A write of two mutations, the second of which is of the key that is judged.
fn write(change: Change, named: Option<&'static str>) -> Operation {
    let edit = |field: &'static str, change| Edit { field: bytes(field), change };
    let first = edit("", Change::Put(bytes("other")));
    let edits = vec![edit("f", Change::Add(bytes("m"))), edit("", change)];
    let mutations = vec![
        Mutation { key: bytes("j"), edits: vec![first], context: None },
        Mutation { key: bytes("k"), edits, context: named.map(context) },
    ];
    let receipt = Receipt::default();
    let outcome = Outcome::Committed { level: Level::Durable, receipt };
    operation(Body::Write { mutations, level: Level::Durable }, outcome)
}

pub(super) fn all() -> Vec<Planted> {
    [overwritten(), asked()].concat()
}

fn overwritten() -> Vec<Planted> {
    let put = |value| Change::Put(bytes(value));
    let judge = |second: Operation, kept: &[&'static str], excused: bool, once: bool| {
        let operations = vec![write(put("a"), None), read(&["a"], "read"), second];
        let history = History { operations, ..History::default() };
        let content = Content::Register(kept.iter().map(|value| bytes(value)).collect());
        let field = Field { field: Bytes::new(), content };
        let rows = [Row { key: bytes("k"), fields: vec![field] }];
        let excused: BTreeSet<usize> = excused.then_some(2).into_iter().collect();
        check(&history, Space::Siblings, &rows, &excused, |_, _| once)
    };
    let overwrites =
        |kept: &[&'static str]| judge(write(put("b"), Some("read")), kept, false, true);
    let name = read_then_overwritten::NAME;
    vec![
        good("what was read is gone", overwrites(&["b"])),
        bad("what was read is back", name, overwrites(&["b", "a"])),
        bad(
            "what was deleted is back",
            name,
            judge(write(Change::Delete, Some("read")), &["a"], false, true),
        ),
        good("another context", judge(write(put("b"), Some("other")), &["b", "a"], false, true)),
        good("a lost write", judge(write(put("b"), Some("read")), &["a"], true, true)),
        good("a value written twice", judge(write(put("b"), Some("read")), &["a"], false, false)),
    ]
}

fn asked() -> Vec<Planted> {
    let edit = |field: &'static str, change| Edit { field: bytes(field), change };
    let edits = vec![edit("f", Change::Put(bytes("a"))), edit("g", Change::Count(-3))];
    let mutation = Mutation { key: bytes("k"), edits, context: None };
    let judge = |ops: Vec<(&str, Op)>| -> Verdict {
        let info = |(field, op): (&str, Op)| WrittenEdit::new(field.as_bytes().to_vec(), op);
        let write = Written {
            shard: ShardId::default(),
            dot: Dot { actor: Actor::default(), seq: 1 },
            key: b"k".to_vec(),
            stamp: 1,
            hash: Digest::default(),
            edits: ops.into_iter().map(info).collect(),
        };
        write_says_what_was_asked::check(&write, &mutation, |_| vec![10])
    };
    let put = |value: &str| Op::Put(value.as_bytes().to_vec());
    let count = |plus, minus| Op::Count { plus, minus };
    let name = write_says_what_was_asked::NAME;
    vec![
        good("a write says what was asked", judge(vec![("f", put("a")), ("g", count(12, 5))])),
        bad("a write loses an edit", name, judge(vec![("f", put("a"))])),
        bad("a write has another value", name, judge(vec![("f", put("b")), ("g", count(12, 5))])),
        bad("a write has another field", name, judge(vec![("e", put("a")), ("g", count(12, 5))])),
        bad("a count is lost", name, judge(vec![("f", put("a")), ("g", count(10, 0))])),
        bad("a count is twice", name, judge(vec![("f", put("a")), ("g", count(12, 8))])),
    ]
}
