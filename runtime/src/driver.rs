//! The loop that owns the node: it feeds one event at a time to the core and performs the actions at once.
//!
//! Each round takes a bounded number of events from each source, in a fixed order, so that none starves another.
//! Performing an action never waits: a message whose queue is full is dropped and counted, a write is never dropped.
//! The driver decides no protocol question.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use continuum_core::api::{Outcome, Reason};
use continuum_core::discovery::Source;
use continuum_core::id::{Contact, RequestId, Token};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Condemned, Event, Node, Notice, Refusal};
use continuum_core::wal::Write;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, Stopwatch};
use crate::disk::{Disk, DiskEvent, DiskRequest};
use crate::error::{RunError, Stopped};
use crate::handle::{Command, Commands};
use crate::link::{Incoming, Links};
use crate::log;
use crate::metrics::{Figures, Metrics};
use crate::resolve::Resolver;

/// Events taken from one source in one round.
const PER_ROUND: usize = 128;
/// The same for bulk messages, each of up to a frame.
const BULK_PER_ROUND: usize = 16;
/// The node is woken after this when it has no deadline.
const NO_DEADLINE: Duration = Duration::from_secs(60);
/// A stop lasts at least `STOP_MIN`, so that the core's last messages can leave, and waits at most `STOP_MAX` for
/// writes and replies.
const STOP_MIN: Duration = Duration::from_millis(100);
const STOP_MAX: Duration = Duration::from_millis(1800);
/// The log is sealed within this, or the next start recovers it: a disk that hangs must not delay the end.
const SEAL_MAX: Duration = Duration::from_millis(500);
/// Results of the resolver that may wait.
const RESOLVED: usize = 16;

/// Sees every event that the core consumes and every action that it emits. For tests.
pub trait Observer: Send {
    /// Called before the core consumes the event.
    fn event(&mut self, now: Now, event: &Event);
    /// Called with all actions of that event, before they are performed.
    fn actions(&mut self, actions: &[Action]);
}

/// Everything that the loop is started with.
pub(crate) struct Driver<D, R> {
    pub(crate) node: Node,
    pub(crate) links: Links,
    pub(crate) disk: D,
    pub(crate) disk_events: mpsc::UnboundedReceiver<DiskEvent>,
    pub(crate) commands: Commands,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) resolver: R,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observer: Option<Box<dyn Observer>>,
    pub(crate) next_request: u64,
}

/// The running loop.
struct EventLoop<D, R> {
    driver: Driver<D, R>,
    out: Outbox<Action>,
    /// The asker of each request, and since when it waits.
    replies: BTreeMap<RequestId, (oneshot::Sender<Outcome>, Stopwatch)>,
    /// The last token handed to the disk.
    newest: Token,
    resolved: mpsc::Receiver<(Source, Vec<Contact>)>,
    resolvers: mpsc::Sender<(Source, Vec<Contact>)>,
    /// Set when the node must end.
    ended: Option<RunError>,
    /// Set when the stop began.
    stopping: Option<Now>,
    disk_is_closed: bool,
    disk_is_full: bool,
}

/// The event that woke the loop.
enum Wake {
    Stop,
    Disk(Option<DiskEvent>),
    Report(Option<crate::link::Report>),
    Incoming(Option<Incoming>),
    Command(Option<Command>),
    Resolved(Option<(Source, Vec<Contact>)>),
    Time,
}

impl<D: Disk, R: Resolver> Driver<D, R> {
    /// Runs the node until `stop` resolves, its storage fails or it is fenced.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> Result<Stopped, RunError> {
        let (resolvers, resolved) = mpsc::channel(RESOLVED);
        let mut event_loop = EventLoop {
            driver: self,
            out: Outbox::new(),
            replies: BTreeMap::new(),
            newest: Token::default(),
            resolved,
            resolvers,
            ended: None,
            stopping: None,
            disk_is_closed: false,
            disk_is_full: false,
        };
        tokio::pin!(stop);
        event_loop.step(Event::Tick);
        while !event_loop.is_over() {
            let wake = event_loop.wait(stop.as_mut()).await;
            event_loop.take(wake);
            event_loop.round();
        }
        event_loop.close().await
    }
}

