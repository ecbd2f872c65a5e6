//! The configurations of a log: which one holds at which index.
//!
//! A configuration holds from the index of its entry on, committed or not (§6). This module does not decide on changes;
//! `membership` does.

use alloc::collections::VecDeque;

use super::types::{Configuration, Entry, Payload};
use crate::id::{Index, Replica};
use crate::mutant;

/// The configurations of a log.
#[derive(Clone, Debug)]
pub(super) struct Configurations {
    /// Each configuration with the index from which on it holds, oldest first. Never empty.
    history: VecDeque<(Index, Configuration)>,
    me: Replica,
    /// Whether the active configuration has `me` as a voter.
    is_voter: bool,
}

impl Configurations {
    pub(super) fn new(index: Index, configuration: Configuration, me: Replica) -> Self {
        let is_voter = configuration.is_voter(me);
        Self { history: [(index, configuration)].into(), me, is_voter }
    }

    /// The newest configuration, which is in effect.
    pub(super) fn active(&self) -> &Configuration {
        &self.newest().1
    }

    /// The index of the active configuration's entry.
    pub(super) fn active_since(&self) -> Index {
        self.newest().0
    }

    /// Whether this replica is a voter of the active configuration.
    pub(super) const fn is_voter(&self) -> bool {
        self.is_voter
    }

    /// The configuration that holds at `index`; the oldest one for an earlier index.
    pub(super) fn at(&self, index: Index) -> &Configuration {
        let after = self.history.partition_point(|(since, _)| *since <= index);
        &self.history[after.saturating_sub(1)].1
    }

    /// Adds the configurations among entries that start at `first`. Returns whether there was one.
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

    /// Drops the configurations of entries after `last`. The oldest one, of a snapshot or the genesis, stays.
    pub(super) fn truncate(&mut self, last: Index) {
        let keeps = mutant!("raft.membership.survives_truncation");
        while self.history.len() > 1 && self.newest().0 > last && !keeps {
            self.history.pop_back();
        }
        self.refresh();
    }

    /// Drops the configurations that a later one up to `offset` replaced.
    pub(super) fn compact(&mut self, offset: Index) {
        while self.history.get(1).is_some_and(|(since, _)| *since <= offset) {
            self.history.pop_front();
        }
    }

    /// Replaces all configurations by a snapshot's.
    pub(super) fn install(&mut self, index: Index, configuration: Configuration) {
        self.history.clear();
        self.history.push_back((index, configuration));
        self.refresh();
    }

    fn newest(&self) -> &(Index, Configuration) {
        self.history.back().expect("the history is never empty")
    }

    fn refresh(&mut self) {
        self.is_voter = self.active().is_voter(self.me);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::{NodeId, StoreId, Term};

    #[test]
    fn a_cut_log_returns_to_the_configuration_before() {
        let replica = |node| Replica { node: NodeId([node; 16]), store: StoreId([1; 16]) };
        let of = |voters: &[Replica]| Configuration { voters: voters.into(), learners: vec![] };
        let (old, new) = (of(&[replica(1)]), of(&[replica(1), replica(2)]));
        let mut all = Configurations::new(Index(0), old.clone(), replica(2));
        let payload = Payload::Configuration(new.clone());
        let entry = Entry { term: Term(1), time_ms: 0, payload };
        assert!(all.extend(Index(5), [entry].iter()));
        assert_eq!((all.active(), all.at(Index(4)), all.is_voter()), (&new, &old, true));
        all.truncate(Index(4));
        assert_eq!((all.active(), all.is_voter()), (&old, false));
    }
}
