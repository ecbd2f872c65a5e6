//! Planted bugs of replication. Random histories must find each of them.
//!
//! The active mutant is global to the process, so this file holds a single test that tries one mutant after another.

#[path = "replication/mod.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use continuum_core::api::{Change, Mutation};
use continuum_core::config::Slices;
use continuum_core::id::{Replica, StoreId};
use continuum_core::mark::instrument;
use continuum_core::replication::{Event, Message};
use continuum_core::seed::{Seed, Stream};

use world::history::{History, Move, busy_checkpoint};
use world::{SHARD, Setup, World, bytes, give, one, put, quiet, replica, take};
use world::{covers, hostile, promises, summaries};

/// Histories to try before a mutant counts as missed.
const HISTORIES: u64 = 300;

fn moves(stream: &mut Stream) -> Vec<Move> {
    let byte = |stream: &mut Stream| stream.below(256) as u8;
    (0..200).map(|_| (byte(stream), byte(stream), byte(stream), byte(stream))).collect()
}

/// Runs one history, and one with a corrupted message.
fn run(number: u64) -> Result<(), String> {
    let mut stream = Seed::from_number(number).derive("mutants", 0);
    let mut setup = Setup { discard: number % 4 == 3, ..Setup::default() };
    if number % 2 == 1 {
        setup.config.slices = Slices { listed: 1, swept: 2, freed: 1 };
    }
    History::run(setup, &moves(&mut stream))?;
    corrupt(&mut stream)?;
    if number == 0 {
        covers::small();
        hostile::CASES.iter().for_each(|case| case());
        [false, true].into_iter().for_each(promises::of_a_removal);
        promises::of_an_overwrite();
        summaries::a_difference_is_found_among_many_shards();
        summaries::a_lost_push_is_found_by_its_shard();
        answers()?;
        overwritten_counts_once()?;
    }
    // This case is larger than the others, so a tenth of the runs is enough.
    if number.is_multiple_of(10) { busy_checkpoint(number) } else { Ok(()) }
}

/// A byte of a value flips in transit. All replicas must end with the written value.
fn corrupt(stream: &mut Stream) -> Result<(), String> {
    let mut world = World::new(Setup::default());
    world.network.clear();
    world.mutate(0, put("key", "", "the value as it was written"));
    world.sync_disk(0);
    for (from, to, message) in core::mem::take(&mut world.network) {
        let Message::Delta { shard, writes } = message else { continue };
        let mut write = writes[0].to_vec();
        let at = write.len() - 3 - stream.below(20) as usize;
        write[at] ^= 1;
        let message = Message::Delta { shard, writes: vec![Bytes::from(write)] };
        world.step(to, Event::Received { from: replica(from), message });
    }
    world.converge()?;
    let read = |at| world.get(at, "key", "").value;
    let sound = (0..3).all(|at| read(at).as_deref() == Some(b"the value as it was written"));
    if sound { Ok(()) } else { Err("a corrupted value was taken".into()) }
}

/// Clients are told the truth: all members of a set, and a level only when as many replicas hold the write.
fn answers() -> Result<(), String> {
    let mut world = quiet(Setup::default());
    for member in ["x", "y"] {
        world.mutate(0, one("s", "", Change::Add(bytes(member))));
    }
    if world.members(0, "s") != [bytes("x"), bytes("y")] {
        return Err("a read leaves out a member".into());
    }
    let mut both = put("r", "f", "v");
    both.edits.extend(put("r", "g", "w").edits);
    world.mutate(0, both);
    if world.get(0, "r", "g").value != Some(bytes("w")) {
        return Err("a write loses its second edit".into());
    }
    let context = Some(world.get(0, "r", "f").context);
    world.mutate(0, Mutation { context, ..put("r", "f", "x") });
    if !world.get(0, "r", "f").siblings.is_empty() {
        return Err("what was read was not overwritten".into());
    }
    let ticket = world.write(0, put("k", "", "v"), 2);
    take(&mut world, 0, 1).into_iter().for_each(|push| give(&mut world, 0, 1, push));
    take(&mut world, 1, 0).into_iter().for_each(|ack| give(&mut world, 1, 0, ack));
    if world.answers.replicated.contains(&ticket) {
        return Err("one replica counts as two".into());
    }
    // Replica 1 comes back with an empty disk, and replica 2 holds the write.
    let lost = Replica { node: replica(1).node, store: StoreId([77; 16]) };
    world.step(0, Event::Peers { replicas: vec![lost, replica(2)] });
    world.step(0, Event::Received { from: replica(2), message: all_held(&world, 0) });
    let gone = world.answers.replicated.contains(&ticket);
    if gone { Err("a lost disk counts".into()) } else { Ok(()) }
}

/// A value that is overwritten takes no memory any more.
fn overwritten_counts_once() -> Result<(), String> {
    let mut world = quiet(Setup::default());
    let mut after = |value| {
        world.mutate(0, put("k", "", value));
        world.processes[0].machine.bytes()
    };
    // The first write overwrites nothing, so it is shorter than the others.
    after("0");
    let counted = ["1", "2", "3"].map(&mut after);
    let is_constant = counted.iter().all(|bytes| *bytes == counted[0]);
    if is_constant { Ok(()) } else { Err(format!("overwriting counts {counted:?} bytes")) }
}

/// The acknowledgement of all that a replica has.
fn all_held(world: &World, at: usize) -> Message {
    let held = world.processes[at].machine.context(SHARD).unwrap_or_default();
    Message::Ack { shard: SHARD, held, bytes: 0 }
}

/// The first history that fails, with its failure.
fn found(histories: u64) -> Option<(u64, String)> {
    (0..histories).find_map(|number| match catch_unwind(AssertUnwindSafe(|| run(number))) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some((number, why)),
        Err(_) => Some((number, "an assertion failed".into())),
    })
}

#[test]
fn every_planted_bug_is_found() {
    assert_eq!(found(HISTORIES / 3), None, "the sound code passes");
    std::panic::set_hook(Box::new(|_| {}));
    let is_mine = |name: &str| ["replication.", "api."].iter().any(|of| name.starts_with(of));
    let mine = instrument::MUTANTS.iter().filter(|(name, _)| is_mine(name));
    let missed: Vec<_> = mine
        .filter(|(name, _)| {
            assert!(instrument::activate(Some(name)));
            let found = found(HISTORIES);
            eprintln!("{name}: {found:?}");
            found.is_none()
        })
        .collect();
    instrument::activate(None);
    assert_eq!(missed, Vec::<&(&str, &str)>::new());
}
