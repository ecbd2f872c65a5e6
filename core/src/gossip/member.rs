//! The table of members: the record of each member, and which update beats which.
//!
//! Updates are ordered by incarnation, then by state: a later boot beats everything, then more refutations, and at
//! equal incarnations alive < suspect < dead < left. That order is total, so nodes that received the same updates hold
//! the same state, whatever the order of arrival. This module sends nothing and does not decide which updates to
//! believe.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;
use core::time::Duration;

use super::message::{HEARSAY_REFUTATIONS_MAX, Load, Update};
use super::suspicion::Suspicion;
use super::{Incarnation, Member, State};
use crate::digest::Hasher;
use crate::id::{Address, Boot, NodeId, Replica};
use crate::limits::MEMBERS_MAX;
use crate::time::Instant;
use crate::{mutant, reach};

/// The record of one member.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) member: Member,
    /// The latest incarnation that the member itself told this node, over its own link. The default: none yet.
    pub(super) word: Incarnation,
    pub(super) load_version: u64,
    pub(super) suspicion: Option<Suspicion>,
    /// Whether the member is in the probe ring, so that it is never there twice.
    pub(super) in_ring: bool,
    /// The time that the member took to answer the last probe that it answered itself.
    pub(super) round_trip: Option<Duration>,
}

/// A removed member. It keeps its incarnation for a while: if it is added again, late gossip must not revive an old
/// one.
#[derive(Clone, Debug)]
struct Tombstone {
    until: Instant,
    record: Record,
}

/// All members but this node, with indices so that no step scans them.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    records: BTreeMap<NodeId, Record>,
    /// When each suspicion times out.
    timeouts: BTreeSet<(Instant, NodeId)>,
    dead: BTreeSet<NodeId>,
    /// Members that are alive or suspected.
    live: usize,
    removed: BTreeMap<NodeId, Tombstone>,
    /// When each removed member is forgotten.
    forgets: BTreeSet<(Instant, NodeId)>,
}

/// Whether an update beats what is held.
pub(super) fn beats(update: (Incarnation, State), held: (Incarnation, State)) -> bool {
    if mutant!("gossip.incarnation.ignored") {
        return update.1 != held.1;
    }
    if mutant!("gossip.dead.overrides_newer_alive") && update.1 == State::Dead {
        return held.1 < State::Dead;
    }
    update > held
}

impl Record {
    fn new(replica: Replica, name: alloc::string::String, address: Address) -> Self {
        let member = Member {
            replica,
            name,
            address,
            incarnation: Incarnation::default(),
            state: State::Alive,
            load: 0,
        };
        let word = Incarnation::default();
        Self { member, word, load_version: 0, suspicion: None, in_ring: false, round_trip: None }
    }

    /// The handshake of the member's link proved this boot.
    pub(super) fn proves(&mut self, boot: Boot) {
        if self.word.boot != boot {
            self.word = Incarnation { boot, refutations: 0 };
        }
    }

    /// The member told this node its incarnation. Returns whether what is held of it is of a boot that only others told
    /// of: the member's word replaces that, whatever it is.
    pub(super) fn told(&mut self, own: Incarnation) -> bool {
        let is_hearsay = self.is_heard() && self.member.incarnation.boot != self.word.boot;
        if self.word.boot != own.boot || own > self.word {
            self.word = own;
        }
        is_hearsay && self.member.incarnation.boot != own.boot
    }

    /// Whether what is held of the member is beyond what it said itself.
    pub(super) fn exceeds_word(&self) -> bool {
        self.word.boot == self.member.incarnation.boot && self.member.incarnation > self.word
    }

