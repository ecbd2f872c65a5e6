//! Who counts: configurations, effective from the entry that holds them on, committed or not (§6).
//!
//! Only learners change. Voters are fixed at the group's genesis, so that any two majorities ever counted meet.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{
    Action, Configuration, Entry, Payload, Raft, Reconfiguration, Refused, Replica, Ticket,
};
use crate::id::Index;
use crate::limits::{MEMBERS_MAX, VOTERS_MAX};
use crate::machine::Outbox;
use crate::{mutant, reach};

impl Configuration {
    /// Whether it could be one: 1 to 7 voters, both lists sorted and without repeats, nobody in both.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let sorted = |list: &[Replica]| list.is_sorted_by(|a, b| a < b);
        (1..=VOTERS_MAX).contains(&self.voters.len())
            && self.voters.len() + self.learners.len() <= MEMBERS_MAX
            && sorted(&self.voters)
            && sorted(&self.learners)
            && !self.learners.iter().any(|learner| self.is_voter(*learner))
    }

    /// Whether the replica votes.
    #[must_use]
    pub fn is_voter(&self, replica: Replica) -> bool {
        self.voters.contains(&replica)
    }

    /// Whether the replica is a voter or a learner.
    #[must_use]
    pub fn is_member(&self, replica: Replica) -> bool {
        self.is_voter(replica) || self.learners.binary_search(&replica).is_ok()
    }

    /// This configuration after a change; `None` when the change names a voter, nobody, or one too many.
    fn changed(&self, change: Reconfiguration) -> Option<Self> {
        let (mut voters, mut learners) = (self.voters.clone(), self.learners.clone());
        match change {
            Reconfiguration::AddLearner(replica) if mutant!("raft.membership.learner_votes") => {
                voters.push(replica);
                voters.sort_unstable();
            }
            Reconfiguration::AddLearner(replica) => {
                let votes = self.voters.iter().any(|voter| voter.node == replica.node);
                if votes || learners.contains(&replica) {
                    return None;
                }
                learners.retain(|learner| learner.node != replica.node);
                learners.push(replica);
                learners.sort_unstable();
            }
            Reconfiguration::RemoveLearner(replica) => {
                learners.remove(learners.binary_search(&replica).ok()?);
            }
        }
        let changed = Self { voters, learners };
        changed.is_valid().then_some(changed)
    }
}

/// The configurations of a log, oldest first: each with the index from which on it holds.
#[derive(Clone, Debug)]
pub(super) struct Configurations {
    history: VecDeque<(Index, Configuration)>,
    me: Replica,
    counts_me: bool,
}

impl Configurations {
    pub(super) fn new(index: Index, configuration: Configuration, me: Replica) -> Self {
        let counts_me = configuration.is_voter(me);
        Self { history: [(index, configuration)].into(), me, counts_me }
    }

    pub(super) fn active(&self) -> &Configuration {
        &self.newest().1
    }

    /// The entry that holds the active configuration.
    pub(super) fn active_since(&self) -> Index {
        self.newest().0
    }

    /// Whether the active configuration has this replica as a voter.
    pub(super) const fn counts_me(&self) -> bool {
        self.counts_me
    }

    pub(super) fn at(&self, index: Index) -> &Configuration {
        let place = self.history.partition_point(|(since, _)| *since <= index);
        &self.history[place.saturating_sub(1)].1
    }

    /// Takes in the configurations among entries that start at `first`. Whether there was any.
    pub(super) fn extend<'a>(
        &mut self,
        first: Index,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> bool {
        let known = self.history.len();
        for (index, entry) in (first.0..).map(Index).zip(entries) {
            if let Payload::Configuration(configuration) = &entry.payload {
                self.history.push_back((index, configuration.clone()));
            }
        }
        self.refresh();
        self.history.len() > known
    }

    /// Forgets the configurations of entries after `last`. The oldest is of a snapshot or of the genesis, and stays.
    pub(super) fn truncate(&mut self, last: Index) {
        while self.history.len() > 1 && self.newest().0 > last {
            self.history.pop_back();
        }
        self.refresh();
    }

