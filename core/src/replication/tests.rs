//! Tests of pushes, on the whole machine. It runs without a log: the tests count its writes.

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
    now_ms: u64,
    /// The number of writes that the machine issued.
    issued: u64,
}

impl Writer {
    fn new(config: ReplicationConfig) -> Self {
        let me = Replica { node: NodeId([1; 16]), store: StoreId([1; 16]) };
        let (boot, seed) = (Boot { count: 1, nonce: 1 }, Seed::from_number(1));
        let machine = Replicator::new(me, boot, config, &seed, Restored::default());
        let mut writer = Self { machine: machine.expect("an empty store"), now_ms: 1, issued: 0 };
        let strategy = Strategy::LastWriterWins;
        writer.step(Event::Open { namespace: NAMESPACE, slots: 1, strategy, discard: false });
        writer.step(Event::Peers { replicas: [PEER].into() });
        writer.step(Event::Connected { peer: PEER });
        writer
    }

    /// Returns, for each delta that the step sent: the number of its writes, and whether it is a promise.
    fn step(&mut self, event: Event) -> Vec<(usize, bool)> {
        let now = Now { mono: Instant::from_millis(self.now_ms), wall: WallTime(self.now_ms) };
        let mut out = Outbox::new();
        self.machine.step(now, event, &mut out);
        let mut sent = Vec::new();
        for action in out.drain() {
            match action {
                Action::Persist { .. } => self.issued += 1,
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
        self.step(Event::Persisted { writes: self.issued })
    }
}

#[test]
fn one_sync_releases_one_message_and_no_write_leaves_before_it_is_durable() {
    let mut writer = Writer::new(ReplicationConfig::default());
    assert!((0..10).all(|key| writer.put(key).is_empty()));
    let durable = writer.issued;
    assert!(writer.put(10).is_empty());
    assert_eq!(writer.step(Event::Persisted { writes: durable }), [(10, false)]);
    assert_eq!(writer.sync(), [(1, false)]);
    assert_eq!(writer.sync(), [], "each is pushed once");
}

#[test]
fn a_message_has_a_bounded_number_of_bytes_and_at_least_one_write() {
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
fn a_full_push_window_reopens_on_an_acknowledgement_or_after_a_long_silence() {
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
    assert!((0..5).map(|_| more()).sum::<usize>() < 5, "only pushes that fit leave");
    assert_eq!(more(), 0, "the window stays closed");

    let message = Message::Ack { shard: SHARD, held: Default::default(), bytes: 1000 };
    writer.step(Event::Received { from: PEER, message });
    writer.put(21);
    assert_eq!(writer.sync(), [(1, false)], "an acknowledgement opens it");

    (0..20).for_each(|key| drop(writer.put(key)));
    writer.sync();
    writer.now_ms += config.anti_entropy_ms * PATIENCE_PERIODS;
    writer.put(22);
    assert_eq!(writer.sync(), [(1, false)], "lost bytes no longer count");
}

#[test]
fn writes_of_a_closed_shard_are_not_pushed() {
    let mut writer = Writer::new(ReplicationConfig::default());
    writer.put(1);
    writer.step(Event::Close { namespace: NAMESPACE });
    assert_eq!(writer.sync(), []);
}
