//! The bounded table of candidates: addresses at which a node may be found.
//!
//! Each candidate is idle, due at some moment, or being dialled. A full table evicts the least useful one: the least
//! trusted, and among those the one with the most failures. This module does not decide what a failure means; the
//! machine does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::digest::Hasher;
use crate::id::{Address, Contact, NodeId};
use crate::reach;
use crate::time::{Instant, earlier};

/// How far a candidate is trusted, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// An unexpected node answered there, or this node itself.
    Distrusted,
    /// A peer reported it.
    Reported,
    /// Gossip or the registry has a member there.
    Located,
    /// An operator's source names it.
    Listed,
    /// An earlier boot of this node verified it.
    Remembered,
    /// This boot verified it.
    Verified,
}

/// The state of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It waits for nothing: its node is connected, or is this node.
    Idle,
    /// It is dialled from then on.
    Due(Instant),
    /// It is being dialled. The handshake counts as failed from then on.
    Dialled(Instant),
}

#[derive(Clone, Debug)]
struct Candidate {
    trust: Trust,
    /// The node that is there, or should be.
    node: Option<NodeId>,
    failures: u32,
    wait: Wait,
}

/// All candidates, by address.
#[derive(Clone, Debug)]
pub(super) struct Candidates {
    all: BTreeMap<Address, Candidate>,
    due: BTreeSet<(Instant, Address)>,
    dialled: BTreeSet<(Instant, Address)>,
    /// The addresses at which each node is, or should be.
    by_node: BTreeSet<(NodeId, Address)>,
    /// All candidates, the least useful first.
    eviction_order: BTreeSet<(Trust, Reverse<u32>, Address)>,
    limit: usize,
}