    /// Whether another member's claim about this one counts. Others carry a member's word further, and they may be
    /// wrong about its life. They say nothing new of its boot once the member proved one to this node, and nothing that
    /// is far beyond its word.
    pub(super) fn believes(&self, claim: Incarnation) -> bool {
        if mutant!("gossip.hearsay.any_boot") {
            return true;
        }
        let is_proved = self.word.boot != Boot::default();
        let word = if claim.boot == self.word.boot { self.word.refutations } else { 0 };
        let is_near = claim.refutations <= word.saturating_add(HEARSAY_REFUTATIONS_MAX);
        (!is_proved || claim.boot == self.word.boot)
            && (is_near || mutant!("gossip.hearsay.any_refutations"))
    }

    /// The pair that an update is compared with.
    pub(super) fn held(&self) -> (Incarnation, State) {
        (self.member.incarnation, self.member.state)
    }

    /// Whether gossip ever told of the member. Before that only its address is known.
    pub(super) fn is_heard(&self) -> bool {
        self.member.incarnation.boot != Boot::default()
    }

    /// The update that tells other members of this one.
    pub(super) fn update(&self) -> Update {
        Update {
            replica: self.member.replica,
            incarnation: self.member.incarnation,
            state: self.member.state,
            address: self.member.address.clone(),
            confirmations: self
                .suspicion
                .as_ref()
                .map_or_else(Vec::new, |s| s.confirmations.clone()),
        }
    }

    /// The load report that tells other members of this one's load.
    pub(super) fn load(&self) -> Load {
        Load {
            node: self.member.replica.node,
            boot: self.member.incarnation.boot,
            version: self.load_version,
            requests: self.member.load,
        }
    }

    /// Adopts the incarnation of an update and, if it is new, the address: only the member itself creates either.
    /// Returns whether the address changed.
    pub(super) fn adopt(&mut self, update: &Update) -> bool {
        let member = &mut self.member;
        let moves = update.incarnation != member.incarnation
            && !update.address.0.is_empty()
            && update.address != member.address;
        if moves {
            member.address.clone_from(&update.address);
        }
        if update.incarnation.boot != member.incarnation.boot {
            // Each boot numbers its load reports from the start.
            self.load_version = 0;
        }
        member.incarnation = update.incarnation;
        moves
    }
}

impl Table {
    pub(super) fn get(&self, node: NodeId) -> Option<&Record> {
        self.records.get(&node)
    }

    /// A record to change. State and suspicion are for [`Self::transition`] and [`Self::reschedule`] alone, because
    /// indices depend on them.
    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Record> {
        self.records.get_mut(&node)
    }

    /// All records, in the order of their nodes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The records after a node, in order; all records for `None`.
    pub(super) fn after(&self, after: Option<NodeId>) -> impl Iterator<Item = &Record> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range((from, Bound::Unbounded)).map(|(_, record)| record)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Members that are alive or suspected, without this node.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// Adds a member. Returns false when it was there already, or when the table is full.
    #[must_use]
    pub(super) fn add(
        &mut self,
        replica: Replica,
        name: alloc::string::String,
        address: Address,
    ) -> bool {
        let node = replica.node;
        if let Some(record) = self.records.get_mut(&node) {
            if record.member.replica == replica {
                record.member.name = name;
                // A gossiped address comes from the member itself, so it is better than the given one.
                if !record.is_heard() {
                    record.member.address = address;
                }
                return false;
            }
            // A new disk is a new member: nothing known of the old one applies to it.
            reach!("gossip.member.new_store");
            self.drop_record(node);
        }
        if self.records.len() >= MEMBERS_MAX {
            reach!("gossip.member.table_full");
            return false;
        }
        let record = match self.take_removed(node) {
            Some(mut old) if old.member.replica == replica => {
                reach!("gossip.member.recalled");
                old.member.name = name;
                old
            }
            _ => Record::new(replica, name, address),
        };
        self.count(record.member.state, node);
        self.records.insert(node, record);
        true
    }

