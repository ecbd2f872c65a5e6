//! Discovery: at which addresses nodes are found. A candidate becomes a peer only after a verified handshake.
//!
//! Sources and peers name addresses. Each is dialled, and only the handshake's proof counts: a name server or a peer
//! can never create, rename or move a node. `candidate` holds the addresses, `peer` the connected nodes.
//!
//! This module does not decide membership (the registry does), keep links or resolve names (the driver does).

mod candidate;
mod peer;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::DiscoveryConfig;
use crate::digest::Hasher;
use crate::id::{Address, Boot, Contact, NodeId, StoreId};
use crate::limits::ADDRESS_BYTES_MAX;
use crate::machine::{Machine, Now, Outbox};
use crate::seed::{Seed, Stream};
use crate::time::{Instant, earlier};
use crate::{mutant, reach};

use candidate::{Candidates, Trust};
use peer::Peers;

/// The identity that a handshake proved at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node, from its certificate.
    pub node: NodeId,
    /// The disk that it runs on.
    pub store: StoreId,
    /// The start of its process.
    pub boot: Boot,
}

/// Why a dial proved no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// Nobody answered.
    Unreachable,
    /// A node answered, but one of another federation or not the expected one.
    Refused,
}

/// A source of candidates. The driver resolves it and answers with an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// The operator's list.
    Bootstrap,
    /// Contacts that peers sent.
    Peers,
}

/// The inputs of the machine.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A source was resolved to these contacts, possibly to none.
    Resolved { source: Source, peers: Vec<Contact> },
    /// A verified peer sent contacts that it verified itself.
    ContactsReceived { from: NodeId, contacts: Vec<Contact> },
    /// The dial of an address ended: the handshake proved an identity, or failed.
    Verified { address: Address, outcome: Result<Identity, Unverified> },
    /// A link to a peer is up.
    Connected { peer: NodeId },
    /// The link to a peer is down.
    Unreachable { peer: NodeId },
    /// Gossip or the registry has the address of a member.
    Located { node: NodeId, address: Address },
}

/// Requests to the driver.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug)]
pub enum Action {
    /// Resolve a source and answer with [`Event::Resolved`]. The driver may delay or reorder it, and drop it too: it is
    /// asked again after [`DiscoveryConfig::resolve_ms`] at the latest.
    Resolve { source: Source },
    /// Dial an address and answer with [`Event::Verified`]. The driver may delay or reorder it. A dropped one counts as
    /// failed after 30 seconds.
    Verify { address: Address },
    /// The handshake proved this peer at this address: connect, and keep the link. The driver may delay or reorder it.
    /// If it is dropped, the address is verified again after [`DiscoveryConfig::backoff_ms_max`].
    Connect { identity: Identity, address: Address },
    /// Send verified contacts to a peer. The driver may drop, delay or reorder it.
    SendContacts { to: NodeId, contacts: Vec<Contact> },
    /// The verified contacts changed: make all of these durable. The driver may delay it, and may drop it when a later
    /// one follows; the last one must win.
    SaveContacts { contacts: Vec<Contact> },
}

/// Contacts in one message between peers.
pub const CONTACTS_MAX: usize = 64;

/// A dial without an answer from the driver counts as failed after this time.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// After a handshake with an unexpected node the address rests for this many of the longest pauses.
const QUARANTINE_PAUSES: u32 = 8;

/// The verified contacts are saved once they did not change for this time, so that a start saves once.
const SAVE_DELAY: Duration = Duration::from_secs(1);

/// Peers that get the verified contacts when those change. Each verifies and forwards them, so few are enough.
const SEND_FANOUT: usize = 3;

/// The shortest time between two messages of contacts to a peer, and from a peer.
const EXCHANGE_GAP: Duration = Duration::from_secs(1);

/// Dials in progress. The others wait: a name with a thousand addresses must not open a thousand sockets.
const DIALS_MAX: usize = 16;

/// The discovery machine of one node.
#[derive(Clone, Debug)]
pub struct Discovery {
    me: NodeId,
    config: DiscoveryConfig,
    candidates: Candidates,
    peers: Peers,
    /// `None` before the first step.
    resolve_at: Option<Instant>,
    /// When the verified contacts are saved and sent, if they changed.
    save_at: Option<Instant>,
    /// Whether the operator's list was resolved in this boot.
    has_resolved: bool,
    random: Stream,
}

impl Discovery {
    /// A machine with the contacts that an earlier boot saved. They are dialled like any other candidate, and stay
    /// saved until something better is known.
    #[must_use]
    pub fn new(me: NodeId, config: DiscoveryConfig, seed: &Seed, contacts: Vec<Contact>) -> Self {
        let mut candidates = Candidates::new(config.candidates_max);
        for contact in contacts.into_iter().filter(|contact| contact.node != Some(me)) {
            let _ = candidates.offer(contact, Trust::Remembered, Instant::ZERO);
        }
        Self {
            me,
            config,
            candidates,
            peers: Peers::default(),
            resolve_at: None,
            save_at: None,
            has_resolved: false,
            random: seed.derive("discovery", 0),
        }
    }

