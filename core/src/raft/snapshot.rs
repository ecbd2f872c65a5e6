//! Snapshots in chunks, for a follower whose next entries the leader no longer has (§7).
//!
//! The leader offers a snapshot, the receiver answers how many bytes of it are durable in a file, and the leader sends
//! those that follow. So a transfer resumes where it stopped, and a receiver that restarted and forgot the offer gets a
//! new one.
//!
//! A receiver records a snapshot only once the state machine has restored it. One that does not restore is refused: the
//! receiver keeps its state, and the leader rests longer before each new offer. This module does not look inside the
//! bytes, and does not decide when to take a snapshot to shorten the log; the node does.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::Digest as _;

use super::progress::{Flow, Progress, SnapshotTransfer};
use super::state::{IncomingSnapshot, State};
use super::types::snapshot_id;
use super::{Action, Message, NUMBER_MAX, Position, Raft, Snapshot, SnapshotHeader, Write};
use crate::digest::Digest;
use crate::files::Piece;
use crate::id::{Index, Replica, SnapshotFile, SnapshotId};
use crate::limits::CHUNK_BYTES_MAX;
use crate::machine::Outbox;
use crate::{mutant, reach};

/// The chunks that the leader sends ahead of the acknowledged bytes: enough to keep the receiver's disk busy, and not
/// much to send again.
const WINDOW_CHUNKS: u64 = 4;

/// The most chunks of one snapshot, so that tiny chunks cannot make the receiver's list larger than the bytes.
const CHUNKS_MAX: usize = 65_536;

/// After a refused snapshot a leader rests for this many election timeouts before it offers another one to that peer,
/// and for twice as long after each further refusal, up to this many doublings. It rests for one election timeout when
/// the bytes had changed on their way: a voter must not be missing for that.
const REST_TIMEOUTS: u32 = 8;
const REST_DOUBLINGS_MAX: u32 = 7;

impl IncomingSnapshot {
    fn snapshot(&self) -> Snapshot {
        let SnapshotHeader { position, time_ms, configuration, digest, .. } = self.header.clone();
        Snapshot { position, time_ms, configuration, digest, chunks: self.chunks.clone() }
    }

    /// The record that names the snapshot's file.
    fn record(&self) -> Write {
        let SnapshotHeader { position, time_ms, configuration, digest, length } =
            self.header.clone();
        let file = SnapshotFile { id: self.id, length, digest };
        Write::Snapshot { file, position, time_ms, configuration }
    }
}

impl Snapshot {
    /// How far the leader sends ahead of the acknowledged bytes. All chunks but the last are as long as the first.
    fn window_bytes(&self) -> u64 {
        self.chunks.first().map_or(0, |chunk| WINDOW_CHUNKS * chunk.len() as u64)
    }

    /// The bytes from `offset` to the end of their chunk; `None` at the snapshot's end.
    fn chunk_at(&self, offset: u64) -> Option<Bytes> {
        let mut skip = offset;
        for chunk in &self.chunks {
            if skip < chunk.len() as u64 {
                return Some(chunk.slice(skip as usize..));
            }
            skip -= chunk.len() as u64;
        }
        None
    }

    fn header(&self) -> SnapshotHeader {
        SnapshotHeader {
            position: self.position,
            time_ms: self.time_ms,
            configuration: self.configuration.clone(),
            digest: self.digest,
            length: self.length(),
        }
    }
}

/// Why no correct leader makes this offer. `None` if one could.
fn malformed(header: &SnapshotHeader, term: crate::id::Term) -> Option<&'static str> {
    let SnapshotHeader { position, configuration, length, .. } = header;
    let impossible = position.index == Index(0)
        || position.index.0 > NUMBER_MAX
        || position.term > term
        || *length > NUMBER_MAX
        || !configuration.is_valid();
    impossible.then_some("offers an invalid snapshot")
}

