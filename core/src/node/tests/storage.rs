//! Nodes and their disks: promises that wait, restarts, checkpoints, full and failing disks.

use super::*;
use crate::api::{Reason, Resource, Unready};
use crate::config::Config;
use crate::discovery::Identity;
use crate::id::{
    Boot, GenesisId, GroupId, NodeId, Replica, RequestId, Role, SnapshotFile, SnapshotId, StoreId,
    Token,
};
use crate::machine::{Machine, Now, Outbox};
use crate::node::{Action, Event, Node, Notice, RestoreError};
use crate::raft;
use crate::time::{Instant, WallTime};
use crate::wal::Write;

fn small() -> Config {
    let mut config = Config::default();
    config.node.checkpoint_bytes = 1 << 20;
    config.raft.retained_bytes_max = 1 << 20;
    config
}

#[test]
fn acknowledged_writes_survive_a_power_loss_of_all_nodes() {
    let mut world = federation(3, 31);
    for round in 0..4 {
        let text = round.to_string();
        assert!(is_committed(&world.ask(round % 3, put("locks", &text, &text))));
        assert!(is_committed(&world.ask(round % 3, put("notes", &text, &text))));
        (0..3).for_each(|at| world.crash(at));
        (0..3).for_each(|at| world.start(at));
        world.run(4000);
    }
    for round in 0..4 {
        let text = round.to_string();
        for at in 0..3 {
            let expected = Some(text.clone().into_bytes());
            assert_eq!(value(world.ask(at, get("locks", &text))), expected);
            assert_eq!(value(world.ask(at, get("notes", &text))), expected);
        }
    }
}

#[test]
fn a_node_that_restarts_alone_takes_eventual_writes() {
    let mut world = federation(3, 41);
    world.run(3000);
    assert!(is_committed(&world.ask(1, put("notes", "k", "old"))));
    (0..3).for_each(|at| world.crash(at));
    world.start(1);
    assert!(!is_committed(&world.ask(1, put("notes", "k", "early"))), "no voter has confirmed it");
    world.run(3100);
    assert_eq!(value(world.ask(1, get("notes", "k"))), Some(b"old".to_vec()));
    assert!(is_committed(&world.ask(1, put("notes", "k", "new"))));
}

/// A namespace that was created a moment before all nodes lost power.
#[test]
fn a_node_that_restarts_alone_knows_what_was_just_created() {
    let mut world = federation(3, 52);
    let (name, policy) = ("young".to_string(), eventual(1));
    let leader = leader_of(&world, GroupId::REGISTRY).expect("a leader");
    let created = world.ask(leader, Request::CreateNamespace { name, policy, session: None });
    assert!(is_committed(&created), "{created:?}");
    (0..3).for_each(|at| world.crash(at));
    world.start(leader);
    world.run(3100);
    assert!(is_committed(&world.ask(leader, put("young", "k", "v"))));
    // Checkpoints keep it known.
    world.crash(leader);
    world.start(leader);
    world.run(3100);
    assert_eq!(value(world.ask(leader, get("young", "k"))), Some(b"v".to_vec()));
}

#[test]
fn a_durable_answer_waits_for_the_disk_and_an_applied_one_does_not() {
    let mut world = federation(1, 32);
    world.hosts[0].disk.sync_ns = 500_000_000;
    let durable = world.request(0, put("notes", "k", "v"));
    let applied = world.request(0, put_with("notes", "l", "v", Level::Applied, None));
    world.run(400);
    assert!(world.reply(0, applied).is_some());
    assert_eq!(world.reply(0, durable), None);
    world.run(200);
    assert!(world.reply(0, durable).is_some_and(is_committed));
}

