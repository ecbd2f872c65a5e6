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

use crate::id::{Replica, ShardId};
use crate::machine::{Now, Outbox};
use crate::reach;
use crate::time::Instant;

use super::message::Message;
use super::replicator::Peer;
use super::{Action, Replicator};

/// A peer that acknowledges nothing for so many comparison periods has lost what it was pushed.
const PATIENCE_PERIODS: u64 = 3;
/// What a write takes in a message beside its bytes.
const ENVELOPE_BYTES: usize = 8;

/// Writes made here that no peer was sent yet, oldest first, each with the machine's count of writes that makes it
/// durable. Bounded by what the node lets be written and not yet durable.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    waiting: VecDeque<(u64, ShardId, Bytes)>,
}

impl Pushes {
    /// A write that is durable once so many writes are.
    pub(super) fn add(&mut self, writes: u64, shard: ShardId, sealed: Bytes) {
        self.waiting.push_back((writes, shard, sealed));
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The shard is gone.
    pub(super) fn forget(&mut self, gone: ShardId) {
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

impl Peer {
    pub(super) const fn new(replica: Replica) -> Self {
        Self { replica, unacknowledged: 0, acknowledged_at: Instant::ZERO }
    }

    pub(super) const fn acknowledge(&mut self, now: Instant, bytes: u64) {
        self.unacknowledged = self.unacknowledged.saturating_sub(bytes);
        self.acknowledged_at = now;
    }

    /// Whether so many bytes more may be pushed to it; then they count. What was lost on the way is never acknowledged:
    /// after a silence it counts no longer.
    fn admits(&mut self, now: Instant, bytes: u64, bytes_max: u64, patience: Duration) -> bool {
        if self.unacknowledged == 0 {
            self.acknowledged_at = now;
        } else if self.unacknowledged.saturating_add(bytes) > bytes_max {
            if now.since(self.acknowledged_at) < patience {
                return false;
            }
            reach!("replication.push.resumed");
            self.unacknowledged = 0;
            self.acknowledged_at = now;
        }
        self.unacknowledged += bytes;
        true
    }
}

impl Replicator {
    /// Pushes what is durable by now to every connected peer that keeps up.
    pub(super) fn push(&mut self, now: Now, durable: u64, out: &mut Outbox<Action>) {
        for (shard, writes) in self.pushes.take(durable) {
            let (mut parcel, mut bytes) = (Vec::new(), 0);
            for sealed in writes {
                let size = sealed.len() + ENVELOPE_BYTES;
                if !parcel.is_empty() && bytes + size > self.config.delta_bytes_max {
                    reach!("replication.push.parted");
                    self.push_parcel(now, shard, &mem::take(&mut parcel), out);
                    bytes = 0;
                }
                bytes += size;
                parcel.push(sealed);
            }
            self.push_parcel(now, shard, &parcel, out);
        }
    }

    /// Pushes the writes of one message. They are durable, so they promise nothing that a crash could take back.
    fn push_parcel(
        &mut self,
        now: Now,
        shard: ShardId,
        writes: &[Bytes],
        out: &mut Outbox<Action>,
    ) {
        let bytes = writes.iter().map(|sealed| sealed.len() as u64).sum();
        let bytes_max = self.config.unacknowledged_bytes_max as u64;
        let patience = Duration::from_millis(self.config.anti_entropy_ms * PATIENCE_PERIODS);
        let links = &self.links;
        let linked = |peer: &&mut Peer| links.get(&peer.replica.node) == Some(&peer.replica);
        for peer in self.peers.values_mut().filter(linked) {
            if !peer.admits(now.mono, bytes, bytes_max, patience) {
                reach!("replication.push.withheld");
                continue;
            }
            let message = Message::Delta { shard, writes: writes.to_vec() };
            out.push(Action::Send { to: peer.replica, message, promise: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Change, Edit, Mutation, Strategy};
    use crate::config::ReplicationConfig;
    use crate::id::{Boot, NamespaceId, NodeId, StoreId};
    use crate::machine::Machine;
    use crate::replication::{Event, Restored};
    use crate::seed::Seed;
    use crate::time::WallTime;

    const NAMESPACE: NamespaceId = NamespaceId(1);
    const SHARD: ShardId = ShardId { namespace: NAMESPACE, slot: 0 };
    const PEER: Replica = Replica { node: NodeId([2; 16]), store: StoreId([2; 16]) };

    struct Writer {
        machine: Replicator,
        ms: u64,
        written: u64,
    }

    impl Writer {
        fn new(config: ReplicationConfig) -> Self {
            let me = Replica { node: NodeId([1; 16]), store: StoreId([1; 16]) };
            let (boot, seed) = (Boot { count: 1, nonce: 1 }, Seed::from_number(1));
            let machine = Replicator::new(me, boot, config, &seed, Restored::default());
            let mut writer = Self { machine: machine.expect("an empty store"), ms: 1, written: 0 };
            let strategy = Strategy::LastWriterWins;
            writer.step(Event::Open { namespace: NAMESPACE, slots: 1, strategy, discard: false });
            writer.step(Event::Peers { replicas: [PEER].into() });
            writer.step(Event::Connected { peer: PEER });
            writer
        }

        /// The writes in each delta that the step sent, and whether they wait for the disk.
        fn step(&mut self, event: Event) -> Vec<(usize, bool)> {
            let now = Now { mono: Instant::from_millis(self.ms), wall: WallTime(self.ms) };
            let mut out = Outbox::new();
            self.machine.step(now, event, &mut out);
            let mut sent = Vec::new();
            for action in out.drain() {
                match action {
                    Action::Persist { .. } => self.written += 1,
                    Action::Send { message: Message::Delta { writes, .. }, promise, .. } => {
                        sent.push((writes.len(), promise));
                    }
                    _ => {}
                }
            }
            sent
        }

        fn put(&mut self, key: u8) -> Vec<(usize, bool)> {
            let change = Change::Put(alloc::vec![7; 100].into());
            let edits = [Edit { field: Bytes::new(), change }].into();
            let key = Bytes::copy_from_slice(&[key]);
            let mutation = Mutation { key, edits, context: None };
            self.step(Event::Mutate { ticket: 0, shard: SHARD, mutation, replicas: 0 })
        }

        fn sync(&mut self) -> Vec<(usize, bool)> {
            self.step(Event::Persisted { writes: self.written })
        }
    }

    #[test]
    fn what_one_sync_made_durable_leaves_in_one_message_and_nothing_leaves_before() {
        let mut writer = Writer::new(ReplicationConfig::default());
        assert!((0..10).all(|key| writer.put(key).is_empty()));
        let durable = writer.written;
        assert!(writer.put(10).is_empty());
        assert_eq!(writer.step(Event::Persisted { writes: durable }), [(10, false)]);
        assert_eq!(writer.sync(), [(1, false)]);
        assert_eq!(writer.sync(), [], "each is pushed once");
    }

    #[test]
    fn a_message_has_at_most_so_many_bytes_and_at_least_one_write() {
        let mut config = ReplicationConfig { delta_bytes_max: 800, ..ReplicationConfig::default() };
        let mut writer = Writer::new(config.clone());
        (0..7).for_each(|key| drop(writer.put(key)));
        let sent = writer.sync();
        assert!(sent.len() > 1 && sent.iter().all(|(writes, _)| *writes > 0), "{sent:?}");
        assert_eq!(sent.iter().map(|(writes, _)| writes).sum::<usize>(), 7);
        config.delta_bytes_max = 1;
        let mut writer = Writer::new(config);
        (0..3).for_each(|key| drop(writer.put(key)));
        assert_eq!(writer.sync(), [(1, false); 3]);
    }

    #[test]
    fn a_peer_that_acknowledges_nothing_is_pushed_no_more_until_its_silence_is_long() {
        let config = ReplicationConfig {
            unacknowledged_bytes_max: 1000,
            delta_bytes_max: 400,
            ..ReplicationConfig::default()
        };
        let mut writer = Writer::new(config.clone());
        (0..20).for_each(|key| drop(writer.put(key)));
        let sent = writer.sync();
        assert!((1..5).contains(&sent.len()), "the window closes: {sent:?}");
        let mut more = || {
            writer.put(20);
            writer.sync().len()
        };
        assert!((0..5).map(|_| more()).sum::<usize>() < 5, "only what still fits goes");
        assert_eq!(more(), 0, "and stays closed");

        let message = Message::Ack { shard: SHARD, held: Default::default(), bytes: 1000 };
        writer.step(Event::Received { from: PEER, message });
        writer.put(21);
        assert_eq!(writer.sync(), [(1, false)], "an acknowledgement opens it");

        (0..20).for_each(|key| drop(writer.put(key)));
        writer.sync();
        writer.ms += config.anti_entropy_ms * PATIENCE_PERIODS;
        writer.put(22);
        assert_eq!(writer.sync(), [(1, false)], "what was lost counts no longer");
    }

    #[test]
    fn writes_of_a_shard_that_is_gone_are_not_pushed() {
        let mut writer = Writer::new(ReplicationConfig::default());
        writer.put(1);
        writer.step(Event::Close { namespace: NAMESPACE });
        assert_eq!(writer.sync(), []);
    }
}
