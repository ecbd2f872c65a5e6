//! Takes in the writes that a peer sends.
//!
//! A write is checked before it is believed: its bounds, its hash, its shard, and that it names no write of this very
//! process that this process did not make. A write stamped too far ahead waits, durably and outside the context, until
//! its stamp is within reach. This module issues no record and sends nothing; its caller does.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::config::ReplicationConfig;
use crate::id::{Actor, Dot};
use crate::time::WallTime;
use crate::{mutant, reach};

use crate::replication::log::{self, Record};
use crate::replication::shard::{Applied, Shard};
use crate::replication::write::hlc::{self, Clock};
use crate::replication::write::{self, Author};

/// A write that was taken in, or was here already.
pub(crate) struct Received {
    pub(crate) dot: Dot,
    /// Its record, when it is new.
    pub(crate) record: Option<Bytes>,
    /// How many milliseconds its stamp is ahead, when it begins to wait for that.
    pub(crate) ahead_by_ms: Option<u64>,
}

/// Why a write was not taken in.
pub(crate) struct Refused {
    pub(crate) why: &'static str,
    /// A dot that two different writes bear.
    pub(crate) equivocation: Option<Dot>,
}

/// What receiving needs beside the shard.
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
    /// Takes one write in.
    pub(crate) fn receive_write(
        &mut self,
        shard: &mut Shard,
        sealed: &Bytes,
    ) -> Result<Received, Refused> {
        let author = write::open(sealed)?;
        let dot = author.dot;
        if author.shard() != shard.id {
            return Err("a write of another shard".into());
        }
        if let Some(dot) = forged_dot(shard, self.me, named_dots(&author)) {
            reach!("replication.forged.write");
            let why = "a write that names writes of this process that it never made";
            return Err(Refused { why, equivocation: Some(dot) });
        }
        let far =
            hlc::millis(author.stamp) > self.reach_ms() && !mutant!("replication.hlc.unbounded");
        if far && !shard.contains(&dot) {
            return self.wait(shard, (author.stamp, dot), sealed);
        }
        let waiting = shard.waiting.len();
        let applied = log::merge(shard, sealed, &author);
        *self.waiting -= waiting - shard.waiting.len();
        match applied {
            Ok(record) => {
                reach!("replication.write.merged");
                if !mutant!("replication.hlc.deaf") {
                    self.clock.observe(author.stamp);
                }
                Ok(Received { record: Some(record), ..Received::known(dot) })
            }
            Err(Applied::Equivocation) => {
                reach!("replication.write.equivocation");
                let why = "a write whose dot has other content here";
                Err(Refused { why, equivocation: Some(dot) })
            }
            Err(Applied::Full) => Err("more authors than a shard has".into()),
            Err(_) => {
                reach!("replication.write.again");
                Ok(Received::known(dot))
            }
        }
    }

    /// Keeps a write outside the context, durably, until its stamp is within reach.
    fn wait(
        &mut self,
        shard: &mut Shard,
        (stamp, dot): (u64, Dot),
        sealed: &Bytes,
    ) -> Result<Received, Refused> {
        if let Some(held) = shard.waiting.get(&(stamp, dot)) {
            return if held == sealed {
                Ok(Received::known(dot))
            } else {
                Err("another write waits with this dot".into())
            };
        }
        if *self.waiting >= self.config.ahead_writes_max {
            reach!("replication.ahead.full");
            return Err("a write stamped too far ahead, and no room to keep it".into());
        }
        reach!("replication.ahead.waits");
        *self.waiting += 1;
        shard.wait(sealed.clone(), stamp, dot);
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

/// The first dot of this very process, or of a later boot of this store, that this process did not make: another
/// process runs on a copy of this disk, or the peer lies.
pub(crate) fn forged_dot(
    shard: &Shard,
    me: Actor,
    mut named: impl Iterator<Item = (Actor, u64)>,
) -> Option<Dot> {
    let made = || shard.number(&me).map_or(0, |number| shard.seen(number).last());
    let forged = named.find(|(actor, seq)| {
        actor.replica == me.replica
            && actor.boot.count >= me.boot.count
            && (*actor != me || *seq > made())
    });
    forged.map(|(actor, seq)| Dot { actor, seq })
}

/// Every dot that a write names.
fn named_dots<'a>(author: &'a Author<'_>) -> impl Iterator<Item = (Actor, u64)> + 'a {
    let edits = author.edits.iter().flat_map(|edit| {
        let victims = edit.victims.iter().map(|victim| (victim.actor, victim.seq));
        victims.chain(edit.unseen.iter().map(|unseen| (unseen.actor, unseen.seq)))
    });
    let own = core::iter::once((0, author.dot.seq));
    own.chain(edits).map(|(index, seq)| (author.actor(index), seq))
}
