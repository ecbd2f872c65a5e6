//! One replica's side of anti-entropy for one shard: it compares roots, asks, answers, and learns from views. The
//! module `sync` says why a view covers no more than it may.
//!
//! The dots of the first view are covered here when the session is done: then all removals of that instant are applied.
//!
//! A session ends when nothing of the peer's view differs, when an answer brings nothing new, when the peer refuses, or
//! when no answer comes. A write that was refused here is not asked for again while the link is up. The next comparison
//! tells whether the roots are equal, and begins another session if they are not. This module sends nothing; it returns
//! the messages to send.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::digest::Digest;
use crate::id::{Actor, Dot, NodeId, Replica};
use crate::replication::log::{self, Record};
use crate::replication::shard::{Dots, Join, LiveEdits, Shard, Span};
use crate::seed::Stream;
use crate::time::Instant;
use crate::{mutant, reach};

use super::lag::Lags;
use super::message::{Message, PullError, View};
use super::{Reply, SPANS_MAX};

/// The most dots that are left out of a question because the peer has other content, and the most writes of one peer
/// that are refused and not asked for again.
const OUTRANKED_MAX: usize = 32;
const REFUSED_MAX: usize = 256;

/// The asker's side of a session.
#[derive(Debug)]
pub(crate) struct Session {
    /// The replica that the session asks.
    pub(crate) peer: Replica,
    /// The number of the open question.
    pub(crate) round: u64,
    /// When the last answer came, or the session began.
    pub(crate) last_heard: Instant,
    /// The spans of later questions.
    pub(crate) spans: Vec<Span>,
    /// The spans of the open question.
    pub(crate) asked: Vec<Span>,
    /// The dots of the first view, to be covered here once all removals of that instant are applied.
    pub(crate) covers: Option<Covers>,
    /// Writes of which the peer has one with a greater hash: to be asked for.
    pub(crate) outranked: Vec<Dot>,
}

/// The dots that were new in a view and whose writes are dead there, and a stamp that is at least those of the writes.
#[derive(Debug, Default)]
pub(crate) struct Covers {
    context: Dots,
    stamp: u64,
}

impl Session {
    /// Whether nothing is left to ask.
    pub(crate) fn is_done(&self) -> bool {
        self.spans.is_empty() && self.outranked.is_empty()
    }
}

/// The state of anti-entropy of one shard.
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    pub(crate) session: Option<Session>,
    /// The replicas whose roots were equal to this one's when last compared.
    pub(crate) in_sync: BTreeSet<Replica>,
    /// The replicas that may lack writes of this process.
    pub(crate) lags: Lags,
    /// By peer: writes that it sent and that were refused here, and how many.
    refused: BTreeMap<NodeId, (Dots, usize)>,
}

impl SyncState {
    /// Compares a peer's root with the shard's. Returns the answer.
    pub(crate) fn compare(&mut self, shard: &mut Shard, from: Replica, root: Digest) -> Message {
        if shard.cached_root() == root {
            reach!("replication.roots.equal");
            self.equals(from);
            Message::Same { shard: shard.id, root }
        } else {
            reach!("replication.roots.differ");
            self.in_sync.remove(&from);
            Message::Differ { shard: shard.id }
        }
    }

    /// A replica's root is equal to this one's.
    pub(crate) fn equals(&mut self, from: Replica) {
        self.in_sync.insert(from);
        self.lags.end(&from);
    }

    /// Begins a session. Returns its first question; `None` when a session is under way.
    pub(crate) fn begin(
        &mut self,
        shard: &Shard,
        now: Instant,
        peer: Replica,
        rounds: &mut Stream,
    ) -> Option<Message> {
        if self.session.is_some() {
            return None;
        }
        reach!("replication.session.begun");
        let (spans, asked) = (Vec::new(), Vec::new());
        let (covers, outranked) = (None, Vec::new());
        let session = Session { peer, round: 0, last_heard: now, spans, asked, covers, outranked };
        Some(self.ask(shard, session, rounds))
    }

    /// Returns the next question of a session.
    pub(crate) fn ask(
        &mut self,
        shard: &Shard,
        mut session: Session,
        rounds: &mut Stream,
    ) -> Message {
        // A random number: an answer to an earlier question, even of an earlier boot, matches no later one.
        session.round = rounds.draw();
        let more = session.spans.split_off(session.spans.len().min(SPANS_MAX));
        session.asked = core::mem::replace(&mut session.spans, more);
        let mut context = shard.dots();
        let mut outranked = Dots::default();
        for dot in session.outranked.drain(..).take(OUTRANKED_MAX) {
            outranked.insert(&dot);
        }
        context.subtract(&outranked);
        let message = Message::Pull {
            shard: shard.id,
            round: session.round,
            context,
            refused: self.refused(session.peer.node),
            spans: session.asked.clone(),
        };
        self.session = Some(session);
        message
    }

