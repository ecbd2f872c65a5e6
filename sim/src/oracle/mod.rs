//! The oracles: laws that must hold after every event. Each file states one law with its source.
//!
//! An oracle looks at the actions of a step and at what they change, never at the whole state, so it costs as much as
//! the change. This file dispatches each action to the laws that it concerns. It does not judge anything itself.
//!
//! | law | file | source | checked when |
//! |---|---|---|---|
//! | election-safety | `election_safety` | Raft Fig. 3 | a role begins; a leader's message leaves |
//! | one-vote-per-term | `one_vote_per_term` | Raft §5.2 | a term and vote are written |
//! | vote-for-up-to-date-log | `vote_for_up_to_date_log` | Raft §5.4.1 | a vote is written |
//! | leader-append-only | `leader_append_only` | Raft Fig. 3 | entries are written |
//! | log-matching | `log_matching` | Raft Fig. 3 | entries are written |
//! | committed-entry-replaced | `committed_entry_replaced` | Raft §5.4 | entries are written |
//! | one-configuration | `one_configuration` | Raft §6 | entries are written; a log moves |
//! | group-time | `group_time` | contract of `raft::Entry` | entries are written |
//! | one-genesis | `one_genesis` | README, Guarantees: one federation | a step ends; a node restarts |
//! | leader-completeness | `leader_completeness` | Raft Fig. 3 | a leader begins |
//! | commit-rule | `commit_rule` | Raft §5.4.2, Fig. 8 | a commit index moves |
//! | durable-marks | `durable_marks` | README, Guarantees: a promise | a durable mark moves |
//! | monotone | `monotone` | Raft §5.1, Fig. 2 | a term, commit or applied index moves |
//! | applied-commit-last | `applied_commit_last` | Raft Fig. 2 | a commit or applied index moves |
//! | state-machine-safety | `state_machine_safety` | Raft Fig. 3 | entries are applied |
//! | session-applied-once | `session_applied_once` | thesis §6.3 | entries are applied |
//! | exactly-once | `witness` | thesis §6.3 | an entry is committed |
//! | snapshot-of-committed | `snapshot_of_committed` | Raft §7, Fig. 13 | a snapshot is named |
//! | file-before-record | `file_before_record` | README, Guarantees: a promise | a snapshot file is named |
//! | transfer-ends | `transfer_ends` | thesis §3.10 | a leader transfers leadership |
//! | read-after-leadership | `read_after_leadership` | Raft §8, thesis §6.4 | a read arrives and is answered |
//! | read-sees-acknowledged | `read_sees_acknowledged` | Herlihy and Wing 1990 | a read arrives and is answered |
//! | answer-to-its-own-try | `answer_to_its_own_try` | README, Guarantees: what an answer means | an answer arrives |
//! | one-reply | `one_reply` | contract of `node::Action` | a reply leaves; each trace link; the end of a run |
//! | durability-at-send | `durability_at_send` | README, Guarantees: a promise | a message or reply leaves |
//! | replicated-level | `replicated_level` | README, Guarantees: what an answer means | a reply leaves |
//! | recovery | `recovery` | Raft Fig. 2 | a node restarts |
//! | one-process-per-identity | `one_process_per_identity` | README, Guarantees: an identity | a message; a link |
//! | fencing | `fencing` | README, Guarantees: a failed `fsync` | a step of a fenced node ends |
//! | wiped-voter-never-votes | `fencing` | README, Guarantees: an identity | a step ends |
//! | incarnation-precedence | `incarnation_precedence` | SWIM 4.2 | a node's view of a member changes |
//! | suspicion-before-death | `suspicion_before_death` | SWIM 4.2 | a node's view of a member changes |
//! | suspicion-refuted | `suspicion_refuted` | SWIM 4.2 | gossip is received |
//! | ack-from-pinged-member | `ack_from_pinged_member` | SWIM 3.1 | a probe counts as answered |
//! | suspect-is-told | `suspect_is_told` | Lifeguard IV-C | a ping leaves |
//! | verified-contacts-only | `verified_contacts_only` | contract of `core::discovery` | contacts leave |
//! | health-hysteresis | `health_hysteresis` | contract of `core::coordinator` | a member's health changes |
//! | cheapest-is-chosen | `cheapest_is_chosen` | contract of `core::coordinator` | each trace link |
//! | write-says-what-was-asked | `write_says_what_was_asked` | README, Guarantees: an answer | a write is made |
//! | supersedes-what-was-seen | `supersedes_what_was_seen` | Bieniusa 2012 | a write is made |
//! | eventual-read | `eventual_read` | Shapiro 2011, Bieniusa 2012 | a read arrives and is answered |
//! | dot-minted-once | `dot_minted_once` | Almeida 2018 | a write is logged |
//! | dead-write-stays-dead | `dead_write_stays_dead` | Shapiro 2011 | a write is logged |
//! | hybrid-clock | `hybrid_clock` | Kulkarni 2014 | a write is logged |
//! | context-covers-what-is-known | `context_covers_what_is_known` | Almeida 2018 | a write or a view is logged |
//! | bounded-memory | `bounded_memory` | `core::limits`, `core::config` | a message leaves; each trace link |
//! | bounded-step | `bounded_step` | README, Guarantees: a node answers while it works | a step ends |
//! | bounded-dials | `bounded_dials` | contract of `core::discovery` | an address is dialled |
//! | standing | `standing` | contract of `core::node::standing` | a hostile message arrives |
//! | unknown-message-is-dropped | `unknown_message_is_dropped` | contract of `node::MessageError` | its arrival |
//! | progress | `world` | contract of `core::machine` | a tick is due at once |
//! | deleted-is-gone | `deleted_is_gone` | README, Guarantees: a deleted namespace | the end of a run |
//! | linearizable-search | `strong`, `linear` | Herlihy and Wing 1990 | the end of a run |
//! | linearizable-witness | `strong` | Herlihy and Wing 1990 | the end of a run |
//! | exactly-once | `strong` | thesis §6.3 | the end of a run |
//! | convergence | `eventual` | Shapiro 2011 | the end of a run |
//! | acknowledged-write-lost | `eventual`, `writes` | Bieniusa 2012; README, Guarantees | the end of a run |
//! | read-then-overwritten | `read_then_overwritten` | README, Guarantees: a context | the end of a run |
//! | write-from-nowhere | `eventual` | README, Guarantees: what an answer means | the end of a run |
//! | eventual-specification | `eventual_specification` | Shapiro 2011, Bieniusa 2012 | the end of a run |
//! | liveness | `liveness` | Raft §5.6 | after healing |
//! | majority-serves | `majority_serves` | Raft §5.6 | a strong write is answered, or waits for too long |
//! | needless-election | `needless_election` | thesis §9.6, §6.2 | an election begins; a leader leaves its office |
//! | handover-succeeds | `handover_succeeds` | thesis §3.10 | a leader is asked to stop, or its disk is full |
//! | false-death | `false_death` | SWIM 4.2, Lifeguard | a member is declared dead, or stays dead for too long |
//! | no-panic | `run` | contract of `core::machine` | always |
//! | no-abort | `campaign` | contract of `core::machine` | a worker process dies |
//! | determinism | `campaign` | contract of `core::machine` | two processes run one seed |
//!
//! `ledger`, `views`, `writes`, `soundness` and `witness` remember what several laws share; they do not state a law,
//! except that `witness` reports exactly-once. `replicas` and `roster` are parts of
//! this file. `cause` extracts from an event what the laws need. `planted` tests the oracles.

