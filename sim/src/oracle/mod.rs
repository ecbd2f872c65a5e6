//! The oracles: what must hold after every event, each law in a file of its own with its source.
//!
//! An oracle looks at the actions of a step and at what they change, never at the whole state: its cost is that of the
//! change. The dispatcher here knows which action concerns which law and judges nothing itself. What holds only at the
//! end of a run is in `strong`, `eventual` and `liveness`.

pub(crate) mod append_only;
pub(crate) mod bounds;
pub(crate) mod commit;
pub(crate) mod completeness;
pub(crate) mod durability;
pub(crate) mod election;
pub(crate) mod eventual;
pub(crate) mod fence;
pub(crate) mod ledger;
pub(crate) mod linear;
pub(crate) mod liveness;
pub(crate) mod log_matching;
pub(crate) mod membership;
pub(crate) mod monotone;
pub(crate) mod reads;
pub(crate) mod recovery;
pub(crate) mod replies;
pub(crate) mod spec;
pub(crate) mod state_safety;
pub(crate) mod strong;
pub(crate) mod witness;

use std::collections::BTreeMap;

use continuum_core::gossip::{Incarnation, State};
use continuum_core::id::{GroupId, Index, NodeId, Owner, Replica, RequestId, Term, Token};
use continuum_core::node::api::{Notice, Request};
use continuum_core::node::{Action, Event, Message, Node};
use continuum_core::raft::{self, Position, Role};
use continuum_core::time::Instant;
use continuum_core::wal::Write;

use crate::durable::LogView;
use crate::history::Space;
use crate::process::Process;
use ledger::Ledger;

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The law.
    pub(crate) oracle: &'static str,
    /// By what.
    pub(crate) what: String,
}

impl Broken {
    pub(crate) const fn new(oracle: &'static str, what: String) -> Self {
        Self { oracle, what }
    }
}

/// Whether a law holds.
pub(crate) type Verdict = Result<(), Broken>;

/// What one replica of a group has shown.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Its log and hard state, as it issued them.
    pub(crate) view: LogView,
    /// The term that it leads.
    pub(crate) leads: Option<Term>,
    pub(crate) commit: Index,
    pub(crate) applied: Index,
    /// Its term, as its machine says.
    pub(crate) term: Term,
    /// What it counts as durable of its log, and the end of that.
    pub(crate) durable: (Index, Position),
}

/// Who is who.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    replicas: Vec<Replica>,
}

impl Roster {
    pub(crate) const fn new(replicas: Vec<Replica>) -> Self {
        Self { replicas }
    }

    /// The number of a node.
    pub(crate) fn number(&self, node: NodeId) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.node == node)
    }

    /// The replica of a number, with the first store that it had: the one that it votes with, if it does.
    pub(crate) fn replica(&self, number: usize) -> Replica {
        self.replicas[number]
    }
}

/// All that the oracles remember.
#[derive(Debug)]
pub(crate) struct Oracles {
    pub(crate) roster: Roster,
    pub(crate) ledger: Ledger,
    /// Per node, per group.
    watched: Vec<BTreeMap<GroupId, Watched>>,
    /// All writes of the eventual namespaces.
    pub(crate) writes: spec::Writes,
    reads: reads::Reads,
    /// Per node, what it holds of the others.
    views: Vec<membership::View>,
    dwell_ms: u64,
}

/// One step of one node, after it was taken.
pub(crate) struct Step<'a> {
    pub(crate) me: usize,
    pub(crate) node: &'a Node,
    pub(crate) actions: &'a [Action],
    /// All processes, for what their disks hold.
    pub(crate) processes: &'a [Process],
    /// What the node was handed.
    pub(crate) cause: Cause,
    /// What a client wanted by that.
    pub(crate) wanted: Option<spec::Wanted<'a>>,
    /// What its clock showed.
    pub(crate) now: Instant,
}

/// What of an event the oracles have to know.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cause {
    /// It was gossip.
    pub(crate) is_gossip: bool,
    /// It was another message.
    pub(crate) is_other_message: bool,
    /// Writes became durable: messages leave that were made in earlier steps.
    pub(crate) is_persisted: bool,
    /// What the gossip said of the node itself.
    pub(crate) accused: Option<(Incarnation, State)>,
    /// The group of the append that it was, and the last entry of which that speaks.
    pub(crate) append: Option<(GroupId, Index)>,
    /// The group and position of the snapshot of which it was a chunk.
    pub(crate) chunk: Option<(GroupId, Position)>,
    /// Who asked for a vote in which group, and where its log ends.
    pub(crate) asks: Option<(GroupId, NodeId, Position)>,
    /// The request that it was, and whether that reads a strong namespace.
    pub(crate) request: Option<RequestId>,
    pub(crate) reads: bool,
}