#[test]
fn the_disk_and_the_restart_stay_bounded() {
    let mut world = World::with(3, 33, small());
    bootstrap(&mut world, 3);
    let value_of = |round: usize| alloc::format!("{round:03}").repeat(100_000);
    let mut most = 0;
    for round in 0..90 {
        let namespace = if round % 3 == 0 { "notes" } else { "locks" };
        let key = (round % 4).to_string();
        assert!(is_committed(&world.ask(0, put(namespace, &key, &value_of(round)))));
        world.run(20);
        most = most.max(world.hosts[1].disk.bytes().0);
    }
    // The test wrote 27 MB, most of them twice: to the log and to snapshot files.
    assert!(most < 40 << 20, "{most} bytes of log");
    let took = |notice: &Notice| matches!(notice, Notice::Checkpointed { .. });
    assert!(world.hosts[1].notices.iter().filter(|n| took(n)).count() > 4);
    let files = world.hosts[1].disk.bytes().1;
    assert!(files < 16 << 20, "{files} bytes of snapshot files");
    (0..3).for_each(|at| world.crash(at));
    (0..3).for_each(|at| world.start(at));
    world.run(4000);
    for round in 78..90 {
        let namespace = if round % 3 == 0 { "notes" } else { "locks" };
        let latest = (round..90)
            .rev()
            .find(|later| later % 4 == round % 4 && (later % 3 == 0) == (round % 3 == 0));
        let expected = value_of(latest.expect("itself at least")).into_bytes();
        let key = (round % 4).to_string();
        assert_eq!(value(world.ask(2, get(namespace, &key))), Some(expected), "{namespace} {key}");
    }
}

#[test]
fn the_bytes_of_a_checkpoint_do_not_make_the_next_one_due() {
    let mut world = World::with(3, 36, small());
    bootstrap(&mut world, 3);
    assert!(is_committed(&world.ask(0, put("locks", "k", "v"))));
    let leads = |at: &usize| {
        world.node(*at).raft(GroupId(1)).is_some_and(|raft| raft.role() == Role::Leader)
    };
    let leader = (0..3).find(leads).expect("the group has a leader");
    // Uncommitted entries: no snapshot contains them, so each checkpoint of the group copies them.
    world.isolate(leader);
    for key in 0..8 {
        world.request(leader, put("locks", &key.to_string(), &"state".repeat(90_000)));
    }
    world.run(1000);
    let before = world.hosts[leader].disk.written;
    assert!(before > 3 << 20, "more is live than may lie between two checkpoints");
    world.run(20_000);
    let after = world.hosts[leader].disk.written - before;
    assert!(after < 8 << 20, "{after} bytes of log while nobody wrote");
}

#[test]
fn a_crash_during_a_checkpoint_loses_nothing() {
    let mut world = World::with(1, 34, small());
    bootstrap(&mut world, 1);
    let mut expected = Vec::new();
    for round in 0..25 {
        let text = alloc::format!("{round:02}").repeat(60_000);
        let key = (round % 5).to_string();
        assert!(is_committed(&world.ask(0, put("locks", &key, &text))));
        assert!(is_committed(&world.ask(0, put("notes", &key, &text))));
        expected.retain(|(known, _)| *known != key);
        expected.push((key, text.into_bytes()));
        world.run(round % 7);
        world.crash(0);
        world.start(0);
        world.run(3000);
        for (key, text) in &expected {
            assert_eq!(value(world.ask(0, get("locks", key))).as_ref(), Some(text));
            assert_eq!(value(world.ask(0, get("notes", key))).as_ref(), Some(text));
        }
    }
}

/// The log is too short to be released. Files that later checkpoints replaced, or that a crash left behind, go anyway.
#[test]
fn replaced_snapshot_files_are_discarded_at_once() {
    let mut world = federation(1, 41);
    for round in 0..12 {
        create(&mut world, &alloc::format!("more{round}"), Policy::Strong);
        world.run(1500);
        if round % 4 == 3 {
            world.crash(0);
            (1..=3).for_each(|old| world.hosts[0].disk.leave_file(SnapshotId(old)));
            world.start(0);
            world.run(1500);
        }
        let files = world.hosts[0].disk.snapshot_files();
        assert!((1..=3).contains(&files), "{files} after {round} changes");
    }
}

