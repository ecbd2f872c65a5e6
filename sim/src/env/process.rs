//! A node's process: it starts from its disk's content and ends without warning.
//!
//! The process runs a `core::node::Node`. This module holds its restarts and what surrounds it: clock, disk, open
//! requests. It does not decide when the process starts or ends; the plan does.

use std::collections::BTreeMap;

use continuum_core::config::Config;
use continuum_core::id::{
    Address, Boot, FederationId, Lineage, Replica, RequestId, StoreId, Token,
};
use continuum_core::machine::Machine as _;
use continuum_core::node::{self, Node, Start};
use continuum_core::seed::Seed;
use continuum_core::wal::{Header, Write};

use crate::env::clock::{Clock, MS};
use crate::env::disk::{Disk, Found};
use crate::env::durable::Durable;
use crate::env::requester::Requester;
use crate::env::step_queue::StepQueue;
use crate::rng::{Draws, stream};

/// One node and what surrounds it.
#[derive(Debug)]
pub(crate) struct Process {
    number: usize,
    draws: Draws,
    federation: FederationId,
    pub(crate) replica: Replica,
    config: Config,
    segment_bytes: u64,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// The machine, while the process is up.
    pub(crate) node: Option<Node>,
    pub(crate) boot: Boot,
    /// The boots before it on its disk.
    lineage: Lineage,
    /// The boot of the process before this one.
    pub(crate) last_boot: Boot,
    /// The lineage of that boot.
    pub(crate) last_lineage: Lineage,
    /// Number of starts. An event for an earlier process does not reach a later one.
    pub(crate) generation: u64,
    /// Requests without a reply so far.
    pub(crate) requests: BTreeMap<RequestId, Requester>,
    next_request: u64,
    /// When the next tick is due, in virtual time.
    pub(crate) due: u64,
    /// Consecutive steps after which the node asked for a tick at once.
    pub(crate) immediate_ticks: u32,
    /// Whether the process crashes in the middle of its next sync.
    pub(crate) crashes_in_sync: bool,
    /// Events that wait while the process is stopped or slow.
    pub(crate) step_queue: StepQueue,
    /// Number of syncs so far; it names their random draws.
    pub(crate) syncs: u64,
    /// Number of syncs of snapshot files so far.
    pub(crate) file_syncs: u64,
    /// The node is a voter with another store than this one.
    pub(crate) has_foreign_store: bool,
    /// The durable state of a lost voter when it made its promises.
    promised: Option<Box<Durable>>,
}

/// The address at which a node listens.
pub(crate) fn address_of(number: usize) -> Address {
    Address(format!("n{number}:7000"))
}

/// The node that listens at an address.
pub(crate) fn number_at(address: &Address) -> Option<usize> {
    address.0.strip_prefix('n')?.strip_suffix(":7000")?.parse().ok()
}

impl Process {
    pub(crate) fn new(
        number: usize,
        draws: Draws,
        federation: FederationId,
        replica: Replica,
        config: Config,
        segment_bytes: u64,
    ) -> Self {
        let header = Header { federation, node: replica.node, store: replica.store, lane: 0 };
        Self {
            number,
            draws,
            federation,
            replica,
            config,
            segment_bytes,
            clock: Clock::new(0, 0),
            disk: Disk::new(number, draws, header, segment_bytes),
            node: None,
            boot: Boot::default(),
            lineage: Lineage::default(),
            last_boot: Boot::default(),
            last_lineage: Lineage::default(),
            generation: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            due: u64::MAX,
            immediate_ticks: 0,
            crashes_in_sync: false,
            step_queue: StepQueue::default(),
            syncs: 0,
            file_syncs: 0,
            has_foreign_store: false,
            promised: None,
        }
    }

    /// Replaces the store by an empty one.
    pub(crate) fn replace_store(&mut self, store: StoreId, has_foreign_store: bool) {
        self.replica.store = store;
        let Replica { node, store } = self.replica;
        let header = Header { federation: self.federation, node, store, lane: 0 };
        self.disk = Disk::new(self.number, self.draws, header, self.segment_bytes);
        self.has_foreign_store = has_foreign_store;
    }

