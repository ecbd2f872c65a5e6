//! Random histories, and the executable specification of the state that every replica may show after them.
//!
//! The specification knows only the writes and what each had observed. It knows no elements, live edits or messages.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::{Change, Content, Context, Edit, Mutation, Query, Value};
use continuum_core::id::{Actor, Dot};
use continuum_core::replication::{Dots, Ticket, Write};
use continuum_core::seed::{Seed, Stream};

use super::{SHARD, Setup, World, bytes};

/// One move of a history as four small numbers: the kind, the replica, and two details. Small numbers are simple moves.
pub type Move = (u8, u8, u8, u8);

const KEYS: [&str; 3] = ["a", "b\0", "c"];
const FIELDS: [&str; 3] = ["", "f", "g"];
const MEMBERS: [&str; 3] = ["x", "y", "z"];
/// The key whose fields are only counters, so that the counts alone determine the sums.
const COUNTED: &str = "n";

/// A write in the specification.
struct Written {
    ticket: Ticket,
    at: usize,
    dot: Dot,
    mutation: Mutation,
    observed: Dots,
}

/// A world and the writes that it accepted.
pub struct History {
    pub world: World,
    writes: Vec<Written>,
    saved: Vec<Context>,
    values: u32,
    /// Writes that survived: durable or known elsewhere when the author crashed, or of an author that never crashed.
    owed: BTreeSet<Dot>,
    /// For each replica, edits that it has seen dead.
    dead: BTreeSet<(usize, Dot, usize)>,
}

impl History {
    pub fn new(setup: Setup) -> Self {
        let world = World::new(setup);
        Self {
            world,
            writes: Vec::new(),
            saved: Vec::new(),
            values: 0,
            owed: BTreeSet::new(),
            dead: BTreeSet::new(),
        }
    }

    /// Runs a history. Checks it after each move and at the end.
    pub fn run(setup: Setup, moves: &[Move]) -> Result<Self, String> {
        let mut history = Self::new(setup);
        for (at, step) in moves.iter().enumerate() {
            history.step(*step).map_err(|why| format!("move {at} {step:?}: {why}"))?;
        }
        history.world.converge()?;
        history.check_end()?;
        Ok(history)
    }

    fn step(&mut self, (what, at, b, c): Move) -> Result<(), String> {
        let at = usize::from(at) % self.world.processes.len();
        match what % 24 {
            0..=6 => self.mutate(at, b, c),
            7 => self.save(at, b),
            8..=13 => self.deliver(b),
            14 => self.lose(b),
            15 => self.repeat(b),
            16..=17 => self.sync_disk(at),
            18 => {
                self.world.promises_hold()?;
                self.world.crash(at)?;
                self.dead.retain(|(where_, ..)| *where_ != at);
            }
            19..=20 => self.world.advance(u64::from(b) * 20),
            21 => self.world.checkpoint(at),
            22 => self.set_clock(at, b, c),
            _ => self.world.step(at, continuum_core::replication::Event::Tick),
        }
        self.check_coverage(at)
    }

    /// The wall clock jumps by up to ten years, stands still, or runs five times too fast.
    fn set_clock(&mut self, at: usize, b: u8, c: u8) {
        let ms = self.world.ms;
        let process = &mut self.world.processes[at];
        (process.frozen, process.speed) = (None, 1);
        match c % 8 {
            0 => process.frozen = Some(ms),
            1 => process.speed = 5,
            2 => process.skew_ms = (i64::from(b) - 128) * 2_500_000_000,
            3 => process.skew_ms = 0,
            _ => process.skew_ms = (i64::from(b) - 128) * 500,
        }
    }

    fn sync_disk(&mut self, at: usize) {
        self.world.sync_disk(at);
        let actor =
            Actor { replica: self.world.processes[at].me, boot: self.world.processes[at].boot };
        let synced = self.writes.iter().filter(|w| w.dot.actor == actor).map(|w| w.dot);
        self.owed.extend(synced);
    }

    fn deliver(&mut self, b: u8) {
        if !self.world.network.is_empty() {
            // Mostly in order, so that sessions make progress, and sometimes not.
            let count = self.world.network.len();
            let index = if b < 200 { 0 } else { usize::from(b) % count };
            self.world.deliver(index);
        }
    }

    fn lose(&mut self, b: u8) {
        let count = self.world.network.len();
        if count > 0 {
            self.world.network.remove(usize::from(b) % count);
        }
    }

    fn repeat(&mut self, b: u8) {
        let count = self.world.network.len();
        if count > 0 {
            let again = self.world.network[usize::from(b) % count].clone();
            self.world.network.push(again);
        }
    }

    fn save(&mut self, at: usize, b: u8) {
        let key = bytes(KEYS[usize::from(b) % 3]);
        if let Value::Record { context, .. } = self.world.read(at, &Query::Record { key }) {
            self.saved.push(context);
        }
    }

