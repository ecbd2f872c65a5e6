//! Law: at the end of a run, all replicas of a shard hold what the set of all its writes determines (Shapiro and others
//! 2011; add-wins sets after Bieniusa and others 2012).
//!
//! Compares the final rows with an executable specification, which reads the writes from their authors' logs and merges
//! them by the rules of this file. A write took place if the final context of all replicas has its dot. An edit lives
//! unless a write that took place supersedes it, or a replica learnt from a peer that it is dead (`told`): the write
//! that superseded it may be lost with the disks that held it, and its removal not. A register holds its living values
//! in the order of (stamp, node, hash). A set holds the members with a living add. A counter holds the sum of the
//! living totals; a total includes all that its author counted before, so only an author's latest total counts, even if
//! writes between are lost.
//!
//! It does not judge which writes must have taken place (`eventual`), nor what replicas hold before they are equal.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::{Content, Field, Row};
use continuum_core::digest::Digest;
use continuum_core::id::{Actor, Dot, NodeId};

use crate::format::write::{Op, Written, WrittenEdit};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "eventual-specification";

/// Judges the rows of one shard, which are the same on all replicas, by the writes that the replicas have seen.
pub(crate) fn check<'a>(
    writes: impl Iterator<Item = &'a Written> + Clone,
    is_dead: impl Fn(&Dot, u16) -> bool,
    discards: bool,
    rows: &[Row],
) -> Verdict {
    Contents::of(writes, is_dead).check(discards, &contents_of(rows))
}

/// The LWW order of register values: stamp, node, hash.
pub(crate) type Rank = (u64, NodeId, Digest);
/// Key and field.
pub(crate) type FieldPath = (Vec<u8>, Vec<u8>);

/// A write's rank in the LWW order.
pub(crate) fn rank_of(write: &Written) -> Rank {
    (write.stamp, write.dot.actor.replica.node, write.hash)
}

/// The contents of all fields of a shard, or of some of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Living values with their ranks.
    registers: BTreeMap<FieldPath, Vec<(Rank, Vec<u8>)>>,
    /// The greatest rank of a superseded value.
    superseded: BTreeMap<FieldPath, Rank>,
    sets: BTreeMap<FieldPath, BTreeSet<Vec<u8>>>,
    counters: BTreeMap<FieldPath, i128>,
}

/// A write, an edit of it, and whether that is dead.
pub(crate) type Judged<'a> = (&'a Written, &'a WrittenEdit, bool);

/// An edit that supersedes all of a write that is in the edit's scope.
struct Scope<'a> {
    key: &'a [u8],
    edit: &'a WrittenEdit,
}

/// Whether `other` is in the scope of `edit`.
pub(crate) fn is_in_scope(
    (key, edit): (&[u8], &WrittenEdit),
    (of, other): (&[u8], &WrittenEdit),
) -> bool {
    let field = edit.field == other.field;
    let ops = match (&edit.op, &other.op) {
        (Op::Delete, _) => return key == of && (field || edit.field.is_empty()),
        (Op::Put(_), Op::Put(_)) | (Op::Count { .. }, Op::Count { .. }) => true,
        (Op::Add(mine) | Op::Remove(mine), Op::Add(theirs)) => mine == theirs,
        _ => false,
    };
    ops && field && key == of
}

