//! The eventual namespaces at the end of a run: all replicas are equal, and no acknowledged write is lost (Shapiro and
//! others 2011: strong eventual consistency; add-wins sets after Bieniusa and others 2012).
//!
//! What must be there is derived from real time alone, without dots: a write can be superseded only by one that could
//! have seen it. That is weaker than the whole law and needs no knowledge of how the law is kept.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Change, Content, Edit, Level, Mutation, Outcome, Row};

use crate::verdict::{Broken, Verdict};
use crate::workload::client::is_strict;
use crate::workload::history::{Body, Ending, History, Operation, Responder, Space};

pub(crate) const CONVERGENCE: &str = "convergence";
pub(crate) const LOST: &str = "acknowledged-write-lost";
pub(crate) const PHANTOM: &str = "write-from-nowhere";

/// What a field holds at the end.
#[derive(Debug, Default)]
struct Held {
    register: Vec<Bytes>,
    set: BTreeSet<Bytes>,
    counter: i128,
}

/// One change by one operation.
struct Deed<'a> {
    operation: &'a Operation,
    mutation: &'a Mutation,
    edit: &'a Edit,
    /// It is certain that it happened and is durable.
    is_certain: bool,
}

type Place = (Bytes, Bytes);

/// Judges one namespace whose rows are the same everywhere. What is `excused` may be gone with the disks that had it.
pub(crate) fn check(
    history: &History,
    space: Space,
    rows: &[Row],
    excused: &BTreeSet<usize>,
) -> Verdict {
    let held = held_by(rows);
    let mut deeds: BTreeMap<Place, Vec<Deed<'_>>> = BTreeMap::new();
    for (number, operation) in history.of(space) {
        let Body::Write { mutations, .. } = &operation.body else { continue };
        if matches!(operation.ended, Ending::Nothing) {
            check_nothing(operation, mutations, &held)?;
            continue;
        }
        for mutation in mutations {
            for edit in &mutation.edits {
                let is_certain = is_certain(operation) && !excused.contains(&number);
                let place = (mutation.key.clone(), edit.field.clone());
                let deed = Deed { operation, mutation, edit, is_certain };
                deeds.entry(place).or_default().push(deed);
            }
        }
    }
    let nothing = Held::default();
    for (place, deeds) in &deeds {
        let held = held.get(place).unwrap_or(&nothing);
        let whole = |what: String| format!("{} {:?}: {what}", space.name(), place.0);
        let judge = |verdict: Verdict| {
            verdict.map_err(|broken| Broken::new(broken.oracle, whole(broken.what)))
        };
        judge(check_register(space, held, deeds))?;
        judge(check_set(held, deeds))?;
        judge(check_counter(held, deeds))?;
    }
    match held.keys().find(|place| !deeds.contains_key(*place)) {
        None => Ok(()),
        Some(place) => Err(Broken::new(PHANTOM, format!("{place:?} holds what nobody wrote"))),
    }
}

fn held_by(rows: &[Row]) -> BTreeMap<Place, Held> {
    let mut held: BTreeMap<Place, Held> = BTreeMap::new();
    for row in rows {
        for field in &row.fields {
            let place = held.entry((row.key.clone(), field.field.clone())).or_default();
            match &field.content {
                Content::Register(values) => place.register.clone_from(values),
                Content::Set(members) => place.set = members.iter().cloned().collect(),
                Content::Counter(value) => place.counter = *value,
            }
        }
    }
    held
}

/// An acknowledgement at level `applied` promises nothing after a crash.
pub(crate) fn is_certain(operation: &Operation) -> bool {
    matches!(&operation.ended, Ending::Answered(Outcome::Committed { level, .. }) if *level >= Level::Durable)
}

/// A write that was rejected left nothing. Values are unique to their writes, members are not.
fn check_nothing(
    operation: &Operation,
    mutations: &[Mutation],
    held: &BTreeMap<Place, Held>,
) -> Verdict {
    for mutation in mutations {
        for edit in &mutation.edits {
            let Change::Put(value) = &edit.change else { continue };
            let place = (mutation.key.clone(), edit.field.clone());
            if held.get(&place).is_some_and(|held| held.register.contains(value)) {
                let what = format!("{value:?} is there, and its write was rejected: {operation:?}");
                return Err(Broken::new(PHANTOM, what));
            }
        }
    }
    Ok(())
}