    /// The verified contacts, and those saved by an earlier boot.
    #[must_use]
    pub fn contacts(&self) -> Vec<Contact> {
        self.candidates.contacts(Trust::Remembered).collect()
    }

    /// The contacts verified in this boot.
    pub fn verified(&self) -> impl Iterator<Item = Contact> {
        self.candidates.contacts(Trust::Verified)
    }

    /// Whether this node looked for that node itself: the operator's list named its address, or an earlier boot
    /// verified it.
    #[must_use]
    pub fn is_sought(&self, node: NodeId) -> bool {
        self.candidates.trust_in(node) >= Some(Trust::Listed)
    }

    /// Whether the operator's list was resolved, every known address was dialled, and every node that answered is
    /// connected.
    #[must_use]
    pub fn has_looked(&self) -> bool {
        let connected = |node: NodeId| self.peers.is_connected(node);
        self.has_resolved && self.candidates.all_dialled(connected)
    }

    /// The number of known addresses, of any trust.
    #[must_use]
    pub fn known(&self) -> usize {
        self.candidates.len()
    }
}

impl Machine for Discovery {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, now: Now, event: Event, out: &mut Outbox<Action>) {
        let mono = now.mono;
        match event {
            Event::Tick => {}
            Event::Resolved { source: _, peers } => {
                self.has_resolved = true;
                for contact in peers.into_iter().take(self.config.candidates_max) {
                    self.offer(mono, contact, Trust::Listed);
                }
            }
            Event::ContactsReceived { from, contacts } => {
                self.receive_contacts(mono, from, contacts);
            }
            Event::Verified { address, outcome } => match outcome {
                Ok(identity) => self.verified_as(mono, address, identity, out),
                Err(why) => self.failed(mono, &address, why),
            },
            Event::Connected { peer } => self.connected(mono, peer, out),
            Event::Unreachable { peer } => self.unreachable(mono, peer),
            Event::Located { node, address } => {
                self.offer(mono, Contact { node: Some(node), address }, Trust::Located);
            }
        }
        self.catch_up(mono, out);
    }

    fn deadline(&self) -> Option<Instant> {
        let dial = self.candidates.deadline(self.candidates.dialling() < DIALS_MAX);
        earlier(earlier(Some(self.resolve_at.unwrap_or(Instant::ZERO)), self.save_at), dial)
    }

    fn digest(&self, hash: &mut Hasher) {
        self.candidates.digest(hash);
        self.peers.digest(hash);
        hash.value(&(self.resolve_at, self.save_at, self.random.clone().draw()));
    }
}

impl Discovery {
    /// Does what is due by `now`.
    fn catch_up(&mut self, now: Instant, out: &mut Outbox<Action>) {
        if self.resolve_at.is_none_or(|at| at <= now) {
            out.push(Action::Resolve { source: Source::Bootstrap });
            self.resolve_at = Some(now + self.jittered(self.resolve_pause()));
        }
        while let Some(address) = self.candidates.overdue(now) {
            reach!("discovery.dial.unanswered");
            self.failed(now, &address, Unverified::Unreachable);
        }
        self.dial(now, out);
        if self.save_at.is_some_and(|at| at <= now) {
            self.save_at = None;
            reach!("discovery.contacts.saved");
            out.push(Action::SaveContacts { contacts: self.contacts() });
            self.send_to_some(now, out);
        }
    }

    /// The pause between two resolutions. Without a connected peer it is a quarter, because the sources are then the
    /// only way to find one.
    fn resolve_pause(&self) -> Duration {
        let pause = Duration::from_millis(self.config.resolve_ms);
        if self.peers.is_any_connected() { pause } else { pause / 4 }
    }

