//! The oracles: what must hold after every event, each law in a file of its own with its source.
//!
//! An oracle looks at the actions of a step and at what they change, never at the whole state: its cost is that of the
//! change. The dispatcher here knows which action concerns which law and judges nothing itself.
//!
//! | law | file | source | looks |
//! |---|---|---|---|
//! | election-safety | `election` | Raft Fig. 3 | a role begins; a leader's message leaves |
//! | one-vote-a-term | `vote` | Raft §5.2 | a term and vote are written |
//! | vote-for-up-to-date-log | `up_to_date` | Raft §5.4.1 | a vote is written |
//! | leader-append-only | `append_only` | Raft Fig. 3 | entries are written |
//! | log-matching | `log_matching` | Raft Fig. 3 | entries are written |
//! | committed-entry-replaced | `replaced` | Raft §5.4 | entries are written |
//! | one-configuration | `configurations` | Raft §6 | entries are written |
//! | leader-completeness | `completeness` | Raft Fig. 3 | a leader begins |
//! | commit-rule | `commit` | Raft §5.4.2, Fig. 8 | a commit index moves |
//! | durable-marks | `durable_marks` | design §4 | a durable mark moves |
//! | monotone | `monotone` | Raft §5.1, Fig. 2 | a term, commit or applied index moves |
//! | applied-commit-last | `progress` | Raft Fig. 2 | a commit or applied index moves |
//! | state-machine-safety | `state_safety` | Raft Fig. 3 | entries are applied |
//! | session-applied-once | `sessions` | thesis §6.3 | entries are applied |
//! | exactly-once | `witness` | thesis §6.3 | an entry is committed |
//! | snapshot-of-committed | `snapshots` | Raft §7, Fig. 13 | a snapshot is named |
//! | hand-over-ends | `handover` | design §4, thesis §3.10 | a leader hands over |
//! | read-after-leadership | `reads` | Raft §8, thesis §6.4 | a read comes and is answered |
//! | read-sees-acknowledged | `fresh` | Herlihy and Wing 1990 | a read comes and is answered |
//! | one-reply | `replies` | contract of `node::Action` | a reply leaves; with each link; the end |
//! | durability-at-send | `durability` | design §4 | a message or reply leaves |
//! | recovery | `recovery` | Raft Fig. 2 | a node is back |
//! | one-process-an-identity | `boots` | design §3 | a message leaves; a link is up |
//! | fencing | `fence` | design §3, §4 | a step ends; a node goes silent |
//! | wiped-voter-stays-out | `fence` | design §3 | a step ends |
//! | incarnation-precedence | `precedence` | SWIM 4.2 | a member is held otherwise |
//! | suspicion-before-death | `suspicion` | SWIM 4.2 | a member is held otherwise |
//! | suspicion-refuted | `refutation` | SWIM 4.2 | gossip is heard |
//! | ack-of-who-was-asked | `vouched` | SWIM 3.1 | a probe counts as answered |
//! | suspect-is-told | `buddy` | Lifeguard IV-C | a ping leaves |
//! | verified-contacts-only | `hearsay` | design §5 | contacts leave |
//! | health-hysteresis | `hysteresis` | design §5 | a member's health turns |
//! | cheapest-is-chosen | `choice` | design §5 | with each link |
//! | supersedes-what-was-seen | `minted` | Bieniusa 2012 | a write is made |
//! | dot-minted-once | `dots` | Almeida 2018 | a write is logged |
//! | dead-write-stays-dead | `again` | Shapiro 2011 | a write is logged |
//! | hybrid-clock | `stamps` | Kulkarni 2014 | a write is logged |
//! | context-covers-what-is-known | `coverage` | Almeida 2018 | a write or a view is logged |
//! | bounded-memory | `bounds` | `core::limits`, `core::config` | a message leaves; with each link |
//! | unknown-message-is-dropped | `later` | design §5 | a message of a later version comes |
//! | progress | `world` | contract of `core::machine` | a tick is due at once |
//!
//! At the end of a run: `tenancy` (deleted-is-gone), `strong` (linearizable-search, linearizable-witness,
//! exactly-once), `eventual` (convergence, acknowledged-write-lost, write-from-nowhere), `spec`
//! (eventual-specification), `liveness`. A panic is `no-panic`; two processes that see two runs are `determinism`.
//! `ledger`, `views`, `writes` and `witness` remember what laws share.

