//! Named cases: bugs of earlier implementations (C1 to C8 of the predecessor, cr-sqlite's #413), and the bounds,
//! refusals and alarms of replication.

#[path = "replication/mod.rs"]
mod world;

use bytes::Bytes;
use continuum_core::api::{
    Bound, Change, Content, Context, Edit, Mutation, Query, Reason, Strategy, Value,
};
use continuum_core::id::{Replica, StoreId};
use continuum_core::limits::SIBLINGS_MAX;
use continuum_core::machine::{Machine, Outbox};
use continuum_core::replication::{Action, Event, Message, Replicator, Restored, RestoredShard};
use continuum_core::seed::Seed;
use proptest::prelude::*;

use world::{SHARD, Setup, World, bytes, give, one, put, quiet, recover, replica, take};

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Writes a at 0, b at 1 and c at 0. c has seen only a, and the wall clocks give a > b > c. Delivers the writes to
/// replica 2 in every order and returns what it then reads.
fn finals(strategy: Strategy) -> Vec<(Option<Bytes>, Vec<Bytes>)> {
    let run = |order: &[usize; 3]| {
        let mut world = quiet(Setup { strategy, ..Setup::default() });
        world.processes[0].skew_ms = 30_000;
        world.mutate(0, put("k", "", "a"));
        world.processes[1].skew_ms = 20_000;
        world.mutate(1, put("k", "", "b"));
        world.processes[0].skew_ms = 10_000;
        world.mutate(0, put("k", "", "c"));
        let first = take(&mut world, 0, 2);
        let second = take(&mut world, 1, 2);
        let writes = [(0, &first[0]), (1, &second[0]), (0, &first[1])];
        for at in order {
            give(&mut world, writes[*at].0, 2, writes[*at].1.clone());
        }
        let register = world.get(2, "k", "");
        (register.value, register.siblings)
    };
    ORDERS.iter().map(run).collect()
}

#[test]
fn c1_the_last_writer_wins_in_every_order() {
    let finals = finals(Strategy::LastWriterWins);
    assert!(finals.iter().all(|seen| seen == &finals[0]));
    // c has seen a, so its stamp is above a's, whatever the wall clock says.
    assert_eq!(finals[0].0, Some(bytes("c")));
    assert_eq!(finals[0].1, [bytes("c"), bytes("b")]);
}

/// A total used to be summed with its successor when the successor came late or was lost with its disk.
#[test]
fn only_an_actors_latest_total_counts_in_every_order() {
    for order in ORDERS {
        let mut world = quiet(Setup::default());
        for by in [5, 7, -9] {
            world.mutate(0, one("k", "", Change::Count(by)));
        }
        let counts = take(&mut world, 0, 2);
        let totals = [5, 12, 3];
        let mut latest = 0;
        for at in order {
            give(&mut world, 0, 2, counts[at].clone());
            latest = latest.max(at);
            assert_eq!(world.count(2, "k"), totals[latest], "{order:?} at {at}");
        }
    }
}

#[test]
fn c2_the_highest_node_wins_in_every_order() {
    let finals = finals(Strategy::HighestNodeWins);
    assert!(finals.iter().all(|seen| seen == &finals[0]));
    assert_eq!(finals[0].0, Some(bytes("b")));
}

#[test]
fn c3_sets_merge_to_one_set_in_every_order() {
    let run = |order: &[usize; 3]| {
        let mut world = quiet(Setup::default());
        world.mutate(0, one("s", "", Change::Add(bytes("x"))));
        world.mutate(1, one("s", "", Change::Add(bytes("x"))));
        world.mutate(0, one("s", "", Change::Remove(bytes("x"))));
        let first = take(&mut world, 0, 2);
        let second = take(&mut world, 1, 2);
        let writes = [(0, &first[0]), (1, &second[0]), (0, &first[1])];
        for at in order {
            give(&mut world, writes[*at].0, 2, writes[*at].1.clone());
        }
        (world.members(2, "s"), world.processes[2].machine.root(SHARD))
    };
    let finals: Vec<_> = ORDERS.iter().map(run).collect();
    assert!(finals.iter().all(|seen| seen == &finals[0]));
    assert_eq!(finals[0].0, [bytes("x")], "an add that the remove had not seen stays");
}

