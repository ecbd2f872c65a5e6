//! Groups that this build cannot apply, and snapshots that it cannot restore: that group alone stops, and says so.

use super::*;
use crate::api::{Reason, Unready, Warning};
use crate::digest::Digest;
use crate::id::{GroupId, Index, Role};
use crate::node::machine::Task;
use crate::node::{Event, Notice};
use crate::raft::{self, Position, SnapshotHeader};
use crate::state::{Kind, Slice, StateMachine};

/// The group of the namespace `locks`.
const LOCKS: GroupId = GroupId(1);

fn leader(world: &World, group: GroupId) -> usize {
    let leads = |at: &usize| {
        let raft = world.node(*at).raft(group);
        raft.is_some_and(|raft| raft.role() == Role::Leader)
    };
    (0..world.hosts.len()).find(leads).expect("a leader")
}

/// Sends a group's message to a host in the name of another host.
fn deliver(world: &mut World, from: usize, to: usize, group: GroupId, message: raft::Message) {
    let from = world.hosts[from].replica.node;
    let genesis = world.node(to).status().genesis.expect("formed");
    let message = Message::Raft { genesis, group, message };
    world.step(to, Event::Received { from, message });
}

/// Puts a command that this build does not know into the group's log, and waits until all replicas have it.
fn halt(world: &mut World, group: GroupId) -> Index {
    let at = leader(world, group);
    let index = propose_unknown(world, at, group);
    world.run(2000);
    index
}

/// A client of a later build proposes a command at the leader. Returns its index.
fn propose_unknown(world: &mut World, at: usize, group: GroupId) -> Index {
    let node = world.hosts[at].node.as_mut().expect("the process is up");
    let index = node.raft(group).expect("the group").last().index.next();
    let command = Bytes::from_static(&[0xff; 9]);
    node.enqueue(Task::Raft(group, raft::Event::Propose { ticket: 0, command }));
    index
}

fn notices(world: &World, at: usize) -> usize {
    let halted = |notice: &&Notice| matches!(notice, Notice::GroupHalted { .. });
    world.hosts[at].notices.iter().filter(halted).count()
}

#[test]
fn an_unknown_command_halts_its_group_alone_and_every_node_says_so() {
    let mut world = federation(3, 61);
    assert!(is_committed(&world.ask(0, put("locks", "a", "1"))));
    let first = leader(&world, LOCKS);
    let index = halt(&mut world, LOCKS);
    let reason = Reason::GroupHalted { group: LOCKS, index };
    for round in 0..2 {
        for at in 0..3 {
            let unready = world.node(at).unready();
            assert_eq!(unready, [Unready::GroupHalted { group: LOCKS, index }], "{at}");
            let row = world.node(at).status().groups[1].clone();
            assert_eq!((row.group, row.halted), (LOCKS, Some(index)));
            let before = world.now;
            assert_eq!(world.ask(at, get("locks", "a")), Outcome::Rejected(reason.clone()));
            assert_eq!(world.ask(at, put("locks", "a", "2")), Outcome::Rejected(reason.clone()));
            assert_eq!(world.now, before, "it refuses at once");
            assert!(is_committed(&world.ask(at, put("notes", "b", "2"))), "the others go on");
            assert!(!world.node(at).is_fenced());
            assert_eq!(notices(&world, at), 1 + round, "one line for each process");
        }
        create(&mut world, if round == 0 { "more" } else { "most" }, Policy::Strong);
        if round == 0 {
            assert_ne!(leader(&world, LOCKS), first, "the leader gave its office away");
            (0..3).for_each(|at| world.crash(at));
            (0..3).for_each(|at| world.start(at));
            world.run(6000);
        }
    }
}

#[test]
fn a_halted_registry_refuses_changes_and_serves_its_data() {
    let mut world = federation(3, 62);
    let index = halt(&mut world, GroupId::REGISTRY);
    let reason = Reason::GroupHalted { group: GroupId::REGISTRY, index };
    for at in 0..3 {
        let unready = world.node(at).unready();
        assert_eq!(unready, [Unready::GroupHalted { group: GroupId::REGISTRY, index }]);
        let name = "new".to_string();
        let outcome =
            world.ask(at, Request::CreateNamespace { name, policy: Policy::Strong, session: None });
        assert_eq!(outcome, Outcome::Rejected(reason.clone()));
        assert_eq!(world.ask(at, Request::Namespaces), Outcome::Rejected(reason.clone()));
        assert_eq!(world.ask(at, get("nowhere", "k")), Outcome::Rejected(reason.clone()));
        assert!(is_committed(&world.ask(at, put("locks", "k", "v"))));
        assert!(is_committed(&world.ask(at, put("notes", "k", "v"))));
    }
}

#[test]
fn a_write_that_waits_when_its_group_halts_is_answered_at_once() {
    let mut world = federation(3, 63);
    world.run(2000);
    let at = leader(&world, LOCKS);
    propose_unknown(&mut world, at, LOCKS);
    let write = world.request(at, put("locks", "k", "v"));
    let started = world.now;
    while world.reply(at, write).is_none() {
        world.run(1);
        assert!(world.now < started + 1_000_000_000, "it does not wait for its timeout");
    }
    assert_eq!(world.reply(at, write), Some(&Outcome::Unknown { reached: None }));
}

#[test]
fn a_snapshot_that_does_not_restore_is_refused_and_the_follower_lives_on_across_a_restart() {
    let mut world = federation(3, 64);
    assert!(is_committed(&world.ask(0, put("locks", "a", "1"))));
    world.run(500);
    let from = leader(&world, LOCKS);
    let to = (from + 1) % 3;
    let raft = world.node(to).raft(LOCKS).expect("the group");
    let term = raft.term();
    let position = Position { term, index: Index(raft.last().index.0 + 7) };
    // Garbage, and a state of another position than the snapshot's.
    for data in [vec![0xff; 19], empty_state()] {
        let data = Bytes::from(data);
        let configuration = world.node(to).raft(LOCKS).expect("the group").configuration().clone();
        let (digest, length) = (Digest::of(&data), data.len() as u64);
        let header = SnapshotHeader { position, time_ms: 0, configuration, digest, length };
        deliver(&mut world, from, to, LOCKS, raft::Message::SnapshotOffer { term, header });
        let chunk = raft::Message::SnapshotChunk { term, position, offset: 0, data };
        deliver(&mut world, from, to, LOCKS, chunk);
    }
    let warning = Warning::SnapshotRefused { group: LOCKS, index: position.index };
    assert_eq!(world.node(to).warnings(), [warning]);
    assert!(world.node(to).unready().is_empty() && !world.node(to).is_fenced());
    assert!(is_committed(&world.ask(to, put("locks", "b", "2"))));
    assert_eq!(value(world.ask(to, get("locks", "a"))), Some(b"1".to_vec()));
    world.crash(to);
    world.start(to);
    world.run(6000);
    assert_eq!(value(world.ask(to, get("locks", "b"))), Some(b"2".to_vec()));
}

/// The capture of a state that has applied nothing.
fn empty_state() -> Vec<u8> {
    let mut state = StateMachine::new(Kind::Keys);
    assert!(state.begin_capture());
    let mut bytes = Vec::new();
    loop {
        match state.next_slice(1 << 20) {
            Slice::Chunk(chunk) => bytes.extend_from_slice(&chunk),
            Slice::More => {}
            Slice::Done => return bytes,
        }
    }
}