impl Contents {
    /// The content that these writes determine. An edit also dies if the replicas know that it is dead.
    pub(crate) fn of<'a>(
        writes: impl Iterator<Item = &'a Written> + Clone,
        is_dead: impl Fn(&Dot, u16) -> bool,
    ) -> Self {
        let mut dead: BTreeSet<(Dot, u16)> = BTreeSet::new();
        let mut scopes: BTreeMap<Dot, Vec<Scope<'a>>> = BTreeMap::new();
        let mut covering: Vec<Scope<'a>> = Vec::new();
        let mut latest: BTreeMap<(&Actor, &[u8], &[u8]), u64> = BTreeMap::new();
        for write in writes.clone() {
            for edit in &write.edits {
                if matches!(edit.op, Op::Count { .. }) {
                    let seq = latest.entry(total_of(write, edit)).or_default();
                    *seq = write.dot.seq.max(*seq);
                }
                dead.extend(edit.superseded.iter().copied());
                if !edit.covered.is_empty() {
                    covering.push(Scope { key: &write.key, edit });
                }
                for dot in &edit.absent {
                    let scope = Scope { key: &write.key, edit };
                    scopes.entry(*dot).or_default().push(scope);
                }
            }
        }
        let dies = |write: &Written, number: u16, edit: &WrittenEdit| {
            let is_late = matches!(edit.op, Op::Count { .. })
                && latest.get(&total_of(write, edit)).is_some_and(|seq| *seq > write.dot.seq);
            let covering = covering.iter().filter(|by| by.edit.covers(&write.dot));
            let mut scoped = scopes.get(&write.dot).into_iter().flatten().chain(covering);
            is_late
                || dead.contains(&(write.dot, number))
                || is_dead(&write.dot, number)
                || scoped.any(|by| is_in_scope((by.key, by.edit), (&write.key, edit)))
        };
        Self::of_edits(
            writes
                .flat_map(|write| {
                    let edits = (0_u16..).zip(&write.edits);
                    edits.map(move |(number, edit)| (write, edit, number))
                })
                .map(|(write, edit, number)| (write, edit, dies(write, number, edit))),
        )
    }

    /// The content that edits determine of which each is known to be dead or not.
    pub(crate) fn of_edits<'a>(edits: impl Iterator<Item = Judged<'a>>) -> Self {
        let mut contents = Self::default();
        edits.for_each(|(write, edit, dies)| contents.add(write, edit, dies));
        contents.registers.values_mut().for_each(|values| values.sort_by(|a, b| b.cmp(a)));
        contents
    }

    fn add(&mut self, write: &Written, edit: &WrittenEdit, dies: bool) {
        let path = (write.key.clone(), edit.field.clone());
        let rank = rank_of(write);
        match &edit.op {
            Op::Put(_) if dies => {
                let greatest = self.superseded.entry(path).or_insert(rank);
                *greatest = rank.max(*greatest);
            }
            _ if dies => {}
            Op::Put(value) => {
                self.registers.entry(path).or_default().push((rank, value.clone()));
            }
            Op::Add(member) => {
                self.sets.entry(path).or_default().insert(member.clone());
            }
            Op::Count { plus, minus } => {
                *self.counters.entry(path).or_default() += i128::from(*plus) - i128::from(*minus);
            }
            Op::Delete | Op::Remove(_) => {}
        }
    }

    /// Adds what other writes determine, of other keys.
    pub(crate) fn extend(&mut self, other: Self) {
        self.registers.extend(other.registers);
        self.superseded.extend(other.superseded);
        self.sets.extend(other.sets);
        self.counters.extend(other.counters);
    }

    /// Adds a field as an answer tells it. An answer tells no ranks, so these keep their default.
    pub(crate) fn add_field(&mut self, key: &[u8], field: &Field) {
        let path = (key.to_vec(), field.field.to_vec());
        match &field.content {
            Content::Register(values) => {
                let ranked = values.iter().map(|value| (Rank::default(), value.to_vec()));
                self.registers.insert(path, ranked.collect());
            }
            Content::Set(members) => {
                self.sets.insert(path, members.iter().map(|m| m.to_vec()).collect());
            }
            Content::Counter(value) => {
                self.counters.insert(path, *value);
            }
        }
    }

    /// The contents of the keys and fields that a filter chooses.
    pub(crate) fn only(&self, chooses: impl Fn(&FieldPath) -> bool) -> Self {
        fn part<T: Clone>(
            map: &BTreeMap<FieldPath, T>,
            chooses: impl Fn(&FieldPath) -> bool,
        ) -> BTreeMap<FieldPath, T> {
            let chosen = map.iter().filter(|(path, _)| chooses(path));
            chosen.map(|(path, content)| (path.clone(), content.clone())).collect()
        }
        Self {
            registers: part(&self.registers, &chooses),
            superseded: part(&self.superseded, &chooses),
            sets: part(&self.sets, &chooses),
            counters: part(&self.counters, &chooses),
        }
    }

    /// These contents without what is of another kind than `content`, and without counters that are 0 where an answer
    /// does not tell them from absent ones.
    pub(crate) fn of_kind(mut self, content: &Content) -> Self {
        match content {
            Content::Register(_) => (self.sets, self.counters) = Default::default(),
            Content::Set(_) => (self.registers, self.counters) = Default::default(),
            Content::Counter(_) => {
                (self.registers, self.sets) = Default::default();
                self.counters.retain(|_, sum| *sum != 0);
            }
        }
        self
    }

    /// The keys that certainly have content, and those that may have. They differ only where losers are dropped: there
    /// a register may have lost its last value to one that was superseded later.
    pub(crate) fn keys(&self, discards: bool) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
        let beaten = |(path, values): &(&FieldPath, &Vec<(Rank, Vec<u8>)>)| {
            let greatest = values.iter().map(|(rank, _)| *rank).max();
            discards && self.superseded.get(*path).is_some_and(|by| Some(*by) > greatest)
        };
        let others = self.sets.keys().chain(self.counters.keys());
        let key = |(key, _): &FieldPath| key.clone();
        let mut certain: BTreeSet<_> = others.map(key).collect();
        let mut possible = certain.clone();
        possible.extend(self.registers.keys().map(key));
        let kept = self.registers.iter().filter(|register| !beaten(register));
        certain.extend(kept.map(|(path, _)| key(path)));
        (certain, possible)
    }

    /// Judges what a replica holds.
    pub(crate) fn check(&self, discards: bool, held: &Self) -> Verdict {
        let broken = |what: String| Err(Broken::new(NAME, what));
        if let Some(what) = difference(&self.sets, &held.sets) {
            return broken(format!("sets: {what}"));
        }
        if let Some(what) = difference(&self.counters, &held.counters) {
            return broken(format!("counters: {what}"));
        }
        let values = |of: &Self| -> BTreeMap<FieldPath, Vec<Vec<u8>>> {
            let only = |values: &Vec<(Rank, Vec<u8>)>| values.iter().map(|v| v.1.clone()).collect();
            of.registers.iter().map(|(path, v)| (path.clone(), only(v))).collect()
        };
        if discards {
            return self.check_winners(&values(held));
        }
        match difference(&values(self), &values(held)) {
            Some(what) => broken(format!("registers: {what}")),
            None => Ok(()),
        }
    }

    /// Judges a discarding namespace: a missing value lost to the present one, or to a greater one that was superseded
    /// later.
    fn check_winners(&self, held: &BTreeMap<FieldPath, Vec<Vec<u8>>>) -> Verdict {
        let nothing = Vec::new();
        for (path, living) in &self.registers {
            let values = held.get(path).unwrap_or(&nothing);
            let position_of = |value: &Vec<u8>| living.iter().position(|(_, known)| known == value);
            // Living values are in descending order: a superseded value must have beaten those before the winner.
            let winner = values.first().map_or(Some(living.len()), position_of);
            let beaten = |rank: &Rank| self.superseded.get(path).is_some_and(|by| by > rank);
            let sound = winner.is_some_and(|winner| {
                values.len() <= 1 && living[..winner].iter().all(|(rank, _)| beaten(rank))
            });
            if !sound {
                let what =
                    format!("{path:?} holds {values:?}, and the living values are {living:?}");
                return Err(Broken::new(NAME, what));
            }
        }
        match held.keys().find(|path| !self.registers.contains_key(*path)) {
            Some(path) => Err(Broken::new(NAME, format!("{path:?} holds a superseded value"))),
            None => Ok(()),
        }
    }
}

