//! The eventual namespaces by an executable specification: what the replicas hold at the end is what the set of all
//! writes amounts to, computed from the writes alone (Shapiro and others 2011; add-wins sets after Bieniusa and others
//! 2012).
//!
//! The writes are read from what their authors log, and merged by rules of this file: an edit lives unless a write that
//! took place supersedes it. A register holds its living values in the order of (stamp, node, hash), a set the members
//! with a living add, a counter the sum of the living totals. A write took place if the context that all replicas came
//! to has its dot. Totals hold what their author counted before: its latest ones alone count, though the writes between
//! may be lost.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::{Content, Row};
use continuum_core::digest::Digest;
use continuum_core::id::{Actor, Dot, NodeId};
use continuum_core::replication::{EditInfo, EditOpInfo, WriteInfo};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "eventual-specification";

/// Judges the rows of one shard, which are the same on all replicas, by the writes that they have seen.
pub(crate) fn check<'a>(
    writes: impl Iterator<Item = &'a WriteInfo> + Clone,
    discards: bool,
    rows: &[Row],
) -> Verdict {
    Amount::of(writes).check(discards, &held(rows))
}

/// The order of registers: stamp, node, hash.
pub(crate) type Rank = (u64, NodeId, Digest);
/// Key and field.
pub(crate) type Place = (Vec<u8>, Vec<u8>);

/// A write's rank among registers.
pub(crate) fn rank_of(write: &WriteInfo) -> Rank {
    (write.stamp, write.dot.actor.replica.node, write.hash)
}

/// What a set of writes amounts to.
#[derive(Debug, Default)]
struct Amount {
    /// Living values with their ranks, by place.
    registers: BTreeMap<Place, Vec<(Rank, Vec<u8>)>>,
    /// The greatest rank of a superseded value, by place.
    superseded: BTreeMap<Place, Rank>,
    sets: BTreeMap<Place, BTreeSet<Vec<u8>>>,
    counters: BTreeMap<Place, i128>,
}

/// A scope in which all of a write is superseded.
struct Scope<'a> {
    key: &'a [u8],
    edit: &'a EditInfo,
}

/// Whether what is in the scope of `edit` includes `other`.
pub(crate) fn takes((key, edit): (&[u8], &EditInfo), (of, other): (&[u8], &EditInfo)) -> bool {
    use EditOpInfo as Op;
    let field = edit.field == other.field;
    let ops = match (&edit.op, &other.op) {
        (Op::Delete, _) => return key == of && (field || edit.field.is_empty()),
        (Op::Put(_), Op::Put(_)) | (Op::Count { .. }, Op::Count { .. }) => true,
        (Op::Add(mine) | Op::Remove(mine), Op::Add(theirs)) => mine == theirs,
        _ => false,
    };
    ops && field && key == of
}

impl Amount {
    fn of<'a>(writes: impl Iterator<Item = &'a WriteInfo> + Clone) -> Self {
        let mut dead: BTreeSet<(Dot, u16)> = BTreeSet::new();
        let mut scopes: BTreeMap<Dot, Vec<Scope<'a>>> = BTreeMap::new();
        let mut latest: BTreeMap<(&Actor, &[u8], &[u8]), u64> = BTreeMap::new();
        for write in writes.clone() {
            for edit in &write.edits {
                if matches!(edit.op, EditOpInfo::Count { .. }) {
                    let seq = latest.entry(total_of(write, edit)).or_default();
                    *seq = write.dot.seq.max(*seq);
                }
                dead.extend(edit.superseded.iter().copied());
                for dot in &edit.unseen {
                    let scope = Scope { key: &write.key, edit };
                    scopes.entry(*dot).or_default().push(scope);
                }
            }
        }
        let mut amount = Self::default();
        for write in writes {
            for (number, edit) in write.edits.iter().enumerate() {
                let scoped = scopes.get(&write.dot).into_iter().flatten();
                let is_late = matches!(edit.op, EditOpInfo::Count { .. })
                    && latest.get(&total_of(write, edit)).is_some_and(|seq| *seq > write.dot.seq);
                let dies = is_late
                    || dead.contains(&(write.dot, number as u16))
                    || scoped
                        .into_iter()
                        .any(|scope| takes((scope.key, scope.edit), (&write.key, edit)));
                amount.take(write, edit, dies);
            }
        }
        amount.registers.values_mut().for_each(|values| values.sort_by(|a, b| b.cmp(a)));
        amount
    }

    fn take(&mut self, write: &WriteInfo, edit: &EditInfo, dies: bool) {
        let place = (write.key.clone(), edit.field.clone());
        let rank = rank_of(write);
        match &edit.op {
            EditOpInfo::Put(_) if dies => {
                let greatest = self.superseded.entry(place).or_insert(rank);
                *greatest = rank.max(*greatest);
            }
            _ if dies => {}
            EditOpInfo::Put(value) => {
                self.registers.entry(place).or_default().push((rank, value.clone()));
            }
            EditOpInfo::Add(member) => {
                self.sets.entry(place).or_default().insert(member.clone());
            }
            EditOpInfo::Count { plus, minus } => {
                *self.counters.entry(place).or_default() += i128::from(*plus) - i128::from(*minus);
            }
            EditOpInfo::Delete | EditOpInfo::Remove(_) => {}
        }
    }

    fn check(&self, discards: bool, held: &Self) -> Verdict {
        let broken = |what: String| Err(Broken::new(NAME, what));
        if let Some(what) = difference(&self.sets, &held.sets) {
            return broken(format!("sets: {what}"));
        }
        if let Some(what) = difference(&self.counters, &held.counters) {
            return broken(format!("counters: {what}"));
        }
        let values = |of: &Self| -> BTreeMap<Place, Vec<Vec<u8>>> {
            let only = |values: &Vec<(Rank, Vec<u8>)>| values.iter().map(|v| v.1.clone()).collect();
            of.registers.iter().map(|(place, v)| (place.clone(), only(v))).collect()
        };
        if discards {
            return self.check_winners(&values(held));
        }
        match difference(&values(self), &values(held)) {
            Some(what) => broken(format!("registers: {what}")),
            None => Ok(()),
        }
    }

    /// Where losers go, whoever is not there was beaten: by who is, or by a greater one that was superseded later.
    fn check_winners(&self, held: &BTreeMap<Place, Vec<Vec<u8>>>) -> Verdict {
        let nothing = Vec::new();
        for (place, living) in &self.registers {
            let values = held.get(place).unwrap_or(&nothing);
            let place_of = |value: &Vec<u8>| living.iter().position(|(_, known)| known == value);
            // Living values are in falling order: those before the winner must have been beaten otherwise.
            let winner = values.first().map_or(Some(living.len()), place_of);
            let beaten = |rank: &Rank| self.superseded.get(place).is_some_and(|by| by > rank);
            let sound = winner.is_some_and(|winner| {
                values.len() <= 1 && living[..winner].iter().all(|(rank, _)| beaten(rank))
            });
            if !sound {
                let what = format!("{place:?} holds {values:?}, and lives as {living:?}");
                return Err(Broken::new(NAME, what));
            }
        }
        match held.keys().find(|place| !self.registers.contains_key(*place)) {
            Some(place) => Err(Broken::new(NAME, format!("{place:?} holds what was superseded"))),
            None => Ok(()),
        }
    }
}

