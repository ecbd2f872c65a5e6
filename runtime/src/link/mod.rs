//! Links to peers: a listener, dials, and one connection to each peer for each class of messages.
//!
//! The driver owns [`Links`]. Tasks own the connections and report to it through bounded queues. This module decides
//! which connections form a link, and redials. It does not decide who may be linked: it asks the core, with one event
//! for each process of a peer.

mod connection;
pub mod frame;
mod handshake;
mod limits;
mod peer;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use continuum_core::discovery::{Identity, Unverified};
use continuum_core::id::{Address, Boot, Lineage, NodeId};
use continuum_core::node::{Event, Message, Plane, Refusal};
use continuum_core::seed::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use connection::{Inbox, SendQueue};
use handshake::Established;
use peer::{Connection, PLANES, Peer, Placement, plane_index};

use crate::link::frame::Purpose;
use crate::log;
use crate::metrics::Metrics;

pub use connection::Incoming;
pub use handshake::{HandshakeError, LocalIdentity};
pub use limits::{Limiter, Limits};

/// Bytes of messages that may wait to be sent on one connection of each class; past it, messages are dropped. The
/// machines send one peer less than this before it answers, so only a peer that reads nothing loses messages.
const OUTGOING_CONTROL_BYTES: usize = 4 << 20;
const OUTGOING_BULK_BYTES: usize = 16 << 20;
/// Messages of one class that may wait for the driver, and their bytes.
const INCOMING: usize = 1024;
const INCOMING_BYTES: usize = 32 << 20;
/// Addresses verified at once; past it, an address is reported as unreachable.
const VERIFYING_MAX: usize = 64;
/// Bounds of the pause before a failed dial is repeated. The pause doubles from the first to the last.
const BACKOFF_MIN_MS: u64 = 50;
const BACKOFF_MAX_MS: u64 = 3000;
/// The node with the larger id dials this much later, so that most pairs of nodes need one dial each way.
const YIELD_MS: u64 = 100;
/// How long closing waits for the last frames to be written.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// A task's report to the driver.
#[derive(Debug)]
pub struct Report(ReportKind);

#[derive(Debug)]
enum ReportKind {
    Up(Box<Up>),
    Down { peer: NodeId, id: u64, plane: Plane },
    DialDue { peer: NodeId, plane: Plane },
    DialFailed { peer: NodeId, plane: Plane },
    Verified { address: Address, outcome: Result<Identity, Unverified> },
}

#[derive(Debug)]
struct Up {
    who: Identity,
    lineage: Lineage,
    plane: Plane,
    connection: Connection,
}

/// The state that all tasks share.
struct Context {
    me: LocalIdentity,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    limiter: Arc<Limiter>,
    metrics: Arc<Metrics>,
    reports: mpsc::Sender<Report>,
    inboxes: [Inbox; 2],
    ids: AtomicU64,
    /// Closed once this process's boot is durable. No handshake runs before: a handshake names the boot.
    booted: Semaphore,
}

/// All links of one node.
pub struct Links {
    context: Arc<Context>,
    /// Reports of the tasks.
    pub reports: mpsc::Receiver<Report>,
    /// Received messages of the control plane.
    pub control: mpsc::Receiver<Incoming>,
    /// Received messages of the bulk plane.
    pub bulk: mpsc::Receiver<Incoming>,
    peers: BTreeMap<NodeId, Peer>,
    /// The process that the core is deciding about now.
    candidate: Option<(NodeId, Boot)>,
    events: VecDeque<Event>,
    verifying: usize,
    jitter: Stream,
    listener: AbortHandle,
}

/// The TLS configurations of both ends.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For connections that peers dial.
    pub server: Arc<rustls::ServerConfig>,
    /// For connections that this node dials.
    pub client: Arc<rustls::ClientConfig>,
}