#[test]
fn c4_one_value_delivered_five_times_is_one_value() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "v"));
    let push = take(&mut world, 0, 1).remove(0);
    give(&mut world, 0, 1, push.clone());
    let (root, issued) = (world.processes[1].machine.root(SHARD), world.processes[1].disk.len());
    (0..4).for_each(|_| give(&mut world, 0, 1, push.clone()));
    assert_eq!(world.processes[1].machine.root(SHARD), root);
    assert_eq!(world.processes[1].disk.len(), issued);
    assert!(world.get(1, "k", "").siblings.is_empty());
}

#[test]
fn c5_concurrent_keys_reach_a_peer_that_has_never_seen_them() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("mine", "", "0"));
    world.mutate(1, put("yours", "", "1"));
    world.network.clear();
    world.converge().expect("converges");
    for at in 0..3 {
        assert_eq!(world.get(at, "mine", "").value, Some(bytes("0")));
        assert_eq!(world.get(at, "yours", "").value, Some(bytes("1")));
    }
}

#[test]
fn c6_a_lost_write_before_one_that_arrived_is_offered_again() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k1", "", "1"));
    world.mutate(0, put("k2", "", "2"));
    let pushes = take(&mut world, 0, 1);
    give(&mut world, 0, 1, pushes[1].clone());
    world.network.clear();
    assert_eq!(world.get(1, "k1", "").value, None);
    world.converge().expect("converges");
    assert_eq!(world.get(1, "k1", "").value, Some(bytes("1")));
}

#[test]
fn c7_a_write_with_any_flipped_bit_is_rejected() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "f", "v"));
    let Message::Delta { shard, writes } = take(&mut world, 0, 1).remove(0) else {
        panic!("a push is a delta")
    };
    for bit in 0..writes[0].len() * 8 {
        let mut forged = writes[0].to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        give(&mut world, 0, 1, Message::Delta { shard, writes: vec![forged.into()] });
        assert_eq!(world.rejected.len(), bit + 1, "bit {bit}");
    }
    assert!(world.rows(1).is_empty() && world.processes[1].disk.is_empty());
}

#[test]
fn c8_the_cost_of_a_write_does_not_depend_on_the_size_of_the_shard() {
    let mut world = quiet(Setup::default());
    let mut lengths = Vec::new();
    for n in 0..3_000 {
        let before = world.processes[0].disk.len();
        world.mutate(0, put(&format!("key-{n:05}"), "", "value"));
        let records = &world.processes[0].disk[before..];
        lengths.push(continuum_core::codec::encoded_len(records));
        world.network.clear();
    }
    let (least, most) = (lengths.iter().min(), lengths.iter().max());
    assert!(most.zip(least).is_some_and(|(most, least)| most - least < 16), "{least:?} {most:?}");
}

/// cr-sqlite's #413: a change that supersedes a missing change must not mark the missing one as seen. Otherwise a third
/// replica that syncs from here never gets it.
#[test]
fn a_write_that_arrives_alone_does_not_cover_the_write_it_supersedes() {
    let mut world = quiet(Setup::default());
    let both = |f: &str, g: &str| {
        let edits = vec![
            Edit { field: bytes("f"), change: Change::Put(bytes(f)) },
            Edit { field: bytes("g"), change: Change::Put(bytes(g)) },
        ];
        Mutation { key: bytes("row"), edits, context: None }
    };
    world.mutate(0, both("f1", "g1"));
    world.mutate(0, put("row", "f", "f2"));
    // Replica 1 gets the second write without the first, which has a second field. Replica 2 syncs only with 1.
    let pushes = take(&mut world, 0, 1);
    give(&mut world, 0, 1, pushes[1].clone());
    world.network.clear();
    let root = world.processes[1].machine.root(SHARD).expect("open");
    give(&mut world, 1, 2, Message::Compare { shard: SHARD, root });
    for _ in 0..20 {
        (0..3).for_each(|at| world.sync_disk(at));
        world.network.retain(|(from, to, _)| *from != 0 && *to != 0);
        (0..world.network.len()).for_each(|_| world.deliver(0));
    }
    assert_eq!(world.get(2, "row", "f").value, Some(bytes("f2")));
    world.converge().expect("converges");
    for at in 0..3 {
        assert_eq!(world.get(at, "row", "g").value, Some(bytes("g1")), "at {at}");
        assert_eq!(world.get(at, "row", "f").siblings, Vec::<Bytes>::new(), "at {at}");
    }
}