impl<D: Disk, R: Resolver> EventLoop<D, R> {
    async fn wait(&mut self, stop: std::pin::Pin<&mut impl Future<Output = ()>>) -> Wake {
        let pause = self.pause();
        let is_stopping = self.stopping.is_some();
        let driver = &mut self.driver;
        tokio::select! {
            biased;
            () = stop, if !is_stopping => Wake::Stop,
            event = driver.disk_events.recv() => Wake::Disk(event),
            report = driver.links.reports.recv() => Wake::Report(report),
            incoming = driver.links.control.recv() => Wake::Incoming(incoming),
            incoming = driver.links.bulk.recv() => Wake::Incoming(incoming),
            command = driver.commands.recv(), if !driver.commands.is_closed() => Wake::Command(command),
            resolved = self.resolved.recv() => Wake::Resolved(resolved),
            () = tokio::time::sleep(pause) => Wake::Time,
        }
    }

    /// How long until the core must be woken. While stopping, short enough to notice the end of the stop.
    fn pause(&self) -> Duration {
        let now = self.driver.clock.now().mono;
        let until = self.driver.node.deadline().map_or(NO_DEADLINE, |due| due.since(now));
        if self.stopping.is_some() { until.min(STOP_MIN) } else { until.min(NO_DEADLINE) }
    }

    /// Takes what waits in each source, up to its bound, without waiting.
    fn round(&mut self) {
        for _ in 0..PER_ROUND {
            let Ok(event) = self.driver.disk_events.try_recv() else { break };
            self.take(Wake::Disk(Some(event)));
        }
        for _ in 0..PER_ROUND {
            let Ok(report) = self.driver.links.reports.try_recv() else { break };
            self.take(Wake::Report(Some(report)));
        }
        for _ in 0..PER_ROUND {
            let Ok(incoming) = self.driver.links.control.try_recv() else { break };
            self.take(Wake::Incoming(Some(incoming)));
        }
        for _ in 0..BULK_PER_ROUND {
            let Ok(incoming) = self.driver.links.bulk.try_recv() else { break };
            self.take(Wake::Incoming(Some(incoming)));
        }
        for _ in 0..PER_ROUND {
            let Ok(command) = self.driver.commands.try_recv() else { break };
            self.take(Wake::Command(Some(command)));
        }
    }

