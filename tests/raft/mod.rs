//! A network of Raft machines with their disks and clocks. Oracles check it after every step.
//!
//! The network takes the node's part: it holds promises back until the writes before them are durable, and it applies
//! committed entries. Messages move only when a test says so. Whole nodes on real log bytes are in the crate `sim`.

mod disk;
mod oracle;
pub mod script;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use continuum_core::codec;
use continuum_core::config::RaftConfig;
use continuum_core::digest::Digest;
use continuum_core::files::Piece;
use continuum_core::id::{
    GroupId, Index, NodeId, Replica, Role, SnapshotFile, SnapshotId, StoreId,
};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::raft::{
    Action, Configuration, Event, Message, Payload, Position, Raft, RefusalReason, Snapshot,
    Ticket, Write,
};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

pub use disk::Disk;
pub use oracle::Oracle;

/// The one group of all these tests.
pub const GROUP: GroupId = GroupId(7);

/// The replica numbered `n`, from 1.
#[must_use]
pub fn replica(n: u8) -> Replica {
    let mut id = [0; 16];
    id[15] = n;
    Replica { node: NodeId(id), store: StoreId(id) }
}

/// The number of a replica.
#[must_use]
pub const fn number(replica: Replica) -> u8 {
    replica.node.0[15]
}

/// A configuration of numbered replicas.
#[must_use]
pub fn configuration(voters: &[u8], learners: &[u8]) -> Configuration {
    let list = |numbers: &[u8]| numbers.iter().copied().map(replica).collect();
    Configuration { voters: list(voters), learners: list(learners) }
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The sender's number.
    pub from: u8,
    /// The receiver's number.
    pub to: u8,
    /// The message itself.
    pub message: Message,
}

/// The content of a snapshot. The state machine of these tests remembers all commands and the group time.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// Group time at the last entry.
    pub time_ms: u64,
    /// All commands so far.
    pub commands: Vec<Bytes>,
}

/// The result of a read.
pub type ReadEnd = Result<Index, RefusalReason>;

/// One replica: its process, if it runs, and its disk.
#[derive(Debug)]
pub struct Process {
    /// The machine; `None` while crashed.
    pub machine: Option<Raft>,
    /// Its disk.
    pub disk: Disk,
    /// Its clock.
    pub now: Instant,
    /// All commands applied so far, which are the state of its state machine.
    pub state: Vec<Bytes>,
    /// The last entry applied.
    pub applied: Position,
    /// Proposals that entered the log or were refused.
    pub proposed: Vec<(Ticket, Result<Position, RefusalReason>)>,
    /// Reads that ended.
    pub reads: Vec<(Ticket, ReadEnd)>,
    /// Messages that the machine rejected: the sender and the reason.
    pub rejected: Vec<(u8, &'static str)>,
    /// Roles that the machine announced, newest last.
    pub roles: Vec<Role>,
    /// Promises that wait for the disk, each with the number of writes that must be durable first.
    held_back: VecDeque<(u64, Envelope)>,
    capture: bool,
    /// Pieces of an arriving snapshot's file that are not durable.
    pieces: Vec<Piece>,
    starts: u64,
}

/// Replicas and the messages between them.
#[derive(Debug)]
pub struct Net {
    /// All replicas, by number.
    pub nodes: BTreeMap<u8, Process>,
    /// Messages under way, oldest first.
    pub wire: Vec<Envelope>,
    /// Events since the lines were last taken, one line each.
    pub lines: Vec<String>,
    /// Checks the invariants after every step.
    pub oracle: Oracle,
    config: RaftConfig,
    genesis: Configuration,
    seed: u64,
    out: Outbox<Action>,
}

impl Net {
    /// The voters and learners of `genesis`. They run, and no election has begun.
    #[must_use]
    pub fn new(seed: u64, genesis: &Configuration, config: RaftConfig) -> Self {
        let mut net = Self {
            nodes: BTreeMap::new(),
            wire: Vec::new(),
            lines: Vec::new(),
            oracle: Oracle::default(),
            config,
            genesis: genesis.clone(),
            seed,
            out: Outbox::new(),
        };
        for member in genesis.voters.iter().chain(&genesis.learners) {
            net.add(number(*member));
        }
        net
    }

    /// Three voters with the default configuration.
    #[must_use]
    pub fn three(seed: u64) -> Self {
        Self::new(seed, &configuration(&[1, 2, 3], &[]), RaftConfig::default())
    }