    fn mutate(&mut self, at: usize, b: u8, c: u8) {
        let mutation = self.mutation(b, c);
        let seen = self.world.processes[at].machine.context(SHARD).unwrap_or_default();
        let observed = match &mutation.context {
            None => seen,
            Some(context) => {
                let mut dots = Dots::default();
                for dot in context.peek().unwrap_or_default().dots {
                    dots.insert(&dot);
                }
                dots
            }
        };
        let ticket = self.world.mutate(at, mutation.clone());
        if let Some((dot, _)) = self.world.answers.accepted.get(&ticket) {
            self.writes.push(Written { ticket, at, dot: *dot, mutation, observed });
        }
    }

    fn mutation(&mut self, b: u8, c: u8) -> Mutation {
        let key = if c % 5 == 4 { COUNTED } else { KEYS[usize::from(c) % 3] };
        let count = if b.is_multiple_of(7) { 3 } else { 1 };
        let edits = (0..count).map(|n| self.edit(key, b.wrapping_add(n * 11), c)).collect();
        let saved = b % 4 == 3 && key != COUNTED && !self.saved.is_empty();
        let context = saved.then(|| self.saved[usize::from(c) % self.saved.len()].clone());
        Mutation { key: bytes(key), edits, context }
    }

    fn edit(&mut self, key: &str, b: u8, c: u8) -> Edit {
        self.values += 1;
        let field = bytes(FIELDS[usize::from(b / 8) % 3]);
        if key == COUNTED {
            return Edit { field: bytes(""), change: Change::Count(i64::from(b) - 100) };
        }
        let member = bytes(MEMBERS[usize::from(c / 8) % 3]);
        let change = match b % 6 {
            0 | 1 => Change::Put(bytes(&format!("v{}", self.values))),
            2 | 3 => Change::Add(member),
            4 => Change::Remove(member),
            _ => Change::Delete,
        };
        Edit { field, change }
    }

