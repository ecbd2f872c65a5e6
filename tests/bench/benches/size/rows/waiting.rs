//! Writes that wait: those without a quorum, and those from a clock that is ahead.

use super::{
    PATIENCE_MS, Row, all_are, key, make, place, policy, put, restart, scaled, settle, value,
    write, writes,
};
use crate::world::{Stop, World};

const NAME: &str = "data";
/// Bytes of each value.
const BYTES: usize = 1000;
/// The clock that is ahead, by this much.
const AHEAD_MS: u64 = 3600 * 1000;

pub const WAITING: Row = Row {
    name: "waiting.quorum",
    what: "10,000 strong writes of 1 kB that wait on a leader without its followers, until they are answered",
    run: waiting,
};

pub const AHEAD: Row = Row {
    name: "waiting.clock",
    what: "10,000 eventual writes of 1 kB from a node whose clock is an hour ahead, and a restart of the other",
    run: ahead,
};

fn waiting(world: &mut World, scale: f64) -> Result<(), Stop> {
    let number = scaled(10_000, scale);
    world.form(3, 3)?;
    make(world, NAME, policy(true, 1))?;
    let (group, _) = place(world, NAME)?;
    let group = group.ok_or_else(|| Stop("no group".into()))?;
    let leads = |at: &usize| {
        world
            .node(*at)
            .raft(group)
            .is_some_and(|raft| raft.role() == continuum_core::id::Role::Leader)
    };
    let leader = (0..3).find(leads).ok_or_else(|| Stop("no leader".into()))?;
    for other in (0..3).filter(|at| *at != leader) {
        world.isolated.insert(other);
        world.cut(other);
    }
    world.phase("writes arrive", false, |world| {
        world.meter.holds(number);
        for at in 0..number {
            world.within_bound()?;
            world.request(leader, write(NAME, vec![put(key(at), value(BYTES, at))]));
        }
        world.meter.note("waiting", world.node(leader).requests());
        Ok(())
    })?;
    world.phase("they are answered", false, |world| {
        world.run(15_000)?;
        let answers = world.take_answers();
        let total: u64 = answers.values().sum();
        world.meter.note("answers", format!("{answers:?}"));
        if total == number {
            Ok(())
        } else {
            Err(Stop(format!("{total} of {number} are answered")))
        }
    })?;
    world.meter.holds(0);
    settle(world)
}

fn ahead(world: &mut World, scale: f64) -> Result<(), Stop> {
    let number = scaled(10_000, scale);
    world.form(2, 1)?;
    make(world, NAME, policy(false, 1))?;
    let (_, shard) = place(world, NAME)?;
    world.hosts[1].ahead_ms = AHEAD_MS;
    world.phase("writes from ahead", false, |world| {
        world.meter.holds(number);
        let puts = (0..number).map(|at| write(NAME, vec![put(key(at), value(BYTES, at))]));
        let answers = world.ask_all(1, 64, puts)?;
        all_are("Committed", &answers)?;
        world.until(
            PATIENCE_MS,
            |world| {
                let root = |at| world.node(at).replicator().root(shard);
                root(0) == root(1)
            },
            |world| writes(world, 0),
        )
    })?;
    restart(world, 0, NAME)
}
