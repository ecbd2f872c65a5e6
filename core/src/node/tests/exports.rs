//! Exports on whole nodes: which process has them, and what ends them.

use alloc::format;

use super::*;
use crate::api::{ExportCursor, ExportPage, Reason};
use crate::config::Config;
use crate::id::Owner;
use crate::limits::{EXPORT_IDLE_MS, EXPORTS_MAX};
use crate::node::ExportFigures;

/// A federation of three with 20 keys of this many bytes.
fn filled(seed: u64, config: Config, bytes: usize) -> World {
    let mut world = World::with(3, seed, config);
    bootstrap(&mut world, 3);
    write(&mut world, 0, &"a".repeat(bytes));
    world.run(500);
    world
}

/// Writes all keys, one after the other.
fn write(world: &mut World, at: usize, value: &str) {
    for key in 0..20 {
        let outcome = world.ask(at, put("locks", &format!("k{key:02}"), value));
        assert!(is_committed(&outcome), "{outcome:?}");
    }
}

fn ask(world: &mut World, at: usize, from: Option<ExportCursor>) -> Result<ExportPage, Reason> {
    let query = Query::Export { from, prefix: Bytes::new(), limit: 6, values: true };
    match world.ask(at, Request::Read { namespace: "locks".to_string(), query }) {
        Outcome::Value(Value::Export(page)) => Ok(page),
        Outcome::Rejected(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn begin(world: &mut World, at: usize) -> ExportCursor {
    ask(world, at, None).expect("a page").next.expect("further keys")
}

#[test]
fn the_pages_of_an_export_are_of_one_moment_and_of_one_process() {
    let mut world = filled(81, Config::default(), 1);
    let first = ask(&mut world, 1, None).expect("a page");
    let (mut rows, mut next) = (first.rows, first.next);
    let second = next.clone();
    let other = begin(&mut world, 2);
    assert_ne!(other.export, second.as_ref().expect("further keys").export);
    while let Some(cursor) = next {
        write(&mut world, 0, "b");
        // No other node has it.
        assert_eq!(ask(&mut world, 2, Some(cursor.clone())), Err(Reason::ExportExpired));
        let page = ask(&mut world, 1, Some(cursor)).expect("a page");
        assert_eq!(page.at, first.at);
        rows.extend(page.rows);
        next = page.next;
    }
    let was = |row: &crate::api::Row| match &row.fields[0].content {
        crate::api::Content::Register(values) => values[0] == b"a"[..],
        _ => false,
    };
    assert!(rows.len() == 20 && rows.iter().all(was));
    world.crash(1);
    world.start(1);
    world.run(2_000);
    assert_eq!(ask(&mut world, 1, second), Err(Reason::ExportExpired));
}

#[test]
fn an_export_goes_on_without_a_leader_and_ends_with_an_installed_snapshot() {
    let mut config = Config::default();
    config.raft.retained_bytes_max = 1 << 10;
    config.node.checkpoint_bytes = 64 << 10;
    let mut world = filled(82, config, 500);
    let next = begin(&mut world, 2);
    world.isolate(2);
    for _ in 0..20 {
        write(&mut world, 0, &"b".repeat(500));
    }
    assert!(ask(&mut world, 2, Some(next.clone())).is_ok());
    world.isolated.clear();
    world.run(10_000);
    let of_keys = |notice: &Notice| matches!(notice, Notice::Installed { owner: Owner::Group(group) } if group.0 > 0);
    assert!(world.hosts[2].notices.iter().any(of_keys), "it got a snapshot");
    assert_eq!(ask(&mut world, 2, Some(next)), Err(Reason::ExportExpired));
    assert_eq!(world.node(2).exports(), ExportFigures::default());
}

#[test]
fn an_export_ends_with_its_namespace() {
    let mut world = filled(83, Config::default(), 1);
    let next = begin(&mut world, 1);
    let delete = Request::DeleteNamespace { name: "locks".to_string(), session: None };
    assert!(is_committed(&world.ask(0, delete)));
    world.run(1_500);
    assert_eq!(ask(&mut world, 1, Some(next.clone())), Err(Reason::UnknownNamespace));
    create(&mut world, "locks", Policy::Strong);
    world.run(1_500);
    assert_eq!(ask(&mut world, 1, Some(next)), Err(Reason::ExportExpired));
    assert_eq!(world.node(1).exports(), ExportFigures::default());
}

#[test]
fn an_export_that_nobody_reads_ends_and_gives_its_memory_back() {
    let mut world = filled(84, Config::default(), 100);
    let before = world.node(1).memory_bytes();
    let next = begin(&mut world, 1);
    write(&mut world, 0, &"b".repeat(100));
    world.run(500);
    let ExportFigures { open, bytes, .. } = world.node(1).exports();
    assert!(open == 1 && bytes > 2000, "{bytes}");
    assert_eq!(world.node(1).memory_bytes(), before + bytes);
    for _ in 0..2 * EXPORTS_MAX {
        // Exports that nobody goes on with keep nobody out for long.
        world.run(6_000);
        begin(&mut world, 1);
    }
    world.run(EXPORT_IDLE_MS + 2_000);
    let ExportFigures { open, bytes, idle, too_large } = world.node(1).exports();
    assert_eq!((open, bytes, idle, too_large), (0, 0, EXPORTS_MAX as u64, 0));
    assert_eq!(world.node(1).memory_bytes(), before);
    assert_eq!(ask(&mut world, 1, Some(next)), Err(Reason::ExportExpired));
}

#[test]
fn exports_keep_no_more_than_they_may() {
    let mut config = Config::default();
    config.bounds.export_bytes = 10_000;
    let mut world = filled(85, config, 600);
    let next = begin(&mut world, 1);
    for _ in 0..2 {
        write(&mut world, 0, &"b".repeat(600));
        world.run(100);
        assert!(world.node(1).exports().bytes <= 10_000);
    }
    assert_eq!(ask(&mut world, 1, Some(next)), Err(Reason::ExportExpired));
    assert_eq!(world.node(1).exports().too_large, 1);
}

#[test]
fn memory_that_exports_keep_refuses_no_write() {
    let mut config = Config::default();
    // The keys take 12 KB, and what is replaced once more.
    config.node.memory_bytes_max = 20_000;
    let mut world = filled(86, config, 600);
    let nexts = [0, 1, 2].map(|at| begin(&mut world, at));
    for _ in 0..2 {
        write(&mut world, 0, &"b".repeat(600));
        world.run(1_500);
        assert!((0..3).all(|at| world.node(at).memory_bytes() < 20_000));
    }
    for (at, next) in nexts.into_iter().enumerate() {
        assert_eq!(ask(&mut world, at, Some(next)), Err(Reason::ExportExpired));
    }
}

#[test]
fn an_eventual_namespace_has_no_export() {
    let mut world = federation(1, 87);
    let query = Query::Export { from: None, prefix: Bytes::new(), limit: 6, values: true };
    let read = Request::Read { namespace: "notes".to_string(), query };
    assert_eq!(world.ask(0, read), Outcome::Rejected(Reason::WrongConsistency));
}
