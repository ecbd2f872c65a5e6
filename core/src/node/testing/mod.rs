//! A small world of nodes for the tests of `node`: links, real log bytes on disks, crashes.
//!
//! Its network delays messages, and loses or repeats them when told to. Its disks sync after a while, and a crash loses
//! what is not synced. The world itself checks that every request is answered once. It does not simulate partial
//! partitions, clocks or torn sectors (the simulator does).

mod disk;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use crate::api::{Outcome, Request};
use crate::codec;
use crate::config::Config;
use crate::discovery::{Identity, Unverified};
use crate::id::{Address, Boot, Contact, FederationId, NodeId, Replica, RequestId, StoreId};
use crate::limits::FRAME_BYTES_MAX;
use crate::machine::{Machine, Now, Outbox};
use crate::node::{Action, Event, Message, Node, Notice, Start, last_boot};
use crate::seed::{Seed, Stream};
use crate::time::{Instant, WallTime};

use disk::Disk;

pub(super) const FEDERATION: FederationId = FederationId([7; 16]);

/// An event that the world has scheduled.
enum WorldEvent {
    Deliver {
        from: usize,
        to: usize,
        process: u64,
        bytes: Vec<u8>,
    },
    Synced {
        host: usize,
        process: u64,
    },
    FilesSynced {
        host: usize,
        process: u64,
    },
    Report {
        host: usize,
        process: u64,
        event: Event,
    },
    /// Try the links that are wanted and missing.
    Links,
}

/// One host: a disk, and a process when it is up.
pub(super) struct Host {
    pub(super) replica: Replica,
    pub(super) node: Option<Node>,
    pub(super) disk: Disk,
    /// The number of the current process, so that no scheduled event reaches a later one.
    process: u64,
    routes: BTreeMap<NodeId, Address>,
    unanswered: BTreeSet<RequestId>,
    pub(super) notices: Vec<Notice>,
}

/// Hosts, the links between them, and the events that are scheduled.
pub(super) struct World {
    pub(super) hosts: Vec<Host>,
    pub(super) now: u64,
    pub(super) config: Config,
    /// Messages lost and repeated, in percent.
    pub(super) loss: u64,
    pub(super) repeats: u64,
    /// A host that announces another address.
    pub(super) moved: Option<(usize, Address)>,
    /// Hosts that the operator's list names.
    pub(super) bootstrap: Vec<usize>,
    /// Hosts without any link.
    pub(super) isolated: BTreeSet<usize>,
    events: BTreeMap<(u64, u64), WorldEvent>,
    links: BTreeSet<(usize, usize)>,
    replies: BTreeMap<(usize, RequestId), Outcome>,
    random: Stream,
    seq: u64,
    requests: u64,
}

pub(super) fn address(host: usize) -> Address {
    Address(format!("host{host}:1"))
}

fn ms(ms: u64) -> u64 {
    ms * 1_000_000
}

impl World {
    /// This many fresh hosts, all running, none in a federation.
    pub(super) fn new(hosts: usize, seed: u64) -> Self {
        Self::with(hosts, seed, Config::default())
    }

    pub(super) fn with(hosts: usize, seed: u64, config: Config) -> Self {
        let mut world = Self {
            hosts: Vec::new(),
            now: 1,
            config,
            loss: 0,
            repeats: 0,
            moved: None,
            bootstrap: Vec::new(),
            isolated: BTreeSet::new(),
            events: BTreeMap::new(),
            links: BTreeSet::new(),
            replies: BTreeMap::new(),
            random: Seed::from_number(seed).derive("world", 0),
            seq: 0,
            requests: 0,
        };
        for host in 0..hosts {
            world.add_host(host as u8 + 1);
        }
        world.at(ms(50), WorldEvent::Links);
        world
    }

    /// Adds a fresh host, and starts it.
    pub(super) fn add_host(&mut self, number: u8) {
        let replica = Replica { node: NodeId([number; 16]), store: StoreId([number; 16]) };
        let disk = Disk::new(FEDERATION, replica);
        self.hosts.push(Host {
            replica,
            node: None,
            disk,
            process: 0,
            routes: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            notices: Vec::new(),
        });
        self.start(self.hosts.len() - 1);
    }

    /// Starts a process on what the disk holds.
    pub(super) fn start(&mut self, at: usize) {
        let (writes, snapshots) = self.hosts[at].disk.recover();
        let count = last_boot(&writes).map_or(1, |boot| boot.count + 1);
        let nonce = self.random.draw();
        let start = self.start_of(at, Boot { count, nonce });
        let node = Node::restore(start, writes, snapshots).expect("the disk restores");
        let host = &mut self.hosts[at];
        host.process += 1;
        host.node = Some(node);
        host.routes.clear();
        self.step(at, Event::Tick);
    }

    pub(super) fn start_of(&self, at: usize, boot: Boot) -> Start {
        Start {
            config: self.config.clone(),
            federation: FEDERATION,
            replica: self.hosts[at].replica,
            boot,
            seed: Seed::from_number(boot.nonce),
            name: format!("n{at}"),
            address: match &self.moved {
                Some((moved, address)) if *moved == at => address.clone(),
                _ => address(at),
            },
        }
    }