    /// Remembers the durable state, which the disk is about to lose.
    pub(crate) fn keep_promises(&mut self) {
        self.promised = Some(Box::new(self.disk.durable.clone()));
    }

    /// The durable state on which the node's promises rest.
    pub(crate) fn promised(&self) -> &Durable {
        self.promised.as_deref().unwrap_or(&self.disk.durable)
    }

    /// Whether the node is fenced: silent for good.
    pub(crate) fn is_fenced(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_fenced)
    }

    /// Whether the process is up.
    pub(crate) const fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Starts the process from its disk. Returns false when the store was damaged and recovery noticed; an error when
    /// recovery is wrong. With `probes` it also reads a damaged copy.
    pub(crate) fn start(&mut self, now: u64, probes: bool) -> Result<bool, String> {
        let damage = self.disk.damaged_by();
        let found = match self.disk.recover() {
            Ok(_) if !damage.is_empty() => {
                return Err(format!("{damage:?} damaged the log, but recovery read it as sound"));
            }
            Err(_) if !damage.is_empty() => return Ok(false),
            Err(error) => return Err(format!("the log does not recover: {error}")),
            Ok(found) => found,
        };
        if let Some(found) = found.as_ref().filter(|_| probes) {
            self.disk.probe_rot(&found.writes)?;
        }
        let Found { writes, snapshots } =
            found.unwrap_or(Found { writes: Vec::new(), snapshots: BTreeMap::new() });
        self.generation += 1;
        self.last_boot = self.boot;
        self.last_lineage = std::mem::take(&mut self.lineage);
        self.boot = Boot { count: next_count(&writes), nonce: self.draw("process.nonce") };
        // As after a power failure, the monotonic clock starts anew, some time after the machine's boot.
        let since_boot = self.draw("process.uptime") % (10_000 * MS);
        self.clock.reboot(now, since_boot);
        let start = Start {
            config: self.config.clone(),
            federation: self.federation,
            replica: self.replica,
            boot: self.boot,
            seed: Seed::from_number(self.draw("process.seed")),
            name: format!("n{}", self.number),
            address: address_of(self.number),
        };
        let node = Node::restore(start, writes, snapshots)
            .map_err(|error| format!("the node does not restore: {error:?}"))?;
        self.lineage = node.lineage().clone();
        self.node = Some(node);
        self.due = now;
        Ok(true)
    }

    /// A second process on a copy of the disk as it is in this moment, if that copy is sound.
    pub(crate) fn copied(&self, nonce: u64) -> Option<Node> {
        let Replica { node, store } = self.replica;
        let header = Header { federation: self.federation, node, store, lane: 0 };
        let mut disk = Disk::new(self.number, self.draws, header, self.segment_bytes);
        disk.roll_back(self.disk.backup());
        let Found { writes, snapshots } = disk.recover().ok()??;
        let start = Start {
            config: self.config.clone(),
            federation: self.federation,
            replica: self.replica,
            boot: Boot { count: next_count(&writes), nonce },
            seed: Seed::from_number(nonce),
            name: format!("n{}", self.number),
            address: address_of(self.number),
        };
        Node::restore(start, writes, snapshots).ok()
    }

    /// Ends the process.
    pub(crate) fn stop(&mut self) {
        self.node = None;
        self.crashes_in_sync = false;
        self.step_queue.reset();
        self.due = u64::MAX;
        self.requests.clear();
    }

    /// The boots before the present one, as a handshake names them.
    pub(crate) fn lineage(&self) -> Lineage {
        self.lineage.clone()
    }

    /// Updates the deadline after the clock's rate changed.
    pub(crate) fn update_deadline(&mut self) {
        if let Some(node) = &self.node {
            self.due = node.deadline().map_or(u64::MAX, |deadline| self.clock.when(deadline));
        }
    }

    /// Registers a new request and returns its id.
    pub(crate) fn take_request(&mut self, requester: Requester) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, requester);
        id
    }

    fn draw(&self, label: &str) -> u64 {
        self.draws.bits(stream(label, self.number as u64), self.generation)
    }
}

fn next_count(writes: &[(Token, Write)]) -> u64 {
    node::last_boot(writes).map_or(0, |boot| boot.count) + 1
}