#[test]
fn a_follower_that_was_down_for_long_gets_a_snapshot() {
    let mut world = World::with(3, 35, small());
    bootstrap(&mut world, 3);
    world.crash(2);
    for round in 0..30 {
        let text = alloc::format!("{round:02}").repeat(100_000);
        let key = (round % 6).to_string();
        assert!(is_committed(&world.ask(0, put("locks", &key, &text))));
    }
    world.run(1000);
    world.start(2);
    world.run(15_000);
    let installed = |notice: &Notice| matches!(notice, Notice::Installed { .. });
    assert!(world.hosts[2].notices.iter().any(installed));
    let at = |world: &World, at: usize| world.node(at).raft(GroupId(1)).map(raft::Raft::commit);
    assert_eq!(at(&world, 2), at(&world, 0));
    let digest =
        |at: usize| world.node(at).state(GroupId(1)).map(crate::state::StateMachine::digest);
    assert_eq!(digest(2), digest(0));
}

#[test]
fn a_full_disk_refuses_writes_and_gives_leadership_away() {
    let mut world = federation(3, 36);
    world.run(3000);
    let leads = |world: &World, at: usize| {
        world.node(at).raft(GroupId(1)).is_some_and(|raft| raft.role() == Role::Leader)
    };
    let old = (0..3).find(|at| leads(&world, *at)).expect("a leader");
    world.step(old, Event::StorageFull { full: true, room: 64 << 20 });
    let full = Outcome::Rejected(Reason::Full { what: Resource::Disk });
    assert_eq!(world.ask(old, put("locks", "k", "v")), full);
    assert_eq!(world.ask(old, put("notes", "k", "v")), full);
    assert!(world.node(old).unready().contains(&Unready::DiskFull));
    world.run(3000);
    assert!(!leads(&world, old));
    assert!(is_committed(&world.ask((old + 1) % 3, put("locks", "k", "v"))));
    world.step(old, Event::StorageFull { full: false, room: 64 << 20 });
    assert!(is_committed(&world.ask(old, put("locks", "k", "v"))));
}

#[test]
fn a_full_disk_still_takes_what_makes_room() {
    let mut world = federation(1, 45);
    assert!(is_committed(&world.ask(0, put("locks", "k", "v"))));
    assert!(is_committed(&world.ask(0, put("notes", "k", "v"))));
    world.step(0, Event::StorageFull { full: true, room: 64 << 20 });
    let full = Outcome::Rejected(Reason::Full { what: Resource::Disk });
    assert_eq!(world.ask(0, put("locks", "other", "v")), full);
    for namespace in ["locks", "notes"] {
        let mutations = vec![mutation("k", Change::Delete)];
        let (namespace, level, session) = (namespace.to_string(), Level::Durable, None);
        let request = Request::Write { namespace, mutations, level, session };
        assert!(is_committed(&world.ask(0, request)));
    }
    let gone = Request::DeleteNamespace { name: "locks".into(), session: None };
    assert!(is_committed(&world.ask(0, gone)));
}

/// A small state and a long log: the checkpoint of a full disk releases nearly all of it.
#[test]
fn a_full_disk_is_checkpointed_at_once() {
    let mut world = federation(1, 46);
    for round in 0..200 {
        let value = alloc::format!("{round:04}").repeat(40_000);
        assert!(is_committed(&world.ask(0, put("locks", "k", &value))));
    }
    let released = |world: &World| world.hosts[0].disk.released;
    world.run(2000);
    let before = released(&world);
    world.step(0, Event::StorageFull { full: true, room: 64 << 20 });
    world.run(2000);
    let after = released(&world);
    assert!(after > before + 190, "released up to {after}, before that to {before}");
    world.run(60_000);
    assert_eq!(released(&world), after, "one checkpoint is enough");
}