pub(crate) mod again;
pub(crate) mod append_only;
pub(crate) mod boots;
pub(crate) mod bounds;
pub(crate) mod buddy;
pub(crate) mod cause;
pub(crate) mod choice;
pub(crate) mod commit;
pub(crate) mod completeness;
pub(crate) mod configurations;
pub(crate) mod coverage;
pub(crate) mod dots;
pub(crate) mod durability;
pub(crate) mod durable_marks;
pub(crate) mod election;
pub(crate) mod eventual;
pub(crate) mod fence;
pub(crate) mod fresh;
pub(crate) mod handover;
pub(crate) mod hearsay;
pub(crate) mod hysteresis;
pub(crate) mod later;
pub(crate) mod ledger;
pub(crate) mod linear;
pub(crate) mod liveness;
pub(crate) mod log_matching;
pub(crate) mod minted;
pub(crate) mod monotone;
#[cfg(test)]
mod planted;
pub(crate) mod precedence;
pub(crate) mod progress;
pub(crate) mod reads;
pub(crate) mod recovery;
pub(crate) mod refutation;
pub(crate) mod replaced;
pub(crate) mod replies;
pub(crate) mod sessions;
pub(crate) mod snapshots;
pub(crate) mod spec;
pub(crate) mod stamps;
pub(crate) mod state_safety;
pub(crate) mod strong;
pub(crate) mod suspicion;
pub(crate) mod tenancy;
pub(crate) mod up_to_date;
pub(crate) mod views;
pub(crate) mod vote;
pub(crate) mod vouched;
pub(crate) mod witness;
pub(crate) mod writes;

use std::collections::BTreeMap;

use continuum_core::id::{Boot, GroupId, Index, NodeId, Owner, Replica, Role, Term, Token};
use continuum_core::machine::Now;
use continuum_core::node::{Action, Message, Node, Notice};
use continuum_core::raft::Position;
use continuum_core::wal::Write;

use crate::durable::LogView;
use crate::process::Process;
pub(crate) use cause::Cause;
use ledger::Ledger;
use stamps::Wall;
use witness::Witness;
use writes::Author;

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

/// What binds one run.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// How long a member's health stays at least.
    pub(crate) dwell_ms: u64,
    /// How far ahead of the wall clock a stamp may be.
    pub(crate) ahead_ms: u64,
    /// What a message may carry.
    pub(crate) budgets: bounds::Budgets,
}

/// All that the oracles remember.
#[derive(Debug)]
pub(crate) struct Oracles {
    pub(crate) roster: Roster,
    pub(crate) ledger: Ledger,
    /// Per node.
    nodes: Vec<Seen>,
    /// All writes of the eventual namespaces.
    pub(crate) writes: writes::Writes,
    /// Per group of keys: what its committed entries amount to.
    witnesses: BTreeMap<GroupId, Witness>,
    reads: reads::Reads,
    fresh: fresh::Fresh,
    rules: Rules,
}

/// What one life of a node has shown.
#[derive(Debug, Default)]
struct Seen {
    groups: BTreeMap<GroupId, Watched>,
    view: views::View,
    turns: hysteresis::Turns,
    let_in: boots::LetIn,
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
    /// What a client wanted by that; what clients wait for, when a step makes writes that nobody asked of it.
    pub(crate) wanted: Vec<writes::Wanted<'a>>,
    /// What its clocks showed.
    pub(crate) now: Now,
}

impl Oracles {
    pub(crate) fn new(roster: Roster, rules: Rules) -> Self {
        let nodes = roster.replicas.len();
        Self {
            roster,
            ledger: Ledger::default(),
            nodes: (0..nodes).map(|_| Seen::default()).collect(),
            writes: writes::Writes::new(nodes),
            witnesses: BTreeMap::new(),
            reads: reads::Reads::default(),
            fresh: fresh::Fresh::default(),
            rules,
        }
    }

    /// What a group's committed entries amount to.
    pub(crate) fn witness(&self, group: GroupId) -> Option<&Witness> {
        self.witnesses.get(&group)
    }

