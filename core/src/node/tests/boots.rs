//! Processes of one store: restarts, copies and rolled-back disks, as their peers and they themselves judge them.

use super::*;
use crate::config::Config;
use crate::id::{Boot, NodeId, Replica, StoreId};
use crate::node::{Event, Node, Notice, Refusal};

fn refused(refusal: Refusal, known: Boot) -> Message {
    Message::Refused { refusal, known }
}

fn receive(world: &mut World, at: usize, from: usize, message: Message) {
    let from = world.hosts[from].replica.node;
    world.step(at, Event::Received { from, message });
}

/// A boot of this node that no process of it has.
fn later_boot(world: &World, at: usize) -> Boot {
    Boot { count: world.node(at).boot().count + 1, nonce: 99 }
}

fn linked(world: &mut World, at: usize) -> NodeId {
    let node = NodeId([0x77; 16]);
    let (store, boot) = (StoreId([0x77; 16]), Boot { count: 1, nonce: 1 });
    let lineage = Default::default();
    world.step(at, Event::Connected { peer: node, store, boot, lineage, version: 1 });
    node
}

#[test]
fn no_word_of_a_stranger_or_a_learner_stops_a_node() {
    let mut world = World::new(4, 71);
    world.bootstrap = vec![0];
    bootstrap(&mut world, 3);
    world.run(8000);
    let stranger = linked(&mut world, 0);
    let learner = world.hosts[3].replica.node;
    let known = later_boot(&world, 0);
    for from in [stranger, learner] {
        for _ in 0..5 {
            let message = refused(Refusal::Cloned, known);
            world.step(0, Event::Received { from, message });
            world.run(1700);
            linked(&mut world, 0);
            assert!(!world.node(0).is_suspended() && !world.node(0).is_fenced());
        }
    }
    assert!(is_committed(&world.ask(0, put("locks", "k", "v"))));
}

#[test]
fn a_voter_that_lies_alone_suspends_a_node_only_until_the_others_answer_and_only_once() {
    let mut world = federation(5, 72);
    let known = later_boot(&world, 0);
    receive(&mut world, 0, 1, refused(Refusal::StaleBoot, known));
    assert!(world.node(0).is_suspended());
    world.run(100);
    assert!(!world.node(0).is_suspended(), "three others confirmed it");
    for _ in 0..9 {
        receive(&mut world, 0, 1, refused(Refusal::StaleBoot, known));
        assert!(!world.node(0).is_suspended() && !world.node(0).is_fenced());
    }
    assert!(is_committed(&world.ask(0, put("locks", "k", "v"))));
    assert!(world.hosts[0].disk.condemned.is_none());
}

#[test]
fn a_word_without_evidence_is_no_word() {
    let mut world = federation(3, 73);
    world.crash(0);
    world.start(0);
    world.run(8000);
    let me = world.node(0).boot();
    let before = Boot {
        count: me.count - 1,
        nonce: world.node(0).lineage().nonce_at(me, me.count - 1).unwrap(),
    };
    let later = later_boot(&world, 0);
    for known in [me, before] {
        for from in [1, 2] {
            receive(&mut world, 0, from, refused(Refusal::StaleBoot, known));
            receive(&mut world, 0, from, refused(Refusal::Linked, later));
        }
    }
    assert!(!world.node(0).is_suspended() && !world.node(0).is_fenced());
}

#[test]
fn a_node_in_doubt_acknowledges_nothing_and_a_majority_of_the_others_condemns_its_store() {
    let mut world = federation(3, 74);
    let known = later_boot(&world, 0);
    world.isolate(2);
    world.run(50);
    receive(&mut world, 0, 1, refused(Refusal::Forked, known));
    assert!(world.node(0).is_suspended(), "one of the two others is away");
    let held = world.request(0, put("notes", "k", "v"));
    world.run(3000);
    assert!(!is_committed(world.reply(0, held).expect("an answer")));
    assert!(world.node(0).is_suspended() && !world.node(0).is_fenced());
    world.isolated.clear();
    world.run(3000);
    receive(&mut world, 0, 2, refused(Refusal::Forked, known));
    receive(&mut world, 0, 1, refused(Refusal::Forked, known));
    assert!(world.node(0).is_fenced());
    let condemned = world.hosts[0].disk.condemned.clone().expect("it is durable");
    assert_eq!((condemned.reason, condemned.known), (Refusal::Forked, known));
    assert_eq!(condemned.by.len(), 2);
}