/// A checkpoint that has no room would use up the reserve, and then deletions find none.
#[test]
fn a_full_disk_is_checkpointed_only_where_that_has_room() {
    let mut world = federation(1, 51);
    for round in 0..200 {
        let value = alloc::format!("{round:04}").repeat(40_000);
        assert!(is_committed(
            &world.ask(0, put("locks", &alloc::format!("k{}", round % 8), &value))
        ));
    }
    world.run(2000);
    let released = |world: &World| world.hosts[0].disk.released;
    let before = released(&world);
    // A state of 1.3 MB.
    world.step(0, Event::StorageFull { full: true, room: 2 << 20 });
    world.run(60_000);
    assert_eq!(released(&world), before);
    world.step(0, Event::StorageFull { full: true, room: 4 << 20 });
    world.run(2000);
    assert!(released(&world) > before + 180, "released up to {}", released(&world));
}

fn leader_of(world: &World, group: GroupId) -> Option<usize> {
    let role = |at: &usize| world.node(*at).raft(group).map(raft::Raft::role);
    (0..world.hosts.len()).find(|at| role(at) == Some(Role::Leader))
}

#[test]
fn a_leader_whose_disk_hangs_is_succeeded_within_two_election_timeouts() {
    let mut world = federation(3, 47);
    world.run(3000);
    let old = leader_of(&world, GroupId(1)).expect("a leader");
    world.hosts[old].disk.hangs = true;
    let first = world.request(old, put("locks", "k", "v"));
    let timeout = world.node(old).config.raft.election_timeout_ms;
    world.run(2 * timeout);
    let new = leader_of(&world, GroupId(1)).expect("a leader");
    assert_ne!(new, old);
    let stalled = |world: &World| world.node(old).unready().contains(&Unready::DiskStalled);
    assert!(stalled(&world));
    assert!(world.reply(old, first).is_some_and(is_committed), "the others' disks have it");
    // It forwards what others can keep, and refuses what only its own disk could.
    assert!(is_committed(&world.ask(old, put("locks", "k", "w"))));
    let read = world.ask(old, get("locks", "k"));
    assert!(matches!(read, Outcome::Value(_)), "{read:?}");
    let refused = Outcome::Rejected(Reason::DiskStalled);
    assert_eq!(world.ask(old, put("notes", "k", "v")), refused);
    world.run(60_000);
    assert_ne!(leader_of(&world, GroupId(1)), Some(old), "it does not lead while it hangs");
    world.hosts[old].disk.hangs = false;
    world.run(3000);
    assert!(!stalled(&world));
    assert!(is_committed(&world.ask(old, put("notes", "k", "v"))));
}

/// A node that stops answers what it logged, and hands its office over first.
#[test]
fn a_stopping_leader_answers_what_it_logged() {
    let mut world = federation(3, 48);
    world.run(3000);
    let old = leader_of(&world, GroupId(1)).expect("a leader");
    let logged: Vec<RequestId> =
        (0..5).map(|n| world.request(old, put("locks", &alloc::format!("k{n}"), "v"))).collect();
    world.step(old, Event::Stopping);
    assert!(world.node(old).leads_others());
    assert_eq!(world.ask(old, put("locks", "late", "v")), Outcome::Rejected(Reason::Stopping));
    world.run(300);
    for id in logged {
        let answer = world.reply(old, id);
        assert!(answer.is_some_and(is_committed), "{answer:?}");
    }
    assert!(!world.node(old).leads_others());
    assert!(leader_of(&world, GroupId(1)).is_some_and(|new| new != old));
}

/// A node that stops alone has an end too.
#[test]
fn a_stopping_node_answers_unknown_when_its_time_is_over() {
    let mut world = federation(3, 49);
    world.run(3000);
    let old = leader_of(&world, GroupId(1)).expect("a leader");
    (0..3).filter(|at| *at != old).for_each(|at| world.crash(at));
    let logged = world.request(old, put("locks", "k", "v"));
    world.step(old, Event::Stopping);
    world.run(1600);
    assert_eq!(world.reply(old, logged), Some(&Outcome::Unknown { reached: None }));
}

