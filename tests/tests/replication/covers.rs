//! A delete of many elements covers their scope: it names none of them, hides them at once, and removes them in slices.

use bytes::Bytes;
use continuum_core::api::{Change, Edit, Mutation, Query, Value};
use continuum_core::config::Slices;
use continuum_core::limits::EDITS_MAX;
use continuum_core::machine::Machine;
use continuum_core::replication::{Event, Message, PullError, Replicator};

use super::{SHARD, Setup, World, bytes, give, one, put, quiet, take};

/// The elements that one step removes here.
const SWEPT: usize = 64;

fn world() -> World {
    let mut setup = Setup::default();
    setup.config.slices = Slices { listed: 8, swept: SWEPT, freed: SWEPT };
    setup.config.delta_bytes_max = 64 << 10;
    quiet(setup)
}

/// Adds members to the set `s`, `each` of them with one write.
fn add(world: &mut World, at: usize, members: usize, each: usize) {
    let edit =
        |n: usize| Edit { field: Bytes::new(), change: Change::Add(bytes(&format!("m{n}"))) };
    for first in (0..members).step_by(each) {
        let edits = (first..members.min(first + each)).map(edit).collect();
        let ticket = world.mutate(at, Mutation { key: bytes("s"), edits, context: None });
        assert!(world.answers.accepted.contains_key(&ticket));
    }
}

fn delete(world: &mut World, at: usize) -> continuum_core::id::Dot {
    let ticket = world.mutate(at, one("s", "", Change::Delete));
    world.answers.accepted.get(&ticket).expect("the delete is accepted").0
}

/// Whether a replica shows nothing of the set `s`, in any answer.
fn shows_nothing(machine: &Replicator) -> bool {
    let read = |query| machine.read(SHARD, &query).expect("the shard is open");
    let keys = read(Query::Keys { prefix: Bytes::new(), after: None, limit: 10 });
    let rows = read(Query::Rows { after: None, limit: 10 });
    let (Value::Keys { keys, .. }, Value::Rows { rows, .. }) = (keys, rows) else { return false };
    let Value::Record { fields, .. } = read(Query::Record { key: bytes("s") }) else {
        return false;
    };
    let members = read(Query::Members { key: bytes("s"), field: Bytes::new() });
    let Value::Set { members, .. } = members else { return false };
    keys.iter().all(|key| key != "s")
        && rows.iter().all(|row| row.key != "s")
        && fields.is_empty()
        && members.is_empty()
}

fn writes(machine: &Replicator) -> u64 {
    machine.status().map(|shard| shard.writes).sum()
}

/// One request deletes a set of any size. No step removes more than its slice, and nothing shows what is left. A member
/// that is added meanwhile stays.
///
/// # Panics
///
/// If any of it is not so.
pub fn in_slices(members: usize, each: usize) {
    let mut world = world();
    add(&mut world, 0, members, each);
    world.sync_disk(0);
    let dot = delete(&mut world, 0);
    let info = world.last_written(0);
    assert!(info.dot == dot && info.edits[0].superseded.is_empty(), "{info:?}");
    assert_eq!(info.edits[0].covered.len(), 1, "one range of one author");
    assert!(shows_nothing(&world.processes[0].machine), "a delete hides all at once");
    world.mutate(0, one("s", "", Change::Add(bytes("m7"))));
    let held = |world: &World| world.processes[0].machine.bytes();
    let (mut before, mut ticks) = (held(&world), 0);
    let most = 4 * SWEPT as u64 * (before / members as u64);
    while world.processes[0].machine.is_sweeping() {
        assert!(world.processes[0].machine.deadline() <= Some(world.now(0).mono));
        world.step(0, Event::Tick);
        let after = held(&world);
        assert!(before - after <= most, "{before} {after} {most}");
        before = after;
        ticks += 1;
        if ticks % (members / 500) == 0 {
            assert_eq!(world.members(0, "s"), [bytes("m7")]);
        }
    }
    assert!(ticks >= members / SWEPT);
    assert_eq!(writes(&world.processes[0].machine), 1);
    world.converge().expect("converges");
    (0..3).for_each(|at| assert_eq!(world.members(at, "s"), [bytes("m7")]));
}

/// Writes of many members each, pushed in any order: those that arrive after the delete are dead at once.
///
/// # Panics
///
/// If a replica shows a member, or differs.
pub fn before_what_it_covers(members: usize) {
    let mut world = world();
    add(&mut world, 0, members, EDITS_MAX.min(members / 4));
    world.mutate(0, put("other", "", "v"));
    delete(&mut world, 0);
    world.settle(0);
    let mut pushes = take(&mut world, 0, 1);
    pushes.reverse();
    for push in pushes {
        give(&mut world, 0, 1, push);
        assert!(shows_nothing(&world.processes[1].machine));
    }
    world.settle(1);
    let root = |at: usize| world.processes[at].machine.root(SHARD);
    assert_eq!(root(0), root(1), "all writes arrived");
    world.crash(1).expect("restores what it had");
}

