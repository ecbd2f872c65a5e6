//! The disk's answers other than "durable", and the end of a process: fencing and stopping.
//!
//! A full disk passes: until it does, the node refuses writes that need room and gives away leadership. A disk that
//! takes nothing for too long may hang for ever, and says nothing: the node gives away leadership, and refuses what it
//! could not make durable itself. A failed disk does not come back: the node fences itself, which means that it goes
//! silent and must exit. This module does not decide what waits for the disk (`hold`).

use alloc::vec::Vec;
use core::time::Duration;

use crate::api::{Outcome, Reason};
use crate::id::{GroupId, Owner};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::{gossip, mutant, raft, reach};

use super::machine::{Node, Task, Timer};
use super::{Action, Event, Notice};

/// A node with a full disk offers its leadership again after this many election timeouts. An offer may pass through all
/// voters, and each of them serves no request for a round trip or two. At this rate that costs next to nothing.
const OFFER_TIMEOUTS: u32 = 10;

/// A disk has stalled when it took nothing for this many per cent of an election timeout, though writes waited. So a
/// leader on it is succeeded within two election timeouts, and a sync that is slow once ends no office.
const STALL_PERCENT: u64 = 150;

/// How long a node that was asked to stop waits for the answers to what it may have logged.
const STOP_ANSWERS: Duration = Duration::from_millis(1500);

impl Node {
    /// The disk is full or has room again. In between this node refuses writes and gives away leadership.
    pub(super) fn on_storage_full(&mut self, full: bool, room: u64) {
        let is_news = core::mem::replace(&mut self.phase.disk_full, full) != full;
        self.phase.disk_room = room;
        self.plan_for_full_disk();
        if !is_news {
            return;
        }
        reach!("node.storage.full_changed");
        if full {
            self.give_up_leadership();
        }
    }

    /// Decides which checkpoints make room on a full disk.
    fn plan_for_full_disk(&mut self) {
        let full = self.phase.disk_full;
        let with = full.then(|| self.memory_bytes());
        self.checkpoints.disk_is_full(with, self.phase.disk_room);
        if full {
            let (groups, replicas) = (&self.groups, &self.replication.machine);
            self.checkpoints.shrink(|owner| match owner {
                Owner::Node => 0,
                Owner::Group(id) => groups.get(&id).map_or(0, |group| group.state.bytes()),
                Owner::Shard(id) => replicas.bytes_of(&id),
            });
        }
    }

    /// A write was handed to the disk.
    pub(super) fn disk_waits(&mut self) {
        if self.phase.disk_waits_since.is_none() {
            self.phase.disk_waits_since = Some(self.now.mono);
            self.arm_disk_look(self.now.mono);
        }
    }

    /// The disk made something durable, or said again what it had said (`nothing`).
    pub(super) fn disk_took(&mut self, nothing: bool) {
        if nothing {
            return;
        }
        self.phase.disk_waits_since = self.gate.awaits_disk().then_some(self.now.mono);
        if core::mem::take(&mut self.phase.disk_stalled) {
            reach!("node.storage.stall_ended");
            self.notify(Notice::DiskStalled { stalled: false });
        }
    }

    /// Looks at the disk when what waits since `since` has waited for too long. At most one such timer is armed.
    fn arm_disk_look(&mut self, since: Instant) {
        if !core::mem::replace(&mut self.phase.disk_look_armed, true) {
            self.arm_at(since + self.stall_after(), Timer::DiskLook);
        }
    }

    fn stall_after(&self) -> Duration {
        Duration::from_millis(self.config.raft.election_timeout_ms * STALL_PERCENT / 100)
    }

    /// Whether the disk has taken nothing for too long.
    pub(super) fn on_disk_look(&mut self) {
        self.phase.disk_look_armed = false;
        let Some(since) = self.phase.disk_waits_since else { return };
        if self.now.mono.since(since) < self.stall_after() {
            return self.arm_disk_look(since);
        }
        if mutant!("node.storage.waits_for_ever") || self.phase.disk_stalled {
            return;
        }
        reach!("node.storage.stalled");
        self.phase.disk_stalled = true;
        self.notify(Notice::DiskStalled { stalled: true });
        self.give_up_leadership();
    }

    /// Whether this node should lead no group: another one can do it better.
    pub(super) const fn declines_leadership(&self) -> bool {
        self.phase.disk_full || self.phase.disk_stalled || self.phase.stopping
    }

    /// Gives leadership away, and again after a while for as long as this node declines it.
    fn give_up_leadership(&mut self) {
        self.transfer_leadership();
        self.arm_offer();
    }

    /// Arms the timer at which this node offers its leadership again. Another disk may be free by then. A node that
    /// stops has no time to lose.
    fn arm_offer(&mut self) {
        let timeout = Duration::from_millis(self.config.raft.election_timeout_ms);
        let timeouts = if self.phase.stopping { 1 } else { OFFER_TIMEOUTS };
        if !core::mem::replace(&mut self.phase.offer_armed, true) || self.phase.stopping {
            self.arm(timeout.saturating_mul(timeouts), Timer::OfferLeadership);
        }
    }

    pub(super) fn on_offer_due(&mut self) {
        self.phase.offer_armed = false;
        if self.phase.disk_full {
            // The state may have become small enough for a checkpoint.
            self.plan_for_full_disk();
        }
        if self.declines_leadership() {
            reach!("node.storage.offered_again");
            self.give_up_leadership();
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
        self.give_up_leadership();
        self.enqueue(Task::Gossip(gossip::Event::Leave));
        self.abort_founding(Reason::Stopping);
        // A logged write mostly commits within a round trip, also under the next leader.
        self.refuse_unlogged();
        self.arm(STOP_ANSWERS, Timer::StopEnds);
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