/// The author, key and field of a counter's total.
fn total_of<'a>(write: &'a Written, edit: &'a WrittenEdit) -> (&'a Actor, &'a [u8], &'a [u8]) {
    (&write.dot.actor, &write.key, &edit.field)
}

/// The contents of rows. Rows do not tell ranks, so these keep their default.
fn contents_of(rows: &[Row]) -> Contents {
    let mut contents = Contents::default();
    for row in rows {
        row.fields.iter().for_each(|field| contents.add_field(&row.key, field));
    }
    contents
}

/// The first field in which two maps differ, as a sentence.
fn difference<T: PartialEq + std::fmt::Debug>(
    expected: &BTreeMap<FieldPath, T>,
    found: &BTreeMap<FieldPath, T>,
) -> Option<String> {
    let paths = expected.keys().chain(found.keys());
    let path = paths.into_iter().find(|path| expected.get(*path) != found.get(*path))?;
    let (wanted, is) = (expected.get(path), found.get(path));
    Some(format!("{path:?} is {is:?}, and the writes determine {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use continuum_core::id::{Actor, ShardId};

    use super::*;

    fn dot(seq: u64) -> Dot {
        Dot { actor: Actor::default(), seq }
    }

    fn write(seq: u64, stamp: u64, op: Op, superseded: &[u64]) -> Written {
        let superseded = superseded.iter().map(|seq| (dot(*seq), 0)).collect();
        Written {
            shard: ShardId::default(),
            dot: dot(seq),
            key: b"k".to_vec(),
            stamp,
            hash: Digest::default(),
            edits: vec![WrittenEdit { superseded, ..WrittenEdit::new(Vec::new(), op) }],
        }
    }

    fn put(seq: u64, stamp: u64, superseded: &[u64]) -> Written {
        write(seq, stamp, Op::Put(vec![seq as u8]), superseded)
    }

    fn register(values: &[u8]) -> Vec<Row> {
        let values = values.iter().map(|value| Bytes::from(vec![*value])).collect();
        let field = Field { field: Bytes::new(), content: Content::Register(values) };
        vec![Row { key: Bytes::from_static(b"k"), fields: vec![field] }]
    }

    fn judge(writes: &[Written], discards: bool, rows: &[Row]) -> bool {
        Contents::of(writes.iter(), |_, _| false).check(discards, &contents_of(rows)).is_ok()
    }

    #[test]
    fn siblings_are_in_their_order() {
        let writes = [put(1, 10, &[]), put(2, 20, &[]), put(3, 15, &[1])];
        assert!(judge(&writes, false, &register(&[2, 3])));
        assert!(!judge(&writes, false, &register(&[3, 2])));
        assert!(!judge(&writes, false, &register(&[2, 3, 1])));
        assert!(!judge(&writes, false, &register(&[2])));
    }

    #[test]
    fn the_winner_is_the_greatest_living_value() {
        let writes = [put(1, 10, &[]), put(2, 20, &[])];
        assert!(judge(&writes, true, &register(&[2])));
        assert!(!judge(&writes, true, &register(&[1])));
        assert!(!judge(&writes, true, &[]));
        // The greater value may have beaten the lesser before it was deleted itself.
        let deleted = [put(1, 10, &[]), put(2, 20, &[]), write(3, 30, Op::Delete, &[2])];
        assert!(judge(&deleted, true, &[]) && judge(&deleted, true, &register(&[1])));
    }

    #[test]
    fn an_unseen_add_survives_a_remove() {
        let add = |seq| write(seq, seq, Op::Add(vec![7]), &[]);
        let remove = write(3, 3, Op::Remove(vec![7]), &[1]);
        let set = |members: &[u8]| {
            let members = members.iter().map(|member| Bytes::from(vec![*member])).collect();
            let field = Field { field: Bytes::new(), content: Content::Set(members) };
            vec![Row { key: Bytes::from_static(b"k"), fields: vec![field] }]
        };
        assert!(judge(&[add(1), remove.clone()], false, &[]));
        assert!(judge(&[add(1), add(2), remove.clone()], false, &set(&[7])));
        assert!(!judge(&[add(1), add(2), remove], false, &[]));
    }
}
