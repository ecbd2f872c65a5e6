//! The life of requests: on every node, across crashes, with exactly one answer each.

use proptest::prelude::{
    ProptestConfig, Strategy as Draws, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::*;
use crate::api::{Bound, Expected, Fingerprint, Reason};
use crate::id::{GroupId, SessionId};
use crate::node::group::Group;

fn session(number: u8, seq: u64) -> Option<Session> {
    Some(Session { id: SessionId([number; 16]), seq, request: Fingerprint::default() })
}

fn leader(world: &World, group: GroupId) -> usize {
    let leads = |at: &usize| world.node(*at).groups.get(&group).is_some_and(Group::leads);
    let up = |at: &usize| world.hosts[*at].node.is_some();
    (0..world.hosts.len()).filter(up).find(leads).expect("a leader")
}

#[test]
fn a_namespace_is_known_everywhere_once_it_is_created() {
    let mut world = federation(3, 11);
    for round in 0..6 {
        let name = alloc::format!("space{round}");
        let policy = if round % 2 == 0 { Policy::Strong } else { eventual(1) };
        create(&mut world, &name, policy);
        // The next request goes to a node that may not know the namespace yet.
        let at = 1 + round % 2;
        assert!(is_committed(&world.ask(at, put(&name, "k", "v"))), "{name}");
        assert_eq!(value(world.ask(at, get(&name, "k"))), Some(b"v".to_vec()));
    }
    let unknown = Outcome::Rejected(Reason::UnknownNamespace);
    assert_eq!(world.ask(2, get("nowhere", "k")), unknown);
    assert_eq!(world.ask(1, put("nowhere", "k", "v")), unknown);
    let delete = Request::DeleteNamespace { name: "space0".to_string(), session: None };
    assert!(is_committed(&world.ask(2, delete)));
    world.run(1000);
    assert_eq!(world.ask(0, get("space0", "k")), unknown);
}

#[test]
fn a_request_out_of_bounds_is_refused_with_the_bound() {
    let mut world = federation(1, 12);
    let long = "k".repeat(2000);
    let outcome = world.ask(0, put("locks", &long, "v"));
    assert_eq!(outcome, Outcome::Rejected(Reason::OutOfBounds { what: Bound::Key, limit: 1024 }));
    let wrong = |namespace: &str, change| Request::Write {
        namespace: namespace.to_string(),
        mutations: vec![mutation("k", change)],
        level: Level::Durable,
        session: None,
    };
    let cas = Change::Cas { expected: Expected::Absent, value: None };
    let refused = Outcome::Rejected(Reason::WrongConsistency);
    assert_eq!(world.ask(0, wrong("notes", cas)), refused);
    assert_eq!(world.ask(0, wrong("locks", Change::Count(1))), refused);
}

#[test]
fn a_write_is_read_by_every_other_node_at_once() {
    let mut world = federation(3, 13);
    for round in 0..30 {
        let text = round.to_string();
        let (writer, reader) = (round % 3, (round + 1) % 3);
        assert!(is_committed(&world.ask(writer, put("locks", "k", &text))));
        assert_eq!(value(world.ask(reader, get("locks", "k"))), Some(text.into_bytes()));
    }
}

#[test]
fn a_compare_and_set_that_finds_another_value_changes_nothing() {
    let mut world = federation(3, 14);
    let cas = |expected, value: &str| Request::Write {
        namespace: "locks".to_string(),
        mutations: vec![mutation(
            "k",
            Change::Cas { expected, value: Some(Bytes::copy_from_slice(value.as_bytes())) },
        )],
        level: Level::Durable,
        session: None,
    };
    assert!(is_committed(&world.ask(1, cas(Expected::Absent, "1"))));
    let outcome = world.ask(2, cas(Expected::Absent, "2"));
    assert!(matches!(outcome, Outcome::Rejected(Reason::Conflict { revision: Some(_), at: 0 })));
    assert!(is_committed(&world.ask(0, cas(Expected::Value(b"1".as_slice().into()), "2"))));
}

#[test]
fn a_killed_leader_costs_an_election_and_nothing_else() {
    let mut world = federation(3, 15);
    world.run(3000);
    for round in 0..5 {
        let old = leader(&world, GroupId(1));
        let other = (old + 1) % 3;
        let before = put_with("locks", "k", "before", Level::Durable, session(9, round * 2));
        assert!(is_committed(&world.ask(old, before)));
        world.crash(old);
        let after = put_with("locks", "k", "after", Level::Durable, session(9, round * 2 + 1));
        assert!(is_committed(&world.ask(other, after)));
        assert_eq!(value(world.ask(other, get("locks", "k"))), Some(b"after".to_vec()));
        world.start(old);
        world.run(3000);
        assert_eq!(value(world.ask(old, get("locks", "k"))), Some(b"after".to_vec()));
    }
}

#[test]
fn without_a_quorum_nothing_is_promised() {
    let mut world = federation(3, 16);
    world.crash(1);
    world.crash(2);
    world.run(3000);
    assert_eq!(world.ask(0, get("locks", "k")), Outcome::Rejected(Reason::NoLeader));
    assert_eq!(world.ask(0, put("locks", "k", "v")), Outcome::Rejected(Reason::NoLeader));
    // That was known for longer than an election takes: nobody waits for the timeout of a request.
    for request in [get("locks", "k"), put("locks", "k", "v"), get("unheard", "k")] {
        let id = world.request(0, request);
        world.run(1);
        assert_eq!(world.reply(0, id), Some(&Outcome::Rejected(Reason::NoLeader)));
    }
    let unready = world.node(0).unready();
    assert_eq!(unready, [crate::api::Unready::NoLeader]);
    assert!(unready.iter().all(|reason| !reason.stops_eventual()));
    let (namespaces, _) = world.node(0).local_namespaces().expect("a member");
    let names: Vec<&str> = namespaces.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["locks", "notes"]);
    // Eventual namespaces stay available.
    assert!(is_committed(&world.ask(0, put("notes", "k", "v"))));
    assert_eq!(value(world.ask(0, get("notes", "k"))), Some(b"v".to_vec()));
    // With a majority the group serves again.
    world.start(1);
    world.run(10_000);
    assert!(is_committed(&world.ask(0, put("locks", "k", "v"))));
}

