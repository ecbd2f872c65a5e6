//! The edits of writes that others superseded or beat, one by one or along chains of writes.
//!
//! Nothing is judged here.

use std::collections::BTreeMap;

use continuum_core::id::Dot;
use continuum_core::replication::Dots;

use super::super::eventual_specification::{is_in_scope, rank_of};
use super::shard::{Known, Shard};
use crate::format::write::{Op, Written, WrittenEdit};

impl Shard {
    /// Whether all that a write left is dead in a replica of this context. A replica kills what died at its peer before
    /// it covers the write that did so, and it holds what replaced that write. So this follows the chains of writes
    /// that supersede, or beat where losers are dropped. `found` has what is known of the writes on them; forged writes
    /// may supersede each other.
    pub(super) fn is_gone(
        &self,
        dot: &Dot,
        (context, discards): (&Dots, bool),
        found: &mut BTreeMap<Dot, bool>,
    ) -> bool {
        if let Some(known) = found.get(dot) {
            return *known;
        }
        found.insert(*dot, false);
        let Some(write) = self.get(dot) else { return false };
        let mut edits = (0_u16..).zip(&write.info.edits);
        let is_gone = edits.all(|(number, edit)| {
            let greater = discards.then(|| self.greater_puts(&write.info, edit));
            let mut later =
                self.superseding(write, number, edit).chain(greater.into_iter().flatten());
            leaves_nothing(edit)
                || later.any(|later| {
                    context.contains(later) || self.is_gone(later, (context, discards), found)
                })
        });
        found.insert(*dot, is_gone);
        is_gone
    }

    /// Whether writes supersede one edit of a write: those in a context, or any.
    pub(super) fn is_edit_superseded(
        &self,
        write: &Known,
        number: u16,
        edit: &WrittenEdit,
        context: Option<&Dots>,
    ) -> bool {
        let known = |later: &Dot| {
            context.is_none_or(|context| {
                context.contains(later)
                    || self.is_gone(later, (context, false), &mut BTreeMap::new())
            })
        };
        leaves_nothing(edit) || self.superseding(write, number, edit).any(known)
    }

    /// Whether writes in a context supersede one edit of a write themselves, whatever became of them.
    pub(super) fn is_edit_superseded_in(
        &self,
        write: &Known,
        number: u16,
        edit: &WrittenEdit,
        context: &Dots,
    ) -> bool {
        let mut later = self.superseding(write, number, edit);
        leaves_nothing(edit) || later.any(|later| context.contains(later))
    }

    /// The writes that supersede one edit of a write.
    fn superseding<'a>(
        &'a self,
        write: &'a Known,
        number: u16,
        edit: &'a WrittenEdit,
    ) -> impl Iterator<Item = &'a Dot> {
        let Known { info, later } = write;
        let by_name = later.by_name.iter().filter(move |(of, _)| *of == number).map(|(_, by)| by);
        let by_scope = later.by_scope.iter().chain(&self.covering).filter(move |by| {
            self.get(by).is_some_and(|by| {
                let names = |by: &&WrittenEdit| by.supersedes_in_scope(&info.dot);
                let mut names = by.info.edits.iter().filter(names);
                names.any(|edit_by| is_in_scope((&by.info.key, edit_by), (&info.key, edit)))
            })
        });
        let by_total = self.later_counts(info, edit);
        by_name.chain(by_scope).chain(by_total)
    }

    /// The later counts of the same author in the same field.
    fn later_counts<'a>(
        &'a self,
        write: &Written,
        edit: &WrittenEdit,
    ) -> impl Iterator<Item = &'a Dot> {
        let counts = matches!(edit.op, Op::Count { .. });
        let path = counts.then(|| (write.key.clone(), edit.field.clone()));
        let all = path.and_then(|path| self.counts.get(&path));
        let (first, actor) = (Dot { seq: write.dot.seq + 1, ..write.dot }, write.dot.actor);
        let later = all.map(|dots| dots.range(first..).take_while(move |dot| dot.actor == actor));
        later.into_iter().flatten()
    }

    /// Whether writes beat the register value that an edit put: those in a context, or any.
    pub(super) fn is_edit_beaten(
        &self,
        write: &Written,
        edit: &WrittenEdit,
        context: Option<&Dots>,
    ) -> bool {
        let known = |other: &Dot| context.is_none_or(|context| context.contains(other));
        self.greater_puts(write, edit).any(known)
    }

    /// The writes that put a greater value where an edit put one.
    fn greater_puts(&self, write: &Written, edit: &WrittenEdit) -> impl Iterator<Item = &Dot> {
        let path = (write.key.clone(), edit.field.clone());
        let puts = self.puts.get(&path).filter(|_| matches!(edit.op, Op::Put(_)));
        let from = (rank_of(write), write.dot);
        puts.into_iter().flat_map(move |puts| puts.range(from..).skip(1)).map(|(_, other)| other)
    }
}

/// Whether an edit is dead from the beginning.
pub(super) const fn leaves_nothing(edit: &WrittenEdit) -> bool {
    matches!(edit.op, Op::Delete | Op::Remove(_))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{add, dot, put};
    use super::*;

    #[test]
    fn a_chain_of_dead_writes_ends_in_a_write_that_is_covered() {
        let mut shard = Shard::default();
        for write in [put(1, &[]), put(2, &[1]), put(3, &[2]), put(4, &[])] {
            add(&mut shard, write);
        }
        // Two forged writes that supersede each other leave all as it is.
        for write in [put(5, &[6]), put(6, &[5])] {
            add(&mut shard, write);
        }
        let is_gone = |seq, covered: &[u64]| {
            let mut context = Dots::default();
            for seq in covered {
                context.insert(&dot(*seq));
            }
            shard.is_gone(&dot(seq), (&context, false), &mut BTreeMap::new())
        };
        assert!(is_gone(1, &[2]));
        assert!(is_gone(1, &[3]), "the write that superseded it is dead too");
        assert!(!is_gone(1, &[4]), "nothing that is covered replaced it");
        assert!(!is_gone(3, &[1, 2]));
        assert!(!is_gone(5, &[1]));
    }
}
