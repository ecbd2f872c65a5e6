//! Anti-entropy: now and then the whole table is compared with one member's, page by page.
//!
//! Piggybacked news reaches nearly everybody; this makes it everybody, and is how two halves of a healed partition
//! become one again. The pusher sends a page, the receiver answers with what it knows better about the same stretch of
//! nodes, and the answer asks for the next page. A lost page ends the session; the next one goes on where it stopped.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::member::beats;
use super::message::{Body, Load, Message, UPDATES_MAX, Update};
use super::{Action, Gossip, State};
use crate::digest::Hasher;
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::reach;
use crate::seed::{Seed, Stream};
use crate::time::Instant;

/// Periods between two sessions with a random member.
const PERIODS: u32 = 30;

/// A session under way.
#[derive(Clone, Copy, Debug)]
struct Session {
    peer: NodeId,
    pages_left: usize,
}

/// When to compare next, and how far the comparison under way is.
#[derive(Clone, Debug)]
pub(super) struct Syncer {
    session: Option<Session>,
    /// Where the next page starts; it survives a session that was cut off.
    cursor: Option<NodeId>,
    next: Option<Instant>,
    last: Option<Instant>,
    random: Stream,
}

impl Syncer {
    pub(super) fn new(seed: &Seed) -> Self {
        let random = seed.derive("gossip.sync", 0);
        Self { session: None, cursor: None, next: None, last: None, random }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Schedules the first session soon: a node that starts knows nothing.
    pub(super) fn start(&mut self, now: Instant, period: Duration) {
        if self.next.is_none() {
            self.next = Some(now + self.jittered(period.saturating_mul(2)));
        }
    }

    pub(super) fn stop(&mut self) {
        self.next = None;
        self.session = None;
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&self.session.map(|session| (session.peer, session.pages_left as u64)));
        hash.value(&(self.cursor, self.next, self.last, self.random.clone().draw()));
    }

    /// Half to all of the span, so that the sessions of many nodes queue out.
    fn jittered(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.between(nanos / 2, nanos))
    }
}

impl Gossip {
    /// Begins a session if one is due.
    pub(super) fn advance_sync(&mut self, now: Instant, out: &mut Outbox<Action>) {
        if self.syncer.next.is_none_or(|next| next > now) {
            return;
        }
        let wait = self.period().saturating_mul(PERIODS);
        self.syncer.next = Some(now + self.syncer.jittered(wait));
        let table = &self.table;
        let is_well = |n: NodeId| table.get(n).is_some_and(|r| r.member.state == State::Alive);
        if let Some(peer) = self.prober.pick(1, is_well).first().copied() {
            self.begin_sync(now, peer, out);
        }
    }

    /// Compares the whole table with `peer`, unless that was done with anybody within this period.
    pub(super) fn begin_sync(&mut self, now: Instant, peer: NodeId, out: &mut Outbox<Action>) {
        let period = self.period();
        if self.syncer.last.is_some_and(|last| now < last + period) {
            return;
        }
        reach!("gossip.sync.begun");
        self.syncer.last = Some(now);
        // A session that starts in the middle passes its first page twice at most.
        let resumed = usize::from(self.syncer.cursor.is_some());
        let pages_left = self.table.len().div_ceil(UPDATES_MAX) + resumed;
        self.syncer.session = Some(Session { peer, pages_left });
        self.push_page(out);
    }

    fn push_page(&mut self, out: &mut Outbox<Action>) {
        let Some(session) = self.syncer.session.as_mut() else { return };
        if session.pages_left == 0 {
            self.syncer.session = None;
            return;
        }
        session.pages_left -= 1;
        let (peer, after) = (session.peer, self.syncer.cursor);
        // Of those never heard of there is nothing to say; the peer answers with what it knows of them.
        let mut page = self.table.behind(after).filter(|record| record.is_heard());
        let records: Vec<_> = page.by_ref().take(UPDATES_MAX).collect();
        let upto = if page.next().is_some() {
            reach!("gossip.sync.paged");
            records.last().map(|record| record.member.replica.node)
        } else {
            None
        };
        let updates: Vec<Update> = records.iter().map(|record| record.update()).collect();
        let loads: Vec<Load> = records.iter().map(|record| record.load()).collect();
        self.send_page(peer, Body::Push { after, upto }, updates, loads, out);
    }

    fn send_page(
        &self,
        to: NodeId,
        body: Body,
        updates: Vec<Update>,
        mut loads: Vec<Load>,
        out: &mut Outbox<Action>,
    ) {
        loads.truncate(UPDATES_MAX - 1);
        loads.push(self.own_load());
        out.push(Action::Send {
            to,
            message: Message { body, sender: self.self_update(), updates, loads },
        });
    }

    /// Answers a page with what this node knows better of its stretch.
    pub(super) fn on_push(
        &mut self,
        from: NodeId,
        stretch: (Option<NodeId>, Option<NodeId>),
        updates: &[Update],
        out: &mut Outbox<Action>,
    ) {
        let (after, upto) = stretch;
        let theirs: BTreeMap<NodeId, _> =
            updates.iter().map(|c| (c.replica.node, (c.incarnation, c.state))).collect();
        let within = |node: NodeId| upto.is_none_or(|upto| node <= upto);
        let mut better = self
            .table
            .behind(after)
            .take_while(|record| within(record.member.replica.node))
            .filter(|record| record.is_heard() && record.member.replica.node != from)
            .filter(|record| {
                let held = theirs.get(&record.member.replica.node);
                held.is_none_or(|held| beats(record.held(), *held))
            });
        let page: Vec<_> = better.by_ref().take(UPDATES_MAX).collect();
        // What did not fit is behind the last one sent: the pusher goes on from there.
        let cut = better.next().and_then(|_| page.last()).map(|record| record.member.replica.node);
        let (updates, loads) = page.iter().map(|record| (record.update(), record.load())).unzip();
        self.send_page(from, Body::Pull { after, upto: cut.or(upto) }, updates, loads, out);
    }

    /// An answer to a page: goes on with the next one.
    pub(super) fn on_pull(
        &mut self,
        from: NodeId,
        stretch: (Option<NodeId>, Option<NodeId>),
        out: &mut Outbox<Action>,
    ) {
        let (after, upto) = stretch;
        let expected = self.syncer.session.is_some_and(|session| session.peer == from);
        if !expected || after != self.syncer.cursor {
            reach!("gossip.sync.stray_answer");
            return;
        }
        self.syncer.cursor = upto;
        self.push_page(out);
    }
}
