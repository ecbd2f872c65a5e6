//! A small world of replicators: disks that lose unsynced writes, a network that loses, repeats and reorders messages,
//! clocks that disagree, and the model of what every replica may answer.
//!
//! It drives only the machine. The simulator drives whole nodes on real log bytes.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

pub mod covers;
pub mod history;
pub mod hostile;
pub mod promises;
pub mod summaries;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use continuum_core::api::{
    Change, Context, ContextKeys, Edit, Mutation, Query, Reason, Register, Row, Secret, Strategy,
    Value,
};
use continuum_core::config::ReplicationConfig;
use continuum_core::digest::Digest;
use continuum_core::files::Piece;
use continuum_core::id::{Boot, Dot, NamespaceId, NodeId, Replica, ShardId, SnapshotId, StoreId};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::replication::{
    Action, Event, Message, Replicator, Restored, Ticket, Write, WriteInfo, dot_of, inspect,
};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

pub const SHARD: ShardId = ShardId { namespace: NamespaceId(7), slot: 0 };

/// The parameters of a world.
#[derive(Clone, Debug)]
pub struct Setup {
    pub replicas: u8,
    pub discard: bool,
    pub strategy: Strategy,
    pub config: ReplicationConfig,
}

impl Default for Setup {
    fn default() -> Self {
        let config = ReplicationConfig { delta_bytes_max: 600, ..ReplicationConfig::default() };
        Self { replicas: 3, discard: false, strategy: Strategy::LastWriterWins, config }
    }
}

/// Snapshot files with their durable bytes.
pub type Files = BTreeMap<SnapshotId, BytesMut>;

/// One process and its disk.
pub struct Process {
    pub me: Replica,
    pub boot: Boot,
    pub machine: Replicator,
    /// All issued writes. The first `durable` survive a crash.
    pub disk: Vec<(ShardId, Write)>,
    pub durable: usize,
    /// The durable bytes of snapshot files.
    pub files: Files,
    /// Pieces that are not durable.
    pieces: Vec<Piece>,
    /// The root after each step, by the number of writes issued until then.
    roots: BTreeMap<usize, Digest>,
    held_back: Vec<(usize, Replica, Message)>,
    /// The error of its wall clock in milliseconds.
    pub skew_ms: i64,
    /// The time at which its wall clock stands still.
    pub frozen: Option<u64>,
    /// How many times too fast its wall clock runs.
    pub speed: u64,
    /// The greatest stamp of its log that was within the bound of its wall clock when it was logged.
    pub last_stamp: u64,
    /// At least the stamp from which its clock resumed at its last start, until that clock may have gone back.
    resumed: u64,
    snapshots: u64,
}

/// The answers that clients got.
#[derive(Debug, Default)]
pub struct Answers {
    pub accepted: BTreeMap<Ticket, (Dot, Context)>,
    pub refused: BTreeMap<Ticket, Reason>,
    pub replicated: BTreeSet<Ticket>,
}

pub struct World {
    pub setup: Setup,
    pub processes: Vec<Process>,
    /// Messages in flight: sender, receiver, content.
    pub network: Vec<(usize, usize, Message)>,
    pub ms: u64,
    pub answers: Answers,
    pub equivocations: Vec<Dot>,
    pub rejected: Vec<&'static str>,
    /// The stamp of each write.
    pub stamps: BTreeMap<Dot, u64>,
    /// By edit (a dot and the edit's number): the writes that name it as superseded.
    pub superseded: BTreeMap<(Dot, u16), BTreeSet<Dot>>,
    /// The writes that supersede whole scopes.
    covering: Vec<WriteInfo>,
    /// Stamps that break the law of the hybrid clock, with their authors.
    pub unsound_stamps: Vec<(usize, u64)>,
    /// A write was pushed before it was durable.
    early: bool,
    next: Ticket,
}

pub fn replica(at: usize) -> Replica {
    Replica { node: NodeId([at as u8 + 1; 16]), store: StoreId([at as u8 + 101; 16]) }
}

/// The key with which all replicas seal contexts.
pub fn keys() -> ContextKeys {
    ContextKeys::new(Secret([7; 32]))
}

