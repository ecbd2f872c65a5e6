//! Whole nodes in one process, driven step by step: links with real frames, disks with real log bytes, virtual time.
//!
//! Each step is measured: the CPU time of this thread, the bytes that it allocates. Encoding, decoding and files belong
//! to the driver and are not. There are no faults here: the simulator has them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use continuum_bench::steps::{Memory, Meter};
use continuum_bench::{allocator, cpu};
use continuum_core::api::{Outcome, Reason, Request};
use continuum_core::codec;
use continuum_core::config::Config;
use continuum_core::discovery::{Identity, Unverified};
use continuum_core::id::{
    Address, Boot, Contact, FederationId, NodeId, Owner, Replica, RequestId, StoreId,
};
use continuum_core::limits::FRAME_BYTES_MAX;
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Event, Message, Node, Notice, Start, last_boot};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};
use cpu_time::{ProcessTime, ThreadTime};

use crate::disk::Disk;
use crate::names;

const FEDERATION: FederationId = FederationId([7; 16]);
/// A message takes this long, and a write to disk this long and a nanosecond for each byte.
const LATENCY_NS: u64 = 100_000;
const SYNC_NS: u64 = 200_000;
/// The wall clock at virtual time 0.
const WALL_MS: u64 = 1_700_000_000_000;
const MS: u64 = 1_000_000;
/// A tick takes this much virtual time, so that work in slices and the disk take turns. Other steps take none.
const TICK_NS: u64 = 20_000;
/// A busy node is asked again after this much.
const RETRY_NS: u64 = MS;
/// A request that has no answer after this much virtual time never gets one.
const ANSWER_MS: u64 = 60_000;

/// Why a phase did not reach its end, and how far it came.
#[derive(Clone, Debug)]
pub struct Stop(pub String);

enum Happening {
    Deliver { from: usize, to: usize, process: u64, bytes: Vec<u8> },
    Synced { host: usize, process: u64 },
    Report { host: usize, process: u64, event: Event },
    Links,
}

pub struct Host {
    replica: Replica,
    node: Option<Node>,
    disk: Disk,
    process: u64,
    routes: BTreeMap<NodeId, Address>,
    /// Milliseconds that its wall clock is ahead.
    pub ahead_ms: u64,
}

/// Frames that were sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wire {
    pub frames: u64,
    pub bytes: u64,
    /// Frames that no link would have sent.
    pub too_long: u64,
}

pub struct World {
    pub hosts: Vec<Host>,
    pub meter: Meter,
    pub wire: Wire,
    /// Checkpoints of groups and shards that were completed.
    pub checkpoints: u64,
    pub config: Config,
    /// Hosts without links.
    pub isolated: BTreeSet<usize>,
    now: u64,
    events: BTreeMap<(u64, u64), Happening>,
    links: BTreeSet<(usize, usize)>,
    /// Answers that somebody waits for.
    awaited: BTreeMap<RequestId, Option<Outcome>>,
    /// The other answers, by their kinds.
    answers: BTreeMap<String, u64>,
    /// The requests of [`World::ask_all`] that are under way, and those to be sent again at some time.
    under_way: BTreeMap<RequestId, Request>,
    again: VecDeque<(u64, Request)>,
    /// Answers that said that a node is busy.
    busy: u64,
    in_flight: u64,
    seq: u64,
    requests: u64,
    folder: PathBuf,
    bound: Duration,
    /// Steps from this many nanoseconds on are printed with their time.
    pub trace_ns: u64,
    out: Outbox<Action>,
}

fn address(host: usize) -> Address {
    Address(format!("host{host}:1"))
}