    fn take(&mut self, wake: Wake) {
        match wake {
            Wake::Stop => {
                self.stopping = Some(self.driver.clock.now());
                self.step(Event::Stopping);
            }
            Wake::Disk(event) => self.on_disk(event),
            Wake::Report(report) => {
                report.into_iter().for_each(|report| self.driver.links.handle(report));
            }
            Wake::Incoming(Some(incoming)) if self.driver.links.is_current(&incoming) => {
                self.driver.links.received(&incoming);
                let Incoming { from, message, .. } = incoming;
                self.step(Event::Received { from, message });
            }
            Wake::Command(Some(command)) => self.on_command(command),
            Wake::Resolved(Some((source, peers))) => self.step(Event::Resolved { source, peers }),
            // The sender is not linked any more, or the source has ended.
            Wake::Incoming(_) | Wake::Command(None) | Wake::Resolved(None) => {}
            Wake::Time => {
                log::flush();
                self.step(Event::Tick);
            }
        }
        while let Some(event) = self.driver.links.next_event() {
            self.step(event);
            self.driver.links.event_consumed();
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.driver.clock.now();
        if let Some(observer) = &mut self.driver.observer {
            observer.event(now, &event);
        }
        self.driver.metrics.stepped();
        self.driver.node.step(now, event, &mut self.out);
        let mut out = std::mem::take(&mut self.out);
        if let Some(observer) = &mut self.driver.observer {
            observer.actions(out.as_slice());
        }
        // The core speaks to a new process in the step that accepts it, and such a message must find the new link. When
        // it refuses the new process, what it says in that step is for the one before.
        if !out.as_slice().iter().any(|action| matches!(action, Action::Refuse { .. })) {
            self.driver.links.event_consumed();
        }
        out.drain().for_each(|action| self.perform(action));
        self.out = out;
    }

    fn perform(&mut self, action: Action) {
        let driver = &mut self.driver;
        match action {
            Action::Send { to, plane, message } => driver.links.send(to, plane, message),
            Action::Persist { token, write } => self.persist(token, write),
            Action::WriteFile { number, piece } => {
                driver.metrics.wrote_piece(driver.clock.now().mono, &piece);
                driver.disk.submit(DiskRequest::WriteFile(number, piece));
            }
            Action::Discard { snapshot } => driver.disk.submit(DiskRequest::Discard(snapshot)),
            Action::Release { before } => driver.disk.submit(DiskRequest::Release(before)),
            Action::Reply { id, outcome } => self.reply(id, outcome),
            Action::Resolve { source } => self.resolve(source),
            Action::Verify { address } => driver.links.verify(address),
            Action::Route { peer, address } => driver.links.route(peer, address),
            Action::Refuse { peer, boot, reason, known } => {
                driver.metrics.rejected("boot");
                driver.links.refuse(peer, boot, reason, known);
            }
            Action::Condemn(condemned) => self.condemn(&condemned),
            Action::Notify(notice) => self.notify(&notice),
        }
    }

    fn persist(&mut self, token: Token, write: Write) {
        self.newest = token;
        self.driver.metrics.issued(token, &write);
        self.driver.disk.submit(DiskRequest::Persist(token, write));
    }

    /// Peers refuse this process. The store is marked, so that no supervisor brings it back.
    fn condemn(&mut self, condemned: &Condemned) {
        let why = describe(condemned);
        self.driver.disk.submit(DiskRequest::Condemn(why.clone()));
        self.ended = Some(RunError::Condemned { why });
    }

    fn on_disk(&mut self, event: Option<DiskEvent>) {
        match event {
            Some(DiskEvent::Persisted { token, writes, took }) => {
                self.driver.metrics.synced(took, writes);
                self.driver.metrics.durable(self.driver.clock.now().mono, token);
                self.step(Event::Persisted { token });
                self.driver.metrics.unpersisted(self.driver.node.unpersisted_bytes() as u64);
                if self.driver.node.is_booted() {
                    self.driver.links.open();
                }
            }
            Some(DiskEvent::FilesWritten { number }) => self.step(Event::FilesWritten { number }),
            Some(DiskEvent::FileFailed { snapshot }) => self.step(Event::FileFailed { snapshot }),
            Some(DiskEvent::Failed { token, why }) => self.storage_failed(token, why),
            Some(DiskEvent::Full { full, room }) => self.disk_is_full(full, room),
            Some(DiskEvent::Space { used, free }) => self.driver.metrics.store(used, free),
            Some(DiskEvent::Stopped) => self.disk_is_closed = true,
            // The disk's thread died without a report.
            None => self.storage_failed(self.newest, "its thread ended".to_owned()),
        }
    }

    fn disk_is_full(&mut self, full: bool, room: u64) {
        let is_news = std::mem::replace(&mut self.disk_is_full, full) != full;
        if is_news && full {
            let hint = "only deletions are taken; hint: free some space";
            log::warn("the disk is full", &format_args!("{room} bytes are left; {hint}"));
        } else if is_news {
            log::warn("the disk has room again", &"writes are taken again");
        }
        self.step(Event::StorageFull { full, room });
    }

    fn storage_failed(&mut self, token: Token, why: String) {
        if self.ended.is_none() && !self.disk_is_closed {
            self.ended = Some(RunError::StorageFailed { why });
            self.step(Event::StorageFailed { token });
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Request { request, reply } => {
                let id = RequestId(self.driver.next_request);
                self.driver.next_request += 1;
                self.replies.insert(id, (reply, Stopwatch::start()));
                self.step(Event::Requested { id, request });
            }
            Command::Status { reply } => {
                // A client that has gone away needs no answer.
                let _ = reply.send(self.driver.node.status());
            }
            Command::Namespaces { reply } => {
                let _ = reply.send(self.driver.node.local_namespaces());
            }
            Command::Figures { reply } => {
                let _ = reply.send(Figures::of(&self.driver.node));
            }
        }
    }

    fn reply(&mut self, id: RequestId, outcome: Outcome) {
        if let Some((reply, since)) = self.replies.remove(&id) {
            self.driver.metrics.answered(&outcome, since.elapsed());
            let _ = reply.send(outcome);
        }
    }

    fn resolve(&mut self, source: Source) {
        let names = match source {
            Source::Bootstrap => self.driver.bootstrap.clone(),
            Source::Peers => Vec::new(),
        };
        let (resolver, answers) = (self.driver.resolver.clone(), self.resolvers.clone());
        tokio::spawn(async move {
            let peers = resolver.resolve(names).await;
            let _ = answers.send((source, peers)).await;
        });
    }

    fn notify(&mut self, notice: &Notice) {
        self.driver.metrics.noticed(notice);
        if let Notice::Fenced { why } = notice
            && self.ended.is_none()
        {
            self.ended = Some(RunError::Fenced { why });
        }
        log::notice(notice);
    }

    /// Whether the loop may end: the node failed, or it is stopping, everything is answered and durable, and others
    /// lead what it led.
    fn is_over(&self) -> bool {
        if self.ended.is_some() {
            return true;
        }
        let Some(since) = self.stopping else { return false };
        let waited = self.driver.clock.now().mono.since(since.mono);
        let node = &self.driver.node;
        let is_quiet =
            self.replies.is_empty() && node.unpersisted_bytes() == 0 && !node.leads_others();
        waited >= STOP_MAX || (waited >= STOP_MIN && is_quiet)
    }

    /// Answers the requests that arrived too late for the core to see them: they did nothing.
    fn turn_away(&mut self) {
        self.driver.commands.close();
        while let Ok(command) = self.driver.commands.try_recv() {
            if let Command::Request { reply, .. } = command {
                let _ = reply.send(Outcome::Rejected(Reason::Stopping));
            }
        }
    }

    /// Closes the links first, so that no peer relies on this node any more; then seals the log and closes the store.
    async fn close(mut self) -> Result<Stopped, RunError> {
        self.turn_away();
        self.driver.links.close().await;
        self.driver.disk.submit(DiskRequest::Stop);
        if !is_closed(&mut self.driver.disk_events, self.ended.as_ref()).await {
            log::warn("the log could not be sealed in time", &"the next start recovers it");
        }
        match self.ended {
            Some(error) => Err(error),
            None => Ok(Stopped { boot: self.driver.node.boot() }),
        }
    }
}

/// Waits for the end of the disk, as long as this end of the node needs it. Whether what it needs is done.
async fn is_closed(
    events: &mut mpsc::UnboundedReceiver<DiskEvent>,
    ended: Option<&RunError>,
) -> bool {
    let patience = match ended {
        None => SEAL_MAX,
        // A marker that is not durable lets a supervisor start the store again.
        Some(RunError::Condemned { .. }) => STOP_MAX,
        Some(_) => return true,
    };
    let stopped = async {
        while let Some(event) = events.recv().await {
            if event == DiskEvent::Stopped {
                break;
            }
        }
    };
    tokio::time::timeout(patience, stopped).await.is_ok()
}

/// Why no process may start from the store again, in the words of its marker and of the error.
fn describe(condemned: &Condemned) -> String {
    let Condemned { boot, reason, known, by } = condemned;
    let by: Vec<String> = by.iter().map(ToString::to_string).collect();
    let what = match reason {
        Refusal::StaleBoot => "a later start of it exists",
        Refusal::Cloned | Refusal::Linked => "another process runs on a copy of it",
        Refusal::Forked => "it is older than what they saw of it",
    };
    let (refused, count) = (format!("{} (nonce {:016x})", boot.count, boot.nonce), known.count);
    format!(
        "the voters {} refuse start {refused} of this data directory: {what}; they know start {count} (nonce {:016x})",
        by.join(", "),
        known.nonce,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use continuum_core::config::Config;
    use continuum_core::id::{Address, Boot, Lineage, Replica, StoreId};
    use continuum_core::node::{Message, Start};
    use continuum_core::seed::Seed;

    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::{MemDisk, StoreOwner};
    use crate::link::Limits;
    use crate::link::tests::{ANN, BEN, BOOT, End, PATIENCE, authority, closed, node};
    use crate::resolve::SystemResolver;
    use crate::tls::Credentials;

    /// Runs Ann's node in no federation, and returns where it listens.
    async fn run_ann(credentials: &Credentials) -> Address {
        let End { links, metrics, address } =
            closed(credentials, (BOOT, Lineage::default()), Limits::default()).await;
        let start = Start {
            config: Config::default(),
            federation: credentials.federation(),
            replica: Replica { node: ANN, store: StoreId(ANN.0) },
            boot: BOOT,
            seed: Seed::from_number(1),
            name: "ann".to_owned(),
            address: Address(address.to_string()),
        };
        let owner = StoreOwner { federation: credentials.federation(), node: ANN };
        let mut disk = MemDisk::new();
        let opened = disk.open(owner, StoreId(ANN.0)).expect("a fresh store");
        let driver = Driver {
            node: Node::restore(start, Vec::new(), BTreeMap::new()).expect("a fresh store"),
            links,
            disk,
            disk_events: opened.events,
            commands: crate::handle::channel().1,
            clock: Arc::new(SystemClock),
            resolver: SystemResolver,
            bootstrap: Vec::new(),
            metrics,
            observer: None,
            next_request: 1,
        };
        tokio::spawn(driver.run(std::future::pending()));
        Address(address.to_string())
    }

    /// A process of Ben that dials Ann.
    async fn ben(credentials: &Credentials, boot: (Boot, Lineage), ann: &Address) -> End {
        let mut ben = closed(credentials, boot, Limits::default()).await;
        ben.links.open();
        ben.links.route(ANN, Some(ann.clone()));
        ben.connected().await;
        ben
    }

    /// Waits until a process receives such a message.
    async fn receives(ben: &mut End, is_it: impl Fn(&Message) -> bool) {
        let received = async {
            loop {
                let incoming = ben.links.control.recv().await.expect("the links are open");
                if is_it(&incoming.message) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, received).await.expect("the message arrives");
    }

    /// A disk that says that it is closed after this much virtual time. Whether the driver still waits then, and what
    /// it learns.
    async fn closed_after(span: Duration, ended: Option<RunError>) -> (bool, bool) {
        let (disk, mut events) = mpsc::unbounded_channel();
        let waiting = tokio::spawn(async move { is_closed(&mut events, ended.as_ref()).await });
        // The wait begins before time passes, and sees all of it.
        tokio::task::yield_now().await;
        tokio::time::advance(span).await;
        tokio::task::yield_now().await;
        let waits = !waiting.is_finished();
        // A driver that went away needs no report.
        let _ = disk.send(DiskEvent::Stopped);
        (waits, waiting.await.expect("no panic"))
    }

    #[tokio::test(start_paused = true)]
    async fn the_marker_of_a_condemned_store_has_longer_than_the_seal_of_a_log() {
        let condemned = || Some(RunError::Condemned { why: "copied".into() });
        let moment = Duration::from_millis(1);
        assert_eq!(closed_after(STOP_MAX - moment, condemned()).await, (true, true));
        assert_eq!(closed_after(STOP_MAX + moment, condemned()).await, (false, false));
        assert_eq!(closed_after(SEAL_MAX - moment, None).await, (true, true));
        assert_eq!(closed_after(SEAL_MAX + moment, None).await, (false, false));
        let failed = Some(RunError::StorageFailed { why: "fsync".into() });
        assert_eq!(closed_after(Duration::ZERO, failed).await, (false, true));
    }

    #[tokio::test]
    async fn a_step_that_accepts_a_process_speaks_to_it_and_one_that_refuses_it_to_the_earlier_one()
    {
        let authority = authority();
        let ann = run_ann(&node(&authority, ANN)).await;
        let credentials = node(&authority, BEN);
        let mut first = ben(&credentials, (BOOT, Lineage::default()), &ann).await;
        // This is said once, in the step that accepts the process.
        receives(&mut first, |message| matches!(message, Message::Genesis { .. })).await;
        let later = Boot { count: 2, nonce: 10 };
        let mut second = ben(&credentials, (later, Lineage::default().after(BOOT)), &ann).await;
        receives(&mut first, |message| matches!(message, Message::Confirm(_))).await;
        receives(&mut second, |message| matches!(message, Message::Refused { .. })).await;
    }
}
