//! How federations begin, and how nodes join them.

use super::*;
use crate::api::Reason;
use crate::id::{AskId, Boot, GroupId, Lineage, NodeId, Replica, Role};
use crate::node::{Event, Message};

#[test]
fn a_single_node_bootstraps_and_serves() {
    let mut world = federation(1, 1);
    assert!(is_committed(&world.ask(0, put("locks", "a", "1"))));
    assert_eq!(value(world.ask(0, get("locks", "a"))), Some(b"1".to_vec()));
    assert!(is_committed(&world.ask(0, put("notes", "b", "2"))));
    assert_eq!(value(world.ask(0, get("notes", "b"))), Some(b"2".to_vec()));
}

#[test]
fn three_nodes_bootstrap_and_every_node_serves() {
    let mut world = federation(3, 2);
    for at in 0..3 {
        let key = address(at).0;
        assert!(is_committed(&world.ask(at, put("locks", &key, "x"))));
        assert!(is_committed(&world.ask(at, put("notes", &key, "y"))));
    }
    world.run(3000);
    for at in 0..3 {
        for of in 0..3 {
            let key = address(of).0;
            assert_eq!(value(world.ask(at, get("locks", &key))), Some(b"x".to_vec()));
            assert_eq!(value(world.ask(at, get("notes", &key))), Some(b"y".to_vec()));
        }
    }
}

#[test]
fn an_empty_store_never_forms_a_federation_by_itself() {
    let mut world = World::new(3, 3);
    world.bootstrap = vec![0, 1, 2];
    world.run(20_000);
    for at in 0..3 {
        assert!(!world.node(at).is_formed());
        assert_eq!(world.ask(at, get("a", "b")), Outcome::Rejected(Reason::NotFormed));
    }
}

#[test]
fn a_bootstrap_needs_every_named_voter() {
    let mut world = World::new(2, 4);
    let init = |voters| Request::Init { voters };
    let unavailable = |at| Outcome::Rejected(Reason::VoterUnavailable { address: address(at) });
    assert_eq!(world.ask(0, init(vec![address(1), address(9)])), unavailable(9));
    assert_eq!(world.ask(0, init(vec![address(0)])), unavailable(0), "itself is not another voter");
    assert_eq!(world.ask(1, init(vec![])), Outcome::Value(Value::Initialized));
    assert_eq!(world.ask(1, init(vec![])), Outcome::Rejected(Reason::AlreadyFormed));
    let formed = Outcome::Rejected(Reason::FederationExists {
        node: world.hosts[1].replica.node,
        address: address(1),
    });
    assert_eq!(world.ask(0, init(vec![address(1)])), formed, "it is in a federation");
    assert!(!world.node(0).is_formed());
}

