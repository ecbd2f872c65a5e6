//! What all replicas of a group together have shown: every entry that was in some log, and what was committed.
//!
//! The ledger only remembers; each law that it helps to check is in a file of its own.

use std::collections::BTreeMap;

use continuum_core::digest::Digest;
use continuum_core::id::{GroupId, Index, Replica, Term};
use continuum_core::raft::{Entry, Position};

/// An entry as some log held it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    /// The term of the entry before it, where that was known.
    pub(crate) prev: Option<Term>,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupLedger {
    /// By index, from 1: each entry that some log held there.
    entries: Vec<Vec<Known>>,
    /// The term of each committed entry, from index 1.
    committed: Vec<Term>,
    /// Who led each term.
    pub(crate) leaders: BTreeMap<Term, usize>,
    /// Who votes.
    pub(crate) voters: Vec<Replica>,
    /// The applied state at some indexes.
    pub(crate) states: BTreeMap<Index, (usize, Digest)>,
}

impl GroupLedger {
    /// The entry of this term at this index, if some log held it.
    pub(crate) fn known(&self, index: Index, term: Term) -> Option<&Known> {
        let place = index.0.checked_sub(1)?;
        self.entries.get(place as usize)?.iter().find(|known| known.entry.term == term)
    }

    /// Remembers an entry.
    pub(crate) fn remember(&mut self, index: Index, known: Known) {
        let place = index.prev().0 as usize;
        if self.entries.len() <= place {
            self.entries.resize_with(place + 1, Vec::new);
        }
        self.entries[place].push(known);
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
            Some(place) => self.committed.get(place as usize).copied(),
        }
    }

    /// Notes that the next entry is committed.
    pub(crate) fn commit_next(&mut self, term: Term) {
        self.committed.push(term);
    }

    /// The committed entry at `index`, if some log that was seen held it.
    pub(crate) fn committed_entry(&self, index: Index) -> Option<&Entry> {
        self.known(index, self.committed_at(index)?).map(|known| &known.entry)
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    groups: BTreeMap<GroupId, GroupLedger>,
}

impl Ledger {
    /// One group, made when it is new.
    pub(crate) fn group_mut(&mut self, group: GroupId) -> &mut GroupLedger {
        self.groups.entry(group).or_default()
    }

    /// All groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupLedger)> {
        self.groups.iter().map(|(group, ledger)| (*group, ledger))
    }
}