    /// Adds a replica. If the genesis does not name it, it is told the voters alone, as a node that joins is.
    pub fn add(&mut self, n: u8) {
        let voters = self.genesis.voters.clone();
        let member = self.genesis.is_member(replica(n));
        let told = Configuration { voters, learners: Vec::new() };
        let genesis = if member { self.genesis.clone() } else { told };
        let process = Process {
            machine: None,
            disk: Disk::new(genesis),
            now: Instant::ZERO,
            state: Vec::new(),
            applied: Position::default(),
            proposed: Vec::new(),
            reads: Vec::new(),
            rejected: Vec::new(),
            roles: Vec::new(),
            held_back: VecDeque::new(),
            capture: false,
            pieces: Vec::new(),
            starts: 0,
        };
        self.nodes.insert(n, process);
        self.restart(n);
    }

    /// The machine of a running replica.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    pub fn raft(&self, n: u8) -> &Raft {
        self.nodes[&n].machine.as_ref().expect("the replica runs")
    }

    /// The numbers of all leaders.
    #[must_use]
    pub fn leaders(&self) -> Vec<u8> {
        let leads = |process: &Process| {
            process.machine.as_ref().is_some_and(|machine| machine.role() == Role::Leader)
        };
        self.nodes.iter().filter(|(_, process)| leads(process)).map(|(n, _)| *n).collect()
    }

    /// Steps a replica with one event and performs its actions.
    pub fn step(&mut self, n: u8, event: Event) {
        let Some(process) = self.nodes.get_mut(&n) else { return };
        let Some(machine) = process.machine.as_mut() else { return };
        let now = Now { mono: process.now, wall: WallTime(0) };
        machine.step(now, event, &mut self.out);
        let actions: Vec<Action> = self.out.drain().collect();
        for action in actions {
            self.perform(n, action);
        }
        self.oracle.look(&self.nodes);
    }

    fn perform(&mut self, n: u8, action: Action) {
        if let Some(line) = script::line(n, &action) {
            self.lines.push(line);
        }
        let process = self.nodes.get_mut(&n).expect("it just acted");
        match action {
            Action::Send { to, message, promise } => {
                let envelope = Envelope { from: n, to: number(to), message };
                let needed = process.disk.issued();
                if promise && process.disk.synced() < needed {
                    process.held_back.push_back((needed, envelope));
                } else {
                    self.transmit(envelope);
                }
            }
            Action::Persist { write } => process.disk.write(write),
            Action::WriteFile { piece } => process.pieces.push(piece),
            Action::DropFile { id } => {
                process.pieces.retain(|piece| piece.snapshot != id);
                process.disk.drop_file(id);
            }
            Action::Committed { index } => self.apply(n, index),
            Action::Proposed { ticket, position } => process.proposed.push((ticket, Ok(position))),
            Action::Refused { ticket, why } => {
                // Tests number reads from 1000 on.
                if ticket >= 1000 {
                    process.reads.push((ticket, Err(why)));
                } else {
                    process.proposed.push((ticket, Err(why)));
                }
            }
            Action::Readable { ticket, index } => process.reads.push((ticket, Ok(index))),
            Action::Capture => process.capture = true,
            Action::Check { id, snapshot } => {
                let restores =
                    codec::decode::<State>(&snapshot.chunks.concat(), usize::MAX).is_ok();
                self.step(n, Event::Checked { id, restores });
            }
            Action::Install { snapshot } => self.install(n, &snapshot),
            Action::Role { role, .. } => process.roles.push(role),
            Action::Rejected { from, why } => process.rejected.push((number(from), why)),
        }
    }

    fn transmit(&mut self, envelope: Envelope) {
        self.oracle.sent(&self.nodes[&envelope.from].disk, &envelope);
        self.wire.push(envelope);
    }

    fn apply(&mut self, n: u8, index: Index) {
        let process = self.nodes.get_mut(&n).expect("it just acted");
        let machine = process.machine.as_ref().expect("it just acted");
        while process.applied.index < index {
            let next = process.applied.index.next();
            let entry =
                machine.entry(next).expect("a committed entry that is not applied is in the log");
            self.oracle.applied(n, next, entry);
            process.applied = Position { term: entry.term, index: next };
            if let Payload::Command(command) = &entry.payload {
                process.state.push(command.clone());
            }
        }
    }

    fn install(&mut self, n: u8, snapshot: &Snapshot) {
        let bytes = snapshot.chunks.concat();
        assert_eq!(
            Digest::of(&bytes),
            snapshot.digest,
            "the machine verifies a snapshot before it installs it"
        );
        let state: State = codec::decode(&bytes, usize::MAX).expect("our own encoding");
        assert_eq!(state.time_ms, snapshot.time_ms);
        let state = state.commands;
        self.oracle.installed(n, snapshot.position, &state);
        let process = self.nodes.get_mut(&n).expect("it just acted");
        (process.state, process.applied) = (state, snapshot.position);
    }

