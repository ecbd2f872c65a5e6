//! Changes of a group's members: which ones a leader accepts, and what it does about them (§6).
//!
//! Only learners change. This module does not change voters: they are fixed when the group begins, so any two
//! majorities have a voter in common.

use alloc::vec::Vec;

use super::{Action, Configuration, Entry, Payload, Raft, Reconfiguration, RefusalReason, Ticket};
use crate::id::{Index, Replica};
use crate::machine::Outbox;
use crate::reach;

impl Raft {
    /// Handles a change that a client of this node asked for.
    pub(super) fn reconfigure(
        &mut self,
        ticket: Ticket,
        change: Reconfiguration,
        out: &mut Outbox<Action>,
    ) {
        match self.reconfigured(change) {
            Err(why) => {
                reach!("raft.membership.refused");
                out.push(Action::Refused { ticket, why });
            }
            Ok(configuration) => {
                reach!("raft.membership.changed");
                let position = self.append_own(Payload::Configuration(configuration), out);
                out.push(Action::Proposed { ticket, position });
                self.update_peers();
                self.replicate(out);
                self.try_commit(out);
            }
        }
    }

    /// The configuration after the change, or why the change is refused. The change before it and the first entry of
    /// the leader's term must be committed: only then does the leader know the last configuration.
    fn reconfigured(&self, change: Reconfiguration) -> Result<Configuration, RefusalReason> {
        self.may_propose()?;
        let is_last_known =
            self.commit >= self.configurations.active_since() && self.has_committed_own_term();
        let next = is_last_known.then(|| self.configuration().changed(change)).flatten();
        next.ok_or(RefusalReason::InvalidChange)
    }

    /// Applies the configurations among entries that start at `first`.
    pub(super) fn learn_configurations(&mut self, first: Index, entries: &[Entry]) {
        let was_voter = self.configurations.is_voter();
        if self.configurations.extend(first, entries.iter()) && !was_voter {
            // A learner has no election timer. It starts one when it may have become a voter.
            self.arm_election();
        }
    }

    /// All members of the active configuration except this replica, sorted.
    pub(super) fn others(&self) -> Vec<Replica> {
        let Configuration { voters, learners } = self.configuration();
        let mut others: Vec<_> = voters.iter().chain(learners).copied().collect();
        others.retain(|replica| *replica != self.me);
        others.sort_unstable();
        others
    }
}
