//! One replica's side of anti-entropy for one shard: it compares roots, asks, answers, and learns from views. The
//! module `sync` says why a view covers no more than it may.
//!
//! A session ends when nothing of the peer's view differs, when an answer brings nothing new, when the peer refuses, or
//! when no answer comes. The next comparison tells whether the roots are equal, and begins another session if they are
//! not. This module sends nothing; it returns the messages to send.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::digest::Digest;
use crate::id::{Dot, Replica};
use crate::reach;
use crate::replication::log::{self, Record};
use crate::replication::shard::{Dots, Shard, Span};
use crate::seed::Stream;
use crate::time::Instant;

use super::message::{Message, PullError, View};
use super::{Reply, SPANS_MAX};

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
    /// Whether the actors' totals were compared already.
    pub(crate) compared: bool,
}

/// The state of anti-entropy of one shard.
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    pub(crate) session: Option<Session>,
    /// The replicas whose roots were equal to this one's when last compared.
    pub(crate) in_sync: BTreeSet<Replica>,
    /// The number of comparisons so far; it chooses the next peer, so that all get their turn.
    pub(crate) comparisons: usize,
}

/// Why a view says nothing beyond its writes.
pub(crate) enum ViewError {
    /// Two different writes have one dot.
    Equivocation(Dot),
    /// The view is outside its bounds.
    Malformed(&'static str),
}

impl SyncState {
    /// Compares a peer's root with the shard's. Returns the answer.
    pub(crate) fn compare(&mut self, shard: &mut Shard, from: Replica, root: Digest) -> Message {
        if shard.cached_root() == root {
            reach!("replication.roots.equal");
            self.in_sync.insert(from);
            Message::Same { shard: shard.id, root }
        } else {
            reach!("replication.roots.differ");
            self.in_sync.remove(&from);
            Message::Differ { shard: shard.id }
        }
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
        let session = Session { peer, round: 0, last_heard: now, spans, asked, compared: false };
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
        let message = Message::Pull {
            shard: shard.id,
            round: session.round,
            context: shard.dots(),
            spans: session.asked.clone(),
        };
        self.session = Some(session);
        message
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

    /// Ends a session that got no answer for `patience`.
    pub(crate) fn expire(&mut self, now: Instant, patience: Duration) {
        if self.session.as_ref().is_some_and(|session| now.since(session.last_heard) >= patience) {
            reach!("replication.session.timeout");
            self.session = None;
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
    context: &Dots,
    spans: &[Span],
    page_bytes: usize,
) -> Result<(Message, bool), Message> {
    let id = shard.id;
    if spans.len() > SPANS_MAX || !spans.iter().all(Span::is_valid) {
        return Err(Message::Refused { shard: id, round, why: PullError::Malformed });
    }
    Ok(match super::answer(shard, context, spans, page_bytes) {
        Reply::Page(writes) => (Message::Page { shard: id, round, writes }, true),
        Reply::View(view) => (Message::View { shard: id, round, view: Box::new(view) }, true),
        Reply::Refused(why) => (Message::Refused { shard: id, round, why }, false),
    })
}

/// Applies what a view says beyond its writes; the shard must hold all of these. Adds the change to `records`, and
/// returns the spans to look at next.
///
/// # Errors
///
/// [`ViewError`] when the view may not be applied.
pub(crate) fn learn(
    shard: &mut Shard,
    view: &View,
    session: &mut Session,
    records: &mut Vec<Bytes>,
) -> Result<Vec<Span>, ViewError> {
    let mut spans = session.asked.get(view.answers.len()..).unwrap_or_default().to_vec();
    let removals = super::compare(shard, view, &session.asked, &mut spans).map_err(|dot| {
        reach!("replication.sync.equivocation");
        ViewError::Equivocation(dot)
    })?;
    let join = super::changes(shard, view, removals);
    log::check_join(shard, &join).map_err(ViewError::Malformed)?;
    if !join.is_empty() {
        reach!("replication.session.learnt");
        shard.join(&join);
        records.push(log::encode(&Record::Join(join)));
    }
    if !session.compared {
        session.compared = true;
        spans.extend(super::differing(shard, view));
    }
    Ok(spans)
}
