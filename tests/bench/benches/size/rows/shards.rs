//! 10,000 shards on two nodes: what a write, a second of rest, a status, a link and a restart cost beside them.

use continuum_core::api::Request;

use super::{
    Row, all_are, committed, key, make, policy, put, restart, scaled, settle, value, write,
};
use crate::world::{Stop, World};

/// Shards of one namespace: as many as it may have.
const SLOTS: u64 = 256;
/// Puts of a phase that measures one.
const PUTS: u64 = 5_000;
/// Virtual time of rest.
const IDLE_MS: u64 = 60_000;

pub const SHARDS: Row = Row {
    name: "shards",
    what: "10,240 shards on two nodes",
    run: |world, scale| run(world, scaled(10_240, scale)),
};

fn name(number: u64) -> String {
    format!("shards{number:03}")
}

fn run(world: &mut World, shards: u64) -> Result<(), Stop> {
    let namespaces = (shards / SLOTS).max(1);
    let slots = shards.min(SLOTS) as u16;
    world.form(2, 1)?;
    make(world, &name(0), policy(false, slots))?;
    puts(world, "puts beside few shards", false)?;
    world.phase("create", false, |world| {
        world.meter.holds(shards);
        for number in 1..namespaces {
            make(world, &name(number), policy(false, slots))?;
        }
        Ok(())
    })?;
    for number in 0..namespaces {
        // Every shard holds something, so that it has a root of its own.
        let all = (0..u64::from(slots) * 4).map(|at| put(key(at), value(32, at))).collect();
        committed(&world.ask(0, write(&name(number), all))?)?;
    }
    puts(world, "puts beside all shards", false)?;
    rest(world, IDLE_MS)?;
    look(world)?;
    world.phase("link lost and made", false, |world| {
        world.cut(1);
        world.run(2000)
    })?;
    restart(world, 0, &name(0))?;
    world.phase("delete namespaces", false, |world| {
        world.meter.holds(0);
        for number in 0..namespaces {
            let delete = Request::DeleteNamespace { name: name(number), session: None };
            committed(&world.ask(0, delete)?)?;
        }
        world.run(1000)
    })?;
    settle(world)
}

/// Puts one key after the other, and notes the CPU time of all nodes for one.
pub fn puts(world: &mut World, phase: &str, strong: bool) -> Result<(), Stop> {
    let namespace = if strong { super::groups::name(0) } else { name(0) };
    world.phase(phase, false, |world| {
        let all = (0..PUTS).map(|at| write(&namespace, vec![put(key(at), value(100, at))]));
        let answers = world.ask_all(0, 64, all)?;
        let cpu_ns = world.meter.steps().total_ns();
        world.meter.note("cpu_us_per_put", cpu_ns / PUTS / 1000);
        all_are("Committed", &answers)
    })
}

/// Nothing is asked for this long. Notes the share of a core and the messages of one node.
pub fn rest(world: &mut World, for_ms: u64) -> Result<(), Stop> {
    world.phase("rest", true, |world| {
        let before = world.wire;
        let ended = world.run(for_ms);
        let nodes = world.hosts.len() as u64;
        let cpu_us = world.meter.steps().total_ns() / 1000;
        world.meter.note("core_percent_per_node", (cpu_us / for_ms / nodes) as f64 / 10.0);
        let frames = world.wire.frames - before.frames;
        world.meter.note("frames_per_s_and_node", frames * 1000 / for_ms / nodes);
        ended
    })
}

/// Asks for a status.
pub fn look(world: &mut World) -> Result<(), Stop> {
    world.phase("status", false, |world| world.ask(0, Request::Status).map(drop))
}
