//! Which store a node has: deleted, rolled back, replaced by its operator.
//!
//! A store that is void is mended as an operator would: the node gets an empty data directory, and with it a new
//! [`StoreId`]. A learner comes back by that. A voter is refused, since its node votes with another store; some
//! operators leave it switched off. Either way it is lost.
//!
//! A store that is older than what it promised looks sound to its own process. The peers are to notice by its boot. A
//! process that none of its peers could tell from a restarted one would be let in, so an older copy of a voter's disk
//! is put in place only while every living peer has met a later boot, and is taken away when a process starts that has
//! not: boots are remembered by processes, not by disks.

use continuum_core::id::{NodeId, StoreId};

use crate::env::clock::MS;
use crate::env::disk::{Backup, Fate};
use crate::env::process::Process;
use crate::oracle::fencing;
use crate::plan::fault::Kind;
use crate::rng::{Draws, stream};
use crate::verdict::{Broken, Verdict};
use crate::world::{Happening, World};

/// An operator notices an older store within so many milliseconds, if no peer does.
const NOTICED_MS: (u64, u64) = (12_000, 30_000);

/// A copy of a node's disk, and the process and store that it was taken from.
#[derive(Debug)]
pub(crate) struct Kept {
    life: u64,
    losses: u64,
    store: StoreId,
    backup: Backup,
}

/// Sixteen bytes that are drawn, but for the last.
pub(crate) fn wide(draws: Draws, label: &str, number: usize, last: u8) -> [u8; 16] {
    let mut id = [0; 16];
    let name = stream(label, number as u64);
    id[..8].copy_from_slice(&draws.bits(name, 0).to_be_bytes());
    id[8..].copy_from_slice(&draws.bits(name, 1).to_be_bytes());
    id[15] = last;
    id
}

/// The number of a node.
pub(crate) fn node_id(draws: Draws, number: usize) -> NodeId {
    NodeId(wide(draws, "node", number, number as u8))
}

/// The so many-th store of a node.
pub(crate) fn store_id(draws: Draws, number: usize, losses: u64) -> StoreId {
    StoreId(wide(draws, "store", number + 256 * losses as usize, number as u8))
}

impl World {
    /// Whether what breaks the model may strike this node: the federation is set up, and the node is still of it.
    pub(crate) fn may_break(&self, node: usize) -> bool {
        let stand = &self.standing[node];
        let has_started = self.processes[node].life > 0;
        self.operator.is_open() && has_started && !stand.is_lost && !stand.is_dead
    }

    /// The data directory of a node is deleted.
    pub(crate) fn wipe(&mut self, node: usize) {
        if self.may_break(node) {
            self.fired.count(Kind::Wipe);
            self.end_silently(node);
            self.lose(node);
            self.renew(node);
        }
    }

    /// A node gets an empty data directory.
    fn renew(&mut self, node: usize) {
        let stand = &mut self.standing[node];
        stand.is_untrusted = false;
        let (losses, is_stranger) = (stand.losses, stand.is_lost);
        let store = store_id(self.draws, node, losses);
        self.processes[node].renew(store, is_stranger);
        self.oracles.writes.disk_gone(node);
    }

    /// The operator of a node whose process has ended, and whose store is void, mends it.
    pub(crate) fn mend(&mut self, node: usize) {
        if self.standing[node].is_lost && self.draw_of("mend.dead", node, 2) == 0 {
            self.standing[node].is_dead = true;
            return;
        }
        self.renew(node);
        let after = self.draw_of("mend.after", node, 5_000 * MS);
        self.plan_in(after, Happening::Start { node });
    }

    /// A restart finds the store void.
    pub(crate) fn refuse_store(&mut self, node: usize) {
        for kind in self.processes[node].disk.damaged_by() {
            self.fired.count(kind);
        }
        self.lose(node);
        self.mend(node);
    }

    /// The drive took back what it had reported. Nobody knows; a voter that went on from there could vote again in a
    /// term in which it has voted, so its drive is gone for good.
    pub(crate) fn took_back(&mut self, node: usize) {
        self.fired.count(Kind::FsyncLies);
        self.lose(node);
        if self.standing[node].is_lost {
            self.mend(node);
        } else {
            self.distrust(node);
        }
    }

