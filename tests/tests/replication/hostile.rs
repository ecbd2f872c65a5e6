//! Cases that no honest client, member or clock makes: clocks that are wrong by years, two writes with one dot, writes
//! under another's name, named numbers that nobody wrote, contexts that no node gave out, and removals without end.
//! None of them makes replicas differ, hides a write, stops the learning of others, or takes uncounted memory.

use bytes::Bytes;
use continuum_core::api::{
    Change, Context, ContextKeys, Mutation, Observed, Reason, Resource, Secret, Strategy,
};
use continuum_core::id::{Dot, ShardId};
use continuum_core::limits::DEFERRED_MAX;
use continuum_core::replication::{Event, Message, Replicator, dot_of};

use super::{SHARD, Setup, World, bytes, give, keys, one, put, quiet, replica, take};

/// All cases. Each panics when its law is broken.
pub const CASES: &[fn()] = &[
    a_write_of_a_clock_years_ahead_is_visible_at_once_and_later_ones_too,
    a_wrong_clock_spoils_no_stamp_but_those_of_the_keys_that_it_wrote,
    in_a_discarding_shard_a_write_after_a_deletion_beats_what_was_deleted,
    of_two_writes_with_one_dot_the_greater_hash_wins_in_both_orders,
    replicas_with_two_writes_of_one_dot_become_equal_and_an_honest_author_keeps_its_value,
    a_removed_element_stays_removed_when_its_write_gets_other_content,
    a_write_under_my_name_is_merged_by_me_too_and_stops_nothing,
    a_number_that_others_named_is_never_minted,
    a_context_that_no_node_gave_out_is_refused,
    a_refused_write_is_skipped_and_others_are_learnt,
    deferred_removals_are_bounded_counted_and_refused_in_time,
    a_write_whose_key_belongs_to_another_shard_is_refused,
];

/// Ten years, as a wrong clock may jump.
const YEARS_MS: i64 = 10 * 365 * 86_400_000;

pub fn a_write_of_a_clock_years_ahead_is_visible_at_once_and_later_ones_too() {
    for discard in [false, true] {
        let mut world = quiet(Setup { discard, ..Setup::default() });
        world.processes[0].skew_ms = YEARS_MS;
        let ticket = world.write(0, put("k", "", "from the future"), 2);
        world.processes[0].skew_ms = 0;
        let later = world.write(0, put("k2", "", "with the right clock"), 2);
        world.mutate(2, put("k3", "", "of another node"));
        world.sync_disk(0);
        for to in [1, 2] {
            take(&mut world, 0, to).into_iter().for_each(|push| give(&mut world, 0, to, push));
            // A client can read there whatever the answer of `replicated` counts.
            assert_eq!(world.get(to, "k", "").value, Some(bytes("from the future")));
            assert_eq!(world.get(to, "k2", "").value, Some(bytes("with the right clock")));
            world.sync_disk(to);
            take(&mut world, to, 0).into_iter().for_each(|ack| give(&mut world, to, 0, ack));
        }
        assert!(
            world.answers.replicated.contains(&ticket) && world.answers.replicated.contains(&later)
        );
        // A third node's removal is learnt through the node whose clock was wrong.
        world.converge().expect("converges");
        world.mutate(2, one("k3", "", Change::Delete));
        world.converge().expect("converges");
        assert_eq!(world.get(1, "k3", "").value, None);
        // An overwrite anywhere replaces the value from the future.
        world.mutate(1, put("k", "", "from the present"));
        world.converge().expect("converges");
        (0..3).for_each(|at| {
            assert_eq!(world.get(at, "k", "").value, Some(bytes("from the present")));
        });
    }
}

