//! The loop that owns the node: one event at a time in, its actions performed at once.
//!
//! Sources are asked in a fixed order, and in each turn a bounded number is taken from each, so that none starves
//! another. Performing an action never waits: a message that finds its queue full is dropped and counted, a write is
//! never dropped. No protocol is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use continuum_core::api::Outcome;
use continuum_core::discovery::Source;
use continuum_core::id::{Contact, RequestId, Token};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Event, Node, Notice};
use continuum_core::wal::Write;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::disk::{Disk, Done, Job};
use crate::error::{RunError, Stopped};
use crate::handle::{Ask, Asks};
use crate::link::{Incoming, Links};
use crate::log;
use crate::metrics::Metrics;
use crate::resolve::Resolver;

/// What is taken from one source in one turn.
const TURN: usize = 128;
/// The same for messages of up to a frame each.
const TURN_BULK: usize = 16;
/// Without any deadline the node is asked again after this.
const NO_DEADLINE: Duration = Duration::from_secs(60);
/// A stop waits at least so long, that what the core hands over can leave, and at most so long for writes and answers.
const STOP_MIN: Duration = Duration::from_millis(100);
const STOP_MAX: Duration = Duration::from_secs(2);
/// Answers of the resolver that may wait.
const RESOLVED: usize = 16;

/// Sees every event that the core consumes and every action that it asks for. For tests.
pub trait Observer: Send {
    /// An event, before it is consumed.
    fn event(&mut self, now: Now, event: &Event);
    /// What the core asks for in return.
    fn actions(&mut self, actions: &[Action]);
}

/// Everything that the loop owns.
pub(crate) struct Driver<D, R> {
    pub(crate) node: Node,
    pub(crate) links: Links,
    pub(crate) disk: D,
    pub(crate) done: mpsc::UnboundedReceiver<Done>,
    pub(crate) asks: Asks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) resolver: R,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observer: Option<Box<dyn Observer>>,
    pub(crate) next_request: u64,
}

/// What the loop keeps between two events.
struct Turn<D, R> {
    driver: Driver<D, R>,
    out: Outbox<Action>,
    replies: BTreeMap<RequestId, oneshot::Sender<Outcome>>,
    unpersisted: VecDeque<(Token, u64)>,
    unpersisted_bytes: u64,
    resolved: mpsc::Receiver<(Source, Vec<Contact>)>,
    resolvers: mpsc::Sender<(Source, Vec<Contact>)>,
    /// Why the node must end, once it must.
    ended: Option<RunError>,
    /// Since when it is stopping.
    stopping: Option<Now>,
    disk_is_closed: bool,
}

/// What the loop was woken by.
enum Wake {
    Stop,
    Done(Option<Done>),
    Report(Option<crate::link::Report>),
    Incoming(Option<Incoming>),
    Ask(Option<Ask>),
    Resolved(Option<(Source, Vec<Contact>)>),
    Time,
}

impl<D: Disk, R: Resolver> Driver<D, R> {
    /// Runs the node until `stop` resolves, its storage fails or it is fenced.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> Result<Stopped, RunError> {
        let (resolvers, resolved) = mpsc::channel(RESOLVED);
        let mut turn = Turn {
            driver: self,
            out: Outbox::new(),
            replies: BTreeMap::new(),
            unpersisted: VecDeque::new(),
            unpersisted_bytes: 0,
            resolved,
            resolvers,
            ended: None,
            stopping: None,
            disk_is_closed: false,
        };
        tokio::pin!(stop);
        turn.step(Event::Tick);
        while !turn.is_over() {
            let wake = turn.wait(stop.as_mut()).await;
            turn.take(wake);
            turn.round();
        }
        turn.close().await
    }
}

