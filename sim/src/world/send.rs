//! The way of one message from its sender to the links: it is copied, changed, kept for later, or lost with its link.
//!
//! The network decides times and fates; this module does not. A message's length is an estimate, and matters only on a
//! link of limited capacity.

use bytes::Bytes;
use continuum_core::gossip::Body;
use continuum_core::id::NodeId;
use continuum_core::node::{Message, Plane};
use continuum_core::raft;
use continuum_core::replication::Message as Replicated;

use crate::env::replay::SentMessage;
use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::verdict::Verdict;
use crate::world::{World, WorldEvent};

/// Bytes of a message beside its payload.
const ENVELOPE_BYTES: usize = 100;
/// Bytes of an entry of an append beside its payload.
const ENTRY_BYTES: usize = 16;

const KEEP: u64 = stream("net.replay.keep", 0);
const AGAIN: u64 = stream("net.replay", 0);
const WHICH: u64 = stream("net.replay.which", 0);
const GENESIS: u64 = stream("net.genesis", 0);
const LATE: u64 = stream("net.replay.by", 0);

impl World {
    /// Sends a message.
    pub(crate) fn send(
        &mut self,
        me: usize,
        to: NodeId,
        plane: Plane,
        mut message: Message,
        print: u64,
    ) -> Verdict {
        let Some(to) = self.oracles.roster.number(to).filter(|to| *to != me) else {
            return Ok(());
        };
        let Some(epoch) = self.network.epoch(me, to) else {
            if let Some(scene) = &mut self.scene {
                scene.sends(self.now, (me, to), &message, &[], Some("no link"));
            }
            return Ok(());
        };
        self.messages += 1;
        self.overhear(&message);
        let bytes = if self.network.is_narrow(me, to) { size_of(&message) } else { 0 };
        let fired = &mut self.fired;
        let arrivals = self.network.transmit((me, to), plane, self.now, bytes as u64, fired);
        if let Some(at) = arrivals.breaks {
            self.schedule_at(at, WorldEvent::Break { from: me, to, epoch });
        }
        if let Some((ppm, late_ns)) = self.network.replays(me, to) {
            self.replay(me, to, ppm, late_ns);
            self.keep((me, to), epoch, ppm, print, &message);
        }
        if let Some(hashed) = hashed_in(&mut message)
            && let Some(bit) = self.network.corrupted(me, to, hashed.len() as u64 * 8)
        {
            self.fired.count(Kind::Corrupt);
            let mut bytes = hashed.to_vec();
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            *hashed = bytes.into();
        }
        self.forge_ack(me, to, &mut message);
        if let Some(scene) = &mut self.scene {
            let cut = (!self.network.is_open(me, to)).then_some("cut off");
            let fate = cut.filter(|_| arrivals.first.is_none());
            scene.sends(self.now, (me, to), &message, &[arrivals.first, arrivals.second], fate);
        }
        if let Some(at) = arrivals.second {
            let message = message.clone();
            self.schedule_at(at, WorldEvent::Deliver { from: me, to, epoch, print, message });
        }
        if let Some(at) = arrivals.first {
            self.send_of_another_genesis((me, to), epoch, at, &message);
            self.schedule_at(at, WorldEvent::Deliver { from: me, to, epoch, print, message });
        }
        self.speak_later_version(me, to)
    }

    /// A copy of a message arrives as if a node of another federation had sent it.
    fn send_of_another_genesis(
        &mut self,
        (from, to): (usize, usize),
        epoch: u32,
        at: u64,
        message: &Message,
    ) {
        let Some(rate_ppm) = self.network.other_genesis_ppm else { return };
        if !self.draws.chance(GENESIS, self.messages, rate_ppm) {
            return;
        }
        let mut message = message.clone();
        match &mut message {
            Message::Raft { genesis, .. }
            | Message::Replication { genesis, .. }
            | Message::Gossip { genesis, .. } => genesis.0 ^= 1,
            _ => return,
        }
        self.fired.count(Kind::OtherGenesis);
        self.schedule_at(at, WorldEvent::Deliver { from, to, epoch, print: 1, message });
    }

