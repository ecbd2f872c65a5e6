//! Law: no queue or table of a node grows past its stated limit, and no message carries more than its budget, because
//! its receiver must hold what it carries (`core::limits`, `core::config`).
//!
//! Compares sizes with limits: of messages as they leave, of queues with each link of the trace chain, since a queue
//! that outgrew its limit stays long enough to be seen. The bytes that wait for the disk are counted by the simulated
//! disk. The bytes that a node keeps count of are compared with the sum over all that it holds. At the end of a run
//! they are compared with the keys and values that it must hold, and with what the same node counts that starts from
//! the same disk: a count that is too low bounds nothing, and one that drifts up refuses writes for ever. It does not
//! measure the allocator.

use continuum_core::config::Config;
use continuum_core::discovery::CONTACTS_MAX;
use continuum_core::gossip::UPDATES_MAX;
use continuum_core::id::GroupId;
use continuum_core::limits::{
    DEFERRED_MAX, EXPORTS_MAX, MEMBERS_MAX, REQUEST_BYTES_MAX, REQUESTS_PENDING_MAX, SESSIONS_MAX,
    UNPERSISTED_BYTES_MAX,
};
use continuum_core::node::{Message, Node};
use continuum_core::raft::{self, Entry, Payload, Raft};
use continuum_core::replication::Message as Replication;
use continuum_core::state::Exports;

use crate::env::process::Process;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "bounded-memory";
/// Writes that wait for the disk; a write takes at least 64 bytes.
const WRITES_PENDING_MAX: usize = UNPERSISTED_BYTES_MAX / 64;
/// Messages and replies that wait for the disk.
const HELD_MAX: usize = 65_536 + REQUESTS_PENDING_MAX;
/// Snapshot files per owner of records: the current one, its replacement, and one being received.
const FILES_PER_OWNER: usize = 3;
/// A window of four pieces, what one slice may go past it, and a last piece without bytes.
const PIECES_MAX: usize = 7;

/// The configured limits of all nodes of a run.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    append_bytes: usize,
    delta_bytes: usize,
    updates: usize,
    memory_bytes: u64,
    uncommitted_bytes: usize,
    candidates: usize,
    chunk_bytes: usize,
    sessions: usize,
    requests: usize,
    export_bytes: u64,
}

impl Budgets {
    pub(crate) const fn of(config: &Config) -> Self {
        Self {
            append_bytes: config.raft.append_bytes_max,
            delta_bytes: config.replication.delta_bytes_max,
            updates: UPDATES_MAX,
            memory_bytes: config.node.memory_bytes_max,
            uncommitted_bytes: config.raft.uncommitted_bytes_max,
            candidates: config.discovery.candidates_max,
            chunk_bytes: config.bounds.chunk_bytes,
            sessions: config.bounds.sessions,
            requests: config.bounds.requests,
            export_bytes: config.bounds.export_bytes,
        }
    }

    /// The addresses that discovery may know.
    pub(crate) const fn candidates(&self) -> usize {
        self.candidates
    }
}

/// Judges one node.
pub(crate) fn check(process: &Process, budgets: &Budgets) -> Verdict {
    let Some(node) = &process.node else { return Ok(()) };
    within("writes that wait for the disk", process.disk.pending(), WRITES_PENDING_MAX)?;
    within("snapshot files", process.disk.snapshot_files(), FILES_PER_OWNER * owners(node))?;
    within("requests", process.requests.len(), REQUESTS_PENDING_MAX + SESSIONS_MAX)?;
    within("pending requests", node.requests(), budgets.requests)?;
    within("messages that wait for the disk", node.held(), HELD_MAX)?;
    let waits = process.disk.pending_bytes();
    within("bytes that wait for the disk", waits, 2 * UNPERSISTED_BYTES_MAX)?;
    let pieces = process.disk.pieces_of_a_file();
    within("pieces of a file that wait for the disk", pieces, PIECES_MAX)?;
    within("bytes of memory", node.memory_bytes() as usize, budgets.memory_bytes as usize)?;
    check_kept(node.memory_bytes(), node.recounted_memory_bytes())?;
    within("deferred removals of a shard", node.replicator().deferred_removals(), DEFERRED_MAX)?;
    within("addresses", node.discovery().known(), budgets.candidates)?;
    within("members", node.gossip().members().count(), MEMBERS_MAX)?;
    let exports = || node.groups().filter_map(|group| Some(node.state(group)?.exports()));
    let kept: u64 = exports().map(Exports::open_bytes).sum();
    within("bytes that exports keep", kept as usize, budgets.export_bytes as usize)?;
    within("exports", exports().map(Exports::len).max().unwrap_or(0), EXPORTS_MAX)?;
    for group in node.groups() {
        let sessions = node.state(group).map_or(0, |state| state.sessions().len());
        let most = if group == GroupId::REGISTRY { SESSIONS_MAX } else { budgets.sessions };
        within("sessions", sessions, most)?;
        let uncommitted = node.raft(group).map_or(0, Raft::uncommitted_bytes);
        within("uncommitted bytes", uncommitted, budgets.uncommitted_bytes + REQUEST_BYTES_MAX)?;
    }
    Ok(())
}