impl<D: Disk, R: Resolver> Turn<D, R> {
    async fn wait(&mut self, stop: std::pin::Pin<&mut impl Future<Output = ()>>) -> Wake {
        let pause = self.pause();
        let is_stopping = self.stopping.is_some();
        let driver = &mut self.driver;
        tokio::select! {
            biased;
            () = stop, if !is_stopping => Wake::Stop,
            done = driver.done.recv() => Wake::Done(done),
            report = driver.links.reports.recv() => Wake::Report(report),
            incoming = driver.links.control.recv() => Wake::Incoming(incoming),
            incoming = driver.links.bulk.recv() => Wake::Incoming(incoming),
            ask = driver.asks.recv(), if !driver.asks.is_closed() => Wake::Ask(ask),
            resolved = self.resolved.recv() => Wake::Resolved(resolved),
            () = tokio::time::sleep(pause) => Wake::Time,
        }
    }

    /// How long until the core wants to be woken; while stopping, no longer than until that is looked at again.
    fn pause(&self) -> Duration {
        let now = self.driver.clock.now().mono;
        let until = self.driver.node.deadline().map_or(NO_DEADLINE, |due| due.since(now));
        if self.stopping.is_some() { until.min(STOP_MIN) } else { until.min(NO_DEADLINE) }
    }

    /// A bounded number from each source, none of which is waited for.
    fn round(&mut self) {
        for _ in 0..TURN {
            let Ok(done) = self.driver.done.try_recv() else { break };
            self.take(Wake::Done(Some(done)));
        }
        for _ in 0..TURN {
            let Ok(report) = self.driver.links.reports.try_recv() else { break };
            self.take(Wake::Report(Some(report)));
        }
        for _ in 0..TURN {
            let Ok(incoming) = self.driver.links.control.try_recv() else { break };
            self.take(Wake::Incoming(Some(incoming)));
        }
        for _ in 0..TURN_BULK {
            let Ok(incoming) = self.driver.links.bulk.try_recv() else { break };
            self.take(Wake::Incoming(Some(incoming)));
        }
        for _ in 0..TURN {
            let Ok(ask) = self.driver.asks.try_recv() else { break };
            self.take(Wake::Ask(Some(ask)));
        }
    }