pub(crate) mod ack_from_pinged_member;
pub(crate) mod answer_to_its_own_try;
pub(crate) mod applied_commit_last;
pub(crate) mod bounded_dials;
pub(crate) mod bounded_memory;
pub(crate) mod bounded_step;
pub(crate) mod cause;
pub(crate) mod cheapest_is_chosen;
pub(crate) mod commit_rule;
pub(crate) mod committed_entry_replaced;
pub(crate) mod context_covers_what_is_known;
pub(crate) mod dead_write_stays_dead;
pub(crate) mod deleted_is_gone;
pub(crate) mod dot_minted_once;
pub(crate) mod durability_at_send;
pub(crate) mod durable_marks;
pub(crate) mod election_safety;
pub(crate) mod eventual;
pub(crate) mod eventual_read;
pub(crate) mod eventual_specification;
pub(crate) mod false_death;
pub(crate) mod fencing;
pub(crate) mod file_before_record;
pub(crate) mod group_time;
pub(crate) mod handover_succeeds;
pub(crate) mod health_hysteresis;
pub(crate) mod hybrid_clock;
pub(crate) mod incarnation_precedence;
pub(crate) mod leader_append_only;
pub(crate) mod leader_completeness;
pub(crate) mod ledger;
pub(crate) mod linear;
pub(crate) mod liveness;
pub(crate) mod log_matching;
pub(crate) mod majority_serves;
pub(crate) mod monotone;
pub(crate) mod needless_election;
pub(crate) mod one_configuration;
pub(crate) mod one_genesis;
pub(crate) mod one_process_per_identity;
pub(crate) mod one_reply;
pub(crate) mod one_vote_per_term;
pub(crate) mod page;
#[cfg(test)]
mod planted;
pub(crate) mod read_after_leadership;
pub(crate) mod read_sees_acknowledged;
pub(crate) mod read_then_overwritten;
pub(crate) mod recovery;
mod replicas;
pub(crate) mod replicated_level;
mod roster;
pub(crate) mod session_applied_once;
pub(crate) mod snapshot_of_committed;
pub(crate) mod soundness;
pub(crate) mod standing;
pub(crate) mod state_machine_safety;
pub(crate) mod strong;
pub(crate) mod supersedes_what_was_seen;
pub(crate) mod suspect_is_told;
pub(crate) mod suspicion_before_death;
pub(crate) mod suspicion_refuted;
mod told;
pub(crate) mod transfer_ends;
pub(crate) mod unknown_message_is_dropped;
pub(crate) mod verified_contacts_only;
pub(crate) mod views;
pub(crate) mod vote_for_up_to_date_log;
pub(crate) mod witness;
pub(crate) mod write_says_what_was_asked;
pub(crate) mod writes;