impl World {
    /// No hosts yet. The row may use this much CPU time.
    pub fn new(folder: PathBuf, bound: Duration) -> Self {
        let mut config = Config::default();
        // Far below what the rows hold, so that a checkpoint is due by the size of the state alone.
        config.node.checkpoint_bytes = 1 << 20;
        let mut world = Self {
            hosts: Vec::new(),
            meter: Meter::new(0),
            wire: Wire::default(),
            checkpoints: 0,
            config,
            isolated: BTreeSet::new(),
            now: 1,
            events: BTreeMap::new(),
            links: BTreeSet::new(),
            awaited: BTreeMap::new(),
            answers: BTreeMap::new(),
            under_way: BTreeMap::new(),
            again: VecDeque::new(),
            busy: 0,
            in_flight: 0,
            seq: 0,
            requests: 0,
            folder,
            bound,
            trace_ns: u64::MAX,
            out: Outbox::new(),
        };
        world.at(50 * MS, Happening::Links);
        world
    }

    /// Adds fresh hosts, starts them and forms a federation of the first `voters`. Memory that is allocated afterwards
    /// is the row's.
    pub fn form(&mut self, hosts: usize, voters: usize) -> Result<(), Stop> {
        self.phase("form", false, |world| {
            for _ in 0..hosts {
                world.add_host();
            }
            world.run(1000)?;
            let voters = (1..voters).map(address).collect();
            let outcome = world.ask(0, Request::Init { voters })?;
            assert!(format!("{outcome:?}").contains("Initialized"), "{outcome:?}");
            world.run(5000)
        })?;
        let phases = std::mem::replace(&mut self.meter, Meter::new(allocator::live()));
        drop(phases);
        Ok(())
    }

    /// Adds a fresh host that knows host 0, and starts it. Returns its place.
    pub fn add_host(&mut self) -> usize {
        let at = self.hosts.len();
        let id = [at as u8 + 1; 16];
        let replica = Replica { node: NodeId(id), store: StoreId(id) };
        let disk = Disk::new(self.folder.join(format!("host{at}")), FEDERATION, replica);
        let (routes, process) = (BTreeMap::new(), 0);
        self.hosts.push(Host { replica, node: None, disk, process, routes, ahead_ms: 0 });
        self.start(at);
        at
    }

    /// Starts a process on what its disk holds. Returns the CPU time and the most memory that this took.
    pub fn start(&mut self, at: usize) -> (Duration, u64) {
        allocator::reset_peak();
        let began = ThreadTime::now();
        let (writes, snapshots) = self.hosts[at].disk.recover();
        let count = last_boot(&writes).map_or(1, |boot| boot.count + 1);
        self.seq += 1;
        let boot = Boot { count, nonce: (at as u64 + 1) << 48 | self.seq };
        let start = Start {
            config: self.config.clone(),
            federation: FEDERATION,
            replica: self.hosts[at].replica,
            boot,
            seed: Seed::from_number(boot.nonce),
            name: format!("n{at}"),
            address: address(at),
        };
        let node = Node::restore(start, writes, snapshots).expect("the disk restores");
        let took = (began.elapsed(), allocator::peak());
        let host = &mut self.hosts[at];
        host.process += 1;
        host.node = Some(node);
        host.routes.clear();
        self.step(at, Event::Tick);
        took
    }

    /// Kills a process, and cuts its links.
    pub fn crash(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.node = None;
        host.process += 1;
        host.disk.crash();
        self.cut(at);
    }

    /// Cuts all links of a host, and tells both ends.
    pub fn cut(&mut self, at: usize) {
        let mine = |(a, b): &(usize, usize)| *a == at || *b == at;
        let gone: Vec<_> = self.links.iter().copied().filter(mine).collect();
        for (a, b) in gone {
            self.links.remove(&(a, b));
            let (from, to) = (self.hosts[a].replica.node, self.hosts[b].replica.node);
            self.report(a, Event::Unreachable { peer: to });
            self.report(b, Event::Unreachable { peer: from });
        }
    }

    pub fn node(&self, at: usize) -> &Node {
        self.hosts[at].node.as_ref().expect("the process is up")
    }

    /// Milliseconds of virtual time.
    pub const fn now_ms(&self) -> u64 {
        self.now / MS
    }