    /// The state of a replica, as a snapshot in chunks of `chunk_bytes`.
    #[must_use]
    pub fn capture(&self, n: u8, chunk_bytes: usize) -> Snapshot {
        let process = &self.nodes[&n];
        let entry = self.raft(n).entry(process.applied.index);
        let time_ms =
            entry.map_or_else(|| process.disk.durable().base_time_ms, |entry| entry.time_ms);
        let bytes = codec::encode(&State { time_ms, commands: process.state.clone() });
        let chunks = bytes.chunks(chunk_bytes).map(Bytes::copy_from_slice).collect();
        Snapshot {
            position: process.applied,
            time_ms,
            configuration: self.raft(n).configuration_at(process.applied.index).clone(),
            digest: Digest::of(&bytes),
            chunks,
        }
    }

    /// Gives a leader the snapshot that it asked for, if it asked for one.
    pub fn answer_capture(&mut self, n: u8, chunk_bytes: usize) {
        if std::mem::take(&mut self.nodes.get_mut(&n).expect("a known replica").capture) {
            let snapshot = Arc::new(self.capture(n, chunk_bytes));
            self.step(n, Event::Captured { snapshot });
        }
    }

    /// Checkpoints a replica: the snapshot becomes durable, then the machine drops the log before it.
    pub fn compact(&mut self, n: u8) {
        // The log is first-in, first-out: every write before the checkpoint's record becomes durable with it.
        self.sync(n, usize::MAX);
        let snapshot = self.capture(n, 1 << 16);
        if snapshot.position.index <= self.raft(n).base().index {
            return;
        }
        let position = snapshot.position;
        let (id, length) = (SnapshotId(position.index.0), snapshot.length());
        let process = self.nodes.get_mut(&n).expect("a known replica");
        process.disk.checkpoint(
            Write::Snapshot {
                file: SnapshotFile { id, length, digest: snapshot.digest },
                position,
                time_ms: snapshot.time_ms,
                configuration: snapshot.configuration,
            },
            &snapshot.chunks.concat(),
        );
        self.step(n, Event::Compact { position });
    }

    /// Makes the first `writes` outstanding writes of a replica durable and sends the promises that waited for them,
    /// and then the pieces of its files, with what follows from them.
    pub fn sync(&mut self, n: u8, writes: usize) {
        self.sync_log(n, writes);
        let process = self.nodes.get_mut(&n).expect("a known replica");
        for Piece { snapshot: id, offset, data, .. } in std::mem::take(&mut process.pieces) {
            let bytes = offset + data.len() as u64;
            let process = self.nodes.get_mut(&n).expect("a known replica");
            process.disk.write_file(id, offset, &data);
            self.step(n, Event::FileWritten { id, bytes });
            self.sync_log(n, usize::MAX);
        }
    }

    fn sync_log(&mut self, n: u8, writes: usize) {
        let process = self.nodes.get_mut(&n).expect("a known replica");
        if process.machine.is_none() || process.disk.outstanding() == 0 || writes == 0 {
            return;
        }
        process.disk.sync(writes);
        let synced = process.disk.synced();
        while let Some((_, envelope)) = self.pop_ready(n, synced) {
            self.lines.push(format!("{n} disk has it: {}", script::sending(&envelope)));
            self.transmit(envelope);
        }
        self.step(n, Event::Persisted { writes: synced });
    }

    fn pop_ready(&mut self, n: u8, synced: u64) -> Option<(u64, Envelope)> {
        let held_back = &mut self.nodes.get_mut(&n).expect("a known replica").held_back;
        held_back.pop_front_if(|(needed, _)| *needed <= synced)
    }

    /// Delivers the message at index `at` of the wire.
    pub fn deliver(&mut self, at: usize) {
        let Envelope { from, to, message } = self.wire.remove(at);
        self.step(to, Event::Received { from: replica(from), message });
    }

    /// Advances all clocks and steps every replica whose deadline has passed.
    pub fn advance(&mut self, ms: u64) {
        let numbers: Vec<u8> = self.nodes.keys().copied().collect();
        for n in numbers {
            self.advance_one(n, ms);
        }
    }

    /// Advances one clock and steps its replica if the deadline has passed.
    pub fn advance_one(&mut self, n: u8, ms: u64) {
        let process = self.nodes.get_mut(&n).expect("a known replica");
        process.now = process.now + std::time::Duration::from_millis(ms);
        let due = process.machine.as_ref().and_then(Machine::deadline);
        if due.is_some_and(|due| due <= self.nodes[&n].now) {
            self.step(n, Event::Tick);
        }
    }

