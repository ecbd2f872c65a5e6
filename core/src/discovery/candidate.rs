//! The bounded table of addresses that may lead to a node.
//!
//! Each candidate is at rest, due at some moment, or being dialled. When the table is full the least useful goes: least
//! trusted first, then most failures. Which failures mean what is decided by the machine.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::digest::Hasher;
use crate::id::{Address, Contact, NodeId};
use crate::reach;
use crate::time::{Instant, earlier};

/// How much is known of a candidate, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Somebody else answered there than should, or we ourselves.
    Distrusted,
    /// A peer told of it.
    Reported,
    /// Gossip or the registry has a member there.
    Located,
    /// An operator's source names it.
    Listed,
    /// Verified in an earlier life of this node.
    Remembered,
    /// Verified in this life.
    Verified,
}

/// What a candidate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nothing: its node is connected, or it is this node.
    Idle,
    /// To be dialled from then on.
    Due(Instant),
    /// The end of its handshake, which counts as failed then.
    Dialled(Instant),
}

#[derive(Clone, Debug)]
struct Candidate {
    trust: Trust,
    /// Who is, or should be, there.
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
    /// The least useful first.
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

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Somebody names a candidate; a new one is due at once. True when a remembered or verified one had to go for it.
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
            // An equal would only push out an equal: who floods the table gains nothing.
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

    /// A known candidate is named again: trust only grows by it, and only what was never proven may change its node.
    fn update_known(
        &mut self,
        address: &Address,
        node: Option<NodeId>,
        trust: Trust,
        now: Instant,
    ) {
        let Some(mut known) = self.take(address) else { return };
        let proven = known.trust == Trust::Distrusted || known.trust == Trust::Verified;
        // What a handshake said of an address, for or against, no list and no hearsay unsays.
        if !proven {
            // Who is trusted more also says better who is there, even that it does not know.
            if trust > known.trust {
                known.trust = trust;
                known.node = node;
            }
            // An operator's or gossip's word wakes what rests because its node was reached elsewhere.
            if known.wait == Wait::Idle {
                known.wait = Wait::Due(now);
            }
        }
        self.put(address.clone(), known);
    }

    /// The next candidate to dial, with who should be there.
    pub(super) fn due(&self, now: Instant) -> Option<(Address, Option<NodeId>)> {
        let (at, address) = self.due.first()?;
        let node = self.all.get(address).and_then(|candidate| candidate.node);
        (*at <= now).then(|| (address.clone(), node))
    }

    /// A dial that was never answered.
    pub(super) fn overdue(&self, now: Instant) -> Option<Address> {
        let (at, address) = self.dialled.first()?;
        (*at <= now).then(|| address.clone())
    }

    pub(super) fn dialling(&self) -> usize {
        self.dialled.len()
    }

    /// When the next one is due, unless nothing more may be dialled, or a dial is over.
    pub(super) fn deadline(&self, may_dial: bool) -> Option<Instant> {
        let due = self.due.first().filter(|_| may_dial).map(|(at, _)| *at);
        earlier(due, self.dialled.first().map(|(at, _)| *at))
    }

    pub(super) fn dialled(&mut self, address: &Address, until: Instant) {
        self.change(address, |candidate| candidate.wait = Wait::Dialled(until));
    }

    /// Nothing is to be done about it; a dial under way goes on.
    pub(super) fn set_idle(&mut self, address: &Address) {
        self.change(address, |candidate| {
            if !matches!(candidate.wait, Wait::Dialled(_)) {
                candidate.wait = Wait::Idle;
            }
        });
    }

    /// Dials again from `at` on, if it was at rest.
    pub(super) fn retry(&mut self, address: &Address, at: Instant) {
        self.change(address, |candidate| {
            if candidate.wait == Wait::Idle {
                candidate.wait = Wait::Due(at);
            }
        });
    }

    pub(super) fn failures(&self, address: &Address) -> u32 {
        self.all.get(address).map_or(0, |candidate| candidate.failures)
    }

    /// A node proved to be there. Whether that is news.
    pub(super) fn verified(&mut self, address: &Address, node: NodeId, again: Instant) -> bool {
        let mut news = false;
        self.change(address, |candidate| {
            news = candidate.trust != Trust::Verified || candidate.node != Some(node);
            *candidate = Candidate {
                trust: Trust::Verified,
                node: Some(node),
                failures: 0,
                wait: Wait::Due(again),
            };
        });
        news
    }

    /// The handshake failed; it may be tried again at `at`. True when the candidate is no longer to be remembered.
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

    /// It is this node's own address: never dialled again. True when it was taken for somebody else's.
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
