//! Link conditions: what happens to the messages of one direction while faults are active.
//!
//! Conditions are derived from the active faults whenever a fault begins or ends, and are read for each message. This
//! module does not decide the fate of a message; `network` does.

use crate::env::clock::MS;
use crate::plan::fault::{Fault, Kind};
use crate::rng::{Draws, stream};

/// The present conditions of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkConditions {
    pub(crate) drop_ppm: u64,
    pub(crate) corrupt_ppm: u64,
    pub(crate) twice_ppm: u64,
    pub(crate) reorder_ppm: u64,
    pub(crate) reorder_ns: u64,
    pub(crate) delay_ppm: u64,
    pub(crate) delay_ns: u64,
    pub(crate) break_ppm: u64,
    pub(crate) replay_ppm: u64,
    pub(crate) replay_ns: u64,
    /// Per million: messages accompanied by one of a kind that the (older) receiver does not know.
    pub(crate) later_ppm: u64,
    /// Nothing passes, because of a fault of this kind.
    pub(crate) cut: Option<Kind>,
    /// Nothing passes before this time.
    pub(crate) clogged_until: u64,
    /// Nothing passes from the first of these times to the second.
    pub(crate) swizzled: (u64, u64),
    /// Capacity of each connection in bytes per second, 0 when unlimited; and when the limit ends.
    pub(crate) bytes_per_s: u64,
    pub(crate) narrow_until: u64,
}

impl LinkConditions {
    /// Whether no message is lost, late or overtaken. Damaged writes and copies on the same link do no harm. A copy on
    /// a later link does: a leader that stepped down seems to go on.
    pub(crate) const fn is_prompt(&self, now: u64) -> bool {
        let late = self.clogged_until > now || self.swizzled.1 > now || self.bytes_per_s > 0;
        let rates = self.drop_ppm + self.reorder_ppm + self.delay_ppm + self.break_ppm;
        !late && rates + self.replay_ppm == 0
    }

    /// Adds the effect of one fault on one direction. Of two rates the higher counts.
    pub(crate) fn add(&mut self, fault: &Fault, from: usize, to: usize) {
        let amount_ns = fault.amount.max(1).unsigned_abs() * MS;
        let until = (fault.at_ms + fault.for_ms) * MS;
        match fault.kind {
            Kind::Drop => self.drop_ppm = self.drop_ppm.max(fault.rate_ppm),
            Kind::Corrupt => self.corrupt_ppm = self.corrupt_ppm.max(fault.rate_ppm),
            Kind::Duplicate => self.twice_ppm = self.twice_ppm.max(fault.rate_ppm),
            Kind::ResetMidFrame => self.break_ppm = self.break_ppm.max(fault.rate_ppm),
            Kind::Reorder => {
                self.reorder_ppm = self.reorder_ppm.max(fault.rate_ppm);
                self.reorder_ns = self.reorder_ns.max(amount_ns);
            }
            Kind::Delay => {
                self.delay_ppm = self.delay_ppm.max(fault.rate_ppm);
                self.delay_ns = self.delay_ns.max(amount_ns);
            }
            Kind::Replay => {
                self.replay_ppm = self.replay_ppm.max(fault.rate_ppm);
                self.replay_ns = self.replay_ns.max(amount_ns);
            }
            Kind::MixedVersion if fault.strikes(to) && !fault.strikes(from) => {
                self.later_ppm = self.later_ppm.max(fault.rate_ppm);
            }
            Kind::Capacity if fault.strikes(from) || fault.strikes(to) => {
                let rate = fault.amount.max(1).unsigned_abs();
                let narrowest = self.bytes_per_s == 0 || rate < self.bytes_per_s;
                if narrowest {
                    (self.bytes_per_s, self.narrow_until) = (rate, until);
                }
            }
            Kind::Clog if fault.strikes(from) != fault.strikes(to) => {
                self.clogged_until = self.clogged_until.max(until);
            }
            _ if cuts(fault, from, to) => self.cut = Some(fault.kind),
            _ => {}
        }
    }
}

/// Whether a fault blocks all messages from one node to another.
fn cuts(fault: &Fault, from: usize, to: usize) -> bool {
    match fault.kind {
        Kind::Partition => fault.strikes(from) != fault.strikes(to),
        Kind::OneWay => fault.strikes(from) && !fault.strikes(to),
        Kind::Isolate => fault.strikes(from) || fault.strikes(to),
        Kind::Deposed => {
            let is_leader = |node| fault.nodes.first() == Some(&node);
            is_leader(from) != is_leader(to) && fault.strikes(from) && fault.strikes(to)
        }
        Kind::Bridge => match (side(fault, from), side(fault, to)) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        },
        _ => false,
    }
}

