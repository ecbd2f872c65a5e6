//! Which store a node has: wiped, rolled back, or replaced by its operator.
//!
//! An operator replaces a void store: the node gets an empty data directory and with it a new [`StoreId`]. A learner
//! returns that way. A voter returns as a learner, because its node votes with another store, and some operators leave
//! it switched off; either way its vote is lost.
//!
//! A store that is older than what it promised looks sound to its own process; peers must notice it by its boot and
//! by the boots that it names. Peers would let it in if none of them could tell it from a restarted one. So an older
//! copy of a voter's disk is put in place only while the disk of every other node has a later boot of it. It is
//! removed when a peer starts whose disk has none, because it was wiped. Peers that restart must still refuse it.

use continuum_core::api::Request;
use continuum_core::id::{NodeId, StoreId};

use crate::env::clock::MS;
use crate::env::disk::{Backup, Fate};
use crate::env::process::{Process, address_of};
use crate::env::requester::Requester;
use crate::oracle::fencing;
use crate::plan::fault::{Fault, Kind};
use crate::rng::{Draws, stream};
use crate::verdict::{Broken, Verdict};
use crate::world::{World, WorldEvent};

/// If no peer notices an older store, an operator does within this time, in milliseconds.
const NOTICED_MS: (u64, u64) = (12_000, 30_000);

/// A copy of a node's disk, with the process and the store that it was taken from.
#[derive(Debug)]
pub(crate) struct DiskCopy {
    generation: u64,
    losses: u64,
    store: StoreId,
    backup: Backup,
}

/// Sixteen random bytes, the last one given.
pub(crate) fn wide(draws: Draws, label: &str, number: usize, last: u8) -> [u8; 16] {
    let mut id = [0; 16];
    let name = stream(label, number as u64);
    id[..8].copy_from_slice(&draws.bits(name, 0).to_be_bytes());
    id[8..].copy_from_slice(&draws.bits(name, 1).to_be_bytes());
    id[15] = last;
    id
}

/// The id of a node.
pub(crate) fn node_id(draws: Draws, number: usize) -> NodeId {
    NodeId(wide(draws, "node", number, number as u8))
}

/// The id of a node's store after this many losses.
pub(crate) fn store_id(draws: Draws, number: usize, losses: u64) -> StoreId {
    StoreId(wide(draws, "store", number + 256 * losses as usize, number as u8))
}

impl World {
    /// Whether faults that break the model may strike this node: the federation is set up, and the node is still part
    /// of it.
    pub(crate) fn may_break(&self, node: usize) -> bool {
        let survival = &self.survival[node];
        let has_started = self.processes[node].generation > 0;
        self.operator.is_open() && has_started && !survival.is_lost && !survival.is_dead
    }

    /// Deletes the data directory of a node.
    pub(crate) fn wipe(&mut self, node: usize) {
        if self.may_break(node) {
            self.fired.count(Kind::Wipe);
            self.end_silently(node);
            self.lose(node);
            self.give_empty_store(node);
        }
    }

    /// Gives a node an empty data directory.
    fn give_empty_store(&mut self, node: usize) {
        let survival = &mut self.survival[node];
        survival.is_untrusted = false;
        let (losses, renewals) = (survival.losses, survival.renewals);
        let is_foreign = survival.is_lost;
        // Losses are few, so that the stores of renewals are others.
        let store = store_id(self.draws, node, losses + 1_000 * renewals);
        self.processes[node].replace_store(store, is_foreign);
        // The old store was in use, and acknowledged writes, until now.
        let survival = &mut self.survival[node];
        (survival.lost_at, survival.emptied_at) = (Some(self.now), Some(self.now));
        self.oracles.writes.disk_gone(node);
    }

    /// Another operator founds a federation, unless the plan's has been set up.
    pub(crate) fn found_beside(&mut self, fault: &Fault) {
        let Some((founder, others)) = fault.nodes.split_first() else { return };
        let (node, generation) = (*founder, self.processes[*founder].generation);
        if self.operator.is_open() || !self.processes[node].is_up() {
            return;
        }
        self.fired.count(Kind::RivalFounding);
        let voters = others.iter().map(|other| address_of(*other)).collect();
        let request = Request::Init { voters };
        self.schedule_in(MS, WorldEvent::Request { node, requester: Requester::Rival, request });
        if fault.amount > 0 {
            let after = fault.amount.unsigned_abs() * MS;
            self.schedule_in(after, WorldEvent::EndFounder { node, generation });
        }
    }

