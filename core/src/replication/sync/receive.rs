//! Receives writes from peers.
//!
//! Every write is checked before it is merged: its bounds, its hash, its shard, and that it names no write of this very
//! process that this process did not author. Its stamp is no reason to wait or to refuse. This module issues no record
//! and sends nothing; its caller does.

use bytes::Bytes;

use crate::id::{Actor, Dot};
use crate::replication::log;
use crate::replication::shard::{Merged, Shard};
use crate::replication::write::hlc::{Clock, Wall};
use crate::replication::write::{self, WriteBody};
use crate::{mutant, reach};

/// A write that was received, or was here already.
pub(crate) struct Received {
    pub(crate) dot: Dot,
    /// Its record, when it is new.
    pub(crate) record: Option<Bytes>,
}

/// Why a write was refused.
pub(crate) struct Refused {
    pub(crate) why: &'static str,
    /// A dot that two different writes have.
    pub(crate) equivocation: Option<Dot>,
}

/// The state that receiving needs beside the shard, borrowed for one step.
pub(crate) struct Receiver<'a> {
    /// The author of this process's writes.
    pub(crate) me: Actor,
    pub(crate) wall: Wall,
    pub(crate) clock: &'a mut Clock,
}

impl Received {
    const fn known(dot: Dot) -> Self {
        Self { dot, record: None }
    }
}

impl From<&'static str> for Refused {
    fn from(why: &'static str) -> Self {
        Self { why, equivocation: None }
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
        let body = write::open(sealed)?;
        let dot = body.dot;
        if body.shard() != shard.id {
            return Err("a write belongs to another shard".into());
        }
        if let Some(dot) = forged_dot(shard, self.me, named_dots(&body)) {
            reach!("replication.forged.write");
            let why = "a write names writes of this process that it never authored";
            return Err(Refused { why, equivocation: Some(dot) });
        }
        match log::merge(shard, sealed, &body) {
            Ok(record) => {
                reach!("replication.write.merged");
                if !mutant!("replication.hlc.deaf") {
                    self.clock.observe(body.stamp, self.wall);
                }
                Ok(Received { dot, record: Some(record) })
            }
            Err(Merged::Equivocation) => {
                reach!("replication.write.equivocation");
                let why = "a write has a dot that has other content here";
                Err(Refused { why, equivocation: Some(dot) })
            }
            Err(Merged::Full) => Err("there are more authors than a shard may have".into()),
            Err(_) => {
                reach!("replication.write.again");
                Ok(Received::known(dot))
            }
        }
    }
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
        superseded.chain(edit.unseen.iter().map(|unseen| (unseen.actor, unseen.seq)))
    });
    let own = core::iter::once((0, body.dot.seq));
    own.chain(edits).map(|(index, seq)| (body.actor(index), seq))
}
