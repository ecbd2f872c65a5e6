//! Links to peers: a listener, dials, and of each peer one connection for each class of messages.
//!
//! The driver owns [`Links`]; tasks own the connections and report to it through bounded queues. Who may be linked is
//! the core's decision, asked by an event for each process of a peer; here is which connections make a link, and that a
//! link is tried again.

mod connection;
pub mod frame;
mod handshake;
mod limits;
mod peer;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use continuum_core::discovery::{Identity, Unverified};
use continuum_core::id::{Address, Boot, NodeId};
use continuum_core::node::{Event, Message, Plane, Refusal};
use continuum_core::seed::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use connection::{Inbox, Queue, carry};
use handshake::Greeted;
use peer::{Connection, PLANES, Peer, Placed, at};

use crate::link::frame::Purpose;
use crate::log;
use crate::metrics::Metrics;

pub use connection::Incoming;
pub use handshake::{GreetError, Myself};
pub use limits::{Gate, Limits};

/// Bytes of messages that may wait to be sent on one connection of a class; past it messages are dropped. Above what
/// the machines send to one peer before it answers, so that dropping is for peers that take nothing.
const OUTGOING_CONTROL_BYTES: usize = 4 << 20;
const OUTGOING_BULK_BYTES: usize = 16 << 20;
/// Messages of one class that may wait for the driver, and their bytes.
const INCOMING: usize = 1024;
const INCOMING_BYTES: usize = 32 << 20;
/// Addresses that are verified at once; past it nobody is found there.
const VERIFYING_MAX: usize = 64;
/// Pauses before a dial that failed is tried again, doubling from the first to the last.
const BACKOFF_MIN_MS: u64 = 50;
const BACKOFF_MAX_MS: u64 = 3000;
/// The end with the larger id dials a little later, so that most pairs need one dial each way.
const YIELD_MS: u64 = 100;
/// How long closing waits for last words to be written.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// What a task tells the driver.
#[derive(Debug)]
pub struct Report(News);

#[derive(Debug)]
enum News {
    Up(Box<Up>),
    Down { peer: NodeId, id: u64, plane: Plane },
    Due { peer: NodeId, plane: Plane },
    Undialled { peer: NodeId, plane: Plane },
    Verified { address: Address, outcome: Result<Identity, Unverified> },
}

#[derive(Debug)]
struct Up {
    who: Identity,
    plane: Plane,
    connection: Connection,
}

/// What all tasks share.
struct Context {
    me: Myself,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    reports: mpsc::Sender<Report>,
    inboxes: [Inbox; 2],
    ids: AtomicU64,
    /// Closed once this process's boot is durable: a handshake names it, so that nobody is greeted before.
    booted: Semaphore,
}

/// All links of one node.
pub struct Links {
    context: Arc<Context>,
    /// What tasks report.
    pub reports: mpsc::Receiver<Report>,
    /// Messages of the control plane.
    pub control: mpsc::Receiver<Incoming>,
    /// Messages of the bulk plane.
    pub bulk: mpsc::Receiver<Incoming>,
    peers: BTreeMap<NodeId, Peer>,
    /// The life that the core is asked about right now.
    candidate: Option<(NodeId, Boot)>,
    events: VecDeque<Event>,
    verifying: usize,
    jitter: Stream,
    listener: AbortHandle,
}

/// What TLS needs at both ends.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The accepting end.
    pub server: Arc<rustls::ServerConfig>,
    /// The dialling end.
    pub client: Arc<rustls::ClientConfig>,
}

impl Links {
    /// Holds the listener. Nobody is accepted or dialled before [`Links::open`].
    #[must_use]
    pub fn start(
        me: Myself,
        listener: TcpListener,
        tls: Tls,
        limits: Limits,
        metrics: Arc<Metrics>,
        jitter: Stream,
    ) -> Self {
        let (reports_in, reports) = mpsc::channel(INCOMING);
        let (control_in, control) = mpsc::channel(INCOMING);
        let (bulk_in, bulk) = mpsc::channel(INCOMING);
        let inbox = |queue| {
            let budget = Arc::new(Semaphore::new(INCOMING_BYTES));
            Inbox { queue, budget, metrics: Arc::clone(&metrics) }
        };
        let inboxes = [inbox(control_in), inbox(bulk_in)];
        let context = Arc::new(Context {
            me,
            connector: TlsConnector::from(tls.client),
            acceptor: TlsAcceptor::from(tls.server),
            gate: Gate::new(limits),
            metrics,
            reports: reports_in,
            inboxes,
            ids: AtomicU64::new(1),
            booted: Semaphore::new(0),
        });
        let listener = tokio::spawn(listen(Arc::clone(&context), listener)).abort_handle();
        Self {
            context,
            reports,
            control,
            bulk,
            peers: BTreeMap::new(),
            candidate: None,
            events: VecDeque::new(),
            verifying: 0,
            jitter,
            listener,
        }
    }