/// The leader's side.
impl Raft {
    /// Begins to send a snapshot to a peer, or asks for one to be captured.
    pub(super) fn begin_snapshot_transfer(&mut self, at: usize, out: &mut Outbox<Action>) {
        let oldest = self.log.offset().index;
        let State::Leader(leader) = &mut self.state else { return };
        reach!("raft.snapshot.needed");
        // A snapshot that ends before this log does not help: the follower would need another one after it.
        let usable = leader.snapshot.clone().filter(|known| known.position.index >= oldest);
        leader.snapshot = usable.clone();
        leader.peers[at].flow =
            Flow::Snapshot(SnapshotTransfer { snapshot: usable, acked: None, sent: 0 });
        let wanted = leader.snapshot.is_none() && !leader.capturing;
        leader.capturing |= wanted;
        if wanted {
            out.push(Action::Capture);
        }
        self.offer_snapshot(at, out);
    }

    /// Takes the captured state and offers it to all peers that wait for one.
    pub(super) fn on_captured(&mut self, snapshot: Arc<Snapshot>, out: &mut Outbox<Action>) {
        let position = snapshot.position;
        let usable = position.index <= self.commit && self.log.holds(position);
        let State::Leader(leader) = &mut self.state else { return };
        leader.capturing = false;
        if usable {
            leader.snapshot = Some(snapshot);
        }
        let now = self.now;
        for at in 0..self.peer_count() {
            let State::Leader(leader) = &self.state else { return };
            let peer = &leader.peers[at];
            if let Flow::Snapshot(SnapshotTransfer { snapshot: None, .. }) = peer.flow
                && peer.rest_until <= now
            {
                self.begin_snapshot_transfer(at, out);
            }
        }
    }

    /// Offers the snapshot to a peer, for the first time or again.
    pub(super) fn offer_snapshot(&mut self, at: usize, out: &mut Outbox<Action>) {
        let term = self.term;
        let State::Leader(leader) = &mut self.state else { return };
        let peer = &mut leader.peers[at];
        let Flow::Snapshot(transfer) = &mut peer.flow else { return };
        let Some(snapshot) = &transfer.snapshot else { return };
        (transfer.acked, transfer.sent) = (None, 0);
        let (to, header) = (peer.replica, snapshot.header());
        self.send(to, Message::SnapshotOffer { term, header }, out);
    }

    /// The receiver acknowledges the first `bytes` bytes, or does not know the offer.
    pub(super) fn on_snapshot_ack(
        &mut self,
        from: Replica,
        position: Position,
        bytes: Option<u64>,
        out: &mut Outbox<Action>,
    ) {
        let now = self.now;
        let State::Leader(leader) = &mut self.state else { return };
        let Ok(at) = leader.peers.binary_search_by_key(&from, |peer| peer.replica) else {
            return self.reject(from, "answers but is not a member", out);
        };
        let peer = &mut leader.peers[at];
        peer.last_contact = now;
        let Flow::Snapshot(transfer) = &mut peer.flow else { return };
        let Some(snapshot) = transfer.snapshot.as_ref().filter(|s| s.position == position) else {
            return;
        };
        let Some(bytes) = bytes else {
            if transfer.acked.is_some() {
                reach!("raft.snapshot.receiver_forgot");
                self.offer_snapshot(at, out);
            }
            return;
        };
        if bytes > snapshot.length() {
            return self.reject(from, "acknowledges more bytes than the snapshot has", out);
        }
        peer.advanced |= transfer.acked.is_none_or(|acked| bytes > acked);
        transfer.acked = transfer.acked.max(Some(bytes));
        transfer.sent = transfer.sent.max(bytes);
        self.send_chunks(at, out);
    }

