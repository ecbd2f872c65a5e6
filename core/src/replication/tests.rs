//! Pushes, as the whole machine makes them.

use alloc::vec::Vec;

use bytes::Bytes;

use super::sync::push::PATIENCE_PERIODS;
use super::{Action, Event, Message, Replicator, Restored};
use crate::api::{Change, Edit, Mutation, Strategy};
use crate::config::ReplicationConfig;
use crate::id::{Boot, NamespaceId, NodeId, Replica, ShardId, StoreId};
use crate::machine::{Machine, Now, Outbox};
use crate::seed::Seed;
use crate::time::{Instant, WallTime};

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
