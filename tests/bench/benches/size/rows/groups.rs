//! 10,000 groups on three voters: what a write, a second of rest, a status, a link and a restart cost beside them.

use continuum_core::api::Request;

use super::shards::{look, puts, rest};
use super::{Row, make, policy, restart, scaled};
use crate::world::{Stop, World};

/// Creations under way.
const WINDOW: u64 = 32;
/// Virtual time of rest.
const IDLE_MS: u64 = 10_000;

pub const GROUPS: Row = Row {
    name: "groups",
    what: "10,000 groups on three voters",
    run: |world, scale| run(world, scaled(10_000, scale)),
};

pub fn name(number: u64) -> String {
    format!("group{number:05}")
}

fn run(world: &mut World, groups: u64) -> Result<(), Stop> {
    world.form(3, 3)?;
    make(world, &name(0), policy(true, 1))?;
    puts(world, "puts beside one group", true)?;
    let created = world.phase("create", false, |world| create(world, groups));
    world.within_bound()?;
    puts(world, "puts beside all groups", true)?;
    rest(world, IDLE_MS)?;
    look(world)?;
    world.phase("link lost and made", false, |world| {
        world.cut(1);
        world.run(2000)
    })?;
    restart(world, 1, &name(0))?;
    created
}

fn create(world: &mut World, groups: u64) -> Result<(), Stop> {
    let (mut number, mut refused) = (1, None);
    while number < groups && refused.is_none() {
        let to = groups.min(number + WINDOW);
        let all = (number..to).map(|number| {
            let (name, policy) = (name(number), policy(true, 1));
            Request::CreateNamespace { name, policy, session: None }
        });
        let answers = world.ask_all(0, WINDOW as usize, all);
        let there = world.node(0).groups().count() as u64 - 1;
        world.meter.holds(there);
        world.meter.note("groups", there);
        refused = answers?.into_keys().find(|kind| kind != "Committed");
        number = to;
    }
    world.run(3000)?;
    let there = world.node(0).groups().count() as u64 - 1;
    match refused {
        None => Ok(()),
        Some(kind) => Err(Stop(format!("{there} of {groups} groups: a creation is {kind}"))),
    }
}