    /// Kills a process. Its host loses what was not synced.
    pub(super) fn crash(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.node = None;
        host.process += 1;
        host.unanswered.clear();
        host.disk.crash();
        self.cut(at);
    }

    /// Cuts a host off, until the caller clears `isolated`.
    pub(super) fn isolate(&mut self, at: usize) {
        self.isolated.insert(at);
        self.cut(at);
    }

    /// Cuts all links of a host, and tells the other ends.
    pub(super) fn cut(&mut self, at: usize) {
        let gone: Vec<_> =
            self.links.iter().copied().filter(|(a, b)| *a == at || *b == at).collect();
        for (a, b) in gone {
            self.links.remove(&(a, b));
            let (from, to) = (self.hosts[a].replica.node, self.hosts[b].replica.node);
            self.report(a, Event::Unreachable { peer: to });
            self.report(b, Event::Unreachable { peer: from });
        }
    }

    /// Replaces a host's disk by an empty one under a new store.
    pub(super) fn wipe(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.replica.store.0[0] ^= 0x80;
        host.disk = Disk::new(FEDERATION, host.replica);
    }

    fn at(&mut self, after: u64, event: WorldEvent) {
        self.seq += 1;
        self.events.insert((self.now + after, self.seq), event);
    }

    fn report(&mut self, host: usize, event: Event) {
        // The delay is constant, so that events about one peer arrive in order.
        let process = self.hosts[host].process;
        self.at(ms(1), WorldEvent::Report { host, process, event });
    }

    /// One step of one node.
    pub(super) fn step(&mut self, at: usize, event: Event) {
        let mut out = Outbox::new();
        let now = Now {
            mono: Instant(self.now),
            wall: WallTime(1_700_000_000_000 + self.now / 1_000_000),
        };
        let Some(node) = &mut self.hosts[at].node else { return };
        node.step(now, event, &mut out);
        for action in out.drain() {
            self.perform(at, action);
        }
        if self.hosts[at].disk.begin() {
            let (after, process) = (self.hosts[at].disk.sync_ns, self.hosts[at].process);
            self.at(after, WorldEvent::Synced { host: at, process });
        }
        if self.hosts[at].disk.begin_files() {
            let (after, process) = (self.hosts[at].disk.sync_ns, self.hosts[at].process);
            self.at(after, WorldEvent::FilesSynced { host: at, process });
        }
    }

    fn perform(&mut self, at: usize, action: Action) {
        match action {
            Action::Send { to, message, .. } => self.send(at, to, &message),
            Action::Persist { token, write } => self.hosts[at].disk.persist(token, write),
            Action::WriteFile { number, piece } => self.hosts[at].disk.write_file(number, piece),
            Action::Discard { snapshot } => self.hosts[at].disk.discard(snapshot),
            Action::Release { before } => self.hosts[at].disk.release(before),
            Action::Reply { id, outcome } => {
                assert!(self.hosts[at].unanswered.remove(&id), "request {} is answered once", id.0);
                self.replies.insert((at, id), outcome);
            }
            Action::Resolve { source } => {
                let contact = |at: &usize| Contact { node: None, address: address(*at) };
                let peers =
                    self.bootstrap.iter().filter(|there| **there != at).map(contact).collect();
                self.report(at, Event::Resolved { source, peers });
            }
            Action::Verify { address: dialled } => {
                let there = self.host_at(&dialled).filter(|there| self.reaches(at, *there));
                let identity = there.and_then(|there| self.identity(there));
                let outcome = identity.ok_or(Unverified::Unreachable);
                self.report(at, Event::Verified { address: dialled, outcome });
            }
            Action::Route { peer, address } => {
                let routes = &mut self.hosts[at].routes;
                match address {
                    Some(address) => drop(routes.insert(peer, address)),
                    None => drop(routes.remove(&peer)),
                }
            }
            Action::Refuse { peer, boot, reason: refusal, known } => {
                let is_it =
                    |host: &Host| host.node.as_ref().is_some_and(|node| node.boot() == boot);
                let other =
                    self.hosts.iter().position(|host| host.replica.node == peer && is_it(host));
                if let Some(other) = other {
                    self.send(at, peer, &Message::Refused { refusal, known });
                    self.links.remove(&(at.min(other), at.max(other)));
                }
            }
            Action::Condemn(condemned) => self.hosts[at].disk.condemned = Some(condemned),
            Action::Notify(notice) => self.hosts[at].notices.push(notice),
        }
    }

    fn host_at(&self, wanted: &Address) -> Option<usize> {
        (0..self.hosts.len()).find(|host| address(*host) == *wanted)
    }

