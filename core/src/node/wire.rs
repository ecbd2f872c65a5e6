//! Messages in and out: on which plane, and after which write.
//!
//! A link proves which replica is at its other end, and `standing` says what that replica may send. This module looks
//! at a message's kind and size; its content is the receiving machine's.

use alloc::vec::Vec;

use crate::api::{Outcome, Value};
use crate::hold::Waits;
use crate::id::{Contact, NodeId, Replica, Writer};
use crate::{discovery, gossip, mutant, raft, reach};

use super::machine::{Node, Task};
use super::standing::Standing;
use super::{Action, Message, Notice, Plane};

/// Messages with more payload bytes than this use the bulk plane.
const CONTROL_BYTES_MAX: usize = 16 << 10;
/// The same bound for appends. It is higher because an append that overtakes another one on the other plane is rejected
/// and costs a round trip. So what a busy group gathers in one round trip should stay on one plane.
const CONTROL_APPEND_BYTES_MAX: usize = 128 << 10;

impl Node {
    /// Sends a message that promises nothing. It waits only for this process's boot record.
    pub(super) fn send(&mut self, to: Replica, message: Message) {
        let boot = self.gate.boot();
        self.send_after(to, message, boot);
    }

    /// Sends a message in which `writer` promises something. It waits for everything that `writer` has written.
    pub(super) fn promise(&mut self, writer: Writer, to: Replica, message: Message) {
        let token = self.gate.newest(writer);
        self.send_after(to, message, token);
    }

    /// Sends a message once the lane is durable up to `token`. Without a link to this replica the message is dropped,
    /// as a full queue would drop it.
    pub(super) fn send_after(&mut self, to: Replica, message: Message, token: u64) {
        if !self.peers.is_linked(to) {
            return;
        }
        if self.is_suspended() && is_protocol(&message) {
            return;
        }
        let plane = plane(&message);
        if is_said_in_doubt(&message) && self.gate.is_durable(token) {
            return self.emit(Action::Send { to: to.node, plane, message });
        }
        let send = Action::Send { to: to.node, plane, message };
        if let Some(send) = self.gate.release_when_durable(token, send, Waits::Droppable) {
            self.emit(send);
        }
    }

    /// Sends to the linked process of a node, whatever its store.
    pub(super) fn send_to_node(&mut self, to: NodeId, message: Message) {
        if let Some(peer) = self.peers.get(to) {
            self.send(Replica { node: to, store: peer.store }, message);
        }
    }

    /// Reports that a peer sent something that it must not send. The caller drops it.
    pub(super) fn rejected(&mut self, from: NodeId, why: &'static str) {
        self.notify(Notice::Rejected { from, why });
    }

    /// Handles a message from a peer, after checking that this sender may send it.
    pub(super) fn on_received(&mut self, from: NodeId, message: Message) {
        let Some(replica) = self.peers.heard(self.now.mono, from) else {
            reach!("node.wire.no_link");
            return self.rejected(from, "a message without a link");
        };
        if self.is_of_another_genesis(replica, &message) {
            return;
        }
        if let Err(why) = self.judge(replica, &message) {
            if !self.is_of_closed_group(replica, &message) {
                self.rejected(from, why);
            }
            return;
        }
        match message {
            Message::Raft { group, message, .. } => {
                self.step_raft(group, raft::Event::Received { from: replica, message });
            }
            Message::Replication { message, .. } => {
                let event = crate::replication::Event::Received { from: replica, message };
                self.step_replication(event);
            }
            Message::Gossip { message, .. } => {
                let boot = message.sender.incarnation.boot;
                let is_linked = self.peers.get(from).is_some_and(|peer| peer.boot == boot);
                if !is_linked && !mutant!("node.wire.gossip_of_any_boot") {
                    reach!("node.wire.gossip_of_other_boot");
                    return self.rejected(from, "gossip of another process than the link's");
                }
                self.step_gossip(gossip::Event::Received { from, message });
            }
            Message::Founding(message) => self.on_founding(replica, message),
            Message::Genesis { genesis: None, replaced: Some(_) } => {
                self.rejected(from, "a replaced store, and no federation that replaced it");
            }
            Message::Genesis { replaced, .. } => self.on_replaced(from, replaced),
            Message::Contacts(contacts) => self.on_contacts(from, contacts),
            Message::Forward { id, open, request } => self.on_forward(replica, (id, open), request),
            Message::Answer { id, outcome } => self.on_answer(replica, id, outcome),
            Message::Refused { refusal, known } => self.on_refused_by(replica, refusal, known),
            Message::Confirm(id) => self.send(replica, Message::Confirmed(id)),
            Message::Confirmed(id) => self.on_confirmed(replica, id),
        }
    }

