//! Changes of who counts: which are taken, and what the leader does about them (§6).
//!
//! Only learners change. Voters are fixed at the group's genesis, so that any two majorities ever counted meet.

use alloc::vec::Vec;

use super::{Action, Configuration, Entry, Payload, Raft, Reconfiguration, RefusalReason, Ticket};
use crate::id::{Index, Replica};
use crate::machine::Outbox;
use crate::reach;

impl Raft {
    /// A client of the node changes the group's learners.
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

    /// The next configuration, or why there is none now. A change waits for the one before it, and for the first entry
    /// of the leader's own term: only then is it known which configuration is the last one.
    fn reconfigured(&self, change: Reconfiguration) -> Result<Configuration, RefusalReason> {
        self.may_propose()?;
        let settled =
            self.commit >= self.configurations.active_since() && self.has_committed_own_term();
        let next = settled.then(|| self.configuration().changed(change)).flatten();
        next.ok_or(RefusalReason::InvalidChange)
    }

    /// Takes in what entries that start at `first` say about membership.
    pub(super) fn learn_configurations(&mut self, first: Index, entries: &[Entry]) {
        let counted = self.configurations.is_voter();
        if self.configurations.extend(first, entries.iter()) && !counted {
            // A learner has no election timer: one that became a voter gets a fresh one.
            self.arm_election();
        }
    }

    /// All members of the active configuration but this replica.
    pub(super) fn others(&self) -> Vec<Replica> {
        let Configuration { voters, learners } = self.configuration();
        let mut others: Vec<_> = voters.iter().chain(learners).copied().collect();
        others.retain(|replica| *replica != self.me);
        others.sort_unstable();
        others
    }
}
