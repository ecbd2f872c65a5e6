//! Keys against a plain map.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::{apply, mutation, put, write};
use crate::api::{Bound, Change, Edit, Expected, Mutation, Query, Reason, Value};
use crate::id::Index;
use crate::limits::{EDITS_MAX, KEY_BYTES_MAX, PAGE_ROWS_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX};
use crate::state::{Kind, Reply, StateMachine};

type Model = BTreeMap<Bytes, (Bytes, Index)>;

fn bytes() -> impl Strategy<Value = Bytes> {
    (0..12_u8, 0..3_usize).prop_map(|(byte, length)| vec![byte; length].into())
}

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![
        Just(Expected::Absent),
        (0..40_u64).prop_map(Expected::Revision),
        bytes().prop_map(Expected::Value),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => bytes().prop_map(Change::Put),
        2 => Just(Change::Delete),
        4 => (expected(), proptest::option::of(bytes())).prop_map(|(expected, value)| Change::Cas { expected, value }),
    ]
}

pub(super) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let edits = proptest::collection::vec(change(), 1..3);
    let mutation = (bytes(), edits).prop_map(|(key, changes)| {
        let edit = |change| Edit { field: Bytes::new(), change };
        Mutation { key, edits: changes.into_iter().map(edit).collect(), context: None }
    });
    proptest::collection::vec(mutation, 0..4)
}

/// The model: what a command means, without any of the machine's structure.
fn model_write(model: &mut Model, index: Index, mutations: &[Mutation]) -> Reply {
    let before = model.clone();
    for (at, mutation) in (0..).zip(mutations) {
        let found = before.get(&mutation.key);
        for Edit { change, .. } in &mutation.edits {
            let Change::Cas { expected, .. } = change else { continue };
            let holds = match expected {
                Expected::Absent => found.is_none(),
                Expected::Revision(revision) => found.map(|f| f.1) == Some(Index(*revision)),
                Expected::Value(value) => found.map(|f| &f.0) == Some(value),
            };
            if !holds {
                return Reply::Rejected(Reason::Conflict { revision: found.map(|f| f.1), at });
            }
        }
    }
    let (mut removed, mut replaced, mut edits) = (false, false, 0);
    for mutation in mutations {
        for Edit { change, .. } in &mutation.edits {
            edits += 1;
            match change {
                Change::Put(value) | Change::Cas { value: Some(value), .. } => {
                    let slot = (value.clone(), index);
                    replaced |= model.insert(mutation.key.clone(), slot).is_some();
                }
                _ => removed |= model.remove(&mutation.key).is_some(),
            }
        }
    }
    Reply::Written { revision: index, existed: removed || (edits == 1 && replaced) }
}

fn get(machine: &StateMachine, key: &Bytes) -> Option<(Bytes, Index)> {
    let query = Query::Get { key: key.clone(), field: Bytes::new() };
    let Ok(Value::Register(register)) = machine.query(&query) else { panic!("a register") };
    assert_eq!(register.siblings, Vec::from_iter(register.value.clone()));
    register.value.zip(register.revision)
}

/// All keys, listed in small pages.
fn list(machine: &StateMachine, prefix: &Bytes, limit: u32) -> Vec<Bytes> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let query = Query::Keys { prefix: prefix.clone(), after: after.clone(), limit };
        let Ok(Value::Keys { keys, more }) = machine.query(&query) else { panic!("keys") };
        assert!(keys.len() <= limit as usize && (keys.len() == limit as usize || !more));
        all.extend(keys);
        if !more {
            return all;
        }
        after = all.last().cloned();
    }
}

proptest! {
    #[test]
    fn keys_are_a_map_with_conditions(
        commands in proptest::collection::vec((mutations(), any::<bool>(), 1..64_usize), 1..60),
        limit in 1..5_u32,
    ) {
        let (mut machine, mut model) = (StateMachine::new(Kind::Keys), Model::new());
        for (mutations, capture, budget) in commands {
            if capture {
                machine.begin_capture();
            }
            machine.next_slice(budget);
            let before = model.clone();
            let reply = apply(&mut machine, 0, &write(None, mutations.clone()));
            prop_assert_eq!(&reply, &model_write(&mut model, machine.applied(), &mutations));
            if matches!(reply, Reply::Rejected(_)) {
                prop_assert_eq!(&before, &model);
            }
            let held = model.iter().map(|(key, (value, _))| key.len() + value.len()).sum::<usize>();
            prop_assert_eq!(machine.bytes(), held as u64);
            prop_assert_eq!(machine.keys().len(), model.len());
        }
        for key in (0..12_u8).flat_map(|byte| (0..3).map(move |length| Bytes::from(vec![byte; length]))) {
            prop_assert_eq!(get(&machine, &key), model.get(&key).cloned());
            let under: Vec<_> = model.keys().filter(|known| known.starts_with(&key)).cloned().collect();
            prop_assert_eq!(list(&machine, &key, limit), under);
        }
        let Ok(Value::Rows { rows, more: false }) = machine.query(&Query::Rows { after: None, limit: 999 }) else {
            panic!("rows")
        };
        prop_assert!(rows.iter().map(|row| &row.key).eq(model.keys()));
    }
}