/// Whose total, and where.
fn total_of<'a>(write: &'a WriteInfo, edit: &'a EditInfo) -> (&'a Actor, &'a [u8], &'a [u8]) {
    (&write.dot.actor, &write.key, &edit.field)
}

/// What rows say, in the same words. Ranks are not known of them, and stay empty.
fn held(rows: &[Row]) -> Amount {
    let mut held = Amount::default();
    for row in rows {
        for field in &row.fields {
            let place = (row.key.to_vec(), field.field.to_vec());
            match &field.content {
                Content::Register(values) => {
                    let ranked = values.iter().map(|value| (Rank::default(), value.to_vec()));
                    held.registers.insert(place, ranked.collect());
                }
                Content::Set(members) => {
                    held.sets.insert(place, members.iter().map(|m| m.to_vec()).collect());
                }
                Content::Counter(value) => {
                    held.counters.insert(place, *value);
                }
            }
        }
    }
    held
}

/// The first place at which two maps differ.
fn difference<T: PartialEq + std::fmt::Debug>(
    expected: &BTreeMap<Place, T>,
    found: &BTreeMap<Place, T>,
) -> Option<String> {
    let places = expected.keys().chain(found.keys());
    let place = places.into_iter().find(|place| expected.get(*place) != found.get(*place))?;
    let (wanted, is) = (expected.get(place), found.get(place));
    Some(format!("{place:?} is {is:?}, and all writes amount to {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use continuum_core::api::Field;
    use continuum_core::id::{Actor, ShardId};

    use super::*;

    fn dot(seq: u64) -> Dot {
        Dot { actor: Actor::default(), seq }
    }

    fn write(seq: u64, stamp: u64, op: EditOpInfo, superseded: &[u64]) -> WriteInfo {
        let superseded = superseded.iter().map(|seq| (dot(*seq), 0)).collect();
        WriteInfo {
            shard: ShardId::default(),
            dot: dot(seq),
            key: b"k".to_vec(),
            stamp,
            hash: Digest::default(),
            edits: vec![EditInfo { field: Vec::new(), op, superseded, unseen: Vec::new() }],
            waits: false,
        }
    }

    fn put(seq: u64, stamp: u64, superseded: &[u64]) -> WriteInfo {
        write(seq, stamp, EditOpInfo::Put(vec![seq as u8]), superseded)
    }

    fn register(values: &[u8]) -> Vec<Row> {
        let values = values.iter().map(|value| Bytes::from(vec![*value])).collect();
        let field = Field { field: Bytes::new(), content: Content::Register(values) };
        vec![Row { key: Bytes::from_static(b"k"), fields: vec![field] }]
    }

    fn judge(writes: &[WriteInfo], discards: bool, rows: &[Row]) -> bool {
        Amount::of(writes.iter()).check(discards, &held(rows)).is_ok()
    }

    #[test]
    fn siblings_stand_in_their_order() {
        let writes = [put(1, 10, &[]), put(2, 20, &[]), put(3, 15, &[1])];
        assert!(judge(&writes, false, &register(&[2, 3])));
        assert!(!judge(&writes, false, &register(&[3, 2])));
        assert!(!judge(&writes, false, &register(&[2, 3, 1])));
        assert!(!judge(&writes, false, &register(&[2])));
    }

    #[test]
    fn the_winner_is_the_greatest_that_lives() {
        let writes = [put(1, 10, &[]), put(2, 20, &[])];
        assert!(judge(&writes, true, &register(&[2])));
        assert!(!judge(&writes, true, &register(&[1])));
        assert!(!judge(&writes, true, &[]));
        // The greater one may have beaten the lesser before it was deleted itself.
        let deleted = [put(1, 10, &[]), put(2, 20, &[]), write(3, 30, EditOpInfo::Delete, &[2])];
        assert!(judge(&deleted, true, &[]) && judge(&deleted, true, &register(&[1])));
    }

    #[test]
    fn an_unseen_add_survives_a_remove() {
        let add = |seq| write(seq, seq, EditOpInfo::Add(vec![7]), &[]);
        let remove = write(3, 3, EditOpInfo::Remove(vec![7]), &[1]);
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