/// Replica 1 has the delete and nothing of what it covers, its author is gone, and replica 2 has the set. A context
/// that covers the delete is never beside a member.
///
/// # Panics
///
/// If it is, or if a member is left in the end.
pub fn told_by_one_who_waits(members: usize) {
    let mut world = world();
    add(&mut world, 0, members, 1);
    let all = take(&mut world, 0, 2);
    all.into_iter().for_each(|push| give(&mut world, 0, 2, push));
    let dot = delete(&mut world, 0);
    let pushes = take(&mut world, 0, 1);
    give(&mut world, 0, 1, pushes.last().expect("the delete is pushed").clone());
    world.network.clear();
    for _ in 0..400 {
        (1..3).for_each(|at| world.sync_disk(at));
        world.network.retain(|(from, to, _)| *from != 0 && *to != 0);
        if world.network.is_empty() {
            world.advance(500);
        }
        (0..world.network.len().min(1)).for_each(|at| world.deliver(at));
        let covers = world.processes[2].machine.context(SHARD).expect("open").contains(&dot);
        assert!(!covers || shows_nothing(&world.processes[2].machine), "the delete is covered");
    }
    (1..3).for_each(|at| world.settle(at));
    (1..3).for_each(|at| assert!(shows_nothing(&world.processes[at].machine)));
}

/// While a replica sweeps it tells no peer what it has: neither the delete beside what that covers, nor a root that
/// changes by itself.
///
/// # Panics
///
/// If it does.
pub fn tells_nothing_meanwhile(members: usize) {
    let mut world = world();
    add(&mut world, 0, members, 1);
    world.converge().expect("converges");
    let before = world.processes[1].machine.root(SHARD).expect("open");
    let dot = delete(&mut world, 0);
    world.sync_disk(0);
    world.network.clear();
    give(&mut world, 1, 0, Message::Compare { shard: SHARD, root: before });
    assert!(world.network.is_empty(), "no answer to a comparison");
    let context = world.processes[1].machine.context(SHARD).expect("open");
    let (refused, spans) = (continuum_core::replication::Dots::default(), Vec::new());
    give(&mut world, 1, 0, Message::Pull { shard: SHARD, round: 1, context, refused, spans });
    assert!(world.processes[0].machine.is_sweeping());
    let answer = world.network.pop().map(|(.., message)| message);
    assert!(matches!(answer, Some(Message::Refused { why: PullError::Busy, .. })), "{answer:?}");
    world.settle(0);
    world.converge().expect("converges");
    for at in 0..3 {
        assert!(world.processes[at].machine.context(SHARD).expect("open").contains(&dot));
        assert!(shows_nothing(&world.processes[at].machine));
    }
}

/// A checkpoint that is asked for while a replica sweeps waits for the end, and a crash at any step of either loses
/// nothing and brings nothing back.
///
/// # Panics
///
/// If it does.
pub fn over_a_crash(members: usize, steps: usize) {
    let mut world = world();
    add(&mut world, 0, members, 3);
    world.sync_disk(0);
    delete(&mut world, 0);
    world.sync_disk(0);
    world.checkpoint(0);
    for _ in 0..steps {
        world.step(0, Event::Tick);
        world.sync_disk(0);
    }
    world.crash(0).expect("restores what it had");
    assert!(shows_nothing(&world.processes[0].machine));
    assert_eq!(writes(&world.processes[0].machine), 0);
    world.mutate(0, one("s", "", Change::Add(bytes("new"))));
    assert_eq!(world.members(0, "s"), [bytes("new")]);
}

/// A step frees a slice of what a deleted namespace held. Until then that counts.
///
/// # Panics
///
/// If it frees more.
pub fn freed_in_slices(members: usize) {
    let mut world = world();
    add(&mut world, 0, members, 1);
    let bytes = |world: &World| world.processes[0].machine.bytes();
    let each = bytes(&world) / members as u64;
    let mut before = bytes(&world);
    world.step(0, Event::Close { namespace: SHARD.namespace });
    loop {
        let after = bytes(&world);
        assert!(before - after <= (SWEPT as u64 + 8) * each, "{before} {after}");
        before = after;
        if after == 0 {
            return;
        }
        assert!(world.processes[0].machine.deadline() <= Some(world.now(0).mono));
        world.step(0, Event::Tick);
    }
}

/// All of it, with few members.
pub fn small() {
    in_slices(500, 1);
    before_what_it_covers(500);
    told_by_one_who_waits(200);
    tells_nothing_meanwhile(500);
    [0, 1, 3, 9, 30].into_iter().for_each(|steps| over_a_crash(500, steps));
    freed_in_slices(500);
}
