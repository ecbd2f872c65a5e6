//! Raft: what must be agreed. The machine of one group on one replica.
//!
//! Section numbers are of the Raft paper (extended version), those from 9 on and 6.4 of Ongaro's thesis.
//!
//! | module | what it answers |
//! |---|---|
//! | `step` | which handler takes an event, and what a term does to it |
//! | `election` | who leads: pre-vote, votes, check-quorum, hand-over (5.2, 5.4.1, 9.6, 3.10) |
//! | `replicate` | the leader: appends, acknowledgements, the commit rule (5.3, 5.4.2) |
//! | `follow` | the follower: the match check, conflicts, durable marks (5.3) |
//! | `read` | linearizable reads without log entries (6.4) |
//! | `membership` | who counts, from which entry on (6) |
//! | `snapshot` | state instead of entries, in chunks (7) |
//! | `log`, `progress`, `quorum` | entries and their terms; a follower's window; counting |
//! | `message` | what replicas say, and what of it is a promise |
//!
//! # Durability
//!
//! Term and vote are one record. A promise, see [`Message::promise`], waits in the node until all that the group wrote
//! before it is durable. A candidate asks for votes once its own is durable, so whatever a leader sends comes later;
//! its appends wait for nothing, and its own disk is one voter for commit.
//!
//! # Not here
//!
//! What commands mean, client sessions, when to take a snapshot, joint consensus, leases, and the disk: after
//! [`Restored`] the machine never reads it.

mod election;
mod follow;
mod log;
mod membership;
mod message;
mod progress;
mod quorum;
mod read;
mod replicate;
mod snapshot;
mod step;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::RaftConfig;
use crate::digest::{Digest, Hasher};
use crate::id::{GroupId, Index, NodeId, Replica, Role, Term};
use crate::machine::{Machine, Now, Outbox};
use crate::mutant;
use crate::seed::{Seed, Stream};
use crate::time::Instant;
use crate::wal::Write;

use election::State;
use log::Log;
use membership::Configurations;
use read::Forwarded;
use snapshot::Incoming;

pub use message::{Header, Message, Promise};
pub use snapshot::snapshot_id;

/// Terms and indices past this are refused: honest ones stay below for longer than any disk lasts, and no arithmetic
/// on smaller ones can overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// A place in a log and the term of the entry there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The term first, so that positions order as §5.4.1 compares logs.
    pub term: Term,
    /// The index.
    pub index: Index,
}

/// Who counts. Sorted, without repeats; a replica is in one of the lists at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Who votes and is counted for commit; at most [`crate::limits::VOTERS_MAX`].
    pub voters: Vec<Replica>,
    /// Who receives the log and is not counted.
    pub learners: Vec<Replica>,
}

/// One entry of a log. Its index is its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Group time in milliseconds: counted by successive leaders, never back, paused without a leader.
    pub time_ms: u64,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a leader's first entry (§8).
    Noop,
    /// The group's configuration from here on, effective on append.
    Configuration(Configuration),
    /// A command of the state machine, encoded once.
    Command(Bytes),
}

/// A request's number within one group on one node, chosen by the node.
pub type Ticket = u64;

/// A state machine's state at a position, in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it contains.
    pub position: Position,
    /// Group time at that entry.
    pub time_ms: u64,
    /// The configuration as of that entry.
    pub configuration: Configuration,
    /// SHA-256 of all chunks in order.
    pub digest: Digest,
    /// The bytes, each chunk at most [`crate::limits::CHUNK_BYTES_MAX`].
    pub chunks: Vec<Bytes>,
}

/// What a group's machine consumes.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A message of this group from an authenticated replica.
    Received {
        /// Who sent it, and on which disk.
        from: Replica,
        /// What.
        message: Message,
    },
    /// The link to a peer is down.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// The group's first so many writes since this process began are durable.
    Persisted {
        /// How many; see [`Action::Persist`].
        writes: u64,
    },
    /// Append a command, if leader.
    Propose {
        /// Names the proposal in the answer.
        ticket: Ticket,
        /// The command, encoded.
        command: Bytes,
    },
    /// Find an index such that a state machine which applied it serves a linearizable read (§6.4).
    Read {
        /// Names the read in the answer.
        ticket: Ticket,
    },
    /// Change the configuration, if leader.
    Reconfigure {
        /// Names the change in the answer.
        ticket: Ticket,
        /// The change.
        change: Reconfiguration,
    },
    /// The state at a position, as asked for by [`Action::Capture`].
    Captured {
        /// The state.
        snapshot: Arc<Snapshot>,
    },
    /// A durable snapshot covers the log up to here: the log before may go, but for what slow followers still want.
    Compact {
        /// The last entry covered.
        position: Position,
    },
    /// The process is stopping: hand leadership to the most advanced follower.
    HandOver,
}