    /// Forgets the configurations that ended before `offset`.
    pub(super) fn compact(&mut self, offset: Index) {
        while self.history.get(1).is_some_and(|(since, _)| *since <= offset) {
            self.history.pop_front();
        }
    }

    /// Starts over from a snapshot's configuration.
    pub(super) fn install(&mut self, index: Index, configuration: Configuration) {
        self.history.clear();
        self.history.push_back((index, configuration));
        self.refresh();
    }

    fn newest(&self) -> &(Index, Configuration) {
        self.history.back().expect("there is always one: nothing removes the last")
    }

    fn refresh(&mut self) {
        self.counts_me = self.active().is_voter(self.me);
    }
}

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
                self.align_peers();
                self.replicate(out);
                self.try_commit(out);
            }
        }
    }

    /// The next configuration, or why there is none now. A change waits for the one before it, and for the first entry
    /// of the leader's own term: only then is it known which configuration is the last one.
    fn reconfigured(&self, change: Reconfiguration) -> Result<Configuration, Refused> {
        self.may_propose()?;
        let settled = self.commit >= self.configurations.active_since() && self.commits_own_term();
        let next = settled.then(|| self.configuration().changed(change)).flatten();
        next.ok_or(Refused::InvalidChange)
    }

    /// Takes in what entries that start at `first` say about membership.
    pub(super) fn learn_configurations(&mut self, first: Index, entries: &[Entry]) {
        let counted = self.configurations.counts_me();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, StoreId};

    fn replica(node: u8, store: u8) -> Replica {
        Replica { node: NodeId([node; 16]), store: StoreId([store; 16]) }
    }

    fn configuration(voters: &[u8], learners: &[u8]) -> Configuration {
        let list = |nodes: &[u8]| nodes.iter().map(|node| replica(*node, 1)).collect();
        Configuration { voters: list(voters), learners: list(learners) }
    }

    #[test]
    fn invalid_configurations_are_told() {
        assert!(configuration(&[1, 2, 3], &[4]).is_valid());
        assert!(!configuration(&[], &[4]).is_valid(), "nobody votes");
        assert!(!configuration(&[2, 1], &[]).is_valid(), "unsorted");
        assert!(!configuration(&[1, 1], &[]).is_valid(), "repeated");
        assert!(!configuration(&[1, 2], &[2]).is_valid(), "in both lists");
        assert!(!configuration(&[1, 2, 3, 4, 5, 6, 7, 8], &[]).is_valid(), "too many");
    }

    #[test]
    fn a_change_that_makes_no_sense_is_refused() {
        let now = configuration(&[1, 2], &[4]);
        assert_eq!(now.changed(Reconfiguration::AddLearner(replica(1, 9))), None);
        assert_eq!(now.changed(Reconfiguration::AddLearner(replica(4, 1))), None);
        assert_eq!(now.changed(Reconfiguration::RemoveLearner(replica(1, 1))), None);
        assert_eq!(now.changed(Reconfiguration::RemoveLearner(replica(5, 1))), None);
    }

    #[test]
    fn another_store_replaces_a_learner() {
        let now = configuration(&[1, 2], &[4]);
        let next = now.changed(Reconfiguration::AddLearner(replica(4, 2))).unwrap();
        assert_eq!(next.learners, [replica(4, 2)]);
        let next = now.changed(Reconfiguration::AddLearner(replica(3, 1))).unwrap();
        assert_eq!(next.learners, [replica(3, 1), replica(4, 1)]);
    }

    #[test]
    fn a_cut_log_returns_to_the_configuration_before() {
        let (old, new) = (configuration(&[1], &[]), configuration(&[1, 2], &[]));
        let mut all = Configurations::new(Index(0), old.clone(), replica(2, 1));
        let entry = Entry {
            term: crate::id::Term(1),
            time_ms: 0,
            payload: Payload::Configuration(new.clone()),
        };
        assert!(all.extend(Index(5), [entry].iter()));
        assert_eq!((all.active(), all.at(Index(4)), all.counts_me()), (&new, &old, true));
        all.truncate(Index(4));
        assert_eq!((all.active(), all.counts_me()), (&old, false));
    }
}