use std::collections::BTreeMap;

use continuum_core::id::{Boot, GroupId, Index, NodeId, ShardId, Term, Token};
use continuum_core::machine::Now;
use continuum_core::node::{Action, Message, Node, Notice};
use continuum_core::raft::{self, Position};
use continuum_core::replication;
use continuum_core::wal::Write;

use crate::env::durable::LogView;
use crate::env::process::Process;
use crate::trace::fingerprint;
use crate::verdict::Verdict;
pub(crate) use cause::Cause;
use hybrid_clock::Wall;
use ledger::Ledger;
pub(crate) use roster::Roster;
use witness::{SessionRules, Witness};
use writes::Author;

/// The observed state of one replica of a group.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// The log and hard state that the replica wrote, whether or not they are durable.
    pub(crate) view: LogView,
    /// The term that it leads, if it leads.
    pub(crate) leads: Option<Term>,
    pub(crate) commit: Index,
    pub(crate) applied: Index,
    /// The term that its machine reports.
    pub(crate) term: Term,
    /// The index up to which it counts its log as durable, and the last entry of its log.
    pub(crate) durable: (Index, Position),
}

/// The configured bounds that the laws of one run use.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The least time between two changes of a member's health.
    pub(crate) dwell_ms: u64,
    /// How far ahead of the wall clock a stamp may be.
    pub(crate) ahead_ms: u64,
    pub(crate) election_timeout_ms: u64,
    /// Whether the plan lets few requests wait in a node, so that it may refuse one as busy.
    pub(crate) few_requests: bool,
    pub(crate) sessions: SessionRules,
    /// The size limits of messages and of a node's memory.
    pub(crate) budgets: bounded_memory::Budgets,
}

/// The memory of all oracles.
#[derive(Debug)]
pub(crate) struct Oracles {
    pub(crate) roster: Roster,
    pub(crate) ledger: Ledger,
    /// By node number.
    nodes: Vec<ObservedNode>,
    /// All writes of the eventual namespaces.
    pub(crate) writes: writes::Writes,
    /// By data group: the model state after its committed entries.
    witnesses: BTreeMap<GroupId, Witness>,
    tries: answer_to_its_own_try::Tries,
    loads: cheapest_is_chosen::Loads,
    reads: read_after_leadership::Reads,
    acknowledged: read_sees_acknowledged::Acknowledged,
    eventual_reads: eventual_read::Reads,
    /// All foundings.
    pub(crate) geneses: one_genesis::Geneses,
    /// How long nodes and links have been sound.
    pub(crate) soundness: soundness::Soundness,
    requests: majority_serves::Requests,
    offices: needless_election::Offices,
    handovers: handover_succeeds::Handovers,
    hangs: handover_succeeds::Hangs,
    rules: Rules,
}