    fn identity(&self, at: usize) -> Option<Identity> {
        let node = self.hosts[at].node.as_ref()?;
        let Replica { node: id, store } = node.replica();
        Some(Identity { node: id, store, boot: node.boot() })
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        !self.isolated.contains(&a) && !self.isolated.contains(&b)
    }

    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(to) = self.hosts.iter().position(|host| host.replica.node == to) else { return };
        if !self.links.contains(&(from.min(to), from.max(to))) || !self.reaches(from, to) {
            return;
        }
        let bytes = codec::encode(message).to_vec();
        assert!(bytes.len() <= FRAME_BYTES_MAX, "a message fits into a frame: {}", bytes.len());
        let copies = 1 + u64::from(self.random.below(100) < self.repeats);
        for _ in 0..copies {
            if self.random.below(100) < self.loss {
                continue;
            }
            let (after, process) = (self.random.between(ms(1) / 5, ms(2)), self.hosts[to].process);
            self.at(after, WorldEvent::Deliver { from, to, process, bytes: bytes.clone() });
        }
    }

    fn make_links(&mut self) {
        for a in 0..self.hosts.len() {
            let wanted: Vec<Address> = self.hosts[a].routes.values().cloned().collect();
            for b in wanted.iter().filter_map(|wanted| self.host_at(wanted)).collect::<Vec<_>>() {
                let up = self.hosts[a].node.is_some() && self.hosts[b].node.is_some();
                if a != b && up && self.reaches(a, b) && self.links.insert((a.min(b), a.max(b))) {
                    self.connect(a, b);
                    self.connect(b, a);
                }
            }
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        let Some(node) = self.hosts[b].node.as_ref() else { return };
        let Replica { node: peer, store } = node.replica();
        let (boot, lineage) = (node.boot(), node.lineage().clone());
        self.report(a, Event::Connected { peer, store, boot, lineage, version: 1 });
    }

    fn dispatch(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Deliver { from, to, process, bytes }
                if self.hosts[to].process == process =>
            {
                let message = codec::decode(&bytes, FRAME_BYTES_MAX).expect("a message decodes");
                let from = self.hosts[from].replica.node;
                self.step(to, Event::Received { from, message });
            }
            WorldEvent::Synced { host, process } if self.hosts[host].process == process => {
                if self.hosts[host].disk.hangs {
                    return self.at(ms(10), event);
                }
                let token = self.hosts[host].disk.finish();
                self.step(host, Event::Persisted { token });
            }
            WorldEvent::FilesSynced { host, process } if self.hosts[host].process == process => {
                if self.hosts[host].disk.hangs {
                    return self.at(ms(10), event);
                }
                let (number, failed) = self.hosts[host].disk.finish_files();
                for snapshot in failed {
                    self.step(host, Event::FileFailed { snapshot });
                }
                self.step(host, Event::FilesWritten { number });
            }
            WorldEvent::Report { host, process, event } if self.hosts[host].process == process => {
                self.step(host, event);
            }
            WorldEvent::Links => {
                self.make_links();
                self.at(ms(50), WorldEvent::Links);
            }
            _ => {}
        }
    }

    /// Lets `for_ms` milliseconds pass.
    pub(super) fn run(&mut self, for_ms: u64) {
        let end = self.now + ms(for_ms);
        while self.next(end) {}
        self.now = end;
    }

    /// Performs the next event or tick that is due by `end`. Returns false when none is.
    fn next(&mut self, end: u64) -> bool {
        let due = |(at, host): (usize, &Host)| {
            let node = host.node.as_ref()?;
            node.deadline().map(|due| (due.0.max(self.now), at))
        };
        let tick = self.hosts.iter().enumerate().filter_map(due).min();
        let event = self.events.first_key_value().map(|((at, _), _)| (*at).max(self.now));
        match (tick, event) {
            (Some((at, host)), event) if at <= end && event.is_none_or(|event| at <= event) => {
                self.now = at;
                self.step(host, Event::Tick);
            }
            (_, Some(at)) if at <= end => {
                self.now = at;
                if let Some((_, event)) = self.events.pop_first() {
                    self.dispatch(event);
                }
            }
            _ => return false,
        }
        true
    }

    /// Sends a request to a node without waiting for the answer.
    pub(super) fn request(&mut self, at: usize, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.hosts[at].unanswered.insert(id);
        self.step(at, Event::Requested { id, request });
        id
    }

    pub(super) fn reply(&self, at: usize, id: RequestId) -> Option<&Outcome> {
        self.replies.get(&(at, id))
    }

    /// Sends a request to a node and waits for the answer.
    pub(super) fn ask(&mut self, at: usize, request: Request) -> Outcome {
        let id = self.request(at, request);
        let end = self.now + ms(20_000);
        while self.reply(at, id).is_none() {
            assert!(self.next(end), "the request is answered in time");
        }
        self.replies.get(&(at, id)).cloned().expect("it was just there")
    }

    /// The number of unanswered requests on all hosts.
    pub(super) fn unanswered(&self) -> usize {
        self.hosts.iter().map(|host| host.unanswered.len()).sum()
    }

    pub(super) fn node(&self, at: usize) -> &Node {
        self.hosts[at].node.as_ref().expect("the process is up")
    }
}
