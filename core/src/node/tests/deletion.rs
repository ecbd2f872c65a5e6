//! The remains of a deleted namespace, on disks and after restarts, and how long they stay.

use super::*;
use crate::id::{Boot, GroupId, NamespaceId, Owner};
use crate::machine::{Machine as _, Now, Outbox};
use crate::node::{Action, Event, Node};
use crate::time::{Instant, WallTime};
use crate::wal::Write;
use crate::{raft, replication};

/// The group of the namespace that a test creates and deletes: the second one, after `locks`.
const GROUP: GroupId = GroupId(2);
/// An eventual namespace that is created after it.
const SPARE: NamespaceId = NamespaceId(4);

fn delete(world: &mut World, name: &str) {
    let delete = Request::DeleteNamespace { name: name.to_string(), session: None };
    assert!(matches!(world.ask(0, delete), Outcome::Committed { .. }));
}

/// A federation of three that created, wrote and deleted a strong namespace a moment ago.
fn after_deletion(seed: u64) -> World {
    let mut world = federation(3, seed);
    create(&mut world, "gone", Policy::Strong);
    world.run(2_000);
    assert!(matches!(world.ask(1, put("gone", "k", "v")), Outcome::Committed { .. }));
    delete(&mut world, "gone");
    world.run(200);
    assert!((0..3).all(|at| world.node(at).raft(GROUP).is_none()));
    world
}

const fn is_forget(write: &Write) -> bool {
    matches!(
        write,
        Write::Group { write: raft::Write::Forget, .. }
            | Write::Shard { write: replication::Write::Forget, .. }
    )
}

fn forgets(world: &mut World, at: usize, owner: Owner) -> bool {
    let (writes, _) = world.hosts[at].disk.recover();
    let is_it = |write: &Write| write.owner() == owner && is_forget(write);
    writes.iter().any(|(_, write)| is_it(write))
}

/// Restores node 1 from the records of its log that `keep` keeps.
fn restored(world: &mut World, keep: impl Fn(&Write) -> bool) -> Node {
    let (mut writes, files) = world.hosts[1].disk.recover();
    writes.retain(|(_, write)| keep(write));
    let start = world.start_of(1, Boot { count: 2, nonce: 5 });
    Node::restore(start, writes, files).expect("it restores")
}

fn first_step(node: &mut Node) -> Outbox<Action> {
    let mut out = Outbox::new();
    let now = Now { mono: Instant::from_millis(1), wall: WallTime(0) };
    node.step(now, Event::Tick, &mut out);
    out
}

#[test]
fn a_restart_that_brings_a_deleted_group_back_finds_how_it_voted() {
    let mut world = after_deletion(61);
    let is_commit =
        |write: &Write| matches!(write, Write::Group { write: raft::Write::Commit { .. }, .. });
    let mut node = restored(&mut world, |write| !is_commit(write));
    first_step(&mut node);
    // Without the others it cannot learn that the deletion is committed, and another node may rely on its vote.
    let raft = node.raft(GROUP).expect("the deletion is not known to be committed");
    assert!(raft.term().0 >= 1 && raft.last().index.0 >= 2, "{:?} {:?}", raft.term(), raft.last());
}

#[test]
fn a_restart_knows_of_a_deletion_that_it_has_seen() {
    let mut world = after_deletion(65);
    let mut node = restored(&mut world, |_| true);
    assert!(node.raft(GROUP).is_some());
    first_step(&mut node);
    assert!(node.raft(GROUP).is_none());
}

#[test]
fn a_deleted_group_is_forgotten_once_no_restart_brings_it_back() {
    let mut world = after_deletion(62);
    assert!(!forgets(&mut world, 1, Owner::Group(GROUP)));
    world.run(3_000);
    assert!((0..3).all(|at| forgets(&mut world, at, Owner::Group(GROUP))));
    world.crash(1);
    world.isolate(1);
    world.start(1);
    world.run(50);
    assert!(world.node(1).raft(GROUP).is_none());
}

#[test]
fn a_deleted_namespace_that_was_not_forgotten_is_closed_when_the_registry_is_read() {
    let mut world = after_deletion(63);
    create(&mut world, "spare", eventual(1));
    assert!(matches!(world.ask(1, put("spare", "k", "v")), Outcome::Committed { .. }));
    world.run(1_500);
    delete(&mut world, "spare");
    world.run(3_000);
    let mut node = restored(&mut world, |write| !is_forget(write));
    let holds = |node: &Node| {
        let spare = node.replicator().shards().any(|shard| shard.namespace == SPARE);
        (node.raft(GROUP).is_some(), spare)
    };
    assert_eq!(holds(&node), (true, true));
    let out = first_step(&mut node);
    assert_eq!(holds(&node), (false, false));
    let forgotten = out
        .as_slice()
        .iter()
        .filter(|action| matches!(action, Action::Persist { write, .. } if is_forget(write)));
    assert_eq!(forgotten.count(), 2);
}

#[test]
fn a_group_whose_creation_is_not_in_the_snapshot_file_stays_at_a_restart() {
    let mut world = federation(3, 64);
    world.run(3_000);
    create(&mut world, "young", Policy::Strong);
    world.run(100);
    for at in 0..3 {
        world.crash(at);
    }
    world.isolate(1);
    world.start(1);
    world.run(500);
    assert!(
        world.node(1).raft(GROUP).is_some(),
        "its creation is an entry that is not applied yet"
    );
}