pub fn a_wrong_clock_spoils_no_stamp_but_those_of_the_keys_that_it_wrote() {
    let mut world = quiet(Setup::default());
    world.processes[0].skew_ms = YEARS_MS;
    world.mutate(0, put("k", "", "from the future"));
    world.converge().expect("converges");
    world.processes[0].skew_ms = 0;
    let bound = |world: &World, at: usize| (world.now(at).wall.0 + 60_001) << 16;
    for at in 0..3 {
        world.mutate(at, put("other", "", "v"));
        assert!(world.last_written(at).stamp < bound(&world, at), "{at}");
        world.converge().expect("converges");
        world.crash(at).expect("restores");
        world.mutate(at, put("third", "", "v"));
        assert!(world.last_written(at).stamp < bound(&world, at), "{at} after a restart");
        world.mutate(at, put("k", "", "over it"));
        assert!(world.last_written(at).stamp > bound(&world, at), "an overwrite is above");
        world.converge().expect("converges");
    }
}

pub fn in_a_discarding_shard_a_write_after_a_deletion_beats_what_was_deleted() {
    for learnt_by_view in [false, true] {
        let mut world = quiet(Setup { discard: true, ..Setup::default() });
        world.processes[0].skew_ms = YEARS_MS;
        world.mutate(0, put("k", "", "from the future"));
        world.processes[0].skew_ms = 0;
        let push = take(&mut world, 0, 2).remove(0);
        world.mutate(0, one("k", "", Change::Delete));
        let author = if learnt_by_view { 1 } else { 0 };
        if learnt_by_view {
            // Replica 1 learns that the write is dead, and sees neither the write nor its deletion.
            world.sync_disk(0);
            world.network.clear();
            world.step(1, Event::Unreachable { peer: replica(2).node });
            world.advance(2_000);
            for _ in 0..8 {
                [0, 1].into_iter().for_each(|at| world.sync_disk(at));
                world.network.retain(|(from, to, _)| *from != 2 && *to != 2);
                (0..world.network.len()).for_each(|_| world.deliver(0));
            }
            assert!(world.processes[1].machine.context(SHARD).is_some_and(|dots| !dots.is_empty()));
        }
        world.mutate(author, put("k", "", "after the deletion"));
        // Replica 2 holds the deleted write when the new one comes.
        give(&mut world, 0, 2, push);
        take(&mut world, author, 2)
            .into_iter()
            .rev()
            .take(1)
            .for_each(|push| give(&mut world, author, 2, push));
        world.step(1, Event::Connected { peer: replica(2) });
        world.converge().expect("converges");
        (0..3).for_each(|at| {
            assert_eq!(world.get(at, "k", "").value, Some(bytes("after the deletion")), "{at}");
        });
    }
}

/// Two worlds in which replica 0 writes other values under the same dot; the value with the greater hash, and the
/// other.
fn twins() -> (World, World, Bytes, Bytes) {
    let mut world = quiet(Setup::default());
    let mut twin = quiet(Setup::default());
    world.mutate(0, put("k", "", "one"));
    twin.mutate(0, put("k", "", "other"));
    let (one, other) = (world.last_written(0).hash, twin.last_written(0).hash);
    let values = [bytes("one"), bytes("other")];
    let (greater, lesser) = if one > other { (0, 1) } else { (1, 0) };
    (world, twin, values[greater].clone(), values[lesser].clone())
}

pub fn of_two_writes_with_one_dot_the_greater_hash_wins_in_both_orders() {
    for first_is_twin in [false, true] {
        let (mut world, mut twin, greater, _) = twins();
        let (push, forged) = (take(&mut world, 0, 1).remove(0), take(&mut twin, 0, 1).remove(0));
        let pushes = if first_is_twin { [forged, push] } else { [push, forged] };
        pushes.into_iter().for_each(|push| give(&mut world, 0, 1, push));
        assert_eq!(world.equivocations.len(), 1);
        assert_eq!(world.get(1, "k", "").siblings.len(), 0);
        assert_eq!(world.get(1, "k", "").value, Some(greater));
        world.sync_disk(1);
        world.crash(1).expect("both orders restore");
    }
}

