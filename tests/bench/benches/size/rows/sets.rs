//! One large set on two nodes: added to, read, deleted as a client deletes it, and the namespace deleted.

use bytes::Bytes;
use continuum_core::api::{Change, Mutation, Outcome, Query, Request, Value};

use super::{
    Row, all_are, committed, delete, edit, make, policy, put, read, restart, scaled, settle, value,
    write,
};
use crate::world::{Stop, World};

const NAME: &str = "data";
const KEY: &[u8] = b"large";
/// Puts of other keys beside the deletion.
const PUTS: u64 = 100;

pub const SET_100K: Row = Row {
    name: "set.100k",
    what: "a set of 100,000 members of 16 bytes, 100 added in a write, read and deleted",
    run: |world, scale| run(world, scaled(100_000, scale), 100),
};

pub const SET_100K_WIDE: Row = Row {
    name: "set.100k-wide",
    what: "the same, 1,000 added in a write",
    run: |world, scale| run(world, scaled(100_000, scale), 1000),
};

pub const SET_250K: Row = Row {
    name: "set.250k",
    what: "a set of 250,000 members of 16 bytes, 100 added in a write, read and deleted",
    run: |world, scale| run(world, scaled(250_000, scale), 100),
};

fn member(number: u64) -> Bytes {
    Bytes::from(format!("member-{number:09}"))
}

fn on_set(edits: Vec<continuum_core::api::Edit>) -> Request {
    write(NAME, vec![Mutation { key: Bytes::from_static(KEY), edits, context: None }])
}

fn run(world: &mut World, members: u64, batch: u64) -> Result<(), Stop> {
    world.form(2, 1)?;
    make(world, NAME, policy(false, 1))?;
    world.phase("add", false, |world| {
        world.meter.holds(members);
        let adds = (0..members).step_by(batch as usize).map(|from| {
            let to = members.min(from + batch);
            on_set((from..to).map(|number| edit(Change::Add(member(number)))).collect())
        });
        let answers = world.ask_all(0, 8, adds)?;
        all_are("Committed", &answers)?;
        world.run(2000)
    })?;
    settle(world)?;
    world.phase("read", false, |world| {
        let query = Query::Members { key: Bytes::from_static(KEY), field: Bytes::new() };
        match world.ask(0, read(NAME, query))? {
            Outcome::Value(Value::Set { members: found, .. }) if found.len() as u64 == members => {
                world.meter.note("members_in_one_answer", found.len());
                Ok(())
            }
            other => {
                Err(Stop(format!("answered {}", crate::names::first_word(&format!("{other:?}")))))
            }
        }
    })?;
    restart(world, 0, NAME)?;
    let deleted = world.phase("delete set, with other puts", false, |world| {
        let outcome = world.ask(0, on_set(vec![edit(Change::Delete)]))?;
        let puts =
            (0..PUTS).map(|number| write(NAME, vec![put(super::key(number), value(100, number))]));
        let answers = world.ask_all(0, 8, puts)?;
        all_are("Committed", &answers)?;
        world.run(2000)?;
        committed(&outcome)
    });
    if deleted.is_ok() {
        world.meter.holds(0);
        settle(world)?;
    }
    world.within_bound()?;
    delete(world, NAME)
}
