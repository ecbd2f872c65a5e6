//! The disk's answers other than "durable", and the end of a node: fencing and stopping.

use alloc::vec::Vec;
use core::time::Duration;

use crate::id::GroupId;
use crate::machine::Outbox;
use crate::{gossip, raft, reach};

use super::machine::{Node, Timer, Work};
use super::{Action, Event};
use crate::api::{Outcome, Reason};
use crate::node::Notice;

/// A node with a full disk offers what it leads again after so many election timeouts. Each offer may go once around
/// all voters, and each of them serves nobody for a round trip or two: so rarely, that costs next to nothing.
const HAND_OVER_TIMEOUTS: u32 = 10;

impl Node {
    /// The disk's reserve was reached, or is free again. Writes are refused in between, and others lead.
    pub(super) fn on_storage_full(&mut self, full: bool) {
        if self.phase.disk_full == full {
            return;
        }
        reach!("node.storage.full_changed");
        self.phase.disk_full = full;
        if full {
            self.hand_over();
            self.hand_over_later();
        }
    }

    /// While the disk is full, leadership that nobody else took is offered again: another disk may be free by then.
    fn hand_over_later(&mut self) {
        if !core::mem::replace(&mut self.phase.hands_over_again, true) {
            let timeout = Duration::from_millis(self.config.raft.election_timeout_ms);
            self.arm(timeout.saturating_mul(HAND_OVER_TIMEOUTS), Timer::HandOver);
        }
    }

    pub(super) fn on_hand_over_due(&mut self) {
        self.phase.hands_over_again = false;
        if self.phase.disk_full {
            reach!("node.storage.full_still");
            self.hand_over();
            self.hand_over_later();
        }
    }

    /// Gives away all leadership.
    fn hand_over(&mut self) {
        let led = self.groups.iter().filter(|(_, group)| group.leads()).map(|(id, _)| *id);
        for group in led.collect::<Vec<GroupId>>() {
            self.then(Work::Raft(group, raft::Event::HandOver));
        }
    }

    /// The process was asked to stop.
    pub(super) fn on_stopping(&mut self) {
        if core::mem::replace(&mut self.phase.stopping, true) {
            return;
        }
        reach!("node.stopping");
        self.hand_over();
        self.then(Work::Gossip(gossip::Event::Leave));
        self.answer_all();
    }

    /// Goes silent for good: nothing is sent any more, nothing waits any more, every request is answered.
    pub(super) fn fence(&mut self, why: &'static str) {
        reach!("node.fenced");
        let waiting: Vec<Action> = self.gate.abandon().collect();
        for action in waiting {
            // What waited for the disk may be on it, or not.
            if let Action::Reply { id, .. } = action {
                self.act(Action::Reply { id, outcome: Outcome::Unknown { reached: None } });
            }
        }
        self.answer_all();
        self.drop_messages();
        self.phase.fenced = Some(why);
        self.notify(Notice::Fenced { why });
    }
}

/// A fenced node answers clients, and nobody else.
pub(super) fn step_fenced(event: &Event, out: &mut Outbox<Action>) {
    if let Event::Requested { id, .. } = event {
        out.push(Action::Reply { id: *id, outcome: Outcome::Rejected(Reason::Stopping) });
    }
}