impl Links {
    /// Takes over the listener. No connection is accepted or dialled before [`Links::open`].
    #[must_use]
    pub fn start(
        me: LocalIdentity,
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
            limiter: Limiter::new(limits),
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

    /// This process's boot is durable, so handshakes may begin. Harmless to repeat.
    pub fn open(&self) {
        self.context.booted.close();
    }

    /// The next event for the core. Once the core has consumed it, call [`Links::event_consumed`]: before its actions
    /// are performed if none of them refuses a process, and afterwards otherwise.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Connected { peer, boot, .. } = &event {
            self.candidate = Some((*peer, *boot));
        }
        Some(event)
    }

    /// The core has consumed the last event. A process that the core did not refuse is now linked.
    pub fn event_consumed(&mut self) {
        if let Some((id, boot)) = self.candidate.take()
            && let Some(peer) = self.peers.get_mut(&id)
            && peer.processes.iter().any(|process| process.boot == boot)
        {
            peer.promote(boot);
            self.count();
        }
    }

    /// Whether the linked process sent this message.
    #[must_use]
    pub fn is_current(&self, incoming: &Incoming) -> bool {
        self.peers.get(&incoming.from).is_some_and(|peer| peer.linked == Some(incoming.boot))
    }

    /// Handles a task's report. Events that follow from it are taken with [`Links::next_event`].
    pub fn handle(&mut self, report: Report) {
        match report.0 {
            ReportKind::Up(up) => self.up(*up),
            ReportKind::Down { peer, id, plane } => self.down(peer, id, plane),
            ReportKind::DialDue { peer, plane } => self.dial_due(peer, plane),
            ReportKind::DialFailed { peer, plane } => self.dial_failed(peer, plane),
            ReportKind::Verified { address, outcome } => {
                self.verifying -= 1;
                self.events.push_back(Event::Verified { address, outcome });
            }
        }
    }

    /// The linked process sent a message. A refusal delays the next dial: otherwise two processes would connect and
    /// refuse each other without a pause.
    pub fn received(&mut self, incoming: &Incoming) {
        if let Some(peer) = self.peers.get_mut(&incoming.from) {
            let is_refused = matches!(incoming.message, Message::Refused { .. });
            peer.refusals = if is_refused { peer.refusals.saturating_add(1) } else { 0 };
        }
    }

    /// Sends a message, or drops it when there is no link or no room in its queue.
    pub fn send(&mut self, to: NodeId, plane: Plane, message: Message) {
        let process = self.peers.get_mut(&to).and_then(Peer::linked_process);
        let connection = process.and_then(|process| process.planes[plane_index(plane)].as_ref());
        let sent = connection.map(|connection| connection.outgoing.send(message));
        if sent != Some(true) {
            self.context.metrics.dropped(plane_name(plane));
        }
    }

    /// Dials an address to learn which node answers there.
    pub fn verify(&mut self, address: Address) {
        if self.verifying >= VERIFYING_MAX {
            let outcome = Err(Unverified::Unreachable);
            self.events.push_back(Event::Verified { address, outcome });
            return;
        }
        self.verifying += 1;
        tokio::spawn(verify(Arc::clone(&self.context), address));
    }

    /// Keeps a link to a peer at an address; `None` ends the link.
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
            peer.processes.clear();
            let was_linked = peer.linked.take().is_some();
            self.peers.remove(&id);
            self.unlinked(id, was_linked);
        } else {
            self.dial(id);
        }
    }

    /// Closes the link to a process of a peer, and sends it the reason.
    pub fn refuse(&mut self, id: NodeId, boot: Boot, reason: Refusal, known: Boot) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was_linked = peer.linked == Some(boot);
        let Some(process) = peer.end(boot) else { return };
        for connection in process.planes.into_iter().flatten() {
            connection.outgoing.close_with(reason, known);
        }
        peer.failures += 1;
        self.unlinked(id, was_linked);
        self.dial(id);
    }

    /// Closes all links, and waits until their last frames are written.
    pub async fn close(&mut self) {
        self.listener.abort();
        for peer in self.peers.values_mut() {
            peer.dials.iter_mut().filter_map(Option::take).for_each(|dial| dial.abort());
        }
        self.peers.clear();
        let limiter = Arc::clone(&self.context.limiter);
        let ended =
            async { while limiter.connections() > 0 && self.reports.recv().await.is_some() {} };
        // A peer that reads nothing must not delay the stop.
        let _ = tokio::time::timeout(CLOSE_MAX, ended).await;
    }

    fn up(&mut self, up: Up) {
        let Up { who, lineage, plane, connection } = up;
        let me = self.context.me.node;
        let peer = self.peers.entry(who.node).or_default();
        if connection.dialled_by == me {
            peer.dials[plane_index(plane)] = None;
        }
        let version = connection.version;
        let placement = peer.add((me, who.node), (who.store, who.boot), plane, connection);
        if placement == Placement::Complete {
            let Identity { node, store, boot } = who;
            self.events.push_back(Event::Connected { peer: node, store, boot, lineage, version });
        }
        self.count();
    }

    fn down(&mut self, id: NodeId, connection: u64, plane: Plane) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was_linked = peer.lost(connection, plane);
        self.unlinked(id, was_linked);
        self.dial(id);
    }

    fn dial_failed(&mut self, id: NodeId, plane: Plane) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dials[plane_index(plane)] = None;
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

    /// Dials each plane of a peer that has no connection, after a pause.
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
                    context.report(ReportKind::DialDue { peer: id, plane }).await;
                };
                peer.dials[plane_index(plane)] = Some(tokio::spawn(task).abort_handle());
            }
        }
    }

    /// The pause is over: dials the plane, unless the peer has dialled meanwhile.
    fn dial_due(&mut self, id: NodeId, plane: Plane) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dials[plane_index(plane)] = None;
        if let Some(address) = peer.route.clone().filter(|_| peer.needs(plane)) {
            let task = dial(Arc::clone(&self.context), id, address, plane);
            peer.dials[plane_index(plane)] = Some(tokio::spawn(task).abort_handle());
        }
    }

    fn count(&self) {
        let linked = self.peers.values().filter(|peer| peer.linked.is_some()).count();
        self.context.metrics.links(linked, self.context.limiter.connections());
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

/// No pause before the first failure. Then it doubles; each is drawn from its upper half, so that two ends differ.
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

/// Accepts connections until the node stops.
async fn listen(context: Arc<Context>, listener: TcpListener) {
    context.boot_is_durable().await;
    loop {
        match listener.accept().await {
            Ok((tcp, remote)) => match context.limiter.pending(remote.ip()) {
                Some(slot) => {
                    let context = Arc::clone(&context);
                    tokio::spawn(async move {
                        let from = remote.to_string();
                        let established = tokio::select! {
                            biased;
                            () = slot.gives_way() => {
                                context.too_many_pending(&remote);
                                None
                            }
                            established = context.accept(tcp, &from) => established,
                        };
                        drop(slot);
                        if let Some(established) = established {
                            let purpose = established.hello.purpose;
                            let dialler = established.hello.node;
                            context.serve(established, purpose, dialler).await;
                        }
                    });
                }
                None => context.too_many_pending(&remote),
            },
            Err(error) => {
                // Mostly no file descriptor is free. The pause lets others be closed.
                context.metrics.rejected("accept");
                log::refused(&"a connection", "accept", &error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Dials one plane of a peer once.
async fn dial(context: Arc<Context>, peer: NodeId, address: Address, plane: Plane) {
    let purpose = Purpose::Messages(plane);
    match context.dial(&address.0, purpose, Some(peer)).await {
        Ok(established) => {
            // The connection now has a task of its own, so that aborting the dial does not end it.
            let me = context.me.node;
            tokio::spawn(async move { context.serve(established, purpose, me).await });
        }
        Err(_) => context.report(ReportKind::DialFailed { peer, plane }).await,
    }
}

/// Dials an address to learn which node answers there.
async fn verify(context: Arc<Context>, address: Address) {
    let outcome = match context.dial(&address.0, Purpose::Verify, None).await {
        Ok(established) => Ok(established.identity()),
        Err(error) => Err(error.unverified()),
    };
    context.metrics.verified(&outcome);
    context.report(ReportKind::Verified { address, outcome }).await;
}

impl Context {
    async fn report(&self, kind: ReportKind) {
        // A driver that has ended needs no report.
        let _ = self.reports.send(Report(kind)).await;
    }

    /// Waits until this process's boot is durable.
    async fn boot_is_durable(&self) {
        // The semaphore has no permits: closing it ends the wait.
        let _ = self.booted.acquire().await;
    }

    fn too_many_pending(&self, remote: &SocketAddr) {
        self.metrics.rejected("too_many_pending");
        let why = "too many handshakes are under way, from its address or in all";
        log::refused(remote, "too_many_pending", &why);
    }

    async fn accept(&self, tcp: TcpStream, remote: &str) -> Option<Established> {
        match handshake::accept(&self.acceptor, &self.limiter, &self.me, tcp).await {
            Ok(established) => Some(established),
            Err(error) => {
                self.report_failure(&error, remote);
                None
            }
        }
    }

    async fn dial(
        &self,
        address: &str,
        purpose: Purpose,
        expected: Option<NodeId>,
    ) -> Result<Established, HandshakeError> {
        self.boot_is_durable().await;
        let dialled =
            handshake::dial(&self.connector, &self.limiter, &self.me, address, purpose).await;
        let checked = dialled.and_then(|established| match expected {
            Some(expected) if expected != established.hello.node => {
                Err(HandshakeError::WrongNode(established.hello.node))
            }
            _ => Ok(established),
        });
        if let Err(error) = &checked {
            self.report_failure(error, address);
        }
        checked
    }

    fn report_failure(&self, error: &HandshakeError, remote: &str) {
        let label = error.label();
        match error {
            HandshakeError::Unreachable(_) => return log::unreachable(remote, error),
            HandshakeError::Tls(_) | HandshakeError::Timeout | HandshakeError::Protocol => {
                self.metrics.handshake_failed(label);
            }
            _ => self.metrics.rejected(label),
        }
        log::refused(&remote, label, error);
    }

    /// Runs a connection until it ends.
    async fn serve(
        self: Arc<Self>,
        established: Established,
        purpose: Purpose,
        dialled_by: NodeId,
    ) {
        let Purpose::Messages(plane) = purpose else { return };
        let who = established.identity();
        let Established { stream, hello, version, slot } = established;
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (outgoing, queue) = SendQueue::new(match plane {
            Plane::Control => OUTGOING_CONTROL_BYTES,
            Plane::Bulk => OUTGOING_BULK_BYTES,
        });
        let (start_reading, may_read) = oneshot::channel();
        let connection =
            Connection { id, dialled_by, version, outgoing, start_reading: Some(start_reading) };
        let lineage = hello.lineage;
        self.report(ReportKind::Up(Box::new(Up { who, lineage, plane, connection }))).await;
        let inbox = self.inboxes[plane_index(plane)].clone();
        let ended = connection::run(stream, (who.node, who.boot), queue, may_read, inbox).await;
        if let Err(error) = &ended
            && let Some(label) = error.label()
        {
            self.metrics.rejected(label);
            log::refused(&who.node, label, error);
        }
        drop(slot);
        self.report(ReportKind::Down { peer: who.node, id, plane }).await;
    }
}