impl Cause {
    pub(crate) fn of(me: NodeId, event: &Event) -> Self {
        match event {
            Event::Received { message: Message::Gossip(message), .. } => {
                let accused = membership::accusation(me, message);
                Self { is_gossip: true, accused, ..Self::default() }
            }
            Event::Received { from, message: Message::Raft { group, message } } => {
                Self::of_raft(*from, *group, message)
            }
            Event::Received { .. } => Self { is_other_message: true, ..Self::default() },
            Event::Persisted { .. } => Self { is_persisted: true, ..Self::default() },
            Event::Requested { id, request } => {
                let strong = Space::Strong.name();
                let reads =
                    matches!(request, Request::Read { namespace, .. } if namespace == strong);
                Self { request: Some(*id), reads, ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    fn of_raft(from: NodeId, group: GroupId, message: &raft::Message) -> Self {
        let mut cause = Self { is_other_message: true, ..Self::default() };
        match message {
            raft::Message::Append { prev, entries, .. } => {
                cause.append = Some((group, Index(prev.index.0 + entries.len() as u64)));
            }
            raft::Message::Vote { last, .. } => cause.asks = Some((group, from, *last)),
            raft::Message::Chunk { position, .. } => cause.chunk = Some((group, *position)),
            _ => {}
        }
        cause
    }
}

impl Oracles {
    pub(crate) fn new(roster: Roster, dwell_ms: u64) -> Self {
        let nodes = roster.replicas.len();
        Self {
            roster,
            ledger: Ledger::default(),
            watched: (0..nodes).map(|_| BTreeMap::new()).collect(),
            writes: spec::Writes::new(nodes),
            reads: reads::Reads::default(),
            views: (0..nodes).map(|_| membership::View::default()).collect(),
            dwell_ms,
        }
    }

    /// Looks at one step. What was applied comes last: an entry is first committed, and that is judged by the disks.
    pub(crate) fn observe(&mut self, step: &Step<'_>) -> Verdict {
        fence::check(step)?;
        if let Some(id) = step.cause.request.filter(|_| step.cause.reads) {
            self.reads.arrives(step, &self.roster, id);
        }
        for action in step.actions {
            match action {
                Action::Persist { token, write } => self.observe_write(step, *token, write)?,
                Action::Send { to, message, .. } => self.observe_send(step, *to, message)?,
                Action::Notify(Notice::Role { group, term, role, .. }) => {
                    self.observe_role(step, *group, *term, *role)?;
                }
                Action::Reply { id, outcome } => self.reads.check(step, *id, outcome)?,
                Action::Notify(Notice::Health { node, from, to }) => {
                    let view = &mut self.views[step.me];
                    view.check_health(step.node, step.now, self.dwell_ms, *node, (*from, *to))?;
                }
                _ => {}
            }
        }
        if !step.cause.is_other_message && !step.node.is_fenced() {
            let Cause { is_gossip, accused, .. } = step.cause;
            // Who has not learnt yet that the accuser is a member does not listen.
            let refused =
                |action: &Action| matches!(action, Action::Notify(Notice::Rejected { .. }));
            let accused = accused.filter(|_| !step.actions.iter().any(refused));
            self.views[step.me].check_step(step.node, is_gossip, accused)?;
        }
        self.observe_progress(step)?;
        for action in step.actions {
            if let Action::Notify(Notice::Applied { group, index }) = action {
                self.observe_applied(step, *group, *index)?;
            }
        }
        Ok(())
    }

    fn observe_write(&mut self, step: &Step<'_>, token: Token, write: &Write) -> Verdict {
        match write {
            Write::Hard { group, term, vote } => {
                let watched = self.watched[step.me].entry(*group).or_default();
                election::check_hard(&watched.view, *term, *vote)?;
                // A checkpoint names a vote again that was given before.
                let is_new = (watched.view.term, watched.view.vote) != (*term, *vote);
                let asks = step.cause.asks.filter(|(asked, ..)| asked == group && is_new);
                election::check_up_to_date(watched.view.last(), *vote, asks)?;
                (watched.view.term, watched.view.vote) = (*term, *vote);
            }
            Write::Append { group, prev, entries } => {
                let watched = self.watched[step.me].entry(*group).or_default();
                let ledger = self.ledger.group_mut(*group);
                append_only::check(watched, *prev, entries)?;
                commit::check_replaced(watched, ledger, *prev, entries)?;
                log_matching::check(&watched.view, ledger, *prev, entries)?;
                watched.view.append(*prev, entries);
            }
            Write::Snapshot { owner: Owner::Group(group), position, .. } => {
                let watched = self.watched[step.me].entry(*group).or_default();
                state_safety::check_snapshot(self.ledger.group_mut(*group), *position)?;
                // A checkpoint names a snapshot again that was there before.
                let is_new = watched.view.base != *position;
                let received = is_new && step.cause.chunk == Some((*group, *position));
                state_safety::check_install(watched.commit, *position, received)?;
                watched.view.install(*position);
            }
            Write::Forget { owner: Owner::Group(group) } => {
                self.watched[step.me].remove(group);
            }
            Write::Dots { .. } => {
                let process = &step.processes[step.me];
                let who = (step.me, process.replica, process.boot);
                self.writes.observe(who, step.wanted, (token, write))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn observe_send(&mut self, step: &Step<'_>, to: NodeId, message: &Message) -> Verdict {
        match message {
            Message::Raft { group, message } => {
                let receiver = self.roster.number(to).map(|number| self.roster.replica(number));
                let me = self.roster.replica(step.me);
                let durable = &step.processes[step.me].disk.durable;
                durability::check_raft(durable, me, receiver, *group, message)?;
                election::check_message(self.ledger.group_mut(*group), step.me, message)
            }
            Message::Replication(message) => {
                durability::check_replication(&step.processes[step.me].disk.durable, message)
            }
            _ if step.cause.is_persisted => Ok(()),
            Message::Gossip(message) => self.views[step.me].check_buddy(step.node, to, message),
            Message::Contacts(contacts) => membership::check_contacts(step.node, contacts),
            _ => Ok(()),
        }
    }

    fn observe_role(&mut self, step: &Step<'_>, group: GroupId, term: Term, role: Role) -> Verdict {
        let watched = self.watched[step.me].entry(group).or_default();
        let ledger = self.ledger.group_mut(group);
        let begins = role == Role::Leader && watched.leads != Some(term);
        watched.leads = (role == Role::Leader).then_some(term);
        if begins {
            election::check_leader(ledger, step.me, term)?;
            completeness::check(&watched.view, ledger, term)?;
        }
        Ok(())
    }

    fn observe_applied(&mut self, step: &Step<'_>, group: GroupId, index: Index) -> Verdict {
        let watched = self.watched[step.me].entry(group).or_default();
        let ledger = self.ledger.group_mut(group);
        monotone::check_applied(watched.applied, index)?;
        state_safety::check_applied(watched, ledger, index)?;
        watched.applied = index;
        state_safety::check_state(step, ledger, group, index)
    }

    /// What a group's machine says of itself, against what it said before.
    fn observe_progress(&mut self, step: &Step<'_>) -> Verdict {
        for group in step.node.groups() {
            let Some(raft) = step.node.raft(group) else { continue };
            let watched = self.watched[step.me].entry(group).or_default();
            let (term, index) = (raft.term(), raft.commit());
            let durable = (raft.durable(), raft.last());
            if durable != watched.durable {
                watched.durable = durable;
                commit::check_durable(step, raft)?;
            }
            if term == watched.term && index == watched.commit {
                continue;
            }
            monotone::check_progress(watched, term, index)?;
            watched.term = term;
            if index > watched.commit {
                let ledger = self.ledger.group_mut(group);
                commit::check_advance(step, &self.roster, watched, ledger, raft, index)?;
                watched.commit = index;
            }
        }
        Ok(())
    }

    /// A node is back: what it holds now is what it shows from here on, and must be what its disk held.
    pub(crate) fn restarted(&mut self, process: &Process, me: usize) -> Verdict {
        let Some(node) = &process.node else { return Ok(()) };
        self.watched[me].clear();
        self.views[me] = membership::View::default();
        self.writes.restarted(me, process.disk.persisted());
        for group in node.groups() {
            let Some(raft) = node.raft(group) else { continue };
            let view = recovery::view_of(raft);
            let watched = self.watched[me].entry(group).or_default();
            watched.term = raft.term();
            watched.commit = raft.commit();
            watched.applied = raft.commit();
            watched.view = view;
            recovery::check(&process.disk.durable, group, &watched.view)?;
            recovery::check_known(self.ledger.group_mut(group), raft)?;
        }
        recovery::check_shards(&process.disk.durable, node)
    }
}