    /// The operators keep one federation: the nodes of every other one get empty data directories. So do those that
    /// wait for the word of a founder whose data directory is gone, until the setup is done. A learner's rival may
    /// outlast the setup, which needs the voters alone.
    pub(crate) fn end_rivals(&mut self) {
        let lasting = self.plan.faults.iter().zip(&self.active);
        if lasting.into_iter().any(|(fault, active)| *active && fault.kind == Kind::RivalFounding) {
            return;
        }
        let main = self.oracles.geneses.main();
        for node in 0..self.processes.len() {
            let durable = &self.processes[node].disk.durable;
            let is_rival = durable.genesis.is_some_and(|genesis| Some(genesis) != main);
            let waits_for_nobody = durable.awaited_founder().is_some_and(|founder| {
                self.processes.iter().all(|process| process.replica != founder)
            });
            if !is_rival && (!waits_for_nobody || self.operator.is_open()) {
                continue;
            }
            self.end_silently(node);
            self.survival[node].renewals += 1;
            self.give_empty_store(node);
            let replica = self.processes[node].replica;
            self.oracles.roster.renew(node, replica);
            self.oracles.geneses.renewed(replica);
            self.schedule_in(MS, WorldEvent::Start { node });
        }
    }

    /// The operator of a node whose process has ended replaces its void store, or, for half of the lost voters, leaves
    /// it switched off.
    pub(crate) fn replace_void_store(&mut self, node: usize) {
        if self.survival[node].is_lost && self.draw_of("mend.dead", node, 2) == 0 {
            self.survival[node].is_dead = true;
            return;
        }
        self.give_empty_store(node);
        let after = self.draw_of("mend.after", node, 5_000 * MS);
        self.schedule_in(after, WorldEvent::Start { node });
    }

    /// A restart finds the store void.
    pub(crate) fn refuse_store(&mut self, node: usize) {
        for kind in self.processes[node].disk.damaged_by() {
            self.fired.count(kind);
        }
        self.lose(node);
        self.replace_void_store(node);
    }

    /// The drive lost what it had reported, and nobody knows. A voter that continued from there could vote twice in a
    /// term, so its drive is replaced.
    pub(crate) fn took_back(&mut self, node: usize) {
        self.fired.count(Kind::FsyncLies);
        self.lose(node);
        if self.survival[node].is_lost {
            self.replace_void_store(node);
        } else {
            self.mark_untrusted(node);
        }
    }

    /// The store is older than what it promised, and an operator notices later.
    fn mark_untrusted(&mut self, node: usize) {
        self.survival[node].is_untrusted = true;
        let losses = self.survival[node].losses;
        let (low, high) = NOTICED_MS;
        let after = (low + self.draw_of("mend.noticed", node, high - low)) * MS;
        self.schedule_in(after, WorldEvent::OldStoreNoticed { node, losses });
    }

    /// The operator notices an older store.
    pub(crate) fn notice_old_store(&mut self, node: usize, losses: u64) {
        let survival = &self.survival[node];
        if survival.is_untrusted && survival.losses == losses {
            self.end_silently(node);
            // A voter's store was replaced when its process ended.
            if self.survival[node].is_untrusted {
                self.replace_void_store(node);
            }
        }
    }

    /// Stops the process for a moment and copies its disk.
    pub(crate) fn keep_backup(&mut self, fault: usize, node: usize) {
        if !self.may_break(node) || !self.processes[node].is_up() {
            return;
        }
        let Process { generation, replica, .. } = self.processes[node];
        let (losses, store) = (self.survival[node].losses, replica.store);
        self.end_silently(node);
        if self.survival[node].losses == losses {
            let backup = self.processes[node].disk.backup();
            self.backups.insert(fault, DiskCopy { generation, losses, store, backup });
            self.schedule_in(MS, WorldEvent::Start { node });
        }
    }