    /// Advances one clock to its machine's deadline and steps the machine.
    pub fn timeout(&mut self, n: u8) {
        if let Some(due) = self.raft(n).deadline() {
            let process = self.nodes.get_mut(&n).expect("a known replica");
            process.now = process.now.max(due);
            self.step(n, Event::Tick);
        }
    }

    /// Kills a replica. It loses its process and its writes that are not durable, except the first `kept` of them.
    pub fn crash(&mut self, n: u8, kept: usize) {
        let process = self.nodes.get_mut(&n).expect("a known replica");
        process.machine = None;
        process.held_back.clear();
        process.capture = false;
        process.pieces.clear();
        process.disk.crash(kept);
    }

    /// Starts a replica from its disk.
    pub fn restart(&mut self, n: u8) {
        let process = self.nodes.get_mut(&n).expect("a known replica");
        if process.machine.is_some() {
            return;
        }
        process.starts += 1;
        // Each start has its own seed, as in production.
        let seed = Seed::from_number(self.seed * 1_000_000 + u64::from(n) * 1000 + process.starts);
        let (restored, state) = process.disk.restore();
        (process.applied, process.state) = (restored.base, state);
        let machine = Raft::new(GROUP, replica(n), self.config.clone(), &seed, restored);
        process.machine = Some(machine);
        self.oracle.restarted(n);
        self.step(n, Event::Tick);
    }

    /// Restarts a replica with this term and a log of entries of these terms on its disk.
    pub fn preset(&mut self, n: u8, term: u64, terms: &[u64]) {
        self.crash(n, 0);
        self.nodes.get_mut(&n).expect("a known replica").disk.preset(term, terms);
        self.restart(n);
    }

    /// Delivers a message to a replica and syncs its disk. Returns its answers to the sender.
    pub fn ask(&mut self, from: u8, to: u8, message: Message) -> Vec<Message> {
        self.wire.clear();
        self.step(to, Event::Received { from: replica(from), message });
        self.sync(to, usize::MAX);
        let answers = self.wire.iter().filter(|e| (e.from, e.to) == (to, from));
        answers.map(|envelope| envelope.message.clone()).collect()
    }

    /// The terms of a replica's log, from the first entry in memory.
    #[must_use]
    pub fn terms(&self, n: u8) -> Vec<u64> {
        let raft = self.raft(n);
        let indices = raft.first().0..=raft.last().index.0;
        indices.filter_map(|index| raft.term_at(Index(index))).map(|term| term.0).collect()
    }

    /// Proposes a command.
    pub fn propose(&mut self, n: u8, ticket: Ticket, command: &str) {
        let command = Bytes::copy_from_slice(command.as_bytes());
        self.step(n, Event::Propose { ticket, command });
    }

    /// Syncs all disks and delivers all messages until nothing is left. Messages for which `passes` is false are lost.
    pub fn settle_if(&mut self, passes: impl Fn(&Envelope) -> bool) {
        for _ in 0..10_000 {
            let numbers: Vec<u8> = self.nodes.keys().copied().collect();
            for n in &numbers {
                self.sync(*n, usize::MAX);
                self.answer_capture_if_running(*n);
            }
            self.wire.retain(&passes);
            if self.wire.is_empty() {
                let has_synced = |process: &Process| {
                    process.disk.outstanding() == 0 && process.pieces.is_empty()
                };
                if numbers.iter().all(|n| has_synced(&self.nodes[n])) {
                    return;
                }
            } else {
                self.deliver(0);
            }
        }
        let tail = &self.lines[self.lines.len().saturating_sub(30)..];
        panic!("the replicas never stop sending:\n{}", tail.join("\n"));
    }

    fn answer_capture_if_running(&mut self, n: u8) {
        if self.nodes[&n].machine.is_some() {
            self.answer_capture(n, 64);
        }
    }

    /// Syncs all disks and delivers all messages until nothing is left.
    pub fn settle(&mut self) {
        self.settle_if(|_| true);
    }

    /// Makes a replica the leader: its timeout passes and all replicas answer.
    ///
    /// # Panics
    ///
    /// If it does not win.
    pub fn elect(&mut self, n: u8) {
        // The others grant pre-votes only once their leader has been silent for an election timeout.
        let others: Vec<u8> = self.nodes.keys().copied().filter(|other| *other != n).collect();
        for other in others {
            let process = self.nodes.get_mut(&other).expect("a known replica");
            process.now = process.now + std::time::Duration::from_millis(500);
        }
        self.timeout(n);
        self.settle();
        assert_eq!(self.raft(n).role(), Role::Leader);
    }
}
