//! Requests of strong namespaces and of the registry: proposed where this node leads, else forwarded; read at an index
//! that the leader confirmed (§6.4), on any node that holds the group.
//!
//! The entry that is applied at a proposal's index decides it: one of the proposal's term is the proposal, one of
//! another term proves that the proposal never happens, so that it is safe to propose again.

use alloc::collections::BTreeSet;

use bytes::Bytes;

use crate::api::{Level, MemberInfo, Outcome, Reason, Request};
use crate::id::{GroupId, Index, Role, Term};
use crate::raft::{self, Position, Refused, Ticket};
use crate::state::{Command, Operation};
use crate::{mutant, reach};

use super::super::machine::{Node, Work};
use super::{Origin, Stage, check, is_write};

impl Node {
    /// Proposes a write, or lets another node do so.
    pub(super) fn write_strong(&mut self, key: u64, group: GroupId) {
        if let Some(reason) = self.forbids(key) {
            return self.refuse(key, reason);
        }
        let (role, leader) = match self.groups.get(&group) {
            Some(known) => (known.raft.role(), known.raft.leader()),
            // Not opened here yet: ask a voter of group 0, which opens every group.
            None => return self.forward_to_voter(key, group),
        };
        if role == Role::Leader {
            return self.propose(key, group);
        }
        match leader {
            Some(leader) if leader != self.me => self.forward(key, group, leader),
            _ => self.wait_for_leader(key, group),
        }
    }

    /// Why this write must not be logged, if it must not: its namespace is of another consistency, or it lets in who
    /// may not come in.
    fn forbids(&self, key: u64) -> Option<Reason> {
        match &self.requests.pending.get(&key)?.request {
            Request::Write { mutations, .. } => check::check_consistency(mutations, true).err(),
            Request::Join { replica, .. } => self.check_join(*replica).err(),
            _ => None,
        }
    }

