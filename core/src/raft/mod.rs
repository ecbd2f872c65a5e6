//! Raft: the machine of one group on one replica. A group replicates one log and applies it in one order.
//!
//! Section numbers up to 8 are of the Raft paper (extended version); 3.10, 6.4 and those from 9 on are of Ongaro's
//! thesis.
//!
//! | module | contents |
//! |---|---|
//! | `types`, `message`, `record`, `event` | public values; what replicas send, write and restore; events and actions |
//! | `step` | which handler takes an event, and what a message's term does first (5.1) |
//! | `election` | pre-vote, votes, check-quorum, leadership transfer (5.2, 5.4.1, 9.6, 3.10) |
//! | `replicate` | the leader: appends, acknowledgements, the commit rule (5.3, 5.4.2) |
//! | `follow` | the follower: the match check and conflicts (5.3) |
//! | `durable` | both roles: writes, durable marks, commit, compaction |
//! | `read` | linearizable reads without log entries (6.4) |
//! | `membership`, `configurations` | changes of learners; which configuration holds at which index (6) |
//! | `snapshot` | state instead of entries, in chunks (7) |
//! | `state` | what a follower, a candidate and a leader remember |
//! | `log`, `progress`, `quorum` | entries and their terms; a follower's window; counting |
//!
//! The modules of values (`types`, `message`, `record`, `event`, `state`, `configurations`, `log`, `progress`,
//! `quorum`) import each other in one direction only. The other modules add methods to [`Raft`] and do not import each
//! other.
//!
//! # Durability
//!
//! Term and vote are one record. A promise (see [`Message::promise`]) leaves only after all writes that the group
//! issued before it are durable; the node holds it back. A candidate asks for votes only after its own vote is durable,
//! so everything that a leader sends comes after that. A leader's appends do not wait for its disk, which is one more
//! voter for commit.
//!
//! # What this machine does not do
//!
//! It does not interpret commands, keep client sessions, decide when to take a snapshot, change voters (joint
//! consensus), or use leases. It does not read the disk after [`Restored`].

mod configurations;
mod durable;
mod election;
mod event;
mod follow;
mod log;
mod membership;
mod message;
mod progress;
mod quorum;
mod read;
mod record;
mod replicate;
mod snapshot;
mod state;
mod step;
mod types;

use alloc::collections::VecDeque;

use crate::config::RaftConfig;
use crate::digest::Hasher;
use crate::id::{GroupId, Index, Replica, Role, SnapshotId, Term};
use crate::machine::{Machine, Now, Outbox};
use crate::seed::{Seed, Stream};
use crate::time::Instant;

use configurations::Configurations;
use log::Log;
use state::{DurableMark, ForwardedReads, IncomingSnapshot, State};
use types::{NUMBER_MAX, TERM_LEAD_MAX};

pub use event::{Action, Event};
pub use message::{Message, Promise, SnapshotHeader};
pub use record::{Restored, Write};
pub use types::{
    Configuration, Entry, Payload, Position, Reconfiguration, RefusalReason, Snapshot, Ticket,
    is_received, snapshot_id,
};

/// The machine of one group on one replica.
#[derive(Clone, Debug)]
pub struct Raft {
    group: GroupId,
    me: Replica,
    config: RaftConfig,
    /// The random stream of election timeouts.
    elections: Stream,
    /// The time of the current step.
    now: Instant,
    started: bool,
    /// The content of the last `Action::Role`.
    announced: (Role, Term, Option<Replica>),

    term: Term,
    vote: Option<Replica>,
    /// Whether `term` or `vote` differ from the last `Write::Hard`.
    hard_changed: bool,
    /// Writes issued since the process started.
    writes: u64,
    /// The number of them that are known to be durable.
    persisted: u64,
    /// One mark for each append that is not yet durable, oldest first.
    marks: VecDeque<DurableMark>,
    /// The last index up to which this replica's own disk has the log.
    durable: Index,

    log: Log,
    configurations: Configurations,
    commit: Index,
    /// The last entry that the newest snapshot covers.
    base: Position,

    leader: Option<Replica>,
    /// When a leader last contacted this replica.
    leader_contact: Instant,
    election_at: Instant,
    state: State,
    forwarded: ForwardedReads,
    incoming: Option<IncomingSnapshot>,
    /// The last snapshot that the state machine of this process could not restore.
    refused_snapshot: Option<SnapshotId>,
}

impl Raft {
    /// A machine in the state that its disk proves. The first step starts its timers.
    #[must_use]
    pub fn new(
        group: GroupId,
        me: Replica,
        config: RaftConfig,
        seed: &Seed,
        restored: Restored,
    ) -> Self {
        let Restored {
            genesis,
            term,
            vote,
            base,
            base_time_ms,
            base_configuration,
            commit,
            entries,
            ..
        } = restored;
        let log = Log::new(base, base_time_ms, entries);
        let mut configurations =
            Configurations::new(base.index, base_configuration.unwrap_or(genesis), me);
        configurations.extend(log.first(), log.iter());
        let role = if configurations.is_voter() { Role::Follower } else { Role::Learner };
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
            configurations,
            commit: commit.min(log.last_index()).max(base.index),
            log,
            base,
            leader: None,
            leader_contact: Instant::ZERO,
            election_at: Instant::ZERO,
            state: State::Follower,
            forwarded: ForwardedReads::new(seed, group),
            incoming: None,
            refused_snapshot: None,
        }
    }

    /// The group of this machine.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// This replica.
    #[must_use]
    pub const fn me(&self) -> Replica {
        self.me
    }

    /// This replica's current role.
    #[must_use]
    pub const fn role(&self) -> Role {
        match &self.state {
            State::Leader(_) => Role::Leader,
            State::Campaign(campaign) if campaign.pre => Role::PreCandidate,
            State::Campaign(_) => Role::Candidate,
            State::Follower if self.configurations.is_voter() => Role::Follower,
            State::Follower => Role::Learner,
        }
    }

    /// The current term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// The replica that got this replica's vote in the current term.
    #[must_use]
    pub const fn vote(&self) -> Option<Replica> {
        self.vote
    }

    /// The leader of the current term, if known.
    #[must_use]
    pub const fn leader(&self) -> Option<Replica> {
        self.leader
    }

    /// Last contact from a leader; an old instant on an isolated replica.
    #[must_use]
    pub const fn leader_contact(&self) -> Instant {
        self.leader_contact
    }

    /// The index of the last entry known to be committed.
    #[must_use]
    pub const fn commit(&self) -> Index {
        self.commit
    }

    /// The position of the log's last entry.
    #[must_use]
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The index of the first entry in memory; one past the last index if there is none.
    #[must_use]
    pub const fn first(&self) -> Index {
        self.log.first()
    }

    /// The entry at this index, if it is in memory.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(index)
    }

    /// The term of the entry at this index; known from one before [`Self::first`] on.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The configuration in effect: the newest one in the log, committed or not (§6).
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        self.configurations.active()
    }

    /// The configuration in effect at this index; the oldest known one for an index before the log.
    #[must_use]
    pub fn configuration_at(&self, index: Index) -> &Configuration {
        self.configurations.at(index)
    }

    /// The last index up to which this replica's own disk has the log.
    #[must_use]
    pub const fn durable(&self) -> Index {
        self.durable
    }

    /// The last entry that the newest snapshot covers, or zero.
    #[must_use]
    pub const fn base(&self) -> Position {
        self.base
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
        self.persist_hard_state(out);
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
        hash.value(&self.refused_snapshot);
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