pub fn replicas_with_two_writes_of_one_dot_become_equal_and_an_honest_author_keeps_its_value() {
    for author_has_greater in [false, true] {
        let (mut world, mut twin, greater, lesser) = twins();
        let mine = world.get(0, "k", "").value.expect("it wrote");
        if (mine == greater) != author_has_greater {
            core::mem::swap(&mut world, &mut twin);
        }
        // Replica 1 takes the forged write, and a honest one of replica 2 that must spread all the same.
        let forged = take(&mut twin, 0, 1).remove(0);
        world.network.clear();
        give(&mut world, 0, 1, forged);
        world.mutate(2, put("honest", "", "v"));
        world.converge().expect("replicas become equal");
        assert!(!world.equivocations.is_empty());
        for at in 0..3 {
            assert_eq!(world.get(at, "honest", "").value, Some(bytes("v")));
            let held = world.get(at, "k", "");
            let mut held: Vec<_> = held.siblings.into_iter().chain(held.value).collect();
            held.sort_unstable();
            held.dedup();
            let both = [greater.clone(), lesser.clone()];
            assert!(
                held.contains(&greater) && held.iter().all(|value| both.contains(value)),
                "{at}"
            );
            assert!(
                author_has_greater || held.len() == 2,
                "the author wrote its value again: {held:?}"
            );
        }
        world.promises_hold().expect("promises hold");
        (0..3).for_each(|at| world.crash(at).expect("restores"));
        world.converge().expect("replicas stay equal");
    }
}

pub fn a_removed_element_stays_removed_when_its_write_gets_other_content() {
    let (mut world, mut twin, ..) = twins();
    let forged = take(&mut twin, 0, 1).remove(0);
    let push = take(&mut world, 0, 1).remove(0);
    give(&mut world, 0, 1, push);
    give(&mut world, 0, 2, forged.clone());
    world.mutate(1, one("k", "", Change::Delete));
    give(&mut world, 0, 1, forged);
    world.converge().expect("converges");
    let rows = world.rows(0);
    assert!(rows.iter().all(|row| row.key != bytes("k")) || world.get(0, "k", "").value.is_some());
    assert!((1..3).all(|at| world.rows(at) == rows));
}

/// Replica 0's shard as a lying member could have made it: writes of replica 0's present boot.
fn forged_pushes(count: usize) -> Vec<Message> {
    let mut twin = quiet(Setup::default());
    for n in 0..count {
        twin.mutate(0, put("k", "", &n.to_string()));
    }
    take(&mut twin, 0, 1)
}

pub fn a_write_under_my_name_is_merged_by_me_too_and_stops_nothing() {
    let mut world = quiet(Setup::default());
    forged_pushes(3).into_iter().for_each(|push| give(&mut world, 0, 1, push));
    // Replica 0 has written nothing, but replica 1 holds three writes of replica 0's present boot.
    world.mutate(2, put("honest", "", "v"));
    world.converge().expect("the writes spread, and all others");
    assert!(world.equivocations.iter().any(|dot| dot.actor.replica == replica(0)));
    assert_eq!(world.get(0, "honest", "").value, Some(bytes("v")));
    // Its own next write has a number above the forged ones.
    let ticket = world.write(0, put("mine", "", "w"), 2);
    assert_eq!(world.answers.accepted[&ticket].0.seq, 4);
    world.converge().expect("converges");
    assert!(world.answers.replicated.contains(&ticket));
    (0..3).for_each(|at| assert_eq!(world.get(at, "mine", "").value, Some(bytes("w")), "{at}"));
}

pub fn a_number_that_others_named_is_never_minted() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "first"));
    world.converge().expect("converges");
    let actor = world.last_written(0).dot.actor;
    // A member that lies seals a context that names what replica 0 has not written yet, and writes with it.
    let dots = (2..40).map(|seq| Dot { actor, seq }).collect();
    let context = Some(keys().seal(SHARD, &Observed { dots, stamp: 1 }));
    let lie = world.mutate(1, Mutation { context, ..put("k", "", "pre-doomed") });
    assert!(world.answers.accepted.contains_key(&lie));
    world.converge().expect("the author takes it as all others do");
    assert!(world.rejected.is_empty(), "{:?}", world.rejected);
    let ticket = world.mutate(0, put("k", "", "honest"));
    assert_eq!(world.answers.accepted[&ticket].0.seq, 40);
    world.converge().expect("converges");
    for at in 0..3 {
        assert_eq!(
            world.get(at, "k", "").value,
            Some(bytes("honest")),
            "an acknowledged write stays"
        );
    }
    let root = world.roots();
    (0..3).for_each(|at| world.crash(at).expect("restores"));
    world.converge().expect("converges");
    assert_eq!(world.roots(), root);
}

