//! Receives writes from peers.
//!
//! Every write is checked before it is merged: its bounds, its hash, its shard, and that it names no write of this very
//! process that this process did not author. A write stamped too far ahead waits, durably and outside the context,
//! until its stamp is within reach. This module issues no record and sends nothing; its caller does.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::config::ReplicationConfig;
use crate::id::{Actor, Dot};
use crate::replication::log::{self, Record};
use crate::replication::shard::{Merged, Shard};
use crate::replication::write::hlc::{self, Clock};
use crate::replication::write::{self, WriteBody};
use crate::time::WallTime;
use crate::{mutant, reach};

/// A write that was received, or was here already.
pub(crate) struct Received {
    pub(crate) dot: Dot,
    /// Its record, when it is new.
    pub(crate) record: Option<Bytes>,
    /// When it begins to wait for its stamp: the milliseconds by which that is ahead.
    pub(crate) ahead_by_ms: Option<u64>,
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
    pub(crate) wall: WallTime,
    pub(crate) config: &'a ReplicationConfig,
    pub(crate) clock: &'a mut Clock,
    /// The number of waiting writes in all shards.
    pub(crate) waiting: &'a mut usize,
}

impl Received {
    const fn known(dot: Dot) -> Self {
        Self { dot, record: None, ahead_by_ms: None }
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
        let far =
            hlc::millis(body.stamp) > self.reach_ms() && !mutant!("replication.hlc.unbounded");
        if far && !shard.contains(&dot) {
            return self.keep_waiting(shard, (body.stamp, dot), sealed);
        }
        let waiting = shard.waiting.len();
        let merged = log::merge(shard, sealed, &body);
        *self.waiting -= waiting - shard.waiting.len();
        match merged {
            Ok(record) => {
                reach!("replication.write.merged");
                if !mutant!("replication.hlc.deaf") {
                    self.clock.observe(body.stamp);
                }
                Ok(Received { record: Some(record), ..Received::known(dot) })
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

    /// Keeps a write outside the context, durably, until its stamp is within reach.
    fn keep_waiting(
        &mut self,
        shard: &mut Shard,
        (stamp, dot): (u64, Dot),
        sealed: &Bytes,
    ) -> Result<Received, Refused> {
        if let Some(held) = shard.waiting.get(&(stamp, dot)) {
            return if held == sealed {
                Ok(Received::known(dot))
            } else {
                Err("another write with this dot waits".into())
            };
        }
        if *self.waiting >= self.config.ahead_writes_max {
            reach!("replication.ahead.full");
            return Err("a write is stamped too far ahead, and there is no room to keep it".into());
        }
        reach!("replication.ahead.waits");
        *self.waiting += 1;
        shard.add_waiting(sealed.clone(), stamp, dot);
        let record = log::encode(&Record::Waiting(sealed.clone()));
        let by_ms = hlc::millis(stamp) - self.wall.0;
        Ok(Received { dot, record: Some(record), ahead_by_ms: Some(by_ms) })
    }

    /// Merges the waiting writes whose stamps are within reach now. Returns their records.
    pub(crate) fn merge_waiting(&mut self, shard: &mut Shard) -> Vec<Bytes> {
        let mut records = Vec::new();
        while let Some((&(stamp, _), _)) = shard.waiting.first_key_value() {
            if hlc::millis(stamp) > self.reach_ms() {
                break;
            }
            let Some((_, sealed)) = shard.waiting.pop_first() else { break };
            reach!("replication.ahead.admitted");
            *self.waiting -= 1;
            self.clock.observe(stamp);
            records.extend(log::merge(shard, &sealed, &write::reopen(&sealed)));
        }
        records
    }

    /// The greatest wall time that a stamp may have.
    const fn reach_ms(&self) -> u64 {
        self.wall.0.saturating_add(self.config.ahead_ms_max)
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
