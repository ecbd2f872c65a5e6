//! Requests of strong namespaces and of the registry. A write is proposed where this node leads, and else forwarded. A
//! read is served by any node that holds the group, at an index that the leader confirmed (§6.4 of Ongaro's thesis).
//!
//! The entry that is applied at a proposal's index decides the proposal. An entry of the same term is the proposal
//! itself. An entry of another term proves that the proposal never happens, so it is safe to propose again.
//!
//! This module does not replicate (`raft`) and does not know what a command does (`state`).

use alloc::collections::BTreeSet;

use core::time::Duration;

use bytes::Bytes;

use crate::api::{Bound, Level, MemberInfo, Outcome, Query, Reason, Request, Secret};
use crate::id::{GroupId, Index, Role, Term, Writer};
use crate::raft::{self, Position, RefusalReason, Ticket};
use crate::state::{Command, Operation};
use crate::{mutant, reach};

use super::super::machine::{Node, Task};
use super::export::Export;
use super::{Origin, Stage, check, is_write};

/// Election timeouts for which a group may be without a leader before its requests are refused at once. The first try
/// of an election takes at most two of them, and a split vote two more.
const LEADERLESS_TIMEOUTS: u64 = 4;

impl Node {
    /// Proposes a write, forwards it to the leader, or lets it wait for one.
    pub(super) fn write_strong(&mut self, key: u64, group: GroupId) {
        if let Some(reason) = self.forbidden(key, group) {
            return self.refuse(key, reason);
        }
        let (role, leader) = match self.groups.get(&group) {
            Some(known) => match known.halted() {
                None => (known.raft.role(), known.raft.leader()),
                Some(reason) => return self.refuse(key, reason),
            },
            // This node has not opened the group yet. Voters of group 0 hold every group.
            None => return self.forward_to_voter(key, group),
        };
        if role == Role::Leader {
            return self.propose(key, group);
        }
        if self.is_leaderless(group) {
            return self.refuse(key, Reason::NoLeader);
        }
        match leader {
            Some(leader) if leader != self.me => self.forward_to_leader(key, group, leader),
            _ => self.wait_for_leader(key, group),
        }
    }

    /// Why this write must not be logged: its namespace has the other consistency, or it joins a replica that may not
    /// join. `None` when it may be logged.
    fn forbidden(&self, key: u64, group: GroupId) -> Option<Reason> {
        match &self.requests.pending.get(&key)?.request {
            Request::Write { mutations, level, .. } => {
                let fits = check::check_consistency(mutations, true);
                fits.and_then(|()| self.check_replicas(group, *level)).err()
            }
            Request::Join { replica, genesis, .. } => self.check_join(*replica, *genesis).err(),
            _ => None,
        }
    }

    /// Refuses a level that asks for more replicas than the group has beside one.
    fn check_replicas(&self, group: GroupId, level: Level) -> Result<(), Reason> {
        let (Level::Replicated(wanted), Some(known)) = (level, self.groups.get(&group)) else {
            return Ok(());
        };
        let others = known.raft.configuration().voters.len().saturating_sub(1);
        check::within(Bound::Replicas, usize::from(wanted), 0, others)
    }

