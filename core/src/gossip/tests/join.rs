//! Open membership: a machine that knows one contact learns all members by gossip, and nothing else helps it.

use super::*;
use crate::id::StoreId;
use crate::time::WallTime;

/// Whether every running node knows exactly the running nodes, all alive.
fn all_know_all(world: &World) -> bool {
    let running = world.nodes.iter().flatten().count();
    let members = |node: &Gossip| node.members().filter(|m| m.state == State::Alive).count();
    world.nodes.iter().flatten().all(|node| members(node) == running)
}

/// Starts nodes 0 to `n` - 1 of a world that has room for one more. Each but the first joins through node 0.
fn joined(n: usize, seed: u64) -> World {
    let mut world = World::open(n + 1, seed, GossipConfig::default());
    (0..n).for_each(|at| world.boot(at));
    world
}

#[test]
fn two_machines_meet_within_one_round_trip() {
    let mut world = joined(2, 1);
    world.run(20);
    assert!(all_know_all(&world));
    // The addresses came with the updates, not with the contact.
    assert_eq!(world.view(0, 1).address, member(1, 1).address);
    assert_eq!(world.view(1, 0).address, member(0, 1).address);
    world.run(30 * SECOND);
    assert!(all_know_all(&world) && deaths(&world) == 0);
}

#[test]
fn the_third_machine_learns_the_second_from_the_first() {
    let mut world = joined(2, 2);
    world.run(5 * SECOND);
    world.boot(2);
    world.run(20);
    assert_eq!(world.node(2).members().count(), 3, "one push-pull tells of all");
    assert!(world.run_until(5 * SECOND, all_know_all), "the second hears of the third");
}

#[test]
fn a_contact_that_starts_late_is_joined_all_the_same() {
    let mut world = World::open(3, 3, GossipConfig::default());
    (1..3).for_each(|at| world.boot(at));
    world.run(60 * SECOND);
    world.boot(0);
    assert!(world.run_until(60 * SECOND, all_know_all));
}

#[test]
fn one_push_pull_carries_more_members_than_a_page() {
    let n = 2 * UPDATES_MAX;
    let mut world = joined(n, 4);
    assert!(world.run_until(60 * SECOND, all_know_all));
    world.boot(n);
    world.run(100);
    assert_eq!(world.node(n).members().count(), n + 1);
}

#[test]
fn a_removed_member_returns_only_in_a_later_boot() {
    let mut world = joined(5, 5);
    assert!(world.run_until(20 * SECOND, all_know_all));
    // The others take node 4 for alive or suspect for a while, and tell node 0.
    world.crash(4);
    world.step(0, Event::Remove { node: id(4) });
    for _ in 0..60 {
        world.run(SECOND);
        assert!(world.node(0).member(id(4)).is_none());
    }
    world.boot(4);
    assert!(world.run_until(20 * SECOND, all_know_all));
}

#[test]
fn a_new_disk_replaces_the_old_one_by_its_own_word() {
    let mut machine = Gossip::open(member(0, 1), GossipConfig::default(), &Seed::from_number(6));
    let mut receive = |from: usize, updates: Vec<Update>, store: u8| {
        let Member { mut replica, incarnation, state, address, .. } = member(from, 1);
        replica.store = StoreId([store; 16]);
        let sender = Update { replica, incarnation, state, address, confirmations: Vec::new() };
        let message = Message {
            body: Body::Updates,
            sender: sender.clone().into(),
            updates,
            loads: Vec::new(),
        };
        let now = Now { mono: Instant::from_millis(1), wall: WallTime(0) };
        let event = Event::Received { from: id(from), message };
        machine.step(now, event, &mut Outbox::new());
        let store = machine.member(id(1)).map(|member| member.replica.store);
        (store, sender)
    };
    let (store, old) = receive(1, Vec::new(), 1);
    assert_eq!(store, Some(StoreId([1; 16])));
    assert_eq!(receive(1, Vec::new(), 2).0, Some(StoreId([2; 16])));
    assert_eq!(receive(2, alloc::vec![old], 9).0, Some(StoreId([2; 16])), "hearsay does not");
}
