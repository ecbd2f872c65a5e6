//! Law: the entry up to which a replica counts its log as durable is on its disk, with the term that it has in the log
//! now (README, Guarantees: a promise leaves a node after its disk has it).
//!
//! A disk token proves that bytes are durable, not that an index is: a truncation may have replaced the entry since.
//! Compares the replica's durable mark with its simulated disk. It does not judge what the replica promises by the mark
//! (`durability_at_send`).

use continuum_core::raft::{Position, Raft};

use super::Step;
use crate::env::durable::LogView;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "durable-marks";

/// Judges a replica whose durable mark moved.
pub(crate) fn check(step: &Step<'_>, raft: &Raft) -> Verdict {
    let index = raft.durable();
    let Some(term) = raft.term_at(index).filter(|_| index > raft.base().index) else {
        return Ok(());
    };
    let view = step.processes[step.me].disk.durable.group(raft.group());
    let position = Position { term, index };
    if view.is_some_and(|view| view.holds(position)) {
        return Ok(());
    }
    let last = view.map(LogView::last);
    let what = format!("{position:?} counts as durable, and the disk's log ends at {last:?}");
    Err(Broken::new(NAME, what))
}