pub fn a_context_that_no_node_gave_out_is_refused() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "v"));
    let sound = world.get(0, "k", "").context;
    let dots = vec![Dot { actor: world.last_written(0).dot.actor, seq: 9 }];
    let made_up = Observed { dots, stamp: u64::MAX >> 2 };
    let other = ContextKeys::new(Secret([9; 32]));
    let elsewhere = ShardId { slot: 1, ..SHARD };
    let cut = sound.as_bytes().slice(..sound.as_bytes().len() - 1);
    let foreign = [
        other.seal(SHARD, &made_up),
        keys().seal(elsewhere, &made_up),
        Context::from_bytes(cut),
        Context::from_bytes(continuum_core::codec::encode(&made_up)),
    ];
    for (n, context) in foreign.into_iter().enumerate() {
        let refused = world.mutate(0, Mutation { context: Some(context), ..put("k", "", "w") });
        assert_eq!(world.answers.refused.get(&refused), Some(&Reason::ForeignContext), "{n}");
    }
    let rotated = keys().rotate(Secret([8; 32]));
    world.step(1, Event::Keys { keys: rotated });
    let with = Mutation { context: Some(sound.clone()), ..put("k", "", "w") };
    let taken = world.mutate(1, with.clone());
    assert!(world.answers.accepted.contains_key(&taken), "the key before the newest is valid");
    world.step(1, Event::Keys { keys: rotated.rotate(Secret([6; 32])) });
    let refused = world.mutate(1, with);
    assert_eq!(world.answers.refused.get(&refused), Some(&Reason::ForeignContext));
}

pub fn a_refused_write_is_skipped_and_others_are_learnt() {
    let mut world = quiet(Setup::default());
    // A write of another shard: it is refused by its dot.
    let elsewhere = {
        let mut other = quiet(Setup::default());
        let id = ShardId { slot: 1, ..SHARD };
        let (strategy, discard) = (Strategy::LastWriterWins, false);
        other.step(0, Event::Open { namespace: SHARD.namespace, slots: 2, strategy, discard });
        other.step(
            0,
            Event::Mutate { ticket: 9, shard: id, mutation: put("k", "", "v"), replicas: 0 },
        );
        other.sync_disk(0);
        take(&mut other, 0, 1).into_iter().find_map(|message| match message {
            Message::Delta { writes, .. } => Some(writes[0].clone()),
            _ => None,
        })
    };
    let elsewhere = elsewhere.expect("it was pushed");
    // Replica 1 can learn of the overwritten value only from the view.
    world.mutate(2, put("honest", "", "overwritten"));
    let overwritten = world.last_written(2).dot;
    world.mutate(2, put("honest", "", "v"));
    world.sync_disk(2);
    world.network.clear();
    // Replica 1 asks replica 2, whose answer carries the bad write beside a good one.
    world.step(1, Event::Received { from: replica(2), message: Message::Differ { shard: SHARD } });
    world.sync_disk(1);
    let ask =
        take(&mut world, 1, 2).into_iter().find(|message| matches!(message, Message::Pull { .. }));
    give(&mut world, 1, 2, ask.expect("it asks"));
    world.sync_disk(2);
    let answer =
        take(&mut world, 2, 1).into_iter().find(|message| matches!(message, Message::View { .. }));
    let Some(Message::View { shard, round, mut view }) = answer else { panic!("a view") };
    let dot = dot_of(&elsewhere).expect("sealed");
    view.context.insert(&dot);
    view.totals = vec![0; view.context.len()];
    view.writes.insert(0, (elsewhere, None));
    give(&mut world, 2, 1, Message::View { shard, round, view });
    assert_eq!(world.rejected.len(), 1);
    assert_eq!(world.get(1, "honest", "").value, Some(bytes("v")));
    // The session goes on until nothing differs.
    for _ in 0..20 {
        (0..3).for_each(|at| world.sync_disk(at));
        world.network.retain(|(from, to, _)| *from != 0 && *to != 0);
        (0..world.network.len()).for_each(|_| world.deliver(0));
    }
    let context = world.processes[1].machine.context(SHARD).unwrap_or_default();
    assert!(!context.contains(&dot), "what was refused is not covered");
    assert!(context.contains(&world.last_written(2).dot));
    assert!(context.contains(&overwritten), "the rest of the view is learnt");
    // The next question leaves it out.
    world.sync_disk(1);
    world.step(1, Event::Received { from: replica(2), message: Message::Differ { shard: SHARD } });
    world.sync_disk(1);
    let asks = take(&mut world, 1, 2);
    let asks = asks.iter().any(|message| match message {
        Message::Pull { refused, .. } => refused.contains(&dot),
        _ => false,
    });
    assert!(asks);
}