impl Candidates {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            all: BTreeMap::new(),
            due: BTreeSet::new(),
            dialled: BTreeSet::new(),
            by_node: BTreeSet::new(),
            eviction_order: BTreeSet::new(),
            limit,
        }
    }

    pub(super) fn contains(&self, address: &Address) -> bool {
        self.all.contains_key(address)
    }

    /// The addresses at which a node is, or should be.
    pub(super) fn addresses_of(&self, node: NodeId) -> Vec<Address> {
        let from = (node, Address::default());
        let by_node = self.by_node.range(from..).take_while(|(owner, _)| *owner == node);
        by_node.map(|(_, address)| address.clone()).collect()
    }

    /// The trust in the best address of a node; `None` without one.
    pub(super) fn trust_in(&self, node: NodeId) -> Option<Trust> {
        let addresses = self.addresses_of(node);
        addresses.iter().filter_map(|address| self.all.get(address)).map(|known| known.trust).max()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds a candidate, due at once, or updates a known one. Returns true when a saved or verified one was evicted for
    /// it.
    pub(super) fn offer(&mut self, contact: Contact, trust: Trust, now: Instant) -> bool {
        let Contact { node, address } = contact;
        if self.all.contains_key(&address) {
            self.update_known(&address, node, trust, now);
            return false;
        }
        let mut lost = false;
        if self.all.len() >= self.limit {
            let Some((worst, failures, evicted)) = self.eviction_order.first().cloned() else {
                return false;
            };
            // Only a more useful candidate evicts another, so flooding the table gains nothing.
            if (worst, failures) >= (trust, Reverse(0)) {
                reach!("discovery.candidate.table_full");
                return false;
            }
            reach!("discovery.candidate.evicted");
            lost = worst >= Trust::Remembered;
            self.take(&evicted);
        }
        self.put(address, Candidate { trust, node, failures: 0, wait: Wait::Due(now) });
        lost
    }

    /// Updates a candidate that is named again. Trust only grows, and the node changes only while no handshake proved
    /// it.
    fn update_known(
        &mut self,
        address: &Address,
        node: Option<NodeId>,
        trust: Trust,
        now: Instant,
    ) {
        let Some(mut known) = self.take(address) else { return };
        let proven = known.trust == Trust::Distrusted || known.trust == Trust::Verified;
        // Lists and hearsay never override the result of a handshake, good or bad.
        if !proven {
            // The better trusted word also says better which node is there, even if it names none.
            if trust > known.trust {
                known.trust = trust;
                known.node = node;
            }
            // An idle candidate, whose node was reached elsewhere, is tried again.
            if known.wait == Wait::Idle {
                known.wait = Wait::Due(now);
            }
        }
        self.put(address.clone(), known);
    }

    /// The next candidate to dial, with the node that should be there.
    pub(super) fn due(&self, now: Instant) -> Option<(Address, Option<NodeId>)> {
        let (at, address) = self.due.first()?;
        let node = self.all.get(address).and_then(|candidate| candidate.node);
        (*at <= now).then(|| (address.clone(), node))
    }

    /// A dial that the driver did not answer in time.
    pub(super) fn overdue(&self, now: Instant) -> Option<Address> {
        let (at, address) = self.dialled.first()?;
        (*at <= now).then(|| address.clone())
    }

    pub(super) fn dialling(&self) -> usize {
        self.dialled.len()
    }

    /// When the next candidate is due, if more may be dialled, or the next dial times out.
    pub(super) fn deadline(&self, may_dial: bool) -> Option<Instant> {
        let due = self.due.first().filter(|_| may_dial).map(|(at, _)| *at);
        earlier(due, self.dialled.first().map(|(at, _)| *at))
    }

    pub(super) fn dialled(&mut self, address: &Address, until: Instant) {
        self.change(address, |candidate| candidate.wait = Wait::Dialled(until));
    }

    /// Makes a candidate idle, unless it is being dialled.
    pub(super) fn set_idle(&mut self, address: &Address) {
        self.change(address, |candidate| {
            if !matches!(candidate.wait, Wait::Dialled(_)) {
                candidate.wait = Wait::Idle;
            }
        });
    }

    /// Makes an idle candidate due at `at`.
    pub(super) fn retry(&mut self, address: &Address, at: Instant) {
        self.change(address, |candidate| {
            if candidate.wait == Wait::Idle {
                candidate.wait = Wait::Due(at);
            }
        });
    }

    /// Whether every candidate was dialled at least once, and the node of each that answered is connected.
    pub(super) fn all_dialled(&self, connected: impl Fn(NodeId) -> bool) -> bool {
        let is_pending = |candidate: &Candidate| match candidate.wait {
            Wait::Idle => false,
            Wait::Due(_) | Wait::Dialled(_) => {
                candidate.failures == 0 && !candidate.node.is_some_and(&connected)
            }
        };
        !self.all.values().any(is_pending)
    }

    pub(super) fn failures(&self, address: &Address) -> u32 {
        self.all.get(address).map_or(0, |candidate| candidate.failures)
    }

    /// Records that a node proved to be there. Returns whether that is new.
    pub(super) fn verified(&mut self, address: &Address, node: NodeId, again: Instant) -> bool {
        let mut is_new = false;
        self.change(address, |candidate| {
            is_new = candidate.trust != Trust::Verified || candidate.node != Some(node);
            *candidate = Candidate {
                trust: Trust::Verified,
                node: Some(node),
                failures: 0,
                wait: Wait::Due(again),
            };
        });
        is_new
    }

    /// Records a failed handshake, to be tried again at `at`. Returns true when the candidate is no longer to be saved.
    pub(super) fn failed(&mut self, address: &Address, at: Instant, distrusted: bool) -> bool {
        let mut lost = false;
        self.change(address, |candidate| {
            candidate.failures = candidate.failures.saturating_add(1);
            candidate.wait = Wait::Due(at);
            if distrusted {
                lost = candidate.trust >= Trust::Remembered;
                candidate.trust = Trust::Distrusted;
                candidate.node = None;
            }
        });
        lost
    }

    /// Marks this node's own address, which is never dialled again. Returns true when it was saved as another node's.
    pub(super) fn mark_as_self(&mut self, address: &Address) -> bool {
        let mut lost = false;
        self.change(address, |candidate| {
            lost = candidate.trust >= Trust::Remembered;
            *candidate =
                Candidate { trust: Trust::Distrusted, node: None, failures: 0, wait: Wait::Idle };
        });
        lost
    }

    /// All candidates of at least this trust, as contacts, the least useful first.
    pub(super) fn contacts(&self, least: Trust) -> impl Iterator<Item = Contact> {
        let from = (least, Reverse(u32::MAX), Address::default());
        self.eviction_order.range(from..).filter_map(|(_, _, address)| {
            let node = self.all.get(address)?.node;
            Some(Contact { node, address: address.clone() })
        })
    }

    fn change(&mut self, address: &Address, change: impl FnOnce(&mut Candidate)) {
        if let Some(mut candidate) = self.take(address) {
            change(&mut candidate);
            self.put(address.clone(), candidate);
        }
    }

    fn take(&mut self, address: &Address) -> Option<Candidate> {
        let (address, candidate) = self.all.remove_entry(address)?;
        if let Some(node) = candidate.node {
            self.by_node.remove(&(node, address.clone()));
        }
        self.eviction_order.remove(&(
            candidate.trust,
            Reverse(candidate.failures),
            address.clone(),
        ));
        match candidate.wait {
            Wait::Idle => {}
            Wait::Due(at) => {
                self.due.remove(&(at, address));
            }
            Wait::Dialled(until) => {
                self.dialled.remove(&(until, address));
            }
        }
        Some(candidate)
    }

    fn put(&mut self, address: Address, candidate: Candidate) {
        self.by_node.extend(candidate.node.map(|node| (node, address.clone())));
        self.eviction_order.insert((candidate.trust, Reverse(candidate.failures), address.clone()));
        match candidate.wait {
            Wait::Idle => {}
            Wait::Due(at) => {
                self.due.insert((at, address.clone()));
            }
            Wait::Dialled(until) => {
                self.dialled.insert((until, address.clone()));
            }
        }
        self.all.insert(address, candidate);
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.all.len() as u64);
        for (address, candidate) in &self.all {
            hash.value(&(address, candidate.node, candidate.failures, candidate.trust as u8));
        }
        hash.value(&self.due);
        hash.value(&self.dialled);
    }
}
