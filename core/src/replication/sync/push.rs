//! Pushes: writes authored here leave for all connected replicas as soon as this disk has them.
//!
//! All that one disk sync made durable leaves in as few messages as hold it, so a burst of writes costs a peer a few
//! messages, records and acknowledgements instead of one each. A push waits for this disk: if it
//! reached a peer, and a crash here took the write that it superseded, no replica would know what *that* write had
//! superseded, and the oldest value would live beside the pushed one.
//!
//! A peer with too many unacknowledged bytes gets no more pushes: it pulls what it missed, at its own pace. This module
//! does not repeat a push and does not pass on writes of other authors; anti-entropy does both.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use bytes::Bytes;

use crate::config::ReplicationConfig;
use crate::id::{Replica, ShardId};
use crate::reach;
use crate::time::Instant;

use super::message::Message;
use super::peer::Peers;

/// A peer that acknowledges nothing for this many comparison periods has lost what it was pushed.
pub(crate) const PATIENCE_PERIODS: u64 = 3;
/// The bytes of a write in a message beside the sealed bytes.
const ENVELOPE_BYTES: usize = 8;

/// Writes authored here that were not pushed yet, oldest first. Each is durable once the machine's count of durable
/// writes reaches its number. The node's bound on writes that are not durable also bounds this queue.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    waiting: VecDeque<Waiting>,
}

/// A write that was not pushed yet.
#[derive(Debug)]
struct Waiting {
    /// It is durable once this many of the machine's writes are.
    writes: u64,
    shard: ShardId,
    seq: u64,
    sealed: Bytes,
}

impl Pushes {
    /// Adds a write that is durable once this many of the machine's writes are.
    pub(crate) fn add(&mut self, writes: u64, (shard, seq): (ShardId, u64), sealed: Bytes) {
        self.waiting.push_back(Waiting { writes, shard, seq, sealed });
    }

    /// The number of the first durable write of each shard that has any.
    pub(crate) fn first_durable(&self, durable: u64) -> BTreeMap<ShardId, u64> {
        let mut first = BTreeMap::new();
        for write in self.waiting.iter().take_while(|write| write.writes <= durable) {
            first.entry(write.shard).or_insert(write.seq);
        }
        first
    }

    /// The number of waiting writes.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Removes the writes of a shard that is gone.
    pub(crate) fn forget(&mut self, gone: ShardId) {
        self.waiting.retain(|write| write.shard != gone);
    }

    /// Takes out the durable writes, as the deltas for every connected peer that keeps up. Because they are durable, no
    /// crash can take back what a delta carries, so a delta is not a promise.
    pub(crate) fn take_deltas(
        &mut self,
        now: Instant,
        durable: u64,
        config: &ReplicationConfig,
        peers: &mut Peers,
    ) -> Vec<(Replica, Message)> {
        let bytes_max = config.unacknowledged_bytes_max as u64;
        let patience = Duration::from_millis(config.anti_entropy_ms * PATIENCE_PERIODS);
        let mut deltas = Vec::new();
        for (shard, batch) in self.take_batches(durable, config.delta_bytes_max) {
            let bytes = batch.iter().map(|sealed| sealed.len() as u64).sum();
            for peer in peers.connected_mut() {
                if !peer.reserve(now, bytes, bytes_max, patience) {
                    reach!("replication.push.withheld");
                    continue;
                }
                let message = Message::Delta { shard, writes: batch.clone() };
                deltas.push((peer.replica, message));
            }
        }
        deltas
    }

    /// Takes out the durable writes in batches of at most `bytes_max` bytes, with at least one write in each.
    fn take_batches(&mut self, durable: u64, bytes_max: usize) -> Vec<(ShardId, Vec<Bytes>)> {
        let mut batches = Vec::new();
        for (shard, writes) in self.take_durable(durable) {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for sealed in writes {
                let size = sealed.len() + ENVELOPE_BYTES;
                if !batch.is_empty() && bytes + size > bytes_max {
                    reach!("replication.push.parted");
                    batches.push((shard, mem::take(&mut batch)));
                    bytes = 0;
                }
                bytes += size;
                batch.push(sealed);
            }
            batches.push((shard, batch));
        }
        batches
    }

    /// Takes out the durable writes, by shard, in the order in which they were authored.
    fn take_durable(&mut self, durable: u64) -> BTreeMap<ShardId, Vec<Bytes>> {
        let mut taken: BTreeMap<ShardId, Vec<Bytes>> = BTreeMap::new();
        while let Some(write) = self.waiting.pop_front_if(|write| write.writes <= durable) {
            taken.entry(write.shard).or_default().push(write.sealed);
        }
        taken
    }
}