    /// Removes a member, but keeps its record until then.
    pub(super) fn remove(&mut self, node: NodeId, until: Instant) {
        let Some(mut record) = self.drop_record(node) else { return };
        record.suspicion = None;
        record.in_ring = false;
        if self.removed.len() >= MEMBERS_MAX
            && let Some((_, oldest)) = self.forgets.first().copied()
        {
            self.take_removed(oldest);
        }
        self.forgets.insert((until, node));
        self.removed.insert(node, Tombstone { until, record });
    }

    fn drop_record(&mut self, node: NodeId) -> Option<Record> {
        let record = self.records.remove(&node)?;
        if let Some(suspicion) = &record.suspicion {
            self.timeouts.remove(&(suspicion.ends(), node));
        }
        self.uncount(record.member.state, node);
        Some(record)
    }

    fn take_removed(&mut self, node: NodeId) -> Option<Record> {
        let tombstone = self.removed.remove(&node)?;
        self.forgets.remove(&(tombstone.until, node));
        Some(tombstone.record)
    }

    /// Whether an update may make its node a member: a removed member returns only with a newer incarnation.
    pub(super) fn may_return(&self, update: &Update) -> bool {
        self.removed.get(&update.replica.node).is_none_or(|tombstone| {
            let member = &tombstone.record.member;
            member.replica != update.replica || update.incarnation > member.incarnation
        })
    }

