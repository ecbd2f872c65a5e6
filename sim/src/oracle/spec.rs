//! The eventual namespaces by an executable specification: what the replicas hold at the end is what the set of all
//! writes amounts to, computed from the writes alone (Shapiro and others 2011; add-wins sets after Bieniusa and others
//! 2012).
//!
//! The writes are read from what their authors log, and merged by rules of this file: an edit lives unless a write that
//! took place supersedes it. A register holds its living values in the order of (stamp, node, hash), a set the members
//! with a living add, a counter the sum of the living totals. A write took place if the context that all replicas came
//! to has its dot; whoever was told that it is durable finds it there. Also judged, as writes are made: that a write
//! with a context supersedes only what that context names, that a dot has one meaning, and that a write which a replica
//! has seen is not new to it again.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::digest::Digest;
use continuum_core::id::{Boot, Dot, NodeId, Replica, ShardId, Token};
use continuum_core::node::api::{Change, Content, Mutation, Row};
use continuum_core::replication::{Described, DescribedAct, DescribedEdit, describe};
use continuum_core::wal::Write;

use super::{Broken, Verdict};

pub(crate) const NAME: &str = "eventual-specification";
pub(crate) const MINTED: &str = "supersedes-what-was-seen";
pub(crate) const AGAIN: &str = "dead-write-stays-dead";
pub(crate) const MISSING: &str = "acknowledged-dot-missing";

/// All writes of a run.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    by_shard: BTreeMap<ShardId, BTreeMap<Dot, Described>>,
    /// Per node: the dots that this life of it logged as seen.
    logged: Vec<BTreeSet<(ShardId, Dot)>>,
    /// Per node: the dots whose records its store logged, by the record's number.
    recorded: Vec<Vec<(u64, ShardId, Dot)>>,
    /// The dots that were made for an operation.
    made_for: BTreeMap<usize, Vec<(ShardId, Dot)>>,
}

/// A client's operation that the step was asked for, with what it wants changed.
pub(crate) type Wanted<'a> = (usize, &'a Mutation);

impl Writes {
    pub(crate) fn new(nodes: usize) -> Self {
        let (logged, recorded) = (vec![BTreeSet::new(); nodes], vec![Vec::new(); nodes]);
        Self { logged, recorded, ..Self::default() }
    }

    /// A node starts anew from a log that ends at a token: what it logs again after a crash is new to it.
    pub(crate) fn restarted(&mut self, node: usize, last: Token) {
        self.logged[node].clear();
        self.recorded[node].retain(|(seq, ..)| *seq <= last.seq);
    }

    /// A node's disk is gone.
    pub(crate) fn disk_gone(&mut self, node: usize) {
        self.recorded[node].clear();
    }

    /// The dots whose records these disks hold up to these tokens.
    pub(crate) fn recorded_on(
        &self,
        disks: impl Iterator<Item = (usize, Token)>,
    ) -> BTreeSet<(ShardId, Dot)> {
        let on = |(node, last): (usize, Token)| {
            let durable = self.recorded[node].iter().take_while(move |(seq, ..)| *seq <= last.seq);
            durable.map(|(_, shard, dot)| (*shard, *dot))
        };
        disks.flat_map(on).collect()
    }

    /// The operations of which none of these dots is.
    pub(crate) fn nowhere_in(&self, kept: &BTreeSet<(ShardId, Dot)>) -> BTreeSet<usize> {
        let gone = |(_, dots): &(&usize, &Vec<_>)| !dots.iter().any(|dot| kept.contains(dot));
        self.made_for.iter().filter(gone).map(|(operation, _)| *operation).collect()
    }

    /// A node logs what it takes in or makes.
    pub(crate) fn observe(
        &mut self,
        (number, replica, boot): (usize, Replica, Boot),
        wanted: Option<Wanted<'_>>,
        (token, write): (Token, &Write),
    ) -> Verdict {
        let Write::Dots { records, .. } = write else { return Ok(()) };
        for told in records.iter().filter_map(describe) {
            self.recorded[number].push((token.seq, told.shard, told.dot));
            if !told.waits && !self.logged[number].insert((told.shard, told.dot)) {
                let what = format!("node {number} takes in {:?} a second time", told.dot);
                return Err(Broken::new(AGAIN, what));
            }
            let (actor, shard, dot) = (told.dot.actor, told.shard, told.dot);
            let is_own = actor.replica == replica && actor.boot == boot;
            if let Some((operation, mutation)) = wanted.filter(|_| is_own)
                && mutation.key[..] == told.key[..]
            {
                check_made(&told, mutation)?;
                self.made_for.entry(operation).or_default().push((shard, dot));
            }
            let known =
                self.by_shard.entry(shard).or_default().entry(dot).or_insert_with(|| told.clone());
            if known.hash != told.hash {
                let what = format!("{dot:?} means {known:?} and also {told:?}");
                return Err(Broken::new(NAME, what));
            }
        }
        Ok(())
    }