pub fn deferred_removals_are_bounded_counted_and_refused_in_time() {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "v"));
    let actor = world.last_written(0).dot.actor;
    // One large member, and many writes that this replica has not seen.
    let unseen = |from: u64, count: u64| {
        let dots = (from..from + count).map(|seq| Dot { actor, seq }).collect();
        Some(keys().seal(SHARD, &Observed { dots, stamp: 1 }))
    };
    let mut taken = |key: &str, context| {
        let before = world.processes[1].machine.bytes();
        let member = Bytes::from(vec![7; 400_000]);
        world.mutate(1, Mutation { context, ..one(key, "", Change::Add(member)) });
        world.processes[1].machine.bytes() - before
    };
    let (alone, with) = (taken("r", Some(Context::default())), taken("s", unseen(2, 1500)));
    assert!((1500 * 100..300_000).contains(&(with - alone)), "{with} {alone}");
    // Past the bound the author refuses, and a replica takes the write without the removals.
    let mut from = 2000;
    let refused = loop {
        let mutation = Mutation { context: unseen(from, 5000), ..put("k2", "", "w") };
        let ticket = world.mutate(1, mutation);
        from += 5000;
        if let Some(reason) = world.answers.refused.get(&ticket) {
            break reason.clone();
        }
        assert!(from < 200_000);
    };
    assert_eq!(refused, Reason::Full { what: Resource::Memory });
    let removals = world.processes[1].machine.deferred_removals();
    assert!((DEFERRED_MAX - 5000..=DEFERRED_MAX).contains(&removals), "{removals}");
    // Another author, who has room, adds more than replica 1 can keep.
    world.network.clear();
    let other = Mutation { context: unseen(500_000, 6000), ..put("k3", "", "x") };
    world.mutate(2, other);
    world.converge().expect("converges");
    assert!(world.processes[1].machine.deferred_removals() <= DEFERRED_MAX);
    world.checkpoint(1);
    (0..400).for_each(|_| world.step(1, Event::Tick));
    world.sync_disk(1);
    world.crash(1).expect("restores");
    assert_eq!(
        world.processes[1].machine.deferred_removals(),
        removals.max(world.processes[1].machine.deferred_removals())
    );
    world.converge().expect("converges");
}

pub fn a_write_whose_key_belongs_to_another_shard_is_refused() {
    let mut world = quiet(Setup::default());
    for at in 0..2 {
        let (strategy, discard) = (Strategy::LastWriterWins, false);
        world.step(at, Event::Open { namespace: SHARD.namespace, slots: 2, strategy, discard });
    }
    let slot = |key: &String| Replicator::shard_for(SHARD.namespace, 2, key.as_bytes()).slot;
    let key = (0..).map(|n| format!("k{n}")).find(|key| slot(key) == 0).expect("one of many");
    // Only a member that lies writes into a shard that is not its key's: lists would show it, and no read by key.
    let shard = ShardId { slot: 1, ..SHARD };
    world.step(0, Event::Mutate { ticket: 9, shard, mutation: put(&key, "", "v"), replicas: 0 });
    world.sync_disk(0);
    let pushes = take(&mut world, 0, 1);
    assert!(!pushes.is_empty());
    pushes.into_iter().for_each(|push| give(&mut world, 0, 1, push));
    assert_eq!(world.rejected, ["a write's key belongs to another shard"]);
    assert!(world.processes[1].machine.context(shard).unwrap_or_default().is_empty());
}