#[test]
fn a_bootstrap_survives_a_crash_at_any_moment() {
    let mut outcomes = [0, 0];
    for after in 0..24 {
        let mut world = World::new(3, 100 + after);
        world.request(0, Request::Init { voters: vec![address(1), address(2)] });
        world.run(after * 10);
        world.crash(0);
        world.start(0);
        world.run(12_000);
        let formed = (0..3).filter(|at| world.node(*at).is_formed()).count();
        // Once one voter has the bootstrap list, all voters get it.
        assert!(formed == 0 || formed == 3, "{formed} of 3 formed after a crash at {after}");
        outcomes[formed / 3] += 1;
        if formed == 3 {
            assert!(world.node(0).unready().is_empty(), "{:?}", world.node(0).unready());
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "both ends are reached: {outcomes:?}");
}

#[test]
fn joiners_are_learners_and_serve_everything() {
    let mut world = World::new(5, 5);
    world.bootstrap = vec![0];
    bootstrap(&mut world, 3);
    world.run(8000);
    for at in 3..5 {
        assert!(world.node(at).is_formed(), "{at} is in");
        assert!(world.node(at).unready().is_empty());
        assert!(is_committed(&world.ask(at, put("locks", "k", &address(at).0))));
        assert_eq!(value(world.ask(at, get("locks", "k"))), Some(address(at).0.into_bytes()));
        assert!(is_committed(&world.ask(at, put("notes", "k", "n"))));
    }
    let Outcome::Value(Value::Members(members)) = world.ask(4, Request::Members) else {
        panic!("no members")
    };
    assert_eq!(members.iter().filter(|member| member.voter).count(), 3);
    assert_eq!(members.len(), 5);
    assert!(members.iter().all(|member| member.name.starts_with('n')));
}

#[test]
fn a_wiped_learner_and_a_wiped_voter_come_in_as_learners() {
    let mut world = World::new(4, 6);
    world.bootstrap = vec![0];
    bootstrap(&mut world, 3);
    world.run(8000);
    let outcome = world.ask(3, put("notes", "k", "kept"));
    assert!(is_committed(&outcome), "{outcome:?}");
    world.run(3000);
    for at in [3, 2] {
        world.crash(at);
        world.wipe(at);
        world.start(at);
    }
    world.run(15_000);
    assert!(world.node(3).is_formed());
    assert_eq!(value(world.ask(3, get("notes", "k"))), Some(b"kept".to_vec()));
    assert!(world.node(2).is_formed());
    assert_eq!(world.node(2).raft(GroupId::REGISTRY).expect("formed").role(), Role::Learner);
    let Outcome::Value(Value::Members(members)) = world.ask(0, Request::Members) else {
        panic!("no members")
    };
    assert!(members.iter().any(|member| member.replica == world.hosts[3].replica));
    assert_eq!(members.len(), 5, "the learner's old entry is replaced; the old voter still votes");
}

#[test]
fn a_new_address_reaches_the_registry() {
    let mut world = federation(3, 7);
    let moved = crate::id::Address("elsewhere:9".to_string());
    world.crash(2);
    world.moved = Some((2, moved.clone()));
    world.start(2);
    world.run(8000);
    let registry = world.node(0).registry().expect("formed");
    let entry = registry.member(world.hosts[2].replica.node).expect("a member").1;
    assert_eq!(entry.address, moved);
}

/// A federation whose fourth node, a learner, joined again with an empty disk; and the replica that it was before.
fn with_a_replaced_store_and_its_boot(seed: u64) -> (World, Replica, Boot) {
    let mut world = World::new(4, seed);
    world.bootstrap = vec![0];
    bootstrap(&mut world, 3);
    world.run(8000);
    let (old, old_boot) = (world.hosts[3].replica, world.node(3).boot());
    world.crash(3);
    world.wipe(3);
    world.start(3);
    world.run(8000);
    assert!(is_committed(&world.ask(3, put("locks", "k", "1"))));
    (world, old, old_boot)
}

fn with_a_replaced_store(seed: u64) -> (World, Replica) {
    let (world, old, _) = with_a_replaced_store_and_its_boot(seed);
    (world, old)
}

/// Delivers a delayed request to join, of this replica.
fn late_join(world: &mut World, from: NodeId, to: usize, replica: Replica) {
    let (address, name) = (address(3), "n3".to_string());
    let sender = world.hosts.iter().position(|host| host.replica.node == from).expect("a host");
    // A request number that the sender's boot never reaches.
    let id = AskId { nonce: world.node(sender).boot().nonce, number: 1 << 30 };
    let request = Request::Join { replica, address, name, genesis: None };
    let message = Message::Forward { id, open: 1, request };
    world.step(to, Event::Received { from, message });
}

fn is_in(world: &World, at: usize, replica: Replica) -> bool {
    world.node(at).registry().is_some_and(|registry| registry.is_member(&replica))
}

#[test]
fn a_node_joins_only_as_the_store_that_its_link_proves() {
    let (mut world, old) = with_a_replaced_store(8);
    let new = world.hosts[3].replica;
    for to in 0..3 {
        late_join(&mut world, new.node, to, old);
    }
    world.run(1000);
    assert!((0..3).all(|at| is_in(&world, at, new) && !is_in(&world, at, old)));
}

#[test]
fn a_learner_that_an_earlier_store_of_its_node_replaced_joins_again() {
    let (mut world, old, old_boot) = with_a_replaced_store_and_its_boot(10);
    let new = world.hosts[3].replica;
    world.isolate(3);
    world.run(100);
    // The earlier store comes back while this one is away, and leaves.
    for to in 0..3 {
        let Replica { node: peer, store } = old;
        // Its next boot has this nonce, because `late_join` numbers its requests with it.
        let boot = Boot { count: old_boot.count + 1, nonce: world.node(3).boot().nonce };
        let lineage = Lineage::default().after(old_boot);
        world.step(to, Event::Connected { peer, store, boot, lineage, version: 1 });
        late_join(&mut world, peer, to, old);
        world.step(to, Event::Unreachable { peer });
    }
    world.run(1000);
    assert!((0..3).all(|at| is_in(&world, at, old)), "nobody could know better");
    world.isolated.clear();
    world.run(8000);
    assert!((0..3).all(|at| is_in(&world, at, new) && !is_in(&world, at, old)));
    assert!(is_committed(&world.ask(3, put("locks", "k", "2"))));
}
