//! All writes of one shard: what each says, and what supersedes or beats it.
//!
//! `writes` adds each write when a node logs it first, and asks what the laws need. As a part of `eventual_read`, this
//! file judges two things itself: that a node has seen the writes that its own process made, and that the elements
//! which it counts as dead were superseded or beaten.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

use bytes::Bytes;
use continuum_core::api::Query;
use continuum_core::id::Dot;
use continuum_core::replication::Dots;

use crate::format::write::{Op, Written, WrittenEdit};
use crate::oracle::eventual_read::{self, Read};
use crate::oracle::eventual_specification::{FieldPath, Rank, rank_of};
use crate::verdict::{Broken, Verdict};

/// A write, and what supersedes it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) info: Rc<Written>,
    pub(super) later: Superseders,
}

/// The writes that supersede a write.
#[derive(Debug, Default)]
pub(super) struct Superseders {
    /// Those that name an edit of it, with the edit's number.
    pub(super) by_name: Vec<(u16, Dot)>,
    /// Those that supersede all of it that is in their scope.
    pub(super) by_scope: Vec<Dot>,
}

/// All writes of one shard. Each has a number, in the order in which they were logged first.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) writes: Vec<Known>,
    pub(super) numbers: BTreeMap<Dot, usize>,
    /// By the bytes of its sealed record: a write's number. Equal bytes say the same, so they are read once.
    by_record: BTreeMap<Bytes, usize>,
    /// By key: its writes.
    by_key: BTreeMap<Vec<u8>, Vec<usize>>,
    /// The writes that supersede a write which no node logged so far.
    awaited: BTreeMap<Dot, Superseders>,
    /// The writes that supersede ranges of dots.
    pub(super) covering: Vec<Dot>,
    /// By field: the writes that put a register value, in the LWW order.
    pub(super) puts: BTreeMap<FieldPath, BTreeSet<(Rank, Dot)>>,
    /// By field: the writes that counted.
    pub(super) counts: BTreeMap<FieldPath, BTreeSet<Dot>>,
    /// The greatest stamp.
    pub(super) greatest: u64,
}

impl Shard {
    pub(super) fn get(&self, dot: &Dot) -> Option<&Known> {
        self.numbers.get(dot).map(|number| &self.writes[*number])
    }

    /// The write whose sealed record has these bytes.
    pub(super) fn of_record(&self, record: &Bytes) -> Option<Rc<Written>> {
        self.by_record.get(record).map(|number| Rc::clone(&self.writes[*number].info))
    }

    /// The writes that supersede the write of a dot, known or not.
    fn later_of(&mut self, dot: &Dot) -> &mut Superseders {
        match self.numbers.get(dot) {
            Some(number) => &mut self.writes[*number].later,
            None => self.awaited.entry(*dot).or_default(),
        }
    }

    /// Adds a new write, with its sealed record if it was logged as such. Returns its number.
    pub(super) fn add(&mut self, write: &Rc<Written>, record: Option<Bytes>) -> usize {
        let number = self.writes.len();
        self.numbers.insert(write.dot, number);
        self.by_record.extend(record.map(|record| (record, number)));
        let later = self.awaited.remove(&write.dot).unwrap_or_default();
        self.writes.push(Known { info: Rc::clone(write), later });
        for edit in &write.edits {
            for (dot, number) in &edit.superseded {
                self.later_of(dot).by_name.push((*number, write.dot));
            }
            for dot in &edit.absent {
                self.later_of(dot).by_scope.push(write.dot);
            }
            if !edit.covered.is_empty() && self.covering.last() != Some(&write.dot) {
                self.covering.push(write.dot);
            }
            if matches!(edit.op, Op::Put(_)) {
                let path = (write.key.clone(), edit.field.clone());
                self.puts.entry(path).or_default().insert((rank_of(write), write.dot));
            }
            if matches!(edit.op, Op::Count { .. }) {
                let path = (write.key.clone(), edit.field.clone());
                self.counts.entry(path).or_default().insert(write.dot);
            }
        }
        self.greatest = write.stamp.max(self.greatest);
        self.by_key.entry(write.key.clone()).or_default().push(number);
        number
    }