    fn propose(&mut self, key: u64, group: GroupId) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let command = match command(&pending.request) {
            Ok(command) => command,
            Err(reason) => return self.refuse(key, reason),
        };
        self.set_stage(key, Stage::Asked(group));
        self.then(Work::Raft(group, raft::Event::Propose { ticket: key, command }));
    }

    /// The proposal is in the log: what is applied there decides it.
    pub(in crate::node) fn on_proposed(&mut self, group: GroupId, key: Ticket, at: Position) {
        if !self.requests.pending.contains_key(&key) {
            return;
        }
        self.set_stage(key, Stage::Logged(group, at));
        if let Some(known) = self.groups.get_mut(&group) {
            known.proposals.insert((at.index, at.term), key);
        }
    }

    /// Raft will not do it: nothing was logged by this try.
    pub(in crate::node) fn on_refused(&mut self, group: GroupId, key: Ticket, why: Refused) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if matches!(pending.stage, Stage::Asked(_)) {
            // Raft says so before it logs anything.
            pending.stage = Stage::New;
        }
        match why {
            Refused::Busy => self.refuse(key, Reason::Busy),
            Refused::NotLeader(_) | Refused::LostLeadership | Refused::InvalidChange => {
                reach!("node.request.refused");
                self.wait_for_leader(key, group);
            }
        }
    }

    /// Lets a request wait until a leader is known. One that was forwarded goes back: its first node waits.
    pub(super) fn wait_for_leader(&mut self, key: u64, group: GroupId) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if matches!(pending.origin, Origin::Peer(..)) && !pending.may_relay() {
            return self.refuse(key, Reason::NoLeader);
        }
        reach!("node.request.waits_for_leader");
        pending.stage = Stage::Waiting(group);
        if let Some(known) = self.groups.get_mut(&group) {
            known.waiting.insert(key);
        }
        self.schedule_retry(key);
    }

    /// The group's leader may be known: its requests go on.
    pub(in crate::node) fn wake(&mut self, group: GroupId) {
        let Some(known) = self.groups.get_mut(&group) else { return };
        for key in core::mem::take(&mut known.waiting) {
            self.retry(key);
        }
    }

    /// Asks for an index to read at.
    pub(super) fn read_strong(&mut self, key: u64, group: GroupId) {
        if !self.groups.contains_key(&group) {
            return self.forward_to_voter(key, group);
        }
        self.set_stage(key, Stage::Asked(group));
        self.read_index(key, group);
    }

    pub(super) fn read_index(&mut self, key: u64, group: GroupId) {
        if mutant!("node.read.stale_local") {
            return self.serve_strong(key, group);
        }
        self.then(Work::Raft(group, raft::Event::Read { ticket: key }));
        self.schedule_retry(key);
    }

    /// A read may be served once `index` is applied here.
    pub(in crate::node) fn on_readable(&mut self, group: GroupId, key: Ticket, index: Index) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let Some(known) = self.groups.get_mut(&group) else { return };
        if known.applied >= index {
            return self.serve_strong(key, group);
        }
        reach!("node.read.waits_for_apply");
        known.reads.insert((index, key));
        if pending.stage != Stage::ResolvingName {
            self.set_stage(key, Stage::Reading(group));
        }
    }

    /// Serves reads whose index is applied now.
    pub(in crate::node) fn serve_reads(&mut self, group: GroupId) {
        while let Some(known) = self.groups.get_mut(&group)
            && known.reads.first().is_some_and(|(index, _)| *index <= known.applied)
        {
            if let Some((_, key)) = known.reads.pop_first() {
                self.serve_strong(key, group);
            }
        }
    }

    /// Serves a confirmed read from the local state; a read of the registry may have been for a name.
    fn serve_strong(&mut self, key: u64, group: GroupId) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        if pending.stage == Stage::ResolvingName {
            pending.name_checked = true;
            pending.stage = Stage::New;
            return self.then(Work::Submit(key));
        }
        let outcome = match &pending.request {
            Request::Namespaces => self.namespaces(),
            Request::Read { query, .. } => match self.groups.get(&group) {
                Some(known) => known.read(query),
                None => Outcome::Rejected(Reason::UnknownNamespace),
            },
            _ => return,
        };
        self.finish(key, outcome);
    }

    /// The next proposal at or before `index`: taken out, with its term.
    fn next_decided(&mut self, group: GroupId, index: Index) -> Option<(Position, u64)> {
        let known = self.groups.get_mut(&group)?;
        let first = known.proposals.first_entry().filter(|first| first.key().0 <= index)?;
        let ((index, term), key) = first.remove_entry();
        Some((Position { term, index }, key))
    }

    /// An entry was applied: it decides the proposals at its index. `outcome` is what its command came to.
    pub(in crate::node) fn decide(&mut self, group: GroupId, at: Position, outcome: Outcome) {
        let mut outcome = Some(outcome);
        while let Some((logged, key)) = self.next_decided(group, at.index) {
            match outcome.take_if(|_| logged == at || mutant!("node.request.other_term_counts")) {
                Some(outcome) => self.committed(key, outcome),
                None => {
                    // Another leader's entry stands there: this proposal is in no log that can win.
                    reach!("node.request.superseded");
                    self.retry(key);
                }
            }
        }
    }

    /// The group's state jumped over indices by a snapshot: what was logged there is decided, but unknown here.
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

    /// Nobody will tell what became of this try: it is repeated if that is harmless, else it is unknown.
    pub(in crate::node) fn lost(&mut self, key: u64) {
        let Some(pending) = self.requests.pending.get_mut(&key) else { return };
        let write = is_write(&pending.request);
        if write && !pending.may_repeat() {
            return self.finish(key, Outcome::Unknown { reached: None });
        }
        pending.logged |= write;
        self.retry(key);
    }

    /// What a committed write is answered with: the level that a quorum's disks amount to.
    pub(in crate::node) fn committed(&mut self, key: u64, outcome: Outcome) {
        let Some(pending) = self.requests.pending.get(&key) else { return };
        let (Stage::Logged(group, _), Request::Write { level, .. }) =
            (pending.stage, &pending.request)
        else {
            return self.finish(key, outcome);
        };
        let voters = self.groups.get(&group).map_or(1, |g| g.raft.configuration().voters.len());
        let others = voters / 2;
        let outcome = match (outcome, *level) {
            (Outcome::Committed { receipt, .. }, Level::Replicated(wanted)) => {
                if usize::from(wanted) <= others {
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

/// The command of a request, or why it is refused without one.
fn command(request: &Request) -> Result<Bytes, Reason> {
    let (session, operation) = match request {
        Request::CreateNamespace { name, policy, session } => {
            (*session, Operation::CreateNamespace { name: name.clone(), policy: *policy })
        }
        Request::DeleteNamespace { name, session } => {
            (*session, Operation::DeleteNamespace { name: name.clone() })
        }
        Request::Write { mutations, session, .. } => {
            (*session, Operation::Write { mutations: mutations.clone() })
        }
        Request::Join { replica, address, name } => {
            let (address, name) = (address.clone(), name.clone());
            let member = MemberInfo { replica: *replica, address, name };
            (None, Operation::Join(member))
        }
        _ => return Err(Reason::WrongConsistency),
    };
    Command { session, operation }.encode()
}