    /// Writes that a peer sent and that were refused here.
    fn refused(&self, peer: NodeId) -> Dots {
        self.refused.get(&peer).map(|(dots, _)| dots.clone()).unwrap_or_default()
    }

    /// Notes a refused write of a peer, so that no session asks for it again. False when it was noted already, or when
    /// there is no room.
    pub(crate) fn refuse(&mut self, peer: NodeId, dot: &Dot) -> bool {
        let (dots, count) = self.refused.entry(peer).or_default();
        let is_noted = *count < REFUSED_MAX && dots.insert(dot);
        *count += usize::from(is_noted);
        is_noted && !mutant!("replication.session.refused_again")
    }

    /// Whether writes of some peer were refused here.
    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// A new link: what the peer has may be sound now.
    pub(crate) fn forget_refused(&mut self, peer: NodeId) {
        self.refused.remove(&peer);
    }

    /// Takes the session out, if `from` answers its open question.
    pub(crate) fn take_session(&mut self, from: Replica, round: u64) -> Option<Session> {
        let open = self.session.as_ref();
        if open.is_some_and(|session| session.peer == from && session.round == round) {
            self.session.take()
        } else {
            reach!("replication.session.stale_answer");
            None
        }
    }
}

/// Answers a question: the message, and whether it is a promise.
///
/// # Errors
///
/// The refusal, when the question is malformed.
pub(crate) fn answer(
    shard: &Shard,
    round: u64,
    (context, refused): (&Dots, &Dots),
    spans: &[Span],
    page_bytes: usize,
) -> Result<(Message, bool), Message> {
    let id = shard.id;
    let is_sound = refused.is_empty() || refused.is_valid();
    if !is_sound || spans.len() > SPANS_MAX || !spans.iter().all(Span::is_valid) {
        return Err(Message::Refused { shard: id, round, why: PullError::Malformed });
    }
    let mut without = context.clone();
    without.union(refused);
    Ok(match super::answer(shard, &without, spans, page_bytes) {
        Reply::Page(writes) => (Message::Page { shard: id, round, writes }, true),
        Reply::View(view) => (Message::View { shard: id, round, view: Box::new(view) }, true),
        Reply::Refused(why) => (Message::Refused { shard: id, round, why }, false),
    })
}

/// Applies what a view says beyond its writes; the shard must hold all of these but the refused ones. Adds the changes
/// to `records`, and the spans to look at next to the session. Dots of `me` that this process did not author are
/// covered at once, so that it authors above them. Returns the peer's own writes that the end of the session covers.
///
/// # Errors
///
/// The fault of the view.
pub(crate) fn learn(
    shard: &mut Shard,
    sync: &SyncState,
    me: &Actor,
    view: &View,
    session: &mut Session,
    records: &mut Vec<Bytes>,
) -> Result<Dots, &'static str> {
    session.spans.extend_from_slice(session.asked.get(view.answers.len()..).unwrap_or_default());
    let found = super::compare(shard, view, &session.asked);
    session.spans.extend(found.next);
    session.outranked.extend(found.outranked);
    let mut join = super::changes(shard, view, found.removals, &sync.refused(session.peer.node));
    log::check_join(shard, &join)?;
    let own = join.context.ranges(me).map(|ranges| (*me, ranges.clone()));
    let own = Dots::new(own.into_iter().collect());
    let mut context = core::mem::replace(&mut join.context, own);
    context.subtract(&join.context);
    apply(shard, join, records);
    if session.covers.is_none() {
        session.spans.extend(super::differing(shard, view));
        session.covers = Some(Covers { context, stamp: view.stamp });
    }
    if session.is_done() || mutant!("replication.session.covers_unapplied") {
        let refused = sync.refused(session.peer.node);
        let covers = session.covers.replace(Covers::default()).unwrap_or_default();
        let join = covers.join(shard, &refused);
        log::check_join(shard, &join)?;
        let of_peer = join.context.iter().filter(|(actor, _)| actor.replica == session.peer);
        let of_peer = Dots::new(of_peer.cloned().collect());
        apply(shard, join, records);
        return Ok(of_peer);
    }
    Ok(Dots::default())
}

/// Applies a change, unless it changes nothing.
fn apply(shard: &mut Shard, join: Join, records: &mut Vec<Bytes>) {
    if !join.is_empty() {
        reach!("replication.session.learnt");
        shard.join(&join);
        records.push(log::encode(&Record::Join(join)));
    }
}

impl Covers {
    /// The change that covers the dots. Writes among them that arrived meanwhile die here too, as they did at the peer.
    fn join(mut self, shard: &Shard, refused: &Dots) -> Join {
        if !mutant!("replication.session.covers_refused") {
            self.context.subtract(refused);
        }
        let removals =
            shard.live_in(&self.context).map(|dot| (dot, LiveEdits::default())).collect();
        self.context.subtract(&shard.dots());
        Join { context: self.context, removals, stamp: self.stamp, ..Join::default() }
    }
}