/// A change of a group's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reconfiguration {
    /// Add a learner. The same node with another store replaces its old entry when that was a learner.
    AddLearner(Replica),
    /// Remove a learner.
    RemoveLearner(Replica),
}

/// What a group's machine asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a replica.
    Send {
        /// To whom.
        to: Replica,
        /// What.
        message: Message,
        /// Whether it promises something: then it waits for all that the group has written so far.
        promise: bool,
    },
    /// Make a write durable. The machine counts its writes from 1; the count comes back with [`Event::Persisted`].
    Persist {
        /// What.
        write: Write,
    },
    /// All entries up to here may be applied.
    Committed {
        /// The last one.
        index: Index,
    },
    /// A proposal or change is in the log at this position. It is decided when an entry of that term is applied there,
    /// or one of another term.
    Proposed {
        /// Which.
        ticket: Ticket,
        /// Where.
        position: Position,
    },
    /// A proposal, read or change will not happen.
    Refused {
        /// Which.
        ticket: Ticket,
        /// Why.
        why: Refused,
    },
    /// A read may be served once this index is applied.
    Readable {
        /// Which.
        ticket: Ticket,
        /// The index.
        index: Index,
    },
    /// A follower needs a snapshot: capture the applied state, and answer with [`Event::Captured`].
    Capture,
    /// A snapshot from the leader is complete and verified; its writes are issued. The state machine becomes it.
    Install {
        /// The snapshot.
        snapshot: Arc<Snapshot>,
    },
    /// The role, the term or the known leader changed.
    Role {
        /// The role.
        role: Role,
        /// The term.
        term: Term,
        /// The leader, if known.
        leader: Option<Replica>,
    },
    /// A peer sent something that it must not send; it was dropped.
    Rejected {
        /// Who.
        from: Replica,
        /// What was wrong.
        why: &'static str,
    },
}

/// Why a proposal, read or change will not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This replica does not lead; who does, if known.
    NotLeader(Option<Replica>),
    /// Leadership was lost, or is being handed over, before the read was confirmed.
    LostLeadership,
    /// Too many bytes wait for commit.
    Busy,
    /// The change names a voter, or someone who is not there, or follows one that is not committed.
    InvalidChange,
}

/// What a group's records on disk amount to.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The configuration from the group's `Write::Genesis`.
    pub genesis: Configuration,
    /// The term of the last `Write::Hard`.
    pub term: Term,
    /// Its vote.
    pub vote: Option<Replica>,
    /// The last entry that the newest durable snapshot covers, or zero.
    pub base: Position,
    /// Group time at `base`, in milliseconds.
    pub base_time_ms: u64,
    /// The configuration as of `base`, if there is a snapshot.
    pub base_configuration: Option<Configuration>,
    /// The entries after `base`. Entries that the log holds up to `base` are dropped, those after it are kept.
    pub entries: Vec<Entry>,
}

/// The machine of one group on one replica.
#[derive(Clone, Debug)]
pub struct Raft {
    group: GroupId,
    me: Replica,
    config: RaftConfig,
    /// Draws election timeouts and nothing else.
    elections: Stream,
    /// The time of the step under way.
    now: Instant,
    started: bool,
    /// What `Action::Role` last said.
    announced: (Role, Term, Option<Replica>),

    term: Term,
    vote: Option<Replica>,
    /// `term` and `vote` differ from the last `Write::Hard`.
    hard_changed: bool,
    /// Writes issued and writes known durable, counted from the start of the process.
    writes: u64,
    persisted: u64,
    /// Appends that are not yet durable, oldest first.
    marks: VecDeque<Mark>,
    /// The log is durable on this replica's own disk up to here.
    durable: Index,

    log: Log,
    configurations: Configurations,
    commit: Index,
    /// The last entry that the newest snapshot covers.
    base: Position,

    leader: Option<Replica>,
    /// When the leader was last heard of.
    heard: Instant,
    election_at: Instant,
    state: State,
    forwarded: Forwarded,
    incoming: Option<Incoming>,
}

/// Once so many writes are durable, the log is durable up to this index. A token proves bytes, not indices: when the
/// log is cut, the marks of what was cut are lowered with it, so that bytes that were durable once prove nothing about
/// the entries that replaced them.
#[derive(Clone, Copy, Debug)]
struct Mark {
    writes: u64,
    index: Index,
}