/// Judges the bytes that a node keeps count of by the sum over all its groups and shards.
fn check_kept(kept: u64, sum: u64) -> Verdict {
    if kept == sum {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{kept} bytes are counted, and the sum is {sum}")))
}

/// Judges a node's count of its memory by the length of all keys and values that it holds.
pub(crate) fn check_counted(counted: u64, content: u64) -> Verdict {
    if counted >= content {
        return Ok(());
    }
    let what = format!("{counted} bytes are counted, and the content alone has {content}");
    Err(Broken::new(NAME, what))
}

/// Judges the count of the eventual namespaces by that of a node which starts from the same disk.
pub(crate) fn check_restarted(counted: u64, restarted: u64) -> Verdict {
    if counted == restarted {
        return Ok(());
    }
    let what = format!("{counted} bytes are counted, and {restarted} after a restart");
    Err(Broken::new(NAME, what))
}

fn owners(node: &Node) -> usize {
    1 + node.groups().count() + node.replicator().shards().count()
}

/// Judges a message that leaves. An entry or a write that alone exceeds the budget travels alone.
pub(crate) fn check_message(budgets: &Budgets, message: &Message) -> Verdict {
    match message {
        Message::Raft { message: raft::Message::Append { entries, .. }, .. }
            if entries.len() > 1 =>
        {
            let bytes = entries.iter().map(payload).sum();
            within("bytes in an append", bytes, budgets.append_bytes)
        }
        Message::Raft { message: raft::Message::SnapshotChunk { data, .. }, .. } => {
            within("bytes in a chunk", data.len(), budgets.chunk_bytes)
        }
        Message::Replication {
            message: Replication::Delta { writes, .. } | Replication::Page { writes, .. },
            ..
        } if writes.len() > 1 => {
            let bytes = writes.iter().map(bytes::Bytes::len).sum();
            within("bytes of writes in a message", bytes, budgets.delta_bytes)
        }
        Message::Gossip { message, .. } => {
            within("updates", message.updates.len(), budgets.updates)
        }
        Message::Contacts(contacts) => within("contacts", contacts.len(), CONTACTS_MAX),
        _ => Ok(()),
    }
}

/// The payload bytes of an entry. `Entry::payload_bytes` is not used: a law must not share its judgement with the core.
const fn payload(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Command(command) => command.len(),
        Payload::Noop | Payload::Configuration(_) => 0,
    }
}

fn within(what: &str, found: usize, limit: usize) -> Verdict {
    if found <= limit {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{found} {what}; the limit is {limit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_allowed_is_seen() {
        assert_eq!(within("things", 3, 3), Ok(()));
        assert!(within("things", 4, 3).is_err());
    }

    #[test]
    fn a_count_that_is_too_low_or_drifts_is_seen() {
        assert_eq!((check_counted(90, 80), check_counted(90, 90)), (Ok(()), Ok(())));
        assert!(check_counted(79, 80).is_err());
        assert_eq!((check_kept(90, 90), check_restarted(90, 90)), (Ok(()), Ok(())));
        assert!(check_kept(89, 90).is_err() && check_kept(91, 90).is_err());
        assert!(check_restarted(91, 90).is_err() && check_restarted(90, 91).is_err());
    }
}