    fn propose(&mut self, key: u64, group: GroupId) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let command = match command(&pending.request, || self.draw_secret(key)) {
            Ok(command) => command,
            Err(reason) => return self.refuse(key, reason),
        };
        self.set_stage(key, Stage::Asked(group));
        self.enqueue(Task::Raft(group, raft::Event::Propose { ticket: key, command }));
    }

    /// Draws a key for contexts. `number` is one that no other draw of this process has.
    pub(in crate::node) fn draw_secret(&self, number: u64) -> Secret {
        let mut stream = self.seed.derive("node.context_key", number);
        let mut secret = Secret([0; 32]);
        secret.0.chunks_mut(8).for_each(|part| part.copy_from_slice(&stream.draw().to_be_bytes()));
        secret
    }

    /// The proposal is in the log: the entry that is applied at its index decides it.
    pub(in crate::node) fn on_proposed(&mut self, group: GroupId, key: Ticket, at: Position) {
        if !self.requests.pending.contains_key(&key) {
            return;
        }
        self.set_stage(key, Stage::Logged(group, at));
        if let Some(known) = self.groups.get_mut(&group) {
            known.proposals.insert((at.index, at.term), key);
        }
    }

    /// Raft refuses a proposal or a read. This try logged nothing.
    pub(in crate::node) fn on_refused(&mut self, group: GroupId, key: Ticket, why: RefusalReason) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if matches!(pending.stage, Stage::Asked(_)) {
            // Raft refuses before it logs anything.
            pending.stage = Stage::New;
        }
        match why {
            RefusalReason::Busy => self.refuse(key, Reason::Busy),
            RefusalReason::NotLeader(_)
            | RefusalReason::LostLeadership
            | RefusalReason::InvalidChange => {
                reach!("node.request.refused");
                self.wait_for_leader(key, group);
            }
        }
    }

    /// Lets a request wait until a leader is known. A forwarded request is refused, because its first node waits.
    pub(super) fn wait_for_leader(&mut self, key: u64, group: GroupId) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        if matches!(pending.origin, Origin::Peer(..)) {
            return self.refuse(key, Reason::NoLeader);
        }
        if self.is_leaderless(group) {
            return self.refuse(key, Reason::NoLeader);
        }
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        reach!("node.request.waits_for_leader");
        pending.stage = Stage::Waiting(group);
        if let Some(known) = self.groups.get_mut(&group) {
            known.waiting.insert(key);
        }
        self.schedule_retry(key);
    }

    /// Whether no leader of the group has been known for longer than elections take. A client that is told so at once
    /// can ask another node; one that waits for the timeout of its request cannot.
    fn is_leaderless(&mut self, group: GroupId) -> bool {
        let Some(known) = self.groups.get(&group) else { return false };
        let is_silent = known.raft.leader().is_none() || self.hears_no_leader(known);
        let now = self.now.mono;
        let Some(known) = self.groups.get_mut(&group) else { return false };
        if !is_silent {
            known.leaderless_since = None;
            return false;
        }
        let since = *known.leaderless_since.get_or_insert(now);
        let timeout_ms = self.config.raft.election_timeout_ms;
        let is_long = now.since(since) >= Duration::from_millis(LEADERLESS_TIMEOUTS * timeout_ms);
        if is_long {
            reach!("node.request.leaderless");
        }
        is_long
    }

    /// The group's leader may be known now: retries the requests that wait for it.
    pub(in crate::node) fn wake(&mut self, group: GroupId) {
        let Some(known) = self.groups.get_mut(&group) else { return };
        for key in core::mem::take(&mut known.waiting) {
            self.retry(key);
        }
    }

    /// Starts a linearizable read, on a voter of group 0 when this node lacks the group. The pages of an export are
    /// read here alone.
    pub(super) fn read_strong(&mut self, key: u64, group: GroupId) {
        let export = self.asked_export(key);
        if let Some(reason) = export.and_then(|export| self.keeps_from_export(group, export)) {
            return self.refuse(key, reason);
        }
        let Some(known) = self.groups.get(&group) else {
            if export.is_none() {
                return self.forward_to_voter(key, group);
            }
            // A learner that lags opens the group soon.
            return self.wait_for_leader(key, group);
        };
        if let Some(reason) = known.halted() {
            return self.refuse(key, reason);
        }
        if export == Some(Export::GoesOn) {
            // Its moment was confirmed when it began.
            return self.serve_strong(key, group);
        }
        let leader = known.raft.leader().filter(|leader| *leader != self.me);
        if let Some(leader) = leader.filter(|_| self.phase.disk_stalled) {
            // Entries that are not durable here are not applied here.
            reach!("node.read.past_stalled_disk");
            return self.forward_to_leader(key, group, leader);
        }
        self.set_stage(key, Stage::Asked(group));
        self.read_index(key, group);
    }

    /// Asks Raft for an index to read at.
    pub(super) fn read_index(&mut self, key: u64, group: GroupId) {
        if mutant!("node.read.stale_local") {
            return self.serve_strong(key, group);
        }
        if self.is_leaderless(group) {
            return self.refuse(key, Reason::NoLeader);
        }
        self.enqueue(Task::Raft(group, raft::Event::Read { ticket: key }));
        self.schedule_retry(key);
    }

    /// A read may be served once `index` is applied here.
    pub(in crate::node) fn on_readable(&mut self, group: GroupId, key: Ticket, index: Index) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let Some(known) = self.groups.get_mut(&group) else { return };
        if known.applied >= index {
            return self.serve_strong(key, group);
        }
        if let Some(reason) = known.halted() {
            return self.refuse(key, reason);
        }
        reach!("node.read.waits_for_apply");
        known.reads.insert((index, key));
        if pending.stage != Stage::ResolvingName {
            self.set_stage(key, Stage::Reading(group));
        }
    }

    /// Serves the reads whose index is applied now.
    pub(in crate::node) fn serve_reads(&mut self, group: GroupId) {
        while let Some(known) = self.groups.get_mut(&group)
            && known.reads.first().is_some_and(|(index, _)| *index <= known.applied)
        {
            if let Some((_, key)) = known.reads.pop_first() {
                self.serve_strong(key, group);
            }
        }
    }

    /// Serves a confirmed read from the local state. A read that resolved a namespace's name submits its request again.
    fn serve_strong(&mut self, key: u64, group: GroupId) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if pending.stage == Stage::ResolvingName {
            pending.name_checked = true;
            pending.stage = Stage::New;
            return self.enqueue(Task::Submit(key));
        }
        let outcome = match &pending.request {
            Request::Namespaces => self.namespaces(),
            Request::Read { query: query @ Query::Export { .. }, .. } => {
                let query = query.clone();
                self.export_page(group, &query)
            }
            Request::Read { query, .. } => match self.groups.get(&group) {
                Some(known) => known.read(query),
                None => Outcome::Rejected(Reason::UnknownNamespace),
            },
            _ => return,
        };
        self.finish(key, outcome);
    }

    /// Takes out the next proposal that was logged at or before `index`, with its position.
    fn next_decided(&mut self, group: GroupId, index: Index) -> Option<(Position, u64)> {
        let known = self.groups.get_mut(&group)?;
        let first = known.proposals.first_entry().filter(|first| first.key().0 <= index)?;
        let ((index, term), key) = first.remove_entry();
        Some((Position { term, index }, key))
    }

    /// An entry was applied and decides the proposals at its index. `outcome` is the outcome of its command.
    pub(in crate::node) fn decide(&mut self, group: GroupId, at: Position, outcome: Outcome) {
        let mut outcome = Some(outcome);
        while let Some((logged, key)) = self.next_decided(group, at.index) {
            match outcome.take_if(|_| logged == at || mutant!("node.request.other_term_counts")) {
                Some(outcome) if group == GroupId::REGISTRY => {
                    // A client that was told of a namespace finds it here, also when this node restarts alone.
                    let token = self.gate.newest(Writer::Group(group));
                    self.finish_after(key, outcome, token);
                }
                Some(outcome) => self.committed(key, outcome),
                None => {
                    // Another leader's entry is committed there, so this proposal can never be.
                    reach!("node.request.superseded");
                    self.retry(key);
                }
            }
        }
    }

    /// A snapshot moved the group's state past these indices. Proposals there are decided, in a way unknown here.
    pub(in crate::node) fn skip(&mut self, group: GroupId, to: Index) {
        let Some(known) = self.groups.get_mut(&group) else { return };
        let later = known.proposals.split_off(&(to.next(), Term(0)));
        let skipped: BTreeSet<u64> =
            core::mem::replace(&mut known.proposals, later).into_values().collect();
        for key in skipped {
            reach!("node.request.skipped");
            self.lost(key);
        }
    }

    /// The fate of this try will never be known here: repeats it if that is harmless, and else answers unknown.
    pub(in crate::node) fn lost(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        let write = is_write(&pending.request);
        if write && !pending.may_repeat() {
            return self.finish(key, Outcome::Unknown { reached: None });
        }
        pending.logged |= write;
        self.retry(key);
    }

    /// Answers a committed write with the durability level that a quorum implies.
    pub(in crate::node) fn committed(&mut self, key: u64, outcome: Outcome) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        if outcome == Outcome::Rejected(Reason::SessionExpired) {
            // An earlier try may have happened, and its answer is forgotten.
            return self.refuse(key, Reason::SessionExpired);
        }
        let (Stage::Logged(group, _), Request::Write { level, .. }) =
            (pending.stage, &pending.request)
        else {
            return self.finish(key, outcome);
        };
        let voters = self.groups.get(&group).map_or(1, |g| g.raft.configuration().voters.len());
        let others = voters / 2;
        let outcome = match (outcome, *level) {
            (Outcome::Committed { receipt, .. }, Level::Replicated(wanted)) => {
                let boasts = usize::from(mutant!("node.request.counts_itself"));
                if usize::from(wanted) <= others + boasts {
                    Outcome::Committed { level: *level, receipt }
                } else {
                    Outcome::Unknown { reached: Some(Level::Durable) }
                }
            }
            (Outcome::Committed { receipt, .. }, _) => {
                Outcome::Committed { level: Level::Durable, receipt }
            }
            (other, _) => other,
        };
        self.finish(key, outcome);
    }
}

/// Encodes a request as a command, or refuses it. The bytes are log payload, wire payload and memory at once.
fn command(request: &Request, secret: impl FnOnce() -> Secret) -> Result<Bytes, Reason> {
    let (session, operation) = match request {
        Request::CreateNamespace { name, policy, session } => {
            (*session, Operation::CreateNamespace { name: name.clone(), policy: *policy })
        }
        Request::DeleteNamespace { name, session } => {
            (*session, Operation::DeleteNamespace { name: name.clone() })
        }
        Request::RotateKey { session } => (*session, Operation::RotateKey { secret: secret() }),
        Request::Write { mutations, session, .. } => {
            (*session, Operation::Write { mutations: mutations.clone() })
        }
        Request::Join { replica, address, name, .. } => {
            let (address, name) = (address.clone(), name.clone());
            let member = MemberInfo { replica: *replica, address, name };
            (None, Operation::Join(member))
        }
        _ => return Err(Reason::WrongConsistency),
    };
    Command { session, operation }.encode()
}