#[test]
fn what_was_acknowledged_durable_waits_while_a_node_is_in_doubt() {
    let mut world = federation(5, 75);
    let written = world.request(0, put("notes", "k", "v"));
    let known = later_boot(&world, 0);
    receive(&mut world, 0, 1, refused(Refusal::Cloned, known));
    for at in 1..5 {
        world.isolate(at);
    }
    world.run(500);
    assert_eq!(world.reply(0, written), None, "its disk has it, and nobody is told");
    world.isolated.clear();
    world.run(3000);
    assert!(is_committed(world.reply(0, written).expect("an answer")));
}

#[test]
fn a_restart_names_the_boots_before_it_and_knows_the_boots_of_members() {
    let mut config = Config::default();
    config.node.checkpoint_bytes = 1 << 20;
    let mut world = World::with(3, 76, config);
    bootstrap(&mut world, 3);
    let mut nonces = vec![world.node(1).boot()];
    for round in 0..3 {
        world.crash(1);
        world.start(1);
        world.run(3000);
        // Checkpoints release the log in between.
        for key in 0..40 {
            let value = "x".repeat(60_000);
            world.ask(0, put("notes", &(key + round).to_string(), &value));
        }
        nonces.push(world.node(1).boot());
    }
    let now = world.node(1).boot();
    for boot in &nonces[..3] {
        assert_eq!(world.node(1).lineage().nonce_at(now, boot.count), Some(boot.nonce));
    }
    // Node 0 restarts, and node 1 comes with a disk that was rolled back to its first start.
    world.crash(0);
    world.crash(1);
    world.start(0);
    world.run(200);
    let Replica { node: peer, store } = world.hosts[1].replica;
    let lineage = crate::id::Lineage::default().after(nonces[0]);
    let lineage =
        (2..=now.count).fold(lineage, |lineage, count| lineage.after(Boot { count, nonce: 5 }));
    let boot = Boot { count: now.count + 1, nonce: 6 };
    let before = world.hosts[0].notices.len();
    world.step(0, Event::Connected { peer, store, boot, lineage, version: 1 });
    let told = &world.hosts[0].notices[before..];
    assert!(told.contains(&Notice::Refused { peer, reason: Refusal::Forked }), "{told:?}");
}

/// Whether a node links this process, which runs outside the world.
fn links(world: &mut World, at: usize, process: &Node) -> bool {
    let Replica { node: peer, store } = process.replica();
    let (boot, lineage) = (process.boot(), process.lineage().clone());
    world.step(at, Event::Connected { peer, store, boot, lineage, version: 1 });
    world.node(at).peers.get(peer).is_some_and(|known| known.boot == boot)
}

#[test]
fn a_copy_of_a_running_nodes_disk_is_refused_and_the_original_goes_on() {
    let mut world = federation(3, 77);
    let (writes, files) = world.hosts[1].disk.content();
    let count = world.node(1).boot().count + 1;
    let start = world.start_of(1, Boot { count, nonce: 1234 });
    let copy = Node::restore(start, writes, files).expect("the copy restores");
    assert!(!links(&mut world, 0, &copy), "the original is linked, and is asked");
    world.run(100);
    assert!(!links(&mut world, 0, &copy), "it answered");
    let peer = copy.replica().node;
    let told = Notice::Refused { peer, reason: Refusal::Cloned };
    assert!(world.hosts[0].notices.contains(&told), "so the copy is told that it is one");
    assert!(is_committed(&world.ask(1, put("locks", "k", "v"))), "the original goes on");
}

#[test]
fn a_copy_that_a_peer_welcomed_away_from_the_original_leaves_both_silent() {
    let mut world = federation(3, 78);
    let (writes, files) = world.hosts[1].disk.content();
    let count = world.node(1).boot().count + 1;
    let start = world.start_of(1, Boot { count, nonce: 1234 });
    let copy = Node::restore(start, writes, files).expect("the copy restores");
    world.isolate(2);
    world.run(100);
    assert!(links(&mut world, 2, &copy), "node 2 takes it for a restart");
    world.isolated.clear();
    world.run(3000);
    // The copy may have promised to node 2 in the name of both. So the original goes on only if node 2 agrees.
    assert!(world.node(1).is_suspended());
    assert!(!is_committed(&world.ask(1, put("notes", "k", "v"))));
    assert!(is_committed(&world.ask(0, put("locks", "k", "v"))), "the others go on");
    assert!(!links(&mut world, 0, &copy));
    world.run(100);
    assert!(!links(&mut world, 0, &copy), "nor does node 0 link the copy");
}