/// A leader exists even when all disks are full. Once one disk is free, its node leads.
#[test]
fn leadership_passes_full_disks_once_and_moves_to_a_free_one() {
    let mut world = federation(3, 40);
    world.run(3000);
    let leader = |world: &World| {
        let role = |at: &usize| world.node(*at).raft(GroupId(1)).map(raft::Raft::role);
        (0..3).find(|at| role(at) == Some(Role::Leader)).expect("a leader")
    };
    let term = |world: &World| world.node(0).raft(GroupId(1)).map(|raft| raft.term().0);
    let before = term(&world).expect("a member");
    (0..3).for_each(|at| world.step(at, Event::StorageFull { full: true, room: 64 << 20 }));
    world.run(2000);
    let after = term(&world).expect("a member");
    assert!(
        (1..=6).contains(&(after - before)),
        "{before} to {after}: once around, and no further"
    );
    let keeps = leader(&world);
    assert!(matches!(world.ask(keeps, get("locks", "k")), Outcome::Value(_)), "it is read");
    let free = (keeps + 1) % 3;
    world.step(free, Event::StorageFull { full: false, room: 64 << 20 });
    world.run(30_000);
    assert_eq!(leader(&world), free);
    let done = term(&world).expect("a member");
    world.run(30_000);
    assert_eq!(term(&world), Some(done), "a free disk keeps it");
    assert!(is_committed(&world.ask(free, put("locks", "k", "v"))));
}

#[test]
fn a_failed_disk_silences_the_node_and_answers_every_request() {
    let mut world = federation(3, 37);
    world.hosts[0].disk.sync_ns = 1_000_000_000;
    let waiting = world.request(0, put("notes", "k", "v"));
    world.run(10);
    world.step(0, Event::StorageFailed { token: Token { lane: 0, seq: 1 } });
    assert_eq!(world.reply(0, waiting), Some(&Outcome::Unknown { reached: None }));
    assert!(world.node(0).is_fenced());
    assert_eq!(world.ask(0, get("notes", "k")), Outcome::Rejected(Reason::Stopping));
    let mut out = Outbox::new();
    let node = world.hosts[0].node.as_mut().expect("up");
    let now = Now { mono: Instant(u64::MAX / 2), wall: WallTime(0) };
    node.step(now, Event::Tick, &mut out);
    assert!(out.is_empty() && node.deadline().is_none(), "silent for good");
}

#[test]
fn a_stopping_node_gives_leadership_away_and_refuses() {
    let mut world = federation(3, 38);
    for at in 0..3 {
        world.step(at, Event::Stopping);
        assert_eq!(world.ask(at, put("locks", "k", "v")), Outcome::Rejected(Reason::Stopping));
        if at < 2 {
            world.run(4000);
        }
    }
}

/// A single node, without a world around it.
struct Solo {
    node: Node,
    now: u64,
}

impl Solo {
    fn new(boot: u64) -> Self {
        let world = World::new(1, 1);
        let start = world.start_of(0, Boot { count: boot, nonce: 1 });
        let node = Node::restore(start, Vec::new(), Default::default()).expect("a fresh store");
        Self { node, now: 1 }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        let now = Now { mono: Instant(self.now), wall: WallTime(1) };
        self.node.step(now, event, &mut out);
        out.drain().collect()
    }

    fn newest(actions: &[Action]) -> Option<Token> {
        let token = |action: &Action| match action {
            Action::Persist { token, .. } => Some(*token),
            _ => None,
        };
        actions.iter().filter_map(token).next_back()
    }
}

const PEER: NodeId = NodeId([9; 16]);

