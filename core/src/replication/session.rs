//! The moves of anti-entropy: comparing roots, asking, answering, and taking answers in; see `sync` for why they are
//! lawful.
//!
//! A session ends when nothing of the peer's view differs, when an answer brings nothing, when the peer refuses, or
//! when nothing is heard. The next comparison says whether roots are equal, and begins another session if not.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::digest::Digest;
use crate::id::{Replica, ShardId};
use crate::machine::{Now, Outbox};
use crate::reach;

use super::context::Dots;
use super::exchange::{self, reject};
use super::fingerprint::Span;
use super::message::{Fault, Message, View};
use super::restore::{self, Record};
use super::sync::{self, ASKS_MAX, Reply, Session};
use super::{Action, Replicator};

impl Replicator {
    pub(super) fn on_compare(
        &mut self,
        now: Now,
        from: Replica,
        id: ShardId,
        root: Digest,
        out: &mut Outbox<Action>,
    ) {
        let Some(resident) = self.residents.get_mut(&id) else { return };
        let same = resident.shard.keep_root() == root;
        let message = if same {
            reach!("replication.roots.equal");
            resident.in_sync.insert(from);
            Message::Same { shard: id, root }
        } else {
            reach!("replication.roots.differ");
            Message::Differ { shard: id }
        };
        out.push(Action::Send { to: from, message, promise: false });
        if !same {
            self.out_of_sync(id, from);
            self.pull(now, from, id, out);
        }
    }

    pub(super) fn out_of_sync(&mut self, id: ShardId, from: Replica) {
        if let Some(resident) = self.residents.get_mut(&id) {
            resident.in_sync.remove(&from);
        }
    }

    /// Begins a session, unless one is under way.
    pub(super) fn pull(&mut self, now: Now, peer: Replica, id: ShardId, out: &mut Outbox<Action>) {
        if self.residents.get(&id).is_some_and(|resident| resident.session.is_none()) {
            reach!("replication.session.begun");
            let (spans, asked) = (Vec::new(), Vec::new());
            let session =
                Session { peer, round: 0, heard: now.mono, spans, asked, compared: false };
            self.ask(id, session, out);
        }
    }

    /// Asks the next question of a session.
    fn ask(&mut self, id: ShardId, mut session: Session, out: &mut Outbox<Action>) {
        let Some(resident) = self.residents.get_mut(&id) else { return };
        // A fresh draw: an answer to an earlier question, even of an earlier life, fits no later one.
        session.round = self.stream.draw();
        let more = session.spans.split_off(session.spans.len().min(ASKS_MAX));
        session.asked = core::mem::replace(&mut session.spans, more);
        let message = Message::Pull {
            shard: id,
            round: session.round,
            context: exchange::held(&resident.shard),
            asks: session.asked.clone(),
        };
        out.push(Action::Send { to: session.peer, message, promise: true });
        resident.session = Some(session);
    }

    pub(super) fn on_pull(
        &mut self,
        from: Replica,
        (shard, round): (ShardId, u64),
        context: &Dots,
        asks: &[Span],
        out: &mut Outbox<Action>,
    ) {
        let Some(resident) = self.residents.get(&shard) else { return };
        if asks.len() > ASKS_MAX || !asks.iter().all(Span::is_valid) {
            let message = Message::Refused { shard, round, why: Fault::Malformed };
            out.push(Action::Send { to: from, message, promise: false });
            return reject(from, "a question about impossible spans", out);
        }
        let reply = sync::answer(&resident.shard, context, asks, self.config.delta_bytes_max);
        let (message, promise) = match reply {
            Reply::Page(writes) => (Message::Page { shard, round, writes }, true),
            Reply::Whole(view) => (Message::Whole { shard, round, view: Box::new(view) }, true),
            Reply::Refused(why) => (Message::Refused { shard, round, why }, false),
        };
        out.push(Action::Send { to: from, message, promise });
    }

    /// Takes the session out if this answers its open question.
    fn answered(&mut self, id: ShardId, from: Replica, round: u64) -> Option<Session> {
        let resident = self.residents.get_mut(&id)?;
        let open = resident.session.as_ref();
        if open.is_some_and(|session| session.peer == from && session.round == round) {
            resident.session.take()
        } else {
            reach!("replication.session.stale_answer");
            None
        }
    }

    pub(super) fn end_session(&mut self, id: ShardId, from: Replica, round: u64) {
        drop(self.answered(id, from, round));
    }

    pub(super) fn on_page(
        &mut self,
        now: Now,
        from: Replica,
        (id, round): (ShardId, u64),
        writes: &[Bytes],
        out: &mut Outbox<Action>,
    ) {
        let Some(mut session) = self.answered(id, from, round) else { return };
        let admitted = self.admit(now, from, id, writes.iter(), out);
        self.record(id, admitted.records, out);
        if admitted.fresh == 0 {
            // Asking again would bring the same again.
            reach!("replication.session.stalled");
            return;
        }
        session.heard = now.mono;
        // The page said nothing about the spans.
        let asked = core::mem::take(&mut session.asked);
        session.spans.splice(0..0, asked);
        self.ask(id, session, out);
    }

    pub(super) fn on_view(
        &mut self,
        now: Now,
        from: Replica,
        (id, round): (ShardId, u64),
        view: &View,
        out: &mut Outbox<Action>,
    ) {
        let Some(mut session) = self.answered(id, from, round) else { return };
        let doomed = view.doomed.iter().map(|(dot, _)| (dot.actor, dot.seq));
        if !sync::is_valid(view, &session.asked) || self.forged(id, doomed).is_some() {
            return reject(from, "a malformed view", out);
        }
        let births = view.births.iter().map(|(sealed, _)| sealed);
        let admitted = self.admit(now, from, id, births, out);
        let mut records = admitted.records;
        let spans = if admitted.refused == 0 {
            self.learn(from, id, view, &mut session, &mut records, out)
        } else {
            None
        };
        self.record(id, records, out);
        let Some(spans) = spans else { return };
        session.heard = now.mono;
        session.spans.extend(spans);
        if session.spans.is_empty() {
            reach!("replication.session.done");
        } else {
            self.ask(id, session, out);
        }
    }

    /// Learns what a view says beyond its writes, which are held. `None` when nothing may be learnt; else what to look
    /// at next.
    fn learn(
        &mut self,
        from: Replica,
        id: ShardId,
        view: &View,
        session: &mut Session,
        records: &mut Vec<Bytes>,
        out: &mut Outbox<Action>,
    ) -> Option<Vec<Span>> {
        let shard = &mut self.residents.get_mut(&id)?.shard;
        if shard.waiting.keys().any(|(_, dot)| view.context.contains(dot)) {
            reach!("replication.session.waits_for_stamp");
            return None;
        }
        let mut spans = session.asked.get(view.answers.len()..).unwrap_or_default().to_vec();
        let deaths = match sync::compare(shard, view, &session.asked, &mut spans) {
            Ok(deaths) => deaths,
            Err(dot) => {
                reach!("replication.sync.equivocation");
                out.push(Action::Equivocation { dot });
                return None;
            }
        };
        let join = sync::teach(shard, view, deaths);
        if let Err(why) = restore::check_join(shard, &join) {
            reject(from, why, out);
            return None;
        }
        if !join.is_empty() {
            reach!("replication.session.learnt");
            shard.join(&join);
            records.push(restore::encode(&Record::Join(join)));
        }
        if !session.compared {
            session.compared = true;
            spans.extend(sync::differing(shard, view));
        }
        Some(spans)
    }
}
