//! Snapshot files: hands pieces to the disk, and tells the owner of a file what became of it.
//!
//! This module does not capture states (`apply`, and the replicator) and does not decide what a complete file replaces
//! (`checkpoint`, and each Raft machine).

use core::mem;
use core::time::Duration;

use crate::files::{Piece, Written};
use crate::id::{Owner, SnapshotId};
use crate::{raft, reach, replication};

use super::Action;
use super::machine::{Node, Task, Timer};

/// How long no checkpoint begins after the disk had no room for a file. The disk may get room without a report: a
/// deletion makes the state smaller.
const NO_ROOM: Duration = Duration::from_secs(5);

impl Node {
    /// Hands a piece of a snapshot file to the disk.
    pub(super) fn write_file(&mut self, owner: Owner, piece: Piece) {
        let number = self.files.issue(owner, &piece);
        self.emit(Action::WriteFile { number, piece });
    }

    /// Deletes a file that no record names, if there is one under this name.
    pub(super) fn drop_file(&mut self, snapshot: SnapshotId) {
        if self.files.drop_file(snapshot).is_some() {
            reach!("node.files.dropped");
            self.emit(Action::Discard { snapshot });
        }
    }

    /// Deletes all files of an owner that no record names.
    pub(super) fn drop_files_of(&mut self, owner: Owner) {
        while let Some(snapshot) = { self.files.of(owner).next() } {
            self.drop_file(snapshot);
        }
    }

    /// Pieces became durable.
    pub(super) fn on_files_written(&mut self, number: u64) {
        let mut written = mem::take(&mut self.written);
        self.files.written(number, &mut written);
        for file in written.drain(..) {
            let Written { owner, snapshot, bytes, is_whole } = file;
            match owner {
                Owner::Group(group) if raft::is_received(snapshot) => {
                    let event = raft::Event::FileWritten { id: snapshot, bytes };
                    self.enqueue(Task::Raft(group, event));
                }
                Owner::Group(group) if is_whole => self.on_captured_file(group, snapshot),
                Owner::Shard(_) => {
                    let event = replication::Event::FileWritten { snapshot, bytes };
                    self.enqueue(Task::Replication(event));
                }
                Owner::Group(_) | Owner::Node => {}
            }
        }
        self.written = written;
    }

    /// The disk has no room for a file.
    pub(super) fn on_file_failed(&mut self, snapshot: SnapshotId) {
        let Some(owner) = self.files.drop_file(snapshot) else { return };
        reach!("node.files.failed");
        // The disk takes no piece of a file of this name until it has heard this.
        self.emit(Action::Discard { snapshot });
        match owner {
            Owner::Group(group) if raft::is_received(snapshot) => {
                return self.enqueue(Task::Raft(group, raft::Event::FileFailed { id: snapshot }));
            }
            Owner::Group(group) => self.end_capture_in(group, snapshot),
            Owner::Shard(_) => {
                let event = replication::Event::FileFailed { snapshot };
                self.enqueue(Task::Replication(event));
            }
            Owner::Node => {}
        }
        self.checkpoints.no_room_for(owner);
        self.arm(NO_ROOM, Timer::Checkpoint);
    }
}