#[test]
fn a_context_from_another_replica_supersedes_writes_that_have_not_arrived_here() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "old"));
    let context = world.get(0, "k", "").context;
    // Replica 1 lacks the write. The client writes there with the context that it read at 0.
    let mutation = Mutation { context: Some(context), ..put("k", "", "new") };
    world.mutate(1, mutation);
    world.converge().expect("converges");
    let register = world.get(2, "k", "");
    assert_eq!((register.value, register.siblings.len()), (Some(bytes("new")), 0));
}

#[test]
fn an_empty_context_supersedes_nothing() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "a"));
    world.mutate(0, Mutation { context: Some(Context::default()), ..put("k", "", "b") });
    assert_eq!(world.get(0, "k", "").siblings, [bytes("b"), bytes("a")]);
    world.mutate(0, put("k", "", "c"));
    assert_eq!(world.get(0, "k", "").siblings.len(), 0);
}

#[test]
fn local_writes_bound_siblings_and_merges_keep_them_all() {
    let mut world = quiet(Setup::default());
    let blind =
        |value: String| Mutation { context: Some(Context::default()), ..put("k", "", &value) };
    for n in 0..SIBLINGS_MAX {
        world.mutate(0, blind(format!("a{n}")));
    }
    let refused = world.mutate(0, blind("too many".into()));
    assert_eq!(world.answers.refused[&refused], Reason::TooManySiblings);
    world.mutate(1, put("k", "", "b"));
    world.converge().expect("converges");
    assert_eq!(world.get(0, "k", "").siblings.len(), SIBLINGS_MAX + 1);
    // A write that observes some of them is accepted.
    let ticket = world.mutate(0, put("k", "", "one"));
    assert!(world.answers.accepted.contains_key(&ticket));
    assert_eq!(world.get(0, "k", "").value, Some(bytes("one")));
}

#[test]
fn deleting_a_key_removes_every_observed_field_of_it() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "f", "1"));
    world.mutate(0, one("k", "g", Change::Add(bytes("m"))));
    world.mutate(0, one("k", "", Change::Count(3)));
    world.mutate(0, put("k2", "f", "stays"));
    world.converge().expect("converges");
    world.mutate(1, put("k", "h", "unseen by the delete"));
    world.mutate(0, one("k", "", Change::Delete));
    world.converge().expect("converges");
    let rows = world.rows(2);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].fields.len(), 1);
    assert_eq!(rows[0].fields[0].content, Content::Register(vec![bytes("unseen by the delete")]));
}

#[test]
fn a_concurrent_count_survives_a_delete_together_with_its_actors_total() {
    let mut world = quiet(Setup::default());
    world.mutate(0, one("n", "", Change::Count(5)));
    world.mutate(1, one("n", "", Change::Count(-2)));
    world.converge().expect("converges");
    assert_eq!(world.count(2, "n"), 3);
    world.mutate(2, one("n", "", Change::Delete));
    world.mutate(0, one("n", "", Change::Count(1)));
    world.converge().expect("converges");
    // The documented reset anomaly: replica 0's total came back with its concurrent count.
    assert_eq!(world.count(1, "n"), 6);
    world.mutate(1, one("n", "", Change::Delete));
    world.mutate(1, one("n", "", Change::Count(4)));
    assert_eq!(world.count(1, "n"), 4);
}

#[test]
fn a_counter_refuses_to_leave_its_range() {
    let mut world = quiet(Setup::default());
    for _ in 0..2 {
        world.mutate(0, one("n", "", Change::Count(i64::MIN)));
    }
    let refused = world.answers.refused.values().next();
    let out_of_range = Reason::OutOfBounds { what: Bound::Counter, limit: u64::MAX };
    assert_eq!(refused, Some(&out_of_range));
    assert_eq!(world.count(0, "n"), i128::from(i64::MIN));
}

