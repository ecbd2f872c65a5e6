//! Keys with values: many small ones, few large ones, strong and eventual. Loaded, listed, overwritten until a
//! checkpoint is complete, restarted, copied to a new member, deleted.

use bytes::Bytes;
use continuum_core::api::{Mutation, Outcome, Query, Value};

use super::{
    BATCH, Row, all_are, delete, join, key, make, policy, put, read, restart, scaled, settle,
    value, write,
};
use crate::world::{Stop, World};

const NAME: &str = "data";
/// Requests under way while data is loaded.
const WINDOW: usize = 8;
/// Rewrites of all keys without a checkpoint after which none comes.
const REWRITES_MAX: u64 = 6;

struct Shape {
    strong: bool,
    keys: u64,
    value_bytes: usize,
    /// Keys in one request.
    batch: u64,
}

pub const KEYS_STRONG: Row = Row {
    name: "keys.strong",
    what: "1,000,000 keys of 100 bytes in a strong namespace",
    run: |world, scale| run(world, &shape(true, scaled(1_000_000, scale), 100, BATCH)),
};

pub const KEYS_EVENTUAL: Row = Row {
    name: "keys.eventual",
    what: "1,000,000 keys of 100 bytes in an eventual namespace",
    run: |world, scale| run(world, &shape(false, scaled(1_000_000, scale), 100, BATCH)),
};

pub const RECORDS_EVENTUAL: Row = Row {
    name: "records.eventual",
    what: "1,000,000 keys of 10 bytes with values of 32 bytes: bytes per record",
    run: |world, scale| run(world, &shape(false, scaled(1_000_000, scale), 32, BATCH)),
};

pub const VALUES_STRONG: Row = Row {
    name: "values.strong",
    what: "200 MB in 800 values in a strong namespace",
    run: |world, scale| run(world, &shape(true, scaled(800, scale), 256 << 10, 1)),
};

pub const VALUES_EVENTUAL: Row = Row {
    name: "values.eventual",
    what: "200 MB in 800 values in an eventual namespace",
    run: |world, scale| run(world, &shape(false, scaled(800, scale), 256 << 10, 1)),
};

pub const SCATTERED_100K: Row = Row {
    name: "scattered.100k",
    what: "100,000 keys of 32 bytes, every second one overwritten once, copied to a new member",
    run: |world, scale| scattered(world, scaled(100_000, scale)),
};

pub const SCATTERED_400K: Row = Row {
    name: "scattered.400k",
    what: "400,000 keys of 32 bytes, every second one overwritten once, copied to a new member",
    run: |world, scale| scattered(world, scaled(400_000, scale)),
};

const fn shape(strong: bool, keys: u64, value_bytes: usize, batch: u64) -> Shape {
    Shape { strong, keys, value_bytes, batch }
}

/// One request for each `batch` of these keys.
fn requests(
    numbers: impl Iterator<Item = u64>,
    shape: &Shape,
    round: u64,
) -> impl Iterator<Item = continuum_core::api::Request> {
    let (mut numbers, bytes, batch) = (numbers.peekable(), shape.value_bytes, shape.batch as usize);
    std::iter::from_fn(move || {
        numbers.peek()?;
        let puts = numbers.by_ref().take(batch);
        let puts: Vec<Mutation> =
            puts.map(|number| put(key(number), value(bytes, number << 8 | round))).collect();
        Some(write(NAME, puts))
    })
}

fn load(world: &mut World, shape: &Shape) -> Result<(), Stop> {
    world.form(1, 1)?;
    make(world, NAME, policy(shape.strong, 1))?;
    world.phase("load", false, |world| {
        world.meter.holds(shape.keys);
        let answers = world.ask_all(0, WINDOW, requests(0..shape.keys, shape, 0))?;
        all_are("Committed", &answers)
    })
}

fn run(world: &mut World, shape: &Shape) -> Result<(), Stop> {
    load(world, shape)?;
    settle(world)?;
    world.phase("list", false, list)?;
    world.phase("overwrite until checkpoint", false, |world| {
        let before = world.checkpoints;
        for round in 1..=REWRITES_MAX {
            let pieces = (0..shape.keys).step_by((shape.keys as usize / 20).max(1));
            for from in pieces {
                if world.checkpoints > before {
                    return world.run(1000);
                }
                let to = shape.keys.min(from + (shape.keys / 20).max(1));
                let answers = world.ask_all(0, WINDOW, requests(from..to, shape, round))?;
                all_are("Committed", &answers)?;
            }
        }
        Err(Stop(format!("no checkpoint in {REWRITES_MAX} rewrites of all keys")))
    })?;
    settle(world)?;
    restart(world, 0, NAME)?;
    let joined = join(world, NAME);
    if joined.is_ok() {
        settle(world)?;
    }
    world.within_bound()?;
    delete(world, NAME)
}

/// Reads all keys in pages, a thousand at a time.
fn list(world: &mut World) -> Result<(), Stop> {
    let mut after = None;
    loop {
        let query = Query::Keys { prefix: Bytes::new(), after: after.clone(), limit: 1000 };
        match world.ask(0, read(NAME, query))? {
            Outcome::Value(Value::Keys { keys, more: true }) => after = keys.last().cloned(),
            Outcome::Value(Value::Keys { .. }) => return Ok(()),
            _ => return Err(Stop(format!("the page after {after:?} is refused"))),
        }
    }
}

fn scattered(world: &mut World, keys: u64) -> Result<(), Stop> {
    let shape = shape(false, keys, 32, BATCH);
    load(world, &shape)?;
    world.phase("overwrite every second", false, |world| {
        let answers = world.ask_all(0, WINDOW, requests((0..shape.keys).step_by(2), &shape, 1))?;
        all_are("Committed", &answers)
    })?;
    restart(world, 0, NAME)?;
    join(world, NAME)?;
    settle(world)
}