    /// L9: a replica shows every register write that it claims to have seen, unless a write superseded it, and none
    /// that a write names as superseded that it claims to have seen. L8: an edit that it has seen dead stays dead.
    fn check_coverage(&mut self, at: usize) -> Result<(), String> {
        let discard = self.world.setup.discard;
        let seen = self.world.processes[at].machine.context(SHARD).unwrap_or_default();
        let visible: Vec<_> = self.writes.iter().filter(|w| seen.contains(&w.dot)).collect();
        for write in &visible {
            for (n, edit) in write.mutation.edits.iter().enumerate() {
                let Change::Put(value) = &edit.change else { continue };
                let shown = self.world.processes[at].machine.read(
                    SHARD,
                    &Query::Get { key: write.mutation.key.clone(), field: edit.field.clone() },
                );
                let Ok(Value::Register(shown)) = shown else { continue };
                let held = shown.value.iter().chain(&shown.siblings).any(|held| held == value);
                if held && self.dead.contains(&(at, write.dot, n)) {
                    return Err(format!("L8: {:?} lives again at {at}", write.dot));
                }
                if !held {
                    self.dead.insert((at, write.dot, n));
                }
                if !held && !discard && !self.writes.iter().any(|by| supersedes(by, write, n)) {
                    return Err(format!("L9: {at} has seen {:?} and lost it", write.dot));
                }
                let by = self.world.superseded.get(&(write.dot, n as u16)).into_iter().flatten();
                let mut covering = self.world.covering(write.dot, &write.mutation.key, &edit.field);
                if held
                    && (by.into_iter().any(|by| seen.contains(by))
                        || covering.any(|by| seen.contains(&by)))
                {
                    return Err(format!("L9: {at} shows {:?}, which is superseded", write.dot));
                }
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        let seen = self.world.processes[0].machine.context(SHARD).unwrap_or_default();
        if !self.world.equivocations.is_empty() || !self.world.rejected.is_empty() {
            return Err(format!("{:?} {:?}", self.world.equivocations, self.world.rejected));
        }
        if let Some((at, stamp)) = self.world.unsound_stamps.first() {
            return Err(format!("L13: the stamp {stamp} of {at} is against the law"));
        }
        if let Some(lost) = self.owed.iter().find(|dot| !seen.contains(dot)) {
            return Err(format!("an acknowledged write was lost: {lost:?}"));
        }
        let rows: BTreeSet<_> = (0..self.world.processes.len())
            .map(|at| continuum_core::codec::encode(&self.world.rows(at)))
            .collect();
        if rows.len() != 1 {
            return Err("equal roots, other rows".into());
        }
        if !self.world.setup.discard {
            self.check_spec(&seen)?;
        }
        Ok(())
    }

    /// L6: the rows equal those that the specification derives from the visible writes.
    fn check_spec(&self, seen: &Dots) -> Result<(), String> {
        let visible: Vec<_> = self.writes.iter().filter(|w| seen.contains(&w.dot)).collect();
        let (mut registers, mut sets) = (BTreeMap::new(), BTreeMap::new());
        for write in &visible {
            for (n, edit) in write.mutation.edits.iter().enumerate() {
                if visible.iter().any(|later| supersedes(later, write, n)) {
                    continue;
                }
                let place = (write.mutation.key.clone(), edit.field.clone());
                match &edit.change {
                    Change::Put(value) => {
                        registers.entry(place).or_insert_with(BTreeSet::new).insert(value.clone());
                    }
                    Change::Add(member) => {
                        sets.entry(place).or_insert_with(BTreeSet::new).insert(member.clone());
                    }
                    _ => {}
                }
            }
        }
        let (mut shown_registers, mut shown_sets) = (BTreeMap::new(), BTreeMap::new());
        let mut sum = 0;
        for row in self.world.rows(0) {
            for field in row.fields {
                let place = (row.key.clone(), field.field);
                match field.content {
                    Content::Register(values) => {
                        shown_registers.insert(place, values.into_iter().collect::<BTreeSet<_>>());
                    }
                    Content::Set(members) => {
                        shown_sets.insert(place, members.into_iter().collect::<BTreeSet<_>>());
                    }
                    Content::Counter(value) => sum = value,
                }
            }
        }
        let expected = self.expected_sum(seen);
        if registers == shown_registers && sets == shown_sets && sum == expected {
            return Ok(());
        }
        Err(format!(
            "L6: shown {shown_registers:?} {shown_sets:?} {sum}, specified {registers:?} {sets:?} {expected}"
        ))
    }

    /// Counts are running totals: the last visible count of an actor includes all its earlier counts.
    fn expected_sum(&self, seen: &Dots) -> i128 {
        let counts = |write: &&Written| write.mutation.key == bytes(COUNTED);
        let mut last: BTreeMap<Actor, u64> = BTreeMap::new();
        for write in self.writes.iter().filter(counts).filter(|w| seen.contains(&w.dot)) {
            let seq = last.entry(write.dot.actor).or_default();
            *seq = write.dot.seq.max(*seq);
        }
        let stands =
            |write: &&Written| last.get(&write.dot.actor).is_some_and(|seq| write.dot.seq <= *seq);
        let amounts = self.writes.iter().filter(counts).filter(stands);
        amounts
            .flat_map(|write| &write.mutation.edits)
            .map(|edit| match edit.change {
                Change::Count(by) => i128::from(by),
                _ => 0,
            })
            .sum()
    }
}

/// L5 and L19 under load: captures a shard of many slices during writes, and restores it.
pub fn busy_checkpoint(number: u64) -> Result<(), String> {
    let mut stream = Seed::from_number(number).derive("checkpoint", 0);
    let mut world = World::new(Setup { discard: number.is_multiple_of(2), ..Setup::default() });
    let value = |stream: &mut Stream| bytes(&format!("{:08}", stream.draw()).repeat(1000));
    for _ in 0..40 {
        let key = format!("k{}", stream.below(30));
        world.mutate(0, super::one(&key, "", Change::Put(value(&mut stream))));
    }
    world.checkpoint(0);
    let steps = world.processes[0].disk.len() + 8;
    while world.processes[0].disk.len() < steps {
        let key = format!("k{}", stream.below(30));
        let change = match stream.below(3) {
            0 => Change::Delete,
            1 => Change::Add(bytes("member")),
            _ => Change::Put(value(&mut stream)),
        };
        world.mutate(0, super::one(&key, "", change));
    }
    for _ in 0..20 {
        world.step(0, continuum_core::replication::Event::Tick);
    }
    world.mutate(0, super::put("last", "", "written after the checkpoint"));
    let rows = world.rows(0);
    // The file, and then the record that names it.
    (0..2).for_each(|_| world.sync_disk(0));
    let is_named = |write: &Write| matches!(write, Write::Snapshot { .. });
    if !world.processes[0].disk.iter().any(|(_, write)| is_named(write)) {
        return Err("the checkpoint does not end".into());
    }
    world.crash(0)?;
    if world.rows(0) == rows { Ok(()) } else { Err("the restored rows differ".into()) }
}

/// Whether `later` supersedes the `n`th edit of `write`: it changes the same field and had observed the edit.
fn supersedes(later: &Written, write: &Written, n: usize) -> bool {
    let edit = &write.mutation.edits[n];
    let same = later.dot == write.dot;
    if later.mutation.key != write.mutation.key || !(same || later.observed.contains(&write.dot)) {
        return false;
    }
    let first = if same { n + 1 } else { 0 };
    later.mutation.edits[first.min(later.mutation.edits.len())..].iter().any(|by| {
        let here = by.field == edit.field;
        match (&by.change, &edit.change) {
            (Change::Delete, _) => here || by.field.is_empty(),
            (Change::Put(_), Change::Put(_)) => here,
            (Change::Add(a) | Change::Remove(a), Change::Add(b)) => here && a == b,
            _ => false,
        }
    })
}