fn check_register(space: Space, held: &Held, deeds: &[Deed<'_>]) -> Verdict {
    let written = |value: &Bytes| {
        deeds.iter().any(|deed| matches!(&deed.edit.change, Change::Put(known) if known == value))
    };
    if let Some(value) = held.register.iter().find(|value| !written(value)) {
        return Err(Broken::new(PHANTOM, format!("{value:?} was never written")));
    }
    let supersedes = |deed: &Deed<'_>| matches!(deed.edit.change, Change::Put(_) | Change::Delete);
    for deed in deeds.iter().filter(|deed| deed.is_certain) {
        let Change::Put(value) = &deed.edit.change else { continue };
        if held.register.contains(value) {
            continue;
        }
        let others = deeds.iter().filter(|other| supersedes(other) && !same(other, deed));
        let mut others = others.peekable();
        let explained = others.any(|other| could_beat(space, other, deed));
        if !explained {
            let what = format!("{value:?}, acknowledged and never overwritten, is not there");
            return Err(Broken::new(LOST, what));
        }
    }
    Ok(())
}

fn same(one: &Deed<'_>, other: &Deed<'_>) -> bool {
    std::ptr::eq(one.operation, other.operation)
}

/// Whether `other` may have taken `deed`'s place.
fn could_beat(space: Space, other: &Deed<'_>, deed: &Deed<'_>) -> bool {
    let returned_before =
        other.operation.is_told() && other.operation.returned < deed.operation.called;
    match (&other.mutation.context, space) {
        // It overwrites what it had seen, and had seen nothing of this.
        (Some(_), Space::Siblings) => other.operation.seen_at >= deed.operation.called,
        // It overwrites what its replica held when it was made.
        (None, Space::Siblings) => !returned_before,
        // Losers of the order go, whoever saw what: but not to what the same replica had before.
        (_, _) => !(returned_before && is_after_at_one_node(other, deed)),
    }
}

fn is_after_at_one_node(first: &Deed<'_>, second: &Deed<'_>) -> bool {
    let (one, other) = (first.operation.answered_by, second.operation.answered_by);
    // A disk that lost something may have lost the greatest stamp as well; so has a store that took another's place.
    let replica =
        |asked: Option<Responder>| asked.map(|Responder { store, losses, .. }| (store, losses));
    one.is_some() && replica(one) == replica(other) && !is_strict(&second.mutation.key)
}

fn check_set(held: &Held, deeds: &[Deed<'_>]) -> Verdict {
    for member in &held.set {
        let added =
            |deed: &Deed<'_>| matches!(&deed.edit.change, Change::Add(known) if known == member);
        if !deeds.iter().any(added) {
            return Err(Broken::new(PHANTOM, format!("{member:?} was never added")));
        }
    }
    for deed in deeds.iter().filter(|deed| deed.is_certain) {
        let Change::Add(member) = &deed.edit.change else { continue };
        let removes = deeds.iter().filter(|other| match &other.edit.change {
            Change::Remove(known) => known == member,
            Change::Delete => true,
            _ => false,
        });
        let mut late = removes.filter(|other| other.operation.seen_at >= deed.operation.called);
        if !held.set.contains(member) && late.next().is_none() {
            let what =
                format!("{member:?}, added and removed by nobody who had seen that, is not there");
            return Err(Broken::new(LOST, what));
        }
    }
    Ok(())
}

fn check_counter(held: &Held, deeds: &[Deed<'_>]) -> Verdict {
    let (mut low, mut high) = (0_i128, 0_i128);
    for deed in deeds {
        let Change::Count(by) = deed.edit.change else { continue };
        let by = i128::from(by);
        low += if deed.is_certain { by } else { by.min(0) };
        high += if deed.is_certain { by } else { by.max(0) };
    }
    if (low..=high).contains(&held.counter) {
        return Ok(());
    }
    let what = format!("the counter is {}, and must be from {low} to {high}", held.counter);
    Err(Broken::new(LOST, what))
}

#[cfg(test)]
mod tests {
    use continuum_core::api::{Context, Field, Receipt};
    use continuum_core::id::StoreId;

    use super::*;

    fn write(called: u64, seen_at: Option<u64>, change: Change, ended: Ending) -> Operation {
        let context = seen_at.map(|_| Context::default());
        let edits = vec![Edit { field: Bytes::new(), change }];
        let mutation = Mutation { key: Bytes::from_static(b"r00"), edits, context };
        Operation {
            client: 0,
            op_index: 0,
            space: Space::Siblings,
            body: Body::Write { mutations: vec![mutation], level: Level::Durable },
            session: None,
            seen_at: seen_at.unwrap_or(0),
            called,
            returned: called + 5,
            ended,
            answered_by: Some(Responder {
                node: 0,
                generation: 1,
                store: StoreId::default(),
                losses: 0,
            }),
        }
    }

    fn done() -> Ending {
        let receipt = Receipt::default();
        Ending::Answered(Outcome::Committed { level: Level::Durable, receipt })
    }

    fn put(value: &'static str) -> Change {
        Change::Put(Bytes::from_static(value.as_bytes()))
    }

    fn row(content: Content) -> Row {
        let field = Field { field: Bytes::new(), content };
        Row { key: Bytes::from_static(b"r00"), fields: vec![field] }
    }

    fn register(values: &[&'static str]) -> Row {
        row(Content::Register(values.iter().map(|v| Bytes::from_static(v.as_bytes())).collect()))
    }

    fn verdict(operations: Vec<Operation>, rows: &[Row]) -> Option<&'static str> {
        let history = History { operations, ..History::default() };
        check(&history, Space::Siblings, rows, &BTreeSet::new()).err().map(|broken| broken.oracle)
    }

    #[test]
    fn only_what_is_excused_may_be_gone() {
        let operations =
            vec![write(10, None, put("a"), done()), write(20, Some(5), put("b"), done())];
        let history = History { operations, ..History::default() };
        let judge = |excused: &[usize], rows: &[Row]| {
            check(&history, Space::Siblings, rows, &excused.iter().copied().collect()).is_ok()
        };
        assert!(judge(&[1], &[register(&["a"])]) && judge(&[0, 1], &[]));
        assert!(judge(&[1], &[register(&["b", "a"])]), "it may be there all the same");
        assert!(!judge(&[0], &[register(&["a"])]) && !judge(&[], &[register(&["a"])]));
    }

    #[test]
    fn planted_registers() {
        let seen = |called, at, value| write(called, Some(at), put(value), done());
        // Both of two that saw nothing stay; one that saw the other replaces it.
        let apart = vec![seen(10, 0, "a"), seen(20, 5, "b")];
        assert_eq!(verdict(apart.clone(), &[register(&["b", "a"])]), None);
        assert_eq!(verdict(apart.clone(), &[register(&["b"])]), Some(LOST));
        assert_eq!(verdict(apart, &[]), Some(LOST));
        let after = vec![seen(10, 0, "a"), seen(20, 16, "b")];
        assert_eq!(verdict(after.clone(), &[register(&["b"])]), None);
        assert_eq!(verdict(after, &[register(&["a"])]), Some(LOST));
        // Nobody wrote that; its write was rejected; its outcome is unknown.
        assert_eq!(verdict(vec![], &[register(&["x"])]), Some(PHANTOM));
        let rejected = vec![write(1, None, put("x"), Ending::Nothing)];
        assert_eq!(verdict(rejected.clone(), &[register(&["x"])]), Some(PHANTOM));
        assert_eq!(verdict(rejected, &[]), None);
        let unknown = vec![write(1, None, put("x"), Ending::Unknown)];
        assert_eq!(verdict(unknown.clone(), &[register(&["x"])]), None);
        assert_eq!(verdict(unknown, &[]), None);
    }

    #[test]
    fn planted_sets() {
        let member = || Bytes::from_static(b"m");
        let set = |members: &[&'static str]| {
            row(Content::Set(members.iter().map(|m| Bytes::from_static(m.as_bytes())).collect()))
        };
        let add = |called| write(called, None, Change::Add(member()), done());
        let remove = |called, at| write(called, Some(at), Change::Remove(member()), done());
        assert_eq!(verdict(vec![add(10)], &[set(&["m"])]), None);
        assert_eq!(verdict(vec![add(10)], &[]), Some(LOST));
        assert_eq!(verdict(vec![add(10), remove(30, 20)], &[]), None);
        // The remove had seen an earlier add, not this one.
        assert_eq!(verdict(vec![add(1), add(10), remove(30, 9)], &[]), Some(LOST));
        assert_eq!(verdict(vec![add(10)], &[set(&["m", "n"])]), Some(PHANTOM));
    }

    #[test]
    fn planted_counters() {
        let count = |by, ended| write(10, None, Change::Count(by), ended);
        let deeds =
            || vec![count(5, done()), count(-2, Ending::Unknown), count(7, Ending::Unknown)];
        for (value, expected) in
            [(5, None), (3, None), (12, None), (2, Some(LOST)), (13, Some(LOST))]
        {
            assert_eq!(verdict(deeds(), &[row(Content::Counter(value))]), expected, "{value}");
        }
    }
}