/// The observations of one process life of a node.
#[derive(Debug, Default)]
struct ObservedNode {
    groups: BTreeMap<GroupId, Watched>,
    view: views::View,
    health: health_hysteresis::HealthChanges,
    admitted: one_process_per_identity::AdmittedPeers,
    /// It was told that its disk is full.
    is_full: bool,
    dials: bounded_dials::Dials,
}

/// One step that a node has just taken.
pub(crate) struct Step<'a> {
    pub(crate) me: usize,
    pub(crate) node: &'a Node,
    pub(crate) actions: &'a [Action],
    /// All processes; the laws read their disks.
    pub(crate) processes: &'a [Process],
    /// The facts about the event that the laws need.
    pub(crate) cause: Cause,
    /// The client's mutations that the event carried; if it carried none, those of all clients that still wait.
    pub(crate) wanted: Vec<writes::RequestedWrite<'a>>,
    /// The node's clocks at the step.
    pub(crate) now: Now,
    /// The virtual time.
    pub(crate) at: u64,
}

impl Oracles {
    pub(crate) fn new(roster: Roster, voters: usize, rules: Rules) -> Self {
        let nodes = roster.replicas.len();
        let first_voters = roster.replicas[..voters].to_vec();
        Self {
            roster,
            ledger: Ledger::default(),
            nodes: (0..nodes).map(|_| ObservedNode::default()).collect(),
            writes: writes::Writes::new(nodes),
            witnesses: BTreeMap::new(),
            tries: answer_to_its_own_try::Tries::default(),
            loads: cheapest_is_chosen::Loads::default(),
            reads: read_after_leadership::Reads::default(),
            acknowledged: read_sees_acknowledged::Acknowledged::default(),
            eventual_reads: eventual_read::Reads::default(),
            geneses: one_genesis::Geneses::new(first_voters),
            soundness: soundness::Soundness::new(voters),
            requests: majority_serves::Requests::new(rules.election_timeout_ms, rules.few_requests),
            offices: needless_election::Offices::new(rules.election_timeout_ms),
            handovers: handover_succeeds::Handovers::new(rules.election_timeout_ms),
            hangs: handover_succeeds::Hangs::default(),
            rules,
        }
    }

    /// The model state after a group's committed entries.
    pub(crate) fn witness(&self, group: GroupId) -> Option<&Witness> {
        self.witnesses.get(&group)
    }