#[test]
fn a_bad_mutation_rejects_the_whole_command() {
    let mut machine = StateMachine::new(Kind::Keys);
    let bound = |what, limit: usize| Reason::OutOfBounds { what, limit: limit as u64 };
    let field = Edit { field: Bytes::from_static(b"f"), change: Change::Delete };
    let many = vec![Edit { field: Bytes::new(), change: Change::Delete }; EDITS_MAX + 1];
    let edits = |edits| Mutation { key: Bytes::new(), edits, context: None };
    let long = [0; VALUE_BYTES_MAX + 1];
    let cases = [
        (put(&[0; KEY_BYTES_MAX + 1], b""), bound(Bound::Key, KEY_BYTES_MAX)),
        (put(b"", &long), bound(Bound::Value, VALUE_BYTES_MAX)),
        (edits(many), bound(Bound::Edits, EDITS_MAX)),
        (edits(vec![field]), Reason::WrongConsistency),
        (mutation(b"a", Change::Add(Bytes::new())), Reason::WrongConsistency),
        (mutation(b"a", Change::Remove(Bytes::new())), Reason::WrongConsistency),
        (mutation(b"a", Change::Count(1)), Reason::WrongConsistency),
    ];
    for (mutation, reason) in cases {
        let both = write(None, vec![put(b"good", b"1"), mutation]);
        assert_eq!(apply(&mut machine, 0, &both), Reply::Rejected(reason));
        assert!(machine.keys().is_empty());
    }
    let many = write(None, vec![put(b"", b""); 4097]);
    let refused = Reply::Rejected(bound(Bound::Mutations, 4096));
    assert_eq!(apply(&mut machine, 0, &many), refused);
}

#[test]
fn sets_counters_and_fields_are_not_read_here() {
    let machine = StateMachine::new(Kind::Keys);
    let (key, field) = (Bytes::new(), Bytes::from_static(b"f"));
    let queries = [
        Query::Members { key: key.clone(), field: Bytes::new() },
        Query::Count { key: key.clone(), field: Bytes::new() },
        Query::Get { key, field },
    ];
    for query in queries {
        assert_eq!(machine.query(&query), Err(Reason::WrongConsistency));
    }
}

#[test]
fn a_page_fits_into_a_message_and_is_never_empty() {
    let mut machine = StateMachine::new(Kind::Keys);
    for key in 0..5 {
        apply(&mut machine, 0, &write(None, vec![put(&[key], &vec![7; VALUE_BYTES_MAX])]));
    }
    let (mut after, mut pages) = (None, 0);
    loop {
        let page = machine.query(&Query::Rows { after, limit: u32::MAX }).unwrap();
        assert!(crate::codec::encoded_len(&page) <= REQUEST_BYTES_MAX);
        let Value::Rows { rows, more } = page else { panic!("rows") };
        pages += 1;
        after = rows.last().map(|row| row.key.clone());
        assert!(after.is_some());
        if !more {
            break;
        }
    }
    assert_eq!(pages, 5);
}

#[test]
fn a_page_has_no_more_rows_than_the_bound() {
    let mut machine = StateMachine::new(Kind::Keys);
    let keys: Vec<_> =
        (0..PAGE_ROWS_MAX as u16 + 5).map(|key| put(&key.to_be_bytes(), b"")).collect();
    apply(&mut machine, 0, &write(None, keys));
    let query = Query::Keys { prefix: Bytes::new(), after: None, limit: u32::MAX };
    let Ok(Value::Keys { keys, more: true }) = machine.query(&query) else { panic!("keys") };
    assert_eq!(keys.len(), PAGE_ROWS_MAX);
    let none = Query::Keys { prefix: Bytes::new(), after: None, limit: 0 };
    assert_eq!(machine.query(&none), Ok(Value::Keys { keys: Vec::new(), more: true }));
}
