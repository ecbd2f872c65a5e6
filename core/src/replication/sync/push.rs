//! Pushes: writes made here leave for all connected replicas as soon as this disk has them.
//!
//! What one sync made durable leaves in as few messages as hold it, so that a burst of writes costs a peer a few
//! messages, records and acknowledgements instead of one each. A push waits for this disk: if it survived a crash that
//! took what it superseded, nobody would know what *that* had superseded, and it would live beside the push.
//!
//! A peer that has too many bytes unacknowledged is pushed nothing more: it pulls what it missed, at its own pace.
//! Nothing here repeats a push, and writes of other authors are not passed on; both are anti-entropy's.

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

/// A peer that acknowledges nothing for so many comparison periods has lost what it was pushed.
pub(crate) const PATIENCE_PERIODS: u64 = 3;
/// What a write takes in a message beside its bytes.
const ENVELOPE_BYTES: usize = 8;

/// Writes made here that no peer was sent yet, oldest first, each with the machine's count of writes that makes it
/// durable. Bounded by what the node lets be written and not yet durable.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    waiting: VecDeque<(u64, ShardId, Bytes)>,
}

impl Pushes {
    /// A write that is durable once so many writes are.
    pub(crate) fn add(&mut self, writes: u64, shard: ShardId, sealed: Bytes) {
        self.waiting.push_back((writes, shard, sealed));
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The shard is gone.
    pub(crate) fn forget(&mut self, gone: ShardId) {
        self.waiting.retain(|(_, shard, _)| *shard != gone);
    }

    /// Takes out what is durable, by shard, in the order in which it was made.
    fn take(&mut self, durable: u64) -> BTreeMap<ShardId, Vec<Bytes>> {
        let mut taken: BTreeMap<ShardId, Vec<Bytes>> = BTreeMap::new();
        while let Some((_, shard, sealed)) =
            self.waiting.pop_front_if(|(writes, ..)| *writes <= durable)
        {
            taken.entry(shard).or_default().push(sealed);
        }
        taken
    }
}

impl Pushes {
    /// The deltas for every connected peer that keeps up: all writes that are durable by now, in as few messages as
    /// hold them. The writes are durable, so a delta promises nothing that a crash could take back.
    pub(crate) fn deltas(
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

    /// Takes out what is durable, in batches of at most `bytes_max` bytes, at least one write in each.
    fn take_batches(&mut self, durable: u64, bytes_max: usize) -> Vec<(ShardId, Vec<Bytes>)> {
        let mut batches = Vec::new();
        for (shard, writes) in self.take(durable) {
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
}