    /// Forgets the removed members whose time is over.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((until, node)) = self.forgets.first().copied()
            && until <= now
        {
            self.take_removed(node);
        }
    }

    /// Gives a member a new state, with a suspicion exactly if the state is suspect. Only this function changes a
    /// state, so that the indices match the records.
    pub(super) fn transition(&mut self, node: NodeId, to: State, suspicion: Option<Suspicion>) {
        assert_eq!(to == State::Suspect, suspicion.is_some(), "a suspect has a suspicion");
        let Some(record) = self.records.get_mut(&node) else { return };
        let from = core::mem::replace(&mut record.member.state, to);
        let ended = core::mem::replace(&mut record.suspicion, suspicion);
        let begun = record.suspicion.as_ref().map(Suspicion::ends);
        if let Some(ended) = ended {
            self.timeouts.remove(&(ended.ends(), node));
        }
        self.timeouts.extend(begun.map(|ends| (ends, node)));
        self.uncount(from, node);
        self.count(to, node);
    }

    /// Changes a member's suspicion and its timeout.
    pub(super) fn reschedule<T>(
        &mut self,
        node: NodeId,
        change: impl FnOnce(&mut Suspicion) -> T,
    ) -> Option<T> {
        let suspicion = self.records.get_mut(&node)?.suspicion.as_mut()?;
        self.timeouts.remove(&(suspicion.ends(), node));
        let result = change(suspicion);
        self.timeouts.insert((suspicion.ends(), node));
        Some(result)
    }

    /// The suspicion that times out first.
    pub(super) fn next_timeout(&self) -> Option<(Instant, NodeId)> {
        self.timeouts.first().copied()
    }

    /// When the next removed member is forgotten.
    pub(super) fn next_forget(&self) -> Option<Instant> {
        self.forgets.first().map(|(until, _)| *until)
    }

    /// The dead member after this node; after the last one comes the first.
    pub(super) fn next_dead(&self, after: NodeId) -> Option<NodeId> {
        let next = self.dead.range((Bound::Excluded(after), Bound::Unbounded)).next();
        next.or_else(|| self.dead.first()).copied()
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.records.len() as u64);
        for record in self.records.values() {
            hash.value(&(&record.member, record.word));
            hash.number(record.load_version);
            hash.number(u64::from(record.in_ring));
            hash.value(&record.round_trip);
            let suspicion = record.suspicion.as_ref();
            hash.value(&suspicion.map(|s| (s.ends(), &s.confirmations)));
        }
        for (node, tombstone) in &self.removed {
            hash.value(&(node, tombstone.until, tombstone.record.held()));
        }
    }

    fn count(&mut self, state: State, node: NodeId) {
        match state {
            State::Alive | State::Suspect => self.live += 1,
            State::Dead => {
                self.dead.insert(node);
            }
            State::Left => {}
        }
    }

    fn uncount(&mut self, state: State, node: NodeId) {
        match state {
            State::Alive | State::Suspect => self.live -= 1,
            State::Dead => {
                self.dead.remove(&node);
            }
            State::Left => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;

    fn replica(node: u8, store: u8) -> Replica {
        Replica { node: NodeId([node; 16]), store: crate::id::StoreId([store; 16]) }
    }

    fn add(table: &mut Table, replica: Replica) -> bool {
        table.add(replica, String::new(), Address::default())
    }

    proptest! {
        #[test]
        fn updates_have_a_total_order(a: (u64, u64, u64, u8), b: (u64, u64, u64, u8)) {
            let update = |(count, nonce, refutations, state): (u64, u64, u64, u8)| {
                let boot = Boot { count: count % 3, nonce: nonce % 2 };
                let states = [State::Alive, State::Suspect, State::Dead, State::Left];
                (Incarnation { boot, refutations: refutations % 3 }, states[usize::from(state % 4)])
            };
            let (a, b) = (update(a), update(b));
            prop_assert_eq!(u8::from(beats(a, b)) + u8::from(beats(b, a)), u8::from(a != b));
        }
    }

    #[test]
    fn a_later_boot_beats_every_state_of_an_earlier_one() {
        let at = |count, refutations| Incarnation { boot: Boot { count, nonce: 0 }, refutations };
        for state in [State::Alive, State::Suspect, State::Dead, State::Left] {
            assert!(beats((at(2, 0), State::Alive), (at(1, 9), state)));
            assert!(!beats((at(1, 9), state), (at(2, 0), State::Alive)));
        }
        assert!(beats((at(1, 1), State::Alive), (at(1, 0), State::Dead)));
        assert!(!beats((at(1, 0), State::Alive), (at(1, 0), State::Suspect)));
    }

    #[test]
    fn a_removed_member_keeps_its_incarnation_until_forgotten() {
        let mut table = Table::default();
        assert!(add(&mut table, replica(1, 1)));
        assert!(!add(&mut table, replica(1, 1)));
        let boot = Boot { count: 7, nonce: 7 };
        table.get_mut(NodeId([1; 16])).unwrap().member.incarnation.boot = boot;
        table.remove(NodeId([1; 16]), Instant(50));
        table.forget(Instant(49));
        assert!(add(&mut table, replica(1, 1)));
        assert_eq!(table.get(NodeId([1; 16])).unwrap().member.incarnation.boot, boot);
        table.remove(NodeId([1; 16]), Instant(50));
        table.forget(Instant(50));
        assert!(add(&mut table, replica(1, 1)));
        assert!(!table.get(NodeId([1; 16])).unwrap().is_heard());
        assert_eq!((table.live(), table.next_forget()), (1, None));
    }

    #[test]
    fn a_new_disk_starts_from_nothing() {
        let mut table = Table::default();
        assert!(add(&mut table, replica(1, 1)));
        table.transition(NodeId([1; 16]), State::Dead, None);
        assert_eq!((table.live(), table.next_dead(NodeId([1; 16]))), (0, Some(NodeId([1; 16]))));
        assert!(add(&mut table, replica(1, 2)));
        assert_eq!((table.live(), table.next_dead(NodeId([1; 16]))), (1, None));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Table::default();
        let wide = |n: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            Replica { node: NodeId(id), ..Replica::default() }
        };
        let joined = (0..MEMBERS_MAX as u32 + 9).filter(|n| add(&mut table, wide(*n))).count();
        assert_eq!((joined, table.len(), table.live()), (MEMBERS_MAX, MEMBERS_MAX, MEMBERS_MAX));
        (0..MEMBERS_MAX as u32).for_each(|n| table.remove(wide(n).node, Instant(n.into())));
        assert_eq!((table.len(), table.live(), table.removed.len()), (0, 0, MEMBERS_MAX));
    }
}
