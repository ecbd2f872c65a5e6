//! A replica promises what its context covers. So a removal enters the context only once what it removed is gone here.

use continuum_core::api::Change;
use continuum_core::replication::Message;

use super::{SHARD, Setup, give, one, put, quiet, take};

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