    /// Whether a member sent a message of a group that is not open here. No fault: a namespace begins and ends on each
    /// node at another moment. Nobody has a standing in such a group, so the message is dropped.
    fn is_of_closed_group(&self, from: Replica, message: &Message) -> bool {
        let Message::Raft { group, .. } = message else { return false };
        let is_closed =
            !self.groups.contains_key(group) && self.standing(from) > Standing::Stranger;
        if is_closed {
            reach!("node.wire.closed_group");
        }
        is_closed
    }

    fn on_contacts(&mut self, from: NodeId, contacts: Vec<Contact>) {
        self.enqueue(Task::Discovery(discovery::Event::ContactsReceived { from, contacts }));
    }
}

/// Whether a message speaks for this replica in a group, a shard or a founding. A process in doubt sends none, and its
/// machines repeat them.
const fn is_protocol(message: &Message) -> bool {
    matches!(message, Message::Raft { .. } | Message::Replication { .. } | Message::Founding(_))
}

/// Whether a process in doubt sends the message as well. Gossip says that it lives, and not that it is the one that
/// should be there: a peer reads it only of the process that it counts as linked. The genesis on its disk is the same
/// whether the disk is a copy or not, and a peer in no federation must hear of it: it could found a second one.
fn is_said_in_doubt(message: &Message) -> bool {
    match message {
        Message::Genesis { .. } => !mutant!("node.doubt.hides_genesis"),
        Message::Gossip { .. } | Message::Confirm(_) | Message::Confirmed(_) => true,
        _ => false,
    }
}

/// The plane of a message, chosen so that votes, probes and other small messages never wait behind large ones.
fn plane(message: &Message) -> Plane {
    let control_bytes_max = match message {
        Message::Raft { message: raft::Message::Append { .. }, .. } => CONTROL_APPEND_BYTES_MAX,
        Message::Raft { message: raft::Message::SnapshotChunk { .. }, .. }
        | Message::Replication { .. } => {
            return Plane::Bulk;
        }
        Message::Answer { outcome: Outcome::Value(value), .. } => return answer_plane(value),
        Message::Forward { .. } => CONTROL_BYTES_MAX,
        _ => return Plane::Control,
    };
    if message.payload_bytes() > control_bytes_max { Plane::Bulk } else { Plane::Control }
}

const fn answer_plane(value: &Value) -> Plane {
    match value {
        // A page or a value may be as large as a frame.
        Value::Register(_)
        | Value::Set { .. }
        | Value::Record { .. }
        | Value::Keys { .. }
        | Value::Rows { .. }
        | Value::Export(_) => Plane::Bulk,
        _ => Plane::Control,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::{GenesisId, GroupId, Index, Term};
    use crate::raft::{Entry, Payload, Position};

    fn append(bytes: usize) -> Plane {
        let payload = Payload::Command(vec![0; bytes / 4].into());
        let entry = Entry { term: Term(1), time_ms: 0, payload };
        let (prev, commit) = (Position::default(), Index(0));
        let message =
            raft::Message::Append { term: Term(1), prev, commit, entries: vec![entry; 4] };
        plane(&Message::Raft { genesis: GenesisId(1), group: GroupId(1), message })
    }

    #[test]
    fn appends_of_a_busy_group_stay_on_one_plane() {
        let sizes = [0, CONTROL_BYTES_MAX + 4, CONTROL_APPEND_BYTES_MAX];
        assert_eq!(sizes.map(append), [Plane::Control; 3]);
        assert_eq!(append(CONTROL_APPEND_BYTES_MAX + 4), Plane::Bulk);
    }
}
