//! Push-pull: now and then a member compares its whole table with that of one other member, page by page.
//!
//! Piggybacked updates reach nearly all members; push-pull makes it all, and reunites the halves of a healed partition.
//! The initiator pushes a page, the peer answers with what it knows better about the same range of nodes, and that
//! answer triggers the next page. A lost page ends the push-pull; the next one starts where it stopped.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::member::beats;
use super::message::{Body, Load, Message, UPDATES_MAX, Update};
use super::{Action, Gossip, State};
use crate::digest::Hasher;
use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;
use crate::machine::Outbox;
use crate::reach;
use crate::seed::{Seed, Stream};
use crate::time::Instant;

/// Periods between two push-pulls with a random member, at most; at least half of it.
const PERIODS: u32 = 30;

/// A push-pull in progress.
#[derive(Clone, Copy, Debug)]
struct PushPull {
    peer: NodeId,
    pages_left: usize,
}

/// The schedule of push-pulls, and the one in progress.
#[derive(Clone, Debug)]
pub(super) struct Syncer {
    current: Option<PushPull>,
    /// The last member of the page before the next one. It outlives a push-pull that was cut off.
    cursor: Option<NodeId>,
    next: Option<Instant>,
    last: Option<Instant>,
    random: Stream,
}

impl Syncer {
    pub(super) fn new(seed: &Seed) -> Self {
        let random = seed.derive("gossip.sync", 0);
        Self { current: None, cursor: None, next: None, last: None, random }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Schedules the first push-pull within two periods, because a node that just started knows nothing.
    pub(super) fn start(&mut self, now: Instant, period: Duration) {
        if self.next.is_none() {
            self.next = Some(now + self.jittered(period.saturating_mul(2)));
        }
    }

    pub(super) fn stop(&mut self) {
        self.next = None;
        self.current = None;
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.value(&self.current.map(|current| (current.peer, current.pages_left as u64)));
        hash.value(&(self.cursor, self.next, self.last, self.random.clone().draw()));
    }

    /// Half to all of the span, so that the push-pulls of many nodes spread out.
    fn jittered(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.between(nanos / 2, nanos))
    }
}

impl Gossip {
    /// Begins a push-pull with a random live member if one is due.
    pub(super) fn advance_sync(&mut self, now: Instant, out: &mut Outbox<Action>) {
        if self.syncer.next.is_none_or(|next| next > now) {
            return;
        }
        let wait = self.period().saturating_mul(PERIODS);
        self.syncer.next = Some(now + self.syncer.jittered(wait));
        let table = &self.table;
        let is_alive = |n: NodeId| table.get(n).is_some_and(|r| r.member.state == State::Alive);
        if let Some(peer) = self.prober.pick(1, is_alive).first().copied() {
            self.begin_push_pull(now, peer, out);
        }
    }

    /// Compares the whole table with that of `peer`, unless another push-pull began within this period.
    pub(super) fn begin_push_pull(&mut self, now: Instant, peer: NodeId, out: &mut Outbox<Action>) {
        let period = self.period();
        if self.syncer.last.is_some_and(|last| now < last + period) {
            return;
        }
        reach!("gossip.sync.begun");
        self.syncer.last = Some(now);
        // One page more when it starts in the middle: the pages then wrap around the end of the table.
        let resumed = usize::from(self.syncer.cursor.is_some());
        // An open machine does not know how many members the peer has.
        let members = if self.is_open { MEMBERS_MAX } else { self.table.len() };
        let pages_left = members.div_ceil(UPDATES_MAX) + resumed;
        self.syncer.current = Some(PushPull { peer, pages_left });
        self.push_page(out);
    }

    fn push_page(&mut self, out: &mut Outbox<Action>) {
        let Some(current) = self.syncer.current.as_mut() else { return };
        if current.pages_left == 0 {
            self.syncer.current = None;
            return;
        }
        current.pages_left -= 1;
        let (peer, after) = (current.peer, self.syncer.cursor);
        // Members never heard of are left out: the peer answers with what it knows of them.
        let mut page = self.table.after(after).filter(|record| record.is_heard());
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
        let sender = self.self_update();
        out.push(Action::Send {
            to,
            message: Message { body, sender: sender.into(), updates, loads },
        });
    }

    /// Answers a page with what this node knows better about the page's range.
    pub(super) fn on_push(
        &mut self,
        from: NodeId,
        (after, upto): (Option<NodeId>, Option<NodeId>),
        updates: &[Update],
        out: &mut Outbox<Action>,
    ) {
        let theirs: BTreeMap<NodeId, _> =
            updates.iter().map(|u| (u.replica.node, (u.incarnation, u.state))).collect();
        let is_within = |node: NodeId| upto.is_none_or(|upto| node <= upto);
        let mut better = self
            .table
            .after(after)
            .take_while(|record| is_within(record.member.replica.node))
            .filter(|record| record.is_heard() && record.member.replica.node != from)
            .filter(|record| {
                let told = theirs.get(&record.member.replica.node);
                told.is_none_or(|told| beats(record.held(), *told))
            });
        let page: Vec<_> = better.by_ref().take(UPDATES_MAX).collect();
        // If more is left, the range ends with the last record that fits, and the initiator goes on from there.
        let cut = better.next().and_then(|_| page.last()).map(|record| record.member.replica.node);
        let (updates, loads) = page.iter().map(|record| (record.update(), record.load())).unzip();
        self.send_page(from, Body::Pull { after, upto: cut.or(upto) }, updates, loads, out);
    }

    /// Takes the answer to a page and pushes the next one.
    pub(super) fn on_pull(
        &mut self,
        from: NodeId,
        (after, upto): (Option<NodeId>, Option<NodeId>),
        out: &mut Outbox<Action>,
    ) {
        let is_expected = self.syncer.current.is_some_and(|current| current.peer == from);
        if !is_expected || after != self.syncer.cursor {
            reach!("gossip.sync.stray_answer");
            return;
        }
        self.syncer.cursor = upto;
        if self.is_open && upto.is_none() {
            self.syncer.current = None;
            return;
        }
        self.push_page(out);
    }
}
