//! Long work in slices: what a delete covered is removed, what a deleted shard held is freed, and a shard is captured
//! for a checkpoint. A step does one slice of each, and is due again at once while there is more.
//!
//! This module does not decide what is removed or captured.

use crate::files::Piece;
use crate::id::{ShardId, SnapshotFile, SnapshotId};
use crate::machine::Outbox;
use crate::{mutant, reach};

use super::local::LocalShard;
use super::log::Write;
use super::log::checkpoint::Capture;
use super::{Action, Replicator};

impl Replicator {
    /// Enqueues a checkpoint, unless one of the shard waits already.
    pub(super) fn checkpoint(&mut self, id: ShardId, snapshot: SnapshotId) {
        if self.shards.contains_key(&id) && !self.captures.iter().any(|(shard, _)| *shard == id) {
            self.captures.push_back((id, snapshot));
        }
    }

    /// Whether a shard's checkpoint can do nothing until more of its file is durable, or until the shard is swept.
    pub(super) fn waits(&self, id: ShardId) -> bool {
        let Some(local) = self.shards.get(&id) else { return true };
        match &local.capture {
            Some(capture) => capture.waits(),
            None => local.shard.is_sweeping() && !mutant!("replication.checkpoint.unswept"),
        }
    }

    /// Whether something is yet to be removed or freed, which counts as memory until then.
    #[must_use]
    pub fn has_more_to_free(&self) -> bool {
        !self.sweeping.is_empty() || !self.graves.is_empty()
    }

    /// Removes some of what a delete covered, in one shard.
    pub(super) fn sweep(&mut self) {
        let Some(id) = self.sweeping.first().copied() else { return };
        let Some(local) = self.shards.get_mut(&id) else { return };
        local.shard.sweep(self.config.slices.swept);
        if !local.shard.is_sweeping() {
            self.sweeping.remove(&id);
        }
    }

    /// Frees some of what deleted shards held.
    pub(super) fn free(&mut self) {
        let Some(shard) = self.graves.front_mut() else { return };
        let before = shard.bytes();
        let is_empty = shard.free(self.config.slices.freed);
        let after = if is_empty { 0 } else { shard.bytes() };
        self.grave_bytes = self.grave_bytes + after - before;
        if is_empty {
            self.graves.pop_front();
        }
    }

    /// Notes what was done to a shard: a delete may have begun to sweep it.
    pub(super) fn note_sweep(&mut self, id: ShardId) {
        let is_sweeping = |local: &LocalShard| local.shard.is_sweeping();
        if self.shards.get(&id).is_some_and(is_sweeping) && self.sweeping.insert(id) {
            reach!("replication.shard.sweeps");
        }
    }

    /// Captures one slice of the checkpoint under way.
    pub(super) fn capture(&mut self, out: &mut Outbox<Action>) {
        let Some(&(id, snapshot)) = self.captures.front() else { return };
        if self.waits(id) {
            return;
        }
        let local = self.shards.get_mut(&id).expect("closing a shard drops its checkpoint");
        let LocalShard { shard, capture, .. } = local;
        let capture = capture.get_or_insert_with(|| Capture::new(shard));
        for (offset, data, is_last) in capture.slice(shard, self.config.capture_bytes) {
            let piece = Piece { snapshot, offset, data, is_last };
            out.push(Action::WriteFile { shard: id, piece });
        }
    }

    /// More of a checkpoint's file is durable. With all of it the checkpoint is done: a record names the file.
    pub(super) fn on_file_written(
        &mut self,
        snapshot: SnapshotId,
        bytes: u64,
        out: &mut Outbox<Action>,
    ) {
        let Some((id, local)) = self.captured(snapshot) else { return };
        let Some(done) = local.capture.as_mut().and_then(|capture| capture.written(bytes)) else {
            return;
        };
        reach!("replication.checkpoint.done");
        self.end_capture(id);
        let file = SnapshotFile { id: snapshot, length: done.length, digest: done.digest };
        if done.since > 0 {
            reach!("replication.checkpoint.written_since");
        }
        self.persist(id, Write::Snapshot { file, since: done.since }, out);
        out.push(Action::Checkpointed { shard: id, bytes: done.length });
    }

    /// The disk has no room for a checkpoint's file.
    pub(super) fn on_file_failed(&mut self, snapshot: SnapshotId) {
        if let Some((id, _)) = self.captured(snapshot) {
            self.end_capture(id);
        }
    }

    /// The shard that is captured in this file.
    fn captured(&mut self, snapshot: SnapshotId) -> Option<(ShardId, &mut LocalShard)> {
        let (id, _) = self.captures.front().copied().filter(|(_, file)| *file == snapshot)?;
        Some((id, self.shards.get_mut(&id)?))
    }

    fn end_capture(&mut self, id: ShardId) {
        self.captures.pop_front();
        if let Some(local) = self.shards.get_mut(&id) {
            local.capture = None;
        }
    }
}
