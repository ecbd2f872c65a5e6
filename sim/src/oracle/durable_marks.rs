//! Durable marks: what a replica counts as durable of its log is on its disk, as the entry that stands there now. A
//! token proves bytes, not indices (this project's design, section 4).

use continuum_core::raft::{Position, Raft};

use super::Step;
use crate::env::durable::LogView;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "durable-marks";

/// What a replica counts as durable of its log is on its disk, as the entry that stands there now.
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