    /// Starts the process from the copy.
    pub(crate) fn roll_back(&mut self, fault: usize, node: usize) {
        let Some(DiskCopy { generation, losses, store, backup }) = self.backups.remove(&fault)
        else {
            return;
        };
        // An older store that was noticed may have been replaced without another loss.
        let is_as_kept = |world: &Self| {
            let is_same = world.processes[node].replica.store == store;
            is_same && world.survival[node].losses == losses
        };
        let restarted =
            self.processes[node].is_up() && self.processes[node].generation > generation;
        let votes = node < self.plan.cluster.voters;
        if !restarted || !is_as_kept(self) || votes && !self.is_known_to_all(node) {
            return;
        }
        self.end_silently(node);
        if !is_as_kept(self) {
            return;
        }
        self.fired.count(Kind::Rollback);
        self.lose(node);
        self.survival[node].lost_boot = self.processes[node].boot.count;
        self.processes[node].disk.roll_back(backup);
        self.mark_untrusted(node);
        self.schedule_in(MS, WorldEvent::Start { node });
    }

    /// Whether a supervisor starts a voter again from an older store, before its operator notices. Its peers must
    /// refuse it again.
    pub(crate) fn restarts_untrusted(&mut self, node: usize) -> bool {
        let process = &self.processes[node];
        if process.disk.is_condemned || process.disk.is_lying() {
            return false;
        }
        let name = stream("rollback.again", node as u64);
        let again = self.draws.chance(name, process.generation, 700_000);
        if again {
            self.schedule_in(MS, WorldEvent::Start { node });
        }
        again
    }

    /// Whether the disk of every other node has the present boot of this node.
    fn is_known_to_all(&self, node: usize) -> bool {
        let (boot, replica) = (self.processes[node].boot, self.processes[node].replica);
        let mut others = (0..self.processes.len()).filter(|other| *other != node);
        others.all(|other| self.processes[other].disk.durable.welcomed(replica) == Some(boot))
    }

    /// Whether a voter would start from an older store beside a peer whose disk has no later boot of it.
    pub(crate) fn is_old_unknown(&self, node: usize) -> bool {
        let (survival, replica) = (self.survival[node], self.processes[node].replica);
        let knows = |other: usize| {
            let known = self.processes[other].disk.durable.welcomed(replica);
            known.is_some_and(|known| known.count >= survival.lost_boot)
        };
        let mut others = (0..self.processes.len()).filter(|other| *other != node);
        survival.is_lost && survival.is_untrusted && !others.all(knows)
    }

    /// A process starts. If its disk has no boot of a voter, that voter must not continue from an older store.
    pub(crate) fn stop_untrusted_voters(&mut self, starts: usize) {
        for node in 0..self.processes.len() {
            let known = self.processes[starts].disk.durable.welcomed(self.processes[node].replica);
            let is_later = known.is_some_and(|known| known.count >= self.survival[node].lost_boot);
            if node != starts && !is_later && self.runs_untrusted(node) {
                self.end_silently(node);
                if self.survival[node].is_untrusted {
                    self.replace_void_store(node);
                }
            }
        }
    }

    /// A node fenced itself: its process exits in a moment.
    pub(crate) fn on_fenced(&mut self, node: usize, why: &str) -> Verdict {
        let process = &self.processes[node];
        if !process.disk.has_failed() && !self.survival[node].is_untrusted {
            let what = format!("node {node} fences itself although its store is sound: {why}");
            return Err(Broken::new(fencing::NAME, what));
        }
        let generation = process.generation;
        let name = stream("fence.exit", node as u64);
        let after = self.draws.below(name, generation, 200 * MS);
        self.schedule_in(after, WorldEvent::Exit { node, generation });
        Ok(())
    }

    /// A fenced process exits and is started again. If peers refused an older store, the operator notices now.
    pub(crate) fn exit(&mut self, node: usize, generation: u64) -> Verdict {
        let process = &self.processes[node];
        if process.generation != generation || !process.is_up() {
            return Ok(());
        }
        let losses = self.survival[node].losses;
        if self.survival[node].is_untrusted && !process.disk.has_failed() {
            if !process.disk.is_condemned {
                let what = format!("peers refused node {node}, and its store may start again");
                return Err(Broken::new(fencing::NAME, what));
            }
            self.notice_old_store(node, losses);
            return Ok(());
        }
        if self.survival[node].is_untrusted {
            self.notice_old_store(node, losses);
            return Ok(());
        }
        self.end_silently(node);
        let name = stream("fence.restart", node as u64);
        let after = self.draws.between(name, generation, 100 * MS, 5_000 * MS);
        self.schedule_in(after, WorldEvent::Start { node });
        Ok(())
    }

    /// Ends a process; everything it had written stays on its disk.
    pub(crate) fn end_silently(&mut self, node: usize) {
        if self.processes[node].is_up() {
            self.end(node, Fate::Kept);
        }
    }
}
