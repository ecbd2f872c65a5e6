//! A replica's side of anti-entropy for one shard: comparing roots, asking, answering, and taking views in. The module
//! `sync` says why a view covers no more than it may.
//!
//! A session ends when nothing of the peer's view differs, when an answer brings nothing, when the peer refuses, or
//! when nothing is heard. The next comparison says whether roots are equal, and begins another session if not.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::digest::Digest;
use crate::id::{Dot, Replica};
use crate::reach;
use crate::seed::Stream;
use crate::time::Instant;

use super::message::{Fault, Message, View};
use super::{ASKS_MAX, Reply};
use crate::replication::log::{self, Record};
use crate::replication::shard::{Dots, Shard, Span};

/// The asker's side of a session.
#[derive(Debug)]
pub(crate) struct Session {
    /// The replica that it asks.
    pub(crate) peer: Replica,
    /// The open question.
    pub(crate) round: u64,
    /// When the last answer came, or the session began.
    pub(crate) heard: Instant,
    /// What to look at next.
    pub(crate) spans: Vec<Span>,
    /// What the open question looks at.
    pub(crate) asked: Vec<Span>,
    /// Whether the totals of the actors were compared.
    pub(crate) compared: bool,
}

/// What a shard knows of its peers.
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    pub(crate) session: Option<Session>,
    /// The replicas whose roots were equal to this one's when last compared.
    pub(crate) in_sync: BTreeSet<Replica>,
    /// Counts comparisons, so that connected replicas are compared with in turn.
    pub(crate) turn: usize,
}

/// Why nothing is learnt from a view.
pub(crate) enum ViewError {
    /// A write of the shard waits for its stamp: the view may cover what superseded it.
    Waits,
    /// A dot has two different writes.
    Equivocation(Dot),
    /// The view is outside its bounds.
    Malformed(&'static str),
}

impl SyncState {
    /// Compares a peer's root with this replica's. Returns the answer.
    pub(crate) fn compare(&mut self, shard: &mut Shard, from: Replica, root: Digest) -> Message {
        if shard.keep_root() == root {
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
        let session = Session { peer, round: 0, heard: now, spans, asked, compared: false };
        Some(self.ask(shard, session, rounds))
    }

    /// Asks the next question of a session.
    pub(crate) fn ask(
        &mut self,
        shard: &Shard,
        mut session: Session,
        rounds: &mut Stream,
    ) -> Message {
        // A fresh draw: an answer to an earlier question, even of an earlier boot, fits no later one.
        session.round = rounds.draw();
        let more = session.spans.split_off(session.spans.len().min(ASKS_MAX));
        session.asked = core::mem::replace(&mut session.spans, more);
        let message = Message::Pull {
            shard: shard.id,
            round: session.round,
            context: shard.held(),
            asks: session.asked.clone(),
        };
        self.session = Some(session);
        message
    }

    /// Takes the session out if `round` of `from` is its open question.
    pub(crate) fn answered(&mut self, from: Replica, round: u64) -> Option<Session> {
        let open = self.session.as_ref();
        if open.is_some_and(|session| session.peer == from && session.round == round) {
            self.session.take()
        } else {
            reach!("replication.session.stale_answer");
            None
        }
    }

    /// Ends a session that heard nothing for `patience`.
    pub(crate) fn expire(&mut self, now: Instant, patience: Duration) {
        if self.session.as_ref().is_some_and(|session| now.since(session.heard) >= patience) {
            reach!("replication.session.timeout");
            self.session = None;
        }
    }
}

/// Answers a question. The message, and whether it is a promise; `Err` with the refusal when the question is malformed.
pub(crate) fn answer(
    shard: &Shard,
    round: u64,
    context: &Dots,
    asks: &[Span],
    page_bytes: usize,
) -> Result<(Message, bool), Message> {
    let id = shard.id;
    if asks.len() > ASKS_MAX || !asks.iter().all(Span::is_valid) {
        return Err(Message::Refused { shard: id, round, why: Fault::Malformed });
    }
    Ok(match super::answer(shard, context, asks, page_bytes) {
        Reply::Page(writes) => (Message::Page { shard: id, round, writes }, true),
        Reply::Whole(view) => (Message::Whole { shard: id, round, view: Box::new(view) }, true),
        Reply::Refused(why) => (Message::Refused { shard: id, round, why }, false),
    })
}

/// Learns what a view says beyond its writes, which must all be held. Adds to `records` what it changed, and returns
/// the spans to look at next.
pub(crate) fn learn(
    shard: &mut Shard,
    view: &View,
    session: &mut Session,
    records: &mut Vec<Bytes>,
) -> Result<Vec<Span>, ViewError> {
    if shard.waiting.keys().any(|(_, dot)| view.context.contains(dot)) {
        reach!("replication.session.waits_for_stamp");
        return Err(ViewError::Waits);
    }
    let mut spans = session.asked.get(view.answers.len()..).unwrap_or_default().to_vec();
    let deaths = super::compare(shard, view, &session.asked, &mut spans).map_err(|dot| {
        reach!("replication.sync.equivocation");
        ViewError::Equivocation(dot)
    })?;
    let join = super::teach(shard, view, deaths);
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
