//! Laws of the eventual namespaces at the end of a run: all replicas are equal (Shapiro and others 2011: strong
//! eventual consistency), no acknowledged write is lost (add-wins sets after Bieniusa and others 2012), and no value
//! appears that nobody wrote or whose write was rejected (README, Guarantees).
//!
//! Compares the final rows with what clients were told, using real time alone and no dots: only a write that could have
//! seen another can supersede it. That is weaker than the full law, but it shares nothing with the implementation. The
//! full law is `eventual_specification`. Writes that only lost disks held are not judged.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Change, Content, Edit, Level, Mutation, Outcome, Row};

use crate::verdict::{Broken, Verdict};
use crate::workload::choice::is_strict;
use crate::workload::history::{Body, Ending, History, Operation, Responder, Space};

pub(crate) const CONVERGENCE: &str = "convergence";
pub(crate) const LOST: &str = "acknowledged-write-lost";
pub(crate) const PHANTOM: &str = "write-from-nowhere";

/// The final content of a field.
#[derive(Debug, Default)]
struct FieldContent {
    register: Vec<Bytes>,
    set: BTreeSet<Bytes>,
    counter: i128,
}

/// One edit of one operation.
#[derive(Clone, Copy)]
struct ClientEdit<'a> {
    operation: &'a Operation,
    mutation: &'a Mutation,
    edit: &'a Edit,
    /// The edit certainly happened and is durable.
    is_certain: bool,
}

/// Key and field.
type FieldPath = (Bytes, Bytes);

/// Judges one namespace whose rows are the same everywhere. The operations in `excused` may be lost with the disks that
/// held them.
pub(crate) fn check(
    history: &History,
    space: Space,
    rows: &[Row],
    excused: &BTreeSet<usize>,
) -> Verdict {
    let held = contents_of(rows);
    let mut edits: BTreeMap<FieldPath, Vec<ClientEdit<'_>>> = BTreeMap::new();
    for (number, operation) in history.of(space) {
        let Body::Write { mutations, .. } = &operation.body else { continue };
        if matches!(operation.ended, Ending::Nothing) {
            check_rejected(operation, mutations, &held)?;
            continue;
        }
        for mutation in mutations {
            for edit in &mutation.edits {
                let is_certain = is_certain(operation) && !excused.contains(&number);
                let path = (mutation.key.clone(), edit.field.clone());
                let edit = ClientEdit { operation, mutation, edit, is_certain };
                edits.entry(path).or_default().push(edit);
            }
        }
    }
    take_whole_deletions(&mut edits);
    let nothing = FieldContent::default();
    for (path, edits) in &edits {
        let held = held.get(path).unwrap_or(&nothing);
        let whole = |what: String| format!("{} {:?}: {what}", space.name(), path.0);
        let judge = |verdict: Verdict| {
            verdict.map_err(|broken| Broken::new(broken.oracle, whole(broken.what)))
        };
        judge(check_register(space, held, edits))?;
        judge(check_set(held, edits))?;
        judge(check_counter(held, edits))?;
    }
    match held.keys().find(|path| !edits.contains_key(*path)) {
        None => Ok(()),
        Some(path) => {
            Err(Broken::new(PHANTOM, format!("{path:?} holds a value that nobody wrote")))
        }
    }
}

/// Counts the deletion of a whole key as an edit of each of its fields.
fn take_whole_deletions(edits: &mut BTreeMap<FieldPath, Vec<ClientEdit<'_>>>) {
    let whole = edits.iter().filter(|((_, field), _)| field.is_empty());
    let deletions = whole.flat_map(|((key, _), edits)| {
        let deletes = |edit: &&ClientEdit<'_>| matches!(edit.edit.change, Change::Delete);
        edits.iter().filter(deletes).map(move |edit| (key.clone(), *edit))
    });
    let deletions: Vec<_> = deletions.collect();
    for ((key, field), edits) in edits.iter_mut().filter(|((_, field), _)| !field.is_empty()) {
        let of = deletions.iter().filter(|(deleted, _)| deleted == key && !field.is_empty());
        edits.extend(of.map(|(_, edit)| *edit));
    }
}

