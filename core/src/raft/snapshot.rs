//! State instead of entries, for a follower whose entries are gone (§7), in chunks.
//!
//! The leader offers; the receiver answers with how many bytes it holds durably, and gets what follows. So a transfer
//! resumes wherever it broke off, and a receiver that forgot it in a restart says so and is offered again. The bytes
//! are the state machine's; nothing here looks inside. When a snapshot is captured for the log's sake is the node's
//! decision.

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

/// Bytes sent ahead of what the receiver holds: enough to keep its disk busy, little enough to give up.
const WINDOW_BYTES: u64 = 4 * CHUNK_BYTES_MAX as u64;

/// Pieces of one snapshot, so that a sender of tiny ones cannot make the receiver's lists outgrow its bytes.
const PIECES_MAX: usize = 65_536;

impl Snapshot {
    /// The bytes from `offset` to the end of their chunk; `None` at the end.
    fn piece(&self, offset: u64) -> Option<Bytes> {
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

/// Why an offer cannot come from an honest leader.
fn malformed(header: &SnapshotHeader, term: crate::id::Term) -> Option<&'static str> {
    let SnapshotHeader { position, configuration, length, .. } = header;
    let impossible = position.index == Index(0)
        || position.index.0 > NUMBER_MAX
        || position.term > term
        || *length > NUMBER_MAX
        || !configuration.is_valid();
    impossible.then_some("offers an impossible snapshot")
}

/// The leader's half.
impl Raft {
    /// A follower's next entry is gone: it needs a snapshot.
    pub(super) fn begin_snapshot_transfer(&mut self, at: usize, out: &mut Outbox<Action>) {
        let oldest = self.log.offset().index;
        let State::Leader(leader) = &mut self.state else { return };
        reach!("raft.snapshot.needed");
        // A snapshot that the log no longer continues would only be followed by another.
        let usable = leader.snapshot.clone().filter(|known| known.position.index >= oldest);
        leader.snapshot = usable.clone();
        leader.peers[at].flow =
            Flow::Snapshot(SnapshotTransfer { snapshot: usable, held: None, sent: 0 });
        let wanted = leader.snapshot.is_none() && !leader.capturing;
        leader.capturing |= wanted;
        if wanted {
            out.push(Action::Capture);
        }
        self.offer_snapshot(at, out);
    }

    /// The node captured the state.
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

    /// Offers the snapshot, once more or for the first time.
    pub(super) fn offer_snapshot(&mut self, at: usize, out: &mut Outbox<Action>) {
        let term = self.term;
        let State::Leader(leader) = &mut self.state else { return };
        let peer = &mut leader.peers[at];
        let Flow::Snapshot(transfer) = &mut peer.flow else { return };
        let Some(snapshot) = &transfer.snapshot else { return };
        (transfer.held, transfer.sent) = (None, 0);
        let (to, header) = (peer.replica, snapshot.header());
        self.send(to, Message::SnapshotOffer { term, header }, out);
    }

    /// The receiver says how much it holds.
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
            return self.reject(from, "answers, and is no member", out);
        };
        let peer = &mut leader.peers[at];
        peer.last_contact = now;
        let Flow::Snapshot(transfer) = &mut peer.flow else { return };
        let Some(snapshot) = transfer.snapshot.as_ref().filter(|s| s.position == position) else {
            return;
        };
        let Some(bytes) = bytes else {
            if transfer.held.is_some() {
                reach!("raft.snapshot.receiver_forgot");
                self.offer_snapshot(at, out);
            }
            return;
        };
        if bytes > snapshot.length() {
            return self.reject(from, "holds more than it was sent", out);
        }
        peer.advanced |= transfer.held.is_none_or(|held| bytes > held);
        transfer.held = transfer.held.max(Some(bytes));
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
            let Some((snapshot, held)) = transfer.snapshot.as_ref().zip(transfer.held) else {
                return;
            };
            let (position, offset) = (snapshot.position, transfer.sent);
            let Some(data) = snapshot.piece(offset).filter(|_| offset < held + WINDOW_BYTES) else {
                return;
            };
            transfer.sent += data.len() as u64;
            let to = peer.replica;
            self.send(to, Message::SnapshotChunk { term, position, offset, data }, out);
        }
    }

    /// Frees the snapshot when nobody needs it.
    pub(super) fn release_snapshot(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.snapshot.is_some()
            && !leader.peers.iter().any(|peer| matches!(peer.flow, Flow::Snapshot(_)))
        {
            leader.snapshot = None;
        }
    }
}

