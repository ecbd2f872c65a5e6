//! The disk's answers other than "durable", and the end of a process: fencing and stopping.
//!
//! A full disk passes: until it does, the node refuses writes and gives away leadership. A failed disk does not: the
//! node fences itself, which means that it goes silent and must exit. This module does not decide what waits for the
//! disk (`hold`).

use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{Outcome, Reason};
use crate::id::GroupId;
use crate::machine::Outbox;
use crate::{gossip, raft, reach};

use super::machine::{Node, Task, Timer};
use super::{Action, Event, Notice};

/// A node with a full disk offers its leadership again after this many election timeouts. An offer may pass through all
/// voters, and each of them serves no request for a round trip or two. At this rate that costs next to nothing.
const OFFER_TIMEOUTS: u32 = 10;

impl Node {
    /// The disk's reserve was reached or is free again. In between this node refuses writes and gives away leadership.
    pub(super) fn on_storage_full(&mut self, full: bool) {
        if self.phase.disk_full == full {
            return;
        }
        reach!("node.storage.full_changed");
        self.phase.disk_full = full;
        if full {
            self.transfer_leadership();
            self.arm_offer();
        }
    }

    /// Arms the timer at which a node with a full disk offers its leadership again. Another disk may be free by then.
    fn arm_offer(&mut self) {
        if !core::mem::replace(&mut self.phase.offer_armed, true) {
            let timeout = Duration::from_millis(self.config.raft.election_timeout_ms);
            self.arm(timeout.saturating_mul(OFFER_TIMEOUTS), Timer::OfferLeadership);
        }
    }

    pub(super) fn on_offer_due(&mut self) {
        self.phase.offer_armed = false;
        if self.phase.disk_full {
            reach!("node.storage.full_still");
            self.transfer_leadership();
            self.arm_offer();
        }
    }

    /// Gives away the leadership of every group.
    fn transfer_leadership(&mut self) {
        let led = self.groups.iter().filter(|(_, group)| group.leads()).map(|(id, _)| *id);
        for group in led.collect::<Vec<GroupId>>() {
            self.enqueue(Task::Raft(group, raft::Event::TransferLeadership));
        }
    }

    /// The process was asked to stop.
    pub(super) fn on_stopping(&mut self) {
        if core::mem::replace(&mut self.phase.stopping, true) {
            return;
        }
        reach!("node.stopping");
        self.transfer_leadership();
        self.enqueue(Task::Gossip(gossip::Event::Leave));
        self.abort_founding(Reason::Stopping);
        self.answer_all();
    }

    /// Fences the node: it sends nothing more, drops what waits for the disk, and answers every request.
    pub(super) fn fence(&mut self, why: &'static str) {
        reach!("node.fenced");
        let waiting: Vec<Action> = self.gate.abandon().collect();
        for action in waiting {
            // The write that this reply waited for may or may not be on the disk.
            if let Action::Reply { id, .. } = action {
                self.emit(Action::Reply { id, outcome: Outcome::Unknown { reached: None } });
            }
        }
        self.answer_all();
        self.drop_messages();
        self.phase.fenced = Some(why);
        self.notify(Notice::Fenced { why });
    }
}

/// One step of a fenced node: it refuses clients and ignores everything else.
pub(super) fn step_fenced(event: &Event, out: &mut Outbox<Action>) {
    if let Event::Requested { id, .. } = event {
        out.push(Action::Reply { id: *id, outcome: Outcome::Rejected(Reason::Stopping) });
    }
}