    /// This process's boot is durable: peers may hear of it. Harmless to repeat.
    pub fn open(&self) {
        self.context.booted.close();
    }

    /// The next event for the core. After it has been consumed, and its actions performed, call [`Links::settle`].
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Connected { peer, boot, .. } = &event {
            self.candidate = Some((*peer, *boot));
        }
        Some(event)
    }

    /// The core has consumed the last event: a process that it did not refuse is linked.
    pub fn settle(&mut self) {
        if let Some((id, boot)) = self.candidate.take()
            && let Some(peer) = self.peers.get_mut(&id)
            && peer.lives.iter().any(|life| life.boot == boot)
        {
            peer.promote(boot);
            self.count();
        }
    }

    /// Whether a message is from the process that is linked.
    #[must_use]
    pub fn is_current(&self, incoming: &Incoming) -> bool {
        self.peers.get(&incoming.from).is_some_and(|peer| peer.linked == Some(incoming.boot))
    }

    /// Takes what a task reports; the events are taken with [`Links::next_event`].
    pub fn handle(&mut self, report: Report) {
        match report.0 {
            News::Up(up) => self.up(*up),
            News::Down { peer, id, plane } => self.down(peer, id, plane),
            News::Due { peer, plane } => self.due(peer, plane),
            News::Undialled { peer, plane } => self.undialled(peer, plane),
            News::Verified { address, outcome } => {
                self.verifying -= 1;
                self.events.push_back(Event::Verified { address, outcome });
            }
        }
    }

    /// A message of the linked process came. A refusal makes the next dial wait: otherwise two processes would greet
    /// and part without a pause.
    pub fn heard(&mut self, incoming: &Incoming) {
        if let Some(peer) = self.peers.get_mut(&incoming.from) {
            let is_refused = matches!(incoming.message, Message::Refused(_));
            peer.refusals = if is_refused { peer.refusals.saturating_add(1) } else { 0 };
        }
    }

    /// Sends a message, or drops it.
    pub fn send(&mut self, to: NodeId, plane: Plane, message: Message) {
        let life = self.peers.get_mut(&to).and_then(Peer::linked_life);
        let connection = life.and_then(|life| life.planes[at(plane)].as_ref());
        let sent = connection.map(|connection| connection.outgoing.send(message));
        if sent != Some(true) {
            self.context.metrics.dropped(plane_name(plane));
        }
    }

    /// Dials an address to learn who is there.
    pub fn verify(&mut self, address: Address) {
        if self.verifying >= VERIFYING_MAX {
            let outcome = Err(Unverified::Unreachable);
            self.events.push_back(Event::Verified { address, outcome });
            return;
        }
        self.verifying += 1;
        tokio::spawn(verify(Arc::clone(&self.context), address));
    }

    /// Keeps a link to a peer at an address; without an address, none.
    pub fn route(&mut self, id: NodeId, address: Option<Address>) {
        if id == self.context.me.node {
            return;
        }
        let peer = self.peers.entry(id).or_default();
        if peer.route == address {
            return;
        }
        peer.route = address;
        peer.failures = 0;
        peer.dials.iter_mut().filter_map(Option::take).for_each(|dial| dial.abort());
        if peer.route.is_none() {
            peer.lives.clear();
            let was_linked = peer.linked.take().is_some();
            self.peers.remove(&id);
            self.unlinked(id, was_linked);
        } else {
            self.dial(id);
        }
    }

    /// Closes the link to a process of a peer and tells it why.
    pub fn refuse(&mut self, id: NodeId, boot: Boot, reason: Refusal) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was_linked = peer.linked == Some(boot);
        let Some(life) = peer.end(boot) else { return };
        for connection in life.planes.into_iter().flatten() {
            connection.outgoing.part(reason);
        }
        peer.failures += 1;
        self.unlinked(id, was_linked);
        self.dial(id);
    }

    /// Closes all links, and waits for last words to be written.
    pub async fn close(&mut self) {
        self.listener.abort();
        for peer in self.peers.values_mut() {
            peer.dials.iter_mut().filter_map(Option::take).for_each(|dial| dial.abort());
        }
        self.peers.clear();
        let gate = Arc::clone(&self.context.gate);
        let ended =
            async { while gate.connections() > 0 && self.reports.recv().await.is_some() {} };
        // A peer that takes no bytes does not hold up the stop.
        let _ = tokio::time::timeout(CLOSE_MAX, ended).await;
    }

    fn up(&mut self, up: Up) {
        let Up { who, plane, connection } = up;
        let me = self.context.me.node;
        let peer = self.peers.entry(who.node).or_default();
        if connection.dialled_by == me {
            peer.dials[at(plane)] = None;
        }
        let version = connection.version;
        let placed = peer.place((me, who.node), (who.store, who.boot), plane, connection);
        if placed == Placed::Whole {
            let Identity { node, store, boot } = who;
            self.events.push_back(Event::Connected { peer: node, store, boot, version });
        }
        self.count();
    }

    fn down(&mut self, id: NodeId, connection: u64, plane: Plane) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was_linked = peer.lost(connection, plane);
        self.unlinked(id, was_linked);
        self.dial(id);
    }

    fn undialled(&mut self, id: NodeId, plane: Plane) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dials[at(plane)] = None;
        peer.failures = peer.failures.saturating_add(1);
        if plane == Plane::Control && peer.linked.is_none() {
            self.events.push_back(Event::Unreachable { peer: id });
        }
        self.dial(id);
    }

    fn unlinked(&mut self, id: NodeId, was_linked: bool) {
        if was_linked {
            self.events.push_back(Event::Unreachable { peer: id });
        }
        self.count();
    }

    /// Dials whatever plane of a peer needs it, after a pause.
    fn dial(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.is_idle() {
            self.peers.remove(&id);
            return;
        }
        let yields = u64::from(id < self.context.me.node) * YIELD_MS;
        for plane in PLANES {
            if peer.needs(plane) {
                let failures = peer.failures.max(peer.refusals);
                let pause = yields + backoff(failures, &mut self.jitter);
                let context = Arc::clone(&self.context);
                let task = async move {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    context.report(News::Due { peer: id, plane }).await;
                };
                peer.dials[at(plane)] = Some(tokio::spawn(task).abort_handle());
            }
        }
    }

    /// A pause is over: the plane is dialled unless the peer has dialled meanwhile.
    fn due(&mut self, id: NodeId, plane: Plane) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dials[at(plane)] = None;
        if let Some(address) = peer.route.clone().filter(|_| peer.needs(plane)) {
            let task = dial(Arc::clone(&self.context), id, address, plane);
            peer.dials[at(plane)] = Some(tokio::spawn(task).abort_handle());
        }
    }

    fn count(&self) {
        let linked = self.peers.values().filter(|peer| peer.linked.is_some()).count();
        self.context.metrics.links(linked, self.context.gate.connections());
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.listener.abort();
        for peer in self.peers.values() {
            peer.dials.iter().flatten().for_each(AbortHandle::abort);
        }
    }
}