#[test]
fn a_client_learns_when_enough_replicas_have_its_write_on_disk() {
    let mut world = quiet(Setup::default());
    let ticket = world.write(0, put("k", "", "v"), 2);
    for to in [1, 2] {
        let push = take(&mut world, 0, to).remove(0);
        give(&mut world, 0, to, push);
        assert!(
            world.network.iter().all(|(from, _, _)| *from != to),
            "no acknowledgement leaves before the write is durable"
        );
        assert!(!world.answers.replicated.contains(&ticket));
        for ack in take(&mut world, to, 0) {
            give(&mut world, to, 0, ack);
        }
    }
    assert!(world.answers.replicated.contains(&ticket));
    // The next session replaces a lost acknowledgement. The two others have no link, so that neither gets the write of
    // the other one, which would tell the author nothing.
    for (at, other) in [(1, 2), (2, 1)] {
        world.step(at, Event::Unreachable { peer: replica(other).node });
    }
    let ticket = world.write(0, put("k", "", "w"), 2);
    world.sync_disk(0);
    world.network.clear();
    world.converge().expect("converges");
    assert!(world.answers.replicated.contains(&ticket));
    let abandoned = world.write(0, put("k", "", "x"), 2);
    world.step(0, Event::Abandon { ticket: abandoned });
    world.converge().expect("converges");
    assert!(!world.answers.replicated.contains(&abandoned));
}

#[test]
fn a_replica_promises_a_removal_only_once_what_it_removed_is_gone() {
    [false, true].into_iter().for_each(world::promises::of_a_removal);
}

#[test]
fn a_write_names_what_its_client_read_although_its_replica_replaced_it() {
    world::promises::of_an_overwrite();
}

#[test]
fn an_acknowledgement_does_not_outlive_the_store_that_gave_it() {
    for reconnects in [false, true] {
        let mut world = quiet(Setup::default());
        let ticket = world.write(0, put("k", "", "v"), 2);
        take(&mut world, 0, 1).into_iter().for_each(|push| give(&mut world, 0, 1, push));
        take(&mut world, 1, 0).into_iter().for_each(|ack| give(&mut world, 1, 0, ack));
        let empty = Replica { node: replica(1).node, store: StoreId([77; 16]) };
        if reconnects {
            world.step(0, Event::Connected { peer: empty });
        } else {
            world.step(0, Event::Peers { replicas: vec![empty, replica(2)] });
        }
        let held = world.processes[0].machine.context(SHARD).expect("open");
        let ack = Message::Ack { shard: SHARD, held, bytes: 0 };
        world.step(0, Event::Received { from: replica(2), message: ack.clone() });
        assert!(!world.answers.replicated.contains(&ticket), "one disk holds it beside this one");
        world.step(0, Event::Received { from: empty, message: ack });
        assert!(world.answers.replicated.contains(&ticket));
    }
}

#[test]
fn a_write_past_a_bound_is_refused_with_the_bounds_name() {
    let mut world = quiet(Setup::default());
    let long = "x".repeat(2_000);
    let cas = Change::Cas { expected: continuum_core::api::Expected::Absent, value: None };
    let limit = |what, limit| Reason::OutOfBounds { what, limit };
    let cases = [
        (put(&long, "", "v"), limit(Bound::Key, 1024)),
        (put("k", &long, "v"), limit(Bound::Field, 256)),
        (put("k", "", &long.repeat(300)), limit(Bound::Value, 512 << 10)),
        (Mutation { edits: Vec::new(), ..put("k", "", "") }, limit(Bound::Edits, 1024)),
        (one("k", "", cas), Reason::WrongConsistency),
    ];
    for (mutation, reason) in cases {
        let ticket = world.mutate(0, mutation);
        assert_eq!(world.answers.refused[&ticket], reason);
    }
    assert!(world.processes[0].disk.is_empty());
}

#[test]
fn thousands_of_missed_removals_are_found_by_halving() {
    let mut world = quiet(Setup::default());
    for n in 0..6_000 {
        world.mutate(0, put(&format!("k{n:04}"), "", "v"));
    }
    world.network.clear();
    world.converge().expect("converges");
    assert_eq!(world.processes[2].machine.status().next().map(|s| s.writes), Some(6_000));
    for n in (0..6_000).step_by(171) {
        world.mutate(0, one(&format!("k{n:04}"), "", Change::Delete));
    }
    world.network.clear();
    world.converge().expect("converges");
    let status = world.processes[2].machine.status().next().expect("open");
    assert_eq!((status.writes, status.peers), (6_000 - 36, 2));
    assert!(status.in_sync > 0);
    assert_eq!(world.rows(2).len(), 6_000 - 36);
}