    /// The edits in a context that a query can answer with, and whether each is dead. A write concerns no other key
    /// than its own.
    pub(super) fn read_by<'a>(
        &'a self,
        query: &'a Query,
        context: &'a Dots,
        told: &'a impl Fn(&Dot, u16) -> bool,
    ) -> impl Iterator<Item = Read<'a>> {
        let keys = self.by_key.range(keys_of(query)).flat_map(|(_, numbers)| numbers);
        let writes = keys.map(|number| &self.writes[*number]);
        let seen = writes.filter(|write| context.contains(&write.info.dot));
        seen.flat_map(move |write| {
            let edits = (0_u16..).zip(&write.info.edits);
            let asked = edits.filter(|(_, edit)| is_asked(query, edit));
            asked.map(move |(number, edit)| {
                let is_dead = self.is_edit_superseded_in(write, number, edit, context)
                    || told(&write.info.dot, number);
                (&*write.info, edit, is_dead)
            })
        })
    }

    /// The greatest stamp among the writes that a write supersedes, other than itself.
    pub(super) fn greatest_superseded(&self, write: &Written) -> u64 {
        let superseded = write.edits.iter().flat_map(|edit| &edit.superseded);
        let stamps = superseded.filter_map(|(dot, _)| self.get(dot).map(|write| write.info.stamp));
        stamps.max().unwrap_or(0)
    }

    /// Judges that a node has seen the writes that its process made after `last`. Returns the number of the newest.
    pub(super) fn check_own(&self, last: Dot, context: &Dots) -> Result<u64, Broken> {
        let mut newest = last.seq;
        let later = self.numbers.range((Bound::Excluded(last), Bound::Unbounded));
        for (dot, _) in later.take_while(|(dot, _)| dot.actor == last.actor) {
            if !context.contains(dot) {
                let what = format!("a node made {dot:?} and does not see it: {context:?}");
                return Err(Broken::new(eventual_read::NAME, what));
            }
            newest = dot.seq;
        }
        Ok(newest)
    }

    /// Judges that what a node counts as dead of a write was superseded, or beaten where losers are dropped, by some
    /// write, known to that node or not.
    pub(super) fn check_removal(&self, dot: &Dot, left: &[u16], discards: bool) -> Verdict {
        let Some(write) = self.get(dot) else { return Ok(()) };
        let mut dead =
            (0_u16..).zip(&write.info.edits).filter(|(number, _)| !left.contains(number));
        let lives = |(number, edit): &(u16, &WrittenEdit)| {
            let beaten = discards && self.is_edit_beaten(&write.info, edit, None);
            !beaten && !self.is_edit_superseded(write, *number, edit, None)
        };
        match dead.find(lives) {
            None => Ok(()),
            Some((number, _)) => {
                let what = format!("edit {number} of {dot:?} is dead, and nothing superseded it");
                Err(Broken::new(eventual_read::NAME, what))
            }
        }
    }
}

/// The keys that a query can answer with.
fn keys_of(query: &Query) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let nothing = Bytes::new();
    let (prefix, after) = match query {
        Query::Keys { prefix, after, .. } => (prefix, after.as_ref()),
        Query::Rows { after, .. } => (&nothing, after.as_ref()),
        // It is refused.
        Query::Export { prefix, .. } => (prefix, None),
        Query::Get { key, .. }
        | Query::Members { key, .. }
        | Query::Count { key, .. }
        | Query::Record { key } => (key, None),
    };
    let is_page = matches!(query, Query::Keys { .. } | Query::Rows { .. });
    let from = match after.filter(|after| *after >= prefix) {
        Some(after) => Bound::Excluded(after.to_vec()),
        None => Bound::Included(prefix.to_vec()),
    };
    let to = if is_page { Bound::Unbounded } else { Bound::Included(prefix.to_vec()) };
    (from, to)
}