pub fn put(key: &str, field: &str, value: &str) -> Mutation {
    one(key, field, Change::Put(Bytes::copy_from_slice(value.as_bytes())))
}

pub fn one(key: &str, field: &str, change: Change) -> Mutation {
    let field = Bytes::copy_from_slice(field.as_bytes());
    Mutation {
        key: Bytes::copy_from_slice(key.as_bytes()),
        edits: vec![Edit { field, change }],
        context: None,
    }
}

/// Three replicas with no message in flight.
pub fn quiet(setup: Setup) -> World {
    let mut world = World::new(setup);
    world.network.clear();
    world
}

/// Takes the pushes in flight from one replica to another, in order, with one message for each write.
pub fn take(world: &mut World, from: usize, to: usize) -> Vec<Message> {
    (0..world.processes.len()).for_each(|at| world.sync_disk(at));
    let taken = world.network.extract_if(.., |(f, t, _)| *f == from && *t == to);
    let parted = |message| match message {
        Message::Delta { shard, writes } => {
            let alone = |write| Message::Delta { shard, writes: vec![write] };
            writes.into_iter().map(alone).collect()
        }
        other => vec![other],
    };
    taken.flat_map(|(_, _, message)| parted(message)).collect()
}

pub fn give(world: &mut World, from: usize, to: usize, message: Message) {
    world.step(to, Event::Received { from: replica(from), message });
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let mut world = Self {
            processes: Vec::new(),
            network: Vec::new(),
            ms: 1_000_000,
            answers: Answers::default(),
            equivocations: Vec::new(),
            rejected: Vec::new(),
            stamps: BTreeMap::new(),
            superseded: BTreeMap::new(),
            covering: Vec::new(),
            unsound_stamps: Vec::new(),
            early: false,
            next: 0,
            setup,
        };
        for at in 0..usize::from(world.setup.replicas) {
            let boot = Boot { count: 1, nonce: at as u64 };
            let machine = world.machine(at, boot, Restored::default());
            world.processes.push(Process {
                me: replica(at),
                boot,
                machine,
                disk: Vec::new(),
                durable: 0,
                files: Files::default(),
                pieces: Vec::new(),
                roots: BTreeMap::new(),
                held_back: Vec::new(),
                skew_ms: 0,
                frozen: None,
                speed: 1,
                last_stamp: 0,
                resumed: 0,
                snapshots: 0,
            });
        }
        (0..world.processes.len()).for_each(|at| world.introduce(at));
        world
    }

    fn machine(&self, at: usize, boot: Boot, restored: Restored) -> Replicator {
        let seed = Seed::from_number(at as u64 ^ boot.count << 8);
        Replicator::new(replica(at), boot, self.setup.config.clone(), &seed, restored)
            .expect("its own records restore")
    }

    fn introduce(&mut self, at: usize) {
        let others: Vec<usize> = (0..self.processes.len()).filter(|other| *other != at).collect();
        let replicas = others.iter().map(|other| replica(*other)).collect();
        let Setup { strategy, discard, .. } = self.setup;
        self.step(at, Event::Keys { keys: keys() });
        self.step(at, Event::Open { namespace: SHARD.namespace, slots: 1, strategy, discard });
        self.step(at, Event::Peers { replicas });
        others.iter().for_each(|peer| self.step(at, Event::Connected { peer: replica(*peer) }));
    }

    pub fn now(&self, at: usize) -> Now {
        let Process { skew_ms, frozen, speed, .. } = self.processes[at];
        let true_ms = frozen.unwrap_or(self.ms * speed);
        let wall = true_ms.saturating_add_signed(skew_ms);
        Now { mono: Instant::from_millis(self.ms), wall: WallTime(wall) }
    }

    pub fn step(&mut self, at: usize, event: Event) {
        let (now, mut out) = (self.now(at), Outbox::new());
        self.processes[at].machine.step(now, event, &mut out);
        out.drain().collect::<Vec<_>>().into_iter().for_each(|action| self.perform(at, action));
        let process = &mut self.processes[at];
        // The elements that a delete covered leave the table in steps that log nothing, before and after a crash.
        let root = process.machine.root(SHARD).filter(|_| !process.machine.is_sweeping());
        if let Some(root) = root {
            process.roots.insert(process.disk.len(), root);
        }
    }

    fn perform(&mut self, at: usize, action: Action) {
        let process = &mut self.processes[at];
        match action {
            Action::Persist { shard, write } => {
                self.check_clock(at, &write);
                self.processes[at].disk.push((shard, write));
            }
            Action::WriteFile { piece, .. } => self.processes[at].pieces.push(piece),
            Action::Send { to, message, promise } => {
                if promise && process.durable < process.disk.len() {
                    process.held_back.push((process.disk.len(), to, message));
                } else {
                    self.early |= self.is_early(at, &message);
                    self.send(at, to, &message);
                }
            }
            Action::Accepted { ticket, dot, context, .. } => {
                assert!(self.answers.accepted.insert(ticket, (dot, context)).is_none());
            }
            Action::Refused { ticket, reason } => drop(self.answers.refused.insert(ticket, reason)),
            Action::Replicated { ticket } => drop(self.answers.replicated.insert(ticket)),
            Action::Checkpointed { .. } => {}
            Action::Equivocation { dot } => self.equivocations.push(dot),
            Action::Rejected { why, .. } => self.rejected.push(why),
        }
    }

    /// L13: the stamps in a process's log keep the law of the hybrid clock.
    fn check_clock(&mut self, at: usize, write: &Write) {
        let Write::Dots { records } = write else { return };
        let reach = ((self.now(at).wall.0 + self.setup.config.ahead_ms_max + 1) << 16) - 1;
        for info in records.iter().filter_map(inspect) {
            let actor = info.dot.actor;
            let is_own = actor.replica == replica(at) && actor.boot == self.processes[at].boot;
            let process = &mut self.processes[at];
            if process.resumed > reach {
                // The clock may have been beyond its bound, and then it went back with the wall clock.
                (process.resumed, process.last_stamp) = (0, 0);
            }
            let last = process.last_stamp;
            if is_own {
                let superseded = info.edits.iter().flat_map(|edit| &edit.superseded);
                let others = superseded.filter(|(dot, _)| *dot != info.dot);
                let below = others.filter_map(|(dot, _)| self.stamps.get(dot)).max().copied();
                let greatest = self.stamps.values().max().copied().unwrap_or(0);
                // A view may have told of the greatest stamp, and a clock beyond its bound goes back to the wall clock.
                let may_go_back = last > reach || greatest > reach;
                let is_sound = below.is_none_or(|below| info.stamp > below)
                    && (may_go_back || info.stamp > last)
                    && (info.stamp <= reach + 1 || info.stamp <= greatest + 1);
                if !is_sound {
                    self.unsound_stamps.push((at, info.stamp));
                }
            }
            self.stamps.insert(info.dot, info.stamp);
            for element in info.edits.iter().flat_map(|edit| &edit.superseded) {
                self.superseded.entry(*element).or_default().insert(info.dot);
            }
            if info.edits.iter().any(|edit| !edit.covered.is_empty()) {
                self.covering.push(info.clone());
            }
            let process = &mut self.processes[at];
            let kept = if last > reach { 0 } else { last };
            process.last_stamp = if info.stamp <= reach { info.stamp.max(kept) } else { kept };
        }
    }

    /// The writes that supersede an element by its scope: of a write, in a field of a key.
    pub fn covering<'a>(
        &'a self,
        dot: Dot,
        key: &'a [u8],
        field: &'a [u8],
    ) -> impl Iterator<Item = Dot> + 'a {
        let covers = move |info: &&WriteInfo| {
            info.key == key
                && info.edits.iter().any(|edit| {
                    let mut spans = edit.covered.iter();
                    (edit.field.is_empty() || edit.field == field)
                        && spans.any(|(actor, low, high)| {
                            *actor == dot.actor && (*low..=*high).contains(&dot.seq)
                        })
                })
        };
        self.covering.iter().filter(covers).map(|info| info.dot)
    }

    /// Whether a message pushes a write that is not durable at its sender. A crash would undo it there but not here.
    fn is_early(&self, at: usize, message: &Message) -> bool {
        let Message::Delta { writes, .. } = message else { return false };
        let process = &self.processes[at];
        let pushed = |record| {
            inspect(record).is_some_and(|info| {
                let own = info.dot.actor.replica == replica(at);
                own && writes.iter().any(|write| dot_of(write) == Some(info.dot))
            })
        };
        let mut pending = process.disk[process.durable..].iter();
        pending.any(
            |(_, write)| matches!(write, Write::Dots { records } if records.iter().any(pushed)),
        )
    }

    /// Encodes and decodes a message, as a real link does, and puts it on the network.
    fn send(&mut self, at: usize, to: Replica, message: &Message) {
        let encoded = continuum_core::codec::encode(message);
        assert!(encoded.len() <= continuum_core::limits::FRAME_BYTES_MAX);
        let decoded: Message = continuum_core::codec::decode(&encoded, encoded.len()).expect("own");
        assert_eq!(&decoded, message);
        let to = (0..self.processes.len()).find(|other| replica(*other) == to);
        self.network.extend(to.map(|to| (at, to, decoded)));
    }

    /// Checks that the disk of each process would recover everything that its messages in flight promise.
    pub fn promises_hold(&self) -> Result<(), String> {
        if self.early {
            return Err("a write was pushed before it was durable".into());
        }
        for (from, _, message) in &self.network {
            let Some(promise) = message.promise() else { continue };
            let process = &self.processes[*from];
            let recovered = self.machine(
                *from,
                process.boot,
                recover(&process.disk[..process.durable], &process.files),
            );
            if !recovered.holds(promise.shard, promise.held) {
                return Err(format!("{from} promised writes that its disk does not have"));
            }
        }
        Ok(())
    }

    pub fn sync_disk(&mut self, at: usize) {
        let process = &mut self.processes[at];
        process.durable = process.disk.len();
        let durable = process.durable;
        self.step(at, Event::Persisted { writes: durable as u64 });
        let process = &mut self.processes[at];
        let ready = process.held_back.extract_if(.., |(needs, _, _)| *needs <= durable);
        let ready: Vec<_> = ready.collect();
        ready.into_iter().for_each(|(_, to, message)| self.send(at, to, &message));
        self.sync_files(at);
    }

    fn sync_files(&mut self, at: usize) {
        for piece in std::mem::take(&mut self.processes[at].pieces) {
            let file = self.processes[at].files.entry(piece.snapshot).or_default();
            assert_eq!(file.len() as u64, piece.offset);
            file.extend_from_slice(&piece.data);
            let (snapshot, bytes) = (piece.snapshot, piece.end());
            self.step(at, Event::FileWritten { snapshot, bytes });
        }
    }

    /// Kills a process and restarts it from the durable writes of its disk.
    pub fn crash(&mut self, at: usize) -> Result<(), String> {
        let process = &mut self.processes[at];
        process.disk.truncate(process.durable);
        process.held_back.clear();
        process.pieces.clear();
        process.boot = Boot { count: process.boot.count + 1, nonce: process.boot.nonce };
        let before = process.roots.get(&process.durable).copied();
        process.roots.clear();
        // It resumes from the greatest stamp of what it has seen; the model knows fewer, so it asks for nothing.
        process.last_stamp = 0;
        process.resumed = self.stamps.values().max().copied().unwrap_or(0);
        let (boot, restored) = (process.boot, recover(&process.disk, &process.files));
        self.processes[at].machine = self.machine(at, boot, restored);
        self.settle(at);
        let after = self.processes[at].machine.root(SHARD);
        if before.is_some() && after.is_some() && before != after {
            return Err(format!("L19: {at} restored a state that differs from the one it had"));
        }
        self.introduce(at);
        Ok(())
    }

    /// Ends what a replica does in slices.
    pub fn settle(&mut self, at: usize) {
        while self.processes[at].machine.is_sweeping() {
            self.step(at, Event::Tick);
        }
    }

    pub fn deliver(&mut self, index: usize) {
        let (from, to, message) = self.network.remove(index);
        self.step(to, Event::Received { from: replica(from), message });
    }

    pub fn mutate(&mut self, at: usize, mutation: Mutation) -> Ticket {
        self.write(at, mutation, 0)
    }

    pub fn write(&mut self, at: usize, mutation: Mutation, replicas: u8) -> Ticket {
        self.next += 1;
        let ticket = self.next;
        self.step(at, Event::Mutate { ticket, shard: SHARD, mutation, replicas });
        ticket
    }

    /// The newest write that a process logged.
    pub fn last_written(&self, at: usize) -> WriteInfo {
        let mut writes = self.processes[at].disk.iter().rev();
        let newest = |(_, write): &(ShardId, Write)| match write {
            Write::Dots { records } => records.iter().rev().find_map(inspect),
            _ => None,
        };
        writes.find_map(newest).expect("it wrote")
    }

    pub fn checkpoint(&mut self, at: usize) {
        self.processes[at].snapshots += 1;
        let process = &self.processes[at];
        let snapshot = SnapshotId(process.boot.count << 32 | process.snapshots);
        self.step(at, Event::Checkpoint { shard: SHARD, snapshot });
    }

    pub fn advance(&mut self, ms: u64) {
        self.ms += ms;
        (0..self.processes.len()).for_each(|at| self.step(at, Event::Tick));
    }

    /// Advances time without faults until all roots are equal. Wall clocks stay as wrong as they are.
    pub fn converge(&mut self) -> Result<(), String> {
        for _ in 0..100 {
            self.advance(1_000);
            for _ in 0..60 {
                (0..self.processes.len()).for_each(|at| self.sync_disk(at));
                let count = self.network.len();
                (0..count).for_each(|_| self.deliver(0));
                (0..self.processes.len()).for_each(|at| self.settle(at));
            }
            if self.roots().len() == 1 {
                return Ok(());
            }
        }
        Err("the replicas do not converge".into())
    }

    pub fn roots(&self) -> BTreeSet<Digest> {
        self.processes.iter().filter_map(|process| process.machine.root(SHARD)).collect()
    }

    pub fn read(&self, at: usize, query: &Query) -> Value {
        self.processes[at].machine.read(SHARD, query).expect("the shard is open")
    }

    pub fn get(&self, at: usize, key: &str, field: &str) -> Register {
        match self.read(at, &Query::Get { key: bytes(key), field: bytes(field) }) {
            Value::Register(register) => register,
            other => panic!("{other:?}"),
        }
    }

    pub fn members(&self, at: usize, key: &str) -> Vec<Bytes> {
        self.set(at, key, "").0
    }

    /// The members of a set, and the context of the read.
    pub fn set(&self, at: usize, key: &str, field: &str) -> (Vec<Bytes>, Context) {
        match self.read(at, &Query::Members { key: bytes(key), field: bytes(field) }) {
            Value::Set { members, context } => (members, context),
            other => panic!("{other:?}"),
        }
    }

    pub fn count(&self, at: usize, key: &str) -> i128 {
        match self.read(at, &Query::Count { key: bytes(key), field: Bytes::new() }) {
            Value::Counter(value) => value,
            other => panic!("{other:?}"),
        }
    }

    /// All rows, in small pages.
    pub fn rows(&self, at: usize) -> Vec<Row> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            match self.read(at, &Query::Rows { after: after.clone(), limit: 3 }) {
                Value::Rows { rows, more } => {
                    after = rows.last().map(|row| row.key.clone());
                    all.extend(rows);
                    if !more {
                        return all;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Folds a log into the shards' restored state.
pub fn recover(disk: &[(ShardId, Write)], files: &Files) -> Restored {
    let mut restored = Restored::default();
    for (shard, write) in disk {
        restored.apply(*shard, write.clone());
    }
    let read = |snapshot| files.get(&snapshot).map(|file| file.clone().freeze());
    restored.load(read).expect("a named file is complete");
    restored
}