#[test]
fn a_level_is_reached_or_reported_as_missed() {
    let mut world = federation(3, 17);
    world.run(2000);
    let write = |key: &str, level| put_with("notes", key, "v", level, None);
    let committed = |outcome: Outcome| match outcome {
        Outcome::Committed { level, .. } => Some(level),
        _ => None,
    };
    for level in [Level::Applied, Level::Durable, Level::Replicated(1), Level::Replicated(2)] {
        assert_eq!(committed(world.ask(1, write("k", level))), Some(level));
    }
    world.crash(2);
    let missed = world.ask(1, write("m", Level::Replicated(2)));
    assert_eq!(missed, Outcome::Unknown { reached: Some(Level::Durable) });
    assert_eq!(value(world.ask(1, get("notes", "m"))), Some(b"v".to_vec()), "it is not undone");
    let strong = put_with("locks", "k", "v", Level::Replicated(1), None);
    assert_eq!(committed(world.ask(1, strong)), Some(Level::Replicated(1)));
}

#[test]
fn a_write_with_a_session_happens_once() {
    let mut world = federation(3, 18);
    let strong = || put_with("locks", "k", "v", Level::Durable, session(1, 0));
    let first = world.ask(0, strong());
    assert_eq!(world.ask(1, strong()), first, "the same answer, by another node");
    let count = || Request::Write {
        namespace: "notes".to_string(),
        mutations: vec![mutation("c", Change::Count(1))],
        level: Level::Durable,
        session: session(2, 0),
    };
    // Two requests at once, and one later.
    let ids = [world.request(0, count()), world.request(0, count())];
    world.run(100);
    let answers: Vec<_> = ids.iter().map(|id| world.reply(0, *id).cloned()).collect();
    assert!(answers[0].is_some() && answers[0] == answers[1]);
    assert_eq!(Some(world.ask(0, count())), answers[0]);
    let query = Query::Count { key: b"c".as_slice().into(), field: Bytes::new() };
    let read = Request::Read { namespace: "notes".to_string(), query };
    assert_eq!(world.ask(0, read), Outcome::Value(Value::Counter(1)));
}

#[test]
fn a_network_that_repeats_everything_repeats_no_write() {
    let mut world = federation(3, 19);
    world.repeats = 60;
    for round in 0..40_u64 {
        let at = (round % 3) as usize;
        let value = Bytes::copy_from_slice(&round.to_be_bytes());
        let expected = match round {
            0 => Expected::Absent,
            _ => Expected::Value(Bytes::copy_from_slice(&(round - 1).to_be_bytes())),
        };
        let write = Request::Write {
            namespace: "locks".to_string(),
            mutations: vec![mutation("n", Change::Cas { expected, value: Some(value) })],
            level: Level::Durable,
            session: None,
        };
        let outcome = world.ask(at, write);
        assert!(is_committed(&outcome), "round {round}: {outcome:?}");
    }
}

#[test]
fn pages_over_many_shards_are_in_order_and_whole() {
    let mut world = federation(1, 20);
    create(&mut world, "wide", eventual(16));
    for key in 0..50 {
        world.ask(0, put("wide", &alloc::format!("k{key:02}"), "v"));
    }
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let query = Query::Keys { prefix: Bytes::new(), after: after.clone(), limit: 7 };
        let read = Request::Read { namespace: "wide".to_string(), query };
        let Outcome::Value(Value::Keys { keys, more }) = world.ask(0, read) else {
            panic!("no keys")
        };
        assert!(keys.len() <= 7);
        found.extend(keys.iter().map(|key| key.to_vec()));
        after = keys.last().cloned();
        if !more {
            break;
        }
    }
    let all: Vec<_> = (0..50).map(|key| alloc::format!("k{key:02}").into_bytes()).collect();
    assert_eq!(found, all);
}

