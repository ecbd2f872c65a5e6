//! Law: when a message or a reply makes a promise, the sender's disk already holds what it promises (Raft, §5.2 and
//! Figure 2; README, Guarantees: a promise leaves a node after its disk has it).
//!
//! This file recognises promises by itself, and compares each with what the sender's simulated disk would recover to
//! now. The disk keeps its synced writes as a view that grows with each sync, so a promise is looked up, not replayed.
//! It does not judge messages that promise nothing, nor promises about shards that the disk has forgotten. A promise of
//! a deleted group is compared with what the disk held of the group when it deleted it; its snapshot files are gone,
//! and are not asked for.

use continuum_core::api::{Level, Outcome};
use continuum_core::id::{Dot, GroupId, Replica, ShardId};
use continuum_core::raft;
use continuum_core::replication::{self, Dots};

use crate::env::durable::{Durable, LogView};
use crate::format::dots::ExactDots;
use crate::format::shard;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "durability-at-send";

/// Judges a message of a group's replica.
pub(crate) fn check_raft(
    durable: &Durable,
    me: Replica,
    receiver: Option<Replica>,
    group: GroupId,
    message: &raft::Message,
) -> Verdict {
    let nothing = LogView::default();
    let view = durable.group_ever(group).unwrap_or(&nothing);
    let holds = match message {
        raft::Message::Vote { term, .. } => {
            view.term > *term || (view.term == *term && view.vote == Some(me))
        }
        raft::Message::Append { term, .. } | raft::Message::Heartbeat { term, .. } => {
            view.term >= *term
        }
        raft::Message::VoteReply { term, granted: true } => {
            view.term > *term || (view.term == *term && view.vote == receiver)
        }
        raft::Message::AppendAck { term, matched } => {
            view.term > *term || (view.term == *term && view.holds(*matched))
        }
        raft::Message::SnapshotAck { position, bytes: Some(bytes), .. } => {
            let has_file = || durable.has_file_of(*bytes) || durable.is_deleted(group);
            *bytes == 0 || view.base.index >= position.index || has_file()
        }
        _ => true,
    };
    if holds {
        return Ok(());
    }
    let what = format!(
        "group {group}: {message:?} leaves before its promise is durable: the disk holds term {}, vote {:?}, \
         last {:?}, base {:?}",
        view.term,
        view.vote,
        view.last(),
        view.base
    );
    Err(Broken::new(NAME, what))
}

/// Judges a message of a shard's replica: the dots that it claims to hold are on its disk.
pub(crate) fn check_replication(durable: &Durable, message: &replication::Message) -> Verdict {
    // A message about all shards carries roots, which promise nothing.
    let Some(shard) = message.shard().filter(|shard| !durable.is_forgotten(*shard)) else {
        return Ok(());
    };
    check_writes(durable, message)?;
    let Some(held) = held_by(message).filter(|held| !held.is_empty()) else { return Ok(()) };
    let on_disk = durable.shard(shard);
    if on_disk.is_some_and(|on_disk| on_disk.lacking(held).is_none()) {
        return Ok(());
    }
    let what = format!("{message:?} leaves before it is durable: the disk holds {on_disk:?}");
    Err(Broken::new(NAME, what))
}

/// The dots that the sender of a message claims to hold. The core has a function for this too. That function decides
/// what waits for the disk, so it is not asked.
const fn held_by(message: &replication::Message) -> Option<&Dots> {
    match message {
        replication::Message::Ack { held, .. } => Some(held),
        replication::Message::Pull { context, .. } => Some(context),
        replication::Message::View { view, .. } => Some(&view.context),
        _ => None,
    }
}

/// Judges the writes that a message carries. Writes name what they supersede, so no peer may learn of a write before
/// its sender's disk has it.
fn check_writes(durable: &Durable, message: &replication::Message) -> Verdict {
    let (replication::Message::Delta { shard, writes }
    | replication::Message::Page { shard, writes, .. }) = message
    else {
        return Ok(());
    };
    let on_disk = durable.shard(*shard);
    let lacks = |dot: &Dot| on_disk.is_none_or(|on_disk| !on_disk.contains(dot));
    match writes.iter().filter_map(|write| shard::dot_in(write)).find(lacks) {
        None => Ok(()),
        Some(dot) => {
            let what = format!(
                "{dot:?} is sent to a peer before it is durable: the disk holds {on_disk:?}"
            );
            Err(Broken::new(NAME, what))
        }
    }
}

/// Judges a reply that calls a write to a shard durable: the dots that the client may show to other nodes are on the
/// disk.
pub(crate) fn check_reply(durable: &Durable, shard: ShardId, outcome: &Outcome) -> Verdict {
    let Outcome::Committed { level, receipt } = outcome else { return Ok(()) };
    let Some(context) = receipt.context.as_ref().filter(|_| *level >= Level::Durable) else {
        return Ok(());
    };
    let nothing = ExactDots::default();
    let on_disk = durable.shard(shard).unwrap_or(&nothing);
    let seen = context.peek().unwrap_or_default();
    match seen.dots.iter().find(|dot| !on_disk.contains(dot)) {
        None => Ok(()),
        Some(dot) => {
            let what = format!(
                "a client is told of {dot:?} before it is durable: the disk holds {on_disk:?}"
            );
            Err(Broken::new(NAME, what))
        }
    }
}