fn contents_of(rows: &[Row]) -> BTreeMap<FieldPath, FieldContent> {
    let mut contents: BTreeMap<FieldPath, FieldContent> = BTreeMap::new();
    for row in rows {
        for field in &row.fields {
            let held = contents.entry((row.key.clone(), field.field.clone())).or_default();
            match &field.content {
                Content::Register(values) => held.register.clone_from(values),
                Content::Set(members) => held.set = members.iter().cloned().collect(),
                Content::Counter(value) => held.counter = *value,
            }
        }
    }
    contents
}

/// Whether an operation certainly happened and is durable. An acknowledgement at level `applied` promises nothing after
/// a crash.
pub(crate) fn is_certain(operation: &Operation) -> bool {
    matches!(&operation.ended, Ending::Answered(Outcome::Committed { level, .. }) if *level >= Level::Durable)
}

/// Judges that a rejected write left no value. Only register values are checked: they are unique to their write, set
/// members are not.
fn check_rejected(
    operation: &Operation,
    mutations: &[Mutation],
    held: &BTreeMap<FieldPath, FieldContent>,
) -> Verdict {
    for mutation in mutations {
        for edit in &mutation.edits {
            let Change::Put(value) = &edit.change else { continue };
            let path = (mutation.key.clone(), edit.field.clone());
            if held.get(&path).is_some_and(|held| held.register.contains(value)) {
                let what =
                    format!("{value:?} is present, but its write was rejected: {operation:?}");
                return Err(Broken::new(PHANTOM, what));
            }
        }
    }
    Ok(())
}