    /// Looks at one step. What was applied comes last: an entry is first committed, and that is judged by the disks.
    pub(crate) fn observe(&mut self, step: &Step<'_>) -> Verdict {
        fence::check(step)?;
        if let Some((id, asks)) = &step.cause.request {
            self.fresh.arrives(step.me, *id, asks);
            if matches!(asks, cause::Asks::Read(_)) {
                self.reads.arrives(step, &self.roster, *id);
            }
        }
        for action in step.actions {
            match action {
                Action::Persist { token, write } => self.observe_write(step, *token, write)?,
                Action::Send { to, message, .. } => self.observe_send(step, *to, message)?,
                Action::Notify(Notice::Role { group, term, role, .. }) => {
                    self.observe_role(step, *group, *term, *role)?;
                }
                Action::Notify(Notice::Health { node, from, to }) => {
                    let state = step.node.gossip().member(*node).map(|member| member.state);
                    let turns = &mut self.nodes[step.me].turns;
                    turns.check(
                        step.now.mono,
                        self.rules.dwell_ms,
                        (*node, state),
                        (*from, *to),
                    )?;
                }
                _ => {}
            }
        }
        self.observe_peers(step)?;
        self.observe_progress(step)?;
        for action in step.actions {
            match action {
                Action::Notify(Notice::Applied { group, index }) => {
                    self.observe_applied(step, *group, *index)?;
                }
                Action::Reply { id, outcome } => {
                    self.reads.check(step, *id, outcome)?;
                    // The strong namespace's group is the first of keys: tenants come later.
                    let witness = self.witnesses.values().next();
                    self.fresh.check(step.me, *id, outcome, witness)?;
                }
                _ => {}
            }
        }
        self.writes.check_covered(step.me, step.node)
    }

    /// Links and gossip.
    fn observe_peers(&mut self, step: &Step<'_>) -> Verdict {
        let seen = &mut self.nodes[step.me];
        let rejects = |action: &Action| matches!(action, Action::Notify(Notice::Rejected { .. }));
        if let Some(there) = step.cause.connected {
            let refuses = |action: &Action| match action {
                Action::Refuse { peer, .. } => *peer == there.peer,
                _ => rejects(action),
            };
            let refused = step.node.is_fenced() || step.actions.iter().any(refuses);
            seen.let_in.check(there, refused)?;
        }
        if step.cause.is_other_message || step.node.is_fenced() {
            return Ok(());
        }
        let mut heard = step.cause.heard;
        // Who has not learnt yet that the accuser is a member does not listen.
        if step.actions.iter().any(rejects) {
            heard.accused = None;
        }
        seen.view.check_step(step.node, heard)
    }

