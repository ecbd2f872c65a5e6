//! Reports of each group's machine: its role, the entries that it applied, its progress.
//!
//! Each report is compared with the one before, and passed to the laws that it concerns; spans that last too long are
//! passed on too. This file states no law.

use continuum_core::id::{GroupId, Index, Replica, Role, Term};
use continuum_core::node::Node;
use continuum_core::raft;

use super::cheapest_is_chosen::{self, Asked};
use super::witness::Witness;
use super::{Oracles, Step};
use super::{
    applied_commit_last, commit_rule, durable_marks, election_safety, leader_completeness,
    monotone, one_configuration, session_applied_once, state_machine_safety,
};
use crate::env::process::Process;
use crate::verdict::Verdict;

impl Oracles {
    /// Judges what has lasted for too long by now.
    pub(crate) fn look_at_spans(&mut self, now: u64, processes: &[Process]) -> Verdict {
        self.requests.look(&self.soundness, now)?;
        self.handovers.look(&self.soundness, now)?;
        for hung in self.hangs.look(processes, self.handovers.timeout_ms(), now) {
            self.expect_handovers(hung, now, processes);
        }
        let number = |member| self.roster.running(processes, member);
        let mut up = (0..processes.len()).filter(|me| processes[*me].is_up());
        up.try_for_each(|me| {
            let deaths = &self.nodes[me].view.deaths;
            deaths.check_held(&self.soundness, (me, now), processes.len(), number)
        })
    }

    /// Judges the costs at which a node's coordinator would choose members, while it has this many requests.
    pub(crate) fn check_costs(
        &self,
        me: usize,
        node: &Node,
        open: usize,
        is_forged: bool,
    ) -> Verdict {
        let to = |member| self.roster.number(member);
        let asked = |member| to(member).is_some_and(|to| self.tries.has_asked(me, to));
        let loads = (!is_forged).then_some(&self.loads);
        cheapest_is_chosen::check_costs(node.coordinator(), loads, &Asked { open, asked })
    }

    /// A leader is asked to give its offices away.
    pub(super) fn observe_way_given(&mut self, step: &Step<'_>) {
        self.expect_handovers(step.me, step.at, step.processes);
    }

    /// A node should give its offices away from now on.
    fn expect_handovers(&mut self, me: usize, at: u64, processes: &[Process]) {
        for (group, watched) in &self.nodes[me].groups {
            let Some(term) = watched.leads else { continue };
            let last = watched.view.last();
            let has_log = |number: usize| {
                let view = processes[number].disk.durable.group(*group);
                view.is_some_and(|view| view.holds(last))
            };
            self.handovers.begins(&self.soundness, (me, at), (*group, term), has_log);
        }
    }

    /// A leader tells a voter to take over.
    pub(super) fn observe_transfer(
        &mut self,
        me: usize,
        group: GroupId,
        receiver: Replica,
        message: &raft::Message,
    ) {
        let raft::Message::TimeoutNow { term, .. } = message else { return };
        self.offices.transfers(group, *term);
        if let Some(target) = self.roster.number(receiver.node) {
            self.handovers.tells(me, group, target);
        }
    }

    pub(super) fn observe_role(
        &mut self,
        step: &Step<'_>,
        group: GroupId,
        term: Term,
        role: Role,
    ) -> Verdict {
        let watched = self.nodes[step.me].groups.entry(group).or_default();
        let ledger = self.ledger.group_mut(group);
        let begins = role == Role::Leader && watched.leads != Some(term);
        watched.leads = (role == Role::Leader).then_some(term);
        self.offices.role(&self.soundness, step, group, term, role)?;
        self.handovers.role(step.me, group, term, role);
        if begins {
            election_safety::check_leader(ledger, step.me, term)?;
            leader_completeness::check(&watched.view, ledger, term)?;
        }
        Ok(())
    }

    pub(super) fn observe_applied(
        &mut self,
        step: &Step<'_>,
        group: GroupId,
        index: Index,
    ) -> Verdict {
        // A group that the same step deleted has no state left to look at.
        if step.node.raft(group).is_none() {
            return Ok(());
        }
        let watched = self.nodes[step.me].groups.entry(group).or_default();
        let ledger = self.ledger.group_mut(group);
        monotone::check_applied(watched.applied, index)?;
        applied_commit_last::check(index, watched.commit, watched.view.last().index)?;
        state_machine_safety::check_applied(watched, ledger, index)?;
        watched.applied = index;
        // A step may apply several entries; only the state after the last can be looked at.
        let Some(state) = step.node.state(group).filter(|state| state.applied() == index) else {
            return Ok(());
        };
        if let Some(witness) = self.witnesses.get_mut(&group) {
            witness.follow(ledger)?;
            session_applied_once::check(witness, state, index)?;
        }
        state_machine_safety::check_state(step.me, state, ledger, group)
    }

    /// Compares what each group's machine reports with what it reported before.
    pub(super) fn observe_progress(&mut self, step: &Step<'_>) -> Verdict {
        for (group, raft) in step.node.rafts() {
            let watched = self.nodes[step.me].groups.entry(group).or_default();
            let (term, index) = (raft.term(), raft.commit());
            let durable = (raft.durable(), raft.last());
            if durable != watched.durable {
                watched.durable = durable;
                durable_marks::check(step, raft)?;
                one_configuration::check_machine(
                    &watched.view,
                    self.ledger.group_mut(group),
                    raft,
                )?;
            }
            if term == watched.term && index == watched.commit {
                continue;
            }
            monotone::check_progress(watched, term, index)?;
            watched.term = term;
            if index > watched.commit {
                applied_commit_last::check(watched.applied, index, watched.view.last().index)?;
                let ledger = self.ledger.group_mut(group);
                commit_rule::check(step, &self.roster, watched, ledger, raft, index)?;
                watched.commit = index;
                if group != GroupId::REGISTRY {
                    let rules = self.rules.sessions;
                    let witness = self.witnesses.entry(group);
                    witness.or_insert_with(|| Witness::new(rules)).follow(ledger)?;
                }
            }
        }
        Ok(())
    }
}