    /// Judges one step. Applied entries come last, because an entry is committed before it is applied, and the commit
    /// rule is judged by the disks.
    pub(crate) fn observe(&mut self, step: &Step<'_>) -> Verdict {
        fencing::check(step)?;
        self.tries.check(step, &self.roster)?;
        self.geneses.observe(step)?;
        if self.geneses.is_rival(step.node) {
            // The plan's federation is the one that the other laws follow.
            return Ok(());
        }
        let observed = &mut self.nodes[step.me];
        let was_full = observed.is_full;
        observed.is_full = step.cause.full.unwrap_or(was_full);
        if step.cause.stops || observed.is_full && !was_full {
            self.observe_way_given(step);
        }
        if let Some((id, asks)) = &step.cause.request {
            self.acknowledged.arrives(step.me, *id, asks);
            if matches!(asks, cause::Asks::Write(_)) {
                self.requests.arrives(&self.soundness, step.me, *id, step.at);
            }
            if matches!(asks, cause::Asks::Read(_)) {
                self.reads.arrives(step, &self.roster, *id);
            }
            if let cause::Asks::ReadOther(namespace, query) = asks
                && let Some(expected) = self.writes.expect_read(step, namespace, query)?
            {
                self.eventual_reads.arrives(step.me, *id, query.clone(), expected);
            }
        }
        if let Some((group, from, id)) = step.cause.read_index {
            self.reads.forwarded(step, &self.roster, group, (from, id));
        }
        for action in step.actions {
            match action {
                Action::Persist { token, write } => self.observe_write(step, *token, write)?,
                Action::Send { to, message, .. } => self.observe_send(step, *to, message)?,
                Action::Verify { .. } | Action::Route { .. } => {
                    self.nodes[step.me].dials.observe(step, action, &self.rules.budgets)?;
                }
                Action::Notify(Notice::Role { group, term, role, .. }) => {
                    self.observe_role(step, *group, *term, *role)?;
                }
                Action::Notify(Notice::Health { node, from, to }) => {
                    let state = step.node.gossip().member(*node).map(|member| member.state);
                    let health = &mut self.nodes[step.me].health;
                    health.check(
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
                    self.requests.answers(&self.soundness, step.me, *id, outcome)?;
                    self.reads.check(step, *id, outcome)?;
                    self.eventual_reads.check(step.me, *id, outcome)?;
                    // The strong namespace has the first data group: churn clients create other namespaces later.
                    let witness = self.witnesses.values().next();
                    self.acknowledged.check(step.me, *id, outcome, witness)?;
                }
                _ => {}
            }
        }
        self.writes.check_covered(step.me, step.node)
    }

    /// Judges links and gossip.
    fn observe_peers(&mut self, step: &Step<'_>) -> Verdict {
        let observed = &mut self.nodes[step.me];
        let rejects = |action: &Action| {
            let dropped = |notice: &Notice| {
                matches!(notice, Notice::Rejected { .. } | Notice::OtherGenesis { .. })
            };
            matches!(action, Action::Notify(notice) if dropped(notice))
        };
        if let Some(process) = step.cause.connected {
            let refuses = |action: &Action| match action {
                Action::Refuse { peer, .. } => *peer == process.peer,
                _ => rejects(action),
            };
            let refused = step.node.is_fenced() || step.actions.iter().any(refuses);
            observed.admitted.check(process, refused)?;
        }
        if step.cause.is_other_message || step.node.is_fenced() {
            return Ok(());
        }
        let mut heard = step.cause.heard;
        // A node ignores gossip of a sender that it does not yet know as a member.
        if step.actions.iter().any(rejects) {
            heard.about_me = None;
        }
        observed.view.check_step(step.node, step.at, heard)?;
        let number = |member| self.roster.running(step.processes, member);
        observed.view.deaths.check_declared(&self.soundness, step.me, number)
    }

    fn observe_write(&mut self, step: &Step<'_>, token: Token, write: &Write) -> Verdict {
        match write {
            Write::Boot { .. }
            | Write::Contacts { .. }
            | Write::Welcomed { .. }
            | Write::Accepted { .. }
            | Write::Released { .. } => Ok(()),
            Write::Group { group, write } => self.observe_group_write(step, *group, write),
            Write::Shard { shard, write } => self.observe_shard_write(step, token, *shard, write),
        }
    }

    fn observe_group_write(
        &mut self,
        step: &Step<'_>,
        group: GroupId,
        write: &raft::Write,
    ) -> Verdict {
        let groups = &mut self.nodes[step.me].groups;
        match write {
            raft::Write::Hard { term, vote } => {
                let watched = groups.entry(group).or_default();
                one_vote_per_term::check(&watched.view, *term, *vote)?;
                if *term > watched.view.term && *vote == Some(step.processes[step.me].replica) {
                    self.offices.campaigns(&self.soundness, (step.me, step.at), group, *term)?;
                }
                // A checkpoint writes an earlier vote again.
                let is_new = (watched.view.term, watched.view.vote) != (*term, *vote);
                let asks = step.cause.asks.filter(|(asked, ..)| *asked == group && is_new);
                vote_for_up_to_date_log::check(watched.view.last(), *vote, asks)?;
                (watched.view.term, watched.view.vote) = (*term, *vote);
            }
            raft::Write::Append { prev, entries } => {
                let watched = groups.entry(group).or_default();
                let ledger = self.ledger.group_mut(group);
                committed_entry_replaced::check(watched, ledger, *prev, entries)?;
                leader_append_only::check(watched, *prev, entries)?;
                log_matching::check(&watched.view, ledger, *prev, entries)?;
                group_time::check(&watched.view, ledger, *prev, entries)?;
                one_configuration::check(&watched.view, ledger, *prev, entries)?;
                watched.view.append(*prev, entries);
            }
            // A joining node begins without a configuration and learns it from the leader.
            raft::Write::Genesis { configuration, .. } if !configuration.voters.is_empty() => {
                let ledger = self.ledger.group_mut(group);
                one_configuration::check_voters(&mut ledger.configurations, configuration)?;
            }
            raft::Write::Snapshot { file, position, .. } => {
                file_before_record::check(&step.processes[step.me].disk.durable, file)?;
                let watched = groups.entry(group).or_default();
                snapshot_of_committed::check(self.ledger.group_mut(group), *position)?;
                // A checkpoint names an earlier snapshot again. A leader's file has the highest bit.
                let is_new = watched.view.base != *position;
                let received = is_new && file.id.0 >> 63 == 1;
                snapshot_of_committed::check_install(watched.commit, *position, received)?;
                watched.view.install(*position);
            }
            raft::Write::Forget => {
                groups.remove(&group);
                self.handovers.forgets(group);
            }
            raft::Write::Genesis { .. } | raft::Write::Commit { .. } => {}
        }
        Ok(())
    }

    fn observe_shard_write(
        &mut self,
        step: &Step<'_>,
        token: Token,
        shard: ShardId,
        write: &replication::Write,
    ) -> Verdict {
        match write {
            replication::Write::Dots { records } => {
                let Process { replica, boot, .. } = step.processes[step.me];
                let wall = Wall { now_ms: step.now.wall.0, ahead_ms: self.rules.ahead_ms };
                let node = step.processes[step.me].node.as_ref();
                let discards = node.is_some_and(|node| writes::discards(node, shard.namespace));
                let by = Author { number: step.me, replica, boot, wall, discards, token };
                self.writes.observe(by, step.node, &step.wanted, shard, records)
            }
            replication::Write::Forget => {
                self.writes.forgotten(step.me, shard);
                Ok(())
            }
            replication::Write::Snapshot { file, .. } => {
                file_before_record::check(&step.processes[step.me].disk.durable, file)
            }
        }
    }

    fn observe_send(&mut self, step: &Step<'_>, to: NodeId, message: &Message) -> Verdict {
        let process = &step.processes[step.me];
        let durable = &process.disk.durable;
        one_process_per_identity::check_sent(process.boot, durable.boot)?;
        bounded_memory::check_message(&self.rules.budgets, message)?;
        if let (Message::Forward { id, request, .. }, Some(to)) = (message, self.roster.number(to))
        {
            self.tries.sends(step.me, to, *id, fingerprint(request));
        }
        match message {
            Message::Raft { group, message, .. } => {
                let receiver = self.roster.number(to).map(|number| self.roster.replica(number));
                let me = self.roster.replica(step.me);
                durability_at_send::check_raft(durable, me, receiver, *group, message)?;
                self.reads.check_forwarded(step.me, *group, to, message)?;
                if let Some(receiver) = receiver {
                    transfer_ends::check(me, receiver, message)?;
                    self.observe_transfer(step.me, *group, receiver, message);
                }
                election_safety::check_message(self.ledger.group_mut(*group), step.me, message)
            }
            Message::Replication { message, .. } => {
                durability_at_send::check_replication(durable, message)
            }
            Message::Gossip { message, .. } => {
                self.loads.reports(self.roster.replica(step.me).node, message);
                let view = &mut self.nodes[step.me].view;
                view.probes.record_request(to, message);
                if step.cause.releases {
                    return Ok(());
                }
                view.check_sent(step.node, to, message)
            }
            _ if step.cause.releases => Ok(()),
            Message::Contacts(contacts) => {
                verified_contacts_only::check(step.node.discovery().verified(), contacts)
            }
            _ => Ok(()),
        }
    }

    /// The boot of a peer that this process life of a node admitted last.
    pub(crate) fn let_in(&self, me: usize, peer: NodeId) -> Option<Boot> {
        self.nodes[me].admitted.boot(peer)
    }

    /// Notes that a node's process ended.
    pub(crate) fn ended(&mut self, me: usize) {
        self.acknowledged.ended(me);
        self.requests.ended(me);
        self.offices.ended(me);
        self.tries.ended(me);
        self.reads.ended(me);
        self.eventual_reads.ended(me);
    }

    /// Judges a restarted node against its disk, and begins to observe its new process life.
    pub(crate) fn restarted(&mut self, process: &Process, me: usize) -> Verdict {
        let Some(node) = &process.node else { return Ok(()) };
        self.nodes[me] = ObservedNode::default();
        self.geneses.restarted(me, process)?;
        if self.geneses.is_rival(node) {
            return Ok(());
        }
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
