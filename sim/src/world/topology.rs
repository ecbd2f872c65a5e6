//! Nodes that are added, nodes that stop gracefully, and nodes of another version.
//!
//! Discovery may name false contacts. Voters never change, because the core does not support that yet. It supports
//! adding learners, and a process that is asked to stop, which transfers its leaderships.

use continuum_core::codec;
use continuum_core::id::{Address, Contact};
use continuum_core::limits::FRAME_BYTES_MAX;
use continuum_core::node::{Event, Message, Node};

use crate::env::clock::MS;
use crate::env::process::address_of;
use crate::oracle::unknown_message_is_dropped;
use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::verdict::Verdict;
use crate::world::{World, WorldEvent};

/// How often a driver checks whether a process that was asked to stop has finished, and how long it waits at most.
const STOP_LOOK_NS: u64 = 100 * MS;
const STOP_MAX_NS: u64 = 2_000 * MS;
/// Bytes that a full disk still takes: no checkpoint, one of a small state, and any.
const FULL_ROOMS: [u64; 3] = [0, 64 << 10, 64 << 20];

/// An address where a node answers that has no certificate of the federation.
pub(super) const FOREIGN: &str = "foreign:1";
/// An address that takes connections and never answers, and how long a driver waits there for the end.
pub(super) const MUTE: &str = "mute:1";
pub(super) const MUTE_NS: (u64, u64) = (5_000 * MS, 60_000 * MS);
/// One false answer in this many names this many further addresses where nobody listens: more than the table of
/// candidates has room for.
const MANY: (u64, usize) = (8, 300);

impl World {
    /// When a node starts for the first time, in milliseconds.
    pub(crate) fn first_start_ms(&self, node: usize) -> u64 {
        let mut added = self.plan.faults.iter().filter(|fault| fault.kind == Kind::Add);
        let added = added.find(|fault| fault.nodes.contains(&node));
        added.map_or(node as u64, |fault| fault.at_ms)
    }

    /// A node started for the first time.
    pub(crate) fn count_added(&mut self, node: usize) {
        let added = |fault: &crate::plan::fault::Fault| {
            fault.kind == Kind::Add && fault.nodes.contains(&node)
        };
        if self.plan.faults.iter().any(added) {
            self.fired.count(Kind::Add);
        }
    }

    /// The contacts that discovery returns: the true ones, or sometimes false ones with or without them.
    pub(crate) fn mislead(&mut self, me: usize, mut contacts: Vec<Contact>) -> Vec<Contact> {
        let lasting = self.plan.faults.iter().zip(&self.active).filter(|(_, active)| **active);
        let lies = lasting.filter(|(fault, _)| fault.kind == Kind::FalseContacts);
        let Some(rate_ppm) = lies.map(|(fault, _)| fault.rate_ppm).max() else { return contacts };
        let name = stream("discovery.lie", me as u64);
        if !self.draws.chance(name, self.steps, rate_ppm) {
            return contacts;
        }
        self.fired.count(Kind::FalseContacts);
        let nodes = self.processes.len();
        let other = self.draws.below(name ^ 1, self.steps, nodes as u64) as usize;
        let namesake = self.processes[(other + 1) % nodes].replica.node;
        let nameless = |address| Contact { node: None, address };
        let mut false_ones = vec![
            nameless(address_of(nodes + 7)),
            Contact { node: Some(namesake), address: address_of(other) },
            nameless(address_of(me)),
            nameless(Address("not an address".to_owned())),
            nameless(Address(FOREIGN.to_owned())),
            nameless(Address(MUTE.to_owned())),
        ];
        if self.draws.below(name ^ 3, self.steps, MANY.0) == 0 {
            let more = (0..MANY.1).map(|number| nameless(address_of(nodes + 8 + number)));
            false_ones.extend(more);
        }
        if self.draws.chance(name ^ 2, self.steps, 500_000) {
            contacts.clear();
        }
        // The false contacts come first, so that they are tried first.
        false_ones.into_iter().chain(contacts).collect()
    }

    /// Asks a process to stop.
    pub(crate) fn ask_to_stop(&mut self, node: usize) -> Verdict {
        let process = &self.processes[node];
        if !process.is_up() || process.is_fenced() {
            return Ok(());
        }
        self.fired.count(Kind::Handover);
        self.survival[node].asked_to_stop = Some(self.now);
        let generation = process.generation;
        self.schedule_in(STOP_LOOK_NS, WorldEvent::Leave { node, generation, since: self.now });
        self.inform(node, Event::Stopping)
    }

    /// Ends a process that was asked to stop, once it has finished or its time is over.
    pub(crate) fn leave(&mut self, node: usize, generation: u64, since: u64) {
        let process = &self.processes[node];
        if process.generation != generation || !process.is_up() {
            return;
        }
        let leads = process.node.as_ref().is_some_and(Node::leads_others);
        let is_quiet = process.requests.is_empty() && process.disk.is_idle() && !leads;
        if is_quiet || self.now - since >= STOP_MAX_NS {
            self.end_silently(node);
        } else {
            self.schedule_in(STOP_LOOK_NS, WorldEvent::Leave { node, generation, since });
        }
    }

    /// A node's disk reaches its reserve, or has room again.
    pub(crate) fn fill(&mut self, node: usize, full: bool) -> Verdict {
        if !self.processes[node].is_up() {
            return Ok(());
        }
        if full {
            self.fired.count(Kind::Full);
        }
        let room = FULL_ROOMS[(self.now / MS) as usize % FULL_ROOMS.len()];
        self.processes[node].disk.refuse_files(full && room == 0);
        self.inform(node, Event::StorageFull { full, room })
    }

    /// Sometimes sends, beside a message to an older node, one of a kind that the node does not know. The frame is
    /// decoded as a driver decodes it: the link stays up and the node hears nothing of it.
    pub(crate) fn speak_later_version(&mut self, from: usize, to: usize) -> Verdict {
        let rate_ppm = self.network.later_ppm(from, to);
        let name = stream("mixed", (from * self.processes.len() + to) as u64);
        if rate_ppm == 0 || !self.draws.chance(name, self.steps, rate_ppm) {
            return Ok(());
        }
        let kind = Message::KINDS + self.draws.below(name ^ 1, self.steps, 300) as u32;
        let rest = self.draws.bits(name ^ 2, self.steps).to_be_bytes();
        let read = Message::decode(&codec::encode(&(kind, rest)), FRAME_BYTES_MAX);
        unknown_message_is_dropped::check(kind, &read)?;
        self.fired.count(Kind::MixedVersion);
        Ok(())
    }
}
