//! The effect of faults on nodes and links now, for the laws that hold while faults last.
//!
//! Only the plan, the network, the disks and the processes are asked, and a node's machine only whether it is still
//! unconfirmed, for as long as that may take after a start. `oracle::soundness` remembers since when a state lasts.
//! This module judges nothing.

use continuum_core::limits::START_WAIT_MS_MAX;
use continuum_core::node::{Action, Message, Node, Notice};
use continuum_core::raft;

use crate::env::clock::MS;
use crate::oracle::soundness::{Health, Picture, Way};
use crate::plan::fault::Kind;
use crate::verdict::Verdict;
use crate::world::World;

/// The kinds of fault after which a disk answers late or takes nothing.
const DISK: [Kind; 3] = [Kind::Hang, Kind::Stall, Kind::Full];
/// A process that starts is silent for this long at most.
const CONFIRMED_NS: u64 = (START_WAIT_MS_MAX + 1_000) * MS;
/// A process that was asked to stop has ended when this much time has passed.
const LEAVES_NS: u64 = 2_200 * MS;

impl World {
    /// Judges what has lasted for too long by now.
    pub(crate) fn look_at_spans(&mut self) -> Verdict {
        self.take_picture();
        self.oracles.look_at_spans(self.now, &self.processes)
    }

    /// Takes the picture anew for a step that some law compares with it.
    pub(crate) fn take_picture_for_step(&mut self) {
        let is_judged = |action: &Action| match action {
            Action::Reply { .. } | Action::Notify(Notice::Role { .. }) => true,
            Action::Send { message: Message::Raft { message, .. }, .. } => {
                matches!(message, raft::Message::PreVote { .. } | raft::Message::TimeoutNow { .. })
            }
            _ => false,
        };
        if self.unperformed().iter().any(is_judged) {
            self.take_picture();
        }
    }

    /// Shows the oracles the state of nodes and ways.
    pub(crate) fn take_picture(&mut self) {
        let count = self.processes.len();
        let Picture { mut nodes, mut ways, mut votes } = self.oracles.soundness.take_spare();
        nodes.extend((0..count).map(|node| self.health_of(node)));
        ways.resize(count, Vec::new());
        for (from, ways) in ways.iter_mut().enumerate() {
            ways.clear();
            ways.extend((0..count).map(|to| self.way(from, to)));
        }
        votes.extend((0..count).map(|node| self.votes(node)));
        self.oracles.soundness.see(self.now, Picture { nodes, ways, votes });
    }

    /// Whether a node votes, and keeps what it promises.
    fn votes(&self, node: usize) -> bool {
        let is_first = node < self.plan.cluster.voters;
        is_first && !self.survival[node].is_lost && !self.processes[node].has_foreign_store
    }

    fn health_of(&self, node: usize) -> Health {
        let process = &self.processes[node];
        if !process.is_up() || process.step_queue.stopped {
            return Health::Silent;
        }
        let stops = self.survival[node].asked_to_stop.is_some_and(|at| self.now < at + LEAVES_NS);
        let starts = !self.accepts_handshake(node) || self.is_unconfirmed(node);
        if !process.step_queue.is_open() || stops || starts || process.is_fenced() {
            return Health::Poor;
        }
        let generation = process.generation;
        let mut faults = self.plan.faults.iter().zip(&self.active);
        let is_struck =
            faults.any(|(f, active)| *active && DISK.contains(&f.kind) && f.strikes(node));
        if is_struck || process.disk.has_failed() {
            Health::Disk(generation)
        } else {
            Health::Well(generation)
        }
    }

    /// Whether a process is silent because the voters have not confirmed it yet. That takes no longer than it may.
    fn is_unconfirmed(&self, node: usize) -> bool {
        let is_young = self.now < self.survival[node].started_at + CONFIRMED_NS;
        is_young && self.processes[node].node.as_ref().is_some_and(Node::is_suspended)
    }

    fn way(&self, from: usize, to: usize) -> Way {
        match (self.network.is_cut(from, to), self.network.epoch(from, to)) {
            (true, _) => Way::Cut,
            (false, Some(epoch)) if self.network.is_clean(from, to, self.now) => Way::Sound(epoch),
            _ => Way::Poor,
        }
    }
}
