//! True answers: of batches in parts, of levels that cannot be, of deletions, and of a full memory.

use super::*;
use crate::api::{Bound, Expected, Reason, Resource};
use crate::config::Config;

fn write(namespace: &str, mutations: Vec<Mutation>) -> Request {
    let (level, session) = (Level::Durable, None);
    Request::Write { namespace: namespace.to_string(), mutations, level, session }
}

fn set(key: &str) -> Mutation {
    mutation(key, Change::Put(Bytes::from_static(b"v")))
}

fn existed(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Committed { receipt, .. } => receipt.existed,
        other => panic!("not committed: {other:?}"),
    }
}

#[test]
fn a_batch_that_stops_on_the_way_says_how_far_it_came_and_why() {
    let mut world = federation(1, 31);
    let count = |by| mutation("c", Change::Count(by));
    assert!(is_committed(&world.ask(0, write("notes", vec![count(i64::MAX)]))));
    assert!(is_committed(&world.ask(0, write("notes", vec![count(i64::MAX)]))));
    let outcome = world.ask(0, write("notes", vec![set("d"), count(i64::MAX), set("z")]));
    let Outcome::Partial { happened: 1, reason: Reason::OutOfBounds { what, .. } } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(what, Bound::Counter);
    assert_eq!(value(world.ask(0, get("notes", "d"))), Some(b"v".to_vec()));
    assert_eq!(value(world.ask(0, get("notes", "z"))), None);
    let first = world.ask(0, write("notes", vec![count(i64::MAX), set("z")]));
    assert!(matches!(first, Outcome::Rejected(Reason::OutOfBounds { .. })), "{first:?}");
    // The first part is durable.
    world.crash(0);
    world.start(0);
    world.run(3000);
    assert_eq!(value(world.ask(0, get("notes", "d"))), Some(b"v".to_vec()));
}

#[test]
fn a_level_past_all_replicas_is_refused_before_anything_is_written() {
    let mut world = federation(3, 32);
    world.run(2000);
    for namespace in ["notes", "locks"] {
        let refused = world.ask(1, put_with(namespace, "k", "v", Level::Replicated(3), None));
        let what = Bound::Replicas;
        assert_eq!(refused, Outcome::Rejected(Reason::OutOfBounds { what, limit: 2 }));
        assert_eq!(value(world.ask(1, get(namespace, "k"))), None, "{namespace}");
    }
}

#[test]
fn a_write_says_whether_something_was_there() {
    let mut world = federation(3, 33);
    for namespace in ["notes", "locks"] {
        let delete = || write(namespace, vec![mutation("k", Change::Delete)]);
        assert!(!existed(world.ask(1, delete())), "{namespace}");
        assert!(!existed(world.ask(1, put(namespace, "k", "v"))));
        assert!(existed(world.ask(1, put(namespace, "k", "w"))));
        assert!(existed(world.ask(1, delete())), "{namespace}");
        assert!(!existed(world.ask(1, delete())), "{namespace}");
    }
    let cas = |value| {
        let expected = Expected::Value(Bytes::from_static(b"v"));
        write("locks", vec![mutation("k", Change::Cas { expected, value })])
    };
    assert!(is_committed(&world.ask(1, put("locks", "k", "v"))));
    assert!(existed(world.ask(1, cas(Some(Bytes::from_static(b"v"))))));
    assert!(existed(world.ask(1, cas(None))));
    // A field alone, beside another one.
    let field = |change| {
        let mut one = mutation("r", change);
        one.edits[0].field = Bytes::from_static(b"f");
        write("notes", vec![one])
    };
    assert!(is_committed(&world.ask(1, put("notes", "r", "v"))));
    assert!(!existed(world.ask(1, field(Change::Delete))));
    assert!(is_committed(&world.ask(1, field(Change::Add(Bytes::from_static(b"m"))))));
    assert!(existed(world.ask(1, field(Change::Delete))));
    assert!(!existed(world.ask(1, field(Change::Remove(Bytes::from_static(b"m"))))));
    assert!(!existed(world.ask(1, field(Change::Add(Bytes::from_static(b"m"))))));
    assert!(!existed(world.ask(1, field(Change::Add(Bytes::from_static(b"m"))))), "an addition");
    assert!(!existed(world.ask(1, field(Change::Remove(Bytes::from_static(b"n"))))));
    assert!(existed(world.ask(1, field(Change::Remove(Bytes::from_static(b"m"))))));
    assert!(!existed(world.ask(1, field(Change::Put(Bytes::from_static(b"v"))))), "a register");
    assert!(existed(world.ask(1, field(Change::Put(Bytes::from_static(b"v"))))));
}

#[test]
fn what_a_batch_replaces_is_not_what_it_removes() {
    let mut world = federation(3, 36);
    for namespace in ["notes", "locks"] {
        assert!(is_committed(&world.ask(1, put(namespace, "a", "v"))));
        let delete = || mutation("b", Change::Delete);
        assert!(!existed(world.ask(1, write(namespace, vec![set("a"), delete()]))));
        assert!(!existed(world.ask(1, write(namespace, vec![set("a"), set("b")]))));
        assert!(existed(world.ask(1, write(namespace, vec![set("a"), delete()]))), "{namespace}");
    }
}

#[test]
fn a_full_memory_refuses_what_grows_and_still_deletes() {
    let mut config = Config::default();
    config.node.memory_bytes_max = 1 << 20;
    let mut world = World::with(1, 34, config);
    bootstrap(&mut world, 1);
    let large = "v".repeat(500 << 10);
    for namespace in ["notes", "locks"] {
        let mut keys = 0;
        let full = loop {
            let outcome = world.ask(0, put(namespace, &alloc::format!("k{keys}"), &large));
            if !is_committed(&outcome) {
                break outcome;
            }
            keys += 1;
            assert!(keys < 5, "a mebibyte is never full");
        };
        assert_eq!(full, Outcome::Rejected(Reason::Full { what: Resource::Memory }));
        for key in 0..keys {
            let delete = mutation(&alloc::format!("k{key}"), Change::Delete);
            assert!(existed(world.ask(0, write(namespace, vec![delete]))), "{namespace}");
        }
        world.run(1000);
        assert!(is_committed(&world.ask(0, put(namespace, "small", "v"))), "{namespace}");
        world.ask(0, write(namespace, vec![mutation("small", Change::Delete)]));
    }
}

#[test]
fn a_context_is_no_condition_in_a_strong_namespace() {
    let mut world = federation(1, 35);
    let mut one = set("k");
    one.context = Some(crate::api::Context::default());
    assert_eq!(
        world.ask(0, write("locks", vec![one])),
        Outcome::Rejected(Reason::WrongConsistency)
    );
}