    fn take(&mut self, wake: Wake) {
        match wake {
            Wake::Stop => {
                self.stopping = Some(self.driver.clock.now());
                self.step(Event::Stopping);
            }
            Wake::Done(done) => self.done(done),
            Wake::Report(report) => {
                report.into_iter().for_each(|report| self.driver.links.handle(report));
            }
            Wake::Incoming(Some(incoming)) if self.driver.links.is_current(&incoming) => {
                self.driver.links.heard(&incoming);
                let Incoming { from, message, .. } = incoming;
                self.step(Event::Received { from, message });
            }
            Wake::Ask(Some(ask)) => self.ask(ask),
            Wake::Resolved(Some((source, peers))) => self.step(Event::Resolved { source, peers }),
            // A message of a process that is not linked any more, or a queue whose other end is gone.
            Wake::Incoming(_) | Wake::Ask(None) | Wake::Resolved(None) => {}
            Wake::Time => self.step(Event::Tick),
        }
        while let Some(event) = self.driver.links.next_event() {
            self.step(event);
            self.driver.links.settle();
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
        out.drain().for_each(|action| self.perform(action));
        self.out = out;
    }

    fn perform(&mut self, action: Action) {
        let driver = &mut self.driver;
        match action {
            Action::Send { to, plane, message } => driver.links.send(to, plane, message),
            Action::Persist { token, write } => self.persist(token, write),
            Action::Discard { snapshot } => driver.disk.submit(Job::Discard(snapshot)),
            Action::Release { before } => driver.disk.submit(Job::Release(before)),
            Action::Reply { id, outcome } => self.reply(id, outcome),
            Action::Resolve { source } => self.resolve(source),
            Action::Verify { address } => driver.links.verify(address),
            Action::Route { peer, address } => driver.links.route(peer, address),
            Action::Refuse { peer, boot, reason } => {
                driver.metrics.rejected("boot");
                driver.links.refuse(peer, boot, reason);
            }
            Action::Notify(notice) => self.notify(&notice),
        }
    }

    fn persist(&mut self, token: Token, write: Write) {
        let bytes = write.payload_bytes() as u64;
        self.unpersisted.push_back((token, bytes));
        self.unpersisted_bytes += bytes;
        self.driver.disk.submit(Job::Persist(token, write));
    }

    fn done(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Persisted { token, writes, took }) => {
                while let Some((_, bytes)) = self.unpersisted.pop_front_if(|(t, _)| *t <= token) {
                    self.unpersisted_bytes -= bytes;
                }
                self.driver.metrics.synced(took, writes);
                self.driver.metrics.unpersisted(self.unpersisted_bytes);
                self.step(Event::Persisted { token });
                if self.driver.node.is_booted() {
                    self.driver.links.open();
                }
            }
            Some(Done::Failed { token, why }) => self.storage_failed(token, why),
            Some(Done::Full(full)) => {
                let what = if full { "the disk is full" } else { "the disk has room again" };
                log::warn_of(what, &"writes are refused while it is full; hint: free some space");
                self.step(Event::StorageFull { full });
            }
            Some(Done::Space { used, free }) => self.driver.metrics.store(used, free),
            Some(Done::Stopped) => self.disk_is_closed = true,
            // The disk's end is gone without a word: its thread died.
            None => {
                let token =
                    self.unpersisted.front().map_or_else(Token::default, |(token, _)| *token);
                self.storage_failed(token, "its thread ended".to_owned());
            }
        }
    }

    fn storage_failed(&mut self, token: Token, why: String) {
        if self.ended.is_none() && !self.disk_is_closed {
            self.ended = Some(RunError::StorageFailed { why });
            self.step(Event::StorageFailed { token });
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Request { request, reply } => {
                let id = RequestId(self.driver.next_request);
                self.driver.next_request += 1;
                self.replies.insert(id, reply);
                self.step(Event::Requested { id, request });
            }
            Ask::Status { reply } => {
                // An asker that has gone away needs no answer.
                let _ = reply.send(self.driver.node.status());
            }
        }
    }

    fn reply(&mut self, id: RequestId, outcome: Outcome) {
        self.driver.metrics.answered(&outcome);
        if let Some(reply) = self.replies.remove(&id) {
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
        match notice {
            Notice::Rejected { .. } => self.driver.metrics.rejected("message"),
            Notice::WrongStore { .. } => self.driver.metrics.rejected("wrong_store"),
            Notice::Equivocation { .. } => self.driver.metrics.rejected("equivocation"),
            Notice::Fenced { why } if self.ended.is_none() => {
                self.ended = Some(RunError::Fenced { why });
            }
            _ => {}
        }
        log::notice(notice);
    }

    /// Whether the loop has nothing more to do: it failed, or it is stopping and all is answered and durable.
    fn is_over(&self) -> bool {
        if self.ended.is_some() {
            return true;
        }
        let Some(since) = self.stopping else { return false };
        let waited = self.driver.clock.now().mono.since(since.mono);
        let is_quiet = self.replies.is_empty() && self.unpersisted.is_empty();
        waited >= STOP_MAX || (waited >= STOP_MIN && is_quiet)
    }

    /// Links first, so that nobody counts on this node any more; then the log is sealed and the store let go.
    async fn close(mut self) -> Result<Stopped, RunError> {
        self.driver.links.close().await;
        self.driver.disk.submit(Job::Stop);
        let sealed = async {
            while let Some(done) = self.driver.done.recv().await {
                if done == Done::Stopped {
                    break;
                }
            }
        };
        if self.ended.is_none() && tokio::time::timeout(STOP_MAX, sealed).await.is_err() {
            log::warn_of("the log could not be sealed in time", &"the next start recovers it");
        }
        match self.ended {
            Some(error) => Err(error),
            None => Ok(Stopped { boot: self.driver.node.boot() }),
        }
    }
}