impl Raft {
    /// A machine in the state that its disk proves. The first step arms its timers.
    #[must_use]
    pub fn new(
        group: GroupId,
        me: Replica,
        config: RaftConfig,
        seed: &Seed,
        restored: Restored,
    ) -> Self {
        let Restored { genesis, term, vote, base, base_time_ms, base_configuration, entries } =
            restored;
        let log = Log::new(base, base_time_ms, entries);
        let mut configurations =
            Configurations::new(base.index, base_configuration.unwrap_or(genesis), me);
        configurations.extend(log.first(), log.iter());
        let role = if configurations.counts_me() { Role::Follower } else { Role::Learner };
        Self {
            group,
            me,
            config,
            elections: seed.derive("raft.election", u64::from(group.0)),
            now: Instant::ZERO,
            started: false,
            announced: (role, term, None),
            term,
            vote,
            hard_changed: false,
            writes: 0,
            persisted: 0,
            marks: VecDeque::new(),
            durable: log.last_index(),
            log,
            configurations,
            commit: base.index,
            base,
            leader: None,
            heard: Instant::ZERO,
            election_at: Instant::ZERO,
            state: State::Follower,
            forwarded: Forwarded::new(seed, group),
            incoming: None,
        }
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// This replica.
    #[must_use]
    pub const fn me(&self) -> Replica {
        self.me
    }

    /// What this replica is at the moment.
    #[must_use]
    pub const fn role(&self) -> Role {
        match &self.state {
            State::Leader(_) => Role::Leader,
            State::Campaign(campaign) if campaign.pre => Role::PreCandidate,
            State::Campaign(_) => Role::Candidate,
            State::Follower if self.configurations.counts_me() => Role::Follower,
            State::Follower => Role::Learner,
        }
    }

    /// The current term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Who got this replica's vote in the current term.
    #[must_use]
    pub const fn vote(&self) -> Option<Replica> {
        self.vote
    }

    /// Who leads the current term, if known.
    #[must_use]
    pub const fn leader(&self) -> Option<Replica> {
        self.leader
    }

    /// When a leader was last heard of; long ago on a replica to which nobody speaks.
    #[must_use]
    pub const fn heard_leader(&self) -> Instant {
        self.heard
    }

    /// The last entry known to be committed.
    #[must_use]
    pub const fn commit(&self) -> Index {
        self.commit
    }

    /// The last entry of the log.
    #[must_use]
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The index of the first entry in memory; one past the last when there is none.
    #[must_use]
    pub const fn first(&self) -> Index {
        self.log.first()
    }

    /// The entry at an index, if it is in memory.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(index)
    }

    /// The term of the entry at an index, known from the one before [`Self::first`] on.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The configuration in effect: the newest in the log, committed or not (§6).
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        self.configurations.active()
    }

    /// The configuration in effect as of an entry; the oldest known one for entries that are gone.
    #[must_use]
    pub fn configuration_at(&self, index: Index) -> &Configuration {
        self.configurations.at(index)
    }

    /// The log is durable on this replica's own disk up to here.
    #[must_use]
    pub const fn durable(&self) -> Index {
        self.durable
    }

    /// The last entry that the newest snapshot covers, or zero.
    #[must_use]
    pub const fn base(&self) -> Position {
        self.base
    }

    /// Issues a write.
    fn persist(&mut self, write: Write, out: &mut Outbox<Action>) {
        self.writes += 1;
        out.push(Action::Persist { write });
    }

    /// Issues term and vote if they changed. Called before any other write and before any promise, so that in the
    /// log's order no entry of a term precedes the term.
    fn save_hard(&mut self, out: &mut Outbox<Action>) {
        if self.hard_changed {
            self.hard_changed = false;
            let vote = if mutant!("raft.vote.forgotten") { None } else { self.vote };
            self.persist(Write::Hard { group: self.group, term: self.term, vote }, out);
        }
    }

    /// Sends a message; promises wait for the disk.
    fn send(&mut self, to: Replica, message: Message, out: &mut Outbox<Action>) {
        let promise = match message.promise() {
            None => false,
            Some(Promise::Vote { .. }) => !mutant!("raft.vote.not_persisted"),
            Some(Promise::Appended { .. }) => !mutant!("raft.ack.before_fsync"),
            Some(Promise::Held { .. }) => true,
        };
        if message.promise().is_some() {
            self.save_hard(out);
        }
        out.push(Action::Send { to, message, promise });
    }
}

impl Machine for Raft {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, now: Now, event: Event, out: &mut Outbox<Action>) {
        self.now = self.now.max(now.mono);
        self.start();
        self.on_time(out);
        self.on_event(event, out);
        self.save_hard(out);
        self.announce(out);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.started { self.next_deadline() } else { Some(Instant::ZERO) }
    }

    fn digest(&self, hash: &mut Hasher) {
        hash.value(&(self.group, self.me, self.role(), self.term, self.vote, self.leader));
        hash.value(&(self.writes, self.persisted, self.durable, self.commit, self.base));
        hash.value(&(self.log.offset(), self.deadline()));
        self.log.iter().for_each(|entry| hash.value(entry));
        hash.value(self.configuration());
        self.marks.iter().for_each(|mark| hash.value(&(mark.writes, mark.index)));
        self.forwarded.digest(hash);
        if let Some(incoming) = &self.incoming {
            incoming.digest(hash);
        }
        match &self.state {
            State::Follower => {}
            State::Campaign(campaign) => campaign.digest(hash),
            State::Leader(leader) => leader.digest(hash),
        }
    }
}