fn connected(count: u64, nonce: u64) -> Event {
    let boot = Boot { count, nonce };
    Event::Connected {
        peer: PEER,
        store: StoreId([9; 16]),
        boot,
        lineage: Default::default(),
        version: 1,
    }
}

fn sends(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Send { .. })).count()
}

#[test]
fn nothing_is_sent_before_the_boot_is_durable() {
    let mut solo = Solo::new(1);
    let first = solo.step(Event::Tick);
    assert!(matches!(first[0], Action::Persist { write: Write::Boot { .. }, .. }));
    let token = Solo::newest(&first).expect("the boot");
    let (boot, store) = (Boot { count: 1, nonce: 1 }, StoreId([9; 16]));
    let identity = Identity { node: PEER, store, boot };
    solo.step(Event::Verified { address: address(9), outcome: Ok(identity) });
    let mut silent = solo.step(connected(1, 1));
    for _ in 0..40 {
        solo.now += 100_000_000;
        silent.extend(solo.step(Event::Tick));
    }
    assert_eq!(sends(&silent), 0);
    assert!(sends(&solo.step(Event::Persisted { token })) > 0, "it asks to be let in");
}

#[test]
fn the_log_of_another_node_is_refused() {
    let mut world = federation(1, 39);
    world.crash(0);
    let (writes, files) = world.hosts[0].disk.recover();
    let start = |change: fn(&mut crate::node::Start)| {
        let mut start = world.start_of(0, Boot { count: 2, nonce: 5 });
        change(&mut start);
        Node::restore(start, writes.clone(), files.clone()).err()
    };
    assert_eq!(start(|_| ()), None);
    let foreign = |what| Some(RestoreError::Foreign { what });
    assert_eq!(start(|start| start.federation.0[0] ^= 1), foreign("federation"));
    assert_eq!(start(|start| start.replica.node.0[0] ^= 1), foreign("node"));
    assert_eq!(start(|start| start.replica.store.0[0] ^= 1), foreign("store"));
    let stale = start(|start| start.boot.count = 1);
    assert!(matches!(stale, Some(RestoreError::StaleBoot { .. })));
}

#[test]
fn records_out_of_order_and_missing_files_are_refused() {
    let world = World::new(1, 40);
    let restore = |writes: Vec<Write>| {
        let start = world.start_of(0, Boot { count: 9, nonce: 5 });
        let token = |at: usize| Token { lane: 0, seq: at as u64 + 1 };
        let writes = writes.into_iter().enumerate().map(|(at, w)| (token(at), w)).collect();
        Node::restore(start, writes, Default::default()).err()
    };
    let group = GroupId(1);
    let replica: Replica = world.hosts[0].replica;
    let configuration = raft::Configuration { voters: vec![replica], learners: vec![] };
    let of_group = |write| Write::Group { group, write };
    let first = configuration.clone();
    let id = GenesisId(1);
    let genesis = of_group(raft::Write::Genesis { id, configuration: first });
    let hard = of_group(raft::Write::Hard { term: crate::id::Term(1), vote: None });
    let gap = of_group(raft::Write::Append { prev: crate::id::Index(5), entries: Vec::new() });
    assert!(matches!(restore(vec![hard.clone()]), Some(RestoreError::Order { .. })));
    assert!(matches!(restore(vec![genesis.clone(), gap]), Some(RestoreError::Order { .. })));
    assert_eq!(restore(vec![hard, genesis.clone()]), None, "a leftover before the beginning");
    let snapshot = of_group(raft::Write::Snapshot {
        file: SnapshotFile { id: SnapshotId(3), length: 1, ..SnapshotFile::default() },
        position: raft::Position { term: crate::id::Term(1), index: crate::id::Index(1) },
        time_ms: 0,
        configuration,
    });
    let missing = restore(vec![genesis, snapshot]);
    assert!(matches!(missing, Some(RestoreError::SnapshotMissing { .. })));
}