#[test]
fn an_isolated_leader_serves_no_stale_read() {
    let mut world = federation(3, 21);
    world.run(3000);
    let old = leader(&world, GroupId(1));
    let other = (old + 1) % 3;
    assert!(is_committed(&world.ask(old, put("locks", "k", "old"))));
    world.isolate(old);
    let read = world.request(old, get("locks", "k"));
    let write = world.request(old, put("locks", "k", "lost"));
    let fresh = put_with("locks", "k", "new", Level::Durable, session(4, 0));
    assert!(is_committed(&world.ask(other, fresh)));
    world.run(6000);
    assert_eq!(world.reply(old, read), Some(&Outcome::Rejected(Reason::NoLeader)));
    assert_eq!(world.reply(old, write), Some(&Outcome::Unknown { reached: None }));
    world.isolated.clear();
    world.run(3000);
    assert_eq!(value(world.ask(old, get("locks", "k"))), Some(b"new".to_vec()));
}

#[test]
fn an_entry_of_another_leader_at_its_index_is_not_the_proposal() {
    for seed in 0..4 {
        let mut world = federation(3, 50 + seed);
        world.run(3000);
        let old = leader(&world, GroupId(1));
        world.isolate(old);
        // Several writes, so that one of them has the index at which the next leader logs a command.
        let keys = ["a", "b", "c", "d"];
        let writes = keys.map(|key| (key, world.request(old, put("locks", key, "mine"))));
        let other = put_with("locks", "k", "theirs", Level::Durable, session(4, 0));
        assert!(is_committed(&world.ask((old + 1) % 3, other)));
        world.isolated.clear();
        world.run(8000);
        for (key, write) in writes {
            let outcome = world.reply(old, write).expect("answered").clone();
            let happened = value(world.ask(old, get("locks", key))).is_some();
            assert_eq!(happened, is_committed(&outcome), "{key}: {outcome:?}");
        }
    }
}

#[test]
fn a_write_whose_answer_is_lost_is_unknown_without_a_session_and_retried_with_one() {
    let mut world = federation(3, 22);
    world.run(3000);
    let old = leader(&world, GroupId(1));
    let other = (old + 1) % 3;
    let without = world.request(other, put("locks", "k", "v"));
    let with = put_with("locks", "l", "v", Level::Durable, session(5, 0));
    let with = world.request(other, with);
    world.cut(other);
    world.run(4000);
    assert_eq!(world.reply(other, without), Some(&Outcome::Unknown { reached: None }));
    assert!(world.reply(other, with).is_some_and(is_committed));
}

/// One random step of a test.
#[derive(Clone, Debug)]
enum Step {
    Ask(usize, u8, bool),
    Crash(usize),
    Start(usize),
    Cut(usize),
    Run(u64),
}

fn step() -> impl Draws<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..6_u8, any::<bool>()).prop_map(|(at, kind, s)| Step::Ask(at, kind, s)),
        1 => (0..3_usize).prop_map(Step::Crash),
        2 => (0..3_usize).prop_map(Step::Start),
        1 => (0..3_usize).prop_map(Step::Cut),
        6 => (0..400_u64).prop_map(Step::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The world asserts that no request is answered twice.
    #[test]
    fn every_request_is_answered_once(steps in proptest::collection::vec(step(), 1..60), seed in 0..1000_u64) {
        let mut world = federation(3, seed);
        (world.loss, world.repeats) = (seed % 20, seed % 7 * 10);
        let mut number = 0;
        for step in steps {
            match step {
                Step::Ask(at, kind, with_session) if world.hosts[at].node.is_some() => {
                    number += 1;
                    let session = session(number as u8, 0).filter(|_| with_session);
                    let level = [Level::Applied, Level::Durable, Level::Replicated(2)][kind as usize % 3];
                    let request = match kind {
                        0 | 1 => put_with("locks", "k", "v", level, session),
                        2 => get("locks", "k"),
                        3 | 4 => put_with("notes", "k", "v", level, session),
                        _ => get("elsewhere", "k"),
                    };
                    world.request(at, request);
                }
                Step::Crash(at) => world.crash(at),
                Step::Start(at) if world.hosts[at].node.is_none() => world.start(at),
                Step::Cut(at) => world.cut(at),
                Step::Run(for_ms) => world.run(for_ms),
                _ => {}
            }
        }
        world.run(12_000);
        prop_assert_eq!(world.unanswered(), 0, "every request ends");
        // The federation works afterwards.
        (world.loss, world.repeats) = (0, 0);
        for at in 0..3 {
            if world.hosts[at].node.is_none() {
                world.start(at);
            }
        }
        world.run(5000);
        prop_assert!(is_committed(&world.ask(2, put("locks", "end", "v"))));
        prop_assert_eq!(value(world.ask(1, get("locks", "end"))), Some(b"v".to_vec()));
    }
}