/// A node's side of a bridge fault; `None` for the bridge itself.
fn side(fault: &Fault, node: usize) -> Option<usize> {
    let index = fault.nodes.iter().position(|named| *named == node).unwrap_or(fault.nodes.len());
    (index > 0).then(|| index % fault.amount.max(2).unsigned_abs() as usize)
}

/// The links that a swizzle clogs, with the times: links are clogged one by one until all are, then opened one by one.
pub(crate) fn swizzle(
    fault: &Fault,
    nodes: usize,
    draws: Draws,
) -> Vec<((usize, usize), (u64, u64))> {
    let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
    let links: Vec<_> = pairs.filter(|(a, b)| fault.strikes(*a) || fault.strikes(*b)).collect();
    let order = |label| {
        let name = stream(label, fault.at_ms);
        let mut order: Vec<usize> = (0..links.len()).collect();
        order.sort_by_key(|link| {
            let (a, b) = links[*link];
            draws.bits(name, (a * nodes + b) as u64)
        });
        order
    };
    let step = fault.for_ms * MS / (2 * links.len().max(1)) as u64;
    let middle = fault.at_ms * MS + step * links.len() as u64;
    let mut times = vec![(0, 0); links.len()];
    for (rank, link) in order("net.swizzle.clog").into_iter().enumerate() {
        times[link].0 = fault.at_ms * MS + step * rank as u64;
    }
    for (rank, link) in order("net.swizzle.open").into_iter().enumerate() {
        times[link].1 = middle + step * (rank as u64 + 1);
    }
    links.into_iter().zip(times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: Kind, nodes: Vec<usize>, amount: i64) -> Fault {
        Fault { kind, at_ms: 100, for_ms: 1_000, nodes, rate_ppm: 0, amount }
    }

    fn is_cut(fault: &Fault, from: usize, to: usize) -> bool {
        let mut conditions = LinkConditions::default();
        conditions.add(fault, from, to);
        conditions.cut == Some(fault.kind)
    }

    #[test]
    fn only_the_bridge_connects_the_sides() {
        let two = fault(Kind::Bridge, vec![2, 0, 1, 3, 4], 2);
        assert!((0..5).all(|node| !is_cut(&two, 2, node) && !is_cut(&two, node, 2)));
        assert!(is_cut(&two, 0, 1) && is_cut(&two, 1, 0) && is_cut(&two, 3, 4));
        assert!(!is_cut(&two, 0, 3) && !is_cut(&two, 1, 4));
        let three = fault(Kind::Bridge, vec![2, 0, 1, 3, 4], 3);
        let sides: [usize; 3] = [0, 1, 3];
        assert!(sides.iter().all(|a| sides.iter().all(|b| a == b || is_cut(&three, *a, *b))));
        assert!(!is_cut(&three, 0, 4), "the fourth is on the side of the first");
    }

    #[test]
    fn a_deposed_leader_hears_learners_only() {
        let deposed = fault(Kind::Deposed, vec![2, 0, 1], 500_000);
        assert!(is_cut(&deposed, 2, 0) && is_cut(&deposed, 0, 2) && is_cut(&deposed, 1, 2));
        assert!(!is_cut(&deposed, 0, 1), "the other voters hear each other");
        let learner = |node| !is_cut(&deposed, 3, node) && !is_cut(&deposed, node, 3);
        assert!((0..3).all(learner));
    }

    #[test]
    fn isolated_nodes_do_not_hear_each_other() {
        let isolated = fault(Kind::Isolate, vec![0, 1], 0);
        assert!(is_cut(&isolated, 0, 1) && is_cut(&isolated, 2, 0) && is_cut(&isolated, 1, 2));
        assert!(!is_cut(&isolated, 2, 3));
        let parted = fault(Kind::Partition, vec![0, 1], 0);
        assert!(!is_cut(&parted, 0, 1));
    }

    #[test]
    fn a_swizzle_clogs_all_links_and_opens_them_in_another_order() {
        let fault = fault(Kind::Swizzle, vec![0, 3], 0);
        let links = swizzle(&fault, 5, Draws::new(3));
        assert_eq!(links.len(), 7, "the links of two of five nodes");
        let (first, last) = (100 * MS, 1_100 * MS);
        let latest = links.iter().map(|(_, (clogs, _))| *clogs).max().expect("links");
        assert!(links.iter().all(|(_, (clogs, opens))| *clogs >= first && *opens <= last));
        assert!(links.iter().all(|(_, (_, opens))| *opens > latest), "once all are clogged");
        let by = |key: fn(&(u64, u64)) -> u64| {
            let mut sorted = links.clone();
            sorted.sort_by_key(|(_, times)| key(times));
            sorted.into_iter().map(|(link, _)| link).collect::<Vec<_>>()
        };
        assert_ne!(by(|times| times.0), by(|times| times.1));
    }
}
