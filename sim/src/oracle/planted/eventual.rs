//! Eventual namespaces: what replicas hold at the end, and how writes are made, logged and covered before it.

use std::collections::BTreeSet;

use bytes::Bytes;
use continuum_core::api::{
    Change, Content, Context, ContextKeys, Edit, Field, Level, Mutation, Observed, Outcome,
    Receipt, Row, Secret,
};
use continuum_core::digest::Digest;
use continuum_core::id::{Actor, Boot, Dot, ShardId, StoreId};
use continuum_core::replication;
use continuum_core::replication::{Dots, Message, Ranges};
use continuum_core::wal::Write;

use super::super::hybrid_clock::{Follows, Stamps, Wall};
use super::super::{
    context_covers_what_is_known, dead_write_stays_dead, dot_minted_once, durability_at_send,
    eventual, eventual_specification, hybrid_clock, supersedes_what_was_seen,
};
use super::{Planted, bad, good};
use crate::env::durable::Durable;
use crate::format::dots::ExactDots;
use crate::format::write::{Op, Written, WrittenEdit};
use crate::verdict::Verdict;
use crate::workload::history::{Body, Ending, History, Operation, Responder, Space};

pub(super) fn all() -> Vec<Planted> {
    [clients(), orders(), specified(), made(), clocks(), covered(), promised()].concat()
}

fn row(content: Content) -> Vec<Row> {
    let fields = vec![Field { field: Bytes::new(), content }];
    vec![Row { key: Bytes::from_static(b"r00"), fields }]
}