fn check_register(space: Space, held: &FieldContent, edits: &[ClientEdit<'_>]) -> Verdict {
    let written = |value: &Bytes| {
        edits.iter().any(|edit| matches!(&edit.edit.change, Change::Put(known) if known == value))
    };
    if let Some(value) = held.register.iter().find(|value| !written(value)) {
        return Err(Broken::new(PHANTOM, format!("{value:?} was never written")));
    }
    let supersedes =
        |edit: &ClientEdit<'_>| matches!(edit.edit.change, Change::Put(_) | Change::Delete);
    for edit in edits.iter().filter(|edit| edit.is_certain) {
        let Change::Put(value) = &edit.edit.change else { continue };
        if held.register.contains(value) {
            continue;
        }
        let others = edits.iter().filter(|other| supersedes(other) && !same(other, edit));
        let mut others = others.peekable();
        let explained = others.any(|other| may_supersede(space, other, edit));
        if !explained {
            let what = format!("{value:?} was acknowledged and never overwritten, but is missing");
            return Err(Broken::new(LOST, what));
        }
    }
    Ok(())
}

fn same(one: &ClientEdit<'_>, other: &ClientEdit<'_>) -> bool {
    std::ptr::eq(one.operation, other.operation)
}

/// Whether `other` may have superseded `edit`.
fn may_supersede(space: Space, other: &ClientEdit<'_>, edit: &ClientEdit<'_>) -> bool {
    let returned_before =
        other.operation.is_told() && other.operation.returned < edit.operation.called;
    match (&other.mutation.context, space) {
        // A write with a context overwrites only what its client had read by then.
        (Some(_), Space::Siblings) => other.operation.seen_at >= edit.operation.called,
        // A write without a context overwrites what its replica held when it was made.
        (None, Space::Siblings) => !returned_before,
        // In a discarding namespace the LWW order decides, and a later write of the same replica is always greater.
        (_, _) => !(returned_before && is_after_at_one_node(other, edit)),
    }
}

fn is_after_at_one_node(first: &ClientEdit<'_>, second: &ClientEdit<'_>) -> bool {
    let (one, other) = (first.operation.answered_by, second.operation.answered_by);
    // A disk that lost data may have lost the node's greatest stamp too, and a replaced store never knew it.
    let replica =
        |asked: Option<Responder>| asked.map(|Responder { store, losses, .. }| (store, losses));
    one.is_some() && replica(one) == replica(other) && !is_strict(&second.mutation.key)
}

fn check_set(held: &FieldContent, edits: &[ClientEdit<'_>]) -> Verdict {
    for member in &held.set {
        let adds = |change: &Change| matches!(change, Change::Add(known) if known == member);
        if !edits.iter().any(|edit| adds(&edit.edit.change)) {
            return Err(Broken::new(PHANTOM, format!("{member:?} was never added")));
        }
    }
    for edit in edits.iter().filter(|edit| edit.is_certain) {
        let Change::Add(member) = &edit.edit.change else { continue };
        let removes = edits.iter().filter(|other| match &other.edit.change {
            Change::Remove(known) => known == member,
            Change::Delete => true,
            _ => false,
        });
        let mut late = removes.filter(|other| other.operation.seen_at >= edit.operation.called);
        if !held.set.contains(member) && late.next().is_none() {
            let what = format!(
                "{member:?} was added, no removal can have seen that, and the member is missing"
            );
            return Err(Broken::new(LOST, what));
        }
    }
    Ok(())
}

fn check_counter(held: &FieldContent, edits: &[ClientEdit<'_>]) -> Verdict {
    let (mut low, mut high) = (0_i128, 0_i128);
    for edit in edits {
        let Change::Count(by) = edit.edit.change else { continue };
        let by = i128::from(by);
        low += if edit.is_certain { by } else { by.min(0) };
        high += if edit.is_certain { by } else { by.max(0) };
    }
    if (low..=high).contains(&held.counter) {
        return Ok(());
    }
    let what = format!("the counter is {}, and must be between {low} and {high}", held.counter);
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
    fn only_excused_writes_may_be_lost() {
        let operations =
            vec![write(10, None, put("a"), done()), write(20, Some(5), put("b"), done())];
        let history = History { operations, ..History::default() };
        let judge = |excused: &[usize], rows: &[Row]| {
            check(&history, Space::Siblings, rows, &excused.iter().copied().collect()).is_ok()
        };
        assert!(judge(&[1], &[register(&["a"])]) && judge(&[0, 1], &[]));
        assert!(judge(&[1], &[register(&["b", "a"])]), "an excused write may still be there");
        assert!(!judge(&[0], &[register(&["a"])]) && !judge(&[], &[register(&["a"])]));
    }

    #[test]
    fn planted_registers() {
        let seen = |called, at, value| write(called, Some(at), put(value), done());
        // Two writes that saw nothing both stay; a write that saw another replaces it.
        let apart = vec![seen(10, 0, "a"), seen(20, 5, "b")];
        assert_eq!(verdict(apart.clone(), &[register(&["b", "a"])]), None);
        assert_eq!(verdict(apart.clone(), &[register(&["b"])]), Some(LOST));
        assert_eq!(verdict(apart, &[]), Some(LOST));
        let after = vec![seen(10, 0, "a"), seen(20, 16, "b")];
        assert_eq!(verdict(after.clone(), &[register(&["b"])]), None);
        assert_eq!(verdict(after, &[register(&["a"])]), Some(LOST));
        // A value that nobody wrote; one whose write was rejected; one whose outcome is unknown.
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
        // The removal saw an earlier add, not this one.
        assert_eq!(verdict(vec![add(1), add(10), remove(30, 9)], &[]), Some(LOST));
        assert_eq!(verdict(vec![add(10)], &[set(&["m", "n"])]), Some(PHANTOM));
    }

    #[test]
    fn planted_counters() {
        let count = |by, ended| write(10, None, Change::Count(by), ended);
        let edits =
            || vec![count(5, done()), count(-2, Ending::Unknown), count(7, Ending::Unknown)];
        for (value, expected) in
            [(5, None), (3, None), (12, None), (2, Some(LOST)), (13, Some(LOST))]
        {
            assert_eq!(verdict(edits(), &[row(Content::Counter(value))]), expected, "{value}");
        }
    }
}
