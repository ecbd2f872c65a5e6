//! Reads at a leader: none is served by a leader that a majority had left for a later term before the read arrived
//! (Raft, §8, and ReadIndex in Ongaro's thesis, §6.4: leadership is confirmed after the read came).
//!
//! What a majority has left is taken from the simulated disks. What a read returns is judged at the end, in `strong`.

use std::collections::BTreeMap;

use continuum_core::api::Outcome;
use continuum_core::id::{GroupId, RequestId, Role, Term};
use continuum_core::raft::Raft;

use super::{Roster, Step};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "read-after-leadership";

/// Reads that arrived at a leader whom a majority had left.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    left: BTreeMap<(usize, RequestId), Term>,
}

impl Reads {
    /// A strong read arrives.
    pub(crate) fn arrives(&mut self, step: &Step<'_>, roster: &Roster, id: RequestId) {
        let Some(raft) = led(step) else { return };
        let voters = &raft.configuration().voters;
        let left = voters.iter().filter_map(|voter| roster.number(voter.node)).filter(|number| {
            let view = step.processes[*number].promised().group(raft.group());
            view.is_some_and(|view| view.term > raft.term())
        });
        if left.count() * 2 > voters.len() {
            self.left.insert((step.me, id), raft.term());
        }
    }

    /// A request is answered.
    pub(crate) fn check(&mut self, step: &Step<'_>, id: RequestId, outcome: &Outcome) -> Verdict {
        let Some(term) = self.left.remove(&(step.me, id)) else { return Ok(()) };
        let leads = led(step).is_some_and(|raft| raft.term() == term);
        if !leads || !matches!(outcome, Outcome::Value(_)) {
            return Ok(());
        }
        let what = format!("request {id} came when a majority had left term {term}, and is served");
        Err(Broken::new(NAME, what))
    }
}

/// The strong namespace's group, if the node leads it: the first one beside the registry, since tenants come later.
fn led<'a>(step: &Step<'a>) -> Option<&'a Raft> {
    let group = step.node.groups().find(|group| *group != GroupId::REGISTRY)?;
    step.node.raft(group).filter(|raft| raft.role() == Role::Leader)
}