    /// Bytes that a disk was ever given.
    pub fn written(&self, at: usize) -> u64 {
        self.hosts[at].disk.written
    }

    fn memory(&self) -> Memory {
        let up = || self.hosts.iter().filter_map(|host| host.node.as_ref());
        Memory {
            allocated: allocator::live() - self.in_flight,
            resident: allocator::resident().0,
            counted: up().map(Node::memory_bytes).sum(),
            nodes: up().count() as u64,
        }
    }

    /// Runs a part of the row and measures it. See [`Meter::begin`] for `settles`.
    pub fn phase(
        &mut self,
        name: &str,
        settles: bool,
        work: impl FnOnce(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        eprintln!("  {name}");
        let before = self.memory();
        self.meter.begin(name, settles, before);
        allocator::reset_resident_peak();
        let (wire, began, written) = (self.wire, self.now, self.all_written());
        self.busy = 0;
        let ended = work(self);
        self.meter.note("virtual_s", ((self.now - began) / MS) as f64 / 1e3);
        self.meter.note("frames", self.wire.frames - wire.frames);
        self.meter.note("wire_bytes", self.wire.bytes - wire.bytes);
        self.meter.note("frames_too_long", self.wire.too_long - wire.too_long);
        self.meter.note("disk_bytes", self.all_written() - written);
        let after = self.memory();
        let stopped = ended.as_ref().err().map(|Stop(why)| why.clone());
        if let Some(why) = &stopped {
            eprintln!("    not ended: {why}");
        }
        self.meter.end(after, allocator::resident().1, stopped);
        ended
    }

    fn all_written(&self) -> u64 {
        self.hosts.iter().map(|host| host.disk.written).sum()
    }

    fn at(&mut self, after: u64, event: Happening) {
        self.seq += 1;
        self.events.insert((self.now + after, self.seq), event);
    }

    fn report(&mut self, host: usize, event: Event) {
        let process = self.hosts[host].process;
        self.at(LATENCY_NS, Happening::Report { host, process, event });
    }

    /// One measured step of one node.
    pub fn step(&mut self, at: usize, event: Event) {
        let host = &mut self.hosts[at];
        let Some(node) = &mut host.node else { return };
        let wall = WallTime(WALL_MS + self.now / MS + host.ahead_ms);
        let now = Now { mono: Instant(self.now), wall };
        let name = names::of_event(&event);
        let mut out = std::mem::take(&mut self.out);
        allocator::reset_peak();
        let (before, at_ns) = (allocator::total(), cpu::monotonic_ns());
        let began = ThreadTime::now();
        node.step(now, event, &mut out);
        let took = began.elapsed().as_nanos() as u64;
        if took >= self.trace_ns {
            let (from, to) = (at_ns as f64 / 1e9, cpu::monotonic_ns() as f64 / 1e9);
            let ms = took as f64 / 1e6;
            eprintln!("    n{at} {name} {ms:.1} ms: perf script --time {from:.6},{to:.6}");
        }
        let bytes = allocator::total() - before;
        let peak = allocator::peak().saturating_sub(self.in_flight);
        self.meter.step(took, bytes, peak, || {
            format!("n{at} {name} -> {}", names::of_actions(out.as_slice()))
        });
        for action in out.drain() {
            self.perform(at, action);
        }
        self.out = out;
        if let Some(bytes) = self.hosts[at].disk.begin() {
            let process = self.hosts[at].process;
            self.at(SYNC_NS + bytes, Happening::Synced { host: at, process });
        }
    }

    fn perform(&mut self, at: usize, action: Action) {
        match action {
            Action::Send { to, message, .. } => self.send(at, to, &message),
            Action::Persist { token, write } => self.hosts[at].disk.persist(token, write),
            Action::Discard { snapshot } => self.hosts[at].disk.discard(snapshot),
            Action::Release { before } => self.hosts[at].disk.release(before),
            Action::Reply { id, outcome } => self.answer(id, outcome),
            Action::Resolve { source } => {
                let known = at != 0;
                let contact = Contact { node: None, address: address(0) };
                let peers = known.then_some(contact).into_iter().collect();
                self.report(at, Event::Resolved { source, peers });
            }
            Action::Verify { address } => {
                let there = self.host_at(&address).filter(|there| self.reaches(at, *there));
                let node = there.and_then(|there| self.hosts[there].node.as_ref());
                let identity = node.map(|node| {
                    let Replica { node: id, store } = node.replica();
                    Identity { node: id, store, boot: node.boot() }
                });
                let outcome = identity.ok_or(Unverified::Unreachable);
                self.report(at, Event::Verified { address, outcome });
            }
            Action::Route { peer, address } => {
                let routes = &mut self.hosts[at].routes;
                match address {
                    Some(address) => drop(routes.insert(peer, address)),
                    None => drop(routes.remove(&peer)),
                }
            }
            Action::Notify(Notice::Checkpointed { owner, .. }) if is_data(owner) => {
                self.checkpoints += 1;
            }
            Action::Refuse { .. } | Action::Condemn(_) => panic!("a node is refused: {action:?}"),
            Action::Notify(_) => {}
        }
    }

    fn answer(&mut self, id: RequestId, outcome: Outcome) {
        if let Some(request) = self.under_way.remove(&id)
            && outcome == Outcome::Rejected(Reason::Busy)
        {
            self.busy += 1;
            return self.again.push_back((self.now + RETRY_NS, request));
        }
        match self.awaited.get_mut(&id) {
            Some(place) => *place = Some(outcome),
            None => {
                let kind = match &outcome {
                    Outcome::Rejected(reason) => {
                        format!("rejected {}", names::first_word(&format!("{reason:?}")))
                    }
                    // A value may be large.
                    Outcome::Value(_) => "value".into(),
                    other => names::first_word(&format!("{other:?}")),
                };
                *self.answers.entry(kind).or_default() += 1;
            }
        }
    }

    fn host_at(&self, wanted: &Address) -> Option<usize> {
        (0..self.hosts.len()).find(|host| address(*host) == *wanted)
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        !self.isolated.contains(&a) && !self.isolated.contains(&b)
    }

    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(to) = self.hosts.iter().position(|host| host.replica.node == to) else { return };
        if !self.links.contains(&(from.min(to), from.max(to))) {
            return;
        }
        let bytes = codec::encode(message).to_vec();
        if bytes.len() > FRAME_BYTES_MAX {
            self.wire.too_long += 1;
            return;
        }
        self.wire.frames += 1;
        self.wire.bytes += bytes.len() as u64;
        self.in_flight += bytes.len() as u64;
        let process = self.hosts[to].process;
        self.at(LATENCY_NS, Happening::Deliver { from, to, process, bytes });
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

    fn dispatch(&mut self, event: Happening) {
        match event {
            Happening::Deliver { from, to, process, bytes } => {
                self.in_flight -= bytes.len() as u64;
                if self.hosts[to].process == process {
                    let message = Message::decode(&bytes, FRAME_BYTES_MAX).expect("our own bytes");
                    drop(bytes);
                    let from = self.hosts[from].replica.node;
                    self.step(to, Event::Received { from, message });
                }
            }
            Happening::Synced { host, process } if self.hosts[host].process == process => {
                let token = self.hosts[host].disk.finish();
                self.step(host, Event::Persisted { token });
            }
            Happening::Report { host, process, event } if self.hosts[host].process == process => {
                self.step(host, event);
            }
            Happening::Links => {
                self.make_links();
                self.at(50 * MS, Happening::Links);
            }
            Happening::Synced { .. } | Happening::Report { .. } => {}
        }
    }

    /// Lets this many virtual milliseconds pass.
    pub fn run(&mut self, for_ms: u64) -> Result<(), Stop> {
        let end = self.now + for_ms * MS;
        while self.next(end)? {}
        self.now = self.now.max(end);
        Ok(())
    }

    /// Performs the next event or tick that is due by `end`. Returns false when none is.
    fn next(&mut self, end: u64) -> Result<bool, Stop> {
        self.within_bound()?;
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
                self.now += TICK_NS;
            }
            (_, Some(at)) if at <= end => {
                self.now = at;
                if let Some((_, event)) = self.events.pop_first() {
                    self.dispatch(event);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An error once the row has used its CPU time.
    pub fn within_bound(&self) -> Result<(), Stop> {
        if ProcessTime::now().as_duration() <= self.bound {
            return Ok(());
        }
        Err(Stop(format!("the row's bound of {} s of CPU time", self.bound.as_secs())))
    }

    /// Sends a request without waiting for the answer, which is counted in [`World::take_answers`].
    pub fn request(&mut self, at: usize, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.step(at, Event::Requested { id, request });
        id
    }

    /// Sends a request and waits for the answer.
    pub fn ask(&mut self, at: usize, request: Request) -> Result<Outcome, Stop> {
        let id = RequestId(self.requests + 1);
        self.awaited.insert(id, None);
        self.request(at, request);
        let end = self.now + ANSWER_MS * MS;
        loop {
            if let Some(Some(outcome)) = self.awaited.get_mut(&id).map(Option::take) {
                self.awaited.remove(&id);
                return Ok(outcome);
            }
            if !self.next(end)? {
                self.awaited.remove(&id);
                return Err(Stop("a request is not answered".into()));
            }
        }
    }

    /// Sends all these requests with at most `window` unanswered ones, and again where the node is busy. Returns how
    /// many were answered how.
    pub fn ask_all(
        &mut self,
        at: usize,
        window: usize,
        requests: impl Iterator<Item = Request>,
    ) -> Result<BTreeMap<String, u64>, Stop> {
        self.answers.clear();
        self.under_way.clear();
        self.again.clear();
        for request in requests {
            self.await_room(at, window)?;
            self.track(at, request);
        }
        self.await_room(at, 1)?;
        self.meter.note("busy", self.busy);
        Ok(std::mem::take(&mut self.answers))
    }

    fn track(&mut self, at: usize, request: Request) {
        self.under_way.insert(RequestId(self.requests + 1), request.clone());
        self.request(at, request);
    }

    /// Waits until fewer than `window` requests are unanswered.
    fn await_room(&mut self, at: usize, window: usize) -> Result<(), Stop> {
        let end = self.now + ANSWER_MS * MS;
        while self.under_way.len() + self.again.len() >= window {
            if self.again.front().is_some_and(|(due, _)| *due <= self.now) {
                let (_, request) = self.again.pop_front().expect("it was just there");
                self.track(at, request);
            } else if !self.next(end)? {
                let waiting = self.under_way.len() + self.again.len();
                return Err(Stop(format!("{waiting} requests are not answered")));
            }
        }
        Ok(())
    }

    /// The answers since the last call, by their kinds.
    pub fn take_answers(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.answers)
    }

    /// Runs until something holds. It ends without that once `progress` has stood still for this much virtual time.
    pub fn until(
        &mut self,
        patience_ms: u64,
        is_done: impl Fn(&Self) -> bool,
        progress: impl Fn(&Self) -> u64,
    ) -> Result<(), Stop> {
        let (mut last, mut since) = (progress(self), self.now);
        let came = |world: &Self, Stop(why): Stop| Stop(format!("{why}, at {}", progress(world)));
        while !is_done(self) {
            self.run(20).map_err(|stop| came(self, stop))?;
            let now = progress(self);
            if now != last {
                (last, since) = (now, self.now);
            } else if self.now - since > patience_ms * MS {
                let why = format!("no progress in {} virtual seconds", patience_ms / 1000);
                return Err(came(self, Stop(why)));
            }
        }
        Ok(())
    }
}

const fn is_data(owner: Owner) -> bool {
    match owner {
        Owner::Node => false,
        Owner::Group(group) => group.0 != 0,
        Owner::Shard(_) => true,
    }
}