fn text(values: &[&'static str]) -> Vec<Bytes> {
    values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()
}

fn register(values: &[&'static str]) -> Vec<Row> {
    row(Content::Register(text(values)))
}

fn set(members: &[&'static str]) -> Vec<Row> {
    row(Content::Set(text(members)))
}

/// A client's write, with the time of its call and the time at which the client learnt its context.
fn client_write(called: u64, seen_at: Option<u64>, change: Change, ended: Ending) -> Operation {
    let context = seen_at.map(|_| Context::default());
    let edits = vec![Edit { field: Bytes::new(), change }];
    let mutations = vec![Mutation { key: Bytes::from_static(b"r00"), edits, context }];
    Operation {
        client: 0,
        op_index: 0,
        space: Space::Siblings,
        body: Body::Write { mutations, level: Level::Durable },
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

fn put(called: u64, seen_at: u64, value: &'static str) -> Operation {
    client_write(called, Some(seen_at), Change::Put(Bytes::from_static(value.as_bytes())), done())
}

fn judge(operations: Vec<Operation>, rows: &[Row]) -> Verdict {
    let history = History { operations, ..History::default() };
    eventual::check(&history, Space::Siblings, rows, &BTreeSet::new())
}

fn clients() -> Vec<Planted> {
    let m = || Bytes::from_static(b"m");
    let add = |called| client_write(called, None, Change::Add(m()), done());
    let remove = |called, at| client_write(called, Some(at), Change::Remove(m()), done());
    let count = |by, ended| client_write(10, None, Change::Count(by), ended);
    let rejected = || client_write(1, None, Change::Put(Bytes::from_static(b"x")), Ending::Nothing);
    let apart = || vec![put(10, 0, "a"), put(20, 5, "b")];
    let counter = |value| row(Content::Counter(value));
    vec![
        good("siblings of concurrent writers", judge(apart(), &register(&["b", "a"]))),
        bad("a sibling lost", eventual::LOST, judge(apart(), &register(&["b"]))),
        bad("acknowledged writes lost", eventual::LOST, judge(apart(), &[])),
        good(
            "an overwritten value goes",
            judge(vec![put(10, 0, "a"), put(20, 16, "b")], &register(&["b"])),
        ),
        bad(
            "an update lost",
            eventual::LOST,
            judge(vec![put(10, 0, "a"), put(20, 16, "b")], &register(&["a"])),
        ),
        bad("a value that nobody wrote", eventual::PHANTOM, judge(Vec::new(), &register(&["x"]))),
        bad(
            "a rejected value present",
            eventual::PHANTOM,
            judge(vec![rejected()], &register(&["x"])),
        ),
        good("a member stays", judge(vec![add(10)], &set(&["m"]))),
        good("a member removed after it was seen", judge(vec![add(10), remove(30, 20)], &[])),
        bad(
            "an unseen add removed",
            eventual::LOST,
            judge(vec![add(1), add(10), remove(30, 9)], &[]),
        ),
        bad(
            "a member that nobody added",
            eventual::PHANTOM,
            judge(vec![add(10)], &set(&["m", "n"])),
        ),
        good(
            "a count that may have happened",
            judge(vec![count(5, done()), count(7, Ending::Unknown)], &counter(12)),
        ),
        bad("a count counted twice", eventual::LOST, judge(vec![count(5, done())], &counter(10))),
        bad(
            "a count lost",
            eventual::LOST,
            judge(vec![count(5, done()), count(2, done())], &counter(5)),
        ),
    ]
}

/// A node wrote "a" and then "b" to one field of a discarding namespace, and "a" is what remains.
fn earlier_value_wins(stores: [u8; 2]) -> Verdict {
    let write = |(at, store): (usize, u8)| {
        let value = Bytes::from_static([b"a", b"b"][at]);
        let operation = client_write(10 + 10 * at as u64, None, Change::Put(value), done());
        let by = Responder { node: 0, generation: 1, store: StoreId([store; 16]), losses: 1 };
        Operation { space: Space::Discard, answered_by: Some(by), ..operation }
    };
    let mut operations: Vec<Operation> = stores.into_iter().enumerate().map(write).collect();
    let mut rows = register(&["a"]);
    // A key that the workload writes without a context; to strict keys it writes only after a read.
    let free = Bytes::from_static(b"r01");
    rows[0].key = free.clone();
    for operation in &mut operations {
        let Body::Write { mutations, .. } = &mut operation.body else { continue };
        mutations[0].key = free.clone();
    }
    let history = History { operations, ..History::default() };
    eventual::check(&history, Space::Discard, &rows, &BTreeSet::new())
}

fn orders() -> Vec<Planted> {
    vec![
        bad(
            "a replica's later write lost to its earlier one",
            eventual::LOST,
            earlier_value_wins([7, 7]),
        ),
        good("a write of a new store that knew no greater stamp", earlier_value_wins([7, 8])),
    ]
}

const fn actor(boot: u64) -> Actor {
    let replica = continuum_core::id::Replica {
        node: continuum_core::id::NodeId([1; 16]),
        store: StoreId([2; 16]),
    };
    Actor { replica, boot: Boot { count: boot, nonce: 0 } }
}

const fn dot(seq: u64) -> Dot {
    Dot { actor: actor(1), seq }
}

fn write(seq: u64, stamp: u64, op: Op, superseded: &[u64]) -> Written {
    let superseded = superseded.iter().map(|seq| (dot(*seq), 0)).collect();
    Written {
        shard: ShardId::default(),
        dot: dot(seq),
        key: b"r00".to_vec(),
        stamp,
        hash: Digest::default(),
        edits: vec![WrittenEdit { superseded, ..WrittenEdit::new(Vec::new(), op) }],
    }
}

fn value(seq: u64, stamp: u64, text: &str, superseded: &[u64]) -> Written {
    write(seq, stamp, Op::Put(text.as_bytes().to_vec()), superseded)
}

fn specify(writes: &[Written], discards: bool, rows: &[Row]) -> Verdict {
    eventual_specification::check(writes.iter(), |_, _| false, discards, rows)
}

fn specified() -> Vec<Planted> {
    let three = [value(1, 10, "a", &[]), value(2, 20, "b", &[]), value(3, 15, "c", &[1])];
    let two = [value(1, 10, "a", &[]), value(2, 20, "b", &[])];
    let add = |seq| write(seq, seq, Op::Add(b"m".to_vec()), &[]);
    let remove = || write(3, 3, Op::Remove(b"m".to_vec()), &[1]);
    let count =
        |seq, plus, superseded: &[u64]| write(seq, seq, Op::Count { plus, minus: 0 }, superseded);
    let counts = || [count(1, 5, &[]), count(2, 7, &[1])];
    vec![
        good("siblings in their order", specify(&three, false, &register(&["b", "c"]))),
        bad(
            "siblings in another order",
            eventual_specification::NAME,
            specify(&three, false, &register(&["c", "b"])),
        ),
        bad(
            "a superseded sibling back",
            eventual_specification::NAME,
            specify(&three, false, &register(&["b", "c", "a"])),
        ),
        good("the greatest wins", specify(&two, true, &register(&["b"]))),
        bad(
            "a lesser one wins",
            eventual_specification::NAME,
            specify(&two, true, &register(&["a"])),
        ),
        good("an unseen add survives", specify(&[add(1), add(2), remove()], false, &set(&["m"]))),
        bad(
            "a member resurrected",
            eventual_specification::NAME,
            specify(&[add(1), remove()], false, &set(&["m"])),
        ),
        good("totals supersede totals", specify(&counts(), false, &row(Content::Counter(7)))),
        bad(
            "totals summed twice",
            eventual_specification::NAME,
            specify(&counts(), false, &row(Content::Counter(12))),
        ),
    ]
}

fn made() -> Vec<Planted> {
    let asked = |seen: &[u64]| {
        let dots = seen.iter().map(|seq| dot(*seq)).collect();
        let edits = vec![Edit { field: Bytes::new(), change: Change::Put(Bytes::new()) }];
        let keys = ContextKeys::new(Secret([1; 32]));
        let seen = Observed { dots, stamp: 0 };
        let context = Some(keys.seal(ShardId::default(), &seen));
        Mutation { key: Bytes::from_static(b"r00"), edits, context }
    };
    let made = value(3, 9, "c", &[1]);
    let other = Written { hash: Digest([9; 32]), ..made.clone() };
    let mut logged = dead_write_stays_dead::LoggedWrites::default();
    let mut logs = |seq| logged.check(seq as usize, ShardId::default(), dot(seq));
    vec![
        good("supersedes what was seen", supersedes_what_was_seen::check(&made, &asked(&[1, 2]))),
        bad(
            "supersedes what was not seen",
            supersedes_what_was_seen::NAME,
            supersedes_what_was_seen::check(&made, &asked(&[2])),
        ),
        good("one dot for one write", dot_minted_once::check(&made, &made)),
        bad("one dot for two writes", dot_minted_once::NAME, dot_minted_once::check(&made, &other)),
        good("a write logged once", logs(1)),
        good("another write logged once", logs(0)),
        bad("a write logged twice", dead_write_stays_dead::NAME, logs(1)),
    ]
}

fn clocks() -> Vec<Planted> {
    const MS: u64 = 1 << 16;
    let wall = Wall { now_ms: 100, ahead_ms: 10 };
    let knows = |last: u64, stamp, below| {
        let follows = Follows { below, greatest: 900 * MS };
        Stamps { last }.check(&value(1, stamp, "a", &[]), follows, wall)
    };
    let judge = |stamp, below| knows(50 * MS, stamp, below);
    vec![
        good("a stamp above all before", judge(101 * MS, 60 * MS)),
        bad("a stamp not above the last", hybrid_clock::NAME, judge(50 * MS, 0)),
        bad("a stamp below what it supersedes", hybrid_clock::NAME, judge(61 * MS, 62 * MS)),
        good("a clock that goes back with the wall clock", knows(500 * MS, 100 * MS, 0)),
        good("an overwrite of a stamp far ahead", judge(900 * MS + 1, 900 * MS)),
        bad("a stamp far ahead that follows nothing", hybrid_clock::NAME, judge(901 * MS, 0)),
    ]
}

fn covered() -> Vec<Planted> {
    let context = |spans: &[(u64, u64)]| {
        let mut ranges = Ranges::default();
        spans.iter().for_each(|(low, high)| ranges.insert_span(*low, *high));
        Dots::new(vec![(actor(1), ranges)])
    };
    let whole = |seen: &[(u64, u64)], covers: &[(u64, u64)], dead: u64| {
        context_covers_what_is_known::check_whole(
            &ExactDots::of(&context(seen)),
            &context(covers),
            |dot| dot.seq == dead,
        )
    };
    let gap = context_covers_what_is_known::check_actor(
        &actor(1),
        &ExactDots::of(&context(&[(3, 3)])),
        Some(&Ranges::span(1, 3)),
    );
    vec![
        good("a superseded write is covered", whole(&[(1, 2)], &[(1, 3)], 3)),
        bad(
            "a living write covered that was never held",
            context_covers_what_is_known::NAME,
            whole(&[(1, 2)], &[(1, 4)], 3),
        ),
        bad(
            "a held write not covered",
            context_covers_what_is_known::NAME,
            whole(&[(1, 2)], &[(2, 2)], 0),
        ),
        bad("a gap covered", context_covers_what_is_known::NAME, gap),
    ]
}

fn promised() -> Vec<Planted> {
    let shard = ShardId::default();
    let mut ranges = Ranges::default();
    ranges.insert(1);
    let held = Dots::new(vec![(actor(1), ranges)]);
    let ack = Message::Ack { shard, held: held.clone(), bytes: 0 };
    let mut disk = Durable::default();
    let before = durability_at_send::check_replication(&disk, &ack);
    disk.set_shard(shard, ExactDots::of(&held));
    let after = durability_at_send::check_replication(&disk, &ack);
    disk.apply(&Write::Shard { shard, write: replication::Write::Forget });
    let deleted = durability_at_send::check_replication(&disk, &ack);
    disk.set_shard(shard, ExactDots::default());
    let created_again = durability_at_send::check_replication(&disk, &ack);
    vec![
        bad("dots acknowledged before they are durable", durability_at_send::NAME, before),
        good("durable dots acknowledged", after),
        good("dots acknowledged after the shard was deleted", deleted),
        bad("dots of a shard that was created again", durability_at_send::NAME, created_again),
    ]
}
