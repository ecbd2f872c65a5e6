//! Lags: for how long the oldest of this process's writes has waited until another replica has it.
//!
//! They are for operators. No machine depends on them, and no client waits for them: `ack` has those.
//!
//! A lag begins when a write is durable here. It ends with the replica's promise that it holds all writes up to the
//! newest one, or with equal roots. Writes of other authors and of earlier boots have no lag here.

use alloc::collections::BTreeMap;

use crate::id::Replica;
use crate::replication::shard::Ranges;
use crate::time::Instant;

/// The lags of one shard.
#[derive(Debug, Default)]
pub(crate) struct Lags(BTreeMap<Replica, Lag>);

/// One replica's lag.
#[derive(Debug)]
struct Lag {
    /// The first write that the replica is not known to hold.
    from: u64,
    /// A moment before which every write reached the replica that was durable here.
    since: Instant,
}

impl Lags {
    /// Writes from this number on are durable here. Replicas that lag already go on doing so.
    pub(crate) fn wrote(&mut self, now: Instant, seq: u64, to: impl Iterator<Item = Replica>) {
        for replica in to {
            self.0.entry(replica).or_insert(Lag { from: seq, since: now });
        }
    }

    /// A replica holds these writes; `last` is the newest one.
    pub(crate) fn held(&mut self, now: Instant, by: Replica, held: &Ranges, last: u64) {
        let Some(lag) = self.0.get_mut(&by) else { return };
        let run = held.iter().find(|(low, high)| (*low..=*high).contains(&lag.from));
        let Some((_, upto)) = run else { return };
        if upto >= last {
            self.0.remove(&by);
        } else {
            *lag = Lag { from: upto + 1, since: now };
        }
    }

    /// A replica has the same as this one.
    pub(crate) fn end(&mut self, of: &Replica) {
        self.0.remove(of);
    }

    /// Forgets all replicas but these.
    pub(crate) fn retain(&mut self, stays: impl Fn(&Replica) -> bool) {
        self.0.retain(|replica, _| stays(replica));
    }

    /// Each replica that lags, with the moment since when.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Replica, Instant)> + '_ {
        self.0.iter().map(|(replica, lag)| (*replica, lag.since))
    }
}
