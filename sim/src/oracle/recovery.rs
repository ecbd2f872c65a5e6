//! Law: a restarted replica has the term, the vote, the log and the dots that its disk held durably; it may also have a
//! prefix of the writes that were not synced (Raft, Figure 2: persistent state).
//!
//! Compares a node right after its restart with its simulated disk. It does not judge the loss of writes that a faulty
//! drive lost: these no longer count as durable.

use continuum_core::id::GroupId;
use continuum_core::node::Node;
use continuum_core::raft::Raft;

use super::ledger::GroupLedger;
use crate::format::dots::ExactDots;
use crate::verdict::{Broken, Verdict};

use crate::env::durable::{Durable, LogView};

pub(crate) const NAME: &str = "recovery";

/// The term, vote and log of a machine right after its restart.
pub(crate) fn view_of(raft: &Raft) -> LogView {
    let (first, last) = (raft.first(), raft.last().index);
    let indexes = (first.0..=last.0).map(continuum_core::id::Index);
    let terms = indexes.map_while(|index| raft.term_at(index)).collect();
    LogView::restored((raft.term(), raft.vote()), raft.base(), first, terms)
}

/// Judges a restored log against the disk.
pub(crate) fn check(durable: &Durable, group: GroupId, restored: &LogView) -> Verdict {
    let Some(expected) = durable.group(group) else { return Ok(()) };
    match expected.difference(restored) {
        None => Ok(()),
        Some(what) => Err(Broken::new(NAME, format!("group {group}: the disk held {what}"))),
    }
}

/// Judges that a restarted node holds every durable dot.
pub(crate) fn check_shards(durable: &Durable, node: &Node) -> Verdict {
    for (shard, dots) in durable.shards() {
        let found = node.replicator().context(shard).unwrap_or_default();
        if dots.beyond(&ExactDots::of(&found)).is_some() {
            let what = format!("{shard:?}: the disk held {dots:?}, and the node has {found:?}");
            return Err(Broken::new(NAME, what));
        }
    }
    Ok(())
}

/// Judges that every restored entry is one that some log held before.
pub(crate) fn check_known(ledger: &GroupLedger, raft: &Raft) -> Verdict {
    let mut index = raft.first();
    while let Some(entry) = raft.entry(index) {
        if ledger.known(index, entry.term).is_none_or(|known| known.entry != *entry) {
            let what = format!("the entry of term {} at {index} was never written", entry.term);
            return Err(Broken::new(NAME, what));
        }
        index = index.next();
    }
    Ok(())
}