/// None before the first failure; then doubling, each drawn from the upper half, so that two ends part.
fn backoff(failures: u32, jitter: &mut Stream) -> u64 {
    if failures == 0 {
        return 0;
    }
    let longest = (BACKOFF_MIN_MS << failures.min(16)).min(BACKOFF_MAX_MS);
    jitter.between(longest / 2, longest)
}

const fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Control => "control",
        Plane::Bulk => "bulk",
    }
}

/// Accepts connections for as long as the node lives.
async fn listen(context: Arc<Context>, listener: TcpListener) {
    context.boot().await;
    loop {
        match listener.accept().await {
            Ok((tcp, remote)) => match context.gate.stranger(remote.ip()) {
                Some(place) => {
                    let context = Arc::clone(&context);
                    tokio::spawn(async move {
                        let greeted = context.accept(tcp, &remote.to_string()).await;
                        drop(place);
                        if let Some(greeted) = greeted {
                            let purpose = greeted.hello.purpose;
                            let dialler = greeted.hello.node;
                            context.serve(greeted, purpose, dialler).await;
                        }
                    });
                }
                None => {
                    context.metrics.rejected("too_many_strangers");
                    log::refused(
                        &remote,
                        "too_many_strangers",
                        &"its address or all have too many",
                    );
                }
            },
            Err(error) => {
                // Out of descriptors, mostly: a pause lets some be given back.
                context.metrics.rejected("accept");
                log::refused(&"a connection", "accept", &error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Dials one plane of a peer once.
async fn dial(context: Arc<Context>, peer: NodeId, address: Address, plane: Plane) {
    let purpose = Purpose::Carry(plane);
    match context.dial(&address.0, purpose, Some(peer)).await {
        Ok(greeted) => {
            // From here on the connection lives on its own: the dial's handle must not end it.
            let me = context.me.node;
            tokio::spawn(async move { context.serve(greeted, purpose, me).await });
        }
        Err(_) => context.report(News::Undialled { peer, plane }).await,
    }
}

/// Dials an address to learn who is there.
async fn verify(context: Arc<Context>, address: Address) {
    let outcome = match context.dial(&address.0, Purpose::Verify, None).await {
        Ok(greeted) => Ok(greeted.identity()),
        Err(error) => Err(error.unverified()),
    };
    context.report(News::Verified { address, outcome }).await;
}

impl Context {
    async fn report(&self, news: News) {
        // A driver that is gone needs to be told nothing.
        let _ = self.reports.send(Report(news)).await;
    }

    /// Waits until this process's boot is durable.
    async fn boot(&self) {
        // There is no permit: what ends the wait is that the semaphore is closed.
        let _ = self.booted.acquire().await;
    }

    async fn accept(&self, tcp: TcpStream, remote: &str) -> Option<Greeted> {
        match handshake::accept(&self.acceptor, &self.gate, self.me, tcp).await {
            Ok(greeted) => Some(greeted),
            Err(error) => {
                self.failed(&error, remote);
                None
            }
        }
    }

    async fn dial(
        &self,
        address: &str,
        purpose: Purpose,
        expected: Option<NodeId>,
    ) -> Result<Greeted, GreetError> {
        self.boot().await;
        let dialled = handshake::dial(&self.connector, &self.gate, self.me, address, purpose).await;
        let judged = dialled.and_then(|greeted| match expected {
            Some(expected) if expected != greeted.hello.node => {
                Err(GreetError::Stranger(greeted.hello.node))
            }
            _ => Ok(greeted),
        });
        if let Err(error) = &judged {
            self.failed(error, address);
        }
        judged
    }

    fn failed(&self, error: &GreetError, remote: &str) {
        let label = error.label();
        match error {
            GreetError::Unreachable(_) => return log::unreachable(remote, error),
            GreetError::Tls(_) | GreetError::Timeout | GreetError::Protocol => {
                self.metrics.handshake_failed(label);
            }
            _ => self.metrics.rejected(label),
        }
        log::refused(&remote, label, error);
    }

    /// Carries messages on a connection until it ends.
    async fn serve(self: Arc<Self>, greeted: Greeted, purpose: Purpose, dialled_by: NodeId) {
        let Purpose::Carry(plane) = purpose else { return };
        let who = greeted.identity();
        let Greeted { stream, version, place, .. } = greeted;
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (outgoing, queue) = Queue::new(match plane {
            Plane::Control => OUTGOING_CONTROL_BYTES,
            Plane::Bulk => OUTGOING_BULK_BYTES,
        });
        let (go, waits) = oneshot::channel();
        let connection = Connection { id, dialled_by, version, outgoing, go: Some(go) };
        self.report(News::Up(Box::new(Up { who, plane, connection }))).await;
        let inbox = self.inboxes[at(plane)].clone();
        let ended = carry(stream, (who.node, who.boot), queue, waits, inbox).await;
        if let Err(error) = &ended
            && let Some(label) = error.label()
        {
            self.metrics.rejected(label);
            log::refused(&who.node, label, error);
        }
        drop(place);
        self.report(News::Down { peer: who.node, id, plane }).await;
    }
}