    /// The receiver has the whole snapshot and does not install it. If its state machine does not restore it, the next
    /// one may be better, or the receiver may run another build by then; until that is likely, this leader sends
    /// nothing large. Bytes that changed on their way say nothing of the next ones.
    pub(super) fn on_snapshot_refused(
        &mut self,
        from: Replica,
        position: Position,
        corrupt: bool,
        out: &mut Outbox<Action>,
    ) {
        let (now, timeout) = (self.now, self.election_timeout());
        let State::Leader(leader) = &mut self.state else { return };
        let Some(peer) = leader.peer(from) else {
            return self.reject(from, "answers but is not a member", out);
        };
        peer.last_contact = now;
        let Flow::Snapshot(transfer) = &mut peer.flow else { return };
        if transfer.snapshot.take_if(|snapshot| snapshot.position == position).is_none() {
            return;
        }
        reach!("raft.snapshot.refused_by_peer");
        (transfer.acked, transfer.sent) = (None, 0);
        let rests = REST_TIMEOUTS << peer.refusals.min(REST_DOUBLINGS_MAX);
        let is_resent = corrupt && !mutant!("raft.snapshot.rests_after_corruption");
        peer.refusals += u32::from(!is_resent);
        peer.rest_until = now + if is_resent { timeout } else { timeout.saturating_mul(rests) };
        self.release_snapshot();
    }

    /// Offers a peer a snapshot again, unless it rests after a refusal.
    pub(super) fn resume_snapshot_transfer(&mut self, at: usize, out: &mut Outbox<Action>) {
        let now = self.now;
        let State::Leader(leader) = &self.state else { return };
        let peer = &leader.peers[at];
        if peer.rest_until > now {
            return;
        }
        let is_refused = matches!(&peer.flow, Flow::Snapshot(t) if t.snapshot.is_none());
        if is_refused && !leader.capturing {
            self.begin_snapshot_transfer(at, out);
        } else {
            self.offer_snapshot(at, out);
        }
    }

    /// Sends chunks until the window is full.
    fn send_chunks(&mut self, at: usize, out: &mut Outbox<Action>) {
        loop {
            let term = self.term;
            let State::Leader(leader) = &mut self.state else { return };
            let peer = &mut leader.peers[at];
            let Flow::Snapshot(transfer) = &mut peer.flow else { return };
            let Some((snapshot, acked)) = transfer.snapshot.as_ref().zip(transfer.acked) else {
                return;
            };
            let (position, offset) = (snapshot.position, transfer.sent);
            let end = acked.saturating_add(snapshot.window_bytes());
            let Some(data) = snapshot.chunk_at(offset).filter(|_| offset < end) else {
                return;
            };
            transfer.sent += data.len() as u64;
            let to = peer.replica;
            self.send(to, Message::SnapshotChunk { term, position, offset, data }, out);
        }
    }

    /// Frees the snapshot if no peer needs it.
    pub(super) fn release_snapshot(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.snapshot.is_some() && !leader.peers.iter().any(Progress::needs_snapshot) {
            leader.snapshot = None;
        }
    }
}

/// The receiver's side.
impl Raft {
    pub(super) fn on_snapshot_offer(
        &mut self,
        from: Replica,
        header: SnapshotHeader,
        out: &mut Outbox<Action>,
    ) {
        if let Some(why) = malformed(&header, self.term) {
            return self.reject(from, why, out);
        }
        if !self.accept_leader(from, out) || self.already_has(from, header.position, out) {
            return;
        }
        if self.refused_snapshot == Some(snapshot_id(self.group, header.position, header.digest)) {
            return self.refuse_snapshot(from, header.position, false, out);
        }
        if self.incoming.as_ref().is_none_or(|known| known.header != header) {
            if self.incoming.is_some() {
                reach!("raft.snapshot.superseded");
                self.drop_incoming(out);
            }
            self.incoming = Some(IncomingSnapshot::new(self.group, header));
        } else {
            reach!("raft.snapshot.resumed");
        }
        self.acknowledge_chunks(from, out);
    }

