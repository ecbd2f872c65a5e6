//! A node that starts again and again, and writes once in each life: what its lives leave behind.

use continuum_core::api::Outcome;

use super::{
    PATIENCE_MS, Row, committed, key, make, place, policy, put, scaled, value, write, writes,
};
use crate::names;
use crate::world::{Stop, World};

const NAME: &str = "data";
/// Keys that the lives write to in turn: the state stays small, only the lives grow.
const KEYS: u64 = 1000;

pub const ACTORS_4100: Row = Row {
    name: "actors.4100",
    what: "4,100 lives of one node, each with a write",
    run: |world, scale| run(world, scaled(4_100, scale)),
};

pub const ACTORS_100K: Row = Row {
    name: "actors.100k",
    what: "100,000 lives of one node, each with a write",
    run: |world, scale| run(world, scaled(100_000, scale)),
};

fn run(world: &mut World, lives: u64) -> Result<(), Stop> {
    world.form(2, 1)?;
    make(world, NAME, policy(false, 1))?;
    let lived = world.phase("lives", false, |world| live(world, lives));
    world.within_bound()?;
    let (_, shard) = place(world, NAME)?;
    let other = world.phase("put by the other node", false, |world| {
        let outcome = world.ask(0, write(NAME, vec![put(key(0), value(32, 1))]))?;
        committed(&outcome)
    });
    let root = world.node(0).replicator().root(shard);
    world.phase("join", false, |world| {
        let at = world.add_host();
        let is_equal = |world: &World| world.node(at).replicator().root(shard) == root;
        world.until(PATIENCE_MS, is_equal, |world| writes(world, at))
    })?;
    lived.and(other)
}

fn live(world: &mut World, lives: u64) -> Result<(), Stop> {
    for life in 0..lives {
        world.meter.note("lives", life);
        world.meter.holds(life.min(KEYS));
        world.crash(1);
        let (took, _) = world.start(1);
        world.meter.note("last_start_ms", took.as_micros() as f64 / 1e3);
        world.run(100)?;
        let outcome = world.ask(1, write(NAME, vec![put(key(life % KEYS), value(32, life))]))?;
        if !matches!(outcome, Outcome::Committed { .. }) {
            let text = format!("{outcome:?}");
            let kind = names::first_word(&text);
            return Err(Stop(format!(
                "life {life} of {lives} is {kind}: {}",
                &text[..text.len().min(80)]
            )));
        }
    }
    world.run(2000)
}
