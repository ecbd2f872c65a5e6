//! The ledger: every entry that any replica of a group was seen to hold, and which entries were committed.
//!
//! The ledger only remembers. The laws that use it are in files of their own.

use std::collections::BTreeMap;

use continuum_core::digest::Digest;
use continuum_core::id::{GroupId, Index, Term};
use continuum_core::raft::{Entry, Position};

use super::one_configuration;

/// An entry that some log held.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    /// The term of the entry before it, if that was known.
    pub(crate) prev: Option<Term>,
}

/// The ledger of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupLedger {
    /// By index, from 1: each entry that some log held there.
    entries: Vec<Vec<Known>>,
    /// The term of each committed entry, from index 1.
    committed: Vec<Term>,
    /// The node that led each term.
    pub(crate) leaders: BTreeMap<Term, usize>,
    /// The group's configurations.
    pub(crate) configurations: one_configuration::Known,
    /// The digest of the applied state at some indexes, and the node that reported it first.
    pub(crate) states: BTreeMap<Index, (usize, Digest)>,
}

impl GroupLedger {
    /// The entry of this term at this index, if some log held it.
    pub(crate) fn known(&self, index: Index, term: Term) -> Option<&Known> {
        let slot = index.0.checked_sub(1)?;
        self.entries.get(slot as usize)?.iter().find(|known| known.entry.term == term)
    }

    /// Remembers an entry.
    pub(crate) fn remember(&mut self, index: Index, known: Known) {
        let slot = index.prev().0 as usize;
        if self.entries.len() <= slot {
            self.entries.resize_with(slot + 1, Vec::new);
        }
        self.entries[slot].push(known);
    }

    /// The last entry known to be committed.
    pub(crate) fn last_committed(&self) -> Position {
        let index = Index(self.committed.len() as u64);
        Position { term: self.committed.last().copied().unwrap_or_default(), index }
    }

    /// The term of the committed entry at `index`; `None` when none is known.
    pub(crate) fn committed_at(&self, index: Index) -> Option<Term> {
        match index.0.checked_sub(1) {
            None => Some(Term(0)),
            Some(slot) => self.committed.get(slot as usize).copied(),
        }
    }

    /// Notes that the next entry is committed.
    pub(crate) fn commit_next(&mut self, term: Term) {
        self.committed.push(term);
    }

    /// The committed entry at `index`, if some observed log held it.
    pub(crate) fn committed_entry(&self, index: Index) -> Option<&Entry> {
        self.known(index, self.committed_at(index)?).map(|known| &known.entry)
    }
}

/// The ledgers of all groups.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    groups: BTreeMap<GroupId, GroupLedger>,
}

impl Ledger {
    /// The ledger of a group, created on first use.
    pub(crate) fn group_mut(&mut self, group: GroupId) -> &mut GroupLedger {
        self.groups.entry(group).or_default()
    }

    /// All groups with their ledgers.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupLedger)> {
        self.groups.iter().map(|(group, ledger)| (*group, ledger))
    }
}