    /// A member with bad memory acknowledges a ping it was not sent: its gossip acknowledges the ping that its receiver
    /// has sent to another member. This happens only after helpers were chosen: before that the sender may still become
    /// a helper, by a request that is lost with its link, and then nobody could tell.
    fn forge_ack(&mut self, me: usize, to: usize, message: &mut Message) {
        let Message::Gossip { message: gossip, .. } = message else { return };
        if self.network.corrupted(me, to, 1).is_none() {
            return;
        }
        let receiver = self.processes[to].node.as_ref();
        let Some(probe) = receiver.and_then(|node| node.gossip().probe()) else { return };
        let from = gossip.sender.replica.node;
        let chosen = !probe.helpers.is_empty();
        if chosen && probe.target != from && !probe.helpers.contains(&from) {
            gossip.body = Body::Ack { number: probe.number };
            self.fired.count(Kind::Corrupt);
        }
    }

    /// Keeps a message for a later link.
    fn keep(
        &mut self,
        (from, to): (usize, usize),
        epoch: u32,
        ppm: u64,
        print: u64,
        message: &Message,
    ) {
        let (direction, k) = self.network.position(from, to);
        if self.draws.chance(KEEP ^ direction, k, ppm) {
            let (store, generation) =
                (self.processes[from].replica.store, self.processes[to].generation);
            let sent = SentMessage { epoch, store, generation, print, message: message.clone() };
            let draw = self.draws.bits(KEEP ^ direction, k);
            self.replays.keep(from * self.processes.len() + to, draw, sent);
        }
    }

    /// Perhaps replays a message of an earlier link.
    fn replay(&mut self, from: usize, to: usize, ppm: u64, late_ns: u64) {
        let (direction, k) = self.network.position(from, to);
        if !self.draws.chance(AGAIN ^ direction, k, ppm) {
            return;
        }
        let Some(epoch) = self.network.epoch(from, to) else { return };
        let (store, generation) =
            (self.processes[from].replica.store, self.processes[to].generation);
        let old = || self.replays.of(from * self.processes.len() + to, epoch, store, generation);
        let which = self.draws.below(WHICH ^ direction, k, old().count() as u64);
        let Some(sent) = old().nth(which as usize) else { return };
        let SentMessage { print, message, .. } = sent.clone();
        self.fired.count(Kind::Replay);
        let late = self.draws.below(LATE ^ direction, k, late_ns);
        self.schedule_in(late, WorldEvent::Deliver { from, to, epoch, print, message });
    }
}

/// The bytes of a message that a hash of its author covers: an eventual write, or the first chunk of a snapshot. Each
/// refused snapshot makes its leader wait twice as long, so the chance is that of one chunk, however many there are.
fn hashed_in(message: &mut Message) -> Option<&mut Bytes> {
    match message {
        Message::Raft { message: raft::Message::SnapshotChunk { offset: 0, data, .. }, .. } => {
            Some(data)
        }
        Message::Replication {
            message: Replicated::Delta { writes, .. } | Replicated::Page { writes, .. },
            ..
        } => writes.first_mut(),
        _ => None,
    }
}

/// The estimated length of a message on a link.
fn size_of(message: &Message) -> usize {
    let entries = match message {
        Message::Raft { message: raft::Message::Append { entries, .. }, .. } => entries.len(),
        _ => 0,
    };
    ENVELOPE_BYTES + ENTRY_BYTES * entries + message.payload_bytes()
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{GenesisId, GroupId, Index, NamespaceId, ShardId, Term};
    use continuum_core::raft::{Entry, Payload, Position};

    use super::*;

    #[test]
    fn a_long_message_counts_as_long() {
        let entry = |bytes: usize| Entry {
            term: Term(1),
            time_ms: 0,
            payload: Payload::Command(vec![0; bytes].into()),
        };
        let genesis = GenesisId(1);
        let append = |entries| Message::Raft {
            genesis,
            group: GroupId(1),
            message: raft::Message::Append {
                term: Term(1),
                prev: Position::default(),
                commit: Index(0),
                entries,
            },
        };
        let shard = ShardId { namespace: NamespaceId(1), slot: 0 };
        let writes = vec![Bytes::from(vec![0; 3_000]); 2];
        let message = Replicated::Delta { shard, writes };
        let delta = Message::Replication { genesis, message };
        assert_eq!(size_of(&append(Vec::new())), ENVELOPE_BYTES);
        assert!((8_000..8_300).contains(&size_of(&append(vec![entry(4_000), entry(4_000)]))));
        assert!((6_000..6_300).contains(&size_of(&delta)));
    }
}