    /// Whether an acknowledged operation is in the context that the replicas came to; it is beaten where losers go.
    pub(crate) fn check_there(
        &self,
        operation: usize,
        covers: impl Fn(ShardId, &Dot) -> bool,
    ) -> Verdict {
        let Some(dots) = self.made_for.get(&operation) else { return Ok(()) };
        if dots.iter().any(|(shard, dot)| covers(*shard, dot)) {
            return Ok(());
        }
        Err(Broken::new(MISSING, format!("operation {operation} is nowhere: {dots:?}")))
    }

    /// Judges the rows of one shard, which are the same on all replicas.
    ///
    /// A write may have taken place and its record be lost with the disks that had it: it was superseded by one that
    /// was not. Whether the replicas know what it superseded in its turn depends on what they were told before; of its
    /// key nothing is judged here. Records that some replica has are known.
    pub(crate) fn check(
        &self,
        shard: ShardId,
        discards: bool,
        rows: &[Row],
        covers: impl Fn(&Dot) -> bool,
        is_known: impl Fn(&Dot) -> bool,
    ) -> Verdict {
        let nothing = BTreeMap::new();
        let writes = self.by_shard.get(&shard).unwrap_or(&nothing);
        let took_place = || writes.values().filter(|write| covers(&write.dot));
        let unknown = took_place().filter(|write| !is_known(&write.dot));
        let doubtful: BTreeSet<&[u8]> = unknown.map(|write| &write.key[..]).collect();
        let is_clear = |key: &[u8]| !doubtful.contains(key);
        let amounts = Amount::of(took_place().filter(|write| is_clear(&write.key)));
        let rows: Vec<Row> = rows.iter().filter(|row| is_clear(&row.key)).cloned().collect();
        amounts.check(discards, &held(&rows))
    }
}

/// A write is made as it was asked for.
fn check_made(told: &Described, mutation: &Mutation) -> Verdict {
    let broken = |what: String| Err(Broken::new(MINTED, what));
    for (edit, wanted) in told.edits.iter().zip(&mutation.edits) {
        let counts = matches!(wanted.change, Change::Count(_));
        let seen = |dot: &Dot| match &mutation.context {
            _ if *dot == told.dot => true,
            _ if counts => dot.actor == told.dot.actor,
            Some(context) => context.dots.contains(dot),
            None => true,
        };
        let victims = edit.victims.iter().map(|(dot, _)| dot);
        if let Some(dot) = victims.chain(&edit.unseen).find(|dot| !seen(dot)) {
            return broken(format!(
                "{told:?} supersedes {dot:?}, and was asked for as {mutation:?}"
            ));
        }
    }
    Ok(())
}

/// The order of registers: stamp, node, hash.
type Rank = (u64, NodeId, Digest);
/// Key and field.
type Place = (Vec<u8>, Vec<u8>);

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
    edit: &'a DescribedEdit,
}

impl Scope<'_> {
    fn takes(&self, key: &[u8], other: &DescribedEdit) -> bool {
        use DescribedAct as Act;
        let field = self.edit.field == other.field;
        let acts = match (&self.edit.act, &other.act) {
            (Act::Delete, _) => return key == self.key && (field || self.edit.field.is_empty()),
            (Act::Put(_), Act::Put(_)) | (Act::Count { .. }, Act::Count { .. }) => true,
            (Act::Add(mine) | Act::Remove(mine), Act::Add(theirs)) => mine == theirs,
            _ => false,
        };
        acts && field && key == self.key
    }
}

