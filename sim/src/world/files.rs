//! Syncs of snapshot files: when they begin, and how they end. This module does not hold the bytes (`env/disk`).

use continuum_core::node::Event;

use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::verdict::Verdict;

use super::World;
use super::dispatch::tag;
use super::event::WorldEvent;

impl World {
    /// Begins to write a node's queued pieces of snapshot files.
    pub(crate) fn sync_files(&mut self, node: usize) {
        if !self.processes[node].disk.begin_files() {
            return;
        }
        let process = &mut self.processes[node];
        process.file_syncs += 1;
        let (generation, k) = (process.generation, process.file_syncs);
        let cluster = &self.plan.cluster;
        let (low, high) = (cluster.sync_us_min * 1_000, cluster.sync_us_max * 1_000);
        let name = stream("disk.files", node as u64);
        let after = self.draws.between(name, k, low, high);
        self.schedule_in(after, WorldEvent::FilesSynced { node, generation });
    }

    /// A sync of snapshot files ends: all of its pieces are durable, or some had no room, or it fails.
    pub(super) fn files_synced(&mut self, node: usize, generation: u64) -> Verdict {
        if self.processes[node].generation != generation {
            return Ok(());
        }
        if let Some(until) = self.hangs_until(node) {
            self.fired.count(Kind::Hang);
            self.schedule_at(until + 1, WorldEvent::FilesSynced { node, generation });
            return Ok(());
        }
        if self.fails_sync(node) {
            return self.fail_sync(node);
        }
        let lies = self.is_active(Kind::FsyncLies, node) && self.may_break(node);
        let done = self.processes[node].disk.finish_files(lies);
        self.sync_files(node);
        for snapshot in done.failed {
            self.step(node, Event::FileFailed { snapshot }, tag::INFORMED, snapshot.0)?;
        }
        let number = done.number;
        self.step(node, Event::FilesWritten { number }, tag::PERSISTED, number)
    }
}
