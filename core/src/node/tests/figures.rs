//! The figures that a node tells of its peers and of conflicts, for operators.

use core::time::Duration;

use super::*;
use crate::id::GroupId;
use crate::raft::Raft;

/// For how long this node's oldest eventual write waits until another node has it.
fn lag(world: &World, at: usize, of: usize) -> Option<Duration> {
    let node = world.hosts[of].replica.node;
    world.node(at).replication_lags().find(|(peer, _)| *peer == node).map(|(_, lag)| lag)
}

/// The most entries that another node lacks of a group that this node leads.
fn entries(world: &World, at: usize, of: usize) -> Option<u64> {
    let other = world.hosts[of].replica;
    let lags = world.node(at).rafts().flat_map(|(_, raft)| raft.lags());
    lags.filter(|(replica, _)| *replica == other).map(|(_, entries)| entries).max()
}

#[test]
fn an_eventual_write_lags_until_the_other_node_has_it() {
    let mut world = federation(3, 1);
    world.run(3000);
    assert_eq!((lag(&world, 0, 1), lag(&world, 0, 2)), (None, None));
    world.isolate(2);
    world.run(500);
    assert!(is_committed(&world.ask(0, put("notes", "a", "1"))));
    world.run(4000);
    assert_eq!(lag(&world, 0, 1), None, "it acknowledged");
    let before = lag(&world, 0, 2).expect("it is away");
    assert!((3900..=4100).contains(&before.as_millis()), "{before:?}");
    // A later write does not make the older one younger, and one that is acknowledged elsewhere ends no lag here.
    assert!(is_committed(&world.ask(0, put("notes", "a", "2"))));
    world.run(1000);
    assert!(lag(&world, 0, 2) >= Some(before + Duration::from_millis(900)));
    world.isolated.clear();
    world.run(6000);
    assert_eq!(lag(&world, 0, 2), None);
}

#[test]
fn a_leader_tells_how_many_entries_a_follower_lacks() {
    let mut world = federation(3, 2);
    world.run(3000);
    let registry = world.node(0).raft(GroupId::REGISTRY).and_then(Raft::leader);
    let leader = world.hosts.iter().position(|host| Some(host.replica) == registry);
    let leader = leader.expect("a leader");
    let away = (leader + 1) % 3;
    assert_eq!(entries(&world, leader, away), Some(0));
    world.isolate(away);
    world.run(500);
    for n in 0..5 {
        let outcome = world.ask(leader, put("locks", "k", &n.to_string()));
        assert!(is_committed(&outcome), "{outcome:?}");
    }
    assert!(world.hosts.iter().enumerate().any(|(at, host)| {
        host.node.is_some() && at != away && entries(&world, at, away) >= Some(5)
    }));
    world.isolated.clear();
    world.run(3000);
    assert_eq!(entries(&world, leader, away), Some(0));
}

#[test]
fn an_answered_probe_has_a_round_trip() {
    let mut world = federation(2, 3);
    let other = world.hosts[1].replica.node;
    world.run(5000);
    let took = world.node(0).gossip().round_trip(other).expect("it answered probes");
    // Each way takes up to 2 ms.
    assert!((300..=4000).contains(&took.as_micros()), "{took:?}");
}

#[test]
fn concurrent_writes_of_a_register_are_conflicts_and_others_are_not() {
    let mut world = federation(2, 4);
    world.run(3000);
    let conflicts = |world: &World| [0, 1].map(|at| world.node(at).replicator().conflicts());
    for (at, key) in [(0, "a"), (1, "b")] {
        assert!(is_committed(&world.ask(at, put("notes", key, "1"))));
    }
    world.run(3000);
    assert!(is_committed(&world.ask(1, put("notes", "a", "2"))));
    let add = vec![mutation("s", Change::Add(Bytes::from_static(b"m")))];
    let (namespace, level) = ("notes".to_string(), Level::Durable);
    let add = Request::Write { namespace, mutations: add, level, session: None };
    world.isolate(1);
    for at in [0, 1] {
        assert!(is_committed(&world.ask(at, add.clone())));
    }
    world.isolated.clear();
    world.run(4000);
    assert_eq!(conflicts(&world), [0, 0], "one after the other, and members of a set");
    world.isolate(1);
    for (at, value) in [(0, "x"), (1, "y")] {
        assert!(is_committed(&world.ask(at, put("notes", "b", value))));
    }
    world.isolated.clear();
    world.run(4000);
    assert_eq!(conflicts(&world), [1, 1], "each saw the other's write beside its own");
}