impl Amount {
    fn of<'a>(writes: impl Iterator<Item = &'a Described> + Clone) -> Self {
        let mut dead: BTreeSet<(Dot, u16)> = BTreeSet::new();
        let mut scopes: BTreeMap<Dot, Vec<Scope<'a>>> = BTreeMap::new();
        for write in writes.clone() {
            for edit in &write.edits {
                dead.extend(edit.victims.iter().copied());
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
                let dies = dead.contains(&(write.dot, number as u16))
                    || scoped.into_iter().any(|scope| scope.takes(&write.key, edit));
                amount.take(write, edit, dies);
            }
        }
        amount.registers.values_mut().for_each(|values| values.sort_by(|a, b| b.cmp(a)));
        amount
    }

    fn take(&mut self, write: &Described, edit: &DescribedEdit, dies: bool) {
        let place = (write.key.clone(), edit.field.clone());
        let rank = (write.stamp, write.dot.actor.replica.node, write.hash);
        match &edit.act {
            DescribedAct::Put(_) if dies => {
                let greatest = self.superseded.entry(place).or_insert(rank);
                *greatest = rank.max(*greatest);
            }
            _ if dies => {}
            DescribedAct::Put(value) => {
                self.registers.entry(place).or_default().push((rank, value.clone()));
            }
            DescribedAct::Add(member) => {
                self.sets.entry(place).or_default().insert(member.clone());
            }
            DescribedAct::Count { plus, minus } => {
                *self.counters.entry(place).or_default() += i128::from(*plus) - i128::from(*minus);
            }
            DescribedAct::Delete | DescribedAct::Remove(_) => {}
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
    use continuum_core::id::Actor;
    use continuum_core::node::api::Field;

    use super::*;

    fn dot(seq: u64) -> Dot {
        Dot { actor: Actor::default(), seq }
    }

    fn write(seq: u64, stamp: u64, act: DescribedAct, victims: &[u64]) -> Described {
        let victims = victims.iter().map(|seq| (dot(*seq), 0)).collect();
        Described {
            shard: ShardId::default(),
            dot: dot(seq),
            key: b"k".to_vec(),
            stamp,
            hash: Digest::default(),
            edits: vec![DescribedEdit { field: Vec::new(), act, victims, unseen: Vec::new() }],
            waits: false,
        }
    }

    fn put(seq: u64, stamp: u64, victims: &[u64]) -> Described {
        write(seq, stamp, DescribedAct::Put(vec![seq as u8]), victims)
    }

    fn register(values: &[u8]) -> Vec<Row> {
        let values = values.iter().map(|value| Bytes::from(vec![*value])).collect();
        let field = Field { field: Bytes::new(), content: Content::Register(values) };
        vec![Row { key: Bytes::from_static(b"k"), fields: vec![field] }]
    }

    fn judge(writes: &[Described], discards: bool, rows: &[Row]) -> bool {
        Amount::of(writes.iter()).check(discards, &held(rows)).is_ok()
    }

    #[test]
    fn what_no_kept_disk_recorded_is_excused_and_its_key_alone_is_doubtful() {
        let mut writes = Writes::new(2);
        let shard = ShardId::default();
        let token = |seq| Token { lane: 0, seq };
        writes.recorded[0] = vec![(1, shard, dot(1)), (2, shard, dot(2))];
        writes.recorded[1] = vec![(1, shard, dot(2)), (5, shard, dot(3))];
        for seq in 1..=3 {
            writes.made_for.insert(seq as usize, vec![(shard, dot(seq))]);
        }
        let kept = |writes: &Writes, disks: &[(usize, u64)]| {
            let disks = disks.iter().map(|(node, seq)| (*node, token(*seq)));
            writes.recorded_on(disks)
        };
        let gone = |writes: &Writes, disks: &[(usize, u64)]| {
            writes.nowhere_in(&kept(writes, disks)).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(gone(&writes, &[(0, 9), (1, 9)]), Vec::<usize>::new());
        assert_eq!(gone(&writes, &[(1, 4)]), [1, 3], "the third was not durable there");
        writes.disk_gone(0);
        writes.restarted(1, token(1));
        assert_eq!(gone(&writes, &[(0, 9), (1, 9)]), [1, 3]);
        // The first superseded another, and only its successor is known: either way is sound. Other keys are judged.
        let mut all = BTreeMap::from([0, 1, 2].map(|seq| (dot(seq), put(seq, seq, &[]))));
        all.insert(dot(1), put(1, 1, &[0]));
        all.insert(dot(2), put(2, 2, &[1]));
        writes.by_shard.insert(shard, all);
        let judge = |rows: &[Row], unknown: u64| {
            writes.check(shard, false, rows, |_| true, |known| *known != dot(unknown)).is_ok()
        };
        assert!(judge(&register(&[2]), 1) && judge(&register(&[2, 0]), 1));
        assert!(judge(&register(&[2]), 9) && !judge(&register(&[2, 0]), 9));
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
        let deleted = [put(1, 10, &[]), put(2, 20, &[]), write(3, 30, DescribedAct::Delete, &[2])];
        assert!(judge(&deleted, true, &[]) && judge(&deleted, true, &register(&[1])));
    }

    #[test]
    fn an_unseen_add_survives_a_remove() {
        let add = |seq| write(seq, seq, DescribedAct::Add(vec![7]), &[]);
        let remove = write(3, 3, DescribedAct::Remove(vec![7]), &[1]);
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