    pub(super) fn on_snapshot_chunk(
        &mut self,
        from: Replica,
        position: Position,
        offset: u64,
        data: Bytes,
        out: &mut Outbox<Action>,
    ) {
        if data.is_empty() || data.len() > CHUNK_BYTES_MAX {
            return self.reject(from, "a chunk that is empty or too long", out);
        }
        if !self.accept_leader(from, out) || self.already_has(from, position, out) {
            return;
        }
        let incoming = self.incoming.as_mut().filter(|known| known.header.position == position);
        let Some(incoming) = incoming else {
            reach!("raft.snapshot.unknown_offer");
            let answer = Message::SnapshotAck { term: self.term, position, bytes: None };
            return self.send(from, answer, out);
        };
        if offset == incoming.received {
            let room = incoming.header.length - incoming.received;
            if data.len() as u64 > room || incoming.chunks.len() >= CHUNKS_MAX {
                return self.reject(from, "more bytes or chunks than the offer allows", out);
            }
            incoming.received += data.len() as u64;
            incoming.sha.update(&data);
            incoming.chunks.push(data.clone());
            let is_last = incoming.is_complete();
            let piece = Piece { snapshot: incoming.id, offset, data, is_last };
            out.push(Action::WriteFile { piece });
            if is_last {
                return self.look_at_incoming(from, out);
            }
            if !mutant!("raft.snapshot.acked_before_durable") {
                // The acknowledgement follows once the piece is durable.
                return;
            }
            incoming.durable = incoming.received;
        }
        self.acknowledge_chunks(from, out);
    }

    /// Whether the log already reaches the snapshot's end. Then it acknowledges that to the leader.
    fn already_has(&mut self, from: Replica, position: Position, out: &mut Outbox<Action>) -> bool {
        if mutant!("raft.snapshot.stale_installed") {
            return false;
        }
        let committed = position.index <= self.commit;
        if !committed && !self.log.holds(position) {
            return false;
        }
        if self.log.term_at(position.index).is_some_and(|term| term != position.term) {
            self.reject(from, "a snapshot that contradicts a committed entry", out);
            return true;
        }
        reach!("raft.snapshot.not_needed");
        self.drop_incoming(out);
        // The log has the entry that the snapshot ends with, and a snapshot covers only committed entries.
        self.advance_commit(position.index, out);
        self.send(from, Message::AppendAck { term: self.term, matched: position }, out);
        true
    }

    /// Says how much of the arriving snapshot is durable, until all of it is here.
    fn acknowledge_chunks(&mut self, to: Replica, out: &mut Outbox<Action>) {
        let Some(incoming) = &self.incoming else { return };
        if incoming.complete.is_none() {
            let (term, position) = (self.term, incoming.header.position);
            let bytes = Some(incoming.durable);
            self.send(to, Message::SnapshotAck { term, position, bytes }, out);
        }
    }

    /// All bytes are here: the state machine looks at them while the last ones become durable.
    fn look_at_incoming(&mut self, from: Replica, out: &mut Outbox<Action>) {
        let Some(incoming) = &mut self.incoming else { return };
        let digest = Digest(incoming.sha.clone().finalize().into());
        if digest != incoming.header.digest {
            reach!("raft.snapshot.corrupt");
            let position = incoming.header.position;
            self.drop_incoming(out);
            self.reject(from, "a snapshot whose bytes do not match its digest", out);
            return self.refuse_snapshot(from, position, true, out);
        }
        let (id, snapshot) = (incoming.id, Arc::new(incoming.snapshot()));
        incoming.complete = Some(Arc::clone(&snapshot));
        if mutant!("raft.snapshot.recorded_unchecked") {
            let write = incoming.record();
            self.persist(write, out);
        }
        out.push(Action::Check { id, snapshot });
    }

    /// The first `bytes` bytes of the arriving snapshot's file are durable.
    pub(super) fn on_file_written(&mut self, id: SnapshotId, bytes: u64, out: &mut Outbox<Action>) {
        let Some(incoming) = self.incoming.as_mut().filter(|known| known.id == id) else { return };
        incoming.durable = incoming.durable.max(bytes.min(incoming.received));
        if let Some(leader) = self.leader {
            self.acknowledge_chunks(leader, out);
        }
        self.install_when_ready(out);
    }

