//! Snapshots in chunks, for a follower whose next entries the leader no longer has (§7).
//!
//! The leader offers a snapshot, the receiver answers how many bytes of it are durable, and the leader sends those that
//! follow. So a transfer resumes where it stopped, and a receiver that restarted and forgot the offer gets a new one.
//! This module does not look inside the bytes, and does not decide when to take a snapshot to shorten the log; the node
//! does.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::Digest as _;

use super::progress::{Flow, SnapshotTransfer};
use super::state::{IncomingSnapshot, State};
use super::{Action, Message, NUMBER_MAX, Position, Raft, Snapshot, SnapshotHeader, Write};
use crate::digest::Digest;
use crate::id::{Index, Replica, SnapshotFile, SnapshotId};
use crate::limits::CHUNK_BYTES_MAX;
use crate::machine::Outbox;
use crate::{mutant, reach};

/// How far the leader sends ahead of the acknowledged bytes: enough to keep the receiver's disk busy, and not much to
/// send again.
const WINDOW_BYTES: u64 = 4 * CHUNK_BYTES_MAX as u64;

/// The most chunks of one snapshot, so that tiny chunks cannot make the receiver's list larger than the bytes.
const CHUNKS_MAX: usize = 65_536;

impl Snapshot {
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
        for at in 0..self.peer_count() {
            let State::Leader(leader) = &self.state else { return };
            if let Flow::Snapshot(SnapshotTransfer { snapshot: None, .. }) = leader.peers[at].flow {
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
            let Some(data) = snapshot.chunk_at(offset).filter(|_| offset < acked + WINDOW_BYTES)
            else {
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
        if leader.snapshot.is_some()
            && !leader.peers.iter().any(|peer| matches!(peer.flow, Flow::Snapshot(_)))
        {
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
        if self.incoming.as_ref().is_none_or(|known| known.header != header) {
            if self.incoming.is_some() {
                reach!("raft.snapshot.superseded");
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
            let write = Write::Chunk { snapshot: incoming.id, offset, data };
            self.persist(write, out);
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
        self.incoming = None;
        // The log has the entry that the snapshot ends with, and a snapshot covers only committed entries.
        self.advance_commit(position.index, out);
        self.send(from, Message::AppendAck { term: self.term, matched: position }, out);
        true
    }

    fn acknowledge_chunks(&mut self, from: Replica, out: &mut Outbox<Action>) {
        let Some(incoming) = self.incoming.take() else { return };
        if !incoming.is_complete() {
            let (position, bytes) = (incoming.header.position, Some(incoming.received));
            self.incoming = Some(incoming);
            return self.send(from, Message::SnapshotAck { term: self.term, position, bytes }, out);
        }
        let digest = Digest(incoming.sha.clone().finalize().into());
        if digest != incoming.header.digest {
            reach!("raft.snapshot.corrupt");
            return self.reject(from, "a snapshot whose bytes do not match its digest", out);
        }
        let position = incoming.header.position;
        self.install(incoming, out);
        self.send(from, Message::AppendAck { term: self.term, matched: position }, out);
    }

    /// The snapshot file of the snapshot that is arriving. It is needed until the snapshot is complete or given up.
    #[must_use]
    pub fn incoming_file(&self) -> Option<SnapshotId> {
        self.incoming.as_ref().map(|incoming| incoming.id)
    }

    /// Replaces the log and the state machine by a complete snapshot.
    fn install(&mut self, incoming: IncomingSnapshot, out: &mut Outbox<Action>) {
        reach!("raft.snapshot.installed");
        let IncomingSnapshot { header, id, chunks, .. } = incoming;
        let SnapshotHeader { position, time_ms, configuration, digest, length } = header;
        if self.log.last_index() >= position.index && position.index > self.commit {
            // The log conflicts with the snapshot at its last entry: this entry and those after it were never
            // committed. They are cut before the snapshot's record is written, so that no crash leaves them after the
            // snapshot. Entries before it stay until then, because a commit may count them.
            self.truncate(position.index.prev());
            self.append(Vec::new(), out);
        }
        self.persist_hard_state(out);
        let file = SnapshotFile { id, length, digest };
        let record =
            Write::Snapshot { file, position, time_ms, configuration: configuration.clone() };
        self.persist(record, out);
        self.log.reset(position, time_ms);
        let was_voter = self.configurations.is_voter();
        self.configurations.install(position.index, configuration.clone());
        if self.configurations.is_voter() && !was_voter {
            self.arm_election();
        }
        self.mark(position.index);
        (self.commit, self.base) = (position.index, position);
        let snapshot = Snapshot { position, time_ms, configuration, digest, chunks };
        out.push(Action::Install { snapshot: Arc::new(snapshot) });
    }
}
