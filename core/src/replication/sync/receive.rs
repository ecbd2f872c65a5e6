//! Receives writes from peers.
//!
//! Every write is checked before it is merged: its bounds, its hash and its shard. Its stamp is no reason to wait or to
//! refuse. Neither is its author: a write that names writes of this very process that this process did not author is
//! merged here as it is everywhere, so that no lie makes replicas differ. It raises an alarm, and this process numbers
//! its next write above it. This module issues no record and sends nothing; its caller does.

use bytes::Bytes;

use crate::id::{Actor, Dot};
use crate::replication::log;
use crate::replication::shard::{LiveWrite, Merged, Shard, slot_of};
use crate::replication::write::hlc::{Clock, Wall};
use crate::replication::write::leads::Leads;
use crate::replication::write::{self, WriteBody};
use crate::{mutant, reach};

/// A write that was received, or was here already.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) dot: Dot,
    /// Whether this very write is held once the record is durable. False when another one with its dot won.
    pub(crate) is_held: bool,
    /// Its record, when it is new.
    pub(crate) record: Option<Bytes>,
    /// A dot that two different writes have, or that this process would have authored and did not.
    pub(crate) alarm: Option<Dot>,
    /// The write of this very process that it replaced.
    pub(crate) lost: Option<LiveWrite>,
}

/// Why a write was refused.
pub(crate) struct Refused {
    pub(crate) why: &'static str,
    /// Its dot, if its hash vouches for that.
    pub(crate) dot: Option<Dot>,
}

/// The state that receiving needs beside the shard, borrowed for one step.
pub(crate) struct Receiver<'a> {
    /// The author of this process's writes.
    pub(crate) me: Actor,
    pub(crate) wall: Wall,
    pub(crate) clock: &'a mut Clock,
    pub(crate) leads: &'a mut Leads,
    /// Counts the writes that made siblings.
    pub(crate) conflicts: &'a mut u64,
}

impl Received {
    const fn known(dot: Dot) -> Self {
        Self { dot, is_held: true, record: None, alarm: None, lost: None }
    }
}

impl Receiver<'_> {
    /// Receives one write.
    ///
    /// # Errors
    ///
    /// The reason why the write is refused.
    pub(crate) fn receive_write(
        &mut self,
        shard: &mut Shard,
        sealed: &Bytes,
    ) -> Result<Received, Refused> {
        let body = write::open(sealed).map_err(|why| {
            let intact = write::is_intact_at_all(sealed);
            Refused { why, dot: write::peek(sealed).filter(|_| intact).map(|body| body.dot) }
        })?;
        let dot = body.dot;
        let refused = |why| Err(Refused { why, dot: Some(dot) });
        if body.shard() != shard.id {
            return refused("a write belongs to another shard");
        }
        let slot = slot_of(shard.slots, body.key.0);
        if slot != shard.id.slot && !mutant!("replication.write.of_any_slot") {
            // Only lists would show it: nobody could read it by its key, or delete it.
            reach!("replication.write.other_slot");
            return refused("a write's key belongs to another shard");
        }
        let forged = forged_dot(shard, self.me, named_dots(&body));
        let leads = self.wall.lead_ms(body.stamp) > 0 && !is_forced(shard, &body);
        match log::merge(shard, sealed, &body) {
            Ok((record, old)) => {
                reach!("replication.write.merged");
                *self.conflicts += u64::from(shard.has_siblings(&body));
                if !mutant!("replication.hlc.deaf") {
                    self.clock.observe(body.stamp, self.wall);
                }
                if leads && dot.actor.replica.node != self.me.replica.node {
                    self.leads.received(dot.actor.replica.node, body.stamp);
                }
                if forged.is_some() {
                    reach!("replication.forged.write");
                }
                let alarm = forged.or_else(|| old.as_ref().map(|_| dot));
                let lost = old.filter(|_| dot.actor == self.me);
                Ok(Received { dot, is_held: true, record: Some(record), alarm, lost })
            }
            Err(Merged::Lost) => {
                reach!("replication.write.equivocation");
                Ok(Received { is_held: false, alarm: Some(dot), ..Received::known(dot) })
            }
            Err(Merged::Full) => refused("there are more authors than a shard may have"),
            Err(_) => {
                reach!("replication.write.again");
                Ok(Received::known(dot))
            }
        }
    }
}

/// Whether a stamp is one above what its write follows here: then it is not its author's clock's.
fn is_forced(shard: &Shard, body: &WriteBody<'_>) -> bool {
    let edits = body.edits.iter().flat_map(|edit| &edit.superseded);
    let stamps = edits.filter_map(|element| {
        let number = shard.number(&body.actor(element.actor))?;
        shard.live.get(&(number, element.seq)).map(|live| live.stamp)
    });
    let covers = body.edits.iter().any(|edit| !edit.covered.is_empty());
    let seen = if shard.discard || covers { shard.stamp } else { 0 };
    stamps.chain([seen]).max() >= Some(body.stamp.saturating_sub(1))
}

/// The first named dot of this very process, or of a later boot of this store, that this process did not author. Then
/// another process runs on a copy of this disk, or the peer lies.
pub(crate) fn forged_dot(
    shard: &Shard,
    me: Actor,
    mut named: impl Iterator<Item = (Actor, u64)>,
) -> Option<Dot> {
    let authored = || shard.last_seen(&me);
    let forged = named.find(|(actor, seq)| {
        actor.replica == me.replica
            && actor.boot.count >= me.boot.count
            && (*actor != me || *seq > authored())
    });
    forged.map(|(actor, seq)| Dot { actor, seq })
}

/// Every dot that a write names.
fn named_dots<'a>(body: &'a WriteBody<'_>) -> impl Iterator<Item = (Actor, u64)> + 'a {
    let edits = body.edits.iter().flat_map(|edit| {
        let superseded = edit.superseded.iter().map(|element| (element.actor, element.seq));
        let absent = edit.absent.iter().map(|named| (named.actor, named.seq));
        superseded.chain(absent).chain(edit.covered.iter().map(|of| (of.actor, of.last())))
    });
    let own = core::iter::once((0, body.dot.seq));
    own.chain(edits).map(|(index, seq)| (body.actor(index), seq))
}