/// The receiver's half.
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
            return self.reject(from, "a chunk of impossible length", out);
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
        if offset == incoming.held {
            let room = incoming.header.length - incoming.held;
            if data.len() as u64 > room || incoming.chunks.len() >= PIECES_MAX {
                return self.reject(from, "more bytes than were offered", out);
            }
            incoming.held += data.len() as u64;
            incoming.sha.update(&data);
            incoming.chunks.push(data.clone());
            let write = Write::Chunk { snapshot: incoming.id, offset, data };
            self.persist(write, out);
        }
        self.acknowledge_chunks(from, out);
    }

    /// Whether the log reaches the snapshot without it; then the leader is told so.
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
        // A snapshot covers committed entries alone, and this is the entry that it ends with.
        self.advance_commit(position.index, out);
        self.send(from, Message::AppendAck { term: self.term, matched: position }, out);
        true
    }

    fn acknowledge_chunks(&mut self, from: Replica, out: &mut Outbox<Action>) {
        let Some(incoming) = self.incoming.take() else { return };
        if !incoming.is_complete() {
            let (position, bytes) = (incoming.header.position, Some(incoming.held));
            self.incoming = Some(incoming);
            return self.send(from, Message::SnapshotAck { term: self.term, position, bytes }, out);
        }
        let digest = Digest(incoming.sha.clone().finalize().into());
        if digest != incoming.header.digest {
            reach!("raft.snapshot.corrupt");
            return self.reject(from, "a snapshot whose digest is another", out);
        }
        let position = incoming.header.position;
        self.install(incoming, out);
        self.send(from, Message::AppendAck { term: self.term, matched: position }, out);
    }

    /// The side file that a snapshot on its way in is written to: needed until it is complete or given up.
    #[must_use]
    pub fn incoming_file(&self) -> Option<SnapshotId> {
        self.incoming.as_ref().map(|incoming| incoming.id)
    }

    /// Replaces the log by a complete snapshot.
    fn install(&mut self, incoming: IncomingSnapshot, out: &mut Outbox<Action>) {
        reach!("raft.snapshot.installed");
        let IncomingSnapshot { header, id, chunks, .. } = incoming;
        let SnapshotHeader { position, time_ms, configuration, digest, length } = header;
        if self.log.last_index() >= position.index && position.index > self.commit {
            // Entries from the snapshot's last one on are of an abandoned leader. They go before the snapshot's record
            // is written: a crash between the two must not leave them after it. Those before it stay until then, for
            // some of them may be committed and counted on.
            self.truncate(position.index.prev());
            self.append(Vec::new(), out);
        }
        self.persist_hard_state(out);
        let file = SnapshotFile { id, length, digest };
        let record =
            Write::Snapshot { file, position, time_ms, configuration: configuration.clone() };
        self.persist(record, out);
        self.log.reset(position, time_ms);
        let counted = self.configurations.is_voter();
        self.configurations.install(position.index, configuration.clone());
        if self.configurations.is_voter() && !counted {
            self.arm_election();
        }
        self.mark(position.index);
        (self.commit, self.base) = (position.index, position);
        let snapshot = Snapshot { position, time_ms, configuration, digest, chunks };
        out.push(Action::Install { snapshot: Arc::new(snapshot) });
    }
}