/// Whether an edit changes a field that a query asks for.
fn is_asked(query: &Query, edit: &WrittenEdit) -> bool {
    match query {
        Query::Get { field, .. } | Query::Members { field, .. } | Query::Count { field, .. } => {
            edit.field[..] == field[..]
        }
        Query::Record { .. } | Query::Keys { .. } | Query::Rows { .. } => true,
        Query::Export { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::digest::Digest;
    use continuum_core::id::{Actor, Boot, ShardId};

    use super::*;
    use crate::oracle::eventual_specification::Contents;
    use crate::rng::{Dice, Draws};

    const WRITES: u64 = 8;
    const FIELDS: [&[u8]; 3] = [b"", b"f", b"g"];

    /// The dots of two authors, one after the other.
    fn dot(number: u64) -> Dot {
        let boot = Boot { count: number % 2, nonce: 0 };
        Dot { actor: Actor { boot, ..Actor::default() }, seq: number / 2 + 1 }
    }

    fn edit(dice: &mut Dice, number: u64) -> WrittenEdit {
        let value = vec![dice.below(2) as u8];
        let op = match dice.below(5) {
            0 => Op::Put(value),
            1 => Op::Add(value),
            2 => Op::Remove(value),
            3 => Op::Delete,
            _ => Op::Count { plus: number + 1, minus: 0 },
        };
        let earlier = |dice: &mut Dice| dot(dice.below(WRITES));
        let superseded =
            (0..dice.below(3)).map(|_| (earlier(dice), dice.below(2) as u16)).collect();
        let absent = (0..dice.below(2)).map(|_| earlier(dice)).collect();
        let covered = (0..dice.below(2)).map(|_| {
            let Dot { actor, seq } = earlier(dice);
            (actor, 1, seq)
        });
        let covered = if op == Op::Delete { covered.collect() } else { Vec::new() };
        let field = FIELDS[dice.below(3) as usize].to_vec();
        WrittenEdit { field, op, superseded, absent, covered }
    }

    /// The index of what supersedes each write says the same as the specification, which reads all writes anew, in each
    /// order in which writes become known, and for each context.
    #[test]
    fn an_edit_is_dead_as_the_specification_says() {
        let (mut living, mut dead) = (0, 0);
        for seed in 0..60 {
            let mut dice = Draws::new(seed).dice(1);
            let mut shard = Shard::default();
            let mut writes: Vec<u64> = (0..WRITES).collect();
            while !writes.is_empty() {
                let number = writes.remove(dice.below(writes.len() as u64) as usize);
                let write = Written {
                    shard: ShardId::default(),
                    dot: dot(number),
                    key: b"k".to_vec(),
                    stamp: number,
                    hash: Digest::default(),
                    edits: (0..2).map(|_| edit(&mut dice, number)).collect(),
                };
                shard.add(&Rc::new(write), Some(Bytes::from(vec![number as u8])));
            }
            let query = Query::Record { key: Bytes::from_static(b"k") };
            for mask in 0..1_u32 << WRITES {
                let mut context = Dots::default();
                let seen = (0..WRITES).filter(|number| mask >> number & 1 == 1);
                seen.for_each(|number| assert!(context.insert(&dot(number))));
                let told = |dot: &Dot, edit: u16| dot.seq == 2 && edit == 1;
                let all = shard.writes.iter().map(|write| &*write.info);
                let seen = all.filter(|write| context.contains(&write.dot));
                let judged: Vec<_> = shard.read_by(&query, &context, &told).collect();
                dead += judged.iter().filter(|(.., dies)| *dies).count();
                living += judged.iter().filter(|(.., dies)| !dies).count();
                assert_eq!(Contents::of_edits(judged.into_iter()), Contents::of(seen, told));
            }
        }
        assert!(living > 1_000 && dead > 1_000, "{living} {dead}");
    }
}