    /// The store is older than it should be, and is found out after a while.
    fn distrust(&mut self, node: usize) {
        self.standing[node].is_untrusted = true;
        let losses = self.standing[node].losses;
        let (low, high) = NOTICED_MS;
        let after = (low + self.draw_of("mend.noticed", node, high - low)) * MS;
        self.plan_in(after, Happening::Mend { node, losses });
    }

    /// The operator notices an older store.
    pub(crate) fn notice(&mut self, node: usize, losses: u64) {
        let stand = &self.standing[node];
        if stand.is_untrusted && stand.losses == losses {
            self.end_silently(node);
            // A voter was mended as its process ended.
            if self.standing[node].is_untrusted {
                self.mend(node);
            }
        }
    }

    /// The process ends for a moment, and its disk is copied.
    pub(crate) fn keep_backup(&mut self, fault: usize, node: usize) {
        if !self.may_break(node) || !self.processes[node].is_up() {
            return;
        }
        let Process { life, replica, .. } = self.processes[node];
        let (losses, store) = (self.standing[node].losses, replica.store);
        self.end_silently(node);
        if self.standing[node].losses == losses {
            let backup = self.processes[node].disk.backup();
            self.backups.insert(fault, Kept { life, losses, store, backup });
            self.plan_in(MS, Happening::Start { node });
        }
    }

    /// The process starts from the copy.
    pub(crate) fn roll_back(&mut self, fault: usize, node: usize) {
        let Some(Kept { life, losses, store, backup }) = self.backups.remove(&fault) else {
            return;
        };
        // A store that was noticed to be an older one may have been replaced without another loss.
        let is_as_kept = |world: &Self| {
            let is_same = world.processes[node].replica.store == store;
            is_same && world.standing[node].losses == losses
        };
        let restarted = self.processes[node].is_up() && self.processes[node].life > life;
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
        self.processes[node].disk.roll_back(backup);
        self.distrust(node);
        self.plan_in(MS, Happening::Start { node });
    }

    /// Whether every other living process has met the present boot of this one.
    fn is_known_to_all(&self, node: usize) -> bool {
        let Process { boot, replica, .. } = self.processes[node];
        let mut others = (0..self.processes.len()).filter(|other| *other != node);
        others.all(|other| {
            let is_up = self.processes[other].is_up();
            !is_up || self.oracles.let_in(other, replica.node) == Some(boot)
        })
    }

    /// A process starts, and remembers no boots: no voter may go on from an older store beside it.
    pub(crate) fn end_imposters(&mut self) {
        for node in 0..self.processes.len() {
            if self.is_imposing(node) {
                self.end_silently(node);
            }
        }
    }

    /// A node went silent for good: its process ends in a moment.
    pub(crate) fn on_fenced(&mut self, node: usize, why: &str) -> Verdict {
        let process = &self.processes[node];
        if !process.disk.has_failed() && !self.standing[node].is_untrusted {
            let what = format!("node {node} fences itself, and its store is sound: {why}");
            return Err(Broken::new(fencing::NAME, what));
        }
        let life = process.life;
        let name = stream("fence.exit", node as u64);
        let after = self.draws.below(name, life, 200 * MS);
        self.plan_in(after, Happening::Exit { node, life });
        Ok(())
    }

    /// A process ends by itself, and is started again; one that its peers refuse is found out by that.
    pub(crate) fn exit(&mut self, node: usize, life: u64) {
        if self.processes[node].life != life || !self.processes[node].is_up() {
            return;
        }
        let losses = self.standing[node].losses;
        if self.standing[node].is_untrusted {
            return self.notice(node, losses);
        }
        self.end_silently(node);
        let name = stream("fence.restart", node as u64);
        let after = self.draws.between(name, life, 100 * MS, 5_000 * MS);
        self.plan_in(after, Happening::Start { node });
    }

    /// The process of a node ends, and what it had written is on its disk.
    pub(crate) fn end_silently(&mut self, node: usize) {
        if self.processes[node].is_up() {
            self.end(node, Fate::Kept);
        }
    }
}
