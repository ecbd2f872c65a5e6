//! A replica promises what its context covers. So a removal enters the context only once what it removed is gone here.

use bytes::Bytes;
use continuum_core::api::{Change, Mutation};
use continuum_core::replication::Message;

use super::{SHARD, Setup, bytes, give, one, put, quiet, take};

/// Replica 1 learns of a removal from replica 2, whose pushes are lost. If `late`, the removed write reaches replica 1
/// while it learns.
///
/// # Panics
///
/// If replica 1 covers the removal, or the author's client counts on it, while replica 1 still shows the value.
pub fn of_a_removal(late: bool) {
    let mut world = quiet(Setup::default());
    world.mutate(0, put("k", "", "removed"));
    let first = take(&mut world, 0, 1);
    if late {
        // Replica 1 gets the removed write while it learns of the removal.
        world.network.clear();
        give(&mut world, 0, 2, first[0].clone());
    } else {
        world.converge().expect("converges");
    }
    world.mutate(2, put("other", "", "v"));
    let ticket = world.write(2, one("k", "", Change::Delete), 1);
    let (removal, _) = world.answers.accepted[&ticket].clone();
    world.sync_disk(2);
    world.network.clear();
    let root = world.processes[2].machine.root(SHARD).expect("open");
    give(&mut world, 2, 1, Message::Compare { shard: SHARD, root });
    for step in 0..30 {
        (0..3).for_each(|at| world.sync_disk(at));
        world.network.retain(|(from, to, _)| *from != 0 && *to != 0);
        if world.network.is_empty() {
            break;
        }
        world.deliver(0);
        if late && step == 1 {
            give(&mut world, 0, 1, first[0].clone());
        }
        let covers = world.processes[1].machine.context(SHARD).expect("open").contains(&removal);
        let shown = world.get(1, "k", "").value;
        assert!(!covers || shown.is_none(), "{late} step {step}: the context covers the removal");
        let promised = world.answers.replicated.contains(&ticket);
        assert!(!promised || shown.is_none(), "{late} step {step}: the client counts on it");
    }
    assert!(world.answers.replicated.contains(&ticket));
    assert_eq!(world.get(1, "k", "").value, None);
    world.crash(1).expect("restores");
    assert_eq!(world.get(1, "k", "").value, None);
}

/// A value that a client had read is gone wherever the client's write arrives, also if the replica that took the write
/// had replaced it before by a write that nobody else has: such a write may be lost with its disk.
///
/// # Panics
///
/// If replica 1 still shows a value that the write's client had read.
pub fn of_an_overwrite() {
    for author in 0..3 {
        let mut world = quiet(Setup::default());
        let mut first = put("k", "f", "read");
        first.edits.extend(put("k", "g", "kept").edits);
        world.mutate(author, first);
        world.mutate(author, one("k", "s", Change::Add(bytes("member"))));
        world.converge().expect("converges");
        let contexts = [world.get(0, "k", "f").context, world.set(0, "k", "s").1];
        world.mutate(0, put("k", "f", "lost"));
        world.mutate(0, one("k", "s", Change::Remove(bytes("member"))));
        let lost = take(&mut world, 0, 1).len();
        assert_eq!(lost, 2, "two writes that reach nobody");
        let [register, set] = contexts.map(Some);
        world.mutate(0, Mutation { context: register, ..put("k", "f", "last") });
        let remove = one("k", "s", Change::Remove(bytes("member")));
        world.mutate(0, Mutation { context: set, ..remove });
        take(&mut world, 0, 1).into_iter().for_each(|push| give(&mut world, 0, 1, push));
        let seen = world.get(1, "k", "f");
        assert_eq!((seen.value, seen.siblings), (Some(bytes("last")), vec![]), "author {author}");
        assert_eq!(world.set(1, "k", "s").0, Vec::<Bytes>::new(), "author {author}");
        assert_eq!(world.get(1, "k", "g").value, Some(bytes("kept")), "author {author}");
    }
}