    /// Three quarters to all of the span, at random, so that nodes do not act in step.
    fn jittered(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.random.between(nanos - nanos / 4, nanos))
    }

    /// The pause after this many failures in a row: doubling, bounded, jittered.
    fn backoff(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(32);
        let pause = self.config.backoff_ms.saturating_mul(1 << doublings);
        self.jittered(Duration::from_millis(pause.min(self.config.backoff_ms_max)))
    }

    /// Dials the candidates that are due, up to the bound on dials in progress.
    fn dial(&mut self, now: Instant, out: &mut Outbox<Action>) {
        while self.candidates.dialling() < DIALS_MAX
            && let Some((address, node)) = self.candidates.due(now)
        {
            if node.is_some_and(|node| self.peers.is_connected(node)) {
                // The node is connected. When its link breaks, the address is tried again.
                reach!("discovery.dial.needless");
                self.candidates.set_idle(&address);
                continue;
            }
            reach!("discovery.dial");
            self.candidates.dialled(&address, now + DIAL_TIMEOUT);
            out.push(Action::Verify { address });
        }
        if self.candidates.due(now).is_some() {
            reach!("discovery.dial.too_many");
        }
    }

    fn offer(&mut self, now: Instant, contact: Contact, trust: Trust) {
        let length = contact.address.0.len();
        if length == 0 || length > ADDRESS_BYTES_MAX || contact.node == Some(self.me) {
            reach!("discovery.candidate.refused");
            return;
        }
        if self.candidates.offer(contact, trust, now) {
            self.contacts_changed(now);
        }
    }

    fn contacts_changed(&mut self, now: Instant) {
        self.save_at = Some(now + SAVE_DELAY);
    }

    fn verified_as(
        &mut self,
        now: Instant,
        address: Address,
        identity: Identity,
        out: &mut Outbox<Action>,
    ) {
        if identity.node == self.me {
            // The operator's list is the same on all nodes, so it names this node too.
            reach!("discovery.verify.ourselves");
            if self.candidates.mark_as_self(&address) {
                self.contacts_changed(now);
            }
            return;
        }
        if !self.candidates.contains(&address) {
            // It was evicted while it was dialled. A proven address is worth adding again.
            reach!("discovery.verify.returned");
            let node = Some(identity.node);
            self.offer(now, Contact { node, address: address.clone() }, Trust::Verified);
        }
        // If the link neither comes up nor fails, the address is dialled again after the longest pause.
        let again = now + self.jittered(Duration::from_millis(self.config.backoff_ms_max));
        if self.candidates.verified(&address, identity.node, again) {
            reach!("discovery.verify.new");
            self.contacts_changed(now);
        }
        if self.peers.is_connected(identity.node) {
            reach!("discovery.verify.second_address");
            self.candidates.set_idle(&address);
        } else {
            out.push(Action::Connect { identity, address });
        }
    }

    /// Takes a failed dial: nobody answered, or an unexpected node. The latter lasts longer, so it is retried later.
    fn failed(&mut self, now: Instant, address: &Address, why: Unverified) {
        let failures = self.candidates.failures(address).saturating_add(1);
        let pause = match why {
            Unverified::Unreachable => self.backoff(failures),
            Unverified::Refused => {
                reach!("discovery.verify.refused");
                let longest = Duration::from_millis(self.config.backoff_ms_max);
                self.jittered(longest.saturating_mul(QUARANTINE_PAUSES))
            }
        };
        let distrusted = why == Unverified::Refused;
        if self.candidates.failed(address, now + pause, distrusted) {
            self.contacts_changed(now);
        }
    }

    fn receive_contacts(&mut self, now: Instant, from: NodeId, contacts: Vec<Contact>) {
        if !self.peers.may_receive(from, now, EXCHANGE_GAP) {
            reach!("discovery.contacts.too_often");
            return;
        }
        for contact in contacts.into_iter().take(CONTACTS_MAX) {
            self.offer(now, contact, Trust::Reported);
        }
    }

    fn connected(&mut self, now: Instant, peer: NodeId, out: &mut Outbox<Action>) {
        if self.peers.connect(peer) {
            self.candidates
                .addresses_of(peer)
                .iter()
                .for_each(|address| self.candidates.set_idle(address));
            self.send_contacts(now, peer, out);
        }
    }

    fn unreachable(&mut self, now: Instant, peer: NodeId) {
        let was_connected = self.peers.disconnect(peer);
        for address in self.candidates.addresses_of(peer) {
            let pause = self.backoff(1);
            self.candidates.retry(&address, now + pause);
        }
        if was_connected && !self.peers.is_any_connected() {
            reach!("discovery.alone");
            let soon = now + self.jittered(self.resolve_pause());
            self.resolve_at = earlier(self.resolve_at, Some(soon));
        }
    }

    /// Sends the verified contacts to a few connected peers, chosen at random.
    fn send_to_some(&mut self, now: Instant, out: &mut Outbox<Action>) {
        let mut peers: Vec<NodeId> = self.peers.connected().collect();
        self.random.shuffle(&mut peers);
        for peer in peers.into_iter().take(SEND_FANOUT) {
            self.send_contacts(now, peer, out);
        }
    }

    /// Sends only contacts that this node verified itself: hearsay would travel for ever.
    fn send_contacts(&mut self, now: Instant, to: NodeId, out: &mut Outbox<Action>) {
        let least = if mutant!("discovery.contacts.unverified") {
            Trust::Reported
        } else {
            Trust::Verified
        };
        let others = self.candidates.contacts(least).filter(|contact| contact.node != Some(to));
        let contacts: Vec<Contact> = others.take(CONTACTS_MAX).collect();
        if !contacts.is_empty() && self.peers.may_send(to, now, EXCHANGE_GAP) {
            reach!("discovery.contacts.sent");
            out.push(Action::SendContacts { to, contacts });
        }
    }
}