    fn observe_write(&mut self, step: &Step<'_>, token: Token, write: &Write) -> Verdict {
        let seen = &mut self.nodes[step.me].groups;
        match write {
            Write::Hard { group, term, vote } => {
                let watched = seen.entry(*group).or_default();
                vote::check(&watched.view, *term, *vote)?;
                // A checkpoint names a vote again that was given before.
                let is_new = (watched.view.term, watched.view.vote) != (*term, *vote);
                let asks = step.cause.asks.filter(|(asked, ..)| asked == group && is_new);
                up_to_date::check(watched.view.last(), *vote, asks)?;
                (watched.view.term, watched.view.vote) = (*term, *vote);
            }
            Write::Append { group, prev, entries } => {
                let watched = seen.entry(*group).or_default();
                let ledger = self.ledger.group_mut(*group);
                replaced::check(watched, ledger, *prev, entries)?;
                append_only::check(watched, *prev, entries)?;
                log_matching::check(&watched.view, ledger, *prev, entries)?;
                configurations::check(ledger, entries)?;
                watched.view.append(*prev, entries);
            }
            // Who joins begins without a configuration, and learns it from the leader.
            Write::Genesis { group, configuration } if !configuration.voters.is_empty() => {
                let ledger = self.ledger.group_mut(*group);
                configurations::check_voters(&mut ledger.voters, configuration)?;
            }
            Write::Snapshot { owner: Owner::Group(group), position, .. } => {
                let watched = seen.entry(*group).or_default();
                snapshots::check(self.ledger.group_mut(*group), *position)?;
                // A checkpoint names a snapshot again that was there before.
                let is_new = watched.view.base != *position;
                let received = is_new && step.cause.chunk == Some((*group, *position));
                snapshots::check_install(watched.commit, *position, received)?;
                watched.view.install(*position);
            }
            Write::Forget { owner: Owner::Group(group) } => {
                seen.remove(group);
            }
            Write::Forget { owner: Owner::Shard(shard) } => {
                self.writes.forgotten(step.me, *shard);
            }
            Write::Dots { shard, records } => {
                let Process { replica, boot, .. } = step.processes[step.me];
                let wall = Wall { now_ms: step.now.wall.0, ahead_ms: self.rules.ahead_ms };
                let by = Author { number: step.me, replica, boot, wall, token };
                self.writes.observe(by, &step.wanted, *shard, records)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn observe_send(&mut self, step: &Step<'_>, to: NodeId, message: &Message) -> Verdict {
        let process = &step.processes[step.me];
        let durable = &process.disk.durable;
        boots::check_sent(process.boot, durable.boot)?;
        bounds::check_message(&self.rules.budgets, message)?;
        match message {
            Message::Raft { group, message } => {
                let receiver = self.roster.number(to).map(|number| self.roster.replica(number));
                let me = self.roster.replica(step.me);
                durability::check_raft(durable, me, receiver, *group, message)?;
                if let Some(receiver) = receiver {
                    handover::check(me, receiver, message)?;
                }
                election::check_message(self.ledger.group_mut(*group), step.me, message)
            }
            Message::Replication(message) => durability::check_replication(durable, message),
            Message::Gossip(message) => {
                let view = &mut self.nodes[step.me].view;
                view.probes.asks(to, message);
                if step.cause.is_persisted {
                    return Ok(());
                }
                view.check_sent(step.node, to, message)
            }
            _ if step.cause.is_persisted => Ok(()),
            Message::Contacts(contacts) => {
                hearsay::check(step.node.discovery().verified(), contacts)
            }
            _ => Ok(()),
        }
    }

    fn observe_role(&mut self, step: &Step<'_>, group: GroupId, term: Term, role: Role) -> Verdict {
        let watched = self.nodes[step.me].groups.entry(group).or_default();
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
        // Of a group that was deleted in the same step nothing can be looked at any more.
        if step.node.raft(group).is_none() {
            return Ok(());
        }
        let watched = self.nodes[step.me].groups.entry(group).or_default();
        let ledger = self.ledger.group_mut(group);
        monotone::check_applied(watched.applied, index)?;
        progress::check(index, watched.commit, watched.view.last().index)?;
        state_safety::check_applied(watched, ledger, index)?;
        watched.applied = index;
        // A step may apply twice, and only the state that it leaves can be looked at.
        let Some(state) = step.node.state(group).filter(|state| state.applied() == index) else {
            return Ok(());
        };
        if let Some(witness) = self.witnesses.get_mut(&group) {
            witness.follow(ledger)?;
            sessions::check(witness, state, index)?;
        }
        state_safety::check_state(step.me, state, ledger, group)
    }

    /// What a group's machine says of itself, against what it said before.
    fn observe_progress(&mut self, step: &Step<'_>) -> Verdict {
        for group in step.node.groups() {
            let Some(raft) = step.node.raft(group) else { continue };
            let watched = self.nodes[step.me].groups.entry(group).or_default();
            let (term, index) = (raft.term(), raft.commit());
            let durable = (raft.durable(), raft.last());
            if durable != watched.durable {
                watched.durable = durable;
                durable_marks::check(step, raft)?;
            }
            if term == watched.term && index == watched.commit {
                continue;
            }
            monotone::check_progress(watched, term, index)?;
            watched.term = term;
            if index > watched.commit {
                progress::check(watched.applied, index, watched.view.last().index)?;
                let ledger = self.ledger.group_mut(group);
                commit::check(step, &self.roster, watched, ledger, raft, index)?;
                watched.commit = index;
                if group != GroupId::REGISTRY {
                    self.witnesses.entry(group).or_default().follow(ledger)?;
                }
            }
        }
        Ok(())
    }

    /// The boot of a peer that this life of a node let in last.
    pub(crate) fn let_in(&self, me: usize, peer: NodeId) -> Option<Boot> {
        self.nodes[me].let_in.boot(peer)
    }

    /// A node ended.
    pub(crate) fn ended(&mut self, me: usize) {
        self.fresh.ended(me);
    }

    /// A node is back: what it holds now is what it shows from here on, and must be what its disk held.
    pub(crate) fn restarted(&mut self, process: &Process, me: usize) -> Verdict {
        let Some(node) = &process.node else { return Ok(()) };
        self.nodes[me] = Seen::default();
        self.writes.restarted(me, node, process.disk.persisted());
        for group in node.groups() {
            let Some(raft) = node.raft(group) else { continue };
            let view = recovery::view_of(raft);
            let watched = self.nodes[me].groups.entry(group).or_default();
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