#[test]
fn keys_come_in_order_page_by_page() {
    let mut world = quiet(Setup::default());
    for key in ["b", "a", "a\0", "a\0b", "ab", "c"] {
        world.mutate(0, put(key, "", "v"));
        world.mutate(0, one(key, "s", Change::Add(bytes(key))));
    }
    let page = |prefix: &str, after: Option<&str>, limit| {
        let query = Query::Keys { prefix: bytes(prefix), after: after.map(bytes), limit };
        match world.read(0, &query) {
            Value::Keys { keys, more } => (keys, more),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(page("a", None, 2), (vec![bytes("a"), bytes("a\0")], true));
    assert_eq!(page("a", Some("a\0"), 9), (vec![bytes("a\0b"), bytes("ab")], false));
    assert_eq!(page("", Some("ab"), 9), (vec![bytes("b"), bytes("c")], false));
    assert_eq!(page("a\0", None, 9), (vec![bytes("a\0"), bytes("a\0b")], false));
}

#[test]
fn a_scrub_checks_all_writes_in_pages() {
    let mut world = quiet(Setup::default());
    for n in 0..10 {
        world.mutate(0, put(&n.to_string(), "", "v"));
    }
    let machine = &world.processes[0].machine;
    let (mut from, mut checked) = (None, 0);
    loop {
        let scrub = machine.scrub(SHARD, from, 3);
        assert!(scrub.corrupt.is_empty());
        checked += scrub.checked;
        from = scrub.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(checked, 10);
}

#[test]
fn a_set_of_fifty_thousand_is_deleted_in_slices() {
    world::covers::in_slices(50_000, 100);
}

#[test]
fn a_delete_of_many_elements_takes_effect_in_slices_in_any_order() {
    world::covers::small();
    world::covers::before_what_it_covers(50_000);
}

#[test]
fn a_closed_namespace_is_forgotten() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "v"));
    world.step(0, Event::Close { namespace: SHARD.namespace });
    let machine = &world.processes[0].machine;
    let query = Query::Get { key: bytes("k"), field: Bytes::new() };
    assert_eq!(machine.read(SHARD, &query), Err(Reason::UnknownNamespace));
    assert_eq!((machine.bytes(), machine.deadline()), (0, None));
    assert!(recover(&world.processes[0].disk, &world.processes[0].files).shards.is_empty());
}

#[test]
fn a_link_may_come_up_before_the_registry_lists_its_peer() {
    let mut world = World::new(Setup { replicas: 2, ..Setup::default() });
    world.network.clear();
    world.step(0, Event::Peers { replicas: Vec::new() });
    world.step(0, Event::Connected { peer: replica(1) });
    world.mutate(0, put("k", "", "v"));
    world.sync_disk(0);
    assert!(world.network.is_empty());
    world.step(0, Event::Peers { replicas: vec![replica(1)] });
    assert!(matches!(world.network[0], (0, 1, Message::Compare { .. })));
}

proptest! {
    #[test]
    fn restoring_is_total(
        records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..4),
        flip in any::<(u16, u8)>(),
    ) {
        let mut world = quiet(Setup::default());
        world.mutate(0, put("k", "", "v"));
        world.mutate(1, put("k", "", "w"));
        world.converge().map_err(TestCaseError::fail)?;
        world.checkpoint(0);
        world.sync_disk(0);
        let process = &world.processes[0];
        let mut restored = recover(&process.disk, &process.files);
        let mut restored = restored.shards.remove(&SHARD).expect("one shard");
        let mut file = restored.snapshot.take().expect("a checkpoint").to_vec();
        let at = usize::from(flip.0) % file.len();
        file[at] ^= flip.1;
        let hostile = [
            RestoredShard { snapshot: Some(file.into()), ..RestoredShard::default() },
            RestoredShard {
                records: records.into_iter().map(|mut record| {
                    record.insert(0, flip.1 % 3);
                    record.into()
                }).collect(),
                ..RestoredShard::default()
            },
        ];
        for shard in hostile {
            let restored = Restored { shards: [(SHARD, shard)].into() };
            let config = continuum_core::config::ReplicationConfig::default();
            let boot = continuum_core::id::Boot { count: 9, nonce: 0 };
            let seed = Seed::from_number(1);
            if let Ok(mut machine) = Replicator::new(replica(0), boot, config, &seed, restored) {
                let mut out = Outbox::<Action>::new();
                machine.step(world.now(0), Event::Tick, &mut out);
                prop_assert!(machine.root(SHARD).is_some());
            }
        }
    }
}
