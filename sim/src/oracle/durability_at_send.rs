//! Durability at send: whatever a message promises, the sender's disk would recover to it now (Raft, §5.2 and Figure 2;
//! the design's rule "persist before you promise").
//!
//! The disk keeps what it has synced as a view that grows with each sync, so a promise is looked up, not replayed.

use continuum_core::api::{Level, Outcome};
use continuum_core::id::{Dot, GroupId, Replica, ShardId};
use continuum_core::raft::{self, Promise};
use continuum_core::replication::{self, Dots};

use crate::env::durable::{Durable, LogView};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "durability-at-send";

/// A replica of a group sends.
pub(crate) fn check_raft(
    durable: &Durable,
    me: Replica,
    receiver: Option<Replica>,
    group: GroupId,
    message: &raft::Message,
) -> Verdict {
    let nothing = LogView::default();
    let view = durable.group(group).unwrap_or(&nothing);
    let holds = match message {
        raft::Message::Vote { term, .. } => {
            view.term > *term || (view.term == *term && view.vote == Some(me))
        }
        raft::Message::Append { term, .. } | raft::Message::Heartbeat { term, .. } => {
            view.term >= *term
        }
        _ => match message.promise() {
            None => true,
            Some(Promise::Vote { term }) => {
                view.term > term || (view.term == term && view.vote == receiver)
            }
            Some(Promise::Append { term, matched }) => {
                view.term > term || (view.term == term && view.holds(matched))
            }
            Some(Promise::Snapshot { position, bytes }) => {
                bytes == 0 || view.base.index >= position.index || durable.has_file_of(bytes)
            }
        },
    };
    if holds {
        return Ok(());
    }
    let what = format!(
        "group {group}: {message:?} leaves, and the disk holds term {}, vote {:?}, last {:?}, base {:?}",
        view.term,
        view.vote,
        view.last(),
        view.base
    );
    Err(Broken::new(NAME, what))
}

/// A replica of a shard sends: the dots that it claims are on its disk.
pub(crate) fn check_replication(durable: &Durable, message: &replication::Message) -> Verdict {
    if durable.is_forgotten(message.shard()) {
        return Ok(());
    }
    check_writes(durable, message)?;
    let Some(promise) = message.promise().filter(|promise| !promise.held.is_empty()) else {
        return Ok(());
    };
    let on_disk = durable.shard(promise.shard);
    if on_disk.is_some_and(|on_disk| promise.held.is_subset(on_disk)) {
        return Ok(());
    }
    let what = format!("{:?} leaves, and the disk holds {on_disk:?}", promise);
    Err(Broken::new(NAME, what))
}

/// Writes name what they supersede, so nobody hears of a write before its sender's disk has it.
fn check_writes(durable: &Durable, message: &replication::Message) -> Verdict {
    let (replication::Message::Delta { shard, writes }
    | replication::Message::Page { shard, writes, .. }) = message
    else {
        return Ok(());
    };
    let on_disk = durable.shard(*shard);
    let lacks = |dot: &Dot| on_disk.is_none_or(|on_disk| !on_disk.contains(dot));
    match writes.iter().filter_map(replication::dot_of).find(lacks) {
        None => Ok(()),
        Some(dot) => {
            let what = format!("{dot:?} is sent to others, and the disk holds {on_disk:?}");
            Err(Broken::new(NAME, what))
        }
    }
}

/// A client is told that its write to a shard is durable here: the dots that it may show others are on the disk.
pub(crate) fn check_reply(durable: &Durable, shard: ShardId, outcome: &Outcome) -> Verdict {
    let Outcome::Committed { level, receipt } = outcome else { return Ok(()) };
    let Some(context) = receipt.context.as_ref().filter(|_| *level >= Level::Durable) else {
        return Ok(());
    };
    let nothing = Dots::default();
    let on_disk = durable.shard(shard).unwrap_or(&nothing);
    match context.dots.iter().find(|dot| !on_disk.contains(dot)) {
        None => Ok(()),
        Some(dot) => {
            let what = format!("a client is told of {dot:?}, and the disk holds {on_disk:?}");
            Err(Broken::new(NAME, what))
        }
    }
}
