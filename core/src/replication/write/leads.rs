//! Leads: how far stamps were ahead of this node's wall clock, so that an operator hears of a wrong clock.
//!
//! A lead of this node's own stamps says that its clock has gone back: it was ahead, or is behind now. A lead of
//! another author's stamps says that the two clocks differ. A lead counts for a minute after its stamp was issued or
//! received, so it ends by itself once the clocks are right. A stamp that is only above what its write supersedes says
//! nothing about a clock, and is not told to this module. It changes no stamp.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;

use super::hlc::Wall;

/// How long a lead counts.
const KEPT: Duration = Duration::from_secs(60);
/// The most authors whose leads are kept.
const AUTHORS_MAX: usize = 64;

/// The greatest stamp of an author in the last minute.
#[derive(Clone, Copy, Debug)]
struct Lead {
    stamp: u64,
    noted: Instant,
}

/// The leads that this node knows.
#[derive(Debug)]
pub(crate) struct Leads {
    now: Instant,
    wall: Wall,
    own: Option<Lead>,
    others: BTreeMap<NodeId, Lead>,
}

impl Leads {
    pub(crate) const fn new(wall: Wall) -> Self {
        Self { now: Instant::ZERO, wall, own: None, others: BTreeMap::new() }
    }

    /// A step begins.
    pub(crate) fn advance(&mut self, now: Instant, wall: Wall) {
        (self.now, self.wall) = (now, wall);
        let counts = |lead: &Lead| now.since(lead.noted) < KEPT;
        self.own.take_if(|lead| !counts(lead));
        self.others.retain(|_, lead| counts(lead));
    }

    /// This node's clock issued a stamp.
    pub(crate) fn issued(&mut self, stamp: u64) {
        if self.own.is_none_or(|lead| stamp > lead.stamp) {
            self.own = Some(Lead { stamp, noted: self.now });
        }
    }

    /// A stamp of another author's clock arrived.
    pub(crate) fn received(&mut self, author: NodeId, stamp: u64) {
        let known = self.others.get(&author).map_or(0, |lead| lead.stamp);
        let has_room = known > 0 || self.others.len() < AUTHORS_MAX;
        if has_room && self.wall.lead_ms(stamp) > 0 {
            let stamp = stamp.max(known);
            self.others.insert(author, Lead { stamp, noted: self.now });
        }
    }

    /// The milliseconds by which this node's own stamps are too far ahead; 0 when they are not.
    pub(crate) fn own_ms(&self) -> u64 {
        self.own.map_or(0, |lead| self.wall.lead_ms(lead.stamp))
    }

    /// The other authors whose stamps are too far ahead, each with the milliseconds.
    pub(crate) fn others(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        let each = self.others.iter().map(|(node, lead)| (*node, self.wall.lead_ms(lead.stamp)));
        each.filter(|(_, ms)| *ms > 0)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::time::WallTime;

    const NODE: NodeId = NodeId([2; 16]);

    fn at(leads: &mut Leads, mono_s: u64, wall_ms: u64) {
        leads.advance(Instant::from_millis(mono_s * 1000), Wall::new(WallTime(wall_ms), 60_000));
    }

    #[test]
    fn a_lead_past_the_bound_counts_for_a_minute() {
        let mut leads = Leads::new(Wall::new(WallTime(0), 60_000));
        at(&mut leads, 10, 5_000_000);
        leads.issued(5_000_000 << 16);
        leads.received(NODE, 5_050_000 << 16);
        assert_eq!((leads.own_ms(), leads.others().count()), (0, 0), "within the bound");
        leads.received(NODE, 8_600_000 << 16);
        assert_eq!(leads.others().collect::<Vec<_>>(), [(NODE, 3_600_000)]);
        at(&mut leads, 20, 1_400_000);
        leads.issued(1_400_000 << 16);
        assert_eq!(leads.own_ms(), 3_600_000, "the clock went back");
        at(&mut leads, 69, 1_449_000);
        assert!(leads.own_ms() > 0 && leads.others().count() == 1);
        at(&mut leads, 70, 1_450_000);
        assert_eq!((leads.own_ms(), leads.others().count()), (0, 0));
        leads.issued(1_450_000 << 16);
        at(&mut leads, 71, 1_451_000);
        assert_eq!(leads.own_ms(), 0);
    }

    #[test]
    fn the_number_of_authors_is_bounded() {
        let mut leads = Leads::new(Wall::new(WallTime(0), 60_000));
        for author in 0..200 {
            leads.received(NodeId([author; 16]), 9_000_000 << 16);
        }
        assert_eq!(leads.others().count(), AUTHORS_MAX);
    }
}