    /// The disk has no room for the arriving snapshot. The leader rests before it offers another one.
    pub(super) fn on_file_failed(&mut self, id: SnapshotId, out: &mut Outbox<Action>) {
        let Some(incoming) = self.incoming.as_ref().filter(|known| known.id == id) else { return };
        reach!("raft.snapshot.no_room");
        let position = incoming.header.position;
        self.drop_incoming(out);
        if let Some(leader) = self.leader {
            self.refuse_snapshot(leader, position, false, out);
        }
    }

    /// Gives up the arriving snapshot, and its file.
    pub(super) fn drop_incoming(&mut self, out: &mut Outbox<Action>) {
        if let Some(incoming) = self.incoming.take() {
            out.push(Action::DropFile { id: incoming.id });
        }
    }

    fn refuse_snapshot(
        &mut self,
        to: Replica,
        position: Position,
        corrupt: bool,
        out: &mut Outbox<Action>,
    ) {
        reach!("raft.snapshot.refused");
        let term = self.term;
        self.send(to, Message::SnapshotRefused { term, position, corrupt }, out);
    }

    /// The state machine looked at a complete snapshot: installs it, or refuses it and keeps everything as it is.
    pub(super) fn on_checked(&mut self, id: SnapshotId, restores: bool, out: &mut Outbox<Action>) {
        let checked = |known: &&mut IncomingSnapshot| known.id == id && known.complete.is_some();
        let Some(incoming) = self.incoming.as_mut().filter(checked) else { return };
        incoming.restores = restores;
        if restores {
            return self.install_when_ready(out);
        }
        let position = incoming.header.position;
        self.refused_snapshot = Some(id);
        self.drop_incoming(out);
        if let Some(leader) = self.leader {
            self.reject(leader, "a snapshot that does not restore", out);
            self.refuse_snapshot(leader, position, false, out);
        }
    }

    /// Installs the arriving snapshot once the state machine restored it and its file is durable.
    fn install_when_ready(&mut self, out: &mut Outbox<Action>) {
        let ready = |known: &mut IncomingSnapshot| {
            let is_durable = known.durable == known.header.length;
            let is_durable = is_durable || mutant!("raft.snapshot.named_before_durable");
            known.restores && is_durable
        };
        let Some(incoming) = self.incoming.take_if(ready) else { return };
        let position = incoming.header.position;
        if self.log.holds(position) && !mutant!("raft.snapshot.stale_installed") {
            // While the state machine looked, the leader's entries reached the snapshot's end. Entries after it are
            // acknowledged, so nothing may replace the log now.
            return out.push(Action::DropFile { id: incoming.id });
        }
        self.install(incoming, out);
        if let Some(leader) = self.leader {
            let term = self.term;
            self.send(leader, Message::AppendAck { term, matched: position }, out);
        }
    }

    /// Replaces the log and the state machine by a complete snapshot.
    fn install(&mut self, incoming: IncomingSnapshot, out: &mut Outbox<Action>) {
        reach!("raft.snapshot.installed");
        let record = incoming.record();
        let Some(snapshot) = incoming.complete else { return };
        let Snapshot { position, time_ms, ref configuration, .. } = *snapshot;
        if self.log.last_index() >= position.index && position.index > self.commit {
            // The log conflicts with the snapshot at its last entry: this entry and those after it were never
            // committed. They are cut before the snapshot's record is written, so that no crash leaves them after the
            // snapshot. Entries before it stay until then, because a commit may count them.
            self.truncate(position.index.prev());
            self.append(Vec::new(), out);
        }
        self.persist_hard_state(out);
        self.persist(record, out);
        self.log.reset(position, time_ms);
        let was_voter = self.configurations.is_voter();
        self.configurations.install(position.index, configuration.clone());
        if self.configurations.is_voter() && !was_voter {
            self.arm_election();
        }
        self.mark(position.index);
        (self.commit, self.base) = (position.index, position);
        out.push(Action::Install { snapshot });
    }
}
