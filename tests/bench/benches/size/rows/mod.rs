//! The rows: what each one holds, and how large it is at scale 1.

mod actors;
mod cold;
mod groups;
mod records;
mod sets;
mod shards;
mod waiting;

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Level, Mutation, Outcome, Policy, Query, Request, Strategy,
};
use continuum_core::id::{GroupId, ShardId};

use crate::world::{Stop, World};

/// The time in which memory is given back once its use is over.
const SETTLES_MS: u64 = 10_000;
/// Without progress for this much virtual time a copy never ends.
const PATIENCE_MS: u64 = 60_000;
/// Keys of one request that loads.
const BATCH: u64 = 100;

pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub run: fn(&mut World, f64) -> Result<(), Stop>,
}

pub const ROWS: &[Row] = &[
    records::KEYS_STRONG,
    records::KEYS_EVENTUAL,
    records::RECORDS_EVENTUAL,
    records::VALUES_STRONG,
    records::VALUES_EVENTUAL,
    records::SCATTERED_100K,
    records::SCATTERED_400K,
    sets::SET_100K,
    sets::SET_100K_WIDE,
    sets::SET_250K,
    shards::SHARDS,
    groups::GROUPS,
    actors::ACTORS_4100,
    actors::ACTORS_100K,
    waiting::WAITING,
    waiting::AHEAD,
    cold::COLD_1E4,
    cold::COLD_1E6,
];

/// A number of things at this scale; at least one.
fn scaled(number: u64, scale: f64) -> u64 {
    ((number as f64 * scale) as u64).max(1)
}

/// Makes a namespace, and waits until every node has it.
fn make(world: &mut World, name: &str, policy: Policy) -> Result<(), Stop> {
    let name = name.to_owned();
    let made = world.ask(0, Request::CreateNamespace { name, policy, session: None })?;
    committed(&made)?;
    world.run(2000)
}

fn policy(strong: bool, slots: u16) -> Policy {
    let strategy = Strategy::LastWriterWins;
    if strong { Policy::Strong } else { Policy::Eventual { strategy, slots, discard: false } }
}

/// A namespace's group, or its first shard.
fn place(world: &World, name: &str) -> Result<(Option<GroupId>, ShardId), Stop> {
    let (all, _) = world.node(0).local_namespaces().unwrap_or_default();
    let found = all.into_iter().find(|namespace| namespace.name == name);
    let found = found.ok_or_else(|| Stop(format!("no namespace {name}")))?;
    Ok((found.group, ShardId { namespace: found.id, slot: 0 }))
}

fn committed(outcome: &Outcome) -> Result<(), Stop> {
    let text = format!("{outcome:?}");
    let is_so = matches!(outcome, Outcome::Committed { .. });
    if is_so { Ok(()) } else { Err(Stop(format!("answered {}", &text[..text.len().min(120)]))) }
}

/// An error unless all answers are of this kind.
fn all_are(kind: &str, answers: &BTreeMap<String, u64>) -> Result<(), Stop> {
    let is_so = answers.keys().all(|found| found == kind);
    if is_so { Ok(()) } else { Err(Stop(format!("answered {answers:?}"))) }
}

fn write(namespace: &str, mutations: Vec<Mutation>) -> Request {
    let (namespace, level) = (namespace.to_owned(), Level::Durable);
    Request::Write { namespace, mutations, level, session: None }
}

fn edit(change: Change) -> Edit {
    Edit { field: Bytes::new(), change }
}

fn put(key: Bytes, value: Bytes) -> Mutation {
    Mutation { key, edits: vec![edit(Change::Put(value))], context: None }
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number:09}"))
}

/// Bytes that differ from write to write.
fn value(bytes: usize, number: u64) -> Bytes {
    let mut value = vec![7; bytes];
    let begin = number.to_be_bytes();
    let length = begin.len().min(bytes);
    value[..length].copy_from_slice(&begin[..length]);
    Bytes::from(value)
}

fn read(namespace: &str, query: Query) -> Request {
    Request::Read { namespace: namespace.to_owned(), query }
}

/// Kills a host and starts it again, as a phase. It ends when the host is whole again.
fn restart(world: &mut World, at: usize, namespace: &str) -> Result<(), Stop> {
    world.run(1000)?;
    world.phase("restart", false, |world| {
        world.crash(at);
        let (took, peak) = world.start(at);
        world.meter.note("start_ms", took.as_micros() as f64 / 1e3);
        world.meter.note("start_peak_mb", (peak >> 20) as f64);
        let begun = world.now_ms();
        loop {
            let query = Query::Keys { prefix: Bytes::new(), after: None, limit: 1 };
            if let Outcome::Value(_) = world.ask(at, read(namespace, query))? {
                break;
            }
            if world.now_ms() - begun > PATIENCE_MS {
                return Err(Stop("it serves no read".into()));
            }
            world.run(10)?;
        }
        world.meter.note("served_after_virtual_ms", world.now_ms() - begun);
        world.run(SETTLES_MS)
    })
}

/// A new member copies everything, as a phase.
fn join(world: &mut World, namespace: &str) -> Result<(), Stop> {
    let (group, shard) = place(world, namespace)?;
    let root = world.node(0).replicator().root(shard);
    let state = world.node(0).memory_bytes();
    world.phase("join", false, |world| {
        let at = world.add_host();
        let ended = match group {
            Some(group) => world.until(
                PATIENCE_MS,
                |world| {
                    let applied = |at| world.node(at).state(group).map(|state| state.applied());
                    applied(at).is_some() && applied(at) == applied(0)
                },
                |world| world.written(at),
            ),
            None => world.until(
                PATIENCE_MS,
                |world| world.node(at).replicator().root(shard) == root,
                |world| writes(world, at),
            ),
        };
        let bytes = world.node(at).memory_bytes();
        world.meter.note("state_mb", (state >> 20) as f64);
        world.meter.note("copied_permille", bytes * 1000 / state.max(1));
        ended
    })
}

/// The live writes on a node, over all its shards.
fn writes(world: &World, at: usize) -> u64 {
    world.node(at).replicator().status().map(|shard| shard.writes).sum()
}

/// The namespace goes, as a phase, and then its memory.
fn delete(world: &mut World, namespace: &str) -> Result<(), Stop> {
    world.meter.holds(0);
    world.phase("delete namespace", false, |world| {
        let name = namespace.to_owned();
        let outcome = world.ask(0, Request::DeleteNamespace { name, session: None })?;
        committed(&outcome)?;
        world.run(1000)
    })?;
    settle(world)
}

/// Nothing happens for the time in which memory must be given back.
fn settle(world: &mut World) -> Result<(), Stop> {
    world.phase("settle", true, |world| world.run(SETTLES_MS))
}
